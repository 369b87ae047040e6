//! The operations of IAM, one file a resource.

pub mod account;
pub mod attachments;
pub mod documents;
pub mod page;
pub mod policies;
pub mod policy_versions;
pub mod role_policies;
pub mod roles;
pub mod rules;
pub mod tags;

use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::iam::SERVICE;

use crate::call::{Call, broken};
use crate::nouns::{ManagedPolicy, Role};

/// A modelled error of IAM.
pub fn fault(code: &'static str, message: impl Into<String>) -> Fault {
    Fault::of(&SERVICE, code, message)
}

/// A required member, which validation has seen.
pub fn text(member: Option<String>) -> String {
    member.unwrap_or_default()
}

/// Seconds since the epoch, as wire types carry times.
pub fn seconds(epoch_millis: i64) -> Option<f64> {
    Some(epoch_millis.div_euclid(1_000) as f64)
}

fn no_such_role(name: &str) -> Fault {
    fault("NoSuchEntity", format!("The role with name {name} cannot be found."))
}

fn no_such_policy(arn: &str) -> Fault {
    fault("NoSuchEntity", format!("Policy {arn} was not found."))
}

/// A role as stored.
pub fn role(call: &Call<'_>, name: &str) -> Result<(Role, Revision), Fault> {
    let found = call.identity.store.document(&keys::iam_role(name)).map_err(|error| broken(&error))?;
    found.ok_or_else(|| no_such_role(name))
}

/// Every role, in the order of their names.
pub fn all_roles(call: &Call<'_>) -> Result<Vec<Role>, Fault> {
    call.identity.store.all(keys::IAM_ROLES).map_err(|error| broken(&error))
}

/// A customer's managed policy as stored.
pub fn customer_policy(call: &Call<'_>, arn: &str) -> Result<(ManagedPolicy, Revision), Fault> {
    let found = call.identity.store.document(&keys::iam_policy(arn)).map_err(|error| broken(&error))?;
    found.ok_or_else(|| no_such_policy(arn))
}

/// Changes a role and nothing else.
pub async fn change_role<T>(
    call: &Call<'_>,
    name: &str,
    edit: impl Fn(&mut Role) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let change = || {
        let (mut role, revision) = role(call, name)?;
        let result = edit(&mut role)?;
        let key = keys::iam_role(name);
        Ok((Transaction::default().put(&key, &role).when(Precondition::Unchanged(key, revision)), result))
    };
    call.identity.change(change).await
}

/// Changes a customer's managed policy and nothing else.
pub async fn change_policy<T>(
    call: &Call<'_>,
    arn: &str,
    edit: impl Fn(&mut ManagedPolicy) -> Result<T, Fault>,
) -> Result<T, Fault> {
    if crate::managed_policies::aws_managed_policy(arn).is_some() {
        let text = format!("The policy {arn} is managed by AWS and cannot be changed.");
        return Err(Fault::new("AccessDenied", 403, text));
    }
    let change = || {
        let (mut policy, revision) = customer_policy(call, arn)?;
        let result = edit(&mut policy)?;
        let key = keys::iam_policy(arn);
        Ok((Transaction::default().put(&key, &policy).when(Precondition::Unchanged(key, revision)), result))
    };
    call.identity.change(change).await
}
