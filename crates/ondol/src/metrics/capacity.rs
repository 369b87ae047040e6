//! AWS's metrics of capacity providers and of execution environments on their instances.

use std::collections::BTreeMap;

use ondol_core::capacity::{EnvironmentState, Instance, InstanceState};
use ondol_core::function::FunctionVersion;
use ondol_core::identity::InstanceId;
use ondol_core::instance_type::by_name;
use ondol_core::place::room_of;
use ondol_observe::metrics::exposition::{Exposition, Sample};
use ondol_observe::metrics::{self, Metric};

use super::{Documents, number, percent};
use crate::fleet;
use crate::pages::ServerPages;

const MIB: u64 = 1 << 20;

/// The instances of one type of one capacity provider.
#[derive(Default)]
struct Instances {
    vcpus: u64,
    memory_mib: u64,
    /// For execution environments: what instances keep for themselves is not in it.
    room_vcpus: u64,
    room_memory_mib: u64,
    allocated_vcpus: u64,
    allocated_memory_mib: u64,
    cpu_used_millis: u64,
    memory_used_mib: u64,
}

/// The environments of one version that take invocations.
#[derive(Default)]
struct Environments {
    ready: u64,
    concurrency: u64,
    concurrency_limit: u64,
    cpu_used_millis: u64,
    cpu_millis: u64,
    memory_used_mib: u64,
    memory_mib: u64,
}

pub fn write(page: &mut Exposition, pages: &ServerPages, documents: &Documents) {
    instances(page, pages, documents);
    environments(page, pages, documents);
}

fn instances(page: &mut Exposition, pages: &ServerPages, documents: &Documents) {
    let (view, report) = (pages.views.borrow().clone(), pages.reports.borrow().clone());
    let mut groups: BTreeMap<Vec<String>, Instances> = BTreeMap::new();
    let mut group_of: BTreeMap<&InstanceId, Vec<String>> = BTreeMap::new();
    let running = documents.instances.iter().filter(|instance| instance.state == InstanceState::Running);
    for Instance { id, capacity_provider, instance_type, .. } in running {
        let Some(size) = by_name(instance_type) else { continue };
        let labels = vec![capacity_provider.clone(), instance_type.clone()];
        let group = groups.entry(labels.clone()).or_default();
        let room = room_of(&size);
        group.vcpus += u64::from(size.vcpus);
        group.memory_mib += size.memory_mib;
        group.room_vcpus += u64::from(room.vcpus);
        group.room_memory_mib += room.memory_mib;
        group_of.insert(id, labels);
    }
    for (id, environment) in &view.environments {
        let Some(group) = group_of.get(&environment.instance).and_then(|labels| groups.get_mut(labels))
        else {
            continue;
        };
        group.allocated_vcpus += u64::from(environment.need.vcpus);
        group.allocated_memory_mib += environment.need.memory_mib;
        if let Some(reported) = report.environments.get(id) {
            group.cpu_used_millis += u64::from(reported.signals.cpu_used_millis);
            group.memory_used_mib += u64::from(reported.signals.memory_used_mib);
        }
    }
    let mut put = |metric: &Metric, value: fn(&Instances) -> f64| {
        let samples: Vec<Sample> =
            groups.iter().map(|(labels, group)| (labels.clone(), value(group))).collect();
        page.metric(metric, &samples);
    };
    put(&metrics::CPU_UTILIZATION, |group| percent(group.cpu_used_millis, group.vcpus * 1_000));
    put(&metrics::MEMORY_UTILIZATION, |group| percent(group.memory_used_mib, group.memory_mib));
    put(&metrics::VCPU_AVAILABLE, |group| number(group.room_vcpus.saturating_sub(group.allocated_vcpus)));
    put(&metrics::MEMORY_AVAILABLE, |group| {
        number(group.room_memory_mib.saturating_sub(group.allocated_memory_mib) * MIB)
    });
    put(&metrics::VCPU_ALLOCATED, |group| number(group.allocated_vcpus));
    put(&metrics::MEMORY_ALLOCATED, |group| number(group.allocated_memory_mib * MIB));
}

fn environments(page: &mut Exposition, pages: &ServerPages, documents: &Documents) {
    let (view, report) = (pages.views.borrow().clone(), pages.reports.borrow().clone());
    let mut groups: BTreeMap<Vec<String>, Environments> = BTreeMap::new();
    let labels = |version: &FunctionVersion| {
        let provider = version.publication.configuration.capacity_provider()?;
        Some(vec![provider.to_owned(), version.function.clone(), version.key().to_string()])
    };
    for version in documents.versions.values() {
        if let Some(labels) = labels(version) {
            let concurrency_limit = version.publication.configuration.concurrency().into();
            groups.insert(labels, Environments { concurrency_limit, ..Environments::default() });
        }
    }
    for (id, environment) in &view.environments {
        let Some(version) = documents.versions.get(&environment.version) else { continue };
        let Some(group) = labels(version).and_then(|labels| groups.get_mut(&labels)) else { continue };
        let reported = report.environments.get(id);
        let Some(reported) = reported.filter(|found| found.state == EnvironmentState::Ready) else {
            continue;
        };
        let configuration = fleet::configuration_of(version, environment);
        let peak = u64::from(reported.signals.in_flight_peak).max(reported.in_flight as u64);
        group.ready += 1;
        group.concurrency = group.concurrency.max(peak);
        group.cpu_used_millis += u64::from(reported.signals.cpu_used_millis);
        group.cpu_millis += configuration.cpu_millis();
        group.memory_used_mib += u64::from(reported.signals.memory_used_mib);
        group.memory_mib += u64::from(configuration.memory_size_mib);
    }
    let mut put = |metric: &Metric, value: fn(&Environments) -> f64| {
        let samples: Vec<Sample> =
            groups.iter().map(|(labels, group)| (labels.clone(), value(group))).collect();
        page.metric(metric, &samples);
    };
    put(&metrics::ENVIRONMENT_CONCURRENCY, |group| number(group.concurrency));
    put(&metrics::ENVIRONMENT_CONCURRENCY_LIMIT, |group| number(group.concurrency_limit));
    put(&metrics::ENVIRONMENT_CPU_UTILIZATION, |group| percent(group.cpu_used_millis, group.cpu_millis));
    put(&metrics::ENVIRONMENT_MEMORY_UTILIZATION, |group| percent(group.memory_used_mib, group.memory_mib));
    put(&metrics::ENVIRONMENT_COUNT, |group| number(group.ready));
}
