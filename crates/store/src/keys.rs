//! Where each kind of document lives. One function's documents share a prefix, so that a change of any of
//! them names the function.

/// The account and region of everything here.
pub const HOME: &str = "home";
pub const CAPACITY_PROVIDERS: &str = "capacity-provider/";
pub const FUNCTIONS: &str = "function/";
pub const VERSIONS: &str = "version/";
pub const ALIASES: &str = "alias/";
pub const EVENT_SOURCE_MAPPINGS: &str = "event-source-mapping/";
pub const CODE_SIGNING_CONFIGS: &str = "code-signing-config/";
pub const INSTANCES: &str = "instance/";
pub const LAYERS: &str = "layer/";
pub const LAYER_VERSIONS: &str = "layer-version/";
pub const SCHEDULES: &str = "schedule/";
pub const SCHEDULE_GROUPS: &str = "schedule-group/";
pub const SCHEDULE_RUNS: &str = "schedule-run/";
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

pub fn aliases_of(function: &str) -> String {
    format!("{ALIASES}{function}/")
}

pub fn alias(function: &str, name: &str) -> String {
    format!("{ALIASES}{function}/{name}")
}

pub fn event_source_mapping(uuid: &str) -> String {
    format!("{EVENT_SOURCE_MAPPINGS}{uuid}")
}

pub fn code_signing_config(id: &str) -> String {
    format!("{CODE_SIGNING_CONFIGS}{id}")
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

pub fn schedules_of(group: &str) -> String {
    format!("{SCHEDULES}{group}/")
}

pub fn schedule(group: &str, name: &str) -> String {
    format!("{SCHEDULES}{group}/{name}")
}

pub fn schedule_group(name: &str) -> String {
    format!("{SCHEDULE_GROUPS}{name}")
}

/// How a schedule went so far.
pub fn schedule_run(group: &str, name: &str) -> String {
    format!("{SCHEDULE_RUNS}{group}/{name}")
}

/// A role of IAM, by its name without a path.
pub fn iam_role(name: &str) -> String {
    format!("{IAM_ROLES}{name}")
}

/// A managed policy of a customer, by its ARN.
pub fn iam_policy(arn: &str) -> String {
    format!("{IAM_POLICIES}{arn}")
}

/// The function a document belongs to, if it is a function's, a version's or an alias'.
pub fn function_of(key: &str) -> Option<&str> {
    let of_two = |prefix| key.strip_prefix(prefix)?.split('/').next();
    key.strip_prefix(FUNCTIONS).or_else(|| of_two(VERSIONS)).or_else(|| of_two(ALIASES))
}
