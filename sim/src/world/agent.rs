//! The agents: execution environments that start, serve, drain and end.

use ondol_core::capacity::EnvironmentState;
use ondol_core::function::Reason;
use ondol_core::gate::{Event as GateEvent, ThrottleCause};
use ondol_core::identity::{EnvironmentId, PublicationId, RequestId};
use ondol_core::signals::{EnvironmentSignals, Heat, Limits, heat};
use ondol_core::slots::{Answer, Effect, Event as SlotEvent, Slots};
use ondol_core::time::PolicyTime;

use crate::cpu::SharedCpu;

use super::front::Request;
use super::{Event, SECOND_MICROS, World};

/// An environment that ends sooner than this after it was ready counts as a failed start.
const SETTLED_MICROS: u64 = 60 * SECOND_MICROS;
/// From the last answer of an environment that drains until its processes are gone.
const SHUTDOWN_MICROS: u64 = 50_000;
const DRAIN_EXTRA_MICROS: u64 = 5 * SECOND_MICROS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready,
    Draining,
    Ended,
}

#[derive(Debug)]
pub struct Agent {
    pub id: EnvironmentId,
    pub function: usize,
    pub publication: PublicationId,
    pub instance: String,
    pub zone: String,
    pub limit: u32,
    pub limits: Limits,
    pub slots: Slots,
    pub state: State,
    pub cpu: SharedCpu,
    /// Counts what makes an expected end of work void.
    pub turn: u64,
    pub expected: Option<u64>,
    pub alarm: Option<u64>,
    /// Invocations whose code runs, also those whose callers were answered.
    pub running: Vec<usize>,
    pub next_poll: u64,
    pub ready_at: u64,
    pub drain_until: u64,
    /// Whether it was told to end.
    pub is_told: bool,
    pub because: Option<Reason>,
    pub heat: Option<Heat>,
    pub refusals: u64,
    busy_micros: u64,
    changed_at: u64,
    peak: usize,
    before: Option<(u64, u64, u64)>,
}

impl Agent {
    pub fn new(
        id: EnvironmentId,
        function: usize,
        publication: PublicationId,
        (instance, zone): (String, String),
        limit: u32,
        limits: Limits,
        vcpus: u32,
    ) -> Self {
        Self {
            id,
            function,
            publication,
            instance,
            zone,
            limit,
            limits,
            slots: Slots::new(limit),
            state: State::Starting,
            cpu: SharedCpu::new(vcpus),
            turn: 0,
            expected: None,
            alarm: None,
            running: Vec::new(),
            next_poll: 0,
            ready_at: 0,
            drain_until: u64::MAX,
            is_told: false,
            because: None,
            heat: None,
            refusals: 0,
            busy_micros: 0,
            changed_at: 0,
            peak: 0,
            before: None,
        }
    }

    /// Before the slots held change.
    fn count_busy(&mut self, now: u64, held_before: usize) {
        self.busy_micros += held_before as u64 * (now - self.changed_at);
        self.changed_at = now;
        self.peak = self.peak.max(self.slots.in_flight());
    }

    /// What was used over the last interval, and whether that is too much.
    fn look(&mut self, now: u64, policy: PolicyTime, memory_percent: u32) -> Option<EnvironmentSignals> {
        self.count_busy(now, self.slots.in_flight());
        let used = self.cpu.used_micros(now);
        let peak = std::mem::replace(&mut self.peak, self.slots.in_flight());
        let (at, busy, cpu) = self.before.replace((now, self.busy_micros, used))?;
        let passed = (now - at).max(1);
        let part = |used: u64, unit: u64| u32::try_from(used * unit / passed).unwrap_or(u32::MAX);
        let signals = EnvironmentSignals {
            sampled_at: policy,
            in_flight_hundredths: part(self.busy_micros - busy, 100),
            in_flight_peak: u32::try_from(peak).unwrap_or(u32::MAX),
            cpu_used_millis: part(used - cpu, 1_000),
            cpu_available_millis: self.limits.cpu_millis,
            cpu_pressure_hundredths: None,
            memory_used_mib: self.limits.memory_mib * memory_percent / 100,
            disk_used_mib: 0,
            refusals: self.refusals,
        };
        self.heat = heat(&signals, self.limits, self.heat);
        Some(signals)
    }
}

