//! Waits, and tells how many requests were in this execution environment at the same moment.
//!
//! All requests of one environment share this process, so two counters are enough.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, run_concurrent, service_fn};
use serde_json::{Value, json};

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

async fn handler(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let now = NOW.fetch_add(1, Ordering::SeqCst) + 1;
    MOST.fetch_max(now, Ordering::SeqCst);
    let request_id = &event.context.request_id;
    println!("{}", json!({"level": "INFO", "requestId": request_id, "message": format!("working on {}", event.payload["tag"])}));
    let wait_ms = event.payload["wait_ms"].as_u64().unwrap_or(200);
    if wait_ms > 0 {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
    NOW.fetch_sub(1, Ordering::SeqCst);
    Ok(json!({
        "tag": event.payload["tag"],
        "environment": std::env::var("AWS_LAMBDA_LOG_STREAM_NAME").unwrap_or_default(),
        "most_at_once": MOST.load(Ordering::SeqCst),
        "request_id": request_id,
    }))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    run_concurrent(service_fn(handler)).await
}
