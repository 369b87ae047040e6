//! Decides, and gives the line of the journal that tells the decision.

use crate::coins::Coins;
use crate::time::PolicyTime;

use super::super::{Memory, Picture, Plan, decide};
use super::redaction::{redact_change, redact_memory, redact_picture, redact_plan};
use super::{Delta, FORMAT, Keyframe, Line, PictureChange, PlanChange};

/// So often a keyframe comes, if nothing asks for one before.
pub const KEYFRAME_EVERY_LINES: u64 = 1_000;

/// A decision and its line, if it needs one.
#[derive(Debug)]
pub struct Decided {
    pub plan: Plan,
    pub memory: Memory,
    pub line: Option<Line>,
}

#[derive(Debug)]
pub struct Recorder {
    keyframe_every_lines: u64,
    keyframe_is_due: bool,
    lines_since_keyframe: u64,
    sequence: u64,
    last: Option<Last>,
}

/// What a reader of the lines so far knows.
#[derive(Debug)]
struct Last {
    picture: Picture,
    /// After the decision.
    memory: Memory,
    /// As it was recorded.
    plan: Plan,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new(KEYFRAME_EVERY_LINES)
    }
}

impl Recorder {
    pub fn new(keyframe_every_lines: u64) -> Self {
        Self { keyframe_every_lines, keyframe_is_due: true, lines_since_keyframe: 0, sequence: 0, last: None }
    }

    /// The next line is a keyframe: a line was lost, or a file begins.
    pub fn ask_for_keyframe(&mut self) {
        self.keyframe_is_due = true;
    }

    /// What [`decide`] decides. A memory that is not the one it gave the last time, as after a reset, makes a keyframe.
    pub fn decide(
        &mut self,
        picture: &Picture,
        memory: Memory,
        now: PolicyTime,
        coins: &mut Coins,
    ) -> Decided {
        let coins_before = coins.state();
        let is_due = self.keyframe_is_due || self.lines_since_keyframe >= self.keyframe_every_lines;
        let known = self.last.take().filter(|last| !is_due && last.memory == memory);
        let (known, before) = match known {
            Some(Last { picture, memory, plan }) => (Some((picture, plan)), memory),
            None => (None, memory.clone()),
        };
        let (plan, memory) = decide(picture, memory, now, coins);
        let mut recorded = plan.clone();
        redact_plan(&mut recorded, picture, &before);
        let (seen, line) = match known {
            None => {
                let line = self.keyframe(picture, before, now, coins_before, recorded.clone());
                (picture.clone(), Some(line))
            }
            Some((mut seen, last_plan)) => {
                let mut change = PictureChange::between(&seen, picture);
                let is_idle = change.is_empty()
                    && plan == Plan::default()
                    && last_plan == Plan::default()
                    && before == memory
                    && coins.state() == coins_before;
                change.clone().apply(&mut seen);
                redact_change(&mut change);
                let plan = PlanChange::between(&last_plan, &recorded);
                (seen, (!is_idle).then(|| self.delta(change, now, coins_before, plan)))
            }
        };
        self.last = Some(Last { picture: seen, memory: memory.clone(), plan: recorded });
        Decided { plan, memory, line }
    }

    fn keyframe(
        &mut self,
        picture: &Picture,
        mut memory: Memory,
        now: PolicyTime,
        coins: u64,
        plan: Plan,
    ) -> Line {
        self.keyframe_is_due = false;
        self.lines_since_keyframe = 0;
        let mut picture = picture.clone();
        redact_picture(&mut picture);
        redact_memory(&mut memory);
        let sequence = self.next_sequence();
        Line::Keyframe(Box::new(Keyframe { format: FORMAT, sequence, now, coins, picture, memory, plan }))
    }

    fn delta(&mut self, change: PictureChange, now: PolicyTime, coins: u64, plan: PlanChange) -> Line {
        Line::Delta(Box::new(Delta { sequence: self.next_sequence(), now, coins, change, plan }))
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.lines_since_keyframe += 1;
        self.sequence
    }
}
