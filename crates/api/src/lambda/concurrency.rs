//! Reserved and provisioned concurrency of Lambda (default) functions.

use ondol_core::attached::{ProvisionedConcurrency, ProvisionedStatus};
use ondol_core::function::Function;
use ondol_core::identity::{LATEST, Qualifier};
use ondol_store::keys;
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    Concurrency, DeleteFunctionConcurrencyRequest, DeleteProvisionedConcurrencyConfigRequest,
    GetFunctionConcurrencyRequest, GetFunctionConcurrencyResponse, GetProvisionedConcurrencyConfigRequest,
    GetProvisionedConcurrencyConfigResponse, ListProvisionedConcurrencyConfigsRequest,
    ListProvisionedConcurrencyConfigsResponse, ProvisionedConcurrencyConfigListItem,
    PutFunctionConcurrencyRequest, PutProvisionedConcurrencyConfigRequest,
    PutProvisionedConcurrencyConfigResponse,
};
use ondol_wire::time::second_timestamp;

use super::holder::{self, Holder};
use super::names::{self, Named};
use super::{functions, page};
use crate::context::Context;
use crate::faults::{fault, invalid};

/// Why provisioned concurrency does not come about in this version.
const NOT_PROVISIONED: &str = "Ondol doesn't start provisioned execution environments in this version. The function runs on demand; for environments that are warm before a request comes, give the function a CapacityProviderConfig.";

pub async fn put(context: &Context, input: PutFunctionConcurrencyRequest) -> Result<Concurrency, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let wanted = count(input.reserved_concurrent_executions);
    context
        .change(|| {
            let (mut function, revision) = names::living_function(context, &name)?;
            if !function.configuration.is_on_demand() {
                return Err(invalid(
                    "Reserved concurrency isn't supported for functions with a capacity provider.",
                ));
            }
            let provisioned = provisioned_of(context, &name, None)?;
            if wanted < provisioned {
                return Err(invalid(format!(
                    " ReservedConcurrentExecutions  {wanted} should not be lower than function's total provisioned concurrency [{provisioned}]."
                )));
            }
            let left = unreserved(context, Some(&name))?;
            let minimum = context.quotas.unreserved_concurrency_min;
            if left < wanted.saturating_add(minimum) {
                return Err(invalid(format!(
                    "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [{minimum}]."
                )));
            }
            function.reserved_concurrency = Some(wanted);
            Ok((functions::replace(&function, revision), ()))
        })
        .await?;
    Ok(Concurrency { reserved_concurrent_executions: i32::try_from(wanted).ok() })
}

pub async fn get(
    context: &Context,
    input: GetFunctionConcurrencyRequest,
) -> Result<GetFunctionConcurrencyResponse, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let (function, _) = names::function(context, &name)?;
    let reserved = function.reserved_concurrency.and_then(|reserved| i32::try_from(reserved).ok());
    Ok(GetFunctionConcurrencyResponse { reserved_concurrent_executions: reserved })
}

pub async fn delete(context: &Context, input: DeleteFunctionConcurrencyRequest) -> Result<(), Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    context
        .change(|| {
            let (mut function, revision) = names::living_function(context, &name)?;
            function.reserved_concurrency = None;
            Ok((functions::replace(&function, revision), ()))
        })
        .await
}

/// What no function has reserved, but for the named one. Provisioned concurrency of a function without
/// reserved concurrency is taken from it too.
pub fn unreserved(context: &Context, but: Option<&str>) -> Result<u32, Fault> {
    let functions: Vec<Function> = context.all(keys::FUNCTIONS)?;
    let mut reserved: u32 = 0;
    for function in functions.iter().filter(|function| but != Some(function.name.as_str())) {
        let own = match function.reserved_concurrency {
            Some(own) => own,
            None => provisioned_of(context, &function.name, None)?,
        };
        reserved = reserved.saturating_add(own);
    }
    Ok(context.quotas.concurrent_executions.saturating_sub(reserved))
}

