//! The hot path: accept → identify → resolve → admit → deliver → collect → record.
//!
//! Everything here runs on single-threaded shards and must never: read the store, call the control loops,
//! take a lock another thread holds for long, or log at info level for an invocation. It knows agents only
//! through [`ondol_protocol::invocation::Deliver`].

mod answer;
pub mod directory;
pub mod front;
pub mod hosts;
mod invocation;
pub mod on_demand;
pub mod shard;
