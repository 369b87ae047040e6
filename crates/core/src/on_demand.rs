//! Lambda (default) functions: which waiting invocation gets which execution environment, how many are wanted,
//! and which have been idle for too long.
//!
//! One pool serves all invoke threads. An environment takes one request at a time; the one that was used last is
//! used next, so that those of a past peak grow old and end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::identity::{EnvironmentId, PublicationId};
use crate::time::WallTime;

/// An invocation that waits, as its thread knows it.
pub type Ticket = u64;

/// Where an environment is: the invoke thread it lives on.
pub type Place = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    pub ticket: Ticket,
    pub environment: EnvironmentId,
    pub place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Idle { since: WallTime },
    Busy,
}

#[derive(Debug)]
struct Member {
    publication: PublicationId,
    place: Place,
    is: Use,
}

/// What the pool wants of the control loop: level-triggered, the whole of it each time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Invocations that wait for an environment to start.
    pub waiting: BTreeMap<PublicationId, usize>,
    /// Environments that nobody uses, the one unused for longest first.
    pub idle: Vec<EnvironmentId>,
    /// Environments that get nothing more and are to end.
    pub retired: BTreeSet<EnvironmentId>,
}

/// Which of the invocations that wait are answered without an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whom {
    /// The one that waits longest.
    Oldest,
    /// So many of those that came last.
    Newest(usize),
    All,
}

#[derive(Debug, Default)]
pub struct Pool {
    members: BTreeMap<EnvironmentId, Member>,
    /// Idle environments, the one used last at the end.
    idle: BTreeMap<PublicationId, Vec<EnvironmentId>>,
    waiting: BTreeMap<PublicationId, VecDeque<Ticket>>,
    retired: BTreeSet<EnvironmentId>,
}

impl Pool {
    /// An invocation comes: it gets an idle environment at once, or waits under its ticket.
    pub fn arrive(&mut self, publication: PublicationId, ticket: Ticket) -> Option<Given> {
        let taken = self.idle.get_mut(&publication).and_then(Vec::pop);
        self.tidy(publication);
        let Some(environment) = taken else {
            self.waiting.entry(publication).or_default().push_back(ticket);
            return None;
        };
        let member = self.members.get_mut(&environment)?;
        member.is = Use::Busy;
        Some(Given { ticket, environment, place: member.place })
    }

    /// An environment asked for its first invocation.
    pub fn ready(
        &mut self,
        now: WallTime,
        environment: EnvironmentId,
        publication: PublicationId,
        place: Place,
    ) -> Option<Given> {
        self.members.insert(environment, Member { publication, place, is: Use::Busy });
        self.freed(now, environment)
    }

    /// An environment has answered: who waited longest gets it.
    pub fn freed(&mut self, now: WallTime, environment: EnvironmentId) -> Option<Given> {
        let member = self.members.get_mut(&environment)?;
        let (publication, place) = (member.publication, member.place);
        let next = self.waiting.get_mut(&publication).and_then(VecDeque::pop_front);
        let given = match next {
            Some(ticket) => {
                member.is = Use::Busy;
                Some(Given { ticket, environment, place })
            }
            None if matches!(member.is, Use::Idle { .. }) => None,
            None => {
                member.is = Use::Idle { since: now };
                self.idle.entry(publication).or_default().push(environment);
                None
            }
        };
        self.tidy(publication);
        given
    }

    /// An environment takes nothing more.
    pub fn closed(&mut self, environment: EnvironmentId) {
        self.retired.remove(&environment);
        let Some(member) = self.members.remove(&environment) else { return };
        if let Some(idle) = self.idle.get_mut(&member.publication) {
            idle.retain(|one| *one != environment);
        }
        self.tidy(member.publication);
    }

    /// Whether an environment is of this pool.
    pub fn has(&self, environment: EnvironmentId) -> bool {
        self.members.contains_key(&environment)
    }

