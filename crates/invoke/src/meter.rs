//! What becomes of a publication's invocations, counted for the control loop.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ondol_core::gate::ThrottleCause;
use ondol_core::signals::Traffic;

/// Shared by all shards; counting takes no lock.
#[derive(Debug, Default)]
pub struct Meter {
    answered: AtomicU64,
    throttled: [AtomicU64; ThrottleCause::ALL.len()],
}

impl Meter {
    pub fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    pub fn throttled(&self, cause: ThrottleCause) {
        self.throttled[cause as usize].fetch_add(1, Relaxed);
    }

    pub fn read(&self) -> Traffic {
        let throttled = std::array::from_fn(|cause| self.throttled[cause].load(Relaxed));
        Traffic { answered: self.answered.load(Relaxed), throttled }
    }
}
