//! An invocation that nobody outside waits for: an event's turn, a batch of an event source.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use ondol_core::identity::RequestId;

#[derive(Debug, Clone)]
pub struct Call {
    pub request: RequestId,
    pub function: Arc<str>,
    /// None stands for what an unqualified invocation stands for.
    pub qualifier: Option<Arc<str>>,
    pub payload: Bytes,
    pub trace_id: Option<Arc<str>>,
}

/// What became of a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Called {
    Answered {
        executed_version: Arc<str>,
        /// The body is an error of the function.
        is_error: bool,
        body: Bytes,
    },
    /// No capacity now.
    Throttled,
    /// Its reserved concurrency is 0: it takes nothing at all.
    Closed,
    /// There is no such function, version or alias: AWS's sentence.
    NotFound(String),
    /// A fault of this side, or a state that passes: why.
    Unavailable(String),
}

/// The door to the hot path for those within.
pub trait Invoke {
    fn invoke(&self, call: Call) -> impl Future<Output = Called>;
}
