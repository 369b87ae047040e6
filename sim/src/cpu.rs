//! The CPUs of one execution environment, shared evenly by the invocations that need one: each gets a whole CPU while
//! there are enough, and its part of them when not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Work is counted in nanoseconds of one CPU, so that shares come out whole.
const NANOS_PER_MICRO: u64 = 1_000;

#[derive(Debug)]
pub struct SharedCpu {
    vcpus: u64,
    /// Up to when the work is counted, in microseconds.
    at: u64,
    /// What each that is here has been given since the beginning.
    given: u64,
    /// Who needs how much in all, counted like `given`.
    work: BinaryHeap<Reverse<(u64, usize)>>,
    used_micros: u64,
}

impl SharedCpu {
    pub fn new(vcpus: u32) -> Self {
        Self { vcpus: u64::from(vcpus.max(1)), at: 0, given: 0, work: BinaryHeap::new(), used_micros: 0 }
    }

    /// What was used of all CPUs until a moment.
    pub fn used_micros(&mut self, now: u64) -> u64 {
        self.advance(now);
        self.used_micros
    }

    pub fn add(&mut self, now: u64, who: usize, micros: u64) {
        self.advance(now);
        self.work.push(Reverse((self.given + micros * NANOS_PER_MICRO, who)));
    }

    /// Who has had what it needs by now, one at a time.
    pub fn take_done(&mut self, now: u64) -> Option<usize> {
        self.advance(now);
        let Reverse((needs, who)) = *self.work.peek()?;
        // What rounding of shares has lost is less than this.
        (needs <= self.given + NANOS_PER_MICRO).then(|| {
            self.work.pop();
            who
        })
    }

    /// When the next will have had what it needs, if nothing changes.
    pub fn next_done(&self) -> Option<u64> {
        let Reverse((needs, _)) = self.work.peek()?;
        let left = needs.saturating_sub(self.given + NANOS_PER_MICRO);
        let micros = (left * self.sharers()).div_ceil(NANOS_PER_MICRO * self.vcpus);
        Some(self.at + micros)
    }

    /// Those that share the CPUs; no fewer than there are, so that nobody gets more than one.
    fn sharers(&self) -> u64 {
        (self.work.len() as u64).max(self.vcpus)
    }

    fn advance(&mut self, now: u64) {
        let passed = now.saturating_sub(self.at);
        if passed == 0 {
            return;
        }
        self.at = now;
        let busy = (self.work.len() as u64).min(self.vcpus);
        self.used_micros += passed * busy;
        self.given += passed * NANOS_PER_MICRO * self.vcpus / self.sharers();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_has_a_cpu_of_its_own_and_three_share_two() {
        let mut cpu = SharedCpu::new(2);
        cpu.add(0, 1, 1_000);
        assert_eq!(cpu.next_done(), Some(999), "to the microsecond");
        cpu.add(500, 2, 1_000);
        cpu.add(500, 3, 1_000);
        // From here each gets two thirds of a CPU: the first needs 500 more, which take 750.
        assert!((1_248..=1_250).contains(&cpu.next_done().unwrap()));
        assert_eq!(cpu.take_done(1_200), None);
        assert_eq!(cpu.take_done(1_250), Some(1));
        assert!((1_749..=1_751).contains(&cpu.next_done().unwrap()), "500 more each, by two again");
        assert_eq!((cpu.take_done(1_751), cpu.take_done(1_751)), (Some(2), Some(3)));
        assert_eq!(cpu.used_micros(2_000), 500 + 750 * 2 + 501 * 2);
    }
}
