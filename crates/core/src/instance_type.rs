//! Instance types a capacity provider may launch: C, M and R families, both architectures.

use crate::function::Architecture;

/// What an instance type gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceType {
    pub family: &'static str,
    pub size: &'static str,
    pub architecture: Architecture,
    pub vcpus: u32,
    pub memory_mib: u64,
}

impl InstanceType {
    pub fn name(&self) -> String {
        format!("{}.{}", self.family, self.size)
    }
}

/// GiB of memory for each vCPU, by family. Source: AWS's instance type pages.
const FAMILIES: &[(&str, Architecture, u64)] = &[
    ("c7i", Architecture::X86_64, 2),
    ("m7i", Architecture::X86_64, 4),
    ("r7i", Architecture::X86_64, 8),
    ("c7g", Architecture::Arm64, 2),
    ("m7g", Architecture::Arm64, 4),
    ("r7g", Architecture::Arm64, 8),
];

const SIZES: &[(&str, u32)] =
    &[("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("8xlarge", 32)];

/// Every type of the table, smallest first, ties by family.
pub fn all() -> Vec<InstanceType> {
    let mut types: Vec<InstanceType> = FAMILIES
        .iter()
        .flat_map(|&(family, architecture, gib_per_vcpu)| {
            SIZES.iter().map(move |&(size, vcpus)| InstanceType {
                family,
                size,
                architecture,
                vcpus,
                memory_mib: u64::from(vcpus) * gib_per_vcpu * 1024,
            })
        })
        .collect();
    types.sort_by_key(|t| (t.vcpus, t.memory_mib, t.family));
    types
}

pub fn by_name(name: &str) -> Option<InstanceType> {
    all().into_iter().find(|t| t.name() == name)
}

/// Whether a name matches a pattern in which `*` stands for any run of characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        assert!(
            matches("m7i.*", "m7i.large") && matches("*", "c7g.xlarge") && matches("c*.large", "c7i.large")
        );
        assert!(!matches("m7i.*", "c7i.large") && !matches("m7i", "m7i.large"));
    }
}
