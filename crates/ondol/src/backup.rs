//! `ondol backup` and `ondol restore`, beside a running server or without one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use ondol_store::artifacts::Artifacts;
use ondol_store::backup::{self, Manifest};
use ondol_store::{Store, StoreError, Turns};

use crate::{access_keys, admin, documents, server};

/// Where a database is restored while a damaged one is still in its place; a left-over of a crash is nothing.
pub const BESIDE: &str = "restoring";
/// The file of access keys, as it is named in a backup.
const KEYS: &str = "access-keys.json";

pub fn write(data_dir: &Path, file: &Path) -> Result<Manifest> {
    // Every package is open at the same time, so that none goes away meanwhile.
    server::raise_open_files();
    if !data_dir.join("ondol.db").exists() {
        bail!("{} holds no data of Ondol; give the server's folder with --data-dir", data_dir.display());
    }
    let now = ondol_wire::time::iso_8601_millis(ondol_observe::clock::epoch_millis());
    let keys: Vec<(&str, Vec<u8>)> =
        access_keys::bytes(data_dir)?.into_iter().map(|bytes| (KEYS, bytes)).collect();
    Ok(backup::write(data_dir, file, &now, &documents::packages, &keys)?)
}

/// Restores through the server that uses the folder, or into the folder itself.
pub fn restore(data_dir: &Path, file: &Path) -> Result<Manifest> {
    if let Some(manifest) = admin::restore(data_dir, file)? {
        return Ok(manifest);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let restorer = |store| -> Result<Restorer> {
        let artifacts = Artifacts::open(data_dir.join("artifacts"))?;
        Ok(Restorer { store, artifacts, data_dir: data_dir.to_owned(), turns: Arc::default() })
    };
    match Store::open(data_dir) {
        Err(StoreError::Damaged { .. }) => {}
        opened => return runtime.block_on(restorer(opened?)?.restore(file.to_owned())),
    }
    // The damaged database stays in its place until another is whole beside it.
    let _lock = Store::lock(data_dir)?;
    let beside = data_dir.join(BESIDE);
    let _ = std::fs::remove_dir_all(&beside);
    let restorer = restorer(Store::open(&beside)?)?;
    let manifest = runtime.block_on(async {
        let restored = restorer.restore(file.to_owned()).await;
        restorer.store.close().await;
        restored
    })?;
    exchange(data_dir, &beside).context("putting the restored database in place")?;
    let _ = std::fs::remove_dir_all(&beside);
    Ok(manifest)
}

/// Puts a new database in the place of a damaged one, which is kept: what can be read of it may still be wanted.
/// A crash leaves the damaged one, which no server starts with, or the new one.
fn exchange(data_dir: &Path, beside: &Path) -> std::io::Result<()> {
    let stamp = ondol_wire::time::amz_date(ondol_observe::clock::epoch_millis() / 1_000);
    let (database, kept) = (data_dir.join("ondol.db"), format!("damaged-{stamp}"));
    std::fs::hard_link(&database, data_dir.join(format!("ondol.db.{kept}")))?;
    for name in ["ondol.db-wal", "ondol.db-shm"] {
        let path = data_dir.join(name);
        if path.exists() {
            std::fs::rename(&path, data_dir.join(format!("{name}.{kept}")))?;
        }
    }
    std::fs::rename(beside.join("ondol.db"), &database)?;
    std::fs::File::open(data_dir)?.sync_all()
}

/// Puts a backup in the place of what a store holds.
#[derive(Debug, Clone)]
pub struct Restorer {
    pub store: Store,
    pub artifacts: Artifacts,
    pub data_dir: PathBuf,
    /// Held by whoever changes documents by the API.
    pub turns: Arc<Turns>,
}

impl Restorer {
    pub async fn restore(&self, file: PathBuf) -> Result<Manifest> {
        let artifacts = self.artifacts.clone();
        let checked = tokio::task::spawn_blocking(move || backup::read(&file, &artifacts)).await??;
        {
            let _turn = self.turns.alone().await;
            checked.commit(&self.store).await?;
        }
        // After the documents: a restore that was refused takes no key that works.
        if let Some(bytes) = checked.extra.get(KEYS) {
            access_keys::replace(&self.data_dir, bytes)?;
        }
        Ok(checked.manifest.clone())
    }
}
