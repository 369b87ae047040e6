//! A little world, recorded and replayed.

use super::super::tests::World;
use super::super::*;
use super::*;
use crate::function::ScalingConfig;

const SECRET: &str = "hunter2";

/// What was recorded of a few hundred random changes, a line each; keyframes every so many.
fn recorded(seed: u64, turns: usize, keyframe_every_lines: u64) -> Vec<String> {
    let mut world = World::new(400);
    let (mut dice, mut coins) = (Coins::from_seed(seed), Coins::from_seed(seed + 1));
    let mut recorder = Recorder::new(keyframe_every_lines);
    let mut lines = Vec::new();
    let mut memory = Memory::default();
    for turn in 0..turns {
        shake(&mut world, &mut dice, turn);
        let decided = recorder.decide(&world.picture, memory, world.now, &mut coins);
        memory = decided.memory;
        world.carry_out(&decided.plan, |_| EnvironmentState::Starting);
        lines.extend(decided.line.map(|line| line.to_json().unwrap()));
    }
    lines
}

/// Something happens.
fn shake(world: &mut World, dice: &mut Coins, turn: usize) {
    world.now = world.now.plus_seconds(dice.below(40) as u64);
    let picture = &mut world.picture;
    let nth = |dice: &mut Coins, picture: &Picture| {
        let at = dice.below(picture.environments.len());
        picture.environments.keys().nth(at).copied()
    };
    match dice.below(12) {
        0 => {
            let key = world.publish(["a", "b", "c", "d"][dice.below(4)], turn as u128 + 1);
            let version = world.picture.versions.get_mut(&key).unwrap();
            let variables = BTreeMap::from([("PASSWORD".to_owned(), SECRET.to_owned())]);
            version.publication.configuration.environment = Some(variables);
        }
        1 | 2 => {
            if let Some(id) = nth(dice, picture) {
                let reason = Reason {
                    answer: Some(SECRET.into()),
                    ..Reason::new("FunctionError.RuntimeInitError", format!("Error: {SECRET}"))
                };
                let settled = dice.below(2) == 0;
                picture.environments.get_mut(&id).unwrap().state =
                    EnvironmentState::Ended { reason, settled };
            }
        }
        3 => {
            for version in picture.versions.values_mut() {
                let min = dice.below(5) as u32;
                version.set_scaling(ScalingConfig { min: Some(min), max: Some(min * 3) });
            }
        }
        4 => {
            if let Some(version) = picture.versions.values_mut().next().filter(|_| dice.below(4) == 0) {
                version.state = VersionState::Deleting;
            }
        }
        5 => {
            let at = dice.below(picture.instances.len());
            if let Some(instance) = picture.instances.values_mut().nth(at) {
                let reason = Reason::new("InsufficientCapacity", "no room");
                instance.state = [InstanceState::Lost(reason.clone()), InstanceState::LaunchFailed(reason)]
                    [dice.below(2)]
                .clone();
            }
        }
        6 => {
            picture.demand.waiting.insert(PublicationId(1_000), dice.below(3));
        }
        _ => {
            for environment in picture.environments.values_mut() {
                if environment.state == EnvironmentState::Starting {
                    environment.state = EnvironmentState::Ready;
                }
                environment.signals = EnvironmentSignals {
                    sampled_at: world.now,
                    in_flight_hundredths: dice.below(1_600) as u32,
                    cpu_used_millis: dice.below(1_000) as u32,
                    cpu_available_millis: 1_000,
                    ..EnvironmentSignals::default()
                };
            }
            picture.machine.signals.cpu_idle_millis = dice.below(4_000) as u32;
        }
    }
}

fn replayed(lines: &[String]) -> (Replay, Vec<Result<Replayed, ReplayError>>) {
    let mut replay = Replay::new();
    let done = lines.iter().map(|line| replay.line(line)).collect();
    (replay, done)
}

#[test]
fn a_few_hundred_random_changes_are_replayed_byte_for_byte() {
    for seed in 0..5 {
        let lines = recorded(seed, 400, 100);
        let (replay, done) = replayed(&lines);
        let summary = replay.summary();
        assert!(done.iter().all(Result::is_ok), "seed {seed}: {summary}");
        assert_eq!(summary.first_difference, None, "seed {seed}");
        assert_eq!(summary.decisions, lines.len() as u64, "seed {seed}");
        assert!(lines.len() > 300 && summary.keyframes > 3, "seed {seed}: {summary}");
        let deltas = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
        assert!(deltas("LaunchInstance") > 3 && deltas("DrainEnvironment") > 3, "seed {seed}: much happened");
    }
}

#[test]
fn secrets_are_not_recorded_and_plans_are_the_same_without_them() {
    let lines = recorded(7, 400, 50);
    assert!(lines.iter().any(|line| line.contains("PASSWORD") && line.contains(REDACTED)));
    assert!(lines.iter().any(|line| line.contains("FunctionError.RuntimeInitError")));
    assert!(!lines.iter().any(|line| line.contains(SECRET)), "no value, and no word of the function's own");
    let (replay, _) = replayed(&lines);
    assert_eq!((replay.summary().differences, replay.summary().decisions), (0, lines.len() as u64));
}

