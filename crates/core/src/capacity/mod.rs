//! The capacity planner: one picture of what is wanted and what there is, in; what to do next and why, out.
//!
//! It is level-triggered: it never counts on an earlier plan having been carried out, so that it may run
//! after any event, any number of times, and after a restart with an empty [`Memory`].
//!
//! This file has the nouns and the order of the steps; what each step does is in the files beside it.

mod ending;
mod environments;
mod fleet;
mod instances;
pub mod journal;
mod on_demand;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::capacity_provider::CapacityProvider;
use crate::coins::Coins;
use crate::function::{
    Architecture, FunctionVersion, LastUpdate, Publication, Reason, VersionKey, VersionState,
};
use crate::identity::{EnvironmentId, InstanceId, PublicationId};
use crate::on_demand::{Demand, Whom};
use crate::place::Need;
use crate::scale;
use crate::signals::{EnvironmentSignals, MachineSignals, Traffic};
use crate::time::PolicyTime;

use fleet::Fleet;

/// Failed starts after which a version that never ran is `Failed`.
pub const START_FAILURES_MAX: u32 = 3;
const BACK_OFF_SECONDS_MAX: u64 = 300;
/// Starts that went well for this long after the last failure wipe the failures out.
const FORGIVE_SECONDS: u64 = 60;
/// What could not be done is tried again this soon, whatever else happens.
const RETRY_SECONDS: u64 = 5;
/// An instance with no environment ends after this long. AWS: "typically within a few minutes".
pub const EMPTY_INSTANCE_SECONDS: u64 = 120;
/// Instances are replaced at this age unless it is set otherwise.
pub const INSTANCE_AGE_SECONDS_DEFAULT: u64 = 14 * 86_400;

/// An instance as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub capacity_provider: String,
    pub instance_type: String,
    pub availability_zone: String,
    pub subnet_id: String,
    pub launched_at: PolicyTime,
    #[serde(default)]
    pub state: InstanceState,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum InstanceState {
    /// Asked for; it takes environments once it runs.
    Launching,
    #[default]
    Running,
    /// It never came up.
    LaunchFailed(Reason),
    /// It is gone, and what ran on it.
    Lost(Reason),
}

/// An execution environment as assigned and as its agent last reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub version: VersionKey,
    pub publication: PublicationId,
    pub instance: InstanceId,
    pub need: Need,
    pub state: EnvironmentState,
    #[serde(default)]
    pub signals: EnvironmentSignals,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub architecture: Architecture,
    /// Run functions of the other architecture too; only code without native parts works.
    pub any_architecture: bool,
    /// What the default pool may promise to its environments.
    pub on_demand_memory_mib: u64,
    pub installed_runtimes: BTreeSet<String>,
    #[serde(default)]
    pub signals: MachineSignals,
}

/// What the operator of this server set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub instance_age_seconds_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { instance_age_seconds_max: INSTANCE_AGE_SECONDS_DEFAULT }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    pub region: String,
    pub settings: Settings,
    pub providers: BTreeMap<String, CapacityProvider>,
    #[serde(with = "crate::pairs")]
    pub versions: BTreeMap<VersionKey, FunctionVersion>,
    /// Functions whose deletion was asked for.
    pub functions_deleting: BTreeSet<String>,
    pub instances: BTreeMap<InstanceId, Instance>,
    pub environments: BTreeMap<EnvironmentId, Environment>,
    /// What the front end counted of each publication that had any.
    pub traffic: BTreeMap<PublicationId, Traffic>,
    /// What Lambda (default) functions want now.
    pub demand: Demand,
    /// Publications of Lambda (default) functions that are demanded or run, as far as they are still current.
    pub on_demand: BTreeMap<PublicationId, (VersionKey, Publication)>,
    pub machine: Machine,
}

/// What the planner remembers between two decisions. Losing it costs a back-off, nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    failures: BTreeMap<PublicationId, Failures>,
    /// By capacity provider and availability zone.
    #[serde(with = "crate::pairs")]
    launch_failures: BTreeMap<(String, String), Failures>,
    empty_since: BTreeMap<InstanceId, PolicyTime>,
    #[serde(with = "crate::pairs")]
    scaling: BTreeMap<VersionKey, scale::Memory>,
}

