//! The slots of one execution environment: who holds them, which polls are parked, what is late.
//!
//! This is the ground truth of concurrency. A slot is taken when an invocation is admitted and freed only
//! when the runtime answers or the environment ends; a timeout answers the caller and frees nothing, since
//! the code goes on running. Polls are served in the order they arrived.
//!
//! In the classic mode an invocation's time goes on after the answer, until the runtime asks for the next: code that
//! answers and does not ask is over at its deadline.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::identity::RequestId;
use crate::time::WallTime;

/// Code that holds a slot this long after its caller was answered with a timeout is taken for stuck; the
/// function's own timeout counts where it is longer.
pub const STUCK_MILLIS: u64 = 60_000;

/// One parked `GET /next`, numbered by its listener.
pub type PollId = u64;

/// How long an admitted invocation waits for a runtime that has a free slot but no poll open yet.
pub const POLL_WAIT_MILLIS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    PollArrived(PollId),
    PollGone(PollId),
    Invoke {
        request: RequestId,
        timeout_millis: u64,
    },
    /// The poll chosen by the last hand-over turned out to be dead; the invocation goes to the next.
    HandOverFailed {
        request: RequestId,
    },
    /// Time may have passed.
    Tick,
    /// No new invocations from here on.
    Drain,
    /// The environment is over: no new invocations, and what waits for a poll goes elsewhere.
    GiveUp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Give the invocation to the poll; `deadline` is when it times out.
    HandOver {
        request: RequestId,
        poll: PollId,
        deadline: WallTime,
    },
    /// Answer the caller with a timeout; the slot stays taken.
    TimedOut {
        request: RequestId,
    },
    /// The invocation never reached the runtime, and holds no slot.
    Refuse {
        request: RequestId,
        refusal: Refusal,
    },
    SlotReleased,
    /// Timed-out code has held its slot for too long: the environment is to be replaced.
    Stuck,
    /// In the classic mode: the answered invocation's time is over, and the runtime has not asked for another.
    Overdue,
    /// Draining, and no caller waits any more.
    Drained,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Every slot is taken.
    Full,
    /// A slot was free, but the runtime opened no poll within [`POLL_WAIT_MILLIS`].
    NoPoll,
    Draining,
}

/// What a `/response` or `/error` from the runtime means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It goes to the caller.
    Accepted,
    /// 410: the caller was answered with a timeout before.
    TooLate,
    /// 400: no such invocation here.
    Unknown,
}

#[derive(Debug)]
enum Holder {
    Waiting {
        timeout_millis: u64,
        give_up_at: WallTime,
    },
    Running {
        deadline: WallTime,
        timeout_millis: u64,
    },
    /// `stuck_at` is gone once that was said.
    TimedOut {
        stuck_at: Option<WallTime>,
    },
}

#[derive(Debug)]
pub struct Slots {
    limit: usize,
    is_classic: bool,
    /// In the classic mode: what was answered, and its deadline, until the next poll.
    unfinished: Option<(WallTime, RequestId)>,
    draining: bool,
    drained_said: bool,
    parked: VecDeque<PollId>,
    waiting: VecDeque<RequestId>,
    holders: BTreeMap<RequestId, Holder>,
    timers: BTreeSet<(WallTime, RequestId)>,
}

