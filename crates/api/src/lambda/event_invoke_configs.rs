//! How asynchronous invocations are tried again, and where their outcome is sent.

use ondol_core::attached::EventInvokeConfig;
use ondol_core::identity::{FunctionReference, LATEST};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    DeleteFunctionEventInvokeConfigRequest, DestinationConfig, FunctionEventInvokeConfig,
    GetFunctionEventInvokeConfigRequest, ListFunctionEventInvokeConfigsRequest,
    ListFunctionEventInvokeConfigsResponse, OnFailure, OnSuccess, PutFunctionEventInvokeConfigRequest,
    UpdateFunctionEventInvokeConfigRequest,
};

use super::holder::{self, Holder};
use super::names::{self, Named};
use super::page;
use crate::context::Context;
use crate::faults::{fault, invalid};

/// Services that take the outcome of an invocation, by their names in ARNs.
const DESTINATIONS: [(&str, &str); 5] = [
    ("lambda", "lambda:InvokeFunction"),
    ("sqs", "sqs:SendMessage"),
    ("sns", "sns:Publish"),
    ("events", "events:PutEvents"),
    ("s3", "s3:PutObject"),
];

/// The settings one request gives.
struct Asked {
    maximum_retry_attempts: Option<i32>,
    maximum_event_age_in_seconds: Option<i32>,
    destination_config: Option<DestinationConfig>,
}

pub async fn put(
    context: &Context,
    input: PutFunctionEventInvokeConfigRequest,
) -> Result<FunctionEventInvokeConfig, Fault> {
    let named = names::unqualified_or(context, input.function_name.as_deref(), input.qualifier)?;
    let asked = Asked {
        maximum_retry_attempts: input.maximum_retry_attempts,
        maximum_event_age_in_seconds: input.maximum_event_age_in_seconds,
        destination_config: input.destination_config,
    };
    change(context, &named, &asked, |_| Ok(None)).await
}

pub async fn update(
    context: &Context,
    input: UpdateFunctionEventInvokeConfigRequest,
) -> Result<FunctionEventInvokeConfig, Fault> {
    let named = names::unqualified_or(context, input.function_name.as_deref(), input.qualifier)?;
    let asked = Asked {
        maximum_retry_attempts: input.maximum_retry_attempts,
        maximum_event_age_in_seconds: input.maximum_event_age_in_seconds,
        destination_config: input.destination_config,
    };
    change(context, &named, &asked, |holder| {
        holder.attached().event_invoke.clone().map(Some).ok_or_else(|| none_found(context, &named))
    })
    .await
}

/// Puts the asked settings over those that stay.
async fn change(
    context: &Context,
    named: &Named,
    asked: &Asked,
    before: impl Fn(&Holder) -> Result<Option<EventInvokeConfig>, Fault>,
) -> Result<FunctionEventInvokeConfig, Fault> {
    if asked.maximum_retry_attempts.is_none()
        && asked.maximum_event_age_in_seconds.is_none()
        && asked.destination_config.is_none()
    {
        return Err(invalid("You must specify at least one of error handling or destination setting."));
    }
    let gone = || fault("ResourceNotFoundException", "The function doesn't exist.");
    let found = holder::find(context, &named.name, named.qualifier.as_deref()).map_err(|_| gone())?;
    before(&found)?;
    let role = found.settings(context)?.role;
    check_destinations(context, named, &role, asked.destination_config.as_ref())?;
    holder::change(context, named, |holder| {
        let mut config = before(holder)?.unwrap_or(EventInvokeConfig {
            maximum_retry_attempts: None,
            maximum_event_age_seconds: None,
            on_success: None,
            on_failure: None,
            last_modified_epoch_millis: 0,
        });
        let number = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
        if let Some(attempts) = number(asked.maximum_retry_attempts) {
            config.maximum_retry_attempts = Some(attempts);
        }
        if let Some(age) = number(asked.maximum_event_age_in_seconds) {
            config.maximum_event_age_seconds = Some(age);
        }
        if let Some(destinations) = asked.destination_config.clone() {
            // Both sides at once: the one that is left out is none.
            let given = |arn: Option<String>| arn.filter(|arn| !arn.is_empty());
            config.on_success = given(destinations.on_success.and_then(|side| side.destination));
            config.on_failure = given(destinations.on_failure.and_then(|side| side.destination));
        }
        config.last_modified_epoch_millis = context.now_epoch_millis();
        holder.attached_mut().event_invoke = Some(config.clone());
        Ok(shown(context, named, &config))
    })
    .await
}

/// What it takes to bring an outcome to a service.
fn action_of(service: &str) -> Option<&'static str> {
    DESTINATIONS.iter().find(|(name, _)| *name == service).map(|(_, action)| *action)
}

