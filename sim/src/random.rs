//! Worlds by chance: small fleets under load in which everything breaks that can, for many seeds.

use ondol_core::coins::Coins;

use crate::scenario::{Capacity, Event, Function, Launch, Load, Scenario, Service, Spread, Start, What};
use crate::workload::between;

/// Nothing breaks in the last part, so that everything can be whole again.
const CALM_SECONDS: u64 = 600;
/// After the end, without load: as long as the slowest scale-in and the longest back-off take.
pub const SETTLE_SECONDS: u64 = 5_400;

/// The world of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut coins = Coins::from_seed(seed ^ 0x0D01_0D01);
    let duration_seconds = 1_200 + coins.below(1_800) as u64;
    let functions: Vec<Function> =
        (0..1 + coins.below(3)).map(|number| function(number, &mut coins)).collect();
    let calm_at = (duration_seconds - CALM_SECONDS) as f64;
    let mut events: Vec<Event> = Vec::new();
    for _ in 0..coins.below(9) {
        let at_seconds = between(&mut coins, 1.0, calm_at);
        fault(at_seconds, calm_at, functions.len(), &mut coins, &mut events);
    }
    events.sort_by(|one, other| one.at_seconds.total_cmp(&other.at_seconds));
    let is_tight = coins.chance(0.4);
    Scenario {
        name: format!("random-{seed}"),
        duration_seconds,
        capacity: Capacity {
            availability_zones: 1 + coins.below(3) as u32,
            max_vcpu_count: if is_tight { 4 + coins.below(20) as u32 } else { 400 },
            cpu_target_percent: coins.chance(0.3).then(|| between(&mut coins, 20.0, 90.0)),
            allowed_instance_types: match coins.below(3) {
                0 => vec!["c7i.large".into(), "c7i.xlarge".into()],
                1 => vec!["m8g.*".into(), "m7i.*".into()],
                _ => Vec::new(),
            },
            instance_max_age_seconds: if coins.chance(0.4) {
                3_000 + coins.below(2_000) as u64
            } else {
                1_209_600
            },
            ..Capacity::default()
        },
        launch: Launch { failure_share: if coins.chance(0.3) { 0.3 } else { 0.0 }, ..Launch::default() },
        start: Start { failure_share: if coins.chance(0.2) { 0.1 } else { 0.0 }, ..Start::default() },
        retries: coins.below(3) as u32,
        functions,
        events,
        ..Scenario::default()
    }
}

fn function(number: usize, coins: &mut Coins) -> Function {
    let bounds = match coins.below(4) {
        0 => (Some(2), Some(2)),
        1 => (Some(1), Some(1 + coins.below(12) as u32)),
        2 => (None, Some(3 + coins.below(9) as u32)),
        _ => (None, None),
    };
    let max_concurrency = [1, 2, 8, 32][coins.below(4)];
    let mean_millis = [20.0, 300.0, 4_000.0][coins.below(3)];
    // Slots asked for on average: few enough that a world is small.
    let slots = between(coins, 0.2, 12.0);
    let per_second = (slots * 1_000.0 / mean_millis).min(4.0);
    let load = match coins.below(5) {
        0 => Load::Constant { per_second },
        1 => Load::Step { from_per_second: per_second / 4.0, to_per_second: per_second, at_seconds: 400.0 },
        2 => Load::Ramp {
            from_per_second: per_second / 2.0,
            to_per_second: per_second,
            at_seconds: 200.0,
            over_seconds: 300.0,
        },
        3 => Load::Flash {
            base_per_second: per_second / 8.0,
            peak_per_second: per_second * 2.0,
            at_seconds: 300.0,
            rise_seconds: 10.0,
            hold_seconds: 120.0,
        },
        _ => Load::Calls { count: 5 + coins.below(40) as u32, at_seconds: 100.0 },
    };
    let gib_per_vcpu = [2, 2, 4, 8][coins.below(4)];
    Function {
        name: format!("f{number}"),
        memory_size_mib: 1_024 * gib_per_vcpu * (1 + coins.below(2) as u32),
        memory_gib_per_vcpu: f64::from(gib_per_vcpu),
        max_concurrency,
        min_execution_environments: bounds.0,
        max_execution_environments: bounds.1,
        // Short enough that some time out.
        timeout_seconds: 1 + coins.below(20) as u32,
        load,
        service: Service {
            mean_millis,
            spread: [Spread::Fixed, Spread::Exponential, Spread::LogNormal][coins.below(3)],
            cpu_share: between(coins, 0.0, 1.0),
            even_arrivals: coins.chance(0.2),
        },
        ..Function::default()
    }
}

fn fault(at_seconds: f64, calm_at: f64, functions: usize, coins: &mut Coins, events: &mut Vec<Event>) {
    let function = coins.below(functions);
    let later = between(coins, at_seconds, calm_at);
    let mut add = |at_seconds: f64, what: What| events.push(Event { at_seconds, what });
    match coins.below(13) {
        0 => {
            let zone = coins.below(3) as u32;
            add(at_seconds, What::ZoneLost { zone });
            add(later, What::ZoneBack { zone });
        }
        1 => add(at_seconds, What::InstanceLost),
        2 => add(at_seconds, What::EnvironmentLost { function }),
        3 => add(at_seconds, What::Republish { function }),
        4 => {
            let min = 1 + coins.below(5) as u32;
            let max = coins.chance(0.5).then(|| min + coins.below(6) as u32);
            add(at_seconds, What::ScalingConfig { function, min: Some(min), max });
        }
        5 => {
            add(at_seconds, What::ScalingConfig { function, min: Some(0), max: Some(0) });
            add(later, What::ScalingConfig { function, min: None, max: None });
        }
        6 => add(at_seconds, What::MaxVcpuCount { max_vcpu_count: 4 + coins.below(60) as u32 }),
        7 => add(at_seconds, What::Delete { function }),
        8 => add(at_seconds, What::MemoryLost),
        9 => add(at_seconds, What::ControlPaused { seconds: between(coins, 1.0, 60.0) }),
        10 => {
            add(at_seconds, What::StaleAssignment);
            add(later, What::StaleAssignment);
        }
        11 => {
            add(at_seconds, What::Slower { function, times: between(coins, 2.0, 30.0) });
            add(later, What::Slower { function, times: 1.0 });
        }
        _ => {
            add(at_seconds, What::MemoryUsed { function, percent: 97 });
            add(later, What::MemoryUsed { function, percent: 10 });
        }
    }
}
