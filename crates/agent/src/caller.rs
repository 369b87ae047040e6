//! Who waits for an invocation: for its whole answer, or for the end of a stream it reads.

use bytes::Bytes;
use ondol_core::gate::ThrottleCause;
use ondol_core::time::WallTime;
use ondol_protocol::invocation::{Invocation, Refused, Reply, ReplyBody, ReplyStream, StreamEnd};
use tokio::sync::{mpsc, oneshot};

/// Where a caller waits.
enum Ear {
    /// For its whole answer.
    Answer(oneshot::Sender<Result<Reply, Refused>>),
    /// For the end of a stream it already reads.
    StreamEnd(oneshot::Sender<StreamEnd>),
}

/// Who waits for what becomes of an invocation, and the invocation itself for as long as it runs.
pub struct Caller {
    ear: Ear,
    pub invocation: Invocation,
    /// When the runtime got it; before that it may still go elsewhere.
    pub handed_at: Option<WallTime>,
}

impl Caller {
    pub fn new(answer: oneshot::Sender<Result<Reply, Refused>>, invocation: Invocation) -> Self {
        Self { ear: Ear::Answer(answer), invocation, handed_at: None }
    }

    pub fn is_streaming(&self) -> bool {
        matches!(self.ear, Ear::StreamEnd(_))
    }

    /// Lets it read while the function writes. None if it reads already.
    pub fn begin_stream(&mut self, content_type: String) -> Option<mpsc::Sender<Bytes>> {
        if self.is_streaming() {
            return None;
        }
        let (writer, stream) = ReplyStream::new();
        let before = std::mem::replace(&mut self.ear, Ear::StreamEnd(writer.end));
        let (body, content_type) = (ReplyBody::Stream(stream), Some(content_type));
        let reply = Reply { body, content_type, ..Reply::whole(None, Bytes::new(), None) };
        if let Ear::Answer(waiting) = before {
            // A caller that went away does not stop the function.
            let _ = waiting.send(Ok(reply));
        }
        Some(writer.chunks)
    }

    /// How it ended. The caller may have gone away; the function ran all the same.
    pub fn tell(
        self,
        function_error: Option<&'static str>,
        body: Bytes,
        log_tail: Option<String>,
        is_cut: bool,
    ) {
        match self.ear {
            Ear::Answer(answer) => {
                let whole = Reply { is_cut, ..Reply::whole(function_error, body, log_tail) };
                drop(answer.send(Ok(whole)));
            }
            Ear::StreamEnd(end) => {
                let error = function_error.map(|_| body);
                drop(end.send(StreamEnd { error, log_tail }));
            }
        }
    }

    /// It never reached the function.
    pub fn refuse(self, cause: ThrottleCause) {
        if let Ear::Answer(answer) = self.ear {
            let _ = answer.send(Err(Refused(cause)));
        }
    }
}
