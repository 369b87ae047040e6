use super::*;
use crate::coins::Coins;

fn at(seconds: u64) -> Moment {
    Moment { policy: PolicyTime(seconds * 1_000_000), wall: WallTime(seconds * 1_000_000) }
}

fn event(id: EventId, lane: &str, seconds: u64) -> Event {
    let now = at(seconds).policy;
    Event { id, lane: lane.into(), payload_bytes: 10, since: now, due: now, tries: Tries::default() }
}

struct World {
    queue: EventQueue,
    rules: Rules,
    /// Events as the store has them.
    stored: BTreeMap<EventId, Event>,
}

impl World {
    fn new(events: impl IntoIterator<Item = Event>) -> Self {
        let mut world =
            Self { queue: EventQueue::default(), rules: Rules::default(), stored: BTreeMap::new() };
        events.into_iter().for_each(|event| world.arrive(at(0), event));
        world
    }

    fn arrive(&mut self, now: Moment, event: Event) {
        self.stored.insert(event.id, event.clone());
        self.queue.arrive(now, event);
        self.queue.check();
    }

    fn next(&mut self, now: Moment) -> Option<Step> {
        let step = self.queue.next(now, |_| self.rules);
        self.queue.check();
        step
    }

    fn claim(&mut self, now: Moment) -> Claim {
        match self.next(now) {
            Some(Step::Attempt(claim)) => claim,
            other => panic!("no attempt: {other:?}"),
        }
    }

    /// The attempt ends, and what follows is made last.
    fn end(&mut self, now: Moment, claim: Claim, outcome: Outcome) -> Option<Verdict> {
        let verdict = self.queue.answered(now, claim, outcome, self.rules);
        self.queue.check();
        match verdict {
            Some(Verdict::Again { due, tries }) => {
                let event = Event { due, tries, ..self.stored[&claim.id].clone() };
                self.arrive(now, event);
            }
            Some(Verdict::Done | Verdict::Over(..)) => self.finish(claim.id),
            None => {}
        }
        verdict
    }

    fn tries(&self, id: EventId) -> Tries {
        self.queue.events().find(|(event, _)| event.id == id).unwrap().0.tries
    }

    fn finish(&mut self, id: EventId) {
        self.stored.remove(&id);
        self.queue.finished(id);
        self.queue.check();
    }
}

#[test]
fn a_function_error_is_tried_again_after_one_and_two_minutes() {
    let mut world = World::new([event(1, "f", 0)]);
    for (now, wait) in [(5, 60), (70, 120)] {
        let claim = world.claim(at(now));
        world.end(at(now), claim, Outcome::FunctionError);
        assert_eq!(world.next(at(now + wait - 1)), None);
        assert_eq!(world.queue.next_wakeup().0, Some(at(now + wait).policy));
    }
    let claim = world.claim(at(200));
    let verdict = world.end(at(200), claim, Outcome::FunctionError);
    let tries = Tries { errors: 3, throttles: 0 };
    assert_eq!(verdict, Some(Verdict::Over(Condition::RetriesExhausted, tries)));
    assert!(world.stored.is_empty());
}

