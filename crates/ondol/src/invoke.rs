//! `ondol invoke`: one invocation with what it wrote, or many at once with how long they took and why some were refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::Method;
use ondol_wire::event_stream::take_event;
use serde_json::{Value, json};

use crate::client::{Answer, Call, Connection, Server, refusal};
use crate::commands::show;
use crate::logs::plain;
use crate::{Invoke, Output};

/// Rows of the histogram.
const ROWS_MAX: usize = 12;
const BAR_WIDTH: usize = 40;

pub fn invoke(arguments: &Invoke, output: Output) -> Result<()> {
    let server = Arc::new(Server::of(&arguments.address)?);
    let asked = Arc::new(Asked::of(arguments)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if arguments.requests > 1 || arguments.concurrency > 1 {
        let requests = arguments.requests.max(arguments.concurrency);
        let page = runtime.block_on(many(&server, &asked, arguments.concurrency, requests))?;
        show(output, &page, || text(&page))?;
        return match page["failed"].as_u64() {
            Some(0) => Ok(()),
            failed => bail!("{} requests had no answer of the function", failed.unwrap_or_default()),
        };
    }
    if arguments.stream {
        return runtime.block_on(stream(&server, &asked, output));
    }
    let started = Instant::now();
    let answer = runtime.block_on(async { server.connect().await?.send(&asked.call()).await })?;
    one(&answer, started.elapsed(), output)
}

/// What is sent, the same each time.
struct Asked {
    path: String,
    query: String,
    headers: Vec<(&'static str, String)>,
    payload: Bytes,
}

impl Asked {
    fn of(arguments: &Invoke) -> Result<Self> {
        let payload = match (&arguments.payload, &arguments.data) {
            (Some(file), _) if file.as_os_str() == "-" => {
                let mut read = Vec::new();
                std::io::stdin().read_to_end(&mut read).context("reading standard input")?;
                read
            }
            (Some(file), _) => std::fs::read(file).with_context(|| file.display().to_string())?,
            (None, Some(data)) => data.clone().into_bytes(),
            (None, None) => b"{}".to_vec(),
        };
        let (function, qualifier) = match arguments.function.split_once(':') {
            Some((name, qualifier)) if !arguments.function.starts_with("arn:") => (name, Some(qualifier)),
            _ => (arguments.function.as_str(), None),
        };
        let encode = |text: &str| ondol_wire::uri::percent_encode(text, false);
        let kind = if arguments.event { "Event" } else { "RequestResponse" };
        let mut headers = vec![("x-amz-invocation-type", kind.to_owned())];
        if arguments.tail {
            headers.push(("x-amz-log-type", "Tail".into()));
        }
        Ok(Self {
            path: match arguments.stream {
                true => format!("/2021-11-15/functions/{}/response-streaming-invocations", encode(function)),
                false => format!("/2015-03-31/functions/{}/invocations", encode(function)),
            },
            query: qualifier.map_or(String::new(), |qualifier| format!("Qualifier={}", encode(qualifier))),
            headers,
            payload: payload.into(),
        })
    }

    fn call(&self) -> Call<'_> {
        Call {
            method: Method::POST,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            body: self.payload.clone(),
        }
    }
}

/// Shows one answer: the function's own words alone on standard output.
fn one(answer: &Answer, took: Duration, output: Output) -> Result<()> {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let tail = header("x-amz-log-result").and_then(|text| STANDARD.decode(text).ok());
    let tail = tail.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let error = header("x-amz-function-error");
    let payload = String::from_utf8_lossy(&answer.body);
    let page = json!({
        "statusCode": answer.status,
        "requestId": header("x-amzn-requestid"),
        "executedVersion": header("x-amz-executed-version"),
        "functionError": error,
        "durationMillis": millis(took),
        "payload": serde_json::from_str::<Value>(&payload).unwrap_or_else(|_| payload.as_ref().into()),
        "log": tail,
    });
    let shown = || plain(&payload, std::io::stdout().is_terminal()).into_owned();
    show(output, &page, || if payload.is_empty() { String::new() } else { format!("{}\n", shown()) })?;
    if !output.json {
        if let Some(tail) = &tail {
            tail.lines().for_each(|line| eprintln!("{}", plain(line, std::io::stderr().is_terminal())));
        }
        let version = header("x-amz-executed-version").map_or(String::new(), |v| format!(" by {v}"));
        let id = header("x-amzn-requestid").unwrap_or_default();
        eprintln!("{}{version} in {:.1} ms, request {id}", answer.status, millis(took));
    }
    match (answer.status, error) {
        (200..300, None) => Ok(()),
        (200..300, Some(_)) => bail!("the function failed"),
        (status, _) => bail!("the server refused ({status}): {}", refusal(answer)),
    }
}

/// Writes chunks as they come; how the stream ended is told beside them.
async fn stream(server: &Server, asked: &Asked, output: Output) -> Result<()> {
    let mut connection = server.connect().await?;
    let answer = connection.begin(&asked.call()).await?;
    let (parts, mut body) = answer.into_parts();
    if !parts.status.is_success() {
        let (status, body) = (parts.status.as_u16(), body.collect().await?.to_bytes());
        return one(&Answer { status, headers: parts.headers, body }, Duration::ZERO, output);
    }
    let (mut read, mut end) = (BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        read.extend_from_slice(&frame?.into_data().unwrap_or_default());
        while let Some(event) = take_event(&mut read).map_err(anyhow::Error::msg)? {
            match event.event_type.as_str() {
                "InvokeComplete" => end = serde_json::from_slice::<Value>(&event.payload).ok(),
                _ => write_chunk(&event.payload, output)?,
            }
        }
    }
    let Some(end) = end else { bail!("the stream ended before it was complete") };
    if let Some(tail) = end["LogResult"].as_str().and_then(|text| STANDARD.decode(text).ok()) {
        let tail = String::from_utf8_lossy(&tail);
        tail.lines().for_each(|line| eprintln!("{}", plain(line, std::io::stderr().is_terminal())));
    }
    match end["ErrorCode"].as_str() {
        None => Ok(()),
        Some(code) => {
            let details = end["ErrorDetails"].as_str().unwrap_or_default();
            bail!("the function failed ({code}): {}", plain(details, std::io::stderr().is_terminal()))
        }
    }
}

fn write_chunk(bytes: &[u8], output: Output) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if output.json {
        writeln!(out, "{}", json!({"chunk": String::from_utf8_lossy(bytes)}))?;
    } else if out.is_terminal() {
        write!(out, "{}", plain(&String::from_utf8_lossy(bytes), true))?;
    } else {
        out.write_all(bytes)?;
    }
    Ok(out.flush()?)
}

