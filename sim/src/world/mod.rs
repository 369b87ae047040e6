//! A world of discrete events around the production's own decisions: gate, slots, heat, scaler, placement, planner.
//!
//! Only what has no decision in it is made up here: arrivals, service times, how long things take, what breaks. The
//! same scenario and seed give the same world, byte for byte.

mod agent;
mod check;
mod control;
mod faults;
mod front;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use ondol_core::capacity::{Memory, Picture, Plan};
use ondol_core::coins::Coins;
use ondol_core::function::VersionKey;
use ondol_core::gate::Gate;
use ondol_core::identity::{EnvironmentId, InstanceId, PublicationId};
use ondol_core::lookup::Lookup;
use ondol_core::time::{PolicyTime, WallTime};
use ondol_protocol::assignment::{Fence, Generation};

use crate::SimError;
use crate::collect::Collector;
use crate::scenario::{Scenario, Service};
use crate::trace::Trace;
use crate::workload::Arrivals;

use agent::Agent;
use check::Checks;
use front::Request;

const SECOND_MICROS: u64 = 1_000_000;
const AGELESS_SECONDS: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The next invocation of a function.
    Arrival {
        function: usize,
    },
    /// The next of a trace of single invocations.
    Traced,
    /// A throttled caller asks again.
    Retry {
        function: usize,
        first_at: u64,
        attempt: u32,
    },
    /// Somebody has had the CPU it needs, unless that changed meanwhile.
    CpuDone {
        agent: usize,
        turn: u64,
    },
    /// An invocation has waited for what it waited for.
    WaitDone {
        request: usize,
    },
    /// A deadline of an environment's slots may have passed.
    Alarm {
        agent: usize,
    },
    Started {
        agent: usize,
    },
    Ended {
        agent: usize,
    },
    Launched {
        launch: usize,
    },
    Sample,
    Refresh,
    Decide,
    Fault {
        number: usize,
    },
}

#[derive(Debug)]
struct Function {
    key: VersionKey,
    spec: usize,
    arrivals: Arrivals,
    service: Service,
    /// The publication that invocations go to now.
    serving: Option<PublicationId>,
    /// How many times as long as it says.
    times: f64,
    /// How full each environment's memory is, in percent.
    memory_percent: u32,
}

#[derive(Debug)]
pub struct World {
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    /// When the report begins: times of loads, traces and faults count from there.
    begins_at: u64,
    scenario: Scenario,
    functions: Vec<Function>,
    trace: Option<Trace>,
    traced: Option<(u64, usize, u64, u64)>,
    /// Draws of different kinds don't disturb each other.
    gate_coins: Coins,
    service_coins: Coins,
    planner_coins: Coins,
    fate: Coins,
    gate: Gate,
    /// Every execution environment there ever was, and which of them are not over.
    agents: Vec<Agent>,
    alive: BTreeSet<usize>,
    numbers: Lookup<EnvironmentId, usize>,
    requests: Vec<Request>,
    unused: Vec<usize>,
    requested: u64,
    picture: Picture,
    memory: Memory,
    decide_at: Option<u64>,
    /// What each environment had in flight when that was looked at last.
    seen_in_flight: Vec<(usize, usize)>,
    paused_until: u64,
    launches: Vec<InstanceId>,
    zones_lost: BTreeSet<String>,
    /// An assignment as it was a while ago, for one that comes late.
    stale: Option<control::Assignment>,
    generation: Generation,
    fence: Fence,
    next_publication: u128,
    checks: Option<Checks>,
    pub collector: Collector,
    /// Hears of every decision, and when it was made.
    pub on_plan: Option<fn(u64, &Plan)>,
    handled: u64,
}

impl World {
    pub fn new(scenario: Scenario, seed: u64, trace: Option<Trace>) -> Self {
        let mut seeds = Coins::from_seed(seed);
        let mut coins = || Coins::from_seed(seeds.flip());
        let (gate_coins, service_coins, planner_coins, fate) = (coins(), coins(), coins(), coins());
        let collector = Collector::new(&scenario);
        let picture = control::first_picture(&scenario);
        let mut world = Self {
            now: 0,
            events: BinaryHeap::new(),
            order: 0,
            begins_at: 0,
            functions: Vec::new(),
            trace,
            traced: None,
            gate_coins,
            service_coins,
            planner_coins,
            fate,
            gate: Gate::default(),
            agents: Vec::new(),
            alive: BTreeSet::new(),
            numbers: Lookup::default(),
            requests: Vec::new(),
            unused: Vec::new(),
            requested: 0,
            picture,
            memory: Memory::default(),
            decide_at: None,
            seen_in_flight: Vec::new(),
            paused_until: 0,
            launches: Vec::new(),
            zones_lost: BTreeSet::new(),
            stale: None,
            generation: Generation { epoch: 1, number: 0 },
            fence: Fence::default(),
            next_publication: 0,
            checks: None,
            collector,
            on_plan: None,
            handled: 0,
            scenario,
        };
        for spec in 0..world.scenario.functions.len() {
            for copy in 0..world.scenario.functions[spec].count {
                let arrivals = coins();
                world.create(spec, copy, arrivals);
            }
        }
        world
    }

