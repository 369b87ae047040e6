//! Whose permission each operation needs: its action, the resource it is for, and what the policies may ask about.

use std::sync::Arc;

use ondol_core::attached::policy_document;
use ondol_core::identity::{FunctionReference, Home};
use ondol_core::layer::LayerVersion;
use ondol_core::policy::{Context as Conditions, Policy, PolicyUse};
use ondol_store::keys;
use ondol_wire::fault::Fault;
use serde_json::{Map, Value};

use super::holder;
use crate::context::Context;

/// The kind of resource an operation is for, told by its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// No resource of its own: policies name it `*`.
    Everything,
    /// `FunctionName`, and the `Qualifier` if there is one.
    Function,
    CapacityProvider,
    EventSourceMapping,
    Layer,
    LayerVersion,
    /// The ARN in a member of this name.
    Arn(&'static str),
}

/// Members of inputs that policies may ask about, and their condition keys. Source: AWS's page on Lambda's
/// actions, resources and condition keys.
const CONDITIONS: &[(&str, &str)] = &[
    ("Principal", "lambda:Principal"),
    ("FunctionUrlAuthType", "lambda:FunctionUrlAuthType"),
    ("AuthType", "lambda:FunctionUrlAuthType"),
    ("Layers", "lambda:Layer"),
    ("CodeSigningConfigArn", "lambda:CodeSigningConfigArn"),
];

/// The action of an operation: its own name, but for a few.
pub fn action(operation: &str) -> String {
    let name = match operation {
        "Invoke" => "InvokeFunction",
        "GetLayerVersionByArn" => "GetLayerVersion",
        other => other,
    };
    format!("lambda:{name}")
}

/// Refuses what the caller may not do.
pub fn authorize(
    context: &Context,
    operation: &str,
    on: On,
    input: &Map<String, Value>,
) -> Result<(), Fault> {
    let Some(asked) = &context.asked else {
        return Err(Fault::new("AccessDeniedException", 403, "Nobody is known to ask."));
    };
    let policy = resource_policy(context, on, input)?;
    if policy.is_none() && context.gatekeeper.is_owner(asked) {
        return Ok(());
    }
    let mut conditions = asked.context();
    fill(&context.home, &mut conditions, input);
    context.gatekeeper.authorizer().authorize(
        &asked.caller,
        asked.session_policy.as_deref(),
        &action(operation),
        &resource(&context.home, on, input),
        &conditions,
        policy.as_deref(),
    )
}

fn text<'a>(input: &'a Map<String, Value>, name: &str) -> &'a str {
    input.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The ARN an operation is for, as policies name it.
pub fn resource(home: &Home, on: On, input: &Map<String, Value>) -> String {
    let by_name = |given: &str, arn: &dyn Fn(&str) -> String| {
        if given.starts_with("arn:") { given.to_owned() } else { arn(given) }
    };
    match on {
        On::Everything => "*".into(),
        On::Function => {
            let reference = FunctionReference::parse(text(input, "FunctionName"));
            let beside = input.get("Qualifier").and_then(Value::as_str).map(str::to_owned);
            let qualifier = reference.qualifier.clone().or(beside);
            reference.arn(home, qualifier.as_deref())
        }
        On::CapacityProvider => {
            by_name(text(input, "CapacityProviderName"), &|name| home.capacity_provider_arn(name))
        }
        On::EventSourceMapping => match text(input, "UUID") {
            "" => "*".into(),
            uuid => home.event_source_mapping_arn(uuid),
        },
        On::Layer => by_name(text(input, "LayerName"), &|name| home.layer_arn(name)),
        On::LayerVersion => {
            let layer = by_name(text(input, "LayerName"), &|name| home.layer_arn(name));
            format!("{layer}:{}", input.get("VersionNumber").cloned().unwrap_or_default())
        }
        On::Arn(member) => text(input, member).to_owned(),
    }
}

fn fill(home: &Home, conditions: &mut Conditions, input: &Map<String, Value>) {
    for (member, key) in CONDITIONS {
        match input.get(*member) {
            Some(Value::String(value)) => conditions.add(key, value.as_str()),
            Some(Value::Array(values)) => {
                values.iter().filter_map(Value::as_str).for_each(|value| conditions.add(key, value));
            }
            _ => {}
        }
    }
    if let Some(function) = input.get("FunctionName").and_then(Value::as_str) {
        let reference = FunctionReference::parse(function);
        conditions.add("lambda:FunctionArn", reference.arn(home, reference.qualifier.as_deref()));
    }
}

/// The policy of the resource itself, where it has one.
fn resource_policy(
    context: &Context,
    on: On,
    input: &Map<String, Value>,
) -> Result<Option<Arc<Policy>>, Fault> {
    let statements = match on {
        On::Function => {
            let reference = FunctionReference::parse(text(input, "FunctionName"));
            let beside = input.get("Qualifier").and_then(Value::as_str);
            let qualifier = reference.qualifier.as_deref().or(beside);
            let found = holder::find(context, &reference.name, qualifier).ok();
            found.map(|holder| holder.attached().policy.clone())
        }
        On::LayerVersion | On::Arn("Arn") => {
            let arn = resource(&context.home, on, input);
            let mut parts = arn.rsplitn(3, ':');
            let number = parts.next().and_then(|number| number.parse().ok());
            let key = keys::layer_version(parts.next().unwrap_or_default(), number.unwrap_or_default());
            context.document::<LayerVersion>(&key)?.map(|(version, _)| version.policy)
        }
        _ => None,
    };
    // One that cannot be read allows nothing.
    Ok(statements
        .filter(|statements| !statements.is_empty())
        .and_then(|statements| Policy::parse(&policy_document(&statements), PolicyUse::Resource).ok())
        .map(Arc::new))
}
