//! Event sources: how records become batches, how many pollers read at once, and what an answer means for each record.

mod batch;
mod filter;
mod pollers;
mod response;

pub use batch::{BatchLimits, Gathering, visibility_asked};
pub use filter::Filters;
pub use pollers::Pollers;
pub use response::Verdict;

use std::collections::BTreeMap;

use serde::Serialize;

/// Bytes of one invocation's payload. Source: AWS's page on batching.
pub const BATCH_BYTES_MAX: usize = 6 << 20;

/// Policy seconds before the same batch is offered again: 1, doubling up to 30.
pub fn again_seconds(tries: u32) -> u64 {
    (1 << tries.min(5)).min(30)
}

/// What the pollers of a mapping tell of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SourceReport {
    /// Which state of the mapping this tells of: what was asked for before is still being carried out otherwise.
    pub generation: u64,
    pub is_reading: bool,
    pub pollers: usize,
    /// Why nothing is read, or not as it should be: AWS's code, a colon, a sentence.
    pub trouble: Option<String>,
    /// In AWS's words.
    pub last_processing_result: Option<String>,
    /// Counted since the server started.
    pub counts: SourceCounts,
}

/// What is told of each mapping, by its UUID.
pub type SourceReports = BTreeMap<String, SourceReport>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SourceCounts {
    pub batches: u64,
    pub records: u64,
    /// Records that no filter wanted.
    pub filtered: u64,
    /// Batches that failed, as a whole or in part.
    pub failed: u64,
    /// Times a batch found no capacity.
    pub throttled: u64,
}
