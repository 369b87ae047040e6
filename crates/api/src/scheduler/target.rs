//! What a schedule does when it is due: the one universal target there is, checked before it is kept and carried out as
//! the operation itself would be.

use ondol_core::schedule::{AGE_SECONDS_DEFAULT, RETRIES_DEFAULT, Schedule, Target};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE as LAMBDA;
use ondol_wire::lambda::types::PutFunctionScalingConfigRequest;
use ondol_wire::model::{Kind, Operation, ShapeNumber};
use ondol_wire::rest_json::typed;
use ondol_wire::scheduler::types;
use ondol_wire::validate::violations;
use serde_json::{Map, Value};

use super::{PRINCIPAL, invalid};
use crate::context::Context;
use crate::lambda;

const UNIVERSAL: &str = "arn:aws:scheduler:::aws-sdk:";
/// The one operation, as AWS writes it in targets.
const SUPPORTED: &str = "arn:aws:scheduler:::aws-sdk:lambda:putFunctionScalingConfig";

/// Far more than the one request takes. AWS allows 256 KB, for all the others; each is kept in memory.
const INPUT_BYTES_MAX: usize = 4 << 10;

/// Checks a target whole.
pub fn read(context: &Context, asked: types::Target) -> Result<Target, Fault> {
    let arn = asked.arn.unwrap_or_default();
    operation(&arn)?;
    let unsupported = [
        ("DeadLetterConfig", asked.dead_letter_config.is_some()),
        ("EcsParameters", asked.ecs_parameters.is_some()),
        ("EventBridgeParameters", asked.event_bridge_parameters.is_some()),
        ("EventBridgePutEventsV2Parameters", asked.event_bridge_put_events_v2_parameters.is_some()),
        ("EventBridgePutRawEventsParameters", asked.event_bridge_put_raw_events_parameters.is_some()),
        ("KinesisParameters", asked.kinesis_parameters.is_some()),
        ("SageMakerPipelineParameters", asked.sage_maker_pipeline_parameters.is_some()),
        ("SqsParameters", asked.sqs_parameters.is_some()),
    ];
    if let Some((name, _)) = unsupported.iter().find(|(_, is_given)| *is_given) {
        return Err(invalid(format!(
            "Target.{name} isn't supported by this version of Ondol. Leave it out."
        )));
    }
    let retry = asked.retry_policy.unwrap_or_default();
    let number =
        |value: Option<i32>, default| value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default);
    let target = Target {
        arn,
        role_arn: asked.role_arn.unwrap_or_default(),
        input: asked.input.unwrap_or_default(),
        retries_max: number(retry.maximum_retry_attempts, RETRIES_DEFAULT),
        age_seconds_max: number(retry.maximum_event_age_in_seconds, AGE_SECONDS_DEFAULT),
    };
    request(context, &target)?;
    Ok(target)
}

/// The operation a target names, with its first letter in either case.
fn operation(arn: &str) -> Result<&'static Operation, Fault> {
    if !arn.starts_with("arn:") {
        return Err(invalid("Provided Arn is not in correct format."));
    }
    let named = arn.strip_prefix(UNIVERSAL).and_then(|rest| rest.strip_prefix("lambda:"));
    let operation = match named {
        Some("putFunctionScalingConfig" | "PutFunctionScalingConfig") => {
            LAMBDA.operation("PutFunctionScalingConfig")
        }
        _ => None,
    };
    operation.ok_or_else(|| {
        invalid(format!(
            "The target {arn} isn't supported by this version of Ondol. The one that is: {SUPPORTED}"
        ))
    })
}

/// The operation, and its request out of the target's input.
fn request(context: &Context, target: &Target) -> Result<(&'static Operation, Map<String, Value>), Fault> {
    let operation = operation(&target.arn)?;
    let wrong =
        |what: &str| invalid(format!("Target.Input isn't a request of lambda:{}: {what}", operation.name));
    if target.input.len() > INPUT_BYTES_MAX {
        return Err(wrong(&format!("it is longer than {INPUT_BYTES_MAX} bytes.")));
    }
    let input = match serde_json::from_str(&target.input) {
        Ok(Value::Object(input)) => input,
        Ok(_) => return Err(wrong("it isn't a JSON object.")),
        Err(error) => return Err(wrong(&format!("it isn't JSON ({error})."))),
    };
    if let Some(shape) = operation.input {
        if let Some(name) = unknown(shape, &input) {
            return Err(wrong(&format!("it has no member {name}.")));
        }
        if let Some(found) = violations(&LAMBDA, shape, &input).first() {
            return Err(wrong(&format!("{found}.")));
        }
    }
    // The operation alone would do without, and go back to its defaults; written into a schedule that is a slip.
    if !input.get("FunctionScalingConfig").is_some_and(Value::is_object) {
        return Err(wrong("FunctionScalingConfig is missing."));
    }
    let typed: PutFunctionScalingConfigRequest =
        typed(input.clone()).map_err(|fault| wrong(&fault.message))?;
    lambda::scaling_configs::read(context, typed).map_err(|fault| wrong(&fault.message))?;
    Ok((operation, input))
}

/// The first member, at any depth, that a shape doesn't have.
fn unknown(shape: ShapeNumber, input: &Map<String, Value>) -> Option<String> {
    let Kind::Structure(members) = LAMBDA.shape(shape).kind else { return None };
    input.iter().find_map(|(name, value)| match members.iter().find(|member| member.name == name) {
        None => Some(name.clone()),
        Some(member) => Some(format!("{name}.{}", unknown(member.shape, value.as_object()?)?)),
    })
}

/// Does what a schedule is for, as its role, and as if that role had asked.
pub async fn carry_out(context: &Context, schedule: &Schedule) -> Result<(), String> {
    let (operation, input) =
        request(context, &schedule.settings.target).map_err(|fault| fault.to_string())?;
    let group = context.home.schedule_group_arn(&schedule.group);
    let asked = context.gatekeeper.acting_as(&schedule.settings.target.role_arn, PRINCIPAL, &group)?;
    let context = context.of(asked, String::new());
    lambda::perform(&context, operation, input).await.map(drop).map_err(|fault| fault.to_string())
}
