//! How many execution environments a version wants: enough that its load keeps within the target.
//!
//! Two signals, and the larger counts: CPU used against what could be had, and slots held against slots there are. The
//! unused part of the target is the headroom: at 50 % twice the load fits at once, at 70 % 43 % more.
//! Out at once: what averages over a few seconds say, or the last second alone when most slots are taken. In slowly:
//! only to what the last quarter of an hour never needed more than, and a part of it each minute, so that constant
//! load is never answered by going up and down.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::capacity_provider::{CPU_METRIC, ProviderScaling, ScalingMode};
use crate::gate::ThrottleCause;
use crate::identity::PublicationId;
use crate::signals::Traffic;
use crate::time::PolicyTime;

/// The CPU target of `ScalingMode: Auto`, in hundredths of a percent. AWS publishes none; its words are "50 % headroom".
pub const AUTO_CPU_TARGET_HUNDREDTHS: u32 = 5_000;
/// The target for slots, in every mode: `TargetValue` speaks of CPU only.
pub const CONCURRENCY_TARGET_HUNDREDTHS: u32 = 5_000;
/// Above this part of the slots the last interval alone counts.
const URGENT_HUNDREDTHS: u64 = 7_500;
/// How long an average reaches back.
const AVERAGE_MICROS: u64 = 5_000_000;
/// What the load needed counts for so long before fewer environments do.
pub const SCALE_IN_AFTER_SECONDS: u64 = 900;
/// Then so much of them goes at most, each time.
const SCALE_IN_PERCENT: u32 = 10;
pub const SCALE_IN_EVERY_SECONDS: u64 = 60;
/// The needs of the past are kept by the minute.
const BUCKET_SECONDS: u64 = 60;

/// The bounds of a version and the target of its capacity provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub min: u32,
    pub max: u32,
    /// Hundredths of a percent.
    pub cpu_target_hundredths: u32,
    /// Availability zones; environments come and go in steps of as many.
    pub zones: u32,
}

impl Policy {
    pub fn cpu_target(scaling: &ProviderScaling) -> u32 {
        match &scaling.mode {
            ScalingMode::Auto => AUTO_CPU_TARGET_HUNDREDTHS,
            ScalingMode::Manual { policies } => policies
                .iter()
                .find(|policy| policy.metric == CPU_METRIC)
                // A target of 0 would ask for infinitely many.
                .map_or(AUTO_CPU_TARGET_HUNDREDTHS, |policy| policy.target_hundredths.max(100)),
        }
    }
}

/// What a version's environments and its traffic say, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// When the newest sample in it was taken.
    pub sampled_at: PolicyTime,
    /// Environments that take invocations, and slots of each.
    pub ready: u32,
    pub slots_each: u32,
    /// Slots held on average over the interval, in hundredths.
    pub in_flight_hundredths: u64,
    pub cpu_used_millis: u64,
    pub cpu_available_millis: u64,
    /// The machine itself has CPU left: more environments would get some.
    pub machine_has_cpu: bool,
    /// Environments that are ready or starting.
    pub running: u32,
    /// Of them, those that are out of memory or disk and take nothing; they are not among the ready ones.
    pub refusing: u32,
    /// Whose traffic it is.
    pub publication: Option<PublicationId>,
    pub traffic: Traffic,
}

/// What is remembered of a version between two decisions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// How many it is to have; 0 before the first decision.
    pub wanted: u32,
    /// Averages, in hundredths of a slot and thousandths of a CPU.
    in_flight_hundredths: u64,
    cpu_used_millis: u64,
    sampled_at: PolicyTime,
    /// What had been counted, and of whom; none before the first look.
    traffic: Option<(Option<PublicationId>, Traffic)>,
    /// What was needed at most, by the minute, oldest first.
    needs: VecDeque<(PolicyTime, u32)>,
    scaled_in_at: PolicyTime,
}

/// Why a version has as many as it has: what was seen, and what that asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    pub what: What,
    /// What the load of this moment needs, in environments: by slots, by CPU.
    pub for_slots: u32,
    pub for_cpu: u32,
    /// Parts of what there is, in hundredths of a percent.
    pub slots_used_hundredths: u32,
    pub cpu_used_hundredths: u32,
    pub cpu_target_hundredths: u32,
    /// Invocations that found no slot since the decision before.
    pub throttled: u32,
    /// Environments that are out of memory or disk and take nothing.
    pub refusing: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// As many as before.
    Steady,
    /// Its load needs more.
    Out { by_cpu: bool },
    /// Its load has needed fewer for long enough.
    In,
    /// Its load needs fewer, and not for long enough yet.
    Waiting,
    /// The scaling config was changed.
    Config,
    /// Its load needs more than `MaxExecutionEnvironments`.
    Max,
    /// CPU asks for more, and the machine has none left.
    MachineBusy,
}