/// The provisioned concurrency of a function, all qualifiers together but for one.
fn provisioned_of(context: &Context, name: &str, but: Option<&str>) -> Result<u32, Fault> {
    let holders = holder::all(context, name)?;
    Ok(holders
        .iter()
        .filter(|holder| but.is_none() || holder.qualifier() != but)
        .filter_map(|holder| holder.attached().provisioned.as_ref())
        .map(|provisioned| provisioned.requested)
        .sum())
}

fn count(value: Option<i32>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or_default()
}

fn must_have_function(context: &Context, named: &Named) -> Result<(), Fault> {
    if context.store.get(&keys::function(&named.name)).is_none() {
        return Err(match named.qualifier.as_deref().map(Qualifier::parse) {
            Some(Qualifier::Alias(alias)) => holder::no_alias(context, &named.name, &alias),
            _ => names::not_found(context, &named.name, named.qualifier.as_deref()),
        });
    }
    Ok(())
}

pub async fn put_provisioned(
    context: &Context,
    input: PutProvisionedConcurrencyConfigRequest,
) -> Result<PutProvisionedConcurrencyConfigResponse, Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    if named.qualifier.as_deref() == Some(LATEST) {
        return Err(invalid(
            "Provisioned Concurrency Configs cannot be applied to unpublished function versions.",
        ));
    }
    must_have_function(context, &named)?;
    let requested = count(input.provisioned_concurrent_executions);
    let stored = holder::change_alone(context, &named, |holder| {
        let (function, _) = names::living_function(context, &named.name)?;
        if !function.configuration.is_on_demand() {
            return Err(invalid(
                "Provisioned concurrency isn't supported for functions with a capacity provider.",
            ));
        }
        let others = provisioned_of(context, &named.name, holder.qualifier())?;
        check_pool(context, &function, others.saturating_add(requested), requested)?;
        check_pointing(context, &named.name, holder)?;
        if holder.alias().is_some_and(|alias| !alias.additional_version_weights.is_empty()) {
            return Err(invalid("Invalid alias configuration for Provisioned Concurrency"));
        }
        let stored = ProvisionedConcurrency {
            requested,
            last_modified_epoch_millis: context.now_epoch_millis(),
            status: ProvisionedStatus::Failed(NOT_PROVISIONED.into()),
        };
        holder.attached_mut().provisioned = Some(stored.clone());
        Ok(stored)
    })
    .await?;
    Ok(PutProvisionedConcurrencyConfigResponse {
        requested_provisioned_concurrent_executions: i32::try_from(requested).ok(),
        available_provisioned_concurrent_executions: Some(0),
        allocated_provisioned_concurrent_executions: Some(0),
        status: Some("IN_PROGRESS".into()),
        status_reason: None,
        last_modified: Some(second_timestamp(stored.last_modified_epoch_millis)),
    })
}

/// A version and an alias that points to it cannot both be provisioned.
fn check_pointing(context: &Context, name: &str, holder: &Holder) -> Result<(), Fault> {
    if let Some(alias) = holder.alias() {
        let version = holder::find(context, name, Some(&alias.version))?;
        if version.qualifier().is_none() {
            return Err(invalid(
                "Provisioned Concurrency Configs cannot be applied to unpublished function versions.",
            ));
        }
        if version.attached().provisioned.is_some() {
            return Err(fault(
                "ResourceConflictException",
                "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version",
            ));
        }
        return Ok(());
    }
    let pointed = holder::all(context, name)?.iter().any(|other| {
        other.attached().provisioned.is_some()
            && other.alias().is_some_and(|alias| Some(alias.version.as_str()) == holder.qualifier())
    });
    if pointed {
        return Err(fault(
            "ResourceConflictException",
            "Version is pointed by a Provisioned Concurrency alias",
        ));
    }
    Ok(())
}

