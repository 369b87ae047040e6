//! The writing thread: gathers lines, appends them to their group's newest segment, removes what is too much.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::{Limits, LogStream, Record, segment};
use crate::clock;

/// How long lines are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(50);
/// Lines written together at most; more than there is room for in the queue.
const LINES_AT_ONCE_MAX: usize = 1_000_000;
/// How often the bounds are looked at when nothing is written, and how long a close may take.
const IDLE: Duration = Duration::from_millis(500);
/// Open segments are closed when their group was silent for so long.
const SILENT_MICROS: u64 = 60_000_000;
/// A segment takes lines for this long at most, so that whole segments grow old.
const SEGMENT_AGE_MICROS: u64 = 86_400_000_000;
/// Age is looked at this often.
const AGE_MICROS: u64 = 600_000_000;

pub struct Shared {
    pub written: watch::Sender<u64>,
    pub waiting_bytes: Arc<AtomicUsize>,
    pub lost: Arc<AtomicU64>,
    pub trouble: Arc<Mutex<Option<String>>>,
}

pub struct Writer {
    folder: PathBuf,
    limits: Limits,
    shared: Shared,
    open: BTreeMap<String, Open>,
    /// Bytes in all segments, as far as this writer knows; counted anew when something is removed.
    total_bytes: u64,
    aged_at: u64,
}

/// The newest segment of a group.
struct Open {
    file: File,
    bytes: u64,
    group_bytes: u64,
    streams: BTreeMap<usize, (Arc<LogStream>, u32)>,
    begun_at: u64,
    used_at: u64,
}

/// Ends the thread once it has written what it got.
#[derive(Debug)]
pub struct Closer {
    asked: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Closer {
    pub fn close(self) {
        self.asked.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // A thread that panicked has said so itself.
        let _ = self.thread.join();
    }
}

pub fn start(mut writer: Writer, records: Receiver<Record>) -> io::Result<Closer> {
    let asked = Arc::<AtomicBool>::default();
    let ending = Arc::clone(&asked);
    let thread = std::thread::Builder::new().name("logs".into()).spawn(move || {
        loop {
            let end = ending.load(Ordering::Acquire);
            let first = match records.recv_timeout(if end { Duration::ZERO } else { IDLE }) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) if !end => {
                    writer.idle();
                    continue;
                }
                Err(_) => return,
            };
            if !end {
                std::thread::park_timeout(GATHER);
            }
            let mut lines = vec![first];
            // Bounded, as others may go on sending for ever.
            lines.extend(records.try_iter().take(LINES_AT_ONCE_MAX));
            writer.write(lines);
            if end {
                return;
            }
        }
    })?;
    Ok(Closer { asked, thread })
}

/// The system's clock: what lines are dated with, and what is asked for with `--since`.
fn epoch_micros() -> u64 {
    u64::try_from(clock::epoch_millis()).unwrap_or_default() * 1_000
}

/// The bytes of a segment up to where it is torn, if it is.
fn whole_bytes(path: &Path) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    let mut end = 0;
    while let Some((_, next)) = segment::read(&bytes, end) {
        end = next;
    }
    Ok(end as u64)
}

/// The folder of a group. Group names hold no `~` and no `=`, so two groups never share one.
pub fn group_folder(folder: &Path, group: &str) -> PathBuf {
    const NAME_BYTES_MAX: usize = 200;
    let mut name = format!("={}", group.replace('/', "~"));
    if name.len() > NAME_BYTES_MAX {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut end = NAME_BYTES_MAX;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
        name.push_str(&format!("={hash:016x}"));
    }
    folder.join(name)
}

/// The segments of a group, oldest first, with their sizes.
pub fn segments(group: &Path) -> Vec<(PathBuf, u64)> {
    let mut found: Vec<(PathBuf, u64)> = fs::read_dir(group)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
        .collect();
    found.sort();
    found
}

impl Writer {
    pub fn new(folder: PathBuf, mut limits: Limits, shared: Shared) -> Self {
        // What is removed is whole segments: a group must hold several.
        limits.segment_bytes = limits.segment_bytes.min(limits.group_bytes / 4).max(1);
        let mut writer = Self { folder, limits, shared, open: BTreeMap::new(), total_bytes: 0, aged_at: 0 };
        writer.bound();
        writer
    }

    fn write(&mut self, mut lines: Vec<Record>) {
        lines.sort_by_key(|record| record.epoch_micros);
        let mut by_group: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in &lines {
            by_group.entry(&record.stream.group).or_default().push(record);
        }
        let mut trouble = None;
        for (group, records) in by_group {
            if let Err(error) = self.append(group, &records) {
                self.shared.lost.fetch_add(records.len() as u64, Ordering::Relaxed);
                // What was written of a batch that failed goes, so that the next one follows a whole frame. With no
                // room even for that, the file is looked through when it is opened again.
                if let Some(open) = self.open.remove(group) {
                    let _ = open.file.set_len(open.bytes);
                }
                trouble = Some(format!(
                    "Function logs can't be written ({error}); what functions write is lost until they can."
                ));
            }
        }
        *self.shared.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = trouble;
        let bytes: usize = lines.iter().map(Record::bytes).sum();
        self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.total_bytes > self.limits.total_bytes {
            self.bound();
        }
        self.idle();
        self.shared.written.send_modify(|count| *count += lines.len() as u64);
    }

