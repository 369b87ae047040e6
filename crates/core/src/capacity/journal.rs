//! The planner's journal: every decision with all that went into it, so that it can be made again elsewhere and
//! compared byte for byte. JSON, one object a line.
//!
//! A *keyframe* has the whole picture, the memory before the decision and the whole plan; a *delta* only what changed of
//! picture and plan since the line before, as the memory is what the decision before it gave. Each has a number, one
//! higher than the line's before; a keyframe may skip numbers, of lines for which there was no room.
//!
//! A decision that saw nothing new, planned nothing and remembered nothing new has no line: made again it would change
//! nothing.
//!
//! What is secret is never in it; see [`redaction`].

mod change;
mod recorder;
mod redaction;
mod replay;

use serde::{Deserialize, Serialize};

use crate::time::PolicyTime;

use super::{Memory, Picture, Plan};

pub use change::{MapChange, PictureChange, PlanChange};
pub use recorder::{Decided, KEYFRAME_EVERY_LINES, Recorder};
pub use redaction::REDACTED;
pub use replay::{Difference, Replay, ReplayError, Replayed, Summary};

/// The form of the lines. It changes when a reader of the form before would misunderstand them.
pub const FORMAT: u32 = 1;

/// One decision. `P` and `C` are the plan and its change: as they were made, or, for a reader, as they were written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<P = Plan, C = PlanChange> {
    Keyframe(Box<Keyframe<P>>),
    Delta(Box<Delta<C>>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keyframe<P = Plan> {
    pub format: u32,
    pub sequence: u64,
    pub now: PolicyTime,
    /// The state of the coins before the decision.
    pub coins: u64,
    pub picture: Picture,
    /// Before the decision.
    pub memory: Memory,
    pub plan: P,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delta<C = PlanChange> {
    pub sequence: u64,
    pub now: PolicyTime,
    pub coins: u64,
    /// Of the picture since the line before.
    pub change: PictureChange,
    pub plan: C,
}

impl Line {
    /// The line as it is written, without its end.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    pub fn is_keyframe(&self) -> bool {
        matches!(self, Self::Keyframe(_))
    }
}

#[cfg(test)]
mod tests;