/// Destinations must be of a service that takes outcomes, functions among them must be there, and the function's role
/// must be allowed to reach them.
fn check_destinations(
    context: &Context,
    named: &Named,
    role: &str,
    config: Option<&DestinationConfig>,
) -> Result<(), Fault> {
    let Some(config) = config else { return Ok(()) };
    let success = config.on_success.as_ref().and_then(|side| side.destination.as_deref());
    let failure = config.on_failure.as_ref().and_then(|side| side.destination.as_deref());
    for arn in [success, failure].into_iter().flatten().filter(|arn| !arn.is_empty()) {
        let service = arn.split(':').nth(2).unwrap_or_default();
        let action = action_of(service).filter(|_| service != "s3" || success != Some(arn));
        let Some(action) = action else {
            return Err(invalid(format!(
                "The provided destination config DestinationConfig(onSuccess={}, onFailure={}) is invalid.",
                java("OnSuccess", config.on_success.is_some(), success),
                java("OnFailure", config.on_failure.is_some(), failure),
            )));
        };
        if service == "lambda" {
            check_function(context, named, arn)?;
        }
        // What is put there are objects with this at the beginning of their keys.
        let resource = match service {
            "s3" => format!("{arn}/aws/lambda/async/{}/", named.name),
            _ => arn.to_owned(),
        };
        if !context.gatekeeper.authorizer().role_may(role, action, &resource) {
            let call = action.split(':').next_back().unwrap_or_default();
            return Err(invalid(format!(
                "The function's execution role {role} does not have permissions to call {call} on {arn}"
            )));
        }
    }
    Ok(())
}

/// A function that is to hear of another's outcomes.
fn check_function(context: &Context, named: &Named, arn: &str) -> Result<(), Fault> {
    let reference = FunctionReference::parse(arn);
    if reference.name == named.name {
        return Err(invalid("You can't specify the function as a destination for itself."));
    }
    let target = reference
        .in_home(&context.home, None)
        .ok()
        .and_then(|qualifier| holder::find(context, &reference.name, qualifier.as_deref()).ok());
    if target.is_none() {
        return Err(invalid(format!("The destination ARN {arn} is invalid.")));
    }
    Ok(())
}

/// A destination as the service's own language prints it.
fn java(name: &str, given: bool, destination: Option<&str>) -> String {
    match destination {
        Some(arn) => format!("{name}(destination={arn})"),
        None if given => format!("{name}(destination=null)"),
        None => "null".into(),
    }
}

fn none_found(context: &Context, named: &Named) -> Fault {
    let arn = context.home.function_arn(&named.name, Some(named.qualifier.as_deref().unwrap_or(LATEST)));
    fault("ResourceNotFoundException", format!("The function {arn} doesn't have an EventInvokeConfig"))
}

fn shown(context: &Context, named: &Named, config: &EventInvokeConfig) -> FunctionEventInvokeConfig {
    let number = |value: Option<u32>| value.and_then(|value| i32::try_from(value).ok());
    #[allow(clippy::cast_precision_loss)]
    let last_modified = config.last_modified_epoch_millis as f64 / 1_000.0;
    FunctionEventInvokeConfig {
        last_modified: Some(last_modified),
        function_arn: Some(
            context.home.function_arn(&named.name, Some(named.qualifier.as_deref().unwrap_or(LATEST))),
        ),
        maximum_retry_attempts: number(config.maximum_retry_attempts),
        maximum_event_age_in_seconds: number(config.maximum_event_age_seconds),
        destination_config: Some(DestinationConfig {
            on_success: Some(OnSuccess { destination: config.on_success.clone() }),
            on_failure: Some(OnFailure { destination: config.on_failure.clone() }),
        }),
    }
}

pub async fn get(
    context: &Context,
    input: GetFunctionEventInvokeConfigRequest,
) -> Result<FunctionEventInvokeConfig, Fault> {
    let named = names::unqualified_or(context, input.function_name.as_deref(), input.qualifier)?;
    let found = holder::find(context, &named.name, named.qualifier.as_deref());
    let holder = found.map_err(|_| none_found(context, &named))?;
    let config = holder.attached().event_invoke.as_ref().ok_or_else(|| none_found(context, &named))?;
    Ok(shown(context, &named, config))
}

pub async fn delete(context: &Context, input: DeleteFunctionEventInvokeConfigRequest) -> Result<(), Fault> {
    let named = names::unqualified_or(context, input.function_name.as_deref(), input.qualifier)?;
    if holder::find(context, &named.name, named.qualifier.as_deref()).is_err() {
        return Err(none_found(context, &named));
    }
    holder::change(context, &named, |holder| {
        let taken = holder.attached_mut().event_invoke.take();
        taken.map(drop).ok_or_else(|| none_found(context, &named))
    })
    .await
}

pub async fn list(
    context: &Context,
    input: ListFunctionEventInvokeConfigsRequest,
) -> Result<ListFunctionEventInvokeConfigsResponse, Fault> {
    let name = names::unqualified(context, input.function_name.as_deref())?;
    let gone = || fault("ResourceNotFoundException", "The function doesn't exist.");
    let holders = holder::all(context, &name).map_err(|_| gone())?;
    let configs = holders
        .iter()
        .filter_map(|holder| {
            let config = holder.attached().event_invoke.as_ref()?;
            let named = Named { name: name.clone(), qualifier: holder.qualifier().map(str::to_owned) };
            Some((holder.arn(context), shown(context, &named, config)))
        })
        .collect();
    let (configs, next_marker) = page(configs, input.marker.as_deref(), input.max_items);
    Ok(ListFunctionEventInvokeConfigsResponse { function_event_invoke_configs: Some(configs), next_marker })
}
