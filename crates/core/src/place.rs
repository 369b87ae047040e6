//! Where an execution environment goes: which instance has room, which type to launch.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::function::FunctionConfiguration;
use crate::instance_type::InstanceType;

/// What every instance keeps for itself. Source: AWS's sizing calculator.
pub const OVERHEAD_VCPUS: u32 = 1;
pub const OVERHEAD_MEMORY_MIB: u64 = 1024;

/// An instance holds this many environments at least, if its capacity provider allows types that large.
const HOLDS_LEAST: u32 = 3;
/// Many environments are started on this many new instances in a zone, not on more.
const LAUNCHES_AT_ONCE: u32 = 4;
/// Instances that fit best and are looked at for the one with the fewest environments of the same version.
const CANDIDATES: usize = 16;

/// What one execution environment takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    pub vcpus: u32,
    pub memory_mib: u64,
}

impl Need {
    pub fn of(configuration: &FunctionConfiguration) -> Self {
        Self { vcpus: configuration.vcpus(), memory_mib: u64::from(configuration.memory_size_mib) }
    }
}

/// What an empty instance gives to environments; none if it is too small for any.
pub fn room_of(instance_type: &InstanceType) -> Need {
    Need {
        vcpus: instance_type.vcpus.saturating_sub(OVERHEAD_VCPUS),
        memory_mib: instance_type.memory_mib.saturating_sub(OVERHEAD_MEMORY_MIB),
    }
}

/// How many environments of this size an empty instance holds.
pub fn holds(instance_type: &InstanceType, need: Need) -> u32 {
    let room = room_of(instance_type);
    let by_memory = room.memory_mib / need.memory_mib.max(1);
    (room.vcpus / need.vcpus.max(1)).min(u32::try_from(by_memory).unwrap_or(u32::MAX))
}

/// The smallest type that fits well: one of a few that together hold what is `missing`, or else the one that holds most
/// within the vCPUs left. `types` come smallest first.
pub fn choose_type(
    types: &[InstanceType],
    need: Need,
    missing: u32,
    budget_vcpus: u32,
) -> Option<InstanceType> {
    let wanted = missing.div_ceil(LAUNCHES_AT_ONCE).max(HOLDS_LEAST);
    let affordable = || types.iter().filter(|t| t.vcpus <= budget_vcpus);
    let fits = affordable().find(|t| holds(t, need) >= wanted);
    let largest = || {
        let most = affordable().map(|t| holds(t, need)).max().filter(|most| *most > 0)?;
        affordable().find(|t| holds(t, need) == most)
    };
    fits.or_else(largest).copied()
}

/// The instances of one capacity provider that have room, in order of how much: by zone.
#[derive(Debug, Default)]
pub struct Rooms {
    zones: Vec<BTreeSet<(u32, u64, usize)>>,
}

impl Rooms {
    pub fn new(zones: usize) -> Self {
        Self { zones: vec![BTreeSet::new(); zones] }
    }

    /// The room that an instance has left changed.
    pub fn change(&mut self, zone: usize, instance: usize, from: Option<Need>, to: Option<Need>) {
        let Some(zone) = self.zones.get_mut(zone) else { return };
        if let Some(from) = from {
            zone.remove(&(from.vcpus, from.memory_mib, instance));
        }
        if let Some(to) = to {
            zone.insert((to.vcpus, to.memory_mib, instance));
        }
    }

