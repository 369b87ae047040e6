//! Whose permission each operation needs: its action, the resource it is for, and what the policies may ask about.

use std::collections::BTreeMap;
use std::sync::Arc;

use ondol_core::attached::policy_document;
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::code_signing::CodeSigningConfig;
use ondol_core::event_source_mapping::EventSourceMapping;
use ondol_core::function::Function;
use ondol_core::identity::{FunctionReference, Home, LATEST};
use ondol_core::layer::LayerVersion;
use ondol_core::policy::{Context as Conditions, Policy, PolicyUse};
use ondol_identity::Enforcement;
use ondol_store::keys;
use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE;
use ondol_wire::model::{Kind, Operation};
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

/// Operations on functions that other accounts may be allowed. Source: AWS's page on access for other accounts.
const ACROSS_ACCOUNTS: &[&str] = &[
    "CreateAlias",
    "DeleteAlias",
    "DeleteFunction",
    "DeleteFunctionConcurrency",
    "DeleteFunctionEventInvokeConfig",
    "DeleteProvisionedConcurrencyConfig",
    "GetAlias",
    "GetFunction",
    "GetFunctionConcurrency",
    "GetFunctionConfiguration",
    "GetFunctionEventInvokeConfig",
    "GetPolicy",
    "GetProvisionedConcurrencyConfig",
    "Invoke",
    "ListAliases",
    "ListFunctionEventInvokeConfigs",
    "ListProvisionedConcurrencyConfigs",
    "ListTags",
    "ListVersionsByFunction",
    "PublishVersion",
    "PutFunctionConcurrency",
    "PutFunctionEventInvokeConfig",
    "PutProvisionedConcurrencyConfig",
    "TagResource",
    "UntagResource",
    "UpdateAlias",
    "UpdateFunctionCode",
    "UpdateFunctionEventInvokeConfig",
];

/// The action of an operation: its own name, but for a few.
pub fn action(operation: &str) -> String {
    let name = match operation {
        "Invoke" | "InvokeAsync" | "InvokeWithResponseStream" => "InvokeFunction",
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
    let resource = resource(&context.home, operation, on, input);
    let is_ours = |arn: &str| arn.split(':').nth(4) == Some(context.home.account_id.as_str());
    if resource.contains(":function:") && !is_ours(&resource) && !ACROSS_ACCOUNTS.contains(&operation) {
        // AWS gives no reason.
        return Err(Fault::new("AccessDeniedException", 403, ""));
    }
    let is_owner = context.gatekeeper.is_owner(asked);
    let policy = resource_policy(context, on, &resource, is_owner)?;
    let is_foreign = resource.starts_with("arn:") && !is_ours(&resource);
    if !(policy.is_none() && is_owner && !is_foreign) {
        let mut conditions = asked.context();
        fill(context, &mut conditions, (on, &resource), input)?;
        let of_resource = policy.as_deref();
        let allow = |action: &str, resource: &str, conditions: &Conditions, policy: Option<&Policy>| {
            let session_policy = asked.session_policy.as_deref();
            let authorizer = context.gatekeeper.authorizer();
            authorizer.authorize(&asked.caller, session_policy, action, resource, conditions, policy)
        };
        allow(&action(operation), &resource, &conditions, of_resource)?;
        for also in more(operation, input) {
            allow(also, &resource, &conditions, of_resource)?;
        }
        for (principal, kind) in input.get("Policy").and_then(Value::as_str).map(grants).unwrap_or_default() {
            let mut conditions = conditions.clone().with("lambda:Principal", principal);
            if let Some(kind) = kind {
                conditions.add("lambda:FunctionUrlAuthType", kind);
            }
            allow("lambda:AddPermission", &resource, &conditions, of_resource)?;
        }
        if operation == "UpdateEventSourceMapping" && input.contains_key("FunctionName") {
            // The function it is to be for, besides the one it is for.
            let mut conditions = asked.context();
            fill(context, &mut conditions, (On::Everything, &resource), input)?;
            allow(&action(operation), &resource, &conditions, None)?;
        }
        if operation == "PutFunctionCodeSigningConfig" {
            allow(&action(operation), text(input, "CodeSigningConfigArn"), &conditions, None)?;
        }
    }
    let is_stranger = asked.caller.account_id != context.home.account_id
        && context.gatekeeper.authorizer().enforcement() == Enforcement::On;
    if is_stranger && resource.contains(":function:") && !ACROSS_ACCOUNTS.contains(&operation) {
        // Whatever the function's policy says.
        return Err(Fault::new("AccessDeniedException", 403, ""));
    }
    for layer in layers(operation, input) {
        let conditions = asked.context();
        let policy = resource_policy(context, On::Arn("Arn"), layer, is_owner)?;
        if policy.is_none() && is_owner && is_ours(layer) {
            continue;
        }
        context.gatekeeper.authorizer().authorize(
            &asked.caller,
            asked.session_policy.as_deref(),
            "lambda:GetLayerVersion",
            layer,
            &conditions,
            policy.as_deref(),
        )?;
    }
    Ok(())
}

/// Whether the caller may see the tags of a function it may see.
pub fn may_list_tags(context: &Context, function: &str) -> bool {
    let mut input = Map::new();
    input.insert("Resource".into(), context.home.function_arn(function, None).into());
    authorize(context, "ListTags", On::Arn("Resource"), &input).is_ok()
}

/// Further actions an operation needs. Source: AWS's table of Lambda's operations and their actions.
fn more(operation: &str, input: &Map<String, Value>) -> Vec<&'static str> {
    let tags = input.get("Tags").and_then(Value::as_object).is_some_and(|tags| !tags.is_empty());
    match operation {
        // Adding is asked for each statement.
        "PutResourcePolicy" => vec!["lambda:RemovePermission"],
        "GetResourcePolicy" => vec!["lambda:GetPolicy"],
        "DeleteResourcePolicy" => vec!["lambda:RemovePermission"],
        name if tags && name.starts_with("Create") => vec!["lambda:TagResource"],
        _ => Vec::new(),
    }
}

