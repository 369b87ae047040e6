//! Roles.

use std::collections::BTreeMap;

use ondol_store::{Precondition, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::iam::types::{
    AttachedPermissionsBoundary, CreateRoleRequest, CreateRoleResponse, DeleteRoleRequest, GetRoleRequest,
    GetRoleResponse, ListInstanceProfilesForRoleRequest, ListInstanceProfilesForRoleResponse,
    ListRolesRequest, ListRolesResponse, Role as WireRole, RoleLastUsed, UpdateAssumeRolePolicyRequest,
    UpdateRoleDescriptionRequest, UpdateRoleDescriptionResponse, UpdateRoleRequest, UpdateRoleResponse,
};

use super::page::page;
use super::{all_roles, change_role, documents, fault, role, seconds, tags, text};
use crate::call::Call;
use crate::nouns::Role;
use crate::random::unique_id;

/// How long a session of a role lasts at most when nobody says.
const SESSION_SECONDS: u32 = 3_600;

/// A role as answers that list many carry it.
fn brief(call: &Call<'_>, role: &Role) -> WireRole {
    WireRole {
        path: Some(role.path.clone()),
        role_name: Some(role.name.clone()),
        role_id: Some(role.id.clone()),
        arn: Some(role.arn(&call.identity.home)),
        create_date: seconds(role.created_epoch_millis),
        assume_role_policy_document: documents::encoded(&role.trust_policy),
        description: role.description.clone(),
        max_session_duration: i32::try_from(role.max_session_duration_seconds).ok(),
        ..WireRole::default()
    }
}

/// A role with everything.
fn full(call: &Call<'_>, role: &Role) -> WireRole {
    let boundary = |arn: &String| AttachedPermissionsBoundary {
        permissions_boundary_type: Some("Policy".into()),
        permissions_boundary_arn: Some(arn.clone()),
    };
    WireRole {
        permissions_boundary: role.permissions_boundary.as_ref().map(boundary),
        tags: tags::write(&role.tags),
        role_last_used: Some(RoleLastUsed::default()),
        ..brief(call, role)
    }
}

pub async fn create(call: &Call<'_>, input: CreateRoleRequest) -> Result<CreateRoleResponse, Fault> {
    let trust_policy = text(input.assume_role_policy_document);
    documents::check_trust(&trust_policy)?;
    let duration = input.max_session_duration.and_then(|seconds| u32::try_from(seconds).ok());
    let new = Role {
        name: text(input.role_name),
        path: input.path.unwrap_or_else(|| "/".into()),
        id: unique_id("AROA"),
        trust_policy,
        description: input.description,
        max_session_duration_seconds: duration.unwrap_or(SESSION_SECONDS),
        created_epoch_millis: call.identity.now_epoch_millis(),
        tags: tags::read(input.tags)?,
        inline_policies: BTreeMap::new(),
        attached_policies: Vec::new(),
        permissions_boundary: input.permissions_boundary,
    };
    let build = || {
        // Names that differ in their case alone are one name.
        if all_roles(call)?.iter().any(|role| role.name.eq_ignore_ascii_case(&new.name)) {
            return Err(fault("EntityAlreadyExists", format!("Role with name {} already exists.", new.name)));
        }
        if let Some(boundary) = &new.permissions_boundary {
            if call.identity.roles.managed_policy(boundary).is_none() {
                let text = format!("Scope ARN: {boundary} does not exist or is not attachable.");
                return Err(fault("NoSuchEntity", text));
            }
        }
        let key = keys::iam_role(&new.name);
        Ok((Transaction::default().put(&key, &new).when(Precondition::Absent(key)), ()))
    };
    call.identity.change(build).await?;
    Ok(CreateRoleResponse { role: Some(WireRole { role_last_used: None, ..full(call, &new) }) })
}

pub async fn get(call: &Call<'_>, input: GetRoleRequest) -> Result<GetRoleResponse, Fault> {
    let (role, _) = role(call, &text(input.role_name))?;
    Ok(GetRoleResponse { role: Some(full(call, &role)) })
}

pub async fn list(call: &Call<'_>, input: ListRolesRequest) -> Result<ListRolesResponse, Fault> {
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let roles = all_roles(call)?;
    let roles = roles.iter().filter(|role| role.path.starts_with(prefix));
    let roles = roles.map(|role| (role.name.clone(), brief(call, role))).collect();
    let page = page(roles, input.marker.as_deref(), input.max_items)?;
    Ok(ListRolesResponse { roles: Some(page.items), is_truncated: page.is_truncated, marker: page.marker })
}

pub async fn update(call: &Call<'_>, input: UpdateRoleRequest) -> Result<UpdateRoleResponse, Fault> {
    let duration = input.max_session_duration.and_then(|seconds| u32::try_from(seconds).ok());
    change_role(call, &text(input.role_name), |role| {
        if input.description.is_some() {
            role.description.clone_from(&input.description);
        }
        role.max_session_duration_seconds = duration.unwrap_or(role.max_session_duration_seconds);
        Ok(())
    })
    .await?;
    Ok(UpdateRoleResponse {})
}

pub async fn update_description(
    call: &Call<'_>,
    input: UpdateRoleDescriptionRequest,
) -> Result<UpdateRoleDescriptionResponse, Fault> {
    let role = change_role(call, &text(input.role_name), |role| {
        role.description.clone_from(&input.description);
        Ok(full(call, role))
    })
    .await?;
    Ok(UpdateRoleDescriptionResponse { role: Some(role) })
}

pub async fn update_assume_role_policy(
    call: &Call<'_>,
    input: UpdateAssumeRolePolicyRequest,
) -> Result<(), Fault> {
    let document = text(input.policy_document);
    documents::check_trust(&document)?;
    change_role(call, &text(input.role_name), |role| {
        role.trust_policy.clone_from(&document);
        Ok(())
    })
    .await
}

pub async fn delete(call: &Call<'_>, input: DeleteRoleRequest) -> Result<(), Fault> {
    let name = text(input.role_name);
    let build = || {
        let (role, revision) = role(call, &name)?;
        if !role.attached_policies.is_empty() {
            let text = "Cannot delete entity, must detach all policies first.";
            return Err(fault("DeleteConflict", text));
        }
        if !role.inline_policies.is_empty() {
            return Err(fault("DeleteConflict", "Cannot delete entity, must delete policies first."));
        }
        let key = keys::iam_role(&name);
        Ok((Transaction::default().delete(&key).when(Precondition::Unchanged(key, revision)), ()))
    };
    call.identity.change(build).await
}

/// There are no instance profiles here, so no role has one.
pub async fn list_instance_profiles(
    call: &Call<'_>,
    input: ListInstanceProfilesForRoleRequest,
) -> Result<ListInstanceProfilesForRoleResponse, Fault> {
    role(call, &text(input.role_name))?;
    Ok(ListInstanceProfilesForRoleResponse {
        instance_profiles: Some(Vec::new()),
        is_truncated: Some(false),
        marker: None,
    })
}
