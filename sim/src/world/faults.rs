//! What happens to the world on the way.

use ondol_core::capacity::{InstanceState, Memory};
use ondol_core::function::{LastUpdate, Reason, VersionState};
use ondol_core::identity::InstanceId;

use crate::scenario::What;
use crate::workload::micros;

use super::World;
use super::agent::State;

impl World {
    pub(super) fn happen(&mut self, what: &What) {
        self.note_fault();
        match what {
            What::ZoneLost { zone } => {
                let zone = zone_name(*zone);
                self.zones_lost.insert(zone.clone());
                let lost: Vec<InstanceId> = self
                    .picture
                    .instances
                    .values()
                    .filter(|instance| instance.availability_zone == zone)
                    .map(|instance| instance.id.clone())
                    .collect();
                lost.iter().for_each(|id| self.lose(id));
            }
            What::ZoneBack { zone } => drop(self.zones_lost.remove(&zone_name(*zone))),
            What::InstanceLost => {
                let count = self.picture.instances.len().max(1);
                let chosen = self.fate.below(count);
                if let Some(id) = self.picture.instances.keys().nth(chosen).cloned() {
                    self.lose(&id);
                }
            }
            What::EnvironmentLost { function } => {
                let mut of = self.alive.iter().filter(|agent| {
                    self.agents[**agent].function == *function && self.agents[**agent].state == State::Ready
                });
                if let Some(agent) = of.next().copied() {
                    self.agents[agent].because = Some(Reason::new("FunctionError", "its runtime ended"));
                    self.end(agent);
                }
            }
            What::Republish { function } => {
                let key = self.functions[*function].key.clone();
                let Some(version) = self.picture.versions.get(&key) else { return };
                if !matches!(version.state, VersionState::Active | VersionState::Pending) {
                    return;
                }
                let publication = self.publication(version.publication.configuration.clone());
                if let Some(version) = self.picture.versions.get_mut(&key) {
                    version.publication = publication;
                    version.last_update = LastUpdate::InProgress;
                }
            }
            What::ScalingConfig { function, min, max } => {
                let key = self.functions[*function].key.clone();
                if let Some(version) = self.picture.versions.get_mut(&key) {
                    version.set_scaling(ondol_core::function::ScalingConfig { min: *min, max: *max });
                    self.route(&key);
                }
            }
            What::MaxVcpuCount { max_vcpu_count } => {
                for provider in self.picture.providers.values_mut() {
                    provider.scaling.max_vcpu_count = *max_vcpu_count;
                }
            }
            What::Delete { function } => {
                let key = self.functions[*function].key.clone();
                if let Some(version) = self.picture.versions.get_mut(&key) {
                    version.state = VersionState::Deleting;
                    self.picture.functions_deleting.insert(key.function.clone());
                    self.route(&key);
                }
            }
            What::MemoryLost => self.memory = Memory::default(),
            What::ControlPaused { seconds } => self.paused_until = self.now + micros(seconds * 1e6),
            // The first keeps what is assigned then, the next brings it.
            What::StaleAssignment => match self.stale.take() {
                Some(stale) => self.deliver_stale(stale),
                None => self.keep_stale(),
            },
            What::LaunchFailures { share } => self.scenario.launch.failure_share = *share,
            What::StartFailures { share } => self.scenario.start.failure_share = *share,
            What::Slower { function, times } => self.functions[*function].times = *times,
            What::MemoryUsed { function, percent } => self.functions[*function].memory_percent = *percent,
        }
        self.decide_soon();
    }

    /// An instance is gone from one moment to the next, and every environment on it.
    fn lose(&mut self, id: &InstanceId) {
        let Some(instance) = self.picture.instances.get_mut(id) else { return };
        if matches!(instance.state, InstanceState::Launching) {
            instance.state =
                InstanceState::LaunchFailed(Reason::new("InsufficientCapacity", "the zone is gone"));
            return;
        }
        instance.state = InstanceState::Lost(Reason::new("InternalError", "it doesn't answer"));
        let on: Vec<usize> =
            self.alive.iter().filter(|agent| self.agents[**agent].instance == id.0).copied().collect();
        for agent in on {
            self.agents[agent].is_told = true;
            self.end(agent);
        }
    }
}

fn zone_name(zone: u32) -> String {
    let letter = char::from(b'a' + u8::try_from(zone % 26).unwrap_or(0));
    format!("us-east-1{letter}")
}
