//! Capacity providers. Creating one launches nothing: the first publish does.

use ondol_core::capacity_provider::{
    CPU_METRIC, CapacityProvider, InstanceRequirements, MAX_VCPU_COUNT_DEFAULT, PropagateTags,
    ProviderLogging, ProviderScaling, ProviderState, ScalingMode, ScalingPolicy, TypeFilter,
};
use ondol_core::function::{Architecture, Function, FunctionVersion};
use ondol_core::managed_instances::MEMORY_MIB_MIN;
use ondol_core::place::{Need, holds};
use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    self, CreateCapacityProviderRequest, CreateCapacityProviderResponse, DeleteCapacityProviderRequest,
    DeleteCapacityProviderResponse, FunctionVersionsByCapacityProviderListItem, GetCapacityProviderRequest,
    GetCapacityProviderResponse, ListCapacityProvidersRequest, ListCapacityProvidersResponse,
    ListFunctionVersionsByCapacityProviderRequest, ListFunctionVersionsByCapacityProviderResponse,
    UpdateCapacityProviderRequest, UpdateCapacityProviderResponse,
};

use super::pass::Pass;
use super::{page, view};
use crate::context::Context;
use crate::faults::{fault, invalid};

pub async fn create(
    context: &Context,
    input: CreateCapacityProviderRequest,
) -> Result<CreateCapacityProviderResponse, Fault> {
    let name = name_of(context, input.capacity_provider_name.as_deref())?;
    let tags = input.tags.unwrap_or_default();
    super::tags::check(&tags)?;
    let vpc = input.vpc_config.unwrap_or_default();
    let provider = CapacityProvider {
        state: ProviderState::Pending,
        subnet_ids: vpc.subnet_ids.unwrap_or_default(),
        security_group_ids: vpc.security_group_ids.unwrap_or_default(),
        operator_role_arn: input
            .permissions_config
            .and_then(|permissions| permissions.capacity_provider_operator_role_arn)
            .unwrap_or_default(),
        requirements: requirements(input.instance_requirements.unwrap_or_default())?,
        scaling: scaling(input.capacity_provider_scaling_config.unwrap_or_default(), None)?,
        kms_key_arn: input.kms_key_arn,
        tags,
        propagate_tags: input.propagate_tags.map(propagate_tags).transpose()?,
        logging: logging(input.telemetry_config, None, &name),
        last_modified_epoch_millis: context.now_epoch_millis(),
        name,
    };
    Pass::of_provider(context, &provider.name, &provider.operator_role_arn).check(context)?;
    check_possible(&provider.requirements, &provider.scaling)?;
    let key = keys::capacity_provider(&provider.name);
    let created = context
        .change(|| {
            if context.store.get(&key).is_some() {
                let arn = context.home.capacity_provider_arn(&provider.name);
                return Err(fault(
                    "ResourceConflictException",
                    format!("Capacity provider already exists: {arn}"),
                ));
            }
            let limit = context.quotas.capacity_providers as usize;
            if context.store.scan(keys::CAPACITY_PROVIDERS, None, limit).len() >= limit {
                let text = format!("You have reached the limit of {limit} capacity providers.");
                return Err(fault("CapacityProviderLimitExceededException", text));
            }
            let absent = Precondition::Absent(key.clone());
            Ok((Transaction::default().when(absent).put(key.clone(), &provider), provider.clone()))
        })
        .await?;
    Ok(CreateCapacityProviderResponse {
        capacity_provider: Some(view::capacity_provider(&context.home, &created)),
    })
}

pub async fn get(
    context: &Context,
    input: GetCapacityProviderRequest,
) -> Result<GetCapacityProviderResponse, Fault> {
    let (provider, _) = find(context, &name_of(context, input.capacity_provider_name.as_deref())?)?;
    Ok(GetCapacityProviderResponse {
        capacity_provider: Some(view::capacity_provider(&context.home, &provider)),
    })
}

