//! How many control-plane requests an account may send: a bucket of tokens for each group of operations.

use std::collections::BTreeMap;

use crate::quotas::Quotas;
use crate::time::WallTime;

/// Unused requests are kept for so long, so that tools that come in bursts are let through.
const BURST_SECONDS: u64 = 60;
const MICROS: u64 = 1_000_000;

/// Operations that share a quota. Source: AWS's page on Lambda quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// All but those below.
    Control,
    GetFunction,
    CapacityProviderWrite,
}

impl Group {
    pub fn of(operation: &str) -> Self {
        match operation {
            "GetFunction" => Self::GetFunction,
            "CreateCapacityProvider" | "UpdateCapacityProvider" | "DeleteCapacityProvider" => {
                Self::CapacityProviderWrite
            }
            _ => Self::Control,
        }
    }

    fn per_second(self, quotas: &Quotas) -> u64 {
        u64::from(match self {
            Self::Control => quotas.control_requests_per_second,
            Self::GetFunction => quotas.get_function_requests_per_second,
            Self::CapacityProviderWrite => quotas.capacity_provider_writes_per_second,
        })
    }
}

/// Millionths of requests left in each bucket, and when that was.
#[derive(Debug, Default)]
pub struct Throttle(BTreeMap<Group, (u64, WallTime)>);

impl Throttle {
    /// Takes one request; false if there is none left.
    pub fn admit(&mut self, now: WallTime, group: Group, quotas: &Quotas) -> bool {
        let per_second = group.per_second(quotas);
        let full = per_second.saturating_mul(BURST_SECONDS * MICROS);
        let (left, at) = self.0.entry(group).or_insert((full, now));
        let refill = now.0.saturating_sub(at.0).saturating_mul(per_second);
        *left = left.saturating_add(refill).min(full);
        *at = now;
        if *left < MICROS {
            return false;
        }
        *left -= MICROS;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_as_many_as_the_quota_says() {
        let quotas = Quotas { capacity_provider_writes_per_second: 1, ..Quotas::default() };
        let mut throttle = Throttle::default();
        let mut ask =
            |seconds: u64| throttle.admit(WallTime(seconds * MICROS), Group::CapacityProviderWrite, &quotas);
        assert_eq!((0..100).filter(|_| ask(5)).count(), 60);
        assert_eq!((0..100).filter(|_| ask(8)).count(), 3);
        assert_eq!((0..100).filter(|_| ask(1_000)).count(), 60, "no more than the burst is kept");
        assert!(throttle.admit(WallTime(0), Group::Control, &quotas), "groups have buckets of their own");
    }

    #[test]
    fn a_quota_of_zero_lets_nothing_through() {
        let quotas = Quotas { control_requests_per_second: 0, ..Quotas::default() };
        assert!(!Throttle::default().admit(WallTime(0), Group::Control, &quotas));
    }
}
