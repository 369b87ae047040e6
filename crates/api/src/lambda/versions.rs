//! Publishing: a numbered version, or `$LATEST.PUBLISHED`, which each publish to it replaces.

use ondol_core::attached::Attached;
use ondol_core::function::{
    Function, FunctionVersion, LastUpdate, Publication, Reason, ScalingConfig, VersionState,
};
use ondol_core::identity::LATEST_PUBLISHED;
use ondol_store::{Precondition, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    FunctionConfiguration, ListVersionsByFunctionRequest, ListVersionsByFunctionResponse,
    PublishVersionRequest,
};

use super::{capacity_providers, functions, names, page, view};
use crate::context::{Context, publication_id, uuid};
use crate::faults::{being_deleted, fault, invalid};

/// A version as a publish leaves it, and what must not have changed meanwhile.
#[derive(Debug)]
pub struct Published {
    pub version: FunctionVersion,
    precondition: Precondition,
}

impl Published {
    /// The version as the publishing answer shows it.
    pub fn shown(&self, context: &Context) -> FunctionConfiguration {
        let shown = view::version(&context.home, &self.version);
        if !self.version.publication.configuration.is_on_demand() {
            return shown;
        }
        FunctionConfiguration {
            last_update_status: None,
            // Becoming Active is a change of its own.
            revision_id: Some(uuid()),
            ..view::being_created(shown)
        }
    }

    /// Adds the version to a transaction.
    pub fn into(self, transaction: Transaction) -> Transaction {
        let key = keys::version(&self.version.function, &self.version.version);
        transaction.when(self.precondition).put(key, &self.version)
    }
}

pub async fn publish(
    context: &Context,
    input: PublishVersionRequest,
) -> Result<FunctionConfiguration, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    context
        .change_of(&name, || {
            let (mut function, revision) = names::living_function(context, &name)?;
            functions::check_revision(&function, input.revision_id.as_deref())?;
            let current = view::code_sha256(&function.code);
            if let Some(given) = input.code_sha256.as_ref().filter(|given| **given != current) {
                return Err(invalid(format!(
                    "CodeSHA256 ({given}) is different from current CodeSHA256 in $LATEST ({current}). Please try again with the CodeSHA256 in $LATEST."
                )));
            }
            if input.publish_to.is_none() {
                if let Some(same) = unchanged(context, &function)? {
                    return Ok((Transaction::default(), view::version(&context.home, &same)));
                }
            }
            let description = input.description.clone();
            let published = prepare(context, &mut function, input.publish_to.is_some(), description)?;
            function.revision_id = uuid();
            let shown = published.shown(context);
            let transaction = published.into(functions::replace(&function, revision));
            Ok((transaction, shown))
        })
        .await
}

/// The newest numbered version, if it is what `$LATEST` is now.
fn unchanged(context: &Context, function: &Function) -> Result<Option<FunctionVersion>, Fault> {
    let versions: Vec<FunctionVersion> = context.all(&keys::versions_of(&function.name))?;
    let newest = versions.into_iter().rfind(|version| !version.is_latest_published());
    Ok(newest.filter(|version| {
        // On demand an update counts, though it changed nothing.
        if let Some(latest) = function.latest_publication {
            return version.published_from == Some(latest);
        }
        version.publication.code == function.code
            && version.publication.configuration == function.configuration
            && version.state != VersionState::Deleting
    }))
}

