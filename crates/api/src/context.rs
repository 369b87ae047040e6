//! What every operation works with.

use std::sync::Arc;

use ondol_core::identity::{Home, PublicationId};
use ondol_failpoint::reach;
use ondol_observe::clock;
use ondol_store::artifacts::Artifacts;
use ondol_store::{Committed, Revision, Store, StoreError, Transaction};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE;
use serde::de::DeserializeOwned;

/// Tries of a change whose document changed under it.
const ATTEMPTS_MAX: usize = 20;

#[derive(Debug, Clone)]
pub struct Context {
    pub store: Store,
    pub artifacts: Artifacts,
    pub home: Home,
    /// One change at a time, so that a check and the write it allows see the same world. Held for the
    /// time of one commit, never while a package is unpacked.
    pub changes: Arc<tokio::sync::Mutex<()>>,
}

impl Context {
    pub fn new(store: Store, artifacts: Artifacts, home: Home) -> Self {
        Self { store, artifacts, home, changes: Arc::default() }
    }

    pub fn now_epoch_millis(&self) -> i64 {
        clock::epoch_millis()
    }

    pub fn document<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, Revision)>, Fault> {
        self.store.document(key).map_err(|error| broken(&error))
    }

    pub fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, Fault> {
        self.store.all(prefix).map_err(|error| broken(&error))
    }

    /// Builds a transaction from what is there and commits it; again if the control loops were faster.
    pub async fn change<T>(
        &self,
        mut build: impl FnMut() -> Result<(Transaction, T), Fault>,
    ) -> Result<T, Fault> {
        let _one = self.changes.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let (transaction, result) = build()?;
            reach("api.before-commit");
            match self.store.commit(transaction).await.map_err(|error| broken(&error))? {
                Committed::At(_) => {
                    reach("api.after-commit");
                    return Ok(result);
                }
                Committed::Conflict => {}
            }
        }
        Err(Fault::of(&SERVICE, "ServiceException", "The resource changes too fast; try again."))
    }
}

/// A random UUID, as revision ids are.
pub fn uuid() -> String {
    ondol_core::identity::RequestId::from_random(random(), random()).uuid()
}

pub fn publication_id() -> PublicationId {
    PublicationId(u128::from(random()) << 64 | u128::from(random()))
}

fn random() -> u64 {
    // The system's generator does not fail on any Linux this runs on; an id of zeros would collide and be seen.
    getrandom::u64().unwrap_or_default()
}

fn broken(error: &StoreError) -> Fault {
    Fault::of(&SERVICE, "ServiceException", format!("The change couldn't be stored: {error}"))
}
