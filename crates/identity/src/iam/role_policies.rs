//! Inline policies of roles.

use ondol_core::policy::PolicyUse;
use ondol_wire::fault::Fault;
use ondol_wire::iam::types::{
    DeleteRolePolicyRequest, GetRolePolicyRequest, GetRolePolicyResponse, ListRolePoliciesRequest,
    ListRolePoliciesResponse, PutRolePolicyRequest,
};

use super::page::page;
use super::{change_role, documents, fault, role, text};
use crate::call::Call;

fn no_such(name: &str) -> Fault {
    fault("NoSuchEntity", format!("The role policy with name {name} cannot be found."))
}

pub async fn put(call: &Call<'_>, input: PutRolePolicyRequest) -> Result<(), Fault> {
    let (name, document) = (text(input.policy_name), text(input.policy_document));
    documents::check(&document, PolicyUse::Identity)?;
    change_role(call, &text(input.role_name), |role| {
        role.inline_policies.insert(name.clone(), document.clone());
        documents::check_inline_length(&role.name, role.inline_policies.values())
    })
    .await
}

pub async fn get(call: &Call<'_>, input: GetRolePolicyRequest) -> Result<GetRolePolicyResponse, Fault> {
    let (role, _) = role(call, &text(input.role_name))?;
    let name = text(input.policy_name);
    let document = role.inline_policies.get(&name).ok_or_else(|| no_such(&name))?;
    Ok(GetRolePolicyResponse {
        role_name: Some(role.name),
        policy_document: documents::encoded(document),
        policy_name: Some(name),
    })
}

pub async fn list(
    call: &Call<'_>,
    input: ListRolePoliciesRequest,
) -> Result<ListRolePoliciesResponse, Fault> {
    let (role, _) = role(call, &text(input.role_name))?;
    let names = role.inline_policies.into_keys().map(|name| (name.clone(), name)).collect();
    let page = page(names, input.marker.as_deref(), input.max_items)?;
    Ok(ListRolePoliciesResponse {
        policy_names: Some(page.items),
        is_truncated: page.is_truncated,
        marker: page.marker,
    })
}

pub async fn delete(call: &Call<'_>, input: DeleteRolePolicyRequest) -> Result<(), Fault> {
    let name = text(input.policy_name);
    change_role(call, &text(input.role_name), |role| {
        role.inline_policies.remove(&name).map(drop).ok_or_else(|| no_such(&name))
    })
    .await
}
