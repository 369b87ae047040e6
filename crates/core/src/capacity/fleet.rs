//! What there is, numbered and indexed for one decision: a step costs the same however large the fleet is.

use std::collections::{BTreeMap, BTreeSet};

use crate::capacity_provider::{CapacityProvider, availability_zones};
use crate::function::VersionKey;
use crate::identity::{EnvironmentId, InstanceId, PublicationId};
use crate::instance_type::by_name;
use crate::lookup::Lookup;
use crate::place::{Need, Rooms, room_of};

use super::{Environment, EnvironmentState, Instance, InstanceState, Picture, default_pool};

/// Where environments of the default pool are: on no instance.
pub const NOWHERE: usize = usize::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready,
    Draining,
    /// Over, and forgotten by this plan.
    Gone,
}

#[derive(Debug)]
pub struct Member<'a> {
    pub id: EnvironmentId,
    pub publication: PublicationId,
    pub need: Need,
    pub host: usize,
    pub state: State,
    /// As pictured; none of one that this plan starts.
    pub seen: Option<&'a Environment>,
}

impl Member<'_> {
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Starting | State::Ready)
    }
}

#[derive(Debug)]
pub struct Host {
    pub instance: Instance,
    pub provider: usize,
    pub zone: usize,
    pub vcpus: u32,
    /// What is left beside its environments and those it is kept for.
    pub room: Need,
    /// Environments on it, whatever their state.
    pub members: u32,
    pub kept: u32,
    /// Nothing more is placed on it, and why: it is being replaced, or is over the cap.
    pub leaves: Option<&'static str>,
    pub is_gone: bool,
}

#[derive(Debug)]
pub struct Provider<'a> {
    pub settings: &'a CapacityProvider,
    pub zones: Vec<String>,
    pub vcpus_used: u32,
    pub instances: u32,
    /// Environments that are about to leave room.
    pub draining: u32,
    /// Room on instances that run, and on those that are about to.
    pub now: Rooms,
    pub soon: Rooms,
}

/// The environments of one publication.
#[derive(Debug, Default)]
pub struct Group {
    pub members: Vec<usize>,
    /// Running ones that stay, by zone and by instance, with those that wait for their instance.
    pub in_zone: Vec<u32>,
    on_host: Lookup<usize, u32>,
    /// Places kept on instances that are being launched.
    pub kept: u32,
}

#[derive(Debug)]
pub struct Fleet<'a> {
    pub providers: Vec<Provider<'a>>,
    provider_numbers: BTreeMap<&'a str, usize>,
    pub hosts: Vec<Host>,
    pub members: Vec<Member<'a>>,
    groups: Lookup<PublicationId, Group>,
    /// Environments in the default pool.
    pub pool: Vec<usize>,
    versions: Lookup<&'a VersionKey, Vec<usize>>,
}

impl<'a> Fleet<'a> {
    pub fn of(picture: &'a Picture) -> Self {
        let providers = picture.providers.values().map(|settings| {
            let zones = availability_zones(&picture.region, &settings.subnet_ids);
            let (now, soon) = (Rooms::new(zones.len()), Rooms::new(zones.len()));
            Provider { settings, zones, vcpus_used: 0, instances: 0, draining: 0, now, soon }
        });
        let mut fleet = Self {
            providers: providers.collect(),
            provider_numbers: picture.providers.keys().map(String::as_str).zip(0..).collect(),
            hosts: Vec::with_capacity(picture.instances.len()),
            members: Vec::with_capacity(picture.environments.len()),
            groups: Lookup::default(),
            pool: Vec::new(),
            versions: Lookup::default(),
        };
        let mut numbers: Lookup<&str, usize> = Lookup::default();
        for instance in picture.instances.values() {
            numbers.insert(&instance.id.0, fleet.hosts.len());
            fleet.add_host(instance.clone());
        }
        let pool = default_pool();
        for (id, environment) in &picture.environments {
            let state = match &environment.state {
                EnvironmentState::Starting => State::Starting,
                EnvironmentState::Ready => State::Ready,
                EnvironmentState::Draining => State::Draining,
                EnvironmentState::Ended { .. } => State::Gone,
            };
            let is_pooled = environment.instance == pool;
            let host = numbers.get(environment.instance.0.as_str()).copied().unwrap_or(NOWHERE);
            let number = fleet.members.len();
            fleet.members.push(Member {
                id: *id,
                publication: environment.publication,
                need: environment.need,
                host,
                state,
                seen: Some(environment),
            });
            fleet.versions.entry(&environment.version).or_default().push(number);
            if is_pooled {
                fleet.pool.push(number);
            } else {
                fleet.take_up(number);
            }
        }
        fleet.offer_rooms();
        fleet
    }

