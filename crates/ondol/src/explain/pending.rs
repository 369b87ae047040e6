//! Why a version is not as asked: the chain of reasons down to the runtime's own words.

use std::fmt::Write as _;

use ondol_control::View;
use ondol_core::capacity::EnvironmentState;
use ondol_core::function::{FunctionConfiguration, FunctionVersion, LastUpdate, Reason, VersionState};
use ondol_observe::logs::{Event, LogBook, Query};
use ondol_protocol::assignment::Report;
use serde_json::{Value, json};

use super::mend::mend;
use crate::fleet;
use crate::words::{list, word};

/// Lines of the failed environment that are shown.
const LINES_MAX: usize = 20;
/// How many of a function's newest events are looked through for its last failure.
const EVENTS_MAX: usize = 2_000;

/// How a failed initialisation is told in a text log.
const INIT_REPORT: &str = "INIT_REPORT";

/// What an environment that we ended before it was ready gives as its error.
const ENDED: &str = "Client.ExecutionEnvironmentShutDown";

pub fn page(version: &FunctionVersion, view: &View, report: &Report, logs: &LogBook) -> Value {
    let key = version.key();
    let environments: Vec<&EnvironmentState> = fleet::environments_of(view, &key)
        .map(|(id, environment)| fleet::state_of(id, environment, report))
        .collect();
    let count =
        |wanted: fn(&EnvironmentState) -> bool| environments.iter().filter(|state| wanted(state)).count();
    let ready = count(|state| matches!(state, EnvironmentState::Ready));
    let starting = count(|state| matches!(state, EnvironmentState::Starting));
    let wanted = if version.scaling.deactivates() { 0 } else { version.scaling.minimum() as usize };
    let mut because: Vec<Value> = Vec::new();
    let mut add = |reason: &Reason| {
        let same = |known: &Value| known["reason"] == reason.text.as_str();
        if !because.iter().any(same) {
            because.push(json!({"code": reason.code, "reason": reason.text, "mend": mend(&reason.code)}));
        }
    };
    // While it is Pending its state only says that it is; what holds it up says more.
    let unmet = view.unmet.get(&key);
    unmet.into_iter().for_each(&mut add);
    version
        .state_reason
        .iter()
        .filter(|reason| unmet.is_none() || reason.code != "Creating")
        .for_each(&mut add);
    if let LastUpdate::Failed(reason) = &version.last_update {
        add(reason);
    }
    let healthy = version.state == VersionState::Active && ready >= wanted && because.is_empty();
    let failure = if healthy {
        None
    } else {
        let configuration = &version.publication.configuration;
        last_failure(configuration, &version.function, &version.version, logs)
    };
    json!({
        "version": version.version,
        "state": version.state.to_string(),
        "healthy": healthy,
        "executionEnvironments": {"wanted": wanted, "ready": ready, "starting": starting},
        "because": because,
        "startFailures": view.start_failures.get(&version.publication.id).map(fleet::failures),
        "lastFailure": failure,
    })
}

/// The newest environment of the version that failed to initialise, and what it wrote.
pub fn last_failure(
    configuration: &FunctionConfiguration,
    function: &str,
    version: &str,
    logs: &LogBook,
) -> Option<Value> {
    let query = Query {
        group: configuration.logging.log_group.clone(),
        function: Some(function.to_owned()),
        version: Some(version.to_owned()),
        newest: Some(EVENTS_MAX),
        ..Query::default()
    };
    let events = logs.read(&query).events;
    let platform = |event: &Event| serde_json::from_str::<Value>(&event.message).ok();
    let of_failures = |event: &&Event| {
        event.message.starts_with(INIT_REPORT)
            || event.message.contains("platform.initReport")
                && platform(event).is_some_and(|line| line["record"]["status"] != "success")
    };
    let failures: Vec<&Event> = events.iter().rev().filter(of_failures).collect();
    // One that was ended with the others has nothing to say of its own.
    let by_itself = |event: &&&Event| !event.message.contains(ENDED);
    let failed = failures.iter().find(by_itself).or(failures.first())?;
    let (at, error_type) = match failed.message.split_once("Error Type: ") {
        Some((_, kind)) => (Value::Null, kind.trim().into()),
        None => {
            let record = platform(failed)?;
            (record["time"].clone(), record["record"]["errorType"].clone())
        }
    };
    let lines: Vec<&str> = events
        .iter()
        .filter(|event| event.stream.name == failed.stream.name)
        .map(|event| event.message.as_str())
        .filter(|message| !message.contains("\"type\":\"platform.") && !message.starts_with(INIT_REPORT))
        .collect();
    Some(json!({
        "at": at,
        "logStream": failed.stream.name,
        "errorType": error_type,
        "lines": lines[lines.len().saturating_sub(LINES_MAX)..],
    }))
}

pub fn write(out: &mut String, function: &str, version: &Value) {
    let count = &version["executionEnvironments"];
    let _ = writeln!(
        out,
        "{function}:{} is {}: {} of {} execution environments ready, {} starting",
        word(&version["version"]),
        word(&version["state"]),
        count["ready"],
        count["wanted"],
        count["starting"]
    );
    for reason in list(&version["because"]) {
        let _ = writeln!(out, "  because {}: {}", word(&reason["code"]), word(&reason["reason"]));
        if !reason["mend"].is_null() {
            let _ = writeln!(out, "  → {}", word(&reason["mend"]));
        }
    }
    let failure = &version["lastFailure"];
    if !failure.is_null() {
        let _ = writeln!(
            out,
            "  the last start that failed: {} {} ({})",
            word(&failure["at"]),
            word(&failure["logStream"]),
            word(&failure["errorType"])
        );
        for line in list(&failure["lines"]) {
            let _ = writeln!(out, "    | {}", word(line));
        }
    }
    let failures = &version["startFailures"];
    if !failures.is_null() {
        let _ = writeln!(
            out,
            "  {} starts failed in a row; the next is at {}",
            failures["count"],
            word(&failures["nextAt"])
        );
    }
}