pub async fn update(
    context: &Context,
    input: UpdateCapacityProviderRequest,
) -> Result<UpdateCapacityProviderResponse, Fault> {
    let name = name_of(context, input.capacity_provider_name.as_deref())?;
    let updated = context
        .change(|| {
            let (mut provider, revision) = find(context, &name)?;
            refuse_deleting(context, &provider)?;
            let now = provider.scaling.clone();
            if let Some(wanted) = input.capacity_provider_scaling_config.clone() {
                provider.scaling = scaling(wanted, Some(now))?;
                check_possible(&provider.requirements, &provider.scaling)?;
            }
            if let Some(wanted) = input.propagate_tags.clone() {
                provider.propagate_tags = Some(propagate_tags(wanted)?);
            }
            let before = provider.logging.clone();
            provider.logging = logging(input.telemetry_config.clone(), Some(before), &name);
            provider.state = ProviderState::Pending;
            provider.last_modified_epoch_millis = context.now_epoch_millis();
            Ok((replace(&provider, revision), provider))
        })
        .await?;
    Ok(UpdateCapacityProviderResponse {
        capacity_provider: Some(view::capacity_provider(&context.home, &updated)),
    })
}

pub async fn delete(
    context: &Context,
    input: DeleteCapacityProviderRequest,
) -> Result<DeleteCapacityProviderResponse, Fault> {
    let name = name_of(context, input.capacity_provider_name.as_deref())?;
    let deleted = context
        .change(|| {
            let (mut provider, revision) = find(context, &name)?;
            if is_used(context, &name)? {
                let arn = context.home.capacity_provider_arn(&name);
                let text = format!(
                    "Capacity provider {arn} is in use by function versions. To delete this capacity provider, first remove its association with all function versions."
                );
                return Err(fault("ResourceConflictException", text));
            }
            provider.state = ProviderState::Deleting;
            Ok((replace(&provider, revision), provider))
        })
        .await?;
    Ok(DeleteCapacityProviderResponse {
        capacity_provider: Some(view::capacity_provider(&context.home, &deleted)),
    })
}

pub async fn list(
    context: &Context,
    input: ListCapacityProvidersRequest,
) -> Result<ListCapacityProvidersResponse, Fault> {
    let all: Vec<CapacityProvider> = context.all(keys::CAPACITY_PROVIDERS)?;
    let shown = all
        .into_iter()
        .map(|provider| (provider.name.clone(), view::capacity_provider(&context.home, &provider)))
        .filter(|(_, provider)| input.state.is_none() || provider.state == input.state)
        .collect();
    let (providers, next_marker) = page(shown, input.marker.as_deref(), input.max_items);
    Ok(ListCapacityProvidersResponse { capacity_providers: Some(providers), next_marker })
}

pub async fn list_function_versions(
    context: &Context,
    input: ListFunctionVersionsByCapacityProviderRequest,
) -> Result<ListFunctionVersionsByCapacityProviderResponse, Fault> {
    let name = name_of(context, input.capacity_provider_name.as_deref())?;
    find(context, &name)?;
    let versions = versions_of(context, &name)?
        .into_iter()
        .map(|version| {
            let item = FunctionVersionsByCapacityProviderListItem {
                function_arn: Some(context.home.function_arn(&version.function, Some(&version.version))),
                state: Some(version.state.to_string()),
            };
            (keys::version(&version.function, &version.version), item)
        })
        .collect();
    let (function_versions, next_marker) = page(versions, input.marker.as_deref(), input.max_items);
    Ok(ListFunctionVersionsByCapacityProviderResponse {
        capacity_provider_arn: Some(context.home.capacity_provider_arn(&name)),
        function_versions: Some(function_versions),
        next_marker,
    })
}

