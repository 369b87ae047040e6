//! A function that tells of every execution, on a line to whoever is at `TELL`, before it answers. It is told how
//! often that was so for its event, and fails as often as the event says.

use lambda_runtime::{Error, LambdaEvent, run_concurrent, service_fn};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

static LINE: Mutex<Option<BufStream<TcpStream>>> = Mutex::const_new(None);

async fn tell(word: &str) -> Result<u64, Error> {
    let mut line = LINE.lock().await;
    if line.is_none() {
        *line = Some(BufStream::new(TcpStream::connect(std::env::var("TELL")?).await?));
    }
    let Some(open) = line.as_mut() else { return Err("no line".into()) };
    open.write_all(format!("{word}\n").as_bytes()).await?;
    open.flush().await?;
    let mut answer = String::new();
    open.read_line(&mut answer).await?;
    Ok(answer.trim().parse()?)
}

async fn handler(event: LambdaEvent<Value>) -> Result<Value, Error> {
    // What a destination is sent names the event it is about.
    let about = event.payload["requestContext"]["requestId"].as_str();
    let word = match about {
        Some(id) => format!("failed {id}"),
        None => format!("ran {}", event.context.request_id),
    };
    let times = tell(&word).await?;
    if about.is_none() && times <= event.payload["fail"].as_u64().unwrap_or(0) {
        return Err(format!("failing for the {times}. time").into());
    }
    Ok(json!({"times": times}))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    run_concurrent(service_fn(handler)).await
}
