//! Values of a page as they go to a terminal.

use serde_json::Value;

/// A text, or any other value as JSON. Text may come from functions and services, and doesn't steer the terminal.
pub fn word(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The items of a list; none of anything else.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_does_not_steer_the_terminal() {
        assert_eq!(word(&Value::from("a\u{1b}[2Jb\nc")), "a [2Jb c");
        assert_eq!((word(&Value::from(7)), list(&Value::Null).len()), ("7".into(), 0));
    }
}
