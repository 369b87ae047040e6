//! How many pollers read a source at once; each has one batch under way, so this is the concurrency of a mapping.
//!
//! Source: AWS's pages on scaling of queues (5 at first, up to 300 more a minute while all are busy, 1,250 at most, less
//! after function errors) and of brokers (a fixed number).

use crate::time::PolicyTime;

const QUEUE_FIRST: f64 = 5.0;
const QUEUE_IDLE: f64 = 2.0;
const QUEUE_MAX: u32 = 1_250;
const MORE_PER_SECOND: f64 = 5.0;
/// Batches that one provisioned poller has under way.
const EACH: u32 = 10;

#[derive(Debug, Clone, PartialEq)]
pub struct Pollers {
    idle: f64,
    most: f64,
    wanted: f64,
    /// Since when all have been busy, or when more were last added for it.
    busy_since: Option<PolicyTime>,
}

impl Pollers {
    pub fn of_queue(maximum_concurrency: Option<u32>) -> Self {
        let most = f64::from(maximum_concurrency.unwrap_or(QUEUE_MAX).clamp(1, QUEUE_MAX));
        Self { idle: QUEUE_IDLE.min(most), most, wanted: QUEUE_FIRST.min(most), busy_since: None }
    }

    /// Pollers that are paid for: so many at least and at most, each with ten batches under way.
    pub fn provisioned(minimum: u32, maximum: u32) -> Self {
        let [idle, most] =
            [minimum, maximum.max(minimum)].map(|pollers| f64::from(pollers.saturating_mul(EACH)));
        Self { idle, most, wanted: idle, busy_since: None }
    }

    pub fn fixed(number: u32) -> Self {
        let number = f64::from(number);
        Self { idle: number, most: number, wanted: number, busy_since: None }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn wanted(&self) -> usize {
        self.wanted as usize
    }

    /// So many have a batch under way now.
    #[allow(clippy::cast_precision_loss)]
    pub fn observe(&mut self, now: PolicyTime, busy: usize) {
        if busy < self.wanted() {
            self.busy_since = None;
            return;
        }
        let since = self.busy_since.replace(now).unwrap_or(now);
        let seconds = now.0.saturating_sub(since.0) as f64 / 1e6;
        self.wanted = (self.wanted + seconds * MORE_PER_SECOND).min(self.most);
    }

    /// One of them found nothing to read.
    pub fn found_nothing(&mut self) {
        self.wanted = (self.wanted - 1.0).max(self.idle.min(self.wanted));
    }

    /// The function failed, or had no capacity.
    pub fn slow_down(&mut self) {
        if self.most > self.idle {
            self.wanted = (self.wanted / 2.0).max(1.0);
            self.busy_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> PolicyTime {
        PolicyTime(seconds * 1_000_000)
    }

    #[test]
    fn a_queue_gets_300_more_a_minute_while_all_are_busy() {
        let mut pollers = Pollers::of_queue(None);
        assert_eq!(pollers.wanted(), 5);
        (0..=60).for_each(|second| pollers.observe(at(second), pollers.wanted()));
        assert_eq!(pollers.wanted(), 305);
        pollers.observe(at(61), 10);
        pollers.observe(at(500), 305);
        assert_eq!(pollers.wanted(), 305, "they were not busy in between");
        (501..=1_000).for_each(|second| pollers.observe(at(second), pollers.wanted()));
        assert_eq!(pollers.wanted(), 1_250);
        (0..2_000).for_each(|_| pollers.found_nothing());
        assert_eq!(pollers.wanted(), 2);
    }

    #[test]
    fn errors_halve_and_maximum_concurrency_holds() {
        let mut pollers = Pollers::of_queue(Some(8));
        (0..=60).for_each(|second| pollers.observe(at(second), pollers.wanted()));
        assert_eq!(pollers.wanted(), 8);
        pollers.slow_down();
        assert_eq!(pollers.wanted(), 4);
        (0..9).for_each(|_| pollers.slow_down());
        assert_eq!(pollers.wanted(), 1);
        pollers.found_nothing();
        assert_eq!(pollers.wanted(), 1, "finding nothing adds none");
        (100..=101).for_each(|second| pollers.observe(at(second), 1));
        assert_eq!(pollers.wanted(), 6);
    }

    #[test]
    fn provisioned_pollers_stay_within_theirs() {
        let mut pollers = Pollers::provisioned(2, 3);
        assert_eq!(pollers.wanted(), 20);
        (0..=60).for_each(|second| pollers.observe(at(second), pollers.wanted()));
        assert_eq!(pollers.wanted(), 30);
        (0..60).for_each(|_| pollers.found_nothing());
        assert_eq!(pollers.wanted(), 20);
    }

    #[test]
    fn a_brokers_number_stays() {
        let mut pollers = Pollers::fixed(5);
        (0..=60).for_each(|second| pollers.observe(at(second), 5));
        pollers.slow_down();
        pollers.found_nothing();
        assert_eq!(pollers.wanted(), 5);
    }
}
