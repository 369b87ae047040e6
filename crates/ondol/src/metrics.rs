//! `/_ondol/metrics`: everything that is counted and measured, as Prometheus reads it. AWS's metrics under their names,
//! and beside them how the server itself does.

mod capacity;
mod functions;
mod own;
mod token;

use std::collections::BTreeMap;

use ondol_core::capacity::Instance;
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::function::{Function, FunctionVersion, VersionKey};
use ondol_observe::metrics::exposition::Exposition;
use ondol_store::{StoreError, keys};

use crate::pages::ServerPages;

pub use token::Token;

/// The documents metrics are about.
struct Documents {
    providers: Vec<CapacityProvider>,
    instances: Vec<Instance>,
    functions: Vec<Function>,
    versions: BTreeMap<VersionKey, FunctionVersion>,
}

pub async fn page(pages: ServerPages) -> Result<String, String> {
    // Without it there are no metrics of events, and all others.
    let queue = pages.queue.page(None).await.unwrap_or_default();
    // It reads every document.
    let made = tokio::task::spawn_blocking(move || {
        let documents = documents(&pages).map_err(|error| error.to_string())?;
        let mut exposition = Exposition::default();
        capacity::write(&mut exposition, &pages, &documents);
        functions::write(&mut exposition, &pages, &documents, &queue);
        own::write(&mut exposition, &pages, &documents, &queue);
        Ok(exposition.into_text())
    });
    made.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn documents(pages: &ServerPages) -> Result<Documents, StoreError> {
    let store = &pages.store;
    let versions: Vec<FunctionVersion> = store.all(keys::VERSIONS)?;
    Ok(Documents {
        providers: store.all(keys::CAPACITY_PROVIDERS)?,
        instances: store.all(keys::INSTANCES)?,
        functions: store.all(keys::FUNCTIONS)?,
        versions: versions.into_iter().map(|version| (version.key(), version)).collect(),
    })
}

/// Counts as Prometheus has them: exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
fn number(count: u64) -> f64 {
    count as f64
}

/// A part in percent; 0 of nothing.
fn percent(used: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { number(used) * 100.0 / number(of) }
}
