//! The messages between rooms: control to agent, invoke to agent, agent to launcher. Types only.

pub mod assignment;
pub mod containment;
pub mod inner;
pub mod invocation;
