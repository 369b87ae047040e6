//! Numbers of one environment, written by its shard and read by the machine; and the machine's word to the shard that
//! it is too hot.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use ondol_core::gate::ThrottleCause;
use ondol_core::signals::Heat;
use ondol_core::time::WallTime;

#[derive(Debug)]
pub struct Gauge {
    pub in_flight: AtomicUsize,
    pub parked_polls: AtomicUsize,
    pub timed_out: AtomicUsize,
    pub refusals: AtomicU64,
    /// Slots held, times how long, up to `changed_at`; in microseconds of wall time.
    busy_micros: AtomicU64,
    changed_at: AtomicU64,
    /// The most slots held since it was last taken.
    peak: AtomicUsize,
    /// A [`Heat`]: so many in flight at most, and why.
    in_flight_max: AtomicU32,
    cause: AtomicU8,
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            parked_polls: AtomicUsize::new(0),
            timed_out: AtomicUsize::new(0),
            refusals: AtomicU64::new(0),
            busy_micros: AtomicU64::new(0),
            changed_at: AtomicU64::new(0),
            peak: AtomicUsize::new(0),
            in_flight_max: AtomicU32::new(u32::MAX),
            cause: AtomicU8::new(0),
        }
    }
}

impl Gauge {
    /// So many slots are held from now on. Only its shard says so.
    pub fn hold(&self, now: WallTime, in_flight: usize) {
        let before = self.in_flight.swap(in_flight, Relaxed);
        if before != in_flight {
            let since = self.changed_at.swap(now.0, Relaxed);
            self.busy_micros.fetch_add(before as u64 * now.0.saturating_sub(since), Relaxed);
            self.peak.fetch_max(in_flight, Relaxed);
        }
    }

    /// Slots held, times how long, until now.
    pub fn busy_micros(&self, now: WallTime) -> u64 {
        let held = self.in_flight.load(Relaxed) as u64;
        self.busy_micros.load(Relaxed) + held * now.0.saturating_sub(self.changed_at.load(Relaxed))
    }

    /// The most slots held since the last call.
    pub fn take_peak(&self) -> usize {
        self.peak.swap(self.in_flight.load(Relaxed), Relaxed)
    }

    pub fn set_heat(&self, heat: Option<Heat>) {
        if let Some(heat) = heat {
            self.cause.store(heat.cause as u8, Relaxed);
        }
        self.in_flight_max.store(heat.map_or(u32::MAX, |heat| heat.in_flight_max), Relaxed);
    }

    /// Why one more invocation is not taken, if it is too hot for that.
    pub fn too_hot_for(&self, in_flight: usize) -> Option<ThrottleCause> {
        let is_hot = in_flight >= self.in_flight_max.load(Relaxed) as usize;
        is_hot.then(|| ThrottleCause::ALL[usize::from(self.cause.load(Relaxed)) % ThrottleCause::ALL.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_held_are_summed_over_time() {
        let gauge = Gauge::default();
        gauge.hold(WallTime(1_000), 2);
        gauge.hold(WallTime(3_000), 5);
        gauge.hold(WallTime(3_000), 1);
        assert_eq!(gauge.busy_micros(WallTime(4_000)), 2 * 2_000 + 1_000);
        assert_eq!((gauge.take_peak(), gauge.take_peak()), (5, 1));
    }

    #[test]
    fn heat_is_told_with_its_cause() {
        let gauge = Gauge::default();
        assert_eq!(gauge.too_hot_for(1_000), None);
        gauge.set_heat(Some(Heat { cause: ThrottleCause::Disk, in_flight_max: 0 }));
        assert_eq!(gauge.too_hot_for(0), Some(ThrottleCause::Disk));
        gauge.set_heat(Some(Heat { cause: ThrottleCause::Cpu, in_flight_max: 4 }));
        assert_eq!((gauge.too_hot_for(3), gauge.too_hot_for(4)), (None, Some(ThrottleCause::Cpu)));
        gauge.set_heat(None);
        assert_eq!(gauge.too_hot_for(4), None);
    }
}
