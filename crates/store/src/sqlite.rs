//! The embedded engine: SQLite in WAL mode with `synchronous=FULL`, one writer thread, group commit.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, RwLock};

use rusqlite::{Connection, params};
use tokio::sync::watch;

use crate::{Committed, Mirror, Request, SCHEMA_VERSION, Store, StoreError, Stored, Transaction};

/// Transactions that share one write to disk at most.
const GROUP_MAX: usize = 256;

pub fn open(folder: &Path) -> Result<Store, StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    let in_folder = |error| StoreError::Folder(folder.to_owned(), error);
    std::fs::create_dir_all(folder).map_err(in_folder)?;
    // The folder holds code and secrets: for its owner only.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(in_folder)?;
    let lock = File::create(folder.join("lock")).map_err(in_folder)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(folder.to_owned())),
        Err(TryLockError::Error(error)) => return Err(in_folder(error)),
    }
    let connection = Connection::open(folder.join("ondol.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::Newer { folder: folder.to_owned(), found, known: SCHEMA_VERSION });
    }
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS documents (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, bytes BLOB NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS history (id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL);
         INSERT OR IGNORE INTO history VALUES (0, 0);",
    )?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    let mirror = Arc::new(RwLock::new(load(&connection)?));
    let revision = mirror.read().map(|mirror| mirror.revision).unwrap_or_default();
    let (requests, received) = channel();
    let (changed_sender, changed) = watch::channel(revision);
    let writer = Writer { connection, mirror: Arc::clone(&mirror), changed: changed_sender, _lock: lock };
    std::thread::Builder::new()
        .name("store".into())
        .spawn(move || writer.run(&received))
        .map_err(in_folder)?;
    Ok(Store { mirror, requests, changed })
}

fn load(connection: &Connection) -> Result<Mirror, StoreError> {
    let mut mirror = Mirror {
        revision: connection.query_row("SELECT revision FROM history", [], |row| row.get(0))?,
        ..Mirror::default()
    };
    let mut statement = connection.prepare("SELECT key, revision, bytes FROM documents")?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?)))?;
    for row in rows {
        let (key, revision, bytes) = row?;
        mirror.documents.insert(key, Stored { revision, bytes: bytes.into() });
    }
    Ok(mirror)
}

struct Writer {
    connection: Connection,
    mirror: Arc<RwLock<Mirror>>,
    changed: watch::Sender<u64>,
    /// Held for the life of the writer.
    _lock: File,
}

impl Writer {
    fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX {
                match requests.try_recv() {
                    Ok(next) => group.push(next),
                    Err(_) => break,
                }
            }
            self.write(group);
        }
    }

    /// One disk write for the whole group. Each transaction is judged against the ones before it; if the
    /// disk refuses, none of them happened.
    fn write(&mut self, group: Vec<Request>) {
        let mut outcomes = Vec::with_capacity(group.len());
        let written = self.write_all(&group, &mut outcomes);
        if written.is_ok() {
            let mut mirror = self.mirror.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            for ((transaction, _), outcome) in group.iter().zip(&outcomes) {
                if let Committed::At(revision) = outcome {
                    mirror.apply(*revision, transaction);
                }
            }
            let revision = mirror.revision;
            drop(mirror);
            self.changed.send_replace(revision);
        }
        let failure = written.err().map(|error| error.to_string());
        for ((_, answer), outcome) in
            group.into_iter().zip(outcomes.into_iter().map(Some).chain(std::iter::repeat(None)))
        {
            let result = match (&failure, outcome) {
                (None, Some(outcome)) => Ok(outcome),
                (failure, _) => Err(StoreError::Database(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR),
                    failure.clone(),
                ))),
            };
            // A caller that went away does not undo what is on disk.
            let _ = answer.send(result);
        }
    }

    fn write_all(&mut self, group: &[Request], outcomes: &mut Vec<Committed>) -> Result<(), rusqlite::Error> {
        // Judged on a copy of the keys this group touches, so that the mirror changes only after the commit.
        let mut touched: std::collections::BTreeMap<&str, Option<u64>> = std::collections::BTreeMap::new();
        let mirror = self.mirror.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut revision = mirror.revision;
        let sql = self.connection.transaction()?;
        for (transaction, _) in group {
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
                outcomes.push(Committed::Conflict);
                continue;
            }
            revision += 1;
            apply(&sql, revision, transaction)?;
            touched.extend(transaction.puts.iter().map(|(key, _)| (key.as_str(), Some(revision))));
            touched.extend(transaction.deletes.iter().map(|key| (key.as_str(), None)));
            outcomes.push(Committed::At(revision));
        }
        sql.execute("UPDATE history SET revision = ?1", params![revision])?;
        drop(mirror);
        sql.commit()
    }
}

fn apply(
    sql: &rusqlite::Transaction<'_>,
    revision: u64,
    transaction: &Transaction,
) -> Result<(), rusqlite::Error> {
    let mut put = sql.prepare_cached("INSERT OR REPLACE INTO documents VALUES (?1, ?2, ?3)")?;
    for (key, bytes) in &transaction.puts {
        put.execute(params![key, revision, &bytes[..]])?;
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
    use crate::{Change, Changes, Precondition};

    struct Folder(std::path::PathBuf);
    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ondol-store-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Self(path)
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// The writer thread lets the lock go after the last handle; wait for that, not for a time.
    fn reopen(folder: &Path) -> Store {
        loop {
            match Store::open(folder) {
                Err(StoreError::Locked(_)) => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        }
    }

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
}
