//! Layers: packages that functions share, merged into `/opt`.

use serde::{Deserialize, Serialize};

use crate::attached::Statement;
use crate::function::Code;

/// Layers of one function at most.
pub const LAYERS_MAX: usize = 5;

/// What a layer's versions share. It stays when all of them are deleted: a number is never given twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub name: String,
    pub next_version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerVersion {
    pub name: String,
    pub version: u64,
    pub description: String,
    pub license_info: Option<String>,
    pub compatible_runtimes: Option<Vec<String>>,
    pub compatible_architectures: Option<Vec<String>>,
    pub code: Code,
    pub created_epoch_millis: i64,
    /// Its resource policy.
    #[serde(default)]
    pub policy: Vec<Statement>,
    /// Of the policy; new with each change of it.
    #[serde(default)]
    pub policy_revision_id: String,
}
