//! A version's life: Pending, Active, replaced by the next, Deactivated, Deleting; and how many environments it has.

use crate::function::{FunctionVersion, LastUpdate, Publication, Reason, VersionState};
use crate::scale;
use crate::signals::{Limits, Traffic, heat};

use super::environments::Shortage;
use super::fleet::State;
use super::{
    FORGIVE_SECONDS, Failures, Planner, RETRY_SECONDS, START_FAILURES_MAX, Scaling, Step, VersionChange,
};

/// Below this the machine has no CPU left to speak of.
const MACHINE_IDLE_MILLIS_MIN: u32 = 100;

impl Planner<'_> {
    pub(super) fn versions(&mut self) {
        let picture = self.picture;
        // A version that has less than its minimum comes before one that wants more than that.
        let has_minimum = |version: &FunctionVersion| {
            let serving = version.serving.as_ref().unwrap_or(&version.publication);
            self.count(serving.id).running >= version.scaling.minimum()
        };
        let mut ordered: Vec<_> = picture.versions.iter().map(|(key, v)| (has_minimum(v), key, v)).collect();
        ordered.sort_by_key(|(has_minimum, _, _)| *has_minimum);
        for (_, key, version) in ordered {
            if version.publication.configuration.is_on_demand() {
                continue;
            }
            match version.state {
                VersionState::Deleting | VersionState::Failed => {
                    self.drain_all(version, "the version is not to run");
                }
                VersionState::Deactivating => {
                    self.drain_all(version, "the scaling config sets Min and Max to 0");
                    if self.fleet.of_version(key).next().is_none() {
                        self.change(
                            version,
                            VersionChange::Deactivated,
                            "its last execution environment ended",
                        );
                    }
                }
                VersionState::Deactivated if !version.scaling.deactivates() => {
                    self.change(version, VersionChange::Reactivate, "the scaling config is not 0 any more");
                }
                VersionState::Deactivated => {}
                VersionState::Pending | VersionState::Active if version.scaling.deactivates() => {
                    self.change(
                        version,
                        VersionChange::Deactivate,
                        "the scaling config sets Min and Max to 0",
                    );
                }
                VersionState::Pending | VersionState::Active => self.keep_running(version),
            }
        }
    }

    /// Brings a version to what it wants: of the publication that is to serve, and of the one that serves until then.
    fn keep_running(&mut self, version: &FunctionVersion) {
        let minimum = version.scaling.minimum();
        let wanted = &version.publication;
        let (target, why) = self.target(version);
        // First, so that what is not needed any more makes room for what is.
        self.drain_stale(version);
        for publication in self.current(version) {
            self.drain_surplus(publication.id, target, &why);
        }
        // What is not Active serves nobody, whatever served before.
        let serving = version
            .serving
            .as_ref()
            .filter(|_| version.is_rolling_over() && version.state == VersionState::Active);
        if let Some(serving) = serving {
            if let Err(shortage) = self.fill(version, serving, minimum, &why) {
                self.replace_at_cap(serving, &shortage);
                self.unmet_below(version, serving, minimum, shortage);
            }
        }
        if matches!(version.last_update, LastUpdate::Failed(_)) && version.state == VersionState::Active {
            if let Some(serving) = serving {
                self.fill_for_load(version, serving, target, &why);
                self.forgive(serving);
                self.apply_scaling(version, serving, target);
            }
            return;
        }
        let is_new = version.state == VersionState::Pending
            || version.serving.as_ref().is_none_or(|serving| serving.id != wanted.id);
        if let Err(reason) = self.possible(&wanted.configuration) {
            return self.fail(version, is_new, reason);
        }
        let mut shortage = self.fill(version, wanted, minimum, &why).err();
        if let Some(short) = &mut shortage {
            self.replace_at_cap(wanted, short);
            short.passes |= serving.is_some_and(|serving| self.make_way(serving, wanted, minimum, short));
        } else {
            // Both have their minimum: now what the load wants.
            for publication in serving.into_iter().chain([wanted]) {
                let short = self.fill_for_load(version, publication, target, &why);
                shortage = shortage.or(short);
            }
        }
        let count = self.count(wanted.id);
        // Where there is no room for all, the new publication takes over with its minimum.
        let enough =
            if shortage.as_ref().is_some_and(|shortage| !shortage.passes) { minimum } else { target };
        let failures = self.memory.failures.get(&wanted.id).cloned();
        if count.ready >= enough.max(minimum) {
            self.forgive(wanted);
            if is_new {
                self.change(version, VersionChange::Activate, "its minimum execution environments are ready");
            } else {
                self.apply_scaling(version, wanted, target);
            }
            let is_settled = count.staying == target && count.ready == target && count.running == target;
            if is_settled && !is_new && version.scaling.max.is_none_or(|max| target < max) {
                self.rebalance(version, wanted);
            }
            return;
        }
        if count.ready >= minimum && !is_new {
            // It has what was promised; what it wants beyond that is told by its scaling.
            return;
        }
        let gives_up = |failures: &Failures| is_new && failures.count >= START_FAILURES_MAX;
        if let Some(failures) = failures.clone().filter(gives_up) {
            self.fail(version, is_new, failures.last);
        } else if let Some(shortage) = shortage {
            // Room that is about to come is worth waiting for.
            if is_new && !shortage.passes {
                return self.fail(version, is_new, shortage.reason);
            }
            self.unmet(version, shortage.reason);
        } else if let Some(failures) = failures {
            self.unmet(version, failures.last);
        }
    }

    /// Starts that have gone well for long enough wipe the failures out.
    fn forgive(&mut self, publication: &Publication) {
        let failures = self.memory.failures.get(&publication.id);
        if failures.is_some_and(|failures| self.now.seconds_since(failures.retry_at) >= FORGIVE_SECONDS) {
            self.memory.failures.remove(&publication.id);
        }
    }

    fn apply_scaling(&mut self, version: &FunctionVersion, serving: &Publication, target: u32) {
        let count = self.count(serving.id);
        let is_met = count.running == target && count.ready >= version.scaling.minimum();
        if version.applied_scaling != Some(version.scaling) && is_met {
            let why = "as many execution environments run as asked for";
            self.change(version, VersionChange::ApplyScaling, why);
        }
    }

    /// Brings a publication to what its load wants; says why it can't.
    fn fill_for_load(
        &mut self,
        version: &FunctionVersion,
        publication: &Publication,
        target: u32,
        why: &str,
    ) -> Option<Shortage> {
        let shortage = self.fill(version, publication, target, why).err();
        if let Some(short) = &shortage {
            if let Some(scaling) = self.plan.scaling.get_mut(&version.key()) {
                scaling.blocked = Some(short.reason.clone());
            }
            self.replace_at_cap(publication, short);
        }
        self.drain_leaving(publication.id, target);
        shortage
    }

    /// How many environments the version is to have, and the why for people.
    fn target(&mut self, version: &FunctionVersion) -> (u32, String) {
        let minimum = version.scaling.minimum();
        let key = version.key();
        let Some(serving) = version.serving.as_ref().filter(|_| version.state == VersionState::Active) else {
            self.memory.scaling.remove(&key);
            return (minimum, "the minimum is not reached".into());
        };
        let load = self.load(serving);
        let provider = serving.configuration.capacity_provider().and_then(|name| self.fleet.provider(name));
        let policy = scale::Policy {
            min: minimum,
            max: version.scaling.max.unwrap_or(u32::MAX),
            cpu_target_hundredths: provider.map_or(scale::AUTO_CPU_TARGET_HUNDREDTHS, |number| {
                scale::Policy::cpu_target(&self.fleet.providers[number].settings.scaling)
            }),
            zones: provider.map_or(1, |number| self.zones(number)),
        };
        let memory = self.memory.scaling.entry(key.clone()).or_default();
        let config_changed = version.applied_scaling != Some(version.scaling);
        let (wanted, why) = scale::decide(&load, memory, policy, config_changed, self.now);
        if why.what == scale::What::Waiting {
            self.wake_at(self.now.plus_seconds(scale::SCALE_IN_EVERY_SECONDS));
        }
        let (running, ready) = (load.running, load.ready);
        let scaling =
            Scaling { wanted, running, ready, min: minimum, max: version.scaling.max, blocked: None, why };
        self.plan.scaling.insert(key, scaling);
        let text = if wanted == minimum && running < minimum {
            "the minimum is not reached".to_owned()
        } else {
            format!("{wanted} are wanted: {why}")
        };
        (wanted, text)
    }

    fn load(&self, serving: &Publication) -> scale::Load {
        let traffic: Traffic = self.picture.traffic.get(&serving.id).copied().unwrap_or_default();
        let mut load = scale::Load {
            publication: Some(serving.id),
            slots_each: serving.configuration.concurrency(),
            machine_has_cpu: self.picture.machine.signals.cpu_idle_millis >= MACHINE_IDLE_MILLIS_MIN,
            traffic,
            ..scale::Load::default()
        };
        let limits = Limits::of(&serving.configuration);
        let mut measured = 0;
        for (_, member) in self.fleet.members_of(serving.id).filter(|(_, member)| member.is_running()) {
            load.running += 1;
            let Some(seen) = member.seen.filter(|_| member.state == State::Ready) else { continue };
            if heat(&seen.signals, limits, None).is_some_and(|heat| heat.in_flight_max == 0) {
                load.refusing += 1;
                continue;
            }
            load.ready += 1;
            measured += u64::from(seen.signals.cpu_available_millis > 0);
            load.sampled_at = load.sampled_at.max(seen.signals.sampled_at);
            load.in_flight_hundredths += u64::from(seen.signals.in_flight_hundredths);
            load.cpu_used_millis += u64::from(seen.signals.cpu_used_millis);
            load.cpu_available_millis += u64::from(seen.signals.cpu_available_millis);
        }
        // What has just become ready, and was not measured yet, will have as much as the others.
        load.cpu_available_millis = load.cpu_available_millis * u64::from(load.ready) / measured.max(1);
        load
    }

    /// The publications that may run: the one that serves, and the one that is to, unless it failed.
    fn current<'v>(&self, version: &'v FunctionVersion) -> Vec<&'v Publication> {
        let wanted = match version.last_update {
            LastUpdate::Failed(_) => None,
            _ => Some(&version.publication),
        };
        let serving = version.serving.as_ref().filter(|serving| {
            version.state == VersionState::Active && wanted.is_none_or(|wanted| wanted.id != serving.id)
        });
        wanted.into_iter().chain(serving).collect()
    }

    /// Publications that neither serve nor are wanted end.
    fn drain_stale(&mut self, version: &FunctionVersion) {
        let current = self.current(version);
        let stale: Vec<usize> = self
            .fleet
            .of_version(&version.key())
            .filter(|(_, member)| member.is_running())
            .filter(|(_, member)| current.iter().all(|publication| publication.id != member.publication))
            .map(|(number, _)| number)
            .collect();
        self.drain(&stale, "a newer publication took over");
    }

    fn drain_all(&mut self, version: &FunctionVersion, why: &str) {
        let running: Vec<usize> = self
            .fleet
            .of_version(&version.key())
            .filter(|(_, member)| member.is_running())
            .map(|(number, _)| number)
            .collect();
        self.drain(&running, why);
    }

    /// At the cap nothing can be launched beside an instance that is to be replaced: it is drained first, and not
    /// before all others are ready, so that no second one goes while those in place of the first one start.
    fn replace_at_cap(&mut self, publication: &Publication, shortage: &Shortage) {
        let count = self.count(publication.id);
        if shortage.is_at_cap && count.ready >= count.staying + count.leaving {
            let why = "its instance is being replaced, and MaxVCpuCount leaves no room for another beside it: it is drained first";
            self.drain_on_leaving(publication.id, usize::MAX, why);
        }
    }

    /// Where the cap has no room for the minimum of a new publication, the one that serves shrinks to its own minimum.
    fn make_way(
        &mut self,
        serving: &Publication,
        wanted: &Publication,
        minimum: u32,
        shortage: &Shortage,
    ) -> bool {
        let have = self.count(wanted.id).staying;
        let running = self.count(serving.id).staying;
        if !shortage.is_at_cap || have >= minimum || running <= minimum {
            return false;
        }
        let least = running.saturating_sub(minimum - have).max(minimum);
        let why = "MaxVCpuCount has no room beside it for the publication that is to take over";
        // What has to wait for a start to finish gives way then.
        self.drain_surplus(serving.id, least, why);
        true
    }

    fn unmet_below(
        &mut self,
        version: &FunctionVersion,
        serving: &Publication,
        minimum: u32,
        shortage: Shortage,
    ) {
        if self.count(serving.id).ready < minimum {
            self.unmet(version, shortage.reason);
        }
    }

    fn unmet(&mut self, version: &FunctionVersion, reason: Reason) {
        self.plan.unmet.insert(version.key(), reason);
        self.wake_at(self.now.plus_seconds(RETRY_SECONDS));
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

    fn change(&mut self, version: &FunctionVersion, change: VersionChange, why: impl Into<String>) {
        let step = Step::SetVersion { key: version.key(), publication: version.publication.id, change };
        self.step(step, why);
    }
}
