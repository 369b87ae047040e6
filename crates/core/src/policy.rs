//! The policy language of IAM: documents read once, and the decision whether a caller may do what it asks.
//!
//! Everything a decision depends on is an argument: the caller, the action, the resource, the condition keys
//! with their values, and the policies. The rules are those of AWS's "Policy evaluation logic".

mod arn;
mod caller;
mod condition;
mod context;
mod date;
mod document;
mod evaluate;
mod pattern;
mod principal;
mod read;
#[cfg(test)]
mod tests;
mod trust;

pub use caller::{Caller, CallerKind};
pub use context::Context;
pub use document::{Effect, MalformedPolicy, Policy, PolicyUse, Selection, Statement, Version};
pub use evaluate::{AllowedBy, Decision, Policies, PolicyKind, Request, decide};
pub use pattern::Pattern;
pub use principal::{Principal, Principals};
pub use trust::{confused_deputy, trusts_service};
