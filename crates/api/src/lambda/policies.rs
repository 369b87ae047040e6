//! Resource policies of functions, versions and aliases, statement by statement and whole.

use ondol_core::attached::{Statement, policy_document as document};
use ondol_core::identity::{FunctionReference, LATEST};
use ondol_core::policy::{Policy, PolicyUse};
use ondol_identity::Enforcement;
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    AddPermissionRequest, AddPermissionResponse, DeleteResourcePolicyRequest, GetPolicyRequest,
    GetPolicyResponse, GetResourcePolicyRequest, GetResourcePolicyResponse, PutResourcePolicyRequest,
    PutResourcePolicyResponse, RemovePermissionRequest,
};
use serde_json::{Map, Value, json};

use super::holder::{self, Holder};
use super::names::{self, Named};
use crate::context::Context;
use crate::faults::{fault, invalid};

/// The largest policy, as text. Source: AWS's page on quotas.
const POLICY_BYTES_MAX: usize = 20 << 10;

pub async fn add(context: &Context, input: AddPermissionRequest) -> Result<AddPermissionResponse, Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier.clone())?;
    if named.qualifier.as_deref() == Some(LATEST) {
        return Err(invalid("We currently do not support adding policies for $LATEST."));
    }
    let action = input.action.as_deref().unwrap_or_default();
    if input.function_url_auth_type.is_some()
        && !matches!(action, "lambda:InvokeFunctionUrl" | "lambda:*" | "*")
    {
        return Err(invalid("FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action"));
    }
    if input.invoked_via_function_url == Some(true) && action != "lambda:InvokeFunction" {
        return Err(invalid("InvokedViaFunctionUrl is only supported for lambda:InvokeFunction action"));
    }
    let statement = holder::change(context, &named, |holder| {
        check_revision(holder, input.revision_id.as_deref())?;
        must_be_new(&holder.attached().policy, input.statement_id.as_deref().unwrap_or_default())?;
        must_be_here(context, input.principal.as_deref().unwrap_or_default())?;
        let statement = statement(&input, &holder.arn(context))?;
        append(&mut holder.attached_mut().policy, statement.clone())?;
        holder.renew_revision_id();
        Ok(statement)
    })
    .await?;
    Ok(AddPermissionResponse { statement: Some(statement.json.to_string()) })
}

pub fn must_be_new(policy: &[Statement], sid: &str) -> Result<(), Fault> {
    if policy.iter().any(|existing| existing.sid == sid) {
        let text = format!(
            "The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the existing statement."
        );
        return Err(fault("ResourceConflictException", text));
    }
    Ok(())
}

/// Adds a statement whose id is new, within the limit on the whole policy.
pub fn append(policy: &mut Vec<Statement>, statement: Statement) -> Result<(), Fault> {
    must_be_new(policy, &statement.sid)?;
    policy.push(statement);
    // What could not be read again would take the whole policy along.
    if let Err(malformed) = Policy::parse(&document(policy), PolicyUse::Resource) {
        policy.pop();
        return Err(match malformed.message.starts_with("Invalid principal") {
            true => bad_principal(),
            false => invalid(format!("The policy can't be used: {}", malformed.message)),
        });
    }
    let size = document(policy).len();
    if size > POLICY_BYTES_MAX {
        policy.pop();
        let text = format!("The final policy size ({size}) is bigger than the limit ({POLICY_BYTES_MAX}).");
        return Err(fault("PolicyLengthExceededException", text));
    }
    Ok(())
}