    /// Where an environment fits best in a zone: among the tightest, on the one with the fewest of its version.
    pub fn best(&self, zone: usize, need: Need, of_version: impl Fn(usize) -> u32) -> Option<usize> {
        let tightest_first = self.zones.get(zone)?.range((need.vcpus, 0, 0)..);
        let fitting = tightest_first.filter(|(_, memory, _)| *memory >= need.memory_mib).take(CANDIDATES);
        let mut best: Option<(u32, usize)> = None;
        for (_, _, instance) in fitting {
            let count = of_version(*instance);
            if best.is_none_or(|(fewest, _)| count < fewest) {
                best = Some((count, *instance));
            }
            if count == 0 {
                break;
            }
        }
        best.map(|(_, instance)| instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity_provider::{InstanceRequirements, TypeFilter};
    use crate::coins::Coins;
    use crate::function::Architecture;

    fn types(filter: TypeFilter) -> Vec<InstanceType> {
        InstanceRequirements { architecture: Architecture::X86_64, types: filter }.types()
    }

    #[test]
    fn the_smallest_type_that_fits_well_within_the_budget() {
        let need = Need { vcpus: 1, memory_mib: 2048 };
        let name =
            |filter, missing, budget| choose_type(&types(filter), need, missing, budget).map(|t| t.name);
        assert_eq!(name(TypeFilter::Any, 1, 100), Some("c8a.xlarge"));
        assert_eq!(name(TypeFilter::Any, 1, 2), Some("c8a.large"));
        assert_eq!(name(TypeFilter::Any, 1, 0), None);
        assert_eq!(name(TypeFilter::Allowed(vec!["m7i.*".into()]), 1, 100), Some("m7i.xlarge"));
        let large_only = TypeFilter::Excluded(vec!["*.xlarge".into(), "*.large".into(), "*.medium".into()]);
        assert_eq!(name(large_only, 1, 100), Some("c8a.2xlarge"));
        let seven = TypeFilter::Allowed(vec!["c7i.*".into()]);
        assert_eq!(name(seven.clone(), 40, 100), Some("c7i.4xlarge"), "forty on four instances");
        assert_eq!(name(seven, 40, 10), Some("c7i.2xlarge"), "what the budget allows");
    }

    #[test]
    fn memory_to_vcpu_ratio_decides_the_family() {
        let family = |vcpus, memory_mib| {
            choose_type(&types(TypeFilter::Any), Need { vcpus, memory_mib }, 1, 400).map(|t| t.family())
        };
        assert_eq!(
            (family(2, 4_096), family(2, 8_192), family(2, 16_384)),
            (Some("c8a"), Some("m8a"), Some("r8a"))
        );
    }

    #[test]
    fn the_overhead_is_kept() {
        let large = crate::instance_type::by_name("c7i.large").unwrap();
        assert_eq!(holds(&large, Need { vcpus: 1, memory_mib: 2048 }), 1);
        assert_eq!(holds(&large, Need { vcpus: 1, memory_mib: 3073 }), 0);
        assert_eq!(holds(&large, Need { vcpus: 2, memory_mib: 2048 }), 0);
    }

    #[test]
    fn the_tightest_room_without_one_of_the_version_is_taken() {
        let mut rooms = Rooms::new(2);
        let room = |vcpus| Some(Need { vcpus, memory_mib: 1_000 * u64::from(vcpus) });
        for (instance, vcpus) in [(0, 8), (1, 3), (2, 5), (3, 1)] {
            rooms.change(0, instance, None, room(vcpus));
        }
        let need = Need { vcpus: 2, memory_mib: 2_000 };
        assert_eq!(rooms.best(0, need, |_| 0), Some(1));
        assert_eq!(rooms.best(0, need, |instance| u32::from(instance == 1)), Some(2));
        assert_eq!(rooms.best(0, Need { vcpus: 1, memory_mib: 6_000 }, |_| 0), Some(0));
        assert_eq!(rooms.best(1, need, |_| 0), None);
        rooms.change(0, 1, room(3), None);
        assert_eq!(rooms.best(0, need, |_| 0), Some(2));
    }

    #[test]
    fn the_best_room_is_one_that_a_search_of_all_would_find() {
        for seed in 0..500 {
            let mut coins = Coins::from_seed(seed);
            let mut rooms = Rooms::new(1);
            let all: Vec<Need> = (0..12)
                .map(|_| Need { vcpus: coins.below(9) as u32, memory_mib: coins.below(9) as u64 * 1_024 })
                .collect();
            for (instance, room) in all.iter().enumerate() {
                rooms.change(0, instance, None, Some(*room));
            }
            let need = Need { vcpus: 1 + coins.below(4) as u32, memory_mib: 2_048 };
            let counts: Vec<u32> = all.iter().map(|_| coins.below(2) as u32).collect();
            let fits = |at: &usize| all[*at].vcpus >= need.vcpus && all[*at].memory_mib >= need.memory_mib;
            let expected = (0..all.len())
                .filter(fits)
                .min_by_key(|at| (counts[*at], all[*at].vcpus, all[*at].memory_mib, *at));
            assert_eq!(rooms.best(0, need, |at| counts[at]), expected, "seed {seed}");
        }
    }
}
