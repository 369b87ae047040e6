//! Starting and draining execution environments of a publication, until there are as many as wanted.

use crate::capacity_provider::ProviderState;
use crate::function::{FunctionConfiguration, FunctionVersion, Publication, Reason};
use crate::identity::PublicationId;
use crate::place::Need;

use super::fleet::State;
use super::{Environment, EnvironmentState, Planner, Step};

/// Why a publication has fewer environments than wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    pub reason: Reason,
    /// It will pass by itself: an instance comes up, or what drains makes room.
    pub passes: bool,
    /// The capacity provider's cap is in the way.
    pub is_at_cap: bool,
}

impl Shortage {
    pub fn lasting(reason: Reason) -> Self {
        Self { reason, passes: false, is_at_cap: false }
    }
}

/// How the environments of a publication stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Ready or starting, on instances that stay, with those that wait for their instance.
    pub staying: u32,
    /// Ready or starting, on instances that are being replaced.
    pub leaving: u32,
    pub ready: u32,
    pub running: u32,
}

impl Planner<'_> {
    pub(super) fn count(&self, publication: PublicationId) -> Count {
        let mut count = Count {
            staying: self.fleet.group(publication).map_or(0, |group| group.kept),
            ..Count::default()
        };
        for (_, member) in self.fleet.members_of(publication).filter(|(_, member)| member.is_running()) {
            count.running += 1;
            count.ready += u32::from(member.state == State::Ready);
            if self.fleet.is_leaving(member) {
                count.leaving += 1;
            } else {
                count.staying += 1;
            }
        }
        count
    }

    /// What no amount of waiting would mend.
    pub(super) fn possible(&self, configuration: &FunctionConfiguration) -> Result<(), Reason> {
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
    pub(super) fn fill(
        &mut self,
        version: &FunctionVersion,
        publication: &Publication,
        wanted: u32,
        why: &str,
    ) -> Result<(), Shortage> {
        let staying = self.count(publication.id).staying;
        if staying >= wanted {
            return Ok(());
        }
        if let Some(failures) = self.memory.failures.get(&publication.id) {
            let retry_at = failures.retry_at;
            if retry_at > self.now {
                self.wake_at(retry_at);
                return Ok(());
            }
        }
        (staying..wanted).try_for_each(|have| self.start_one(version, publication, wanted - have, why))
    }

    /// In the zone with the fewest of the publication that has room, or can be given some.
    fn start_one(
        &mut self,
        version: &FunctionVersion,
        publication: &Publication,
        missing: u32,
        why: &str,
    ) -> Result<(), Shortage> {
        let configuration = &publication.configuration;
        let need = Need::of(configuration);
        let name = configuration.capacity_provider().unwrap_or_default();
        let is_there =
            |number: &usize| self.fleet.providers[*number].settings.state != ProviderState::Deleting;
        let Some(provider) = self.fleet.provider(name).filter(is_there) else {
            let text = format!("The capacity provider {name} doesn't exist or is being deleted.");
            return Err(Shortage::lasting(Reason::new("InvalidConfiguration", text)));
        };
        self.launch_initial(provider, need, missing)?;
        let fleet = &self.fleet;
        let in_zone = |zone: usize| fleet.group(publication.id).map_or(0, |group| group.in_zone(zone));
        let mut zones: Vec<usize> = (0..fleet.providers[provider].zones.len()).collect();
        zones.sort_by_key(|zone| (in_zone(*zone), *zone));
        let mut shortage = None;
        for zone in zones {
            match self.start_in_zone(version, publication, (provider, zone), need, missing, why) {
                Ok(()) => return Ok(()),
                Err(why_not) => shortage = shortage.or(Some(why_not)),
            }
        }
        let none = || {
            Shortage::lasting(Reason::new("InvalidConfiguration", "The capacity provider has no subnets."))
        };
        Err(shortage.unwrap_or_else(none))
    }

    /// On an instance with room, or on one that is about to have some: that one is waited for.
    fn start_in_zone(
        &mut self,
        version: &FunctionVersion,
        publication: &Publication,
        (provider, zone): (usize, usize),
        need: Need,
        missing: u32,
        why: &str,
    ) -> Result<(), Shortage> {
        let group = self.fleet.group(publication.id);
        let on_host = |host: usize| group.map_or(0, |group| group.on_host(host));
        let rooms = &self.fleet.providers[provider];
        if let Some(host) = rooms.now.best(zone, need, on_host) {
            self.start_on(version, publication, host, need, why);
            return Ok(());
        }
        let host = match rooms.soon.best(zone, need, on_host) {
            Some(host) => host,
            None => self.launch(provider, need, zone, missing.div_ceil(self.zones(provider)), 1)?,
        };
        self.fleet.keep(publication.id, host, need);
        Ok(())
    }

    pub(super) fn zones(&self, provider: usize) -> u32 {
        u32::try_from(self.fleet.providers[provider].zones.len()).unwrap_or(u32::MAX).max(1)
    }

    fn start_on(
        &mut self,
        version: &FunctionVersion,
        publication: &Publication,
        host: usize,
        need: Need,
        why: &str,
    ) {
        let id = self.new_environment();
        let instance = self.fleet.hosts[host].instance.id.clone();
        self.fleet.start(id, publication.id, host, need);
        let why = format!("{why}; placed on {instance}");
        let environment = Environment {
            version: version.key(),
            publication: publication.id,
            instance,
            need,
            state: EnvironmentState::Starting,
            signals: crate::signals::EnvironmentSignals::default(),
        };
        self.step(Step::StartEnvironment { id, environment }, why);
    }

    /// Drains what is over `wanted`: from the fullest zone, there those that have not started yet first, and then from the
    /// emptiest instance, so that zones stay balanced and instances become free.
    pub(super) fn drain_surplus(&mut self, publication: PublicationId, wanted: u32, why: &str) {
        let count = self.count(publication);
        let mut ready = count.ready;
        for _ in wanted..count.staying {
            let group = self.fleet.group(publication);
            let running = self
                .fleet
                .members_of(publication)
                .filter(|(_, member)| member.is_running() && !self.fleet.is_leaving(member));
            let last = running.max_by_key(|(_, member)| {
                let host = self.fleet.hosts.get(member.host);
                let in_zone = group.zip(host).map_or(0, |(group, host)| group.in_zone(host.zone));
                let members = host.map_or(0, |host| host.members);
                (in_zone, member.state == State::Starting, std::cmp::Reverse(members), member.id)
            });
            let Some((number, member)) = last else { return };
            if member.state == State::Ready {
                // One that starts is to take its place, and has not yet.
                if ready <= wanted {
                    return;
                }
                ready -= 1;
            }
            self.drain(&[number], why);
        }
    }

    /// Moves one environment from the fullest zone to the emptiest, where a fault or a full instance has left them
    /// uneven: one more is started, and when it is ready there is one too many where most are.
    pub(super) fn rebalance(&mut self, version: &FunctionVersion, publication: &Publication) {
        let configuration = &publication.configuration;
        let name = configuration.capacity_provider().unwrap_or_default();
        let (Some(provider), Some(group)) = (self.fleet.provider(name), self.fleet.group(publication.id))
        else {
            return;
        };
        let zones = 0..self.fleet.providers[provider].zones.len();
        let counts: Vec<(u32, usize)> = zones.map(|zone| (group.in_zone(zone), zone)).collect();
        let (Some(&(least, zone)), Some(&(most, _))) = (counts.iter().min(), counts.iter().max()) else {
            return;
        };
        if let Some(failures) = self.memory.failures.get(&publication.id).filter(|f| f.retry_at > self.now) {
            let retry_at = failures.retry_at;
            return self.wake_at(retry_at);
        }
        if most > least + 1 {
            let need = Need::of(configuration);
            // Where there is no room there is none: it is tried again with the next decision.
            let _ = self.start_in_zone(
                version,
                publication,
                (provider, zone),
                need,
                1,
                "its availability zones are uneven",
            );
        }
    }

    /// Drains environments on instances that are being replaced, as far as enough others are ready.
    pub(super) fn drain_leaving(&mut self, publication: PublicationId, wanted: u32) {
        let count = self.count(publication);
        let spare = count.ready.saturating_sub(wanted).min(count.leaving);
        self.drain_on_leaving(
            publication,
            spare as usize,
            "its instance is being replaced, and others are ready in its place",
        );
    }

    pub(super) fn drain_on_leaving(&mut self, publication: PublicationId, most: usize, why: &str) {
        let leaving: Vec<usize> = self
            .fleet
            .members_of(publication)
            .filter(|(_, member)| member.is_running() && self.fleet.is_leaving(member))
            .map(|(number, _)| number)
            .take(most)
            .collect();
        self.drain(&leaving, why);
    }
}
