//! Gathering records into a batch: until it is full, too large for more, or its window is over.

use std::collections::VecDeque;

use crate::time::PolicyTime;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    pub records_max: usize,
    pub bytes_max: usize,
    /// From the first record on.
    pub window_millis: u64,
}

/// Seconds that a message is hidden longer than its window and the function's timeout.
const HIDDEN_MORE_SECONDS: u64 = 30;

/// The visibility timeout to ask a queue for, in seconds; none if its own is long enough. What waits for its window and
/// is then worked on must not come back meanwhile. Source: AWS's page on queues as event sources.
pub fn visibility_asked(own_seconds: u64, limits: &BatchLimits, timeout_seconds: u64) -> Option<u64> {
    let busy = limits.window_millis / 1_000 + timeout_seconds;
    (limits.window_millis > 0 && own_seconds < busy).then_some(busy + HIDDEN_MORE_SECONDS)
}

/// Records that wait for their batch, in order, each with its bytes.
#[derive(Debug)]
pub struct Gathering<R> {
    limits: BatchLimits,
    waiting: VecDeque<(R, usize)>,
    bytes: usize,
    /// When the window of what waits began.
    since: Option<PolicyTime>,
}

impl<R> Gathering<R> {
    pub fn new(limits: BatchLimits) -> Self {
        let limits = BatchLimits { records_max: limits.records_max.max(1), ..limits };
        Self { limits, waiting: VecDeque::new(), bytes: 0, since: None }
    }

    /// Gives a record back that is too large for any batch.
    pub fn add(&mut self, now: PolicyTime, record: R, bytes: usize) -> Result<(), R> {
        if bytes > self.limits.bytes_max {
            return Err(record);
        }
        self.since.get_or_insert(now);
        self.bytes += bytes;
        self.waiting.push_back((record, bytes));
        Ok(())
    }

    /// Records that still fit.
    pub fn wants(&self) -> usize {
        self.limits.records_max.saturating_sub(self.waiting.len())
    }

    /// When what waits becomes a batch though it is not full; none if nothing waits.
    pub fn due(&self) -> Option<PolicyTime> {
        self.since.map(|since| PolicyTime(since.0.saturating_add(self.limits.window_millis * 1_000)))
    }

    /// The next batch, if it is full or due.
    pub fn take(&mut self, now: PolicyTime) -> Option<Vec<R>> {
        let is_full = self.wants() == 0 || self.bytes >= self.limits.bytes_max;
        if !is_full && self.due().is_none_or(|due| now < due) {
            return None;
        }
        let mut batch = Vec::new();
        let mut room = self.limits.bytes_max;
        while batch.len() < self.limits.records_max
            && let Some((record, bytes)) = self.waiting.pop_front_if(|(_, bytes)| *bytes <= room)
        {
            room -= bytes;
            self.bytes -= bytes;
            batch.push(record);
        }
        // What is left over waits for a window of its own.
        self.since = (!self.waiting.is_empty()).then_some(now);
        Some(batch)
    }

    /// All that waits.
    pub fn clear(&mut self) -> impl Iterator<Item = R> + '_ {
        (self.bytes, self.since) = (0, None);
        self.waiting.drain(..).map(|(record, _)| record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits = BatchLimits { records_max: 3, bytes_max: 100, window_millis: 500 };

    fn at(millis: u64) -> PolicyTime {
        PolicyTime(millis * 1_000)
    }

    #[test]
    fn a_batch_is_full_or_its_window_over() {
        let mut gathering = Gathering::new(LIMITS);
        assert_eq!((gathering.take(at(0)), gathering.due(), gathering.wants()), (None, None, 3));
        gathering.add(at(0), 'a', 1).unwrap();
        gathering.add(at(300), 'b', 1).unwrap();
        assert_eq!((gathering.take(at(499)), gathering.due()), (None, Some(at(500))));
        assert_eq!(gathering.take(at(500)), Some(vec!['a', 'b']));
        assert_eq!((gathering.take(at(9_000)), gathering.due()), (None, None));
        "cdef".chars().for_each(|record| gathering.add(at(10_000), record, 1).unwrap());
        assert_eq!(gathering.take(at(10_000)), Some(vec!['c', 'd', 'e']));
        // The fourth has a window of its own.
        assert_eq!((gathering.take(at(10_499)), gathering.due()), (None, Some(at(10_500))));
        assert_eq!(gathering.clear().collect::<Vec<_>>(), ['f']);
    }

    #[test]
    fn no_batch_is_larger_than_a_payload() {
        let mut gathering = Gathering::new(LIMITS);
        assert_eq!(gathering.add(at(0), 'x', 101), Err('x'));
        gathering.add(at(0), 'a', 60).unwrap();
        assert_eq!(gathering.take(at(0)), None);
        gathering.add(at(0), 'b', 60).unwrap();
        assert_eq!(gathering.take(at(0)), Some(vec!['a']));
        assert_eq!(gathering.take(at(500)), Some(vec!['b']));
    }

    #[test]
    fn a_window_longer_than_visibility_asks_for_more() {
        let asked = |window_seconds: u64, own| {
            visibility_asked(own, &BatchLimits { window_millis: window_seconds * 1_000, ..LIMITS }, 10)
        };
        assert_eq!((asked(0, 5), asked(20, 30), asked(20, 29)), (None, None, Some(60)));
    }

    #[test]
    fn without_a_window_nothing_waits() {
        let mut gathering = Gathering::new(BatchLimits { window_millis: 0, ..LIMITS });
        gathering.add(at(0), 'a', 1).unwrap();
        assert_eq!(gathering.take(at(0)), Some(vec!['a']));
    }
}
