//! What must survive a restart: documents with a gapless change feed, events that wait for their function, and code
//! by the hash of its bytes.
//!
//! Every process keeps a mirror of all documents in memory; reads never touch the disk. A write is
//! answered once it is on disk and in the mirror, so that callers read what they wrote.

pub mod artifacts;
pub mod backup;
pub mod keys;
mod migrations;
pub mod queue;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod scratch;
mod sqlite;
mod turns;

pub use turns::{Turn, Turns};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

/// The place of a commit in the store's history; also the revision of the documents it wrote.
pub type Revision = u64;

/// Schema this build writes. An older folder is migrated at its start, a newer one refused.
pub const SCHEMA_VERSION: u32 = 4;

/// How many past changes a subscriber may be behind before it must read everything again.
const CHANGES_KEPT: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "another server uses the data folder {0}; stop it, or give this one a folder of its own with --data-dir"
    )]
    Locked(PathBuf),
    #[error(
        "the data folder {folder} was written by a newer version (schema {found}, this one knows {known}); use that version, or another folder"
    )]
    Newer { folder: PathBuf, found: u32, known: u32 },
    #[error("the data folder {0}: {1}")]
    Folder(PathBuf, #[source] std::io::Error),
    #[error(
        "the data folder {0} can't be written ({1}). Make it writable for this user, or give another with --data-dir"
    )]
    ReadOnly(PathBuf, String),
    #[error(
        "the database in {folder} is damaged: {what}. Restore a backup with: ondol restore FILE --data-dir {folder}. The damaged file is kept beside it"
    )]
    Damaged { folder: PathBuf, what: String },
    #[error(
        "the data folder {folder} is of schema {found}, this version writes {known}; a server of this version brings an older one up to date when it starts"
    )]
    OtherSchema { folder: PathBuf, found: u32, known: u32 },
    #[error("the database: {0}")]
    Database(#[from] rusqlite::Error),
    /// The write may be tried again once its cause is gone.
    #[error("{0}")]
    Refused(String),
    /// What is on the disk is not known any more; only a restart reads it again.
    #[error("{0}")]
    Failed(String),
    #[error("document {0} cannot be read: {1}")]
    Document(String, #[source] serde_json::Error),
    #[error("event {0} in the queue isn't what was written: the disk or the file is damaged")]
    DamagedEvent(queue::EventId),
    #[error("the store has stopped")]
    Stopped,
}

/// What must hold for a transaction to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    Absent(String),
    Unchanged(String, Revision),
}

/// All or nothing.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub preconditions: Vec<Precondition>,
    pub puts: Vec<(String, Arc<[u8]>)>,
    pub deletes: Vec<String>,
}

/// A document with the schema it was written in.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    schema: u32,
    document: T,
}

impl Transaction {
    pub fn put<T: Serialize>(mut self, key: impl Into<String>, document: &T) -> Self {
        // Documents are plain data with text keys, which serde_json always writes.
        let bytes = serde_json::to_vec(&Envelope { schema: SCHEMA_VERSION, document }).unwrap_or_default();
        self.puts.push((key.into(), bytes.into()));
        self
    }

    /// A document as another store wrote it, envelope and all.
    fn put_raw(mut self, key: String, bytes: Arc<[u8]>) -> Self {
        self.puts.push((key, bytes));
        self
    }

    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.deletes.push(key.into());
        self
    }

    pub fn when(mut self, precondition: Precondition) -> Self {
        self.preconditions.push(precondition);
        self
    }
}

/// The outcome of a transaction that reached the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    At(Revision),
    /// A precondition did not hold; nothing was changed.
    Conflict,
}

/// A document as stored.
#[derive(Debug, Clone)]
pub struct Stored {
    pub revision: Revision,
    bytes: Arc<[u8]>,
}

impl Stored {
    pub fn read<T: DeserializeOwned>(&self, key: &str) -> Result<T, StoreError> {
        read_document(key, &self.bytes)
    }
}

/// A document out of its envelope.
pub fn read_document<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let envelope: Envelope<T> =
        serde_json::from_slice(bytes).map_err(|error| StoreError::Document(key.to_owned(), error))?;
    Ok(envelope.document)
}

/// A key that changed, and the commit that changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    pub key: String,
}

/// What happened since a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    Events(Vec<Change>),
    /// Too long ago: read everything again, then follow from this revision.
    Compacted(Revision),
}

#[derive(Debug, Default)]
struct Mirror {
    revision: Revision,
    documents: BTreeMap<String, Stored>,
    changes: std::collections::VecDeque<Change>,
    /// The newest revision of which a change was dropped.
    forgotten: Revision,
}

