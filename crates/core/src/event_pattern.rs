//! Filter patterns of event source mappings, as EventBridge writes them: whether one is well formed.

use serde_json::Value;

/// Objects all the way down to lists of literals and of matchers; nothing empty.
pub fn is_valid(pattern: &Value) -> bool {
    match pattern {
        Value::Object(members) => members.iter().all(|(name, value)| match value {
            Value::Array(alternatives) if name == "$or" => {
                !alternatives.is_empty() && alternatives.iter().all(is_valid)
            }
            Value::Array(leaves) => !leaves.is_empty() && leaves.iter().all(is_leaf),
            Value::Object(_) => is_valid(value),
            _ => false,
        }),
        _ => false,
    }
}

fn is_leaf(leaf: &Value) -> bool {
    match leaf {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Array(_) => false,
        Value::Object(matcher) => {
            matcher.len() == 1 && matcher.iter().all(|(name, value)| is_matcher(name, value))
        }
    }
}

fn is_matcher(name: &str, value: &Value) -> bool {
    let is_text_or_folded =
        |value: &Value| value.is_string() || value.get("equals-ignore-case").is_some_and(Value::is_string);
    match name {
        "exists" => value.is_boolean(),
        "prefix" | "suffix" => is_text_or_folded(value),
        "equals-ignore-case" | "wildcard" | "cidr" => value.is_string(),
        "anything-but" => match value {
            Value::Array(values) => {
                !values.is_empty() && values.iter().all(|value| value.is_string() || value.is_number())
            }
            Value::Object(inner) => {
                inner.len() == 1
                    && inner.iter().all(|(name, value)| {
                        matches!(name.as_str(), "prefix" | "suffix" | "equals-ignore-case" | "wildcard")
                            && (value.is_string() || value.is_array())
                    })
            }
            _ => value.is_string() || value.is_number(),
        },
        "numeric" => value.as_array().is_some_and(|terms| {
            let pairs = terms.chunks(2);
            !terms.is_empty()
                && terms.len() <= 4
                && pairs.into_iter().all(|pair| match pair {
                    [Value::String(operator), Value::Number(_)] => {
                        matches!(operator.as_str(), "=" | "<" | "<=" | ">" | ">=")
                    }
                    _ => false,
                })
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_patterns_and_others() {
        for good in [
            r#"{"body": {"a": [1, "x", null, {"prefix": "p"}]}}"#,
            r#"{"a": [{"numeric": [">", 0, "<=", 5]}, {"anything-but": ["x"]}, {"exists": false}]}"#,
            r#"{"$or": [{"a": ["x"]}, {"b": ["y"]}]}"#,
            "{}",
        ] {
            assert!(is_valid(&serde_json::from_str(good).unwrap()), "{good}");
        }
        for bad in [
            r#""text""#,
            r#"{"a": "x"}"#,
            r#"{"a": []}"#,
            r#"{"a": [[1]]}"#,
            r#"{"a": [{"numeric": ["between", 1]}]}"#,
            r#"{"a": [{"like": "x"}]}"#,
            r#"{"a": [{"exists": "yes"}]}"#,
        ] {
            assert!(!is_valid(&serde_json::from_str(bad).unwrap()), "{bad}");
        }
    }
}