impl World {
    pub(super) fn started(&mut self, agent: usize) {
        if self.agents[agent].state != State::Starting {
            return;
        }
        let failed = self.fate.chance(self.scenario.start.failure_share);
        let of = &mut self.agents[agent];
        if failed {
            self.note_fault();
            let of = &mut self.agents[agent];
            of.because = Some(Reason::new("FunctionError.RuntimeInitError", "it failed to start"));
            return self.end(agent);
        }
        of.state = State::Ready;
        of.ready_at = self.now;
        of.changed_at = self.now;
        let id = of.id;
        for _ in 0..of.limit {
            let poll = of.next_poll;
            of.next_poll += 1;
            of.slots.handle(
                ondol_core::time::WallTime(self.now),
                SlotEvent::PollArrived(poll),
                &mut Vec::new(),
            );
        }
        let ready = GateEvent::Ready {
            environment: id,
            publication: of.publication,
            zone: of.zone.as_str().into(),
            limit: of.limit,
            is_on_demand: false,
        };
        self.gate.handle(&ready);
        self.set_state(id, EnvironmentState::Ready);
    }

    pub(super) fn drain(&mut self, agent: usize) {
        let of = &mut self.agents[agent];
        of.is_told = true;
        match of.state {
            State::Starting => self.end(agent),
            State::Ready => {
                of.state = State::Draining;
                let id = of.id;
                let timeout =
                    u64::from(self.scenario.functions[self.functions[of.function].spec].timeout_seconds);
                of.drain_until = self.now + timeout * SECOND_MICROS + DRAIN_EXTRA_MICROS;
                let until = of.drain_until;
                self.at(until, Event::Alarm { agent });
                self.gate.handle(&GateEvent::Closed { environment: id });
                self.set_state(id, EnvironmentState::Draining);
                self.slot_event(agent, SlotEvent::Drain);
            }
            State::Draining | State::Ended => {}
        }
    }

    /// Its processes are gone at once.
    pub(super) fn end(&mut self, agent: usize) {
        let of = &mut self.agents[agent];
        if of.state == State::Ended {
            return;
        }
        let was_open = of.state == State::Ready;
        let settled = of.is_told || (of.ready_at > 0 && self.now >= of.ready_at + SETTLED_MICROS);
        of.state = State::Ended;
        self.alive.remove(&agent);
        of.turn += 1;
        let id = of.id;
        let failed = of.slots.end();
        let reason = of.because.take().unwrap_or_else(|| Reason::new("Drained", "It was drained."));
        for request in std::mem::take(&mut of.running) {
            self.unused.push(request);
        }
        for request in failed {
            let function = self.requests[number_of(request)].function;
            self.collector.failed(function);
            self.note_cut();
        }
        if was_open {
            self.gate.handle(&GateEvent::Closed { environment: id });
        }
        self.set_state(id, EnvironmentState::Ended { reason, settled });
    }

    pub(super) fn ended(&mut self, agent: usize) {
        self.end(agent);
    }

    pub(super) fn slot_event(&mut self, agent: usize, event: SlotEvent) {
        let mut effects = Vec::new();
        let (wall, now) = (self.wall(), self.now);
        let of = &mut self.agents[agent];
        of.count_busy(now, of.slots.in_flight());
        of.slots.handle(wall, event, &mut effects);
        self.carry_out(agent, effects);
    }