    /// An invocation waits no more. False if it had been given an environment already.
    pub fn leave(&mut self, publication: PublicationId, ticket: Ticket) -> bool {
        let Some(queue) = self.waiting.get_mut(&publication) else { return false };
        let before = queue.len();
        queue.retain(|waiting| *waiting != ticket);
        let left = queue.len() < before;
        self.tidy(publication);
        left
    }

    /// Invocations that wait no longer, as their environments do not come.
    pub fn refused(&mut self, publication: PublicationId, whom: Whom) -> Vec<Ticket> {
        let Some(queue) = self.waiting.get_mut(&publication) else { return Vec::new() };
        let told = match whom {
            Whom::Oldest => queue.drain(..1.min(queue.len())).collect(),
            Whom::Newest(count) => queue.drain(queue.len().saturating_sub(count)..).collect(),
            Whom::All => queue.drain(..).collect(),
        };
        self.tidy(publication);
        told
    }

    /// Retires what has been idle for so long.
    pub fn expire(&mut self, now: WallTime, idle_seconds: u64) {
        let old: Vec<EnvironmentId> = self
            .members
            .iter()
            .filter(|(_, member)| match member.is {
                Use::Idle { since } => now.0.saturating_sub(since.0) >= idle_seconds * 1_000_000,
                Use::Busy => false,
            })
            .map(|(environment, _)| *environment)
            .collect();
        for environment in old {
            self.closed(environment);
            self.retired.insert(environment);
        }
    }

    /// Retires those of these that are idle: their room is wanted.
    pub fn retire(&mut self, environments: &[EnvironmentId]) {
        for environment in environments {
            let idle = |member: &Member| matches!(member.is, Use::Idle { .. });
            if self.members.get(environment).is_some_and(idle) {
                self.closed(*environment);
                self.retired.insert(*environment);
            }
        }
    }

    /// The retired ones among these are over, and need no ending any more.
    pub fn forget_retired(&mut self, living: impl Fn(EnvironmentId) -> bool) {
        self.retired.retain(|environment| living(*environment));
    }

    pub fn demand(&self) -> Demand {
        let waiting = self.waiting.iter().map(|(publication, queue)| (*publication, queue.len())).collect();
        let mut idle: Vec<(WallTime, EnvironmentId)> = self
            .members
            .iter()
            .filter_map(|(environment, member)| match member.is {
                Use::Idle { since } => Some((since, *environment)),
                Use::Busy => None,
            })
            .collect();
        idle.sort();
        let idle = idle.into_iter().map(|(_, environment)| environment).collect();
        Demand { waiting, idle, retired: self.retired.clone() }
    }

    fn tidy(&mut self, publication: PublicationId) {
        if self.waiting.get(&publication).is_some_and(VecDeque::is_empty) {
            self.waiting.remove(&publication);
        }
        if self.idle.get(&publication).is_some_and(Vec::is_empty) {
            self.idle.remove(&publication);
        }
    }

