//! What `ondol explain` says of a Lambda (default) function: it has no number of execution environments to explain, but
//! limits.

use std::fmt::Write as _;

use ondol_core::capacity::{EnvironmentState, default_pool};
use ondol_core::function::Function;
use ondol_observe::usage::Usage;
use serde_json::{Value, json};

use super::Seen;
use super::scale::write_changes;
use super::throttle::{counted, write_counts};
use crate::status::Facts;
use crate::words::{list, word};

pub fn page(function: &Function, functions: &[Function], seen: &Seen, facts: &Facts) -> Value {
    let pool = default_pool();
    let environments = seen.view.environments.iter();
    let own = environments.filter(|(_, e)| e.instance == pool && e.version.function == function.name);
    let (mut running, mut in_flight) = (0_u32, 0);
    for (id, environment) in own {
        running += u32::from(!matches!(environment.state, EnvironmentState::Ended { .. }));
        in_flight += seen.report.environments.get(id).map_or(0, |reported| reported.in_flight);
    }
    let mut counts = Usage::default();
    for (_, usage) in seen.usage.iter().filter(|(key, _)| key.function == function.name) {
        counts.invocations += usage.invocations;
        for (cause, count) in &usage.throttles {
            *counts.throttles.entry(*cause).or_default() += count;
        }
        let times = [counts.throttled_from_to_epoch_millis, usage.throttled_from_to_epoch_millis];
        counts.throttled_from_to_epoch_millis =
            times.into_iter().flatten().reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
    }
    let reserved: u32 = functions.iter().filter_map(|function| function.reserved_concurrency).sum();
    let unreserved = facts.quotas.concurrent_executions.saturating_sub(reserved);
    json!({
        "executionEnvironments": running,
        "inFlight": in_flight,
        "idleSeconds": facts.idle_seconds,
        "reservedConcurrency": function.reserved_concurrency,
        "unreservedConcurrency": unreserved,
        "counts": counted(&counts),
        "changes": changes(function, unreserved, facts),
    })
}

fn changes(function: &Function, unreserved: u32, facts: &Facts) -> Vec<String> {
    let mut shown = vec![match function.reserved_concurrency {
        Some(reserved) => format!(
            "Let more run at once: a higher ReservedConcurrentExecutions (now {reserved}) with PutFunctionConcurrency, or none with DeleteFunctionConcurrency."
        ),
        None => format!(
            "Let more run at once: {unreserved} are what all functions without reserved concurrency share; raise the account's quota (now {}) with --quota concurrent-executions=N at the server's start, or give this function its own with PutFunctionConcurrency.",
            facts.quotas.concurrent_executions
        ),
    }];
    shown.push(
        "Let one execution environment take many requests at once: give it a capacity provider (CapacityProviderConfig) when it is created."
            .into(),
    );
    shown
}

pub fn write_pending(out: &mut String, function: &str, page: &Value) {
    let _ = writeln!(out, "{function} is a Lambda (default) function: it runs on demand, and is Active.");
    let failure = &page["lastFailure"];
    if !failure.is_null() {
        let _ = writeln!(out, "The last time it could not start: {}", word(&failure["errorType"]));
        for line in list(&failure["lines"]) {
            let _ = writeln!(out, "  | {}", word(line));
        }
    }
}

pub fn write_scale(out: &mut String, function: &str, page: &Value) {
    let pool = &page["onDemandPool"];
    let _ = writeln!(
        out,
        "{function} is a Lambda (default) function: each invocation has an execution environment for itself, started when none is idle and ended after {} s without one. {} there are now, {} in flight.",
        pool["idleSeconds"], pool["executionEnvironments"], pool["inFlight"]
    );
    write_limit(out, pool);
    write_changes(out, pool);
}

pub fn write_throttle(out: &mut String, function: &str, page: &Value) {
    let pool = &page["onDemandPool"];
    write_counts(out, function, &pool["counts"], page);
    write_limit(out, pool);
    if pool["counts"]["throttled"] != 0 {
        write_changes(out, pool);
    }
}

fn write_limit(out: &mut String, pool: &Value) {
    let _ = match pool["reservedConcurrency"].as_u64() {
        Some(reserved) => writeln!(out, "  its reserved concurrency lets {reserved} run at the same time"),
        None => writeln!(
            out,
            "  it shares {} invocations at the same time with all functions that have no reserved concurrency",
            pool["unreservedConcurrency"]
        ),
    };
}
