//! Requests and errors in the types of the `http` crate, which every server and client here uses.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::fault::{ErrorFormat, Fault};
use crate::model::Service;
use crate::sigv4::{Headers, SignedRequest, Signer, append_trimmed};

/// Request headers as the codecs and the signature check read them.
#[derive(Debug)]
pub struct HeaderView<'a>(pub &'a HeaderMap);

impl Headers for HeaderView<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let mut values =
            self.0.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let first = values.next()?;
        Some(values.fold(first, |joined, value| format!("{joined},{value}")))
    }

    fn append_canonical(&self, name: &str, out: &mut Vec<u8>) {
        for (place, value) in self.0.get_all(name).iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            append_trimmed(value.as_bytes(), out);
        }
    }
}

/// Checks the signature of a request whose body has been read. A body that came in signed chunks is given back
/// without them; `None` says that the body is what it is.
pub fn check_signature(
    signer: &Signer,
    parts: &Parts,
    body: &[u8],
    now_epoch_seconds: i64,
) -> Result<Option<Bytes>, Fault> {
    let headers = HeaderView(&parts.headers);
    let request = SignedRequest {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or(""),
        headers: &headers,
    };
    let decoded = signer.check(request, body, now_epoch_seconds)?;
    Ok(decoded.map(|decoded| Bytes::from(decoded.body)))
}

/// An error as a response.
pub fn error_response(
    fault: &Fault,
    format: ErrorFormat,
    service: &Service,
    request_id: &str,
) -> Response<Bytes> {
    let answer = fault.answer(format, Some(service), request_id);
    let mut response = Response::new(Bytes::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", HeaderValue::from_static(answer.content_type));
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
