//! Schedules: what is to be done when, as whom, and how often it is tried.

mod cron;
#[cfg(test)]
mod tests;
mod timetable;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::Home;
use crate::time::PolicyTime;
pub use timetable::{Due, Expression, Timetable, time_zone};

/// The group of whoever names none. It is always there.
pub const DEFAULT_GROUP: &str = "default";
/// Attempts of an occurrence after the first, and how old it may become, unless the schedule says otherwise. Source:
/// AWS's API reference.
pub const RETRIES_DEFAULT: u32 = 185;
pub const AGE_SECONDS_DEFAULT: u32 = 86_400;
/// Between attempts: twice as long each time.
const RETRY_SECONDS_LEAST: u64 = 1;
const RETRY_SECONDS_MOST: u64 = 600;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    pub group: String,
    pub name: String,
    pub settings: Settings,
    /// When its rate began to count.
    pub anchor: PolicyTime,
    pub created_epoch_millis: i64,
    pub last_modified_epoch_millis: i64,
    /// Whoever repeats the request that made it, is answered as the first time.
    pub client_token: Option<String>,
}

/// What a user says of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub description: Option<String>,
    pub expression: String,
    pub timezone: String,
    pub start_epoch_millis: Option<i64>,
    pub end_epoch_millis: Option<i64>,
    pub enabled: bool,
    pub target: Target,
    /// None is no window at all.
    pub window_minutes: Option<u32>,
    pub after_completion: AfterCompletion,
}

/// What is to be done, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `arn:aws:scheduler:::aws-sdk:SERVICE:OPERATION`
    pub arn: String,
    pub role_arn: String,
    /// The operation's request, as JSON.
    pub input: String,
    pub retries_max: u32,
    pub age_seconds_max: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterCompletion {
    Keep,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleGroup {
    pub name: String,
    pub tags: BTreeMap<String, String>,
    pub created_epoch_millis: i64,
    pub last_modified_epoch_millis: i64,
    pub client_token: Option<String>,
}

/// How a schedule went so far. Kept beside it, so that what a user changes and what happens don't meet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Run {
    /// The last occurrence that is over; it is never carried out again.
    pub fired: Option<PolicyTime>,
    pub outcome: Option<Outcome>,
}

/// How the last attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub occurrence: PolicyTime,
    pub ended_epoch_millis: i64,
    pub attempts: u32,
    /// None if all went well.
    pub trouble: Option<String>,
}

impl Schedule {
    pub fn arn(&self, home: &Home) -> String {
        home.schedule_arn(&self.group, &self.name)
    }

    /// The error says what can't be read.
    pub fn timetable(&self) -> Result<Timetable, String> {
        let name = self.group.bytes().chain(self.name.bytes());
        let seed = name.fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        self.settings.timetable(self.anchor, seed)
    }
}

impl Settings {
    /// A rate counts from `anchor`; places in a flexible window are drawn with `seed`. The error says what can't be read.
    pub fn timetable(&self, anchor: PolicyTime, seed: u64) -> Result<Timetable, String> {
        let moment =
            |millis: i64| PolicyTime(u64::try_from(millis).unwrap_or_default().saturating_mul(1_000));
        let timezone = &self.timezone;
        Ok(Timetable {
            expression: Expression::parse(&self.expression)?,
            zone: time_zone(timezone).ok_or_else(|| format!("There is no time zone {timezone}."))?,
            anchor,
            start: self.start_epoch_millis.map(moment),
            end: self.end_epoch_millis.map(moment),
            window_seconds: u64::from(self.window_minutes.unwrap_or(0)) * 60,
            seed,
        })
    }
}

impl Target {
    /// Whether it is too late for an occurrence that was due.
    pub fn is_too_old(&self, due: PolicyTime, now: PolicyTime) -> bool {
        now.seconds_since(due) > self.age_seconds_max.into()
    }

    /// When an occurrence is tried again after so many attempts that failed; none if it is given up.
    pub fn retry(&self, due: PolicyTime, attempts: u32, now: PolicyTime) -> Option<PolicyTime> {
        let doubled = 1_u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
        let at = now.plus_seconds(RETRY_SECONDS_LEAST.saturating_mul(doubled).min(RETRY_SECONDS_MOST));
        (attempts <= self.retries_max && !self.is_too_old(due, at)).then_some(at)
    }
}
