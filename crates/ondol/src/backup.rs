//! `ondol backup` and `ondol restore`, beside a running server or without one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ondol_store::artifacts::Artifacts;
use ondol_store::backup::{self, Manifest};
use ondol_store::{Store, StoreError};

use crate::{access_keys, admin, documents};

/// The file of access keys, as it is named in a backup.
const KEYS: &str = "access-keys.json";

pub fn write(data_dir: &Path, file: &Path) -> Result<Manifest> {
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
    let store = match Store::open(data_dir) {
        Err(StoreError::Damaged { what, .. }) => {
            set_aside(data_dir).with_context(|| format!("setting the damaged database aside ({what})"))?;
            Store::open(data_dir)?
        }
        opened => opened?,
    };
    let artifacts = Artifacts::open(data_dir.join("artifacts"))?;
    let restorer = Restorer { store, artifacts, data_dir: data_dir.to_owned() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(restorer.restore(file.to_owned()))
}

/// Keeps a damaged database under another name: what can be read of it may still be wanted.
fn set_aside(data_dir: &Path) -> Result<()> {
    let stamp = ondol_wire::time::amz_date(ondol_observe::clock::epoch_millis() / 1_000);
    for name in ["ondol.db", "ondol.db-wal", "ondol.db-shm"] {
        let path = data_dir.join(name);
        if path.exists() {
            std::fs::rename(&path, data_dir.join(format!("{name}.damaged-{stamp}")))?;
        }
    }
    Ok(())
}

/// Puts a backup in the place of what a store holds.
#[derive(Debug, Clone)]
pub struct Restorer {
    pub store: Store,
    pub artifacts: Artifacts,
    pub data_dir: PathBuf,
}

impl Restorer {
    pub async fn restore(&self, file: PathBuf) -> Result<Manifest> {
        let artifacts = self.artifacts.clone();
        let checked = tokio::task::spawn_blocking(move || backup::read(&file, &artifacts)).await??;
        // Keys first: a restore that ends here can be made again, and loses no key that works.
        if let Some(bytes) = checked.extra.get(KEYS) {
            access_keys::replace(&self.data_dir, bytes)?;
        }
        checked.commit(&self.store).await?;
        Ok(checked.manifest.clone())
    }
}
