//! What the loop last saw and did, for people: bounded, and structured as far as pages ask for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ondol_core::capacity::{Environment, Failures, Memory, Plan, Scaling, Step, VersionChange};
use ondol_core::function::{Reason, VersionKey};
use ondol_core::identity::{EnvironmentId, InstanceId, PublicationId};
use ondol_core::time::PolicyTime;
use ondol_observe::notice;

/// Decisions kept for `ondol status`.
const DECISIONS_MAX: usize = 200;
/// Changes of how many environments a version is to have that are kept of each.
const MOVES_MAX: usize = 12;

#[derive(Debug, Clone, Default)]
pub struct View {
    pub environments: BTreeMap<EnvironmentId, Environment>,
    /// Why a version has less than it should.
    pub unmet: BTreeMap<VersionKey, Reason>,
    /// How many environments each version that serves is to have, and why.
    pub scaling: BTreeMap<VersionKey, Scaling>,
    /// How that came to be, oldest first.
    pub moves: BTreeMap<VersionKey, VecDeque<Move>>,
    /// The newest decision that saw throttles of a version.
    pub throttled: BTreeMap<VersionKey, Throttled>,
    /// Failed starts, and when the next is.
    pub start_failures: BTreeMap<PublicationId, Failures>,
    /// Failed launches by capacity provider and availability zone, and when the next is.
    pub launch_failures: BTreeMap<(String, String), Failures>,
    /// Instances that are being replaced.
    pub replacing: BTreeSet<InstanceId>,
    /// The newest decisions, oldest first.
    pub journal: VecDeque<Decision>,
}

#[derive(Debug, Clone)]
pub struct Decision {
    pub at: PolicyTime,
    /// The version it is about, if it is about one.
    pub version: Option<VersionKey>,
    pub what: String,
    pub why: String,
}

/// A change of how many environments a version is to have.
#[derive(Debug, Clone)]
pub struct Move {
    pub at: PolicyTime,
    /// None before the first decision.
    pub from: Option<u32>,
    pub to: u32,
    pub why: String,
}

/// What was seen and decided when invocations had found no slot.
#[derive(Debug, Clone)]
pub struct Throttled {
    pub at: PolicyTime,
    pub scaling: Scaling,
}

impl View {
    /// Takes in what was decided, and what it was decided from.
    pub(crate) fn take_in(
        &mut self,
        plan: &Plan,
        memory: &Memory,
        environments: BTreeMap<EnvironmentId, Environment>,
        now: PolicyTime,
    ) {
        for (version, reason) in plan.unmet.iter().filter(|(version, _)| !self.unmet.contains_key(version)) {
            notice::warning(&format!("{version}: {} ({})", reason.text, reason.code));
        }
        self.environments = environments;
        for (version, scaling) in &plan.scaling {
            let before = self.scaling.get(version).map(|before| before.wanted);
            if before != Some(scaling.wanted) {
                let moves = self.moves.entry(version.clone()).or_default();
                let why = scaling.why.to_string();
                push(moves, MOVES_MAX, Move { at: now, from: before, to: scaling.wanted, why });
            }
            if scaling.why.throttled > 0 {
                let throttled = Throttled { at: now, scaling: scaling.clone() };
                self.throttled.insert(version.clone(), throttled);
            }
        }
        self.moves.retain(|version, _| plan.scaling.contains_key(version));
        self.throttled.retain(|version, _| plan.scaling.contains_key(version));
        self.scaling.clone_from(&plan.scaling);
        self.unmet.clone_from(&plan.unmet);
        self.start_failures.clone_from(memory.start_failures());
        self.launch_failures.clone_from(memory.launch_failures());
        self.replacing.clone_from(&plan.replacing);
        for (step, why) in &plan.steps {
            let version = self.version_of(step);
            let decision = Decision { at: now, version, what: describe(step), why: why.clone() };
            push(&mut self.journal, DECISIONS_MAX, decision);
        }
    }

    fn version_of(&self, step: &Step) -> Option<VersionKey> {
        match step {
            Step::StartEnvironment { environment, .. } => Some(environment.version.clone()),
            Step::DrainEnvironment { id } | Step::ForgetEnvironment { id } => {
                self.environments.get(id).map(|environment| environment.version.clone())
            }
            Step::SetVersion { key, .. } | Step::RemoveVersion { key } => Some(key.clone()),
            _ => None,
        }
    }
}

