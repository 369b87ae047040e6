//! What an environment writes: standard output, standard error, and the log socket its workers connect to.
//!
//! Everything is read as fast as it comes, whatever is done with it: Python blocks and Node.js throws when
//! nobody reads. Lines are kept only as far as somebody asked: the last few for an explanation, and those of
//! invocations whose caller wants the log's tail. Memory is bounded; what is dropped was asked for by nobody.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use ondol_core::identity::RequestId;
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

/// The log's tail an invocation may ask for, as AWS has it.
pub const TAIL_BYTES_MAX: usize = 4_096;
const LINE_BYTES_MAX: usize = 256 * 1024;
const LAST_LINES: usize = 20;
const READ_BYTES: usize = 64 * 1024;
/// Runtimes open up to two connections for each worker.
const CONNECTIONS_MAX: usize = 2 * 1_600 + 16;

#[derive(Debug, Default)]
pub struct Logs {
    streams: RefCell<Vec<Rc<Stream>>>,
    last: RefCell<VecDeque<String>>,
    tails: RefCell<BTreeMap<RequestId, Tail>>,
    /// A worker holds its connection for life, so an ended connection is an ended worker. Nothing else tells:
    /// AWS's clients neither say so nor start another.
    pub worker_ended: Notify,
}

#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

#[derive(Debug)]
struct Stream {
    source: Source,
    partial: RefCell<Vec<u8>>,
    ended: Cell<bool>,
}

#[derive(Debug)]
enum Source {
    Pipe(pipe::Receiver),
    Socket(UnixStream),
}

impl Source {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.readable().await,
            Self::Socket(socket) => socket.readable().await,
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_read(buffer),
            Self::Socket(socket) => socket.try_read(buffer),
        }
    }
}

impl Logs {
    /// Reads a pipe to its end, on this thread.
    pub fn follow_pipe(self: &Rc<Self>, pipe: OwnedFd) -> io::Result<()> {
        self.follow(Source::Pipe(pipe::Receiver::from_owned_fd(pipe)?));
        Ok(())
    }

    fn follow(self: &Rc<Self>, source: Source) {
        let stream = Rc::new(Stream { source, partial: RefCell::default(), ended: Cell::new(false) });
        self.streams.borrow_mut().push(Rc::clone(&stream));
        let logs = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while !stream.ended.get() {
                if stream.source.readable().await.is_err() {
                    break;
                }
                logs.read(&stream);
            }
            logs.streams.borrow_mut().retain(|other| !Rc::ptr_eq(other, &stream));
            if matches!(stream.source, Source::Socket(_)) {
                logs.worker_ended.notify_one();
            }
        });
    }

    /// Takes connections to the log socket for as long as the environment lives.
    pub fn listen(self: &Rc<Self>, listener: OwnedFd) -> io::Result<tokio::task::JoinHandle<()>> {
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let logs = Rc::clone(self);
        Ok(tokio::task::spawn_local(async move {
            while let Ok((connection, _)) = listener.accept().await {
                if logs.streams.borrow().len() < CONNECTIONS_MAX {
                    logs.follow(Source::Socket(connection));
                }
            }
        }))
    }

    /// Reads all that is there now. An invocation's lines reach us before its answer, on another socket.
    pub fn read_what_is_there(&self) {
        let streams = self.streams.borrow().clone();
        streams.iter().for_each(|stream| self.read(stream));
    }

    fn read(&self, stream: &Stream) {
        let mut buffer = [0; READ_BYTES];
        // Bounded, so that a flood from one environment cannot hold this thread.
        for _ in 0..4 {
            match stream.source.try_read(&mut buffer) {
                Ok(0) => return stream.ended.set(true),
                Ok(read) => self.split(&mut stream.partial.borrow_mut(), &buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return stream.ended.set(true),
            }
        }
    }

    fn split(&self, partial: &mut Vec<u8>, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if partial.is_empty() {
                self.line(&bytes[..end]);
            } else {
                partial.extend_from_slice(&bytes[..end]);
                self.line(partial);
                partial.clear();
            }
            bytes = &bytes[end + 1..];
        }
        let room = LINE_BYTES_MAX - partial.len();
        partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn line(&self, line: &[u8]) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let text = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]);
        let mut tails = self.tails.borrow_mut();
        if !tails.is_empty() {
            if let Some(tail) = request_id(&text).and_then(|request| tails.get_mut(&request)) {
                tail.push(&text);
            }
        }
        let mut last = self.last.borrow_mut();
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(text.chars().take(500).collect());
    }

    /// The newest lines, oldest first.
    pub fn last_lines(&self) -> Vec<String> {
        self.last.borrow().iter().cloned().collect()
    }

    pub fn start_tail(&self, request: RequestId, first_line: &str) {
        let mut tail = Tail::default();
        tail.push(first_line);
        self.tails.borrow_mut().insert(request, tail);
    }

    pub fn take_tail(&self, request: RequestId, last_line: &str) -> Option<String> {
        self.read_what_is_there();
        let mut tail = self.tails.borrow_mut().remove(&request)?;
        tail.push(last_line);
        let text: String = tail.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let mut cut = text.len().saturating_sub(TAIL_BYTES_MAX);
        while !text.is_char_boundary(cut) {
            cut += 1;
        }
        Some(text[cut..].to_owned())
    }
}

