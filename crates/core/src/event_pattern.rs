//! Filter patterns, as EventBridge writes them: what is well formed, and what an event must have to match.
//!
//! Source: AWS's page on filtering syntax; where that is silent, the behaviour of AWS's open rule engine.

mod matcher;

use serde_json::{Map, Value};

use matcher::Matcher;

/// Objects within each other that are looked into.
const DEPTH_MAX: usize = 64;

/// An object of a pattern: an event matches if each of its fields does, and one of each list of alternatives.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pattern {
    fields: Vec<(String, Field)>,
    alternatives: Vec<Vec<Pattern>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Field {
    /// One of these must match.
    Leaf(Vec<Matcher>),
    Object(Pattern),
}

impl Pattern {
    /// None if it is not well formed: objects all the way down to lists of literals and of matchers, nothing empty
    /// within it.
    pub fn parse(pattern: &Value) -> Option<Self> {
        Self::read(pattern, DEPTH_MAX)
    }

    fn read(pattern: &Value, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        let mut read = Self::default();
        for (name, value) in pattern.as_object()? {
            match value {
                Value::Array(alternatives) if name == "$or" => {
                    let of = alternatives.iter().map(|one| Self::read(one, depth));
                    read.alternatives.push(of.collect::<Option<Vec<_>>>().filter(|of| !of.is_empty())?);
                }
                Value::Array(leaves) => {
                    let matchers = leaves.iter().map(Matcher::parse).collect::<Option<Vec<_>>>();
                    let matchers = matchers.filter(|matchers| !matchers.is_empty())?;
                    read.fields.push((name.clone(), Field::Leaf(matchers)));
                }
                Value::Object(inner) if !inner.is_empty() => {
                    read.fields.push((name.clone(), Field::Object(Self::read(value, depth)?)));
                }
                _ => return None,
            }
        }
        Some(read)
    }

    pub fn matches(&self, event: &Value) -> bool {
        self.matches_but(event, None)
    }

    /// The same, where nothing is found within one member of the event, not even that something is absent.
    pub fn matches_but(&self, event: &Value, closed: Option<&str>) -> bool {
        self.holds(event, &mut Place { event, path: Vec::new(), closed })
    }

    fn holds<'a>(&'a self, value: &Value, place: &mut Place<'a, '_>) -> bool {
        match value {
            // What a path goes through is one element: two fields never match in two elements.
            Value::Array(elements) if !elements.is_empty() => {
                elements.iter().any(|element| self.holds(element, place))
            }
            Value::Object(members) => self.holds_of(members, place),
            // Nothing is below it, which `exists: false` is content with.
            _ => self.holds_of(&Map::new(), place),
        }
    }

    fn holds_of<'a>(&'a self, members: &Map<String, Value>, place: &mut Place<'a, '_>) -> bool {
        let field = |place: &mut Place<'a, '_>, name: &'a str, field: &'a Field| {
            let value = get(members, name);
            place.path.push(name);
            let holds = match field {
                Field::Leaf(matchers) => matchers.iter().any(|matcher| match matcher {
                    // In no element of any list on the way.
                    Matcher::Exists(false) => !is_within(place.event, &place.path),
                    matcher => matcher.accepts(value),
                }),
                Field::Object(_) if place.path.len() == 1 && place.closed == Some(name) => false,
                Field::Object(inner) => inner.holds(value.unwrap_or(&Value::Null), place),
            };
            place.path.pop();
            holds
        };
        let fields = self.fields.iter().all(|(name, what)| field(place, name, what));
        fields && self.alternatives.iter().all(|of| of.iter().any(|one| one.holds_of(members, place)))
    }
}

/// Where in the event a part of the pattern is asked.
struct Place<'a, 'e> {
    event: &'e Value,
    path: Vec<&'a str>,
    closed: Option<&'e str>,
}

/// A member by its name; dots in the name lead into objects, unless there is a member of that very name.
fn get<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        get(members.get(first)?.as_object()?, rest)
    })
}

