//! Reading the clock. Time goes into decisions as an argument, and comes from here.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

static TIME_SCALE: AtomicU32 = AtomicU32::new(1);

/// Lets policy time go so many times faster than wall time, from the start of this process on.
pub fn compress(scale: u32) {
    TIME_SCALE.store(scale.max(1), Ordering::Relaxed);
}

fn time_scale() -> u64 {
    u64::from(TIME_SCALE.load(Ordering::Relaxed))
}

/// Policy time. It goes with wall time unless it is compressed.
pub fn policy() -> PolicyTime {
    let start = START.1;
    PolicyTime(start + (wall().0 - start) * time_scale())
}

/// Policy time by the system's own clock: it keeps to the calendar when the machine sleeps and when its clock is set,
/// as schedules must. May step back.
pub fn calendar() -> PolicyTime {
    let start = START.1;
    PolicyTime(start + system_micros().saturating_sub(start) * time_scale())
}

/// How long it is until a moment of the calendar, as things look now.
pub fn until_calendar(at: PolicyTime) -> Duration {
    Duration::from_micros(at.0.saturating_sub(calendar().0).div_ceil(time_scale()))
}

/// How long it is until a moment of policy time.
pub fn until(at: PolicyTime) -> Duration {
    Duration::from_micros(at.0.saturating_sub(policy().0) / time_scale())
}

/// The policy time of what happened, or will, at a moment of the system's clock. Seen from now: what was before this
/// process started is as long ago in policy time as it was compressed since.
pub fn policy_of(moment_epoch_millis: i64) -> PolicyTime {
    let micros = moment_epoch_millis.saturating_sub(epoch_millis()).saturating_mul(1_000);
    let scaled = micros.saturating_mul(i64::try_from(time_scale()).unwrap_or(i64::MAX));
    PolicyTime(policy().0.saturating_add_signed(scaled))
}

/// The moment of the system's clock at which policy time comes to `at`.
pub fn epoch_millis_of(at: PolicyTime) -> i64 {
    let micros = i128::from(at.0) - i128::from(policy().0);
    let millis = micros / i128::from(time_scale()) / 1_000;
    epoch_millis().saturating_add(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// The system's own clock, which signatures and timestamps are held against.
pub fn epoch_millis() -> i64 {
    i64::try_from(system_micros() / 1_000).unwrap_or(i64::MAX)
}
