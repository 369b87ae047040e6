//! Function URLs: functions as web servers, for whoever their policy lets in.

mod address;
mod cors;
mod event;
mod response;

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use ondol_core::identity::RequestId;
use ondol_core::policy::{Caller, Context};
use ondol_identity::{Asked, Peer};
use ondol_observe::clock;
use ondol_protocol::invocation::{Deliver, PAYLOAD_BYTES_MAX};
use ondol_wire::fault::Fault;
use ondol_wire::http::HeaderView;

use crate::answer::{Body, insert};
use crate::carry::{Carried, Order, carry_out, new_trace};
use crate::directory::UrlRoute;
use crate::invocation::BODY_SECONDS_MAX;
use crate::shard::{Shard, Undelivered};

pub use address::Address;
use cors::Cors;
use event::Facts;

const FORBIDDEN: &str = "Forbidden. For troubleshooting Function URL authorization issues, see: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html";

/// Answers one request at a function's own address.
pub async fn serve<D: Deliver + 'static>(
    shard: &Rc<Shard<D>>,
    address: &Address,
    request: Request<Incoming>,
) -> Response<Body> {
    let id = shard.new_request_id();
    let has_body = !request.body().is_end_stream();
    let Some(route) = shard.directory.url(&address.id) else {
        return refusal(&Refusal::unknown(), id, has_body);
    };
    let cors = route.cors.as_ref().and_then(Cors::read);
    let origin = request.headers().get(ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);
    if let (Some(cors), Some(origin), true) = (&cors, &origin, cors::is_preflight(&request)) {
        let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
        cors.preflight(origin, response.headers_mut());
        insert(&mut response, "x-amzn-requestid", &id.uuid());
        return response;
    }
    let mut response = match answer(shard, address, &route, request, id).await {
        Ok(response) => response,
        Err(refused) => refusal(&refused, id, has_body),
    };
    if let (Some(cors), Some(origin)) = (&cors, &origin) {
        cors.answer(origin, response.headers_mut());
    }
    response
}

/// What is answered without the function.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error_type: &'static str,
    /// The member `Message`; none is null.
    message: Option<String>,
}

impl Refusal {
    fn new(status: StatusCode, error_type: &'static str, message: impl Into<String>) -> Self {
        Self { status, error_type, message: Some(message.into()) }
    }

    fn unknown() -> Self {
        Self { status: StatusCode::FORBIDDEN, error_type: "AccessDeniedException", message: None }
    }

    fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDeniedException", message)
    }

    /// The function failed, or could not be started: AWS says no more.
    pub fn failed() -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "InternalServerErrorException", "Internal Server Error")
    }
}

fn refusal(refused: &Refusal, id: RequestId, has_body: bool) -> Response<Body> {
    let body = match (&refused.message, refused.status) {
        (Some(text), StatusCode::BAD_GATEWAY) => text.clone(),
        (message, _) => serde_json::json!({"Message": message}).to_string(),
    };
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = refused.status;
    insert(&mut response, "content-type", "application/json");
    insert(&mut response, "x-amzn-requestid", &id.uuid());
    insert(&mut response, "x-amzn-errortype", refused.error_type);
    if has_body {
        // It may not be read, and then the connection carries no other request.
        insert(&mut response, "connection", "close");
    }
    response
}

