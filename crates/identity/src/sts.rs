//! The operations of STS.

use ondol_core::policy::{CallerKind, Policy, PolicyUse};
use ondol_wire::fault::Fault;
use ondol_wire::sts::SERVICE;
use ondol_wire::sts::types::{
    AssumeRoleRequest, AssumeRoleResponse, AssumedRoleUser, Credentials as WireCredentials,
    GetAccessKeyInfoRequest, GetAccessKeyInfoResponse, GetCallerIdentityRequest, GetCallerIdentityResponse,
    GetSessionTokenRequest, GetSessionTokenResponse, PolicyDescriptorType,
};
use serde_json::{Value, json};

use crate::Enforcement;
use crate::call::{Asker, Call};
use crate::sessions::{Claims, RoleSession, SESSION_POLICY_LENGTH_MAX};

/// How long a session lasts when nobody says; also the most for who is a session itself, and for root.
const SESSION_SECONDS: i64 = 3_600;

fn fault(code: &'static str, message: impl Into<String>) -> Fault {
    Fault::of(&SERVICE, code, message)
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("ValidationError", 400, message)
}

/// A parameter that would have no effect is refused.
fn unsupported(given: bool, name: &str) -> Result<(), Fault> {
    if given {
        return Err(invalid(format!("{name} isn't supported by this version of Ondol. Leave it out.")));
    }
    Ok(())
}

pub async fn get_caller_identity(
    call: &Call<'_>,
    _: GetCallerIdentityRequest,
) -> Result<GetCallerIdentityResponse, Fault> {
    let caller = call.asker.caller;
    Ok(GetCallerIdentityResponse {
        user_id: Some(caller.user_id()),
        account: Some(caller.account_id.clone()),
        arn: Some(caller.arn()),
    })
}

pub async fn assume_role(call: &Call<'_>, input: AssumeRoleRequest) -> Result<AssumeRoleResponse, Fault> {
    unsupported(input.tags.is_some_and(|tags| !tags.is_empty()), "Tags")?;
    unsupported(input.transitive_tag_keys.is_some_and(|keys| !keys.is_empty()), "TransitiveTagKeys")?;
    unsupported(input.provided_contexts.is_some_and(|list| !list.is_empty()), "ProvidedContexts")?;
    unsupported(input.serial_number.is_some(), "SerialNumber")?;
    unsupported(input.token_code.is_some(), "TokenCode")?;
    unsupported(input.source_identity.is_some(), "SourceIdentity")?;
    let role_arn = input.role_arn.unwrap_or_default();
    let session_name = input.role_session_name.unwrap_or_default();
    let Asker { caller, session_policy, context, .. } = *call.asker;
    let mut context = context.clone().with("sts:RoleSessionName", &session_name);
    if let Some(id) = &input.external_id {
        context.add("sts:ExternalId", id);
    }
    let role = call.identity.roles.by_arn(&role_arn);
    if let Some(role) = &role {
        role.add_tags(&mut context);
    }
    let authorizer = &call.identity.authorizer;
    authorizer.may_assume(caller, session_policy, role.as_deref(), &role_arn, &context)?;
    // `may_assume` lets nobody assume what is not there.
    let Some(role) = role else { return Err(invalid(format!("There is no role {role_arn}."))) };

    let duration = input.duration_seconds.map_or(SESSION_SECONDS, i64::from);
    if duration > i64::from(role.max_session_duration_seconds) {
        return Err(invalid(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        ));
    }
    if duration > SESSION_SECONDS && matches!(caller.kind, CallerKind::AssumedRole { .. }) {
        return Err(invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        ));
    }
    let policy = session_policy_of(call, input.policy, input.policy_arns)?;
    let session = RoleSession { arn: role.arn.clone(), id: role.id.clone(), session_name };
    let packed = policy.as_ref().map(|policy| packed_percent(policy));
    let claims = Claims {
        account_id: call.identity.home.account_id.clone(),
        role: Some(session),
        expires_epoch_seconds: Some(now_epoch_seconds(call) + duration),
        ends_with_server: false,
        session_policy: policy,
        source: Some(caller.arn()),
        access_key_id: None,
        issued_epoch_seconds: now_epoch_seconds(call),
    };
    let assumed = claims.caller();
    Ok(AssumeRoleResponse {
        credentials: Some(issue(call, claims)),
        assumed_role_user: Some(AssumedRoleUser {
            assumed_role_id: Some(assumed.user_id()),
            arn: Some(assumed.arn()),
        }),
        packed_policy_size: packed,
        ..AssumeRoleResponse::default()
    })
}

