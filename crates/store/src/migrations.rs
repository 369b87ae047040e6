//! From an older data folder to this build's schema, in one transaction: a crash leaves the old folder whole.
//!
//! The one place of the store that looks into documents: they must be changed before any noun of this build can
//! read them.

use ondol_failpoint::reach;
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

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
    if found < 4 {
        // Schema 4: there is a queue.
        sql.execute_batch(crate::queue::TABLES)?;
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
    if envelope["schema"] == 2 {
        on_demand_too(key, &mut envelope["document"]);
        envelope["schema"] = 3.into();
    }
    if envelope["schema"] == 3 {
        envelope["schema"] = 4.into();
    }
    serde_json::to_vec(&envelope).map_err(unreadable)
}

/// Schema 2: a configuration names its layers.
fn without_layers(key: &str, document: &mut Value) {
    for configuration in configurations(key, document) {
        configuration.insert("layers".into(), Value::Array(Vec::new()));
    }
}

/// Schema 3: there are functions without a capacity provider. Logs have a format, and an environment that nobody
/// set is absent.
fn on_demand_too(key: &str, document: &mut Value) {
    for configuration in configurations(key, document) {
        if configuration.get("environment").and_then(Value::as_object).is_some_and(Map::is_empty) {
            configuration.insert("environment".into(), Value::Null);
        }
        if let Some(Value::Object(logging)) = configuration.get_mut("logging") {
            let levels = json!({
                "application_level": logging.remove("application_log_level"),
                "system_level": logging.remove("system_log_level"),
            });
            logging.insert("format".into(), json!({"JSON": levels}));
        }
    }
}

/// The configurations a document holds.
fn configurations<'a>(key: &str, document: &'a mut Value) -> Vec<&'a mut Map<String, Value>> {
    let places: &[&[&str]] = match key.split('/').next() {
        Some("function") => &[&[]],
        Some("version") => &[&["publication"], &["serving"]],
        _ => &[],
    };
    let Value::Object(members) = document else { return Vec::new() };
    members
        .iter_mut()
        .filter_map(|(name, value)| match value {
            Value::Object(_) if places.iter().any(|place| *place == [name.as_str()]) => {
                value.get_mut("configuration")
            }
            _ if name == "configuration" && places.iter().any(|place| place.is_empty()) => Some(value),
            _ => None,
        })
        .filter_map(Value::as_object_mut)
        .collect()
}