    pub(super) fn carry_out(&mut self, agent: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::HandOver { request, .. } => self.begin(agent, number_of(request)),
                Effect::TimedOut { request } => {
                    let request = &mut self.requests[number_of(request)];
                    request.is_late = true;
                    let function = request.function;
                    self.collector.timed_out(function);
                    self.answered(agent);
                }
                // Whoever waited for a poll in vain was counted by the gate.
                Effect::Refuse { .. } => panic!("an invocation was taken and then refused"),
                Effect::SlotReleased => {
                    let environment = self.agents[agent].id;
                    self.gate.handle(&GateEvent::SlotReleased { environment });
                }
                Effect::Stuck => {
                    self.note_fault();
                    let reason = Reason::new("FunctionError", "Timed-out code held its slots for too long.");
                    self.agents[agent].because = Some(reason);
                    self.drain_by_itself(agent);
                }
                Effect::Overdue => {}
                Effect::Drained => self.at(self.now + SHUTDOWN_MICROS, Event::Ended { agent }),
            }
        }
        let of = &mut self.agents[agent];
        let next = of.slots.next_wakeup().map(|at| at.0);
        if let Some(next) = next.filter(|next| of.alarm.is_none_or(|alarm| *next < alarm)) {
            of.alarm = Some(next);
            self.at(next, Event::Alarm { agent });
        }
    }

    fn drain_by_itself(&mut self, agent: usize) {
        self.drain(agent);
        self.agents[agent].is_told = false;
    }

    fn answered(&mut self, agent: usize) {
        let publication = self.agents[agent].publication;
        self.picture.traffic.entry(publication).or_default().answered += 1;
    }

    /// The runtime has the invocation: its code begins with what it needs of the CPU.
    fn begin(&mut self, agent: usize, number: usize) {
        let of = &mut self.agents[agent];
        // It was counted before its slot was.
        of.count_busy(self.now, of.slots.in_flight() - 1);
        let request = &mut self.requests[number];
        request.agent = agent;
        request.place = of.running.len();
        of.running.push(number);
        if request.cpu_micros == 0 {
            let at = self.now + request.wait_micros;
            return self.at(at, Event::WaitDone { request: number });
        }
        of.cpu.add(self.now, number, request.cpu_micros);
        self.expect(agent);
    }

    /// Looks when the next piece of CPU work will be done.
    fn expect(&mut self, agent: usize) {
        let of = &mut self.agents[agent];
        let next = of.cpu.next_done();
        if next != of.expected {
            of.expected = next;
            of.turn += 1;
            let turn = of.turn;
            if let Some(next) = next {
                self.at(next, Event::CpuDone { agent, turn });
            }
        }
    }

    pub(super) fn cpu_done(&mut self, agent: usize, turn: u64) {
        if self.agents[agent].turn != turn {
            return;
        }
        self.agents[agent].expected = None;
        while let Some(number) = self.agents[agent].cpu.take_done(self.now) {
            let at = self.now + self.requests[number].wait_micros;
            self.at(at, Event::WaitDone { request: number });
        }
        self.expect(agent);
    }

    pub(super) fn wait_done(&mut self, number: usize) {
        let Request { id, agent, place, function, first_at, is_late, .. } = self.requests[number];
        // Its environment may have ended, and its number be another's.
        let Some(of) = self.agents.get_mut(agent) else { return };
        if of.running.get(place) != Some(&number) || of.state == State::Ended {
            return;
        }
        of.running.swap_remove(place);
        if let Some(moved) = of.running.get(place) {
            self.requests[*moved].place = place;
        }
        self.unused.push(number);
        self.requests[number].agent = usize::MAX;
        let of = &mut self.agents[agent];
        of.count_busy(self.now, of.slots.in_flight());
        let mut effects = Vec::new();
        let answer = of.slots.answer(RequestId(id), &mut effects);
        assert_eq!(answer == Answer::TooLate, is_late, "whose caller was answered is answered too late");
        if answer == Answer::Accepted {
            self.collector.answered(function, first_at, self.now);
            self.answered(agent);
        }
        self.carry_out(agent, effects);
        if self.agents[agent].state != State::Ended {
            let poll = self.agents[agent].next_poll;
            self.agents[agent].next_poll += 1;
            self.slot_event(agent, SlotEvent::PollArrived(poll));
        }
    }

    pub(super) fn alarm(&mut self, agent: usize) {
        let of = &mut self.agents[agent];
        if of.state == State::Ended {
            return;
        }
        if of.state == State::Draining && self.now >= of.drain_until {
            return self.end(agent);
        }
        of.alarm = None;
        self.slot_event(agent, SlotEvent::Tick);
    }

    /// Every second: what each environment that serves has used.
    pub(super) fn sample(&mut self) {
        for agent in self.alive.iter().copied() {
            if self.agents[agent].state != State::Ready {
                continue;
            }
            let memory_percent = self.functions[self.agents[agent].function].memory_percent;
            let of = &mut self.agents[agent];
            let before = takes_nothing(of.heat);
            let policy = PolicyTime(self.now * self.scenario.time_scale);
            if let Some(signals) = of.look(self.now, policy, memory_percent) {
                if let Some(environment) = self.picture.environments.get_mut(&of.id) {
                    environment.signals = signals;
                }
                let cause = takes_nothing(of.heat);
                if cause != before {
                    self.gate.handle(&GateEvent::Hot { environment: of.id, cause });
                }
            }
        }
        self.measure();
        self.decide_now();
        self.at(self.now + self.scenario.sample_seconds * SECOND_MICROS, Event::Sample);
    }
}

impl World {
    /// Between two samples: a server's planner decides whenever what is in flight has changed.
    pub(super) fn refresh(&mut self) {
        let in_flight = |number: &usize| (*number, self.agents[*number].slots.in_flight());
        let seen: Vec<(usize, usize)> = self.alive.iter().map(in_flight).collect();
        if seen != self.seen_in_flight {
            self.seen_in_flight = seen;
            self.decide_now();
        }
        self.at(self.now + self.scenario.refresh_millis * 1_000, Event::Refresh);
    }
}

/// Why it takes nothing at all, if it does not.
fn takes_nothing(heat: Option<Heat>) -> Option<ThrottleCause> {
    heat.filter(|heat| heat.in_flight_max == 0).map(|heat| heat.cause)
}

pub fn number_of(request: RequestId) -> usize {
    usize::try_from(request.0 & 0xffff_ffff).unwrap_or(usize::MAX)
}
