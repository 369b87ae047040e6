//! Reading the clock. Time goes into decisions as an argument, and comes from here.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ondol_core::time::{PolicyTime, WallTime};

static START: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), system_micros()));

fn system_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Wall time that never steps back: deadlines measured with it survive a change of the system clock.
pub fn wall() -> WallTime {
    let (instant, micros) = *START;
    WallTime(micros + u64::try_from(instant.elapsed().as_micros()).unwrap_or(0))
}

/// Policy time. Not compressed yet, so it goes with wall time.
pub fn policy() -> PolicyTime {
    PolicyTime(wall().0)
}

/// The system's own clock, which signatures and timestamps are held against.
pub fn epoch_millis() -> i64 {
    i64::try_from(system_micros() / 1_000).unwrap_or(i64::MAX)
}
