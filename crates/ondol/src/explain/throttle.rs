//! `ondol explain throttle`: how many invocations found no slot and why, what capacity there was, why no more came, and
//! what to change.

use std::fmt::Write as _;

use ondol_control::Throttled;
use ondol_core::capacity::{EnvironmentState, Failures};
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::function::FunctionVersion;
use ondol_core::gate::ThrottleCause;
use ondol_core::scale::What;
use ondol_observe::usage::Usage;
use ondol_wire::time::iso_8601_millis;
use serde_json::{Value, json};

use super::mend::mend;
use super::scale::{shown_reason, what, write_changes};
use super::{Seen, changes};
use crate::fleet;
use crate::words::{list, word};

pub fn page(version: &FunctionVersion, seen: &Seen) -> Value {
    let key = version.key();
    let provider = seen.provider_of(version);
    let counts = seen.usage.get(&key).cloned().unwrap_or_default();
    let last = seen.view.throttled.get(&key);
    json!({
        "version": version.version,
        "state": version.state.to_string(),
        "counts": counted(&counts),
        "capacity": capacity(version, seen),
        "lastSeen": last.map(shown_last),
        "whyNoMore": why_no_more(version, seen, last, provider),
        "changes": changes_for(version, &counts, last, provider),
    })
}

/// Each of the four causes, also those that never were.
pub fn throttles(counts: &Usage) -> Value {
    let count = |cause: &ThrottleCause| counts.throttles.get(cause).copied().unwrap_or_default();
    ThrottleCause::ALL.iter().map(|cause| (cause.name().to_owned(), Value::from(count(cause)))).collect()
}

/// What was counted since the server started.
pub fn counted(counts: &Usage) -> Value {
    json!({
        "throttles": throttles(counts),
        "throttled": counts.throttles.values().sum::<u64>(),
        "invocations": counts.invocations,
        "firstAt": counts.throttled_from_to_epoch_millis.map(|(first, _)| iso_8601_millis(first)),
        "lastAt": counts.throttled_from_to_epoch_millis.map(|(_, last)| iso_8601_millis(last)),
    })
}

/// What there is now.
fn capacity(version: &FunctionVersion, seen: &Seen) -> Value {
    let key = version.key();
    let mut environments = Vec::new();
    let (mut ready, mut slots, mut in_flight, mut hot) = (0_u32, 0_u64, 0, 0_u32);
    for (id, environment) in fleet::environments_of(&seen.view, &key) {
        if *fleet::state_of(id, environment, &seen.report) == EnvironmentState::Ready {
            ready += 1;
            slots += u64::from(fleet::configuration_of(version, environment).concurrency());
            if let Some(reported) = seen.report.environments.get(&id) {
                in_flight += reported.in_flight;
                hot += u32::from(reported.heat.is_some());
            }
        }
        environments.push(fleet::environment(version, id, environment, &seen.report));
    }
    json!({
        "ready": ready,
        "slotsEach": version.publication.configuration.concurrency(),
        "slots": slots,
        "inFlight": in_flight,
        "tooHot": hot,
        "executionEnvironments": environments,
    })
}

/// The newest decision that saw throttles.
fn shown_last(last: &Throttled) -> Value {
    json!({
        "at": fleet::moment(last.at),
        "throttled": last.scaling.why.throttled,
        "decided": what(last.scaling.why.what),
        "scaling": fleet::scaling(&last.scaling),
    })
}

