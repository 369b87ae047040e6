//! Which records of a batch are done, by what the function answered.

use std::collections::BTreeSet;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    AllDone,
    AllFailed,
    /// The places of those that failed; the others are done.
    SomeFailed(BTreeSet<usize>),
}

impl Verdict {
    /// What an answer means for the records with these ids. What it says of each counts only if the mapping asks for it.
    pub fn of(is_error: bool, reports_item_failures: bool, body: &[u8], ids: &[&str]) -> Self {
        match (is_error, reports_item_failures) {
            (true, _) => Self::AllFailed,
            (false, false) => Self::AllDone,
            (false, true) => of_response(body, ids),
        }
    }

    pub fn is_done(&self, place: usize) -> bool {
        match self {
            Self::AllDone => true,
            Self::AllFailed => false,
            Self::SomeFailed(failed) => !failed.contains(&place),
        }
    }
}

/// Reads an answer with `batchItemFailures`. What can't be understood fails the whole batch, so that nothing is taken
/// for done by mistake. Source: AWS's page on errors of queues; an object without the member recorded from AWS.
fn of_response(body: &[u8], ids: &[&str]) -> Verdict {
    let body: Value = match serde_json::from_slice(body) {
        _ if body.trim_ascii().is_empty() => return Verdict::AllDone,
        Ok(Value::Object(body)) if body.is_empty() => return Verdict::AllDone,
        Ok(body @ Value::Object(_)) => body,
        // It reports nothing.
        Ok(_) => return Verdict::AllDone,
        Err(_) => return Verdict::AllFailed,
    };
    let items = match body.get("batchItemFailures") {
        Some(Value::Null) => return Verdict::AllDone,
        Some(Value::Array(items)) => items,
        _ => return Verdict::AllFailed,
    };
    let mut failed = BTreeSet::new();
    for item in items {
        let id = item.get("itemIdentifier").and_then(Value::as_str);
        // A queue may give the same message twice.
        let places = ids.iter().enumerate().filter(|(_, known)| Some(**known) == id).map(|(place, _)| place);
        let mut is_known = false;
        failed.extend(places.inspect(|_| is_known = true));
        if !is_known {
            return Verdict::AllFailed;
        }
    }
    if failed.is_empty() { Verdict::AllDone } else { Verdict::SomeFailed(failed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_fails_all_and_what_is_not_asked_for_is_not_read() {
        let body = br#"{"batchItemFailures":[{"itemIdentifier":"a"}]}"#;
        let of = |is_error, reports| Verdict::of(is_error, reports, body, &["a", "b"]);
        assert_eq!((of(true, true), of(false, false)), (Verdict::AllFailed, Verdict::AllDone));
        assert_eq!((of(false, true).is_done(0), of(false, true).is_done(1)), (false, true));
    }

    #[test]
    fn what_each_answer_means() {
        let ids = ["a", "b", "c"];
        let of = |body: &str| of_response(body.as_bytes(), &ids);
        for done in [
            "",
            "null",
            "{}",
            r#"{"batchItemFailures":[]}"#,
            r#"{"batchItemFailures":null}"#,
            "[]",
            "5",
            r#""x""#,
        ] {
            assert_eq!(of(done), Verdict::AllDone, "{done}");
        }
        for failed in [
            "{",
            r#"{"foo":"notvalid"}"#,
            r#"{"batchItemFailures":"a"}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"id":"a"}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"stranger"}]}"#,
        ] {
            assert_eq!(of(failed), Verdict::AllFailed, "{failed}");
        }
        let some = of(
            r#"{"batchItemFailures":[{"itemIdentifier":"c"},{"itemIdentifier":"a"},{"itemIdentifier":"a"}]}"#,
        );
        assert_eq!(some, Verdict::SomeFailed([0, 2].into()));
        let twice = of_response(br#"{"batchItemFailures":[{"itemIdentifier":"a"}]}"#, &["a", "b", "a"]);
        assert_eq!(twice, Verdict::SomeFailed([0, 2].into()));
    }
}
