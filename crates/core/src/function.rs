//! Functions, their versions, and what one publish freezes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attached::Attached;
use crate::identity::{LATEST_PUBLISHED, PublicationId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Architecture {
    #[serde(rename = "x86_64")]
    X86_64,
    #[serde(rename = "arm64")]
    Arm64,
}

impl Architecture {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::X86_64),
            "arm64" => Some(Self::Arm64),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        })
    }
}

/// What a user configures of a function. Every field acts; what would not is refused at the door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionConfiguration {
    pub runtime: String,
    pub role: String,
    pub handler: String,
    pub description: String,
    pub timeout_seconds: u32,
    pub memory_size_mib: u32,
    pub ephemeral_storage_mib: u32,
    pub architecture: Architecture,
    /// Absent is not empty: what nobody set is not shown.
    pub environment: Option<BTreeMap<String, String>>,
    pub logging: FunctionLogging,
    /// Where it runs: on a capacity provider's instances, or, without one, on demand.
    pub managed_instances: Option<ManagedInstancesConfig>,
    pub dead_letter_target_arn: Option<String>,
    /// It was given a `VpcConfig` without subnets and security groups, which is shown as what was set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_empty_vpc_config: bool,
    /// In the order they are merged into `/opt`: a later one's file hides an earlier one's.
    pub layers: Vec<LayerReference>,
}

/// A layer version a function uses. It stays usable when the layer version is deleted, as on AWS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReference {
    pub arn: String,
    pub code: Code,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionLogging {
    pub format: LogFormat,
    pub log_group: String,
}

/// `LoggingConfig.LogFormat`; only JSON knows levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    Text,
    #[serde(rename = "JSON")]
    Json {
        application_level: Option<String>,
        system_level: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedInstancesConfig {
    pub capacity_provider: String,
    pub per_execution_environment_max_concurrency: u32,
    /// Whether the user chose it. If not it follows the runtime and the number of vCPUs.
    pub concurrency_is_chosen: bool,
    /// Hundredths of a GiB for each vCPU: 2.0 is 200.
    pub memory_gib_per_vcpu_hundredths: u32,
}

/// Memory that comes with one vCPU for a Lambda (default) function. Source: AWS's page on memory.
const ON_DEMAND_MIB_PER_VCPU: u32 = 1_769;

impl FunctionConfiguration {
    /// Whole vCPUs of an execution environment. On managed instances they come out whole by the rules of
    /// [`crate::managed_instances`]; on demand a share is rounded up.
    pub fn vcpus(&self) -> u32 {
        match &self.managed_instances {
            Some(managed) => managed.vcpus(self.memory_size_mib),
            None => self.memory_size_mib.div_ceil(ON_DEMAND_MIB_PER_VCPU),
        }
    }

    /// Thousandths of a CPU an execution environment may use.
    pub fn cpu_millis(&self) -> u64 {
        match &self.managed_instances {
            Some(_) => u64::from(self.vcpus()) * 1_000,
            None => u64::from(self.memory_size_mib) * 1_000 / u64::from(ON_DEMAND_MIB_PER_VCPU),
        }
    }

    /// Requests one execution environment takes at the same time.
    pub fn concurrency(&self) -> u32 {
        self.managed_instances.as_ref().map_or(1, |managed| managed.per_execution_environment_max_concurrency)
    }

    pub fn is_on_demand(&self) -> bool {
        self.managed_instances.is_none()
    }

    pub fn capacity_provider(&self) -> Option<&str> {
        self.managed_instances.as_ref().map(|managed| managed.capacity_provider.as_str())
    }

    pub fn environment(&self) -> impl Iterator<Item = (&String, &String)> {
        self.environment.iter().flatten()
    }
}

impl ManagedInstancesConfig {
    pub fn vcpus(&self, memory_size_mib: u32) -> u32 {
        memory_size_mib * 100 / (1024 * self.memory_gib_per_vcpu_hundredths.max(1))
    }
}

/// A deployment package, by the hash of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Hex; the API shows the same hash in base64.
    pub sha256: String,
    pub size_bytes: u64,
}

