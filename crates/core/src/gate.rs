//! Admission: which execution environment takes an invocation, or why none does.
//!
//! The gate is one shard's view of the slots its agent owns. It counts what it sent and hears what came
//! back; the agent has the last word. Saturated means throttled at once, as on AWS.
//!
//! Environments with a free slot stand before those without in their zone's list, so that an admission looks at a
//! few of them however many there are. Those that take nothing for now, being out of memory or disk, stand with the
//! latter: with nothing in flight they would be the first choice of every invocation.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::coins::Coins;
use crate::identity::{EnvironmentId, PublicationId};
use crate::lookup::Lookup;

/// Environments an invocation is offered to before it is throttled.
pub const ATTEMPTS_MAX: usize = 3;

/// Why an invocation was throttled: exactly one of AWS's four. The order tells which is said when several are so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ThrottleCause {
    Concurrency,
    Cpu,
    Memory,
    Disk,
}

impl ThrottleCause {
    pub const ALL: [Self; 4] = [Self::Concurrency, Self::Cpu, Self::Memory, Self::Disk];

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
        /// Its availability zone.
        zone: Arc<str>,
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
    /// It takes nothing for now, whatever slots it has, and why; none when it takes invocations again.
    Hot {
        environment: EnvironmentId,
        cause: Option<ThrottleCause>,
    },
}

#[derive(Debug)]
struct View {
    environment: EnvironmentId,
    publication: PublicationId,
    limit: u32,
    in_flight: u32,
    hot: Option<ThrottleCause>,
    /// Which of its publication's zones it is in, and its place in that zone's list.
    zone: usize,
    place: usize,
}

impl View {
    fn is_free(&self) -> bool {
        self.in_flight < self.limit && self.hot.is_none()
    }
}

/// The environments of one publication in one zone: those with a free slot first.
#[derive(Debug)]
struct Zone {
    name: Arc<str>,
    members: Vec<usize>,
    free: usize,
}

#[derive(Debug, Default)]
struct Group {
    zones: Vec<Zone>,
    in_flight: u32,
    slots: u32,
    /// Environments that take nothing, by cause.
    hot: [u32; ThrottleCause::ALL.len()],
}

impl Group {
    /// Why nothing of it takes an invocation.
    fn saturation(&self) -> ThrottleCause {
        let is_there = |cause: &ThrottleCause| self.hot[*cause as usize] > 0;
        ThrottleCause::ALL.into_iter().rev().find(is_there).unwrap_or(ThrottleCause::Concurrency)
    }
}

#[derive(Debug, Default)]
pub struct Gate {
    /// Views by number; those that are gone wait in `vacant` to be used again.
    views: Vec<View>,
    vacant: Vec<usize>,
    numbers: Lookup<EnvironmentId, usize>,
    groups: BTreeMap<PublicationId, Group>,
}

impl Gate {
    pub fn handle(&mut self, event: &Event) {
        match event {
            Event::Ready { environment, publication, zone, limit, .. } => {
                self.add(*environment, *publication, zone, *limit);
            }
            Event::Closed { environment } => self.remove(*environment),
            Event::SlotReleased { environment } => {
                let Some(&number) = self.numbers.get(environment) else { return };
                let view = &self.views[number];
                if view.in_flight > 0 {
                    self.count(number, view.in_flight - 1);
                }
            }
            Event::Hot { environment, cause } => {
                if let Some(&number) = self.numbers.get(environment) {
                    self.heat(number, *cause);
                }
            }
        }
    }

    /// Takes a slot: the less loaded of two picked by chance among those with a free one. `tried` are environments
    /// that refused this invocation already, [`ATTEMPTS_MAX`] at most: the next is of the same zone, if that has one.
    pub fn admit(
        &mut self,
        publication: PublicationId,
        tried: &[EnvironmentId],
        coins: &mut Coins,
    ) -> Result<EnvironmentId, ThrottleCause> {
        let group = self.groups.get(&publication).ok_or(ThrottleCause::Concurrency)?;
        let same_zone = tried.first().and_then(|first| self.numbers.get(first)).and_then(|number| {
            self.pick(std::slice::from_ref(&group.zones[self.views[*number].zone]), tried, coins)
        });
        let picked = same_zone.or_else(|| self.pick(&group.zones, tried, coins));
        let number = picked.ok_or_else(|| group.saturation())?;
        self.count(number, self.views[number].in_flight + 1);
        Ok(self.views[number].environment)
    }

