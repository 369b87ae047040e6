//! The queue of events as decisions: which event is next, when it is tried again, and how it ends.
//!
//! A machine without a clock. Events wait in *lanes* (a function and qualifier, or a destination), and lanes take
//! turns, so that a long queue of one keeps nobody else waiting. A lane has a *window* of attempts at the same time:
//! answers widen it, a throttle halves it, and a lane that is throttled with nothing else under way pauses. So a
//! backlog is worked off at the pace the function can take, whatever sets that pace.
//!
//! An attempt holds a *lease*, which is renewed for as long as it lives; an event whose lease lapses is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::{PolicyTime, WallTime};

/// The place of an event in the store's queue.
pub type EventId = u64;

/// Attempts at the same time, over all lanes.
pub const ATTEMPTS_MAX: usize = 2_048;
/// Payload bytes of all attempts together.
pub const PAYLOAD_BYTES_MAX: u64 = 256 << 20;
/// An attempt that is not renewed for so long is taken for lost.
pub const LEASE_MILLIS: u64 = 30_000;
/// How long a destination that takes nothing is tried. The longest age of an event, as AWS has it.
pub const AGE_SECONDS_MAX: u32 = 21_600;
const RETRIES_MAX: u32 = 2;

const WINDOW_START: usize = 8;
/// A lane may have this part of all attempts, and of all payload bytes.
const LANE_SHARE: usize = 4;
const WINDOW_MAX: usize = ATTEMPTS_MAX / LANE_SHARE;
/// The first retry after a function error comes after a minute, the second after two. Source: AWS's page on
/// asynchronous invocation.
const ERROR_DELAY_SECONDS: u64 = 60;
/// Throttles and faults are tried again after 1 s, doubling up to 5 minutes. Same source.
const THROTTLE_DELAY_SECONDS_MAX: u64 = 300;

/// Both clocks at one moment: delays and ages go by policy time, leases by wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub policy: PolicyTime,
    pub wall: WallTime,
}

/// How an event is tried again, by its function's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Retries after function errors.
    pub retries: u32,
    pub age_seconds: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { retries: RETRIES_MAX, age_seconds: AGE_SECONDS_MAX }
    }
}

/// What is left of an event's earlier attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tries {
    /// Attempts that the function answered with an error, or that found no function.
    pub errors: u32,
    /// Attempts that never reached the function, or that nobody could carry out.
    pub throttles: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub lane: Arc<str>,
    pub payload_bytes: u64,
    /// What its age counts from.
    pub since: PolicyTime,
    /// Not before this.
    pub due: PolicyTime,
    pub tries: Tries,
}

/// One attempt at an event, as it was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub id: EventId,
    pub token: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Attempt(Claim),
    /// It has become older than it may; to be settled as [`Condition::EventAgeExceeded`].
    Expired(EventId),
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    FunctionError,
    /// No capacity for it now.
    Throttled,
    /// A fault of this side, or of what a destination needs.
    Unavailable,
    /// It will never be taken, and why.
    Refused(Condition),
}

/// Why an event was given up. The words are AWS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    RetriesExhausted,
    EventAgeExceeded,
    /// The function's reserved concurrency is 0.
    ZeroReservedConcurrency,
    /// Destinations send it round in circles.
    RecursiveInvocation,
}

impl Condition {
    pub fn name(self) -> &'static str {
        match self {
            Self::RetriesExhausted => "RetriesExhausted",
            Self::EventAgeExceeded => "EventAgeExceeded",
            Self::ZeroReservedConcurrency => "ZeroReservedConcurrency",
            Self::RecursiveInvocation => "RecursiveInvocation",
        }
    }
}

/// What becomes of an event after an attempt. It stays out of the queue until the shell has made it last and says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Done,
    Again { due: PolicyTime, tries: Tries },
    Over(Condition, Tries),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running {
        token: u64,
        lease_until: WallTime,
    },
    /// Its attempt is over, and what follows is being written.
    Settling,
}

#[derive(Debug)]
struct Known {
    event: Event,
    phase: Phase,
}

#[derive(Debug)]
struct LaneState {
    /// All of its events, whatever they are at.
    events: usize,
    waiting: BTreeSet<(PolicyTime, EventId)>,
    running: usize,
    /// Of the payloads of what runs.
    payload_bytes: u64,
    window: usize,
    /// Until the first throttle the window grows with every answer, then once in a window's worth of answers.
    has_been_throttled: bool,
    answers_since_growth: usize,
    /// Claims before this one were given out under a wider window: their throttles say nothing new.
    narrowed_at: u64,
    pause_seconds: u64,
    paused_until: PolicyTime,
    turn: u64,
    /// When it is in `sleeping`, with which time.
    sleeps_until: Option<PolicyTime>,
    is_able: bool,
}

