//! Functions: create, read, update, delete, list. These touch `$LATEST`; publishing is in `versions`.

use ondol_core::attached::{Alias, Attached};
use ondol_core::function::{Code, Function, FunctionVersion, RecursiveLoop, VersionState};
use ondol_core::identity::Qualifier;
use ondol_core::runtime::SNAP_START;
use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    self, CreateFunctionRequest, DeleteFunctionRequest, DeleteFunctionResponse, FunctionConfiguration,
    GetFunctionConfigurationRequest, GetFunctionRequest, GetFunctionResponse, ListFunctionsRequest,
    ListFunctionsResponse, UpdateFunctionCodeRequest, UpdateFunctionConfigurationRequest,
};

use super::configuration::{self, Settings, refuse};
use super::names::{self, Found, Named};
use super::packages::{self, S3Object, Source};
use super::pass::Pass;
use super::{account, code_signing, page_size, versions, view};
use crate::context::{Context, publication_id, uuid};
use crate::faults::{fault, invalid};

pub async fn create(context: &Context, input: CreateFunctionRequest) -> Result<FunctionConfiguration, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    refuse(&[
        ("VpcConfig", input.vpc_config.as_ref().is_some_and(names_a_network)),
        ("PackageType Image", input.package_type.as_deref() == Some("Image")),
        ("KMSKeyArn", input.kms_key_arn.is_some_and(|arn| !arn.is_empty())),
        ("TracingConfig Active", is_active(input.tracing_config.as_ref())),
        ("FileSystemConfigs", input.file_system_configs.is_some_and(|configs| !configs.is_empty())),
        ("ImageConfig", input.image_config.is_some()),
        ("DurableConfig", input.durable_config.is_some()),
        ("AcceleratorConfig", input.accelerator_config.is_some()),
        ("RuntimeConfig", input.runtime_config.is_some()),
        ("TenancyConfig", input.tenancy_config.is_some()),
    ])?;
    refuse_snap_start(input.snap_start.as_ref(), input.runtime.as_deref().unwrap_or_default())?;
    let tags = input.tags.unwrap_or_default();
    super::tags::check(&tags)?;
    if let Some(arn) = &input.code_signing_config_arn {
        code_signing::check_exists(context, arn)?;
        code_signing::check_package(context, Some(arn))?;
    }
    let pass = Pass::of_function(
        context,
        input.function_name.as_deref(),
        input.role.as_deref(),
        input.capacity_provider_config.as_ref(),
    );
    pass.check(context)?;
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
        dead_letter_config: input.dead_letter_config,
        vpc_config: input.vpc_config,
    };
    let arns = settings.layers.clone().unwrap_or_default();
    let configuration = configuration::create(context, &name, settings)?;
    if context.store.get(&keys::function(&name)).is_some() {
        return Err(already_exists(&name));
    }
    // From here on the layers' packages stay, if they are still there.
    let _layers = super::layers::pin(context, &configuration.layers);
    super::layers::resolve(context, &arns)?;
    let given = input.code.unwrap_or_default();
    refuse(&[
        ("ImageUri", given.image_uri.is_some()),
        ("SourceKMSKeyArn", given.source_kms_key_arn.is_some()),
        ("S3ObjectStorageMode REFERENCE", given.s3_object_storage_mode.as_deref() == Some("REFERENCE")),
    ])?;
    let source = Source {
        zip: given.zip_file,
        s3: S3Object::of(given.s3_bucket, given.s3_key, given.s3_object_version),
    };
    let (code, _pinned) = packages::store(context, source, "function code").await?;
    account::check_storage(context, &code)?;
    let _sizes = super::layers::check_size(context, &code, &configuration.layers).await?;
    let publishes = input.publish == Some(true) || input.publish_to.is_some();
    let function = Function {
        latest_publication: configuration.is_on_demand().then(publication_id),
        configuration,
        code,
        tags,
        revision_id: uuid(),
        last_modified_epoch_millis: context.now_epoch_millis(),
        next_version: 1,
        deleting: false,
        reserved_concurrency: None,
        recursive_loop: RecursiveLoop::default(),
        code_signing_config_arn: input.code_signing_config_arn,
        attached: Attached::default(),
        name,
    };
    let key = keys::function(&function.name);
    context
        .change_of(&function.name, || {
            if context.store.get(&key).is_some() {
                return Err(already_exists(&function.name));
            }
            // It may have begun to be deleted while the package was unpacked.
            if let Some(provider) = function.configuration.capacity_provider() {
                super::capacity_providers::living(context, provider)?;
            }
            let mut function = function.clone();
            let mut transaction = Transaction::default().when(Precondition::Absent(key.clone()));
            let mut shown = view::latest(&context.home, &function, false);
            if publishes {
                let published = versions::prepare(context, &mut function, input.publish_to.is_some(), None)?;
                shown = published.shown(context);
                transaction = published.into(transaction);
            }
            shown = view::being_created(shown);
            if function.configuration.is_on_demand() {
                // Also where it was published at once, the function itself is what was created.
                shown.function_arn = Some(context.home.function_arn(&function.name, None));
                shown.last_update_status = None;
                // Becoming Active is a change of its own.
                shown.revision_id = Some(uuid());
            }
            Ok((transaction.put(key.clone(), &function), shown))
        })
        .await
}