impl Tail {
    fn push(&mut self, line: &str) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line.to_owned());
        while self.lines.len() > 1 && self.bytes - self.lines[0].len() > TAIL_BYTES_MAX {
            self.bytes -= self.lines[0].len() + 1;
            self.lines.pop_front();
        }
    }
}

/// The request a line belongs to: the value of its `requestId` or `AWSRequestId`, however it is spaced.
fn request_id(line: &str) -> Option<RequestId> {
    ["equestId\"", "equest_id\""].iter().find_map(|name| {
        let (_, rest) = line.split_once(name)?;
        let value = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        RequestId::parse_uuid(value.get(..36)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_found_in_every_client_s_lines() {
        let id = RequestId::from_random(1, 2);
        let uuid = id.uuid();
        for line in [
            format!(r#"{{"timestamp": "t", "requestId": "{uuid}", "message": "m"}}"#),
            format!(r#"{{"timestamp":"t","requestId":"{uuid}","message":"m"}}"#),
            format!(r#"{{"level":"INFO","AWSRequestId":"{uuid}"}}"#),
        ] {
            assert_eq!(request_id(&line), Some(id), "{line}");
        }
        assert_eq!(request_id(r#"{"requestId":""}"#), None);
        assert_eq!(request_id("plain text"), None);
    }

    #[test]
    fn a_tail_holds_its_own_lines_and_the_last_4_kb() {
        let logs = Logs::default();
        let (mine, other) = (RequestId::from_random(1, 1), RequestId::from_random(2, 2));
        logs.start_tail(mine, "START");
        let mut partial = Vec::new();
        for number in 0..100 {
            for (who, word) in [(mine, "mine"), (other, "other")] {
                let line = format!(r#"{{"requestId":"{}","n":"{word}-{number:03}"}}"#, who.uuid());
                let (a, b) = line.split_at(7);
                logs.split(&mut partial, a.as_bytes());
                logs.split(&mut partial, format!("{b}\n").as_bytes());
            }
        }
        let tail = logs.take_tail(mine, "END").unwrap();
        assert!(tail.len() <= TAIL_BYTES_MAX && tail.ends_with("END\n"), "{}", tail.len());
        assert!(tail.contains("mine-099") && !tail.contains("other") && !tail.contains("mine-001"), "{tail}");
        assert_eq!(logs.take_tail(mine, "END"), None);
    }

    #[test]
    fn a_line_without_end_is_cut_and_keeps_no_more() {
        let logs = Logs::default();
        let mut partial = Vec::new();
        for _ in 0..20 {
            logs.split(&mut partial, &[b'x'; READ_BYTES]);
        }
        assert_eq!(partial.len(), LINE_BYTES_MAX);
        logs.split(&mut partial, b"\nnext\n");
        assert_eq!(logs.last_lines().last().map(String::as_str), Some("next"));
    }
}
