//! Whom a statement of a resource or trust policy is about.

use super::arn;
use super::caller::{Caller, CallerKind};

/// One principal, as a policy names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// `*`, also who did not sign.
    Anyone,
    /// An account, by its number or its root.
    Account(String),
    /// A role, by its ARN.
    Role(String),
    /// A session of a role, by its ARN.
    Session(String),
    /// A user, a federated user or another principal there is none of here.
    Other(String),
    /// A unique id such as `AROA…`.
    UniqueId(String),
    /// A service of AWS.
    Service(String),
    /// An identity provider.
    Federated(String),
    /// An account as S3 names it.
    CanonicalUser(String),
}

/// The `Principal` or `NotPrincipal` of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principals {
    /// `Principal`
    Are(Vec<Principal>),
    /// `NotPrincipal`
    AreNot(Vec<Principal>),
}

/// How closely a statement names a caller. The order matters: what is granted more closely needs less besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Its account, which leaves it to the account's own policies.
    Account,
    /// Its role; boundaries and session policies still bind.
    Role,
    /// The caller itself, or everyone.
    Caller,
}

impl Principal {
    /// Reads one of the values of `{"AWS": …}`.
    pub(super) fn read_aws(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Anyone);
        }
        if arn::is_account_id(text) {
            return Some(Self::Account(text.to_owned()));
        }
        let is_unique_id = text.len() >= 16 && text.starts_with('A');
        if is_unique_id && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
            return Some(Self::UniqueId(text.to_owned()));
        }
        let [_, _, service, region, account, resource] = arn::parts(text)?;
        if !region.is_empty() || !arn::is_account_id(account) || resource.contains(['*', '?']) {
            return None;
        }
        let (kind, name) = resource.split_once('/').unwrap_or((resource, ""));
        match (service, kind) {
            ("iam", "root") if name.is_empty() => Some(Self::Account(account.to_owned())),
            _ if name.is_empty() => None,
            ("iam", "role") => Some(Self::Role(text.to_owned())),
            ("iam", "user") | ("sts", "federated-user") => Some(Self::Other(text.to_owned())),
            ("sts", "assumed-role") if name.contains('/') => Some(Self::Session(text.to_owned())),
            _ => None,
        }
    }

    fn reach(&self, caller: &Caller) -> Option<Reach> {
        match (self, &caller.kind) {
            (Self::Anyone, _) => Some(Reach::Caller),
            (Self::Account(account), CallerKind::Root | CallerKind::AssumedRole { .. }) => {
                (*account == caller.account_id).then_some(Reach::Account)
            }
            (Self::Role(arn), CallerKind::AssumedRole { role_arn, .. }) => {
                (arn == role_arn).then_some(Reach::Role)
            }
            (Self::UniqueId(id), CallerKind::AssumedRole { role_id, .. }) => {
                (id == role_id).then_some(Reach::Role)
            }
            (Self::Session(arn), CallerKind::AssumedRole { .. }) => {
                (*arn == caller.arn()).then_some(Reach::Caller)
            }
            (Self::Service(name), CallerKind::Service(caller)) => (name == caller).then_some(Reach::Caller),
            _ => None,
        }
    }
}

impl Principals {
    /// Whether and how closely a statement names a caller. `denies` says what the statement does: one that
    /// excepts principals is read so that it grants less and denies more.
    pub(super) fn reach(&self, caller: &Caller, denies: bool) -> Option<Reach> {
        match self {
            Self::Are(list) => list.iter().filter_map(|principal| principal.reach(caller)).max(),
            Self::AreNot(list) => {
                let listed = |reach| list.iter().any(|principal| principal.reach(caller) == Some(reach));
                let excepted = if denies {
                    // AWS asks for each of the account, the role and the session to be excepted.
                    let needed: &[Reach] = match caller.kind {
                        CallerKind::Root => &[Reach::Account],
                        CallerKind::AssumedRole { .. } => &[Reach::Account, Reach::Role, Reach::Caller],
                        CallerKind::Service(_) | CallerKind::Anonymous => &[Reach::Caller],
                    };
                    list.contains(&Principal::Anyone) || needed.iter().all(|reach| listed(*reach))
                } else {
                    list.iter().any(|principal| principal.reach(caller).is_some())
                };
                (!excepted).then_some(Reach::Caller)
            }
        }
    }

    /// Those listed, whichever way.
    pub fn list(&self) -> &[Principal] {
        match self {
            Self::Are(list) | Self::AreNot(list) => list,
        }
    }
}
