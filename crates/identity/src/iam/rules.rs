//! What must be allowed for an operation: the resource its action is about, and the condition keys it brings.

use ondol_wire::iam::types::*;

use super::{customer_policy, role as stored_role};
use crate::call::Call;
use crate::nouns::{policy_arn, role_arn};

/// Condition keys of an operation with their values.
pub type Keys = Vec<(String, String)>;

/// What an operation is held against.
#[derive(Debug)]
pub enum Rule {
    /// The caller must be allowed the action on this resource.
    Resource(String, Keys),
    /// The caller must be allowed this action too.
    Both(String, Keys, &'static str),
    /// AWS asks for no permission.
    Open,
    /// The operation asks itself.
    Own,
}

/// A request about a role.
pub trait NamesRole {
    fn role_name(&self) -> &str;
}

/// A request about a managed policy.
pub trait NamesPolicy {
    fn policy_arn(&self) -> &str;
}

macro_rules! names {
    ($trait:ident, $method:ident: $($request:ident)*) => {
        $(impl $trait for $request {
            fn $method(&self) -> &str {
                self.$method.as_deref().unwrap_or_default()
            }
        })*
    };
}

names! { NamesRole, role_name:
    GetRoleRequest UpdateRoleRequest UpdateRoleDescriptionRequest UpdateAssumeRolePolicyRequest DeleteRoleRequest
    PutRolePolicyRequest GetRolePolicyRequest ListRolePoliciesRequest DeleteRolePolicyRequest
    AttachRolePolicyRequest DetachRolePolicyRequest ListAttachedRolePoliciesRequest
    TagRoleRequest UntagRoleRequest ListRoleTagsRequest ListInstanceProfilesForRoleRequest
}

names! { NamesPolicy, policy_arn:
    GetPolicyRequest DeletePolicyRequest ListEntitiesForPolicyRequest AttachRolePolicyRequest DetachRolePolicyRequest
    CreatePolicyVersionRequest GetPolicyVersionRequest ListPolicyVersionsRequest SetDefaultPolicyVersionRequest
    DeletePolicyVersionRequest TagPolicyRequest UntagPolicyRequest ListPolicyTagsRequest
}

/// Anybody may.
pub fn open<T>(_: &Call<'_>, _: &T) -> Rule {
    Rule::Open
}

/// The operation asks itself.
pub fn own<T>(_: &Call<'_>, _: &T) -> Rule {
    Rule::Own
}

/// About no resource in particular.
pub fn all<T>(_: &Call<'_>, _: &T) -> Rule {
    Rule::Resource("*".into(), Vec::new())
}

fn role_resource(call: &Call<'_>, name: &str) -> (String, Keys) {
    // A role that is not there is refused or not found under the ARN it would have without a path.
    match stored_role(call, name) {
        Ok((role, _)) => {
            let tags = role.tags.iter();
            let keys = tags.flat_map(|(key, value)| {
                ["aws", "iam"].map(|prefix| (format!("{prefix}:ResourceTag/{key}"), value.clone()))
            });
            (role.arn(&call.identity.home), keys.collect())
        }
        Err(_) => (role_arn(&call.identity.home, "/", name), Vec::new()),
    }
}

fn policy_resource(call: &Call<'_>, arn: &str) -> (String, Keys) {
    let keys = customer_policy(call, arn).map_or_else(
        |_| Vec::new(),
        |(policy, _)| {
            let tags = policy.tags.into_iter();
            tags.map(|(key, value)| (format!("aws:ResourceTag/{key}"), value)).collect()
        },
    );
    (arn.to_owned(), keys)
}

fn request_tags(keys: &mut Keys, tags: &Option<Vec<Tag>>) {
    for tag in tags.iter().flatten() {
        let (key, value) = (tag.key.clone().unwrap_or_default(), tag.value.clone().unwrap_or_default());
        keys.push((format!("aws:RequestTag/{key}"), value));
        keys.push(("aws:TagKeys".into(), key));
    }
}

/// About a role that is there.
pub fn role<T: NamesRole>(call: &Call<'_>, input: &T) -> Rule {
    let (arn, keys) = role_resource(call, input.role_name());
    Rule::Resource(arn, keys)
}

/// About what a role is allowed, which is often bound to the boundary it has.
pub fn grants_of_role<T: NamesRole>(call: &Call<'_>, input: &T) -> Rule {
    let (arn, mut keys) = role_resource(call, input.role_name());
    add_boundary(call, &mut keys, input.role_name());
    Rule::Resource(arn, keys)
}

fn add_boundary(call: &Call<'_>, keys: &mut Keys, role: &str) {
    let boundary = stored_role(call, role).ok().and_then(|(role, _)| role.permissions_boundary);
    keys.extend(boundary.map(|arn| ("iam:PermissionsBoundary".into(), arn)));
}

/// About a role and a policy that is attached to it or not.
pub fn role_and_policy<T: NamesRole + NamesPolicy>(call: &Call<'_>, input: &T) -> Rule {
    let (arn, mut keys) = role_resource(call, input.role_name());
    add_boundary(call, &mut keys, input.role_name());
    keys.push(("iam:PolicyARN".into(), input.policy_arn().to_owned()));
    Rule::Resource(arn, keys)
}

/// About tags that are put on a role.
pub fn tags_of_role(call: &Call<'_>, input: &TagRoleRequest) -> Rule {
    let (arn, mut keys) = role_resource(call, input.role_name());
    request_tags(&mut keys, &input.tags);
    Rule::Resource(arn, keys)
}

/// About tags that are taken off a role.
pub fn tags_off_role(call: &Call<'_>, input: &UntagRoleRequest) -> Rule {
    let (arn, mut keys) = role_resource(call, input.role_name());
    tag_keys(&mut keys, &input.tag_keys);
    Rule::Resource(arn, keys)
}

fn tag_keys(keys: &mut Keys, given: &Option<Vec<String>>) {
    keys.extend(given.iter().flatten().map(|key| ("aws:TagKeys".into(), key.clone())));
}

/// About a role that is to be.
pub fn new_role(call: &Call<'_>, input: &CreateRoleRequest) -> Rule {
    let mut keys = Vec::new();
    request_tags(&mut keys, &input.tags);
    if let Some(boundary) = &input.permissions_boundary {
        keys.push(("iam:PermissionsBoundary".into(), boundary.clone()));
    }
    let path = input.path.as_deref().unwrap_or("/");
    let name = input.role_name.as_deref().unwrap_or_default();
    with_tags(role_arn(&call.identity.home, path, name), keys, &input.tags, "iam:TagRole")
}

/// Whoever makes something with tags must be allowed to tag it.
fn with_tags(arn: String, keys: Keys, tags: &Option<Vec<Tag>>, action: &'static str) -> Rule {
    if tags.as_ref().is_some_and(|tags| !tags.is_empty()) {
        Rule::Both(arn, keys, action)
    } else {
        Rule::Resource(arn, keys)
    }
}

/// About a managed policy.
pub fn policy<T: NamesPolicy>(call: &Call<'_>, input: &T) -> Rule {
    let (arn, keys) = policy_resource(call, input.policy_arn());
    Rule::Resource(arn, keys)
}

/// About tags that are put on a managed policy.
pub fn tags_of_policy(call: &Call<'_>, input: &TagPolicyRequest) -> Rule {
    let (arn, mut keys) = policy_resource(call, input.policy_arn());
    request_tags(&mut keys, &input.tags);
    Rule::Resource(arn, keys)
}

/// About tags that are taken off a managed policy.
pub fn tags_off_policy(call: &Call<'_>, input: &UntagPolicyRequest) -> Rule {
    let (arn, mut keys) = policy_resource(call, input.policy_arn());
    tag_keys(&mut keys, &input.tag_keys);
    Rule::Resource(arn, keys)
}

/// About a managed policy that is to be.
pub fn new_policy(call: &Call<'_>, input: &CreatePolicyRequest) -> Rule {
    let mut keys = Vec::new();
    request_tags(&mut keys, &input.tags);
    let path = input.path.as_deref().unwrap_or("/");
    let name = input.policy_name.as_deref().unwrap_or_default();
    with_tags(policy_arn(&call.identity.home, path, name), keys, &input.tags, "iam:TagPolicy")
}

/// About a user.
pub fn user(call: &Call<'_>, input: &GetUserRequest) -> Rule {
    let account = &call.identity.home.account_id;
    let arn = match &input.user_name {
        Some(name) => format!("arn:aws:iam::{account}:user/{name}"),
        None => format!("arn:aws:iam::{account}:root"),
    };
    Rule::Resource(arn, Vec::new())
}