    pub fn provider(&self, name: &str) -> Option<usize> {
        self.provider_numbers.get(name).copied()
    }

    pub fn add_host(&mut self, instance: Instance) -> usize {
        let number = self.hosts.len();
        let provider = self.provider(&instance.capacity_provider).unwrap_or(NOWHERE);
        let found = by_name(&instance.instance_type);
        let is_up = matches!(instance.state, InstanceState::Launching | InstanceState::Running);
        let mut zone = NOWHERE;
        if let Some(provider) = self.providers.get_mut(provider) {
            zone = provider.zones.iter().position(|z| *z == instance.availability_zone).unwrap_or(NOWHERE);
            if is_up {
                provider.vcpus_used += found.map_or(0, |t| t.vcpus);
                provider.instances += 1;
            }
        }
        self.hosts.push(Host {
            instance,
            provider,
            zone,
            vcpus: found.map_or(0, |t| t.vcpus),
            room: found.map_or(Need { vcpus: 0, memory_mib: 0 }, |t| room_of(&t)),
            members: 0,
            kept: 0,
            leaves: None,
            is_gone: !is_up,
        });
        number
    }

    /// Counts an environment on its instance and in its group.
    fn take_up(&mut self, number: usize) {
        let Member { publication, host, need, state, .. } = self.members[number];
        let group = self.groups.entry(publication).or_default();
        group.members.push(number);
        if state == State::Gone {
            return;
        }
        let Some(host_of) = self.hosts.get_mut(host) else { return };
        host_of.members += 1;
        host_of.room.vcpus = host_of.room.vcpus.saturating_sub(need.vcpus);
        host_of.room.memory_mib = host_of.room.memory_mib.saturating_sub(need.memory_mib);
        if state == State::Draining {
            if let Some(provider) = self.providers.get_mut(host_of.provider) {
                provider.draining += 1;
            }
        } else {
            group.count(host_of.zone, host, 1);
        }
    }

    fn offer_rooms(&mut self) {
        for number in 0..self.hosts.len() {
            self.offer(number);
        }
    }

    /// Lets environments be placed on an instance.
    fn offer(&mut self, number: usize) {
        let host = &self.hosts[number];
        let Some(provider) = self.providers.get_mut(host.provider) else { return };
        if !host.is_gone && host.leaves.is_none() {
            let rooms = match host.instance.state {
                InstanceState::Running => &mut provider.now,
                _ => &mut provider.soon,
            };
            rooms.change(host.zone, number, None, Some(host.room));
        }
    }

    /// Places nothing more on an instance, and does not count on what it has.
    pub fn leave(&mut self, number: usize, why: &'static str) {
        let host = &mut self.hosts[number];
        host.leaves = Some(why);
        if let Some(provider) = self.providers.get_mut(host.provider) {
            provider.now.change(host.zone, number, Some(host.room), None);
            provider.soon.change(host.zone, number, Some(host.room), None);
        }
        let zone = host.zone;
        for group in self.groups.values_mut() {
            group.leave(zone, number);
        }
    }

    /// Instances that are being replaced, and are not gone yet.
    pub fn leaving(&self) -> BTreeSet<InstanceId> {
        let leaving = self.hosts.iter().filter(|host| host.leaves.is_some() && !host.is_gone);
        leaving.map(|host| host.instance.id.clone()).collect()
    }

    /// It is gone: nothing of it counts any more.
    pub fn remove_host(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        if std::mem::replace(&mut host.is_gone, true) {
            return;
        }
        if let Some(provider) = self.providers.get_mut(host.provider) {
            provider.vcpus_used -= host.vcpus;
            provider.instances -= 1;
            provider.now.change(host.zone, number, Some(host.room), None);
            provider.soon.change(host.zone, number, Some(host.room), None);
        }
    }

    pub fn launch(&mut self, instance: Instance) -> usize {
        let number = self.add_host(instance);
        self.offer(number);
        number
    }

