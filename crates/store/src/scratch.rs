//! A data folder for one test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Store, StoreError};

pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ondol-store-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
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
pub fn reopen(folder: &Path) -> Store {
    loop {
        match Store::open(folder) {
            Err(StoreError::Locked(_)) => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}
