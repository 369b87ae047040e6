//! Tags on functions, capacity providers, event source mappings and code signing configs.

use std::collections::BTreeMap;

use ondol_core::code_signing::CodeSigningConfig;
use ondol_core::identity::FunctionReference;
use ondol_store::Revision;
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    ListTagsRequest, ListTagsResponse, TagResourceRequest, UntagResourceRequest,
};

use super::{capacity_providers, code_signing, event_source_mappings, functions, names};
use crate::context::{Context, uuid};
use crate::faults::{fault, invalid, unsupported};

const TAGS_MAX: usize = 50;

type Tags = BTreeMap<String, String>;

/// The prefix is AWS's own.
fn check_names(tags: &Tags) -> Result<(), Fault> {
    match tags.keys().find(|name| name.to_ascii_lowercase().starts_with("aws:")) {
        Some(name) => Err(invalid(format!("The tag key {name} begins with aws:, which is reserved."))),
        None => Ok(()),
    }
}

pub fn check(tags: &Tags) -> Result<(), Fault> {
    check_names(tags)?;
    if tags.len() > TAGS_MAX {
        return Err(invalid("Number of tags exceeds resource tag limit."));
    }
    Ok(())
}

enum Resource {
    Function(String),
    CapacityProvider(String),
    EventSourceMapping(String),
    CodeSigningConfig(String),
}

fn resource(context: &Context, arn: Option<&str>) -> Result<Resource, Fault> {
    let arn = arn.unwrap_or_default();
    let parts: Vec<&str> = arn.splitn(7, ':').collect();
    match parts[..] {
        [.., "function", _] => {
            if FunctionReference::parse(arn).qualifier.is_some() {
                return Err(invalid(
                    "Tags on function aliases and versions are not supported. Please specify a function ARN.",
                ));
            }
            names::named(context, Some(arn), None).map(|named| Resource::Function(named.name))
        }
        [.., "capacity-provider", name] if arn == context.home.capacity_provider_arn(name) => {
            Ok(Resource::CapacityProvider(name.to_owned()))
        }
        [.., "capacity-provider", _] => {
            Err(fault("ResourceNotFoundException", format!("Capacity provider not found: {arn}")))
        }
        [.., "event-source-mapping", _] => Ok(Resource::EventSourceMapping(arn.to_owned())),
        [.., "code-signing-config", _] => Ok(Resource::CodeSigningConfig(arn.to_owned())),
        _ => Err(unsupported(format!("Tags on {arn} aren't supported by this version of Ondol."))),
    }
}

/// Changes a resource's tags and nothing else of it.
async fn change(
    context: &Context,
    arn: Option<&str>,
    apply: impl Fn(&mut Tags) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let resource = resource(context, arn)?;
    context
        .change(|| {
            let transaction = match &resource {
                Resource::Function(name) => {
                    let (mut function, revision) = names::living_function(context, name)?;
                    apply(&mut function.tags)?;
                    function.revision_id = uuid();
                    functions::replace(&function, revision)
                }
                Resource::CapacityProvider(name) => {
                    let (mut provider, revision) = capacity_providers::find(context, name)?;
                    apply(&mut provider.tags)?;
                    capacity_providers::replace(&provider, revision)
                }
                Resource::EventSourceMapping(arn) => {
                    let (mut mapping, revision) = event_source_mappings::of_arn(context, arn)?;
                    apply(&mut mapping.tags)?;
                    event_source_mappings::replace(&mapping, revision)
                }
                Resource::CodeSigningConfig(arn) => {
                    let (mut config, revision) = code_signing(context, arn)?;
                    apply(&mut config.tags)?;
                    code_signing::replace(&config, revision)
                }
            };
            Ok((transaction, ()))
        })
        .await
}

fn code_signing(context: &Context, arn: &str) -> Result<(CodeSigningConfig, Revision), Fault> {
    code_signing::find(context, arn)?
        .ok_or_else(|| fault("ResourceNotFoundException", format!("Code signing config not found: {arn}")))
}

pub async fn tag(context: &Context, input: TagResourceRequest) -> Result<(), Fault> {
    let added = input.tags.unwrap_or_default();
    if added.is_empty() {
        return Err(invalid("An error occurred and the request cannot be processed."));
    }
    check_names(&added)?;
    change(context, input.resource.as_deref(), |tags| {
        tags.extend(added.clone());
        check(tags)
    })
    .await
}

pub async fn untag(context: &Context, input: UntagResourceRequest) -> Result<(), Fault> {
    let removed = input.tag_keys.unwrap_or_default();
    change(context, input.resource.as_deref(), |tags| {
        tags.retain(|key, _| !removed.contains(key));
        Ok(())
    })
    .await
}

pub async fn list(context: &Context, input: ListTagsRequest) -> Result<ListTagsResponse, Fault> {
    let tags = match resource(context, input.resource.as_deref())? {
        Resource::Function(name) => names::function(context, &name)?.0.tags,
        Resource::CapacityProvider(name) => capacity_providers::find(context, &name)?.0.tags,
        Resource::EventSourceMapping(arn) => event_source_mappings::of_arn(context, &arn)?.0.tags,
        Resource::CodeSigningConfig(arn) => code_signing(context, &arn)?.0.tags,
    };
    Ok(ListTagsResponse { tags: Some(tags) })
}
