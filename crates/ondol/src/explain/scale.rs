//! `ondol explain scale`: how many execution environments a version has and wants, why, and what would change that.

use std::fmt::Write as _;

use ondol_core::capacity::Scaling;
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::function::{FunctionVersion, Reason};
use ondol_core::scale::{CONCURRENCY_TARGET_HUNDREDTHS, What};
use serde_json::{Value, json};

use super::mend::mend;
use super::throttle::throttles;
use super::{Seen, changes};
use crate::fleet;
use crate::words::{list, word};

/// Decisions about a version that are shown.
const DECISIONS_MAX: usize = 12;

pub fn page(version: &FunctionVersion, seen: &Seen, instance_age_seconds_max: u64) -> Value {
    let key = version.key();
    let scaling = seen.view.scaling.get(&key);
    let provider = seen.provider_of(version);
    let moves = seen.view.moves.get(&key).into_iter().flatten().rev();
    let moves = moves
        .map(|step| json!({"at": fleet::moment(step.at), "from": step.from, "to": step.to, "why": step.why}));
    let decisions = seen.view.journal.iter().rev().filter(|decision| decision.version.as_ref() == Some(&key));
    let decisions = decisions.take(DECISIONS_MAX).map(
        |decision| json!({"at": fleet::moment(decision.at), "what": decision.what, "why": decision.why}),
    );
    let environments = fleet::environments_of(&seen.view, &key);
    let environments =
        environments.map(|(id, environment)| fleet::environment(version, id, environment, &seen.report));
    let counts = seen.usage.get(&key).cloned().unwrap_or_default();
    let unmet = seen.view.unmet.get(&key);
    json!({
        "version": version.version,
        "state": version.state.to_string(),
        "scaling": scaling.map(fleet::scaling),
        "seen": scaling.map(shown_signals),
        "decided": scaling.map(|scaling| what(scaling.why.what)),
        "slotsEach": version.publication.configuration.concurrency(),
        "blocked": scaling.and_then(|scaling| scaling.blocked.as_ref()).or(unmet).map(shown_reason),
        "startFailures": seen.view.start_failures.get(&version.publication.id).map(fleet::failures),
        "throttles": throttles(&counts),
        "moves": moves.collect::<Vec<_>>(),
        "decisions": decisions.collect::<Vec<_>>(),
        "executionEnvironments": environments.collect::<Vec<_>>(),
        "capacityProvider": provider.map(|provider| fleet::provider(provider, &seen.instances, &seen.view)),
        "instanceMaxAgeSeconds": instance_age_seconds_max,
        "changes": changes(version, scaling, provider),
    })
}

fn shown_signals(scaling: &Scaling) -> Value {
    let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
    let why = scaling.why;
    json!({
        "slotsHeldPercent": percent(why.slots_used_hundredths),
        "slotsTargetPercent": percent(CONCURRENCY_TARGET_HUNDREDTHS),
        "cpuUsedPercent": percent(why.cpu_used_hundredths),
        "cpuTargetPercent": percent(why.cpu_target_hundredths),
        "neededForSlots": why.for_slots,
        "neededForCpu": why.for_cpu,
        "throttledSinceLastDecision": why.throttled,
    })
}

pub fn shown_reason(reason: &Reason) -> Value {
    json!({"code": reason.code, "reason": reason.text, "mend": mend(&reason.code)})
}

/// A word for what was decided.
pub fn what(what: What) -> &'static str {
    match what {
        What::Steady => "Steady",
        What::Out { by_cpu: true } => "OutByCpu",
        What::Out { by_cpu: false } => "OutBySlots",
        What::In => "In",
        What::Waiting => "Waiting",
        What::Config => "Config",
        What::Max => "Max",
        What::MachineBusy => "MachineBusy",
    }
}

/// The setting in the way first, then those that always help.
fn changes(
    version: &FunctionVersion,
    scaling: Option<&Scaling>,
    provider: Option<&CapacityProvider>,
) -> Vec<String> {
    let mut shown = Vec::new();
    if let Some(scaling) = scaling {
        if let Some(reason) = &scaling.blocked {
            shown.extend(mend(&reason.code).map(str::to_owned));
        }
        let is_at_max = scaling.max.filter(|max| scaling.wanted >= *max);
        shown.extend(is_at_max.map(changes::max));
        if scaling.why.what == What::MachineBusy {
            shown.push(changes::machine_cpu());
        }
    }
    shown.push(changes::min(version));
    shown.extend(provider.map(changes::cpu_target));
    shown
}

pub fn write(out: &mut String, function: &str, version: &Value) {
    let scaling = &version["scaling"];
    let name = format!("{function}:{}", word(&version["version"]));
    if scaling.is_null() {
        let state = word(&version["state"]);
        let _ = writeln!(
            out,
            "{name} is {state}: it is not scaled before it is Active. `ondol explain pending {function}` says what it waits for."
        );
    } else {
        let max = match scaling["maxExecutionEnvironments"].as_u64() {
            Some(max) => format!("Max {max}"),
            None => "no Max".into(),
        };
        let _ = writeln!(
            out,
            "{name} is {}: {} execution environments wanted, {} running, {} ready; Min {}, {max}, {} slots each",
            word(&version["state"]),
            scaling["wanted"],
            scaling["running"],
            scaling["ready"],
            scaling["minExecutionEnvironments"],
            version["slotsEach"]
        );
        let _ = writeln!(out, "  because {}", word(&scaling["why"]));
    }
    write_blocked(out, version);
    list(&version["executionEnvironments"]).iter().for_each(|found| fleet::write_environment(out, found));
    let moves = list(&version["moves"]);
    if !moves.is_empty() {
        let _ = writeln!(out, "  how that came to be, newest first:");
    }
    for step in moves {
        let from = if step["from"].is_null() { "–".to_owned() } else { step["from"].to_string() };
        let _ = writeln!(out, "    {} {from} → {}: {}", word(&step["at"]), step["to"], word(&step["why"]));
    }
    let decisions = list(&version["decisions"]);
    if !decisions.is_empty() {
        let _ = writeln!(out, "  what was done for it, newest first:");
    }
    for decision in decisions {
        let _ = writeln!(
            out,
            "    {} {}: {}",
            word(&decision["at"]),
            word(&decision["what"]),
            word(&decision["why"])
        );
    }
    if !version["capacityProvider"].is_null() {
        fleet::write_provider(out, &version["capacityProvider"]);
    }
    if list(&version["capacityProvider"]["instances"]).iter().any(|found| found["beingReplaced"] == true) {
        let age = fleet::age(version["instanceMaxAgeSeconds"].as_u64().unwrap_or_default());
        let _ = writeln!(
            out,
            "  an instance is replaced before it is {age} old: what runs on it is started on another first, as far as MaxVCpuCount allows"
        );
    }
    write_changes(out, version);
}

/// What keeps it from having more.
pub fn write_blocked(out: &mut String, version: &Value) {
    let blocked = &version["blocked"];
    if !blocked.is_null() {
        let _ = writeln!(out, "  no more come: {}: {}", word(&blocked["code"]), word(&blocked["reason"]));
    }
    let failures = &version["startFailures"];
    if !failures.is_null() {
        let _ = writeln!(
            out,
            "  no more start: {} starts failed in a row ({}), and the next is at {}",
            failures["count"],
            word(&failures["reason"]),
            word(&failures["nextAt"])
        );
    }
}

pub fn write_changes(out: &mut String, shown: &Value) {
    for change in list(&shown["changes"]) {
        let _ = writeln!(out, "  → {}", word(change));
    }
}
