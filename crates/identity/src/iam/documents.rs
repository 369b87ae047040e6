//! Policy documents as operations take and give them.

use ondol_core::policy::{Policy, PolicyUse};
use ondol_wire::fault::Fault;
use ondol_wire::uri::percent_encode;

use super::fault;

/// Characters of a trust policy.
const TRUST_POLICY_LENGTH_MAX: usize = 2_048;
/// Characters of all inline policies of a role.
const INLINE_POLICIES_LENGTH_MAX: usize = 10_240;
/// Characters of a version of a managed policy.
const MANAGED_POLICY_LENGTH_MAX: usize = 6_144;

/// Reads a document that is to be kept, or refuses it.
pub fn check(text: &str, for_use: PolicyUse) -> Result<(), Fault> {
    Policy::parse(text, for_use)
        .map(drop)
        .map_err(|malformed| fault("MalformedPolicyDocument", malformed.message))
}

/// AWS does not count white space.
fn length(text: &str) -> usize {
    text.chars().filter(|char| !char.is_whitespace()).count()
}

pub fn check_trust(text: &str) -> Result<(), Fault> {
    if length(text) > TRUST_POLICY_LENGTH_MAX {
        let text = format!("Cannot exceed quota for ACLSizePerRole: {TRUST_POLICY_LENGTH_MAX}");
        return Err(fault("LimitExceeded", text));
    }
    check(text, PolicyUse::Trust)
}

pub fn check_managed(text: &str) -> Result<(), Fault> {
    if length(text) > MANAGED_POLICY_LENGTH_MAX {
        let text = format!("Cannot exceed quota for PolicySize: {MANAGED_POLICY_LENGTH_MAX}");
        return Err(fault("LimitExceeded", text));
    }
    check(text, PolicyUse::Identity)
}

/// All inline policies of a role together.
pub fn check_inline_length<'a>(role: &str, documents: impl Iterator<Item = &'a String>) -> Result<(), Fault> {
    if documents.map(|text| length(text)).sum::<usize>() > INLINE_POLICIES_LENGTH_MAX {
        let text =
            format!("Maximum policy size of {INLINE_POLICIES_LENGTH_MAX} bytes exceeded for role {role}");
        return Err(fault("LimitExceeded", text));
    }
    Ok(())
}

/// A document as answers carry it.
pub fn encoded(text: &str) -> Option<String> {
    Some(percent_encode(text, false))
}
