//! The thread that works events off.

use std::sync::Arc;

use anyhow::Result;
use ondol_core::coins::Coins;
use ondol_core::identity::Home;
use ondol_events::{Pages, Worker};
use ondol_identity::Authorizer;
use ondol_invoke::inner::Inner;
use ondol_observe::notice;
use ondol_services::ServiceEndpoints;
use ondol_store::Store;
use tokio::sync::mpsc;

use crate::shards::{Doors, seed};

/// Questions that may wait for an answer.
const ASKING_MAX: usize = 64;

pub struct Parts {
    pub store: Store,
    pub inner: Inner,
    pub services: Arc<ServiceEndpoints>,
    pub authorizer: Authorizer,
    pub home: Home,
}

/// Without its worker a server would acknowledge events for ever and run none.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            notice::error(
                "working the queue of events off failed; the server ends, and its next start goes on",
            );
            std::process::exit(1);
        }
    }
}

/// Begins to work the queue off; ends when the server stops and what is under way is settled.
pub fn start(parts: Parts, doors: Doors) -> Result<Pages> {
    let (pages, asked) = mpsc::channel(ASKING_MAX);
    let coins = Coins::from_seed(seed()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("events".into()).spawn(move || {
        let _guard = Guard;
        let Parts { store, inner, services, authorizer, home } = parts;
        let Doors { stopping, open } = doors;
        let worker = Worker::new(store, inner, services, authorizer, home, coins);
        let local = tokio::task::LocalSet::new();
        if let Err(error) = local.block_on(&runtime, worker.run(asked, stopping)) {
            notice::error(&format!("working the queue of events off: {error}"));
            std::process::exit(1);
        }
        drop(open);
    })?;
    Ok(Pages(pages))
}
