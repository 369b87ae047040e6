//! One invocation on its way to an execution environment, and the answer on its way back.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use ondol_core::gate::ThrottleCause;
use ondol_core::identity::{EnvironmentId, PublicationId, RequestId};

/// The largest synchronous request or response: 6 MiB and 100 bytes, as AWS has it.
pub const PAYLOAD_BYTES_MAX: usize = 6_291_556;

/// Cheap to clone, so that a refused invocation can go to another environment.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub request: RequestId,
    pub publication: PublicationId,
    pub payload: Bytes,
    pub timeout_millis: u64,
    /// The ARN as it was invoked, with the qualifier the caller used.
    pub invoked_arn: Arc<str>,
    pub client_context: Option<Arc<str>>,
    pub trace_id: Option<Arc<str>>,
    /// The caller wants the end of the log.
    pub wants_log_tail: bool,
}

/// What the function answered, or what is answered in its place after a timeout or a crash.
#[derive(Debug)]
pub struct Reply {
    /// The value of `X-Amz-Function-Error`, when the body is an error.
    pub function_error: Option<&'static str>,
    pub body: ReplyBody,
    /// The last 4 KB of this invocation's log lines, if wanted.
    pub log_tail: Option<String>,
}

/// The answer's bytes as a stream. Whole for now: callers only know it as a body.
#[derive(Debug)]
pub struct ReplyBody(Option<Bytes>);

impl ReplyBody {
    pub fn whole(bytes: Bytes) -> Self {
        Self(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}

/// Why an environment did not take an invocation. It may go to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub ThrottleCause);

/// The agent's side of an invocation, in the shard that owns the environment.
pub trait Deliver {
    /// Hands an invocation to an environment and waits for its answer. The agent has the last word: it may
    /// refuse, and then the function has seen nothing of it.
    fn deliver(
        &self,
        environment: EnvironmentId,
        invocation: Invocation,
    ) -> impl Future<Output = Result<Reply, Refused>>;
}
