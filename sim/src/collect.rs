//! What a simulation counts on its way.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use ondol_core::capacity::{Instance, InstanceState, Scaling};
use ondol_core::function::VersionKey;
use ondol_core::gate::ThrottleCause;
use ondol_core::instance_type::by_name;

use crate::scenario::Scenario;

/// Points of the timeline at most; each is so much longer in a long simulation.
const POINTS_MAX: u64 = 1_440;
/// Functions whose numbers of environments are kept one by one.
const FUNCTIONS_SHOWN: usize = 20;
const CHANGES_MAX: usize = 2_000;
const LATENCY_MICROS_MAX: u64 = 6 * 3_600 * 1_000_000;

/// What there is at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment {
    pub ready: u32,
    pub starting: u32,
    pub slots: u32,
    pub in_flight: u32,
    pub instances: u32,
    pub vcpus: u32,
}

/// One point of the timeline: sums of its interval, and what there was at its end.
#[derive(Debug, Clone, Default)]
pub struct Point {
    pub arrivals: u64,
    pub throttles: [u64; 4],
    pub latency_sum_micros: u64,
    pub answered: u64,
    pub most: Moment,
}

#[derive(Debug, Clone, Default)]
pub struct OfFunction {
    pub name: String,
    pub arrivals: u64,
    pub answered: u64,
    pub failed: u64,
    pub timeouts: u64,
    pub not_ready: u64,
    pub throttles: [u64; 4],
    /// When the number of environments that are wanted changed, in seconds, and to what.
    pub wanted: Vec<(u64, u32)>,
}

#[derive(Debug)]
pub struct Collector {
    began_at: u64,
    ends_at: u64,
    point_micros: u64,
    pub points: Vec<Point>,
    pub functions: Vec<OfFunction>,
    numbers: BTreeMap<String, usize>,
    pub latency: Histogram<u64>,
    pub instances_launched: u64,
    pub instances_ended: u64,
    vcpus: u32,
    vcpus_since: u64,
    vcpu_micros: u128,
    pub decisions: u64,
    pub ready_most: u32,
    pub ready_least: u32,
    pub instances_most: u32,
    now: u64,
}

