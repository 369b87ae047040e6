//! What a field's value is held against.

use std::net::IpAddr;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
pub enum Matcher {
    Equal(Value),
    Text(Text),
    /// The field is there, and none of these accepts it.
    AnythingBut(Vec<Matcher>),
    Numeric(Vec<(Comparison, f64)>),
    Exists(bool),
    Cidr(IpAddr, u8),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Text {
    Prefix(Letters),
    Suffix(Letters),
    IsFolded(String),
    /// None stands for any letters, also none at all.
    Wildcard(Vec<Option<char>>),
}

/// A part of a text, and whether upper and lower case are the same.
#[derive(Debug, Clone, PartialEq)]
pub enum Letters {
    Exact(String),
    Folded(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Below,
    AtMost,
    Above,
    AtLeast,
}

impl Matcher {
    pub fn parse(leaf: &Value) -> Option<Self> {
        let matcher = match leaf {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Some(Self::Equal(leaf.clone()));
            }
            Value::Array(_) => return None,
            Value::Object(matcher) => matcher,
        };
        let mut members = matcher.iter();
        let ((name, value), None) = (members.next()?, members.next()) else { return None };
        match name.as_str() {
            "exists" => value.as_bool().map(Self::Exists),
            "anything-but" => anything_but(value),
            "numeric" => numeric(value.as_array()?).map(Self::Numeric),
            "cidr" => cidr(value.as_str()?),
            _ => Text::parse(name, value).map(Self::Text),
        }
    }

    /// Whether a field's value is accepted; none if there is no such field.
    pub fn accepts(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Exists(wanted) => value.is_some_and(has_leaf) == *wanted,
            _ => value.is_some_and(|value| self.accepts_any(value)),
        }
    }

    /// One element of a list is enough.
    fn accepts_any(&self, value: &Value) -> bool {
        match value {
            Value::Array(values) => values.iter().any(|value| self.accepts_any(value)),
            Value::Object(_) => false,
            leaf => self.accepts_leaf(leaf),
        }
    }

    fn accepts_leaf(&self, leaf: &Value) -> bool {
        match self {
            // Whole numbers as they are: as a double, large ones next to each other are the same.
            Self::Equal(wanted) if is_whole(wanted) && is_whole(leaf) => wanted == leaf,
            Self::Equal(wanted) => match (wanted.as_f64(), leaf.as_f64()) {
                (Some(wanted), Some(number)) => is_same(wanted, number),
                _ => wanted == leaf,
            },
            Self::Text(text) => leaf.as_str().is_some_and(|leaf| text.accepts(leaf)),
            Self::AnythingBut(others) => !others.iter().any(|other| other.accepts_leaf(leaf)),
            Self::Numeric(terms) => leaf.as_f64().is_some_and(|number| {
                terms.iter().all(|(comparison, bound)| comparison.holds(number, *bound))
            }),
            Self::Exists(_) => false,
            Self::Cidr(network, bits) => leaf
                .as_str()
                .and_then(|leaf| leaf.parse().ok())
                .is_some_and(|address| is_within(address, *network, *bits)),
        }
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

fn is_same(a: f64, b: f64) -> bool {
    a.total_cmp(&b).is_eq() || (a - b).abs() < f64::EPSILON * a.abs()
}

fn has_leaf(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(values) => values.iter().any(has_leaf),
        _ => true,
    }
}

impl Text {
    fn parse(name: &str, value: &Value) -> Option<Self> {
        match name {
            "prefix" => Letters::parse(value).map(Self::Prefix),
            "suffix" => Letters::parse(value).map(Self::Suffix),
            "equals-ignore-case" => value.as_str().map(|text| Self::IsFolded(text.to_lowercase())),
            "wildcard" => wildcard(value.as_str()?).map(Self::Wildcard),
            _ => None,
        }
    }

    fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Prefix(Letters::Exact(letters)) => text.starts_with(letters),
            Self::Prefix(Letters::Folded(letters)) => text.to_lowercase().starts_with(letters),
            Self::Suffix(Letters::Exact(letters)) => text.ends_with(letters),
            Self::Suffix(Letters::Folded(letters)) => text.to_lowercase().ends_with(letters),
            Self::IsFolded(folded) => text.to_lowercase() == *folded,
            Self::Wildcard(parts) => follows(text, parts),
        }
    }
}

