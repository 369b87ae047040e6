//! What decisions cost, and how that grows: admission, placement, one scaling decision, and the simulator on top of them.
//! `decisions [--quick]` prints a table.
#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::{Duration, Instant};

use ondol_core::attached::Attached;
use ondol_core::capacity::{
    Environment, EnvironmentState, Instance, InstanceState, Machine, Memory, Picture, Settings, decide,
};
use ondol_core::capacity_provider::{
    CapacityProvider, InstanceRequirements, ProviderLogging, ProviderScaling, ProviderState, ScalingMode,
    TypeFilter,
};
use ondol_core::coins::Coins;
use ondol_core::function::{Architecture, FunctionVersion, LastUpdate, ScalingConfig, VersionState};
use ondol_core::gate::{Event, Gate};
use ondol_core::identity::{EnvironmentId, InstanceId, LATEST_PUBLISHED, PublicationId};
use ondol_core::instance_type::by_name;
use ondol_core::on_demand::Demand;
use ondol_core::place::{Need, Rooms, room_of};
use ondol_core::samples::publication;
use ondol_core::signals::{EnvironmentSignals, MachineSignals};
use ondol_core::time::PolicyTime;
use ondol_sim::scenario::{Capacity, Function, Load, Scenario, Service, Spread};
use ondol_sim::{World, scenarios};

const TYPE: &str = "c7i.4xlarge";

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    println!("{:<64} {:>12} {:>12}", "decisions", "measured", "target");
    let small = admission(64, is_quick);
    let large = admission(10_000, is_quick);
    row("admission and release, 64 environments", &format!("{small:.0} ns"), "1000 ns");
    row("the same with 10,000", &format!("{large:.0} ns ({:.2}×)", large / small), "2×");
    row("placement, p50 of 100,000 instances", &format!("{:.2} µs", placement()), "2 µs");
    let mut before: Option<(usize, Duration)> = None;
    let sizes: &[(usize, usize, usize)] = if is_quick {
        &[(100, 1_000, 10), (1_000, 10_000, 100)]
    } else {
        &[(100, 1_000, 10), (1_000, 10_000, 100), (10_000, 100_000, 100), (100_000, 1_000_000, 100)]
    };
    for &(instances, environments, versions) in sizes {
        let took = scaling(instances, environments, versions);
        let growth = before.map_or(String::new(), |(fewer, earlier)| {
            let n_log_n = |n: usize| n as f64 * (n as f64).ln();
            let part = took.as_secs_f64() / earlier.as_secs_f64() / (n_log_n(environments) / n_log_n(fewer));
            format!(" ({part:.2} of n log n)")
        });
        before = Some((environments, took));
        let name =
            format!("one decision: {instances} instances, {environments} environments, {versions} versions");
        row(
            &name,
            &format!("{:.2} ms{growth}", took.as_secs_f64() * 1e3),
            if instances == 1_000 { "10 ms" } else { "n log n" },
        );
    }
    let (events, took) = simulated(scenarios::named(scenarios::DEFAULT).unwrap_or_default());
    row(
        "simulated events a second",
        &format!("{:.2} million", events as f64 / took.as_secs_f64() / 1e6),
        "1 million",
    );
    let (functions, hours) = if is_quick { (100, 2) } else { (1_000, 24) };
    let (events, took) = simulated(many_functions(functions, hours));
    let name = format!(
        "{hours} simulated hours of {functions} functions, {:.1} million events",
        events as f64 / 1e6
    );
    row(&name, &format!("{:.1} s", took.as_secs_f64()), if is_quick { "" } else { "60 s" });
}

fn row(name: &str, measured: &str, target: &str) {
    println!("{name:<64} {measured:>12} {target:>12}");
}

/// Nanoseconds for one admission and its release, half of the slots being held.
fn admission(environments: u128, is_quick: bool) -> f64 {
    let (mut gate, mut coins) = (Gate::default(), Coins::from_seed(1));
    let publication = PublicationId(1);
    for number in 0..environments {
        let id = EnvironmentId(u128::from(coins.flip()) << 64 | number);
        let zone = ["a", "b", "c"][(number % 3) as usize].into();
        gate.handle(&Event::Ready { environment: id, publication, zone, limit: 16, is_on_demand: false });
    }
    let mut held: Vec<EnvironmentId> =
        (0..environments * 8).filter_map(|_| gate.admit(publication, &[], &mut coins).ok()).collect();
    let rounds = if is_quick { 200_000 } else { 2_000_000 };
    let started = Instant::now();
    for _ in 0..rounds {
        let Ok(admitted) = gate.admit(publication, &[], &mut coins) else { break };
        let place = coins.below(held.len());
        let released = std::mem::replace(&mut held[place], admitted);
        gate.handle(&Event::SlotReleased { environment: black_box(released) });
    }
    started.elapsed().as_nanos() as f64 / f64::from(rounds)
}

