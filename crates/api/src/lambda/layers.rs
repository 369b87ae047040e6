//! Layers and their versions, and which of them a function uses.

use ondol_core::function::{Code, LayerReference};
use ondol_core::layer::{LAYERS_MAX, Layer, LayerVersion};
use ondol_core::runtime::{CREATABLE, LISTABLE, NEWER, RETIRED};
use ondol_store::artifacts::{Pinned, UNZIPPED_BYTES_MAX};
use ondol_store::{Precondition, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    DeleteLayerVersionRequest, GetLayerVersionByArnRequest, GetLayerVersionRequest, GetLayerVersionResponse,
    LayerVersionContentOutput, LayerVersionsListItem, LayersListItem, ListLayerVersionsRequest,
    ListLayerVersionsResponse, ListLayersRequest, ListLayersResponse, PublishLayerVersionRequest,
    PublishLayerVersionResponse,
};
use ondol_wire::time::lambda_timestamp;
use ondol_wire::validate::violation;
use serde_json::{Map, Value};

use super::packages::{self, S3Object, Source};
use super::{page, view};
use crate::context::{Context, uuid};
use crate::faults::{fault, invalid};

pub async fn publish(
    context: &Context,
    input: PublishLayerVersionRequest,
) -> Result<PublishLayerVersionResponse, Fault> {
    let name = name_of(context, input.layer_name.as_deref())?;
    let content = input.content.unwrap_or_default();
    let source = Source {
        zip: content.zip_file,
        s3: S3Object::of(content.s3_bucket, content.s3_key, content.s3_object_version),
    };
    let (code, _pinned) = packages::store(context, source, "layer version content").await?;
    super::account::check_storage(context, &code)?;
    let published = context
        .change_of(&name, || {
            let key = keys::layer(&name);
            let (layer, unchanged) = match context.document::<Layer>(&key)? {
                Some((layer, revision)) => (layer, Precondition::Unchanged(key.clone(), revision)),
                None => (Layer { name: name.clone(), next_version: 1 }, Precondition::Absent(key.clone())),
            };
            let version = LayerVersion {
                name: name.clone(),
                version: layer.next_version,
                description: input.description.clone().unwrap_or_default(),
                license_info: input.license_info.clone(),
                compatible_runtimes: input.compatible_runtimes.clone(),
                compatible_architectures: input.compatible_architectures.clone(),
                code: code.clone(),
                created_epoch_millis: context.now_epoch_millis(),
                policy: Vec::new(),
                policy_revision_id: uuid(),
            };
            let transaction = Transaction::default()
                .when(unchanged)
                .put(key, &Layer { next_version: layer.next_version + 1, ..layer })
                .put(keys::layer_version(&name, version.version), &version);
            Ok((transaction, version))
        })
        .await?;
    let shown = shown(context, &published);
    Ok(PublishLayerVersionResponse {
        content: shown.content,
        layer_arn: shown.layer_arn,
        layer_version_arn: shown.layer_version_arn,
        description: shown.description,
        created_date: shown.created_date,
        version: shown.version,
        compatible_architectures: shown.compatible_architectures,
        compatible_runtimes: shown.compatible_runtimes,
        license_info: shown.license_info,
    })
}

pub async fn get(context: &Context, input: GetLayerVersionRequest) -> Result<GetLayerVersionResponse, Fault> {
    let name = name_of(context, input.layer_name.as_deref())?;
    let number = number_of(input.version_number)?;
    let found = context.document::<LayerVersion>(&keys::layer_version(&name, number))?;
    let missing = || fault("ResourceNotFoundException", "The resource you requested does not exist.");
    Ok(shown(context, &found.ok_or_else(missing)?.0))
}

pub async fn get_by_arn(
    context: &Context,
    input: GetLayerVersionByArnRequest,
) -> Result<GetLayerVersionResponse, Fault> {
    let arn = input.arn.unwrap_or_default();
    let found = of_arn(context, &arn)?;
    let missing = || fault("ResourceNotFoundException", "The resource you requested does not exist.");
    Ok(shown(context, &found.ok_or_else(missing)?))
}

/// Deleting what is not there is no error, as on AWS. Functions that use the version keep it.
pub async fn delete(context: &Context, input: DeleteLayerVersionRequest) -> Result<(), Fault> {
    let name = name_of(context, input.layer_name.as_deref())?;
    let number = number_of(input.version_number)?;
    context
        .change_of(&name, || Ok((Transaction::default().delete(keys::layer_version(&name, number)), ())))
        .await
}

