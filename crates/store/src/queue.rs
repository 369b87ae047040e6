//! Events that wait for their function, on disk from before they are acknowledged until they have ended.
//!
//! An event's head and payload never change; what its attempts left behind is a row of its own. Who works the queue
//! off follows it from here ([`Store::follow_events`]) and is the only one to change an event once it is in. The
//! lock on the data folder makes that one process, so a lease needs no row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use ondol_failpoint::reach;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::sqlite::DATABASE;
use crate::{Request, Store, StoreError};

pub type EventId = u64;

/// How much may wait. What follows from an event that is in is taken beyond it, as it must not be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub events: u64,
    /// Of payloads and what is kept beside them.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { events: 1_000_000, bytes: 10 << 30 }
    }
}

/// Payloads kept in memory between their arrival and their first attempt, all together.
const KEPT_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Whose books it is in.
    pub function: Arc<str>,
    /// What the queue's worker needs to know of it; not looked into here.
    pub head: Bytes,
    pub payload: Bytes,
    pub enqueued_epoch_millis: i64,
}

/// An event in the queue.
#[derive(Debug)]
pub struct Queued {
    pub id: EventId,
    pub function: Arc<str>,
    pub head: Bytes,
    pub payload_bytes: u64,
    /// The payload, if there was room to keep it; else it is read when it is needed.
    pub payload: Option<Kept>,
    pub enqueued_epoch_millis: i64,
    /// What its attempts left behind, as it was written.
    pub progress: Option<Bytes>,
}

/// A payload in memory, counted for as long as this lives.
#[derive(Debug)]
pub struct Kept {
    pub bytes: Bytes,
    room: Arc<std::sync::atomic::AtomicU64>,
}

impl Kept {
    fn new(bytes: &Bytes, room: &Arc<std::sync::atomic::AtomicU64>) -> Option<Self> {
        use std::sync::atomic::Ordering::Relaxed;
        let more = |kept: u64| Some(kept + bytes.len() as u64).filter(|kept| *kept <= KEPT_BYTES_MAX);
        room.fetch_update(Relaxed, Relaxed, more).ok()?;
        // A copy: the bytes themselves may hold a whole read buffer.
        Some(Self { bytes: Bytes::copy_from_slice(bytes), room: Arc::clone(room) })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.fetch_sub(self.bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

/// How an event left the queue: in exactly one of these ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its function took it.
    Succeeded,
    /// Its function did not, and a destination or dead-letter queue has it.
    Delivered,
    /// Given up, as its function's settings say.
    Discarded,
    /// Given up, and what was to have it didn't take it either.
    Undeliverable,
}

/// An event's books: `accepted` is the sum of the others and of what is still queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub accepted: u64,
    pub succeeded: u64,
    pub delivered: u64,
    pub discarded: u64,
    pub undeliverable: u64,
}

impl Counts {
    fn count(&mut self, ending: Ending) {
        *match ending {
            Ending::Succeeded => &mut self.succeeded,
            Ending::Delivered => &mut self.delivered,
            Ending::Discarded => &mut self.discarded,
            Ending::Undeliverable => &mut self.undeliverable,
        } += 1;
    }

    fn add(&mut self, more: &Self) {
        self.accepted += more.accepted;
        self.succeeded += more.succeeded;
        self.delivered += more.delivered;
        self.discarded += more.discarded;
        self.undeliverable += more.undeliverable;
    }

