//! From an HTTP request to an operation: body, signature, service, operation.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use ondol_identity::{Asked, Asker, Identity};
use ondol_wire::fault::{ErrorFormat, Fault};
use ondol_wire::http::{HeaderView, error_response};
use ondol_wire::lambda::SERVICE;
use ondol_wire::model::Service;
use ondol_wire::query::match_operation as match_query;
use ondol_wire::rest_json::{Answer, match_operation};
use ondol_wire::sigv4::Authorization;
use ondol_wire::uri::query_pairs;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::context::{Context, uuid};
use crate::faults::unsupported;
use crate::{lambda, scheduler};

/// The largest request with a package: 50 MB in base64, and its settings.
const PACKAGE_REQUEST_BYTES_MAX: usize = 70_167_211;
/// The largest of other requests to Lambda, and of those to IAM and STS.
const REQUEST_BYTES_MAX: usize = 6_291_456;
const FORM_BYTES_MAX: usize = 1 << 20;
/// What all larger bodies that are on their way may hold together; further ones wait.
const ROOM_KIB: u32 = 512 << 10;
/// A body of this size waits for nobody.
const SMALL_BODY_BYTES_MAX: u64 = 256 << 10;
const BODY_SECONDS_MAX: u64 = 120;

/// What this server says of itself besides AWS's operations: the pages below `/_ondol/`.
pub trait Pages: Send + Sync {
    /// A page by the rest of its path and its query; `None` where there is none.
    fn page(&self, name: &str, query: &str) -> PageAnswer;

    /// Whether an `Authorization` header that is no signature opens a page.
    fn opens(&self, name: &str, authorization: &str) -> bool;
}

/// A page, or what is wrong with the request for it.
pub type PageAnswer = Pin<Box<dyn Future<Output = Option<Result<Page, String>>> + Send>>;

#[derive(Debug)]
pub enum Page {
    Json(serde_json::Value),
    Text { content_type: &'static str, text: String },
}

#[derive(Clone)]
pub struct Api {
    pub context: Context,
    pub identity: Arc<Identity>,
    pub pages: Arc<dyn Pages>,
    room: Arc<Semaphore>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("context", &self.context).finish_non_exhaustive()
    }
}

impl Api {
    pub fn new(context: Context, identity: Arc<Identity>, pages: Arc<dyn Pages>) -> Self {
        let room = Arc::new(Semaphore::new(ROOM_KIB as usize));
        Self { context, identity, pages, room }
    }

