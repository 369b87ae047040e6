//! The embedded engine: SQLite in WAL mode with `synchronous=FULL`, one writer thread, group commit.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, RwLock};

use ondol_failpoint::{reach, synchronous};
use rusqlite::{Connection, ErrorCode, params};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::queue::Queue;
use crate::{
    Committed, Mirror, Request, Revision, SCHEMA_VERSION, Store, StoreError, Stored, Transaction, migrations,
    queue,
};

pub(crate) const DATABASE: &str = "ondol.db";

/// A file up to this size is checked whole at the start.
const FULL_CHECK_BYTES_MAX: u64 = 1 << 30;

/// Transactions that share one write to disk at most.
const GROUP_MAX: usize = 256;

/// Makes the folder if need be, for its owner only as it holds code and secrets, and locks it.
pub fn lock(folder: &Path) -> Result<File, StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    let in_folder = |error| in_folder(folder, error);
    std::fs::create_dir_all(folder).map_err(in_folder)?;
    let lock = File::create(folder.join("lock")).map_err(in_folder)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(folder.to_owned())),
        Err(TryLockError::Error(error)) => return Err(in_folder(error)),
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(in_folder)?;
    Ok(lock)
}

fn in_folder(folder: &Path, error: std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StoreError::ReadOnly(folder.to_owned(), error.to_string())
        }
        _ => StoreError::Folder(folder.to_owned(), error),
    }
}

pub fn open(folder: &Path, lock: File, limits: queue::Limits) -> Result<Store, StoreError> {
    let (connection, mirror) = read_all(folder).map_err(|error| explained(folder, error))?;
    let queue = Queue::load(&connection, limits).map_err(|error| explained(folder, error.into()))?;
    let events = queue::Reader::new(folder, queue.books());
    let mirror = Arc::new(RwLock::new(mirror));
    let revision = mirror.read().map(|mirror| mirror.revision).unwrap_or_default();
    let (requests, received) = channel();
    let (changed_sender, changed) = watch::channel(revision);
    let (trouble, failed) = (Arc::default(), Arc::<AtomicBool>::default());
    let writer = Writer {
        connection,
        queue,
        mirror: Arc::clone(&mirror),
        changed: changed_sender,
        trouble: Arc::clone(&trouble),
        is_failed: Arc::clone(&failed),
        failed: None,
        _lock: lock,
    };
    std::thread::Builder::new()
        .name("store".into())
        .spawn(move || writer.run(&received))
        .map_err(|error| in_folder(folder, error))?;
    Ok(Store { mirror, requests, changed, trouble, failed, events })
}

/// Opens the database, brings it to this build's schema and reads it, checking every page and document.
fn read_all(folder: &Path) -> Result<(Connection, Mirror), StoreError> {
    let mut connection = Connection::open(folder.join(DATABASE))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous())?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::Newer { folder: folder.to_owned(), found, known: SCHEMA_VERSION });
    }
    // A long queue would take minutes; its events are held against their digests when they are read.
    let is_large = folder.join(DATABASE).metadata().is_ok_and(|file| file.len() > FULL_CHECK_BYTES_MAX);
    let pragma = if is_large { "PRAGMA integrity_check('documents')" } else { "PRAGMA integrity_check(1)" };
    let check: String = connection.query_row(pragma, [], |row| row.get(0))?;
    if check != "ok" {
        return Err(StoreError::Damaged { folder: folder.to_owned(), what: check.replace('\n', "; ") });
    }
    migrations::migrate(&mut connection, found)?;
    let mirror = load(&connection)?;
    Ok((connection, mirror))
}

/// Sqlite's word for a damaged file or a folder it may not write, with what to do about it.
pub(crate) fn explained(folder: &Path, error: StoreError) -> StoreError {
    let StoreError::Database(rusqlite::Error::SqliteFailure(code, what)) = &error else { return error };
    let what = what.clone().unwrap_or_else(|| code.to_string());
    match code.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            StoreError::Damaged { folder: folder.to_owned(), what }
        }
        ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            StoreError::ReadOnly(folder.to_owned(), what)
        }
        _ => error,
    }
}

