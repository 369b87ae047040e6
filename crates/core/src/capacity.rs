//! The capacity planner: one picture of what is wanted and what there is, in; what to do next and why, out.
//!
//! It is level-triggered: it never counts on an earlier plan having been carried out, so that it may run
//! after any event, any number of times, and after a restart with an empty [`Memory`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::capacity_provider::{CapacityProvider, ProviderState, availability_zones};
use crate::coins::Coins;
use crate::function::{
    Architecture, FunctionConfiguration, FunctionVersion, LastUpdate, Publication, Reason, VersionKey,
    VersionState,
};
use crate::identity::{EnvironmentId, InstanceId, PublicationId};
use crate::instance_type::by_name;
use crate::on_demand::{Demand, Whom};
use crate::place::{Need, OVERHEAD_MEMORY_MIB, OVERHEAD_VCPUS, Score, choose_type};
use crate::time::PolicyTime;

/// Failed starts after which a version that never ran is `Failed`.
pub const START_FAILURES_MAX: u32 = 3;
const BACK_OFF_SECONDS_MAX: u64 = 300;
/// Starts that went well for this long after the last failure wipe the failures out.
const FORGIVE_SECONDS: u64 = 60;
/// What could not be done is tried again this soon, whatever else happens.
const RETRY_SECONDS: u64 = 5;
/// An instance with no environment ends after this long. AWS: "typically within a few minutes".
pub const EMPTY_INSTANCE_SECONDS: u64 = 120;

/// An instance as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub capacity_provider: String,
    pub instance_type: String,
    pub availability_zone: String,
    pub subnet_id: String,
    pub launched_at: PolicyTime,
}

/// An execution environment as assigned and as its agent last reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub version: VersionKey,
    pub publication: PublicationId,
    pub instance: InstanceId,
    pub need: Need,
    pub state: EnvironmentState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentState {
    Starting,
    Ready,
    Draining,
    /// Over. `settled` tells one that had served for a while, or was told to end, from a failed start.
    Ended {
        reason: Reason,
        settled: bool,
    },
}

/// The machine the instances are shares of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub architecture: Architecture,
    /// Run functions of the other architecture too; only code without native parts works.
    pub any_architecture: bool,
    /// What the default pool may promise to its environments.
    pub on_demand_memory_mib: u64,
    pub installed_runtimes: BTreeSet<String>,
}

#[derive(Debug, Clone)]
pub struct Picture {
    pub region: String,
    pub providers: BTreeMap<String, CapacityProvider>,
    pub versions: BTreeMap<VersionKey, FunctionVersion>,
    /// Functions whose deletion was asked for.
    pub functions_deleting: BTreeSet<String>,
    pub instances: BTreeMap<InstanceId, Instance>,
    pub environments: BTreeMap<EnvironmentId, Environment>,
    /// What Lambda (default) functions want now.
    pub demand: Demand,
    /// Publications of Lambda (default) functions that are demanded or run, as far as they are still current.
    pub on_demand: BTreeMap<PublicationId, (VersionKey, Publication)>,
    pub machine: Machine,
}

/// What the planner remembers between two decisions. Losing it costs a back-off, nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    failures: BTreeMap<PublicationId, Failures>,
    empty_since: BTreeMap<InstanceId, PolicyTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Failures {
    count: u32,
    retry_at: PolicyTime,
    last: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    ActivateProvider {
        name: String,
    },
    RemoveProvider {
        name: String,
    },
    LaunchInstance(Instance),
    TerminateInstance {
        id: InstanceId,
    },
    StartEnvironment {
        id: EnvironmentId,
        environment: Environment,
    },
    DrainEnvironment {
        id: EnvironmentId,
    },
    /// It is over and needs no place in the assignment any more.
    ForgetEnvironment {
        id: EnvironmentId,
    },
    SetVersion {
        key: VersionKey,
        publication: PublicationId,
        change: VersionChange,
    },
    RemoveVersion {
        key: VersionKey,
    },
    RemoveFunction {
        name: String,
    },
    /// Invocations of a Lambda (default) function that wait are answered without an environment.
    Refuse {
        publication: PublicationId,
        reason: Reason,
        whom: Whom,
    },
    /// Idle environments of Lambda (default) functions make room for others.
    Retire {
        environments: Vec<EnvironmentId>,
    },
}

