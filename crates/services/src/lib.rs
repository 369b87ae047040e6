//! Asking the AWS services that Ondol does not serve, at the endpoints `ondol up --service-endpoint` names. Must never
//! decide what an answer means.

mod brokers;
mod secrets;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use ondol_observe::clock;
use ondol_wire::sigv4::{Outgoing, hex, sha256, sign};
use ondol_wire::time::amz_date;
use tokio::net::TcpStream;

pub use brokers::{Broker, Brokers, Engine};
pub use secrets::{BasicCredentials, Secrets};

const SECONDS_MAX: u64 = 60;

/// One request to a service.
#[derive(Debug)]
pub struct Asked<'a> {
    method: Method,
    path: &'a str,
    query: &'a str,
    target: Option<&'a str>,
    content_type: &'static str,
    body: Vec<u8>,
}

impl<'a> Asked<'a> {
    /// An operation of a service that speaks JSON; `version` is 1.0 or 1.1.
    pub fn json(version: &str, target: &'a str, body: &serde_json::Value) -> Self {
        let content_type =
            if version == "1.0" { "application/x-amz-json-1.0" } else { "application/x-amz-json-1.1" };
        let (method, target, body) = (Method::POST, Some(target), body.to_string().into_bytes());
        Self { method, path: "/", query: "", target, content_type, body }
    }

    /// An operation of a service that takes forms.
    pub fn form(body: String) -> Self {
        let (content_type, body) = ("application/x-www-form-urlencoded; charset=utf-8", body.into_bytes());
        Self { method: Method::POST, path: "/", query: "", target: None, content_type, body }
    }

    pub fn get(path: &'a str, query: &'a str) -> Self {
        Self { method: Method::GET, path, query, target: None, content_type: "", body: Vec::new() }
    }

    pub fn put(path: &'a str, body: Vec<u8>) -> Self {
        let content_type = "application/octet-stream";
        Self { method: Method::PUT, path, query: "", target: None, content_type, body }
    }
}

/// Where each service is, by its signing name, and what to sign with there.
#[derive(Clone, Default)]
pub struct ServiceEndpoints {
    endpoints: BTreeMap<String, Uri>,
    access_key: Option<(String, String)>,
    region: String,
}

impl std::fmt::Debug for ServiceEndpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServiceEndpoints").field(&self.endpoints).finish()
    }
}

/// The input of `GetQueueUrl` for a queue's ARN; none if it is no queue's.
pub fn get_queue_url(arn: &str) -> Option<serde_json::Value> {
    let [_, _, _, _, account, queue] = arn.split(':').collect::<Vec<_>>()[..] else { return None };
    Some(serde_json::json!({"QueueName": queue, "QueueOwnerAWSAccountId": account}))
}

/// An answer of another service.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: Bytes,
}

impl Response {
    /// The text of an element of an XML error, or of a member of a JSON one.
    pub fn text(&self, element: &str, member: &str) -> Option<String> {
        let body = String::from_utf8_lossy(&self.body);
        if let Ok(json) = serde_json::from_str::<serde_json::Value>(&body) {
            return json[member].as_str().map(str::to_owned);
        }
        let start = body.find(&format!("<{element}>"))? + element.len() + 2;
        let end = body.get(start..)?.find(&format!("</{element}>"))?;
        body.get(start..start + end).map(str::to_owned)
    }
}

impl ServiceEndpoints {
    /// Reads `s3=URL,sqs=URL`; the error says what is wrong.
    pub fn parse(text: &str, region: &str, access_key: Option<(String, String)>) -> Result<Self, String> {
        let mut endpoints = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (service, url) =
                pair.split_once('=').ok_or_else(|| format!("{pair:?} is not of the form SERVICE=URL"))?;
            let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
            if uri.scheme_str() != Some("http") || uri.host().is_none() {
                return Err(format!(
                    "{url:?} is no http:// URL; put a proxy on this machine in front of a service that only speaks TLS"
                ));
            }
            endpoints.insert(service.to_owned(), uri);
        }
        Ok(Self { endpoints, access_key, region: region.to_owned() })
    }

    pub fn has(&self, service: &str) -> bool {
        self.endpoints.contains_key(service)
    }

    /// Sends one signed request; the error is a sentence for the user.
    pub async fn call(&self, service: &str, asked: Asked<'_>, limit: usize) -> Result<Response, String> {
        let endpoint = self.endpoints.get(service).ok_or_else(|| {
            format!(
                "Ondol doesn't serve {service} itself. Start it with --service-endpoint {service}=URL to use one that does."
            )
        })?;
        let sending = self.send(endpoint, service, asked, limit);
        match tokio::time::timeout(Duration::from_secs(SECONDS_MAX), sending).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(format!("{service} at {endpoint} can't be asked: {error}")),
            Err(_) => Err(format!("{service} at {endpoint} gave no answer in {SECONDS_MAX} seconds.")),
        }
    }

    async fn send(
        &self,
        endpoint: &Uri,
        service: &str,
        asked: Asked<'_>,
        limit: usize,
    ) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
        let Asked { method, path, query, target, content_type, body } = asked;
        let host = endpoint.host().unwrap_or_default();
        let port = endpoint.port_u16().unwrap_or(80);
        let authority = format!("{host}:{port}");
        let stamp = amz_date(clock::epoch_millis() / 1_000);
        let (id, secret) =
            self.access_key.as_ref().map_or(("test", "test"), |(id, secret)| (id.as_str(), secret.as_str()));
        let outgoing =
            Outgoing { method: method.as_str(), path, query, host: &authority, stamp: &stamp, body: &body };
        let authorization = sign(&outgoing, (id, secret), (&self.region, service));
        let address = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let mut request = Request::builder()
            .method(method)
            .uri(address)
            .header("host", &authority)
            .header("x-amz-date", &stamp)
            .header("x-amz-content-sha256", hex(&sha256(&body)))
            .header("authorization", authorization);
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let answered = async {
            let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), limit).collect().await?.to_bytes();
            Ok(Response { status, body })
        }
        .await;
        connection.abort();
        answered
    }
}