pub(crate) fn load(connection: &Connection) -> Result<Mirror, StoreError> {
    let mut mirror = Mirror {
        revision: connection.query_row("SELECT revision FROM history", [], |row| row.get(0))?,
        ..Mirror::default()
    };
    let mut statement = connection.prepare("SELECT key, revision, bytes, digest FROM documents")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (key, revision): (String, Revision) = (row.get(0)?, row.get(1)?);
        let (bytes, kept): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
        if digest(&key, &bytes)[..] != kept[..] {
            // Sqlite has no checksums of its own; a flipped bit inside a document is found here.
            let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            let what = format!("document {key} isn't what was written");
            return Err(rusqlite::Error::SqliteFailure(damage, Some(what)).into());
        }
        mirror.documents.insert(key, Stored { revision, bytes: bytes.into() });
    }
    Ok(mirror)
}

/// What a document's row is checked by.
pub(crate) fn digest(key: &str, bytes: &[u8]) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(bytes);
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

struct Writer {
    connection: Connection,
    queue: Queue,
    mirror: Arc<RwLock<Mirror>>,
    changed: watch::Sender<u64>,
    trouble: Arc<RwLock<Option<String>>>,
    is_failed: Arc<AtomicBool>,
    /// Set when the disk failed: from then on nothing is written, since what a failed `fsync` left is unknown
    /// and asking again would say nothing about it.
    failed: Option<String>,
    /// Held for the life of the writer.
    _lock: File,
}

/// What shares one write to disk.
#[derive(Default)]
struct Group {
    documents: Vec<crate::Commit>,
    events: Vec<queue::Commit>,
}

impl Group {
    fn len(&self) -> usize {
        self.documents.len() + self.events.len()
    }
}

struct Outcomes {
    documents: Vec<Committed>,
    events: Vec<queue::Changed>,
    queue: queue::Written,
}

impl Writer {
    fn run(mut self, requests: &Receiver<Request>) {
        let mut close = None;
        while close.is_none() {
            let Ok(first) = requests.recv() else { break };
            let mut group = Group::default();
            let mut follow = None;
            let mut next = Some(first);
            while let Some(request) = next.take() {
                match request {
                    Request::Commit(commit) => group.documents.push(commit),
                    Request::Queue(commit) => group.events.push(commit),
                    Request::FollowEvents(asked) => follow = Some(asked),
                    Request::Close(told) => close = Some(told),
                }
                if group.len() < GROUP_MAX && close.is_none() && follow.is_none() {
                    next = requests.try_recv().ok();
                }
            }
            self.write(group);
            if let Some(asked) = follow {
                // Who asked may have stopped waiting.
                let _ = asked.send(self.queue.follow(&self.connection));
            }
        }
        // The last connection writes the log of changes into the database and removes it.
        drop(self);
        // Who asked may have stopped waiting.
        let _ = close.map(|told| told.send(()));
    }

    /// One disk write for the whole group. Each transaction is judged against the ones before it; if the
    /// disk refuses, none of them happened.
    fn write(&mut self, group: Group) {
        if group.len() == 0 {
            return;
        }
        let written = match &self.failed {
            Some(text) => Err(StoreError::Failed(text.clone())),
            None => self.write_all(&group).map_err(|error| refusal(&error)),
        };
        if let Err(StoreError::Failed(text)) = &written {
            self.failed = Some(text.clone());
            self.is_failed.store(true, Ordering::Relaxed);
        }
        let trouble = written.as_ref().err().map(ToString::to_string);
        *self.trouble.write().unwrap_or_else(std::sync::PoisonError::into_inner) = trouble;
        match written {
            Ok(outcomes) => self.tell(group, outcomes),
            Err(error) => {
                let again = || match &error {
                    StoreError::Refused(text) => StoreError::Refused(text.clone()),
                    error => StoreError::Failed(error.to_string()),
                };
                // A caller that went away has nothing to lose.
                group.documents.into_iter().for_each(|(_, answer)| drop(answer.send(Err(again()))));
                group.events.into_iter().for_each(|(_, answer)| drop(answer.send(Err(again()))));
            }
        }
    }

