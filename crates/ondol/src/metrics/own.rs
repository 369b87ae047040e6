//! Metrics that AWS does not have: of the machine, of the planner, of the queue, and of what was lost.

use std::collections::BTreeMap;

use ondol_core::capacity::Scaling;
use ondol_core::function::VersionKey;
use ondol_observe::metrics::Kind::{Counter, Gauge};
use ondol_observe::metrics::exposition::{Exposition, Own, Sample};
use serde_json::Value;

use super::{Documents, number};
use crate::pages::ServerPages;
use crate::words::list;
use crate::{fleet, machine};

const VERSION: &[&str] = &["capacity_provider_name", "function_name", "resource"];
const PROVIDER: &[&str] = &["capacity_provider_name"];

pub fn write(page: &mut Exposition, pages: &ServerPages, documents: &Documents, queue: &Value) {
    server(page, pages);
    machine(page, pages);
    planner(page, pages, documents);
    events(page, queue);
}

fn server(page: &mut Exposition, pages: &ServerPages) {
    let mut one = |name, kind, help, value| {
        page.own(&Own { name, kind, labels: &[], help }, &[(vec![], value)]);
    };
    #[allow(clippy::cast_precision_loss)]
    let started = pages.facts.started_epoch_millis as f64 / 1_000.0;
    one("ondol_start_time_seconds", Gauge, "When the server started.", started);
    let trouble = f64::from(u8::from(pages.store.trouble().is_some()));
    one("ondol_store_in_trouble", Gauge, "1 while no change can be stored.", trouble);
    let lost = number(pages.journal_lines_lost.get());
    one(
        "ondol_planner_journal_lines_lost_total",
        Counter,
        "Lines of the planner's journal that were not written.",
        lost,
    );
    let lost = number(pages.usage.dropped());
    one("ondol_usage_events_lost_total", Counter, "Invocations that were not counted.", lost);
    one("ondol_log_lines_lost_total", Counter, "Lines of log that were not kept.", number(pages.logs.lost()));
    let build =
        Own { name: "ondol_build_info", kind: Gauge, labels: &["version"], help: "Which Ondol this is." };
    page.own(&build, &[(vec![env!("CARGO_PKG_VERSION").into()], 1.0)]);
}

fn machine(page: &mut Exposition, pages: &ServerPages) {
    let signals = pages.reports.borrow().machine;
    let mut one = |name, help, value: Option<f64>| {
        let samples: Vec<Sample> = value.into_iter().map(|value| (vec![], value)).collect();
        page.own(&Own { name, kind: Gauge, labels: &[], help }, &samples);
    };
    // Before the first measurement there is none.
    let idle = (signals.cpu_idle_millis < u32::MAX).then(|| f64::from(signals.cpu_idle_millis) / 1_000.0);
    let available = signals.memory_available_mib;
    let available = (available < u64::MAX).then(|| number(available << 20));
    one("ondol_machine_cpus", "CPUs of the machine.", Some(number(machine::cpus() as u64)));
    one("ondol_machine_cpus_idle", "CPUs of the machine that nothing used over the last second.", idle);
    one("ondol_machine_memory_bytes", "Memory of the machine.", Some(number(machine::memory_bytes())));
    one("ondol_machine_memory_available_bytes", "Memory of the machine that could be had.", available);
}

fn planner(page: &mut Exposition, pages: &ServerPages, documents: &Documents) {
    let view = pages.views.borrow().clone();
    let provider_of = |key: &VersionKey| {
        let found = documents.versions.get(key);
        found.and_then(|v| v.publication.configuration.capacity_provider()).unwrap_or_default().to_owned()
    };
    let labels: Vec<Vec<String>> = view
        .scaling
        .keys()
        .map(|key| vec![provider_of(key), key.function.clone(), key.to_string()])
        .collect();
    let mut of_versions = |name, help, value: &dyn Fn(&Scaling) -> u32| {
        let values = view.scaling.values().map(|scaling| f64::from(value(scaling)));
        let samples: Vec<Sample> = labels.iter().cloned().zip(values).collect();
        page.own(&Own { name, kind: Gauge, labels: VERSION, help }, &samples);
    };
    of_versions(
        "ondol_execution_environments_wanted",
        "Execution environments the version is to have.",
        &|s| s.wanted,
    );
    of_versions(
        "ondol_execution_environments_running",
        "Execution environments that start or are ready.",
        &|s| s.running,
    );
    of_versions(
        "ondol_execution_environments_ready",
        "Execution environments that take invocations.",
        &|s| s.ready,
    );
    of_versions(
        "ondol_execution_environments_blocked",
        "1 while the version can't have what it wants.",
        &|s| u32::from(s.blocked.is_some()),
    );
    let mut states: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for instance in &documents.instances {
        let is_replaced = view.replacing.contains(&instance.id);
        let state = if is_replaced { "Replacing" } else { fleet::instance_state(&instance.state).0 };
        *states.entry(vec![instance.capacity_provider.clone(), state.to_owned()]).or_default() += 1;
    }
    let instances = Own {
        name: "ondol_instances",
        kind: Gauge,
        labels: &["capacity_provider_name", "state"],
        help: "Instances by their state.",
    };
    page.own(
        &instances,
        &states.into_iter().map(|(labels, count)| (labels, number(count))).collect::<Vec<_>>(),
    );
    let mut of_providers = |name, help, value: &dyn Fn(&str) -> u64| {
        let samples: Vec<Sample> = documents
            .providers
            .iter()
            .map(|provider| (vec![provider.name.clone()], number(value(&provider.name))))
            .collect();
        page.own(&Own { name, kind: Gauge, labels: PROVIDER, help }, &samples);
    };
    of_providers(
        "ondol_capacity_provider_vcpus_used",
        "vCPUs of the instances, as MaxVCpuCount counts them.",
        &|name| fleet::vcpus_used(fleet::of_provider(&documents.instances, name)).into(),
    );
    of_providers("ondol_capacity_provider_vcpus_max", "MaxVCpuCount of the capacity provider.", &|name| {
        let found = documents.providers.iter().find(|provider| provider.name == name);
        found.map_or(0, |provider| provider.scaling.max_vcpu_count.into())
    });
    of_providers(
        "ondol_capacity_provider_launch_failures",
        "Launches that failed in a row, all availability zones together.",
        &|name| {
            let failures = view.launch_failures.iter().filter(|((provider, _), _)| provider == name);
            failures.map(|(_, failures)| u64::from(failures.count)).sum()
        },
    );
}

fn events(page: &mut Exposition, queue: &Value) {
    let rows = list(&queue["functions"]);
    let name_of = |row: &Value| row["function"].as_str().unwrap_or_default().to_owned();
    let count = |row: &Value, field: &str| number(row[field].as_u64().unwrap_or_default());
    let waiting: Vec<Sample> = rows.iter().map(|row| (vec![name_of(row)], count(row, "queued"))).collect();
    let queued = Own {
        name: "ondol_events_queued",
        kind: Gauge,
        labels: &["function_name"],
        help: "Events that have not ended.",
    };
    page.own(&queued, &waiting);
    let endings = ["succeeded", "delivered", "discarded", "undeliverable"];
    let ended: Vec<Sample> = rows
        .iter()
        .flat_map(|row| endings.map(|ending| (vec![name_of(row), ending.to_owned()], count(row, ending))))
        .collect();
    let ended_metric = Own {
        name: "ondol_events_ended_total",
        kind: Counter,
        labels: &["function_name", "ending"],
        help: "Events that ended, and how.",
    };
    page.own(&ended_metric, &ended);
}
