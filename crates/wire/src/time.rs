//! Calendar text of the forms AWS uses, from seconds since the epoch. Days-to-date after Howard Hinnant's
//! published algorithm (proleptic Gregorian calendar).

/// Year, month, day, hour, minute, second of a moment in UTC.
fn civil(epoch_seconds: i64) -> (i64, i64, i64, i64, i64, i64) {
    let days = epoch_seconds.div_euclid(86_400);
    let rest = epoch_seconds.rem_euclid(86_400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1, rest / 3_600, rest / 60 % 60, rest % 60)
}

/// `20261122T095603Z`, as in `X-Amz-Date`.
pub fn amz_date(epoch_seconds: i64) -> String {
    let (y, m, d, h, min, s) = civil(epoch_seconds);
    format!("{y:04}{m:02}{d:02}T{h:02}{min:02}{s:02}Z")
}

/// `2026-11-22T09:56:03.000+0000`, as Lambda writes `LastModified`.
pub fn lambda_timestamp(epoch_millis: i64) -> String {
    let (y, m, d, h, min, s) = civil(epoch_millis.div_euclid(1_000));
    format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}.{:03}+0000", epoch_millis.rem_euclid(1_000))
}

/// `2026-11-22T09:56:03+0000`, as Lambda writes it of provisioned concurrency.
pub fn second_timestamp(epoch_millis: i64) -> String {
    let (y, m, d, h, min, s) = civil(epoch_millis.div_euclid(1_000));
    format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}+0000")
}

/// `2026-11-22T09:56:03.000000Z`, as Lambda writes it of function URLs.
pub fn micros_timestamp(epoch_millis: i64) -> String {
    let (y, m, d, h, min, s) = civil(epoch_millis.div_euclid(1_000));
    format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}.{:03}000Z", epoch_millis.rem_euclid(1_000))
}

/// `2026-11-22T09:56:03.000Z`, as log lines carry it.
pub fn iso_8601_millis(epoch_millis: i64) -> String {
    let (y, m, d, h, min, s) = civil(epoch_millis.div_euclid(1_000));
    format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}.{:03}Z", epoch_millis.rem_euclid(1_000))
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn month_name(month: i64) -> &'static str {
    usize::try_from(month - 1).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"")
}

/// `22/Nov/2026:09:56:03 +0000`, as web requests are told to functions.
pub fn access_log_time(epoch_seconds: i64) -> String {
    let (y, m, d, h, min, s) = civil(epoch_seconds);
    format!("{d:02}/{}/{y:04}:{h:02}:{min:02}:{s:02} +0000", month_name(m))
}

/// `Nov 22, 2026, 9:56:03 AM`, as Java writes dates, in UTC.
pub fn java_date(epoch_seconds: i64) -> String {
    let (y, m, d, h, min, s) = civil(epoch_seconds);
    let (half, hour) = (if h < 12 { "AM" } else { "PM" }, if h % 12 == 0 { 12 } else { h % 12 });
    format!("{} {d}, {y}, {hour}:{min:02}:{s:02} {half}", month_name(m))
}

/// `2026-11-22T09:56:03Z`, as IAM and STS write times.
pub fn iso_8601(epoch_seconds: i64) -> String {
    let (y, m, d, h, min, s) = civil(epoch_seconds);
    format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}Z")
}

/// Reads `2026-11-22T09:56:03Z`, with or without a fraction of a second, which is dropped.
pub fn parse_iso_8601(text: &str) -> Option<i64> {
    let whole = match text.split_once('.') {
        Some((whole, fraction)) => {
            let digits = fraction.strip_suffix('Z')?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| format!("{whole}Z"))?
        }
        None => text.to_owned(),
    };
    let punctuation = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if !punctuation.iter().all(|(place, sign)| whole.as_bytes().get(*place) == Some(sign)) {
        return None;
    }
    parse_amz_date(&whole.replace(['-', ':'], ""))
}

/// Reads `20261122T095603Z` back; `None` for anything else.
pub fn parse_amz_date(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        let part = text.get(range)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<i64>().ok())?
    };
    let (y, m, d) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (h, min, s) = (number(9..11)?, number(11..13)?, number(13..15)?);
    if !(1..=12).contains(&m) || !(1..=31).contains(&d) || h > 23 || min > 59 || s > 60 {
        return None;
    }
    let year = y - i64::from(m <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + d - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    Some((era * 146_097 + doe - 719_468) * 86_400 + h * 3_600 + min * 60 + s)
}

/// Reads `Sun, 22 Nov 2026 09:56:03 GMT`, as the `Date` header has it. The name of the day is not looked at.
pub fn parse_http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if !matches!(words.next(), Some("GMT" | "UTC" | "+0000" | "-0000")) || words.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    parse_amz_date(&format!("{year}{month:02}{day:0>2}T{}Z", time.replace(':', "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(java_date(2_021), "Jan 1, 1970, 12:33:41 AM");
        assert_eq!(java_date(43_200), "Jan 1, 1970, 12:00:00 PM");

        assert_eq!(amz_date(0), "19700101T000000Z");
        assert_eq!(amz_date(1_795_341_363), "20261122T095603Z");
        assert_eq!(lambda_timestamp(951_782_400_007), "2000-02-29T00:00:00.007+0000");
    }

    #[test]
    fn dates_read_back_as_written() {
        for seconds in [0, 951_782_400, 1_795_341_363, 4_102_444_799] {
            assert_eq!(parse_amz_date(&amz_date(seconds)), Some(seconds));
        }
        for text in ["2026-11-22T09:56:03Z", "2026-11-22T09:56:03.123Z"] {
            assert_eq!(parse_iso_8601(text), Some(1_795_341_363), "{text}");
        }
        assert_eq!(iso_8601(1_795_341_363), "2026-11-22T09:56:03Z");
        for bad in
            ["", "20261122T095603Z", "2026-11-22 09:56:03Z", "2026-11-22T09:56:03", "2026-11-22T09:56:03.x"]
        {
            assert_eq!(parse_iso_8601(bad), None, "{bad}");
        }
        for text in ["Sun, 22 Nov 2026 09:56:03 GMT", "Sun, 22 Nov 2026 09:56:03 -0000"] {
            assert_eq!(parse_http_date(text), Some(1_795_341_363), "{text}");
        }
        for bad in
            ["", "Sun, ", "Sun, 22 Nov 2026 09:56:03", "Sun, 22 Nov 2026 09:56:03 CET", "é, é é é é GMT"]
        {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
        for bad in ["", "20261122T095603", "2026112aT095603Z", "20261322T095603Z", "é0261122T09560Z"] {
            assert_eq!(parse_amz_date(bad), None, "{bad}");
        }
    }
}
