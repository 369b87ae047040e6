//! Managed policies: the customer's and AWS's.

use std::collections::BTreeMap;

use ondol_store::{Precondition, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::iam::types::{
    CreatePolicyRequest, CreatePolicyResponse, DeletePolicyRequest, GetPolicyRequest, GetPolicyResponse,
    ListPoliciesRequest, ListPoliciesResponse, Policy as WirePolicy,
};

use super::page::page;
use super::{all_roles, customer_policy, documents, fault, seconds, tags, text};
use crate::call::{Call, broken};
use crate::managed_policies::{AWS_MANAGED_POLICIES, AwsManagedPolicy, aws_managed_policy};
use crate::nouns::{ManagedPolicy, PolicyVersion, Role, policy_arn};
use crate::random::unique_id;

/// A managed policy of either owner.
pub enum Found {
    Aws(&'static AwsManagedPolicy),
    Customer(ManagedPolicy),
}

/// What is no ARN at all is told apart from what is not there.
pub fn check_arn(arn: &str) -> Result<(), Fault> {
    if arn.starts_with("arn:") && arn.splitn(6, ':').count() == 6 {
        return Ok(());
    }
    Err(fault("InvalidInput", format!("ARN {arn} is not valid.")))
}

pub fn find(call: &Call<'_>, arn: &str) -> Result<Found, Fault> {
    if let Some((policy, _)) = aws_managed_policy(arn) {
        return Ok(Found::Aws(policy));
    }
    customer_policy(call, arn).map(|(policy, _)| Found::Customer(policy))
}

/// Where a policy is used.
struct Uses {
    attachments: i32,
    boundaries: i32,
}

fn uses(roles: &[Role], arn: &str) -> Uses {
    let count = |used: &dyn Fn(&Role) -> bool| {
        i32::try_from(roles.iter().filter(|role| used(role)).count()).unwrap_or(i32::MAX)
    };
    Uses {
        attachments: count(&|role| role.attached_policies.iter().any(|attached| attached == arn)),
        boundaries: count(&|role| role.permissions_boundary.as_deref() == Some(arn)),
    }
}

fn wire(found: &Found, roles: &[Role]) -> WirePolicy {
    let policy = match found {
        Found::Aws(policy) => WirePolicy {
            policy_name: Some(policy.name.into()),
            policy_id: Some(policy.id()),
            arn: Some(policy.arn()),
            path: Some(policy.path.into()),
            default_version_id: Some(format!("v{}", policy.version)),
            description: Some(policy.description.into()),
            create_date: seconds(0),
            update_date: seconds(0),
            ..WirePolicy::default()
        },
        Found::Customer(policy) => WirePolicy {
            policy_name: Some(policy.name.clone()),
            policy_id: Some(policy.id.clone()),
            arn: Some(policy.arn.clone()),
            path: Some(policy.path.clone()),
            default_version_id: Some(format!("v{}", policy.default_version)),
            description: policy.description.clone(),
            create_date: seconds(policy.created_epoch_millis),
            update_date: seconds(policy.updated_epoch_millis),
            tags: tags::write(&policy.tags),
            ..WirePolicy::default()
        },
    };
    let uses = uses(roles, policy.arn.as_deref().unwrap_or_default());
    WirePolicy {
        attachment_count: Some(uses.attachments),
        permissions_boundary_usage_count: Some(uses.boundaries),
        is_attachable: Some(true),
        ..policy
    }
}

pub async fn create(call: &Call<'_>, input: CreatePolicyRequest) -> Result<CreatePolicyResponse, Fault> {
    let document = text(input.policy_document);
    documents::check_managed(&document)?;
    let name = text(input.policy_name);
    let path = input.path.unwrap_or_else(|| "/".into());
    let now = call.identity.now_epoch_millis();
    let new = ManagedPolicy {
        arn: policy_arn(&call.identity.home, &path, &name),
        name,
        path,
        id: unique_id("ANPA"),
        description: input.description,
        versions: BTreeMap::from([(1, PolicyVersion { document, created_epoch_millis: now })]),
        default_version: 1,
        last_version: 1,
        created_epoch_millis: now,
        updated_epoch_millis: now,
        tags: tags::read(input.tags)?,
    };
    let build = || {
        // A name is used once in an account, whatever its path and case.
        let all: Vec<ManagedPolicy> =
            call.identity.store.all(keys::IAM_POLICIES).map_err(|error| broken(&error))?;
        if all.iter().any(|policy| policy.name.eq_ignore_ascii_case(&new.name)) {
            let text =
                format!("A policy called {} already exists. Duplicate names are not allowed.", new.name);
            return Err(fault("EntityAlreadyExists", text));
        }
        let key = keys::iam_policy(&new.arn);
        Ok((Transaction::default().put(&key, &new).when(Precondition::Absent(key)), ()))
    };
    call.identity.change(build).await?;
    let policy = wire(&Found::Customer(new), &[]);
    // AWS does not repeat the description here.
    Ok(CreatePolicyResponse { policy: Some(WirePolicy { description: None, ..policy }) })
}

pub async fn get(call: &Call<'_>, input: GetPolicyRequest) -> Result<GetPolicyResponse, Fault> {
    let arn = text(input.policy_arn);
    check_arn(&arn)?;
    let found = find(call, &arn)?;
    let policy = wire(&found, &all_roles(call)?);
    // Unlike a role's, a policy's tags are there when there are none.
    let tags = Some(policy.tags.unwrap_or_default());
    Ok(GetPolicyResponse { policy: Some(WirePolicy { tags, ..policy }) })
}

pub async fn list(call: &Call<'_>, input: ListPoliciesRequest) -> Result<ListPoliciesResponse, Fault> {
    let (of_aws, of_customer) = match input.scope.as_deref() {
        Some("AWS") => (true, false),
        Some("Local") => (false, true),
        _ => (true, true),
    };
    let mut found: Vec<Found> = Vec::new();
    if of_aws {
        found.extend(AWS_MANAGED_POLICIES.iter().map(Found::Aws));
    }
    if of_customer {
        let own: Vec<ManagedPolicy> =
            call.identity.store.all(keys::IAM_POLICIES).map_err(|error| broken(&error))?;
        found.extend(own.into_iter().map(Found::Customer));
    }
    let roles = all_roles(call)?;
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let is_asked = |policy: &WirePolicy| {
        let attached = policy.attachment_count > Some(0);
        let bounds = policy.permissions_boundary_usage_count > Some(0);
        policy.path.as_deref().is_some_and(|path| path.starts_with(prefix))
            && (attached || input.only_attached != Some(true))
            && match input.policy_usage_filter.as_deref() {
                Some("PermissionsPolicy") => attached,
                Some("PermissionsBoundary") => bounds,
                _ => true,
            }
    };
    let policies = found
        .iter()
        .map(|found| wire(found, &roles))
        .filter(is_asked)
        // AWS leaves these to GetPolicy.
        .map(|policy| WirePolicy { description: None, tags: None, ..policy })
        .map(|policy| (policy.arn.clone().unwrap_or_default(), policy));
    let page = page(policies.collect(), input.marker.as_deref(), input.max_items)?;
    Ok(ListPoliciesResponse {
        policies: Some(page.items),
        is_truncated: page.is_truncated,
        marker: page.marker,
    })
}

pub async fn delete(call: &Call<'_>, input: DeletePolicyRequest) -> Result<(), Fault> {
    let arn = text(input.policy_arn);
    if aws_managed_policy(&arn).is_some() {
        let text = format!("The policy {arn} is managed by AWS and cannot be deleted.");
        return Err(Fault::new("AccessDenied", 403, text));
    }
    let build = || {
        let (policy, revision) = customer_policy(call, &arn)?;
        let uses = uses(&all_roles(call)?, &arn);
        if uses.attachments + uses.boundaries > 0 {
            return Err(fault("DeleteConflict", "Cannot delete a policy attached to entities."));
        }
        if policy.versions.len() > 1 {
            let text = "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.";
            return Err(fault("DeleteConflict", text));
        }
        let key = keys::iam_policy(&arn);
        Ok((Transaction::default().delete(&key).when(Precondition::Unchanged(key, revision)), ()))
    };
    call.identity.change(build).await
}
