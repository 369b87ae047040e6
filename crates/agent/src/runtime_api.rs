//! The Runtime API of one execution environment: AWS's routes, headers and codes. The function is the
//! attacker here: identity is the listener, every size is bounded, and no answer is believed twice.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ondol_core::identity::RequestId;
use ondol_core::slots::{Answer, PollId};
use ondol_observe::clock;
use ondol_protocol::invocation::PAYLOAD_BYTES_MAX;
use tokio::net::{TcpListener, TcpStream};

use crate::host::{Handed, Host, RuntimeError, error_body};
use crate::{extensions_api, stream};

/// An account of a failed initialisation that is handed on whole.
const INIT_ERROR_BYTES_MAX: usize = 64 << 10;
pub const ERROR_BYTES_MAX: usize = 1 << 20;
/// The largest head: Python's client sends an X-Ray cause of up to 1 MiB as a header.
const HEAD_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// Connections an environment may have open for each request it takes at once: a poll, an answer, and as many to spare.
const CONNECTIONS_PER_REQUEST: usize = 4;
const CONNECTIONS_MIN: usize = 64;

/// Serves an environment's listener until the task is dropped; its connections end with it.
pub async fn serve(host: Rc<Host>, listener: TcpListener) {
    let limit = host.assignment.publication.configuration.concurrency();
    let connections_max = CONNECTIONS_MIN + CONNECTIONS_PER_REQUEST * limit as usize;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < connections_max => {
                    let host = Rc::clone(&host);
                    // An error ends this connection; what it held is unparked by its guard.
                    connections.spawn_local(async move { drop(serve_connection(host, stream).await) });
                }
                Ok(_) => {}
                // Out of descriptors, most likely: let others go on before the next try.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(host: Rc<Host>, stream: TcpStream) -> Result<(), hyper::Error> {
    let _ = stream.set_nodelay(true);
    // A second handle on the same socket, to look at it while hyper owns the first.
    let Ok(connection) = std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned() else { return Ok(()) };
    let connection = Rc::new(connection);
    let service = service_fn(move |request| {
        let (host, connection) = (Rc::clone(&host), Rc::clone(&connection));
        async move { Ok::<_, Infallible>(route(host, connection, request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

pub type Answered = Response<Full<Bytes>>;

async fn route(host: Rc<Host>, connection: Rc<OwnedFd>, request: Request<Incoming>) -> Answered {
    if ["/2020-01-01/extension/", "/2022-07-01/telemetry"]
        .iter()
        .any(|api| request.uri().path().starts_with(api))
    {
        return extensions_api::route(host, request).await;
    }
    let path = request.uri().path().strip_prefix("/2018-06-01/").unwrap_or("").to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["ping"]) => plain(StatusCode::OK, "pong"),
        (&Method::GET, ["runtime", "invocation", "next"]) => next(host, connection).await,
        (&Method::POST, ["runtime", "invocation", id, "response"]) => response(&host, id, request).await,
        (&Method::POST, ["runtime", "invocation", id, "error"]) => error(&host, id, request).await,
        (&Method::POST, ["runtime", "init", "error"]) => init_error(&host, request).await,
        (
            _,
            ["ping"]
            | ["runtime", "invocation", "next"]
            | ["runtime", "invocation", _, "response" | "error"]
            | ["runtime", "init", "error"],
        ) => plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
        _ => not_found(),
    }
}

pub fn not_found() -> Answered {
    plain(StatusCode::NOT_FOUND, "404 page not found")
}

/// Takes the poll back when the connection ends before an invocation came.
struct Parked {
    host: Rc<Host>,
    poll: PollId,
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.host.unpark(self.poll);
    }
}

async fn next(host: Rc<Host>, connection: Rc<OwnedFd>) -> Answered {
    let (poll, handed) = host.park(connection);
    let parked = Parked { host, poll };
    match handed.await {
        Ok(handed) => hand_out(handed),
        Err(_) => {
            drop(parked);
            failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalServerError",
                "The execution environment is shutting down",
            )
        }
    }
}

fn hand_out(Handed { invocation, deadline }: Handed) -> Answered {
    let mut response = Response::new(Full::new(invocation.payload));
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        // Values come from headers that were valid before; one that is not is left empty.
        let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
        headers.insert(HeaderName::from_static(name), value);
    };
    set("content-type", "application/json");
    set("lambda-runtime-aws-request-id", &invocation.request.uuid());
    // The deadline is kept on a clock that never steps; the function compares it with its own.
    let left_millis = deadline.0.saturating_sub(clock::wall().0) / 1_000;
    let deadline_millis =
        clock::epoch_millis().saturating_add(i64::try_from(left_millis).unwrap_or(i64::MAX));
    set("lambda-runtime-deadline-ms", &deadline_millis.to_string());
    set("lambda-runtime-invoked-function-arn", &invocation.invoked_arn);
    set("lambda-runtime-trace-id", invocation.trace_id.as_deref().unwrap_or(""));
    set("lambda-runtime-client-context", invocation.client_context.as_deref().unwrap_or(""));
    set("lambda-runtime-cognito-identity", "");
    response
}

async fn response(host: &Host, id: &str, request: Request<Incoming>) -> Answered {
    let mode = request.headers().get("lambda-runtime-function-response-mode");
    let streams = mode.is_some_and(|mode| mode == "streaming");
    if mode.is_some() && !streams {
        return failure(
            StatusCode::BAD_REQUEST,
            "InvalidFunctionResponseMode",
            "Invalid function response mode",
        );
    }
    // Whoever has nothing to answer may send nothing to be kept.
    let held = |id: &RequestId| host.is_held(*id) && !host.is_streaming(*id);
    let Some(id) = RequestId::parse_uuid(id).filter(held) else {
        return invalid_request_id();
    };
    if let Some(limits) = host.stream_limits(id) {
        return stream::answer(host, id, request, limits, streams).await;
    }
    match read(request, PAYLOAD_BYTES_MAX).await {
        Ok((trailers, body)) => match trailing_error(&trailers) {
            Some(error) => answered(host.answer(id, Some("Unhandled"), error)),
            None => answered(host.answer(id, None, body)),
        },
        Err(error) => broken_answer(host, id, &error, "Response", PAYLOAD_BYTES_MAX),
    }
}

async fn error(host: &Host, id: &str, request: Request<Incoming>) -> Answered {
    let Some(id) = RequestId::parse_uuid(id).filter(|id| host.is_held(*id)) else {
        return invalid_request_id();
    };
    let stated = error_type(request.headers());
    match read(request, ERROR_BYTES_MAX).await {
        Ok((_, body)) if body.is_empty() => {
            let body = error_body(&stated.unwrap_or_else(|| "Runtime.Unknown".into()), "");
            answered(host.answer(id, Some("Unhandled"), body))
        }
        Ok((_, body)) => answered(host.answer(id, Some("Unhandled"), body)),
        Err(error) => broken_answer(host, id, &error, "Error", ERROR_BYTES_MAX),
    }
}

/// An answer that cannot be used fails its invocation, rather than letting its caller wait for the timeout.
pub fn broken_answer(host: &Host, id: RequestId, error: &ReadError, what: &str, limit: usize) -> Answered {
    let (error_type, told) = match error {
        ReadError::TooLarge => (
            "Function.ResponseSizeTooLarge",
            format!("{what} payload size exceeded maximum allowed payload size ({limit} bytes)."),
        ),
        ReadError::Truncated => {
            ("Runtime.TruncatedResponse", "The runtime ended its answer before it was complete.".to_owned())
        }
    };
    match (host.answer(id, Some("Unhandled"), error_body(error_type, &told)), error) {
        (Answer::Accepted, ReadError::TooLarge) => too_large(limit),
        (Answer::Accepted, ReadError::Truncated) => truncated(),
        (other, _) => answered(other),
    }
}

async fn init_error(host: &Host, request: Request<Incoming>) -> Answered {
    let stated = error_type(request.headers());
    match read(request, ERROR_BYTES_MAX).await {
        Ok((_, body)) => {
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let text = |name: &str| body[name].as_str().map(str::to_owned);
            let error_type = stated.or_else(|| text("errorType")).unwrap_or_else(|| "Runtime.Unknown".into());
            let mut error = RuntimeError::new(&error_type, &text("errorMessage").unwrap_or_default());
            error.body =
                body.is_object().then(|| body.to_string()).filter(|own| own.len() <= INIT_ERROR_BYTES_MAX);
            if host.init_error(error) {
                ok()
            } else {
                failure(
                    StatusCode::FORBIDDEN,
                    "InvalidStateTransition",
                    "An initialization error was reported before",
                )
            }
        }
        Err(ReadError::TooLarge) => too_large(ERROR_BYTES_MAX),
        Err(ReadError::Truncated) => truncated(),
    }
}

/// The type a runtime gives its error: `Runtime.Name` or `Function.Name`, else one of two unknowns.
fn error_type(headers: &HeaderMap) -> Option<String> {
    let bytes = headers.get("lambda-runtime-function-error-type")?.as_bytes();
    let text = String::from_utf8_lossy(bytes);
    let known = ["Runtime.", "Function."].iter().any(|side| {
        text.strip_prefix(side).is_some_and(|name| {
            name.len() > 1
                && name.starts_with(|c: char| c.is_ascii_uppercase())
                && name.chars().all(|c| c.is_ascii_alphabetic())
        })
    });
    Some(if known {
        text.into_owned()
    } else if text.starts_with("Function.") {
        "Function.Unknown".into()
    } else {
        "Runtime.Unknown".into()
    })
}

/// A streamed answer that failed half-way says so in trailers: the error's type, and its own account in base64.
pub fn trailing_error(trailers: &HeaderMap) -> Option<Bytes> {
    let error_type = error_type(trailers)?;
    let own = trailers.get("lambda-runtime-function-error-body").map(HeaderValue::as_bytes);
    let own = own.and_then(|text| STANDARD.decode(text).ok()).map(Bytes::from);
    let own = own.filter(|own| serde_json::from_slice::<serde_json::Value>(own).is_ok());
    Some(
        own.unwrap_or_else(|| error_body(&error_type, "The function failed while it streamed its response.")),
    )
}

pub enum ReadError {
    TooLarge,
    Truncated,
}

pub async fn read(request: Request<Incoming>, limit: usize) -> Result<(HeaderMap, Bytes), ReadError> {
    let body = request.into_body();
    if body.size_hint().lower() > limit as u64 {
        return Err(ReadError::TooLarge);
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => {
            let trailers = collected.trailers().cloned().unwrap_or_default();
            Ok((trailers, collected.to_bytes()))
        }
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ReadError::TooLarge),
        Err(_) => Err(ReadError::Truncated),
    }
}

pub fn answered(answer: Answer) -> Answered {
    match answer {
        Answer::Accepted => ok(),
        Answer::TooLate => failure(StatusCode::GONE, "InvokeTimeout", "Invoke timeout"),
        Answer::Unknown => invalid_request_id(),
    }
}

fn ok() -> Answered {
    json(StatusCode::ACCEPTED, r#"{"status":"OK"}"#.into())
}

fn invalid_request_id() -> Answered {
    failure(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID")
}

pub fn truncated() -> Answered {
    failure(StatusCode::BAD_REQUEST, "TruncatedHTTPRequest", "HTTP request detected as truncated")
}

pub fn too_large(limit: usize) -> Answered {
    let what = format!("Exceeded maximum allowed payload size ({limit} bytes).");
    failure(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &what)
}

pub fn failure(status: StatusCode, error_type: &str, message: &str) -> Answered {
    json(status, error_body(error_type, message))
}

pub fn json(status: StatusCode, body: Bytes) -> Answered {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Answered {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
