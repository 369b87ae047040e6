//! The answer of `InvokeWithResponseStream`: chunks as the function writes them, and how it ended.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use ondol_protocol::invocation::{Reply, ReplyBody, ReplyStream, StreamEnd};
use ondol_wire::event_stream::event;
use serde_json::{Map, Value};

/// A reply as events. A function that answers whole has one chunk.
#[derive(Debug)]
pub struct EventStream(State);

#[derive(Debug)]
enum State {
    Whole(Bytes, StreamEnd),
    Stream(ReplyStream),
    Ending(StreamEnd),
    Over,
}

impl EventStream {
    pub fn new(reply: Reply) -> Self {
        match reply.body {
            ReplyBody::Stream(stream) => Self(State::Stream(stream)),
            ReplyBody::Whole(body) => {
                let error = reply.function_error.map(|_| body.clone());
                Self(State::Whole(body, StreamEnd { error, log_tail: reply.log_tail }))
            }
        }
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let (message, next) = match &mut self.0 {
                State::Whole(body, end) => {
                    let (body, next) = (std::mem::take(body), State::Ending(std::mem::take(end)));
                    if body.is_empty() {
                        self.0 = next;
                        continue;
                    }
                    (chunk(&body), Some(next))
                }
                State::Stream(stream) => match stream.poll_chunk(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(bytes)) => (chunk(&bytes), None),
                    Poll::Ready(None) => {
                        let end = stream.end().cloned().unwrap_or_default();
                        self.0 = State::Ending(end);
                        continue;
                    }
                },
                State::Ending(end) => (complete(end), Some(State::Over)),
                State::Over => return Poll::Ready(None),
            };
            if let Some(next) = next {
                self.0 = next;
            }
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
    }
}

fn chunk(bytes: &[u8]) -> Bytes {
    event("PayloadChunk", "application/octet-stream", bytes)
}

fn complete(end: &StreamEnd) -> Bytes {
    let mut members = Map::new();
    if let Some(error) = &end.error {
        members.insert("ErrorCode".into(), "Unhandled".into());
        members.insert("ErrorDetails".into(), String::from_utf8_lossy(error).into());
    }
    if let Some(tail) = &end.log_tail {
        members.insert("LogResult".into(), STANDARD.encode(tail).into());
    }
    event("InvokeComplete", "application/json", Value::Object(members).to_string().as_bytes())
}