    /// Every invariant. Tests call it after each event.
    pub fn check(&self) {
        for (publication, idle) in &self.idle {
            assert!(!idle.is_empty(), "no empty lists are kept");
            assert!(!self.waiting.contains_key(publication), "nobody waits beside an idle environment");
            for environment in idle {
                let member = &self.members[environment];
                assert_eq!(member.publication, *publication);
                assert!(matches!(member.is, Use::Idle { .. }));
            }
        }
        let idle = self.members.values().filter(|member| matches!(member.is, Use::Idle { .. })).count();
        assert_eq!(idle, self.idle.values().map(Vec::len).sum::<usize>(), "each idle one is listed once");
        assert!(self.waiting.values().all(|queue| !queue.is_empty()));
        assert!(self.retired.iter().all(|environment| !self.members.contains_key(environment)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coins::Coins;

    const P: PublicationId = PublicationId(1);

    fn e(number: u128) -> EnvironmentId {
        EnvironmentId(number)
    }

    fn at(seconds: u64) -> WallTime {
        WallTime(seconds * 1_000_000)
    }

    #[test]
    fn who_waits_longest_is_served_first_and_what_was_used_last_is_used_next() {
        let mut pool = Pool::default();
        assert_eq!((pool.arrive(P, 1), pool.arrive(P, 2)), (None, None));
        assert_eq!(pool.demand().waiting, BTreeMap::from([(P, 2)]));
        assert_eq!(pool.ready(at(0), e(1), P, 3), Some(Given { ticket: 1, environment: e(1), place: 3 }));
        assert_eq!(pool.ready(at(0), e(2), P, 0).unwrap().ticket, 2);
        assert_eq!((pool.freed(at(1), e(1)), pool.freed(at(2), e(2))), (None, None));
        assert_eq!(pool.arrive(P, 3).unwrap().environment, e(2));
        pool.check();
    }

    #[test]
    fn what_is_idle_for_long_is_retired_and_never_given_again() {
        let mut pool = Pool::default();
        pool.ready(at(0), e(1), P, 0);
        pool.expire(at(9), 10);
        assert!(pool.demand().retired.is_empty());
        pool.expire(at(10), 10);
        assert_eq!(pool.demand().retired, BTreeSet::from([e(1)]));
        assert_eq!(pool.arrive(P, 1), None);
        pool.forget_retired(|_| false);
        assert!(pool.demand().retired.is_empty());
        pool.check();
    }

    #[test]
    fn a_failed_start_is_told_to_one_and_an_impossible_one_to_all() {
        let mut pool = Pool::default();
        for ticket in 1..=3 {
            pool.arrive(P, ticket);
        }
        assert_eq!(pool.refused(P, Whom::Oldest), [1]);
        assert_eq!(pool.refused(P, Whom::Newest(1)), [3]);
        assert_eq!(pool.refused(P, Whom::All), [2]);
        assert!(pool.refused(P, Whom::All).is_empty());
        assert!(!pool.leave(P, 3));
        pool.check();
    }

    /// Whatever happens in whatever order, an environment never has two invocations, and none is lost.
    #[test]
    fn random_histories() {
        for seed in 0..300 {
            let mut coins = Coins::from_seed(seed);
            let mut pool = Pool::default();
            let mut waiting: BTreeSet<Ticket> = BTreeSet::new();
            let mut busy: BTreeMap<EnvironmentId, Ticket> = BTreeMap::new();
            let mut living: BTreeSet<EnvironmentId> = BTreeSet::new();
            let (mut tickets, mut environments) = (0, 0);
            for now in 0..300 {
                let publication = PublicationId(1 + coins.below(2) as u128);
                let given = match coins.below(6) {
                    0 | 1 => {
                        tickets += 1;
                        waiting.insert(tickets);
                        pool.arrive(publication, tickets)
                    }
                    2 => {
                        environments += 1;
                        living.insert(e(environments));
                        pool.ready(at(now), e(environments), publication, 0)
                    }
                    3 => match busy.keys().next().copied() {
                        Some(environment) => {
                            busy.remove(&environment);
                            pool.freed(at(now), environment)
                        }
                        None => None,
                    },
                    4 => {
                        if let Some(environment) = living.iter().next().copied() {
                            living.remove(&environment);
                            busy.remove(&environment);
                            pool.closed(environment);
                        }
                        None
                    }
                    _ => {
                        if let Some(ticket) = waiting.iter().next().copied() {
                            for publication in [PublicationId(1), PublicationId(2)] {
                                pool.leave(publication, ticket);
                            }
                            waiting.remove(&ticket);
                        }
                        pool.expire(at(now), 40);
                        None
                    }
                };
                if let Some(given) = given {
                    assert!(waiting.remove(&given.ticket), "seed {seed}: {given:?} did not wait");
                    assert!(busy.insert(given.environment, given.ticket).is_none(), "seed {seed}: {given:?}");
                    assert!(living.contains(&given.environment), "seed {seed}");
                }
                let demanded: usize = pool.demand().waiting.values().sum();
                assert_eq!(demanded, waiting.len(), "seed {seed}");
                pool.check();
            }
        }
    }
}
