//! `ondol queue`: what waits for its function, since when and why, and how what did not has ended.

use std::fmt::Write as _;

use serde_json::Value;

use crate::words::{list, word};

/// The page as people read it.
pub fn text(page: &Value) -> String {
    let mut out = String::new();
    let functions = list(&page["functions"]);
    if functions.is_empty() {
        return "no event has been queued\n".into();
    }
    for function in functions {
        let oldest = function["oldestAgeSeconds"]
            .as_i64()
            .map_or(String::new(), |seconds| format!(", the oldest for {}", duration(seconds)));
        let _ = writeln!(
            out,
            "{}: {} queued{oldest} ({} running, {} to be retried, {} on the way to a destination)",
            word(&function["function"]),
            function["queued"],
            function["running"],
            function["retrying"],
            function["outgoing"],
        );
        let _ = writeln!(
            out,
            "  of {} accepted: {} succeeded, {} failed and delivered, {} discarded, {} undeliverable",
            function["accepted"],
            function["succeeded"],
            function["delivered"],
            function["discarded"],
            function["undeliverable"],
        );
    }
    for lane in list(&page["lanes"]).iter().filter(|lane| lane["pausedSeconds"] != 0) {
        let _ = writeln!(
            out,
            "{} takes nothing now: asked again in {} s, {} waiting",
            word(&lane["lane"]),
            lane["pausedSeconds"],
            lane["waiting"]
        );
    }
    for event in list(&page["events"]) {
        let why = word(&event["why"]);
        let why = if why.is_empty() { why } else { format!(": {why}") };
        let _ = writeln!(
            out,
            "  {} {} for {}, due in {}, {} errors, {} throttles{why}",
            word(&event["requestId"]),
            word(&event["stage"]),
            duration(event["ageSeconds"].as_i64().unwrap_or_default()),
            duration(event["dueInSeconds"].as_i64().unwrap_or_default()),
            event["errors"],
            event["throttles"],
        );
    }
    out
}

fn duration(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}
