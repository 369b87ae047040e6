//! Nouns as the wire shows them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ondol_core::capacity_provider::{CapacityProvider, ScalingMode, TypeFilter};
use ondol_core::function::{
    Code, Function, FunctionConfiguration, FunctionVersion, LastUpdate, LayerReference, LogFormat,
    ManagedInstancesConfig, Reason, ScalingConfig, VersionState,
};
use ondol_core::identity::{Home, LATEST};
use ondol_wire::lambda::types;
use ondol_wire::sigv4::{hex, sha256};
use ondol_wire::time::lambda_timestamp;

/// `$LATEST`, which Lambda Managed Instances never invokes and Lambda (default) does.
pub fn latest(home: &Home, function: &Function, qualified: bool) -> types::FunctionConfiguration {
    let mut shown = configuration(home, &function.configuration, &function.code);
    shown.function_name = Some(function.name.clone());
    shown.function_arn = Some(home.function_arn(&function.name, qualified.then_some(LATEST)));
    shown.version = Some(LATEST.into());
    shown.revision_id = Some(function.revision_id.clone());
    shown.last_modified = Some(lambda_timestamp(function.last_modified_epoch_millis));
    let state = match (function.deleting, function.configuration.is_on_demand()) {
        (true, _) => "Deleting",
        (false, true) => "Active",
        (false, false) => "ActiveNonInvocable",
    };
    shown.state = Some(state.into());
    shown.last_update_status = Some("Successful".into());
    shown
}

pub fn version(home: &Home, version: &FunctionVersion) -> types::FunctionConfiguration {
    let mut shown = configuration(home, &version.publication.configuration, &version.publication.code);
    shown.function_name = Some(version.function.clone());
    shown.function_arn = Some(home.function_arn(&version.function, Some(&version.version)));
    shown.version = Some(version.version.clone());
    shown.description = Some(version.description.clone());
    shown.revision_id = Some(version.revision_id.clone());
    shown.last_modified = Some(lambda_timestamp(version.last_modified_epoch_millis));
    shown.state = Some(version.state.to_string());
    (shown.state_reason, shown.state_reason_code) = reason(version.state_reason.as_ref());
    let (status, why) = match &version.last_update {
        LastUpdate::Successful => ("Successful", None),
        // A version that never ran is being created, not updated.
        LastUpdate::InProgress if version.state == VersionState::Pending => ("Successful", None),
        LastUpdate::InProgress => ("InProgress", None),
        LastUpdate::Failed(reason) => ("Failed", Some(reason)),
    };
    shown.last_update_status = Some(status.into());
    if status == "InProgress" {
        shown.last_update_status_reason = Some("The function is being updated.".into());
        shown.last_update_status_reason_code = Some("Updating".into());
    } else {
        (shown.last_update_status_reason, shown.last_update_status_reason_code) = reason(why);
    }
    shown
}

fn reason(reason: Option<&Reason>) -> (Option<String>, Option<String>) {
    reason.map(|reason| (reason.text.clone(), reason.code.clone())).unzip()
}

fn configuration(home: &Home, of: &FunctionConfiguration, code: &Code) -> types::FunctionConfiguration {
    let canonical = serde_json::to_vec(of).unwrap_or_default();
    types::FunctionConfiguration {
        runtime: Some(of.runtime.clone()),
        role: Some(of.role.clone()),
        handler: Some(of.handler.clone()),
        code_size: Some(i64::try_from(code.size_bytes).unwrap_or(i64::MAX)),
        description: Some(of.description.clone()),
        timeout: i32::try_from(of.timeout_seconds).ok(),
        memory_size: i32::try_from(of.memory_size_mib).ok(),
        code_sha256: Some(code_sha256(code)),
        environment: of
            .environment
            .clone()
            .map(|variables| types::EnvironmentResponse { variables: Some(variables), error: None }),
        dead_letter_config: of
            .dead_letter_target_arn
            .clone()
            .map(|arn| types::DeadLetterConfig { target_arn: Some(arn) }),
        vpc_config: of.has_empty_vpc_config.then(|| types::VpcConfigResponse {
            subnet_ids: Some(Vec::new()),
            security_group_ids: Some(Vec::new()),
            vpc_id: Some(String::new()),
            ipv6_allowed_for_dual_stack: Some(false),
        }),
        tracing_config: Some(types::TracingConfigResponse { mode: Some("PassThrough".into()) }),
        package_type: Some("Zip".into()),
        architectures: Some(vec![of.architecture.to_string()]),
        ephemeral_storage: Some(types::EphemeralStorage {
            size: i32::try_from(of.ephemeral_storage_mib).ok(),
        }),
        logging_config: Some(logging(of)),
        capacity_provider_config: of.managed_instances.as_ref().map(|of| managed_instances(home, of)),
        // These two are only of Lambda (default) functions.
        snap_start: of.is_on_demand().then(|| types::SnapStartResponse {
            apply_on: Some("None".into()),
            optimization_status: Some("Off".into()),
        }),
        runtime_version_config: of.is_on_demand().then(|| types::RuntimeVersionConfig {
            runtime_version_arn: Some(runtime_version_arn(home, &of.runtime)),
            error: None,
        }),
        layers: (!of.layers.is_empty()).then(|| of.layers.iter().map(layer).collect()),
        config_sha256: Some(STANDARD.encode(sha256(&canonical))),
        ..Default::default()
    }
}

