//! The AWS services as users call them: wire → nouns → store → wire. One folder a service, one file a resource.
//!
//! An operation checks everything before it writes, writes intent to the store, and answers. It never
//! waits for anything to run, and never calls the control loops or the hot path: they follow the store.

pub mod compatibility;
mod context;
mod door;
mod faults;
pub mod lambda;
pub mod scheduler;

pub use context::Context;
pub use door::{Api, Page, PageAnswer, Pages};
pub use lambda::pass::deputy;
