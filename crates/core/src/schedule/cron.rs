//! The six fields of a cron expression, as EventBridge Scheduler reads them: minutes, hours, day of month, month, day of
//! week, year. Knows local time only; what becomes of it where clocks change is `timetable`'s to say.
//!
//! Read here and not by a library: the ones there are take what AWS refuses (`L` in any field, both days at once, wide
//! steps), count weekdays and mix the two days as other crons do, and bring their own rules for clock changes.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime, Weekday};

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// What a field's numbers may be. Source: AWS's page on schedule types.
struct Field {
    name: &'static str,
    least: i16,
    most: i16,
    /// Words for the numbers from `least` on.
    words: &'static [&'static str],
}

const MINUTES: Field = Field { name: "minutes", least: 0, most: 59, words: &[] };
const HOURS: Field = Field { name: "hours", least: 0, most: 23, words: &[] };
const DAY_OF_MONTH: Field = Field { name: "day-of-month", least: 1, most: 31, words: &[] };
const MONTH: Field = Field { name: "month", least: 1, most: 12, words: &MONTHS };
const DAY_OF_WEEK: Field = Field { name: "day-of-week", least: 1, most: 7, words: &WEEKDAYS };
const YEAR: Field = Field { name: "year", least: 1970, most: 2199, words: &[] };

type Values = BTreeSet<i16>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: Values,
    hours: Values,
    days: Days,
    months: Values,
    years: Values,
}

/// One of the two day fields says something; the other is `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Days {
    OfMonth(Values),
    /// `L`
    LastOfMonth,
    /// `LW`
    LastWorkdayOfMonth,
    /// `15W`: the working day nearest to it, in the same month.
    Workday(i16),
    /// 1 is Sunday.
    OfWeek(Values),
    /// `6L`: the last Friday.
    LastOfWeekday(i16),
    /// `6#3`: the third Friday.
    NthOfWeekday(i16, i16),
}

impl Cron {
    /// What stands between the parentheses. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minutes, hours, day_of_month, month, day_of_week, year] = fields[..] else {
            return Err(format!(
                "A cron expression has six fields (minutes hours day-of-month month day-of-week year), not {}.",
                fields.len()
            ));
        };
        let days = match (day_of_month, day_of_week) {
            ("?", "?") => return Err("Only one of day-of-month and day-of-week can be ?.".into()),
            (of_month, "?") => days_of_month(of_month)?,
            ("?", of_week) => days_of_week(of_week)?,
            _ => return Err("One of day-of-month and day-of-week must be ?.".into()),
        };
        Ok(Self {
            minutes: MINUTES.values(minutes)?,
            hours: HOURS.values(hours)?,
            days,
            months: MONTH.values(month)?,
            years: YEAR.values(year)?,
        })
    }

    /// The first local time after another that matches.
    pub fn first_after(&self, after: DateTime) -> Option<DateTime> {
        let dates = self.years.range(after.year()..).flat_map(|year| {
            self.months.iter().filter_map(|month| Date::new(*year, i8::try_from(*month).ok()?, 1).ok())
        });
        dates
            .filter(|first| first.last_of_month() >= after.date())
            .flat_map(|first| {
                (1..=first.days_in_month()).filter_map(move |day| first.with().day(day).build().ok())
            })
            .filter(|date| *date >= after.date() && self.days.matches(*date))
            .find_map(|date| {
                self.times().map(|(hour, minute)| date.at(hour, minute, 0, 0)).find(|at| *at > after)
            })
    }

    fn times(&self) -> impl Iterator<Item = (i8, i8)> {
        let small = |value: i16| i8::try_from(value).unwrap_or_default();
        self.hours
            .iter()
            .flat_map(move |hour| self.minutes.iter().map(move |minute| (small(*hour), small(*minute))))
    }
}