fn logging(of: &FunctionConfiguration) -> types::LoggingConfig {
    let (format, application, system) = match &of.logging.format {
        LogFormat::Text => ("Text", None, None),
        LogFormat::Json { application_level, system_level } => {
            ("JSON", application_level.clone(), system_level.clone())
        }
    };
    types::LoggingConfig {
        log_format: Some(format.into()),
        application_log_level: application,
        system_log_level: system,
        log_group: Some(of.logging.log_group.clone()),
    }
}

/// A name for what is installed here of a runtime: there is one version of each at a time.
pub fn runtime_version_arn(home: &Home, runtime: &str) -> String {
    format!("arn:aws:lambda:{}::runtime:{}", home.region, hex(&sha256(runtime.as_bytes())))
}

/// What listings leave out of a function.
pub fn in_listing(mut function: types::FunctionConfiguration) -> types::FunctionConfiguration {
    function.state = None;
    (function.state_reason, function.state_reason_code) = (None, None);
    function.last_update_status = None;
    (function.last_update_status_reason, function.last_update_status_reason_code) = (None, None);
    function.runtime_version_config = None;
    function
}

/// A function as the answer to its creation shows it: not there yet, though it may be by the next request.
pub fn being_created(mut shown: types::FunctionConfiguration) -> types::FunctionConfiguration {
    shown.state = Some("Pending".into());
    shown.state_reason = Some("The function is being created.".into());
    shown.state_reason_code = Some("Creating".into());
    shown
}

fn layer(of: &LayerReference) -> types::Layer {
    types::Layer {
        arn: Some(of.arn.clone()),
        code_size: i64::try_from(of.code.size_bytes).ok(),
        ..Default::default()
    }
}

/// The hash of a package in base64, as AWS shows it; kept as hex.
pub fn code_sha256(code: &Code) -> String {
    let byte = |place: usize| {
        code.sha256.get(2 * place..2 * place + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok())
    };
    STANDARD.encode((0..code.sha256.len() / 2).map_while(byte).collect::<Vec<u8>>())
}

fn managed_instances(home: &Home, of: &ManagedInstancesConfig) -> types::CapacityProviderConfig {
    types::CapacityProviderConfig {
        lambda_managed_instances_capacity_provider_config: Some(
            types::LambdaManagedInstancesCapacityProviderConfig {
                capacity_provider_arn: Some(home.capacity_provider_arn(&of.capacity_provider)),
                per_execution_environment_max_concurrency: i32::try_from(
                    of.per_execution_environment_max_concurrency,
                )
                .ok(),
                execution_environment_memory_gi_b_per_v_cpu: Some(
                    f64::from(of.memory_gib_per_vcpu_hundredths) / 100.0,
                ),
            },
        ),
    }
}

pub fn scaling(of: ScalingConfig) -> types::FunctionScalingConfig {
    types::FunctionScalingConfig {
        min_execution_environments: i32::try_from(of.minimum()).ok(),
        max_execution_environments: of.max.and_then(|max| i32::try_from(max).ok()),
    }
}

pub fn capacity_provider(home: &Home, of: &CapacityProvider) -> types::CapacityProvider {
    let (allowed, excluded) = match &of.requirements.types {
        TypeFilter::Any => (None, None),
        TypeFilter::Allowed(types) => (Some(types.clone()), None),
        TypeFilter::Excluded(types) => (None, Some(types.clone())),
    };
    let (mode, policies) = match &of.scaling.mode {
        ScalingMode::Auto => ("Auto", None),
        ScalingMode::Manual { policies } => ("Manual", Some(policies)),
    };
    types::CapacityProvider {
        capacity_provider_arn: Some(home.capacity_provider_arn(&of.name)),
        state: Some(format!("{:?}", of.state)),
        vpc_config: Some(types::CapacityProviderVpcConfig {
            subnet_ids: Some(of.subnet_ids.clone()),
            security_group_ids: Some(of.security_group_ids.clone()),
        }),
        permissions_config: Some(types::CapacityProviderPermissionsConfig {
            capacity_provider_operator_role_arn: Some(of.operator_role_arn.clone()),
        }),
        instance_requirements: Some(types::InstanceRequirements {
            architectures: Some(vec![of.requirements.architecture.to_string()]),
            allowed_instance_types: allowed,
            excluded_instance_types: excluded,
        }),
        capacity_provider_scaling_config: Some(types::CapacityProviderScalingConfig {
            max_v_cpu_count: i32::try_from(of.scaling.max_vcpu_count).ok(),
            scaling_mode: Some(mode.into()),
            scaling_policies: policies.map(|policies| {
                policies
                    .iter()
                    .map(|policy| types::TargetTrackingScalingPolicy {
                        predefined_metric_type: Some(policy.metric.clone()),
                        target_value: Some(f64::from(policy.target_hundredths) / 100.0),
                    })
                    .collect()
            }),
        }),
        kms_key_arn: of.kms_key_arn.clone(),
        last_modified: Some(lambda_timestamp(of.last_modified_epoch_millis)),
        propagate_tags: of.propagate_tags.as_ref().map(|tags| types::PropagateTags {
            mode: Some(tags.mode.clone()),
            explicit_tags: (!tags.explicit.is_empty()).then(|| tags.explicit.clone()),
        }),
        telemetry_config: Some(types::CapacityProviderTelemetryConfig {
            logging_config: Some(types::CapacityProviderLoggingConfig {
                system_log_level: Some(of.logging.system_log_level.clone()),
                log_group: Some(of.logging.log_group.clone()),
            }),
        }),
    }
}