    pub async fn handle(&self, request: Request<Incoming>) -> Response<Bytes> {
        let request_id = uuid();
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/_ondol/health" {
            return page(Page::Json(serde_json::json!({"status": "running"})));
        }
        if let Some(package) = parts.uri.path().strip_prefix("/_ondol/packages/") {
            return self.package(package, parts.uri.query().unwrap_or(""), &request_id).await;
        }
        if let Some(answer) = self.opened_page(&parts).await {
            return answer;
        }
        // Until the signature says which service is meant, the scope of the head does.
        let scope = Scope::of(&parts);
        match self.answer(&parts, body, &request_id).await {
            Ok(response) => response,
            Err(fault) => error(&fault, scope, &request_id),
        }
    }

    async fn answer(
        &self,
        parts: &Parts,
        body: Incoming,
        request_id: &str,
    ) -> Result<Response<Bytes>, Fault> {
        // Its bytes count until it is answered.
        let Received { asked, service, body, room: _room } = self.receive(parts, body).await?;
        if let Some(name) = parts.uri.path().strip_prefix("/_ondol/") {
            if !self.context.gatekeeper.is_owner(&asked) {
                let text = "These pages are for the root user of this server's account.";
                return Err(Fault::new("AccessDeniedException", 403, text));
            }
            return self.page(name, parts.uri.query().unwrap_or("")).await;
        }
        match service.as_str() {
            "lambda" | "scheduler" => {
                let context = self.context.of(asked, origin(parts));
                let call = lambda::Call {
                    method: parts.method.as_str(),
                    path: parts.uri.path(),
                    query: parts.uri.query().unwrap_or(""),
                    headers: &HeaderView(&parts.headers),
                    body: &body,
                };
                let answer = match service.as_str() {
                    "lambda" => lambda::call(&context, &call).await?,
                    _ => scheduler::call(&context, &call).await?,
                };
                Ok(success(answer, request_id))
            }
            "iam" | "sts" => {
                let context = asked.context();
                let session_policy = asked.session_policy.as_deref();
                let asker = Asker {
                    caller: &asked.caller,
                    session_policy,
                    context: &context,
                    access_key_id: asked.access_key_id.as_deref(),
                };
                // Its parameters may come in the query, too.
                let form = if body.is_empty() { parts.uri.query().unwrap_or("").as_bytes() } else { &body };
                let answer = ondol_identity::call(&self.identity, &asker, &service, form, request_id).await?;
                Ok(success(answer, request_id))
            }
            other => {
                Err(unsupported(format!("The service {other} isn't supported by this version of Ondol.")))
            }
        }
    }

    async fn page(&self, name: &str, query: &str) -> Result<Response<Bytes>, Fault> {
        match self.pages.page(name, query).await {
            Some(Ok(found)) => Ok(page(found)),
            Some(Err(text)) => Err(Fault::new("InvalidParameterValueException", 400, text)),
            None => Err(Fault::new("ResourceNotFoundException", 404, "There is no such page.")),
        }
    }

    /// A page for whoever shows what opens this one; everybody else is asked for a signature.
    async fn opened_page(&self, parts: &Parts) -> Option<Response<Bytes>> {
        let name = parts.uri.path().strip_prefix("/_ondol/")?;
        let authorization = parts.headers.get("authorization")?.to_str().ok()?;
        if parts.method != Method::GET || !self.pages.opens(name, authorization) {
            return None;
        }
        let answered = self.page(name, parts.uri.query().unwrap_or("")).await;
        let scope = Scope { format: ErrorFormat::of_service("lambda"), service: &SERVICE };
        Some(answered.unwrap_or_else(|fault| error(&fault, scope, &uuid())))
    }

    /// A deployment package, to whoever holds a link that was made here.
    async fn package(&self, name: &str, query: &str, request_id: &str) -> Response<Bytes> {
        let pairs: BTreeMap<String, String> = query_pairs(query).into_iter().collect();
        let sha256 = name.strip_suffix(".zip").unwrap_or_default();
        let until = pairs.get("until").and_then(|until| until.parse().ok()).unwrap_or_default();
        let signature = pairs.get("signature").map(String::as_str).unwrap_or_default();
        if !self.context.admits_package(sha256, until, signature) {
            let fault = Fault::new("AccessDenied", 403, "The link is not of this server, or has expired.");
            return error(&fault, Scope { format: ErrorFormat::RestXml, service: &SERVICE }, request_id);
        }
        let (artifacts, sha256) = (self.context.artifacts.clone(), sha256.to_owned());
        let read = tokio::task::spawn_blocking(move || std::fs::read(artifacts.zip(&sha256))).await;
        match read {
            Ok(Ok(bytes)) => {
                let mut response = Response::new(Bytes::from(bytes));
                response.headers_mut().insert("content-type", HeaderValue::from_static("application/zip"));
                response
            }
            _ => {
                let fault = Fault::new("NoSuchKey", 404, "The package is not here any more.");
                error(&fault, Scope { format: ErrorFormat::RestXml, service: &SERVICE }, request_id)
            }
        }
    }
}

/// How the caller reached this server.
fn origin(parts: &Parts) -> String {
    let host = parts.headers.get("host").and_then(|host| host.to_str().ok());
    format!("http://{}", host.unwrap_or("localhost"))
}

/// Which service a request seems to be for, and how that service writes its errors.
#[derive(Clone, Copy)]
struct Scope {
    format: ErrorFormat,
    service: &'static Service,
}

impl Scope {
    /// Of the head, unchecked.
    fn of(parts: &Parts) -> Self {
        let headers = HeaderView(&parts.headers);
        let authorization = Authorization::of(&headers, parts.uri.query().unwrap_or("")).ok();
        let name = match &authorization {
            Some(authorization) => authorization.service.as_str(),
            None => unsigned_service(parts),
        };
        let service = match name {
            "iam" => &ondol_wire::iam::SERVICE,
            "scheduler" => &ondol_wire::scheduler::SERVICE,
            "sts" => &ondol_wire::sts::SERVICE,
            _ => &SERVICE,
        };
        Self { format: ErrorFormat::of_service(name), service }
    }
}

/// What a request without a signature is for: query services post forms, Lambda has paths.
fn unsigned_service(parts: &Parts) -> &'static str {
    let form = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
    if form.is_some_and(|form| form.starts_with("application/x-www-form-urlencoded")) {
        "sts"
    } else {
        "lambda"
    }
}

