//! What a function answers, as a web response.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use hyper::{Response, StatusCode};
use ondol_protocol::invocation::{Reply, ReplyBody, ReplyStream};
use serde_json::Value;

use super::Refusal;
use crate::answer::Body;

/// The content type of a stream that begins with its own head.
const WITH_PRELUDE: &str = "application/vnd.awslambda.http-integration-response";
const DELIMITER: [u8; 8] = [0; 8];
const PRELUDE_BYTES_MAX: usize = 64 << 10;

pub async fn of(reply: Reply) -> Result<Response<Body>, Refusal> {
    if reply.function_error.is_some() {
        return Err(Refusal::failed());
    }
    match reply.body {
        ReplyBody::Whole(body) => whole(&body),
        ReplyBody::Stream(stream) => streamed(stream, reply.content_type).await,
    }
}

/// An object with a status says everything itself; anything else is the body of a success.
fn whole(body: &Bytes) -> Result<Response<Body>, Refusal> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
    let content = match serde_json::from_slice::<Value>(body) {
        Ok(value @ Value::Object(_)) if value.get("statusCode").is_some() => {
            set_head(&value, &mut response)?;
            body_of(&value)?
        }
        Ok(Value::String(text)) => text.into(),
        Ok(value) => value.to_string().into(),
        // What is no JSON goes out as it is.
        Err(_) => body.clone(),
    };
    response.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    *response.body_mut() = Full::new(content).boxed_unsync();
    Ok(response)
}

fn body_of(value: &Value) -> Result<Bytes, Refusal> {
    let is_base64 = value["isBase64Encoded"] == true;
    match &value["body"] {
        Value::Null => Ok(Bytes::new()),
        Value::String(text) if is_base64 => {
            STANDARD.decode(text).map(Into::into).map_err(|_| Refusal::failed())
        }
        Value::String(text) => Ok(text.clone().into()),
        other => Ok(other.to_string().into()),
    }
}

/// Status, headers and cookies.
fn set_head(value: &Value, response: &mut Response<Body>) -> Result<(), Refusal> {
    let status = match &value["statusCode"] {
        Value::Null => Some(200),
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let status = status.and_then(|status| StatusCode::from_u16(status).ok()).filter(|s| s.as_u16() >= 200);
    *response.status_mut() = status.ok_or_else(Refusal::failed)?;
    match &value["headers"] {
        Value::Null => {}
        Value::Object(headers) => {
            for (name, value) in headers {
                add_header(response.headers_mut(), name, value)?;
            }
        }
        _ => return Err(Refusal::failed()),
    }
    for cookie in value["cookies"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let cookie = HeaderValue::from_str(cookie).map_err(|_| Refusal::failed())?;
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(())
}

fn add_header(headers: &mut HeaderMap, name: &str, value: &Value) -> Result<(), Refusal> {
    let name = match name.to_ascii_lowercase().as_str() {
        // These are this side's own.
        own @ ("connection" | "content-length" | "date" | "keep-alive" | "te" | "trailer"
        | "transfer-encoding" | "upgrade") => format!("x-amzn-remapped-{own}"),
        other => other.to_owned(),
    };
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Refusal::failed())?;
    let values = match value {
        // Rust's crate writes those of one name as a list.
        Value::Array(values) => values.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    };
    for value in values {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(Refusal::failed()),
        };
        headers.append(name.clone(), HeaderValue::from_str(&text).map_err(|_| Refusal::failed())?);
    }
    Ok(())
}

/// A stream's head is in its prelude, if it has one.
async fn streamed(mut stream: ReplyStream, content_type: Option<String>) -> Result<Response<Body>, Refusal> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
    let mut first = Bytes::new();
    let has_prelude = content_type.as_deref() == Some(WITH_PRELUDE);
    if has_prelude {
        match prelude(&mut stream).await? {
            Some((head, rest)) => {
                set_head(&head, &mut response)?;
                first = rest;
            }
            // A stream that ended before it said anything. Source: recorded from AWS.
            None if stream.end().is_some_and(|end| end.error.is_some()) => return Err(Refusal::failed()),
            None => {}
        }
    } else if let Some(value) = content_type.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    let default = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().entry(CONTENT_TYPE).or_insert(default);
    *response.body_mut() = Streamed { first, stream }.boxed_unsync();
    Ok(response)
}

/// Reads up to the delimiter: the head, and what came after it. None if there is no delimiter; then what came is lost
/// with the head, as nobody can tell them apart.
async fn prelude(stream: &mut ReplyStream) -> Result<Option<(Value, Bytes)>, Refusal> {
    let mut read = BytesMut::new();
    loop {
        if let Some(at) = read.windows(DELIMITER.len()).position(|window| window == DELIMITER) {
            let head = serde_json::from_slice(&read[..at]).map_err(|_| Refusal::failed())?;
            return Ok(Some((head, read.split_off(at + DELIMITER.len()).freeze())));
        }
        if read.len() > PRELUDE_BYTES_MAX {
            return Err(Refusal::failed());
        }
        match std::future::poll_fn(|context| stream.poll_chunk(context)).await {
            Some(chunk) => read.extend_from_slice(&chunk),
            None => return Ok(None),
        }
    }
}

/// Chunks as they come. An error on the way only ends them: HTTP has no place to say it.
struct Streamed {
    first: Bytes,
    stream: ReplyStream,
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        self.stream.poll_chunk(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
