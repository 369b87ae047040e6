//! Function URLs: an address of their own for `$LATEST` and for aliases.

use ondol_core::attached::FunctionUrl;
use ondol_core::identity::{LATEST_PUBLISHED, Qualifier};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    Cors, CreateFunctionUrlConfigRequest, CreateFunctionUrlConfigResponse, DeleteFunctionUrlConfigRequest,
    FunctionUrlConfig, GetFunctionUrlConfigRequest, GetFunctionUrlConfigResponse,
    ListFunctionUrlConfigsRequest, ListFunctionUrlConfigsResponse, UpdateFunctionUrlConfigRequest,
    UpdateFunctionUrlConfigResponse,
};
use ondol_wire::time::micros_timestamp;
use serde_json::Value;

use super::holder::{self, Holder};
use super::names::{self, Named};
use super::page;
use crate::context::{Context, letters};
use crate::faults::{fault, invalid};

const ID_LETTERS: usize = 32;

pub async fn create(
    context: &Context,
    input: CreateFunctionUrlConfigRequest,
) -> Result<CreateFunctionUrlConfigResponse, Fault> {
    let named = names::unqualified_or(context, input.function_name.as_deref(), input.qualifier)?;
    refuse_versions(&named)?;
    holder::find(context, &named.name, named.qualifier.as_deref()).map_err(|_| no_function())?;
    let shown = holder::change(context, &named, |holder| {
        if holder.attached().url.is_some() {
            let text = format!(
                "Failed to create function url config for [functionArn = {}]. Error message:  FunctionUrlConfig exists for this Lambda function",
                holder.arn(context)
            );
            return Err(fault("ResourceConflictException", text));
        }
        let now = context.now_epoch_millis();
        holder.attached_mut().url = Some(FunctionUrl {
            id: letters(ID_LETTERS),
            auth_type: input.auth_type.clone().unwrap_or_default(),
            invoke_mode: input.invoke_mode.clone().unwrap_or_else(|| "BUFFERED".into()),
            cors: stored_cors(input.cors.as_ref()),
            created_epoch_millis: now,
            last_modified_epoch_millis: now,
        });
        shown(context, holder).ok_or_else(none_found)
    })
    .await?;
    Ok(CreateFunctionUrlConfigResponse {
        function_url: shown.function_url,
        function_arn: shown.function_arn,
        auth_type: shown.auth_type,
        cors: shown.cors,
        creation_time: shown.creation_time,
        invoke_mode: shown.invoke_mode,
    })
}

/// A version has no URL; `$LATEST` and aliases have.
fn refuse_versions(named: &Named) -> Result<(), Fault> {
    match named.qualifier.as_deref().map(Qualifier::parse) {
        Some(Qualifier::LatestPublished) => Err(invalid(format!(
            "A function URL can't be made for {LATEST_PUBLISHED}. Make one for an alias."
        ))),
        _ => Ok(()),
    }
}

/// Empty settings are none.
fn stored_cors(cors: Option<&Cors>) -> Option<Value> {
    cors.filter(|cors| **cors != Cors::default()).and_then(|cors| serde_json::to_value(cors).ok())
}

fn no_function() -> Fault {
    fault("ResourceNotFoundException", "Function does not exist")
}

fn none_found() -> Fault {
    fault("ResourceNotFoundException", "The resource you requested does not exist.")
}

fn shown(context: &Context, holder: &Holder) -> Option<FunctionUrlConfig> {
    let url = holder.attached().url.as_ref()?;
    Some(FunctionUrlConfig {
        function_url: Some(context.function_url(&url.id)),
        function_arn: Some(holder.arn(context)),
        creation_time: Some(micros_timestamp(url.created_epoch_millis)),
        last_modified_time: Some(micros_timestamp(url.last_modified_epoch_millis)),
        cors: url.cors.clone().and_then(|cors| serde_json::from_value(cors).ok()),
        auth_type: Some(url.auth_type.clone()),
        invoke_mode: Some(url.invoke_mode.clone()),
    })
}

pub async fn get(
    context: &Context,
    input: GetFunctionUrlConfigRequest,
) -> Result<GetFunctionUrlConfigResponse, Fault> {
    let named = names::unqualified_or(context, input.function_name.as_deref(), input.qualifier)?;
    let found = holder::find(context, &named.name, named.qualifier.as_deref()).map_err(|_| none_found())?;
    let shown = shown(context, &found).ok_or_else(none_found)?;
    Ok(GetFunctionUrlConfigResponse {
        function_url: shown.function_url,
        function_arn: shown.function_arn,
        auth_type: shown.auth_type,
        cors: shown.cors,
        creation_time: shown.creation_time,
        last_modified_time: shown.last_modified_time,
        invoke_mode: shown.invoke_mode,
    })
}

pub async fn update(
    context: &Context,
    input: UpdateFunctionUrlConfigRequest,
) -> Result<UpdateFunctionUrlConfigResponse, Fault> {
    let named = names::unqualified_or(context, input.function_name.as_deref(), input.qualifier)?;
    holder::find(context, &named.name, named.qualifier.as_deref()).map_err(|_| no_function())?;
    let shown = holder::change(context, &named, |holder| {
        let now = context.now_epoch_millis();
        let url = holder.attached_mut().url.as_mut().ok_or_else(none_found)?;
        if let Some(auth_type) = input.auth_type.clone() {
            url.auth_type = auth_type;
        }
        if let Some(invoke_mode) = input.invoke_mode.clone() {
            url.invoke_mode = invoke_mode;
        }
        if input.cors.is_some() {
            url.cors = stored_cors(input.cors.as_ref());
        }
        url.last_modified_epoch_millis = now;
        shown(context, holder).ok_or_else(none_found)
    })
    .await?;
    Ok(UpdateFunctionUrlConfigResponse {
        function_url: shown.function_url,
        function_arn: shown.function_arn,
        auth_type: shown.auth_type,
        cors: shown.cors,
        creation_time: shown.creation_time,
        last_modified_time: shown.last_modified_time,
        invoke_mode: shown.invoke_mode,
    })
}

pub async fn delete(context: &Context, input: DeleteFunctionUrlConfigRequest) -> Result<(), Fault> {
    let named = names::unqualified_or(context, input.function_name.as_deref(), input.qualifier)?;
    holder::find(context, &named.name, named.qualifier.as_deref()).map_err(|_| none_found())?;
    holder::change(context, &named, |holder| {
        holder.attached_mut().url.take().map(drop).ok_or_else(none_found)
    })
    .await
}

pub async fn list(
    context: &Context,
    input: ListFunctionUrlConfigsRequest,
) -> Result<ListFunctionUrlConfigsResponse, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let urls = holder::all(context, &name)
        .map_err(|_| no_function())?
        .iter()
        .filter_map(|holder| Some((holder.arn(context), shown(context, holder)?)))
        .collect();
    let (configs, next_marker) = page(urls, input.marker.as_deref(), input.max_items);
    Ok(ListFunctionUrlConfigsResponse { function_url_configs: Some(configs), next_marker })
}
