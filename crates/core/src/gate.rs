//! Admission: which execution environment takes an invocation, or why none does.
//!
//! The gate is one shard's view of the slots its agent owns. It counts what it sent and hears what came
//! back; the agent has the last word. Saturated means throttled at once, as on AWS.

use std::collections::BTreeMap;

use crate::coins::Coins;
use crate::identity::{EnvironmentId, PublicationId};

/// Why an invocation was throttled: exactly one of AWS's four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThrottleCause {
    Concurrency,
    Cpu,
    Memory,
    Disk,
}

impl ThrottleCause {
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Ready {
        environment: EnvironmentId,
        publication: PublicationId,
        limit: u32,
        /// Of a Lambda (default) function: it is the pool's, and no gate's.
        is_on_demand: bool,
    },
    /// No new invocations: draining or ended.
    Closed {
        environment: EnvironmentId,
    },
    SlotReleased {
        environment: EnvironmentId,
    },
}

#[derive(Debug)]
struct View {
    publication: PublicationId,
    limit: u32,
    in_flight: u32,
}

#[derive(Debug, Default)]
pub struct Gate {
    environments: BTreeMap<EnvironmentId, View>,
    publications: BTreeMap<PublicationId, Vec<EnvironmentId>>,
}

impl Gate {
    pub fn handle(&mut self, event: &Event) {
        match *event {
            Event::Ready { environment, publication, limit, .. } => {
                let view = View { publication, limit, in_flight: 0 };
                if self.environments.insert(environment, view).is_none() {
                    self.publications.entry(publication).or_default().push(environment);
                }
            }
            Event::Closed { environment } => {
                let Some(view) = self.environments.remove(&environment) else { return };
                if let Some(list) = self.publications.get_mut(&view.publication) {
                    list.retain(|listed| *listed != environment);
                    if list.is_empty() {
                        self.publications.remove(&view.publication);
                    }
                }
            }
            Event::SlotReleased { environment } => {
                if let Some(view) = self.environments.get_mut(&environment) {
                    view.in_flight = view.in_flight.saturating_sub(1);
                }
            }
        }
    }

    /// Takes a slot: the less loaded of two picked by chance, or any free one when both are full.
    /// `tried` are environments that refused this invocation already.
    pub fn admit(
        &mut self,
        publication: PublicationId,
        tried: &[EnvironmentId],
        coins: &mut Coins,
    ) -> Result<EnvironmentId, ThrottleCause> {
        let list = self.publications.get(&publication).map(Vec::as_slice).unwrap_or_default();
        let free = |id: &EnvironmentId| {
            let view = self.environments.get(id)?;
            (view.in_flight < view.limit && !tried.contains(id)).then_some(view.in_flight)
        };
        let start = coins.below(list.len());
        let other = coins.below(list.len());
        let pair = [list.get(start), list.get(other)];
        let best = pair.into_iter().flatten().filter_map(|id| free(id).map(|load| (load, *id))).min();
        let chosen = best.map(|(_, id)| id).or_else(|| {
            let around = list.iter().skip(start).chain(list.iter().take(start));
            around.copied().find(|id| free(id).is_some())
        });
        let chosen = chosen.ok_or(ThrottleCause::Concurrency)?;
        if let Some(view) = self.environments.get_mut(&chosen) {
            view.in_flight += 1;
        }
        Ok(chosen)
    }

    /// Invocations this gate has in flight for a publication, and its slots.
    pub fn load(&self, publication: PublicationId) -> (u32, u32) {
        let views = self
            .publications
            .get(&publication)
            .into_iter()
            .flatten()
            .filter_map(|id| self.environments.get(id));
        views.fold((0, 0), |(used, all), view| (used + view.in_flight, all + view.limit))
    }

    /// Every invariant. Tests call it after each event.
    pub fn check(&self) {
        for (id, view) in &self.environments {
            assert!(view.in_flight <= view.limit, "{id} is over its limit");
            let listed = self.publications.get(&view.publication).is_some_and(|list| list.contains(id));
            assert!(listed, "{id} is not listed under its publication");
        }
        let listed: usize = self.publications.values().map(Vec::len).sum();
        assert_eq!(listed, self.environments.len(), "every listed environment is known, once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PublicationId = PublicationId(1);

    fn gate(environments: u128, limit: u32) -> Gate {
        let mut gate = Gate::default();
        for id in 0..environments {
            gate.handle(&Event::Ready {
                environment: EnvironmentId(id),
                publication: P,
                limit,
                is_on_demand: false,
            });
        }
        gate
    }

    #[test]
    fn throttles_exactly_when_every_slot_is_taken() {
        for seed in 0..50 {
            let (mut gate, mut coins) = (gate(3, 5), Coins::from_seed(seed));
            for _ in 0..15 {
                assert!(gate.admit(P, &[], &mut coins).is_ok(), "seed {seed}");
                gate.check();
            }
            assert_eq!(gate.load(P), (15, 15));
            assert_eq!(gate.admit(P, &[], &mut coins), Err(ThrottleCause::Concurrency));
            gate.handle(&Event::SlotReleased { environment: EnvironmentId(2) });
            assert_eq!(gate.admit(P, &[], &mut coins), Ok(EnvironmentId(2)), "seed {seed}");
        }
    }

    #[test]
    fn what_refused_is_not_asked_again_and_what_closed_is_forgotten() {
        let (mut gate, mut coins) = (gate(2, 9), Coins::from_seed(1));
        for _ in 0..5 {
            assert_eq!(gate.admit(P, &[EnvironmentId(0)], &mut coins), Ok(EnvironmentId(1)));
        }
        gate.handle(&Event::Closed { environment: EnvironmentId(1) });
        gate.check();
        assert_eq!(gate.admit(P, &[EnvironmentId(0)], &mut coins), Err(ThrottleCause::Concurrency));
        assert!(gate.admit(PublicationId(2), &[], &mut coins).is_err());
    }

    #[test]
    fn load_spreads() {
        let (mut gate, mut coins) = (gate(4, 100), Coins::from_seed(3));
        let mut counts = [0; 4];
        for _ in 0..200 {
            counts[gate.admit(P, &[], &mut coins).unwrap().0 as usize] += 1;
        }
        assert!(counts.iter().all(|count| (40..=60).contains(count)), "{counts:?}");
    }
}