#[derive(Debug, Default)]
pub struct EventQueue {
    events: BTreeMap<EventId, Known>,
    lanes: BTreeMap<Arc<str>, LaneState>,
    /// Lanes that can give out an event now, by whose turn it is.
    able: BTreeSet<(u64, Arc<str>)>,
    sleeping: BTreeSet<(PolicyTime, Arc<str>)>,
    leases: BTreeSet<(WallTime, EventId)>,
    next_token: u64,
    next_turn: u64,
    payload_bytes: u64,
}

/// What `ondol queue` shows of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneView {
    pub waiting: usize,
    pub running: usize,
    pub window: usize,
    pub paused_until: PolicyTime,
}

impl EventQueue {
    /// Where an event waits.
    pub fn lane_of(&self, id: EventId) -> Option<Arc<str>> {
        self.events.get(&id).map(|known| Arc::clone(&known.event.lane))
    }

    pub fn lanes(&self) -> impl Iterator<Item = (&Arc<str>, LaneView)> {
        self.lanes.iter().map(|(name, lane)| {
            let LaneState { waiting, running, window, paused_until, .. } = lane;
            let waiting = waiting.len();
            (name, LaneView { waiting, running: *running, window: *window, paused_until: *paused_until })
        })
    }

    /// Every event, with whether an attempt is under way.
    pub fn events(&self) -> impl Iterator<Item = (&Event, bool)> {
        self.events.values().map(|known| (&known.event, known.phase != Phase::Waiting))
    }

    /// An event that is in the store from now on, or comes back with more tries behind it.
    /// No wait is longer than the longest delay, whatever a clock that stepped has made of it.
    pub fn arrive(&mut self, now: Moment, mut event: Event) {
        event.due = event.due.min(now.policy.plus_seconds(THROTTLE_DELAY_SECONDS_MAX));
        let lane = self.lanes.entry(Arc::clone(&event.lane)).or_default();
        // Counted before it is taken off, so that a lane it stays in is kept.
        lane.events += 1;
        self.forget(event.id);
        let name = Arc::clone(&event.lane);
        if let Some(lane) = self.lanes.get_mut(&name) {
            lane.waiting.insert((event.due, event.id));
        }
        self.events.insert(event.id, Known { event, phase: Phase::Waiting });
        self.place(now, &name);
    }

