//! A function's settings from the wire, checked, with AWS's defaults. What would have no effect is refused.

use std::collections::BTreeMap;

use ondol_core::function::{
    Architecture, FunctionConfiguration, FunctionLogging, LogFormat, ManagedInstancesConfig,
};
use ondol_core::runtime::{CREATABLE, NEWER, RETIRED, default_concurrency_per_vcpu};
use ondol_core::{managed_instances, runtime::MANAGED_INSTANCES};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types;
use ondol_wire::validate::{refuse as refuse_violations, violation};

use crate::context::Context;
use crate::faults::{invalid, unsupported_setting};

const ENVIRONMENT_BYTES_MAX: usize = 4_096;
const RATIO_HUNDREDTHS_DEFAULT: u32 = 200;
const EPHEMERAL_STORAGE_MIB_MAX: u32 = 10_240;
/// What Lambda (default) functions may ask for; managed instances go further. Source: AWS's page on quotas.
const ON_DEMAND_TIMEOUT_SECONDS_MAX: u32 = 900;
const ON_DEMAND_MEMORY_MIB_MAX: u32 = 10_240;

/// Names a function may not set. Source: AWS's list of reserved environment variables.
const RESERVED: &[&str] = &[
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
    "LAMBDA_TASK_ROOT",
    "LAMBDA_RUNTIME_DIR",
    "AWS_LAMBDA_MAX_CONCURRENCY",
];

/// Settings that create and update share. `None` keeps what is there, or takes the default.
#[derive(Debug, Default)]
pub struct Settings {
    pub runtime: Option<String>,
    pub role: Option<String>,
    pub handler: Option<String>,
    pub description: Option<String>,
    pub timeout: Option<i32>,
    pub memory_size: Option<i32>,
    pub environment: Option<types::Environment>,
    pub ephemeral_storage: Option<types::EphemeralStorage>,
    pub logging_config: Option<types::LoggingConfig>,
    pub capacity_provider_config: Option<types::CapacityProviderConfig>,
    pub architectures: Option<Vec<String>>,
    pub layers: Option<Vec<String>>,
    pub dead_letter_config: Option<types::DeadLetterConfig>,
    /// Without a network: others were refused before.
    pub vpc_config: Option<types::VpcConfig>,
}

/// Settings that have no effect here, each with whether the request uses it.
pub fn refuse(settings: &[(&str, bool)]) -> Result<(), Fault> {
    match settings.iter().find(|(_, used)| *used) {
        Some((name, _)) => Err(unsupported_setting(name)),
        None => Ok(()),
    }
}

/// A new function's configuration.
pub fn create(context: &Context, name: &str, settings: Settings) -> Result<FunctionConfiguration, Fault> {
    let (Some(runtime), Some(handler)) = (settings.runtime.clone(), settings.handler.clone()) else {
        return Err(invalid(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
        ));
    };
    let start = FunctionConfiguration {
        runtime,
        role: settings.role.clone().unwrap_or_default(),
        handler,
        description: String::new(),
        timeout_seconds: 3,
        memory_size_mib: 128,
        ephemeral_storage_mib: 512,
        architecture: Architecture::X86_64,
        environment: None,
        logging: FunctionLogging {
            format: if settings.capacity_provider_config.is_some() {
                json_format(None, None)
            } else {
                LogFormat::Text
            },
            log_group: format!("/aws/lambda/{name}"),
        },
        managed_instances: settings.capacity_provider_config.is_some().then(|| ManagedInstancesConfig {
            capacity_provider: String::new(),
            per_execution_environment_max_concurrency: 0,
            concurrency_is_chosen: false,
            memory_gib_per_vcpu_hundredths: RATIO_HUNDREDTHS_DEFAULT,
        }),
        dead_letter_target_arn: None,
        has_empty_vpc_config: false,
        layers: Vec::new(),
    };
    // Without variables it is as if it were not there; an update to none shows them as none.
    let environment = settings.environment.filter(|environment| environment.variables.is_some());
    update(context, start, Settings { environment, ..settings })
}

