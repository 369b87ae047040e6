//! Who asks.

use super::context::Context;

/// Who signed a request, or in whose name a service acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account the caller belongs to; empty for services and for who did not sign.
    pub account_id: String,
    pub kind: CallerKind,
}

/// What a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerKind {
    /// The account's root user.
    Root,
    /// A session of a role.
    AssumedRole {
        /// `arn:aws:iam::ACCOUNT:role/PATH/NAME`.
        role_arn: String,
        /// The role's unique id, `AROA…`: another role of the same name has another.
        role_id: String,
        session_name: String,
    },
    /// A service of AWS, such as `events.amazonaws.com`.
    Service(String),
    /// Nobody signed.
    Anonymous,
}

impl Caller {
    /// The root user of an account.
    pub fn root(account_id: impl Into<String>) -> Self {
        Self { account_id: account_id.into(), kind: CallerKind::Root }
    }

    /// A session of a role, which names its account.
    pub fn assumed_role(
        role_arn: impl Into<String>,
        role_id: impl Into<String>,
        session_name: impl Into<String>,
    ) -> Self {
        let role_arn = role_arn.into();
        let account_id = super::arn::parts(&role_arn).map_or_else(String::new, |parts| parts[4].to_owned());
        let kind =
            CallerKind::AssumedRole { role_arn, role_id: role_id.into(), session_name: session_name.into() };
        Self { account_id, kind }
    }

    /// A service, by its name in policies.
    pub fn service(name: impl Into<String>) -> Self {
        Self { account_id: String::new(), kind: CallerKind::Service(name.into()) }
    }

    /// Who did not sign.
    pub fn anonymous() -> Self {
        Self { account_id: String::new(), kind: CallerKind::Anonymous }
    }

    /// The name of the role whose session this is, without its path.
    pub fn role_name(&self) -> Option<&str> {
        match &self.kind {
            CallerKind::AssumedRole { role_arn, .. } => role_arn.rsplit('/').next(),
            _ => None,
        }
    }

    /// The ARN AWS shows of a caller; a service's name and `anonymous` for those that have none.
    pub fn arn(&self) -> String {
        match &self.kind {
            CallerKind::Root => format!("arn:aws:iam::{}:root", self.account_id),
            CallerKind::AssumedRole { session_name, .. } => {
                let role = self.role_name().unwrap_or_default();
                format!("arn:aws:sts::{}:assumed-role/{role}/{session_name}", self.account_id)
            }
            CallerKind::Service(name) => name.clone(),
            CallerKind::Anonymous => "anonymous".to_owned(),
        }
    }

    /// What AWS calls `UserId`: the account of a root user, `AROA…:SESSION` of a role session.
    pub fn user_id(&self) -> String {
        match &self.kind {
            CallerKind::Root => self.account_id.clone(),
            CallerKind::AssumedRole { role_id, session_name, .. } => format!("{role_id}:{session_name}"),
            CallerKind::Service(name) => name.clone(),
            CallerKind::Anonymous => "anonymous".to_owned(),
        }
    }

    /// The condition keys that follow from who asks. What a request says of itself cannot replace them.
    pub(super) fn context(&self) -> Context {
        let context = Context::default().with(
            "aws:principalisawsservice",
            if matches!(self.kind, CallerKind::Service(_)) { "true" } else { "false" },
        );
        match &self.kind {
            CallerKind::Root => context
                .with("aws:principalarn", self.arn())
                .with("aws:principalaccount", &self.account_id)
                .with("aws:principaltype", "Account")
                .with("aws:userid", self.user_id()),
            CallerKind::AssumedRole { role_arn, .. } => context
                .with("aws:principalarn", role_arn)
                .with("aws:principalaccount", &self.account_id)
                .with("aws:principaltype", "AssumedRole")
                .with("aws:userid", self.user_id()),
            CallerKind::Service(name) => {
                context.with("aws:principalservicename", name).with("aws:principalservicenameslist", name)
            }
            CallerKind::Anonymous => {
                context.with("aws:principaltype", "Anonymous").with("aws:userid", "anonymous")
            }
        }
    }
}
