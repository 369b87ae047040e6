//! The capacity provider: which instances, where, and how many at most. It is the trust boundary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::function::Architecture;
use crate::instance_type::{InstanceType, all, matches};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderState {
    Pending,
    Active,
    Failed,
    Deleting,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityProvider {
    pub name: String,
    pub state: ProviderState,
    pub subnet_ids: Vec<String>,
    pub security_group_ids: Vec<String>,
    pub operator_role_arn: String,
    pub requirements: InstanceRequirements,
    pub scaling: ProviderScaling,
    pub kms_key_arn: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub propagate_tags: Option<PropagateTags>,
    pub logging: ProviderLogging,
    pub last_modified_epoch_millis: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRequirements {
    pub architecture: Architecture,
    pub types: TypeFilter,
}

/// Only one of the two lists may be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TypeFilter {
    Any,
    Allowed(Vec<String>),
    Excluded(Vec<String>),
}

impl InstanceRequirements {
    /// The types this provider may launch, smallest first.
    pub fn types(&self) -> Vec<InstanceType> {
        let admitted = |name: &str| match &self.types {
            TypeFilter::Any => true,
            TypeFilter::Allowed(patterns) => patterns.iter().any(|pattern| matches(pattern, name)),
            TypeFilter::Excluded(patterns) => !patterns.iter().any(|pattern| matches(pattern, name)),
        };
        all().iter().filter(|t| t.architecture == self.architecture && admitted(t.name)).copied().collect()
    }
}

pub const MAX_VCPU_COUNT_DEFAULT: u32 = 400;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderScaling {
    pub max_vcpu_count: u32,
    pub mode: ScalingMode,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScalingMode {
    Auto,
    Manual { policies: Vec<ScalingPolicy> },
}

/// The one metric a scaling policy may name here.
pub const CPU_METRIC: &str = "LambdaCapacityProviderAverageCPUUtilization";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingPolicy {
    pub metric: String,
    /// Hundredths of a percent, so that 62.5 % is 6250.
    pub target_hundredths: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropagateTags {
    pub mode: String,
    pub explicit: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderLogging {
    pub system_log_level: String,
    pub log_group: String,
}

/// The AZ of a subnet: unknown subnet ids map to the region's first zones in order, one after another.
pub fn availability_zones(region: &str, subnet_ids: &[String]) -> Vec<String> {
    let mut zones: Vec<String> =
        (0..subnet_ids.len().min(ZONES.len())).map(|place| format!("{region}{}", ZONES[place])).collect();
    zones.dedup();
    zones
}

const ZONES: [char; 3] = ['a', 'b', 'c'];
