//! EventBridge Scheduler: generated types and tables (`cargo xtask codegen`).

#[rustfmt::skip]
#[allow(clippy::unreadable_literal)]
pub mod tables;
pub mod types;

/// The tables of this service, as the codecs take them.
pub use tables::SERVICE;
