//! The simulator: scaling, placement and admission as production decides them, in a world of discrete events.
//!
//! It knows `core` and `protocol` only. Nothing here reads a clock or draws a number that its seed does not give.
#![allow(clippy::cast_precision_loss)]

mod collect;
mod cpu;
pub mod plot;
pub mod random;
pub mod scenario;
pub mod scenarios;
pub mod summary;
pub mod trace;
mod workload;
mod world;

use thiserror::Error;

pub use scenario::Scenario;
pub use summary::Summary;
pub use world::World;

/// Why a simulation can't be made. Nothing has been changed or written then.
#[derive(Debug, Error)]
pub enum SimError {
    #[error("line {line}, column {column}: {what}")]
    Scenario { line: usize, column: usize, what: String },
    #[error("{0}")]
    Impossible(String),
    #[error("line {line}, column {column}: {what}")]
    Trace { line: u64, column: usize, what: String },
    #[error("there is no scenario {name}; there are: {known}")]
    Unknown { name: String, known: String },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Simulates a scenario from a seed.
pub fn simulate(scenario: &Scenario, seed: u64, trace: Option<trace::Trace>) -> Result<Summary, SimError> {
    scenario.check()?;
    let mut world = World::new(scenario.clone(), seed, trace);
    world.run();
    if let Some(error) = world.trace_error() {
        return Err(error);
    }
    Ok(Summary::of(scenario, seed, &world))
}
