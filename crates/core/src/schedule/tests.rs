//! Tables of expressions and what they say, with AWS's own examples, and clocks that change.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;

fn moment(text: &str) -> PolicyTime {
    PolicyTime(u64::try_from(text.parse::<Timestamp>().unwrap().as_microsecond()).unwrap())
}

fn text(at: PolicyTime) -> String {
    Timestamp::from_microsecond(i64::try_from(at.0).unwrap()).unwrap().to_string()
}

fn timetable(expression: &str, zone: &str) -> Timetable {
    Timetable {
        expression: Expression::parse(expression).unwrap(),
        zone: time_zone(zone).unwrap(),
        anchor: moment("2026-01-01T00:00:30Z"),
        start: None,
        end: None,
        window_seconds: 0,
        seed: 7,
    }
}

/// So many times after another, as a text.
fn times(timetable: &Timetable, after: &str, count: usize) -> String {
    let first = timetable.next_after(moment(after));
    let all = std::iter::successors(first, |at| timetable.next_after(*at));
    all.take(count).map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn expressions_say_when() {
    // The first are AWS's own. 1 January 2026 is a Thursday.
    for (expression, expected) in [
        ("cron(0 10 * * ? *)", "2026-01-01T10:00:00Z 2026-01-02T10:00:00Z"),
        ("cron(15 12 * * ? *)", "2026-01-01T12:15:00Z 2026-01-02T12:15:00Z"),
        ("cron(0 18 ? * MON-FRI *)", "2026-01-01T18:00:00Z 2026-01-02T18:00:00Z 2026-01-05T18:00:00Z"),
        ("cron(0 8 1 * ? *)", "2026-01-01T08:00:00Z 2026-02-01T08:00:00Z"),
        (
            "cron(0/15 * * * ? *)",
            "2026-01-01T00:15:00Z 2026-01-01T00:30:00Z 2026-01-01T00:45:00Z 2026-01-01T01:00:00Z",
        ),
        ("cron(0/10 * ? * MON-FRI *)", "2026-01-01T00:10:00Z 2026-01-01T00:20:00Z"),
        ("cron(0/5 8-17 ? * MON-FRI *)", "2026-01-01T08:00:00Z 2026-01-01T08:05:00Z"),
        (
            "cron(0/30 20-2 ? * MON-FRI *)",
            "2026-01-01T00:30:00Z 2026-01-01T01:00:00Z 2026-01-01T01:30:00Z 2026-01-01T02:00:00Z 2026-01-01T02:30:00Z 2026-01-01T20:00:00Z",
        ),
        ("cron(15 10 ? * 6L 2026-2027)", "2026-01-30T10:15:00Z 2026-02-27T10:15:00Z"),
        (
            "cron(1/20 0 ? JAN,dec 5 *)",
            "2026-01-01T00:01:00Z 2026-01-01T00:21:00Z 2026-01-01T00:41:00Z 2026-01-08T00:01:00Z",
        ),
        (
            "cron(0-15/5 8-8 ? * 2,3,4,5,6,7 *)",
            "2026-01-01T08:00:00Z 2026-01-01T08:05:00Z 2026-01-01T08:10:00Z 2026-01-01T08:15:00Z 2026-01-02T08:00:00Z",
        ),
        ("cron(0 0 L * ? *)", "2026-01-31T00:00:00Z 2026-02-28T00:00:00Z"),
        ("cron(0 0 L 2 ? 2028)", "2028-02-29T00:00:00Z"),
        ("cron(0 0 LW * ? *)", "2026-01-30T00:00:00Z 2026-02-27T00:00:00Z 2026-03-31T00:00:00Z"),
        // Saturday the 3rd, Sunday the 1st of February, Saturday the 1st of August, Sunday the 31st of May.
        ("cron(0 0 3W 1 ? *)", "2026-01-02T00:00:00Z"),
        ("cron(0 0 1W 2,8 ? 2026)", "2026-02-02T00:00:00Z 2026-08-03T00:00:00Z"),
        ("cron(0 0 31W 4,5 ? 2026)", "2026-05-29T00:00:00Z"),
        ("cron(0 0 ? * 3#2 *)", "2026-01-13T00:00:00Z 2026-02-10T00:00:00Z"),
        ("cron(0 0 ? * SUN#5 2026)", "2026-03-29T00:00:00Z 2026-05-31T00:00:00Z"),
        ("cron(0 0 ? * L *)", "2026-01-03T00:00:00Z 2026-01-10T00:00:00Z"),
        ("cron(0 0 ? * friL *)", "2026-01-30T00:00:00Z"),
        (
            "cron(0 0 ? * FRI-MON *)",
            "2026-01-02T00:00:00Z 2026-01-03T00:00:00Z 2026-01-04T00:00:00Z 2026-01-05T00:00:00Z 2026-01-09T00:00:00Z",
        ),
        ("cron(0 0 29 2 ? *)", "2028-02-29T00:00:00Z 2032-02-29T00:00:00Z"),
        ("cron(59 23 31 12 ? 2199)", "2199-12-31T23:59:00Z"),
        ("cron(0 0 1 1 ? 2026/100)", "2126-01-01T00:00:00Z"),
        ("cron(0 0 1 1 ? 1970-2025)", ""),
        ("cron(0 0 30 2 ? *)", ""),
        ("at(2026-11-20T13:00:00)", "2026-11-20T13:00:00Z"),
        ("at(2025-11-20T13:00:00)", ""),
        ("rate(5 minutes)", "2026-01-01T00:00:30Z 2026-01-01T00:05:30Z 2026-01-01T00:10:30Z"),
        ("rate(1 hours)", "2026-01-01T00:00:30Z 2026-01-01T01:00:30Z"),
        ("rate(1 day)", "2026-01-01T00:00:30Z 2026-01-02T00:00:30Z"),
    ] {
        let count = expected.split(' ').count();
        let found = times(&timetable(expression, "UTC"), "2026-01-01T00:00:00Z", count);
        assert_eq!(found, expected, "{expression}");
    }
}

#[test]
fn what_is_no_expression_is_refused_with_its_fault() {
    for (expression, part) in [
        ("", "It must be"),
        ("every day", "It must be"),
        ("cron 0 0 1 1 ? *", "It must be"),
        ("CRON(0 0 1 1 ? *)", "It must be"),
        ("at(2026-11-20)", "yyyy-mm-dd"),
        ("at(2026-11-20 13:00:00)", "yyyy-mm-dd"),
        ("at(2026-11-20T13:00:00Z)", "yyyy-mm-dd"),
        ("at(2026-11-20T13:00)", "yyyy-mm-dd"),
        ("at(2026-02-29T13:00:00)", "yyyy-mm-dd"),
        ("at(2026-11-20T24:00:00)", "yyyy-mm-dd"),
        ("at(2026-11-20T13:00:00.5)", "yyyy-mm-dd"),
        ("rate(0 minutes)", "at least 1"),
        ("rate(-1 minutes)", "at least 1"),
        ("rate(+1 minutes)", "at least 1"),
        ("rate(5 seconds)", "at least 1"),
        ("rate(5)", "at least 1"),
        ("rate(5 minutes more)", "at least 1"),
        ("rate(99999999999 days)", "at least 1"),
        ("cron()", "not 0"),
        ("cron(0 0 1 1 ?)", "not 5"),
        ("cron(0 0 0 1 1 ? *)", "not 7"),
        ("cron(0 0 * * * *)", "must be ?"),
        ("cron(0 0 1 * MON *)", "must be ?"),
        ("cron(0 0 ? * ? *)", "Only one"),
        ("cron(60 0 * * ? *)", "minutes: a value is a number from 0 to 59."),
        ("cron(0 24 * * ? *)", "hours"),
        ("cron(0 0 32 * ? *)", "day-of-month"),
        ("cron(0 0 0 * ? *)", "day-of-month"),
        ("cron(0 0 1 13 ? *)", "from 1 to 12, or JAN to DEC"),
        ("cron(0 0 1 MON ? *)", "month"),
        ("cron(0 0 ? * 0 *)", "from 1 to 7, or SUN to SAT"),
        ("cron(0 0 ? * 8 *)", "day-of-week"),
        ("cron(0 0 1 1 ? 1969)", "from 1970 to 2199"),
        ("cron(0 0 1 1 ? 2200)", "year"),
        ("cron(0 0 1 1 ? 2027-2026)", "ends before"),
        ("cron(L 0 1 1 ? *)", "minutes"),
        ("cron(? 0 1 1 ? *)", "minutes"),
        ("cron(0/0 0 1 1 ? *)", "a step"),
        ("cron(*/60 0 1 1 ? *)", "a step"),
        ("cron(0/+5 0 1 1 ? *)", "a step"),
        ("cron(+5 0 1 1 ? *)", "minutes"),
        ("cron(1,,2 0 1 1 ? *)", "minutes"),
        ("cron(0 0 32W 1 ? *)", "day-of-month"),
        ("cron(0 0 1,L 1 ? *)", "day-of-month"),
        ("cron(0 0 ? 1 2#6 *)", "after #"),
        ("cron(0 0 ? 1 2#1,3#1 *)", "after #"),
        ("cron(0 0 ? 1 8L *)", "day-of-week"),
    ] {
        let refused = Expression::parse(expression).unwrap_err();
        assert!(refused.contains(part), "{expression}: {refused}");
    }
    assert!(time_zone("America/New_York").is_some() && time_zone("Mars/Olympus").is_none());
}

/// AWS: what falls on a time that isn't is skipped; what falls on a time that comes twice runs once.
#[test]
fn clocks_that_change() {
    let daily = timetable("cron(30 2 * * ? *)", "America/Los_Angeles");
    // 8 March 2026 has no 02:30.
    assert_eq!(
        times(&daily, "2026-03-07T00:00:00Z", 3),
        "2026-03-07T10:30:00Z 2026-03-09T09:30:00Z 2026-03-10T09:30:00Z"
    );
    let daily = timetable("cron(30 1 * * ? *)", "America/Los_Angeles");
    // 1 November 2026 has two 01:30.
    assert_eq!(times(&daily, "2026-10-31T12:00:00Z", 2), "2026-11-01T08:30:00Z 2026-11-02T09:30:00Z");
    let often = timetable("cron(0/20 * * * ? *)", "America/Los_Angeles");
    assert_eq!(times(&often, "2026-11-01T08:30:00Z", 2), "2026-11-01T08:40:00Z 2026-11-01T10:00:00Z");
    assert_eq!(
        times(&often, "2026-11-01T09:10:00Z", 1),
        "2026-11-01T10:00:00Z",
        "also from within the hour that comes again"
    );
    let day = timetable("rate(1 days)", "America/Los_Angeles");
    assert_eq!(
        times(&day, "2026-03-08T00:00:00Z", 2),
        "2026-03-08T00:00:30Z 2026-03-09T00:00:30Z",
        "24 hours"
    );
    for (expression, expected) in [
        ("at(2026-03-08T02:30:00)", "2026-03-08T10:30:00Z"),
        ("at(2026-11-01T01:30:00)", "2026-11-01T08:30:00Z"),
        ("at(2026-07-01T08:00:00)", "2026-07-01T15:00:00Z"),
    ] {
        assert_eq!(times(&timetable(expression, "America/Los_Angeles"), "2026-01-01T00:00:00Z", 1), expected);
    }
    // A day that never was.
    let samoa = timetable("cron(0 12 * * ? *)", "Pacific/Apia");
    assert_eq!(times(&samoa, "2011-12-29T00:00:00Z", 2), "2011-12-29T22:00:00Z 2011-12-30T22:00:00Z");
}

/// Against every minute of the days around a change, asked one by one.
#[test]
fn no_time_is_lost_and_none_comes_twice() {
    for (zone, from) in [
        ("America/New_York", "2026-03-07T00:00:00Z"),
        ("America/New_York", "2026-10-31T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-03T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-02T00:00:00Z"),
    ] {
        for fields in ["* * * * ? *", "0/7 * * * ? *", "30 1-2 ? * SUN *", "59 23 L * ? *"] {
            let table = timetable(&format!("cron({fields})"), zone);
            let Expression::Cron(cron) = &table.expression else { unreachable!() };
            let start = moment(from);
            let mut expected = Vec::new();
            let mut seen = std::collections::BTreeSet::new();
            for minute in 1..60 * 60 {
                let at = start.plus_seconds(minute * 60);
                let local = local(&table.zone, at);
                let before = local.checked_sub(jiff::Span::new().seconds(1)).unwrap();
                if cron.first_after(before) == Some(local) && seen.insert(local) {
                    expected.push(at);
                }
            }
            let mut found: Vec<PolicyTime> = Vec::new();
            while let Some(next) = table.next_after(found.last().copied().unwrap_or(start)) {
                if next >= start.plus_seconds(60 * 3_600) {
                    break;
                }
                found.push(next);
            }
            assert_eq!(found, expected, "{zone} {fields}");
        }
    }
}

fn local(zone: &TimeZone, at: PolicyTime) -> jiff::civil::DateTime {
    zone.to_datetime(Timestamp::from_microsecond(i64::try_from(at.0).unwrap()).unwrap())
}

#[test]
fn start_and_end_bound_what_recurs() {
    let bounded = |expression: &str| Timetable {
        start: Some(moment("2026-02-01T00:00:00Z")),
        end: Some(moment("2026-02-01T02:00:00Z")),
        ..timetable(expression, "UTC")
    };
    let hours = "2026-02-01T00:00:00Z 2026-02-01T01:00:00Z 2026-02-01T02:00:00Z";
    for expression in ["rate(1 hour)", "cron(0 * * * ? *)"] {
        assert_eq!(times(&bounded(expression), "2026-01-01T00:00:00Z", 9), hours, "{expression}");
    }
    assert_eq!(times(&bounded("at(2026-05-01T00:00:00)"), "2026-01-01T00:00:00Z", 9), "2026-05-01T00:00:00Z");
}

#[test]
fn what_was_missed_is_made_up_for_once() {
    let due = |table: &Timetable, fired: Option<&str>, now: &str| {
        table.due(fired.map(moment), moment(now), 3_600).map(|due| text(due.occurrence))
    };
    let once = timetable("at(2026-01-01T08:00:00)", "UTC");
    let at = Some("2026-01-01T08:00:00Z".to_owned());
    assert_eq!(due(&once, None, "2026-01-01T07:00:00Z"), at);
    assert_eq!(
        due(&once, None, "2026-01-03T00:00:00Z"),
        at,
        "whoever carries it out says that it is too old"
    );
    assert_eq!(due(&once, Some("2026-01-01T08:00:00Z"), "2026-01-01T07:00:00Z"), None, "never again");
    let often = timetable("cron(0 * * * ? *)", "UTC");
    let nine = Some("2026-01-01T09:00:00Z".to_owned());
    assert_eq!(due(&often, None, "2026-01-01T08:30:00Z"), nine);
    assert_eq!(due(&often, Some("2026-01-01T03:00:00Z"), "2026-01-01T08:30:00Z"), nine);
    assert_eq!(
        due(&often, Some("2026-01-01T08:00:00Z"), "2026-01-01T07:59:00Z"),
        nine,
        "a clock that went back"
    );
    let rate = timetable("rate(1 hour)", "UTC");
    assert_eq!(
        due(&rate, None, "2026-01-01T00:10:00Z").as_deref(),
        Some("2026-01-01T00:00:30Z"),
        "it begins at once"
    );
    assert_eq!(due(&rate, None, "2026-01-01T08:30:00Z").as_deref(), Some("2026-01-01T09:00:30Z"));
    assert_eq!(
        due(&rate, Some("2026-01-01T00:00:30Z"), "2026-01-01T00:10:00Z").as_deref(),
        Some("2026-01-01T01:00:30Z")
    );
}

#[test]
fn a_window_is_kept_to_and_its_place_stays() {
    let daily = Timetable { window_seconds: 3_600, ..timetable("cron(0 8 * * ? *)", "UTC") };
    let places: Vec<u64> = (1..9)
        .map(|day| {
            let now = moment(&format!("2026-01-0{day}T07:00:00Z"));
            let due = daily.due(None, now, 86_400).unwrap();
            let at = due.at.seconds_since(due.occurrence);
            assert!(at < 3_600);
            // A restart within the window finds the same place, and what is before it still to come.
            assert_eq!(daily.due(None, due.at, 86_400), Some(due));
            let later = daily.due(None, PolicyTime(due.at.0 + 1), 86_400).unwrap();
            assert!(later.occurrence > due.occurrence);
            at
        })
        .collect();
    assert!(places.iter().any(|place| *place != places[0]), "{places:?}");
}

#[test]
fn failures_are_tried_again_ever_later_within_bounds() {
    let target = Target {
        arn: String::new(),
        role_arn: String::new(),
        input: String::new(),
        retries_max: 20,
        age_seconds_max: 3_600,
    };
    let due = moment("2026-01-01T00:00:00Z");
    let (mut now, mut waits, mut attempts) = (due, Vec::new(), 0);
    loop {
        attempts += 1;
        let Some(next) = target.retry(due, attempts, now) else { break };
        waits.push(next.seconds_since(now));
        now = next;
    }
    assert_eq!(waits[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
    assert!(now.seconds_since(due) <= 3_600 && attempts < 20, "its age ends it");
    let few = Target { retries_max: 2, ..target.clone() };
    assert_eq!([1, 2, 3].map(|attempts| few.retry(due, attempts, due).is_some()), [true, true, false]);
    assert!(Target { retries_max: 0, ..target.clone() }.retry(due, 1, due).is_none());
    assert!(
        target.is_too_old(due, due.plus_seconds(3_601)) && !target.is_too_old(due, due.plus_seconds(3_600))
    );
    assert!(target.retry(due, 70, due).is_none(), "no shift is too wide");
}
