//! Every scenario gives the summary that was reviewed, byte for byte. `ONDOL_WRITE_EXPECTED=1` writes them anew.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use ondol_sim::summary::Timeline;
use ondol_sim::{Summary, scenarios, simulate};

const SEED: u64 = 1;

fn run(name: &str) -> Summary {
    simulate(&scenarios::named(name).unwrap(), SEED, None).unwrap()
}

/// Against what was reviewed: without the timeline, which nobody reads.
fn expect(name: &str) -> Summary {
    let summary = run(name);
    let shown = Summary { timeline: Timeline::default(), ..summary.clone() };
    let text = serde_json::to_string_pretty(&shown).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/expected/{name}.json"));
    if std::env::var_os("ONDOL_WRITE_EXPECTED").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} is not as reviewed: see sim/tests/scenarios.rs");
    summary
}

/// How often the number of environments wanted turned around.
fn reversals(wanted: &[(u64, u32)]) -> usize {
    let ups: Vec<bool> = wanted.windows(2).map(|pair| pair[1].1 > pair[0].1).collect();
    ups.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[test]
fn a_doubling_in_five_minutes_is_served_without_a_throttle() {
    let summary = expect("double-in-five-minutes");
    assert_eq!((summary.throttles.total, summary.failed, summary.timeouts), (0, 0, 0));
}

#[test]
fn half_more_at_once_is_served_without_a_throttle() {
    let summary = expect("half-more-at-once");
    assert_eq!((summary.throttles.total, summary.failed), (0, 0));
}

#[test]
fn ten_times_at_once_is_throttled_and_recovers() {
    let summary = expect("ten-times-at-once");
    assert!(summary.throttles.concurrency > 0);
    assert_eq!(summary.throttles.total, summary.throttles.concurrency);
    let after = usize::try_from(900 / summary.timeline.interval_seconds).unwrap();
    let late: u64 = summary.timeline.throttles[after..].iter().sum();
    assert_eq!(late, 0, "five minutes later nothing is throttled any more");
}

#[test]
fn five_calls_are_3_then_9_then_3() {
    let summary = expect("five-calls");
    let path: Vec<u32> = summary.functions[0].wanted.iter().map(|(_, count)| *count).collect();
    assert_eq!((path[0], path[1], path.last().copied()), (3, 9, Some(3)), "{path:?}");
    assert_eq!((summary.throttles.total, summary.answered), (2, 3));
}

#[test]
fn the_loss_of_a_zone_is_survived() {
    let summary = expect("zone-lost");
    assert!(summary.failed > 0, "what ran there is lost");
    let after = usize::try_from(1_200 / summary.timeline.interval_seconds).unwrap();
    assert_eq!(summary.timeline.throttles[after..].iter().sum::<u64>(), 0);
}

#[test]
fn every_instance_is_replaced_under_load_and_no_request_fails() {
    for name in ["replacement", "replacement-at-the-cap"] {
        let summary = expect(name);
        assert_eq!((summary.throttles.total, summary.failed, summary.timeouts), (0, 0, 0), "{name}");
        assert!(summary.instances.ended >= 3, "{name}: {:?}", summary.instances);
    }
}

#[test]
fn constant_load_is_not_answered_by_going_up_and_down() {
    let summary = expect("constant");
    let wanted = &summary.functions[0].wanted;
    assert!(reversals(wanted) <= 1, "up once, and down once: {wanted:?}");
    let last_change = wanted.last().unwrap().0;
    assert!(last_change < 7_200, "nothing changes in the last four hours: {wanted:?}");
    assert_eq!((summary.throttles.total, summary.failed), (0, 0));
}

#[test]
fn cpu_decides_where_cpu_is_scarce() {
    let summary = expect("cpu-bound");
    // Eight CPUs are used at the end, and half of what there is may be.
    assert!((16..=24).contains(&summary.environments.at_end), "{:?}", summary.environments);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let run = |seed| {
        let summary = simulate(&scenarios::named("five-calls").unwrap(), seed, None).unwrap();
        serde_json::to_string(&summary).unwrap() + &ondol_sim::plot::svg(&summary).unwrap() + &summary.csv()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
