use super::*;
use crate::coins::Coins;
use crate::gate::ThrottleCause;

const SECOND: u64 = 1_000_000;

/// A version whose environments are there as soon as they are wanted, under a load that a test gives.
struct Version {
    memory: Memory,
    policy: Policy,
    running: u32,
    slots_each: u32,
    seconds: u64,
    traffic: Traffic,
    why: Option<Why>,
}

impl Version {
    fn new(min: u32, slots_each: u32) -> Self {
        let policy =
            Policy { min, max: u32::MAX, cpu_target_hundredths: AUTO_CPU_TARGET_HUNDREDTHS, zones: 3 };
        Self {
            memory: Memory::default(),
            policy,
            running: min,
            slots_each,
            seconds: 1,
            traffic: Traffic::default(),
            why: None,
        }
    }

    /// A second with so many slots asked for on average, each for `millis`, and so much CPU used.
    fn second(&mut self, asked_hundredths: u64, millis: u64, cpu_millis: u64) -> u32 {
        let all = u64::from(self.running) * u64::from(self.slots_each) * 100;
        let held = asked_hundredths.min(all);
        self.traffic.answered += held * 10 / millis.max(1);
        self.traffic.throttled[ThrottleCause::Concurrency as usize] +=
            (asked_hundredths - held) * 10 / millis.max(1);
        self.seconds += 1;
        let load = Load {
            sampled_at: PolicyTime(self.seconds * SECOND),
            ready: self.running,
            slots_each: self.slots_each,
            in_flight_hundredths: held,
            cpu_used_millis: cpu_millis.min(u64::from(self.running) * 1_000),
            cpu_available_millis: u64::from(self.running) * 1_000,
            machine_has_cpu: true,
            running: self.running,
            refusing: 0,
            publication: None,
            traffic: self.traffic,
        };
        let now = PolicyTime(self.seconds * SECOND);
        let (wanted, why) = decide(&load, &mut self.memory, self.policy, false, now);
        self.running = wanted;
        self.why = Some(why);
        wanted
    }

    fn minutes(&mut self, minutes: u64, asked_hundredths: u64) -> u32 {
        (0..minutes * 60).map(|_| self.second(asked_hundredths, 1_000, 0)).last().unwrap_or(self.running)
    }
}

#[test]
fn five_calls_at_one_each_are_3_then_9_then_3() {
    let mut version = Version::new(3, 1);
    let load = Load {
        sampled_at: PolicyTime(SECOND),
        ready: 3,
        slots_each: 1,
        in_flight_hundredths: 40,
        machine_has_cpu: true,
        running: 3,
        traffic: Traffic { answered: 0, throttled: [2, 0, 0, 0] },
        ..Load::default()
    };
    let before = Load { traffic: Traffic::default(), ..load };
    decide(&before, &mut version.memory, version.policy, false, PolicyTime(SECOND));
    let (wanted, why) = decide(&load, &mut version.memory, version.policy, false, PolicyTime(SECOND));
    assert_eq!((wanted, why.for_slots, why.throttled), (9, 8, 2), "{why}");
    version.running = wanted;
    version.traffic = load.traffic;
    // They go on for ten seconds, and then nothing comes any more.
    assert!((0..10).all(|_| version.second(300, 10_000, 0) == 9));
    assert_eq!(version.minutes(14, 0), 9, "not before a quarter of an hour");
    let mut seen = Vec::new();
    for _ in 0..600 {
        seen.push(version.second(0, 1, 0));
    }
    seen.dedup();
    assert_eq!(seen, [9, 6, 3]);
}

#[test]
fn callers_that_ask_again_at_once_are_not_taken_for_many() {
    let mut memory = Memory::default();
    let policy = Policy { min: 3, max: u32::MAX, cpu_target_hundredths: 5_000, zones: 3 };
    let load = Load {
        sampled_at: PolicyTime(SECOND),
        ready: 3,
        running: 3,
        slots_each: 1,
        in_flight_hundredths: 300,
        traffic: Traffic { answered: 0, throttled: [1_000, 0, 0, 0] },
        ..Load::default()
    };
    decide(&Load { traffic: Traffic::default(), ..load }, &mut memory, policy, false, PolicyTime(SECOND));
    assert_eq!(decide(&load, &mut memory, policy, false, PolicyTime(SECOND)).0, 9);
}

