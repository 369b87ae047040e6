//! One invocation, phase by phase. The types make the order compulsory.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use ondol_core::capacity::REPLACED;
use ondol_core::function::Reason;
use ondol_core::gate::ThrottleCause;
use ondol_core::identity::{FunctionReference, PublicationId, Qualifier, RequestId};
use ondol_core::policy::{Context, Policy};
use ondol_identity::{Asked, Head};
use ondol_observe::clock;
use ondol_observe::usage::{Outcome, UsageEvent};
use ondol_protocol::invocation::{Deliver, Invocation, PAYLOAD_BYTES_MAX, Reply, ReplyBody};
use ondol_wire::fault::Fault;
use ondol_wire::http::HeaderView;
use ondol_wire::lambda::SERVICE;
use ondol_wire::rest_json::read_members;
use serde::de::IgnoredAny;

use crate::answer::{Body, failure, whole};
use crate::directory::Target;

use crate::shard::{Shard, Undelivered};

/// Times an invocation looks again for what its function is now, as it was updated while it waited.
const REPLACED_MAX: u32 = 20;
const NEWER_WAIT: Duration = Duration::from_secs(1);

/// A body that takes longer to arrive is given up. No slot is held while it arrives.
const BODY_SECONDS_MAX: u64 = 60;
/// The largest client context, as base64 text.
const CLIENT_CONTEXT_BYTES_MAX: usize = 3_583;

pub async fn invoke<D: Deliver + 'static>(
    shard: &Rc<Shard<D>>,
    function: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let id = shard.new_request_id();
    match phases(shard, function, request, id).await {
        Ok(response) => response,
        Err(fault) => failure(&fault, &id.uuid()),
    }
}

async fn phases<D: Deliver + 'static>(
    shard: &Rc<Shard<D>>,
    function: &str,
    request: Request<Incoming>,
    id: RequestId,
) -> Result<Response<Body>, Fault> {
    let started = clock::wall();
    let accepted = accept(shard, function, request)?;
    let identified = identify(shard, accepted).await?;
    let resolved = resolve(shard, function, &identified)?;
    if identified.kind == InvocationType::DryRun {
        return Ok(dry_run(id));
    }
    check_payload(&identified.payload)?;
    let mut resolved = resolved;
    let mut left = REPLACED_MAX;
    let (version, trace_id, outcome) = loop {
        let on_demand = resolved.target.on_demand.clone();
        let (version, invocation) = prepare(&identified, resolved, id);
        let (trace_id, publication) = (invocation.trace_id.clone(), invocation.publication);
        let outcome = match on_demand {
            None => shard.deliver(invocation).await,
            // In a task of its own: a caller that goes away must not take a half-started environment with it.
            Some(limits) => {
                let shard = Rc::clone(shard);
                let delivery = async move { shard.deliver_on_demand(invocation, &limits).await };
                let lost = Undelivered::Throttled(ThrottleCause::Concurrency);
                tokio::task::spawn_local(delivery).await.unwrap_or(Err(lost))
            }
        };
        match outcome {
            // The function was updated while this waited for an environment: what it is now takes it.
            Err(Undelivered::NotStarted(reason)) if reason.code == REPLACED && left > 0 => {
                left -= 1;
                resolved = resolve_newer(shard, function, &identified, publication).await?;
            }
            outcome => break (version, trace_id, outcome),
        }
    };
    let duration_micros = clock::wall().0.saturating_sub(started.0);
    let counted = match &outcome {
        Ok(reply) if reply.function_error.is_some() => Outcome::FunctionError,
        Ok(_) => Outcome::Success,
        Err(Undelivered::Throttled(cause)) => Outcome::Throttled(*cause),
        Err(Undelivered::ReservedConcurrency) => Outcome::Throttled(ThrottleCause::Concurrency),
        Err(Undelivered::NotStarted(_)) => Outcome::FunctionError,
    };
    shard.usage.record(UsageEvent { version: Arc::clone(&version), outcome: counted, duration_micros });
    match outcome {
        Ok(reply) => Ok(answer(reply, &version.version, id, trace_id.as_deref())),
        Err(Undelivered::Throttled(cause)) => Err(throttle("ConcurrentInvocationLimitExceeded", cause)),
        Err(Undelivered::ReservedConcurrency) => {
            let reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
            Err(throttle(reason, ThrottleCause::Concurrency))
        }
        Err(Undelivered::NotStarted(reason)) => not_started(&reason, &version.version, id),
    }
}

