//! What a user reads later: what was invoked, how it ended, what was throttled and why.
//! Also the shells' only reading of the clock.

pub mod clock;
pub mod notice;
pub mod usage;