#[test]
fn what_is_out_of_memory_or_disk_is_made_up_for() {
    let mut memory = Memory::default();
    let policy = Policy { min: 3, max: u32::MAX, cpu_target_hundredths: 5_000, zones: 3 };
    let mut load =
        Load { sampled_at: PolicyTime(SECOND), running: 3, refusing: 3, slots_each: 16, ..Load::default() };
    let (wanted, why) = decide(&load, &mut memory, policy, false, PolicyTime(SECOND));
    assert_eq!((wanted, why.what), (3, What::Steady), "nobody asks for more");
    load.traffic.throttled = [0, 0, 5, 0];
    let (wanted, why) = decide(&load, &mut memory, policy, false, PolicyTime(SECOND));
    assert_eq!(wanted, 6, "{why}");
}

#[test]
fn the_unused_part_of_the_target_is_the_headroom() {
    for (target, spike_percent) in [(5_000_u32, 200_u64), (7_000, 142)] {
        let mut version = Version::new(3, 16);
        version.policy.cpu_target_hundredths = target;
        for _ in 0..60 {
            version.second(100, 100, 20_000);
        }
        assert!(
            20_000 * spike_percent / 100 <= u64::from(version.running) * 1_000,
            "{target}: {}",
            version.running
        );
    }
    let mut version = Version::new(3, 16);
    version.minutes(1, 40_000);
    assert!(u64::from(version.running) * 16 * 100 >= 80_000, "twice the slots: {}", version.running);
}

#[test]
fn a_doubling_in_five_minutes_never_finds_the_slots_held() {
    let mut version = Version::new(3, 16);
    version.minutes(2, 20_000);
    let before = version.traffic.throttled_total();
    for second in 0..300 {
        version.second(20_000 + 20_000 * second / 300, 1_000, 0);
        assert_eq!(version.traffic.throttled_total(), before, "second {second}");
    }
}

#[test]
fn ten_times_the_load_at_once_is_throttled_and_then_it_is_not() {
    let mut version = Version::new(3, 16);
    version.minutes(2, 2_000);
    let before = version.traffic.throttled_total();
    let seconds = (0..30).take_while(|_| {
        let seen = version.traffic.throttled_total();
        version.second(20_000, 100, 0);
        version.traffic.throttled_total() > seen
    });
    assert!((1..=4).contains(&seconds.count()) && before == 0);
    for _ in 0..20 {
        version.second(20_000, 100, 0);
    }
    let needed = 20_000_u32.div_ceil(1_600) * 2;
    assert!((needed..=needed * 2).contains(&version.running), "{} for {needed}", version.running);
}

#[test]
fn constant_noisy_load_makes_it_settle_once_and_stay() {
    for seed in 0..50 {
        let (mut version, mut coins) = (Version::new(3, 4), Coins::from_seed(seed));
        let mut turns = 0;
        let mut last = version.running;
        for second in 0..7_200 {
            let noise = coins.below(400) as u64;
            let now = version.second(1_800 + noise, 500, 0);
            if second > 1_800 && now != last {
                turns += 1;
            }
            last = now;
        }
        assert!(turns <= 1, "seed {seed}: {turns} changes in an hour and a half of the same load");
    }
}