/// A configuration with these settings changed; the result keeps every rule.
pub fn update(
    context: &Context,
    mut to: FunctionConfiguration,
    settings: Settings,
) -> Result<FunctionConfiguration, Fault> {
    let unsigned = |value: i32| u32::try_from(value).unwrap_or_default();
    if let Some(environment) = settings.environment {
        to.environment = Some(check_environment(context, environment.variables.unwrap_or_default())?);
    }
    if let Some(arns) = settings.layers {
        to.layers = super::layers::resolve(context, &arns)?;
    }
    if let Some(runtime) = settings.runtime {
        check_runtime(&runtime)?;
        to.runtime = runtime;
    }
    set(&mut to.role, settings.role);
    set(&mut to.handler, settings.handler);
    set(&mut to.description, settings.description);
    set(&mut to.timeout_seconds, settings.timeout.map(unsigned));
    set(&mut to.memory_size_mib, settings.memory_size.map(unsigned));
    if let Some(size) = settings.ephemeral_storage.and_then(|storage| storage.size).map(unsigned) {
        if size > EPHEMERAL_STORAGE_MIB_MAX {
            return Err(beyond(&[("ephemeralStorage.size", size, EPHEMERAL_STORAGE_MIB_MAX)]));
        }
        to.ephemeral_storage_mib = size;
    }
    if let Some(logging) = settings.logging_config {
        to.logging = self::logging(to.logging, logging, to.managed_instances.is_some())?;
    }
    if let Some(config) = settings.dead_letter_config {
        to.dead_letter_target_arn = config.target_arn.filter(|arn| !arn.is_empty());
        if let Some(arn) = &to.dead_letter_target_arn {
            check_dead_letter_target(context, &to.role, arn)?;
        }
    }
    if let Some(vpc) = settings.vpc_config {
        to.has_empty_vpc_config = vpc.subnet_ids.is_some() || vpc.security_group_ids.is_some();
    }
    if let Some(architecture) =
        settings.architectures.and_then(|list| list.first().and_then(|name| Architecture::parse(name)))
    {
        to.architecture = architecture;
    }
    match (settings.capacity_provider_config, &mut to.managed_instances) {
        (Some(config), Some(managed_instances)) => managed(managed_instances, config)?,
        (Some(_), None) => {
            return Err(invalid("CapacityProviderConfig isn't supported for Lambda Default functions."));
        }
        (None, _) => {}
    }
    let Some(mut managed_instances) = to.managed_instances.clone() else {
        check_on_demand(&to)?;
        return Ok(to);
    };
    if !managed_instances.concurrency_is_chosen {
        managed_instances.per_execution_environment_max_concurrency =
            default_concurrency_per_vcpu(&to.runtime) * managed_instances.vcpus(to.memory_size_mib).max(1);
    }
    to.managed_instances = Some(managed_instances.clone());
    managed_instances::check(&to, &managed_instances)
        .map_err(|violation| Fault::of(&ondol_wire::lambda::SERVICE, violation.code, violation.message))?;
    check_provider(context, &managed_instances.capacity_provider, to.architecture)?;
    Ok(to)
}

/// A dead-letter target is a queue or a topic that the function's role may write to.
fn check_dead_letter_target(context: &Context, role: &str, arn: &str) -> Result<(), Fault> {
    let (action, what) = match arn.split(':').nth(2) {
        Some("sqs") => ("sqs:SendMessage", "SendMessage on SQS"),
        Some("sns") => ("sns:Publish", "Publish on SNS"),
        _ => {
            return Err(invalid(format!(
                "The dead-letter target {arn} is neither an SQS queue nor an SNS topic."
            )));
        }
    };
    if context.gatekeeper.authorizer().role_may(role, action, arn) {
        return Ok(());
    }
    Err(invalid(format!("The provided execution role does not have permissions to call {what}")))
}

/// Bounds that Lambda Managed Instances stretch and Lambda (default) functions keep.
fn check_on_demand(to: &FunctionConfiguration) -> Result<(), Fault> {
    let too_much = [
        ("timeout", to.timeout_seconds, ON_DEMAND_TIMEOUT_SECONDS_MAX),
        ("memorySize", to.memory_size_mib, ON_DEMAND_MEMORY_MIB_MAX),
    ];
    let beyond_bounds: Vec<(&str, u32, u32)> =
        too_much.into_iter().filter(|(_, value, max)| value > max).collect();
    if beyond_bounds.is_empty() { Ok(()) } else { Err(beyond(&beyond_bounds)) }
}

/// Values above a bound that the model does not name, in the validator's words.
fn beyond(found: &[(&str, u32, u32)]) -> Fault {
    let found: Vec<String> = found
        .iter()
        .map(|(name, value, max)| {
            let constraint = format!("Member must have value less than or equal to {max}");
            violation(&format!("'{value}'"), name, &constraint)
        })
        .collect();
    refuse_violations(&found).err().unwrap_or_else(|| invalid(found.join("; ")))
}

fn json_format(application_level: Option<String>, system_level: Option<String>) -> LogFormat {
    let or_info = |level: Option<String>| Some(level.unwrap_or_else(|| "INFO".into()));
    LogFormat::Json { application_level: or_info(application_level), system_level: or_info(system_level) }
}