/// Puts one in, and the oldest out.
fn push<T>(ring: &mut VecDeque<T>, most: usize, one: T) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(one);
}

fn describe(step: &Step) -> String {
    match step {
        Step::ActivateProvider { name } => format!("activated capacity provider {name}"),
        Step::RemoveProvider { name } => format!("removed capacity provider {name}"),
        Step::LaunchInstance(instance) => {
            format!("launching {} {} in {}", instance.instance_type, instance.id, instance.availability_zone)
        }
        Step::TerminateInstance { id } => format!("terminated instance {id}"),
        Step::StartEnvironment { id, environment } => {
            format!(
                "started execution environment {id} of {} on {}",
                environment.version, environment.instance
            )
        }
        Step::DrainEnvironment { id } => format!("draining execution environment {id}"),
        Step::ForgetEnvironment { id } => format!("execution environment {id} ended"),
        Step::SetVersion { key, change, .. } => format!("{key}: {}", describe_change(change)),
        Step::RemoveVersion { key } => format!("removed {key}"),
        Step::RemoveFunction { name } => format!("removed function {name}"),
        Step::Refuse { reason, .. } => format!("refused waiting invocations ({})", reason.code),
        Step::Retire { environments } => {
            format!("retired {} idle execution environments", environments.len())
        }
    }
}

fn describe_change(change: &VersionChange) -> String {
    match change {
        VersionChange::Activate => "Active".into(),
        VersionChange::ApplyScaling => "its scaling config is in effect".into(),
        VersionChange::Fail(reason) => format!("Failed ({})", reason.code),
        VersionChange::FailUpdate(reason) => {
            format!("its update failed ({}); the version before serves on", reason.code)
        }
        VersionChange::Deactivate => "Deactivating".into(),
        VersionChange::Deactivated => "Deactivated".into(),
        VersionChange::Reactivate => "Pending".into(),
    }
}

#[cfg(test)]
mod tests {
    use ondol_core::scale::{What, Why};

    use super::*;

    fn plan(wanted: u32, throttled: u32) -> Plan {
        let what = What::Out { by_cpu: false };
        let why = Why {
            what,
            for_slots: wanted,
            for_cpu: 0,
            slots_used_hundredths: 0,
            cpu_used_hundredths: 0,
            cpu_target_hundredths: 5_000,
            throttled,
            refusing: 0,
        };
        let scaling = Scaling { wanted, running: 1, ready: 1, min: 1, max: None, blocked: None, why };
        let key = VersionKey { function: "f".into(), version: "1".into() };
        Plan { scaling: BTreeMap::from([(key, scaling)]), ..Plan::default() }
    }

    #[test]
    fn moves_are_kept_within_their_bound_and_go_with_their_version() {
        let (mut view, memory) = (View::default(), Memory::default());
        let mut see = |plan: &Plan, at| {
            view.take_in(plan, &memory, BTreeMap::new(), PolicyTime(at));
            let moves = view.moves.values().flatten();
            (
                moves.map(|step| (step.from, step.to)).collect::<Vec<_>>(),
                view.throttled.values().next().cloned(),
            )
        };
        assert_eq!(see(&plan(3, 0), 1).0, [(None, 3)]);
        let (moves, throttled) = see(&plan(6, 2), 2);
        assert_eq!(moves, [(None, 3), (Some(3), 6)]);
        assert_eq!(throttled.map(|seen| (seen.at, seen.scaling.wanted)), Some((PolicyTime(2), 6)));
        let (moves, throttled) = see(&plan(6, 0), 3);
        assert_eq!((moves.len(), throttled.map(|seen| seen.at)), (2, Some(PolicyTime(2))), "nothing moved");
        for number in 7..100 {
            see(&plan(number, 0), u64::from(number));
        }
        let (moves, _) = see(&plan(99, 0), 100);
        assert_eq!((moves.len(), moves.last()), (MOVES_MAX, Some(&(Some(98), 99))));
        assert_eq!(see(&Plan::default(), 101).0, []);
    }
}
