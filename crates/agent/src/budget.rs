//! A bound on bytes: a burst, refilled at a rate. What runs dry stays so until a part has come back, so that a
//! flood is cut into a few large pieces instead of many small ones.

use std::cell::Cell;

use ondol_core::time::WallTime;
use ondol_observe::clock;

#[derive(Debug)]
pub struct Budget {
    burst: u64,
    per_second: u64,
    left: Cell<u64>,
    at: Cell<WallTime>,
    dry: Cell<bool>,
}

impl Budget {
    pub fn new(burst: u64, per_second: u64) -> Self {
        Self {
            burst,
            per_second,
            left: Cell::new(burst),
            at: Cell::new(clock::wall()),
            dry: Cell::new(false),
        }
    }

    fn refill(&self, now: WallTime) {
        let micros = now.0.saturating_sub(self.at.get().0);
        let more = self.per_second.saturating_mul(micros) / 1_000_000;
        if more > 0 {
            self.left.set(self.left.get().saturating_add(more).min(self.burst));
            self.at.set(now);
        }
        if self.dry.get() && self.left.get() >= self.burst / 4 {
            self.dry.set(false);
        }
    }

    pub fn has_room(&self) -> bool {
        self.refill(clock::wall());
        !self.dry.get()
    }

    pub fn is_dry(&self) -> bool {
        self.dry.get()
    }

    /// Takes bytes, though there be fewer left.
    pub fn spend(&self, bytes: u64) {
        let left = self.left.get();
        self.left.set(left.saturating_sub(bytes));
        if bytes >= left {
            self.dry.set(true);
        }
    }
}
