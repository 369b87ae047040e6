//! The parts of an ARN.

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`, split; the resource may itself have colons.
pub(super) fn parts(arn: &str) -> Option<[&str; 6]> {
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next();
    let all = [next()?, next()?, next()?, next()?, next()?, next()?];
    (all[0] == "arn").then_some(all)
}

/// Whether a text is an account's number.
pub(super) fn is_account_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}