fn now_epoch_seconds(call: &Call<'_>) -> i64 {
    call.identity.now_epoch_millis().div_euclid(1_000)
}

fn issue(call: &Call<'_>, claims: Claims) -> WireCredentials {
    let expires = claims.expires_epoch_seconds;
    let credentials = call.identity.sessions.issue(claims);
    WireCredentials {
        access_key_id: Some(credentials.access_key_id),
        secret_access_key: Some(credentials.secret_access_key),
        session_token: Some(credentials.session_token),
        expiration: expires.map(|seconds| seconds as f64),
    }
}

/// How much of what is allotted a policy takes.
fn packed_percent(policy: &str) -> i32 {
    i32::try_from((policy.len() * 100).div_ceil(SESSION_POLICY_LENGTH_MAX)).unwrap_or(i32::MAX)
}

/// The policy given with the request and the managed ones it names, as one document: what one of them allows
/// is allowed.
fn session_policy_of(
    call: &Call<'_>,
    policy: Option<String>,
    arns: Option<Vec<PolicyDescriptorType>>,
) -> Result<Option<String>, Fault> {
    let arns = arns.unwrap_or_default();
    if arns.is_empty() {
        return policy.map(checked).transpose();
    }
    let mut documents: Vec<String> = policy.map(checked).transpose()?.into_iter().collect();
    for arn in arns.into_iter().filter_map(|descriptor| descriptor.arn) {
        let managed = call.identity.roles.managed_policy(&arn);
        let managed = managed.ok_or_else(|| {
            fault("MalformedPolicyDocument", format!("Policy {arn} does not exist or is not attachable."))
        })?;
        documents.push(managed.text().to_owned());
    }
    let mut statements = Vec::new();
    for document in &documents {
        let Ok(Value::Object(mut document)) = serde_json::from_str(document) else { continue };
        match document.remove("Statement") {
            Some(Value::Array(list)) => statements.extend(list),
            Some(one) => statements.push(one),
            None => {}
        }
    }
    // Two documents may use the same id.
    for statement in statements.iter_mut().filter_map(Value::as_object_mut) {
        statement.remove("Sid");
    }
    checked(json!({"Version": "2012-10-17", "Statement": statements}).to_string()).map(Some)
}

fn checked(policy: String) -> Result<String, Fault> {
    let percent = packed_percent(&policy);
    if percent > 100 {
        let text = format!("Packed policy consumes {percent}% of allotted space, please use smaller policy.");
        return Err(fault("PackedPolicyTooLarge", text));
    }
    Policy::parse(&policy, PolicyUse::Identity)
        .map_err(|malformed| fault("MalformedPolicyDocument", malformed.message))?;
    Ok(policy)
}

pub async fn get_session_token(
    call: &Call<'_>,
    input: GetSessionTokenRequest,
) -> Result<GetSessionTokenResponse, Fault> {
    unsupported(input.serial_number.is_some(), "SerialNumber")?;
    unsupported(input.token_code.is_some(), "TokenCode")?;
    let Asker { caller, access_key_id, .. } = *call.asker;
    // A session that made sessions would outlive the key it began with.
    let is_session = access_key_id.is_none() && call.identity.authorizer.enforcement() == Enforcement::On;
    if caller.kind != CallerKind::Root || is_session {
        let text = "Cannot call GetSessionToken with session credentials";
        return Err(Fault::new("AccessDenied", 403, text));
    }
    let duration = input.duration_seconds.map_or(SESSION_SECONDS, i64::from).min(SESSION_SECONDS);
    let claims = Claims {
        account_id: caller.account_id.clone(),
        role: None,
        expires_epoch_seconds: Some(now_epoch_seconds(call) + duration),
        ends_with_server: false,
        session_policy: None,
        source: Some(caller.arn()),
        access_key_id: access_key_id.map(str::to_owned),
        issued_epoch_seconds: now_epoch_seconds(call),
    };
    Ok(GetSessionTokenResponse {
        credentials: Some(issue(call, claims)),
        ..GetSessionTokenResponse::default()
    })
}

/// Every key here is this account's.
pub async fn get_access_key_info(
    call: &Call<'_>,
    _: GetAccessKeyInfoRequest,
) -> Result<GetAccessKeyInfoResponse, Fault> {
    Ok(GetAccessKeyInfoResponse { account: Some(call.identity.home.account_id.clone()) })
}
