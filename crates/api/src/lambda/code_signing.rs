//! Code signing configs, and which function is held to which.
//!
//! Ondol cannot check a signature of AWS Signer. So every package counts as unsigned: `Enforce` refuses it and
//! `Warn` lets it pass, as AWS does with packages that nobody signed.

use std::collections::BTreeMap;

use ondol_core::code_signing::CodeSigningConfig;
use ondol_core::function::Function;
use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    self, AllowedPublishers, CodeSigningPolicies, CreateCodeSigningConfigRequest,
    CreateCodeSigningConfigResponse, DeleteCodeSigningConfigRequest, DeleteCodeSigningConfigResponse,
    DeleteFunctionCodeSigningConfigRequest, GetCodeSigningConfigRequest, GetCodeSigningConfigResponse,
    GetFunctionCodeSigningConfigRequest, GetFunctionCodeSigningConfigResponse, ListCodeSigningConfigsRequest,
    ListCodeSigningConfigsResponse, ListFunctionsByCodeSigningConfigRequest,
    ListFunctionsByCodeSigningConfigResponse, PutFunctionCodeSigningConfigRequest,
    PutFunctionCodeSigningConfigResponse, UpdateCodeSigningConfigRequest, UpdateCodeSigningConfigResponse,
};
use ondol_wire::time::lambda_timestamp;

use super::{functions, names, page, tags};
use crate::context::{Context, letters};
use crate::faults::fault;

const ID_LETTERS: usize = 17;
const UNTRUSTED_DEFAULT: &str = "Warn";

fn shown(context: &Context, config: &CodeSigningConfig) -> types::CodeSigningConfig {
    types::CodeSigningConfig {
        code_signing_config_id: Some(config.id.clone()),
        code_signing_config_arn: Some(context.home.code_signing_config_arn(&config.id)),
        description: Some(config.description.clone()),
        allowed_publishers: Some(AllowedPublishers {
            signing_profile_version_arns: Some(config.signing_profile_version_arns.clone()),
        }),
        code_signing_policies: Some(CodeSigningPolicies {
            untrusted_artifact_on_deployment: Some(config.untrusted_artifact_on_deployment.clone()),
        }),
        last_modified: Some(lambda_timestamp(config.last_modified_epoch_millis)),
    }
}

pub async fn create(
    context: &Context,
    input: CreateCodeSigningConfigRequest,
) -> Result<CreateCodeSigningConfigResponse, Fault> {
    let own_tags = input.tags.unwrap_or_default();
    tags::check(&own_tags)?;
    let policy = input.code_signing_policies.and_then(|policies| policies.untrusted_artifact_on_deployment);
    let config = CodeSigningConfig {
        id: format!("csc-{}", letters(ID_LETTERS)),
        description: input.description.unwrap_or_default(),
        signing_profile_version_arns: input
            .allowed_publishers
            .and_then(|publishers| publishers.signing_profile_version_arns)
            .unwrap_or_default(),
        untrusted_artifact_on_deployment: policy.unwrap_or_else(|| UNTRUSTED_DEFAULT.into()),
        last_modified_epoch_millis: context.now_epoch_millis(),
        tags: own_tags,
    };
    let key = keys::code_signing_config(&config.id);
    context
        .change(|| {
            let absent = Precondition::Absent(key.clone());
            Ok((Transaction::default().when(absent).put(key.clone(), &config), ()))
        })
        .await?;
    Ok(CreateCodeSigningConfigResponse { code_signing_config: Some(shown(context, &config)) })
}

/// Finds a config by its ARN.
pub fn find(context: &Context, arn: &str) -> Result<Option<(CodeSigningConfig, Revision)>, Fault> {
    let id = arn.rsplit(':').next().unwrap_or_default();
    if arn != context.home.code_signing_config_arn(id) {
        return Ok(None);
    }
    context.document(&keys::code_signing_config(id))
}

fn existing(context: &Context, arn: Option<&str>) -> Result<(CodeSigningConfig, Revision), Fault> {
    let arn = arn.unwrap_or_default();
    find(context, arn)?.ok_or_else(|| {
        let text = format!("The Lambda code signing configuration {arn} can not be found.");
        fault("ResourceNotFoundException", text)
    })
}

pub fn replace(config: &CodeSigningConfig, revision: Revision) -> Transaction {
    let key = keys::code_signing_config(&config.id);
    Transaction::default().when(Precondition::Unchanged(key.clone(), revision)).put(key, config)
}

pub async fn get(
    context: &Context,
    input: GetCodeSigningConfigRequest,
) -> Result<GetCodeSigningConfigResponse, Fault> {
    let (config, _) = existing(context, input.code_signing_config_arn.as_deref())?;
    Ok(GetCodeSigningConfigResponse { code_signing_config: Some(shown(context, &config)) })
}

pub async fn update(
    context: &Context,
    input: UpdateCodeSigningConfigRequest,
) -> Result<UpdateCodeSigningConfigResponse, Fault> {
    let updated = context
        .change(|| {
            let (mut config, revision) = existing(context, input.code_signing_config_arn.as_deref())?;
            if let Some(description) = input.description.clone() {
                config.description = description;
            }
            if let Some(publishers) = input.allowed_publishers.clone() {
                config.signing_profile_version_arns =
                    publishers.signing_profile_version_arns.unwrap_or_default();
            }
            let policies = input.code_signing_policies.clone();
            if let Some(policy) = policies.and_then(|policies| policies.untrusted_artifact_on_deployment) {
                config.untrusted_artifact_on_deployment = policy;
            }
            config.last_modified_epoch_millis = context.now_epoch_millis();
            Ok((replace(&config, revision), config))
        })
        .await?;
    Ok(UpdateCodeSigningConfigResponse { code_signing_config: Some(shown(context, &updated)) })
}

