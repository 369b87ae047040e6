//! One per machine: instances, execution environments, the Runtime API, log capture.
//!
//! The agent owns the slots of its environments and has the last word on every invocation. It carries out
//! the assignment it was given; it decides neither how many environments there are nor where.
//!
//! Two halves: [`machine`] runs beside the control loops and talks to the launcher; [`shard`] lives on the
//! invoke threads, one in each, and owns the environments' sockets and slots there. Channels join them.

mod budget;
mod caller;
pub mod configuration;
mod environment;
mod extensions;
mod extensions_api;
mod frames;
mod gauge;
mod host;
mod journal;
mod logs;
pub mod machine;
mod runtime_api;
mod sampling;
pub mod shard;
mod stream;
mod telemetry;
mod variables;

pub use configuration::{AgentConfiguration, Containment, Credentials};
pub use machine::Machine;