/// The operation's name, for the sentence about its size, and the most bytes it takes.
fn bounds(parts: &Parts, service: Option<&str>) -> (&'static str, usize) {
    let matched =
        match_operation(&SERVICE, parts.method.as_str(), parts.uri.path(), parts.uri.query().unwrap_or(""));
    let name = matched.map_or("requested", |(operation, _)| operation.name);
    let most = match name {
        _ if matches!(service, Some("iam" | "sts")) => FORM_BYTES_MAX,
        "CreateFunction" | "UpdateFunctionCode" | "PublishLayerVersion" => PACKAGE_REQUEST_BYTES_MAX,
        _ => REQUEST_BYTES_MAX,
    };
    (name, most)
}

fn too_large(operation: &str, most: usize) -> Fault {
    let text = format!("Request must be smaller than {most} bytes for the {operation} operation");
    Fault::new("RequestEntityTooLargeException", 413, text)
}

/// What is said to be too large is refused before a byte of it is read.
fn check_size(body: &Incoming, (operation, most): (&str, usize)) -> Result<(), Fault> {
    if body.size_hint().lower() > most as u64 { Err(too_large(operation, most)) } else { Ok(()) }
}

async fn read(body: Incoming, (operation, most): (&str, usize)) -> Result<Bytes, Fault> {
    let reading = Limited::new(body, most).collect();
    match tokio::time::timeout(Duration::from_secs(BODY_SECONDS_MAX), reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(operation, most)),
        Ok(Err(_)) => Err(Fault::new("SerializationException", 400, "The request body ended early.")),
        Err(_) => Err(Fault::new("RequestTimeoutException", 408, "The request body took too long.")),
    }
}

/// The whole request, who asks, and the service it is for.
struct Received<'a> {
    asked: Asked,
    service: String,
    body: Bytes,
    room: Option<SemaphorePermit<'a>>,
}

impl Api {
    /// A share of what large bodies may hold together, as long as it lives.
    async fn room_for(&self, bytes: u64) -> Result<SemaphorePermit<'_>, Fault> {
        let kib = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(ROOM_KIB).min(ROOM_KIB);
        let waiting = self.room.acquire_many(kib);
        match tokio::time::timeout(Duration::from_secs(BODY_SECONDS_MAX), waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let text = "Too many large requests are on their way to this server. Try again.";
                Err(Fault::new("ServiceUnavailable", 503, text).with_header("retry-after", "10"))
            }
        }
    }

    async fn receive(&self, parts: &Parts, body: Incoming) -> Result<Received<'_>, Fault> {
        let gatekeeper = &self.context.gatekeeper;
        let has_body = !body.is_end_stream();
        let unread = |fault: Fault| fault.with_body_unread(has_body);
        let head = gatekeeper.head(&HeaderView(&parts.headers), parts.uri.query().unwrap_or(""));
        let head = head.map_err(unread)?;
        let service = head.service.clone();
        let (body, room) = match body.size_hint().upper() {
            Some(0..=SMALL_BODY_BYTES_MAX) => (read(body, ("requested", FORM_BYTES_MAX)).await?, None),
            upper => {
                let bounds = bounds(parts, service.as_deref());
                check_size(&body, bounds).map_err(unread)?;
                // Its signature is checked when it is whole, so until then it may be anybody's.
                let expected = upper.unwrap_or(u64::MAX).min(bounds.1 as u64);
                let room = self.room_for(expected).await.map_err(unread)?;
                (read(body, bounds).await?, Some(room))
            }
        };
        let (asked, unchunked) = gatekeeper.check(head, parts, &body, None)?;
        let body = unchunked.unwrap_or(body);
        let service = service.unwrap_or_else(|| {
            // Unsigned, where that passes: the two query services share no operation.
            let is_iam = match_query(&ondol_wire::iam::SERVICE, &body).is_some();
            if is_iam { "iam".into() } else { unsigned_service(parts).to_owned() }
        });
        Ok(Received { asked, service, body, room })
    }
}

fn success(answer: Answer, request_id: &str) -> Response<Bytes> {
    let has_body = !answer.body.is_empty();
    let mut response = Response::new(Bytes::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if has_body {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
    }
    // An answer that is no JSON says so itself.
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

fn error(fault: &Fault, scope: Scope, request_id: &str) -> Response<Bytes> {
    error_response(fault, scope.format, scope.service, request_id)
}

fn page(page: Page) -> Response<Bytes> {
    let (content_type, text) = match page {
        Page::Json(value) => ("application/json", value.to_string()),
        Page::Text { content_type, text } => (content_type, text),
    };
    let mut response = Response::new(Bytes::from(text));
    response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    response
}
