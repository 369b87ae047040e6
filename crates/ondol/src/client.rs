//! A small signed client for this program's own commands.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use ondol_wire::sigv4::{Outgoing, sign};

const ANSWER_SECONDS_MAX: u64 = 10;

/// A page of the server, as JSON.
pub fn get(address: SocketAddr, path: &str, (key, secret): (&str, &str)) -> Result<serde_json::Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asked = ask(address, path, (key, secret));
        tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), asked).await.with_context(|| {
            format!("the server at {address} did not answer within {ANSWER_SECONDS_MAX} seconds")
        })?
    })
}

async fn ask(address: SocketAddr, path: &str, (key, secret): (&str, &str)) -> Result<serde_json::Value> {
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .with_context(|| format!("no server answers at {address}; start one with `ondol up`"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let host = address.to_string();
    let stamp = ondol_wire::time::amz_date(ondol_observe::clock::epoch_millis() / 1_000);
    let outgoing = Outgoing { method: "GET", path, query: "", host: &host, stamp: &stamp, body: b"" };
    let authorization = sign(&outgoing, (key, secret), ("us-east-1", "lambda"));
    let request = Request::get(path)
        .header("host", &host)
        .header("x-amz-date", &stamp)
        .header("authorization", authorization)
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("the server refused ({status}): {}", String::from_utf8_lossy(&body));
    }
    Ok(serde_json::from_slice(&body)?)
}
