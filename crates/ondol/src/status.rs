//! `ondol status`: what runs, and a reason for everything that is not as asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ondol_agent::Containment;
use ondol_control::View;
use ondol_core::capacity::{Instance, default_pool};
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::function::{Function, FunctionVersion, LastUpdate, VersionKey};
use ondol_core::identity::{Home, LATEST_PUBLISHED};
use ondol_core::quotas::Quotas;
use ondol_identity::Roles;
use ondol_observe::usage::Usage;
use ondol_protocol::assignment::Report;
use ondol_store::{Store, keys};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::pages::ServerPages;
use crate::words::{list, word};
use crate::{Auth, fleet, machine};

/// What does not change while the server runs.
pub struct Facts {
    pub endpoint: String,
    /// Names this server's control groups.
    pub server_id: String,
    pub containment: Containment,
    pub limits: bool,
    pub any_architecture: bool,
    pub home: Home,
    pub auth: Auth,
    pub started_epoch_millis: i64,
    pub quotas: Quotas,
    /// How long an execution environment of a Lambda (default) function may be idle.
    pub idle_seconds: u32,
    pub instance_age_seconds_max: u64,
}

pub fn page(pages: &ServerPages) -> Value {
    let ServerPages { facts, store, usage: book, logs, roles, .. } = pages;
    let (report, view, sources) = (pages.reports.borrow(), pages.views.borrow(), pages.sources.borrow());
    let mut notes: Vec<String> = store.trouble().into_iter().chain(logs.trouble()).collect();
    notes.extend(sources.iter().filter_map(|(uuid, report)| {
        Some(format!("The event source mapping {uuid} can't be read: {}", report.trouble.as_ref()?))
    }));
    let providers: Vec<CapacityProvider> = read(store, keys::CAPACITY_PROVIDERS, &mut notes);
    let instances: Vec<Instance> = read(store, keys::INSTANCES, &mut notes);
    let versions: Vec<FunctionVersion> = read(store, keys::VERSIONS, &mut notes);
    if facts.auth == Auth::Off {
        notes.push("--auth off: signatures, roles and policies are not looked at.".into());
    } else {
        deputies(store, &providers, roles, &mut notes);
    }
    let versions: Vec<FunctionVersion> =
        versions.into_iter().filter(|version| !version.publication.configuration.is_on_demand()).collect();
    let usage = book.read();
    let shown_version = |version: &FunctionVersion| {
        let key = version.key();
        let environments: Vec<Value> = fleet::environments_of(&view, &key)
            .map(|(id, environment)| fleet::environment(version, id, environment, &report))
            .collect();
        let reason = view.unmet.get(&key).or(version.state_reason.as_ref()).or(match &version.last_update {
            LastUpdate::Failed(reason) => Some(reason),
            _ => None,
        });
        let counts = usage.get(&key).cloned().unwrap_or_default();
        let throttles: BTreeMap<&str, u64> =
            counts.throttles.iter().map(|(cause, count)| (cause.name(), *count)).collect();
        json!({
            "function": version.function,
            "version": version.version,
            "state": version.state.to_string(),
            "reasonCode": reason.map(|reason| reason.code.clone()),
            "reason": reason.map(|reason| reason.text.clone()),
            "minExecutionEnvironments": if version.scaling.deactivates() { 0 } else { version.scaling.minimum() },
            "concurrencyEach": version.publication.configuration.concurrency(),
            "executionEnvironments": environments,
            "scaling": view.scaling.get(&key).map(fleet::scaling),
            "invocations": counts.invocations,
            "errors": counts.errors,
            "throttles": throttles,
        })
    };
    let measured = report.machine;
    let allocated_vcpus: u32 = view.environments.values().map(|environment| environment.need.vcpus).sum();
    let allocated_mib: u64 = view.environments.values().map(|environment| environment.need.memory_mib).sum();
    #[allow(clippy::cast_precision_loss)]
    let ratio = |wanted: u64, there: u64| (wanted as f64 / there.max(1) as f64 * 100.0).round() / 100.0;
    if providers.iter().any(|provider| provider.subnet_ids.len() > 1) {
        notes.push("All availability zones are on this one machine: they spread environments, but give no redundancy.".into(),);
    }
    if facts.containment == Containment::Process {
        notes.push(
            "Containment is `process`: functions are not separated from each other or from this server."
                .into(),
        );
    }
    if !facts.limits {
        notes.push("The server does not run as root: CPU and memory of functions are not limited.".into());
    }
    if facts.any_architecture {
        notes.push("Functions of any architecture run here (--any-architecture): only code without native parts works.".into(),);
    }
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "endpoint": facts.endpoint,
        "serverId": facts.server_id,
        "accountId": facts.home.account_id,
        "region": facts.home.region,
        "auth": if facts.auth == Auth::Off { "off" } else { "on" },
        "startedAt": ondol_wire::time::iso_8601_millis(facts.started_epoch_millis),
        "machine": {
            "architecture": machine::architecture().to_string(),
            "cpus": machine::cpus(),
            "memoryMiB": machine::memory_bytes() >> 20,
            // Absent before the first measurement.
            "cpuIdleMillis": (measured.cpu_idle_millis < u32::MAX).then_some(measured.cpu_idle_millis),
            "memoryAvailableMiB": (measured.memory_available_mib < u64::MAX).then_some(measured.memory_available_mib),
        },
        "overCommitment": {
            "vCpus": ratio(u64::from(allocated_vcpus), machine::cpus() as u64),
            "memory": ratio(allocated_mib, machine::memory_bytes() >> 20),
        },
        "capacityProviders": providers.iter().map(|provider| fleet::provider(provider, &instances, &view)).collect::<Vec<_>>(),
        "functionVersions": versions.iter().map(shown_version).collect::<Vec<_>>(),
        "onDemand": on_demand(&view, &report, &usage),
        "usageEventsDropped": book.dropped(),
        "logLinesLost": logs.lost(),
        "journalLinesLost": pages.journal_lines_lost.get(),
        "decisions": view.journal.iter().rev().take(50).map(|decision| json!({
            "at": fleet::moment(decision.at),
            "what": decision.what,
            "why": decision.why,
        })).collect::<Vec<_>>(),
        "notes": notes,
    })
}