async fn answer<D: Deliver + 'static>(
    shard: &Rc<Shard<D>>,
    address: &Address,
    route: &UrlRoute,
    request: Request<Incoming>,
    id: RequestId,
) -> Result<Response<Body>, Refusal> {
    let started = clock::wall();
    let (parts, body) = request.into_parts();
    let signed = route.is_signed();
    let head = match signed {
        true => {
            let query = parts.uri.query().unwrap_or("");
            if !parts.headers.contains_key("authorization") && !query.contains("X-Amz-Signature=") {
                return Err(Refusal::forbidden("Forbidden"));
            }
            let head = shard.gatekeeper.head(&HeaderView(&parts.headers), query);
            Some(head.map_err(|fault| Refusal::forbidden(&fault.message))?)
        }
        false => None,
    };
    let payload = read(body).await?;
    let asked = match head {
        Some(head) => {
            let checked = shard.gatekeeper.check(head, &parts, &payload, Some("lambda"));
            Some(checked.map_err(|fault| Refusal::forbidden(&fault.message))?.0)
        }
        None => None,
    };
    permit(shard, route, asked.as_ref(), &parts)?;
    let target =
        shard.resolve(&route.function, route.qualifier.as_ref()).map_err(|fault| unresolved(&fault))?;
    let trace = parts.headers.get("x-amzn-trace-id").and_then(|trace| trace.to_str().ok());
    let trace_id = trace.map_or_else(|| new_trace(id), Into::into);
    let facts = Facts {
        address,
        parts: &parts,
        asked: asked.as_ref(),
        peer: peer(&parts),
        request: id,
        trace_id: &trace_id,
        account_id: &shard.directory.home().account_id,
        now_epoch_millis: clock::epoch_millis(),
    };
    let qualifier = route.qualifier.as_ref().map(ToString::to_string);
    let order = Order {
        function: route.function.clone(),
        qualifier: route.qualifier.clone(),
        invoked_arn: shard.directory.home().function_arn(&route.function, qualifier.as_deref()).into(),
        payload: event::of(&facts, &payload).into(),
        client_context: None,
        trace_id: trace_id.clone(),
        wants_log_tail: false,
        stream: route.is_streamed().then_some(shard.stream_limits),
    };
    let carried = carry_out(shard, &order, target, started, id).await;
    let Carried { outcome, .. } = carried.map_err(|fault| unresolved(&fault))?;
    let reply = outcome.map_err(|undelivered| match undelivered {
        Undelivered::Throttled(_) | Undelivered::ReservedConcurrency => {
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.")
        }
        Undelivered::NotStarted(_) => Refusal::failed(),
    })?;
    let mut response = response::of(reply).await?;
    insert(&mut response, "x-amzn-requestid", &id.uuid());
    insert(&mut response, "x-amzn-trace-id", &trace_id);
    if parts.method == Method::HEAD {
        *response.body_mut() = Full::new(Bytes::new()).boxed_unsync();
    }
    Ok(response)
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let too_large = || {
        let text = format!("Request must be smaller than {PAYLOAD_BYTES_MAX} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException", text)
    };
    if body.size_hint().lower() > PAYLOAD_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let reading = Limited::new(body, PAYLOAD_BYTES_MAX).collect();
    match tokio::time::timeout(Duration::from_secs(BODY_SECONDS_MAX), reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        _ => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "RequestTimeoutException",
            "The request body ended early, or took too long.",
        )),
    }
}

/// Two permissions: for the address, and for the function by way of it. Source: AWS's page on access to URLs.
fn permit<D>(
    shard: &Shard<D>,
    route: &UrlRoute,
    asked: Option<&Asked>,
    parts: &Parts,
) -> Result<(), Refusal> {
    let directory = &shard.directory;
    let text = route.qualifier.as_ref().map(ToString::to_string);
    let resource = directory.home().function_arn(&route.function, text.as_deref());
    let policy = directory.policy(&route.function, route.qualifier.as_ref());
    let anonymous = Caller::anonymous();
    let caller = asked.map_or(&anonymous, |asked| &asked.caller);
    let session_policy = asked.and_then(|asked| asked.session_policy.as_deref());
    let mut context = asked.map_or_else(Context::default, Asked::context);
    if let (None, Some(peer)) = (asked, peer(parts)) {
        context.add("aws:SourceIp", peer.to_string());
    }
    context.add("lambda:FunctionArn", resource.as_str());
    directory.add_tags(&route.function, &mut context);
    let authorizer = shard.gatekeeper.authorizer();
    let through_address = context.clone().with("lambda:FunctionUrlAuthType", route.auth_type.as_str());
    let by_way = context.with("lambda:InvokedViaFunctionUrl", "true");
    for (action, context) in
        [("lambda:InvokeFunctionUrl", &through_address), ("lambda:InvokeFunction", &by_way)]
    {
        authorizer
            .authorize(caller, session_policy, action, &resource, context, policy.as_deref())
            .map_err(|_| Refusal::forbidden(FORBIDDEN))?;
    }
    Ok(())
}

/// An alias that is gone leaves its address behind.
fn unresolved(fault: &Fault) -> Refusal {
    match fault.status {
        404 => Refusal::forbidden(FORBIDDEN),
        429 => Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", fault.message.clone()),
        _ => Refusal::failed(),
    }
}

fn peer(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<Peer>().map(|Peer(address)| *address)
}

/// A header's value, where it is text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok())
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    text(headers, CONTENT_TYPE.as_str())
}