    pub fn ended(&self) -> u64 {
        self.succeeded + self.delivered + self.discarded + self.undeliverable
    }
}

/// One step in an event's life, with the events that come of it: all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Enqueue(NewEvent),
    /// It stays, with this behind it. An `answer`, once there is one, is kept apart and stays what it is.
    Progress {
        id: EventId,
        progress: Bytes,
        answer: Option<Bytes>,
        follow_ups: Vec<NewEvent>,
    },
    /// It leaves. Done a second time this changes nothing.
    Finish {
        id: EventId,
        function: Arc<str>,
        ending: Ending,
        follow_ups: Vec<NewEvent>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    Done,
    /// The queue holds as much as it may.
    Full,
}

pub(crate) type Commit = (Change, oneshot::Sender<Result<Changed, StoreError>>);

/// What is there, and the line on which what comes is told.
#[derive(Debug)]
pub struct Followed {
    pub backlog: Vec<Queued>,
    pub arrivals: mpsc::UnboundedReceiver<Queued>,
}

pub type Books = Arc<RwLock<BTreeMap<Arc<str>, Counts>>>;

/// Reads payloads and books beside the writer.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    path: PathBuf,
    connection: Arc<Mutex<Option<Connection>>>,
    pub(crate) books: Books,
}

impl Reader {
    pub(crate) fn new(folder: &Path, books: Books) -> Self {
        Self { path: folder.join(DATABASE), connection: Arc::default(), books }
    }

    pub(crate) fn close(&self) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn read<T>(&self, find: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match &mut *connection {
            Some(open) => open,
            none => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                none.insert(Connection::open_with_flags(&self.path, flags)?)
            }
        };
        Ok(find(open)?)
    }

    fn payload(&self, id: EventId) -> Result<Option<Bytes>, StoreError> {
        let found = self.read(|open| {
            let mut find =
                open.prepare_cached("SELECT function, head, payload, digest FROM events WHERE id = ?1")?;
            find.query_row(params![id], |row| {
                let (function, head): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
                Ok((function, head, row.get::<_, Vec<u8>>(2)?, row.get::<_, Vec<u8>>(3)?))
            })
            .optional()
        })?;
        let Some((function, head, payload, kept)) = found else { return Ok(None) };
        if digest_of(&function, &head, &payload)[..] != kept[..] {
            return Err(StoreError::DamagedEvent(id));
        }
        Ok(Some(payload.into()))
    }

    fn answer(&self, id: EventId) -> Result<Option<Bytes>, StoreError> {
        let found = self.read(|open| {
            let mut find = open.prepare_cached("SELECT answer FROM event_progress WHERE id = ?1")?;
            find.query_row(params![id], |row| row.get::<_, Option<Vec<u8>>>(0)).optional()
        })?;
        Ok(found.flatten().map(Into::into))
    }
}

impl Store {
    /// Makes one change of the queue last.
    pub async fn queue(&self, change: Change) -> Result<Changed, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Queue((change, answer))).map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// What is queued, and what will be. One follows at a time: the one before hears no more.
    pub async fn follow_events(&self) -> Result<Followed, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::FollowEvents(answer)).map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// An event's payload, read from the disk and held against its digest. None if the event has ended.
    pub fn event_payload(&self, id: EventId) -> Result<Option<Bytes>, StoreError> {
        self.events.payload(id)
    }

    /// What the function answered to an event that is on its way out.
    pub fn event_answer(&self, id: EventId) -> Result<Option<Bytes>, StoreError> {
        self.events.answer(id)
    }

    /// Every function's books.
    pub fn event_counts(&self) -> BTreeMap<Arc<str>, Counts> {
        self.events.books.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The writer's side.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    tally: Tally,
    books: Books,
    follower: Option<mpsc::UnboundedSender<Queued>>,
    room: Arc<std::sync::atomic::AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    next_id: EventId,
    events: u64,
    bytes: u64,
}

/// What a group of changes did, to be told once it is on disk.
#[derive(Debug)]
pub(crate) struct Written {
    tally: Tally,
    counts: BTreeMap<Arc<str>, Counts>,
    arrived: Vec<(EventId, NewEvent)>,
}

