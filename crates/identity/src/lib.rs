//! Who asks, and what they may: roles and policies, temporary credentials, and the two services AWS has for
//! them, IAM and STS.

mod authorizer;
mod call;
mod conditions;
mod gatekeeper;
mod iam;
pub mod managed_policies;
pub mod nouns;
mod random;
mod roles;
mod secret;
mod sessions;
mod sts;
#[cfg(test)]
mod tests;

pub use authorizer::{Authorizer, Enforcement, Trust};
pub use call::{Asker, IAM_WORKS, Identity, STS_WORKS, call};
pub use gatekeeper::{AccessKey, AccessKeys, Asked, Gatekeeper, Head, Peer};
pub use roles::{RolePolicies, Roles};
pub use secret::session_secret;
pub use sessions::{
    Claims, Credentials, RoleSession, SESSION_POLICY_LENGTH_MAX, Session, SessionError, Sessions,
};