    /// Takes room on an instance for one more of a publication: for an environment, or for one to come when the
    /// instance is up.
    fn occupy(&mut self, publication: PublicationId, host: usize, need: Need) {
        let place = &mut self.hosts[host];
        let before = place.room;
        place.room.vcpus = before.vcpus.saturating_sub(need.vcpus);
        place.room.memory_mib = before.memory_mib.saturating_sub(need.memory_mib);
        if let Some(provider) = self.providers.get_mut(place.provider) {
            let rooms = match place.instance.state {
                InstanceState::Running => &mut provider.now,
                _ => &mut provider.soon,
            };
            rooms.change(place.zone, host, Some(before), Some(place.room));
        }
        let zone = place.zone;
        self.groups.entry(publication).or_default().count(zone, host, 1);
    }

    pub fn start(&mut self, id: EnvironmentId, publication: PublicationId, host: usize, need: Need) {
        let number = self.members.len();
        self.members.push(Member { id, publication, need, host, state: State::Starting, seen: None });
        if host == NOWHERE {
            self.pool.push(number);
            return;
        }
        self.occupy(publication, host, need);
        self.hosts[host].members += 1;
        self.groups.entry(publication).or_default().members.push(number);
    }

    pub fn keep(&mut self, publication: PublicationId, host: usize, need: Need) {
        self.occupy(publication, host, need);
        self.hosts[host].kept += 1;
        self.groups.entry(publication).or_default().kept += 1;
    }

    /// Its room is free only when it has ended.
    pub fn drain(&mut self, number: usize) -> EnvironmentId {
        let Member { id, publication, host, state, .. } = self.members[number];
        self.members[number].state = State::Draining;
        if let Some(on) = self.hosts.get(host) {
            if let Some(provider) = self.providers.get_mut(on.provider) {
                provider.draining += 1;
            }
            let counted = matches!(state, State::Starting | State::Ready) && on.leaves.is_none();
            if let Some(group) = self.groups.get_mut(&publication).filter(|_| counted) {
                group.count(on.zone, host, -1);
            }
        }
        id
    }

    /// What was on an instance that is gone ended with it.
    pub fn lose(&mut self, number: usize) {
        let Member { publication, host, state, .. } = self.members[number];
        self.members[number].state = State::Gone;
        let Some(on) = self.hosts.get_mut(host) else { return };
        on.members = on.members.saturating_sub(1);
        if matches!(state, State::Starting | State::Ready) {
            if let Some(group) = self.groups.get_mut(&publication) {
                group.count(on.zone, host, -1);
            }
        }
    }

    pub fn group(&self, publication: PublicationId) -> Option<&Group> {
        self.groups.get(&publication)
    }

    pub fn members_of(&self, publication: PublicationId) -> impl Iterator<Item = (usize, &Member<'a>)> {
        let group = self.groups.get(&publication);
        group.into_iter().flat_map(|group| &group.members).map(|number| (*number, &self.members[*number]))
    }

    /// Whether an environment is on an instance that is being replaced.
    pub fn is_leaving(&self, member: &Member) -> bool {
        self.hosts.get(member.host).is_some_and(|host| host.leaves.is_some())
    }

    /// Pictured environments of a version that are not over, of all its publications.
    pub fn of_version(&self, key: &VersionKey) -> impl Iterator<Item = (usize, &Member<'a>)> {
        let numbers = self.versions.get(key).into_iter().flatten();
        numbers
            .map(|number| (*number, &self.members[*number]))
            .filter(|(_, member)| member.state != State::Gone)
    }
}

impl Group {
    fn count(&mut self, zone: usize, host: usize, by: i32) {
        if zone == NOWHERE {
            return;
        }
        if self.in_zone.len() <= zone {
            self.in_zone.resize(zone + 1, 0);
        }
        self.in_zone[zone] = self.in_zone[zone].saturating_add_signed(by);
        let on_host = self.on_host.entry(host).or_default();
        *on_host = on_host.saturating_add_signed(by);
    }

    fn leave(&mut self, zone: usize, host: usize) {
        if let (Some(count), Some(in_zone)) = (self.on_host.remove(&host), self.in_zone.get_mut(zone)) {
            *in_zone -= count;
        }
    }

    pub fn on_host(&self, host: usize) -> u32 {
        self.on_host.get(&host).copied().unwrap_or(0)
    }

    pub fn in_zone(&self, zone: usize) -> u32 {
        self.in_zone.get(zone).copied().unwrap_or(0)
    }
}
