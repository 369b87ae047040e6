//! Two clocks, never mixed. Policy time may be compressed; wall time is real.

use serde::{Deserialize, Serialize};

/// Microseconds since the epoch on the wall clock: timeouts, deadlines, signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct WallTime(pub u64);

/// Microseconds since the epoch on the policy clock: ages, cool-downs, windows, back-offs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct PolicyTime(pub u64);

impl WallTime {
    pub fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1_000)))
    }

    pub fn epoch_millis(self) -> u64 {
        self.0 / 1_000
    }
}

impl PolicyTime {
    pub fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    pub fn seconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}
