//! Whatever a function sends to its Runtime, Extensions or Telemetry API, as raw bytes on a connection, and in the
//! classic mode down its log's pipe as well, while an invocation runs. `{id}` in the input stands for that invocation's id, `{ext}` for a registered extension's.
//! The server must stay up, keep its invariants, and still answer a well-behaved client.
#![no_main]

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ondol_agent::shard::{Adopted, Environments, Gauge, MachineEnd, ShardCommand, ShardEnd};
use ondol_core::identity::{EnvironmentId, PublicationId, RequestId};
use ondol_observe::logs::{Limits, LogSender, LogStream};
use ondol_protocol::assignment::EnvironmentAssignment;
use ondol_protocol::containment::Exit;
use ondol_protocol::invocation::{Deliver, Invocation, StreamLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct World {
    runtime: tokio::runtime::Runtime,
    local: tokio::task::LocalSet,
    logs: LogSender,
    folder: std::path::PathBuf,
    number: u64,
}

thread_local! {
    /// Never dropped: at the end of the process its tasks' own thread-locals are gone already.
    static WORLD: RefCell<ManuallyDrop<World>> = RefCell::new(ManuallyDrop::new({
        let folder = std::env::temp_dir().join(format!("ondol-fuzz-rapi-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let limits = Limits { total_bytes: 1 << 20, group_bytes: 1 << 20, segment_bytes: 1 << 18, ..Limits::default() };
        let (logs, _book) = ondol_observe::logs::open(folder.join("logs"), limits).expect("logs");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        World { runtime, local: tokio::task::LocalSet::new(), logs, folder, number: 0 }
    }));
}

async fn exchange(address: SocketAddr, bytes: &[u8], wait: Duration) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect(address).await else { return Vec::new() };
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(wait, stream.read_to_end(&mut answer)).await;
    answer
}

async fn run(data: &[u8], logs: LogSender, folder: &std::path::Path, number: u64) {
    let environment = EnvironmentId(u128::from(number));
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let socket = folder.join(format!("{number}.sock"));
    let mut assignment = EnvironmentAssignment::sample("python3.13");
    // Every other environment is of a Lambda (default) function.
    let (log, frames) = if number % 2 == 0 {
        Arc::make_mut(&mut assignment.publication).configuration.managed_instances = None;
        let (log, frames) = rustix::pipe::pipe().expect("a pipe");
        (log, Some(std::fs::File::from(frames)))
    } else {
        (std::os::unix::net::UnixListener::bind(&socket).expect("a socket").into(), None)
    };
    let pipes: Vec<_> = (0..3).map(|_| rustix::pipe::pipe().expect("a pipe")).collect();
    let (outputs, _inside): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
    let [stdout, stderr, extension_output] = <[_; 3]>::try_from(outputs).expect("three");
    let (machine, end): (MachineEnd, ShardEnd) = ShardEnd::line();
    let environments = Environments::new(logs);
    let serving = tokio::task::spawn_local(environments.clone().run(end, Rc::new(|_| ())));
    let adopted = Adopted {
        environment,
        assignment,
        runtime_api: listener.into(),
        stdout,
        stderr,
        extension_output,
        log,
        log_stream: Arc::new(LogStream {
            group: "/fuzz".into(),
            name: number.to_string(),
            function: "f".into(),
            version: "1".into(),
            function_arn: "arn".into(),
        }),
        extensions: vec!["outer".into()],
        group: None,
        gauge: Arc::<Gauge>::default(),
    };
    machine.0.send(ShardCommand::Adopt(Box::new(adopted))).expect("a shard");
    let wait = Duration::from_millis(20);
    let register = b"POST /2020-01-01/extension/register HTTP/1.1\r\nHost: x\r\nLambda-Extension-Name: outer\r\nConnection: close\r\nContent-Length: 23\r\n\r\n{\"events\":[\"SHUTDOWN\"]}";
    let registered = String::from_utf8_lossy(&exchange(address, register, wait).await).into_owned();
    let extension = registered
        .lines()
        .find_map(|line| line.strip_prefix("lambda-extension-identifier: "))
        .unwrap_or("none")
        .to_owned();
    // The environment becomes ready by a poll that gets the invocation.
    let mut poll = TcpStream::connect(address).await.expect("a connection");
    poll.write_all(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    tokio::task::yield_now().await;
    let request = RequestId::from_random(number, number);
    let invocation = Invocation {
        request,
        publication: PublicationId(1),
        payload: Bytes::from_static(b"{}"),
        timeout_millis: 60_000,
        invoked_arn: "arn".into(),
        client_context: None,
        trace_id: None,
        wants_log_tail: number % 4 < 2,
        stream: (number % 2 == 0).then_some(StreamLimits {
            bytes_max: 1_000,
            burst_bytes: 500,
            bytes_per_second: 100_000,
        }),
        counted: None,
    };
    let deliverer = environments.clone();
    let reply = tokio::task::spawn_local(async move { deliverer.deliver(environment, invocation).await.is_ok() });
    let mut first = [0; 1];
    let _ = tokio::time::timeout(wait, poll.read(&mut first)).await;

    let text = replace(replace(data.to_vec(), b"{id}", request.uuid().as_bytes()), b"{ext}", extension.as_bytes());
    if let Some(mut frames) = frames {
        // What a pipe holds at the least, so that nobody waits for a reader.
        let _ = frames.write_all(&text[..text.len().min(4_096)]);
    }
    exchange(address, &text, Duration::from_millis(2)).await;

    // A well-behaved client is still answered.
    let pong = exchange(address, b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Duration::from_secs(5)).await;
    assert!(pong.windows(4).any(|window| window == b"pong"), "the server answers no more");
    machine.0.send(ShardCommand::End { environment, exit: Exit::Killed, peak_memory_bytes: None }).expect("a shard");
    drop(machine.0);
    serving.await.expect("the shard ends well");
    // Whoever waits is answered, whatever was sent.
    let answered = tokio::time::timeout(Duration::from_secs(5), reply).await;
    assert!(answered.is_ok(), "the caller still waits");
    let _ = std::fs::remove_file(socket);
}

fn replace(bytes: Vec<u8>, what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = &bytes[..];
    while let Some(place) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..place]);
        out.extend_from_slice(with);
        rest = &rest[place + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fuzz_target!(|data: &[u8]| {
    WORLD.with_borrow_mut(|world| {
        world.number += 1;
        let (logs, folder, number) = (world.logs.clone(), world.folder.clone(), world.number);
        let World { local, runtime, .. } = &mut **world;
        local.block_on(runtime, run(data, logs, &folder, number));
    });
});
