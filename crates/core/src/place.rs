//! Where an execution environment goes: which instance has room, which type to launch.

use crate::instance_type::InstanceType;

/// What every instance keeps for itself. Source: AWS's sizing calculator.
pub const OVERHEAD_VCPUS: u32 = 1;
pub const OVERHEAD_MEMORY_MIB: u64 = 1024;

/// What one execution environment takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    pub vcpus: u32,
    pub memory_mib: u64,
}

/// How many environments of this size an empty instance holds.
pub fn holds(instance_type: &InstanceType, need: Need) -> u32 {
    let by_vcpus = instance_type.vcpus.saturating_sub(OVERHEAD_VCPUS) / need.vcpus.max(1);
    let by_memory = instance_type.memory_mib.saturating_sub(OVERHEAD_MEMORY_MIB) / need.memory_mib.max(1);
    by_vcpus.min(u32::try_from(by_memory).unwrap_or(u32::MAX))
}

/// The smallest type that fits well: it holds three environments if the vCPU budget allows that, one if not.
/// `types` come smallest first.
pub fn choose_type(types: &[InstanceType], need: Need, budget_vcpus: u32) -> Option<InstanceType> {
    let fits =
        |least: u32| types.iter().find(|t| t.vcpus <= budget_vcpus && holds(t, need) >= least).copied();
    fits(3).or_else(|| fits(1))
}

/// An instance that might take an environment, as the choice sees it. The order of the fields is the policy:
/// balance zones first, then spread over instances, then pack tightly; the id breaks ties.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score<Id> {
    pub of_version_in_zone: u32,
    pub of_version_on_instance: u32,
    pub vcpus_left: u32,
    pub id: Id,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity_provider::{InstanceRequirements, TypeFilter};
    use crate::function::Architecture;

    fn types(filter: TypeFilter) -> Vec<InstanceType> {
        InstanceRequirements { architecture: Architecture::X86_64, types: filter }.types()
    }

    #[test]
    fn the_smallest_type_that_fits_well_within_the_budget() {
        let need = Need { vcpus: 1, memory_mib: 2048 };
        let name = |filter, budget| choose_type(&types(filter), need, budget).map(|t| t.name());
        assert_eq!(name(TypeFilter::Any, 100).as_deref(), Some("c7i.xlarge"));
        assert_eq!(name(TypeFilter::Any, 2).as_deref(), Some("c7i.large"));
        assert_eq!(name(TypeFilter::Any, 1), None);
        assert_eq!(name(TypeFilter::Allowed(vec!["m7i.*".into()]), 100).as_deref(), Some("m7i.xlarge"));
        assert_eq!(
            name(TypeFilter::Excluded(vec!["*.xlarge".into(), "*.large".into()]), 100).as_deref(),
            Some("c7i.2xlarge")
        );
    }

    #[test]
    fn the_overhead_is_kept() {
        let large = crate::instance_type::by_name("c7i.large").unwrap();
        assert_eq!(holds(&large, Need { vcpus: 1, memory_mib: 2048 }), 1);
        assert_eq!(holds(&large, Need { vcpus: 1, memory_mib: 3073 }), 0);
        assert_eq!(holds(&large, Need { vcpus: 2, memory_mib: 2048 }), 0);
    }
}