/// The layers a function is to use: each must be allowed to be read.
fn layers<'a>(operation: &str, input: &'a Map<String, Value>) -> Vec<&'a str> {
    if !matches!(operation, "CreateFunction" | "UpdateFunctionConfiguration") {
        return Vec::new();
    }
    let layers = input.get("Layers").and_then(Value::as_array);
    layers.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn takes_qualifier(operation: &Operation) -> bool {
    operation.input.is_some_and(|shape| match SERVICE.shape(shape).kind {
        Kind::Structure(members) => members.iter().any(|member| member.name == "Qualifier"),
        _ => false,
    })
}

fn text<'a>(input: &'a Map<String, Value>, name: &str) -> &'a str {
    input.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The ARN an operation is for, as policies name it.
pub fn resource(home: &Home, operation: &str, on: On, input: &Map<String, Value>) -> String {
    let by_name = |given: &str, arn: &dyn Fn(&str) -> String| {
        if given.starts_with("arn:") { given.to_owned() } else { arn(given) }
    };
    match on {
        On::Everything => "*".into(),
        On::Function => {
            let reference = FunctionReference::parse(text(input, "FunctionName"));
            let beside = input.get("Qualifier").and_then(Value::as_str).map(str::to_owned);
            let qualifier = reference.qualifier.clone().or(beside);
            // Where an operation has no qualifier, `$LATEST` is the function itself.
            let takes_one = SERVICE.operation(operation).is_some_and(takes_qualifier);
            let qualifier = qualifier.filter(|qualifier| takes_one || qualifier != LATEST);
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
        On::Arn(member) => {
            let arn = text(input, member);
            if !arn.contains(":function:") {
                return arn.to_owned();
            }
            // The function it stands for, however it is written.
            let reference = FunctionReference::parse(arn);
            reference.arn(home, reference.qualifier.as_deref())
        }
    }
}

/// Tells the policies what they may ask about.
fn fill(
    context: &Context,
    conditions: &mut Conditions,
    (on, resource): (On, &str),
    input: &Map<String, Value>,
) -> Result<(), Fault> {
    for (member, key) in CONDITIONS {
        match input.get(*member) {
            Some(Value::String(value)) => conditions.add(key, value.as_str()),
            Some(Value::Array(values)) => {
                values.iter().filter_map(Value::as_str).for_each(|value| conditions.add(key, value));
            }
            _ => {}
        }
    }
    let network = input.get("VpcConfig");
    for (member, key) in [("SubnetIds", "lambda:SubnetIds"), ("SecurityGroupIds", "lambda:SecurityGroupIds")]
    {
        let ids = network.and_then(|network| network.get(member)).and_then(Value::as_array);
        ids.into_iter().flatten().filter_map(Value::as_str).for_each(|id| conditions.add(key, id));
    }
    for (name, value) in input.get("Tags").and_then(Value::as_object).into_iter().flatten() {
        conditions.add(format!("aws:RequestTag/{name}"), value.as_str().unwrap_or_default());
        conditions.add("aws:TagKeys", name.as_str());
    }
    for name in input.get("TagKeys").and_then(Value::as_array).into_iter().flatten() {
        conditions.add("aws:TagKeys", name.as_str().unwrap_or_default());
    }
    let mut function = input.get("FunctionName").and_then(Value::as_str).map(str::to_owned);
    if let On::EventSourceMapping = on {
        let key = keys::event_source_mapping(text(input, "UUID"));
        // Of a mapping that is there it is the one it is for, whatever it is to be for.
        if let Some((mapping, _)) = context.document::<EventSourceMapping>(&key)? {
            function = Some(context.home.function_arn(&mapping.function, mapping.qualifier.as_deref()));
        }
    }
    if let Some(function) = function {
        let reference = FunctionReference::parse(&function);
        conditions.add("lambda:FunctionArn", reference.arn(&context.home, reference.qualifier.as_deref()));
    }
    if let (On::Function, None) = (on, input.get("AuthType")) {
        let url = holder_of(context, resource).and_then(|h| h.attached().url.clone());
        if let Some(url) = url {
            conditions.add("lambda:FunctionUrlAuthType", url.auth_type);
        }
    }
    add_tags(context, conditions, resource)
}

/// What `AddPermission` would have been asked about a policy that is put whole: the principal and the type of
/// authorization of each of its grants. What opens more than can be told apart counts as open to everybody.
fn grants(policy: &str) -> Vec<(String, Option<String>)> {
    let document: Value = serde_json::from_str(policy).unwrap_or_default();
    let list = |value: &Value| match value {
        Value::Array(list) => list.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let texts = |value: &Value| -> Vec<String> {
        list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut grants = Vec::new();
    for statement in list(&document["Statement"]) {
        let principals: Vec<String> = match &statement["Principal"] {
            Value::Object(kinds) => kinds.values().flat_map(&texts).collect(),
            Value::Null => vec!["*".into()],
            one => texts(one),
        };
        let mut kinds: Vec<Option<String>> = Vec::new();
        for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
            for (key, value) in keys.as_object().into_iter().flatten() {
                if key.eq_ignore_ascii_case("lambda:FunctionUrlAuthType") {
                    let told = if operator == "StringEquals" { texts(value) } else { vec!["NONE".into()] };
                    kinds.extend(told.into_iter().map(Some));
                }
            }
        }
        if kinds.is_empty() {
            kinds.push(None);
        }
        for principal in &principals {
            grants.extend(kinds.iter().map(|kind| (principal.clone(), kind.clone())));
        }
    }
    grants
}

/// Tells a decision about a resource of its tags.
pub fn add_tags(context: &Context, conditions: &mut Conditions, resource: &str) -> Result<(), Fault> {
    for (name, value) in tags(context, resource)? {
        conditions.add(format!("aws:ResourceTag/{name}"), value);
    }
    Ok(())
}

/// The tags of what is there already.
fn tags(context: &Context, arn: &str) -> Result<BTreeMap<String, String>, Fault> {
    let name = arn.rsplit(':').next().unwrap_or_default();
    Ok(if arn.contains(":function:") {
        let name = FunctionReference::parse(arn).name;
        context.document::<Function>(&keys::function(&name))?.map(|(found, _)| found.tags)
    } else if arn.contains(":capacity-provider:") {
        context.document::<CapacityProvider>(&keys::capacity_provider(name))?.map(|(found, _)| found.tags)
    } else if arn.contains(":event-source-mapping:") {
        context
            .document::<EventSourceMapping>(&keys::event_source_mapping(name))?
            .map(|(found, _)| found.tags)
    } else if arn.contains(":code-signing-config:") {
        context.document::<CodeSigningConfig>(&keys::code_signing_config(name))?.map(|(found, _)| found.tags)
    } else {
        None
    }
    .unwrap_or_default())
}

fn holder_of(context: &Context, arn: &str) -> Option<holder::Holder> {
    let reference = FunctionReference::parse(arn);
    holder::find(context, &reference.name, reference.qualifier.as_deref()).ok()
}

/// The policy of the resource itself, where it has one.
fn resource_policy(
    context: &Context,
    on: On,
    arn: &str,
    is_owner: bool,
) -> Result<Option<Arc<Policy>>, Fault> {
    let statements = match on {
        On::Function => holder_of(context, arn).map(|holder| holder.attached().policy.clone()),
        On::Arn(_) if arn.contains(":function:") => {
            holder_of(context, arn).map(|holder| holder.attached().policy.clone())
        }
        On::LayerVersion | On::Arn("Arn") => {
            let mut parts = arn.rsplitn(3, ':');
            let number = parts.next().and_then(|number| number.parse().ok());
            let key = keys::layer_version(parts.next().unwrap_or_default(), number.unwrap_or_default());
            context.document::<LayerVersion>(&key)?.map(|(version, _)| version.policy)
        }
        _ => None,
    };
    let text = statements.filter(|statements| !statements.is_empty()).map(|list| policy_document(&list));
    // One that cannot be read is for the owner to mend or remove, and closes the resource to all others.
    let read = |text: String| match is_owner {
        true => Policy::parse(&text, PolicyUse::Resource).ok(),
        false => Some(Policy::attached(&text)),
    };
    Ok(text.and_then(read).map(Arc::new))
}
