//! What functions and the platform wrote, kept on disk within bounds of size and age.
//!
//! Writers never wait: a line goes on a bounded channel, and what does not fit is counted by who sent it. One
//! thread gathers lines for a moment and appends them to the newest segment of their log group. Nothing is
//! flushed to the disk: a power cut costs the last lines, a crash of the server none that were gathered.

mod reader;
mod segment;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ondol_core::identity::RequestId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::platform::Status;
pub use reader::{Cursor, Event, Page, Query};

/// What may wait to be written, and what a line costs besides its text.
const WAITING_BYTES_MAX: usize = 64 << 20;
const RECORD_BYTES: usize = 96;

/// Where lines come from: one execution environment, or a capacity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStream {
    pub group: String,
    pub name: String,
    /// Empty for a capacity provider.
    pub function: String,
    pub version: String,
    pub function_arn: String,
}

/// One line. Events of every invocation are kept short and written out when they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub stream: Arc<LogStream>,
    pub epoch_micros: u64,
    pub request: Option<RequestId>,
    pub entry: Entry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A whole line as it was written, or a platform event in JSON.
    Text(Box<str>),
    /// `platform.start`
    Start,
    /// `platform.report`
    Report { duration_micros: u64, status: Status },
}

impl Record {
    fn bytes(&self) -> usize {
        match &self.entry {
            Entry::Text(text) => text.len() + RECORD_BYTES,
            Entry::Start | Entry::Report { .. } => RECORD_BYTES,
        }
    }
}

/// Bounds of the store.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// All groups together; the oldest segments go first.
    pub total_bytes: u64,
    pub group_bytes: u64,
    pub age: Duration,
    /// A segment is closed at this size; what is removed is whole segments.
    pub segment_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: 1 << 30,
            group_bytes: 256 << 20,
            age: Duration::from_secs(14 * 86_400),
            segment_bytes: 4 << 20,
        }
    }
}

/// The sending side; cheap to clone, never blocks.
#[derive(Debug, Clone)]
pub struct LogSender {
    records: Sender<Record>,
    waiting_bytes: Arc<AtomicUsize>,
    sent: Arc<AtomicU64>,
}

impl LogSender {
    /// False if the line was dropped because the disk does not keep up; whoever sent it counts and says so.
    pub fn send(&self, record: Record) -> bool {
        let bytes = record.bytes();
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) > WAITING_BYTES_MAX {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        // It fails once the writer has ended.
        let sent = self.records.send(record).is_ok();
        self.sent.fetch_add(u64::from(sent), Ordering::Relaxed);
        sent
    }
}

/// The reading side.
#[derive(Debug, Clone)]
pub struct LogBook {
    folder: PathBuf,
    /// How many lines were sent, and how many of them the writer is done with.
    sent: Arc<AtomicU64>,
    written: watch::Receiver<u64>,
    lost: Arc<AtomicU64>,
    trouble: Arc<Mutex<Option<String>>>,
    /// Asks the writer to write what it has and end.
    close: Arc<Mutex<Option<writer::Closer>>>,
}

/// Opens the folder and starts the writing thread.
pub fn open(folder: PathBuf, limits: Limits) -> std::io::Result<(LogSender, LogBook)> {
    use std::os::unix::fs::DirBuilderExt as _;
    // Logs hold whatever functions say: for the owner only.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let (records, received) = channel();
    let waiting_bytes = Arc::<AtomicUsize>::default();
    let (written_sender, written) = watch::channel(0);
    let (lost, sent) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let trouble = Arc::<Mutex<Option<String>>>::default();
    let writer = writer::Writer::new(
        folder.clone(),
        limits,
        writer::Shared {
            written: written_sender,
            waiting_bytes: Arc::clone(&waiting_bytes),
            lost: Arc::clone(&lost),
            trouble: Arc::clone(&trouble),
        },
    );
    let closer = writer::start(writer, received)?;
    let book = LogBook {
        folder,
        sent: Arc::clone(&sent),
        written,
        lost,
        trouble,
        close: Arc::new(Mutex::new(Some(closer))),
    };
    Ok((LogSender { records, waiting_bytes, sent }, book))
}

impl LogBook {
    /// Wakes when lines were written.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }

    /// Comes back when what was sent before can be read.
    pub async fn settled(&self) {
        let sent = self.sent.load(Ordering::Relaxed);
        // A writer that has ended writes nothing more.
        let _ = self.written.clone().wait_for(|written| *written >= sent).await;
    }

    /// Lines that could not be written to the disk since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Why lines cannot be written at present.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Events that match, oldest first. Blocking: it reads files.
    pub fn read(&self, query: &Query) -> Page {
        reader::read(&self.folder, query)
    }

