//! Every invariant, held after every event. The numbers are those of the reliability programme.

use std::collections::BTreeMap;

use ondol_core::capacity::{EnvironmentState, Instance, InstanceState, Plan};
use ondol_core::function::VersionState;
use ondol_core::gate::ThrottleCause;
use ondol_core::identity::{EnvironmentId, PublicationId};
use ondol_core::instance_type::by_name;
use ondol_core::place::Need;

use super::agent::State;
use super::{Event, SECOND_MICROS, World};

/// What a fault breaks is whole again after so long: a launch, a start, the growing delays of what failed.
const HEAL_MICROS: u64 = 900 * SECOND_MICROS;
/// Environments of a world that is looked at as a whole after every event.
const SMALL: usize = 48;
/// A cap that never is in the way of a world by chance.
const AMPLE_VCPUS: u32 = 200;
/// An instance that is being replaced may have an invocation to wait for.
const REPLACE_MICROS: u64 = 300 * SECOND_MICROS;

#[derive(Debug, Default)]
pub struct Checks {
    /// Until then something may be missing.
    healing_until: u64,
    /// The last plan had nothing to do.
    is_quiet: bool,
    /// The last plan said that a version can't have what it wants.
    is_short: bool,
}

impl World {
    pub(super) fn note_fault(&mut self) {
        let until = self.now + HEAL_MICROS;
        if let Some(checks) = &mut self.checks {
            checks.healing_until = until;
        }
    }

    /// Something has changed that no plan has seen yet.
    pub(super) fn note_change(&mut self) {
        if let Some(checks) = &mut self.checks {
            checks.is_quiet = false;
        }
    }

    /// Something that no fault explains must not be cut.
    pub(super) fn note_cut(&mut self) {
        let now = self.now;
        if let Some(checks) = &self.checks {
            assert!(now < checks.healing_until, "I9: an invocation was cut though nothing broke");
        }
    }

    pub(super) fn note_plan(&mut self, plan: &Plan) {
        let now = self.now;
        let wakes = plan.wake_at.map_or(u64::MAX, |at| at.0);
        assert!(
            self.checks.is_none() || wakes > self.policy().0,
            "liveness: a plan is to be made again at once"
        );
        let blocked = plan.scaling.values().any(|scaling| scaling.blocked.is_some());
        if let Some(checks) = &mut self.checks {
            checks.is_quiet = plan.steps.is_empty();
            checks.is_short = !plan.unmet.is_empty() || blocked;
            if checks.is_short {
                // Failures are tried again ever more slowly, whatever happens meanwhile.
                checks.healing_until = checks.healing_until.max(now + HEAL_MICROS / 3);
            }
        }
    }

    /// Nothing is ever launched beyond the cap.
    pub(super) fn check_launch(&self, launched: &Instance) {
        let Some(provider) = self.picture.providers.get(&launched.capacity_provider) else { return };
        let of_provider = self.picture.instances.values().filter(|instance| {
            instance.capacity_provider == provider.name
                && matches!(instance.state, InstanceState::Launching | InstanceState::Running)
        });
        let used: u32 =
            of_provider.filter_map(|instance| by_name(&instance.instance_type)).map(|t| t.vcpus).sum();
        let cap = provider.scaling.max_vcpu_count;
        assert!(self.checks.is_none() || used <= cap, "I1: a launch makes it {used} vCPUs of {cap}");
    }

    pub(super) fn note_terminated(&mut self, instance: &Instance) {
        if self.checks.is_some() && instance.state == InstanceState::Running {
            let on =
                self.picture.environments.values().any(|environment| environment.instance == instance.id);
            assert!(!on, "an instance with environments was terminated");
        }
    }

    pub(super) fn check_delivery(&self, agent: usize, publication: PublicationId) {
        if self.checks.is_some() {
            let of = &self.agents[agent];
            assert_eq!(of.state, State::Ready, "I3: an invocation goes to an environment that is not ready");
            assert_eq!(of.publication, publication, "I3: an invocation goes to another publication");
            let has_free = of.slots.in_flight() < of.limit as usize;
            assert!(has_free, "I5: the gate chose {}, which has no free slot", of.id);
        }
    }

