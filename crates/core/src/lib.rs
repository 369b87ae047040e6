//! The decisions: nouns whose illegal states cannot be written down, and pure deciders over them.
//!
//! Nothing here reads a clock, draws a random number, opens a file or socket, or spawns anything: time,
//! chance and identity are arguments. Collections iterate in order and ties are broken by id, so that the
//! same input gives the same decision, in production and in a test.

pub mod attached;
pub mod capacity;
pub mod capacity_provider;
pub mod code_signing;
pub mod coins;
pub mod event;
pub mod event_pattern;
pub mod event_queue;
pub mod event_source;
pub mod event_source_mapping;
pub mod function;
pub mod gate;
pub mod identity;
pub mod instance_type;
pub mod layer;
pub mod lookup;
pub mod managed_instances;
pub mod on_demand;
mod pairs;
pub mod place;
pub mod policy;
pub mod quotas;
pub mod runtime;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod scale;
pub mod schedule;
pub mod signals;
pub mod slots;
pub mod throttle;
pub mod time;
