//! One consistent look at everything the planner needs.

use std::collections::{BTreeMap, BTreeSet};

use ondol_core::capacity::{Environment, Instance, Machine, Picture};
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::function::{Function, FunctionVersion};
use ondol_core::identity::{EnvironmentId, Home};
use ondol_store::{Store, StoreError, keys};

/// What the binary knows of its machine.
pub type MachineFacts = Machine;

pub fn take(
    store: &Store,
    home: &Home,
    environments: BTreeMap<EnvironmentId, Environment>,
    machine: Machine,
) -> Result<Picture, StoreError> {
    let providers: Vec<CapacityProvider> = store.all(keys::CAPACITY_PROVIDERS)?;
    let versions: Vec<FunctionVersion> = store.all(keys::VERSIONS)?;
    let functions: Vec<Function> = store.all(keys::FUNCTIONS)?;
    let instances: Vec<Instance> = store.all(keys::INSTANCES)?;
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
        machine,
    })
}