pub async fn delete(
    context: &Context,
    input: DeleteCodeSigningConfigRequest,
) -> Result<DeleteCodeSigningConfigResponse, Fault> {
    context
        .change(|| {
            let (config, revision) = existing(context, input.code_signing_config_arn.as_deref())?;
            let arn = context.home.code_signing_config_arn(&config.id);
            if !functions_of(context, &arn)?.is_empty() {
                return Err(fault(
                    "ResourceConflictException",
                    "Code signing configuration cannot be deleted because it is currently being used.",
                ));
            }
            let key = keys::code_signing_config(&config.id);
            let unchanged = Precondition::Unchanged(key.clone(), revision);
            Ok((Transaction::default().when(unchanged).delete(key), ()))
        })
        .await?;
    Ok(DeleteCodeSigningConfigResponse::default())
}

pub async fn list(
    context: &Context,
    input: ListCodeSigningConfigsRequest,
) -> Result<ListCodeSigningConfigsResponse, Fault> {
    let all: Vec<CodeSigningConfig> = context.all(keys::CODE_SIGNING_CONFIGS)?;
    let shown = all.iter().map(|config| (config.id.clone(), shown(context, config))).collect();
    let (configs, next_marker) = page(shown, input.marker.as_deref(), input.max_items);
    Ok(ListCodeSigningConfigsResponse { next_marker, code_signing_configs: Some(configs) })
}

fn functions_of(context: &Context, arn: &str) -> Result<BTreeMap<String, Function>, Fault> {
    let functions: Vec<Function> = context.all(keys::FUNCTIONS)?;
    Ok(functions
        .into_iter()
        .filter(|function| function.code_signing_config_arn.as_deref() == Some(arn))
        .map(|function| (function.name.clone(), function))
        .collect())
}

pub async fn list_functions(
    context: &Context,
    input: ListFunctionsByCodeSigningConfigRequest,
) -> Result<ListFunctionsByCodeSigningConfigResponse, Fault> {
    let (config, _) = existing(context, input.code_signing_config_arn.as_deref())?;
    let arn = context.home.code_signing_config_arn(&config.id);
    let arns = functions_of(context, &arn)?
        .into_keys()
        .map(|name| (name.clone(), context.home.function_arn(&name, None)))
        .collect();
    let (function_arns, next_marker) = page(arns, input.marker.as_deref(), input.max_items);
    Ok(ListFunctionsByCodeSigningConfigResponse { next_marker, function_arns: Some(function_arns) })
}

/// The config a function is to be held to must be there.
pub fn check_exists(context: &Context, arn: &str) -> Result<(), Fault> {
    if find(context, arn)?.is_some() {
        return Ok(());
    }
    Err(fault(
        "CodeSigningConfigNotFoundException",
        format!(
            "The code signing configuration cannot be found. Check that the provided configuration is not deleted: {arn}."
        ),
    ))
}

/// Refuses a new package where a config enforces signatures.
pub fn check_package(context: &Context, arn: Option<&str>) -> Result<(), Fault> {
    let Some(arn) = arn else { return Ok(()) };
    let enforces = |config: &CodeSigningConfig| config.untrusted_artifact_on_deployment == "Enforce";
    match find(context, arn)? {
        Some((config, _)) if enforces(&config) => Err(fault(
            "CodeVerificationFailedException",
            format!(
                "The code signing configuration {arn} enforces signatures, and Ondol can't check those of AWS Signer. Set its policy to Warn, or take it off the function."
            ),
        )),
        _ => Ok(()),
    }
}

pub async fn put_of_function(
    context: &Context,
    input: PutFunctionCodeSigningConfigRequest,
) -> Result<PutFunctionCodeSigningConfigResponse, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let arn = input.code_signing_config_arn.unwrap_or_default();
    check_exists(context, &arn)?;
    set(context, &name, Some(arn.clone())).await?;
    Ok(PutFunctionCodeSigningConfigResponse { code_signing_config_arn: Some(arn), function_name: Some(name) })
}

async fn set(context: &Context, name: &str, arn: Option<String>) -> Result<(), Fault> {
    context
        .change(|| {
            let (mut function, revision) = names::living_function(context, name)?;
            if let Some(arn) = &arn {
                check_exists(context, arn)?;
            }
            function.code_signing_config_arn.clone_from(&arn);
            Ok((functions::replace(&function, revision), ()))
        })
        .await
}

pub async fn get_of_function(
    context: &Context,
    input: GetFunctionCodeSigningConfigRequest,
) -> Result<GetFunctionCodeSigningConfigResponse, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let (function, _) = names::function(context, &name)?;
    Ok(GetFunctionCodeSigningConfigResponse {
        function_name: function.code_signing_config_arn.is_some().then_some(name),
        code_signing_config_arn: function.code_signing_config_arn,
    })
}

pub async fn delete_of_function(
    context: &Context,
    input: DeleteFunctionCodeSigningConfigRequest,
) -> Result<(), Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    set(context, &name, None).await
}
