//! Two small settings of a function: when its runtime is updated, and what happens to events that go round in
//! circles.

use ondol_core::attached::RuntimeManagement;
use ondol_core::function::RecursiveLoop;
use ondol_core::identity::LATEST;
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    GetFunctionRecursionConfigRequest, GetFunctionRecursionConfigResponse, GetRuntimeManagementConfigRequest,
    GetRuntimeManagementConfigResponse, PutFunctionRecursionConfigRequest,
    PutFunctionRecursionConfigResponse, PutRuntimeManagementConfigRequest,
    PutRuntimeManagementConfigResponse,
};

use super::functions;
use super::holder::{self, Holder};
use super::names;
use crate::context::Context;
use crate::faults::invalid;

fn arn(context: &Context, name: &str, holder: &Holder) -> String {
    context.home.function_arn(name, Some(holder.qualifier().unwrap_or(LATEST)))
}

pub async fn put_management(
    context: &Context,
    input: PutRuntimeManagementConfigRequest,
) -> Result<PutRuntimeManagementConfigResponse, Fault> {
    let named = names::unqualified_or(context, input.function_name.as_deref(), input.qualifier)?;
    let update_runtime_on = input.update_runtime_on.unwrap_or_default();
    let is_manual = update_runtime_on == "Manual";
    match &input.runtime_version_arn {
        Some(_) if !is_manual => {
            return Err(invalid("RuntimeVersionArn can only be provided when UpdateRuntimeOn is Manual."));
        }
        None if is_manual => {
            return Err(invalid("RuntimeVersionArn must be provided when UpdateRuntimeOn is Manual."));
        }
        _ => {}
    }
    let function_arn = holder::change(context, &named, |holder| {
        holder.attached_mut().runtime_management = Some(RuntimeManagement {
            update_runtime_on: update_runtime_on.clone(),
            runtime_version_arn: input.runtime_version_arn.clone(),
        });
        Ok(arn(context, &named.name, holder))
    })
    .await?;
    Ok(PutRuntimeManagementConfigResponse {
        update_runtime_on: Some(update_runtime_on),
        function_arn: Some(function_arn),
        runtime_version_arn: input.runtime_version_arn,
    })
}

pub async fn get_management(
    context: &Context,
    input: GetRuntimeManagementConfigRequest,
) -> Result<GetRuntimeManagementConfigResponse, Fault> {
    let named = names::unqualified_or(context, input.function_name.as_deref(), input.qualifier)?;
    let holder = holder::find(context, &named.name, named.qualifier.as_deref())?;
    let management = holder.attached().runtime_management.clone();
    Ok(GetRuntimeManagementConfigResponse {
        update_runtime_on: Some(
            management.as_ref().map_or_else(|| "Auto".into(), |set| set.update_runtime_on.clone()),
        ),
        function_arn: Some(arn(context, &named.name, &holder)),
        runtime_version_arn: management.and_then(|set| set.runtime_version_arn),
    })
}

pub async fn put_recursion(
    context: &Context,
    input: PutFunctionRecursionConfigRequest,
) -> Result<PutFunctionRecursionConfigResponse, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let allows = input.recursive_loop.as_deref() == Some("Allow");
    let wanted = if allows { RecursiveLoop::Allow } else { RecursiveLoop::Terminate };
    context
        .change_of(&name, || {
            let (mut function, revision) = names::living_function(context, &name)?;
            function.recursive_loop = wanted;
            Ok((functions::replace(&function, revision), ()))
        })
        .await?;
    Ok(PutFunctionRecursionConfigResponse { recursive_loop: Some(format!("{wanted:?}")) })
}

pub async fn get_recursion(
    context: &Context,
    input: GetFunctionRecursionConfigRequest,
) -> Result<GetFunctionRecursionConfigResponse, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let (function, _) = names::function(context, &name)?;
    Ok(GetFunctionRecursionConfigResponse { recursive_loop: Some(format!("{:?}", function.recursive_loop)) })
}
