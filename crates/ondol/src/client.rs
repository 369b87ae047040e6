//! A small signed client for this program's own commands.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::HeaderMap;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use ondol_wire::sigv4::{Outgoing, sign};

use crate::commands::reachable;
use crate::{Address, access_keys};

const ANSWER_SECONDS_MAX: u64 = 30;

/// No server answers: commands end with a code of its own.
#[derive(Debug, thiserror::Error)]
#[error("no server answers at {0}; start one with `ondol up`")]
pub struct NoServer(SocketAddr);

/// A server and a key it knows.
pub struct Server {
    address: SocketAddr,
    key: (String, String),
}

impl Server {
    pub fn of(address: &Address) -> Result<Self> {
        let variable = |name| std::env::var(name).ok();
        let key = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            (Some(key), Some(secret)) => (key, secret),
            _ if address.listen.is_loopback() => ("test".into(), "test".into()),
            _ => match access_keys::any(&address.data_dir) {
                Some(key) => key,
                None => bail!(
                    "no access key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or make one with `ondol keys create`"
                ),
            },
        };
        Ok(Self { address: SocketAddr::new(reachable(address.listen), address.port), key })
    }

    /// A page of the server, as JSON.
    pub fn get(&self, path: &str, query: &str) -> Result<serde_json::Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let asked = self.ask(path, query);
            tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), asked).await.with_context(|| {
                format!("the server at {} did not answer within {ANSWER_SECONDS_MAX} seconds", self.address)
            })?
        })
    }

    async fn ask(&self, path: &str, query: &str) -> Result<serde_json::Value> {
        let call = Call { method: Method::GET, path, query, headers: &[], body: Bytes::new() };
        let Answer { status, body, .. } = self.connect().await?.send(&call).await?;
        if !(200..300).contains(&status) {
            bail!("the server refused ({status}): {}", String::from_utf8_lossy(&body));
        }
        Ok(serde_json::from_slice(&body)?)
    }

    pub async fn connect(&self) -> Result<Connection> {
        let stream =
            tokio::net::TcpStream::connect(self.address).await.map_err(|_| NoServer(self.address))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let scope = ("us-east-1".to_owned(), "lambda");
        Ok(Connection { sender, host: self.address.to_string(), key: self.key.clone(), scope })
    }
}

/// A request to the server, which is signed as it is sent.
#[derive(Debug)]
pub struct Call<'a> {
    pub method: Method,
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a [(&'static str, String)],
    pub body: Bytes,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// One connection, for one request after the other.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    key: (String, String),
    /// The region and service that requests are signed for.
    scope: (String, &'static str),
}

impl Connection {
    pub fn signing_for(self, region: &str, service: &'static str) -> Self {
        Self { scope: (region.to_owned(), service), ..self }
    }

    pub async fn send(&mut self, call: &Call<'_>) -> Result<Answer> {
        let (parts, body) = self.begin(call).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// The head of an answer, and its body as it comes.
    pub async fn begin(&mut self, call: &Call<'_>) -> Result<Response<Incoming>> {
        let Call { method, path, query, headers, body } = call;
        let stamp = ondol_wire::time::amz_date(ondol_observe::clock::epoch_millis() / 1_000);
        let outgoing =
            Outgoing { method: method.as_str(), path, query, host: &self.host, stamp: &stamp, body };
        let scope = (self.scope.0.as_str(), self.scope.1);
        let authorization = sign(&outgoing, (&self.key.0, &self.key.1), scope);
        let target = if query.is_empty() { (*path).to_owned() } else { format!("{path}?{query}") };
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", &self.host)
            .header("x-amz-date", &stamp)
            .header("authorization", authorization);
        for (name, value) in *headers {
            request = request.header(*name, value);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(body.clone()))?).await?)
    }
}

/// What a refusal says.
pub fn refusal(answer: &Answer) -> String {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["message"].as_str().or(body["Message"].as_str()).unwrap_or_default().to_owned()
}
