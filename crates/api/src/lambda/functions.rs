//! Functions: create, read, update, delete, list. These touch `$LATEST`; publishing is in `versions`.

use ondol_core::function::{Code, Function, FunctionVersion, VersionState};
use ondol_core::identity::Qualifier;
use ondol_store::artifacts::{ArtifactError, Pinned};
use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::Blob;
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    self, CreateFunctionRequest, DeleteFunctionRequest, DeleteFunctionResponse, FunctionConfiguration,
    GetFunctionConfigurationRequest, GetFunctionRequest, GetFunctionResponse, ListFunctionsRequest,
    ListFunctionsResponse, UpdateFunctionCodeRequest, UpdateFunctionConfigurationRequest,
};

use super::configuration::{self, Settings, refuse};
use super::names::{self, Found, Named};
use super::{page, versions, view};
use crate::context::{Context, uuid};
use crate::faults::{fault, invalid};

pub async fn create(context: &Context, input: CreateFunctionRequest) -> Result<FunctionConfiguration, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    refuse(&[
        ("VpcConfig", input.vpc_config.as_ref().is_some_and(names_a_network)),
        ("PackageType Image", input.package_type.as_deref() == Some("Image")),
        (
            "DeadLetterConfig",
            input
                .dead_letter_config
                .is_some_and(|config| config.target_arn.is_some_and(|arn| !arn.is_empty())),
        ),
        ("KMSKeyArn", input.kms_key_arn.is_some_and(|arn| !arn.is_empty())),
        ("TracingConfig Active", is_active(input.tracing_config.as_ref())),
        ("FileSystemConfigs", input.file_system_configs.is_some_and(|configs| !configs.is_empty())),
        ("CodeSigningConfigArn", input.code_signing_config_arn.is_some()),
        ("ImageConfig", input.image_config.is_some()),
        ("SnapStart", uses_snap_start(input.snap_start.as_ref())),
        ("DurableConfig", input.durable_config.is_some()),
        ("AcceleratorConfig", input.accelerator_config.is_some()),
        ("RuntimeConfig", input.runtime_config.is_some()),
        ("TenancyConfig", input.tenancy_config.is_some()),
    ])?;
    if context.store.get(&keys::function(&name)).is_some() {
        return Err(already_exists(&name));
    }
    let tags = input.tags.unwrap_or_default();
    super::tags::check(&tags)?;
    configuration::check_provider_arn(context, input.capacity_provider_config.as_ref())?;
    let settings = Settings {
        runtime: input.runtime,
        role: input.role,
        handler: input.handler,
        description: input.description,
        timeout: input.timeout,
        memory_size: input.memory_size,
        environment: input.environment,
        ephemeral_storage: input.ephemeral_storage,
        logging_config: input.logging_config,
        capacity_provider_config: input.capacity_provider_config,
        architectures: input.architectures,
        layers: input.layers,
    };
    let arns = settings.layers.clone().unwrap_or_default();
    let configuration = configuration::create(context, &name, settings)?;
    // From here on the layers' packages stay, if they are still there.
    let _layers = super::layers::pin(context, &configuration.layers);
    super::layers::resolve(context, &arns)?;
    let given = input.code.unwrap_or_default();
    let elsewhere = [
        ("S3Bucket", given.s3_bucket.is_some() || given.s3_key.is_some()),
        ("ImageUri", given.image_uri.is_some()),
        ("SourceKMSKeyArn", given.source_kms_key_arn.is_some()),
    ];
    let (code, _pinned) = store_code(context, given.zip_file, &elsewhere, "function code").await?;
    let _sizes = super::layers::check_size(context, &code, &configuration.layers).await?;
    let publishes = input.publish == Some(true) || input.publish_to.is_some();
    let function = Function {
        configuration,
        code,
        tags,
        revision_id: uuid(),
        last_modified_epoch_millis: context.now_epoch_millis(),
        next_version: 1,
        deleting: false,
        name,
    };
    let key = keys::function(&function.name);
    context
        .change(|| {
            if context.store.get(&key).is_some() {
                return Err(already_exists(&function.name));
            }
            // It may have begun to be deleted while the package was unpacked.
            super::capacity_providers::living(
                context,
                &function.configuration.managed_instances.capacity_provider,
            )?;
            let mut function = function.clone();
            let mut transaction = Transaction::default().when(Precondition::Absent(key.clone()));
            let mut shown = view::latest(&context.home, &function, false);
            if publishes {
                let published = versions::prepare(context, &mut function, input.publish_to.is_some(), None)?;
                shown = view::version(&context.home, &published.version);
                transaction = published.into(transaction);
            }
            shown.state = Some("Pending".into());
            shown.state_reason = Some("The function is being created.".into());
            shown.state_reason_code = Some("Creating".into());
            Ok((transaction.put(key.clone(), &function), shown))
        })
        .await
}