#[test]
fn throttles_do_not_count_as_retries_and_come_later_and_later() {
    let mut world = World::new([event(1, "f", 0)]);
    let (mut now, mut waits) = (0, Vec::new());
    for _ in 0..11 {
        let claim = world.claim(at(now));
        let Some(Verdict::Again { due, .. }) = world.end(at(now), claim, Outcome::Throttled) else {
            panic!()
        };
        waits.push(due.seconds_since(at(now).policy));
        now = due.0 / 1_000_000;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    let claim = world.claim(at(now));
    assert_eq!(world.tries(1), Tries { errors: 0, throttles: 11 });
    assert_eq!(world.end(at(now), claim, Outcome::Success), Some(Verdict::Done));
}

#[test]
fn an_event_ends_when_it_is_too_old_and_never_starts_after_that() {
    let mut world = World::new([event(1, "f", 0)]);
    world.rules = Rules { age_seconds: 60, ..Rules::default() };
    for now in [54, 55, 57] {
        let claim = world.claim(at(now));
        world.end(at(now), claim, Outcome::Throttled);
    }
    assert_eq!(world.queue.next_wakeup().0, Some(at(61).policy), "looked at when it becomes too old");
    assert_eq!(world.next(at(60)), None);
    assert_eq!(world.next(at(61)), Some(Step::Expired(1)));
    assert_eq!(world.next(at(62)), None, "what is being settled isn't given out again");
    world.finish(1);
}

#[test]
fn a_retry_that_would_come_too_late_is_not_waited_for() {
    let mut world = World::new([event(1, "f", 0)]);
    world.rules = Rules { age_seconds: 120, ..Rules::default() };
    let claim = world.claim(at(50));
    assert!(matches!(world.end(at(50), claim, Outcome::FunctionError), Some(Verdict::Again { .. })));
    let claim = world.claim(at(110));
    let over = Verdict::Over(Condition::EventAgeExceeded, Tries { errors: 2, throttles: 0 });
    assert_eq!(world.end(at(110), claim, Outcome::FunctionError), Some(over));
}

#[test]
fn nothing_waits_for_a_function_that_lets_nothing_run() {
    let mut world = World::new([event(1, "f", 0)]);
    let claim = world.claim(at(0));
    let why = Condition::ZeroReservedConcurrency;
    let over = Verdict::Over(why, Tries::default());
    assert_eq!(world.end(at(0), claim, Outcome::Refused(why)), Some(over));
}

#[test]
fn lanes_take_turns_however_long_they_are() {
    let long = (0..1_000).map(|id| event(id, "long", 0));
    let mut world = World::new(long.chain([event(5_000, "short", 1), event(5_001, "short", 1)]));
    let first: Vec<EventId> = (0..4).map(|_| world.claim(at(1)).id).collect();
    assert_eq!(first, [0, 5_000, 1, 5_001]);
}

#[test]
fn the_window_follows_what_the_function_takes() {
    // It takes 24 at a time and throttles what is over.
    let mut world = World::new((0..1_000).map(|id| event(id, "f", 0)));
    let (mut throttled, mut answered, mut now) = (0, 0, 0);
    while !world.stored.is_empty() {
        let mut claims = Vec::new();
        while let Some(Step::Attempt(claim)) = world.next(at(now)) {
            claims.push(claim);
        }
        let over: Vec<Claim> = claims.split_off(claims.len().min(24));
        for claim in over {
            throttled += 1;
            world.end(at(now), claim, Outcome::Throttled);
        }
        for claim in claims {
            answered += 1;
            world.end(at(now), claim, Outcome::Success);
        }
        now += 1;
        assert!(now < 2_000, "{answered} answered, {throttled} throttled");
    }
    assert_eq!(answered, 1_000);
    assert!(throttled < 150, "{throttled} attempts for nothing");
    assert!(now < 100, "1,000 events take at least 42 rounds, these took {now}");
}

#[test]
fn a_function_that_takes_nothing_is_asked_less_and_less() {
    let mut world = World::new((0..100).map(|id| event(id, "f", 0)));
    let mut asked = Vec::new();
    for second in 0..2_000 {
        while let Some(Step::Attempt(claim)) = world.next(at(second)) {
            asked.push(second);
            world.end(at(second), claim, Outcome::Throttled);
        }
    }
    assert!(asked.len() < 40, "{asked:?}");
    let claim = loop_until_claim(&mut world, 2_000);
    world.end(at(4_000), claim, Outcome::Success);
    assert!(matches!(world.next(at(4_000)), Some(Step::Attempt(_))), "an answer ends the pause");
}

fn loop_until_claim(world: &mut World, from: u64) -> Claim {
    (from..)
        .find_map(|second| match world.next(at(second)) {
            Some(Step::Attempt(claim)) => Some(claim),
            _ => None,
        })
        .unwrap()
}

#[test]
fn a_lost_attempt_comes_back_and_its_late_answer_is_nobodys() {
    let mut world = World::new([event(1, "f", 0)]);
    let claim = world.claim(at(0));
    assert!(world.queue.renew(at(20), claim));
    assert_eq!(world.next(at(49)), None, "a renewed lease holds");
    assert_eq!(world.queue.next_wakeup().1, Some(at(50).wall));
    assert_eq!(world.next(at(50)), None, "what was lost doesn't come back at once");
    let again = world.claim(at(51));
    assert_eq!((again.id, world.tries(1)), (1, Tries { errors: 0, throttles: 1 }));
    assert!(!world.queue.renew(at(51), claim));
    assert_eq!(world.queue.answered(at(51), claim, Outcome::Success, Rules::default()), None);
    assert_eq!(world.end(at(51), again, Outcome::Success), Some(Verdict::Done));
}

#[test]
fn a_clock_that_stepped_keeps_nothing_waiting_for_long() {
    let mut world = World::new([Event { due: at(1_000_000).policy, ..event(1, "f", 0) }]);
    assert_eq!(world.next(at(299)), None);
    assert_eq!(world.claim(at(300)).id, 1);
}

/// Whatever happens, an event ends once, and never after more errors than its rules allow.
#[test]
fn books_balance_over_random_lives() {
    for seed in 0..60 {
        let mut coins = Coins::from_seed(seed);
        let mut world = World::new([]);
        world.rules = Rules { retries: coins.below(3) as u32, age_seconds: 60 + coins.below(600) as u32 };
        let (mut now, mut arrived, mut running) = (0, 0, Vec::<Claim>::new());
        let (mut done, mut exhausted, mut expired, mut lapsed) = (0, 0, 0, 0);
        while arrived < 100 || !world.stored.is_empty() {
            match coins.below(5) {
                0 if arrived < 100 => {
                    let lane = ["a", "b", "c"][coins.below(3)];
                    world.arrive(at(now), event(arrived, lane, now));
                    arrived += 1;
                }
                1 | 2 => match world.next(at(now)) {
                    Some(Step::Attempt(claim)) => {
                        assert!(
                            now - world.stored[&claim.id].since.0 / 1_000_000
                                <= u64::from(world.rules.age_seconds)
                        );
                        running.push(claim);
                    }
                    Some(Step::Expired(id)) => {
                        expired += 1;
                        world.finish(id);
                    }
                    None => now += 1 + coins.below(40) as u64,
                },
                3 if !running.is_empty() => {
                    let claim = running.swap_remove(coins.below(running.len()));
                    let outcomes =
                        [Outcome::Success, Outcome::FunctionError, Outcome::Throttled, Outcome::Unavailable];
                    match world.end(at(now), claim, outcomes[coins.below(4)]) {
                        Some(Verdict::Done) => done += 1,
                        Some(Verdict::Over(Condition::RetriesExhausted, tries)) => {
                            assert_eq!(tries.errors, world.rules.retries + 1);
                            exhausted += 1;
                        }
                        Some(Verdict::Over(..)) => expired += 1,
                        Some(Verdict::Again { tries, .. }) => assert!(tries.errors <= world.rules.retries),
                        None => lapsed += 1,
                    }
                }
                4 if !running.is_empty() && coins.chance(0.1) => {
                    running.swap_remove(coins.below(running.len()));
                }
                _ => now += coins.below(3) as u64,
            }
        }
        assert_eq!(done + exhausted + expired, arrived, "seed {seed}, {lapsed} lapsed");
    }
}
