//! Lambda (default) functions: one environment for each invocation that waits, none for what is idle too long.

use std::collections::BTreeSet;

use crate::function::{Publication, Reason, VersionKey};
use crate::identity::{EnvironmentId, PublicationId};
use crate::on_demand::Whom;
use crate::place::Need;

use super::fleet::{NOWHERE, State};
use super::{Environment, EnvironmentState, NO_ROOM, Planner, REPLACED, Step, default_pool};

impl Planner<'_> {
    pub(super) fn on_demand(&mut self) {
        let picture = self.picture;
        let current: BTreeSet<PublicationId> = picture.on_demand.keys().copied().collect();
        let replaced = self.pooled(|_, publication| !current.contains(&publication));
        self.drain(&replaced, "its function was deleted or updated");
        let idle = self.pooled(|id, _| picture.demand.retired.contains(&id));
        self.drain(&idle, "it was idle for too long");
        for (publication, waiting) in &picture.demand.waiting {
            let publication = *publication;
            let Some((version, wanted)) = picture.on_demand.get(&publication) else {
                let reason = Reason::new(REPLACED, "The function was deleted or updated.");
                let why = "nothing of this publication is started any more";
                self.step(Step::Refuse { publication, reason, whom: Whom::All }, why);
                continue;
            };
            // Those whose start has just failed have been told, though the demand does not say so yet.
            let failed = picture.environments.values().filter(|e| {
                e.publication == publication
                    && matches!(e.state, EnvironmentState::Ended { settled: false, .. })
            });
            let waiting = waiting.saturating_sub(failed.count());
            let starting = self.fleet.pool.iter().filter(|number| {
                let member = &self.fleet.members[**number];
                member.publication == publication && member.state == State::Starting
            });
            for started in starting.count()..waiting {
                match self.start_on_demand(version, wanted) {
                    Ok(()) => {}
                    Err(reason) if reason.code == NO_ROOM => {
                        self.make_room(publication, waiting - started, wanted, reason);
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

    /// Running environments of the default pool.
    fn pooled(&self, of: impl Fn(EnvironmentId, PublicationId) -> bool) -> Vec<usize> {
        let pool = self.fleet.pool.iter().copied();
        pool.filter(|number| {
            let member = &self.fleet.members[*number];
            member.is_running() && of(member.id, member.publication)
        })
        .collect()
    }

    fn pool_memory_mib(&self, of: impl Fn(State) -> bool) -> u64 {
        let members = self.fleet.pool.iter().map(|number| &self.fleet.members[*number]);
        members.filter(|m| m.state != State::Gone && of(m.state)).map(|m| m.need.memory_mib).sum()
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
        let need = u64::from(wanted.configuration.memory_size_mib);
        let limit = self.picture.machine.on_demand_memory_mib;
        let over = (self.pool_memory_mib(|_| true) + need).saturating_sub(limit);
        let mut coming = self.pool_memory_mib(|state| state == State::Draining);
        let mut leaving = Vec::new();
        for id in &self.picture.demand.idle {
            if coming >= over {
                break;
            }
            let found = self.fleet.pool.iter().map(|number| &self.fleet.members[*number]);
            if let Some(idle) = found.into_iter().find(|m| m.id == *id && m.state == State::Ready) {
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

    fn start_on_demand(&mut self, version: &VersionKey, wanted: &Publication) -> Result<(), Reason> {
        self.possible(&wanted.configuration)?;
        let need = Need::of(&wanted.configuration);
        let promised = self.pool_memory_mib(|_| true);
        let limit = self.picture.machine.on_demand_memory_mib;
        if promised + need.memory_mib > limit {
            let text = format!(
                "The default pool has no room for {} MB more: {promised} of {limit} MB are promised to other execution environments.",
                need.memory_mib
            );
            return Err(Reason::new(NO_ROOM, text));
        }
        let id = self.new_environment();
        self.fleet.start(id, wanted.id, NOWHERE, need);
        let environment = Environment {
            version: version.clone(),
            publication: wanted.id,
            instance: default_pool(),
            need,
            state: EnvironmentState::Starting,
            signals: crate::signals::EnvironmentSignals::default(),
        };
        self.step(Step::StartEnvironment { id, environment }, "an invocation waits for it");
        Ok(())
    }

    pub(super) fn new_environment(&mut self) -> EnvironmentId {
        EnvironmentId(u128::from(self.coins.flip()) << 64 | u128::from(self.coins.flip()))
    }
}