/// Everything that kept capacity from coming, then or now.
fn why_no_more(
    version: &FunctionVersion,
    seen: &Seen,
    last: Option<&Throttled>,
    provider: Option<&CapacityProvider>,
) -> Vec<Value> {
    let key = version.key();
    let mut because = Vec::new();
    let mut add = |code: &str, reason: String| because.push(json!({"code": code, "reason": reason}));
    if let Some(Throttled { scaling, .. }) = last {
        let (wanted, ready) = (scaling.wanted, scaling.ready);
        match scaling.why.what {
            What::Max => add(
                "MaxExecutionEnvironments",
                format!("Its load needed more than the {wanted} that MaxExecutionEnvironments allows."),
            ),
            What::MachineBusy => {
                add("MachineBusy", "The machine had no CPU left for more execution environments.".into());
            }
            What::Out { .. } => add(
                "ScaledOut",
                format!(
                    "More were started at once: {wanted} were wanted where {ready} were ready. Until they are, callers get a 429 and try again, as on AWS."
                ),
            ),
            What::Steady | What::Waiting | What::In | What::Config if wanted > ready => {
                add("Starting", format!("{wanted} were wanted already, and {ready} of them were ready."));
            }
            What::Steady | What::Waiting | What::In | What::Config => add(
                "WithinTargets",
                format!(
                    "The {wanted} that ran were enough for its load on average: invocations came more at once than their slots could take, for a shorter time than a start takes."
                ),
            ),
        }
    }
    let blocked = seen.view.scaling.get(&key).and_then(|scaling| scaling.blocked.as_ref());
    let blocked = blocked.or(last.and_then(|last| last.scaling.blocked.as_ref()));
    if let Some(reason) = blocked.or(seen.view.unmet.get(&key)) {
        because.push(shown_reason(reason));
    }
    let mut add_failures = |what: &str, failures: &Failures| {
        let Failures { count, retry_at, last } = failures;
        let reason = format!(
            "{count} {what} failed in a row ({}), and the next is at {}.",
            last.text,
            fleet::moment(*retry_at)
        );
        because.push(json!({"code": last.code, "reason": reason, "mend": mend(&last.code)}));
    };
    if let Some(failures) = seen.view.start_failures.get(&version.publication.id) {
        add_failures("starts", failures);
    }
    let of_provider = |name: &String| provider.is_some_and(|provider| provider.name == *name);
    for ((_, zone), failures) in seen.view.launch_failures.iter().filter(|((name, _), _)| of_provider(name)) {
        add_failures(&format!("launches of instances in {zone}"), failures);
    }
    because
}

/// What helps against the causes that there were.
fn changes_for(
    version: &FunctionVersion,
    counts: &Usage,
    last: Option<&Throttled>,
    provider: Option<&CapacityProvider>,
) -> Vec<String> {
    let mut shown: Vec<String> = Vec::new();
    let mut add = |change: String| {
        if !shown.contains(&change) {
            shown.push(change);
        }
    };
    if let Some(Throttled { scaling, .. }) = last {
        match (scaling.why.what, scaling.max) {
            (What::Max, Some(max)) => add(changes::max(max)),
            (What::MachineBusy, _) => add(changes::machine_cpu()),
            _ => {}
        }
        let is_at_cap = |code: &str| code == "CapacityProviderScalingLimitExceeded";
        if scaling.blocked.as_ref().is_some_and(|reason| is_at_cap(&reason.code)) {
            provider.map(changes::max_vcpu_count).into_iter().for_each(&mut add);
        }
    }
    for (cause, count) in &counts.throttles {
        if *count > 0 {
            changes::of_cause(*cause, version, provider).into_iter().for_each(&mut add);
        }
    }
    shown
}

pub fn write(out: &mut String, function: &str, version: &Value, page: &Value) {
    let name = format!("{function}:{}", word(&version["version"]));
    write_counts(out, &name, &version["counts"], page);
    let capacity = &version["capacity"];
    let _ = writeln!(
        out,
        "  capacity now: {} execution environments ready with {} slots, {} in flight, {} too hot to take more",
        capacity["ready"], capacity["slots"], capacity["inFlight"], capacity["tooHot"]
    );
    list(&capacity["executionEnvironments"]).iter().for_each(|found| fleet::write_environment(out, found));
    let last = &version["lastSeen"];
    if !last.is_null() {
        let scaling = &last["scaling"];
        let _ = writeln!(
            out,
            "  when they were seen last, at {}: {} ready, {} running, {} wanted, as {}",
            word(&last["at"]),
            scaling["ready"],
            scaling["running"],
            scaling["wanted"],
            word(&scaling["why"])
        );
    }
    for reason in list(&version["whyNoMore"]) {
        let _ = writeln!(out, "  because {}: {}", word(&reason["code"]), word(&reason["reason"]));
        if !reason["mend"].is_null() {
            let _ = writeln!(out, "  → {}", word(&reason["mend"]));
        }
    }
    write_changes(out, version);
}

/// How many throttles there were, by cause, and when.
pub fn write_counts(out: &mut String, name: &str, counted: &Value, page: &Value) {
    let since = word(&page["serverStartedAt"]);
    if counted["throttled"] == 0 {
        let _ = writeln!(
            out,
            "{name}: none of its invocations was throttled since the server started at {since} ({} were not)",
            counted["invocations"]
        );
        return;
    }
    let causes = counted["throttles"].as_object().into_iter().flatten();
    let causes = causes.filter(|(_, count)| **count != 0).map(|(cause, count)| format!("{count} by {cause}"));
    let _ = writeln!(
        out,
        "{name}: {} invocations were throttled since the server started at {since}, and {} were not: {}; the first at {}, the last at {}",
        counted["throttled"],
        counted["invocations"],
        causes.collect::<Vec<_>>().join(", "),
        word(&counted["firstAt"]),
        word(&counted["lastAt"])
    );
}
