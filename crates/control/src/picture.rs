//! One consistent look at everything the planner needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ondol_core::capacity::{Environment, Machine, Picture, Settings};
use ondol_core::function::{FunctionVersion, Publication, VersionKey};
use ondol_core::identity::{EnvironmentId, Home, LATEST, PublicationId};
use ondol_core::on_demand::Demand;
use ondol_core::signals::Traffic;

use crate::documents::{Documents, Kind};

/// What the binary knows of its machine.
pub type MachineFacts = Machine;

/// What is seen beside the documents.
pub struct Seen {
    pub environments: BTreeMap<EnvironmentId, Environment>,
    pub demand: Demand,
    pub machine: Machine,
    pub traffic: BTreeMap<PublicationId, Traffic>,
}

/// Versions that run on demand have no part in it but what is asked for.
pub fn take(documents: &Documents, home: &Home, settings: Settings, seen: Seen) -> Picture {
    let Seen { environments, demand, machine, traffic } = seen;
    let asked: BTreeSet<PublicationId> = demand
        .waiting
        .keys()
        .copied()
        .chain(environments.values().map(|environment| environment.publication))
        .collect();
    let on_demand = if asked.is_empty() { BTreeMap::new() } else { on_demand(&asked, documents) };
    let managed = |version: &&Arc<FunctionVersion>| !version.publication.configuration.is_on_demand();
    let owned = |version: &Arc<FunctionVersion>| (version.key(), FunctionVersion::clone(version));
    Picture {
        region: home.region.clone(),
        settings,
        traffic,
        providers: own(&documents.providers, |provider| provider.name.clone()),
        versions: documents.versions.values().filter(managed).map(owned).collect(),
        functions_deleting: documents.deleting.clone(),
        instances: own(&documents.instances, |instance| instance.id.clone()),
        environments,
        demand,
        on_demand,
        machine,
    }
}

fn own<T: Clone, K: Ord>(kind: &Kind<T>, key: impl Fn(&T) -> K) -> BTreeMap<K, T> {
    kind.values().map(|document| (key(document), T::clone(document))).collect()
}

/// Those of Lambda (default) functions among these publications, as far as they are still what is to run.
fn on_demand(
    asked: &BTreeSet<PublicationId>,
    documents: &Documents,
) -> BTreeMap<PublicationId, (VersionKey, Publication)> {
    let latest = documents.functions.values().filter(|function| !function.deleting).filter_map(|function| {
        let id = function.latest_publication.filter(|id| asked.contains(id))?;
        let key = VersionKey { function: function.name.clone(), version: LATEST.into() };
        Some((id, (key, function.publication()?)))
    });
    let published = documents
        .versions
        .values()
        .filter(|version| asked.contains(&version.publication.id))
        .filter(|version| version.publication.configuration.is_on_demand())
        .map(|version| (version.publication.id, (version.key(), version.publication.clone())));
    latest.chain(published).collect()
}
