//! `ondol logs`: what a function or a capacity provider wrote.

use std::borrow::Cow;
use std::io::IsTerminal as _;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::client::Server;
use crate::{Logs, Output};

/// How long one request waits for new lines while following.
const WAIT_SECONDS: u64 = 5;
/// What is shown when nothing says since when.
const SINCE_MILLIS_DEFAULT: i64 = 600_000;

pub fn logs(arguments: &Logs, output: Output) -> Result<()> {
    let server = Server::of(&arguments.address)?;
    let now = ondol_observe::clock::epoch_millis();
    let since = match &arguments.since {
        Some(text) => parse_since(text, now)?,
        // A request is looked for in all there is.
        None if arguments.request.is_some() => 0,
        None => now - SINCE_MILLIS_DEFAULT,
    };
    let mut fixed = format!("since={since}");
    let mut add = |name: &str, value: Option<&String>| {
        if let Some(value) = value {
            fixed.push_str(&format!("&{name}={}", ondol_wire::uri::percent_encode(value, false)));
        }
    };
    let (function, version) =
        match arguments.function.as_deref().map(|name| name.split_once(':').unwrap_or((name, ""))) {
            Some((function, version)) => (Some(function.to_owned()), Some(version.to_owned())),
            None => (None, None),
        };
    add("function", function.as_ref());
    add("version", version.as_ref().filter(|version| !version.is_empty()));
    add("capacityProvider", arguments.capacity_provider.as_ref());
    add("request", arguments.request.as_ref());
    let mut cursor = String::new();
    loop {
        let wait = if arguments.follow { WAIT_SECONDS } else { 0 };
        let cursor_part = ondol_wire::uri::percent_encode(&cursor, false);
        let page = server.get("/_ondol/logs", &format!("{fixed}&wait={wait}&cursor={cursor_part}"))?;
        let mut out = std::io::stdout().lock();
        for event in page["events"].as_array().into_iter().flatten() {
            // A reader that stopped listening (`head`) is a fine end.
            if print(&mut out, event, output).is_err() {
                return Ok(());
            }
        }
        cursor = page["cursor"].as_str().unwrap_or_default().to_owned();
        if page["more"] != true && !arguments.follow {
            return Ok(());
        }
    }
}

fn print(out: &mut impl std::io::Write, event: &Value, output: Output) -> std::io::Result<()> {
    if output.json {
        writeln!(out, "{event}")?;
    } else {
        let at = ondol_wire::time::iso_8601_millis(event["timestamp"].as_i64().unwrap_or_default());
        // The date is in the time; what is left tells the version and the execution environment.
        let stream = event["logStream"].as_str().unwrap_or_default();
        let stream = stream.rsplit('/').next().unwrap_or_default();
        let message = event["message"].as_str().unwrap_or_default();
        writeln!(out, "{at} {stream} {}", plain(message, std::io::stdout().is_terminal()))?;
    }
    out.flush()
}

/// A message as a terminal may get it. The function wrote it: what would steer the terminal is shown by its code
/// instead, and further lines are indented, so that none looks like an entry of its own.
pub fn plain(message: &str, for_terminal: bool) -> Cow<'_, str> {
    if !for_terminal || !message.contains(|c: char| c.is_control() && c != '\t') {
        return Cow::Borrowed(message);
    }
    let mut shown = String::with_capacity(message.len() + 16);
    for c in message.chars() {
        match c {
            '\n' => shown.push_str("\n    "),
            '\t' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// `90s`, `10m`, `2h`, `1d` ago, or a moment as `2026-11-22T09:56:03Z`.
fn parse_since(text: &str, now: i64) -> Result<i64> {
    const UNITS: [(char, i64); 4] = [('s', 1_000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000)];
    for (unit, millis) in UNITS {
        if let Some(count) = text.strip_suffix(unit).and_then(|count| count.parse::<i64>().ok()) {
            return Ok(now - count.saturating_mul(millis));
        }
    }
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let digits = match digits.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => digits,
    };
    let Some(seconds) = ondol_wire::time::parse_amz_date(&digits) else {
        bail!("--since {text}: give a time ago as 90s, 10m, 2h or 1d, or a moment as 2026-11-22T09:56:03Z");
    };
    seconds.checked_mul(1_000).context("--since is out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_function_wrote_does_not_steer_a_terminal() {
        let message = "one\t\u{1b}[2J\r\ntwo é";
        assert_eq!(plain(message, true), "one\t\\u{1b}[2J\\r\n    two é");
        assert_eq!(plain(message, false), message);
    }

    #[test]
    fn since_is_a_time_ago_or_a_moment() {
        assert_eq!(parse_since("10m", 1_000_000).unwrap(), 400_000);
        assert_eq!(parse_since("1970-01-01T00:00:07Z", 0).unwrap(), 7_000);
        assert_eq!(parse_since("1970-01-01T00:00:07.250Z", 0).unwrap(), 7_000);
        assert!(parse_since("yesterday", 0).is_err());
    }
}
