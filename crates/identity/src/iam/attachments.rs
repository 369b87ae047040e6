//! Which managed policies roles have.

use ondol_store::{Precondition, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::iam::types::{
    AttachRolePolicyRequest, AttachedPolicy, DetachRolePolicyRequest, ListAttachedRolePoliciesRequest,
    ListAttachedRolePoliciesResponse, ListEntitiesForPolicyRequest, ListEntitiesForPolicyResponse,
    PolicyRole,
};

use super::page::page;
use super::{all_roles, change_role, customer_policy, fault, no_such_policy, policies, role, text};
use crate::call::Call;
use crate::managed_policies::aws_managed_policy;

/// AWS's quota as accounts have it to begin with.
const POLICIES_PER_ROLE_MAX: usize = 10;

pub async fn attach(call: &Call<'_>, input: AttachRolePolicyRequest) -> Result<(), Fault> {
    let (name, arn) = (text(input.role_name), text(input.policy_arn));
    policies::check_arn(&arn)?;
    let build = || {
        let (mut role, revision) = role(call, &name)?;
        let key = keys::iam_role(&name);
        let mut transaction = Transaction::default().when(Precondition::Unchanged(key.clone(), revision));
        if aws_managed_policy(&arn).is_none() {
            let (_, revision) = customer_policy(call, &arn).map_err(|_| {
                let text = format!("Policy {arn} does not exist or is not attachable.");
                fault("NoSuchEntity", text)
            })?;
            // It must still be there when it is attached.
            transaction = transaction.when(Precondition::Unchanged(keys::iam_policy(&arn), revision));
        }
        if !role.attached_policies.contains(&arn) {
            role.attached_policies.push(arn.clone());
        }
        if role.attached_policies.len() > POLICIES_PER_ROLE_MAX {
            let text = format!("Cannot exceed quota for PoliciesPerRole: {POLICIES_PER_ROLE_MAX}");
            return Err(fault("LimitExceeded", text));
        }
        Ok((transaction.put(key, &role), ()))
    };
    call.identity.change(build).await
}

pub async fn detach(call: &Call<'_>, input: DetachRolePolicyRequest) -> Result<(), Fault> {
    let arn = text(input.policy_arn);
    policies::check_arn(&arn)?;
    change_role(call, &text(input.role_name), |role| {
        let place = role.attached_policies.iter().position(|attached| *attached == arn);
        role.attached_policies.remove(place.ok_or_else(|| no_such_policy(&arn))?);
        Ok(())
    })
    .await
}

/// The path and name in a policy's ARN.
fn path_and_name(arn: &str) -> (&str, &str) {
    let rest = arn.split_once(":policy").map_or(arn, |(_, rest)| rest);
    rest.rfind('/').map_or(("/", rest), |place| rest.split_at(place + 1))
}

pub async fn list(
    call: &Call<'_>,
    input: ListAttachedRolePoliciesRequest,
) -> Result<ListAttachedRolePoliciesResponse, Fault> {
    let (role, _) = role(call, &text(input.role_name))?;
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let attached = role.attached_policies.into_iter().filter_map(|arn| {
        let (path, name) = path_and_name(&arn);
        let policy = AttachedPolicy { policy_name: Some(name.to_owned()), policy_arn: Some(arn.clone()) };
        path.starts_with(prefix).then(|| (arn.clone(), policy))
    });
    let page = page(attached.collect(), input.marker.as_deref(), input.max_items)?;
    Ok(ListAttachedRolePoliciesResponse {
        attached_policies: Some(page.items),
        is_truncated: page.is_truncated,
        marker: page.marker,
    })
}

pub async fn list_entities(
    call: &Call<'_>,
    input: ListEntitiesForPolicyRequest,
) -> Result<ListEntitiesForPolicyResponse, Fault> {
    let arn = text(input.policy_arn);
    policies::find(call, &arn)?;
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let roles_asked = matches!(input.entity_filter.as_deref(), None | Some("Role"));
    let (permissions, boundaries) = match input.policy_usage_filter.as_deref() {
        Some("PermissionsPolicy") => (true, false),
        Some("PermissionsBoundary") => (false, true),
        _ => (true, true),
    };
    let mut roles = all_roles(call)?;
    roles.retain(|role| {
        let attached = permissions && role.attached_policies.contains(&arn);
        let bounds = boundaries && role.permissions_boundary.as_ref() == Some(&arn);
        roles_asked && role.path.starts_with(prefix) && (attached || bounds)
    });
    let roles = roles.into_iter().map(|role| {
        let wire = PolicyRole { role_name: Some(role.name.clone()), role_id: Some(role.id) };
        (role.name, wire)
    });
    let page = page(roles.collect(), input.marker.as_deref(), input.max_items)?;
    Ok(ListEntitiesForPolicyResponse {
        policy_groups: Some(Vec::new()),
        policy_users: Some(Vec::new()),
        policy_roles: Some(page.items),
        is_truncated: page.is_truncated,
        marker: page.marker,
    })
}
