//! The threads that work events off, read event sources and carry schedules out.

use std::sync::Arc;

use anyhow::Result;
use ondol_core::coins::Coins;
use ondol_core::event_source::SourceReports;
use ondol_core::identity::Home;
use ondol_core::schedule::Schedule;
use ondol_events::{CarryOut, Outside, Pages, Schedules, Sources, Worker};
use ondol_identity::Authorizer;
use ondol_invoke::inner::Inner;
use ondol_observe::notice;
use ondol_services::ServiceEndpoints;
use ondol_store::Store;
use tokio::sync::{mpsc, watch};

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

/// Without its worker a server would acknowledge events for ever and run none, and without its pollers a queue would grow.
struct Guard(&'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            notice::error(&format!("{} failed; the server ends, and its next start goes on", self.0));
            std::process::exit(1);
        }
    }
}

/// A thread that the server does not go on without. `open` is held until the work is over.
fn thread(
    name: &'static str,
    what: &'static str,
    open: mpsc::Sender<()>,
    work: impl AsyncFnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _guard = Guard(what);
        let local = tokio::task::LocalSet::new();
        if let Err(error) = local.block_on(&runtime, work()) {
            notice::error(&format!("{what}: {error}"));
            std::process::exit(1);
        }
        drop(open);
    })?;
    Ok(())
}

/// Begins to work the queue off; ends when the server stops and what is under way is settled.
pub fn start_queue(parts: Parts, doors: Doors) -> Result<Pages> {
    let (pages, asked) = mpsc::channel(ASKING_MAX);
    let coins = Coins::from_seed(seed()?);
    let Doors { stopping, open } = doors;
    thread("events", "working the queue of events off", open, async move || {
        let Parts { store, inner, services, authorizer, home } = parts;
        let worker = Worker::new(store, inner, services, authorizer, home, coins);
        Ok(worker.run(asked, stopping).await?)
    })?;
    Ok(Pages(pages))
}

/// Begins to read event sources; ends when the server stops and what is under way is settled.
pub fn start_sources(
    store: Store,
    inner: Inner,
    outside: Outside,
    authorizer: Authorizer,
    doors: Doors,
) -> Result<watch::Receiver<SourceReports>> {
    let (reports, reported) = watch::channel(SourceReports::default());
    let coins = Coins::from_seed(seed()?);
    let Doors { stopping, open } = doors;
    thread("sources", "reading event sources", open, async move || {
        Sources::new(store, inner, outside, authorizer, coins, reports).run(stopping).await;
        Ok(())
    })?;
    Ok(reported)
}

/// Schedules act as if their roles had asked the API.
struct AsRole(ondol_api::Context);

impl CarryOut for AsRole {
    async fn carry_out(&self, schedule: &Schedule) -> Result<(), String> {
        ondol_api::scheduler::carry_out(&self.0, schedule).await
    }
}

/// Begins to carry schedules out; ends when the server stops and what is under way is settled.
pub fn start_schedules(context: ondol_api::Context, doors: Doors) -> Result<()> {
    let Doors { stopping, open } = doors;
    thread("schedules", "carrying schedules out", open, async move || {
        Schedules::new(context.store.clone(), AsRole(context)).run(stopping).await;
        Ok(())
    })
}
