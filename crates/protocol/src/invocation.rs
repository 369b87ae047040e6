//! One invocation on its way to an execution environment, and the answer on its way back.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use ondol_core::gate::ThrottleCause;
use ondol_core::identity::{EnvironmentId, PublicationId, RequestId};
use tokio::sync::{mpsc, oneshot};

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
    /// The caller takes the answer while it is being written, within these limits.
    pub stream: Option<StreamLimits>,
    /// What counts it against a limit.
    pub counted: Option<Counted>,
}

/// Something that counts an invocation until the last copy of it is gone, which the agent has for as long as it runs.
#[derive(Clone)]
pub struct Counted(#[allow(dead_code)] Arc<dyn Any + Send + Sync>);

impl Counted {
    pub fn by(count: impl Any + Send + Sync) -> Self {
        Self(Arc::new(count))
    }
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counted")
    }
}

/// How much a function may stream, and how fast. Source of the numbers: AWS's page on response streaming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    pub bytes_max: u64,
    /// So much goes as fast as it can, the rest at the rate.
    pub burst_bytes: u64,
    pub bytes_per_second: u64,
}

/// What the function answered, or what is answered in its place after a timeout or a crash.
#[derive(Debug)]
pub struct Reply {
    /// The value of `X-Amz-Function-Error`, when the body is an error.
    pub function_error: Option<&'static str>,
    /// What the function says its body is. Only streams say so.
    pub content_type: Option<String>,
    pub body: ReplyBody,
    /// The last 4 KB of this invocation's log lines, if wanted. A stream has it at its end.
    pub log_tail: Option<String>,
    /// This side ended the execution environment: the function had no chance to answer.
    pub is_cut: bool,
}

impl Reply {
    pub fn whole(function_error: Option<&'static str>, body: Bytes, log_tail: Option<String>) -> Self {
        Self { function_error, content_type: None, body: ReplyBody::Whole(body), log_tail, is_cut: false }
    }
}

/// The answer's bytes. Only who can take a stream gets one.
#[derive(Debug)]
pub enum ReplyBody {
    Whole(Bytes),
    Stream(ReplyStream),
}

/// How a stream ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamEnd {
    /// The error's own account, as JSON, when the function failed on the way.
    pub error: Option<Bytes>,
    pub log_tail: Option<String>,
}

/// Chunks of an answer as the function writes them. Whoever drops it lets the function go on unheard.
pub struct ReplyStream {
    chunks: mpsc::Receiver<Bytes>,
    end: oneshot::Receiver<StreamEnd>,
    ended: Option<StreamEnd>,
    on_end: Option<OnEnd>,
}

type OnEnd = Box<dyn FnOnce(Option<&StreamEnd>) + Send>;

/// The agent's side of a stream.
#[derive(Debug)]
pub struct StreamWriter {
    pub chunks: mpsc::Sender<Bytes>,
    pub end: oneshot::Sender<StreamEnd>,
}

/// Chunks between a function that writes and a caller that reads; more make the function wait.
const CHUNKS_MAX: usize = 4;

impl ReplyStream {
    pub fn new() -> (StreamWriter, Self) {
        let ((chunks, received), (end, ended)) = (mpsc::channel(CHUNKS_MAX), oneshot::channel());
        (StreamWriter { chunks, end }, Self { chunks: received, end: ended, ended: None, on_end: None })
    }

    /// Is told how the stream ended; none if nobody heard its end.
    pub fn when_over(&mut self, tell: impl FnOnce(Option<&StreamEnd>) + Send + 'static) {
        self.on_end = Some(Box::new(tell));
    }

    /// The next chunk; none at the end, which [`Self::end`] then tells.
    pub fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Poll::Ready(Some(chunk)) = self.chunks.poll_recv(context) {
                return Poll::Ready(Some(chunk));
            }
            if self.ended.is_some() {
                return Poll::Ready(None);
            }
            // The end may be said while the function goes on writing: after a timeout nothing of that is wanted.
            let Poll::Ready(end) = Pin::new(&mut self.end).poll(context) else { return Poll::Pending };
            let end = end.unwrap_or_else(|_| StreamEnd { error: Some(CUT.into()), log_tail: None });
            self.chunks.close();
            if let Some(tell) = self.on_end.take() {
                tell(Some(&end));
            }
            self.ended = Some(end);
        }
    }

    pub fn end(&self) -> Option<&StreamEnd> {
        self.ended.as_ref()
    }
}

/// What is said when an agent is gone before the end.
const CUT: &str = r#"{"errorType":"Runtime.TruncatedResponse","errorMessage":"The response ended before it was complete."}"#;

impl std::fmt::Debug for ReplyStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyStream").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        if let Some(tell) = self.on_end.take() {
            tell(None);
        }
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