impl Slots {
    pub fn new(limit: u32) -> Self {
        Self {
            limit: limit as usize,
            is_classic: false,
            unfinished: None,
            draining: false,
            drained_said: false,
            parked: VecDeque::new(),
            waiting: VecDeque::new(),
            holders: BTreeMap::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Of the classic mode: one request at a time.
    pub fn classic() -> Self {
        Self { is_classic: true, ..Self::new(1) }
    }

    pub fn in_flight(&self) -> usize {
        self.holders.len()
    }

    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Slots held by code whose caller has long been answered.
    pub fn timed_out(&self) -> usize {
        self.holders.values().filter(|holder| matches!(holder, Holder::TimedOut { .. })).count()
    }

    pub fn next_wakeup(&self) -> Option<WallTime> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn handle(&mut self, now: WallTime, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::PollArrived(poll) => {
                self.parked.push_back(poll);
                if let Some(unfinished) = self.unfinished.take() {
                    self.timers.remove(&unfinished);
                }
            }
            Event::PollGone(poll) => self.parked.retain(|parked| *parked != poll),
            Event::Invoke { request, timeout_millis } => self.invoke(now, request, timeout_millis, out),
            Event::HandOverFailed { request } => self.take_back(now, request),
            Event::Tick => self.tick(now, out),
            Event::Drain => self.draining = true,
            Event::GiveUp => {
                self.draining = true;
                for request in std::mem::take(&mut self.waiting) {
                    if let Some(Holder::Waiting { give_up_at, .. }) = self.holders.remove(&request) {
                        self.timers.remove(&(give_up_at, request));
                    }
                    out.push(Effect::Refuse { request, refusal: Refusal::Draining });
                }
            }
        }
        self.hand_over(now, out);
        self.say_drained(out);
    }

    /// The runtime answered an invocation. Its slot is free from here on, whoever is slow to read the answer.
    pub fn answer(&mut self, request: RequestId, out: &mut Vec<Effect>) -> Answer {
        let answer = match self.holders.get(&request) {
            Some(Holder::Running { deadline, .. }) => {
                if self.is_classic && self.parked.is_empty() {
                    self.unfinished = Some((*deadline, request));
                } else {
                    self.timers.remove(&(*deadline, request));
                }
                Answer::Accepted
            }
            Some(Holder::TimedOut { stuck_at }) => {
                if let Some(stuck_at) = stuck_at {
                    self.timers.remove(&(*stuck_at, request));
                }
                Answer::TooLate
            }
            // A runtime cannot answer what it was never given.
            Some(Holder::Waiting { .. }) | None => return Answer::Unknown,
        };
        self.holders.remove(&request);
        out.push(Effect::SlotReleased);
        self.say_drained(out);
        answer
    }

    /// In the classic mode: whether code has answered, still has time, and has not asked for more.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Whether the runtime was given this invocation and has not answered it.
    pub fn is_held(&self, request: RequestId) -> bool {
        matches!(self.holders.get(&request), Some(Holder::Running { .. } | Holder::TimedOut { .. }))
    }

    /// The environment ended: every invocation whose caller still waits, to be failed.
    pub fn end(&mut self) -> Vec<RequestId> {
        self.draining = true;
        self.parked.clear();
        self.waiting.clear();
        self.timers.clear();
        self.unfinished = None;
        std::mem::take(&mut self.holders)
            .into_iter()
            .filter(|(_, holder)| !matches!(holder, Holder::TimedOut { .. }))
            .map(|(request, _)| request)
            .collect()
    }

    fn invoke(&mut self, now: WallTime, request: RequestId, timeout_millis: u64, out: &mut Vec<Effect>) {
        let refusal = if self.draining {
            Some(Refusal::Draining)
        } else if self.holders.len() >= self.limit || self.holders.contains_key(&request) {
            Some(Refusal::Full)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            out.push(Effect::Refuse { request, refusal });
            return;
        }
        let give_up_at = now.plus_millis(POLL_WAIT_MILLIS);
        self.holders.insert(request, Holder::Waiting { timeout_millis, give_up_at });
        self.timers.insert((give_up_at, request));
        self.waiting.push_back(request);
    }

    fn hand_over(&mut self, now: WallTime, out: &mut Vec<Effect>) {
        while let (Some(&request), Some(&poll)) = (self.waiting.front(), self.parked.front()) {
            self.waiting.pop_front();
            let Some(Holder::Waiting { timeout_millis, give_up_at }) = self.holders.get(&request) else {
                continue;
            };
            let (timeout_millis, give_up_at) = (*timeout_millis, *give_up_at);
            let deadline = now.plus_millis(timeout_millis);
            self.parked.pop_front();
            self.timers.remove(&(give_up_at, request));
            self.timers.insert((deadline, request));
            self.holders.insert(request, Holder::Running { deadline, timeout_millis });
            out.push(Effect::HandOver { request, poll, deadline });
        }
    }

    /// Puts an invocation whose poll was dead back at the head of the queue, with a fresh wait.
    fn take_back(&mut self, now: WallTime, request: RequestId) {
        let Some(Holder::Running { deadline, timeout_millis }) = self.holders.get(&request) else { return };
        let (deadline, timeout_millis) = (*deadline, *timeout_millis);
        let give_up_at = now.plus_millis(POLL_WAIT_MILLIS);
        self.timers.remove(&(deadline, request));
        self.timers.insert((give_up_at, request));
        self.holders.insert(request, Holder::Waiting { timeout_millis, give_up_at });
        self.waiting.push_front(request);
    }

    fn tick(&mut self, now: WallTime, out: &mut Vec<Effect>) {
        while let Some(&(at, request)) = self.timers.first() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            match self.holders.get_mut(&request) {
                Some(holder @ Holder::Running { .. }) => {
                    let Holder::Running { timeout_millis, .. } = *holder else { continue };
                    let stuck_at = now.plus_millis(timeout_millis.max(STUCK_MILLIS));
                    *holder = Holder::TimedOut { stuck_at: Some(stuck_at) };
                    self.timers.insert((stuck_at, request));
                    out.push(Effect::TimedOut { request });
                }
                Some(Holder::TimedOut { stuck_at }) => {
                    *stuck_at = None;
                    out.push(Effect::Stuck);
                }
                Some(Holder::Waiting { .. }) => {
                    self.holders.remove(&request);
                    self.waiting.retain(|waiting| *waiting != request);
                    out.push(Effect::Refuse { request, refusal: Refusal::NoPoll });
                }
                None if self.unfinished == Some((at, request)) => {
                    self.unfinished = None;
                    out.push(Effect::Overdue);
                }
                None => {}
            }
        }
    }