/// The published versions that run, or are meant to run, on a provider.
pub fn versions_of(context: &Context, name: &str) -> Result<Vec<FunctionVersion>, Fault> {
    let on = |version: &FunctionVersion| {
        let publications = [Some(&version.publication), version.serving.as_ref()];
        publications.into_iter().flatten().any(|p| p.configuration.capacity_provider() == Some(name))
    };
    Ok(context.all::<FunctionVersion>(keys::VERSIONS)?.into_iter().filter(on).collect())
}

fn is_used(context: &Context, name: &str) -> Result<bool, Fault> {
    let functions: Vec<Function> = context.all(keys::FUNCTIONS)?;
    let by_function =
        functions.iter().any(|function| function.configuration.capacity_provider() == Some(name));
    Ok(by_function || !versions_of(context, name)?.is_empty())
}

/// A provider that functions may be put on.
pub fn living(context: &Context, name: &str) -> Result<CapacityProvider, Fault> {
    let (provider, _) = find(context, name)?;
    refuse_deleting(context, &provider)?;
    Ok(provider)
}

fn refuse_deleting(context: &Context, provider: &CapacityProvider) -> Result<(), Fault> {
    if provider.state == ProviderState::Deleting {
        let arn = context.home.capacity_provider_arn(&provider.name);
        return Err(fault("ResourceConflictException", format!("Capacity provider is being deleted: {arn}")));
    }
    Ok(())
}

pub fn find(context: &Context, name: &str) -> Result<(CapacityProvider, Revision), Fault> {
    context.document(&keys::capacity_provider(name))?.ok_or_else(|| {
        let arn = context.home.capacity_provider_arn(name);
        fault("ResourceNotFoundException", format!("Capacity provider not found: {arn}"))
    })
}

pub fn replace(provider: &CapacityProvider, revision: Revision) -> Transaction {
    let key = keys::capacity_provider(&provider.name);
    Transaction::default().when(Precondition::Unchanged(key.clone(), revision)).put(key, provider)
}

/// A name, or an ARN of this account and region.
fn name_of(context: &Context, text: Option<&str>) -> Result<String, Fault> {
    let text = text.unwrap_or_default();
    let name = text.rsplit(':').next().unwrap_or_default();
    if text.starts_with("arn:") && text != context.home.capacity_provider_arn(name) {
        return Err(fault("ResourceNotFoundException", format!("Capacity provider not found: {text}")));
    }
    Ok(name.to_owned())
}

fn requirements(input: types::InstanceRequirements) -> Result<InstanceRequirements, Fault> {
    let given = |list: Option<Vec<String>>| list.filter(|list| !list.is_empty());
    let types = match (given(input.allowed_instance_types), given(input.excluded_instance_types)) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "Only one of AllowedInstanceTypes and ExcludedInstanceTypes can be specified.",
            ));
        }
        (Some(allowed), None) => TypeFilter::Allowed(allowed),
        (None, Some(excluded)) => TypeFilter::Excluded(excluded),
        (None, None) => TypeFilter::Any,
    };
    let architecture =
        input.architectures.as_deref().and_then(<[String]>::first).and_then(|name| Architecture::parse(name));
    Ok(InstanceRequirements { architecture: architecture.unwrap_or(Architecture::X86_64), types })
}

fn scaling(
    input: types::CapacityProviderScalingConfig,
    before: Option<ProviderScaling>,
) -> Result<ProviderScaling, Fault> {
    let before =
        before.unwrap_or(ProviderScaling { max_vcpu_count: MAX_VCPU_COUNT_DEFAULT, mode: ScalingMode::Auto });
    let policies = input.scaling_policies.filter(|policies| !policies.is_empty());
    let mode = match (input.scaling_mode.as_deref(), policies) {
        (Some("Auto"), Some(_)) => {
            return Err(invalid("A scaling policy can't be specified when the scalingMode is set to Auto"));
        }
        (Some("Auto"), None) => ScalingMode::Auto,
        (Some("Manual"), None) => {
            return Err(invalid("A scaling policy must be specified when the scalingMode is set to Manual"));
        }
        (None, Some(_)) if before.mode == ScalingMode::Auto => {
            return Err(invalid("A scaling policy can't be specified when the scalingMode is set to Auto"));
        }
        (_, Some(policies)) => ScalingMode::Manual { policies: self::policies(policies)? },
        (_, None) => before.mode,
    };
    let max_vcpu_count = input.max_v_cpu_count.and_then(|count| u32::try_from(count).ok());
    Ok(ProviderScaling { max_vcpu_count: max_vcpu_count.unwrap_or(before.max_vcpu_count), mode })
}

