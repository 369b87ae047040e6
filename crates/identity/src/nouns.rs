//! What IAM keeps, as it is stored.

use std::collections::BTreeMap;

use ondol_core::identity::Home;
use serde::{Deserialize, Serialize};

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub name: String,
    /// `/`, or `/a/b/`.
    pub path: String,
    /// `AROA…`: a role of the same name made later has another.
    pub id: String,
    /// Who may assume it: the document as it was given.
    pub trust_policy: String,
    #[serde(default)]
    pub description: Option<String>,
    pub max_session_duration_seconds: u32,
    pub created_epoch_millis: i64,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Documents by name.
    #[serde(default)]
    pub inline_policies: BTreeMap<String, String>,
    /// ARNs, in the order of their attachment.
    #[serde(default)]
    pub attached_policies: Vec<String>,
    /// The ARN of a managed policy.
    #[serde(default)]
    pub permissions_boundary: Option<String>,
}

impl Role {
    /// `arn:aws:iam::ACCOUNT:role/PATH/NAME`.
    pub fn arn(&self, home: &Home) -> String {
        role_arn(home, &self.path, &self.name)
    }
}

/// The ARN of a role of this account.
pub fn role_arn(home: &Home, path: &str, name: &str) -> String {
    format!("arn:aws:iam::{}:role{path}{name}", home.account_id)
}

/// A managed policy of the customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedPolicy {
    pub arn: String,
    pub name: String,
    pub path: String,
    /// `ANPA…`
    pub id: String,
    #[serde(default)]
    pub description: Option<String>,
    /// By number; the highest ever used is `last_version`.
    pub versions: BTreeMap<u32, PolicyVersion>,
    pub default_version: u32,
    pub last_version: u32,
    pub created_epoch_millis: i64,
    pub updated_epoch_millis: i64,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl ManagedPolicy {
    /// The document that counts.
    pub fn document(&self) -> Option<&str> {
        self.versions.get(&self.default_version).map(|version| version.document.as_str())
    }
}

/// The ARN of a managed policy of this account.
pub fn policy_arn(home: &Home, path: &str, name: &str) -> String {
    format!("arn:aws:iam::{}:policy{path}{name}", home.account_id)
}

/// One version of a managed policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    pub document: String,
    pub created_epoch_millis: i64,
}
