//! From an HTTP request to an operation: body, signature, service, operation.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use ondol_observe::clock;
use ondol_wire::fault::{ErrorFormat, Fault};
use ondol_wire::http::{HeaderView, check_signature, error_response};
use ondol_wire::lambda::SERVICE;
use ondol_wire::rest_json::{Answer, match_operation};
use ondol_wire::sigv4::{Keys, Signer};

use crate::context::{Context, uuid};
use crate::faults::unsupported;
use crate::lambda;

/// The largest request of any operation: a package of 50 MB in base64, and its settings.
const REQUEST_BYTES_MAX: usize = 70_167_211;
const BODY_SECONDS_MAX: u64 = 120;

/// What this server says of itself besides AWS's operations: the pages below `/_ondol/`.
pub trait Pages: Send + Sync {
    /// A page by the rest of its path and its query; `None` where there is none.
    fn page(&self, name: &str, query: &str) -> PageAnswer;
}

/// A page, or what is wrong with the request for it.
pub type PageAnswer = Pin<Box<dyn Future<Output = Option<Result<serde_json::Value, String>>> + Send>>;

#[derive(Clone)]
pub struct Api {
    pub context: Context,
    pub keys: Arc<dyn Keys>,
    pub pages: Arc<dyn Pages>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("context", &self.context).finish_non_exhaustive()
    }
}

impl Api {
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Bytes> {
        let request_id = uuid();
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/_ondol/health" {
            return json_page(&serde_json::json!({"status": "running"}));
        }
        // Until the signature says which service is meant, the scope of the header does.
        let format = scope_of(&parts.headers)
            .map_or(ErrorFormat::RestJson, |service| ErrorFormat::of_service(&service));
        let headers = HeaderView(&parts.headers);
        let (signer, body) = match self.receive(&parts, body).await {
            Ok(received) => received,
            Err(fault) => return error(&fault, format, &request_id),
        };
        if let Some(name) = parts.uri.path().strip_prefix("/_ondol/") {
            return match self.pages.page(name, parts.uri.query().unwrap_or("")).await {
                Some(Ok(page)) => json_page(&page),
                Some(Err(text)) => {
                    error(&Fault::new("InvalidParameterValueException", 400, text), format, &request_id)
                }
                None => error(
                    &Fault::new("ResourceNotFoundException", 404, "There is no such page."),
                    format,
                    &request_id,
                ),
            };
        }
        let service = &signer.authorization.service;
        if service != "lambda" {
            let text = format!("The service {service} isn't supported by this version of Ondol.");
            return error(&unsupported(text), format, &request_id);
        }
        let call = lambda::Call {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or(""),
            headers: &headers,
            body: &body,
        };
        match lambda::call(&self.context, &call).await {
            Ok(answer) => success(answer, &request_id),
            Err(fault) => error(&fault, format, &request_id),
        }
    }
}

/// The operation's name, for the sentence about its size.
fn operation_name(parts: &Parts) -> String {
    let matched =
        match_operation(&SERVICE, parts.method.as_str(), parts.uri.path(), parts.uri.query().unwrap_or(""));
    matched.map_or_else(|| "requested".into(), |(operation, _)| operation.name.into())
}

async fn read(body: Incoming, operation: &str) -> Result<Bytes, Fault> {
    let too_large = || {
        let text =
            format!("Request must be smaller than {REQUEST_BYTES_MAX} bytes for the {operation} operation");
        Fault::new("RequestEntityTooLargeException", 413, text)
    };
    if body.size_hint().lower() > REQUEST_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let reading = Limited::new(body, REQUEST_BYTES_MAX).collect();
    match tokio::time::timeout(Duration::from_secs(BODY_SECONDS_MAX), reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Fault::new("SerializationException", 400, "The request body ended early.")),
        Err(_) => Err(Fault::new("RequestTimeoutException", 408, "The request body took too long.")),
    }
}

impl Api {
    /// The whole request, signed by a key we know.
    async fn receive(&self, parts: &Parts, body: Incoming) -> Result<(Signer, Bytes), Fault> {
        let query = parts.uri.query().unwrap_or("");
        let signer = Signer::of(&HeaderView(&parts.headers), query, &*self.keys)?;
        let body = read(body, &operation_name(parts)).await?;
        let unchunked = check_signature(&signer, parts, &body, clock::epoch_millis() / 1_000)?;
        Ok((signer, unchunked.unwrap_or(body)))
    }
}

/// The service named in the credential scope, unchecked.
fn scope_of(headers: &HeaderMap) -> Option<String> {
    let header = headers.get("authorization")?.to_str().ok()?;
    ondol_wire::sigv4::Authorization::parse(Some(header)).ok().map(|authorization| authorization.service)
}

fn success(answer: Answer, request_id: &str) -> Response<Bytes> {
    let has_body = !answer.body.is_empty();
    let mut response = Response::new(Bytes::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if has_body {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
    }
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert("x-amzn-requestid", value);
    }
    response
}

fn error(fault: &Fault, format: ErrorFormat, request_id: &str) -> Response<Bytes> {
    error_response(fault, format, &SERVICE, request_id)
}

fn json_page(page: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(page.to_string()));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}