    /// The next thing to do, if there is one. `rules` are those of the event's function now.
    pub fn next(&mut self, now: Moment, rules: impl FnOnce(&Event) -> Rules) -> Option<Step> {
        self.lapse(now);
        while let Some((at, name)) = self.sleeping.first().cloned() {
            if at > now.policy {
                break;
            }
            self.sleeping.remove(&(at, Arc::clone(&name)));
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.sleeps_until = None;
            }
            self.place(now, &name);
        }
        if self.leases.len() >= ATTEMPTS_MAX || self.payload_bytes >= PAYLOAD_BYTES_MAX {
            return None;
        }
        let (_, name) = self.able.first()?.clone();
        let lane = self.lanes.get_mut(&name)?;
        let (_, id) = lane.waiting.pop_first()?;
        let known = self.events.get_mut(&id)?;
        let is_old = age_seconds(&known.event, now) > u64::from(rules(&known.event).age_seconds);
        let step = if is_old {
            known.phase = Phase::Settling;
            Step::Expired(id)
        } else {
            let token = self.next_token;
            self.next_token += 1;
            let lease_until = now.wall.plus_millis(LEASE_MILLIS);
            known.phase = Phase::Running { token, lease_until };
            self.leases.insert((lease_until, id));
            self.payload_bytes += known.event.payload_bytes;
            lane.payload_bytes += known.event.payload_bytes;
            lane.running += 1;
            Step::Attempt(Claim { id, token })
        };
        self.next_turn += 1;
        let turn = self.next_turn;
        self.able.remove(&(lane.turn, Arc::clone(&name)));
        (lane.turn, lane.is_able) = (turn, false);
        self.place(now, &name);
        Some(step)
    }

    /// An attempt is still alive. False if it is taken for lost: somebody else may be at its event.
    pub fn renew(&mut self, now: Moment, Claim { id, token }: Claim) -> bool {
        let Some(Known { phase: Phase::Running { token: own, lease_until }, .. }) = self.events.get_mut(&id)
        else {
            return false;
        };
        if *own != token {
            return false;
        }
        self.leases.remove(&(*lease_until, id));
        *lease_until = now.wall.plus_millis(LEASE_MILLIS);
        self.leases.insert((*lease_until, id));
        true
    }

    /// An attempt is over. None if it had been taken for lost before.
    pub fn answered(
        &mut self,
        now: Moment,
        Claim { id, token }: Claim,
        outcome: Outcome,
        rules: Rules,
    ) -> Option<Verdict> {
        match self.events.get(&id)?.phase {
            Phase::Running { token: own, .. } if own == token => {}
            _ => return None,
        }
        self.end_attempt(id, Phase::Settling);
        let event = &self.events.get(&id)?.event;
        let (verdict, name) = (judge(now, event, outcome, rules), Arc::clone(&event.lane));
        if let Some(lane) = self.lanes.get_mut(&name) {
            match outcome {
                Outcome::Success | Outcome::FunctionError | Outcome::Refused(_) => lane.widen(),
                Outcome::Throttled | Outcome::Unavailable => lane.narrow(now, token, self.next_token),
            }
        }
        self.place(now, &name);
        Some(verdict)
    }

    /// It left the queue for good.
    pub fn finished(&mut self, id: EventId) {
        self.forget(id);
    }

    /// When to look again although nothing has happened.
    pub fn next_wakeup(&self) -> (Option<PolicyTime>, Option<WallTime>) {
        (self.sleeping.first().map(|(at, _)| *at), self.leases.first().map(|(at, _)| *at))
    }

    /// Attempts whose lease is over are taken for lost; their events come again, later and later.
    fn lapse(&mut self, now: Moment) {
        while let Some((at, id)) = self.leases.first().copied() {
            if at > now.wall {
                return;
            }
            self.end_attempt(id, Phase::Waiting);
            let Some(known) = self.events.get_mut(&id) else { continue };
            known.event.tries.throttles += 1;
            known.event.due = now.policy.plus_seconds(throttle_delay_seconds(known.event.tries));
            let (due, name) = (known.event.due, Arc::clone(&known.event.lane));
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.waiting.insert((due, id));
            }
            self.place(now, &name);
        }
    }

    /// Takes back what an attempt holds.
    fn end_attempt(&mut self, id: EventId, phase: Phase) {
        let Some(known) = self.events.get_mut(&id) else { return };
        if let Phase::Running { lease_until, .. } = known.phase {
            self.leases.remove(&(lease_until, id));
            self.payload_bytes -= known.event.payload_bytes;
            if let Some(lane) = self.lanes.get_mut(&known.event.lane) {
                lane.running -= 1;
                lane.payload_bytes -= known.event.payload_bytes;
            }
        }
        known.phase = phase;
    }

    fn forget(&mut self, id: EventId) {
        self.end_attempt(id, Phase::Settling);
        let Some(Known { event, .. }) = self.events.remove(&id) else { return };
        let Some(lane) = self.lanes.get_mut(&event.lane) else { return };
        lane.waiting.remove(&(event.due, id));
        lane.events -= 1;
        if lane.events == 0 {
            self.take_off(&event.lane);
            self.lanes.remove(&event.lane);
        }
    }

    fn take_off(&mut self, name: &Arc<str>) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        if std::mem::take(&mut lane.is_able) {
            self.able.remove(&(lane.turn, Arc::clone(name)));
        }
        if let Some(at) = lane.sleeps_until.take() {
            self.sleeping.remove(&(at, Arc::clone(name)));
        }
    }

    /// Puts a lane where it belongs after a change: able, asleep, or nowhere while its window is full.
    fn place(&mut self, now: Moment, name: &Arc<str>) {
        self.take_off(name);
        let Some(lane) = self.lanes.get_mut(name) else { return };
        let Some((due, _)) = lane.waiting.first().copied() else { return };
        if !lane.has_room() {
            return;
        }
        let at = due.max(lane.paused_until);
        if at <= now.policy {
            lane.is_able = true;
            self.able.insert((lane.turn, Arc::clone(name)));
        } else {
            lane.sleeps_until = Some(at);
            self.sleeping.insert((at, Arc::clone(name)));
        }
    }

    /// Every invariant. Tests call it after each step.
    pub fn check(&self) {
        let running = |known: &&Known| matches!(known.phase, Phase::Running { .. });
        let bytes: u64 = self.events.values().filter(running).map(|k| k.event.payload_bytes).sum();
        assert_eq!(bytes, self.payload_bytes, "payload bytes of attempts");
        assert_eq!(
            self.events.values().filter(running).count(),
            self.leases.len(),
            "a lease for each attempt"
        );
        assert!(self.leases.len() <= ATTEMPTS_MAX, "too many attempts");
        for (name, lane) in &self.lanes {
            let own = || self.events.values().filter(|known| known.event.lane == *name);
            let waiting = own().filter(|known| known.phase == Phase::Waiting);
            let expected: BTreeSet<_> = waiting.map(|known| (known.event.due, known.event.id)).collect();
            assert_eq!(expected, lane.waiting, "waiting events of {name}");
            assert_eq!(own().filter(running).count(), lane.running, "attempts of {name}");
            assert_eq!(own().count(), lane.events, "events of {name}");
            assert!((1..=WINDOW_MAX).contains(&lane.window), "the window of {name}");
            assert_eq!(lane.is_able, self.able.contains(&(lane.turn, Arc::clone(name))), "{name} able");
            if !lane.waiting.is_empty() && lane.has_room() {
                assert!(lane.is_able || lane.sleeps_until.is_some(), "{name} is forgotten");
            }
        }
        let lanes: BTreeSet<_> = self.events.values().map(|known| &known.event.lane).collect();
        assert!(lanes.iter().all(|name| self.lanes.contains_key(*name)), "an event without a lane");
    }
}