/// Whether there is anything but objects at a path, in whatever elements of lists.
fn is_within(value: &Value, path: &[&str]) -> bool {
    match (value, path) {
        (Value::Array(elements), _) => elements.iter().any(|element| is_within(element, path)),
        (Value::Object(members), [name, rest @ ..]) => {
            get(members, name).is_some_and(|value| is_within(value, rest))
        }
        (Value::Object(_), []) => false,
        (_, rest) => rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Option<Pattern> {
        Pattern::parse(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn well_formed_patterns_and_others() {
        for good in [
            r#"{"body": {"a": [1, "x", null, {"prefix": "p"}]}}"#,
            r#"{"a": [{"numeric": [">", 0, "<=", 5]}, {"anything-but": ["x"]}, {"exists": false}]}"#,
            r#"{"$or": [{"a": ["x"]}, {"b": ["y"]}]}"#,
            r#"{"a": [{"anything-but": {"prefix": "x"}}, {"prefix": {"equals-ignore-case": "x"}}]}"#,
            "{}",
        ] {
            assert!(pattern(good).is_some(), "{good}");
        }
        for bad in [
            r#""text""#,
            "null",
            r#"{"a": "x"}"#,
            r#"{"a": []}"#,
            r#"{"a": {}}"#,
            r#"{"a": [[1]]}"#,
            r#"{"$or": []}"#,
            r#"{"a": [{"numeric": ["between", 1]}]}"#,
            r#"{"a": [{"numeric": ["<", 1, ">", 0]}]}"#,
            r#"{"a": [{"numeric": [">", 1, ">", 0]}]}"#,
            r#"{"a": [{"numeric": []}]}"#,
            r#"{"a": [{"like": "x"}]}"#,
            r#"{"a": [{"exists": "yes"}]}"#,
            r#"{"a": [{"anything-but": []}]}"#,
            r#"{"a": [{"anything-but": ["x", 1]}]}"#,
            r#"{"a": [{"wildcard": "a**b"}]}"#,
            r#"{"a": [{"wildcard": "a\\b"}]}"#,
            r#"{"a": [{"cidr": "10.0.0.0"}]}"#,
            r#"{"a": [{"prefix": "x", "suffix": "y"}]}"#,
        ] {
            assert!(pattern(bad).is_none(), "{bad}");
        }
        let deep = "{\"a\":".repeat(80) + "[1]" + &"}".repeat(80);
        assert!(pattern(&deep).is_none());
    }

    /// Each pattern, what matches it, and what does not.
    #[test]
    fn what_matches() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("{}", &["{}", r#"{"a":1}"#], &[]),
            (
                r#"{"a": ["x", "y"]}"#,
                &[r#"{"a":"x"}"#, r#"{"a":["q","y"]}"#],
                &[r#"{"a":"X"}"#, r#"{"b":"x"}"#, "{}"],
            ),
            (r#"{"a": [1]}"#, &[r#"{"a":1}"#, r#"{"a":1.0}"#], &[r#"{"a":"1"}"#, r#"{"a":true}"#]),
            (r#"{"a": [null]}"#, &[r#"{"a":null}"#], &["{}", r#"{"a":"null"}"#, r#"{"a":""}"#]),
            (r#"{"a": [""]}"#, &[r#"{"a":""}"#], &[r#"{"a":null}"#]),
            (r#"{"a": ["x"], "b": ["y"]}"#, &[r#"{"a":"x","b":"y","c":0}"#], &[r#"{"a":"x"}"#]),
            (r#"{"a": [{"prefix": "re"}]}"#, &[r#"{"a":"regal"}"#], &[r#"{"a":"Re"}"#, r#"{"a":5}"#]),
            (
                r#"{"a": [{"prefix": {"equals-ignore-case": "re"}}]}"#,
                &[r#"{"a":"REgal"}"#],
                &[r#"{"a":"ro"}"#],
            ),
            (r#"{"a": [{"suffix": ".png"}]}"#, &[r#"{"a":"x.png"}"#], &[r#"{"a":"x.PNG"}"#]),
            (
                r#"{"a": [{"suffix": {"equals-ignore-case": ".png"}}]}"#,
                &[r#"{"a":"x.PNG"}"#],
                &[r#"{"a":"png"}"#],
            ),
            (r#"{"a": [{"equals-ignore-case": "Alice"}]}"#, &[r#"{"a":"aLICE"}"#], &[r#"{"a":"alic"}"#]),
            (r#"{"a": [{"wildcard": "a*c*"}]}"#, &[r#"{"a":"abc"}"#, r#"{"a":"acd"}"#], &[r#"{"a":"xabc"}"#]),
            (r#"{"a": [{"wildcard": "a\\*\\\\"}]}"#, &[r#"{"a":"a*\\"}"#], &[r#"{"a":"abc\\"}"#]),
            (
                r#"{"a": [{"anything-but": ["x", "y"]}]}"#,
                &[r#"{"a":"z"}"#, r#"{"a":5}"#, r#"{"a":["x","z"]}"#],
                &["{}", r#"{"a":"x"}"#],
            ),
            (r#"{"a": [{"anything-but": 5}]}"#, &[r#"{"a":6}"#], &[r#"{"a":5.0}"#]),
            (
                r#"{"a": [{"anything-but": {"prefix": "x"}}]}"#,
                &[r#"{"a":"z"}"#, r#"{"a":5}"#],
                &[r#"{"a":"xz"}"#],
            ),
            (
                r#"{"a": [{"anything-but": {"equals-ignore-case": ["x", "y"]}}]}"#,
                &[r#"{"a":"z"}"#],
                &[r#"{"a":"Y"}"#],
            ),
            (
                r#"{"a": [{"numeric": [">", 0, "<=", 5]}]}"#,
                &[r#"{"a":5}"#, r#"{"a":0.1}"#],
                &[r#"{"a":0}"#, r#"{"a":"3"}"#, r#"{"a":6}"#],
            ),
            (r#"{"a": [{"numeric": ["=", 5]}]}"#, &[r#"{"a":5.0}"#], &[r#"{"a":4}"#]),
            (
                r#"{"a": [{"exists": true}]}"#,
                &[r#"{"a":null}"#, r#"{"a":[1]}"#],
                &["{}", r#"{"a":{"b":1}}"#, r#"{"a":[]}"#],
            ),
            (r#"{"a": [{"exists": false}]}"#, &["{}", r#"{"a":{"b":1}}"#, r#"{"a":[]}"#], &[r#"{"a":1}"#]),
            (
                r#"{"a": {"b": [{"exists": false}]}}"#,
                &["{}", r#"{"a":{}}"#, r#"{"a":5}"#],
                &[r#"{"a":{"b":1}}"#],
            ),
            (
                r#"{"a": [{"cidr": "10.1.0.0/16"}]}"#,
                &[r#"{"a":"10.1.2.3"}"#],
                &[r#"{"a":"10.2.0.1"}"#, r#"{"a":"x"}"#, r#"{"a":"::1"}"#],
            ),
            (
                r#"{"a": [{"cidr": "2001:db8::/32"}]}"#,
                &[r#"{"a":"2001:db8::1"}"#],
                &[r#"{"a":"2001:db9::1"}"#],
            ),
            (
                r#"{"$or": [{"a": ["x"]}, {"b": [1]}], "c": [2]}"#,
                &[r#"{"a":"x","c":2}"#, r#"{"b":1,"c":2}"#],
                &[r#"{"a":"x"}"#, r#"{"c":2}"#],
            ),
            // Two fields of one rule don't match in two elements.
            (
                r#"{"a": {"b": [1], "c": [2]}}"#,
                &[r#"{"a":[{"b":0},{"b":1,"c":2}]}"#],
                &[r#"{"a":[{"b":1},{"c":2}]}"#],
            ),
            (r#"{"a": [1]}"#, &[r#"{"a":[[0],[1]]}"#], &[r#"{"a":[{"a":1}]}"#]),
        ];
        for (rule, matching, others) in table {
            let rule_of = pattern(rule).unwrap();
            let holds = |event: &str| rule_of.matches(&serde_json::from_str(event).unwrap());
            matching.iter().for_each(|event| assert!(holds(event), "{rule} should match {event}"));
            others.iter().for_each(|event| assert!(!holds(event), "{rule} should not match {event}"));
        }
    }

    #[test]
    fn a_wildcard_of_many_stars_ends() {
        let rule = pattern(&format!(r#"{{"a": [{{"wildcard": "{}b"}}]}}"#, "*a".repeat(50))).unwrap();
        assert!(!rule.matches(&serde_json::json!({"a": "a".repeat(10_000)})));
    }
}