/// Roles that somebody else's function could run with, were this AWS.
fn deputies(store: &Store, providers: &[CapacityProvider], roles: &Roles, notes: &mut Vec<String>) {
    let functions: Vec<Function> = read(store, keys::FUNCTIONS, notes);
    let used: BTreeSet<&str> = functions
        .iter()
        .map(|function| function.configuration.role.as_str())
        .chain(providers.iter().map(|provider| provider.operator_role_arn.as_str()))
        .collect();
    let open =
        |arn: &&&str| roles.by_arn(arn).is_some_and(|role| ondol_core::policy::confused_deputy(&role.trust));
    notes.extend(used.iter().filter(open).map(|arn| ondol_api::deputy(arn)));
}

/// Lambda (default) functions that have execution environments, or were invoked, since the server started.
fn on_demand(view: &View, report: &Report, usage: &BTreeMap<VersionKey, Usage>) -> Vec<Value> {
    let pool = default_pool();
    let mut shown: BTreeMap<VersionKey, Vec<Value>> = BTreeMap::new();
    for key in usage.keys().filter(|key| key.version != LATEST_PUBLISHED) {
        shown.insert(key.clone(), Vec::new());
    }
    let mut managed: Vec<VersionKey> = Vec::new();
    for (id, environment) in &view.environments {
        if environment.instance != pool {
            managed.push(environment.version.clone());
            continue;
        }
        let reported = report.environments.get(id);
        shown.entry(environment.version.clone()).or_default().push(json!({
            "id": id.to_string(),
            "state": fleet::state_name(reported.map_or(&environment.state, |reported| &reported.state)),
            "inFlight": reported.map_or(0, |reported| reported.in_flight),
        }));
    }
    shown
        .into_iter()
        .filter(|(key, _)| !managed.contains(key))
        .map(|(key, environments)| {
            let counts = usage.get(&key).cloned().unwrap_or_default();
            let throttles: u64 = counts.throttles.values().sum();
            json!({
                "function": key.function,
                "version": key.version,
                "executionEnvironments": environments,
                "invocations": counts.invocations,
                "errors": counts.errors,
                "throttles": throttles,
            })
        })
        .collect()
}

