//! Which records a mapping's filters let through.

use serde_json::{Map, Value};

use crate::event_pattern::Pattern;

/// One of the patterns must match; none at all lets everything through.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    patterns: Vec<Pattern>,
    /// The member of a record that is the payload: `body`, `data`, `value`.
    payload_member: &'static str,
}

impl Filters {
    /// Of a mapping's `FilterCriteria`; none if one of them is not well formed, for then it is not known what is wanted.
    pub fn new(criteria: Option<&Value>, payload_member: &'static str) -> Option<Self> {
        let filters = criteria.and_then(|criteria| criteria["Filters"].as_array()).into_iter().flatten();
        let patterns = filters.map(|filter| {
            let pattern: Value = serde_json::from_str(filter["Pattern"].as_str()?).ok()?;
            Pattern::parse(&pattern)
        });
        Some(Self { patterns: patterns.collect::<Option<_>>()?, payload_member })
    }

    /// Whether a record with these members, and this payload, is wanted. A pattern for JSON lets no text through, nor
    /// the other way round. Source: AWS's table of filters by payload.
    pub fn let_through(&self, members: &Map<String, Value>, payload: &[u8]) -> bool {
        if self.patterns.is_empty() {
            return true;
        }
        let json = serde_json::from_slice::<Value>(payload).ok();
        let json = json.filter(|json| json.is_object() || json.is_array());
        let closed = json.is_none().then_some(self.payload_member);
        let payload = json.unwrap_or_else(|| String::from_utf8_lossy(payload).into());
        let mut event = members.clone();
        event.insert(self.payload_member.to_owned(), payload);
        let event = Value::Object(event);
        self.patterns.iter().any(|pattern| pattern.matches_but(&event, closed))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(patterns: &[&str], payload: &str) -> bool {
        let filters: Vec<Value> = patterns.iter().map(|pattern| json!({"Pattern": pattern})).collect();
        let filters = Filters::new(Some(&json!({"Filters": filters})), "body").unwrap();
        let members = json!({"eventSource": "aws:sqs"});
        filters.let_through(members.as_object().unwrap(), payload.as_bytes())
    }

    #[test]
    fn json_and_text_don_t_match_each_other() {
        assert!(holds(&[], "anything"));
        assert!(holds(&[r#"{"body":{"a":["x"]}}"#], r#"{"a":"x"}"#));
        assert!(!holds(&[r#"{"body":{"a":["x"]}}"#], r#"{"a":"y"}"#));
        assert!(!holds(&[r#"{"body":{"a":[{"exists":false}]}}"#], "plain"));
        assert!(holds(&[r#"{"body":{"a":[{"exists":false}]}}"#], "{}"));
        assert!(holds(&[r#"{"body":["plain"]}"#], "plain"));
        assert!(!holds(&[r#"{"body":["plain"]}"#], r#"{"a":"plain"}"#));
        assert!(holds(&[r#"{"body":["5"]}"#], "5"), "a number alone is text");
        assert!(holds(&[r#"{"body":["x"]}"#, r#"{"body":["y"]}"#], "y"));
        assert!(holds(&[r#"{"eventSource":["aws:sqs"]}"#], "plain"), "a pattern may leave the payload out");
        assert!(!holds(&[r#"{"eventSource":["other"]}"#], "plain"));
        let or = r#"{"$or":[{"body":{"a":[1]}},{"eventSource":["aws:sqs"]}]}"#;
        assert!(holds(&[or], "plain"), "the other alternative holds");
    }

    #[test]
    fn a_filter_that_can_t_be_read_is_none() {
        let criteria = json!({"Filters": [{"Pattern": "{}"}, {"Pattern": r#"{"a":{}}"#}]});
        assert!(Filters::new(Some(&criteria), "body").is_none());
        assert!(Filters::new(None, "body").is_some());
    }
}
