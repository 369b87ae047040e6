//! Versions of managed policies.

use ondol_wire::fault::Fault;
use ondol_wire::iam::types::{
    CreatePolicyVersionRequest, CreatePolicyVersionResponse, DeletePolicyVersionRequest,
    GetPolicyVersionRequest, GetPolicyVersionResponse, ListPolicyVersionsRequest, ListPolicyVersionsResponse,
    PolicyVersion as WireVersion, SetDefaultPolicyVersionRequest,
};

use super::page::page;
use super::policies::{Found, find};
use super::{change_policy, documents, fault, seconds, text};
use crate::call::Call;
use crate::nouns::{ManagedPolicy, PolicyVersion};

const VERSIONS_MAX: usize = 5;

fn no_such(arn: &str, version: &str) -> Fault {
    let text = format!("Policy {arn} version {version} does not exist or is not attachable.");
    fault("NoSuchEntity", text)
}

/// The number in `v3`.
fn number(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.parse().ok()
}

fn existing(policy: &ManagedPolicy, version: &str) -> Result<u32, Fault> {
    number(version)
        .filter(|number| policy.versions.contains_key(number))
        .ok_or_else(|| no_such(&policy.arn, version))
}

/// A version without its document, as listings carry it.
fn brief(number: u32, default: u32, created_epoch_millis: i64) -> WireVersion {
    WireVersion {
        document: None,
        version_id: Some(format!("v{number}")),
        is_default_version: Some(number == default),
        create_date: seconds(created_epoch_millis),
    }
}

pub async fn create(
    call: &Call<'_>,
    input: CreatePolicyVersionRequest,
) -> Result<CreatePolicyVersionResponse, Fault> {
    let document = text(input.policy_document);
    documents::check_managed(&document)?;
    let now = call.identity.now_epoch_millis();
    let version = change_policy(call, &text(input.policy_arn), |policy| {
        if policy.versions.len() >= VERSIONS_MAX {
            let text = "A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.";
            return Err(fault("LimitExceeded", text));
        }
        policy.last_version += 1;
        let number = policy.last_version;
        let version = PolicyVersion { document: document.clone(), created_epoch_millis: now };
        policy.versions.insert(number, version);
        policy.updated_epoch_millis = now;
        if input.set_as_default == Some(true) {
            policy.default_version = number;
        }
        Ok(brief(number, policy.default_version, now))
    })
    .await?;
    Ok(CreatePolicyVersionResponse { policy_version: Some(version) })
}

pub async fn get(call: &Call<'_>, input: GetPolicyVersionRequest) -> Result<GetPolicyVersionResponse, Fault> {
    let (arn, version) = (text(input.policy_arn), text(input.version_id));
    let version = match find(call, &arn)? {
        Found::Aws(policy) if number(&version) == Some(policy.version) => {
            let document = documents::encoded(policy.document);
            WireVersion { document, ..brief(policy.version, policy.version, 0) }
        }
        Found::Aws(_) => return Err(no_such(&arn, &version)),
        Found::Customer(policy) => {
            let number = existing(&policy, &version)?;
            let stored = policy.versions.get(&number).ok_or_else(|| no_such(&arn, &version))?;
            let document = documents::encoded(&stored.document);
            WireVersion { document, ..brief(number, policy.default_version, stored.created_epoch_millis) }
        }
    };
    Ok(GetPolicyVersionResponse { policy_version: Some(version) })
}

pub async fn list(
    call: &Call<'_>,
    input: ListPolicyVersionsRequest,
) -> Result<ListPolicyVersionsResponse, Fault> {
    let versions = match find(call, &text(input.policy_arn))? {
        Found::Aws(policy) => vec![(String::new(), brief(policy.version, policy.version, 0))],
        Found::Customer(policy) => {
            let versions = policy.versions.iter().map(|(number, version)| {
                let wire = brief(*number, policy.default_version, version.created_epoch_millis);
                // The newest first.
                (format!("{:010}", u32::MAX - number), wire)
            });
            versions.collect()
        }
    };
    let page = page(versions, input.marker.as_deref(), input.max_items)?;
    Ok(ListPolicyVersionsResponse {
        versions: Some(page.items),
        is_truncated: page.is_truncated,
        marker: page.marker,
    })
}

pub async fn set_default(call: &Call<'_>, input: SetDefaultPolicyVersionRequest) -> Result<(), Fault> {
    let version = text(input.version_id);
    let now = call.identity.now_epoch_millis();
    change_policy(call, &text(input.policy_arn), |policy| {
        policy.default_version = existing(policy, &version)?;
        policy.updated_epoch_millis = now;
        Ok(())
    })
    .await
}

pub async fn delete(call: &Call<'_>, input: DeletePolicyVersionRequest) -> Result<(), Fault> {
    let version = text(input.version_id);
    let now = call.identity.now_epoch_millis();
    change_policy(call, &text(input.policy_arn), |policy| {
        let number = existing(policy, &version)?;
        if number == policy.default_version {
            return Err(fault("DeleteConflict", "Cannot delete the default version of a policy."));
        }
        policy.versions.remove(&number);
        policy.updated_epoch_millis = now;
        Ok(())
    })
    .await
}
