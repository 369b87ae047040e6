//! What users attach to `$LATEST`, to a version or to an alias, and the alias itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Everything that hangs on one qualifier of a function. It ends with what it hangs on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// Statements of the resource policy, in the order they were added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<Statement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<FunctionUrl>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_invoke: Option<EventInvokeConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioned: Option<ProvisionedConcurrency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_management: Option<RuntimeManagement>,
}

impl Attached {
    /// The resource policy as callers see it.
    pub fn policy_document(&self) -> String {
        policy_document(&self.policy)
    }
}

/// Statements as one policy document.
pub fn policy_document(statements: &[Statement]) -> String {
    let statements: Vec<&Value> = statements.iter().map(|statement| &statement.json).collect();
    json!({"Version": "2012-10-17", "Id": "default", "Statement": statements}).to_string()
}

/// One statement of a resource policy, as the policy shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    pub sid: String,
    /// The whole statement, `Sid` included.
    pub json: Value,
}

/// A function URL: who may ask, and what browsers may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionUrl {
    /// The first label of its host name: 32 letters and digits.
    pub id: String,
    pub auth_type: String,
    pub invoke_mode: String,
    /// CORS settings as they were given.
    pub cors: Option<Value>,
    pub created_epoch_millis: i64,
    pub last_modified_epoch_millis: i64,
}

/// How asynchronous invocations are tried again, and where their outcome goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventInvokeConfig {
    pub maximum_retry_attempts: Option<u32>,
    pub maximum_event_age_seconds: Option<u32>,
    pub on_success: Option<String>,
    pub on_failure: Option<String>,
    pub last_modified_epoch_millis: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionedConcurrency {
    pub requested: u32,
    pub last_modified_epoch_millis: i64,
    pub status: ProvisionedStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProvisionedStatus {
    InProgress,
    Ready,
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeManagement {
    /// `Auto`, `Manual` or `FunctionUpdate`.
    pub update_runtime_on: String,
    pub runtime_version_arn: Option<String>,
}

/// A name that stands for a version, or for two by weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alias {
    pub function: String,
    pub name: String,
    pub version: String,
    pub description: String,
    /// The share of invocations that goes to another version: at most one entry, between 0 and 1.
    pub additional_version_weights: BTreeMap<String, f64>,
    pub revision_id: String,
    #[serde(default)]
    pub attached: Attached,
}