/// The unpublished function: `$LATEST`, which Lambda Managed Instances never invokes and Lambda (default) does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    pub name: String,
    pub configuration: FunctionConfiguration,
    pub code: Code,
    pub tags: BTreeMap<String, String>,
    pub revision_id: String,
    pub last_modified_epoch_millis: i64,
    /// The number the next numbered version gets.
    pub next_version: u64,
    pub deleting: bool,
    /// What of `$LATEST` runs, when it can be invoked: new with each change of code or configuration. None on
    /// Lambda Managed Instances.
    #[serde(default)]
    pub latest_publication: Option<PublicationId>,
    #[serde(default)]
    pub reserved_concurrency: Option<u32>,
    #[serde(default)]
    pub recursive_loop: RecursiveLoop,
    #[serde(default)]
    pub code_signing_config_arn: Option<String>,
    /// What is attached to `$LATEST`.
    #[serde(default)]
    pub attached: Attached,
}

impl Function {
    /// `$LATEST` as it runs, where it can be invoked.
    pub fn publication(&self) -> Option<Publication> {
        let id = self.latest_publication?;
        Some(Publication { id, configuration: self.configuration.clone(), code: self.code.clone() })
    }
}

/// What happens to an event a function sent to itself sixteen times over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RecursiveLoop {
    Allow,
    #[default]
    Terminate,
}

/// Code and configuration as one publish froze them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    pub id: PublicationId,
    pub configuration: FunctionConfiguration,
    pub code: Code,
}

/// A published version: a number, or `$LATEST.PUBLISHED`, which each publish to it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionVersion {
    pub function: String,
    pub version: String,
    /// What is meant to run.
    pub publication: Publication,
    /// What answers invokes now, while a newer publication is getting ready; the same one once it is.
    pub serving: Option<Publication>,
    pub description: String,
    pub state: VersionState,
    pub state_reason: Option<Reason>,
    pub last_update: LastUpdate,
    pub scaling: ScalingConfig,
    /// The scaling config that is in effect; none before the first.
    pub applied_scaling: Option<ScalingConfig>,
    pub revision_id: String,
    pub last_modified_epoch_millis: i64,
    #[serde(default)]
    pub attached: Attached,
    /// What `$LATEST` was when it was published, of a Lambda (default) function.
    #[serde(default)]
    pub published_from: Option<PublicationId>,
}

impl FunctionVersion {
    pub fn key(&self) -> VersionKey {
        VersionKey { function: self.function.clone(), version: self.version.clone() }
    }

    /// Takes a new scaling config: what it deactivates or reactivates says so from now on, so that whoever
    /// asks next does not see the state before.
    pub fn set_scaling(&mut self, scaling: ScalingConfig) {
        self.scaling = scaling;
        match self.state {
            VersionState::Pending | VersionState::Active if scaling.deactivates() => self.deactivate(),
            VersionState::Deactivated if !scaling.deactivates() => self.reactivate(),
            _ => {}
        }
    }

    pub fn deactivate(&mut self) {
        self.state = VersionState::Deactivating;
        self.state_reason = None;
    }

    pub fn reactivate(&mut self) {
        self.state = VersionState::Pending;
        self.state_reason = Some(Reason::creating());
        self.last_update = LastUpdate::InProgress;
    }

    pub fn is_latest_published(&self) -> bool {
        self.version == LATEST_PUBLISHED
    }

    /// Whether a newer publication waits to take over from the one that serves.
    pub fn is_rolling_over(&self) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.id != self.publication.id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionKey {
    pub function: String,
    pub version: String,
}

impl fmt::Display for VersionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.function, self.version)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionState {
    Pending,
    Active,
    Failed,
    Deactivating,
    Deactivated,
    Deleting,
}

impl fmt::Display for VersionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastUpdate {
    Successful,
    InProgress,
    Failed(Reason),
}

/// Why something is as it is: AWS's reason code, and the sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: String,
    pub text: String,
    /// The runtime's own account of an initialisation that failed, for the invocation that waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

impl Reason {
    pub fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.into(), text: text.into(), answer: None }
    }

    pub fn creating() -> Self {
        Self::new("Creating", "The function is being created.")
    }
}

/// `Min` and `Max` execution environments of a version. Both unset is AWS's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScalingConfig {
    pub min: Option<u32>,
    pub max: Option<u32>,
}

/// Execution environments of a version whose scaling config says nothing. Source: AWS's scaling page.
pub const MIN_EXECUTION_ENVIRONMENTS_DEFAULT: u32 = 3;

impl ScalingConfig {
    /// How many environments are kept running.
    pub fn minimum(&self) -> u32 {
        let default = MIN_EXECUTION_ENVIRONMENTS_DEFAULT.min(self.max.unwrap_or(u32::MAX));
        self.min.unwrap_or(default)
    }

    /// Min 0 and Max 0 deactivate a version; traffic never reactivates it.
    pub fn deactivates(&self) -> bool {
        self.max == Some(0)
    }
}
