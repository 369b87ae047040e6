//! What the binary tells the agent of this machine.

use std::path::PathBuf;

use ondol_core::identity::EnvironmentId;
use ondol_protocol::assignment::EnvironmentAssignment;

/// How environments are separated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containment {
    Container,
    Process,
}

/// Temporary credentials of one environment.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: String,
}

/// Gives each environment its credentials.
pub type CredentialsOf = Box<dyn Fn(EnvironmentId, &EnvironmentAssignment) -> Credentials + Send + Sync>;

pub struct AgentConfiguration {
    pub region: String,
    /// Where functions reach this server's own services.
    pub endpoint: String,
    pub runtime_folder: PathBuf,
    /// Deployment packages, unpacked, by the hash of their zip.
    pub code_folder: PathBuf,
    /// Sockets of running environments; empty between two runs.
    pub run_folder: PathBuf,
    pub containment: Containment,
    /// Names this server's control groups.
    pub server_id: String,
    /// False where the server may not make control groups: then nothing is limited, and `status` says so.
    pub limits: bool,
    /// What all environments together may take.
    pub machine_memory_bytes: u64,
    /// Of the function's role, for one environment.
    pub credentials: CredentialsOf,
}

impl AgentConfiguration {
    /// The control group of an environment below ours, where there is one.
    pub(crate) fn group(&self, id: EnvironmentId, assignment: &EnvironmentAssignment) -> Option<String> {
        self.limits.then(|| format!("{}/{}/{id}", self.server_id, assignment.instance.id))
    }
}

impl std::fmt::Debug for AgentConfiguration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConfiguration").field("run_folder", &self.run_folder).finish_non_exhaustive()
    }
}
