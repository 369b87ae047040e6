//! Code signing configs: which signers a function's package must come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeSigningConfig {
    /// `csc-` and seventeen letters and digits.
    pub id: String,
    pub description: String,
    pub signing_profile_version_arns: Vec<String>,
    /// What happens to a package without a good signature: `Warn` or `Enforce`.
    pub untrusted_artifact_on_deployment: String,
    pub last_modified_epoch_millis: i64,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}
