//! Control-plane operations over signed HTTP, each waiting for its answer, by many connections at once.
//!
//! usage: api URL create|get|list CONCURRENCY COUNT; prints operations a second, or for `list` the seconds and the
//! number of functions.
#![allow(clippy::print_stdout)]

use std::io::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use ondol_wire::sigv4::{Outgoing, sign};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ROLE: &str = "arn:aws:iam::000000000000:role/bench";

struct Client {
    host: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn connect(host: &str) -> Result<Self, Failure> {
        let stream = tokio::net::TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { host: host.to_owned(), sender })
    }

    async fn call(
        &mut self,
        service: &str,
        method: Method,
        (path, query): (&str, &str),
        body: Bytes,
    ) -> Result<(u16, Bytes), Failure> {
        let seconds = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let stamp = ondol_wire::time::amz_date(seconds);
        let outgoing =
            Outgoing { method: method.as_str(), path, query, host: &self.host, stamp: &stamp, body: &body };
        let authorization = sign(&outgoing, ("test", "test"), ("us-east-1", service));
        let address = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let form = if service == "iam" { "application/x-www-form-urlencoded" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(address)
            .header("host", &self.host)
            .header("x-amz-date", &stamp)
            .header("content-type", form)
            .header("authorization", authorization)
            .body(Full::new(body))?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

fn package() -> Result<String, Failure> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file("app.py", zip::write::SimpleFileOptions::default())?;
    archive.write_all(b"def handler(event, context):\n    return event\n")?;
    Ok(base64::engine::general_purpose::STANDARD.encode(archive.finish()?.into_inner()))
}

fn creation(number: usize, package: &str) -> Bytes {
    let body = json!({
        "FunctionName": format!("bench-{number:06}"), "Runtime": "python3.13", "Handler": "app.handler",
        "Role": ROLE, "Code": {"ZipFile": package},
    });
    body.to_string().into()
}

async fn many(host: &str, concurrency: usize, count: usize, creates: bool) -> Result<f64, Failure> {
    let package = package()?;
    let started = Instant::now();
    let mut writers = Vec::new();
    for writer in 0..concurrency {
        let (mut client, package) = (Client::connect(host).await?, package.clone());
        writers.push(tokio::spawn(async move {
            for number in (writer..count).step_by(concurrency) {
                let (status, body) = if creates {
                    let address = ("/2015-03-31/functions", "");
                    client.call("lambda", Method::POST, address, creation(number, &package)).await?
                } else {
                    let path = format!("/2015-03-31/functions/bench-{number:06}");
                    client.call("lambda", Method::GET, (&path, ""), Bytes::new()).await?
                };
                if !matches!(status, 200 | 201) {
                    return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
                }
            }
            Ok::<(), Failure>(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    #[allow(clippy::cast_precision_loss)]
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

async fn list(host: &str) -> Result<String, Failure> {
    let mut client = Client::connect(host).await?;
    let (started, mut query, mut found) = (Instant::now(), String::new(), 0);
    loop {
        let (_, body) =
            client.call("lambda", Method::GET, ("/2015-03-31/functions", &query), Bytes::new()).await?;
        let page: Value = serde_json::from_slice(&body)?;
        found += page["Functions"].as_array().map_or(0, Vec::len);
        match page["NextMarker"].as_str() {
            Some(marker) => query = format!("Marker={}", ondol_wire::uri::percent_encode(marker, false)),
            None => return Ok(format!("{:.3} {found}", started.elapsed().as_secs_f64())),
        }
    }
}

async fn role(host: &str) -> Result<(), Failure> {
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole",
    }]});
    let document = ondol_wire::uri::percent_encode(&trust.to_string(), false);
    let form =
        format!("Action=CreateRole&Version=2010-05-08&RoleName=bench&AssumeRolePolicyDocument={document}");
    Client::connect(host).await?.call("iam", Method::POST, ("/", ""), form.into()).await?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, what, concurrency, count] = &arguments[..] else {
        return Err("api URL create|get|list CONCURRENCY COUNT".into());
    };
    let (concurrency, count): (usize, usize) = (concurrency.parse()?, count.parse()?);
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        match what.as_str() {
            "create" => {
                role(host).await?;
                Ok(format!("{:.0}", many(host, concurrency, count, true).await?))
            }
            "get" => Ok(format!("{:.0}", many(host, concurrency, count, false).await?)),
            "list" => list(host).await,
            other => Err(Failure::from(format!("{other} is none of create, get, list"))),
        }
    })?;
    println!("{answer}");
    Ok(())
}