/// What many requests came to.
#[derive(Default)]
struct Tally {
    millis: Vec<f64>,
    function_errors: u64,
    throttled: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
}

async fn many(
    server: &Arc<Server>,
    asked: &Arc<Asked>,
    concurrency: usize,
    requests: usize,
) -> Result<Value> {
    let left = Arc::new(AtomicUsize::new(requests));
    // All connections are there before the first request.
    let mut open = Vec::new();
    for _ in 0..concurrency.min(requests) {
        open.push(server.connect().await?);
    }
    let started = Instant::now();
    let callers: Vec<_> = open
        .into_iter()
        .map(|connection| {
            let (server, asked, left) = (Arc::clone(server), Arc::clone(asked), Arc::clone(&left));
            tokio::spawn(async move { caller(&server, connection, &asked, &left).await })
        })
        .collect();
    let mut all = Tally::default();
    for caller in callers {
        let tally = caller.await?;
        all.millis.extend(tally.millis);
        all.function_errors += tally.function_errors;
        tally.throttled.into_iter().for_each(|(cause, n)| *all.throttled.entry(cause).or_default() += n);
        tally.failures.into_iter().for_each(|(why, n)| *all.failures.entry(why).or_default() += n);
    }
    Ok(summary(all, requests, started.elapsed()))
}

async fn caller(server: &Server, connection: Connection, asked: &Asked, left: &AtomicUsize) -> Tally {
    let mut tally = Tally::default();
    let mut connection = Some(connection);
    let one_less = |left: usize| left.checked_sub(1);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
        let started = Instant::now();
        let sent = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => server.connect().await?,
            };
            let answer = open.send(&asked.call()).await?;
            connection = Some(open);
            Ok::<Answer, anyhow::Error>(answer)
        };
        let answer = match sent.await {
            Ok(answer) => answer,
            Err(error) => {
                *tally.failures.entry(error.to_string()).or_default() += 1;
                continue;
            }
        };
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        match answer.status {
            200..300 => {
                tally.millis.push(millis(started.elapsed()));
                tally.function_errors += u64::from(header("x-amz-function-error").is_some());
            }
            429 => {
                let cause = header("x-ondol-throttle-cause").unwrap_or("unknown").to_owned();
                *tally.throttled.entry(cause).or_default() += 1;
            }
            status => *tally.failures.entry(format!("{status} {}", refusal(&answer))).or_default() += 1,
        }
    }
    tally
}