impl Default for LaneState {
    fn default() -> Self {
        Self {
            events: 0,
            waiting: BTreeSet::new(),
            running: 0,
            payload_bytes: 0,
            window: WINDOW_START,
            has_been_throttled: false,
            answers_since_growth: 0,
            narrowed_at: 0,
            pause_seconds: 0,
            paused_until: PolicyTime(0),
            turn: 0,
            sleeps_until: None,
            is_able: false,
        }
    }
}

impl LaneState {
    fn has_room(&self) -> bool {
        self.running < self.window && self.payload_bytes < PAYLOAD_BYTES_MAX / LANE_SHARE as u64
    }

    fn widen(&mut self) {
        self.pause_seconds = 0;
        self.answers_since_growth += 1;
        let is_full = self.running + 1 >= self.window;
        if is_full && (!self.has_been_throttled || self.answers_since_growth >= self.window) {
            self.window = (self.window + 1).min(WINDOW_MAX);
            self.answers_since_growth = 0;
        }
    }

    fn narrow(&mut self, now: Moment, token: u64, next_token: u64) {
        self.has_been_throttled = true;
        self.answers_since_growth = 0;
        if token >= self.narrowed_at {
            self.window = (self.window / 2).max(1);
            self.narrowed_at = next_token;
        }
        if self.running == 0 {
            self.pause_seconds = (self.pause_seconds * 2).clamp(1, THROTTLE_DELAY_SECONDS_MAX);
            self.paused_until = now.policy.plus_seconds(self.pause_seconds);
        }
    }
}

fn age_seconds(event: &Event, now: Moment) -> u64 {
    now.policy.seconds_since(event.since)
}

fn throttle_delay_seconds(tries: Tries) -> u64 {
    let doubled = 1_u64.checked_shl(tries.throttles.saturating_sub(1)).unwrap_or(u64::MAX);
    doubled.min(THROTTLE_DELAY_SECONDS_MAX)
}

fn judge(now: Moment, event: &Event, outcome: Outcome, rules: Rules) -> Verdict {
    let mut tries = event.tries;
    let delay_seconds = match outcome {
        Outcome::Success => return Verdict::Done,
        Outcome::Refused(condition) => return Verdict::Over(condition, tries),
        Outcome::FunctionError => {
            tries.errors += 1;
            if tries.errors > rules.retries {
                return Verdict::Over(Condition::RetriesExhausted, tries);
            }
            ERROR_DELAY_SECONDS * u64::from(tries.errors)
        }
        Outcome::Throttled | Outcome::Unavailable => {
            tries.throttles += 1;
            throttle_delay_seconds(tries)
        }
    };
    let expiry = event.since.plus_seconds(u64::from(rules.age_seconds) + 1);
    let due = now.policy.plus_seconds(delay_seconds);
    // A retry that would come too late is not waited for. Source: recorded from AWS.
    if outcome == Outcome::FunctionError && due >= expiry {
        return Verdict::Over(Condition::EventAgeExceeded, tries);
    }
    // What nobody has taken yet is looked at when it becomes too old, and ends there.
    Verdict::Again { due: due.min(expiry).max(now.policy), tries }
}

#[cfg(test)]
mod tests;
