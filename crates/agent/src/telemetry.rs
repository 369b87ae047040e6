//! The Telemetry API's delivery: batches of events to an extension, over HTTP or TCP, on the environment's side.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// The only schema Lambda Managed Instances knows, and those Lambda (default) functions know beside it.
pub const SCHEMA_VERSION: &str = "2025-01-29";
const CLASSIC_SCHEMA_VERSIONS: &[&str] = &["2022-07-01", "2022-12-13"];
/// What may wait for one subscriber; beyond it events are dropped and counted.
const WAITING_BYTES_MAX: usize = 4 << 20;
const ATTEMPTS_MAX: u32 = 5;
const RETRY_MILLIS: u64 = 100;
const ANSWER_SECONDS_MAX: u64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Platform,
    Function,
    Extension,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Function => "function",
            Self::Extension => "extension",
        }
    }
}

/// A request to subscribe, as AWS has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    schema_version: String,
    types: Vec<Kind>,
    destination: AskedDestination,
    #[serde(default)]
    buffering: Buffering,
}

#[derive(Debug, Deserialize)]
struct AskedDestination {
    protocol: String,
    #[serde(rename = "URI")]
    uri: Option<String>,
    port: Option<u16>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Buffering {
    max_items: usize,
    max_bytes: usize,
    timeout_ms: u64,
}

impl Default for Buffering {
    fn default() -> Self {
        Self { max_items: 10_000, max_bytes: 262_144, timeout_ms: 1_000 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Destination {
    Http { port: u16, path: String },
    Tcp { port: u16 },
}

#[derive(Debug)]
pub struct Subscription {
    /// The extension's name.
    pub owner: String,
    types: BTreeSet<Kind>,
    destination: Destination,
    buffering: Buffering,
    waiting: RefCell<VecDeque<Bytes>>,
    waiting_bytes: Cell<usize>,
    /// Events this subscriber did not get.
    dropped: Cell<(u64, u64)>,
    flushing: Cell<bool>,
    /// A batch is on its way.
    sending: Cell<bool>,
    wake: Notify,
    idle: Notify,
}

impl Subscription {
    /// Reads a request's body; the error is the sentence for its sender.
    pub fn parse(owner: &str, body: &[u8], is_classic: bool) -> Result<Self, String> {
        let asked: Asked = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let known = is_classic && CLASSIC_SCHEMA_VERSIONS.contains(&asked.schema_version.as_str());
        if asked.schema_version != SCHEMA_VERSION && !known {
            return Err(format!(
                "schemaVersion {} isn't supported; Lambda Managed Instances supports {SCHEMA_VERSION}",
                asked.schema_version
            ));
        }
        let bounds = [
            ("buffering.maxItems", asked.buffering.max_items as u64, 1_000, 10_000),
            ("buffering.maxBytes", asked.buffering.max_bytes as u64, 262_144, 1_048_576),
            ("buffering.timeoutMs", asked.buffering.timeout_ms, 25, 30_000),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(format!("{name} must be between {min} and {max}"));
            }
        }
        if asked.types.is_empty() {
            return Err("types must name at least one of platform, function, extension".into());
        }
        Ok(Self {
            owner: owner.into(),
            types: asked.types.into_iter().collect(),
            destination: destination(&asked.destination)?,
            buffering: asked.buffering,
            waiting: RefCell::default(),
            waiting_bytes: Cell::default(),
            dropped: Cell::default(),
            flushing: Cell::new(false),
            sending: Cell::new(false),
            wake: Notify::new(),
            idle: Notify::new(),
        })
    }

    pub fn types(&self) -> Vec<&'static str> {
        self.types.iter().map(|kind| kind.name()).collect()
    }

    pub fn wants(&self, kind: Kind) -> bool {
        self.types.contains(&kind)
    }

    pub fn push(&self, event: &str) {
        let bytes = self.waiting_bytes.get() + event.len();
        if bytes > WAITING_BYTES_MAX {
            let (records, bytes) = self.dropped.get();
            self.dropped.set((records + 1, bytes + event.len() as u64));
            return;
        }
        self.waiting_bytes.set(bytes);
        self.waiting.borrow_mut().push_back(Bytes::copy_from_slice(event.as_bytes()));
        self.wake.notify_one();
    }

    /// Delivers what waits, now, and comes back when it is delivered or given up.
    pub async fn flushed(&self) {
        self.flushing.set(true);
        self.wake.notify_one();
        while self.sending.get() || !self.waiting.borrow().is_empty() {
            self.idle.notified().await;
        }
    }

    fn is_due(&self) -> bool {
        let count = self.waiting.borrow().len();
        count > 0
            && (self.flushing.get()
                || count >= self.buffering.max_items
                || self.waiting_bytes.get() >= self.buffering.max_bytes)
    }

    /// Delivers batches for as long as the environment lives.
    pub async fn deliver(self: Rc<Self>) {
        let mut line = None;
        loop {
            while self.waiting.borrow().is_empty() {
                self.wake.notified().await;
            }
            let due = async {
                while !self.is_due() {
                    self.wake.notified().await;
                }
            };
            // Late is as good as full.
            let _ = tokio::time::timeout(Duration::from_millis(self.buffering.timeout_ms), due).await;
            self.sending.set(true);
            let batch = self.batch();
            for attempt in 1..=ATTEMPTS_MAX {
                match self.send(&mut line, &batch).await {
                    Ok(()) => break,
                    Err(()) if attempt == ATTEMPTS_MAX => {
                        line = None;
                        let (records, bytes) = self.dropped.get();
                        let lost: u64 = batch.iter().map(|event| event.len() as u64).sum();
                        self.dropped.set((records + batch.len() as u64, bytes + lost));
                    }
                    Err(()) => {
                        line = None;
                        let wait = RETRY_MILLIS << attempt.min(4);
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                    }
                }
            }
            self.sending.set(false);
            if self.waiting.borrow().is_empty() {
                self.flushing.set(false);
                self.idle.notify_one();
            }
        }
    }

    /// The next events, and before them a word on those that were dropped.
    fn batch(&self) -> Vec<Bytes> {
        let mut batch = Vec::new();
        let (records, bytes) = self.dropped.take();
        if records > 0 {
            let record = json!({
                "reason": "The extension took events slower than they came, or didn't take them at all.",
                "droppedRecords": records,
                "droppedBytes": bytes,
            });
            let now = ondol_observe::clock::epoch_millis();
            batch.push(
                ondol_observe::platform::event(now, "platform.logsDropped", &record).to_string().into(),
            );
        }
        let mut size = 0;
        let mut waiting = self.waiting.borrow_mut();
        while let Some(event) = waiting.front() {
            size += event.len();
            if batch.len() >= self.buffering.max_items || (size > self.buffering.max_bytes && batch.len() > 1)
            {
                break;
            }
            self.waiting_bytes.set(self.waiting_bytes.get() - event.len());
            batch.extend(waiting.pop_front());
        }
        batch
    }

    async fn send(&self, line: &mut Option<Line>, batch: &[Bytes]) -> Result<(), ()> {
        let sent = async {
            if line.is_none() {
                *line = Some(Line::open(&self.destination).await?);
            }
            line.as_mut().ok_or(())?.send(&self.destination, batch).await
        };
        tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), sent).await.unwrap_or(Err(()))
    }
}