/// Freezes `$LATEST` as a version. The control loops bring it up.
pub fn prepare(
    context: &Context,
    function: &mut Function,
    to_latest_published: bool,
    description: Option<String>,
) -> Result<Published, Fault> {
    let Some(provider) = function.configuration.capacity_provider() else {
        return on_demand(context, function, to_latest_published, description);
    };
    capacity_providers::living(context, provider)?;
    let publication = Publication {
        id: publication_id(),
        configuration: function.configuration.clone(),
        code: function.code.clone(),
    };
    let number =
        if to_latest_published { LATEST_PUBLISHED.to_owned() } else { function.next_version.to_string() };
    let key = keys::version(&function.name, &number);
    let existing = context.document::<FunctionVersion>(&key)?;
    let limit = context.quotas.function_versions_per_capacity_provider as usize;
    if existing.is_none() && capacity_providers::versions_of(context, provider)?.len() >= limit {
        return Err(fault(
            "FunctionVersionsPerCapacityProviderLimitExceededException",
            format!("The capacity provider has reached the limit of {limit} function versions."),
        ));
    }
    if !to_latest_published {
        function.next_version += 1;
    }
    let fresh = FunctionVersion {
        function: function.name.clone(),
        version: number,
        description: description.unwrap_or_else(|| function.configuration.description.clone()),
        publication,
        serving: None,
        state: VersionState::Pending,
        state_reason: Some(Reason::creating()),
        last_update: LastUpdate::InProgress,
        scaling: ScalingConfig::default(),
        applied_scaling: None,
        revision_id: uuid(),
        last_modified_epoch_millis: context.now_epoch_millis(),
        attached: Attached::default(),
        published_from: None,
    };
    let Some((before, revision)) = existing else {
        return Ok(Published { version: fresh, precondition: Precondition::Absent(key) });
    };
    let precondition = Precondition::Unchanged(key, revision);
    let arn = context.home.function_arn(&function.name, None);
    let (scaling, applied_scaling) = (before.scaling, before.applied_scaling);
    let version = match before.state {
        VersionState::Deleting => {
            return Err(being_deleted());
        }
        VersionState::Active if before.last_update == LastUpdate::InProgress => {
            let text = format!(
                "The operation cannot be performed at this time. An update is in progress for resource: {arn}"
            );
            return Err(fault("ResourceConflictException", text));
        }
        // What serves goes on until the new publication is ready.
        VersionState::Active => FunctionVersion {
            serving: before.serving,
            state: VersionState::Active,
            state_reason: None,
            scaling,
            applied_scaling,
            ..fresh
        },
        // Nothing runs; a reactivation starts what was published last.
        VersionState::Deactivated | VersionState::Deactivating => FunctionVersion {
            state: before.state,
            state_reason: None,
            last_update: LastUpdate::Successful,
            scaling,
            applied_scaling,
            ..fresh
        },
        VersionState::Pending | VersionState::Failed => FunctionVersion { scaling, ..fresh },
    };
    Ok(Published { version, precondition })
}

/// A version of a Lambda (default) function: it runs on demand, so it is there at once.
fn on_demand(
    context: &Context,
    function: &mut Function,
    to_latest_published: bool,
    description: Option<String>,
) -> Result<Published, Fault> {
    if to_latest_published {
        return Err(invalid(
            "PublishTo isn't supported for Lambda Default functions. Leave it out to publish a numbered version.",
        ));
    }
    let number = function.next_version.to_string();
    function.next_version += 1;
    let publication = Publication {
        id: publication_id(),
        configuration: function.configuration.clone(),
        code: function.code.clone(),
    };
    let key = keys::version(&function.name, &number);
    let version = FunctionVersion {
        function: function.name.clone(),
        version: number,
        description: description.unwrap_or_else(|| function.configuration.description.clone()),
        published_from: function.latest_publication,
        serving: Some(publication.clone()),
        publication,
        state: VersionState::Active,
        state_reason: None,
        last_update: LastUpdate::Successful,
        scaling: ScalingConfig::default(),
        applied_scaling: None,
        revision_id: uuid(),
        last_modified_epoch_millis: context.now_epoch_millis(),
        attached: Attached::default(),
    };
    Ok(Published { version, precondition: Precondition::Absent(key) })
}

pub async fn list(
    context: &Context,
    input: ListVersionsByFunctionRequest,
) -> Result<ListVersionsByFunctionResponse, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let (function, _) = names::function(context, &name)?;
    let mut shown = vec![(keys::versions_of(&name), view::latest(&context.home, &function, true))];
    for version in context.all::<FunctionVersion>(&keys::versions_of(&name))? {
        shown.push((keys::version(&name, &version.version), view::version(&context.home, &version)));
    }
    let (versions, next_marker) = page(shown, input.marker.as_deref(), input.max_items);
    let versions = versions.into_iter().map(view::in_listing).collect();
    Ok(ListVersionsByFunctionResponse { versions: Some(versions), next_marker })
}
