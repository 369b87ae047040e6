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
use ondol_core::event::EVENT_BYTES_MAX;
use ondol_core::function::Reason;
use ondol_core::gate::ThrottleCause;
use ondol_core::identity::{FunctionReference, Qualifier, RequestId};
use ondol_core::policy::{Context, Policy};
use ondol_identity::{Asked, Head};
use ondol_observe::clock;
use ondol_protocol::invocation::{Deliver, PAYLOAD_BYTES_MAX, Reply};
use ondol_wire::fault::Fault;
use ondol_wire::http::HeaderView;
use ondol_wire::lambda::SERVICE;
use ondol_wire::rest_json::read_members;

use crate::answer::{Body, failure, insert, insert_ids, whole, whole_of};
use crate::carry::{Carried, Order, carry_out, new_trace};
use crate::directory::Target;
use crate::event::{Event, INVOKE_ASYNC_BYTES_MAX, check_size, queue};
use crate::event_stream::EventStream;
use crate::payload::check_payload;
use crate::shard::{Shard, Undelivered};

/// A body that takes longer to arrive is given up. No slot is held while it arrives.
pub(crate) const BODY_SECONDS_MAX: u64 = 60;
/// A longer trace header is none.
const TRACE_BYTES_MAX: usize = 512;
/// The largest client context, as base64 text.
const CLIENT_CONTEXT_BYTES_MAX: usize = 3_583;

/// The operation an invocation comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Invoke,
    InvokeAsync,
    InvokeWithResponseStream,
}

impl Way {
    /// The operation of a path, and the function it names.
    pub fn of(path: &str) -> Option<(Self, String)> {
        let (way, rest) = [
            (Self::Invoke, "/2015-03-31/functions/", "/invocations"),
            (Self::InvokeAsync, "/2014-11-13/functions/", "/invoke-async"),
            (Self::InvokeWithResponseStream, "/2021-11-15/functions/", "/response-streaming-invocations"),
        ]
        .into_iter()
        .find_map(|(way, before, after)| {
            let path = if way == Self::InvokeAsync { path.trim_end_matches('/') } else { path };
            Some((way, path.strip_prefix(before)?.strip_suffix(after)?))
        })?;
        (!rest.is_empty() && !rest.contains('/')).then(|| (way, ondol_wire::uri::percent_decode(rest)))
    }

    fn operation(self) -> &'static str {
        match self {
            Self::Invoke => "Invoke",
            Self::InvokeAsync => "InvokeAsync",
            Self::InvokeWithResponseStream => "InvokeWithResponseStream",
        }
    }

    fn types(self) -> &'static [&'static str] {
        match self {
            Self::InvokeWithResponseStream => &["RequestResponse", "DryRun"],
            _ => &["Event", "RequestResponse", "DryRun"],
        }
    }

    /// The largest event that may come this way.
    fn event_bytes_max(self) -> usize {
        if self == Self::InvokeAsync { INVOKE_ASYNC_BYTES_MAX } else { EVENT_BYTES_MAX }
    }
}

pub async fn invoke<D: Deliver + 'static>(
    shard: &Rc<Shard<D>>,
    way: Way,
    function: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let id = shard.new_request_id();
    match phases(shard, way, function, request, id).await {
        Ok(response) => response,
        Err(fault) => failure(&fault, &id.uuid()),
    }
}