fn already_exists(name: &str) -> Fault {
    fault("ResourceConflictException", format!("Function already exist: {name}"))
}

/// An empty `VpcConfig` is the usual way to say "no VPC".
fn names_a_network(vpc: &types::VpcConfig) -> bool {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    given(&vpc.subnet_ids) || given(&vpc.security_group_ids)
}

fn is_active(tracing: Option<&types::TracingConfig>) -> bool {
    tracing.is_some_and(|tracing| tracing.mode.as_deref() == Some("Active"))
}

fn uses_snap_start(snap_start: Option<&types::SnapStart>) -> bool {
    snap_start.is_some_and(|snap_start| snap_start.apply_on.as_deref() == Some("PublishedVersions"))
}

/// Checks and keeps a deployment package, off this thread. It stays while the pin lives: until the document that
/// names it is committed.
pub async fn store_code(
    context: &Context,
    zip: Option<Blob>,
    elsewhere: &[(&str, bool)],
    what: &str,
) -> Result<(Code, Pinned), Fault> {
    refuse(elsewhere)?;
    let Some(Blob(bytes)) = zip else {
        return Err(invalid(format!("Please provide a source for {what}.")));
    };
    let size_bytes = bytes.len() as u64;
    let artifacts = context.artifacts.clone();
    let stored = tokio::task::spawn_blocking(move || artifacts.put(&bytes)).await;
    match stored {
        Ok(Ok(pinned)) => Ok((Code { sha256: pinned.sha256.clone(), size_bytes }, pinned)),
        Ok(Err(error @ ArtifactError::Zipped)) => {
            Err(Fault::new("RequestEntityTooLargeException", 413, error.to_string()))
        }
        Ok(Err(error @ (ArtifactError::Unreadable(_) | ArtifactError::Unzipped))) => {
            Err(invalid(error.to_string()))
        }
        Ok(Err(error)) => Err(fault("ServiceException", format!("The package couldn't be stored: {error}"))),
        Err(_) => Err(fault("ServiceException", "The package couldn't be unpacked.")),
    }
}

pub async fn get(context: &Context, input: GetFunctionRequest) -> Result<GetFunctionResponse, Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    let (configuration, tags) = shown(context, &named)?;
    Ok(GetFunctionResponse {
        configuration: Some(configuration),
        code: Some(types::FunctionCodeLocation { repository_type: Some("S3".into()), ..Default::default() }),
        tags: (!tags.is_empty()).then_some(tags),
        ..Default::default()
    })
}

pub async fn get_configuration(
    context: &Context,
    input: GetFunctionConfigurationRequest,
) -> Result<FunctionConfiguration, Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    Ok(shown(context, &named)?.0)
}

type Tags = std::collections::BTreeMap<String, String>;

fn shown(context: &Context, named: &Named) -> Result<(FunctionConfiguration, Tags), Fault> {
    Ok(match names::find(context, named)? {
        Found::Latest(function) => {
            (view::latest(&context.home, &function, named.qualifier.is_some()), function.tags)
        }
        Found::Version(function, version) => (view::version(&context.home, &version), function.tags),
    })
}