#[test]
fn a_tampered_plan_is_found() {
    let mut lines = recorded(1, 100, 1_000);
    let place = lines.iter().position(|line| line.contains("DrainEnvironment")).unwrap();
    lines[place] = lines[place].replacen("DrainEnvironment", "ForgetEnvironment", 1);
    let (replay, done) = replayed(&lines);
    assert_eq!(done[place], Ok(Replayed::Differs));
    let found = replay.summary().first_difference.clone().unwrap();
    assert_eq!((found.line, found.sequence), (place as u64 + 1, place as u64 + 1));
    assert!(found.recorded.contains("ForgetEnvironment") && found.replayed.contains("DrainEnvironment"));
    assert_eq!(replay.summary().differences, 1, "those after it are made from the picture, and are the same");
}

#[test]
fn a_last_line_that_is_cut_off_is_tolerated_and_said() {
    let mut lines = recorded(2, 50, 20);
    let last = lines.last_mut().unwrap();
    last.truncate(last.len() / 2);
    let (replay, done) = replayed(&lines);
    assert_eq!(done.last(), Some(&Ok(Replayed::CutOff)));
    assert_eq!(replay.summary().decisions, lines.len() as u64 - 1);
    assert!(replay.summary().to_string().contains(&format!("line {} is cut off", lines.len())));
}

#[test]
fn a_line_that_is_cut_off_in_the_middle_is_an_error_unless_a_keyframe_follows() {
    let mut lines = recorded(2, 50, 20);
    lines[9].truncate(40);
    let (_, done) = replayed(&lines);
    assert!(matches!(done[10], Err(ReplayError::Malformed { line: 10, column: 40, .. })), "{:?}", done[10]);
    assert_eq!((done[11].clone(), done[20].clone()), (Ok(Replayed::Skipped), Ok(Replayed::Same)));
    let mut lines = recorded(2, 50, 20);
    lines[19].truncate(40);
    let (replay, done) = replayed(&lines);
    assert!(done.iter().all(Result::is_ok), "a crash, and a new start");
    assert_eq!(replay.summary().cut_off, Some(20));
}

#[test]
fn what_is_no_journal_is_refused_with_its_place() {
    let mut replay = Replay::new();
    let wrong = replay.line("{\"delta\":{\"sequence\":\"one\"}}").unwrap_err();
    assert!(matches!(wrong, ReplayError::Malformed { line: 1, column: 26, .. }), "{wrong:?}");
    assert!(replay.line("{}").is_err());
    let newer = recorded(3, 5, 20)[0].replacen("\"format\":1", "\"format\":7,\"new\":[]", 1);
    assert_eq!(replay.line(&newer), Err(ReplayError::UnknownFormat { line: 3, found: 7 }));
}

#[test]
fn lines_that_are_missing_are_an_error_except_before_a_keyframe() {
    let mut lines = recorded(4, 60, 20);
    lines.remove(5);
    let (replay, done) = replayed(&lines);
    assert_eq!(done[5], Err(ReplayError::Gap { line: 6, expected: 6, found: 7 }));
    assert_eq!(replay.summary().skipped, 13, "up to the next keyframe");
    let mut lines = recorded(4, 60, 20);
    lines.drain(18..20);
    let (replay, done) = replayed(&lines);
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(replay.summary().missing, 2);
    let (replay, _) = replayed(&recorded(4, 60, 20)[13..]);
    assert_eq!((replay.summary().skipped, replay.summary().differences), (7, 0));
}

#[test]
fn a_memory_that_was_reset_makes_a_keyframe_and_an_idle_decision_no_line() {
    let mut world = World::new(400);
    let (mut recorder, mut coins) = (Recorder::default(), Coins::from_seed(1));
    world.publish("a", 1);
    let mut lines = Vec::new();
    let mut memory = Memory::default();
    for turn in 0..12 {
        if turn == 8 {
            memory = Memory::default();
        }
        let decided = recorder.decide(&world.picture, memory, world.now, &mut coins);
        world.carry_out(&decided.plan, |_| EnvironmentState::Ready);
        memory = decided.memory;
        lines.extend(decided.line);
    }
    let keyframes: Vec<usize> =
        (0..).zip(&lines).filter(|(_, l)| l.is_keyframe()).map(|(at, _)| at).collect();
    assert_eq!(keyframes, [0, 8]);
    let texts: Vec<String> = lines.iter().map(|line| line.to_json().unwrap()).collect();
    assert_eq!(replayed(&texts).0.summary().differences, 0);
    let mut idle = World::new(400);
    idle.picture.providers.clear();
    let mut recorder = Recorder::default();
    for place in 0..3 {
        let decided = recorder.decide(&idle.picture, Memory::default(), PolicyTime(place), &mut coins);
        assert_eq!(decided.line.is_some(), place == 0);
    }
}