fn already_exists(name: &str) -> Fault {
    fault("ResourceConflictException", format!("Function already exist: {name}"))
}

/// Runtimes that can't have SnapStart anywhere are told so; for the others it's this version that has none.
fn refuse_snap_start(snap_start: Option<&types::SnapStart>, runtime: &str) -> Result<(), Fault> {
    if uses_snap_start(snap_start) && !runtime.is_empty() && !SNAP_START.contains(&runtime) {
        return Err(invalid(format!("{runtime} is not supported for SnapStart enabled functions.")));
    }
    refuse(&[("SnapStart", uses_snap_start(snap_start))])
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

pub async fn get(context: &Context, input: GetFunctionRequest) -> Result<GetFunctionResponse, Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    let Shown { configuration, code, tags, reserved_concurrency } = shown(context, &named)?;
    let location = context.package_link(&code.sha256);
    let may_list_tags = tags.is_empty() || super::rules::may_list_tags(context, &named.name);
    Ok(GetFunctionResponse {
        configuration: Some(configuration),
        code: Some(types::FunctionCodeLocation {
            repository_type: Some("S3".into()),
            location: Some(location),
            ..Default::default()
        }),
        tags_error: (!tags.is_empty() && !may_list_tags).then(|| types::TagsError {
            error_code: Some("AccessDeniedException".into()),
            message: Some("The caller isn't allowed to list the function's tags.".into()),
        }),
        tags: (!tags.is_empty() && may_list_tags).then_some(tags),
        concurrency: reserved_concurrency.map(|reserved| types::Concurrency {
            reserved_concurrent_executions: i32::try_from(reserved).ok(),
        }),
    })
}

pub async fn get_configuration(
    context: &Context,
    input: GetFunctionConfigurationRequest,
) -> Result<FunctionConfiguration, Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    Ok(shown(context, &named)?.configuration)
}

/// What the reading operations show of a function, a version or an alias.
struct Shown {
    configuration: FunctionConfiguration,
    code: Code,
    tags: std::collections::BTreeMap<String, String>,
    reserved_concurrency: Option<u32>,
}

fn shown(context: &Context, named: &Named) -> Result<Shown, Fault> {
    show(context, names::find(context, named)?, named.qualifier.is_some())
}

fn show(context: &Context, found: Found, is_qualified: bool) -> Result<Shown, Fault> {
    Ok(match found {
        Found::Latest(function) => Shown {
            configuration: view::latest(&context.home, &function, is_qualified),
            code: function.code,
            tags: function.tags,
            reserved_concurrency: function.reserved_concurrency,
        },
        Found::Version(function, version) => Shown {
            configuration: view::version(&context.home, &version),
            code: version.publication.code,
            tags: function.tags,
            reserved_concurrency: function.reserved_concurrency,
        },
        Found::Alias(alias, target) => {
            let mut shown = show(context, *target, true)?;
            let arn = context.home.function_arn(&alias.function, Some(&alias.name));
            shown.configuration.function_arn = Some(arn);
            shown
        }
    })
}

