//! Where each kind of document lives. One function's documents share a prefix, so that a change of any of
//! them names the function.

pub const CAPACITY_PROVIDERS: &str = "capacity-provider/";
pub const FUNCTIONS: &str = "function/";
pub const VERSIONS: &str = "version/";
pub const INSTANCES: &str = "instance/";
pub const LAYERS: &str = "layer/";
pub const LAYER_VERSIONS: &str = "layer-version/";
pub const IAM_ROLES: &str = "iam-role/";
pub const IAM_POLICIES: &str = "iam-policy/";

pub fn capacity_provider(name: &str) -> String {
    format!("{CAPACITY_PROVIDERS}{name}")
}

pub fn function(name: &str) -> String {
    format!("{FUNCTIONS}{name}")
}

pub fn versions_of(function: &str) -> String {
    format!("{VERSIONS}{function}/")
}

/// Numbered versions are padded, so that keys are in the order of numbers and `$LATEST.PUBLISHED` comes first.
pub fn version(function: &str, version: &str) -> String {
    match version.parse::<u64>() {
        Ok(number) if number.to_string() == version => format!("{VERSIONS}{function}/{number:012}"),
        _ => format!("{VERSIONS}{function}/{version}"),
    }
}

pub fn instance(id: &str) -> String {
    format!("{INSTANCES}{id}")
}

pub fn layer(name: &str) -> String {
    format!("{LAYERS}{name}")
}

pub fn layer_versions_of(name: &str) -> String {
    format!("{LAYER_VERSIONS}{name}/")
}

/// Padded, so that keys are in the order of numbers.
pub fn layer_version(name: &str, version: u64) -> String {
    format!("{LAYER_VERSIONS}{name}/{version:012}")
}

/// A role of IAM, by its name without a path.
pub fn iam_role(name: &str) -> String {
    format!("{IAM_ROLES}{name}")
}

/// A managed policy of a customer, by its ARN.
pub fn iam_policy(arn: &str) -> String {
    format!("{IAM_POLICIES}{arn}")
}

/// The function a document belongs to, if it is a function's or a version's.
pub fn function_of(key: &str) -> Option<&str> {
    key.strip_prefix(FUNCTIONS).or_else(|| key.strip_prefix(VERSIONS)?.split('/').next())
}