async fn phases<D: Deliver + 'static>(
    shard: &Rc<Shard<D>>,
    way: Way,
    function: &str,
    request: Request<Incoming>,
    id: RequestId,
) -> Result<Response<Body>, Fault> {
    let started = clock::wall();
    let has_body = !request.body().is_end_stream();
    let accepted = accept(shard, way, function, request).map_err(|fault| fault.with_body_unread(has_body))?;
    let identified = identify(shard, accepted).await?;
    let resolved = resolve(shard, function, &identified)?;
    if identified.kind == InvocationType::DryRun {
        return Ok(dry_run(id));
    }
    if identified.kind == InvocationType::Event {
        check_size(identified.payload.len(), way.event_bytes_max())?;
    }
    check_payload(&identified.payload)?;
    if identified.kind == InvocationType::Event {
        // The old operation takes no trace along. Source: AWS's API reference.
        let trace_id = if way == Way::InvokeAsync { new_trace(id) } else { trace_id(&identified, id) };
        let Resolved { function, qualifier, .. } = resolved;
        let event = Event { id, function, qualifier, payload: identified.payload, trace_id };
        return queue(&shard.store, event).await;
    }
    let mut order = order(&identified, &resolved, id);
    order.stream = (way == Way::InvokeWithResponseStream).then_some(shard.stream_limits);
    let Carried { version, outcome } = carry_out(shard, &order, resolved.target, started, id).await?;
    let shown = |reply| match order.stream {
        Some(_) => streamed(reply, &version.version, id, &order.trace_id),
        None => answer(reply, &version.version, id, &order.trace_id),
    };
    match outcome {
        Ok(reply) => Ok(shown(reply)),
        Err(Undelivered::Throttled(cause)) => Err(throttle("ConcurrentInvocationLimitExceeded", cause)),
        Err(Undelivered::ReservedConcurrency) => {
            let reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
            Err(throttle(reason, ThrottleCause::Concurrency))
        }
        Err(Undelivered::NotStarted(reason)) => not_started(&reason, id).map(shown),
    }
}