    /// Writes what has been sent so far and ends the writing thread. What is sent later is lost.
    pub fn close(&self) {
        if let Some(closer) = self.close.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            closer.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ondol-logs-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Self(path)
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn stream(group: &str, name: &str) -> Arc<LogStream> {
        Arc::new(LogStream {
            group: group.into(),
            name: name.into(),
            function: "f".into(),
            version: "1".into(),
            function_arn: "arn".into(),
        })
    }

    fn text(stream: &Arc<LogStream>, epoch_micros: u64, request: Option<RequestId>, text: &str) -> Record {
        Record { stream: Arc::clone(stream), epoch_micros, request, entry: Entry::Text(text.into()) }
    }

    fn messages(page: &Page) -> Vec<&str> {
        page.events.iter().map(|event| event.message.as_str()).collect()
    }

    #[test]
    fn lines_come_back_in_order_by_group_request_and_time_and_go_on_after_a_cursor() {
        let folder = Folder::new("order");
        let (sender, book) = open(folder.0.clone(), Limits::default()).unwrap();
        let (a, b) = (stream("/aws/lambda/f", "a"), stream("/aws/lambda/g", "b"));
        let request = RequestId::from_random(1, 2);
        let start = Record {
            stream: Arc::clone(&a),
            epoch_micros: 2_000_000,
            request: Some(request),
            entry: Entry::Start,
        };
        let report = Entry::Report { duration_micros: 1_500, status: Status::Timeout };
        for record in [
            text(&a, 1_000_000, None, "one"),
            start.clone(),
            text(&b, 2_500_000, None, "other group"),
            text(&a, 3_000_000, Some(request), "three"),
            Record { epoch_micros: 4_000_000, entry: report, ..start },
        ] {
            assert!(sender.send(record));
        }
        book.close();
        let query = Query { group: "/aws/lambda/f".into(), ..Query::default() };
        let all = book.read(&query);
        assert_eq!(all.events.len(), 4);
        let [one, start, three, report] = &all.events[..] else { panic!() };
        assert_eq!((one.message.as_str(), one.epoch_millis, one.stream.name.as_str()), ("one", 1_000, "a"));
        assert!(
            start.message.contains(r#""type":"platform.start""#) && start.message.contains(&request.uuid())
        );
        assert_eq!((three.message.as_str(), three.request), ("three", Some(request)));
        assert!(
            report.message.contains(r#""durationMs":1.5"#) && report.message.contains("timeout"),
            "{report:?}"
        );
        let of_request = book.read(&Query { request: Some(request), ..query.clone() });
        assert_eq!(of_request.events.len(), 3);
        assert_eq!(
            messages(&book.read(&Query { since_epoch_millis: 3_000, limit: 1, ..query.clone() })),
            ["three"]
        );
        let first = book.read(&Query { limit: 3, ..query.clone() });
        let rest = book.read(&Query { after: Some(first.cursor), ..query.clone() });
        assert_eq!((first.events.len(), rest.events.len()), (3, 1));
        let (sender, book) = open(folder.0.clone(), Limits::default()).unwrap();
        assert!(sender.send(text(&a, 5_000_000, None, "after a restart")));
        book.close();
        assert_eq!(messages(&book.read(&Query { after: Some(rest.cursor), ..query })), ["after a restart"]);
    }

    #[test]
    fn the_bounds_of_groups_and_of_all_hold_and_the_newest_stay() {
        let folder = Folder::new("bounds");
        let limits = Limits {
            total_bytes: 100_000,
            group_bytes: 60_000,
            segment_bytes: 10_000,
            age: Duration::from_secs(u64::MAX / 2_000_000),
        };
        let (sender, book) = open(folder.0.clone(), limits).unwrap();
        assert!(sender.send(text(&stream("little", "s"), 1, None, "kept")));
        for group in ["/g/1", "/g/2", ".."] {
            let stream = stream(group, "s");
            for number in 0..1_000_u64 {
                assert!(sender.send(text(&stream, 1_000_000 + number, None, &format!("{number:0>100}"))));
            }
        }
        book.close();
        let mut total = 0;
        for group in std::fs::read_dir(&folder.0).unwrap().flatten() {
            let of_group: u64 = std::fs::read_dir(group.path())
                .unwrap()
                .flatten()
                .map(|file| file.metadata().unwrap().len())
                .sum();
            assert!(of_group <= 60_000 + 20_000, "{of_group}");
            total += of_group;
        }
        assert!(total <= 100_000 + 20_000, "{total}");
        let of =
            |group: &str| book.read(&Query { group: group.into(), limit: usize::MAX, ..Query::default() });
        assert!(of("..").events.last().unwrap().message.ends_with("999"));
        assert_eq!(messages(&of("little")), ["kept"]);
    }

    #[test]
    fn a_torn_segment_gives_what_is_whole() {
        let folder = Folder::new("torn");
        let (sender, book) = open(folder.0.clone(), Limits::default()).unwrap();
        let stream = stream("/g", "s");
        assert!(
            sender.send(text(&stream, 1, None, "whole")) && sender.send(text(&stream, 2, None, "cut off"))
        );
        book.close();
        let group = std::fs::read_dir(&folder.0).unwrap().flatten().next().unwrap().path();
        let file = std::fs::read_dir(group).unwrap().flatten().next().unwrap().path();
        let bytes = std::fs::read(&file).unwrap();
        let query = Query { group: "/g".into(), ..Query::default() };
        for cut in 0..bytes.len() {
            std::fs::write(&file, &bytes[..cut]).unwrap();
            assert!(book.read(&query).events.len() < 2, "{cut}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0xFF;
            std::fs::write(&file, damaged).unwrap();
            book.read(&query);
        }
    }
}
