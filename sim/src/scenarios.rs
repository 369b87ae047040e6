//! Scenarios that come with the simulator. Their expected summaries are in `scenarios/expected` and reviewed like code.

use crate::SimError;
use crate::scenario::Scenario;

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        /// By name.
        pub const ALL: &[(&str, &str)] = &[$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),*];
    };
}

scenarios!(
    "double-in-five-minutes",
    "half-more-at-once",
    "ten-times-at-once",
    "five-calls",
    "zone-lost",
    "replacement",
    "replacement-at-the-cap",
    "constant",
    "cpu-bound",
);

/// The one that is simulated when none is named.
pub const DEFAULT: &str = "double-in-five-minutes";

pub fn named(name: &str) -> Result<Scenario, SimError> {
    let found = ALL.iter().find(|(known, _)| *known == name);
    let (_, text) = found.ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|(known, _)| *known).collect();
        SimError::Unknown { name: name.to_owned(), known: known.join(", ") }
    })?;
    let scenario = Scenario::parse(text)?;
    Ok(Scenario { name: name.to_owned(), ..scenario })
}