/// What the machine lacks is the service's error; what the function did wrong is its own.
fn not_started(reason: &Reason, version: &str, id: RequestId) -> Result<Response<Body>, Fault> {
    match reason.code.as_str() {
        "InvalidRuntime" => Err(Fault::of(&SERVICE, "InvalidRuntimeException", reason.text.clone())),
        "InsufficientCapacity" => Err(Fault::of(&SERVICE, "TooManyRequestsException", reason.text.clone())
            .with_member("Reason", "ConcurrentInvocationLimitExceeded")
            .with_header("retry-after", "1")
            .with_header("x-ondol-throttle-cause", ThrottleCause::Memory.name())),
        "FunctionError.InitTimeout" if reason.answer.is_some() => {
            let message =
                format!("RequestId: {} Error: {}", id.uuid(), reason.answer.as_deref().unwrap_or_default());
            Ok(failed("Sandbox.Timedout", &message, version, id))
        }
        code if code.starts_with("FunctionError") || code == "InvalidZipFileException" => {
            if let Some(own) = &reason.answer {
                let body = ReplyBody::whole(own.clone().into());
                let reply = Reply { function_error: Some("Unhandled"), body, log_tail: None };
                return Ok(answer(reply, version, id, None));
            }
            // The runtime's own words come as `Type: message`.
            let (kind, message) = match (code, reason.text.split_once(": ")) {
                (_, Some((kind, message))) if !kind.contains(' ') => (kind, message),
                ("FunctionError.InvalidEntryPoint" | "FunctionError.PermissionDenied", _) => {
                    ("Runtime.InvalidEntrypoint", reason.text.as_str())
                }
                _ => ("Runtime.ExitError", reason.text.as_str()),
            };
            let message = format!("RequestId: {} Error: {message}", id.uuid());
            Ok(failed(kind, &message, version, id))
        }
        _ => Err(Fault::of(&SERVICE, "ServiceException", reason.text.clone())),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InvocationType {
    RequestResponse,
    DryRun,
}

/// The head is good and its signer known; the body is not read yet.
struct Accepted {
    parts: Parts,
    body: Incoming,
    head: Head,
    kind: InvocationType,
    wants_log_tail: bool,
}

/// The whole request is here, and it is known who asks.
struct Identified {
    parts: Parts,
    asked: Asked,
    payload: Bytes,
    kind: InvocationType,
    wants_log_tail: bool,
}

struct Resolved {
    target: Target,
    invoked_arn: String,
}

fn accept<D>(shard: &Shard<D>, function: &str, request: Request<Incoming>) -> Result<Accepted, Fault> {
    let (parts, body) = request.into_parts();
    let head = shard.gatekeeper.head(&HeaderView(&parts.headers), parts.uri.query().unwrap_or(""))?;
    if body.size_hint().lower() > PAYLOAD_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let header = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    check_names(function, &parts)?;
    let kind = match header("x-amz-invocation-type") {
        Some("DryRun") => InvocationType::DryRun,
        Some("Event") => {
            return Err(Fault::of(
                &SERVICE,
                "InvalidParameterValueException",
                "InvocationType Event isn't supported by this version of Ondol. Use RequestResponse.",
            ));
        }
        _ => InvocationType::RequestResponse,
    };
    let wants_log_tail = header("x-amz-log-type") == Some("Tail");
    for (name, what) in
        [("x-amz-tenant-id", "Tenant isolation"), ("x-amz-durable-execution-name", "Durable execution")]
    {
        if parts.headers.contains_key(name) {
            let text = format!("{what} isn't supported by this version of Ondol.");
            return Err(Fault::of(&SERVICE, "InvalidParameterValueException", text));
        }
    }
    if header("x-amz-client-context").is_some_and(|context| STANDARD.decode(context).is_err()) {
        return Err(Fault::of(
            &SERVICE,
            "InvalidRequestContentException",
            "The client context is not valid base64.",
        ));
    }
    if header("x-amz-client-context").is_some_and(|context| context.len() > CLIENT_CONTEXT_BYTES_MAX) {
        let text = format!("The client context is larger than {CLIENT_CONTEXT_BYTES_MAX} bytes.");
        return Err(Fault::of(&SERVICE, "InvalidParameterValueException", text));
    }
    Ok(Accepted { parts, body, head, kind, wants_log_tail })
}

async fn identify<D>(shard: &Shard<D>, accepted: Accepted) -> Result<Identified, Fault> {
    let Accepted { parts, body, head, kind, wants_log_tail } = accepted;
    let reading = Limited::new(body, PAYLOAD_BYTES_MAX).collect();
    let payload = match tokio::time::timeout(Duration::from_secs(BODY_SECONDS_MAX), reading).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => {
            return Err(Fault::of(
                &SERVICE,
                "InvalidRequestContentException",
                "The request body ended early.",
            ));
        }
        Err(_) => {
            let text = format!("The request body took longer than {BODY_SECONDS_MAX} seconds.");
            return Err(Fault::new("RequestTimeoutException", 408, text));
        }
    };
    let (asked, unchunked) = shard.gatekeeper.check(head, &parts, &payload, Some("lambda"))?;
    let payload = unchunked.unwrap_or(payload);
    Ok(Identified { parts, asked, payload, kind, wants_log_tail })
}

fn resolve<D: Deliver>(shard: &Shard<D>, function: &str, identified: &Identified) -> Result<Resolved, Fault> {
    let home = shard.directory.home();
    let reference = FunctionReference::parse(function);
    let query = ondol_wire::uri::query_pairs(identified.parts.uri.query().unwrap_or(""));
    let asked = query.into_iter().find(|(name, _)| name == "Qualifier").map(|(_, value)| value);
    if reference.account_id.as_ref().is_some_and(|account| *account != home.account_id) {
        let resource = reference.arn(home, reference.qualifier.as_deref().or(asked.as_deref()));
        may_invoke(shard, &identified.asked, &resource, &identified.asked.context(), None)?;
    }
    let qualifier = reference
        .in_home(home, asked)
        .map_err(|refused| Fault::of(&SERVICE, refused.code, refused.message))?;
    let parsed = qualifier.as_deref().map(Qualifier::parse);
    authorize(shard, &reference.name, parsed.as_ref(), &identified.asked)?;
    let target = shard.resolve(&reference.name, parsed.as_ref())?;
    Ok(Resolved { target, invoked_arn: home.function_arn(&reference.name, qualifier.as_deref()) })
}

/// What a name stands for now. Whoever refused the publication knew of its end before this thread does, so one that
/// is still the same is waited for to change, for a while.
async fn resolve_newer<D: Deliver>(
    shard: &Rc<Shard<D>>,
    function: &str,
    identified: &Identified,
    refused: PublicationId,
) -> Result<Resolved, Fault> {
    let mut updated = shard.directory.watch();
    let until = tokio::time::Instant::now() + NEWER_WAIT;
    loop {
        let resolved = resolve(shard, function, identified)?;
        if resolved.target.publication != refused {
            return Ok(resolved);
        }
        match tokio::time::timeout_at(until, updated.changed()).await {
            Ok(Ok(())) => {}
            _ => return Ok(resolved),
        }
    }
}

/// An error of the function, in this server's words.
fn failed(kind: &str, message: &str, version: &str, id: RequestId) -> Response<Body> {
    let body = serde_json::json!({"errorType": kind, "errorMessage": message}).to_string();
    let body = ReplyBody::whole(body.into());
    let reply = Reply { function_error: Some("Unhandled"), body, log_tail: None };
    answer(reply, version, id, None)
}

/// The owner of the account may invoke whatever no policy keeps from it; anybody else as the policies say.
fn authorize<D>(
    shard: &Shard<D>,
    name: &str,
    qualifier: Option<&Qualifier>,
    asked: &Asked,
) -> Result<(), Fault> {
    let policy = shard.directory.policy(name, qualifier);
    if policy.is_none() && shard.gatekeeper.is_owner(asked) {
        return Ok(());
    }
    let text = qualifier.map(ToString::to_string);
    let resource = shard.directory.home().function_arn(name, text.as_deref());
    let mut conditions = asked.context().with("lambda:FunctionArn", resource.as_str());
    shard.directory.add_tags(name, &mut conditions);
    may_invoke(shard, asked, &resource, &conditions, policy.as_deref())
}

fn may_invoke<D>(
    shard: &Shard<D>,
    asked: &Asked,
    resource: &str,
    conditions: &Context,
    policy: Option<&Policy>,
) -> Result<(), Fault> {
    let session_policy = asked.session_policy.as_deref();
    let authorizer = shard.gatekeeper.authorizer();
    authorizer.authorize(&asked.caller, session_policy, "lambda:InvokeFunction", resource, conditions, policy)
}

/// The model's constraints on the head; the generic validator words what is wrong with it.
fn check_names(function: &str, parts: &Parts) -> Result<(), Fault> {
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let query = parts.uri.query().unwrap_or("");
    let has = |name| parts.headers.contains_key(name);
    let unusual =
        ["x-amz-invocation-type", "x-amz-log-type", "x-amz-tenant-id", "x-amz-durable-execution-name"];
    if plain(function) && query.is_empty() && !unusual.into_iter().any(has) {
        return Ok(());
    }
    let Some(operation) = SERVICE.operation("Invoke") else { return Ok(()) };
    let matched = (operation, vec![("FunctionName", function.to_owned())]);
    let headers = HeaderView(&parts.headers);
    let header = |name: &str| ondol_wire::sigv4::Headers::get(&headers, name);
    // The payload is the whole body, and is looked at when it is here.
    let input = read_members(&SERVICE, &matched, query, header, b"")?;
    operation.input.map_or(Ok(()), |shape| ondol_wire::validate::validate(&SERVICE, shape, &input))
}

/// One scan over the payload; nothing is built from it.
fn check_payload(payload: &Bytes) -> Result<(), Fault> {
    if payload.is_empty() {
        return Ok(());
    }
    serde_json::from_slice::<IgnoredAny>(payload).map(drop).map_err(|error| {
        let what = no_json(payload).unwrap_or_else(|| error.to_string());
        let text =
            format!("Could not parse request body into json: Could not parse payload into json: {what}");
        Fault::of(&SERVICE, "InvalidRequestContentException", text)
    })
}

/// What is wrong with a payload, in the words of the service's own parser, as far as its answers are known.
fn no_json(payload: &[u8]) -> Option<String> {
    const WANTED: &str = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')";
    let at = |index: usize| {
        let before = &payload[..index];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = index - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1) + 1;
        format!(
            "\n at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: {line}, column: {column}]"
        )
    };
    let start = payload.iter().position(|byte| !b" \t\r\n".contains(byte))?;
    let first = payload[start];
    if b"{[\"-0123456789".contains(&first) {
        let broken = std::str::from_utf8(payload).err()?.valid_up_to();
        return Some(format!("Invalid UTF-8 start byte 0x{:x}{}", payload[broken], at(broken)));
    }
    if first.is_ascii_alphabetic() || first == b'_' || first == b'$' {
        let word = payload[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
        let word: Vec<u8> = word.copied().collect();
        if ["true", "false", "null"].iter().any(|known| known.as_bytes() == word) {
            return None;
        }
        let end = at(start + word.len());
        return Some(format!(
            "Unrecognized token '{}': was expecting {WANTED}{end}",
            String::from_utf8_lossy(&word)
        ));
    }
    let described = match first {
        0..=31 | 127..=159 => format!("(CTRL-CHAR, code {first})"),
        _ => format!("'{}' (code {first})", char::from(first)),
    };
    Some(format!("Unexpected character ({described}): expected a valid value {WANTED}{}", at(start)))
}

fn prepare(
    identified: &Identified,
    resolved: Resolved,
    request: RequestId,
) -> (Arc<ondol_core::function::VersionKey>, Invocation) {
    let text = |name| identified.parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // The caller sends base64, the runtime gets the JSON itself.
    let client_context = text("x-amz-client-context")
        .and_then(|context| STANDARD.decode(context).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let invocation = Invocation {
        request,
        publication: resolved.target.publication,
        payload: if identified.payload.is_empty() {
            Bytes::from_static(b"{}")
        } else {
            identified.payload.clone()
        },
        timeout_millis: resolved.target.timeout_millis,
        invoked_arn: resolved.invoked_arn.into(),
        client_context: client_context.map(Into::into),
        trace_id: Some(text("x-amzn-trace-id").map_or_else(|| new_trace(request), Into::into)),
        wants_log_tail: identified.wants_log_tail,
    };
    (resolved.target.version, invocation)
}

/// A trace of the caller's none: every invocation has one, and it is not sampled.
fn new_trace(request: RequestId) -> Arc<str> {
    let seconds = clock::epoch_millis() / 1_000;
    let (high, low) = ((request.0 >> 64) as u64, request.0 as u64);
    format!(
        "Root=1-{seconds:08x}-{:024x};Parent={low:016x};Sampled=0",
        u128::from(high) << 32 | u128::from(low >> 32)
    )
    .into()
}

fn dry_run(id: RequestId) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    insert(&mut response, "x-amzn-requestid", &id.uuid());
    response
}

fn answer(reply: Reply, version: &str, id: RequestId, trace_id: Option<&str>) -> Response<Body> {
    let mut response = Response::new(reply.body.boxed_unsync());
    insert(&mut response, "content-type", "application/json");
    insert(&mut response, "x-amzn-requestid", &id.uuid());
    insert(&mut response, "x-amz-executed-version", version);
    insert(&mut response, "x-amzn-remapped-content-length", "0");
    if let Some(root) =
        trace_id.and_then(|trace_id| trace_id.split(';').find(|part| part.starts_with("Root=")))
    {
        insert(&mut response, "x-amzn-trace-id", &format!("{root};Sampled=0"));
    }
    if let Some(kind) = reply.function_error {
        insert(&mut response, "x-amz-function-error", kind);
    }
    if let Some(tail) = reply.log_tail {
        insert(&mut response, "x-amz-log-result", &STANDARD.encode(tail));
    }
    response
}

fn insert(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn throttle(reason: &'static str, cause: ThrottleCause) -> Fault {
    Fault::of(&SERVICE, "TooManyRequestsException", "Rate Exceeded.")
        .with_member("Reason", reason)
        .with_header("retry-after", "1")
        .with_header("x-ondol-throttle-cause", cause.name())
}

fn too_large() -> Fault {
    let text =
        format!("Request must be smaller than {PAYLOAD_BYTES_MAX} bytes for the InvokeFunction operation");
    Fault::of(&SERVICE, "RequestTooLargeException", text)
}
