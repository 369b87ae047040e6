//! Events over signed HTTP by many connections at once, and their limit: the same events straight into the store.
//!
//! usage: events raw FOLDER CONCURRENCY COUNT            prints events a second
//!        events told @FILE FUNCTION CONCURRENCY COUNT RATE
//! `told` goes on while servers die: it reads their URL from a file before each connection, keeps to a rate, and
//! prints the id of every event as soon as it is acknowledged. One in fifty fails once, one in a hundred always.
#![allow(clippy::print_stdout)]

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use ondol_store::Store;
use ondol_store::queue::{Change, NewEvent};
use ondol_wire::sigv4::{Outgoing, sign};

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Client {
    host: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn connect(url: &str) -> Result<Self, Failure> {
        let host = url.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
        let stream = tokio::net::TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { host, sender })
    }

    /// The status, and the id the event has from now on.
    async fn send(&mut self, function: &str, body: Bytes) -> Result<(u16, String), Failure> {
        let seconds = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let stamp = ondol_wire::time::amz_date(seconds);
        let path = format!("/2015-03-31/functions/{function}/invocations");
        let outgoing =
            Outgoing { method: "POST", path: &path, query: "", host: &self.host, stamp: &stamp, body: &body };
        let authorization = sign(&outgoing, ("test", "test"), ("us-east-1", "lambda"));
        let request = Request::post(&path)
            .header("host", &self.host)
            .header("x-amz-date", &stamp)
            .header("x-amz-invocation-type", "Event")
            .header("authorization", authorization)
            .body(Full::new(body))?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        let id = response.headers().get("x-amzn-requestid").and_then(|id| id.to_str().ok());
        let id = id.unwrap_or_default().to_owned();
        response.into_body().collect().await?;
        Ok((status, id))
    }
}

/// About a kilobyte.
fn payload(number: usize, fail: u32) -> Bytes {
    format!(r#"{{"number":{number},"fail":{fail},"text":"{}"}}"#, "x".repeat(970)).into()
}

async fn raw(folder: &str, concurrency: usize, count: usize) -> Result<f64, Failure> {
    let store = Store::open(std::path::Path::new(folder))?;
    let started = Instant::now();
    let writers: Vec<_> = (0..concurrency)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in (writer..count).step_by(concurrency) {
                    let event = NewEvent {
                        function: "bench".into(),
                        head: Bytes::from_static(&[b'h'; 200]),
                        payload: payload(number, 0),
                        enqueued_epoch_millis: 0,
                    };
                    store.queue(Change::Enqueue(event)).await?;
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    #[allow(clippy::cast_precision_loss)]
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

async fn told(
    file: &str,
    function: &str,
    concurrency: usize,
    count: usize,
    rate: f64,
) -> Result<(), Failure> {
    let started = tokio::time::Instant::now();
    let mut writers = Vec::new();
    for writer in 0..concurrency {
        let (file, function) = (file.to_owned(), function.to_owned());
        writers.push(tokio::spawn(async move {
            let mut client = None;
            for number in (writer..count).step_by(concurrency) {
                #[allow(clippy::cast_precision_loss)]
                let at = started + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(at).await;
                let fail = if number % 100 == 0 { 99 } else { u32::from(number % 50 == 1) };
                loop {
                    let mut open = match client.take() {
                        Some(open) => open,
                        None => match connect(&file).await {
                            Ok(open) => open,
                            Err(_) => {
                                tokio::time::sleep(Duration::from_millis(5)).await;
                                continue;
                            }
                        },
                    };
                    // An answer that was cut says nothing; the event is sent anew, under an id of its own.
                    if let Ok((202, id)) = open.send(&function, payload(number, fail)).await {
                        client = Some(open);
                        writeln!(std::io::stdout(), "{id} {fail}")?;
                        break;
                    }
                }
            }
            Ok::<(), Failure>(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

async fn connect(file: &str) -> Result<Client, Failure> {
    Client::connect(&std::fs::read_to_string(file)?).await
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match words[..] {
            ["raw", folder, concurrency, count] => {
                println!("{:.0}", raw(folder, concurrency.parse()?, count.parse()?).await?);
            }
            ["told", file, function, concurrency, count, rate] => {
                let file = file.trim_start_matches('@');
                told(file, function, concurrency.parse()?, count.parse()?, rate.parse()?).await?;
            }
            _ => return Err(Failure::from("events raw|told …")),
        }
        Ok(())
    })
}