pub async fn update_code(
    context: &Context,
    input: UpdateFunctionCodeRequest,
) -> Result<FunctionConfiguration, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let (function, _) = names::living_function(context, &name)?;
    check_revision(&function, input.revision_id.as_deref())?;
    if input.image_uri.is_some() {
        return Err(invalid("Please don't provide ImageUri when updating a function with packageType Zip."));
    }
    let elsewhere = [
        ("S3Bucket", input.s3_bucket.is_some() || input.s3_key.is_some()),
        ("SourceKMSKeyArn", input.source_kms_key_arn.is_some()),
    ];
    let (code, _pinned) = store_code(context, input.zip_file, &elsewhere, "function code").await?;
    let _layers = super::layers::check_size(context, &code, &function.configuration.layers).await?;
    let settings = || Settings { architectures: input.architectures.clone(), ..Settings::default() };
    let publishes = input.publish == Some(true) || input.publish_to.is_some();
    change_latest(context, &name, input.revision_id.as_deref(), input.dry_run == Some(true), |function| {
        function.configuration = configuration::update(context, function.configuration.clone(), settings())?;
        function.code = code.clone();
        if publishes {
            versions::prepare(context, function, input.publish_to.is_some(), None).map(Some)
        } else {
            Ok(None)
        }
    })
    .await
}

pub async fn update_configuration(
    context: &Context,
    input: UpdateFunctionConfigurationRequest,
) -> Result<FunctionConfiguration, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    refuse(&[
        ("VpcConfig", input.vpc_config.as_ref().is_some_and(names_a_network)),
        (
            "DeadLetterConfig",
            input
                .dead_letter_config
                .as_ref()
                .is_some_and(|config| config.target_arn.as_ref().is_some_and(|arn| !arn.is_empty())),
        ),
        ("KMSKeyArn", input.kms_key_arn.as_ref().is_some_and(|arn| !arn.is_empty())),
        ("TracingConfig Active", is_active(input.tracing_config.as_ref())),
        ("FileSystemConfigs", input.file_system_configs.as_ref().is_some_and(|configs| !configs.is_empty())),
        ("ImageConfig", input.image_config.is_some()),
        ("SnapStart", uses_snap_start(input.snap_start.as_ref())),
        ("DurableConfig", input.durable_config.is_some()),
        ("AcceleratorConfig", input.accelerator_config.is_some()),
        ("RuntimeConfig", input.runtime_config.is_some()),
    ])?;
    configuration::check_provider_arn(context, input.capacity_provider_config.as_ref())?;
    let settings = || Settings {
        runtime: input.runtime.clone(),
        role: input.role.clone(),
        handler: input.handler.clone(),
        description: input.description.clone(),
        timeout: input.timeout,
        memory_size: input.memory_size,
        environment: input.environment.clone(),
        ephemeral_storage: input.ephemeral_storage.clone(),
        logging_config: input.logging_config.clone(),
        capacity_provider_config: input.capacity_provider_config.clone(),
        architectures: None,
        layers: input.layers.clone(),
    };
    let named = super::layers::resolve(context, input.layers.as_deref().unwrap_or_default())?;
    let (function, _) = names::living_function(context, &name)?;
    let _layers = super::layers::check_size(context, &function.code, &named).await?;
    change_latest(context, &name, input.revision_id.as_deref(), false, |function| {
        function.configuration = configuration::update(context, function.configuration.clone(), settings())?;
        Ok(None)
    })
    .await
}

pub fn check_revision(function: &Function, revision_id: Option<&str>) -> Result<(), Fault> {
    if revision_id.is_some_and(|given| given != function.revision_id) {
        let text = "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id";
        return Err(fault("PreconditionFailedException", text));
    }
    Ok(())
}

