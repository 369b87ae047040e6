//! Capacity providers, instances and execution environments as pages show them: what the documents say, what the control
//! loop decided of them, and what was measured.

mod text;

use ondol_control::View;
use ondol_core::capacity::{Environment, EnvironmentState, Failures, Instance, InstanceState, Scaling};
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::function::{FunctionConfiguration, FunctionVersion, Reason, VersionKey};
use ondol_core::identity::EnvironmentId;
use ondol_core::instance_type::by_name;
use ondol_core::time::PolicyTime;
use ondol_observe::clock;
use ondol_protocol::assignment::{EnvironmentReport, Report};
use serde_json::{Value, json};

pub use text::{age, write_environment, write_provider};

/// A moment of policy time on the system's clock.
pub fn moment(at: PolicyTime) -> String {
    ondol_wire::time::iso_8601_millis(clock::epoch_millis_of(at))
}

pub fn provider(provider: &CapacityProvider, instances: &[Instance], view: &View) -> Value {
    let own: Vec<&Instance> = of_provider(instances, &provider.name).collect();
    let used = vcpus_used(own.iter().copied());
    let launch_failures = view.launch_failures.iter().filter(|((name, _), _)| *name == provider.name);
    let launch_failures = launch_failures.map(|((_, zone), failed)| {
        let mut shown = failures(failed);
        shown["availabilityZone"] = zone.as_str().into();
        shown
    });
    json!({
        "name": provider.name,
        "state": format!("{:?}", provider.state),
        "maxVCpuCount": provider.scaling.max_vcpu_count,
        "vCpus": used,
        "vCpusLeft": provider.scaling.max_vcpu_count.saturating_sub(used),
        "instances": own.into_iter().map(|found| instance(found, view)).collect::<Vec<_>>(),
        "launchFailures": launch_failures.collect::<Vec<_>>(),
    })
}

pub fn of_provider<'a>(instances: &'a [Instance], name: &str) -> impl Iterator<Item = &'a Instance> {
    instances.iter().filter(move |instance| instance.capacity_provider == name)
}

/// Against `MaxVCpuCount` as the planner counts: what failed or was lost takes none.
pub fn vcpus_used<'a>(instances: impl Iterator<Item = &'a Instance>) -> u32 {
    let up =
        instances.filter(|found| matches!(found.state, InstanceState::Launching | InstanceState::Running));
    up.filter_map(|found| by_name(&found.instance_type)).map(|found| found.vcpus).sum()
}

/// A word for the state of an instance.
pub fn instance_state(state: &InstanceState) -> (&'static str, Option<&Reason>) {
    match state {
        InstanceState::Launching => ("Launching", None),
        InstanceState::Running => ("Running", None),
        InstanceState::LaunchFailed(reason) => ("LaunchFailed", Some(reason)),
        InstanceState::Lost(reason) => ("Lost", Some(reason)),
    }
}

fn instance(instance: &Instance, view: &View) -> Value {
    let running: Vec<&Environment> =
        view.environments.values().filter(|environment| environment.instance == instance.id).collect();
    let size = by_name(&instance.instance_type);
    let (state, reason) = instance_state(&instance.state);
    json!({
        "id": instance.id.0,
        "type": instance.instance_type,
        "availabilityZone": instance.availability_zone,
        "state": state,
        "reason": reason.map(|reason| reason.text.as_str()),
        "ageSeconds": clock::policy().seconds_since(instance.launched_at),
        "beingReplaced": view.replacing.contains(&instance.id),
        "vCpus": size.map(|size| size.vcpus),
        "memoryMiB": size.map(|size| size.memory_mib),
        "vCpusAllocated": running.iter().map(|environment| environment.need.vcpus).sum::<u32>(),
        "memoryMiBAllocated": running.iter().map(|environment| environment.need.memory_mib).sum::<u64>(),
        "executionEnvironments": running.len(),
    })
}