#[test]
fn whatever_comes_the_bounds_hold_and_nothing_shrinks_in_the_first_quarter_of_an_hour() {
    for seed in 0..10_000 {
        let mut coins = Coins::from_seed(seed);
        let mut version = Version::new(1 + coins.below(6) as u32, 1 + coins.below(32) as u32);
        version.policy.max = version.policy.min + coins.below(40) as u32;
        version.policy.zones = 1 + coins.below(3) as u32;
        let mut most = version.running;
        for _ in 0..40 {
            let asked = coins.below(20_000) as u64;
            let cpu = coins.below(60_000) as u64;
            let now = version.second(asked, 1 + coins.below(5_000) as u64, cpu);
            assert!((version.policy.min..=version.policy.max).contains(&now), "seed {seed}: {now}");
            assert!(now >= most, "seed {seed}: from {most} to {now}");
            most = now;
        }
    }
}

#[test]
fn bounds_hold_and_equal_bounds_are_fixed() {
    let mut version = Version::new(4, 1);
    version.policy.max = 4;
    assert_eq!(version.minutes(1, 5_000), 4);
    assert_eq!(version.why.unwrap().what, What::Max);
    version.policy.max = 5;
    assert_eq!(version.minutes(1, 5_000), 5, "a bound breaks the steps");
    let mut enough = Version::new(4, 1);
    enough.policy.max = 4;
    assert_eq!(enough.minutes(1, 200), 4);
    assert_eq!(
        enough.why.unwrap().what,
        What::Steady,
        "it has what it needs, though that is not one in each zone"
    );
}

#[test]
fn a_machine_without_cpu_is_not_given_more_to_do() {
    let mut memory = Memory::default();
    let policy = Policy { min: 3, max: 100, cpu_target_hundredths: 5_000, zones: 3 };
    let load = Load {
        sampled_at: PolicyTime(SECOND),
        ready: 3,
        running: 3,
        slots_each: 16,
        in_flight_hundredths: 600,
        cpu_used_millis: 2_000,
        cpu_available_millis: 2_000,
        ..Load::default()
    };
    let (wanted, why) = decide(&load, &mut memory, policy, false, PolicyTime(SECOND));
    assert_eq!((wanted, why.what), (3, What::MachineBusy));
    let replacing = Load { ready: 4, running: 4, cpu_available_millis: 2_200, ..load };
    let (wanted, why) = decide(&replacing, &mut memory, policy, false, PolicyTime(SECOND));
    assert_eq!(
        (wanted, why.what),
        (3, What::MachineBusy),
        "one more in the place of another is not one more"
    );
    let idle = Load { machine_has_cpu: true, ..load };
    assert_eq!(decide(&idle, &mut memory, policy, false, PolicyTime(SECOND)).0, 6);
}

#[test]
fn a_changed_config_acts_at_once_down_to_what_the_load_needs() {
    let mut version = Version::new(12, 1);
    version.minutes(1, 200);
    version.policy.min = 1;
    let load = Load {
        ready: 12,
        running: 12,
        slots_each: 1,
        in_flight_hundredths: 200,
        sampled_at: PolicyTime(61 * SECOND),
        ..Load::default()
    };
    let (wanted, why) = decide(&load, &mut version.memory, version.policy, true, PolicyTime(62 * SECOND));
    assert_eq!((wanted, why.what), (6, What::Config), "two slots held want four, in steps of three");
}

#[test]
fn looks_far_apart_keep_it_from_shrinking_no_longer() {
    for seconds in [1, 59, 61, 120, 400, 1_000] {
        let (mut memory, mut now) = (Memory::default(), PolicyTime(SECOND));
        let policy = Policy { min: 3, max: 100, cpu_target_hundredths: 5_000, zones: 3 };
        let mut load = Load { ready: 9, running: 9, slots_each: 1, sampled_at: now, ..Load::default() };
        load.in_flight_hundredths = 450;
        assert_eq!(decide(&load, &mut memory, policy, false, now).0, 9);
        load.in_flight_hundredths = 0;
        let mut looked = 0;
        while decide(&load, &mut memory, policy, false, now).0 == 9 && looked < 10_000 {
            (now, looked) = (now.plus_seconds(seconds), looked + seconds);
            load.sampled_at = now;
        }
        assert!((900..=960 + 2 * seconds).contains(&looked), "{looked} s, looking every {seconds}");
    }
}
