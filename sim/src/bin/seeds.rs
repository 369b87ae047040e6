//! Runs worlds by chance with every invariant held after every event: `seeds FIRST COUNT [--tell]`. Prints the first seed
//! that breaks one, and with which word; the same seed breaks it again.
#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use ondol_core::capacity::Plan;
use ondol_sim::{World, random};

fn tell(now: u64, plan: &Plan) {
    for (step, why) in &plan.steps {
        println!("{:>12.3} {step:?}: {why}", now as f64 / 1e6);
    }
    for (version, reason) in &plan.unmet {
        println!("{:>12.3} unmet {version}: {}", now as f64 / 1e6, reason.text);
    }
}

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.next()) else {
        eprintln!("usage: seeds FIRST COUNT [--tell]");
        return ExitCode::from(2);
    };
    let is_told = std::env::args().any(|argument| argument == "--tell");
    let (mut events, mut seconds) = (0, 0);
    for seed in first..first + count {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let scenario = random::scenario(seed);
            let length = scenario.duration_seconds;
            if is_told {
                println!("{scenario:#?}");
            }
            let mut world = World::new(scenario, seed, None).checked();
            world.on_plan = is_told.then_some(tell);
            world.run();
            world.calm_down();
            world.settle(random::SETTLE_SECONDS);
            world.check_settled();
            (world.handled(), length)
        }));
        match ran {
            Ok((handled, length)) => {
                events += handled;
                seconds += length;
            }
            Err(_) => {
                println!("seed {seed} breaks an invariant, after {} seeds", seed - first);
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{count} seeds, {events} events, {} simulated hours under faults: every invariant held",
        seconds / 3_600
    );
    ExitCode::SUCCESS
}
