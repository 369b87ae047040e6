//! One event for each invocation, counted by function version.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};

use ondol_core::function::VersionKey;
use ondol_core::gate::ThrottleCause;

use crate::clock;

/// Events that may wait to be counted. Beyond that they are dropped, and the drop is counted.
const EVENTS_MAX: usize = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    FunctionError,
    Throttled(ThrottleCause),
}

#[derive(Debug, Clone)]
pub struct UsageEvent {
    pub version: Arc<VersionKey>,
    pub outcome: Outcome,
    pub duration_micros: u64,
}

/// Counts since the server started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub invocations: u64,
    pub errors: u64,
    pub duration_micros: u64,
    pub throttles: BTreeMap<ThrottleCause, u64>,
    /// When the first and the last throttle were counted.
    pub throttled_from_to_epoch_millis: Option<(i64, i64)>,
}

/// The sending side; cheap to clone, never blocks.
#[derive(Debug, Clone)]
pub struct UsageSender {
    events: SyncSender<UsageEvent>,
    dropped: Arc<AtomicU64>,
}

impl UsageSender {
    pub fn record(&self, event: UsageEvent) {
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What was counted so far. Counting happens when someone asks, or when the channel is half full.
#[derive(Debug)]
pub struct UsageBook {
    state: Mutex<(Receiver<UsageEvent>, BTreeMap<VersionKey, Usage>)>,
    dropped: Arc<AtomicU64>,
}

pub fn usage_channel() -> (UsageSender, UsageBook) {
    let (events, received) = sync_channel(EVENTS_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let sender = UsageSender { events, dropped: Arc::clone(&dropped) };
    (sender, UsageBook { state: Mutex::new((received, BTreeMap::new())), dropped })
}

impl UsageBook {
    /// Takes in what has arrived. Called often enough by a housekeeping task that the channel stays short.
    pub fn collect(&self) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (received, usage) = &mut *state;
        while let Ok(event) = received.try_recv() {
            let counts = usage.entry((*event.version).clone()).or_default();
            match event.outcome {
                Outcome::Throttled(cause) => {
                    *counts.throttles.entry(cause).or_default() += 1;
                    let now = clock::epoch_millis();
                    counts.throttled_from_to_epoch_millis.get_or_insert((now, now)).1 = now;
                }
                outcome => {
                    counts.invocations += 1;
                    counts.errors += u64::from(outcome == Outcome::FunctionError);
                    counts.duration_micros += event.duration_micros;
                }
            }
        }
    }

    pub fn read(&self) -> BTreeMap<VersionKey, Usage> {
        self.collect();
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1.clone()
    }

    /// Events that were lost because nobody collected in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
