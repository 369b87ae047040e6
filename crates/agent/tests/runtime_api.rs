//! A hostile runtime against the Runtime API of one execution environment, over real sockets.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ondol_agent::shard::{Adopted, Environments, Gauge, MachineEnd, ShardCommand, ShardEnd, ShardEvent};
use ondol_core::gate::Event as GateEvent;
use ondol_core::identity::{EnvironmentId, PublicationId, RequestId};
use ondol_observe::logs::{Limits, LogBook, LogStream, Query};
use ondol_protocol::assignment::EnvironmentAssignment;
use ondol_protocol::containment::{Exit, Process};
use ondol_protocol::invocation::{
    Deliver, Invocation, Refused, Reply, ReplyBody, ReplyStream, StreamEnd, StreamLimits,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const ENVIRONMENT: EnvironmentId = EnvironmentId(7);
const GROUP: &str = "/aws/lambda/f";

struct Rig {
    environments: Environments,
    machine: MachineEnd,
    address: std::net::SocketAddr,
    gate: Rc<RefCell<Vec<GateEvent>>>,
    gauge: Arc<Gauge>,
    /// The function's side of its output, kept open.
    _output: [OwnedFd; 3],
    book: LogBook,
    _folder: Folder,
}

struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn assignment(limit: u32) -> EnvironmentAssignment {
    let mut assignment = EnvironmentAssignment::sample("python3.13");
    let configuration = &mut Arc::make_mut(&mut assignment.publication).configuration;
    configuration.managed_instances.as_mut().unwrap().per_execution_environment_max_concurrency = limit;
    assignment
}

impl Rig {
    fn new(limit: u32) -> Self {
        Self::with_extensions(limit, &[])
    }

    fn with_extensions(limit: u32, extensions: &[&str]) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ondol-rapi-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (stdout, stdout_inside) = rustix::pipe::pipe().unwrap();
        let (stderr, stderr_inside) = rustix::pipe::pipe().unwrap();
        let (extension_output, extension_inside) = rustix::pipe::pipe().unwrap();
        let (sender, book) = ondol_observe::logs::open(folder.join("logs"), Limits::default()).unwrap();
        let logs = std::os::unix::net::UnixListener::bind(folder.join("log.sock")).unwrap();
        let (machine, end) = ShardEnd::line();
        let environments = Environments::new(sender);
        let gate: Rc<RefCell<Vec<GateEvent>>> = Rc::default();
        let heard = Rc::clone(&gate);
        tokio::task::spawn_local(
            environments.clone().run(end, Rc::new(move |event| heard.borrow_mut().push(event))),
        );
        let gauge: Arc<Gauge> = Arc::default();
        let adopted = Adopted {
            environment: ENVIRONMENT,
            assignment: assignment(limit),
            runtime_api: listener.into(),
            stdout,
            stderr,
            extension_output,
            log: logs.into(),
            log_stream: Arc::new(LogStream {
                group: GROUP.into(),
                name: "2026/11/22/f[1]e".into(),
                function: "f".into(),
                version: "1".into(),
                function_arn: "arn:aws:lambda:us-east-1:000000000000:function:f:1".into(),
            }),
            extensions: extensions.iter().map(|name| (*name).to_owned()).collect(),
            group: None,
            gauge: Arc::clone(&gauge),
        };
        machine.0.send(ShardCommand::Adopt(Box::new(adopted))).unwrap();
        Self {
            environments,
            machine,
            address,
            gate,
            gauge,
            _output: [stdout_inside, stderr_inside, extension_inside],
            book,
            _folder: Folder(folder),
        }
    }

    /// Its processes are gone.
    fn end(&self, exit: Exit) {
        let end = ShardCommand::End { environment: ENVIRONMENT, exit, peak_memory_bytes: None };
        self.machine.0.send(end).unwrap();
    }

    fn invoke(&self, number: u64, timeout_millis: u64) -> (RequestId, JoinHandle<Result<Reply, Refused>>) {
        self.invoke_with(number, timeout_millis, None)
    }

    fn invoke_with(
        &self,
        number: u64,
        timeout_millis: u64,
        stream: Option<StreamLimits>,
    ) -> (RequestId, JoinHandle<Result<Reply, Refused>>) {
        let request = RequestId::from_random(number, number);
        let invocation = Invocation {
            request,
            publication: PublicationId(1),
            payload: Bytes::from(format!(r#"{{"n":{number}}}"#)),
            timeout_millis,
            invoked_arn: "arn:aws:lambda:us-east-1:000000000000:function:f".into(),
            client_context: None,
            trace_id: Some("Root=1-2-3".into()),
            wants_log_tail: false,
            stream,
            counted: None,
        };
        let environments = self.environments.clone();
        let reply =
            tokio::task::spawn_local(async move { environments.deliver(ENVIRONMENT, invocation).await });
        (request, reply)
    }

    /// Parks a poll; it is parked for certain when this returns.
    async fn poll(&self) -> Connection {
        let parked = self.parked();
        let mut connection = Connection::open(self.address).await;
        connection.write("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n").await;
        until(|| self.parked() == parked + 1).await;
        connection
    }

    fn parked(&self) -> usize {
        self.gauge.parked_polls.load(Ordering::Relaxed)
    }

    fn in_flight(&self) -> usize {
        self.gauge.in_flight.load(Ordering::Relaxed)
    }

    async fn event(&mut self) -> ShardEvent {
        self.machine.1.recv().await.unwrap().1
    }

    async fn post(&self, path: &str, body: &[u8]) -> (u16, String) {
        let mut connection = Connection::open(self.address).await;
        connection.post(path, "", body).await;
        let answer = connection.read().await;
        (answer.status, answer.body)
    }
}

/// Waits for a state, not for a time.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Connection(TcpStream);

struct HttpAnswer {
    status: u16,
    head: String,
    body: String,
}

impl HttpAnswer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn request_id(&self) -> String {
        self.header("lambda-runtime-aws-request-id").unwrap().to_owned()
    }
}

impl Connection {
    async fn open(address: std::net::SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn post(&mut self, path: &str, headers: &str, body: &[u8]) {
        self.send("POST", &format!("2018-06-01/{path}"), headers, body).await;
    }

    async fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) {
        let length = body.len();
        self.write(&format!(
            "{method} /{path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n"
        ))
        .await;
        // A server that refuses early may close before it has read everything.
        let _ = self.0.write_all(body).await;
    }

    async fn read(&mut self) -> HttpAnswer {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                if body.len() >= length.unwrap_or(0) {
                    let status = head.split(' ').nth(1).unwrap().parse().unwrap_or(0);
                    return HttpAnswer { status, head: head.to_owned(), body: body.to_owned() };
                }
            }
            let mut buffer = [0; 4096];
            let read = self.0.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the connection ended after {text:?}");
            bytes.extend_from_slice(&buffer[..read]);
        }
    }
}

