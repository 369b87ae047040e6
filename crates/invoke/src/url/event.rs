//! A web request as a function is told of it: payload format 2.0.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::http::request::Parts;
use ondol_core::identity::RequestId;
use ondol_core::policy::CallerKind;
use ondol_identity::Asked;
use ondol_wire::uri::query_pairs;
use serde_json::{Map, Value, json};

use super::address::Address;
use super::{content_type, text};

/// What is known of a request.
#[derive(Debug)]
pub struct Facts<'a> {
    pub address: &'a Address,
    pub parts: &'a Parts,
    /// Who signed it, where that is asked for.
    pub asked: Option<&'a Asked>,
    pub peer: Option<IpAddr>,
    pub request: RequestId,
    pub trace_id: &'a str,
    pub account_id: &'a str,
    pub now_epoch_millis: i64,
}

/// The event, as JSON.
pub fn of(facts: &Facts<'_>, body: &[u8]) -> String {
    let Facts { address, parts, .. } = facts;
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| drop(event.insert(name.to_owned(), value));
    put("version", "2.0".into());
    put("routeKey", "$default".into());
    put("rawPath", address.path.as_str().into());
    put("rawQueryString", parts.uri.query().unwrap_or("").into());
    let cookies = cookies(parts);
    if !cookies.is_empty() {
        put("cookies", cookies.into());
    }
    put("headers", Value::Object(headers(facts)));
    let query = query(parts.uri.query().unwrap_or(""));
    if !query.is_empty() {
        put("queryStringParameters", Value::Object(query));
    }
    put("requestContext", context(facts));
    let is_base64 = !body.is_empty() && !is_text(parts, body);
    if !body.is_empty() {
        let text = if is_base64 { STANDARD.encode(body) } else { String::from_utf8_lossy(body).into_owned() };
        put("body", text.into());
    }
    put("isBase64Encoded", is_base64.into());
    Value::Object(event).to_string()
}

fn cookies(parts: &Parts) -> Vec<String> {
    let lines = parts.headers.get_all("cookie").iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .map(|cookie| cookie.trim().to_owned())
        .filter(|c| !c.is_empty())
        .collect()
}

/// Names in lower case, repeated ones joined; those of one hop and cookies left out, those of the way added.
fn headers(facts: &Facts<'_>) -> Map<String, Value> {
    let mut headers = Map::new();
    for name in facts.parts.headers.keys() {
        if matches!(
            name.as_str(),
            "cookie" | "connection" | "transfer-encoding" | "keep-alive" | "upgrade" | "te"
        ) {
            continue;
        }
        let values: Vec<_> =
            facts.parts.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        headers.insert(name.as_str().to_owned(), values.join(",").into());
    }
    let port = text(&facts.parts.headers, "host")
        .and_then(|host| host.rsplit_once(':'))
        .map_or("80", |(_, port)| port);
    let peer = facts.peer.map_or_else(String::new, |peer| peer.to_string());
    for (name, value) in [
        ("x-forwarded-for", peer.as_str()),
        ("x-forwarded-port", port),
        ("x-forwarded-proto", "http"),
        ("x-amzn-trace-id", facts.trace_id),
    ] {
        headers.insert(name.to_owned(), value.into());
    }
    headers
}

/// Decoded; those of one name joined.
fn query(query: &str) -> Map<String, Value> {
    let mut found: Map<String, Value> = Map::new();
    for (name, value) in query_pairs(query) {
        let joined = match found.get(&name).and_then(Value::as_str) {
            Some(before) => format!("{before},{value}"),
            None => value,
        };
        found.insert(name, joined.into());
    }
    found
}

fn context(facts: &Facts<'_>) -> Value {
    let Facts { address, parts, .. } = facts;
    let mut context = json!({
        "accountId": if facts.asked.is_some() { facts.account_id } else { "anonymous" },
        "apiId": address.id,
        "domainName": address.domain,
        "domainPrefix": address.id,
        "http": {
            "method": parts.method.as_str(),
            "path": address.path,
            "protocol": "HTTP/1.1",
            "sourceIp": facts.peer.map_or_else(String::new, |peer| peer.to_string()),
            "userAgent": text(&parts.headers, "user-agent"),
        },
        "requestId": facts.request.uuid(),
        "routeKey": "$default",
        "stage": "$default",
        "time": ondol_wire::time::access_log_time(facts.now_epoch_millis / 1_000),
        "timeEpoch": facts.now_epoch_millis,
    });
    if let Some(asked) = facts.asked {
        context["authentication"] = Value::Null;
        context["authorizer"] = json!({"iam": {
            "accessKey": asked.access_key_id,
            "accountId": asked.caller.account_id,
            "callerId": asked.caller.user_id(),
            "cognitoIdentity": null,
            "principalOrgId": null,
            "userArn": asked.caller.arn(),
            "userId": match &asked.caller.kind {
                CallerKind::Root => asked.caller.account_id.clone(),
                _ => asked.caller.user_id(),
            },
        }});
    }
    context
}

/// Text goes as it is, everything else in base64.
fn is_text(parts: &Parts, body: &[u8]) -> bool {
    let kind = content_type(&parts.headers).unwrap_or_default().to_ascii_lowercase();
    let known = ["text/", "json", "xml", "javascript"].iter().any(|part| kind.contains(part));
    known && std::str::from_utf8(body).is_ok()
}
