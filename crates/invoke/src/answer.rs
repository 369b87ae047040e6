//! What goes back to callers.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::header::HeaderValue;
use ondol_core::identity::RequestId;
use ondol_protocol::invocation::ReplyBody;
use ondol_wire::fault::{ErrorFormat, Fault};
use ondol_wire::http::error_response;
use ondol_wire::lambda::SERVICE;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body of bytes that are all there.
pub fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// The bytes of a reply to who did not ask for a stream, and so never gets one.
pub fn whole_of(body: ReplyBody) -> Bytes {
    match body {
        ReplyBody::Whole(bytes) => bytes,
        ReplyBody::Stream(_) => Bytes::new(),
    }
}

/// An error in Lambda's form.
pub fn failure(fault: &Fault, request_id: &str) -> Response<Body> {
    error_response(fault, ErrorFormat::RestJson, &SERVICE, request_id).map(whole)
}

/// What every answer to an invocation carries: its id and its trace.
pub fn insert_ids(response: &mut Response<Body>, id: RequestId, trace_id: &str) {
    insert(response, "x-amzn-requestid", &id.uuid());
    if let Some(root) = trace_id.split(';').find(|part| part.starts_with("Root=")) {
        insert(response, "x-amzn-trace-id", &format!("{root};Sampled=0"));
    }
}

/// Adds a header whose value is ours.
pub fn insert(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