async fn text(reply: JoinHandle<Result<Reply, Refused>>) -> (Option<&'static str>, String) {
    let reply = reply.await.unwrap().unwrap();
    let ReplyBody::Whole(body) = reply.body else { panic!("nobody asked for a stream") };
    (reply.function_error, String::from_utf8(body.to_vec()).unwrap())
}

/// Runs a test on one thread, as a shard does.
fn on_a_shard(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(60), test).await.unwrap();
    });
}

#[test]
fn headers_codes_and_a_second_answer() {
    on_a_shard(async {
        let mut rig = Rig::new(4);
        let mut poll = rig.poll().await;
        assert!(matches!(rig.event().await, ShardEvent::Ready));
        let (request, reply) = rig.invoke(1, 3_000);
        let next = poll.read().await;
        assert_eq!((next.status, next.body.as_str(), next.request_id()), (200, r#"{"n":1}"#, request.uuid()));
        assert_eq!(next.header("content-type"), Some("application/json"));
        assert_eq!(next.header("lambda-runtime-trace-id"), Some("Root=1-2-3"));
        assert!(
            next.header("lambda-runtime-deadline-ms").unwrap().parse::<u64>().unwrap() > 1_700_000_000_000
        );
        assert!(next.header("lambda-runtime-invoked-function-arn").unwrap().ends_with(":function:f"));

        let path = format!("runtime/invocation/{}/response", request.uuid());
        let mut odd = Connection::open(rig.address).await;
        odd.post(&path, "Lambda-Runtime-Function-Response-Mode: buffered\r\n", b"x").await;
        assert!(odd.read().await.body.contains("InvalidFunctionResponseMode"));
        assert_eq!(rig.post(&path, b"\"yes\"").await, (202, r#"{"status":"OK"}"#.into()));
        assert_eq!(text(reply).await, (None, "\"yes\"".into()));
        let again = rig.post(&path, b"\"no\"").await;
        assert!(again.0 == 400 && again.1.contains("InvalidRequestID"), "{again:?}");
        assert_eq!(rig.post("runtime/invocation/nonsense/response", b"").await.0, 400);
        assert_eq!(rig.post("runtime/invocation/next", b"").await.0, 405);
        assert_eq!(rig.post("elsewhere", b"").await.0, 404);
    });
}

#[test]
fn polls_are_served_in_order_and_a_gone_client_is_passed_over() {
    on_a_shard(async {
        let rig = Rig::new(4);
        let first = rig.poll().await;
        let mut second = rig.poll().await;
        let mut third = rig.poll().await;
        drop(first);
        // Whether or not the server has seen the end yet, the invocation must not go there.
        let (a, reply_a) = rig.invoke(1, 3_000);
        assert_eq!(second.read().await.request_id(), a.uuid());
        let (b, _reply_b) = rig.invoke(2, 3_000);
        assert_eq!(third.read().await.request_id(), b.uuid());
        rig.post(&format!("runtime/invocation/{}/response", a.uuid()), b"1").await;
        assert_eq!(text(reply_a).await.1, "1");
    });
}

#[test]
fn more_polls_than_slots_give_no_more_in_flight() {
    on_a_shard(async {
        let rig = Rig::new(1);
        let mut polls = [rig.poll().await, rig.poll().await, rig.poll().await];
        let (first, reply) = rig.invoke(1, 3_000);
        polls[0].read().await;
        let (_, refused) = rig.invoke(2, 3_000);
        assert!(refused.await.unwrap().is_err());
        assert_eq!((rig.in_flight(), rig.parked()), (1, 2));
        rig.post(&format!("runtime/invocation/{}/response", first.uuid()), b"1").await;
        assert_eq!(text(reply).await.1, "1");
        assert_eq!(rig.in_flight(), 0);
        let released =
            rig.gate.borrow().iter().filter(|event| matches!(event, GateEvent::SlotReleased { .. })).count();
        assert_eq!(
            released, 2,
            "what was refused gives its place at the gate back, and so does what was answered"
        );
    });
}

#[test]
fn a_late_answer_is_gone_once_and_then_unknown() {
    on_a_shard(async {
        let rig = Rig::new(1);
        let mut poll = rig.poll().await;
        let (request, reply) = rig.invoke(1, 50);
        poll.read().await;
        let (error, body) = text(reply).await;
        assert_eq!(error, Some("Unhandled"));
        assert!(
            body.contains("Sandbox.Timedout") && body.contains("Task timed out after 0.05 seconds"),
            "{body}"
        );
        assert_eq!(rig.in_flight(), 1, "the code still holds its slot");
        let path = format!("runtime/invocation/{}/response", request.uuid());
        let late = rig.post(&path, b"1").await;
        assert!(late.0 == 410 && late.1.contains("InvokeTimeout"), "{late:?}");
        assert_eq!(rig.post(&path, b"1").await.0, 400);
        assert_eq!(rig.in_flight(), 0);
    });
}

#[test]
fn a_free_slot_waits_for_a_poll_that_comes_late() {
    on_a_shard(async {
        let rig = Rig::new(1);
        let (request, reply) = rig.invoke(1, 3_000);
        until(|| rig.in_flight() == 1).await;
        assert_eq!(
            rig.post(&format!("runtime/invocation/{}/response", request.uuid()), b"0").await.0,
            400,
            "not handed over yet"
        );
        let mut poll = Connection::open(rig.address).await;
        poll.write("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(poll.read().await.request_id(), request.uuid());
        rig.post(&format!("runtime/invocation/{}/response", request.uuid()), b"1").await;
        assert_eq!(text(reply).await.1, "1");
    });
}

#[test]
fn sizes_are_bounded() {
    on_a_shard(async {
        let rig = Rig::new(2);
        let mut poll = rig.poll().await;
        let (request, reply) = rig.invoke(1, 3_000);
        poll.read().await;
        let path = format!("runtime/invocation/{}", request.uuid());
        assert_eq!(rig.post(&format!("{path}/response"), &vec![b'x'; 6_291_557]).await.0, 413);
        assert!(text(reply).await.1.contains("Function.ResponseSizeTooLarge"));

        let mut poll = rig.poll().await;
        let (request, reply) = rig.invoke(3, 3_000);
        poll.read().await;
        let path = format!("runtime/invocation/{}/error", request.uuid());
        assert_eq!(rig.post(&path, &vec![b'x'; (1 << 20) + 1]).await.0, 413);
        assert!(text(reply).await.0.is_some(), "an error that is too large is still an error");
        assert_eq!(rig.in_flight(), 0);

        // A length that is a lie is found out while reading.
        let mut poll = rig.poll().await;
        let (request, reply) = rig.invoke(2, 3_000);
        poll.read().await;
        let mut liar = Connection::open(rig.address).await;
        let path = format!("/2018-06-01/runtime/invocation/{}/response", request.uuid());
        liar.write(&format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
        let chunk =
            [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b'x'; 1 << 20], b"\r\n".to_vec()].concat();
        for _ in 0..7 {
            if liar.0.write_all(&chunk).await.is_err() {
                break;
            }
        }
        assert!(text(reply).await.1.contains("Function.ResponseSizeTooLarge"));
    });
}

#[test]
fn a_body_that_breaks_off_fails_its_own_invocation_only() {
    on_a_shard(async {
        let rig = Rig::new(2);
        let mut poll = rig.poll().await;
        let (request, reply) = rig.invoke(1, 3_000);
        poll.read().await;
        let mut cut = Connection::open(rig.address).await;
        let path = format!("/2018-06-01/runtime/invocation/{}/response", request.uuid());
        cut.write(&format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this")).await;
        cut.0.shutdown().await.unwrap();
        assert!(text(reply).await.1.contains("Runtime.TruncatedResponse"));
        let mut garbage = Connection::open(rig.address).await;
        garbage.write("\x01\x02\x03 what / is this\r\n\r\n").await;
        let mut poll = rig.poll().await;
        let (request, _reply) = rig.invoke(2, 3_000);
        assert_eq!(poll.read().await.request_id(), request.uuid());
    });
}

#[test]
fn a_streamed_answer_that_fails_says_so_in_its_trailers() {
    on_a_shard(async {
        let rig = Rig::new(1);
        let mut poll = rig.poll().await;
        let (request, reply) = rig.invoke(1, 3_000);
        poll.read().await;
        let mut stream = Connection::open(rig.address).await;
        let path = format!("/2018-06-01/runtime/invocation/{}/response", request.uuid());
        stream
            .write(&format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type\r\n\
                 Lambda-Runtime-Function-Response-Mode: streaming\r\n\r\n4\r\nhalf\r\n0\r\n\
                 Lambda-Runtime-Function-Error-Type: Function.Broke\r\n\r\n"
            ))
            .await;
        assert_eq!(stream.read().await.status, 202);
        let (error, body) = text(reply).await;
        assert!(error.is_some() && body.contains("Function.Broke"), "{body}");
    });
}

const LIMITS: StreamLimits =
    StreamLimits { bytes_max: 20 << 20, burst_bytes: 100 << 20, bytes_per_second: 100 << 20 };

/// An environment with one invocation that takes a stream, and the head of its answer sent.
async fn streaming(timeout_millis: u64) -> (Rig, RequestId, JoinHandle<Result<Reply, Refused>>, Connection) {
    let rig = Rig::new(2);
    let mut poll = rig.poll().await;
    let (request, reply) = rig.invoke_with(1, timeout_millis, Some(LIMITS));
    poll.read().await;
    let mut answer = Connection::open(rig.address).await;
    let trailers =
        "Trailer: Lambda-Runtime-Function-Error-Type\r\nTrailer: Lambda-Runtime-Function-Error-Body\r\n";
    answer
        .write(&format!(
            "POST /2018-06-01/runtime/invocation/{}/response HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n{trailers}Transfer-Encoding: chunked\r\n\r\n",
            request.uuid()
        ))
        .await;
    (rig, request, reply, answer)
}

async fn stream_of(reply: JoinHandle<Result<Reply, Refused>>) -> ReplyStream {
    let reply = reply.await.unwrap().unwrap();
    assert_eq!(reply.content_type.as_deref(), Some("text/plain"));
    let ReplyBody::Stream(stream) = reply.body else { panic!("{:?}", reply.body) };
    stream
}

async fn chunk(stream: &mut ReplyStream) -> Option<Bytes> {
    std::future::poll_fn(|context| stream.poll_chunk(context)).await
}

#[test]
fn a_stream_comes_while_it_is_written_and_holds_its_slot_until_its_end() {
    on_a_shard(async {
        let (rig, request, reply, mut answer) = streaming(3_000).await;
        answer.write("5\r\nfirst\r\n").await;
        let mut stream = stream_of(reply).await;
        assert_eq!(chunk(&mut stream).await.unwrap(), "first");
        assert_eq!(rig.in_flight(), 1);
        let again = rig.post(&format!("runtime/invocation/{}/response", request.uuid()), b"x").await;
        assert!(again.0 == 400 && again.1.contains("InvalidRequestID"), "{again:?}");
        answer.write("6\r\nsecond\r\n0\r\n\r\n").await;
        assert_eq!(chunk(&mut stream).await.unwrap(), "second");
        assert_eq!(chunk(&mut stream).await, None);
        assert_eq!(stream.end(), Some(&StreamEnd::default()));
        assert_eq!((answer.read().await.status, rig.in_flight()), (202, 0));
    });
}

#[test]
fn a_stream_that_fails_on_the_way_says_so_at_its_end() {
    on_a_shard(async {
        let (_rig, _, reply, mut answer) = streaming(3_000).await;
        // {"errorType":"Boom"}
        let trailers = "Lambda-Runtime-Function-Error-Type: Boom\r\nLambda-Runtime-Function-Error-Body: eyJlcnJvclR5cGUiOiJCb29tIn0=\r\n";
        answer.write(&format!("4\r\nhalf\r\n0\r\n{trailers}\r\n")).await;
        let mut stream = stream_of(reply).await;
        assert_eq!(chunk(&mut stream).await.unwrap(), "half");
        assert_eq!(chunk(&mut stream).await, None);
        assert_eq!(stream.end().unwrap().error.as_deref(), Some(&br#"{"errorType":"Boom"}"#[..]));
        assert_eq!(answer.read().await.status, 202);
    });
}

#[test]
fn a_caller_that_goes_away_leaves_the_function_writing() {
    on_a_shard(async {
        let (rig, _, reply, mut answer) = streaming(30_000).await;
        answer.write("5\r\nfirst\r\n").await;
        drop(stream_of(reply).await);
        let large = "x".repeat(1 << 20);
        for _ in 0..4 {
            answer.write(&format!("{:x}\r\n{large}\r\n", large.len())).await;
        }
        answer.write("0\r\n\r\n").await;
        assert_eq!((answer.read().await.status, rig.in_flight()), (202, 0));
    });
}

#[test]
fn a_caller_that_does_not_read_makes_the_function_wait() {
    on_a_shard(async {
        let (rig, _, reply, mut answer) = streaming(30_000).await;
        let part = "x".repeat(1 << 16);
        let written = Rc::new(std::cell::Cell::new(0_usize));
        let count = Rc::clone(&written);
        let writing = tokio::task::spawn_local(async move {
            for _ in 0..200 {
                answer.write(&format!("{:x}\r\n{part}\r\n", part.len())).await;
                count.set(count.get() + part.len());
            }
            answer.write("0\r\n\r\n").await;
            answer.read().await.status
        });
        let mut stream = stream_of(reply).await;
        // It stands still when every buffer on the way is full, long before its end.
        let mut before = usize::MAX;
        while before != written.get() {
            before = written.get();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(before < 200 << 16 && !writing.is_finished(), "{before} bytes were taken by nobody");
        let mut read = 0;
        while let Some(chunk) = chunk(&mut stream).await {
            read += chunk.len();
        }
        assert_eq!((read, writing.await.unwrap(), rig.in_flight()), (200 << 16, 202, 0));
    });
}

#[test]
fn time_and_size_end_a_stream() {
    on_a_shard(async {
        let (rig, _, reply, mut answer) = streaming(200).await;
        answer.write("5\r\nfirst\r\n").await;
        let mut stream = stream_of(reply).await;
        assert_eq!(chunk(&mut stream).await.unwrap(), "first");
        assert_eq!(chunk(&mut stream).await, None);
        let error = String::from_utf8(stream.end().unwrap().error.clone().unwrap().to_vec()).unwrap();
        assert!(error.contains("Sandbox.Timedout"), "{error}");
        assert_eq!(rig.in_flight(), 1, "the code goes on");
        answer.write("0\r\n\r\n").await;
        assert_eq!(answer.read().await.status, 410);

        let (rig, _, reply, mut answer) = streaming(30_000).await;
        let reading = tokio::task::spawn_local(async move {
            let mut stream = stream_of(reply).await;
            while chunk(&mut stream).await.is_some() {}
            stream.end().unwrap().error.clone().unwrap()
        });
        let part = "x".repeat(1 << 20);
        for _ in 0..21 {
            let sent = answer.0.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await;
            if sent.is_err() {
                break;
            }
        }
        let error = String::from_utf8(reading.await.unwrap().to_vec()).unwrap();
        assert!(error.contains("Function.ResponseSizeTooLarge"), "{error}");
        until(|| rig.in_flight() == 0).await;
    });
}

#[test]
fn a_runtime_that_breaks_off_ends_its_stream_and_frees_its_slot() {
    on_a_shard(async {
        let (rig, _, reply, mut answer) = streaming(30_000).await;
        answer.write("5\r\nfirst\r\n").await;
        let mut stream = stream_of(reply).await;
        assert_eq!(chunk(&mut stream).await.unwrap(), "first");
        drop(answer);
        assert_eq!(chunk(&mut stream).await, None);
        let error = String::from_utf8(stream.end().unwrap().error.clone().unwrap().to_vec()).unwrap();
        assert!(error.contains("Runtime.TruncatedResponse"), "{error}");
        assert_eq!(rig.in_flight(), 0);
    });
}

#[test]
fn the_first_error_of_initialisation_wins() {
    on_a_shard(async {
        let mut rig = Rig::new(1);
        let error = br#"{"errorType":"Runtime.ImportModuleError","errorMessage":"no module app"}"#;
        assert_eq!(rig.post("runtime/init/error", error).await.0, 202);
        assert!(matches!(rig.event().await, ShardEvent::InitFailed));
        assert_eq!(rig.post("runtime/init/error", br#"{"errorType":"Other"}"#).await.0, 403);
        rig.end(Exit::Code(0));
        match rig.event().await {
            ShardEvent::Ended { reason, by_itself } => {
                assert!(by_itself);
                assert_eq!(reason.text, "Runtime.ImportModuleError: no module app");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn when_the_process_ends_the_handed_fail_and_the_waiting_go_elsewhere() {
    on_a_shard(async {
        let rig = Rig::new(2);
        let mut poll = rig.poll().await;
        let (request, handed) = rig.invoke(1, 3_000);
        poll.read().await;
        let (_, waiting) = rig.invoke(2, 3_000);
        until(|| rig.in_flight() == 2).await;
        rig.end(Exit::Code(1));
        let (error, body) = text(handed).await;
        let told = format!("RequestId: {} Error: Runtime exited with error: exit status 1", request.uuid());
        assert!(error.is_some() && body.contains("Runtime.ExitError") && body.contains(&told), "{body}");
        assert!(
            waiting.await.unwrap().is_err(),
            "it was never handed over, so it may go to another environment"
        );
        let closed = GateEvent::Closed { environment: ENVIRONMENT };
        assert!(rig.gate.borrow().contains(&closed));
    });
}

#[test]
fn thousands_of_dead_polls_neither_get_an_invocation_nor_take_the_server_down() {
    on_a_shard(async {
        let rig = Rig::new(1_600);
        // A byte too much keeps the server from seeing the end of the connection.
        for number in 0..1_000 {
            let mut connection = Connection::open(rig.address).await;
            connection.write("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\nG").await;
            until(|| rig.parked() == number + 1).await;
        }
        let mut alive = rig.poll().await;
        let (request, reply) = rig.invoke(1, 3_000);
        let next = tokio::time::timeout(Duration::from_millis(500), alive.read()).await;
        if let Ok(next) = next {
            assert_eq!(next.request_id(), request.uuid());
            rig.post(&format!("runtime/invocation/{}/response", request.uuid()), b"1").await;
        }
        reply.await.unwrap().unwrap();
    });
}

impl Rig {
    /// A request to the Extensions or Telemetry API, with the status and the type of error.
    async fn extension(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        let mut connection = Connection::open(self.address).await;
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        connection.send(method, path, &headers, body.as_bytes()).await;
        let answer = connection.read().await;
        let id = answer.header("lambda-extension-identifier").map(str::to_owned);
        (answer.status, id.unwrap_or(answer.body))
    }

    async fn register(&self, name: &str, body: &str) -> (u16, String) {
        self.extension("POST", "2020-01-01/extension/register", &[("Lambda-Extension-Name", name)], body)
            .await
    }

    fn messages(&self) -> Vec<serde_json::Value> {
        self.book.close();
        let page = self.book.read(&Query { group: GROUP.into(), ..Query::default() });
        page.events.iter().map(|event| serde_json::from_str(&event.message).unwrap()).collect()
    }
}

#[test]
fn an_extension_registers_subscribes_and_hears_of_the_end() {
    on_a_shard(async {
        let mut rig = Rig::with_extensions(2, &["outer"]);
        let (status, id) = rig.register("outer", r#"{"events":["SHUTDOWN"]}"#).await;
        assert_eq!((status, id.len()), (200, 36));
        assert!(matches!(rig.event().await, ShardEvent::ExtensionsRegistered));
        let me = [("Lambda-Extension-Identifier", id.as_str())];

        let subscriber = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let uri = format!("http://sandbox.localdomain:{}/all", subscriber.local_addr().unwrap().port());
        let body = serde_json::json!({
            "schemaVersion": "2025-01-29",
            "types": ["platform", "function", "extension"],
            "buffering": {"timeoutMs": 25},
            "destination": {"protocol": "HTTP", "URI": uri},
        });
        let answer = rig.extension("PUT", "2022-07-01/telemetry", &me, &body.to_string()).await;
        assert_eq!(answer, (200, "\"OK\"".into()));

        // The runtime has asked, the extension has not: not ready yet.
        let mut poll = rig.poll().await;
        let mut next = Connection::open(rig.address).await;
        let headers = format!("Lambda-Extension-Identifier: {id}\r\n");
        next.send("GET", "2020-01-01/extension/event/next", &headers, b"").await;
        assert!(matches!(rig.event().await, ShardEvent::Ready));
        let late = rig.register("late", "{}").await;
        assert!(late.0 == 403 && late.1.contains("Extension.RegistrationClosed"), "{late:?}");
        let late = rig.extension("PUT", "2022-07-01/telemetry", &me, &body.to_string()).await;
        assert!(late.0 == 403 && late.1.contains("Telemetry.SubscriptionClosed"), "{late:?}");

        let (request, reply) = rig.invoke(1, 3_000);
        poll.read().await;
        rustix::io::write(
            &rig._output[0],
            br#"{"level":"INFO","message":"by the function"}
by itself
"#,
        )
        .unwrap();
        rustix::io::write(&rig._output[2], b"by the extension\n").unwrap();
        rig.post(&format!("runtime/invocation/{}/response", request.uuid()), b"1").await;
        text(reply).await;
        rig.machine
            .0
            .send(ShardCommand::ShutDown { environment: ENVIRONMENT, reason: "spindown", millis: 2_000 })
            .unwrap();
        let event: serde_json::Value = serde_json::from_str(&next.read().await.body).unwrap();
        assert_eq!(
            (event["eventType"].as_str(), event["shutdownReason"].as_str()),
            (Some("SHUTDOWN"), Some("spindown"))
        );
        assert!(event["deadlineMs"].as_u64().unwrap() > 1_700_000_000_000);
        assert!(matches!(rig.event().await, ShardEvent::Unsubscribed(silent) if silent.is_empty()));

        let (stream, _) = subscriber.accept().await.unwrap();
        let mut seen: Vec<serde_json::Value> = Vec::new();
        let mut connection = Connection(stream);
        while !["by itself", "by the extension"]
            .iter()
            .all(|text| seen.iter().any(|event| event["record"] == *text))
            || !seen.iter().any(|event| event["type"] == "platform.report")
        {
            let batch = connection.read().await;
            assert!(batch.head.starts_with("POST /all HTTP/1.1"), "{}", batch.head);
            seen.extend(serde_json::from_str::<Vec<serde_json::Value>>(&batch.body).unwrap());
            connection.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
        let types: Vec<&str> = seen.iter().map(|event| event["type"].as_str().unwrap()).collect();
        let wanted = [
            "platform.initStart",
            "platform.telemetrySubscription",
            "platform.initRuntimeDone",
            "platform.extension",
            "platform.initReport",
            "platform.start",
        ];
        assert_eq!(types[..6], wanted, "{types:?}");
        let of = |kind: &str| &seen.iter().find(|event| event["type"] == kind).unwrap()["record"];
        assert_eq!(of("function")["message"], "by the function");
        assert_eq!(of("platform.start")["requestId"], request.uuid());
        assert_eq!(of("platform.report")["status"], "success");
        assert_eq!(of("platform.extension")["events"][0], "SHUTDOWN");

        rig.end(Exit::Killed);
        assert!(matches!(rig.event().await, ShardEvent::Ended { .. }));
    });
}

#[test]
fn what_is_said_is_kept_with_its_levels() {
    on_a_shard(async {
        let mut rig = Rig::new(1);
        let mut poll = rig.poll().await;
        rig.event().await;
        let (request, reply) = rig.invoke(1, 3_000);
        poll.read().await;
        let line = format!("{{\"requestId\":\"{}\",\"message\":\"mine\"}}\n", request.uuid());
        rustix::io::write(&rig._output[1], line.as_bytes()).unwrap();
        rig.post(&format!("runtime/invocation/{}/error", request.uuid()), b"{}").await;
        text(reply).await;
        rig.end(Exit::Code(1));
        while !matches!(rig.event().await, ShardEvent::Ended { .. }) {}
        let kept = rig.messages();
        let types: Vec<&str> = kept.iter().map(|event| event["type"].as_str().unwrap_or("line")).collect();
        assert_eq!(
            types.iter().filter(|kind| **kind != "line").copied().collect::<Vec<_>>(),
            ["platform.initStart", "platform.initReport", "platform.start", "platform.report"],
            "DEBUG events are left out: {types:?}"
        );
        assert!(kept.iter().any(|event| event["message"] == "mine"));
        assert_eq!(
            kept.iter().find(|event| event["type"] == "platform.report").unwrap()["record"]["status"],
            "error"
        );
    });
}

#[test]
fn extensions_that_break_the_rules_are_refused_and_one_that_fails_ends_the_environment() {
    on_a_shard(async {
        let mut rig = Rig::with_extensions(1, &["outer"]);
        let refused = |(status, body): (u16, String), kind: &str| {
            assert!((400..500).contains(&status) && body.contains(kind), "{status} {body}, not {kind}");
        };
        let register = "2020-01-01/extension/register";
        refused(rig.extension("POST", register, &[], "{}").await, "Extension.InvalidExtensionName");
        refused(rig.register("outer", r#"{"events":["INVOKE"]}"#).await, "INVOKE: ErrorInvalidEventType");
        refused(rig.register("outer", r#"{"configurationKeys":["x"]}"#).await, "InvalidRequestFormat");
        refused(rig.register("outer", "nonsense").await, "InvalidRequestFormat");
        refused(rig.register("inner", r#"{"events":["SHUTDOWN"]}"#).await, "No events allowed for internal");
        let next = "2020-01-01/extension/event/next";
        refused(rig.extension("GET", next, &[], "").await, "Extension.MissingExtensionIdentifier");
        let bad = [("Lambda-Extension-Identifier", "nonsense")];
        refused(rig.extension("GET", next, &bad, "").await, "Extension.InvalidExtensionIdentifier");
        let unknown = [("Lambda-Extension-Identifier", "00000000-0000-4000-8000-000000000000")];
        refused(rig.extension("GET", next, &unknown, "").await, "Extension.UnknownExtensionIdentifier");
        let huge = "x".repeat((1 << 20) + 1);
        assert_eq!(rig.register("outer", &huge).await.0, 413);
        assert_eq!(rig.extension("GET", "2020-01-01/extension/nothing", &[], "").await.0, 404);

        let (_, id) = rig.register("outer", "{}").await;
        rig.event().await;
        let me = [("Lambda-Extension-Identifier", id.as_str())];
        let old = r#"{"schemaVersion":"2022-12-13","types":["platform"],"destination":{"protocol":"TCP","port":9}}"#;
        let answer = rig.extension("PUT", "2022-07-01/telemetry", &me, old).await;
        assert_eq!(answer.0, 400);
        refused(answer, "ValidationException");
        let error = "2020-01-01/extension/init/error";
        refused(rig.extension("POST", error, &me, "{}").await, "Extension.MissingHeader");
        let stated = [me[0], ("Lambda-Extension-Function-Error-Type", "Extension.NoLicence")];
        let body = r#"{"errorMessage":"no licence"}"#;
        assert_eq!(rig.extension("POST", error, &stated, body).await.0, 202);
        assert!(matches!(rig.event().await, ShardEvent::ExtensionFailed));
        rig.end(Exit::Killed);
        let ShardEvent::Ended { reason, .. } = rig.event().await else { panic!() };
        assert_eq!(reason.code, "FunctionError.ExtensionInitError");
        assert!(reason.text.contains("outer reported Extension.NoLicence: no licence"), "{}", reason.text);
    });
}

#[test]
fn an_extension_that_ends_fails_what_is_running() {
    on_a_shard(async {
        let mut rig = Rig::with_extensions(1, &["outer"]);
        rig.register("outer", "{}").await;
        let _poll = rig.poll().await;
        rig.event().await;
        let (_, id) = rig.register("inner", "{}").await;
        assert!(id.contains("RegistrationClosed"));
        // Never ready: the extension has not asked for its first event. A crash ends it all the same.
        let crashed = ShardCommand::ProcessEnded {
            environment: ENVIRONMENT,
            process: Process::Extension(0),
            exit: Exit::Code(0),
        };
        rig.machine.0.send(crashed).unwrap();
        assert!(matches!(rig.event().await, ShardEvent::ExtensionFailed));
        rig.end(Exit::Killed);
        let ShardEvent::Ended { reason, .. } = rig.event().await else { panic!() };
        assert!(reason.text.contains("Extension.Crash: The extension outer ended"), "{}", reason.text);
    });
}
