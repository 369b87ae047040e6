//! When a schedule is due: its expression in its time zone, between its dates. Time is an argument; the time zones are
//! data inside the binary.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use super::cron::Cron;
use crate::coins::Coins;
use crate::time::PolicyTime;

/// What stands in `ScheduleExpression`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Once, at a local time.
    At(DateTime),
    Rate {
        seconds: u64,
    },
    Cron(Box<Cron>),
}

impl Expression {
    /// The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inside = |word: &str| text.strip_prefix(word)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(at) = inside("at") {
            // To the second, and in no other form that is read.
            let time = at.parse::<DateTime>().ok().filter(|time| at.len() == 19 && time.to_string() == at);
            return time
                .map(Self::At)
                .ok_or_else(|| "A one-time schedule is of the form at(yyyy-mm-ddThh:mm:ss).".into());
        }
        if let Some(rate) = inside("rate") {
            return parse_rate(rate).ok_or_else(|| {
                "A rate is of the form rate(value unit): a whole number of at least 1, and minutes, hours or days.".into()
            });
        }
        if let Some(fields) = inside("cron") {
            return Cron::parse(fields).map(|cron| Self::Cron(Box::new(cron)));
        }
        Err("It must be at(yyyy-mm-ddThh:mm:ss), rate(value unit) or cron(fields).".into())
    }

    pub fn is_one_time(&self) -> bool {
        matches!(self, Self::At(_))
    }
}

fn parse_rate(text: &str) -> Option<Expression> {
    let (value, unit) = text.split_once(' ')?;
    let value: u32 = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())??;
    // AWS takes either number of the word, whatever the value.
    let seconds = match unit.trim_start() {
        "minute" | "minutes" => 60,
        "hour" | "hours" => 3_600,
        "day" | "days" => 86_400,
        _ => return None,
    };
    (value > 0).then(|| Expression::Rate { seconds: u64::from(value) * seconds })
}

/// A time zone by its name in the IANA database.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// All that says when.
#[derive(Debug, Clone)]
pub struct Timetable {
    pub expression: Expression,
    pub zone: TimeZone,
    /// A rate without a start counts from here.
    pub anchor: PolicyTime,
    /// Of recurring schedules only. Source: AWS's API reference.
    pub start: Option<PolicyTime>,
    pub end: Option<PolicyTime>,
    /// An invocation comes so long after its time at most.
    pub window_seconds: u64,
    /// What the place in the window is drawn with.
    pub seed: u64,
}

/// An occurrence that is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The time the schedule names.
    pub occurrence: PolicyTime,
    /// With its place in the flexible window.
    pub at: PolicyTime,
}

impl Timetable {
    /// The next time the schedule names, after another.
    pub fn next_after(&self, after: PolicyTime) -> Option<PolicyTime> {
        match &self.expression {
            Expression::At(local) => {
                // A time that clocks leave out is as much later as they jump; of two it is the first.
                let at = self.zone.to_ambiguous_timestamp(*local).compatible().ok()?;
                policy_time(at).filter(|at| *at > after)
            }
            Expression::Rate { seconds } => {
                let first = self.start.unwrap_or(self.anchor);
                let gone = if after < first { 0 } else { after.seconds_since(first) / seconds + 1 };
                self.before_end(first.plus_seconds(gone.saturating_mul(*seconds)))
            }
            Expression::Cron(cron) => {
                let just_before = |start: PolicyTime| PolicyTime(start.0.saturating_sub(1));
                let after = self.start.map_or(after, |start| after.max(just_before(start)));
                let mut local = self.zone.to_datetime(timestamp(after)?);
                loop {
                    local = cron.first_after(local)?;
                    // What clocks leave out is left out, and what they repeat is not. Source: AWS's page on schedule types.
                    let offset = match self.zone.to_ambiguous_timestamp(local).offset() {
                        AmbiguousOffset::Unambiguous { offset } => offset,
                        AmbiguousOffset::Fold { before, .. } => before,
                        AmbiguousOffset::Gap { .. } => continue,
                    };
                    match policy_time(offset.to_timestamp(local).ok()?) {
                        Some(at) if at > after => return self.before_end(at),
                        _ => {}
                    }
                }
            }
        }
    }

    fn before_end(&self, at: PolicyTime) -> Option<PolicyTime> {
        self.end.is_none_or(|end| at <= end).then_some(at)
    }

    /// What is to be carried out next; `fired` was the last. What was missed is made up for once: the one time of a
    /// one-time schedule, and within `age_seconds` the first of a rate. All else goes on with what comes.
    pub fn due(&self, fired: Option<PolicyTime>, now: PolicyTime, age_seconds: u64) -> Option<Due> {
        let due = |occurrence| Due { occurrence, at: self.place(occurrence) };
        match (&self.expression, fired) {
            (Expression::At(_), _) => return self.next_after(fired.unwrap_or_default()).map(due),
            (Expression::Rate { .. }, None) => {
                let first = due(self.next_after(PolicyTime::default())?);
                if first.at.plus_seconds(age_seconds) >= now {
                    return Some(first);
                }
            }
            _ => {}
        }
        let since = PolicyTime(now.0.saturating_sub(self.window_seconds.saturating_mul(1_000_000)));
        let mut after = fired.map_or(since, |fired| fired.max(since));
        loop {
            let next = due(self.next_after(after)?);
            if next.at >= now {
                return Some(next);
            }
            after = next.occurrence;
        }
    }

    /// The same after a restart: it hangs on the schedule and the occurrence alone.
    fn place(&self, occurrence: PolicyTime) -> PolicyTime {
        let window = usize::try_from(self.window_seconds).unwrap_or(usize::MAX);
        let seconds = Coins::from_seed(self.seed ^ occurrence.0).below(window);
        occurrence.plus_seconds(seconds as u64)
    }
}

fn timestamp(at: PolicyTime) -> Option<Timestamp> {
    Timestamp::from_microsecond(i64::try_from(at.0).ok()?).ok()
}

/// None for what is before 1970.
fn policy_time(at: Timestamp) -> Option<PolicyTime> {
    u64::try_from(at.as_microsecond()).ok().map(PolicyTime)
}
