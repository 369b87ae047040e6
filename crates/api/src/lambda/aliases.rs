//! Aliases: names for versions, with a share of the traffic for another version if wished.

use std::collections::BTreeMap;

use ondol_core::attached::{Alias, Attached};
use ondol_core::identity::{LATEST, LATEST_PUBLISHED};
use ondol_store::{Precondition, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    AliasConfiguration, AliasRoutingConfiguration, CreateAliasRequest, DeleteAliasRequest, GetAliasRequest,
    ListAliasesRequest, ListAliasesResponse, UpdateAliasRequest,
};

use super::names::{self, Named};
use super::{holder, page};
use crate::context::{Context, uuid};
use crate::faults::{fault, invalid};

pub async fn create(context: &Context, input: CreateAliasRequest) -> Result<AliasConfiguration, Fault> {
    let function = names::unqualified(context, input.function_name.as_deref())?;
    let name = input.name.unwrap_or_default();
    let version = input.function_version.unwrap_or_default();
    let weights = input.routing_config.and_then(|routing| routing.additional_version_weights);
    let key = keys::alias(&function, &name);
    context
        .change_of(&function, || {
            names::living_function(context, &function)?;
            version_must_exist(context, &function, &version)?;
            if context.store.get(&key).is_some() {
                let arn = context.home.function_arn(&function, Some(&name));
                return Err(fault("ResourceConflictException", format!("Alias already exists: {arn}")));
            }
            let weights = weights.clone().unwrap_or_default();
            check_weights(context, &function, &version, &weights)?;
            let alias = Alias {
                function: function.clone(),
                name: name.clone(),
                version: version.clone(),
                description: input.description.clone().unwrap_or_default(),
                additional_version_weights: weights,
                revision_id: uuid(),
                attached: Attached::default(),
            };
            let absent = Precondition::Absent(key.clone());
            Ok((Transaction::default().when(absent).put(key.clone(), &alias), shown(context, &alias)))
        })
        .await
}

pub async fn get(context: &Context, input: GetAliasRequest) -> Result<AliasConfiguration, Fault> {
    let function = names::unqualified(context, input.function_name.as_deref())?;
    let name = input.name.unwrap_or_default();
    let found = context.document::<Alias>(&keys::alias(&function, &name))?;
    let (alias, _) = found.ok_or_else(|| holder::no_alias(context, &function, &name))?;
    Ok(shown(context, &alias))
}

pub async fn update(context: &Context, input: UpdateAliasRequest) -> Result<AliasConfiguration, Fault> {
    let function = names::unqualified(context, input.function_name.as_deref())?;
    let name = input.name.unwrap_or_default();
    let key = keys::alias(&function, &name);
    context
        .change_of(&function, || {
            let missing = || {
                let arn = context.home.function_arn(&function, Some(&name));
                fault("ResourceNotFoundException", format!("Alias not found: {arn}"))
            };
            names::living_function(context, &function)?;
            let (mut alias, revision) = context.document::<Alias>(&key)?.ok_or_else(missing)?;
            if input.revision_id.as_ref().is_some_and(|given| *given != alias.revision_id) {
                return Err(fault(
                    "PreconditionFailedException",
                    "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
                ));
            }
            if let Some(version) = input.function_version.clone() {
                version_must_exist(context, &function, &version)?;
                alias.version = version;
            }
            if let Some(routing) = input.routing_config.clone() {
                alias.additional_version_weights = routing.additional_version_weights.unwrap_or_default();
            }
            if alias.attached.provisioned.is_some() && !alias.additional_version_weights.is_empty() {
                return Err(invalid("Invalid alias configuration for Provisioned Concurrency"));
            }
            check_weights(context, &function, &alias.version, &alias.additional_version_weights)?;
            if let Some(description) = input.description.clone() {
                alias.description = description;
            }
            alias.revision_id = uuid();
            let unchanged = Precondition::Unchanged(key.clone(), revision);
            Ok((Transaction::default().when(unchanged).put(key.clone(), &alias), shown(context, &alias)))
        })
        .await
}

/// Deleting what is not there is no error, as on AWS; of a function that is not there it is.
pub async fn delete(context: &Context, input: DeleteAliasRequest) -> Result<(), Fault> {
    let function = names::unqualified(context, input.function_name.as_deref())?;
    let key = keys::alias(&function, &input.name.unwrap_or_default());
    context
        .change_of(&function, || {
            names::function(context, &function)?;
            Ok((Transaction::default().delete(key.clone()), ()))
        })
        .await
}

pub async fn list(context: &Context, input: ListAliasesRequest) -> Result<ListAliasesResponse, Fault> {
    let function = names::unqualified(context, input.function_name.as_deref())?;
    names::function(context, &function)?;
    let points_to = |alias: &Alias| match &input.function_version {
        Some(version) => alias.version == *version || alias.additional_version_weights.contains_key(version),
        None => true,
    };
    let all: Vec<Alias> = context.all(&keys::aliases_of(&function))?;
    let shown = all
        .iter()
        .filter(|alias| points_to(alias))
        .map(|alias| (alias.name.clone(), shown(context, alias)))
        .collect();
    let (aliases, next_marker) = page(shown, input.marker.as_deref(), input.max_items);
    Ok(ListAliasesResponse { next_marker, aliases: Some(aliases) })
}

fn shown(context: &Context, alias: &Alias) -> AliasConfiguration {
    let weights = &alias.additional_version_weights;
    AliasConfiguration {
        alias_arn: Some(context.home.function_arn(&alias.function, Some(&alias.name))),
        name: Some(alias.name.clone()),
        function_version: Some(alias.version.clone()),
        description: Some(alias.description.clone()),
        routing_config: (!weights.is_empty())
            .then(|| AliasRoutingConfiguration { additional_version_weights: Some(weights.clone()) }),
        revision_id: Some(alias.revision_id.clone()),
    }
}

fn version_must_exist(context: &Context, function: &str, version: &str) -> Result<(), Fault> {
    let named = Named { name: function.to_owned(), qualifier: Some(version.to_owned()) };
    names::find(context, &named).map(drop)
}

fn check_weights(
    context: &Context,
    function: &str,
    version: &str,
    weights: &BTreeMap<String, f64>,
) -> Result<(), Fault> {
    if weights.len() > 1 {
        return Err(invalid("Number of items in AdditionalVersionWeights cannot be greater than 1"));
    }
    let Some(other) = weights.keys().next() else { return Ok(()) };
    if version == LATEST || version == LATEST_PUBLISHED {
        return Err(invalid(format!(
            "{version} is not supported for an alias pointing to more than 1 version"
        )));
    }
    if other == version {
        return Err(invalid(format!(
            "Invalid function version {other}. Function version {other} is already included in routing configuration."
        )));
    }
    version_must_exist(context, function, other)
}
