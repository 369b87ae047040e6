//! What an environment writes: standard output, standard error, what its workers or its runtime write as log, and
//! what its extensions write.
//!
//! Everything is read as fast as it comes, up to a rate no honest function reaches: Python blocks and Node.js
//! throws when nobody reads. Lines go to the journal, to the tail of the invocation they belong to, and the last few
//! are kept for an explanation. When one environment writes more than its share, its lines are counted instead of
//! looked at, so that a flood costs no other environment of this thread.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use ondol_core::identity::RequestId;
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::budget::Budget;
use crate::frames::Frames;
use crate::journal::Journal;
use crate::telemetry::Kind;

/// The log's tail an invocation may ask for, as AWS has it.
pub const TAIL_BYTES_MAX: usize = 4_096;
const LINE_BYTES_MAX: usize = 256 * 1024;
const LAST_LINES: usize = 20;
const LAST_LINE_BYTES: usize = 500;
const READ_BYTES: usize = 64 * 1024;
/// What is read of one environment: this much at once, and this much each second. Beyond it its writers wait.
const READ_BYTES_BURST: u64 = 8 << 20;
const READ_BYTES_PER_SECOND: u64 = 64 << 20;
const READ_PAUSE: Duration = Duration::from_millis(10);
/// Lines without an end, of all of an environment's streams together.
const PARTIAL_BYTES_MAX: usize = 8 << 20;
/// Runtimes open up to two connections for each worker.
const CONNECTIONS_SPARE: usize = 16;

#[derive(Debug)]
pub struct Logs {
    journal: Rc<Journal>,
    reading: Budget,
    partial_bytes: Cell<usize>,
    connections_max: usize,
    readers: RefCell<Vec<AbortHandle>>,
    streams: RefCell<Vec<Rc<Stream>>>,
    last: RefCell<VecDeque<String>>,
    tails: RefCell<BTreeMap<RequestId, Tail>>,
    /// The one invocation there is, where there is one at a time: every line is its own.
    current: Cell<Option<RequestId>>,
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
    kind: Kind,
    written: RefCell<Written>,
    ended: Cell<bool>,
}

/// What was read and is no whole entry yet.
#[derive(Debug)]
enum Written {
    Lines(Partial),
    Frames(Frames),
}