/// The code of a refusal because the default pool is full.
pub const NO_ROOM: &str = "InsufficientCapacity";
/// The code of a refusal because what was asked for has been replaced; whoever asked may look again.
pub const REPLACED: &str = "PublicationReplaced";

/// The default pool, where Lambda (default) functions run: the machine itself.
pub fn default_pool() -> InstanceId {
    InstanceId("default-pool".into())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionChange {
    /// The publication takes over; the version is Active, with its scaling config in effect.
    Activate,
    /// As many environments run as the scaling config asks for.
    ApplyScaling,
    Fail(Reason),
    /// A roll-over failed; what served goes on serving.
    FailUpdate(Reason),
    Deactivate,
    Reactivate,
    Deactivated,
}

/// What to do now, in this order, and what is not as asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<(Step, String)>,
    /// Why a version has less than it should; gone when it has.
    pub unmet: BTreeMap<VersionKey, Reason>,
    /// When to decide again even if nothing happens.
    pub wake_at: Option<PolicyTime>,
}

pub fn decide(picture: Picture, memory: Memory, now: PolicyTime, coins: &mut Coins) -> (Plan, Memory) {
    let mut planner = Planner { picture, memory, now, coins, plan: Plan::default() };
    planner.providers();
    planner.ended_environments();
    let keys: Vec<VersionKey> = planner.picture.versions.keys().cloned().collect();
    for key in &keys {
        planner.version(key);
    }
    planner.orphans();
    planner.on_demand();
    planner.empty_instances();
    planner.removals();
    planner.forget();
    (planner.plan, planner.memory)
}

struct Planner<'a> {
    picture: Picture,
    memory: Memory,
    now: PolicyTime,
    coins: &'a mut Coins,
    plan: Plan,
}