    fn append(&mut self, group: &str, records: &[&Record]) -> io::Result<()> {
        let segment_bytes = self.limits.segment_bytes;
        let mut buffer = Vec::new();
        let mut rest = records;
        while !rest.is_empty() {
            let open = self.segment(group)?;
            buffer.clear();
            let mut taken = 0;
            for record in rest {
                let number = match open.streams.get(&Arc::as_ptr(&record.stream).addr()) {
                    Some((_, number)) => *number,
                    None => {
                        let number = u32::try_from(open.streams.len()).unwrap_or(u32::MAX);
                        segment::describe(&mut buffer, number, &record.stream);
                        let stream = Arc::clone(&record.stream);
                        // Kept alive here, so that its address stays its own.
                        open.streams.insert(Arc::as_ptr(&stream).addr(), (stream, number));
                        number
                    }
                };
                segment::write(&mut buffer, number, record);
                taken += 1;
                if open.bytes + buffer.len() as u64 >= segment_bytes {
                    break;
                }
            }
            open.file.write_all(&buffer)?;
            let bytes = buffer.len() as u64;
            (open.bytes, open.group_bytes) = (open.bytes + bytes, open.group_bytes + bytes);
            self.total_bytes += bytes;
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// The group's open segment; a new one when there is none or it is full.
    fn segment(&mut self, group: &str) -> io::Result<&mut Open> {
        let now = epoch_micros();
        let segment_bytes = self.limits.segment_bytes;
        let full = self.open.get(group).is_some_and(|open| {
            open.bytes >= segment_bytes || now.saturating_sub(open.begun_at) > SEGMENT_AGE_MICROS
        });
        if full || !self.open.contains_key(group) {
            self.open.remove(group);
            let folder = group_folder(&self.folder, group);
            fs::create_dir_all(&folder)?;
            let mut segments = segments(&folder);
            let mut bytes: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
            while bytes > self.limits.group_bytes && !segments.is_empty() {
                let (oldest, size) = segments.remove(0);
                fs::remove_file(oldest)?;
                (bytes, self.total_bytes) = (bytes - size, self.total_bytes.saturating_sub(size));
            }
            let newest =
                segments.last().and_then(|(path, _)| path.file_stem()?.to_str()?.parse::<u64>().ok());
            let (path, begun_at, size) = match (newest, segments.last()) {
                // One that was left, by a silence or by an earlier start, is gone on with.
                (Some(begun_at), Some((path, _)))
                    if now.saturating_sub(begun_at) <= SEGMENT_AGE_MICROS && !full =>
                {
                    (path.clone(), begun_at, whole_bytes(path)?)
                }
                _ => {
                    // Names grow also when the clock steps back.
                    let name = now.max(newest.map_or(0, |newest| newest + 1));
                    (folder.join(format!("{name:020}.log")), name, 0)
                }
            };
            let file = File::options().append(true).create(true).open(path)?;
            file.set_len(size)?;
            let open = Open {
                file,
                bytes: size,
                group_bytes: bytes,
                streams: BTreeMap::new(),
                begun_at,
                used_at: now,
            };
            self.open.insert(group.to_owned(), open);
        }
        let open = self.open.get_mut(group).ok_or_else(|| io::Error::other("no segment"))?;
        open.used_at = now;
        Ok(open)
    }

    fn idle(&mut self) {
        let now = epoch_micros();
        self.open.retain(|_, open| now.saturating_sub(open.used_at) < SILENT_MICROS);
        if now.saturating_sub(self.aged_at) >= AGE_MICROS {
            self.bound();
        }
    }

    /// Removes segments that are too old, and while there is too much the oldest of the largest group: who writes
    /// little keeps it.
    fn bound(&mut self) {
        self.aged_at = epoch_micros();
        let folders: Vec<PathBuf> =
            fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        let mut removing = false;
        let mut groups: Vec<(u64, VecDeque<(PathBuf, u64)>)> = Vec::new();
        for folder in &folders {
            let mut segments = VecDeque::from(segments(folder));
            while segments.front().is_some_and(|(path, _)| self.is_too_old(path)) {
                segments.pop_front().iter().for_each(|(path, _)| self.remove(path));
            }
            groups.push((segments.iter().map(|(_, bytes)| bytes).sum(), segments));
        }
        self.total_bytes = groups.iter().map(|(bytes, _)| bytes).sum();
        // Some room at once, so that not every batch of a flood comes back here.
        let enough = self.limits.total_bytes / 10 * 9;
        while self.total_bytes > self.limits.total_bytes || (removing && self.total_bytes > enough) {
            removing = true;
            let Some((group_bytes, segments)) = groups.iter_mut().max_by_key(|(bytes, _)| *bytes) else {
                break;
            };
            let Some((path, bytes)) = segments.pop_front() else { break };
            *group_bytes -= bytes;
            self.total_bytes -= bytes;
            self.remove(&path);
        }
        // Fails for those that still hold a segment, as it should.
        folders.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }

    fn is_too_old(&self, path: &Path) -> bool {
        let written = fs::metadata(path).and_then(|found| found.modified()).ok();
        written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > self.limits.age)
    }

    /// A file that cannot be removed now is tried again the next time.
    fn remove(&mut self, path: &Path) {
        if fs::remove_file(path).is_ok() {
            self.open.retain(|group, _| !path.starts_with(group_folder(&self.folder, group)));
        }
    }
}
