//! `ondol status`: what runs, and a reason for everything that is not as asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ondol_agent::Containment;
use ondol_control::View;
use ondol_core::capacity::{EnvironmentState, Instance, Scaling, default_pool};
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::function::{Function, FunctionVersion, LastUpdate, VersionKey};
use ondol_core::identity::{Home, LATEST_PUBLISHED};
use ondol_core::instance_type::by_name;
use ondol_identity::Roles;
use ondol_observe::usage::Usage;
use ondol_protocol::assignment::Report;
use ondol_store::{Store, keys};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::pages::ServerPages;
use crate::words::{list, word};
use crate::{Auth, machine};

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
    let on = |instance: &Instance| -> Vec<&ondol_core::capacity::Environment> {
        view.environments.values().filter(|environment| environment.instance == instance.id).collect()
    };
    let shown_instance = |instance: &Instance| {
        let running = on(instance);
        let size = by_name(&instance.instance_type);
        json!({
            "id": instance.id.0,
            "type": instance.instance_type,
            "availabilityZone": instance.availability_zone,
            "vCpus": size.map(|size| size.vcpus),
            "memoryMiB": size.map(|size| size.memory_mib),
            "vCpusAllocated": running.iter().map(|environment| environment.need.vcpus).sum::<u32>(),
            "memoryMiBAllocated": running.iter().map(|environment| environment.need.memory_mib).sum::<u64>(),
            "executionEnvironments": running.len(),
        })
    };
    let shown_provider = |provider: &CapacityProvider| {
        let own: Vec<&Instance> =
            instances.iter().filter(|instance| instance.capacity_provider == provider.name).collect();
        json!({
            "name": provider.name,
            "state": format!("{:?}", provider.state),
            "maxVCpuCount": provider.scaling.max_vcpu_count,
            "vCpus": own.iter().filter_map(|instance| by_name(&instance.instance_type)).map(|t| t.vcpus).sum::<u32>(),
            "instances": own.into_iter().map(shown_instance).collect::<Vec<_>>(),
        })
    };
    let shown_version = |version: &FunctionVersion| {
        let key = version.key();
        let environments: Vec<Value> = view
            .environments
            .iter()
            .filter(|(_, environment)| environment.version == key)
            .map(|(id, environment)| {
                let reported = report.environments.get(id);
                json!({
                    "id": id.to_string(),
                    "instance": environment.instance.0,
                    "state": state_name(reported.map_or(&environment.state, |reported| &reported.state)),
                    "inFlight": reported.map_or(0, |reported| reported.in_flight),
                    "heldByTimedOutCode": reported.map_or(0, |reported| reported.timed_out),
                    "parkedPolls": reported.map_or(0, |reported| reported.parked_polls),
                    "refusesFor": reported.and_then(|reported| reported.heat).map(|heat| heat.cause.name()),
                })
            })
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
            "scaling": view.scaling.get(&key).map(shown_scaling),
            "invocations": counts.invocations,
            "errors": counts.errors,
            "throttles": throttles,
        })
    };
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
        "machine": {"architecture": machine::architecture().to_string(), "cpus": machine::cpus(), "memoryMiB": machine::memory_bytes() >> 20},
        "overCommitment": {
            "vCpus": ratio(u64::from(allocated_vcpus), machine::cpus() as u64),
            "memory": ratio(allocated_mib, machine::memory_bytes() >> 20),
        },
        "capacityProviders": providers.iter().map(shown_provider).collect::<Vec<_>>(),
        "functionVersions": versions.iter().map(shown_version).collect::<Vec<_>>(),
        "onDemand": on_demand(&view, &report, &usage),
        "usageEventsDropped": book.dropped(),
        "logLinesLost": logs.lost(),
        "decisions": view.journal.iter().rev().take(50).map(|decision| json!({
            "at": ondol_wire::time::iso_8601_millis(i64::try_from(decision.at.0 / 1_000).unwrap_or_default()),
            "what": decision.what,
            "why": decision.why,
        })).collect::<Vec<_>>(),
        "notes": notes,
    })
}

/// How many execution environments a version is to have, and why.
fn shown_scaling(scaling: &Scaling) -> Value {
    json!({
        "wanted": scaling.wanted,
        "maxExecutionEnvironments": scaling.max,
        "why": scaling.why.to_string(),
        "blocked": scaling.blocked.as_ref().map(|reason| reason.text.clone()),
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
            "state": state_name(reported.map_or(&environment.state, |reported| &reported.state)),
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

fn state_name(state: &EnvironmentState) -> &'static str {
    match state {
        EnvironmentState::Starting => "Starting",
        EnvironmentState::Ready => "Ready",
        EnvironmentState::Draining => "Draining",
        EnvironmentState::Ended { .. } => "Ended",
    }
}

/// The page for people.
pub fn text(page: &Value) -> String {
    let mut out = String::new();
    let machine = &page["machine"];
    let _ = writeln!(out, "Ondol {} at {}", word(&page["version"]), word(&page["endpoint"]));
    let _ = writeln!(
        out,
        "machine: {} CPUs, {} MiB, {}; allocated {} × its vCPUs, {} × its memory\n",
        machine["cpus"],
        machine["memoryMiB"],
        word(&machine["architecture"]),
        page["overCommitment"]["vCpus"],
        page["overCommitment"]["memory"]
    );
    for provider in list(&page["capacityProviders"]) {
        let _ = writeln!(
            out,
            "capacity provider {} {}: {} of {} vCPUs",
            word(&provider["name"]),
            word(&provider["state"]),
            provider["vCpus"],
            provider["maxVCpuCount"]
        );
        for instance in list(&provider["instances"]) {
            let _ = writeln!(
                out,
                "  {} {} {}: {} execution environments, {} of {} vCPUs, {} of {} MiB",
                word(&instance["id"]),
                word(&instance["type"]),
                word(&instance["availabilityZone"]),
                instance["executionEnvironments"],
                instance["vCpusAllocated"],
                instance["vCpus"],
                instance["memoryMiBAllocated"],
                instance["memoryMiB"]
            );
        }
    }
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
            let _ = writeln!(out, "  wants {}: {}", scaling["wanted"], word(&scaling["why"]));
        }
        if !scaling["blocked"].is_null() {
            let _ = writeln!(out, "  and can't have them: {}", word(&scaling["blocked"]));
        }
        for environment in list(&version["executionEnvironments"]) {
            let refuses = match environment["refusesFor"].as_str() {
                Some(cause) => format!(", takes no more for now: {cause}"),
                None => String::new(),
            };
            let _ = writeln!(
                out,
                "  {} on {} {}: {} in flight{refuses}",
                word(&environment["id"]),
                word(&environment["instance"]),
                word(&environment["state"]),
                environment["inFlight"]
            );
        }
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