impl Planner<'_> {
    fn step(&mut self, step: Step, why: impl Into<String>) {
        self.plan.steps.push((step, why.into()));
    }

    fn wake_at(&mut self, at: PolicyTime) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn providers(&mut self) {
        let pending: Vec<String> = self
            .picture
            .providers
            .values()
            .filter(|provider| provider.state == ProviderState::Pending)
            .map(|provider| provider.name.clone())
            .collect();
        for name in pending {
            self.step(
                Step::ActivateProvider { name },
                "its settings are valid; instances launch with the first publish",
            );
        }
    }

    /// Failed starts are counted and set the back-off; what ended is forgotten.
    fn ended_environments(&mut self) {
        let ended: Vec<(EnvironmentId, PublicationId, Reason, bool)> = self
            .picture
            .environments
            .iter()
            .filter_map(|(id, environment)| match &environment.state {
                EnvironmentState::Ended { reason, settled } => {
                    Some((*id, environment.publication, reason.clone(), *settled))
                }
                _ => None,
            })
            .collect();
        for (id, publication, reason, settled) in ended {
            let ended = self.picture.environments.remove(&id);
            if ended.is_some_and(|ended| ended.instance == default_pool()) {
                // Nothing is kept running: the invocation it was started for hears why, and the next one tries again.
                if !settled {
                    let reason = reason.clone();
                    let why = reason.text.clone();
                    // One fewer waits, though the demand does not say so yet.
                    if let Some(waiting) = self.picture.demand.waiting.get_mut(&publication) {
                        *waiting = waiting.saturating_sub(1);
                    }
                    self.step(Step::Refuse { publication, reason, whom: Whom::Oldest }, why);
                }
                self.step(Step::ForgetEnvironment { id }, reason.text);
                continue;
            }
            if !settled {
                let earlier = self.memory.failures.get(&publication).map_or(0, |failures| failures.count);
                let wait = (1_u64 << earlier.min(16)).min(BACK_OFF_SECONDS_MAX);
                let retry_at = self.now.plus_seconds(wait);
                let failures = Failures { count: earlier + 1, retry_at, last: reason.clone() };
                self.memory.failures.insert(publication, failures);
            }
            self.step(Step::ForgetEnvironment { id }, reason.text);
        }
    }

    fn version(&mut self, key: &VersionKey) {
        let Some(version) = self.picture.versions.get(key).cloned() else { return };
        if version.publication.configuration.is_on_demand() {
            return;
        }
        match version.state {
            VersionState::Deleting | VersionState::Failed => {
                self.drain_all(&version, "the version is not to run");
            }
            VersionState::Deactivating => {
                self.drain_all(&version, "the scaling config sets Min and Max to 0");
                if self.count(key, |_| true) == 0 {
                    self.change(&version, VersionChange::Deactivated, "its last execution environment ended");
                }
            }
            VersionState::Deactivated if !version.scaling.deactivates() => {
                self.change(&version, VersionChange::Reactivate, "the scaling config is not 0 any more");
            }
            VersionState::Deactivated => {}
            VersionState::Pending | VersionState::Active if version.scaling.deactivates() => {
                self.change(&version, VersionChange::Deactivate, "the scaling config sets Min and Max to 0");
            }
            VersionState::Pending | VersionState::Active => self.keep_running(&version),
        }
    }

    /// Brings a version to its minimum: of the publication wanted, and of the one that serves until then.
    fn keep_running(&mut self, version: &FunctionVersion) {
        let minimum = version.scaling.minimum();
        let wanted = &version.publication;
        // First, so that what is not needed any more makes room for what is.
        self.drain_surplus(version, minimum);
        if let Some(serving) = version.serving.as_ref().filter(|_| version.is_rolling_over()) {
            if let Err(shortage) = self.fill(version, serving, minimum) {
                self.unmet(version, shortage);
            }
        }
        if matches!(version.last_update, LastUpdate::Failed(_)) && version.state == VersionState::Active {
            return;
        }
        let is_new = version.state == VersionState::Pending
            || version.serving.as_ref().is_none_or(|serving| serving.id != wanted.id);
        if let Err(reason) = self.possible(&version.publication.configuration) {
            return self.fail(version, is_new, reason);
        }
        let shortage = self.fill(version, wanted, minimum).err();
        let failures = self.memory.failures.get(&wanted.id).cloned();
        if self.ready(wanted.id) >= minimum {
            if failures.is_some_and(|failures| self.now.seconds_since(failures.retry_at) >= FORGIVE_SECONDS) {
                self.memory.failures.remove(&wanted.id);
            }
            if is_new {
                self.change(version, VersionChange::Activate, "its minimum execution environments are ready");
            } else if version.applied_scaling != Some(version.scaling) && self.alive(wanted.id) == minimum {
                self.change(
                    version,
                    VersionChange::ApplyScaling,
                    "as many execution environments run as asked for",
                );
            }
        } else if let Some(failures) = failures {
            if is_new && failures.count >= START_FAILURES_MAX {
                return self.fail(version, is_new, failures.last);
            }
            self.unmet(version, failures.last);
        } else if let Some(shortage) = shortage {
            // Room that is about to come is worth waiting for.
            let provider = wanted.configuration.capacity_provider().unwrap_or_default();
            if is_new && !self.is_draining(provider) {
                return self.fail(version, is_new, shortage);
            }
            self.unmet(version, shortage);
        }
    }

    fn unmet(&mut self, version: &FunctionVersion, reason: Reason) {
        self.plan.unmet.insert(version.key(), reason);
        self.wake_at(self.now.plus_seconds(RETRY_SECONDS));
    }

    fn is_draining(&self, provider: &str) -> bool {
        let of_provider = |environment: &Environment| {
            self.picture.instances.get(&environment.instance).is_some_and(|i| i.capacity_provider == provider)
        };
        self.picture.environments.values().any(|e| e.state == EnvironmentState::Draining && of_provider(e))
    }

    fn fail(&mut self, version: &FunctionVersion, is_new: bool, reason: Reason) {
        let why = reason.text.clone();
        if !is_new {
            // It ran; it goes on with what it has, and is tried again.
            return self.unmet(version, reason);
        }
        let serves_on = version.is_rolling_over() && version.state == VersionState::Active;
        let change = if serves_on { VersionChange::FailUpdate(reason) } else { VersionChange::Fail(reason) };
        self.change(version, change, why);
        self.memory.failures.remove(&version.publication.id);
    }

    /// What no amount of waiting would mend.
    fn possible(&self, configuration: &FunctionConfiguration) -> Result<(), Reason> {
        let machine = &self.picture.machine;
        if configuration.architecture != machine.architecture && !machine.any_architecture {
            return Err(Reason::new(
                "InsufficientCapacity",
                format!(
                    "The function needs {}, and this machine is {}. Start the server with --any-architecture to run functions without native code here.",
                    configuration.architecture, machine.architecture
                ),
            ));
        }
        if !machine.installed_runtimes.contains(&configuration.runtime) {
            let runtime = &configuration.runtime;
            return Err(Reason::new(
                "InvalidRuntime",
                format!(
                    "The runtime {runtime} isn't installed on this machine. Install it with: ondol runtime install {runtime}. Then publish or invoke again."
                ),
            ));
        }
        Ok(())
    }

    /// Starts what is missing of a publication, unless its failures ask to wait.
    fn fill(
        &mut self,
        version: &FunctionVersion,
        publication: &Publication,
        minimum: u32,
    ) -> Result<(), Reason> {
        let alive = self.alive(publication.id);
        if let Some(failures) = self.memory.failures.get(&publication.id).filter(|_| alive < minimum) {
            let retry_at = failures.retry_at;
            if retry_at > self.now {
                self.wake_at(retry_at);
                return Ok(());
            }
        }
        (alive..minimum).try_for_each(|_| self.start_one(version, publication))
    }

    fn start_one(&mut self, version: &FunctionVersion, publication: &Publication) -> Result<(), Reason> {
        let configuration = &publication.configuration;
        let need =
            Need { vcpus: configuration.vcpus(), memory_mib: u64::from(configuration.memory_size_mib) };
        let provider_name = configuration.capacity_provider().unwrap_or_default();
        let provider = match self.picture.providers.get(provider_name) {
            Some(provider) if provider.state != ProviderState::Deleting => provider.clone(),
            _ => {
                let text =
                    format!("The capacity provider {provider_name} doesn't exist or is being deleted.");
                return Err(Reason::new("InvalidConfiguration", text));
            }
        };
        self.launch_initial(&provider, need)?;
        let instance = match self.best_instance(&provider.name, &version.key(), need) {
            Some(instance) => instance,
            None => {
                let zone = self.emptiest_zone(&provider, &version.key());
                self.launch(&provider, need, &zone, 1)?;
                let full = || Reason::new("InsufficientCapacity", "The launched instance has no room.");
                self.best_instance(&provider.name, &version.key(), need).ok_or_else(full)?
            }
        };
        let id = EnvironmentId(u128::from(self.coins.flip()) << 64 | u128::from(self.coins.flip()));
        let environment = Environment {
            version: version.key(),
            publication: publication.id,
            instance: instance.clone(),
            need,
            state: EnvironmentState::Starting,
        };
        self.picture.environments.insert(id, environment.clone());
        self.step(
            Step::StartEnvironment { id, environment },
            format!("the minimum is not reached; placed on {instance}"),
        );
        Ok(())
    }

    /// One instance in each zone before the first environment, as far as the cap allows.
    fn launch_initial(&mut self, provider: &CapacityProvider, need: Need) -> Result<(), Reason> {
        let zones = availability_zones(&self.picture.region, &provider.subnet_ids);
        let covered: BTreeSet<String> =
            self.instances_of(&provider.name).map(|instance| instance.availability_zone.clone()).collect();
        let missing: Vec<String> = zones.into_iter().filter(|zone| !covered.contains(zone)).collect();
        for (place, zone) in missing.iter().enumerate() {
            if let Err(reason) = self.launch(provider, need, zone, missing.len() - place) {
                // Fewer zones than wanted is less redundancy; none at all is a failure.
                return if self.instances_of(&provider.name).next().is_some() { Ok(()) } else { Err(reason) };
            }
        }
        Ok(())
    }

    fn launch(
        &mut self,
        provider: &CapacityProvider,
        need: Need,
        zone: &str,
        share: usize,
    ) -> Result<(), Reason> {
        let used: u32 = self
            .instances_of(&provider.name)
            .filter_map(|i| by_name(&i.instance_type))
            .map(|t| t.vcpus)
            .sum();
        let left = provider.scaling.max_vcpu_count.saturating_sub(used);
        let types = provider.requirements.types();
        let fair = left / u32::try_from(share).unwrap_or(1).max(1);
        let chosen = choose_type(&types, need, fair).or_else(|| choose_type(&types, need, left));
        let Some(instance_type) = chosen else {
            return Err(if choose_type(&types, need, u32::MAX).is_some() {
                Reason::new(
                    "CapacityProviderScalingLimitExceeded",
                    "MinimumExecutionEnvironments can't be provisioned because CapacityProvider has reached maxVCpuCount limit. Increase maxVCpuCount in the CapacityProvider configuration and try again.",
                )
            } else {
                Reason::new(
                    "InsufficientCapacity",
                    format!(
                        "No instance type the capacity provider allows has room for {} vCPU and {} MB beside the {OVERHEAD_VCPUS} vCPU and {OVERHEAD_MEMORY_MIB} MB an instance keeps.",
                        need.vcpus, need.memory_mib
                    ),
                )
            });
        };
        let zones = availability_zones(&self.picture.region, &provider.subnet_ids);
        let subnet = zones.iter().position(|z| z == zone).and_then(|place| provider.subnet_ids.get(place));
        let instance = Instance {
            id: InstanceId::from_random(self.coins.flip(), self.coins.flip()),
            capacity_provider: provider.name.clone(),
            instance_type: instance_type.name(),
            availability_zone: zone.to_owned(),
            subnet_id: subnet.cloned().unwrap_or_default(),
            launched_at: self.now,
        };
        self.picture.instances.insert(instance.id.clone(), instance.clone());
        let why = format!("{} of {} vCPU were used", used, provider.scaling.max_vcpu_count);
        self.step(Step::LaunchInstance(instance), why);
        Ok(())
    }

    fn best_instance(&self, provider: &str, version: &VersionKey, need: Need) -> Option<InstanceId> {
        let on = |instance: &InstanceId| -> Vec<&Environment> {
            self.picture
                .environments
                .values()
                .filter(|environment| environment.instance == *instance)
                .collect()
        };
        let of_version =
            |instance: &InstanceId| on(instance).iter().filter(|e| e.version == *version).count() as u32;
        self.instances_of(provider)
            .filter_map(|instance| {
                let instance_type = by_name(&instance.instance_type)?;
                let vcpus: u32 = on(&instance.id).iter().map(|e| e.need.vcpus).sum();
                let memory: u64 = on(&instance.id).iter().map(|e| e.need.memory_mib).sum();
                let vcpus_left = instance_type.vcpus.checked_sub(OVERHEAD_VCPUS + vcpus + need.vcpus)?;
                instance_type.memory_mib.checked_sub(OVERHEAD_MEMORY_MIB + memory + need.memory_mib)?;
                let of_version_in_zone = self
                    .instances_of(provider)
                    .filter(|other| other.availability_zone == instance.availability_zone)
                    .map(|other| of_version(&other.id))
                    .sum();
                let of_version_on_instance = of_version(&instance.id);
                Some(Score {
                    of_version_in_zone,
                    of_version_on_instance,
                    vcpus_left,
                    id: instance.id.clone(),
                })
            })
            .min()
            .map(|score| score.id)
    }

    fn emptiest_zone(&self, provider: &CapacityProvider, version: &VersionKey) -> String {
        let in_zone = |zone: &str| {
            let instances: BTreeSet<&InstanceId> = self
                .instances_of(&provider.name)
                .filter(|instance| instance.availability_zone == zone)
                .map(|instance| &instance.id)
                .collect();
            let environments = self.picture.environments.values();
            let of_version =
                environments.filter(|e| e.version == *version && instances.contains(&e.instance)).count();
            (of_version, instances.len())
        };
        let zones = availability_zones(&self.picture.region, &provider.subnet_ids);
        zones.into_iter().min_by_key(|zone| (in_zone(zone), zone.clone())).unwrap_or_default()
    }

    fn instances_of(&self, provider: &str) -> impl Iterator<Item = &Instance> {
        self.picture.instances.values().filter(move |instance| instance.capacity_provider == provider)
    }

    fn change(&mut self, version: &FunctionVersion, change: VersionChange, why: impl Into<String>) {
        let step = Step::SetVersion { key: version.key(), publication: version.publication.id, change };
        self.step(step, why);
    }

    fn count(&self, key: &VersionKey, of: impl Fn(&Environment) -> bool) -> u32 {
        let environments = self.picture.environments.values();
        environments.filter(|environment| environment.version == *key && of(environment)).count() as u32
    }

    fn ready(&self, publication: PublicationId) -> u32 {
        let environments = self.picture.environments.values();
        environments.filter(|e| e.publication == publication && e.state == EnvironmentState::Ready).count()
            as u32
    }

    fn alive(&self, publication: PublicationId) -> u32 {
        let environments = self.picture.environments.values();
        let alive = |e: &&Environment| {
            e.publication == publication
                && matches!(e.state, EnvironmentState::Ready | EnvironmentState::Starting)
        };
        environments.filter(alive).count() as u32
    }

    fn drain(&mut self, ids: Vec<EnvironmentId>, why: &str) {
        for id in ids {
            if let Some(environment) = self.picture.environments.get_mut(&id) {
                environment.state = EnvironmentState::Draining;
                self.step(Step::DrainEnvironment { id }, why);
            }
        }
    }

    fn running_where(&self, of: impl Fn(&Environment) -> bool) -> Vec<EnvironmentId> {
        let running =
            |e: &Environment| matches!(e.state, EnvironmentState::Ready | EnvironmentState::Starting);
        self.picture.environments.iter().filter(|(_, e)| running(e) && of(e)).map(|(id, _)| *id).collect()
    }

    fn drain_all(&mut self, version: &FunctionVersion, why: &str) {
        let key = version.key();
        self.drain(self.running_where(|e| e.version == key), why);
    }

    /// Publications that neither serve nor are wanted end, and so does what is over the minimum, highest id
    /// first, never more of a publication than its surplus.
    fn drain_surplus(&mut self, version: &FunctionVersion, minimum: u32) {
        let key = version.key();
        let serving = version.serving.as_ref().map(|serving| serving.id);
        let wanted = match version.last_update {
            LastUpdate::Failed(_) => None,
            _ => Some(version.publication.id),
        };
        let stale = self.running_where(|e| {
            e.version == key && Some(e.publication) != wanted && Some(e.publication) != serving
        });
        self.drain(stale, "a newer publication took over");
        let current: BTreeSet<PublicationId> = wanted.into_iter().chain(serving).collect();
        for publication in current {
            let running = self.running_where(|e| e.publication == publication);
            let surplus = running.len().saturating_sub(minimum as usize);
            self.drain(
                running.into_iter().rev().take(surplus).collect(),
                "the minimum execution environments were lowered",
            );
        }
    }

    /// Environments of versions that are no more.
    fn orphans(&mut self) {
        let known: BTreeSet<VersionKey> = self.picture.versions.keys().cloned().collect();
        let orphans = self.running_where(|e| !known.contains(&e.version) && e.instance != default_pool());
        self.drain(orphans, "its function version was deleted");
    }

    /// Lambda (default) functions: one environment for each invocation that waits, none for what is idle too long.
    fn on_demand(&mut self) {
        let pool = default_pool();
        let current: BTreeSet<PublicationId> = self.picture.on_demand.keys().copied().collect();
        let replaced = self.running_where(|e| e.instance == pool && !current.contains(&e.publication));
        self.drain(replaced, "its function was deleted or updated");
        let retired = self.picture.demand.retired.clone();
        let idle: Vec<EnvironmentId> = self
            .running_where(|e| e.instance == pool)
            .into_iter()
            .filter(|id| retired.contains(id))
            .collect();
        self.drain(idle, "it was idle for too long");
        for (publication, waiting) in self.picture.demand.waiting.clone() {
            let Some((version, wanted)) = self.picture.on_demand.get(&publication).cloned() else {
                let reason = Reason::new(REPLACED, "The function was deleted or updated.");
                let why = "nothing of this publication is started any more";
                self.step(Step::Refuse { publication, reason, whom: Whom::All }, why);
                continue;
            };
            let starting = self.count_of(publication, &EnvironmentState::Starting);
            for started in starting..waiting {
                match self.start_on_demand(&version, &wanted) {
                    Ok(()) => {}
                    Err(reason) if reason.code == NO_ROOM => {
                        self.make_room(publication, waiting - started, &wanted, reason);
                        break;
                    }
                    Err(reason) => {
                        let why = reason.text.clone();
                        self.step(Step::Refuse { publication, reason, whom: Whom::All }, why);
                        break;
                    }
                }
            }
        }
    }

    /// What is idle gives way to what is wanted; what is ending is waited for. Otherwise those that came last are
    /// told that there is no room.
    fn make_room(
        &mut self,
        publication: PublicationId,
        without: usize,
        wanted: &Publication,
        reason: Reason,
    ) {
        let pool = default_pool();
        let need = u64::from(wanted.configuration.memory_size_mib);
        let of_pool = |e: &&Environment| e.instance == pool;
        let memory = |of: &dyn Fn(&Environment) -> bool| -> u64 {
            let environments = self.picture.environments.values().filter(of_pool);
            environments.filter(|e| of(e)).map(|e| e.need.memory_mib).sum()
        };
        let over = (memory(&|_| true) + need).saturating_sub(self.picture.machine.on_demand_memory_mib);
        let mut coming = memory(&|e| e.state == EnvironmentState::Draining);
        let mut leaving = Vec::new();
        for id in &self.picture.demand.idle {
            if coming >= over {
                break;
            }
            if let Some(idle) =
                self.picture.environments.get(id).filter(|e| e.state == EnvironmentState::Ready)
            {
                coming += idle.need.memory_mib;
                leaving.push(*id);
            }
        }
        if coming < over {
            let why = reason.text.clone();
            return self.step(Step::Refuse { publication, reason, whom: Whom::Newest(without) }, why);
        }
        if !leaving.is_empty() {
            self.step(Step::Retire { environments: leaving }, "their room is wanted");
        }
    }

    fn count_of(&self, publication: PublicationId, state: &EnvironmentState) -> usize {
        let environments = self.picture.environments.values();
        environments.filter(|e| e.publication == publication && e.state == *state).count()
    }

    fn start_on_demand(&mut self, version: &VersionKey, wanted: &Publication) -> Result<(), Reason> {
        self.possible(&wanted.configuration)?;
        let need = Need {
            vcpus: wanted.configuration.vcpus(),
            memory_mib: u64::from(wanted.configuration.memory_size_mib),
        };
        let pool = default_pool();
        let promised: u64 = self
            .picture
            .environments
            .values()
            .filter(|e| e.instance == pool)
            .map(|e| e.need.memory_mib)
            .sum();
        let limit = self.picture.machine.on_demand_memory_mib;
        if promised + need.memory_mib > limit {
            let text = format!(
                "The default pool has no room for {} MB more: {promised} of {limit} MB are promised to other execution environments.",
                need.memory_mib
            );
            return Err(Reason::new(NO_ROOM, text));
        }
        let id = EnvironmentId(u128::from(self.coins.flip()) << 64 | u128::from(self.coins.flip()));
        let environment = Environment {
            version: version.clone(),
            publication: wanted.id,
            instance: pool,
            need,
            state: EnvironmentState::Starting,
        };
        self.picture.environments.insert(id, environment.clone());
        self.step(Step::StartEnvironment { id, environment }, "an invocation waits for it");
        Ok(())
    }

    fn empty_instances(&mut self) {
        let used: BTreeSet<InstanceId> =
            self.picture.environments.values().map(|e| e.instance.clone()).collect();
        self.memory.empty_since.retain(|id, _| !used.contains(id) && self.picture.instances.contains_key(id));
        let empty: Vec<InstanceId> =
            self.picture.instances.keys().filter(|id| !used.contains(id)).cloned().collect();
        for id in empty {
            let provider = self.picture.instances.get(&id).map(|instance| instance.capacity_provider.clone());
            let provider_ends = provider
                .and_then(|name| self.picture.providers.get(&name))
                .is_none_or(|provider| provider.state == ProviderState::Deleting);
            let since = *self.memory.empty_since.entry(id.clone()).or_insert(self.now);
            if provider_ends || self.now.seconds_since(since) >= EMPTY_INSTANCE_SECONDS {
                self.memory.empty_since.remove(&id);
                self.picture.instances.remove(&id);
                let why = if provider_ends {
                    "its capacity provider is being deleted"
                } else {
                    "no execution environment is left on it"
                };
                self.step(Step::TerminateInstance { id }, why);
            } else {
                self.wake_at(since.plus_seconds(EMPTY_INSTANCE_SECONDS));
            }
        }
    }

    /// Failures of publications that no version has any more.
    fn forget(&mut self) {
        let versions = self.picture.versions.values();
        let known: BTreeSet<PublicationId> = versions
            .flat_map(|version| [Some(&version.publication), version.serving.as_ref()])
            .flatten()
            .map(|publication| publication.id)
            .collect();
        self.memory.failures.retain(|publication, _| known.contains(publication));
    }

    /// What is Deleting goes when nothing of it runs any more.
    fn removals(&mut self) {
        let deleting: Vec<VersionKey> = self
            .picture
            .versions
            .values()
            .filter(|version| version.state == VersionState::Deleting)
            .map(FunctionVersion::key)
            .collect();
        for key in deleting {
            if self.count(&key, |_| true) == 0 {
                self.picture.versions.remove(&key);
                self.step(Step::RemoveVersion { key }, "its last execution environment ended");
            }
        }
        for name in self.picture.functions_deleting.clone() {
            if !self.picture.versions.keys().any(|key| key.function == name) {
                self.step(Step::RemoveFunction { name }, "its last version is gone");
            }
        }
        let providers: Vec<String> = self
            .picture
            .providers
            .values()
            .filter(|provider| provider.state == ProviderState::Deleting)
            .map(|provider| provider.name.clone())
            .collect();
        for name in providers {
            if self.instances_of(&name).next().is_none() {
                self.step(Step::RemoveProvider { name }, "its last instance ended");
            }
        }
    }
}

#[cfg(test)]
mod tests;