    pub(super) fn check_throttle(
        &self,
        publication: PublicationId,
        tried: &[EnvironmentId],
        cause: ThrottleCause,
    ) {
        if self.checks.is_none() {
            return;
        }
        let mut has_hot = false;
        for agent in self.alive.iter().map(|number| &self.agents[*number]) {
            if agent.state != State::Ready || agent.publication != publication || tried.contains(&agent.id) {
                continue;
            }
            let is_hot = agent.heat.is_some_and(|heat| heat.in_flight_max == 0);
            let is_full = agent.slots.in_flight() >= agent.limit as usize || is_hot;
            has_hot |= is_hot;
            let gave_up = tried.len() == ondol_core::gate::ATTEMPTS_MAX;
            assert!(is_full || gave_up, "I4: throttled though {} has a free slot", agent.id);
        }
        assert!(
            !tried.is_empty() || has_hot || cause == ThrottleCause::Concurrency,
            "I4: nothing was tried, so that nothing can be too hot"
        );
    }

    pub(super) fn check(&self, event: Event) {
        let Some(checks) = &self.checks else { return };
        // A large world is looked at as a whole now and then, a small one always.
        let is_whole = self.alive.len() <= SMALL || self.handled.is_multiple_of(64);
        if is_whole {
            self.gate.check();
        }
        match event {
            Event::CpuDone { agent, .. }
            | Event::Alarm { agent }
            | Event::Started { agent }
            | Event::Ended { agent } => self.check_agent(agent),
            Event::WaitDone { .. } | Event::Arrival { .. } | Event::Traced | Event::Retry { .. }
                if is_whole =>
            {
                self.alive.iter().for_each(|agent| self.check_agent(*agent));
            }
            Event::WaitDone { .. } | Event::Arrival { .. } | Event::Traced | Event::Retry { .. } => {}
            Event::Launched { .. } | Event::Sample | Event::Refresh | Event::Decide | Event::Fault { .. } => {
                self.check_capacity();
                self.check_counts(checks);
            }
        }
    }

    fn check_agent(&self, agent: usize) {
        let of = &self.agents[agent];
        if of.state == State::Ended {
            return;
        }
        of.slots.check();
        assert!(of.running.len() <= of.limit as usize, "I5: {} runs more at once than it may", of.id);
        let is_pictured = self.picture.environments.contains_key(&of.id);
        assert!(is_pictured, "I12: {} runs, and no control loop knows of it", of.id);
    }

    /// I1, I10, I13, and that every environment is where it is said to be.
    fn check_capacity(&self) {
        let mut used: BTreeMap<&str, u32> = BTreeMap::new();
        let mut taken: BTreeMap<&str, Need> = BTreeMap::new();
        for environment in self.picture.environments.values() {
            if matches!(environment.state, EnvironmentState::Ended { .. }) {
                continue;
            }
            let on = taken.entry(&environment.instance.0).or_insert(Need { vcpus: 0, memory_mib: 0 });
            on.vcpus += environment.need.vcpus;
            on.memory_mib += environment.need.memory_mib;
        }
        for instance in self.picture.instances.values() {
            let Some(found) = by_name(&instance.instance_type) else {
                panic!("an instance of no known type")
            };
            if matches!(instance.state, InstanceState::Launching | InstanceState::Running) {
                *used.entry(&instance.capacity_provider).or_default() += found.vcpus;
            }
            if let Some(on) = taken.get(instance.id.0.as_str()) {
                // As AWS has it, whatever the planner thinks: one vCPU and one GiB are kept.
                let room = Need { vcpus: found.vcpus - 1, memory_mib: found.memory_mib - 1_024 };
                assert!(
                    on.vcpus <= room.vcpus && on.memory_mib <= room.memory_mib,
                    "I10: {} has {on:?} on it, and room for {room:?} beside what it keeps",
                    instance.id
                );
            }
            let max_age = self.scenario.capacity.instance_max_age_seconds * SECOND_MICROS;
            let age = self.policy().0 - instance.launched_at.0;
            let grace =
                self.checks.as_ref().map_or(0, |checks| checks.healing_until.saturating_sub(self.now));
            assert!(age <= max_age + grace + REPLACE_MICROS, "I13: {} is {age} µs old", instance.id);
        }
        for provider in self.picture.providers.values() {
            let used = used.get(provider.name.as_str()).copied().unwrap_or(0);
            // What runs when the cap is lowered has some time to go.
            let is_lowered = self.checks.as_ref().is_some_and(|checks| checks.healing_until > self.now);
            let cap = provider.scaling.max_vcpu_count;
            assert!(used <= cap || is_lowered, "I1: {used} vCPUs of {cap}");
        }
    }