/// An open way to the subscriber.
enum Line {
    Http(SendRequest<Full<Bytes>>),
    Tcp(TcpStream),
}

impl Line {
    async fn open(destination: &Destination) -> Result<Self, ()> {
        let (Destination::Http { port, .. } | Destination::Tcp { port }) = destination;
        let stream = TcpStream::connect(("127.0.0.1", *port)).await.map_err(drop)?;
        if let Destination::Tcp { .. } = destination {
            return Ok(Self::Tcp(stream));
        }
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(drop)?;
        tokio::task::spawn_local(connection);
        Ok(Self::Http(sender))
    }

    async fn send(&mut self, destination: &Destination, batch: &[Bytes]) -> Result<(), ()> {
        match (self, destination) {
            (Self::Tcp(stream), _) => {
                let text: Vec<u8> = batch.iter().flat_map(|event| [event, &b"\n"[..]].concat()).collect();
                stream.write_all(&text).await.map_err(drop)
            }
            (Self::Http(sender), Destination::Http { path, port }) => {
                let body = [b"[", &batch.join(&b',')[..], b"]"].concat();
                let request = Request::post(path)
                    .header("host", format!("sandbox.localdomain:{port}"))
                    .header("content-type", "application/json")
                    .body(Full::new(Bytes::from(body)))
                    .map_err(drop)?;
                sender.ready().await.map_err(drop)?;
                let response = sender.send_request(request).await.map_err(drop)?;
                let taken = response.status().is_success();
                // Read to its end, so that the connection can be used again.
                let _ = http_body_util::BodyExt::collect(http_body_util::Limited::new(
                    response.into_body(),
                    65_536,
                ))
                .await;
                if taken { Ok(()) } else { Err(()) }
            }
            (Self::Http(_), Destination::Tcp { .. }) => Err(()),
        }
    }
}

