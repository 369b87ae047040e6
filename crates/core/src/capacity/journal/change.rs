//! What changed between two pictures, and between two plans.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::capacity_provider::CapacityProvider;
use crate::function::{FunctionVersion, Publication, Reason, VersionKey};
use crate::identity::{EnvironmentId, InstanceId, PublicationId};
use crate::on_demand::Demand;
use crate::signals::{EnvironmentSignals, Traffic};
use crate::time::PolicyTime;

use super::super::{Environment, Instance, Machine, Picture, Plan, Scaling, Settings, Step};

/// Entries that are new or different, and keys that are gone; both in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "K: Deserialize<'de>, V: Deserialize<'de>"))]
pub struct MapChange<K, V> {
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<(K, V)>,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<K>,
}

impl<K, V> Default for MapChange<K, V> {
    fn default() -> Self {
        Self { put: Vec::new(), removed: Vec::new() }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> MapChange<K, V> {
    /// Walks both side by side, as most entries of most maps are the same each time.
    fn between(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> Self {
        let mut change = Self::default();
        let mut olds = before.iter().peekable();
        for (key, value) in after {
            while let Some((gone, _)) = olds.next_if(|(old, _)| *old < key) {
                change.removed.push(gone.clone());
            }
            let old = olds.next_if(|(old, _)| *old == key);
            if old.is_none_or(|(_, old)| old != value) {
                change.put.push((key.clone(), value.clone()));
            }
        }
        change.removed.extend(olds.map(|(gone, _)| gone.clone()));
        change
    }

    fn apply(self, map: &mut BTreeMap<K, V>) {
        for key in &self.removed {
            map.remove(key);
        }
        map.extend(self.put);
    }

    fn is_empty(&self) -> bool {
        self.put.is_empty() && self.removed.is_empty()
    }
}

/// What of a picture is not as it was. Small things are there whole when they changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PictureChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    #[serde(skip_serializing_if = "MapChange::is_empty")]
    pub providers: MapChange<String, CapacityProvider>,
    #[serde(skip_serializing_if = "MapChange::is_empty")]
    pub versions: MapChange<VersionKey, FunctionVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub functions_deleting: Option<BTreeSet<String>>,
    #[serde(skip_serializing_if = "MapChange::is_empty")]
    pub instances: MapChange<InstanceId, Instance>,
    #[serde(skip_serializing_if = "MapChange::is_empty")]
    pub environments: MapChange<EnvironmentId, Environment>,
    /// Of environments of which nothing else changed, as is so for most of them each second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<(EnvironmentId, EnvironmentSignals)>,
    #[serde(skip_serializing_if = "MapChange::is_empty")]
    pub traffic: MapChange<PublicationId, Traffic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demand: Option<Demand>,
    #[serde(skip_serializing_if = "MapChange::is_empty")]
    pub on_demand: MapChange<PublicationId, (VersionKey, Publication)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

impl PictureChange {
    pub fn between(before: &Picture, after: &Picture) -> Self {
        // Every field by its name, so that one more cannot be forgotten here.
        let Picture {
            region,
            settings,
            providers,
            versions,
            functions_deleting,
            instances,
            environments,
            traffic,
            demand,
            on_demand,
            machine,
        } = after;
        let mut environments = MapChange::between(&before.environments, environments);
        let mut signals = Vec::new();
        environments.put.retain(|(id, environment)| {
            let only_measured = before.environments.get(id).is_some_and(|old| {
                let Environment { version, publication, instance, need, state, signals: _ } = old;
                (version, publication, instance, need, state)
                    == (
                        &environment.version,
                        &environment.publication,
                        &environment.instance,
                        &environment.need,
                        &environment.state,
                    )
            });
            if only_measured {
                signals.push((*id, environment.signals));
            }
            !only_measured
        });
        Self {
            region: changed(&before.region, region),
            settings: changed(&before.settings, settings),
            providers: MapChange::between(&before.providers, providers),
            versions: MapChange::between(&before.versions, versions),
            functions_deleting: changed(&before.functions_deleting, functions_deleting),
            instances: MapChange::between(&before.instances, instances),
            environments,
            signals,
            traffic: MapChange::between(&before.traffic, traffic),
            demand: changed(&before.demand, demand),
            on_demand: MapChange::between(&before.on_demand, on_demand),
            machine: changed(&before.machine, machine),
        }
    }

    /// Turns the picture before into the one after.
    pub fn apply(self, picture: &mut Picture) {
        put(self.region, &mut picture.region);
        put(self.settings, &mut picture.settings);
        self.providers.apply(&mut picture.providers);
        self.versions.apply(&mut picture.versions);
        put(self.functions_deleting, &mut picture.functions_deleting);
        self.instances.apply(&mut picture.instances);
        self.environments.apply(&mut picture.environments);
        for (id, signals) in self.signals {
            if let Some(environment) = picture.environments.get_mut(&id) {
                environment.signals = signals;
            }
        }
        self.traffic.apply(&mut picture.traffic);
        put(self.demand, &mut picture.demand);
        self.on_demand.apply(&mut picture.on_demand);
        put(self.machine, &mut picture.machine);
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is to be done, and what of the rest of a plan is not as it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanChange {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<(Step, String)>,
    #[serde(skip_serializing_if = "MapChange::is_empty")]
    pub unmet: MapChange<VersionKey, Reason>,
    #[serde(skip_serializing_if = "MapChange::is_empty")]
    pub scaling: MapChange<VersionKey, Scaling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacing: Option<BTreeSet<InstanceId>>,
    pub wake_at: Option<PolicyTime>,
}

impl PlanChange {
    pub fn between(before: &Plan, after: &Plan) -> Self {
        let Plan { steps, unmet, scaling, replacing, wake_at } = after;
        Self {
            steps: steps.clone(),
            unmet: MapChange::between(&before.unmet, unmet),
            scaling: MapChange::between(&before.scaling, scaling),
            replacing: changed(&before.replacing, replacing),
            wake_at: *wake_at,
        }
    }
}

fn changed<T: PartialEq + Clone>(before: &T, after: &T) -> Option<T> {
    (before != after).then(|| after.clone())
}

fn put<T>(new: Option<T>, place: &mut T) {
    if let Some(new) = new {
        *place = new;
    }
}
