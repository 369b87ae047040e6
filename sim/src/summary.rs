//! What came of a simulation: numbers for people and for programs.

use std::fmt::Write as _;

use ondol_core::gate::ThrottleCause;
use serde::Serialize;

use crate::collect::Point;
use crate::scenario::Scenario;
use crate::world::World;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub scenario: String,
    pub about: String,
    pub seed: u64,
    pub duration_seconds: u64,
    pub arrivals: u64,
    pub answered: u64,
    /// Answered with a timeout.
    pub timeouts: u64,
    /// Cut off by a fault.
    pub failed: u64,
    /// Refused because the version was not Active.
    pub not_ready: u64,
    pub throttles: Throttles,
    pub latency_millis: Latency,
    pub environments: Range,
    pub instances: Instances,
    pub vcpu_hours: f64,
    pub decisions: u64,
    pub events: u64,
    pub functions: Vec<FunctionSummary>,
    pub timeline: Timeline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Throttles {
    pub total: u64,
    pub concurrency: u64,
    pub cpu: u64,
    pub memory: u64,
    pub disk: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    pub least: u32,
    pub most: u32,
    pub at_end: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Instances {
    pub most: u32,
    pub at_end: u32,
    pub launched: u64,
    pub ended: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FunctionSummary {
    pub name: String,
    pub arrivals: u64,
    pub answered: u64,
    pub throttles: Throttles,
    /// `[second, execution environments wanted]`, at each change.
    pub wanted: Vec<(u64, u32)>,
}

/// Columns of the same length: one point for each interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Timeline {
    pub interval_seconds: u64,
    pub arrivals: Vec<u64>,
    pub throttles: Vec<u64>,
    pub mean_latency_millis: Vec<f64>,
    pub in_flight: Vec<u32>,
    pub slots: Vec<u32>,
    pub environments_ready: Vec<u32>,
    pub environments_starting: Vec<u32>,
    pub instances: Vec<u32>,
    pub vcpus: Vec<u32>,
}

impl Throttles {
    fn of(counts: [u64; 4]) -> Self {
        let of = |cause: ThrottleCause| counts[cause as usize];
        Self {
            total: counts.iter().sum(),
            concurrency: of(ThrottleCause::Concurrency),
            cpu: of(ThrottleCause::Cpu),
            memory: of(ThrottleCause::Memory),
            disk: of(ThrottleCause::Disk),
        }
    }
}

/// Three digits behind the point: what is meant, and the same text on every machine.
fn rounded(value: f64) -> f64 {
    libm::round(value * 1_000.0) / 1_000.0
}

impl Summary {
    pub fn of(scenario: &Scenario, seed: u64, world: &World) -> Self {
        let collector = &world.collector;
        let sum = |of: fn(&crate::collect::OfFunction) -> u64| collector.functions.iter().map(of).sum();
        let mut throttles = [0; 4];
        for function in &collector.functions {
            throttles.iter_mut().zip(function.throttles).for_each(|(sum, count)| *sum += count);
        }
        let quantile =
            |quantile: f64| rounded(collector.latency.value_at_quantile(quantile) as f64 / 1_000.0);
        let end = collector.points.last().cloned().unwrap_or_default().most;
        let functions = collector.functions.iter().take(20).map(|function| FunctionSummary {
            name: function.name.clone(),
            arrivals: function.arrivals,
            answered: function.answered,
            throttles: Throttles::of(function.throttles),
            wanted: function.wanted.clone(),
        });
        Self {
            scenario: scenario.name.clone(),
            about: scenario.about.clone(),
            seed,
            duration_seconds: scenario.duration_seconds,
            arrivals: sum(|f| f.arrivals),
            answered: sum(|f| f.answered),
            timeouts: sum(|f| f.timeouts),
            failed: sum(|f| f.failed),
            not_ready: sum(|f| f.not_ready),
            throttles: Throttles::of(throttles),
            latency_millis: Latency {
                p50: quantile(0.5),
                p99: quantile(0.99),
                p999: quantile(0.999),
                max: rounded(collector.latency.max() as f64 / 1_000.0),
            },
            environments: Range {
                least: if collector.ready_least == u32::MAX { 0 } else { collector.ready_least },
                most: collector.ready_most,
                at_end: end.ready,
            },
            instances: Instances {
                most: collector.instances_most,
                at_end: end.instances,
                launched: collector.instances_launched,
                ended: collector.instances_ended,
            },
            vcpu_hours: rounded(collector.vcpu_hours()),
            decisions: collector.decisions,
            events: world.handled(),
            functions: functions.collect(),
            timeline: Timeline::of(&collector.points, collector.point_seconds()),
        }
    }

    /// The table for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ =
            writeln!(out, "{} (seed {}, {} s simulated)", self.scenario, self.seed, self.duration_seconds);
        if !self.about.is_empty() {
            let _ = writeln!(out, "{}", self.about);
        }
        let Throttles { total, concurrency, cpu, memory, disk } = self.throttles;
        let Latency { p50, p99, p999, max } = self.latency_millis;
        let rows = [
            (
                "invocations",
                format!(
                    "{} arrived, {} answered, {} timed out, {} failed, {} not ready",
                    self.arrivals, self.answered, self.timeouts, self.failed, self.not_ready
                ),
            ),
            (
                "throttled",
                format!("{total} (concurrency {concurrency}, cpu {cpu}, memory {memory}, disk {disk})"),
            ),
            ("latency", format!("p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms, max {max} ms")),
            (
                "execution environments",
                format!(
                    "{} to {}, {} at the end",
                    self.environments.least, self.environments.most, self.environments.at_end
                ),
            ),
            (
                "instances",
                format!(
                    "{} at most, {} at the end, {} launched, {} ended",
                    self.instances.most, self.instances.at_end, self.instances.launched, self.instances.ended
                ),
            ),
            ("capacity", format!("{} vCPU-hours", self.vcpu_hours)),
        ];
        for (name, value) in rows {
            let _ = writeln!(out, "  {name:<24}{value}");
        }
        for function in &self.functions {
            let path: Vec<String> =
                function.wanted.iter().take(16).map(|(at, to)| format!("{to} ({at} s)")).collect();
            if path.len() > 1 {
                let more = if function.wanted.len() > path.len() { " → …" } else { "" };
                let _ = writeln!(out, "  {}: {}{more}", function.name, path.join(" → "));
            }
        }
        out
    }

    /// The timeline as CSV, a line for each interval.
    pub fn csv(&self) -> String {
        let timeline = &self.timeline;
        let mut out = String::from(
            "second,arrivals,throttles,mean_latency_millis,in_flight,slots,environments_ready,environments_starting,instances,vcpus\n",
        );
        for place in 0..timeline.arrivals.len() {
            let _ = writeln!(
                out,
                "{},{},{},{},{},{},{},{},{},{}",
                place as u64 * timeline.interval_seconds,
                timeline.arrivals[place],
                timeline.throttles[place],
                timeline.mean_latency_millis[place],
                timeline.in_flight[place],
                timeline.slots[place],
                timeline.environments_ready[place],
                timeline.environments_starting[place],
                timeline.instances[place],
                timeline.vcpus[place]
            );
        }
        out
    }
}

impl Timeline {
    fn of(points: &[Point], interval_seconds: u64) -> Self {
        let mut timeline = Self { interval_seconds, ..Self::default() };
        for point in points {
            timeline.arrivals.push(point.arrivals);
            timeline.throttles.push(point.throttles.iter().sum());
            let mean = point.latency_sum_micros as f64 / point.answered.max(1) as f64 / 1_000.0;
            timeline.mean_latency_millis.push(rounded(mean));
            timeline.in_flight.push(point.most.in_flight);
            timeline.slots.push(point.most.slots);
            timeline.environments_ready.push(point.most.ready);
            timeline.environments_starting.push(point.most.starting);
            timeline.instances.push(point.most.instances);
            timeline.vcpus.push(point.most.vcpus);
        }
        timeline
    }
}