impl Letters {
    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Exact(text.clone())),
            Value::Object(folded) if folded.len() == 1 => {
                let text = folded.get("equals-ignore-case")?.as_str()?;
                Some(Self::Folded(text.to_lowercase()))
            }
            _ => None,
        }
    }
}

/// A literal, a list of one kind of literals, or one text matcher, whose operand may be a list too.
fn anything_but(value: &Value) -> Option<Matcher> {
    let values = match value {
        Value::Object(inner) => {
            let mut members = inner.iter();
            let ((name, value), None) = (members.next()?, members.next()) else { return None };
            let operands = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let not = operands.iter().map(|operand| Text::parse(name, operand).map(Matcher::Text));
            return not.collect::<Option<Vec<_>>>().filter(|not| !not.is_empty()).map(Matcher::AnythingBut);
        }
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let one_kind = values.iter().all(Value::is_string) || values.iter().all(Value::is_number);
    let not = || values.iter().cloned().map(Matcher::Equal).collect();
    (one_kind && !values.is_empty()).then(|| Matcher::AnythingBut(not()))
}

/// One comparison, or a lower bound and then an upper one.
fn numeric(terms: &[Value]) -> Option<Vec<(Comparison, f64)>> {
    let pairs = terms.chunks(2).map(|pair| match pair {
        [Value::String(comparison), number] => Some((Comparison::parse(comparison)?, number.as_f64()?)),
        _ => None,
    });
    let pairs = pairs.collect::<Option<Vec<_>>>()?;
    use Comparison::{Above, AtLeast, AtMost, Below};
    match pairs[..] {
        [_] | [(Above | AtLeast, _), (Below | AtMost, _)] => Some(pairs),
        _ => None,
    }
}

impl Comparison {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "=" => Self::Equal,
            "<" => Self::Below,
            "<=" => Self::AtMost,
            ">" => Self::Above,
            ">=" => Self::AtLeast,
            _ => return None,
        })
    }

    fn holds(self, number: f64, bound: f64) -> bool {
        match self {
            Self::Equal => is_same(number, bound),
            Self::Below => number < bound,
            Self::AtMost => number <= bound,
            Self::Above => number > bound,
            Self::AtLeast => number >= bound,
        }
    }
}

fn cidr(text: &str) -> Option<Matcher> {
    let (network, bits) = text.split_once('/')?;
    let (network, bits): (IpAddr, u8) = (network.parse().ok()?, bits.parse().ok()?);
    (bits <= if network.is_ipv4() { 32 } else { 128 }).then_some(Matcher::Cidr(network, bits))
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    // Both at the upper end of 128 bits, so that one comparison does for both families.
    let bits_of = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    address.is_ipv4() == network.is_ipv4() && bits_of(address) & mask == bits_of(network) & mask
}

/// A backslash takes the star, or the backslash, behind it for a letter.
fn wildcard(text: &str) -> Option<Vec<Option<char>>> {
    let mut parts = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => parts.push(Some(letters.next().filter(|letter| matches!(letter, '*' | '\\'))?)),
            '*' if parts.last() == Some(&None) => return None,
            '*' => parts.push(None),
            letter => parts.push(Some(letter)),
        }
    }
    Some(parts)
}

/// Whether a text is of a wildcard's form. When letters no longer fit, only the last star is given one letter more:
/// what an earlier one took does not matter any more.
fn follows(text: &str, parts: &[Option<char>]) -> bool {
    let letters: Vec<char> = text.chars().collect();
    let (mut at, mut part) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < letters.len() {
        match parts.get(part) {
            Some(None) => {
                star = Some((part, at));
                part += 1;
            }
            Some(Some(letter)) if *letter == letters[at] => {
                at += 1;
                part += 1;
            }
            _ => {
                let Some((star_part, taken)) = star else { return false };
                star = Some((star_part, taken + 1));
                (part, at) = (star_part + 1, taken + 1);
            }
        }
    }
    parts[part..].iter().all(Option::is_none)
}
