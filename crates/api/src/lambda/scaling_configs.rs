//! Function scaling configs: how many execution environments a published version keeps.

use ondol_core::function::{FunctionVersion, ScalingConfig, VersionState};
use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    GetFunctionScalingConfigRequest, GetFunctionScalingConfigResponse, PutFunctionScalingConfigRequest,
    PutFunctionScalingConfigResponse,
};

use super::{names, view};
use crate::context::{Context, uuid};
use crate::faults::{being_deleted, invalid};

pub async fn put(
    context: &Context,
    input: PutFunctionScalingConfigRequest,
) -> Result<PutFunctionScalingConfigResponse, Fault> {
    let (name, qualifier, scaling) = read(context, input)?;
    let state = context
        .change_of(&name, || {
            let (mut version, revision) = find(context, &name, &qualifier)?;
            if version.state == VersionState::Deleting {
                return Err(being_deleted());
            }
            version.set_scaling(scaling);
            version.revision_id = uuid();
            let key = keys::version(&name, &qualifier);
            let transaction = Transaction::default()
                .when(Precondition::Unchanged(key.clone(), revision))
                .put(key, &version);
            Ok((transaction, version.state))
        })
        .await?;
    Ok(PutFunctionScalingConfigResponse { function_state: Some(state.to_string()) })
}

/// What is asked for, of which version of which function; checked as far as that goes without looking at them.
pub fn read(
    context: &Context,
    input: PutFunctionScalingConfigRequest,
) -> Result<(String, String, ScalingConfig), Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let asked = input.function_scaling_config.unwrap_or_default();
    let count = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    let scaling = ScalingConfig {
        min: count(asked.min_execution_environments),
        max: count(asked.max_execution_environments),
    };
    check(scaling)?;
    Ok((name, input.qualifier.unwrap_or_default(), scaling))
}

/// An unset value is its default: Min 3, Max without bound. Min 0 goes only with Max 0.
fn check(scaling: ScalingConfig) -> Result<(), Fault> {
    let (min, max) = (scaling.min, scaling.max);
    if min == Some(0) && max != Some(0) {
        return Err(invalid("MinExecutionEnvironments can be 0 only when MaxExecutionEnvironments is 0."));
    }
    if max == Some(0) && min != Some(0) {
        return Err(invalid("MaxExecutionEnvironments can be 0 only when MinExecutionEnvironments is 0."));
    }
    if let (Some(min), Some(max)) = (min, max) {
        if min > max {
            return Err(invalid(
                "MinExecutionEnvironments must be less than or equal to MaxExecutionEnvironments.",
            ));
        }
    }
    Ok(())
}

pub async fn get(
    context: &Context,
    input: GetFunctionScalingConfigRequest,
) -> Result<GetFunctionScalingConfigResponse, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let qualifier = input.qualifier.unwrap_or_default();
    let (version, _) = find(context, &name, &qualifier)?;
    // What was asked for is shown until it is what is in effect.
    let is_applied = version.applied_scaling == Some(version.scaling);
    Ok(GetFunctionScalingConfigResponse {
        function_arn: Some(context.home.function_arn(&name, Some(&qualifier))),
        applied_function_scaling_config: version.applied_scaling.map(view::scaling),
        requested_function_scaling_config: (!is_applied).then(|| view::scaling(version.scaling)),
    })
}

fn find(context: &Context, name: &str, qualifier: &str) -> Result<(FunctionVersion, Revision), Fault> {
    let (function, _) = names::function(context, name)?;
    if function.configuration.is_on_demand() {
        return Err(Fault::new(
            "AccessDeniedException",
            403,
            "The function provided by the arn does not contain a capacity provider configuration",
        ));
    }
    context
        .document(&keys::version(name, qualifier))?
        .ok_or_else(|| names::not_found(context, name, Some(qualifier)))
}