    /// What is on disk is shown to everybody, and then answered.
    fn tell(&mut self, group: Group, outcomes: Outcomes) {
        if !group.documents.is_empty() {
            let mut mirror = self.mirror.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            for ((transaction, _), outcome) in group.documents.iter().zip(&outcomes.documents) {
                if let Committed::At(revision) = outcome {
                    mirror.apply(*revision, transaction);
                }
            }
            let revision = mirror.revision;
            drop(mirror);
            self.changed.send_replace(revision);
        }
        self.queue.tell(outcomes.queue);
        // A caller that went away does not undo what is on disk.
        for ((_, answer), outcome) in group.documents.into_iter().zip(outcomes.documents) {
            let _ = answer.send(Ok(outcome));
        }
        for ((_, answer), outcome) in group.events.into_iter().zip(outcomes.events) {
            let _ = answer.send(Ok(outcome));
        }
    }

    fn write_all(&mut self, group: &Group) -> Result<Outcomes, rusqlite::Error> {
        // Judged on a copy of the keys this group touches, so that the mirror changes only after the commit.
        let mut touched: std::collections::BTreeMap<&str, Option<u64>> = std::collections::BTreeMap::new();
        let mirror = self.mirror.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut revision = mirror.revision;
        let sql = self.connection.transaction()?;
        let mut outcomes = Outcomes { documents: Vec::new(), events: Vec::new(), queue: self.queue.begin() };
        for (transaction, _) in &group.documents {
            let holds = transaction.preconditions.iter().all(|precondition| match precondition {
                crate::Precondition::Absent(key) => match touched.get(key.as_str()) {
                    Some(state) => state.is_none(),
                    None => mirror.holds(precondition),
                },
                crate::Precondition::Unchanged(key, expected) => match touched.get(key.as_str()) {
                    Some(state) => *state == Some(*expected),
                    None => mirror.holds(precondition),
                },
            });
            if !holds {
                outcomes.documents.push(Committed::Conflict);
                continue;
            }
            revision += 1;
            apply(&sql, revision, transaction)?;
            touched.extend(transaction.puts.iter().map(|(key, _)| (key.as_str(), Some(revision))));
            touched.extend(transaction.deletes.iter().map(|key| (key.as_str(), None)));
            outcomes.documents.push(Committed::At(revision));
        }
        if revision > mirror.revision {
            sql.execute("UPDATE history SET revision = ?1", params![revision])?;
        }
        drop(mirror);
        for (change, _) in &group.events {
            let changed = self.queue.apply(&sql, &mut outcomes.queue, change)?;
            outcomes.events.push(changed);
        }
        self.queue.close(&sql, &outcomes.queue)?;
        reach("store.before-commit");
        sql.commit()?;
        reach("store.after-commit");
        Ok(outcomes)
    }
}

/// What a failed write means for those who wait for it, and for those who come after.
fn refusal(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Refused(
            "The disk of the data folder is full. Nothing was changed, and ready functions go on. Free some space; changes are then possible again".into(),
        ),
        Some(ErrorCode::ReadOnly) => StoreError::Refused(
            "The data folder can't be written any more. Nothing was changed, and ready functions go on. Make it writable; changes are then possible again".into(),
        ),
        Some(ErrorCode::TooBig) => {
            StoreError::Refused("The change is larger than the database takes. Nothing was changed".into())
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory) => {
            StoreError::Refused(format!("The change couldn't be written ({error}). Nothing was changed; try again"))
        }
        _ => StoreError::Failed(format!(
            "The disk of the data folder failed ({error}). Ready functions go on, but no change is taken any more, since none could be promised to last. Check the disk, then restart the server"
        )),
    }
}