    /// Holds every invariant after every event; what is broken panics with its name.
    pub fn checked(mut self) -> Self {
        self.checks = Some(Checks::default());
        self
    }

    /// Runs to the end of the scenario.
    pub fn run(&mut self) {
        self.warm_up();
        self.begins_at = self.now + self.scenario.warm_up_seconds * SECOND_MICROS;
        for function in 0..self.functions.len() {
            self.next_arrival(function);
        }
        self.next_traced();
        for number in 0..self.scenario.events.len() {
            let at = self.begins_at + crate::workload::micros(self.scenario.events[number].at_seconds * 1e6);
            self.at(at, Event::Fault { number });
        }
        self.run_until(self.begins_at);
        let end = self.begins_at + self.scenario.duration_seconds * SECOND_MICROS;
        self.collector.begin(self.begins_at, end);
        self.run_until(end);
        self.collector.end(self.now);
    }

    /// Load begins when all versions are Active, or have failed to be: a trace knows no time before its first minute.
    fn warm_up(&mut self) {
        self.decide_soon();
        self.at(SECOND_MICROS, Event::Sample);
        if self.scenario.refresh_millis > 0 {
            self.at(self.scenario.refresh_millis * 1_000, Event::Refresh);
        }
        while self.now < control::WARM_UP_SECONDS_MAX * SECOND_MICROS && !self.is_up() {
            let next = self.now + SECOND_MICROS;
            self.run_until(next);
        }
    }

    /// Goes on without load and without anything that breaks, until nothing is left to do.
    pub fn settle(&mut self, seconds: u64) {
        let end = self.now + seconds * SECOND_MICROS;
        self.run_until(end);
    }

    /// Nothing comes any more, and nothing fails any more.
    pub fn calm_down(&mut self) {
        for function in &mut self.functions {
            function.arrivals.stop();
        }
        self.trace = None;
        // Nothing is about to be replaced either: what is looked at then is a world at rest.
        self.scenario.capacity.instance_max_age_seconds = AGELESS_SECONDS;
        self.picture.settings.instance_age_seconds_max = AGELESS_SECONDS;
        self.scenario.launch.failure_share = 0.0;
        self.scenario.start.failure_share = 0.0;
    }

    pub fn run_until(&mut self, end: u64) {
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            debug_assert!(at >= self.now, "time goes on");
            self.now = at;
            self.handled += 1;
            self.handle(event);
            if self.checks.is_some() {
                self.check(event);
            }
        }
        self.now = end;
    }

    /// What was wrong with the trace, if it is not what it was when it was checked.
    pub fn trace_error(&mut self) -> Option<SimError> {
        self.trace.as_mut().and_then(Trace::take_error)
    }

    pub fn handled(&self) -> u64 {
        self.handled
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival { function } => {
                self.arrive(function, self.now, 0, None);
                self.next_arrival(function);
            }
            Event::Traced => {
                if let Some((_, function, cpu, wait)) = self.traced.take() {
                    self.arrive(function, self.now, 0, Some((cpu, wait)));
                }
                self.next_traced();
            }
            Event::Retry { function, first_at, attempt } => self.arrive(function, first_at, attempt, None),
            Event::CpuDone { agent, turn } => self.cpu_done(agent, turn),
            Event::WaitDone { request } => self.wait_done(request),
            Event::Alarm { agent } => self.alarm(agent),
            Event::Started { agent } => self.started(agent),
            Event::Ended { agent } => self.ended(agent),
            Event::Launched { launch } => self.launched(launch),
            Event::Sample => self.sample(),
            Event::Refresh => self.refresh(),
            Event::Decide => self.decide(),
            Event::Fault { number } => {
                let what = self.scenario.events[number].what.clone();
                self.happen(&what);
            }
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn wall(&self) -> WallTime {
        WallTime(self.now)
    }

    fn policy(&self) -> PolicyTime {
        PolicyTime(self.now * self.scenario.time_scale)
    }

    fn next_arrival(&mut self, function: usize) {
        if let Some(after) = self.functions[function].arrivals.next() {
            self.at(self.begins_at.saturating_add_signed(after).max(self.now), Event::Arrival { function });
        }
    }
}
