//! Instance types a capacity provider may launch: the families C, M and R, both architectures.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::function::Architecture;

/// What an instance type gives. Source and date: the head of `instance_type/table.csv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceType {
    pub name: &'static str,
    pub architecture: Architecture,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// What the network gives at all times, and what it gives for a while. Thousandths of a Gbit/s.
    pub network_baseline_mbps: u32,
    pub network_peak_mbps: u32,
    pub network_interfaces: u32,
    pub ipv4_addresses_per_interface: u32,
}

impl InstanceType {
    pub fn family(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(family, _)| family)
    }

    /// Among equals the plain family comes before its variants (`c8i` before `c8i-flex` and `c8id`), and what is
    /// newer before what is older.
    fn preference(&self) -> (usize, std::cmp::Reverse<u32>, &'static str) {
        let family = self.family();
        let digits = family.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let variant = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        let generation = digits[..digits.len() - variant.len()].parse().unwrap_or(0);
        (variant.len(), std::cmp::Reverse(generation), self.name)
    }
}

static TABLE: LazyLock<Vec<InstanceType>> = LazyLock::new(|| {
    let mut types: Vec<InstanceType> =
        include_str!("instance_type/table.csv").lines().filter_map(row).collect();
    types.sort_by_key(|t| (t.vcpus, t.memory_mib, t.preference()));
    types
});

static BY_NAME: LazyLock<BTreeMap<&'static str, InstanceType>> =
    LazyLock::new(|| TABLE.iter().map(|t| (t.name, *t)).collect());

/// A line of the table; none of its head.
fn row(line: &'static str) -> Option<InstanceType> {
    let mut cells = line.split(',');
    let (name, architecture) = (cells.next()?, Architecture::parse(cells.next()?)?);
    let mut number = || cells.next()?.parse::<u32>().ok();
    Some(InstanceType {
        name,
        architecture,
        vcpus: number()?,
        memory_mib: number()?.into(),
        network_baseline_mbps: number()?,
        network_peak_mbps: number()?,
        network_interfaces: number()?,
        ipv4_addresses_per_interface: number()?,
    })
}

/// Every type of the table, smallest first.
pub fn all() -> &'static [InstanceType] {
    &TABLE
}

pub fn by_name(name: &str) -> Option<InstanceType> {
    BY_NAME.get(name).copied()
}

/// Whether a name matches a pattern in which `*` stands for any run of characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let head = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let Some(tail) = pieces.next_back() else { return rest.is_empty() };
    // Each piece between two stars is taken where it comes first: later would leave less for the others.
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        assert!(
            matches("m7i.*", "m7i.large") && matches("*", "c7g.xlarge") && matches("c*.large", "c7i.large")
        );
        assert!(matches("*.2xlarge", "r8g.2xlarge") && matches("*7*.*l*", "c7i.xlarge"));
        assert!(!matches("m7i.*", "c7i.large") && !matches("m7i", "m7i.large"));
        assert!(!matches("a*a", "a") && !matches("c7*7i.large", "c7i.large"));
        // No pattern of the longest allowed length takes long.
        assert!(!matches("*a*a*a*a*a*a*a*a*a*a*a*a*a*b", &"a".repeat(30)));
    }

    #[test]
    fn the_whole_table_is_read() {
        let lines = include_str!("instance_type/table.csv").lines().count();
        assert_eq!(all().len() + 3, lines, "two lines of comment and one of names");
        for expected in ["c7g.xlarge", "m7g.xlarge", "r7g.xlarge", "m7i.large", "c8i.48xlarge", "m9g.xlarge"]
        {
            assert!(by_name(expected).is_some(), "{expected}");
        }
        assert!(all().iter().all(|t| t.vcpus > 0 && t.memory_mib > 0 && t.name.len() <= 30));
        assert!(
            all()
                .windows(2)
                .all(|pair| (pair[0].vcpus, pair[0].memory_mib) <= (pair[1].vcpus, pair[1].memory_mib))
        );
    }

    #[test]
    fn plain_and_new_families_come_first() {
        let first = |vcpus, memory| {
            let fits = |t: &&InstanceType| {
                t.architecture == Architecture::X86_64 && t.vcpus == vcpus && t.memory_mib == memory
            };
            all().iter().find(fits).map(|t| t.name)
        };
        assert_eq!(first(4, 8_192), Some("c8a.xlarge"));
        assert_eq!(first(4, 16_384), Some("m8a.xlarge"));
    }
}
