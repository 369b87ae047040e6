//! The hot path: accept → identify → resolve → admit → deliver → collect → record.
//!
//! Everything here runs on single-threaded shards and must never: read the store (an event is handed to its queue), call the control loops,
//! take a lock another thread holds for long, or log at info level for an invocation. It knows agents only
//! through [`ondol_protocol::invocation::Deliver`].

mod answer;
mod carry;
pub mod directory;
mod event;
mod event_stream;
pub mod front;
pub mod hosts;
pub mod inner;
mod invocation;
mod meter;
pub mod on_demand;
mod payload;
pub mod shard;
mod url;