/// Failures in a row, and the back-off after the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    pub count: u32,
    pub retry_at: PolicyTime,
    pub last: Reason,
}

impl Memory {
    /// Failed starts of each publication's environments.
    pub fn start_failures(&self) -> &BTreeMap<PublicationId, Failures> {
        &self.failures
    }

    /// Failed launches of instances, by capacity provider and availability zone.
    pub fn launch_failures(&self) -> &BTreeMap<(String, String), Failures> {
        &self.launch_failures
    }
}

impl Failures {
    /// One more, tried again after twice as long as before.
    fn after(earlier: Option<&Self>, last: Reason, now: PolicyTime) -> Self {
        let earlier = earlier.map_or(0, |failures| failures.count);
        let wait_seconds = (1_u64 << earlier.min(16)).min(BACK_OFF_SECONDS_MAX);
        Self { count: earlier + 1, retry_at: now.plus_seconds(wait_seconds), last }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl VersionChange {
    /// Carries it out on the version it was decided for.
    pub fn apply(&self, version: &mut FunctionVersion) {
        match self.clone() {
            Self::Activate => {
                version.serving = Some(version.publication.clone());
                version.state = VersionState::Active;
                version.state_reason = None;
                version.last_update = LastUpdate::Successful;
                version.applied_scaling = Some(version.scaling);
            }
            Self::ApplyScaling => version.applied_scaling = Some(version.scaling),
            Self::Fail(reason) => {
                version.state = VersionState::Failed;
                version.last_update = LastUpdate::Failed(reason.clone());
                version.state_reason = Some(reason);
            }
            Self::FailUpdate(reason) => version.last_update = LastUpdate::Failed(reason),
            Self::Deactivate => version.deactivate(),
            Self::Deactivated => {
                version.state = VersionState::Deactivated;
                version.applied_scaling = Some(version.scaling);
                // Nothing is under way any more; what was published last is what a reactivation starts.
                if version.last_update == LastUpdate::InProgress {
                    version.last_update = LastUpdate::Successful;
                }
            }
            Self::Reactivate => version.reactivate(),
        }
    }
}

/// What to do now, in this order, and what is not as asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<(Step, String)>,
    /// Why a version has less than it should; gone when it has.
    #[serde(with = "crate::pairs")]
    pub unmet: BTreeMap<VersionKey, Reason>,
    /// How many environments each version that serves is to have, and why.
    #[serde(with = "crate::pairs")]
    pub scaling: BTreeMap<VersionKey, Scaling>,
    /// Instances that are being replaced.
    pub replacing: BTreeSet<InstanceId>,
    /// When to decide again even if nothing happens.
    pub wake_at: Option<PolicyTime>,
}

/// How a version's number of execution environments stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    pub wanted: u32,
    pub running: u32,
    pub ready: u32,
    pub min: u32,
    /// None without a bound.
    pub max: Option<u32>,
    /// Why it has not got what it wants.
    pub blocked: Option<Reason>,
    pub why: scale::Why,
}

pub fn decide(picture: &Picture, memory: Memory, now: PolicyTime, coins: &mut Coins) -> (Plan, Memory) {
    let fleet = Fleet::of(picture);
    let mut planner = Planner { picture, fleet, memory, now, coins, plan: Plan::default() };
    planner.providers();
    planner.instances_that_ended();
    planner.ended_environments();
    planner.instances_too_old();
    planner.versions();
    planner.orphans();
    planner.on_demand();
    planner.empty_instances();
    planner.removals();
    planner.forget();
    planner.plan.replacing = planner.fleet.leaving();
    (planner.plan, planner.memory)
}

struct Planner<'a> {
    picture: &'a Picture,
    /// What there is, as it will be with the steps so far.
    fleet: Fleet<'a>,
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

    fn drain(&mut self, members: &[usize], why: &str) {
        for member in members {
            let id = self.fleet.drain(*member);
            self.step(Step::DrainEnvironment { id }, why);
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