/// What the machine lacks is the service's error; what the function did wrong is its own.
pub(crate) fn not_started(reason: &Reason, id: RequestId) -> Result<Reply, Fault> {
    match reason.code.as_str() {
        "InvalidRuntime" => Err(Fault::of(&SERVICE, "InvalidRuntimeException", reason.text.clone())),
        "InsufficientCapacity" => Err(Fault::of(&SERVICE, "TooManyRequestsException", reason.text.clone())
            .with_member("Reason", "ConcurrentInvocationLimitExceeded")
            .with_header("retry-after", "1")
            .with_header("x-ondol-throttle-cause", ThrottleCause::Memory.name())),
        "FunctionError.InitTimeout" if reason.answer.is_some() => {
            let message =
                format!("RequestId: {} Error: {}", id.uuid(), reason.answer.as_deref().unwrap_or_default());
            Ok(failed("Sandbox.Timedout", &message))
        }
        code if code.starts_with("FunctionError") || code == "InvalidZipFileException" => {
            if let Some(own) = &reason.answer {
                return Ok(Reply::whole(Some("Unhandled"), own.clone().into(), None));
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
            Ok(failed(kind, &message))
        }
        _ => Err(Fault::of(&SERVICE, "ServiceException", reason.text.clone())),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InvocationType {
    RequestResponse,
    Event,
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
    function: Arc<str>,
    qualifier: Option<Qualifier>,
    invoked_arn: String,
}

fn accept<D>(
    shard: &Shard<D>,
    way: Way,
    function: &str,
    request: Request<Incoming>,
) -> Result<Accepted, Fault> {
    let (parts, body) = request.into_parts();
    let head = shard.gatekeeper.head(&HeaderView(&parts.headers), parts.uri.query().unwrap_or(""))?;
    let header = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    check_names(way, function, &parts, !body.is_end_stream())?;
    let kind = match header("x-amz-invocation-type") {
        _ if way == Way::InvokeAsync => InvocationType::Event,
        Some("DryRun") => InvocationType::DryRun,
        Some("Event") => InvocationType::Event,
        _ => InvocationType::RequestResponse,
    };
    let bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if kind == InvocationType::Event {
        check_size(bytes, way.event_bytes_max())?;
    } else if bytes > PAYLOAD_BYTES_MAX {
        return Err(too_large());
    }
    let wants_log_tail = header("x-amz-log-type") == Some("Tail");
    for (name, what) in
        [("x-amz-tenant-id", "Tenant isolation"), ("x-amz-durable-execution-name", "Durable execution")]
    {
        if parts.headers.contains_key(name) {
            let text = format!("{what} isn't supported by this version of Ondol.");
            return Err(Fault::of(&SERVICE, "InvalidParameterValueException", text));
        }
    }
    // Only who waits for an answer has a context to give.
    let context = header("x-amz-client-context").filter(|_| kind != InvocationType::Event);
    if context.is_some_and(|context| STANDARD.decode(context).is_err()) {
        return Err(Fault::of(
            &SERVICE,
            "InvalidRequestContentException",
            "The client context is not valid base64.",
        ));
    }
    if context.is_some_and(|context| context.len() > CLIENT_CONTEXT_BYTES_MAX) {
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
    let invoked_arn = home.function_arn(&reference.name, qualifier.as_deref());
    Ok(Resolved { target, function: reference.name.into(), qualifier: parsed, invoked_arn })
}

/// An error of the function, in this server's words.
fn failed(kind: &str, message: &str) -> Reply {
    let body = serde_json::json!({"errorType": kind, "errorMessage": message}).to_string();
    Reply::whole(Some("Unhandled"), body.into(), None)
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
fn check_names(way: Way, function: &str, parts: &Parts, has_body: bool) -> Result<(), Fault> {
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let query = parts.uri.query().unwrap_or("");
    let is_one_of = |name, values: &[&str]| {
        parts.headers.get(name).is_none_or(|value: &HeaderValue| values.iter().any(|known| value == known))
    };
    let is_usual = plain(function)
        && query.is_empty()
        && is_one_of("x-amz-invocation-type", way.types())
        && is_one_of("x-amz-log-type", &["None", "Tail"])
        && is_one_of("x-amz-tenant-id", &[])
        && is_one_of("x-amz-durable-execution-name", &[]);
    if is_usual && (has_body || way != Way::InvokeAsync) {
        return Ok(());
    }
    let Some(operation) = SERVICE.operation(way.operation()) else { return Ok(()) };
    let matched = (operation, vec![("FunctionName", function.to_owned())]);
    let headers = HeaderView(&parts.headers);
    let header = |name: &str| ondol_wire::sigv4::Headers::get(&headers, name);
    let mut input = read_members(&SERVICE, &matched, query, header, b"")?;
    // The payload is the whole body, and is looked at when it is here.
    if way == Way::InvokeAsync && has_body {
        input.insert("InvokeArgs".into(), "".into());
    }
    operation.input.map_or(Ok(()), |shape| ondol_wire::validate::validate(&SERVICE, shape, &input))
}

fn order(identified: &Identified, resolved: &Resolved, request: RequestId) -> Order {
    let text = |name| identified.parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // The caller sends base64, the runtime gets the JSON itself.
    let client_context = text("x-amz-client-context")
        .and_then(|context| STANDARD.decode(context).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    Order {
        function: resolved.function.clone(),
        qualifier: resolved.qualifier.clone(),
        invoked_arn: resolved.invoked_arn.as_str().into(),
        payload: identified.payload.clone(),
        client_context: client_context.map(Into::into),
        trace_id: trace_id(identified, request),
        wants_log_tail: identified.wants_log_tail,
        stream: None,
    }
}

fn trace_id(identified: &Identified, request: RequestId) -> Arc<str> {
    let given = identified.parts.headers.get("x-amzn-trace-id").and_then(|value| value.to_str().ok());
    given.filter(|given| given.len() <= TRACE_BYTES_MAX).map_or_else(|| new_trace(request), Into::into)
}

fn dry_run(id: RequestId) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    insert(&mut response, "x-amzn-requestid", &id.uuid());
    response
}

/// The answer begins with the function's first word.
fn streamed(reply: Reply, version: &str, id: RequestId, trace_id: &str) -> Response<Body> {
    let content_type = reply.content_type.clone();
    let mut response = Response::new(EventStream::new(reply).boxed_unsync());
    insert(&mut response, "content-type", ondol_wire::event_stream::CONTENT_TYPE);
    insert_ids(&mut response, id, trace_id);
    insert(&mut response, "x-amz-executed-version", version);
    if let Some(content_type) = content_type {
        insert(&mut response, "x-amzn-remapped-content-type", &content_type);
    }
    response
}

fn answer(reply: Reply, version: &str, id: RequestId, trace_id: &str) -> Response<Body> {
    let mut response = Response::new(whole(whole_of(reply.body)));
    insert(&mut response, "content-type", "application/json");
    insert_ids(&mut response, id, trace_id);
    insert(&mut response, "x-amz-executed-version", version);
    insert(&mut response, "x-amzn-remapped-content-length", "0");
    if let Some(kind) = reply.function_error {
        insert(&mut response, "x-amz-function-error", kind);
    }
    if let Some(tail) = reply.log_tail {
        insert(&mut response, "x-amz-log-result", &STANDARD.encode(tail));
    }
    response
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