pub async fn list(context: &Context, input: ListLayersRequest) -> Result<ListLayersResponse, Fault> {
    let mut newest: std::collections::BTreeMap<String, LayerVersion> = std::collections::BTreeMap::new();
    for version in context.all::<LayerVersion>(keys::LAYER_VERSIONS)? {
        if fits(&version, input.compatible_runtime.as_deref(), input.compatible_architecture.as_deref()) {
            // Keys come in the order of numbers.
            newest.insert(version.name.clone(), version);
        }
    }
    let shown = newest
        .into_iter()
        .map(|(name, version)| {
            let item = LayersListItem {
                layer_name: Some(name.clone()),
                layer_arn: Some(context.home.layer_arn(&name)),
                latest_matching_version: Some(list_item(context, &version)),
            };
            (keys::layer(&name), item)
        })
        .collect();
    let (layers, next_marker) = page(shown, input.marker.as_deref(), input.max_items);
    Ok(ListLayersResponse { next_marker, layers: Some(layers) })
}

/// Runtimes that layers cannot be for, worded as the service words them: it has lists of its own, where the model
/// has another.
pub fn unknown_runtimes(operation: &str, input: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    let set = |names: &[&str]| format!("Member must satisfy enum value set: [{}]", names.join(", "));
    if let Some(Value::Array(given)) = input.get("CompatibleRuntimes") {
        let names: Vec<&str> = given.iter().filter_map(Value::as_str).collect();
        let known = |name: &&str| [CREATABLE, NEWER, RETIRED].iter().any(|list| list.contains(name));
        if !names.iter().all(known) {
            let value = format!("'[{}]'", names.join(", "));
            found.push(violation(&value, "compatibleRuntimes", &set(CREATABLE)));
        }
    }
    let listed = matches!(operation, "ListLayers" | "ListLayerVersions");
    if let Some(Value::String(name)) = input.get("CompatibleRuntime").filter(|_| listed) {
        if ![LISTABLE, CREATABLE, NEWER].iter().any(|list| list.contains(&name.as_str())) {
            found.push(violation(&format!("'{name}'"), "compatibleRuntime", &set(LISTABLE)));
        }
    }
    found
}

/// The newest first, as on AWS.
pub async fn list_versions(
    context: &Context,
    input: ListLayerVersionsRequest,
) -> Result<ListLayerVersionsResponse, Fault> {
    let name = name_of(context, input.layer_name.as_deref())?;
    let shown = context
        .all::<LayerVersion>(&keys::layer_versions_of(&name))?
        .iter()
        .filter(|version| {
            fits(version, input.compatible_runtime.as_deref(), input.compatible_architecture.as_deref())
        })
        .map(|version| (format!("{:020}", u64::MAX - version.version), list_item(context, version)))
        .collect();
    let (versions, next_marker) = page(shown, input.marker.as_deref(), input.max_items);
    Ok(ListLayerVersionsResponse { next_marker, layer_versions: Some(versions) })
}

fn fits(version: &LayerVersion, runtime: Option<&str>, architecture: Option<&str>) -> bool {
    let has = |list: &Option<Vec<String>>, wanted: Option<&str>| {
        wanted.is_none_or(|wanted| list.as_ref().is_some_and(|list| list.iter().any(|name| name == wanted)))
    };
    has(&version.compatible_runtimes, runtime) && has(&version.compatible_architectures, architecture)
}

fn shown(context: &Context, version: &LayerVersion) -> GetLayerVersionResponse {
    let item = list_item(context, version);
    GetLayerVersionResponse {
        content: Some(LayerVersionContentOutput {
            code_sha256: Some(view::code_sha256(&version.code)),
            code_size: i64::try_from(version.code.size_bytes).ok(),
            location: Some(context.package_link(&version.code.sha256)),
            ..Default::default()
        }),
        layer_arn: Some(context.home.layer_arn(&version.name)),
        layer_version_arn: item.layer_version_arn,
        // Always there in this answer, other than in listings.
        description: Some(version.description.clone()),
        created_date: item.created_date,
        version: item.version,
        compatible_architectures: item.compatible_architectures,
        compatible_runtimes: item.compatible_runtimes,
        license_info: item.license_info,
    }
}