fn statement(input: &AddPermissionRequest, resource: &str) -> Result<Statement, Fault> {
    let sid = input.statement_id.clone().unwrap_or_default();
    let principal = principal(input.principal.as_deref().unwrap_or_default()).ok_or_else(bad_principal)?;
    let mut conditions = Map::new();
    let mut condition = |operator: &str, key: &str, value: Option<Value>| {
        if let Some(value) = value {
            let keys = conditions.entry(operator).or_insert_with(|| json!({}));
            keys[key] = value;
        }
    };
    let text = |value: &Option<String>| value.clone().map(Value::from);
    condition("StringEquals", "lambda:FunctionUrlAuthType", text(&input.function_url_auth_type));
    condition("StringEquals", "lambda:EventSourceToken", text(&input.event_source_token));
    condition("StringEquals", "aws:PrincipalOrgID", text(&input.principal_org_id));
    condition("StringEquals", "AWS:SourceAccount", text(&input.source_account));
    condition("ArnLike", "AWS:SourceArn", text(&input.source_arn));
    let via_url = input.invoked_via_function_url.map(|value| Value::from(value.to_string()));
    condition("Bool", "lambda:InvokedViaFunctionUrl", via_url);
    let mut json = Map::new();
    json.insert("Sid".into(), sid.clone().into());
    json.insert("Effect".into(), "Allow".into());
    json.insert("Principal".into(), principal);
    json.insert("Action".into(), input.action.clone().unwrap_or_default().into());
    json.insert("Resource".into(), resource.into());
    if !conditions.is_empty() {
        json.insert("Condition".into(), conditions.into());
    }
    Ok(Statement { sid, json: json.into() })
}

/// A principal as `AddPermission` takes it: everybody, a service, an account, or an ARN.
pub fn principal(text: &str) -> Option<Value> {
    let is_account = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_service = || {
        let host = text.strip_suffix(".amazonaws.com").or_else(|| text.strip_suffix(".amazonaws.com.cn"));
        host.or_else(|| text.strip_suffix(".amazon.com"))
            .is_some_and(|labels| labels.split('.').all(is_label))
            || text.strip_suffix(".alexa-appkit").is_some_and(is_label)
    };
    match parts[..] {
        _ if text == "*" => Some(json!("*")),
        _ if is_account => Some(json!({"AWS": format!("arn:aws:iam::{text}:root")})),
        ["arn", _, "iam" | "sts", "", account, resource]
            if account.len() == 12 && (resource == "root" || resource.contains('/')) =>
        {
            Some(json!({"AWS": text}))
        }
        _ if is_service() => Some(json!({"Service": text})),
        _ => None,
    }
}

/// A role of this account must be there; those of other accounts are not ours to know.
fn must_be_here(context: &Context, principal: &str) -> Result<(), Fault> {
    let ours = format!("arn:aws:iam::{}:role/", context.home.account_id);
    let is_on = context.gatekeeper.authorizer().enforcement() == Enforcement::On;
    if is_on && principal.starts_with(&ours) && context.roles.by_arn(principal).is_none() {
        return Err(bad_principal());
    }
    Ok(())
}

pub fn bad_principal() -> Fault {
    invalid("The provided principal was invalid. Please check the principal and try again.")
}

pub async fn remove(context: &Context, input: RemovePermissionRequest) -> Result<(), Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    let sid = input.statement_id.unwrap_or_default();
    if names::function(context, &named.name).is_err() {
        let arn = context.home.function_arn(&named.name, None);
        return Err(fault("ResourceNotFoundException", format!("No policy found for: {arn}")));
    }
    holder::change(context, &named, |holder| {
        if holder.attached().policy.is_empty() {
            return Err(no_policy());
        }
        if !holder.attached().policy.iter().any(|statement| statement.sid == sid) {
            return Err(no_statement(&sid));
        }
        check_revision(holder, input.revision_id.as_deref())?;
        holder.attached_mut().policy.retain(|statement| statement.sid != sid);
        holder.renew_revision_id();
        Ok(())
    })
    .await
}

pub fn no_statement(sid: &str) -> Fault {
    fault("ResourceNotFoundException", format!("Statement {sid} is not found in resource policy."))
}

pub fn no_policy() -> Fault {
    fault("ResourceNotFoundException", "No policy is associated with the given resource.")
}

fn check_revision(holder: &Holder, revision_id: Option<&str>) -> Result<(), Fault> {
    if revision_id.is_some_and(|given| given != holder.revision_id()) {
        let text = "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the latest Revision Id";
        return Err(fault("PreconditionFailedException", text));
    }
    Ok(())
}

pub async fn get(context: &Context, input: GetPolicyRequest) -> Result<GetPolicyResponse, Fault> {
    let named = names::named(context, input.function_name.as_deref(), input.qualifier)?;
    names::function(context, &named.name)?;
    // Whether the version or alias is there is not told apart.
    let holder = holder::find(context, &named.name, named.qualifier.as_deref())
        .ok()
        .filter(|holder| !holder.attached().policy.is_empty())
        .ok_or_else(|| fault("ResourceNotFoundException", "The resource you requested does not exist."))?;
    Ok(GetPolicyResponse {
        policy: Some(document(&holder.attached().policy)),
        revision_id: Some(holder.revision_id().to_owned()),
    })
}