/// Documents below a prefix; what cannot be read is said instead of left out in silence.
fn read<T: DeserializeOwned>(store: &Store, prefix: &str, notes: &mut Vec<String>) -> Vec<T> {
    store.all(prefix).unwrap_or_else(|error| {
        notes.push(format!("{error}; nothing below {prefix} is shown."));
        Vec::new()
    })
}

/// The page for people.
pub fn text(page: &Value) -> String {
    let mut out = String::new();
    let machine = &page["machine"];
    #[allow(clippy::cast_precision_loss)]
    let idle = machine["cpuIdleMillis"]
        .as_u64()
        .map_or(String::new(), |millis| format!(" ({:.1} idle)", millis as f64 / 1_000.0));
    let _ = writeln!(out, "Ondol {} at {}", word(&page["version"]), word(&page["endpoint"]));
    let _ = writeln!(
        out,
        "machine: {} CPUs{}, {} MiB, {}; allocated {} × its vCPUs, {} × its memory\n",
        machine["cpus"],
        idle,
        machine["memoryMiB"],
        word(&machine["architecture"]),
        page["overCommitment"]["vCpus"],
        page["overCommitment"]["memory"]
    );
    list(&page["capacityProviders"]).iter().for_each(|provider| fleet::write_provider(&mut out, provider));
    for version in list(&page["functionVersions"]) {
        let _ = writeln!(
            out,
            "function {}:{} {}: {} of {} execution environments, {} requests each; {} invocations, {} errors, throttles {}",
            word(&version["function"]),
            word(&version["version"]),
            word(&version["state"]),
            list(&version["executionEnvironments"])
                .iter()
                .filter(|environment| environment["state"] == "Ready")
                .count(),
            version["minExecutionEnvironments"],
            version["concurrencyEach"],
            version["invocations"],
            version["errors"],
            version["throttles"]
        );
        if !version["reason"].is_null() {
            let _ = writeln!(out, "  {}: {}", word(&version["reasonCode"]), word(&version["reason"]));
        }
        let scaling = &version["scaling"];
        if !scaling.is_null() {
            let _ = writeln!(
                out,
                "  wants {}, {} run: {}",
                scaling["wanted"],
                scaling["running"],
                word(&scaling["why"])
            );
        }
        if !scaling["blocked"].is_null() {
            let _ = writeln!(out, "  and can't have them: {}", word(&scaling["blocked"]));
        }
        list(&version["executionEnvironments"])
            .iter()
            .for_each(|found| fleet::write_environment(&mut out, found));
    }
    for function in list(&page["onDemand"]) {
        let environments = list(&function["executionEnvironments"]);
        let _ = writeln!(
            out,
            "function {}:{} on demand: {} execution environments; {} invocations, {} errors, {} throttles",
            word(&function["function"]),
            word(&function["version"]),
            environments.len(),
            function["invocations"],
            function["errors"],
            function["throttles"]
        );
        for environment in environments {
            let _ = writeln!(
                out,
                "  {} {}: {} in flight",
                word(&environment["id"]),
                word(&environment["state"]),
                environment["inFlight"]
            );
        }
    }
    for note in list(&page["notes"]) {
        let _ = writeln!(out, "note: {}", word(note));
    }
    out
}
