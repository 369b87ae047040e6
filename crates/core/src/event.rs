//! An event as it waits in the queue, and what its attempts left behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event_queue::Tries;
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

/// Times a chain of destinations may come through one function. Source: AWS's page on recursive loops.
pub const PASSES_MAX: u32 = 16;

impl EventHead {
    /// Where it waits: events of one function and qualifier share their capacity.
    pub fn lane(&self, function: &str) -> Arc<str> {
        match &self.qualifier {
            Some(qualifier) => format!("{function}:{qualifier}").into(),
            None => function.into(),
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
    /// `Success` or why it was given up.
    pub condition: String,
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
