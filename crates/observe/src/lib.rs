//! What a user reads later: what was invoked, how it ended, what was throttled and why, and what functions and
//! the platform wrote. Also the shells' only reading of the clock.

pub mod clock;
pub mod logs;
pub mod metrics;
pub mod notice;
pub mod platform;
pub mod usage;