fn apply(
    sql: &rusqlite::Transaction<'_>,
    revision: u64,
    transaction: &Transaction,
) -> Result<(), rusqlite::Error> {
    let mut put = sql.prepare_cached("INSERT OR REPLACE INTO documents VALUES (?1, ?2, ?3, ?4)")?;
    for (key, bytes) in &transaction.puts {
        put.execute(params![key, revision, &bytes[..], &digest(key, bytes)[..]])?;
    }
    let mut delete = sql.prepare_cached("DELETE FROM documents WHERE key = ?1")?;
    for key in &transaction.deletes {
        delete.execute(params![key])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::{Folder, reopen};
    use crate::{Change, Changes, Precondition};

    #[tokio::test]
    async fn what_was_committed_is_there_after_a_restart() {
        let folder = Folder::new("restart");
        let store = Store::open(&folder.0).unwrap();
        let committed = store.commit(Transaction::default().put("a/1", &7).put("a/2", &8)).await.unwrap();
        assert_eq!(committed, Committed::At(1));
        store.commit(Transaction::default().delete("a/2")).await.unwrap();
        drop(store);
        let store = reopen(&folder.0);
        assert_eq!(store.document::<i32>("a/1").unwrap(), Some((7, 1)));
        assert_eq!((store.get("a/2").is_none(), store.revision()), (true, 2));
    }

    #[tokio::test]
    async fn preconditions_hold_within_a_group_too() {
        let folder = Folder::new("group");
        let store = Store::open(&folder.0).unwrap();
        let create =
            || store.commit(Transaction::default().when(Precondition::Absent("k".into())).put("k", &1));
        let (a, b, c) = tokio::join!(create(), create(), create());
        let won = [a, b, c].into_iter().filter(|outcome| matches!(outcome, Ok(Committed::At(_)))).count();
        assert_eq!(won, 1);
        let (_, revision) = store.document::<i32>("k").unwrap().unwrap();
        let update = |from| {
            let unchanged = Precondition::Unchanged("k".into(), from);
            store.commit(Transaction::default().when(unchanged).put("k", &2))
        };
        assert!(matches!(update(revision).await, Ok(Committed::At(_))));
        assert_eq!(update(revision).await.unwrap(), Committed::Conflict);
    }

    #[tokio::test]
    async fn the_feed_is_gapless_and_says_when_it_is_not() {
        let folder = Folder::new("feed");
        let store = Store::open(&folder.0).unwrap();
        for number in 0..3 {
            store.commit(Transaction::default().put(format!("k{number}"), &number)).await.unwrap();
        }
        let change = |revision, key: &str| Change { revision, key: key.into() };
        assert_eq!(store.changes(1), Changes::Events(vec![change(2, "k1"), change(3, "k2")]));
        assert_eq!(store.changes(3), Changes::Events(vec![]));
        drop(store);
        assert_eq!(reopen(&folder.0).changes(1), Changes::Compacted(3));
    }

    #[tokio::test]
    async fn scans_go_on_after_a_key() {
        let folder = Folder::new("scan");
        let store = Store::open(&folder.0).unwrap();
        let all = ["f/a", "f/b", "f/c", "g/a"].iter().fold(Transaction::default(), |t, key| t.put(*key, &0));
        store.commit(all).await.unwrap();
        let keys = |after, limit| -> Vec<String> {
            store.scan("f/", after, limit).into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(None, 2), ["f/a", "f/b"]);
        assert_eq!(keys(Some("f/b"), 2), ["f/c"]);
    }

    #[test]
    fn a_second_server_and_a_newer_folder_are_refused() {
        let folder = Folder::new("refused");
        let store = Store::open(&folder.0).unwrap();
        assert!(matches!(Store::open(&folder.0), Err(StoreError::Locked(_))));
        drop(store);
        drop(reopen(&folder.0));
        let connection = Connection::open(folder.0.join("ondol.db")).unwrap();
        connection.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        drop(connection);
        let error = loop {
            match Store::open(&folder.0) {
                Err(StoreError::Locked(_)) => std::thread::yield_now(),
                other => break other.unwrap_err(),
            }
        };
        assert!(matches!(error, StoreError::Newer { .. }), "{error}");
    }

    fn fixture(name: &str) -> Folder {
        let folder = Folder::new(name);
        std::fs::create_dir_all(&folder.0).unwrap();
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data-folders/schema-1/ondol.db");
        std::fs::copy(kept, folder.0.join(DATABASE)).unwrap();
        folder
    }

    #[test]
    fn a_folder_of_schema_1_is_brought_up_to_date() {
        let folder = fixture("schema-1");
        let store = Store::open(&folder.0).unwrap();
        let function: serde_json::Value = store.document("function/kept").unwrap().unwrap().0;
        assert_eq!(function["configuration"]["layers"], serde_json::json!([]));
        assert_eq!(function["configuration"]["description"], "kept since schema 1");
        let version: serde_json::Value = store.document("version/kept/000000000001").unwrap().unwrap().0;
        assert_eq!(version["serving"]["configuration"]["layers"], serde_json::json!([]));
        let (documents, revision) = (store.scan("", None, usize::MAX).len(), store.revision());
        drop(store);
        let store = reopen(&folder.0);
        assert_eq!((store.scan("", None, usize::MAX).len(), store.revision()), (documents, revision));
    }

    #[tokio::test]
    async fn a_closed_store_is_one_file_and_takes_no_more() {
        let folder = Folder::new("closed");
        let store = Store::open(&folder.0).unwrap();
        store.commit(Transaction::default().put("f/a", &1)).await.unwrap();
        store.close().await;
        let late = store.commit(Transaction::default().put("f/b", &1)).await;
        assert!(matches!(late, Err(StoreError::Stopped)));
        let names: Vec<_> =
            std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains("-wal")), "{names:?}");
        assert_eq!(Store::open(&folder.0).unwrap().document::<i32>("f/a").unwrap().map(|(n, _)| n), Some(1));
    }

    #[tokio::test]
    async fn damage_is_found_at_the_start_and_named() {
        let folder = Folder::new("damaged");
        let store = Store::open(&folder.0).unwrap();
        let long = "a text to be found in the file ".repeat(200);
        store.commit(Transaction::default().put("f/a", &long)).await.unwrap();
        drop(store);
        drop(reopen(&folder.0));
        let path = folder.0.join(DATABASE);
        let whole = std::fs::read(&path).unwrap();
        let place = whole.windows(20).position(|window| window == b"a text to be found i").unwrap();
        let error_with = |place: usize, length: usize| {
            let mut bytes = whole.clone();
            bytes[place..place + length].iter_mut().for_each(|byte| *byte ^= 0x01);
            std::fs::write(&path, bytes).unwrap();
            loop {
                match Store::open(&folder.0) {
                    Err(StoreError::Locked(_)) => std::thread::yield_now(),
                    other => break other.unwrap_err(),
                }
            }
        };
        for (place, length, what) in [(place, 1, "document f/a"), (100, 4_000, ""), (0, 16, "")] {
            let error = error_with(place, length);
            assert!(matches!(&error, StoreError::Damaged { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("ondol restore") && text.contains(what), "{text}");
        }
    }

    #[tokio::test]
    async fn a_backup_holds_all_of_a_store_in_use_and_brings_it_back() {
        use crate::artifacts::Artifacts;
        use crate::backup;
        let (from, to) = (Folder::new("backup"), Folder::new("restored"));
        let store = Store::open(&from.0).unwrap();
        let artifacts = Artifacts::open(from.0.join("artifacts")).unwrap();
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        writer.start_file("f", zip::write::SimpleFileOptions::default()).unwrap();
        let package = artifacts.put(&writer.finish().unwrap().into_inner()).unwrap().sha256.clone();
        store.commit(Transaction::default().put("f/a", &package).put("f/b", &2)).await.unwrap();
        let needed = |_: &std::collections::BTreeMap<_, _>| Ok([package.clone()].into());
        let file = from.0.join("backup");
        let write = |folder: &Path, file: &Path| {
            backup::write(folder, file, "now", &needed, &[("keys", b"k".to_vec())])
        };
        let made = write(&from.0, &file).unwrap();
        assert_eq!((made.documents, made.artifacts), (2, 1));

        let other = Store::open(&to.0).unwrap();
        other.commit(Transaction::default().put("f/c", &3)).await.unwrap();
        let artifacts = Artifacts::open(to.0.join("artifacts")).unwrap();
        let checked = backup::read(&file, &artifacts).unwrap();
        assert_eq!(checked.extra["keys"], b"k");
        checked.commit(&other).await.unwrap();
        assert_eq!((other.document("f/b").unwrap(), other.get("f/c").is_none()), (Some((2, 2)), true));
        let again = write(&to.0, &to.0.join("backup")).unwrap();
        assert_eq!(again.state_sha256, made.state_sha256);

        let whole = std::fs::read(&file).unwrap();
        for place in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            std::fs::write(&file, &bytes).unwrap();
            // A bit that nothing depends on (a date in the zip's own head) may go unseen; a wrong state may not.
            if let Ok(checked) = backup::read(&file, &artifacts) {
                assert_eq!(checked.manifest.state_sha256, made.state_sha256, "byte {place}");
            }
        }
    }
}
