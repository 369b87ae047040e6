//! One consistent look at everything the planner needs.

use std::collections::{BTreeMap, BTreeSet};

use ondol_core::capacity::{Environment, Instance, Machine, Picture};
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::function::{Function, FunctionVersion, Publication, VersionKey};
use ondol_core::identity::{EnvironmentId, Home, LATEST, PublicationId};
use ondol_core::on_demand::Demand;
use ondol_store::{Store, StoreError, keys};

/// What the binary knows of its machine.
pub type MachineFacts = Machine;

pub fn take(
    store: &Store,
    home: &Home,
    environments: BTreeMap<EnvironmentId, Environment>,
    demand: Demand,
    machine: Machine,
) -> Result<Picture, StoreError> {
    let providers: Vec<CapacityProvider> = store.all(keys::CAPACITY_PROVIDERS)?;
    let versions: Vec<FunctionVersion> = store.all(keys::VERSIONS)?;
    let functions: Vec<Function> = store.all(keys::FUNCTIONS)?;
    let instances: Vec<Instance> = store.all(keys::INSTANCES)?;
    let asked: BTreeSet<PublicationId> = demand
        .waiting
        .keys()
        .copied()
        .chain(environments.values().map(|environment| environment.publication))
        .collect();
    let on_demand = if asked.is_empty() { BTreeMap::new() } else { on_demand(&asked, &functions, &versions) };
    Ok(Picture {
        region: home.region.clone(),
        providers: providers.into_iter().map(|provider| (provider.name.clone(), provider)).collect(),
        versions: versions.into_iter().map(|version| (version.key(), version)).collect(),
        functions_deleting: functions
            .into_iter()
            .filter(|function| function.deleting)
            .map(|function| function.name)
            .collect::<BTreeSet<_>>(),
        instances: instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect(),
        environments,
        demand,
        on_demand,
        machine,
    })
}

/// Those of Lambda (default) functions among these publications, as far as they are still what is to run.
fn on_demand(
    asked: &BTreeSet<PublicationId>,
    functions: &[Function],
    versions: &[FunctionVersion],
) -> BTreeMap<PublicationId, (VersionKey, Publication)> {
    let latest = functions.iter().filter(|function| !function.deleting).filter_map(|function| {
        let id = function.latest_publication.filter(|id| asked.contains(id))?;
        let key = VersionKey { function: function.name.clone(), version: LATEST.into() };
        Some((id, (key, function.publication()?)))
    });
    let published = versions
        .iter()
        .filter(|version| asked.contains(&version.publication.id))
        .filter(|version| version.publication.configuration.is_on_demand())
        .map(|version| (version.publication.id, (version.key(), version.publication.clone())));
    latest.chain(published).collect()
}
