//! The front end: arrivals, admission, and what becomes of those that find no slot.

use ondol_core::gate::{ATTEMPTS_MAX, Event as GateEvent, ThrottleCause};
use ondol_core::identity::{EnvironmentId, RequestId};
use ondol_core::slots::{Effect, Event as SlotEvent};

use super::{Event, World};

/// How SDKs wait before they ask again: at most twice as long each time.
const RETRY_MICROS: u64 = 200_000;
const RETRY_MICROS_MAX: u64 = 20_000_000;

/// An invocation that an environment has, by its number.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub id: u128,
    pub function: usize,
    pub first_at: u64,
    pub agent: usize,
    /// Its place in the agent's list.
    pub place: usize,
    pub cpu_micros: u64,
    pub wait_micros: u64,
    /// The caller has been answered already.
    pub is_late: bool,
}

impl World {
    /// One invocation comes, for the first time or again.
    pub(super) fn arrive(
        &mut self,
        function: usize,
        first_at: u64,
        attempt: u32,
        service: Option<(u64, u64)>,
    ) {
        if attempt == 0 {
            self.collector.arrived(function, self.now);
        }
        let Some(publication) = self.functions[function].serving else {
            self.collector.not_ready(function);
            return;
        };
        let (cpu_micros, wait_micros) = service.unwrap_or_else(|| {
            let of = &self.functions[function];
            of.service.draw(&mut self.service_coins, of.times)
        });
        let number = self.unused.pop().unwrap_or_else(|| {
            self.requests.push(Request::default());
            self.requests.len() - 1
        });
        self.requested += 1;
        // The number is found again from the id.
        let id = u128::from(self.requested) << 32 | number as u128;
        self.requests[number] = Request {
            id,
            function,
            first_at,
            agent: usize::MAX,
            place: 0,
            cpu_micros,
            wait_micros,
            is_late: false,
        };
        let spec = &self.scenario.functions[self.functions[function].spec];
        let timeout_millis = u64::from(spec.timeout_seconds) * 1_000;
        let mut tried: Vec<EnvironmentId> = Vec::new();
        let mut cause = ThrottleCause::Concurrency;
        while tried.len() < ATTEMPTS_MAX {
            let environment = match self.gate.admit(publication, &tried, &mut self.gate_coins) {
                Ok(environment) => environment,
                Err(saturated) => {
                    cause = if tried.is_empty() { saturated } else { cause };
                    break;
                }
            };
            let Some(&agent) = self.numbers.get(&environment) else {
                panic!("I3: the gate chose what is gone")
            };
            self.check_delivery(agent, publication);
            match self.deliver(agent, number, timeout_millis) {
                Ok(()) => return,
                Err(why) => {
                    cause = why;
                    tried.push(environment);
                    self.gate.handle(&GateEvent::SlotReleased { environment });
                }
            }
        }
        self.unused.push(number);
        self.check_throttle(publication, &tried, cause);
        let traffic = self.picture.traffic.entry(publication).or_default();
        traffic.throttled[cause as usize] += 1;
        self.collector.throttled(function, cause, self.now);
        if attempt < self.scenario.retries {
            let most = (RETRY_MICROS << attempt.min(10)).min(RETRY_MICROS_MAX);
            let wait = self.service_coins.below(usize::try_from(most).unwrap_or(usize::MAX)) as u64;
            self.at(self.now + wait, Event::Retry { function, first_at, attempt: attempt + 1 });
        }
    }

    /// Offers an invocation to an environment, whose agent has the last word.
    fn deliver(&mut self, agent: usize, number: usize, timeout_millis: u64) -> Result<(), ThrottleCause> {
        let request = RequestId(self.requests[number].id);
        let of = &mut self.agents[agent];
        let in_flight = of.slots.in_flight();
        if let Some(heat) = of.heat.filter(|heat| in_flight >= heat.in_flight_max as usize) {
            of.refusals += 1;
            return Err(heat.cause);
        }
        self.requests[number].agent = agent;
        let mut effects = Vec::new();
        let now = self.wall();
        let of = &mut self.agents[agent];
        of.slots.handle(now, SlotEvent::Invoke { request, timeout_millis }, &mut effects);
        let refused =
            |effect: &Effect| matches!(effect, Effect::Refuse { request: of, .. } if *of == request);
        if effects.iter().any(refused) {
            of.refusals += 1;
            return Err(ThrottleCause::Concurrency);
        }
        self.carry_out(agent, effects);
        Ok(())
    }

    pub(super) fn next_traced(&mut self) {
        let Some(trace) = &mut self.trace else { return };
        if let Some(next) = trace.next() {
            let at = self.begins_at + next.at_micros;
            self.traced = Some((at, next.function, next.cpu_micros, next.wait_micros));
            self.at(at.max(self.now), Event::Traced);
        }
    }
}
