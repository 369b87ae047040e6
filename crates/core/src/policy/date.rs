//! Moments as conditions write them.

/// Seconds since the epoch of `2026-11-22`, `2026-11-22T09:56Z`, `2026-11-22T09:56:03.5+01:00`, a year, or a
/// number of seconds.
pub(super) fn epoch_seconds(text: &str) -> Option<i64> {
    if text.len() > 4 {
        if let Ok(seconds) = text.parse::<i64>() {
            return Some(seconds);
        }
    }
    let (date, time) = text.split_once(['T', 't']).map_or((text, None), |(date, time)| (date, Some(time)));
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4)?;
    let month = parts.next().map_or(Some(1), |part| number(part, 2))?;
    let day = parts.next().map_or(Some(1), |part| number(part, 2))?;
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = time.map_or(Some(0), seconds_of_day)?;
    Some(days(year, month, day) * 86_400 + seconds)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Seconds since midnight in UTC; a fraction of a second does not count.
fn seconds_of_day(text: &str) -> Option<i64> {
    let at = text.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = text.split_at(at);
    let offset = match zone.as_bytes()[0] {
        b'Z' | b'z' => (zone.len() == 1).then_some(0)?,
        sign => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let seconds = number(hours, 2)? * 3_600 + number(minutes, 2)? * 60;
            if sign == b'-' { -seconds } else { seconds }
        }
    };
    let mut parts = clock.split(':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second = match parts.next() {
        Some(part) => number(part.split('.').next()?, 2)?,
        None => 0,
    };
    let valid = parts.next().is_none() && hour < 24 && minute < 60 && second <= 60;
    valid.then_some(hour * 3_600 + minute * 60 + second - offset)
}

/// Days since the epoch, after Howard Hinnant's published algorithm.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::epoch_seconds;

    #[test]
    fn moments_in_every_form() {
        for (text, seconds) in [
            ("1970-01-01", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2026-11-22T09:56:03.500Z", Some(1_795_341_363)),
            ("2026-11-22T10:56:03+01:00", Some(1_795_341_363)),
            ("1795341363", Some(1_795_341_363)),
            ("1970", Some(0)),
            ("2026-13-01", None),
            ("2026-11-22T09:56:03", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(epoch_seconds(text), seconds, "{text}");
        }
    }
}