impl Collector {
    pub fn new(scenario: &Scenario) -> Self {
        let point_seconds = scenario.duration_seconds.div_ceil(POINTS_MAX).max(1);
        // Three digits, which is what people read.
        let latency = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)
            .unwrap_or_else(|error| panic!("the bounds are constants: {error}"));
        Self {
            began_at: u64::MAX,
            ends_at: u64::MAX,
            point_micros: point_seconds * 1_000_000,
            points: Vec::new(),
            functions: Vec::new(),
            numbers: BTreeMap::new(),
            latency,
            instances_launched: 0,
            instances_ended: 0,
            vcpus: 0,
            vcpus_since: 0,
            vcpu_micros: 0,
            decisions: 0,
            ready_most: 0,
            ready_least: u32::MAX,
            instances_most: 0,
            now: 0,
        }
    }

    pub fn add_function(&mut self, name: &str) {
        self.numbers.insert(name.to_owned(), self.functions.len());
        self.functions.push(OfFunction { name: name.to_owned(), ..OfFunction::default() });
    }

    /// The load begins.
    pub fn begin(&mut self, now: u64, ends_at: u64) {
        (self.began_at, self.ends_at, self.vcpus_since, self.vcpu_micros) = (now, ends_at, now, 0);
        // What came before was only to warm up.
        self.latency.reset();
        for function in &mut self.functions {
            let wanted = function.wanted.last().map(|(_, count)| (0, *count));
            let name = std::mem::take(&mut function.name);
            *function = OfFunction { name, wanted: wanted.into_iter().collect(), ..OfFunction::default() };
        }
    }

    /// The report ends here; what comes later is not counted.
    pub fn end(&mut self, now: u64) {
        self.count_vcpus(now);
    }

    pub fn point_seconds(&self) -> u64 {
        self.point_micros / 1_000_000
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn vcpu_hours(&self) -> f64 {
        self.vcpu_micros as f64 / 3_600e6
    }

    fn is_on(&self, now: u64) -> bool {
        (self.began_at..self.ends_at).contains(&now)
    }

    fn point(&mut self, now: u64) -> Option<&mut Point> {
        if !self.is_on(now) {
            return None;
        }
        let number = usize::try_from((now - self.began_at) / self.point_micros).ok()?;
        if self.points.len() <= number {
            self.points.resize(number + 1, Point::default());
        }
        self.points.get_mut(number)
    }

    pub fn arrived(&mut self, function: usize, now: u64) {
        self.functions[function].arrivals += 1;
        if let Some(point) = self.point(now) {
            point.arrivals += 1;
        }
    }

    pub fn not_ready(&mut self, function: usize) {
        self.functions[function].not_ready += 1;
    }

    pub fn throttled(&mut self, function: usize, cause: ThrottleCause, now: u64) {
        self.functions[function].throttles[cause as usize] += 1;
        if let Some(point) = self.point(now) {
            point.throttles[cause as usize] += 1;
        }
    }

    pub fn answered(&mut self, function: usize, first_at: u64, now: u64) {
        if first_at < self.began_at && self.began_at != u64::MAX {
            return;
        }
        self.functions[function].answered += 1;
        let micros = now - first_at;
        self.latency.saturating_record(micros.max(1));
        if let Some(point) = self.point(now) {
            point.latency_sum_micros += micros;
            point.answered += 1;
        }
    }

    pub fn timed_out(&mut self, function: usize) {
        self.functions[function].timeouts += 1;
    }

    pub fn failed(&mut self, function: usize) {
        self.functions[function].failed += 1;
    }

    pub fn decided(&mut self) {
        self.decisions += 1;
    }

    pub fn scaled(&mut self, scaling: &BTreeMap<VersionKey, Scaling>) {
        let seconds = self.now.saturating_sub(self.began_at) / 1_000_000;
        for (key, scaling) in scaling {
            let Some(&number) = self.numbers.get(&key.function).filter(|number| **number < FUNCTIONS_SHOWN)
            else {
                continue;
            };
            let wanted = &mut self.functions[number].wanted;
            if wanted.last().is_none_or(|(_, last)| *last != scaling.wanted) && wanted.len() < CHANGES_MAX {
                wanted.push((seconds, scaling.wanted));
            }
        }
    }

    pub fn measured(&mut self, now: u64, moment: Moment) {
        self.now = now;
        if !self.is_on(now) {
            return;
        }
        self.ready_most = self.ready_most.max(moment.ready);
        self.ready_least = self.ready_least.min(moment.ready);
        self.instances_most = self.instances_most.max(moment.instances);
        if let Some(point) = self.point(now) {
            let most = &mut point.most;
            most.in_flight = most.in_flight.max(moment.in_flight);
            (most.ready, most.starting, most.slots) = (moment.ready, moment.starting, moment.slots);
            (most.instances, most.vcpus) = (moment.instances, moment.vcpus);
        }
    }

    pub fn instance_came(&mut self, instance: &Instance, now: u64) {
        self.count_vcpus(now);
        self.vcpus += by_name(&instance.instance_type).map_or(0, |found| found.vcpus);
    }

    pub fn instance_up(&mut self) {
        self.instances_launched += 1;
    }

    pub fn instance_gone(&mut self, instance: &Instance, now: u64) {
        self.count_vcpus(now);
        self.instances_ended += u64::from(!matches!(instance.state, InstanceState::LaunchFailed(_)));
        self.vcpus -= by_name(&instance.instance_type).map_or(0, |found| found.vcpus);
    }

    fn count_vcpus(&mut self, now: u64) {
        let now = now.min(self.ends_at);
        if now > self.vcpus_since && self.began_at != u64::MAX {
            self.vcpu_micros += u128::from(now - self.vcpus_since) * u128::from(self.vcpus);
        }
        self.vcpus_since = self.vcpus_since.max(now);
    }
}
