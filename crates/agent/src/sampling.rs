//! What execution environments and the machine use, read once a second.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ondol_core::gate::ThrottleCause;
use ondol_core::signals::{EnvironmentSignals, Heat, Limits, MachineSignals, heat};
use ondol_core::time::WallTime;
use ondol_launcher::cgroup::{self, Usage};
use ondol_observe::clock;

use crate::gauge::Gauge;

const MIB: u64 = 1 << 20;
/// This part of its own limit an environment can always have, however busy others keep the machine: what uses next to
/// nothing of a machine without idle CPU is not held back by that.
const CPU_AT_LEAST_PERCENT: u32 = 10;

/// An environment's counters as they were at the last look.
#[derive(Debug)]
struct Before {
    at: WallTime,
    busy_micros: u64,
    cpu_micros: u64,
}

/// The sampling of one environment.
#[derive(Debug, Default)]
pub struct Sampler {
    before: Option<Before>,
    heat: Option<Heat>,
    pub signals: EnvironmentSignals,
}

impl Sampler {
    /// Looks at an environment that serves. The first look only begins the interval.
    pub fn look(
        &mut self,
        gauge: &Arc<Gauge>,
        group: Option<&str>,
        limits: Limits,
        machine: &MachineSignals,
    ) {
        let now = clock::wall();
        let usage = group.and_then(cgroup::usage).unwrap_or_default();
        let Usage { cpu_micros, memory_bytes, cpu_pressure_hundredths } = usage;
        let busy_micros = gauge.busy_micros(now);
        let peak = gauge.take_peak();
        let before = self.before.replace(Before { at: now, busy_micros, cpu_micros });
        let Some(before) = before else { return };
        let passed = now.0.saturating_sub(before.at.0).max(1);
        let part =
            |used: u64, unit: u64| u32::try_from(used.saturating_mul(unit) / passed).unwrap_or(u32::MAX);
        let cpu_used_millis = part(cpu_micros.saturating_sub(before.cpu_micros), 1_000);
        // Where others use the machine it could have had no more than it had and what was idle.
        let could_have = cpu_used_millis.saturating_add(machine.cpu_idle_millis);
        self.signals = EnvironmentSignals {
            sampled_at: clock::policy(),
            in_flight_hundredths: part(busy_micros.saturating_sub(before.busy_micros), 100),
            in_flight_peak: u32::try_from(peak).unwrap_or(u32::MAX),
            cpu_used_millis,
            cpu_available_millis: if group.is_some() { available(limits.cpu_millis, could_have) } else { 0 },
            cpu_pressure_hundredths,
            memory_used_mib: u32::try_from(memory_bytes / MIB).unwrap_or(u32::MAX),
            disk_used_mib: self.scratch_used_mib(group),
            refusals: gauge.refusals.load(Ordering::Relaxed),
        };
        self.heat = heat(&self.signals, limits, self.heat);
        gauge.set_heat(self.heat);
    }

    pub fn heat(&self) -> Option<Heat> {
        self.heat
    }

    /// Why it takes nothing at all for now, if it does not.
    pub fn takes_nothing(&self) -> Option<ThrottleCause> {
        self.heat.filter(|heat| heat.in_flight_max == 0).map(|heat| heat.cause)
    }

    /// Seen through a process of the environment, looked up each time: the number of one that has ended may be another's.
    fn scratch_used_mib(&self, group: Option<&str>) -> u32 {
        let process = group.and_then(cgroup::a_process);
        let found = process.and_then(|id| rustix::fs::statvfs(format!("/proc/{id}/root/tmp")).ok());
        found.map_or(self.signals.disk_used_mib, |found| {
            let used = found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize);
            u32::try_from(used.div_ceil(MIB)).unwrap_or(u32::MAX)
        })
    }
}

fn available(limit_millis: u32, could_have_millis: u32) -> u32 {
    could_have_millis.max(limit_millis / 100 * CPU_AT_LEAST_PERCENT).min(limit_millis)
}

/// The sampling of the machine.
#[derive(Debug, Default)]
pub struct MachineSampler {
    before: Option<(WallTime, u64)>,
}

impl MachineSampler {
    pub fn look(&mut self) -> MachineSignals {
        let now = clock::wall();
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let idle_micros = idle_micros(&stat);
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let before = idle_micros.and_then(|idle| self.before.replace((now, idle)));
        let cpu_idle_millis = before.zip(idle_micros).map_or(u32::MAX, |((at, before), idle)| {
            let passed = now.0.saturating_sub(at.0).max(1);
            u32::try_from(idle.saturating_sub(before) * 1_000 / passed).unwrap_or(u32::MAX)
        });
        MachineSignals { cpu_idle_millis, memory_available_mib: available_mib(&memory).unwrap_or(u64::MAX) }
    }
}

/// Idle time of all CPUs together. Source: proc(5): the fourth number of the first line, in hundredths of a second.
fn idle_micros(stat: &str) -> Option<u64> {
    let ticks: u64 = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().nth(3)?.parse().ok()?;
    Some(ticks * 10_000)
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? / 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_to_nothing_is_not_all_there_is() {
        assert_eq!(
            [0, 99, 400, 3_000].map(|could_have| available(1_000, could_have)),
            [100, 100, 400, 1_000]
        );
    }

    #[test]
    fn the_machine_is_read() {
        assert_eq!(idle_micros("cpu  10 0 20 300 4 0 1\ncpu0 …"), Some(3_000_000));
        assert_eq!(available_mib("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2));
        let mut sampler = MachineSampler::default();
        assert_eq!(sampler.look().cpu_idle_millis, u32::MAX, "the first look only begins the interval");
        assert!(sampler.look().memory_available_mib < u64::MAX);
    }
}