    /// I2 and I8.
    fn check_counts(&self, checks: &Checks) {
        if self.now < checks.healing_until || self.now < self.paused_until {
            return;
        }
        for version in self.picture.versions.values().filter(|version| version.state == VersionState::Active)
        {
            let (min, max) = (version.scaling.minimum(), version.scaling.max.unwrap_or(u32::MAX));
            let Some(serving) = &version.serving else { panic!("an Active version that nothing serves") };
            let mut ready = 0;
            let mut staying = 0;
            let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
            for agent in self.alive.iter().map(|number| &self.agents[*number]) {
                if agent.publication != serving.id {
                    continue;
                }
                ready += u32::from(agent.state == State::Ready);
                if !matches!(agent.state, State::Ready | State::Starting) || self.is_leaving(&agent.instance)
                {
                    continue;
                }
                staying += 1;
                *zones.entry(&agent.zone).or_default() += 1;
            }
            if version.applied_scaling == Some(version.scaling) && !checks.is_short {
                assert!(ready >= min, "I2: {} has {ready} ready, and Min is {min}", version.key());
                assert!(staying <= max, "I2: {} has {staying}, and Max is {max}", version.key());
            }
            let all_zones = self.scenario.capacity.availability_zones as usize;
            let is_coming = self.picture.instances.values().any(|i| i.state != InstanceState::Running);
            let has_room = self.picture.providers.values().all(|p| p.scaling.max_vcpu_count >= AMPLE_VCPUS);
            let is_even = checks.is_quiet && !checks.is_short && !is_coming && self.zones_lost.is_empty();
            if is_even && has_room && staying < max && ready == staying {
                let most = zones.values().max().copied().unwrap_or(0);
                let least =
                    if zones.len() < all_zones { 0 } else { zones.values().min().copied().unwrap_or(0) };
                assert!(most <= least + 1, "I8: {} is spread {zones:?}", version.key());
            }
        }
    }

    /// Old enough to be replaced, as far as can be told from outside.
    fn is_leaving(&self, instance: &str) -> bool {
        let max_age = self.scenario.capacity.instance_max_age_seconds * SECOND_MICROS;
        let found = self.picture.instances.values().find(|found| found.id.0 == instance);
        found.is_none_or(|found| (self.policy().0 - found.launched_at.0) * 10 >= max_age * 9)
    }

    /// After the last fault and without load: everything is as asked, and there is nothing left to do.
    pub fn check_settled(&self) {
        let Some(checks) = &self.checks else { return };
        assert!(checks.is_quiet, "liveness: the planner still has something to do");
        for version in self.picture.versions.values() {
            let wanted = match version.state {
                VersionState::Active => version.scaling.minimum(),
                VersionState::Deactivated => 0,
                VersionState::Failed => continue,
                state => panic!("liveness: {} is {state} still", version.key()),
            };
            let of =
                self.picture.environments.values().filter(|environment| environment.version == version.key());
            let count = u32::try_from(of.count()).unwrap_or(u32::MAX);
            let enough = if checks.is_short { true } else { count >= wanted };
            assert!(enough, "liveness: {} has {count} of {wanted}", version.key());
        }
        assert!(
            self.agents
                .iter()
                .enumerate()
                .all(|(number, agent)| { agent.state == State::Ended || self.alive.contains(&number) })
        );
    }
}