/// How many environments a version is to have now, and why.
pub fn decide(
    load: &Load,
    memory: &mut Memory,
    policy: Policy,
    config_changed: bool,
    now: PolicyTime,
) -> (u32, Why) {
    let since = memory.take_in(load);
    let for_slots = memory.for_slots(load, &since);
    let before = if memory.wanted == 0 { load.running } else { memory.wanted };
    let before = before.clamp(policy.min, policy.max);
    let (for_cpu, machine_busy) = memory.for_cpu(load, policy, before);
    let need = for_slots.max(for_cpu) + load.refusing;
    memory.note(now, need);
    let bounded = |wanted: u32| balanced(wanted, policy).clamp(policy.min, policy.max);
    let lasting = memory.needs.iter().map(|(_, need)| *need).max().unwrap_or(0).max(need);
    let (wanted, what) = if config_changed {
        // What was asked for in so many words is done at once, as far as the load lets it.
        (bounded(lasting), What::Config)
    } else if bounded(need) > before {
        memory.scaled_in_at = now;
        (bounded(need), What::Out { by_cpu: for_cpu > for_slots })
    } else if bounded(lasting) < before {
        if now.seconds_since(memory.scaled_in_at) >= SCALE_IN_EVERY_SECONDS && memory.is_old_enough(now) {
            memory.scaled_in_at = now;
            let step = (before * SCALE_IN_PERCENT / 100).max(policy.zones).max(1);
            (bounded(lasting.max(before.saturating_sub(step))), What::In)
        } else {
            (before, What::Waiting)
        }
    } else if need > policy.max {
        (policy.max, What::Max)
    } else {
        (before, if machine_busy { What::MachineBusy } else { What::Steady })
    };
    let wanted = wanted.clamp(policy.min, policy.max);
    memory.wanted = wanted;
    let part = |used: u64, of: u64| u32::try_from(used * 10_000 / of.max(1)).unwrap_or(u32::MAX);
    let slots_hundredths = u64::from(load.ready) * u64::from(load.slots_each) * 100;
    let why = Why {
        what,
        for_slots,
        for_cpu,
        slots_used_hundredths: part(
            memory.in_flight_hundredths.max(load.in_flight_hundredths),
            slots_hundredths,
        ),
        cpu_used_hundredths: part(memory.cpu_used_millis, load.cpu_available_millis),
        cpu_target_hundredths: policy.cpu_target_hundredths,
        throttled: u32::try_from(since.throttled_total()).unwrap_or(u32::MAX),
        refusing: load.refusing,
    };
    (wanted, why)
}

/// In steps of one in each zone, so that none has more to carry than the others.
fn balanced(wanted: u32, policy: Policy) -> u32 {
    if wanted <= policy.min {
        return policy.min;
    }
    wanted.next_multiple_of(policy.zones.max(1))
}

impl Memory {
    /// Takes a new sample into the averages; gives the traffic since the last decision.
    fn take_in(&mut self, load: &Load) -> Traffic {
        let passed = load.sampled_at.0.saturating_sub(self.sampled_at.0);
        if self.sampled_at.0 == 0 {
            (self.in_flight_hundredths, self.cpu_used_millis) =
                (load.in_flight_hundredths, load.cpu_used_millis);
        } else if passed > 0 {
            let toward = |average: u64, new: u64| {
                (average * AVERAGE_MICROS + new * passed) / (AVERAGE_MICROS + passed)
            };
            self.in_flight_hundredths = toward(self.in_flight_hundredths, load.in_flight_hundredths);
            self.cpu_used_millis = toward(self.cpu_used_millis, load.cpu_used_millis);
        }
        self.sampled_at = self.sampled_at.max(load.sampled_at);
        // What was counted before anybody looked is not news: a planner that has forgotten would take all of it for that.
        let before = self.traffic.replace((load.publication, load.traffic));
        let before =
            before.filter(|(of, _)| *of == load.publication).map_or(load.traffic, |(_, before)| before);
        let more = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Traffic {
            answered: more(load.traffic.answered, before.answered),
            throttled: std::array::from_fn(|cause| {
                more(load.traffic.throttled[cause], before.throttled[cause])
            }),
        }
    }

