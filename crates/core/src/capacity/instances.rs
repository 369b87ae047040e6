//! Instances: launching, replacing, repairing, ending.

use std::cmp::Reverse;

use crate::capacity_provider::ProviderState;
use crate::function::Reason;
use crate::identity::InstanceId;
use crate::place::{Need, OVERHEAD_MEMORY_MIB, OVERHEAD_VCPUS, choose_type};
use crate::time::PolicyTime;

use super::environments::Shortage;
use super::fleet::{Provider, State};
use super::{EMPTY_INSTANCE_SECONDS, Failures, Instance, InstanceState, Planner, Step};

/// Of a capacity provider's instances, at most so many are replaced at the same time, and one always.
const REPLACED_AT_ONCE_PERCENT: usize = 10;
/// Replacement begins early, so that it is over at the maximum age: between 2 and 8 % before, by the instance's id,
/// so that what was launched together is not replaced together.
const EARLY_PERMILLE_MIN: u64 = 20;
const EARLY_PERMILLE_SPREAD: u64 = 60;

impl Planner<'_> {
    pub(super) fn providers(&mut self) {
        let picture = self.picture;
        for provider in picture.providers.values().filter(|p| p.state == ProviderState::Pending) {
            self.step(
                Step::ActivateProvider { name: provider.name.clone() },
                "its settings are valid; instances launch with the first publish",
            );
        }
    }

    /// Launches that failed, and instances that are gone with what ran on them.
    pub(super) fn instances_that_ended(&mut self) {
        for number in 0..self.fleet.hosts.len() {
            let instance = self.fleet.hosts[number].instance.clone();
            let zone = (instance.capacity_provider.clone(), instance.availability_zone.clone());
            match instance.state {
                InstanceState::Launching => {}
                InstanceState::Running => {
                    // What came up after a failure ends the waiting.
                    if self
                        .memory
                        .launch_failures
                        .get(&zone)
                        .is_some_and(|f| instance.launched_at >= f.retry_at)
                    {
                        self.memory.launch_failures.remove(&zone);
                    }
                }
                InstanceState::LaunchFailed(reason) => {
                    let failures =
                        Failures::after(self.memory.launch_failures.get(&zone), reason.clone(), self.now);
                    let why = format!("its launch failed: {}", reason.text);
                    self.memory.launch_failures.insert(zone, failures);
                    self.step(Step::TerminateInstance { id: instance.id }, why);
                }
                InstanceState::Lost(reason) => {
                    for member in self.members_on(number) {
                        self.fleet.lose(member);
                        let id = self.fleet.members[member].id;
                        self.step(Step::ForgetEnvironment { id }, "its instance was lost");
                    }
                    let why = format!("it was lost: {}", reason.text);
                    self.step(Step::TerminateInstance { id: instance.id }, why);
                }
            }
        }
        let waiting: Vec<PolicyTime> =
            self.memory.launch_failures.values().map(|f| f.retry_at).filter(|at| *at > self.now).collect();
        waiting.into_iter().for_each(|at| self.wake_at(at));
    }

    fn members_on(&self, host: usize) -> Vec<usize> {
        let members = self.fleet.members.iter().enumerate();
        members.filter(|(_, m)| m.host == host && m.state != State::Gone).map(|(number, _)| number).collect()
    }

    /// Chooses which instances are being replaced: those whose time comes first, a few at a time.
    pub(super) fn instances_too_old(&mut self) {
        let max_age = self.picture.settings.instance_age_seconds_max;
        for provider in 0..self.fleet.providers.len() {
            let mut due: Vec<(PolicyTime, usize)> = Vec::new();
            let mut next: Option<PolicyTime> = None;
            let mut running = 0;
            for (number, host) in self.fleet.hosts.iter().enumerate() {
                if host.provider != provider || host.instance.state != InstanceState::Running {
                    continue;
                }
                running += 1;
                let at = due_at(&host.instance, max_age);
                if at <= self.now {
                    due.push((at, number));
                } else {
                    next = Some(next.map_or(at, |earlier| earlier.min(at)));
                }
            }
            next.into_iter().for_each(|at| self.wake_at(at));
            due.sort_unstable();
            let at_once = (running * REPLACED_AT_ONCE_PERCENT / 100).max(1);
            for (_, number) in due.into_iter().take(at_once) {
                self.fleet.leave(number, "it reached its maximum age");
            }
            self.over_the_cap(provider);
        }
    }

    /// A cap that was lowered holds for what runs too: the instances with the fewest environments leave.
    fn over_the_cap(&mut self, provider: usize) {
        let Provider { vcpus_used, settings, .. } = &self.fleet.providers[provider];
        let mut over = vcpus_used.saturating_sub(settings.scaling.max_vcpu_count);
        if over == 0 {
            return;
        }
        let hosts = self.fleet.hosts.iter().enumerate().filter(|(_, host)| {
            host.provider == provider && !host.is_gone && host.instance.state == InstanceState::Running
        });
        let mut hosts: Vec<(u32, Reverse<PolicyTime>, usize, u32)> = hosts
            .map(|(number, host)| (host.members, Reverse(host.instance.launched_at), number, host.vcpus))
            .collect();
        hosts.sort_unstable();
        for (_, _, number, vcpus) in hosts {
            if over == 0 {
                return;
            }
            over = over.saturating_sub(vcpus);
            if self.fleet.hosts[number].leaves.is_none() {
                self.fleet.leave(number, "MaxVCpuCount was lowered");
            }
        }
    }

    /// One instance in each zone before the first environment, as far as the cap allows.
    pub(super) fn launch_initial(
        &mut self,
        provider: usize,
        need: Need,
        missing: u32,
    ) -> Result<(), Shortage> {
        if self.fleet.providers[provider].instances > 0 {
            return Ok(());
        }
        let zones = self.fleet.providers[provider].zones.len();
        for zone in 0..zones {
            let share = u32::try_from(zones - zone).unwrap_or(1);
            if let Err(shortage) =
                self.launch(provider, need, zone, missing.div_ceil(self.zones(provider)), share)
            {
                // Fewer zones than wanted is less redundancy; none at all is a failure.
                let any = self.fleet.providers[provider].instances > 0;
                if zone + 1 == zones || shortage.is_at_cap {
                    return if any { Ok(()) } else { Err(shortage) };
                }
            }
        }
        Ok(())
    }

    /// Asks for an instance that holds what is missing in a zone, of the vCPUs left the fair part of `share` launches.
    pub(super) fn launch(
        &mut self,
        provider: usize,
        need: Need,
        zone: usize,
        missing: u32,
        share: u32,
    ) -> Result<usize, Shortage> {
        let settings = self.fleet.providers[provider].settings;
        let zone_name = self.fleet.providers[provider].zones[zone].clone();
        let key = (settings.name.clone(), zone_name.clone());
        if let Some(failures) = self.memory.launch_failures.get(&key).filter(|f| f.retry_at > self.now) {
            return Err(Shortage { reason: failures.last.clone(), passes: true, is_at_cap: false });
        }
        let used = self.fleet.providers[provider].vcpus_used;
        let left = settings.scaling.max_vcpu_count.saturating_sub(used);
        let types = settings.requirements.types();
        let fair = left / share.max(1);
        let chosen =
            choose_type(&types, need, missing, fair).or_else(|| choose_type(&types, need, missing, left));
        let Some(instance_type) = chosen else {
            let is_at_cap = choose_type(&types, need, missing, u32::MAX).is_some();
            let reason = if is_at_cap {
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
            };
            let passes = is_at_cap && self.fleet.providers[provider].draining > 0;
            return Err(Shortage { reason, passes, is_at_cap });
        };
        let instance = Instance {
            id: InstanceId::from_random(self.coins.flip(), self.coins.flip()),
            capacity_provider: settings.name.clone(),
            instance_type: instance_type.name.to_owned(),
            availability_zone: zone_name,
            subnet_id: settings.subnet_ids.get(zone).cloned().unwrap_or_default(),
            launched_at: self.now,
            state: InstanceState::Launching,
        };
        let number = self.fleet.launch(instance.clone());
        let why = format!("{used} of {} vCPU were used", settings.scaling.max_vcpu_count);
        self.step(Step::LaunchInstance(instance), why);
        Ok(number)
    }

    /// Instances without environments end: at once if they are too old or their provider goes, else after a while.
    pub(super) fn empty_instances(&mut self) {
        let hosts = &self.fleet.hosts;
        self.memory.empty_since.retain(|id, _| self.picture.instances.contains_key(id));
        for host in hosts.iter().filter(|host| host.members > 0 || host.kept > 0 || host.is_gone) {
            self.memory.empty_since.remove(&host.instance.id);
        }
        for number in 0..self.fleet.hosts.len() {
            let host = &self.fleet.hosts[number];
            let is_up = host.instance.state == InstanceState::Running;
            if host.members > 0 || host.kept > 0 || host.is_gone || !is_up {
                continue;
            }
            let provider = self.fleet.providers.get(host.provider);
            let provider_ends = provider.is_none_or(|p| p.settings.state == ProviderState::Deleting);
            let (id, leaves) = (host.instance.id.clone(), host.leaves);
            let since = *self.memory.empty_since.entry(id.clone()).or_insert(self.now);
            let why = if provider_ends {
                "its capacity provider is being deleted"
            } else if let Some(why) = leaves {
                why
            } else if self.now.seconds_since(since) >= EMPTY_INSTANCE_SECONDS {
                "no execution environment is left on it"
            } else {
                self.wake_at(since.plus_seconds(EMPTY_INSTANCE_SECONDS));
                continue;
            };
            self.memory.empty_since.remove(&id);
            self.fleet.remove_host(number);
            self.step(Step::TerminateInstance { id }, why);
        }
    }
}

/// When an instance's replacement begins.
fn due_at(instance: &Instance, max_age_seconds: u64) -> PolicyTime {
    let hash = instance.id.0.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let early_permille = EARLY_PERMILLE_MIN + (hash >> 32) % EARLY_PERMILLE_SPREAD;
    let age_micros = max_age_seconds.saturating_mul(1_000 - early_permille).saturating_mul(1_000);
    PolicyTime(instance.launched_at.0.saturating_add(age_micros))
}