pub async fn update_code(
    context: &Context,
    input: UpdateFunctionCodeRequest,
) -> Result<FunctionConfiguration, Fault> {
    let name = names::latest(context, input.function_name.as_deref())?;
    let (function, _) = names::living_function(context, &name)?;
    check_revision(&function, input.revision_id.as_deref())?;
    if input.image_uri.is_some() {
        return Err(invalid("Please don't provide ImageUri when updating a function with packageType Zip."));
    }
    refuse(&[
        ("SourceKMSKeyArn", input.source_kms_key_arn.is_some()),
        ("S3ObjectStorageMode REFERENCE", input.s3_object_storage_mode.as_deref() == Some("REFERENCE")),
    ])?;
    code_signing::check_package(context, function.code_signing_config_arn.as_deref())?;
    let source = Source {
        zip: input.zip_file,
        s3: S3Object::of(input.s3_bucket, input.s3_key, input.s3_object_version),
    };
    let (code, _pinned) = packages::store(context, source, "function code").await?;
    account::check_storage(context, &code)?;
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
    let name = names::latest(context, input.function_name.as_deref())?;
    let (function, _) = names::living_function(context, &name)?;
    check_revision(&function, input.revision_id.as_deref())?;
    refuse(&[
        ("VpcConfig", input.vpc_config.as_ref().is_some_and(names_a_network)),
        ("KMSKeyArn", input.kms_key_arn.as_ref().is_some_and(|arn| !arn.is_empty())),
        ("TracingConfig Active", is_active(input.tracing_config.as_ref())),
        ("FileSystemConfigs", input.file_system_configs.as_ref().is_some_and(|configs| !configs.is_empty())),
        ("ImageConfig", input.image_config.is_some()),
        ("DurableConfig", input.durable_config.is_some()),
        ("AcceleratorConfig", input.accelerator_config.is_some()),
        ("RuntimeConfig", input.runtime_config.is_some()),
    ])?;
    let runtime = input.runtime.as_deref().unwrap_or(&function.configuration.runtime);
    refuse_snap_start(input.snap_start.as_ref(), runtime)?;
    let pass = Pass::of_function(
        context,
        input.function_name.as_deref(),
        input.role.as_deref(),
        input.capacity_provider_config.as_ref(),
    );
    pass.check(context)?;
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
        dead_letter_config: input.dead_letter_config.clone(),
        vpc_config: input.vpc_config.clone(),
    };
    let named = super::layers::resolve(context, input.layers.as_deref().unwrap_or_default())?;
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
        .change_of(name, || {
            let (mut function, revision) = names::living_function(context, name)?;
            check_revision(&function, revision_id)?;
            if dry_run {
                // Checked as it would be, and shown with nothing of it recorded.
                let (stored, modified) = (function.revision_id.clone(), function.last_modified_epoch_millis);
                apply(&mut function)?;
                (function.revision_id, function.last_modified_epoch_millis) = (stored, modified);
                return Ok((Transaction::default(), view::latest(&context.home, &function, false)));
            }
            function.revision_id = uuid();
            function.last_modified_epoch_millis = context.now_epoch_millis();
            if function.configuration.is_on_demand() {
                function.latest_publication = Some(publication_id());
            }
            let published = apply(&mut function)?;
            let mut shown = view::latest(&context.home, &function, false);
            let mut transaction = replace(&function, revision);
            if function.configuration.is_on_demand() {
                shown = being_updated(shown);
            }
            if let Some(published) = published {
                shown = published.shown(context);
                transaction = published.into(transaction);
            }
            Ok((transaction, shown))
        })
        .await
}

/// An update as its answer shows it: under way, though it may be over by the next request.
fn being_updated(shown: FunctionConfiguration) -> FunctionConfiguration {
    FunctionConfiguration {
        last_update_status: Some("InProgress".into()),
        last_update_status_reason: Some("The function is being created.".into()),
        last_update_status_reason_code: Some("Creating".into()),
        // Its end is a change of its own.
        revision_id: Some(uuid()),
        ..shown
    }
}

pub fn replace(function: &Function, revision: Revision) -> Transaction {
    let key = keys::function(&function.name);
    Transaction::default().when(Precondition::Unchanged(key.clone(), revision)).put(key, function)
}

pub async fn delete(
    context: &Context,
    input: DeleteFunctionRequest,
) -> Result<DeleteFunctionResponse, Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    let status_code = context
        .change_of(&named.name, || match named.qualifier.as_deref().map(Qualifier::parse) {
            Some(Qualifier::Latest) => {
                Err(invalid("$LATEST version cannot be deleted without deleting the function."))
            }
            Some(Qualifier::Alias(_)) => {
                names::function(context, &named.name)?;
                Err(invalid("Deletion of aliases is not currently supported."))
            }
            Some(_) => delete_version(context, &named),
            None => delete_whole(context, &named.name),
        })
        .await?;
    Ok(DeleteFunctionResponse { status_code: Some(status_code) })
}

/// What runs on demand goes at once; what runs on managed instances when its last execution environment ended.
const GONE: i32 = 204;
const GOING: i32 = 202;