    /// Environments that keep the slots held within the target, and beside them the slots of those that found none.
    fn for_slots(&self, load: &Load, since: &Traffic) -> u32 {
        let all = u64::from(load.ready) * u64::from(load.slots_each) * 100;
        let is_urgent = load.in_flight_hundredths * 10_000 >= all * URGENT_HUNDREDTHS;
        let held = if since.of(ThrottleCause::Concurrency) > 0 {
            // Who finds no slot finds all of them held, whatever the average says.
            all
        } else if is_urgent {
            load.in_flight_hundredths.max(self.in_flight_hundredths)
        } else {
            self.in_flight_hundredths
        };
        // Each of those would have held a slot for as long as the others did; if none of these ended, for all the time.
        // They are counted as no more than those: whoever asks again at once is many throttles and one caller.
        let throttled = since.throttled_total();
        let unserved = (throttled * held).checked_div(since.answered).unwrap_or(u64::MAX);
        let each = u64::from(load.slots_each.max(1)) * 100;
        let unserved = unserved.min(throttled * 100).min(held.max(each));
        let served = (held * 10_000).div_ceil(each * u64::from(CONCURRENCY_TARGET_HUNDREDTHS));
        u32::try_from(served + unserved.div_ceil(each)).unwrap_or(u32::MAX)
    }

    /// Environments that keep CPU within the target; and whether more would be asked for if the machine had any. It is
    /// `before` that are to be had then: while some are being replaced there are more than that.
    fn for_cpu(&self, load: &Load, policy: Policy, before: u32) -> (u32, bool) {
        if load.ready == 0 || load.cpu_available_millis == 0 {
            return (0, false);
        }
        let used = self.cpu_used_millis * 10_000 * u64::from(load.ready);
        let target = load.cpu_available_millis * u64::from(policy.cpu_target_hundredths);
        let needed = u32::try_from(used.div_ceil(target.max(1))).unwrap_or(u32::MAX);
        if needed > load.ready && !load.machine_has_cpu {
            return (before.min(load.ready), true);
        }
        (needed, false)
    }

    fn note(&mut self, now: PolicyTime, need: u32) {
        match self.needs.back_mut() {
            Some((since, most)) if now.seconds_since(*since) < BUCKET_SECONDS => *most = need.max(*most),
            _ => self.needs.push_back((now, need)),
        }
        // One that is old enough stays, so that the whole of the time is covered however seldom somebody looks.
        let old = |since: PolicyTime| now.seconds_since(since) >= SCALE_IN_AFTER_SECONDS;
        while self.needs.get(1).is_some_and(|(since, _)| old(*since)) {
            self.needs.pop_front();
        }
    }

    /// It has been watched for as long as it takes to know what it needs.
    fn is_old_enough(&self, now: PolicyTime) -> bool {
        self.needs.front().is_some_and(|(since, _)| now.seconds_since(*since) >= SCALE_IN_AFTER_SECONDS)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
        let (slots, cpu) = (percent(self.slots_used_hundredths), percent(self.cpu_used_hundredths));
        write!(
            f,
            "{slots:.0} % of its slots are held (target 50 %), {cpu:.0} % of its CPU used (target {:.0} %)",
            percent(self.cpu_target_hundredths)
        )?;
        if self.throttled > 0 {
            write!(f, ", {} invocations found no slot", self.throttled)?;
        }
        write!(f, ": that needs {} by slots and {} by CPU", self.for_slots, self.for_cpu)?;
        if self.refusing > 0 {
            write!(f, ", beside {} out of memory or disk", self.refusing)?;
        }
        f.write_str(match self.what {
            What::Steady => "",
            What::Out { .. } => "; more are started at once",
            What::In => "; it has needed fewer for 15 minutes",
            What::Waiting => "; fewer only after 15 minutes of less, and a part of them each minute",
            What::Config => "; the scaling config was changed",
            What::Max => "; MaxExecutionEnvironments allows no more",
            What::MachineBusy => "; the machine has no CPU left, so that more of them would not help",
        })
    }
}

#[cfg(test)]
mod tests;