fn check_pool(context: &Context, function: &Function, total: u32, requested: u32) -> Result<(), Fault> {
    if let Some(reserved) = function.reserved_concurrency {
        if total > reserved {
            return Err(invalid(
                "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function",
            ));
        }
        return Ok(());
    }
    let left = unreserved(context, Some(&function.name))?;
    if requested > left {
        return Err(invalid(format!(
            "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [{left}]."
        )));
    }
    let minimum = context.quotas.unreserved_concurrency_min;
    if left < total.saturating_add(minimum) {
        return Err(invalid(format!(
            "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [{minimum}]."
        )));
    }
    Ok(())
}

fn none_found() -> Fault {
    fault(
        "ProvisionedConcurrencyConfigNotFoundException",
        "No Provisioned Concurrency Config found for this function",
    )
}

fn must_be_published(named: &Named) -> Result<(), Fault> {
    match named.qualifier.as_deref().map(Qualifier::parse) {
        None | Some(Qualifier::Latest) => {
            Err(invalid("The function resource provided must be an alias or a published version."))
        }
        Some(_) => Ok(()),
    }
}

pub async fn get_provisioned(
    context: &Context,
    input: GetProvisionedConcurrencyConfigRequest,
) -> Result<GetProvisionedConcurrencyConfigResponse, Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    must_be_published(&named)?;
    must_have_function(context, &named)?;
    let holder = holder::find(context, &named.name, named.qualifier.as_deref())?;
    let item = shown(context, &holder).ok_or_else(none_found)?;
    Ok(GetProvisionedConcurrencyConfigResponse {
        requested_provisioned_concurrent_executions: item.requested_provisioned_concurrent_executions,
        available_provisioned_concurrent_executions: item.available_provisioned_concurrent_executions,
        allocated_provisioned_concurrent_executions: item.allocated_provisioned_concurrent_executions,
        status: item.status,
        status_reason: item.status_reason,
        last_modified: item.last_modified,
    })
}

fn shown(context: &Context, holder: &Holder) -> Option<ProvisionedConcurrencyConfigListItem> {
    let provisioned = holder.attached().provisioned.as_ref()?;
    let ready = if provisioned.status == ProvisionedStatus::Ready { provisioned.requested } else { 0 };
    let ready = i32::try_from(ready).ok();
    let (status, status_reason) = match &provisioned.status {
        ProvisionedStatus::InProgress => ("IN_PROGRESS", None),
        ProvisionedStatus::Ready => ("READY", None),
        ProvisionedStatus::Failed(why) => ("FAILED", Some(why.clone())),
    };
    Some(ProvisionedConcurrencyConfigListItem {
        function_arn: Some(holder.arn(context)),
        requested_provisioned_concurrent_executions: i32::try_from(provisioned.requested).ok(),
        available_provisioned_concurrent_executions: ready,
        allocated_provisioned_concurrent_executions: ready,
        status: Some(status.into()),
        status_reason,
        last_modified: Some(second_timestamp(provisioned.last_modified_epoch_millis)),
    })
}

pub async fn delete_provisioned(
    context: &Context,
    input: DeleteProvisionedConcurrencyConfigRequest,
) -> Result<(), Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    must_be_published(&named)?;
    must_have_function(context, &named)?;
    holder::change(context, &named, |holder| {
        holder.attached_mut().provisioned = None;
        Ok(())
    })
    .await
}

pub async fn list_provisioned(
    context: &Context,
    input: ListProvisionedConcurrencyConfigsRequest,
) -> Result<ListProvisionedConcurrencyConfigsResponse, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let items = holder::all(context, &name)?
        .iter()
        .filter_map(|holder| Some((holder.arn(context), shown(context, holder)?)))
        .collect();
    let (configs, next_marker) = page(items, input.marker.as_deref(), input.max_items);
    Ok(ListProvisionedConcurrencyConfigsResponse {
        provisioned_concurrency_configs: Some(configs),
        next_marker,
    })
}
