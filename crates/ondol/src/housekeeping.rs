//! What is done beside everything else: counting usage, letting go of packages nobody needs.

use std::sync::Arc;
use std::time::Duration;

use ondol_observe::notice;
use ondol_observe::usage::UsageBook;
use ondol_protocol::assignment::Assignment;
use ondol_store::Store;
use ondol_store::artifacts::Artifacts;
use tokio::sync::watch;

use crate::documents;

const COLLECT_USAGE: Duration = Duration::from_millis(250);
/// Packages that may have become unneeded are looked at soon after the start, for what a crash left, and then this
/// long after a change.
const COLLECT_AT_START: Duration = Duration::from_secs(1);
const COLLECT_PACKAGES: Duration = Duration::from_secs(20);

pub async fn collect_usage(book: Arc<UsageBook>) {
    let mut tick = tokio::time::interval(COLLECT_USAGE);
    loop {
        tick.tick().await;
        book.collect();
    }
}

/// Makes sure that every package a document needs is there and unpacked, as a crash may have left it half-way.
/// What cannot be mended is said now, and again by the version that needs it.
pub fn require_packages(store: &Store, artifacts: &Artifacts) {
    match documents::packages(&store.documents()) {
        Ok(needed) => {
            for sha256 in needed {
                if let Err(error) = artifacts.require(&sha256) {
                    notice::error(&format!(
                        "the package {sha256} is needed by a function and can't be used: {error}; upload it again, or restore a backup"
                    ));
                }
            }
        }
        Err(error) => notice::error(&format!("{error}; packages aren't checked")),
    }
}

/// Removes packages once no document and no running environment needs them.
pub async fn collect_packages(
    store: Store,
    artifacts: Artifacts,
    assignments: watch::Receiver<Arc<Assignment>>,
) {
    let (mut changed, mut assigned) = (store.watch(), assignments.clone());
    let mut wait = COLLECT_AT_START;
    loop {
        tokio::time::sleep(wait).await;
        wait = COLLECT_PACKAGES;
        changed.mark_unchanged();
        assigned.mark_unchanged();
        let (store, kept, assignments) = (store.clone(), artifacts.clone(), assignments.clone());
        let removal = tokio::task::spawn_blocking(move || {
            kept.remove_unneeded(|| {
                // After a write of unknown outcome the documents in memory may not be those on the disk.
                let known = !store.is_failed();
                known.then(|| documents::packages_in_use(&store, &assignments.borrow()).ok())?
            })
        });
        // A removal that failed is tried again after the next change.
        let _ = removal.await;
        tokio::select! {
            ended = changed.changed() => if ended.is_err() { return },
            ended = assigned.changed() => if ended.is_err() { return },
            () = artifacts.let_go() => {}
        }
    }
}