fn delete_version(context: &Context, named: &Named) -> Result<(Transaction, i32), Fault> {
    let qualifier = named.qualifier.as_deref().unwrap_or_default();
    let (function, _) = names::function(context, &named.name)?;
    let key = keys::version(&named.name, qualifier);
    let Some((mut version, revision)) = context.document::<FunctionVersion>(&key)? else {
        // As on AWS: a version that is not there is deleted, where versions have no life of their own.
        return if function.configuration.is_on_demand() {
            Ok((Transaction::default(), GONE))
        } else {
            Err(names::not_found(context, &named.name, Some(qualifier)))
        };
    };
    let aliases: Vec<Alias> = context.all(&keys::aliases_of(&named.name))?;
    let pointing: Vec<String> = aliases
        .iter()
        .filter(|alias| {
            alias.version == qualifier || alias.additional_version_weights.contains_key(qualifier)
        })
        .map(|alias| alias.name.clone())
        .collect();
    if !pointing.is_empty() {
        let text = format!(
            "Unable to delete version because the following aliases reference it: [{}]",
            pointing.join(", ")
        );
        return Err(fault("ResourceConflictException", text));
    }
    let unchanged = Transaction::default().when(Precondition::Unchanged(key.clone(), revision));
    if function.configuration.is_on_demand() {
        return Ok((unchanged.delete(key), GONE));
    }
    version.state = VersionState::Deleting;
    Ok((unchanged.put(key, &version), GOING))
}

fn delete_whole(context: &Context, name: &str) -> Result<(Transaction, i32), Fault> {
    let (mut function, revision) = names::function(context, name)?;
    let is_on_demand = function.configuration.is_on_demand();
    let key = keys::function(name);
    let mut transaction = Transaction::default().when(Precondition::Unchanged(key.clone(), revision));
    function.deleting = true;
    transaction = if is_on_demand { transaction.delete(key) } else { transaction.put(key, &function) };
    for (key, stored) in context.store.scan(&keys::versions_of(name), None, usize::MAX) {
        let Some((mut version, _)) = context.document::<FunctionVersion>(&key)? else { continue };
        version.state = VersionState::Deleting;
        transaction = transaction.when(Precondition::Unchanged(key.clone(), stored.revision));
        transaction = if is_on_demand { transaction.delete(key) } else { transaction.put(key, &version) };
    }
    for (key, _) in context.store.scan(&keys::aliases_of(name), None, usize::MAX) {
        transaction = transaction.delete(key);
    }
    Ok((transaction, if is_on_demand { GONE } else { GOING }))
}

/// Only what the page shows is read.
pub async fn list(context: &Context, input: ListFunctionsRequest) -> Result<ListFunctionsResponse, Fault> {
    let wants_versions = input.function_version.is_some();
    let mut page = Page { size: page_size(input.max_items), functions: Vec::new(), last: String::new() };
    let mut after = None;
    let mut is_whole = true;
    // A marker is the last item's place: a function's name, or that and a version's.
    if let Some(marker) = input.marker.as_deref() {
        let (name, version) = match marker.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (marker, None),
        };
        if wants_versions {
            is_whole = page.push_versions(context, name, version)?;
        }
        after = Some(keys::function(name));
    }
    while is_whole {
        let next = context.store.scan(keys::FUNCTIONS, after.as_deref(), 1).into_iter().next();
        let Some((key, stored)) = next else { break };
        let function: Function = stored.read(&key).map_err(|error| crate::context::broken(&error))?;
        let shown = view::latest(&context.home, &function, wants_versions);
        is_whole = page.push(shown, function.name.clone())
            && (!wants_versions || page.push_versions(context, &function.name, None)?);
        after = Some(key);
    }
    let next_marker = (!is_whole).then_some(page.last);
    Ok(ListFunctionsResponse { functions: Some(page.functions), next_marker })
}

/// One page of functions, and the place of its last.
struct Page {
    size: usize,
    functions: Vec<FunctionConfiguration>,
    last: String,
}

impl Page {
    /// False if there was no room for it.
    fn push(&mut self, shown: FunctionConfiguration, place: String) -> bool {
        if self.functions.len() == self.size {
            return false;
        }
        self.functions.push(view::in_listing(shown));
        self.last = place;
        true
    }

    fn push_versions(&mut self, context: &Context, name: &str, after: Option<&str>) -> Result<bool, Fault> {
        let prefix = keys::versions_of(name);
        let after = after.map(|version| format!("{prefix}{version}"));
        for (key, stored) in context.store.scan(&prefix, after.as_deref(), usize::MAX) {
            let version: FunctionVersion =
                stored.read(&key).map_err(|error| crate::context::broken(&error))?;
            let place = format!("{name}/{}", key.strip_prefix(&prefix).unwrap_or_default());
            if !self.push(view::version(&context.home, &version), place) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