    fn say_drained(&mut self, out: &mut Vec<Effect>) {
        if self.draining && !self.drained_said && self.timed_out() == self.holders.len() {
            self.drained_said = true;
            out.push(Effect::Drained);
        }
    }

    /// Every invariant. Tests call it after each event.
    pub fn check(&self) {
        assert!(self.holders.len() <= self.limit, "in flight exceeds the limit");
        assert!(
            self.waiting.is_empty() || self.parked.is_empty(),
            "an invocation waits beside a parked poll"
        );
        let said = self
            .holders
            .values()
            .filter(|holder| matches!(holder, Holder::TimedOut { stuck_at: None }))
            .count();
        assert_eq!(
            self.timers.len() + said,
            self.holders.len() + usize::from(self.unfinished.is_some()),
            "one timer for each holder, until it was said to be stuck, and one for what is unfinished"
        );
        let waiting = self.holders.values().filter(|holder| matches!(holder, Holder::Waiting { .. })).count();
        assert_eq!(self.waiting.len(), waiting, "the queue holds exactly those who wait");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coins::Coins;

    fn at(millis: u64) -> WallTime {
        WallTime(millis * 1_000)
    }

    fn step(slots: &mut Slots, now: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        slots.handle(at(now), event, &mut out);
        slots.check();
        out
    }

    fn invoke(request: u128) -> Event {
        Event::Invoke { request: RequestId(request), timeout_millis: 3_000 }
    }

    #[test]
    fn polls_are_served_in_their_order_and_a_gone_poll_never_is() {
        let mut slots = Slots::new(2);
        for poll in 1..=3 {
            step(&mut slots, 0, Event::PollArrived(poll));
        }
        step(&mut slots, 0, Event::PollGone(1));
        let request = RequestId(7);
        assert_eq!(
            step(&mut slots, 5, invoke(7)),
            [Effect::HandOver { request, poll: 2, deadline: at(3_005) }]
        );
    }

    #[test]
    fn the_limit_holds_whatever_is_parked() {
        let mut slots = Slots::new(1);
        step(&mut slots, 0, Event::PollArrived(1));
        step(&mut slots, 0, Event::PollArrived(2));
        step(&mut slots, 0, invoke(1));
        let refused = Effect::Refuse { request: RequestId(2), refusal: Refusal::Full };
        assert_eq!(step(&mut slots, 0, invoke(2)), [refused]);
        let mut out = Vec::new();
        assert_eq!(slots.answer(RequestId(1), &mut out), Answer::Accepted);
        assert_eq!(out, [Effect::SlotReleased]);
        assert_eq!(slots.answer(RequestId(1), &mut out), Answer::Unknown);
    }

    #[test]
    fn a_timeout_keeps_its_slot_until_the_runtime_answers_and_that_answer_is_too_late() {
        let mut slots = Slots::new(1);
        step(&mut slots, 0, Event::PollArrived(1));
        step(&mut slots, 0, invoke(1));
        assert_eq!(slots.next_wakeup(), Some(at(3_000)));
        assert_eq!(step(&mut slots, 3_000, Event::Tick), [Effect::TimedOut { request: RequestId(1) }]);
        assert_eq!((slots.in_flight(), slots.timed_out()), (1, 1));
        let refused = Effect::Refuse { request: RequestId(2), refusal: Refusal::Full };
        assert_eq!(step(&mut slots, 3_001, invoke(2)), [refused]);
        assert_eq!(slots.answer(RequestId(1), &mut Vec::new()), Answer::TooLate);
        assert_eq!(slots.answer(RequestId(1), &mut Vec::new()), Answer::Unknown);
        assert_eq!(slots.in_flight(), 0);
    }

    #[test]
    fn code_that_holds_its_slot_for_a_minute_after_its_timeout_is_stuck() {
        let mut slots = Slots::new(1);
        step(&mut slots, 0, Event::PollArrived(1));
        step(&mut slots, 0, invoke(1));
        step(&mut slots, 3_000, Event::Tick);
        assert_eq!(step(&mut slots, 62_999, Event::Tick), []);
        assert_eq!(step(&mut slots, 63_000, Event::Tick), [Effect::Stuck]);
        assert_eq!(step(&mut slots, 63_001, Event::Drain), [Effect::Drained], "no caller waits for it");
        assert_eq!(slots.answer(RequestId(1), &mut Vec::new()), Answer::TooLate);
    }

    #[test]
    fn a_free_slot_without_a_poll_waits_and_gives_up() {
        let mut slots = Slots::new(2);
        assert_eq!(step(&mut slots, 0, invoke(1)), []);
        assert_eq!(slots.answer(RequestId(1), &mut Vec::new()), Answer::Unknown);
        let handed = step(&mut slots, 500, Event::PollArrived(9));
        assert_eq!(handed, [Effect::HandOver { request: RequestId(1), poll: 9, deadline: at(3_500) }]);
        step(&mut slots, 600, invoke(2));
        let refused = Effect::Refuse { request: RequestId(2), refusal: Refusal::NoPoll };
        assert_eq!(step(&mut slots, 1_600, Event::Tick), [refused]);
    }

    #[test]
    fn in_the_classic_mode_time_goes_on_until_the_next_poll() {
        let mut slots = Slots::classic();
        let answer = |slots: &mut Slots, request| {
            let mut out = Vec::new();
            assert_eq!(slots.answer(RequestId(request), &mut out), Answer::Accepted);
            slots.check();
            assert_eq!(out, [Effect::SlotReleased]);
        };
        step(&mut slots, 0, Event::PollArrived(1));
        step(&mut slots, 0, invoke(1));
        answer(&mut slots, 1);
        assert_eq!(slots.next_wakeup(), Some(at(3_000)));
        // Who asks in time starts anew, also with what waits already.
        step(&mut slots, 10, invoke(2));
        let handed = step(&mut slots, 11, Event::PollArrived(2));
        assert_eq!(handed, [Effect::HandOver { request: RequestId(2), poll: 2, deadline: at(3_011) }]);
        assert_eq!(slots.next_wakeup(), Some(at(3_011)));
        answer(&mut slots, 2);
        assert_eq!(step(&mut slots, 3_010, Event::Tick), []);
        assert_eq!(step(&mut slots, 3_011, Event::Tick), [Effect::Overdue]);
        assert_eq!(slots.next_wakeup(), None);
        // What waits when the time is over goes elsewhere, also if the runtime asks after all.
        let mut slots = Slots::classic();
        step(&mut slots, 0, Event::PollArrived(1));
        step(&mut slots, 0, invoke(1));
        answer(&mut slots, 1);
        step(&mut slots, 2_500, invoke(2));
        assert!(slots.is_unfinished());
        assert_eq!(step(&mut slots, 3_000, Event::Tick), [Effect::Overdue]);
        let elsewhere = Effect::Refuse { request: RequestId(2), refusal: Refusal::Draining };
        assert_eq!(step(&mut slots, 3_000, Event::GiveUp), [elsewhere, Effect::Drained]);
        assert_eq!(step(&mut slots, 3_001, Event::PollArrived(2)), []);
        // A poll that was parked before the answer is a request for the next.
        let mut slots = Slots::classic();
        step(&mut slots, 0, Event::PollArrived(1));
        step(&mut slots, 0, invoke(1));
        step(&mut slots, 1, Event::PollArrived(2));
        answer(&mut slots, 1);
        assert_eq!(slots.next_wakeup(), None);
    }

    #[test]
    fn a_dead_poll_passes_its_invocation_to_the_next() {
        let mut slots = Slots::new(2);
        step(&mut slots, 0, Event::PollArrived(1));
        step(&mut slots, 0, Event::PollArrived(2));
        step(&mut slots, 0, invoke(1));
        let again = step(&mut slots, 1, Event::HandOverFailed { request: RequestId(1) });
        assert_eq!(again, [Effect::HandOver { request: RequestId(1), poll: 2, deadline: at(3_001) }]);
    }

    #[test]
    fn draining_says_so_once_when_the_last_invocation_is_answered() {
        let mut slots = Slots::new(2);
        step(&mut slots, 0, Event::PollArrived(1));
        step(&mut slots, 0, invoke(1));
        assert_eq!(step(&mut slots, 1, Event::Drain), []);
        let refused = Effect::Refuse { request: RequestId(2), refusal: Refusal::Draining };
        assert_eq!(step(&mut slots, 1, invoke(2)), [refused]);
        let mut out = Vec::new();
        slots.answer(RequestId(1), &mut out);
        assert_eq!(out, [Effect::SlotReleased, Effect::Drained]);
        assert_eq!(step(&mut slots, 2, Event::Tick), []);
    }

    /// Any order of events keeps the invariants, and every admitted invocation ends exactly once.
    #[test]
    fn random_histories() {
        for seed in 0..300 {
            let mut coins = Coins::from_seed(seed);
            let limit = coins.below(5) as u32;
            let mut slots = if limit == 0 { Slots::classic() } else { Slots::new(limit) };
            let (mut now, mut polls, mut requests) = (0, 0, 0_u128);
            let mut open: BTreeSet<RequestId> = BTreeSet::new();
            let mut late: BTreeSet<RequestId> = BTreeSet::new();
            for _ in 0..200 {
                let mut out = Vec::new();
                now += coins.below(700) as u64;
                let event = match coins.below(6) {
                    0 | 1 => {
                        polls += 1;
                        Event::PollArrived(polls)
                    }
                    2 => Event::PollGone(coins.below(polls as usize + 1) as u64),
                    3 => {
                        requests += 1;
                        open.insert(RequestId(requests));
                        invoke(requests)
                    }
                    4 => {
                        let request = RequestId(1 + coins.below(requests as usize + 1) as u128);
                        match slots.answer(request, &mut out) {
                            Answer::Accepted => assert!(open.remove(&request), "seed {seed}"),
                            Answer::TooLate => assert!(late.remove(&request), "seed {seed}"),
                            Answer::Unknown => {}
                        }
                        Event::Tick
                    }
                    _ => Event::Tick,
                };
                slots.handle(at(now), event, &mut out);
                for effect in out {
                    match effect {
                        Effect::TimedOut { request } => {
                            assert!(open.remove(&request), "seed {seed}");
                            late.insert(request);
                        }
                        Effect::Refuse { request, .. } => assert!(open.remove(&request), "seed {seed}"),
                        _ => {}
                    }
                }
                slots.check();
            }
            assert_eq!(slots.end().len(), open.len(), "seed {seed}");
        }
    }
}