/// Microseconds for one placement with its update, at the median.
fn placement() -> f64 {
    let mut coins = Coins::from_seed(2);
    let mut rooms = Rooms::new(3);
    let mut left: Vec<Need> = Vec::new();
    for instance in 0..100_000 {
        let vcpus = coins.below(16) as u32;
        let room = Need { vcpus, memory_mib: u64::from(vcpus) * 2_048 };
        rooms.change(instance % 3, instance, None, Some(room));
        left.push(room);
    }
    let need = Need { vcpus: 1, memory_mib: 2_048 };
    let mut took: Vec<u64> = Vec::new();
    for round in 0..20_000 {
        let started = Instant::now();
        let zone = round % 3;
        if let Some(instance) = rooms.best(zone, need, |_| 0) {
            let before = left[instance];
            let after = Need { vcpus: before.vcpus - 1, memory_mib: before.memory_mib - 2_048 };
            rooms.change(zone, instance, Some(before), Some(after));
            left[instance] = after;
        }
        took.push(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    took.sort_unstable();
    took[took.len() / 2] as f64 / 1_000.0
}

/// The time of one decision about a fleet in which a tenth of the versions needs more.
fn scaling(instances: usize, environments: usize, versions: usize) -> Duration {
    let picture = picture(instances, environments, versions);
    let mut coins = Coins::from_seed(3);
    let (_, memory) = decide(&picture, Memory::default(), PolicyTime(2_000_000), &mut coins);
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let (memory, mut coins) = (memory.clone(), coins.clone());
        let started = Instant::now();
        black_box(decide(&picture, memory, PolicyTime(3_000_000), &mut coins));
        best = best.min(started.elapsed());
    }
    best
}

fn picture(instances: usize, environments: usize, versions: usize) -> Picture {
    let mut coins = Coins::from_seed(4);
    let types = TypeFilter::Any;
    let provider = CapacityProvider {
        name: "cp".into(),
        state: ProviderState::Active,
        subnet_ids: vec!["subnet-1".into(), "subnet-2".into(), "subnet-3".into()],
        security_group_ids: Vec::new(),
        operator_role_arn: String::new(),
        requirements: InstanceRequirements { architecture: Architecture::X86_64, types },
        scaling: ProviderScaling { max_vcpu_count: u32::MAX, mode: ScalingMode::Auto },
        kms_key_arn: None,
        tags: BTreeMap::new(),
        propagate_tags: None,
        logging: ProviderLogging { system_log_level: "INFO".into(), log_group: String::new() },
        last_modified_epoch_millis: 0,
    };
    let version = |number: usize| {
        let publication = publication(number as u128 + 1);
        let found = FunctionVersion {
            function: format!("function-{number:05}"),
            version: LATEST_PUBLISHED.into(),
            serving: Some(publication.clone()),
            publication,
            description: String::new(),
            state: VersionState::Active,
            state_reason: None,
            last_update: LastUpdate::Successful,
            scaling: ScalingConfig::default(),
            applied_scaling: Some(ScalingConfig::default()),
            revision_id: String::new(),
            last_modified_epoch_millis: 0,
            attached: Attached::default(),
            published_from: None,
        };
        (found.key(), found)
    };
    let instances: Vec<Instance> = (0..instances)
        .map(|number| Instance {
            id: InstanceId::from_random(coins.flip(), coins.flip()),
            capacity_provider: "cp".into(),
            instance_type: TYPE.into(),
            availability_zone: format!("us-east-1{}", ["a", "b", "c"][number % 3]),
            subnet_id: String::new(),
            launched_at: PolicyTime(0),
            state: InstanceState::Running,
        })
        .collect();
    let versions: BTreeMap<_, _> = (0..versions).map(version).collect();
    let of: Vec<_> = versions.values().collect();
    let environments = (0..environments).map(|number| {
        let version = of[number % of.len()];
        let busy = number % of.len() < of.len() / 10;
        let environment = Environment {
            version: version.key(),
            publication: version.publication.id,
            instance: instances[number % instances.len()].id.clone(),
            need: Need { vcpus: 1, memory_mib: 2_048 },
            state: EnvironmentState::Ready,
            signals: EnvironmentSignals {
                sampled_at: PolicyTime(1_000_000),
                in_flight_hundredths: if busy { 820 } else { 790 },
                cpu_used_millis: 300,
                cpu_available_millis: 1_000,
                ..EnvironmentSignals::default()
            },
        };
        (EnvironmentId(u128::from(coins.flip()) << 64 | number as u128), environment)
    });
    assert!(
        by_name(TYPE).is_some_and(|found| room_of(&found).vcpus >= 10),
        "ten environments fit an instance"
    );
    Picture {
        region: "us-east-1".into(),
        settings: Settings::default(),
        providers: [("cp".to_owned(), provider)].into(),
        environments: environments.collect(),
        versions,
        functions_deleting: BTreeSet::new(),
        instances: instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect(),
        traffic: BTreeMap::new(),
        demand: Demand::default(),
        on_demand: BTreeMap::new(),
        machine: Machine {
            architecture: Architecture::X86_64,
            any_architecture: false,
            on_demand_memory_mib: 0,
            installed_runtimes: ["python3.13".to_owned()].into(),
            signals: MachineSignals::default(),
        },
    }
}

/// Events of a simulation, and how long it took.
fn simulated(scenario: Scenario) -> (u64, Duration) {
    let mut world = World::new(scenario, 1, None);
    let started = Instant::now();
    world.run();
    (world.handled(), started.elapsed())
}

/// A day as many functions have it: each its own rate, most of them small, all with their nights. Looked at every ten
/// seconds.
fn many_functions(count: usize, hours: u64) -> Scenario {
    let mut coins = Coins::from_seed(5);
    let functions = (0..count).map(|number| {
        // A thousandth to one a second, most of them at the lower end.
        let share = coins.below(1_000) as f64 / 1_000.0;
        let mean_per_second = 0.001 * (share * share * 6.9).exp();
        Function {
            name: format!("f{number:04}"),
            load: Load::Diurnal { mean_per_second, swing: 0.8, period_seconds: 86_400.0 },
            service: Service { spread: Spread::LogNormal, ..Service::default() },
            ..Function::default()
        }
    });
    Scenario {
        duration_seconds: hours * 3_600,
        sample_seconds: 10,
        capacity: Capacity { max_vcpu_count: 15_000, ..Capacity::default() },
        functions: functions.collect(),
        ..Scenario::default()
    }
}
