//! Tags on roles and managed policies.

use std::collections::{BTreeMap, BTreeSet};

use ondol_wire::fault::Fault;
use ondol_wire::iam::types::{
    ListPolicyTagsRequest, ListPolicyTagsResponse, ListRoleTagsRequest, ListRoleTagsResponse, Tag,
    TagPolicyRequest, TagRoleRequest, UntagPolicyRequest, UntagRoleRequest,
};

use super::page::page;
use super::{change_policy, change_role, customer_policy, fault, role, text};
use crate::call::Call;
use crate::managed_policies::aws_managed_policy;

const TAGS_MAX: usize = 50;

type Tags = BTreeMap<String, String>;

/// The tags of a request, each key once.
pub fn read(tags: Option<Vec<Tag>>) -> Result<Tags, Fault> {
    let mut seen = BTreeSet::new();
    let mut read = Tags::new();
    for tag in tags.into_iter().flatten() {
        let key = text(tag.key);
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(fault("InvalidInput", "Tag keys that begin with aws: are AWS's own."));
        }
        if !seen.insert(key.to_lowercase()) {
            let text = "Duplicate tag keys found. Please note that Tag keys are case insensitive.";
            return Err(fault("InvalidInput", text));
        }
        read.insert(key, text(tag.value));
    }
    check(&read)?;
    Ok(read)
}

fn check(tags: &Tags) -> Result<(), Fault> {
    if tags.len() > TAGS_MAX {
        return Err(fault("LimitExceeded", "The number of tags has reached the maximum limit."));
    }
    Ok(())
}

/// Tags as answers carry them; none at all for none.
pub fn write(tags: &Tags) -> Option<Vec<Tag>> {
    (!tags.is_empty()).then(|| {
        tags.iter().map(|(key, value)| Tag { key: Some(key.clone()), value: Some(value.clone()) }).collect()
    })
}

/// A key in another case replaces the tag.
fn put(tags: &mut Tags, new: &Tags) -> Result<(), Fault> {
    for (key, value) in new {
        remove(tags, key);
        tags.insert(key.clone(), value.clone());
    }
    check(tags)
}

fn remove(tags: &mut Tags, key: &str) {
    tags.retain(|other, _| other.to_lowercase() != key.to_lowercase());
}

fn keyed(tags: &Tags) -> Vec<(String, Tag)> {
    let tag = |(key, value): (&String, &String)| {
        (key.clone(), Tag { key: Some(key.clone()), value: Some(value.clone()) })
    };
    tags.iter().map(tag).collect()
}

pub async fn tag_role(call: &Call<'_>, input: TagRoleRequest) -> Result<(), Fault> {
    let new = read(input.tags)?;
    change_role(call, &text(input.role_name), |role| put(&mut role.tags, &new)).await
}

pub async fn untag_role(call: &Call<'_>, input: UntagRoleRequest) -> Result<(), Fault> {
    let keys = input.tag_keys.unwrap_or_default();
    change_role(call, &text(input.role_name), |role| {
        keys.iter().for_each(|key| remove(&mut role.tags, key));
        Ok(())
    })
    .await
}

pub async fn list_role(call: &Call<'_>, input: ListRoleTagsRequest) -> Result<ListRoleTagsResponse, Fault> {
    let (role, _) = role(call, &text(input.role_name))?;
    let page = page(keyed(&role.tags), input.marker.as_deref(), input.max_items)?;
    Ok(ListRoleTagsResponse { tags: Some(page.items), is_truncated: page.is_truncated, marker: page.marker })
}

pub async fn tag_policy(call: &Call<'_>, input: TagPolicyRequest) -> Result<(), Fault> {
    let new = read(input.tags)?;
    change_policy(call, &text(input.policy_arn), |policy| put(&mut policy.tags, &new)).await
}

pub async fn untag_policy(call: &Call<'_>, input: UntagPolicyRequest) -> Result<(), Fault> {
    let keys = input.tag_keys.unwrap_or_default();
    change_policy(call, &text(input.policy_arn), |policy| {
        keys.iter().for_each(|key| remove(&mut policy.tags, key));
        Ok(())
    })
    .await
}

pub async fn list_policy(
    call: &Call<'_>,
    input: ListPolicyTagsRequest,
) -> Result<ListPolicyTagsResponse, Fault> {
    let arn = text(input.policy_arn);
    let tags = match aws_managed_policy(&arn) {
        Some(_) => Tags::new(),
        None => customer_policy(call, &arn)?.0.tags,
    };
    let page = page(keyed(&tags), input.marker.as_deref(), input.max_items)?;
    Ok(ListPolicyTagsResponse {
        tags: Some(page.items),
        is_truncated: page.is_truncated,
        marker: page.marker,
    })
}
