//! What pages show of capacity providers and execution environments, as people read it.

use std::fmt::Write as _;

use serde_json::Value;

use crate::words::{list, word};

pub fn write_provider(out: &mut String, provider: &Value) {
    let _ = writeln!(
        out,
        "capacity provider {} {}: {} of {} vCPUs",
        word(&provider["name"]),
        word(&provider["state"]),
        provider["vCpus"],
        provider["maxVCpuCount"]
    );
    for instance in list(&provider["instances"]) {
        let state = match (instance["state"].as_str(), instance["beingReplaced"] == true) {
            (Some("Running"), true) => ", being replaced".to_owned(),
            (Some("Running") | None, _) => String::new(),
            (Some(state), _) if instance["reason"].is_null() => format!(", {state}"),
            (Some(state), _) => format!(", {state}: {}", word(&instance["reason"])),
        };
        let _ = writeln!(
            out,
            "  {} {} {}: {} execution environments, {} of {} vCPUs, {} of {} MiB, {} old{state}",
            word(&instance["id"]),
            word(&instance["type"]),
            word(&instance["availabilityZone"]),
            instance["executionEnvironments"],
            instance["vCpusAllocated"],
            instance["vCpus"],
            instance["memoryMiBAllocated"],
            instance["memoryMiB"],
            age(instance["ageSeconds"].as_u64().unwrap_or_default())
        );
    }
    for failed in list(&provider["launchFailures"]) {
        let _ = writeln!(
            out,
            "  {} launches in {} failed, the next is at {}: {}",
            failed["count"],
            word(&failed["availabilityZone"]),
            word(&failed["nextAt"]),
            word(&failed["reason"])
        );
    }
}

pub fn write_environment(out: &mut String, environment: &Value) {
    let mut line = format!(
        "  {} on {} {}: {} in flight",
        word(&environment["id"]),
        word(&environment["instance"]),
        word(&environment["state"]),
        environment["inFlight"]
    );
    if !environment["cpuPercent"].is_null() {
        let _ = write!(
            line,
            ", {} % CPU, {} MiB ({} %), /tmp {} MiB",
            environment["cpuPercent"],
            environment["memoryMiB"],
            environment["memoryPercent"],
            environment["diskMiB"]
        );
    }
    if let Some(cause) = environment["refusesFor"].as_str() {
        let _ = write!(line, "; it takes no more than {} for now: {cause}", environment["inFlightMax"]);
    }
    let _ = writeln!(out, "{line}");
}

/// An age as people say it.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