    /// The less loaded of two that have a free slot and were not tried.
    fn pick(&self, zones: &[Zone], tried: &[EnvironmentId], coins: &mut Coins) -> Option<usize> {
        let free: usize = zones.iter().map(|zone| zone.free).sum();
        let at = |mut place: usize| {
            zones.iter().find_map(|zone| {
                let found = zone.members.get(place).filter(|_| place < zone.free).copied();
                place = place.saturating_sub(zone.free);
                found
            })
        };
        // The first at or after a place that was not tried: at most one more look for each that was.
        let untried = |place: usize| {
            (0..=tried.len().min(free))
                .filter_map(|step| at((place + step) % free))
                .find(|number| !tried.contains(&self.views[*number].environment))
        };
        if free == 0 {
            return None;
        }
        let pair = [untried(coins.below(free)), untried(coins.below(free))];
        pair.into_iter().flatten().min_by_key(|number| {
            let view = &self.views[*number];
            // Shares of limits, so that unequal environments fill alike.
            (u64::from(view.in_flight) * 1_000_000 / u64::from(view.limit.max(1)), view.environment)
        })
    }

    /// Invocations this gate has in flight for a publication, and its slots.
    pub fn load(&self, publication: PublicationId) -> (u32, u32) {
        self.groups.get(&publication).map_or((0, 0), |group| (group.in_flight, group.slots))
    }