/// A line whose end has not come.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    /// Its beginning was not looked at, so neither is the rest of it.
    skips: bool,
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
    /// `concurrency` bounds how many connections there may be.
    pub fn new(journal: Rc<Journal>, concurrency: u32) -> Self {
        Self {
            journal,
            partial_bytes: Cell::new(0),
            connections_max: 2 * concurrency as usize + CONNECTIONS_SPARE,
            readers: RefCell::default(),
            reading: Budget::new(READ_BYTES_BURST, READ_BYTES_PER_SECOND),
            streams: RefCell::default(),
            last: RefCell::default(),
            tails: RefCell::default(),
            current: Cell::new(None),
            worker_ended: Notify::new(),
        }
    }

    /// Reads a pipe to its end, on this thread.
    pub fn follow_pipe(self: &Rc<Self>, pipe: OwnedFd, kind: Kind) -> io::Result<()> {
        let source = Source::Pipe(pipe::Receiver::from_owned_fd(pipe)?);
        self.follow(source, kind, Written::Lines(Partial::default()));
        Ok(())
    }

    /// Reads the pipe of a runtime that writes frames.
    pub fn follow_frames(self: &Rc<Self>, pipe: OwnedFd) -> io::Result<()> {
        let source = Source::Pipe(pipe::Receiver::from_owned_fd(pipe)?);
        self.follow(source, Kind::Function, Written::Frames(Frames::default()));
        Ok(())
    }

    fn follow(self: &Rc<Self>, source: Source, kind: Kind, written: Written) {
        let stream =
            Rc::new(Stream { source, kind, written: RefCell::new(written), ended: Cell::new(false) });
        self.streams.borrow_mut().push(Rc::clone(&stream));
        let logs = Rc::clone(self);
        let reader = tokio::task::spawn_local(async move {
            while !stream.ended.get() {
                if stream.source.readable().await.is_err() {
                    break;
                }
                while !logs.reading.has_room() {
                    tokio::time::sleep(READ_PAUSE).await;
                }
                logs.read(&stream, 1);
                // A stream that always has more must let others have their turn.
                tokio::task::yield_now().await;
            }
            logs.streams.borrow_mut().retain(|other| !Rc::ptr_eq(other, &stream));
            logs.end_line(&stream);
            if matches!(stream.source, Source::Socket(_)) {
                logs.worker_ended.notify_one();
            }
        });
        let mut readers = self.readers.borrow_mut();
        readers.retain(|reader| !reader.is_finished());
        readers.push(reader.abort_handle());
    }

    /// Reads no more: whoever holds the other ends now is not of this environment.
    pub fn stop(&self) {
        self.readers.borrow_mut().drain(..).for_each(|reader| reader.abort());
        self.streams.borrow_mut().clear();
    }

    /// Takes connections to the log socket for as long as the environment lives.
    pub fn listen(self: &Rc<Self>, listener: OwnedFd) -> io::Result<tokio::task::JoinHandle<()>> {
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let logs = Rc::clone(self);
        Ok(tokio::task::spawn_local(async move {
            loop {
                match listener.accept().await {
                    Ok((connection, _)) if logs.streams.borrow().len() < logs.connections_max => {
                        logs.follow(
                            Source::Socket(connection),
                            Kind::Function,
                            Written::Lines(Partial::default()),
                        );
                    }
                    Ok(_) => {}
                    // Out of descriptors, most likely: let others go on before the next try.
                    Err(_) => tokio::time::sleep(READ_PAUSE).await,
                }
            }
        }))
    }

    /// Reads all that is there now. An invocation's lines reach us before its answer, on another socket.
    pub fn read_what_is_there(&self) {
        let streams = self.streams.borrow().clone();
        for stream in streams {
            if !self.reading.has_room() {
                return;
            }
            self.read(&stream, 4);
        }
    }

    fn read(&self, stream: &Stream, times: usize) {
        let mut buffer = [0; READ_BYTES];
        // Bounded, so that a flood from one environment cannot hold this thread.
        for _ in 0..times {
            match stream.source.try_read(&mut buffer) {
                Ok(0) => return stream.ended.set(true),
                Ok(read) => {
                    self.reading.spend(read as u64);
                    match &mut *stream.written.borrow_mut() {
                        Written::Lines(partial) => self.split(stream.kind, partial, &buffer[..read]),
                        Written::Frames(frames) => {
                            frames.feed(&buffer[..read], LINE_BYTES_MAX, |entry| {
                                self.entry(stream.kind, entry)
                            });
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return stream.ended.set(true),
            }
        }
    }

    /// What has no end yet is a line all the same: its writer, or the invocation it belongs to, is over.
    pub fn end_lines(&self) {
        let streams = self.streams.borrow().clone();
        streams.iter().for_each(|stream| self.end_line(stream));
    }

    fn end_line(&self, stream: &Stream) {
        let Written::Lines(partial) = &mut *stream.written.borrow_mut() else { return };
        if partial.bytes.is_empty() {
            return;
        }
        self.entry(stream.kind, &partial.bytes);
        self.clear(partial);
    }

    fn entry(&self, kind: Kind, entry: &[u8]) {
        if self.journal.has_room() {
            self.line(kind, entry.strip_suffix(b"\n").unwrap_or(entry));
        } else {
            self.journal.drop_lines(1, entry.len() as u64);
        }
    }

    fn split(&self, kind: Kind, partial: &mut Partial, mut bytes: &[u8]) {
        let mut room = self.journal.has_room();
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            if partial.skips {
                partial.skips = false;
                self.journal.drop_lines(0, end as u64 + 1);
            } else if !room {
                return self.skip(partial, bytes);
            } else if partial.bytes.is_empty() {
                self.line(kind, &bytes[..end]);
            } else {
                self.extend(partial, &bytes[..end]);
                self.line(kind, &partial.bytes);
                self.clear(partial);
            }
            room = !self.journal.is_full();
            bytes = &bytes[end + 1..];
        }
        if partial.skips {
            return self.journal.drop_lines(0, bytes.len() as u64);
        }
        self.extend(partial, bytes);
    }

    /// Adds to a line without an end, as far as there is room for such; the rest of it is cut off.
    fn extend(&self, partial: &mut Partial, bytes: &[u8]) {
        let room = (LINE_BYTES_MAX - partial.bytes.len()).min(PARTIAL_BYTES_MAX - self.partial_bytes.get());
        let taken = bytes.len().min(room);
        partial.bytes.extend_from_slice(&bytes[..taken]);
        self.partial_bytes.set(self.partial_bytes.get() + taken);
    }

    fn clear(&self, partial: &mut Partial) {
        self.partial_bytes.set(self.partial_bytes.get() - partial.bytes.len());
        partial.bytes = Vec::new();
    }

    /// Counts what there is no room for; the line it ends in goes with it.
    fn skip(&self, partial: &mut Partial, bytes: &[u8]) {
        let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
        partial.skips = bytes.last() != Some(&b'\n');
        let dropped = partial.bytes.len() + bytes.len();
        self.journal.drop_lines(lines + u64::from(partial.skips), dropped as u64);
        self.clear(partial);
    }

    fn line(&self, kind: Kind, line: &[u8]) {
        self.journal.charge(line.len());
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let text = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]);
        let request = self.current.get().or_else(|| request_id(&text));
        if !self.journal.line(kind, &text, request) {
            return;
        }
        if let Some(request) = request {
            if let Some(tail) = self.tails.borrow_mut().get_mut(&request) {
                tail.push(&text);
            }
        }
        text.lines().for_each(|line| self.keep_last(line));
    }

    fn keep_last(&self, line: &str) {
        let mut last = self.last.borrow_mut();
        let mut kept =
            if last.len() == LAST_LINES { last.pop_front().unwrap_or_default() } else { String::new() };
        let mut end = line.len().min(LAST_LINE_BYTES);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        kept.clear();
        kept.push_str(&line[..end]);
        last.push_back(kept);
    }

    /// The newest lines, oldest first.
    pub fn last_lines(&self) -> Vec<String> {
        self.last.borrow().iter().cloned().collect()
    }

    /// From here on every line belongs to this invocation, or to none.
    pub fn belong_to(&self, request: Option<RequestId>) {
        self.current.set(request);
    }

    pub fn start_tail(&self, request: RequestId, first_lines: &[String]) {
        let mut tail = Tail::default();
        first_lines.iter().for_each(|line| tail.push(line));
        self.tails.borrow_mut().insert(request, tail);
    }

    pub fn take_tail(&self, request: RequestId, last_lines: &[String]) -> Option<String> {
        self.read_what_is_there();
        let mut tail = self.tails.borrow_mut().remove(&request)?;
        last_lines.iter().for_each(|line| tail.push(line));
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
    use ondol_observe::logs::Query;

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

    fn logs(name: &str) -> (Logs, ondol_observe::logs::LogBook, Folder) {
        use ondol_protocol::assignment::EnvironmentAssignment;
        let folder =
            Folder(std::env::temp_dir().join(format!("ondol-agent-logs-{name}-{}", std::process::id())));
        let (sender, book) = ondol_observe::logs::open(folder.0.clone(), Default::default()).unwrap();
        let stream = ondol_observe::logs::LogStream {
            group: "/g".into(),
            name: "s".into(),
            function: "f".into(),
            version: "1".into(),
            function_arn: "a".into(),
        };
        let assignment = EnvironmentAssignment::sample("python3.13");
        (Logs::new(Rc::new(Journal::new(stream.into(), sender, &assignment)), 16), book, folder)
    }

    struct Folder(std::path::PathBuf);
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn kept(book: &ondol_observe::logs::LogBook) -> Vec<String> {
        book.close();
        let mut query = Query { group: "/g".into(), limit: usize::MAX, ..Query::default() };
        let mut kept = Vec::new();
        loop {
            let page = book.read(&query);
            kept.extend(page.events.into_iter().map(|event| event.message));
            query.after = Some(page.cursor);
            if !page.more {
                return kept;
            }
        }
    }

    #[test]
    fn a_tail_holds_its_own_lines_and_the_last_4_kb() {
        let (logs, _book, _folder) = logs("tail");
        let (mine, other) = (RequestId::from_random(1, 1), RequestId::from_random(2, 2));
        logs.start_tail(mine, &["START".to_owned()]);
        let mut partial = Partial::default();
        for number in 0..100 {
            for (who, word) in [(mine, "mine"), (other, "other")] {
                let line = format!(r#"{{"requestId":"{}","n":"{word}-{number:03}"}}"#, who.uuid());
                let (a, b) = line.split_at(7);
                logs.split(Kind::Function, &mut partial, a.as_bytes());
                logs.split(Kind::Function, &mut partial, format!("{b}\n").as_bytes());
            }
        }
        let tail = logs.take_tail(mine, &["END".to_owned()]).unwrap();
        assert!(tail.len() <= TAIL_BYTES_MAX && tail.ends_with("END\n"), "{}", tail.len());
        assert!(tail.contains("mine-099") && !tail.contains("other") && !tail.contains("mine-001"), "{tail}");
        assert_eq!(logs.take_tail(mine, &["END".to_owned()]), None);
    }

    #[test]
    fn a_line_without_end_is_cut_and_keeps_no_more() {
        let (logs, book, _folder) = logs("endless");
        let mut partial = Partial::default();
        for _ in 0..20 {
            logs.split(Kind::Function, &mut partial, &[b'x'; READ_BYTES]);
        }
        assert_eq!(partial.bytes.len(), LINE_BYTES_MAX);
        logs.split(Kind::Function, &mut partial, b"rest\nnext\n");
        assert_eq!(logs.last_lines().last().map(String::as_str), Some("next"));
        assert_eq!(kept(&book).iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 4]);
    }

    #[test]
    fn levels_below_the_configured_one_are_not_kept() {
        let (logs, book, _folder) = logs("levels");
        let mut partial = Partial::default();
        for line in [
            r#"{"level":"DEBUG","m":1}"#,
            r#"{"level": "warn", "m":2}"#,
            "plain",
            r#"{"level":7}"#,
            r#"{"m":"no level"}"#,
        ] {
            logs.split(Kind::Function, &mut partial, format!("{line}\n").as_bytes());
        }
        assert_eq!(
            kept(&book),
            [r#"{"level": "warn", "m":2}"#, "plain", r#"{"level":7}"#, r#"{"m":"no level"}"#]
        );
    }

    #[test]
    fn of_a_flood_a_part_is_kept_and_the_rest_counted_to_the_line() {
        let (logs, book, _folder) = logs("flood");
        let mut partial = Partial::default();
        let (mut lines, mut bytes) = (0_u64, 0_u64);
        // Pieces that end in the middle of lines.
        let text: Vec<u8> = (0..)
            .flat_map(|number| format!("line {number} {}\n", "x".repeat(number % 200)).into_bytes())
            .take(40 << 20)
            .collect();
        for piece in text.chunks(READ_BYTES - 7) {
            logs.split(Kind::Function, &mut partial, piece);
        }
        logs.split(Kind::Function, &mut partial, b"\n");
        lines += memchr::memchr_iter(b'\n', &text).count() as u64 + 1;
        bytes += text.len() as u64 + 1;
        logs.journal.tell_of_dropped();
        let (mut kept_lines, mut kept_bytes, mut dropped_lines, mut dropped_bytes) = (0, 0, 0, 0);
        for message in kept(&book) {
            if message.starts_with("line ") {
                kept_lines += 1;
                kept_bytes += message.len() as u64 + 1;
            } else {
                let event: serde_json::Value = serde_json::from_str(&message).unwrap();
                assert_eq!(event["type"], "platform.logsDropped");
                dropped_lines += event["record"]["droppedRecords"].as_u64().unwrap();
                dropped_bytes += event["record"]["droppedBytes"].as_u64().unwrap();
            }
        }
        assert!(dropped_lines > 0 && kept_bytes >= 4 << 20, "{kept_bytes}");
        assert_eq!((kept_lines + dropped_lines, kept_bytes + dropped_bytes), (lines, bytes));
    }
}