impl Days {
    fn matches(&self, date: Date) -> bool {
        let day = i16::from(date.day());
        let weekday = i16::from(date.weekday().to_sunday_one_offset());
        match self {
            Self::OfMonth(days) => days.contains(&day),
            Self::LastOfMonth => date == date.last_of_month(),
            Self::LastWorkdayOfMonth => date == nearest_workday(date.last_of_month()),
            Self::Workday(wanted) => i8::try_from(*wanted)
                .ok()
                .and_then(|wanted| date.with().day(wanted).build().ok())
                .is_some_and(|wanted| date == nearest_workday(wanted)),
            Self::OfWeek(weekdays) => weekdays.contains(&weekday),
            Self::LastOfWeekday(wanted) => weekday == *wanted && day + 7 > i16::from(date.days_in_month()),
            Self::NthOfWeekday(wanted, nth) => weekday == *wanted && (day - 1) / 7 + 1 == *nth,
        }
    }
}

/// A Saturday's is the Friday before, a Sunday's the Monday after; unless that is in another month.
fn nearest_workday(date: Date) -> Date {
    let moved = |days: i8| date.with().day(date.day() + days).build().unwrap_or(date);
    match date.weekday() {
        Weekday::Saturday if date.day() == 1 => moved(2),
        Weekday::Saturday => moved(-1),
        Weekday::Sunday if date == date.last_of_month() => moved(-2),
        Weekday::Sunday => moved(1),
        _ => date,
    }
}

fn days_of_month(text: &str) -> Result<Days, String> {
    match text {
        "L" => Ok(Days::LastOfMonth),
        "LW" => Ok(Days::LastWorkdayOfMonth),
        _ => match text.strip_suffix('W') {
            Some(day) => Ok(Days::Workday(DAY_OF_MONTH.number(day)?)),
            None => Ok(Days::OfMonth(DAY_OF_MONTH.values(text)?)),
        },
    }
}

fn days_of_week(text: &str) -> Result<Days, String> {
    if let Some((weekday, nth)) = text.split_once('#') {
        let weekday = DAY_OF_WEEK.number(weekday)?;
        return match digits(nth) {
            Some(nth @ 1..=5) => Ok(Days::NthOfWeekday(weekday, nth)),
            _ => Err(format!("{text} in day-of-week: after # comes a number from 1 to 5.")),
        };
    }
    match text.strip_suffix('L') {
        // The last day of the week.
        Some("") => Ok(Days::OfWeek(Values::from([7]))),
        Some(weekday) => Ok(Days::LastOfWeekday(DAY_OF_WEEK.number(weekday)?)),
        None => Ok(Days::OfWeek(DAY_OF_WEEK.values(text)?)),
    }
}

impl Field {
    /// A list of numbers, ranges and steps.
    fn values(&self, text: &str) -> Result<Values, String> {
        let mut values = Values::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(self.step(part, step)?)),
                None => (part, None),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((from, to)) => (self.number(from)?, self.number(to)?),
                // With a step it goes on to the end.
                None if step.is_some() => (self.number(range)?, self.most),
                None => (self.number(range)?, self.number(range)?),
            };
            // From 22 to 2 goes over midnight; years don't come again.
            let size = self.most - self.least + 1;
            if from > to && self.least == YEAR.least {
                return Err(format!("{part} in {}: the range ends before it begins.", self.name));
            }
            let count = (to - from).rem_euclid(size);
            values.extend(
                (0..=count)
                    .step_by(step.unwrap_or(1))
                    .map(|gone| self.least + (from - self.least + gone) % size),
            );
        }
        Ok(values)
    }

    fn step(&self, part: &str, step: &str) -> Result<usize, String> {
        digits(step)
            .and_then(|step| usize::try_from(step).ok())
            .filter(|step| (1..=usize::from(self.most.unsigned_abs())).contains(step))
            .ok_or_else(|| format!("{part} in {}: a step is a number from 1 to {}.", self.name, self.most))
    }

    fn number(&self, text: &str) -> Result<i16, String> {
        let word = self.words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let number = match word {
            Some(place) => i16::try_from(place).ok().map(|place| place + self.least),
            None => digits(text),
        };
        number.filter(|number| (self.least..=self.most).contains(number)).ok_or_else(|| {
            let words = match self.words {
                [first, .., last] => format!(", or {first} to {last}"),
                _ => String::new(),
            };
            format!(
                "{text:?} in {}: a value is a number from {} to {}{words}.",
                self.name, self.least, self.most
            )
        })
    }
}

/// A number without a sign.
fn digits(text: &str) -> Option<i16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
