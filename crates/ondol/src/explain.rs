//! `ondol explain`: for a version that is not as asked, the chain of reasons down to the runtime's own words.

mod sources;

use std::fmt::Write as _;
use std::sync::Arc;

use ondol_control::View;
use ondol_core::capacity::EnvironmentState;
use ondol_core::event_source::SourceReports;
use ondol_core::function::{
    Function, FunctionConfiguration, FunctionVersion, LastUpdate, Reason, VersionState,
};
use ondol_core::identity::LATEST;
use ondol_observe::logs::{Event, LogBook, Query};
use ondol_protocol::assignment::Report;
use ondol_store::{Store, StoreError, keys};
use serde_json::{Value, json};

use crate::words::{list, word};

/// Lines of the failed environment that are shown.
const LINES_MAX: usize = 20;
/// How many of a function's newest events are looked through for its last failure.
const EVENTS_MAX: usize = 2_000;

/// How a failed initialisation is told in a text log.
const INIT_REPORT: &str = "INIT_REPORT";

/// What an environment that we ended before it was ready gives as its error.
const ENDED: &str = "Client.ExecutionEnvironmentShutDown";

/// The page for one function; all of its versions, or the one named.
pub fn page(
    store: &Store,
    view: &Arc<View>,
    report: &Report,
    logs: &LogBook,
    reports: &SourceReports,
    (function, version): (&str, Option<&str>),
) -> Result<Value, StoreError> {
    let Some((found, _)) = store.document::<Function>(&keys::function(function))? else {
        let near: Vec<String> = store
            .all::<Function>(keys::FUNCTIONS)?
            .into_iter()
            .map(|other| other.name)
            .filter(|other| other.contains(function) || function.contains(other.as_str()))
            .collect();
        return Ok(json!({"function": function, "exists": false, "similar": near, "versions": []}));
    };
    let versions: Vec<FunctionVersion> = store.all(&keys::versions_of(function))?;
    let shown: Vec<Value> = versions
        .iter()
        .filter(|found| version.is_none_or(|wanted| found.version == wanted))
        .map(|version| explain(version, view, report, logs))
        .collect();
    Ok(json!({
        "function": found.name,
        "exists": true,
        "deleting": found.deleting,
        "published": !versions.is_empty(),
        "onDemand": found.configuration.is_on_demand(),
        "lastFailure": found.configuration.is_on_demand().then(|| last_failure(&found.configuration, &found.name, LATEST, logs)).flatten(),
        "storeTrouble": store.trouble(),
        "versions": shown,
        "eventSources": sources::page(store, reports, &found, &versions)?,
    }))
}

fn explain(version: &FunctionVersion, view: &View, report: &Report, logs: &LogBook) -> Value {
    let key = version.key();
    let environments: Vec<&EnvironmentState> = view
        .environments
        .iter()
        .filter(|(_, environment)| environment.version == key)
        .map(|(id, environment)| {
            report.environments.get(id).map_or(&environment.state, |reported| &reported.state)
        })
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
        "lastFailure": failure,
    })
}

/// The newest environment of the version that failed to initialise, and what it wrote.
fn last_failure(
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

/// What to do about a reason code.
fn mend(code: &str) -> Option<&'static str> {
    Some(match code {
        "Creating" => "Wait: it is being brought up. `ondol status` shows its execution environments.",
        "InvalidRuntime" => "Install the runtime; the version is tried again at the next publish.",
        "CapacityProviderScalingLimitExceeded" => {
            "Raise MaxVCpuCount of the capacity provider with UpdateCapacityProvider, or lower MinExecutionEnvironments with PutFunctionScalingConfig."
        }
        "InsufficientCapacity" | "VcpuLimitExceeded" => {
            "Lower the function's MemorySize or MinExecutionEnvironments, or let the capacity provider use larger instance types."
        }
        "FunctionError.RuntimeInitError" => {
            "The function's own code failed while it was loaded: its last lines say where. Correct it, upload it with UpdateFunctionCode and publish again."
        }
        "FunctionError.InitTimeout" => {
            "Loading the function took too long: move slow work into the handler, or raise the function's Timeout."
        }
        "FunctionError.InitResourceExhausted" => "Raise the function's MemorySize.",
        "FunctionError.InvalidEntryPoint" => {
            "The program to start isn't where it should be: check Handler, and for provided.al2023 that the package has an executable named bootstrap at its top, built for this machine."
        }
        "FunctionError.PermissionDenied" => "Give the program the executable bit in the deployment package.",
        "FunctionError.ExtensionInitError" => {
            "An extension in one of the layers failed: its lines say why. Correct it, publish the layer again and use its new version."
        }
        "FunctionError.TooManyExtensions" => {
            "Use fewer layers with extensions: ten extensions are the limit."
        }
        "InvalidZipFileException" => "Upload the package again with UpdateFunctionCode, or restore a backup.",
        "InternalError" => "This machine couldn't make an execution environment: run `ondol doctor`.",
        _ => return None,
    })
}

/// The page for people.
pub fn text(page: &Value) -> String {
    let mut out = String::new();
    let function = word(&page["function"]);
    if page["exists"] == false {
        let _ = writeln!(out, "There is no function {function}.");
        for other in list(&page["similar"]) {
            let _ = writeln!(out, "  Did you mean {}?", word(other));
        }
        return out;
    }
    if page["deleting"] == true {
        let _ =
            writeln!(out, "{function} is being deleted; it goes when its execution environments have ended.");
    }
    if !page["storeTrouble"].is_null() {
        let _ = writeln!(out, "No change can be stored at present: {}", word(&page["storeTrouble"]));
    }
    if page["onDemand"] == true {
        let _ = writeln!(out, "{function} is a Lambda (default) function: it runs on demand, and is Active.");
        let failure = &page["lastFailure"];
        if !failure.is_null() {
            let _ = writeln!(out, "The last time it could not start: {}", word(&failure["errorType"]));
            for line in list(&failure["lines"]) {
                let _ = writeln!(out, "  | {}", word(line));
            }
        }
        sources::write(&mut out, page);
        return out;
    }
    if page["published"] == false {
        let _ = writeln!(
            out,
            "{function} has no published version, so nothing of it runs. Publish one: aws lambda publish-version --function-name {function} --publish-to LATEST_PUBLISHED"
        );
    }
    for version in list(&page["versions"]) {
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
    }
    sources::write(&mut out, page);
    out
}
