//! Makes the decisions of a journal again and compares the plans, byte for byte.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::coins::Coins;
use crate::time::PolicyTime;

use super::super::{Memory, Picture, Plan, decide};
use super::{Delta, FORMAT, Keyframe, Line, PlanChange};

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    Same,
    Differs,
    /// It came before the first keyframe.
    Skipped,
    /// It ends too early. As the last one it is what a crash leaves behind; anything but a keyframe after it is an error.
    CutOff,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayError {
    /// It is no line of a journal.
    Malformed {
        line: u64,
        column: usize,
        what: String,
    },
    /// Lines are missing before this one, and it is no keyframe.
    Gap {
        line: u64,
        expected: u64,
        found: u64,
    },
    UnknownFormat {
        line: u64,
        found: u32,
    },
    /// A plan could not be written down.
    Unwritable {
        line: u64,
        what: String,
    },
}

/// A decision that is not the recorded one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub line: u64,
    pub sequence: u64,
    pub now: PolicyTime,
    /// The plan as JSON, or what changed of it since the line before.
    pub recorded: String,
    pub replayed: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub lines: u64,
    pub keyframes: u64,
    /// Decisions made again, and how many of them came out differently.
    pub decisions: u64,
    pub differences: u64,
    pub first_difference: Option<Difference>,
    /// Lines before the first keyframe, or after an error and before the next one.
    pub skipped: u64,
    /// Lines that were never written, for which there was no room.
    pub missing: u64,
    /// The line that was cut off in the middle.
    pub cut_off: Option<u64>,
}

/// Takes the lines of a journal in their order.
#[derive(Debug, Default)]
pub struct Replay {
    summary: Summary,
    known: Option<Known>,
    cut_off: Option<ReplayError>,
}

/// What the next delta is made from.
#[derive(Debug)]
struct Known {
    sequence: u64,
    picture: Picture,
    memory: Memory,
    /// None before the first decision.
    plan: Option<Plan>,
}

/// A line with its plan as it was written.
type Written = Line<Box<RawValue>, Box<RawValue>>;

enum Unread {
    CutOff(ReplayError),
    Wrong(ReplayError),
}

/// What of a line is read first: what it is, and its format.
#[derive(Deserialize)]
struct Head {
    keyframe: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Replay {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the decision of one line again. After an error the lines up to the next keyframe are skipped.
    pub fn line(&mut self, text: &str) -> Result<Replayed, ReplayError> {
        self.summary.lines += 1;
        let done = self.take(text);
        if done.is_err() {
            self.known = None;
        }
        done
    }

    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn take(&mut self, text: &str) -> Result<Replayed, ReplayError> {
        let line = match read(self.summary.lines, text) {
            Ok(line) => line,
            Err(Unread::CutOff(error)) if self.cut_off.is_none() => {
                self.summary.cut_off = Some(self.summary.lines);
                self.cut_off = Some(error);
                return Ok(Replayed::CutOff);
            }
            Err(Unread::CutOff(error) | Unread::Wrong(error)) => return Err(error),
        };
        match (line, self.cut_off.take()) {
            (Line::Keyframe(keyframe), _) => self.keyframe(*keyframe),
            (Line::Delta(_), Some(cut_off)) => Err(cut_off),
            (Line::Delta(delta), None) => self.delta(*delta),
        }
    }

    fn keyframe(&mut self, keyframe: Keyframe<Box<RawValue>>) -> Result<Replayed, ReplayError> {
        let Keyframe { format: _, sequence, now, coins, picture, memory, plan } = keyframe;
        self.summary.keyframes += 1;
        // A server that starts begins its numbers anew.
        let expected = self.known.as_ref().map_or(sequence, |known| known.sequence + 1);
        self.summary.missing += sequence.saturating_sub(expected);
        self.decide(Known { sequence, picture, memory, plan: None }, now, coins, &plan)
    }

    fn delta(&mut self, delta: Delta<Box<RawValue>>) -> Result<Replayed, ReplayError> {
        let Delta { sequence, now, coins, change, plan } = delta;
        let Some(mut known) = self.known.take() else {
            self.summary.skipped += 1;
            return Ok(Replayed::Skipped);
        };
        if sequence != known.sequence + 1 {
            let (line, expected) = (self.summary.lines, known.sequence + 1);
            return Err(ReplayError::Gap { line, expected, found: sequence });
        }
        known.sequence = sequence;
        change.apply(&mut known.picture);
        self.decide(known, now, coins, &plan)
    }

    fn decide(
        &mut self,
        known: Known,
        now: PolicyTime,
        coins: u64,
        recorded: &RawValue,
    ) -> Result<Replayed, ReplayError> {
        let Known { sequence, picture, memory, plan: before } = known;
        let (plan, memory) = decide(&picture, memory, now, &mut Coins::from_seed(coins));
        self.summary.decisions += 1;
        let line = self.summary.lines;
        let replayed = match before {
            None => serde_json::to_string(&plan),
            Some(before) => serde_json::to_string(&PlanChange::between(&before, &plan)),
        };
        self.known = Some(Known { sequence, picture, memory, plan: Some(plan) });
        let replayed = replayed.map_err(|error| ReplayError::Unwritable { line, what: error.to_string() })?;
        if replayed == recorded.get() {
            return Ok(Replayed::Same);
        }
        self.summary.differences += 1;
        self.summary.first_difference.get_or_insert_with(|| Difference {
            line,
            sequence,
            now,
            recorded: recorded.get().to_owned(),
            replayed,
        });
        Ok(Replayed::Differs)
    }
}

/// The format first, as a line of another may not be readable at all.
fn read(line: u64, text: &str) -> Result<Written, Unread> {
    let unread = |error: serde_json::Error| {
        let malformed = ReplayError::Malformed { line, column: error.column(), what: error.to_string() };
        if error.is_eof() { Unread::CutOff(malformed) } else { Unread::Wrong(malformed) }
    };
    let head: Head = serde_json::from_str(text).map_err(unread)?;
    match head.keyframe {
        Some(Format { format }) if format != FORMAT => {
            Err(Unread::Wrong(ReplayError::UnknownFormat { line, found: format }))
        }
        _ => serde_json::from_str(text).map_err(unread),
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { line, column, what } => {
                write!(f, "line {line}, column {column}: it is no line of a planner's journal: {what}")
            }
            Self::Gap { line, expected, found } => write!(
                f,
                "line {line}: number {found} comes where {expected} should: lines are missing, and what changed in them is not known. Give the journal whole, from a keyframe on"
            ),
            Self::UnknownFormat { line, found } => write!(
                f,
                "line {line}: the journal's format is {found}, and this version reads {FORMAT}: replay it with the version that wrote it"
            ),
            Self::Unwritable { line, what } => write!(f, "line {line}: the plan can't be written: {what}"),
        }
    }
}

impl std::error::Error for ReplayError {}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, keyframes, decisions, differences, first_difference, skipped, missing, cut_off } =
            self;
        write!(f, "{decisions} decisions made again from {lines} lines with {keyframes} keyframes: ")?;
        match first_difference {
            None => write!(f, "all as recorded")?,
            Some(Difference { line, sequence, .. }) => {
                write!(f, "{differences} differ, first number {sequence} on line {line}")?;
            }
        }
        if *skipped > 0 {
            write!(f, "; {skipped} lines skipped up to a keyframe")?;
        }
        if *missing > 0 {
            write!(f, "; {missing} lines were never written")?;
        }
        if let Some(line) = cut_off {
            write!(f, "; line {line} is cut off, as by a crash")?;
        }
        Ok(())
    }
}