/// Changes `$LATEST`, and publishes it in the same commit if the change says so.
async fn change_latest(
    context: &Context,
    name: &str,
    revision_id: Option<&str>,
    dry_run: bool,
    mut apply: impl FnMut(&mut Function) -> Result<Option<versions::Published>, Fault>,
) -> Result<FunctionConfiguration, Fault> {
    context
        .change(|| {
            let (mut function, revision) = names::living_function(context, name)?;
            check_revision(&function, revision_id)?;
            function.revision_id = uuid();
            function.last_modified_epoch_millis = context.now_epoch_millis();
            let published = apply(&mut function)?;
            let mut shown = view::latest(&context.home, &function, false);
            let mut transaction = replace(&function, revision);
            if let Some(published) = published {
                shown = view::version(&context.home, &published.version);
                transaction = published.into(transaction);
            }
            Ok((if dry_run { Transaction::default() } else { transaction }, shown))
        })
        .await
}

pub fn replace(function: &Function, revision: Revision) -> Transaction {
    let key = keys::function(&function.name);
    Transaction::default().when(Precondition::Unchanged(key.clone(), revision)).put(key, function)
}

pub async fn delete(
    context: &Context,
    input: DeleteFunctionRequest,
) -> Result<DeleteFunctionResponse, Fault> {
    let Named { name, qualifier } = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    context
        .change(|| {
            let (mut function, revision) = names::function(context, &name)?;
            let transaction = match qualifier.as_deref().map(Qualifier::parse) {
                Some(Qualifier::Latest) => {
                    return Err(invalid("$LATEST version cannot be deleted without deleting the function."));
                }
                Some(Qualifier::Alias(_)) => {
                    return Err(invalid("Deletion of aliases is not currently supported."));
                }
                Some(version) => {
                    let key = keys::version(&name, &version.to_string());
                    let missing = || names::not_found(context, &name, qualifier.as_deref());
                    let (mut version, revision) =
                        context.document::<FunctionVersion>(&key)?.ok_or_else(missing)?;
                    version.state = VersionState::Deleting;
                    Transaction::default()
                        .when(Precondition::Unchanged(key.clone(), revision))
                        .put(key, &version)
                }
                None => {
                    function.deleting = true;
                    let mut transaction = replace(&function, revision);
                    for (key, stored) in context.store.scan(&keys::versions_of(&name), None, usize::MAX) {
                        if let Some((mut version, _)) = context.document::<FunctionVersion>(&key)? {
                            version.state = VersionState::Deleting;
                            transaction = transaction
                                .when(Precondition::Unchanged(key.clone(), stored.revision))
                                .put(key, &version);
                        }
                    }
                    transaction
                }
            };
            Ok((transaction, ()))
        })
        .await?;
    Ok(DeleteFunctionResponse { status_code: Some(202) })
}

pub async fn list(context: &Context, input: ListFunctionsRequest) -> Result<ListFunctionsResponse, Fault> {
    let functions: Vec<Function> = context.all(keys::FUNCTIONS)?;
    let mut shown = Vec::new();
    for function in functions {
        let key = keys::versions_of(&function.name);
        shown.push((key.clone(), view::latest(&context.home, &function, input.function_version.is_some())));
        if input.function_version.is_some() {
            for version in context.all::<FunctionVersion>(&key)? {
                shown.push((
                    keys::version(&version.function, &version.version),
                    view::version(&context.home, &version),
                ));
            }
        }
    }
    let (mut functions, next_marker) = page(shown, input.marker.as_deref(), input.max_items);
    for function in &mut functions {
        // These are only in GetFunction and GetFunctionConfiguration.
        function.state = None;
        (function.state_reason, function.state_reason_code) = (None, None);
        function.last_update_status = None;
        (function.last_update_status_reason, function.last_update_status_reason_code) = (None, None);
    }
    Ok(ListFunctionsResponse { functions: Some(functions), next_marker })
}
