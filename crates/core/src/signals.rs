//! What is measured: of an execution environment, by its agent; of a version's traffic, by the front end. And the
//! agent's own decision from it: whether an environment is too hot to take more.

use serde::{Deserialize, Serialize};

use crate::function::FunctionConfiguration;
use crate::gate::ThrottleCause;
use crate::time::PolicyTime;

/// One execution environment over the interval that ended with the sample, a second unless something is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EnvironmentSignals {
    /// When the interval ended; the same number again means that there is nothing new. 0 before the first.
    pub sampled_at: PolicyTime,
    /// Slots that were held on average, in hundredths, and at most.
    pub in_flight_hundredths: u32,
    pub in_flight_peak: u32,
    /// Thousandths of a CPU: what it used, and what it could have had: its own limit, or less where others use the
    /// machine.
    pub cpu_used_millis: u32,
    pub cpu_available_millis: u32,
    /// The part of the last ten seconds in which something in it waited for a CPU, in hundredths of a percent; none
    /// where the kernel doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pressure_hundredths: Option<u32>,
    /// What it cannot give back, file cache not counted.
    pub memory_used_mib: u32,
    /// What is in its `/tmp`.
    pub disk_used_mib: u32,
    /// Invocations it was offered and did not take, since it started.
    pub refusals: u64,
}

/// A publication's traffic as the front end counts it, from the server's start on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Invocations that a function answered, well or not.
    pub answered: u64,
    /// Invocations that found no slot, by cause: in the order of [`ThrottleCause::ALL`].
    pub throttled: [u64; 4],
}

impl Traffic {
    pub fn of(&self, cause: ThrottleCause) -> u64 {
        self.throttled[cause as usize]
    }

    pub fn throttled_total(&self) -> u64 {
        self.throttled.iter().sum()
    }
}

/// The machine under all instances, which may promise more than it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSignals {
    pub cpu_idle_millis: u32,
    pub memory_available_mib: u64,
}

impl Default for MachineSignals {
    /// Nothing was measured, and nothing is held back for it.
    fn default() -> Self {
        Self { cpu_idle_millis: u32::MAX, memory_available_mib: u64::MAX }
    }
}

/// What an execution environment may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub cpu_millis: u32,
    pub memory_mib: u32,
    pub disk_mib: u32,
}

impl Limits {
    pub fn of(function: &FunctionConfiguration) -> Self {
        Self {
            cpu_millis: u32::try_from(function.cpu_millis()).unwrap_or(u32::MAX),
            memory_mib: function.memory_size_mib,
            disk_mib: function.ephemeral_storage_mib,
        }
    }
}

/// Shares at which an environment is too hot, and at which it is cool again, in percent. What AWS's agents use is not
/// published.
const CPU_HOT_PERCENT: u64 = 95;
const CPU_COOL_PERCENT: u64 = 85;
const MEMORY_HOT_PERCENT: u64 = 95;
const MEMORY_COOL_PERCENT: u64 = 90;
const DISK_HOT_PERCENT: u64 = 98;
const DISK_COOL_PERCENT: u64 = 95;

/// Why an environment takes no more for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Heat {
    pub cause: ThrottleCause,
    /// It takes an invocation only while fewer than so many are in flight.
    pub in_flight_max: u32,
}

/// Whether an environment is too hot after an interval, given whether it was before.
///
/// Out of memory or disk it takes nothing more. Out of CPU it goes on with what it had, and takes no more than that
/// at once: refusing everything would leave its CPU idle a moment later.
pub fn heat(signals: &EnvironmentSignals, limits: Limits, before: Option<Heat>) -> Option<Heat> {
    let was = |cause| before.filter(|heat| heat.cause == cause);
    let is_hot = |used: u32, limit: u32, cause, hot: u64, cool: u64| {
        let threshold = if was(cause).is_some() { cool } else { hot };
        limit > 0 && u64::from(used) * 100 >= u64::from(limit) * threshold
    };
    if is_hot(
        signals.memory_used_mib,
        limits.memory_mib,
        ThrottleCause::Memory,
        MEMORY_HOT_PERCENT,
        MEMORY_COOL_PERCENT,
    ) {
        return Some(Heat { cause: ThrottleCause::Memory, in_flight_max: 0 });
    }
    if is_hot(
        signals.disk_used_mib,
        limits.disk_mib,
        ThrottleCause::Disk,
        DISK_HOT_PERCENT,
        DISK_COOL_PERCENT,
    ) {
        return Some(Heat { cause: ThrottleCause::Disk, in_flight_max: 0 });
    }
    if is_hot(
        signals.cpu_used_millis,
        limits.cpu_millis,
        ThrottleCause::Cpu,
        CPU_HOT_PERCENT,
        CPU_COOL_PERCENT,
    ) {
        // One for each CPU is what it takes to keep them busy.
        let least = limits.cpu_millis.div_ceil(1_000).max(1);
        let held = was(ThrottleCause::Cpu).map_or(u32::MAX, |heat| heat.in_flight_max);
        let in_flight_max = signals.in_flight_peak.min(held).max(least);
        return Some(Heat { cause: ThrottleCause::Cpu, in_flight_max });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { cpu_millis: 2_000, memory_mib: 4_096, disk_mib: 512 };

    fn using(cpu: u32, memory: u32, disk: u32, peak: u32) -> EnvironmentSignals {
        EnvironmentSignals {
            cpu_used_millis: cpu,
            memory_used_mib: memory,
            disk_used_mib: disk,
            in_flight_peak: peak,
            ..EnvironmentSignals::default()
        }
    }

    #[test]
    fn each_resource_has_its_cause_and_memory_comes_first() {
        let cause = |signals| heat(&signals, LIMITS, None).map(|heat| heat.cause);
        assert_eq!(cause(using(1_000, 2_000, 100, 5)), None);
        assert_eq!(cause(using(1_900, 2_000, 100, 5)), Some(ThrottleCause::Cpu));
        assert_eq!(cause(using(1_900, 3_900, 510, 5)), Some(ThrottleCause::Memory));
        assert_eq!(cause(using(1_900, 2_000, 502, 5)), Some(ThrottleCause::Disk));
        let without_limits = Limits { cpu_millis: 0, memory_mib: 0, disk_mib: 0 };
        assert_eq!(heat(&using(9_999, 9_999, 9_999, 9), without_limits, None), None);
    }

    #[test]
    fn a_hot_cpu_keeps_what_it_has_takes_no_more_and_cools_late() {
        let first = heat(&using(2_000, 0, 0, 12), LIMITS, None);
        assert_eq!(first, Some(Heat { cause: ThrottleCause::Cpu, in_flight_max: 12 }));
        let then = heat(&using(1_800, 0, 0, 7), LIMITS, first);
        assert_eq!(then.map(|heat| heat.in_flight_max), Some(7), "fewer than before, and hot still");
        let more = heat(&using(1_950, 0, 0, 9), LIMITS, then);
        assert_eq!(more.map(|heat| heat.in_flight_max), Some(7), "it never grows while it is hot");
        assert_eq!(heat(&using(1_650, 0, 0, 7), LIMITS, more), None);
        let idle = heat(&using(2_000, 0, 0, 0), LIMITS, None);
        assert_eq!(idle.map(|heat| heat.in_flight_max), Some(2), "enough to keep its CPUs busy");
    }
}