#[allow(clippy::cast_precision_loss)]
fn summary(mut tally: Tally, requests: usize, took: Duration) -> Value {
    tally.millis.sort_by(f64::total_cmp);
    let throttled: u64 = tally.throttled.values().sum();
    let failed: u64 = tally.failures.values().sum();
    json!({
        "requests": requests,
        "answered": tally.millis.len(),
        "functionErrors": tally.function_errors,
        "throttled": throttled,
        "throttledByCause": tally.throttled,
        "failed": failed,
        "failures": tally.failures,
        "seconds": took.as_secs_f64(),
        "answeredPerSecond": tally.millis.len() as f64 / took.as_secs_f64(),
        "latencyMillis": {
            "min": tally.millis.first(),
            "p50": quantile(&tally.millis, 0.5),
            "p90": quantile(&tally.millis, 0.9),
            "p99": quantile(&tally.millis, 0.99),
            "p99.9": quantile(&tally.millis, 0.999),
            "max": tally.millis.last(),
        },
        "histogram": histogram(&tally.millis),
    })
}

/// The smallest value that so many of all do not exceed.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// Counts by upper bound, each a round number of milliseconds further.
fn histogram(sorted: &[f64]) -> Vec<Value> {
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return Vec::new() };
    let bounds = [1.0, 2.0, 5.0].map(|step| (-3..7).map(move |power| step * 10_f64.powi(power)));
    let mut bounds: Vec<f64> = bounds.into_iter().flatten().filter(|bound| bound >= least).collect();
    bounds.sort_by(f64::total_cmp);
    let last = bounds.iter().position(|bound| bound >= most);
    bounds.truncate(last.map_or(bounds.len(), |last| last + 1));
    if last.is_none() {
        bounds.push(*most);
    }
    // The first row holds what is below it too.
    let skipped = bounds.len().saturating_sub(ROWS_MAX);
    let mut before = 0;
    bounds[skipped..]
        .iter()
        .map(|bound| {
            let upto = sorted.partition_point(|value| value <= bound);
            let count = upto - before;
            before = upto;
            json!({"upToMillis": bound, "count": count})
        })
        .collect()
}

fn text(page: &Value) -> String {
    let mut out = String::new();
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let _ = writeln!(
        out,
        "{} requests in {:.2} s: {} answered ({:.0} a second), {} of them function errors; {} throttled, {} failed",
        page["requests"],
        number(&page["seconds"]),
        page["answered"],
        number(&page["answeredPerSecond"]),
        page["functionErrors"],
        page["throttled"],
        page["failed"],
    );
    for (cause, count) in page["throttledByCause"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "  throttled, {cause}: {count}");
    }
    for (why, count) in page["failures"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "  failed, {}: {count}", plain(why, std::io::stdout().is_terminal()));
    }
    let latency = &page["latencyMillis"];
    if page["answered"] != 0 {
        let _ = writeln!(
            out,
            "milliseconds: p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, most {:.2}",
            number(&latency["p50"]),
            number(&latency["p90"]),
            number(&latency["p99"]),
            number(&latency["p99.9"]),
            number(&latency["max"]),
        );
    }
    let rows = page["histogram"].as_array().map(Vec::as_slice).unwrap_or_default();
    let most = rows.iter().filter_map(|row| row["count"].as_u64()).max().unwrap_or_default().max(1);
    for row in rows {
        let count = row["count"].as_u64().unwrap_or_default();
        let width = usize::try_from(count * BAR_WIDTH as u64 / most).unwrap_or_default();
        let bound = number(&row["upToMillis"]);
        let _ = writeln!(out, "  ≤ {bound:>8} {count:>8} {}", "█".repeat(width));
    }
    out
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_rows_of_a_histogram() {
        let values: Vec<f64> = (1..=1_000).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), Some(500.0));
        assert_eq!(quantile(&values, 0.999), Some(999.0));
        assert_eq!((quantile(&[], 0.5), quantile(&[7.0], 0.99)), (None, Some(7.0)));
        let rows = histogram(&values);
        let total: u64 = rows.iter().filter_map(|row| row["count"].as_u64()).sum();
        assert_eq!((total, rows.len()), (1_000, 10), "{rows:?}");
        assert_eq!(rows[9], json!({"upToMillis": 1_000.0, "count": 500}));
        let wide = histogram(&[0.5, 9_000_000.0]);
        assert_eq!(wide.iter().filter_map(|row| row["count"].as_u64()).sum::<u64>(), 2, "{wide:?}");
    }
}