impl Mirror {
    fn apply(&mut self, revision: Revision, transaction: &Transaction) {
        for (key, bytes) in &transaction.puts {
            self.documents.insert(key.clone(), Stored { revision, bytes: Arc::clone(bytes) });
        }
        for key in &transaction.deletes {
            self.documents.remove(key);
        }
        let keys = transaction.puts.iter().map(|(key, _)| key).chain(&transaction.deletes);
        self.changes.extend(keys.map(|key| Change { revision, key: key.clone() }));
        while self.changes.len() > CHANGES_KEPT {
            self.forgotten = self.changes.pop_front().map_or(self.forgotten, |change| change.revision);
        }
        self.revision = revision;
    }

    fn holds(&self, precondition: &Precondition) -> bool {
        match precondition {
            Precondition::Absent(key) => !self.documents.contains_key(key),
            Precondition::Unchanged(key, revision) => {
                self.documents.get(key).is_some_and(|stored| stored.revision == *revision)
            }
        }
    }
}

pub(crate) type Commit = (Transaction, oneshot::Sender<Result<Committed, StoreError>>);

pub(crate) enum Request {
    Commit(Commit),
    Queue(queue::Commit),
    /// Who asks hears of every event from now on, and of those that are there.
    FollowEvents(oneshot::Sender<Result<queue::Followed, StoreError>>),
    /// Nothing more comes: the database is closed, and who asked is told.
    Close(oneshot::Sender<()>),
}

/// Handle on the store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    mirror: Arc<RwLock<Mirror>>,
    requests: std::sync::mpsc::Sender<Request>,
    changed: watch::Receiver<Revision>,
    /// Why the last write was refused; none once one went well.
    trouble: Arc<RwLock<Option<String>>>,
    /// A write failed in a way that leaves what is on the disk unknown.
    failed: Arc<AtomicBool>,
    events: queue::Reader,
}

impl Store {
    /// Opens or makes the store in a folder, which no other process may use at the same time.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_with(folder, queue::Limits::default())
    }

    /// The same, with limits of its own on what the queue may hold.
    pub fn open_with(folder: &Path, limits: queue::Limits) -> Result<Self, StoreError> {
        sqlite::open(folder, sqlite::lock(folder)?, limits)
    }

    /// Takes the folder for this process without looking into it.
    pub fn lock(folder: &Path) -> Result<std::fs::File, StoreError> {
        sqlite::lock(folder)
    }

    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Commit((transaction, answer))).map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// Closes the database, which brings all of it into its one file. Later commits answer that it has stopped.
    pub async fn close(&self) {
        self.events.close();
        let (told, closed) = oneshot::channel();
        if self.requests.send(Request::Close(told)).is_ok() {
            // A writer that has ended has closed it too.
            let _ = closed.await;
        }
    }

    fn read<T>(&self, f: impl FnOnce(&Mirror) -> T) -> T {
        f(&self.mirror.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub fn get(&self, key: &str) -> Option<Stored> {
        self.read(|mirror| mirror.documents.get(key).cloned())
    }

    /// A typed document and its revision.
    pub fn document<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, Revision)>, StoreError> {
        self.get(key).map(|stored| Ok((stored.read(key)?, stored.revision))).transpose()
    }

    /// Up to `limit` documents whose key starts with `prefix` and comes after `after`, in key order.
    pub fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<(String, Stored)> {
        use std::ops::Bound;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(prefix.to_owned()),
        };
        self.read(|mirror| {
            mirror
                .documents
                .range((start, Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix))
                .take(limit)
                .map(|(key, stored)| (key.clone(), stored.clone()))
                .collect()
        })
    }

    /// Every typed document below a prefix.
    pub fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, StoreError> {
        self.scan(prefix, None, usize::MAX).iter().map(|(key, stored)| stored.read(key)).collect()
    }

    /// Every document as stored, at one moment.
    pub fn documents(&self) -> BTreeMap<String, Arc<[u8]>> {
        self.read(|mirror| {
            mirror.documents.iter().map(|(key, stored)| (key.clone(), Arc::clone(&stored.bytes))).collect()
        })
    }

    /// Why nothing can be changed at present, if so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Whether the documents in memory may not be those on the disk any more.
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub fn revision(&self) -> Revision {
        self.read(|mirror| mirror.revision)
    }

    pub fn changes(&self, from: Revision) -> Changes {
        self.read(|mirror| {
            // Also a part of one revision is a gap: a restore changes more keys at once than are kept.
            let unknown = mirror.changes.front().is_none_or(|first| first.revision > from + 1);
            if from < mirror.revision && (unknown || mirror.forgotten > from) {
                return Changes::Compacted(mirror.revision);
            }
            // They are in the order of revisions.
            let first = mirror.changes.partition_point(|change| change.revision <= from);
            Changes::Events(mirror.changes.range(first..).cloned().collect())
        })
    }

    /// Wakes with every commit; the value is the newest revision.
    pub fn watch(&self) -> watch::Receiver<Revision> {
        self.changed.clone()
    }
}
