//! The Extensions API and the Telemetry API, on the same listener as the Runtime API and just as suspicious.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use ondol_core::identity::RequestId;
use ondol_observe::platform::Level;
use serde::Deserialize;

use crate::extensions::Refusal;
use crate::host::{Host, RuntimeError};
use crate::runtime_api::{
    Answered, ERROR_BYTES_MAX, ReadError, failure, json, not_found, read, too_large, truncated,
};
use crate::telemetry::{Subscription, subscribed};

const NAME_BYTES_MAX: usize = 128;

#[derive(Deserialize, Default)]
struct Register {
    #[serde(default)]
    events: Vec<String>,
    #[serde(default, rename = "configurationKeys")]
    configuration_keys: Vec<serde_json::Value>,
}

/// Answers a request below `/2020-01-01/extension/` or `/2022-07-01/telemetry`.
pub async fn route(host: Rc<Host>, request: Request<Incoming>) -> Answered {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, "/2020-01-01/extension/register") => register(&host, request).await,
        (&Method::GET, "/2020-01-01/extension/event/next") => next(&host, &request).await,
        (&Method::POST, "/2020-01-01/extension/init/error") => {
            error(&host, request, "Extension.InitError").await
        }
        (&Method::POST, "/2020-01-01/extension/exit/error") => {
            error(&host, request, "Extension.ExitError").await
        }
        (&Method::PUT, "/2022-07-01/telemetry") => subscribe(&host, request).await,
        _ => not_found(),
    }
}

async fn register(host: &Host, request: Request<Incoming>) -> Answered {
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(name) = header("lambda-extension-name")
        .filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()))
        .map(str::to_owned)
    else {
        return refused(
            "Extension.InvalidExtensionName",
            "The extension's name is empty or longer than 128 bytes",
        );
    };
    let wants_account = header("lambda-extension-accept-feature")
        .is_some_and(|list| list.split(',').any(|f| f.trim() == "accountId"));
    let body = match read(request, ERROR_BYTES_MAX).await {
        Ok((_, body)) => body,
        Err(error) => return unread(&error),
    };
    let asked: Register = if body.is_empty() {
        Register::default()
    } else {
        match serde_json::from_slice(&body) {
            Ok(asked) => asked,
            Err(error) => return refused("InvalidRequestFormat", &error.to_string()),
        }
    };
    if !asked.configuration_keys.is_empty() {
        return refused("InvalidRequestFormat", "configurationKeys isn't supported");
    }
    let Ok((high, low)) = getrandom::u64().and_then(|high| Ok((high, getrandom::u64()?))) else {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "No random numbers");
    };
    let id = RequestId::from_random(high, low);
    if let Err(Refusal(error_type, text)) = host.extensions.borrow_mut().register(id.0, &name, &asked.events)
    {
        return refused(error_type, &text);
    }
    host.extension_registered();
    let function = &host.assignment.publication.configuration;
    let mut told = serde_json::json!({
        "functionName": host.assignment.version.function,
        "functionVersion": host.assignment.version.version,
        "handler": function.handler,
    });
    if wants_account {
        told["accountId"] = host.assignment.function_arn.split(':').nth(4).into();
    }
    let mut answer = json(StatusCode::OK, told.to_string().into());
    if let Ok(id) = HeaderValue::from_str(&id.uuid()) {
        answer.headers_mut().insert("lambda-extension-identifier", id);
    }
    answer
}

/// Who asks, by the identifier its registration was answered with.
fn identify(host: &Host, request: &Request<Incoming>) -> Result<u128, Box<Answered>> {
    let refuse = |error_type, text: &str| Err(Box::new(refused(error_type, text)));
    let Some(text) = request.headers().get("lambda-extension-identifier") else {
        return refuse("Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header");
    };
    match text.to_str().ok().and_then(RequestId::parse_uuid) {
        Some(id) if host.extensions.borrow().name(id.0).is_some() => Ok(id.0),
        Some(_) => refuse("Extension.UnknownExtensionIdentifier", "Unknown extension"),
        None => refuse("Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier"),
    }
}

async fn next(host: &Host, request: &Request<Incoming>) -> Answered {
    let id = match identify(host, request) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    let told = host.extensions.borrow_mut().next(id);
    host.consider_ready();
    host.consider_free();
    match told {
        // The environment's end closes the channel of who did not ask to hear of it.
        Some(told) => match told.await {
            Ok(event) => json(StatusCode::OK, event),
            Err(_) => failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalServerError",
                "Another request for the next event took this one's place",
            ),
        },
        None => refused("Extension.UnknownExtensionIdentifier", "Unknown extension"),
    }
}

async fn error(host: &Host, request: Request<Incoming>, kind: &'static str) -> Answered {
    let id = match identify(host, &request) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    let stated = request.headers().get("lambda-extension-function-error-type");
    let Some(stated) = stated.and_then(|value| value.to_str().ok()).map(str::to_owned) else {
        return refused("Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found");
    };
    let body = match read(request, ERROR_BYTES_MAX).await {
        Ok((_, body)) => body,
        Err(error) => return unread(&error),
    };
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let name = host.extensions.borrow().name(id).unwrap_or_default().to_owned();
    let text = body["errorMessage"].as_str().unwrap_or_default();
    let message = format!("The extension {name} reported {stated}: {text}");
    host.extension_failed(RuntimeError::new(kind, &message));
    json(StatusCode::ACCEPTED, r#"{"status":"OK"}"#.into())
}

async fn subscribe(host: &Host, request: Request<Incoming>) -> Answered {
    let id = match identify(host, &request) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    if !host.journal.takes_subscriptions() {
        return refused("Telemetry.SubscriptionClosed", "Telemetry API subscription is closed already");
    }
    let body = match read(request, ERROR_BYTES_MAX).await {
        Ok((_, body)) => body,
        Err(error) => return unread(&error),
    };
    // The body may have come slowly.
    if !host.journal.takes_subscriptions() {
        return refused("Telemetry.SubscriptionClosed", "Telemetry API subscription is closed already");
    }
    let name = host.extensions.borrow().name(id).unwrap_or_default().to_owned();
    match Subscription::parse(&name, &body, host.is_classic()) {
        Ok(subscription) => {
            let subscription = Rc::new(subscription);
            host.journal.platform("platform.telemetrySubscription", Level::Info, &subscribed(&subscription));
            host.journal.subscribe(Rc::clone(&subscription));
            host.keep_delivery(id, tokio::task::spawn_local(subscription.deliver()));
            json(StatusCode::OK, r#""OK""#.into())
        }
        Err(text) => failure(StatusCode::BAD_REQUEST, "ValidationException", &text),
    }
}

fn refused(error_type: &str, text: &str) -> Answered {
    failure(StatusCode::FORBIDDEN, error_type, text)
}

fn unread(error: &ReadError) -> Answered {
    match error {
        ReadError::TooLarge => too_large(ERROR_BYTES_MAX),
        ReadError::Truncated => truncated(),
    }
}
