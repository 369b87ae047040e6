//! A function that streams what its event lists: texts, and waits for a gate to open where it says so.

use lambda_runtime::streaming::{Body, Response, channel};
use lambda_runtime::{Error, LambdaEvent, run_concurrent, service_fn};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A GET that is answered when the gate opens.
async fn wait(address: &str) -> Result<(), Error> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn handler(event: LambdaEvent<Value>) -> Result<Response<Body>, Error> {
    let parts: Vec<Value> = serde_json::from_value(event.payload["parts"].clone())?;
    let (mut sender, body) = channel();
    tokio::spawn(async move {
        for part in parts {
            if let Some(gate) = part["gate"].as_str() {
                wait(gate).await?;
            }
            if let Some(text) = part.as_str() {
                sender.send_data(text.to_owned().into()).await?;
            }
        }
        Ok::<(), Error>(())
    });
    Ok(Response::from(body))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    run_concurrent(service_fn(handler)).await
}