fn destination(asked: &AskedDestination) -> Result<Destination, String> {
    match asked.protocol.as_str() {
        "TCP" => asked
            .port
            .filter(|port| *port > 0)
            .map(|port| Destination::Tcp { port })
            .ok_or_else(|| "destination.port is missing".into()),
        "HTTP" => {
            let uri = asked.uri.as_deref().unwrap_or_default();
            let parsed: hyper::Uri = uri.parse().map_err(|_| format!("destination.URI {uri:?} is no URI"))?;
            let local = matches!(parsed.host(), Some("sandbox.localdomain" | "sandbox"));
            match parsed.port_u16() {
                Some(port) if local && parsed.scheme_str() == Some("http") => {
                    let path = parsed.path_and_query().map_or("/", |path| path.as_str());
                    Ok(Destination::Http { port, path: path.into() })
                }
                _ => Err(format!("destination.URI {uri:?} isn't http://sandbox.localdomain:PORT/PATH")),
            }
        }
        other => Err(format!("destination.protocol {other:?} is neither HTTP nor TCP")),
    }
}

/// What AWS says of a subscription.
pub fn subscribed(subscription: &Subscription) -> Value {
    json!({"name": subscription.owner, "state": "Subscribed", "types": subscription.types()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_held_against_the_mode_s_rules() {
        let parse = |change: &[(&str, Value)]| {
            let mut body = json!({
                "schemaVersion": SCHEMA_VERSION,
                "types": ["platform", "function"],
                "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:4243/x?y"},
            });
            change.iter().for_each(|(name, value)| body[*name] = value.clone());
            Subscription::parse("e", body.to_string().as_bytes(), false)
        };
        let good = parse(&[]).unwrap();
        assert_eq!(good.destination, Destination::Http { port: 4243, path: "/x?y".into() });
        assert!(good.wants(Kind::Platform) && !good.wants(Kind::Extension));
        let tcp = parse(&[("destination", json!({"protocol": "TCP", "port": 99}))]).unwrap();
        assert_eq!(tcp.destination, Destination::Tcp { port: 99 });
        for bad in [
            ("schemaVersion", json!("2022-12-13")),
            ("types", json!([])),
            ("types", json!(["everything"])),
            ("destination", json!({"protocol": "HTTP", "URI": "http://169.254.169.254:80/"})),
            ("destination", json!({"protocol": "HTTP", "URI": "https://sandbox.localdomain:80/"})),
            ("destination", json!({"protocol": "TCP"})),
            ("buffering", json!({"maxItems": 1})),
            ("buffering", json!({"timeoutMs": 60_000})),
        ] {
            assert!(parse(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_subscriber_that_takes_nothing_costs_a_bounded_amount_and_hears_how_much_it_missed() {
        let body = json!({"schemaVersion": SCHEMA_VERSION, "types": ["function"], "destination": {"protocol": "TCP", "port": 1}});
        let subscription = Subscription::parse("e", body.to_string().as_bytes(), false).unwrap();
        let event = "x".repeat(1_000);
        (0..10_000).for_each(|_| subscription.push(&event));
        assert!(subscription.waiting_bytes.get() <= WAITING_BYTES_MAX);
        let batch = subscription.batch();
        assert!(std::str::from_utf8(&batch[0]).unwrap().contains("droppedRecords\":5"), "{:?}", batch[0]);
        assert!(batch.iter().skip(1).map(Bytes::len).sum::<usize>() <= 262_144);
    }
}