fn list_item(context: &Context, version: &LayerVersion) -> LayerVersionsListItem {
    LayerVersionsListItem {
        layer_version_arn: Some(context.home.layer_version_arn(&version.name, version.version)),
        version: i64::try_from(version.version).ok(),
        description: Some(version.description.clone()).filter(|text| !text.is_empty()),
        created_date: Some(lambda_timestamp(version.created_epoch_millis)),
        compatible_architectures: version.compatible_architectures.clone(),
        compatible_runtimes: version.compatible_runtimes.clone(),
        license_info: version.license_info.clone(),
    }
}

/// A name, or an ARN of this account and region.
pub fn name_of(context: &Context, text: Option<&str>) -> Result<String, Fault> {
    let text = text.unwrap_or_default();
    let name = text.rsplit(':').next().unwrap_or_default();
    if text.contains(':') && text != context.home.layer_arn(name) {
        return Err(fault("ResourceNotFoundException", "The resource you requested does not exist."));
    }
    Ok(name.to_owned())
}

pub fn number_of(number: Option<i64>) -> Result<u64, Fault> {
    let number = number.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or_else(|| invalid("Layer Version Cannot be less than 1"))
}

fn of_arn(context: &Context, arn: &str) -> Result<Option<LayerVersion>, Fault> {
    let Some((layer, number)) = arn.rsplit_once(':') else { return Ok(None) };
    let name = layer.rsplit(':').next().unwrap_or_default();
    let Ok(number) = number.parse::<u64>() else { return Ok(None) };
    if layer != context.home.layer_arn(name) {
        return Ok(None);
    }
    Ok(context.document::<LayerVersion>(&keys::layer_version(name, number))?.map(|(found, _)| found))
}

/// The layers a function names, found and held against the rules.
pub fn resolve(context: &Context, arns: &[String]) -> Result<Vec<LayerReference>, Fault> {
    if arns.len() > LAYERS_MAX {
        return Err(invalid(format!("Cannot reference more than {LAYERS_MAX} layers.")));
    }
    let layer_of = |arn: &str| arn.rsplit_once(':').map_or(String::new(), |(layer, _)| layer.to_owned());
    let mut found = Vec::new();
    for (place, arn) in arns.iter().enumerate() {
        if arn.split(':').nth(3) != Some(context.home.region.as_str()) {
            return Err(invalid(format!(
                "Layers are not in the same region as the function. Layers are expected to be in region {}.",
                context.home.region
            )));
        }
        let missing = || invalid(format!("Layer version {arn} does not exist."));
        let code = of_arn(context, arn)?.ok_or_else(missing)?.code;
        if let Some(earlier) = arns[..place].iter().find(|earlier| layer_of(earlier) == layer_of(arn)) {
            return Err(invalid(format!(
                "Two different versions of the same layer are not allowed to be referenced in the same function. {earlier} and {arn} are versions of the same layer."
            )));
        }
        found.push(LayerReference { arn: arn.clone(), code });
    }
    Ok(found)
}

/// Keeps the layers' packages while the pins live.
pub fn pin(context: &Context, layers: &[LayerReference]) -> Vec<Pinned> {
    layers.iter().map(|layer| context.artifacts.pin(layer.code.sha256.clone())).collect()
}

/// What a function and its layers unpack to, together within AWS's limit. The layers' packages stay while the
/// pins live, though their versions be deleted meanwhile.
pub async fn check_size(
    context: &Context,
    code: &Code,
    layers: &[LayerReference],
) -> Result<Vec<Pinned>, Fault> {
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    let pins = pin(context, layers);
    let artifacts = context.artifacts.clone();
    let all: Vec<String> = std::iter::once(code)
        .chain(layers.iter().map(|layer| &layer.code))
        .map(|c| c.sha256.clone())
        .collect();
    let measured = tokio::task::spawn_blocking(move || {
        all.iter().map(|sha256| artifacts.unpacked_bytes(sha256)).sum::<u64>()
    });
    let total = measured.await.unwrap_or(u64::MAX);
    if total > UNZIPPED_BYTES_MAX {
        return Err(invalid(format!(
            "Function code combined with layers exceeds the maximum allowed size of {UNZIPPED_BYTES_MAX} bytes. The actual size is {total} bytes."
        )));
    }
    Ok(pins)
}