/// The environments of a version on instances, whatever their publication.
pub fn environments_of<'a>(
    view: &'a View,
    key: &'a VersionKey,
) -> impl Iterator<Item = (EnvironmentId, &'a Environment)> {
    let all = view.environments.iter();
    all.filter(move |(_, environment)| environment.version == *key).map(|(id, found)| (*id, found))
}

/// The state of an environment as its agent says, or as it was when the control loop last looked.
pub fn state_of<'a>(
    id: EnvironmentId,
    environment: &'a Environment,
    report: &'a Report,
) -> &'a EnvironmentState {
    report.environments.get(&id).map_or(&environment.state, |reported| &reported.state)
}

pub fn state_name(state: &EnvironmentState) -> &'static str {
    match state {
        EnvironmentState::Starting => "Starting",
        EnvironmentState::Ready => "Ready",
        EnvironmentState::Draining => "Draining",
        EnvironmentState::Ended { .. } => "Ended",
    }
}

pub fn environment(
    version: &FunctionVersion,
    id: EnvironmentId,
    environment: &Environment,
    report: &Report,
) -> Value {
    let reported = report.environments.get(&id);
    let mut shown = json!({
        "id": id.to_string(),
        "instance": environment.instance.0,
        "state": state_name(state_of(id, environment, report)),
        "inFlight": reported.map_or(0, |reported| reported.in_flight),
        "heldByTimedOutCode": reported.map_or(0, |reported| reported.timed_out),
        "parkedPolls": reported.map_or(0, |reported| reported.parked_polls),
    });
    if let Some(reported) = reported.filter(|reported| reported.signals.sampled_at.0 > 0) {
        add_measured(&mut shown, reported, configuration_of(version, environment));
    }
    shown
}

fn add_measured(shown: &mut Value, reported: &EnvironmentReport, configuration: &FunctionConfiguration) {
    let signals = reported.signals;
    shown["cpuPercent"] = percent(signals.cpu_used_millis.into(), configuration.cpu_millis()).into();
    shown["cpuPressurePercent"] =
        signals.cpu_pressure_hundredths.map(|hundredths| f64::from(hundredths) / 100.0).into();
    shown["memoryMiB"] = signals.memory_used_mib.into();
    shown["memoryPercent"] =
        percent(signals.memory_used_mib.into(), configuration.memory_size_mib.into()).into();
    shown["diskMiB"] = signals.disk_used_mib.into();
    shown["diskPercent"] =
        percent(signals.disk_used_mib.into(), configuration.ephemeral_storage_mib.into()).into();
    shown["refusals"] = signals.refusals.into();
    if let Some(heat) = reported.heat {
        shown["refusesFor"] = heat.cause.name().into();
        shown["inFlightMax"] = heat.in_flight_max.into();
    }
}

/// Of the publication an environment runs: the one that is to serve, or the one that still does.
pub fn configuration_of<'a>(
    version: &'a FunctionVersion,
    environment: &Environment,
) -> &'a FunctionConfiguration {
    let serving = version.serving.as_ref().filter(|serving| serving.id == environment.publication);
    &serving.unwrap_or(&version.publication).configuration
}

pub fn percent(used: u64, of: u64) -> u64 {
    used * 100 / of.max(1)
}

/// How many execution environments a version is to have, and why.
pub fn scaling(scaling: &Scaling) -> Value {
    json!({
        "wanted": scaling.wanted,
        "running": scaling.running,
        "ready": scaling.ready,
        "minExecutionEnvironments": scaling.min,
        "maxExecutionEnvironments": scaling.max,
        "why": scaling.why.to_string(),
        "blocked": scaling.blocked.as_ref().map(|reason| reason.text.clone()),
    })
}

/// Failures in a row, and the back-off after them.
pub fn failures(failures: &Failures) -> Value {
    json!({
        "count": failures.count,
        "nextAt": moment(failures.retry_at),
        "code": failures.last.code,
        "reason": failures.last.text,
    })
}
