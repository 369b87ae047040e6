//! What control wants of an agent, whole, and what the agent reports back. Level-triggered: each message
//! replaces the one before; an assignment of an older epoch or generation is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use ondol_core::capacity::EnvironmentState;
use ondol_core::function::{Publication, VersionKey};
use ondol_core::identity::{EnvironmentId, InstanceId};
use ondol_core::signals::{EnvironmentSignals, Heat, MachineSignals};

/// Orders assignments: the epoch is the server's start, the generation counts within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation {
    pub epoch: u64,
    pub number: u64,
}

/// The newest word an agent has taken. What is older is refused, so that a control loop that is not in charge any more,
/// or a message that comes late, undoes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fence(Generation);

impl Fence {
    /// Whether an assignment is to be followed.
    pub fn admit(&mut self, generation: Generation) -> bool {
        let is_new = generation >= self.0;
        if is_new {
            self.0 = generation;
        }
        is_new
    }
}

/// Every execution environment the agent is to have. What is absent is to end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignment {
    pub generation: Generation,
    pub environments: BTreeMap<EnvironmentId, EnvironmentAssignment>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentAssignment {
    pub version: VersionKey,
    pub function_arn: Arc<str>,
    pub publication: Arc<Publication>,
    pub instance: InstanceShare,
    /// No new invocations; end when the last in flight is answered.
    pub draining: bool,
}

#[cfg(feature = "samples")]
impl EnvironmentAssignment {
    /// One for tests: version `1` of function `f`.
    pub fn sample(runtime: &str) -> Self {
        let mut publication = ondol_core::samples::publication(1);
        publication.configuration = ondol_core::samples::configuration(runtime);
        Self {
            version: VersionKey { function: "f".into(), version: "1".into() },
            function_arn: "arn:aws:lambda:us-east-1:000000000000:function:f:1".into(),
            publication: Arc::new(publication),
            instance: InstanceShare {
                id: InstanceId("i-0".into()),
                availability_zone: "us-east-1a".into(),
                vcpus: 4,
                memory_mib: 8192,
            },
            draining: false,
        }
    }
}

/// The share of the machine an environment lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceShare {
    pub id: InstanceId,
    pub availability_zone: String,
    pub vcpus: u32,
    pub memory_mib: u64,
}

/// What the agent has. An environment that ended stays here until the assignment drops it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    pub generation: Generation,
    pub environments: BTreeMap<EnvironmentId, EnvironmentReport>,
    pub machine: MachineSignals,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentReport {
    pub state: EnvironmentState,
    pub in_flight: usize,
    /// Polls the runtime has open. No measure of free slots: Node.js opens one for each worker.
    pub parked_polls: usize,
    /// Slots held by code whose caller was answered with a timeout.
    pub timed_out: usize,
    /// What it used over the last second.
    pub signals: EnvironmentSignals,
    /// Why it takes less than its slots, if it does.
    pub heat: Option<Heat>,
}