/// What nothing would act on is refused: a target that no load can meet, two that contradict each other, GPUs.
fn policies(input: Vec<types::TargetTrackingScalingPolicy>) -> Result<Vec<ScalingPolicy>, Fault> {
    let policies: Vec<ScalingPolicy> = input.into_iter().map(policy).collect();
    if policies.iter().any(|policy| policy.metric != CPU_METRIC) {
        return Err(invalid(format!(
            "Only {CPU_METRIC} can be scaled by: this version of Ondol has no instances with GPUs."
        )));
    }
    if policies.len() > 1 {
        return Err(invalid(format!("Only one scaling policy can be specified for {CPU_METRIC}.")));
    }
    if policies.iter().any(|policy| policy.target_hundredths == 0) {
        return Err(invalid(
            "TargetValue must be greater than 0: no number of execution environments uses no CPU.",
        ));
    }
    Ok(policies)
}

fn policy(input: types::TargetTrackingScalingPolicy) -> ScalingPolicy {
    // The validator has bounded it to 0–100.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let target_hundredths = (input.target_value.unwrap_or_default() * 100.0).round() as u32;
    ScalingPolicy { metric: input.predefined_metric_type.unwrap_or_default(), target_hundredths }
}

/// The smallest execution environment must fit an instance, and that instance the cap.
fn check_possible(requirements: &InstanceRequirements, scaling: &ProviderScaling) -> Result<(), Fault> {
    let smallest = Need { vcpus: 1, memory_mib: u64::from(MEMORY_MIB_MIN) };
    let types = requirements.types();
    let Some(fitting) = types.iter().find(|found| holds(found, smallest) > 0) else {
        return Err(invalid(format!(
            "No {} instance type that AllowedInstanceTypes and ExcludedInstanceTypes leave has room for an execution environment of 1 vCPU and {MEMORY_MIB_MIN} MB. Allow larger types, or types of this architecture.",
            requirements.architecture
        )));
    };
    if fitting.vcpus > scaling.max_vcpu_count {
        return Err(invalid(format!(
            "MaxVCpuCount {} is less than the {} vCPUs of {}, the smallest instance type that can be launched. Raise it, or allow smaller types.",
            scaling.max_vcpu_count, fitting.vcpus, fitting.name
        )));
    }
    Ok(())
}

fn propagate_tags(input: types::PropagateTags) -> Result<PropagateTags, Fault> {
    let mode = input.mode.unwrap_or_else(|| "None".into());
    let explicit = input.explicit_tags.unwrap_or_default();
    if (mode == "Explicit") == explicit.is_empty() {
        return Err(invalid(
            "ExplicitTags must be given when the mode of PropagateTags is Explicit, and only then.",
        ));
    }
    Ok(PropagateTags { mode, explicit })
}

fn logging(
    input: Option<types::CapacityProviderTelemetryConfig>,
    before: Option<ProviderLogging>,
    name: &str,
) -> ProviderLogging {
    let before = before.unwrap_or_else(|| ProviderLogging {
        system_log_level: "INFO".into(),
        log_group: format!("/aws/lambda/capacity-provider/{name}"),
    });
    let input = input.and_then(|telemetry| telemetry.logging_config).unwrap_or_default();
    ProviderLogging {
        system_log_level: input.system_log_level.unwrap_or(before.system_log_level),
        log_group: input.log_group.unwrap_or(before.log_group),
    }
}