/// Logging settings with these changed. Levels are only of the JSON format, and managed instances know no other.
fn logging(
    before: FunctionLogging,
    given: types::LoggingConfig,
    is_managed: bool,
) -> Result<FunctionLogging, Fault> {
    let was_json = matches!(before.format, LogFormat::Json { .. });
    let is_json = match given.log_format.as_deref() {
        Some(format) => format == "JSON",
        None => was_json,
    };
    let has_level = given.application_log_level.is_some() || given.system_log_level.is_some();
    if !is_json && (has_level || is_managed) {
        return Err(invalid(
            "LogLevel is not supported when LogFormat is set to \"Text\". Remove LogLevel from your request or change the LogFormat to \"JSON\" and try again.",
        ));
    }
    let format = match before.format {
        _ if !is_json => LogFormat::Text,
        // Levels stay only where the format is not named.
        LogFormat::Json { application_level, system_level } if given.log_format.is_none() => json_format(
            given.application_log_level.or(application_level),
            given.system_log_level.or(system_level),
        ),
        _ => json_format(given.application_log_level, given.system_log_level),
    };
    Ok(FunctionLogging { format, log_group: given.log_group.unwrap_or(before.log_group) })
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn managed(to: &mut ManagedInstancesConfig, config: types::CapacityProviderConfig) -> Result<(), Fault> {
    let Some(config) = config.lambda_managed_instances_capacity_provider_config else {
        return Err(Fault::new(
            "ValidationException",
            400,
            "1 validation error detected: Value null at 'capacityProviderConfig.lambdaManagedInstancesCapacityProviderConfig' failed to satisfy constraint: Member must not be null",
        ));
    };
    let arn = config.capacity_provider_arn.unwrap_or_default();
    to.capacity_provider = arn.rsplit(':').next().unwrap_or_default().to_owned();
    // A given config replaces the one before as a whole; what it leaves out takes its default.
    let ratio = config.execution_environment_memory_gi_b_per_v_cpu.map(|ratio| {
        // The validator has bounded it to 2.0–8.0.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let hundredths = (ratio * 100.0).round() as u32;
        hundredths
    });
    to.memory_gib_per_vcpu_hundredths = ratio.unwrap_or(RATIO_HUNDREDTHS_DEFAULT);
    let chosen = config.per_execution_environment_max_concurrency.and_then(|limit| u32::try_from(limit).ok());
    to.concurrency_is_chosen = chosen.is_some();
    set(&mut to.per_execution_environment_max_concurrency, chosen);
    Ok(())
}

fn check_runtime(runtime: &str) -> Result<(), Fault> {
    if RETIRED.contains(&runtime) {
        return Err(invalid(format!(
            "The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. We recommend you use a supported runtime while creating or updating functions."
        )));
    }
    if ![CREATABLE, NEWER, MANAGED_INSTANCES].iter().any(|list| list.contains(&runtime)) {
        return Err(invalid(format!(
            "Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [{}] or be a valid ARN",
            CREATABLE.join(", ")
        )));
    }
    Ok(())
}

fn check_environment(
    context: &Context,
    variables: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Fault> {
    let sent = context.environment_as_sent.clone();
    let measured = sent.unwrap_or_else(|| serde_json::to_string(&variables).unwrap_or_default());
    if measured.len() > ENVIRONMENT_BYTES_MAX {
        return Err(invalid(format!(
            "Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: {measured}"
        )));
    }
    let reserved: Vec<&str> =
        variables.keys().map(String::as_str).filter(|name| RESERVED.contains(name)).collect();
    if !reserved.is_empty() {
        return Err(invalid(format!(
            "Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: {}",
            reserved.join(", ")
        )));
    }
    if variables.iter().any(|(name, value)| name.contains(['=', '\0']) || value.contains('\0')) {
        return Err(invalid("An environment variable holds a character that can't be passed to a program."));
    }
    Ok(variables)
}

fn check_provider(context: &Context, name: &str, architecture: Architecture) -> Result<(), Fault> {
    let provider = super::capacity_providers::living(context, name)?;
    if provider.requirements.architecture != architecture {
        return Err(invalid(format!(
            "Architecture mismatch error: the function's architecture {architecture} must be the capacity provider's, {}.",
            provider.requirements.architecture
        )));
    }
    Ok(())
}

/// The provider's ARN must be of this account and region, as its name alone is kept.
pub fn check_provider_arn(
    context: &Context,
    config: Option<&types::CapacityProviderConfig>,
) -> Result<(), Fault> {
    let arn = config
        .and_then(|config| config.lambda_managed_instances_capacity_provider_config.as_ref())
        .and_then(|config| config.capacity_provider_arn.as_deref());
    let Some(arn) = arn else { return Ok(()) };
    let name = arn.rsplit(':').next().unwrap_or_default();
    if arn == context.home.capacity_provider_arn(name) {
        return Ok(());
    }
    Err(crate::faults::fault("ResourceNotFoundException", format!("Capacity provider not found: {arn}")))
}