/// The function, version or alias whose policy an ARN stands for.
fn of_arn(context: &Context, arn: Option<&str>) -> Result<Named, Fault> {
    let arn = arn.unwrap_or_default();
    if !arn.contains(":function:") {
        let text = format!("{arn} has no resource policy: functions, versions and aliases have.");
        return Err(invalid(text));
    }
    let Named { name, qualifier } = names::named(context, Some(arn), None)?;
    if FunctionReference::parse(arn).qualifier.as_deref() == Some(LATEST) {
        return Err(invalid("We currently do not support adding policies for $LATEST."));
    }
    Ok(Named { name, qualifier })
}

/// Replaces the whole policy.
pub async fn put_whole(
    context: &Context,
    input: PutResourcePolicyRequest,
) -> Result<PutResourcePolicyResponse, Fault> {
    let named = of_arn(context, input.resource_arn.as_deref())?;
    let policy = parse(input.policy.as_deref().unwrap_or_default())?;
    let (policy, revision_id) = holder::change(context, &named, |holder| {
        check_revision(holder, input.revision_id.as_deref())?;
        let arn = holder.arn(context);
        if let Some(other) = policy.iter().find_map(|statement| not_of(statement, &arn)) {
            return Err(invalid(format!("The policy's resource {other} is not {arn}.")));
        }
        holder.attached_mut().policy.clone_from(&policy);
        holder.renew_revision_id();
        Ok((document(&policy), holder.revision_id().to_owned()))
    })
    .await?;
    Ok(PutResourcePolicyResponse { policy: Some(policy), revision_id: Some(revision_id) })
}

/// A resource of a statement that is not the policy's own.
fn not_of(statement: &Statement, arn: &str) -> Option<String> {
    let resources = match statement.json.get("Resource") {
        Some(Value::String(resource)) => vec![resource.clone()],
        Some(Value::Array(list)) => list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    resources.into_iter().find(|resource| resource != arn)
}

fn parse(text: &str) -> Result<Vec<Statement>, Fault> {
    if text.len() > POLICY_BYTES_MAX {
        let text =
            format!("The final policy size ({}) is bigger than the limit ({POLICY_BYTES_MAX}).", text.len());
        return Err(fault("PolicyLengthExceededException", text));
    }
    Policy::parse(text, PolicyUse::Resource)
        .map_err(|malformed| invalid(format!("The policy can't be used: {}", malformed.message)))?;
    let document: Value = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
    let statements = match document.get("Statement") {
        Some(Value::Array(list)) => list.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    };
    let mut policy: Vec<Statement> = Vec::new();
    for json in statements {
        let sid = json.get("Sid").and_then(Value::as_str).unwrap_or_default().to_owned();
        if sid.is_empty() || policy.iter().any(|statement| statement.sid == sid) {
            return Err(invalid("Every statement of the policy needs a Sid of its own."));
        }
        policy.push(Statement { sid, json });
    }
    Ok(policy)
}

pub async fn get_whole(
    context: &Context,
    input: GetResourcePolicyRequest,
) -> Result<GetResourcePolicyResponse, Fault> {
    let Named { name, qualifier } = of_arn(context, input.resource_arn.as_deref())?;
    let holder = holder::find(context, &name, qualifier.as_deref())?;
    if holder.attached().policy.is_empty() {
        return Err(fault("ResourceNotFoundException", "The resource you requested does not exist."));
    }
    Ok(GetResourcePolicyResponse {
        policy: Some(document(&holder.attached().policy)),
        revision_id: Some(holder.revision_id().to_owned()),
    })
}

pub async fn delete_whole(context: &Context, input: DeleteResourcePolicyRequest) -> Result<(), Fault> {
    let named = of_arn(context, input.resource_arn.as_deref())?;
    holder::change(context, &named, |holder| {
        if holder.attached().policy.is_empty() {
            return Err(no_policy());
        }
        check_revision(holder, input.revision_id.as_deref())?;
        holder.attached_mut().policy.clear();
        holder.renew_revision_id();
        Ok(())
    })
    .await
}