pub(crate) const TABLES: &str = "
    CREATE TABLE events (id INTEGER PRIMARY KEY, function TEXT NOT NULL, enqueued_epoch_millis INTEGER NOT NULL, head BLOB NOT NULL, digest BLOB NOT NULL, payload BLOB NOT NULL);
    CREATE TABLE event_progress (id INTEGER PRIMARY KEY, progress BLOB NOT NULL, answer BLOB);
    CREATE TABLE event_counts (function TEXT PRIMARY KEY, accepted INTEGER NOT NULL, succeeded INTEGER NOT NULL, delivered INTEGER NOT NULL, discarded INTEGER NOT NULL, undeliverable INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE event_ids (id INTEGER PRIMARY KEY CHECK (id = 0), next INTEGER NOT NULL);
    INSERT INTO event_ids VALUES (0, 1);";

impl Queue {
    pub(crate) fn load(connection: &Connection, limits: Limits) -> Result<Self, rusqlite::Error> {
        let tally = connection.query_row(
            "SELECT (SELECT next FROM event_ids), COUNT(*), COALESCE(SUM(LENGTH(head) + LENGTH(payload)), 0), COALESCE(MAX(id), 0) FROM events",
            [],
            |row| {
                let (next, events, bytes): (u64, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let newest: u64 = row.get(3)?;
                Ok(Tally { next_id: next.max(newest + 1), events, bytes })
            },
        )?;
        let mut statement = connection.prepare(
            "SELECT function, accepted, succeeded, delivered, discarded, undeliverable FROM event_counts",
        )?;
        let books = statement
            .query_map([], |row| {
                let counts = Counts {
                    accepted: row.get(1)?,
                    succeeded: row.get(2)?,
                    delivered: row.get(3)?,
                    discarded: row.get(4)?,
                    undeliverable: row.get(5)?,
                };
                Ok((row.get::<_, String>(0)?.into(), counts))
            })?
            .collect::<Result<BTreeMap<Arc<str>, Counts>, _>>()?;
        let books = Arc::new(RwLock::new(books));
        Ok(Self { limits, tally, books, follower: None, room: Arc::default() })
    }

    pub(crate) fn books(&self) -> Books {
        Arc::clone(&self.books)
    }

    /// Everything that waits, in the order it came.
    pub(crate) fn follow(&mut self, connection: &Connection) -> Result<Followed, StoreError> {
        let mut statement = connection.prepare(
            "SELECT e.id, e.function, e.head, LENGTH(e.payload), e.enqueued_epoch_millis, p.progress FROM events e LEFT JOIN event_progress p ON p.id = e.id ORDER BY e.id",
        )?;
        let backlog = statement
            .query_map([], |row| {
                Ok(Queued {
                    id: row.get(0)?,
                    function: row.get::<_, String>(1)?.into(),
                    head: row.get::<_, Vec<u8>>(2)?.into(),
                    payload_bytes: row.get(3)?,
                    payload: None,
                    enqueued_epoch_millis: row.get(4)?,
                    progress: row.get::<_, Option<Vec<u8>>>(5)?.map(Into::into),
                })
            })?
            .collect::<Result<Vec<_>, _>>()?;
        let (follower, arrivals) = mpsc::unbounded_channel();
        self.follower = Some(follower);
        Ok(Followed { backlog, arrivals })
    }

    pub(crate) fn begin(&self) -> Written {
        Written { tally: self.tally, counts: BTreeMap::new(), arrived: Vec::new() }
    }

    /// Carries one change out, within the group's transaction.
    pub(crate) fn apply(
        &self,
        sql: &rusqlite::Transaction<'_>,
        written: &mut Written,
        change: &Change,
    ) -> Result<Changed, rusqlite::Error> {
        match change {
            Change::Enqueue(event) => {
                let Tally { events, bytes, .. } = written.tally;
                let bytes = bytes + (event.head.len() + event.payload.len()) as u64;
                if events >= self.limits.events || bytes > self.limits.bytes {
                    return Ok(Changed::Full);
                }
                written.insert(sql, event)?;
            }
            Change::Progress { id, progress, answer, follow_ups } => {
                let mut put = sql.prepare_cached(
                    "INSERT INTO event_progress SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM events WHERE id = ?1)
                     ON CONFLICT (id) DO UPDATE SET progress = ?2, answer = COALESCE(?3, answer)",
                )?;
                if put.execute(params![id, &progress[..], answer.as_deref()])? == 1 {
                    follow_ups.iter().try_for_each(|event| written.insert(sql, event))?;
                }
            }
            Change::Finish { id, function, ending, follow_ups } => {
                let mut gone = sql.prepare_cached(
                    "DELETE FROM events WHERE id = ?1 RETURNING LENGTH(head) + LENGTH(payload)",
                )?;
                let Some(bytes) = gone.query_row(params![id], |row| row.get::<_, u64>(0)).optional()? else {
                    return Ok(Changed::Done);
                };
                sql.prepare_cached("DELETE FROM event_progress WHERE id = ?1")?.execute(params![id])?;
                written.tally.events -= 1;
                written.tally.bytes -= bytes;
                written.counts.entry(Arc::clone(function)).or_default().count(*ending);
                follow_ups.iter().try_for_each(|event| written.insert(sql, event))?;
            }
        }
        Ok(Changed::Done)
    }

    /// Writes what the group adds to the books.
    pub(crate) fn close(
        &self,
        sql: &rusqlite::Transaction<'_>,
        written: &Written,
    ) -> Result<(), rusqlite::Error> {
        if written.counts.is_empty() {
            return Ok(());
        }
        let mut count = sql.prepare_cached(
            "INSERT INTO event_counts VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (function) DO UPDATE SET
             accepted = accepted + ?2, succeeded = succeeded + ?3, delivered = delivered + ?4,
             discarded = discarded + ?5, undeliverable = undeliverable + ?6",
        )?;
        for (function, counts) in &written.counts {
            let Counts { accepted, succeeded, delivered, discarded, undeliverable } = counts;
            count.execute(params![function, accepted, succeeded, delivered, discarded, undeliverable])?;
        }
        // An id is never given twice, also after all events have ended.
        sql.prepare_cached("UPDATE event_ids SET next = ?1")?.execute(params![written.tally.next_id])?;
        reach("store.events-written");
        Ok(())
    }

    /// The group is on disk: who follows hears of it.
    pub(crate) fn tell(&mut self, written: Written) {
        self.tally = written.tally;
        let mut books = self.books.write().unwrap_or_else(PoisonError::into_inner);
        for (function, counts) in &written.counts {
            books.entry(Arc::clone(function)).or_default().add(counts);
        }
        drop(books);
        let Some(follower) = &self.follower else { return };
        for (id, event) in written.arrived {
            let NewEvent { function, head, payload, enqueued_epoch_millis } = event;
            let queued = Queued {
                id,
                function,
                head,
                payload_bytes: payload.len() as u64,
                payload: Kept::new(&payload, &self.room),
                enqueued_epoch_millis,
                progress: None,
            };
            // A follower that is gone reads the backlog when it comes back.
            let _ = follower.send(queued);
        }
    }
}

impl Written {
    fn insert(&mut self, sql: &rusqlite::Transaction<'_>, event: &NewEvent) -> Result<(), rusqlite::Error> {
        let NewEvent { function, head, payload, enqueued_epoch_millis } = event;
        let id = self.tally.next_id;
        let digest = digest_of(function, head, payload);
        let mut put = sql.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        put.execute(params![id, function, enqueued_epoch_millis, &head[..], &digest[..], &payload[..]])?;
        self.tally.next_id += 1;
        self.tally.events += 1;
        self.tally.bytes += (head.len() + payload.len()) as u64;
        self.counts.entry(Arc::clone(function)).or_default().accepted += 1;
        self.arrived.push((id, event.clone()));
        Ok(())
    }
}

/// What an event's row is checked by.
fn digest_of(function: &str, head: &[u8], payload: &[u8]) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update((function.len() as u64).to_le_bytes());
    hash.update(function);
    hash.update((head.len() as u64).to_le_bytes());
    hash.update(head);
    hash.update(payload);
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

#[cfg(test)]
mod tests;
