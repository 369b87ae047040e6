//! An event as it waits in the queue, and what its attempts left behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event_queue::{Condition, Rules, Tries};
use crate::identity::RequestId;

/// What is kept of an asynchronous invocation beside its payload. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHead {
    /// Its id in every attempt, record and dead letter.
    pub request: RequestId,
    /// As the caller asked for it; which version runs is decided anew for each attempt.
    pub qualifier: Option<Arc<str>>,
    pub trace_id: Option<Arc<str>>,
    /// How often destinations have brought the chain it belongs to through each function.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub passed: BTreeMap<Arc<str>, u32>,
}

/// The largest payload of an event, as AWS has it.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Times a chain of destinations may come through one function. Source: AWS's page on recursive loops.
const PASSES_MAX: u32 = 16;

impl EventHead {
    /// Where it waits: events of one function and qualifier share their capacity.
    pub fn lane(&self, function: &str) -> Arc<str> {
        match &self.qualifier {
            Some(qualifier) => format!("{function}:{qualifier}").into(),
            None => function.into(),
        }
    }

    /// The head of the event that brings this one's outcome, as an event of `from`, to the function `to`.
    pub fn follow_up(&self, from: &str, request: RequestId, to: &str, qualifier: Option<String>) -> Self {
        let mut passed = self.passed.clone();
        // Where the chain began counts too.
        passed.entry(from.into()).or_insert(1);
        *passed.entry(to.into()).or_default() += 1;
        Self { request, qualifier: qualifier.map(Into::into), trace_id: self.trace_id.clone(), passed }
    }

    /// Whether destinations have brought it round to a function too often.
    pub fn is_in_a_loop(&self, function: &str) -> bool {
        self.passed.get(function).is_some_and(|passes| *passes > PASSES_MAX)
    }
}

/// What a function's owner wants of its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventSettings {
    pub rules: Rules,
    pub on_success: Option<String>,
    pub on_failure: Option<String>,
    pub dead_letter: Option<String>,
    /// Destinations are reached with it. None if there is no such function.
    pub role: Option<String>,
    /// The function's. A batch of an event source is under way for so long at most.
    pub timeout_seconds: u32,
    pub stops_loops: bool,
}

impl EventSettings {
    /// Who wants to hear of an event that ended: of a failure the destination and the dead-letter queue, each by itself.
    pub fn targets(&self, conclusion: Conclusion) -> Vec<Target> {
        let target = |form, arn: &Option<String>| arn.clone().map(|arn| Target { arn, form });
        let targets = match conclusion {
            Conclusion::Success => [target(Form::Record, &self.on_success), None],
            Conclusion::Failure(_) => {
                [target(Form::Record, &self.on_failure), target(Form::DeadLetter, &self.dead_letter)]
            }
        };
        targets.into_iter().flatten().collect()
    }
}

/// How an event's invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conclusion {
    Success,
    #[serde(untagged)]
    Failure(Condition),
}

impl Conclusion {
    /// AWS's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Failure(condition) => condition.name(),
        }
    }
}

/// What an event has behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Progress {
    /// Attempts that did not end it.
    Tried {
        tries: Tries,
        /// When the next may start.
        due_epoch_millis: i64,
        /// Why the last did not succeed, in a sentence.
        why: String,
        /// What the function answered last, if it ever did.
        #[serde(default)]
        response: Option<EventResponse>,
    },
    /// Its invocation is over; these destinations have not taken it yet.
    Outgoing(Outgoing),
}

/// An outcome on its way to where it is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outgoing {
    pub condition: Conclusion,
    pub ended_epoch_millis: i64,
    pub tries: Tries,
    pub response: Option<EventResponse>,
    pub targets: Vec<Target>,
    /// Some target has taken it already.
    pub is_delivered: bool,
    /// Deliveries that failed.
    pub failures: u32,
    pub due_epoch_millis: i64,
    pub why: String,
}

/// What the last attempt was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventResponse {
    /// 200 when the code ran, 404 without a function, 429 without capacity.
    pub status: u16,
    pub executed_version: Option<Arc<str>>,
    pub is_error: bool,
    /// The error's text where nothing was answered.
    pub message: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub arn: String,
    pub form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// A destination: the record of the invocation.
    Record,
    /// A dead-letter queue: the event as it came.
    DeadLetter,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> EventHead {
        EventHead { request: RequestId(1), qualifier: None, trace_id: None, passed: BTreeMap::new() }
    }

    #[test]
    fn a_chain_that_comes_round_too_often_is_a_loop() {
        let (mut head, mut rounds) = (head(), 0);
        while !head.is_in_a_loop("ping") {
            head = head.follow_up("ping", RequestId(2), "pong", None);
            assert!(!head.is_in_a_loop("pong"), "the first to be seen is where it began");
            head = head.follow_up("pong", RequestId(3), "ping", Some("live".into()));
            rounds += 1;
        }
        assert_eq!((rounds, head.qualifier.as_deref()), (16, Some("live")));
    }

    #[test]
    fn who_hears_of_what() {
        let arn = |text: &str| Some(text.to_owned());
        let settings = EventSettings {
            on_success: arn("s"),
            on_failure: arn("f"),
            dead_letter: arn("d"),
            ..EventSettings::default()
        };
        let told = |conclusion| -> Vec<(String, Form)> {
            settings.targets(conclusion).into_iter().map(|target| (target.arn, target.form)).collect()
        };
        assert_eq!(told(Conclusion::Success), [("s".into(), Form::Record)]);
        let failed = Conclusion::Failure(Condition::RetriesExhausted);
        assert_eq!(told(failed), [("f".into(), Form::Record), ("d".into(), Form::DeadLetter)]);
    }

    #[test]
    fn conclusions_are_written_as_aws_names_them() {
        for conclusion in [Conclusion::Success, Conclusion::Failure(Condition::EventAgeExceeded)] {
            let text = serde_json::to_string(&conclusion).unwrap();
            assert_eq!(text, format!("\"{}\"", conclusion.name()));
            assert_eq!(serde_json::from_str::<Conclusion>(&text).unwrap(), conclusion);
        }
    }
}
