//! From an older data folder to this build's schema, in one transaction: a crash leaves the old folder whole.
//!
//! The one place of the store that looks into documents: they must be changed before any noun of this build can
//! read them.

use ondol_failpoint::reach;
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::sqlite::digest;
use crate::{SCHEMA_VERSION, StoreError};

/// Brings the database from the schema it was written in (0 is a new one) to [`SCHEMA_VERSION`].
pub fn migrate(connection: &mut Connection, found: u32) -> Result<(), StoreError> {
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    let sql = connection.transaction()?;
    if found == 0 {
        sql.execute_batch(
            "CREATE TABLE documents (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, bytes BLOB NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
             CREATE TABLE history (id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL);
             INSERT INTO history VALUES (0, 0);",
        )?;
    }
    if found == 1 {
        // Schema 2: every row carries a digest of its document.
        sql.execute_batch("ALTER TABLE documents ADD COLUMN digest BLOB NOT NULL DEFAULT x''")?;
    }
    if found > 0 {
        let rows: Vec<(String, Vec<u8>)> = sql
            .prepare("SELECT key, bytes FROM documents")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        reach("store.during-migration");
        let mut put = sql.prepare("UPDATE documents SET bytes = ?2, digest = ?3 WHERE key = ?1")?;
        for (key, bytes) in rows {
            let bytes = document(&key, &bytes)?;
            put.execute(params![key, bytes, &digest(&key, &bytes)[..]])?;
        }
    }
    sql.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    reach("store.before-migration-commit");
    sql.commit()?;
    reach("store.after-migration-commit");
    Ok(())
}

/// One document, whatever schema its envelope says, as this build writes it. Also used for backups.
pub fn document(key: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    let unreadable = |error| StoreError::Document(key.to_owned(), error);
    let mut envelope: Value = serde_json::from_slice(bytes).map_err(unreadable)?;
    if envelope["schema"] == 1 {
        without_layers(key, &mut envelope["document"]);
        envelope["schema"] = 2.into();
    }
    serde_json::to_vec(&envelope).map_err(unreadable)
}

/// Schema 2: a configuration names its layers.
fn without_layers(key: &str, document: &mut Value) {
    let places: &[&str] = match key.split('/').next() {
        Some("function") => &["/configuration"],
        Some("version") => &["/publication/configuration", "/serving/configuration"],
        _ => &[],
    };
    for place in places {
        if let Some(Value::Object(configuration)) = document.pointer_mut(place) {
            configuration.insert("layers".into(), Value::Array(Vec::new()));
        }
    }
}