    fn add(&mut self, environment: EnvironmentId, publication: PublicationId, zone: &Arc<str>, limit: u32) {
        self.remove(environment);
        let group = self.groups.entry(publication).or_default();
        let zone = group.zones.iter().position(|known| known.name == *zone).unwrap_or_else(|| {
            group.zones.push(Zone { name: Arc::clone(zone), members: Vec::new(), free: 0 });
            group.zones.len() - 1
        });
        group.slots += limit;
        let place = group.zones[zone].members.len();
        let view = View { environment, publication, limit, in_flight: 0, hot: None, zone, place };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.views[number] = view;
                number
            }
            None => {
                self.views.push(view);
                self.views.len() - 1
            }
        };
        group.zones[zone].members.push(number);
        self.numbers.insert(environment, number);
        if limit > 0 {
            self.free(number);
        }
    }

    fn remove(&mut self, environment: EnvironmentId) {
        let Some(number) = self.numbers.remove(&environment) else { return };
        self.heat(number, None);
        self.occupy(number);
        let View { publication, zone, place, limit, in_flight, .. } = self.views[number];
        let Some(group) = self.groups.get_mut(&publication) else { return };
        group.slots -= limit;
        group.in_flight -= in_flight;
        let members = &mut group.zones[zone].members;
        members.swap_remove(place);
        if let Some(moved) = members.get(place) {
            self.views[*moved].place = place;
        }
        if group.zones.iter().all(|zone| zone.members.is_empty()) {
            self.groups.remove(&publication);
        }
        self.vacant.push(number);
    }

    fn count(&mut self, number: usize, in_flight: u32) {
        let view = &mut self.views[number];
        let was_free = view.is_free();
        let before = std::mem::replace(&mut view.in_flight, in_flight);
        if let Some(group) = self.groups.get_mut(&view.publication) {
            group.in_flight = group.in_flight - before + in_flight;
        }
        self.place(number, was_free);
    }

    fn heat(&mut self, number: usize, cause: Option<ThrottleCause>) {
        let view = &mut self.views[number];
        let was_free = view.is_free();
        let before = std::mem::replace(&mut view.hot, cause);
        if let Some(group) = self.groups.get_mut(&view.publication) {
            before.into_iter().for_each(|cause| group.hot[cause as usize] -= 1);
            cause.into_iter().for_each(|cause| group.hot[cause as usize] += 1);
        }
        self.place(number, was_free);
    }

    /// Moves it to the side of its zone's list where it belongs now.
    fn place(&mut self, number: usize, was_free: bool) {
        match (was_free, self.views[number].is_free()) {
            (false, true) => self.free(number),
            (true, false) => self.occupy(number),
            _ => {}
        }
    }

    /// Moves it among those with a free slot.
    fn free(&mut self, number: usize) {
        self.exchange(number, |zone| {
            zone.free += 1;
            zone.free - 1
        });
    }

    /// Moves it behind those with a free slot, if it is not there yet.
    fn occupy(&mut self, number: usize) {
        let view = &self.views[number];
        let group = self.groups.get(&view.publication);
        if group.is_some_and(|group| view.place < group.zones[view.zone].free) {
            self.exchange(number, |zone| {
                zone.free -= 1;
                zone.free
            });
        }
    }

    fn exchange(&mut self, number: usize, with: impl FnOnce(&mut Zone) -> usize) {
        let (publication, zone, place) =
            (self.views[number].publication, self.views[number].zone, self.views[number].place);
        let Some(group) = self.groups.get_mut(&publication) else { return };
        let zone = &mut group.zones[zone];
        let other = with(zone);
        zone.members.swap(place, other);
        self.views[zone.members[place]].place = place;
        self.views[number].place = other;
    }

    /// Every invariant. Tests call it after each event.
    pub fn check(&self) {
        let mut listed = 0;
        for (publication, group) in &self.groups {
            let (mut in_flight, mut slots) = (0, 0);
            let mut hot = [0; ThrottleCause::ALL.len()];
            for (which, zone) in group.zones.iter().enumerate() {
                for (place, number) in zone.members.iter().enumerate() {
                    let view = &self.views[*number];
                    let id = view.environment;
                    assert!(view.in_flight <= view.limit, "{id} is over its limit");
                    view.hot.into_iter().for_each(|cause| hot[cause as usize] += 1);
                    assert_eq!(
                        (view.publication, view.zone, view.place),
                        (*publication, which, place),
                        "{id}"
                    );
                    assert_eq!(place < zone.free, view.is_free(), "{id} stands on the wrong side");
                    assert_eq!(self.numbers.get(&id), Some(number), "{id} is known by its number");
                    (in_flight, slots, listed) = (in_flight + view.in_flight, slots + view.limit, listed + 1);
                }
            }
            assert_eq!((group.in_flight, group.slots), (in_flight, slots), "{publication} is counted right");
            assert_eq!(group.hot, hot, "{publication}: what is hot is counted right");
        }
        assert_eq!(listed, self.numbers.len(), "every environment is listed once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PublicationId = PublicationId(1);

    fn ready(id: u128, zone: &str, limit: u32) -> Event {
        Event::Ready {
            environment: EnvironmentId(id),
            publication: P,
            zone: zone.into(),
            limit,
            is_on_demand: false,
        }
    }

    fn gate(environments: u128, limit: u32) -> Gate {
        let mut gate = Gate::default();
        for id in 0..environments {
            gate.handle(&ready(id, ["a", "b", "c"][id as usize % 3], limit));
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
    fn the_next_is_of_the_same_zone_and_then_of_any() {
        let (mut gate, mut coins) = (gate(6, 100), Coins::from_seed(5));
        for _ in 0..50 {
            assert_eq!(gate.admit(P, &[EnvironmentId(0)], &mut coins), Ok(EnvironmentId(3)));
            let other = gate.admit(P, &[EnvironmentId(0), EnvironmentId(3)], &mut coins).unwrap();
            assert!(![0, 3].contains(&other.0));
        }
    }

    #[test]
    fn what_takes_nothing_is_passed_over_and_named_when_there_is_nothing_else() {
        let (mut gate, mut coins) = (gate(4, 2), Coins::from_seed(4));
        let hot = |id, cause| Event::Hot { environment: EnvironmentId(id), cause };
        (0..3).for_each(|id| gate.handle(&hot(id, Some(ThrottleCause::Memory))));
        for _ in 0..2 {
            assert_eq!(gate.admit(P, &[], &mut coins), Ok(EnvironmentId(3)));
        }
        assert_eq!(gate.admit(P, &[], &mut coins), Err(ThrottleCause::Memory));
        gate.check();
        gate.handle(&hot(1, Some(ThrottleCause::Disk)));
        assert_eq!(gate.admit(P, &[], &mut coins), Err(ThrottleCause::Disk));
        gate.handle(&hot(1, None));
        assert_eq!(gate.admit(P, &[], &mut coins), Ok(EnvironmentId(1)));
        (0..3).for_each(|id| gate.handle(&Event::Closed { environment: EnvironmentId(id) }));
        assert_eq!(gate.admit(P, &[], &mut coins), Err(ThrottleCause::Concurrency));
        gate.check();
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

    #[test]
    fn any_order_of_events_keeps_the_lists_right() {
        for seed in 0..10_000 {
            let (mut gate, mut coins) = (Gate::default(), Coins::from_seed(seed));
            let mut in_flight: BTreeMap<EnvironmentId, u32> = BTreeMap::new();
            for _ in 0..60 {
                let id = EnvironmentId(coins.below(8) as u128);
                match coins.below(6) {
                    0 => {
                        let zone = ["a", "b", "c"][coins.below(3)];
                        gate.handle(&ready(id.0, zone, 1 + coins.below(3) as u32));
                        in_flight.insert(id, 0);
                    }
                    1 => {
                        gate.handle(&Event::Closed { environment: id });
                        in_flight.remove(&id);
                    }
                    2 => {
                        let cause = [None, Some(ThrottleCause::Memory), Some(ThrottleCause::Disk)];
                        gate.handle(&Event::Hot { environment: id, cause: cause[coins.below(3)] });
                    }
                    3 => {
                        gate.handle(&Event::SlotReleased { environment: id });
                        if let Some(count) = in_flight.get_mut(&id) {
                            *count = count.saturating_sub(1);
                        }
                    }
                    _ => {
                        if let Ok(admitted) = gate.admit(P, &[id], &mut coins) {
                            assert_ne!(admitted, id, "seed {seed}");
                            *in_flight.get_mut(&admitted).unwrap() += 1;
                        }
                    }
                }
                gate.check();
                assert_eq!(gate.load(P).0, in_flight.values().sum::<u32>(), "seed {seed}");
            }
        }
    }
}
