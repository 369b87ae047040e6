//! The decision.

use std::sync::Arc;

use super::caller::{Caller, CallerKind};
use super::context::{Context, Facts};
use super::document::{Effect, Policy, Selection, Statement};
use super::pattern::Comparison;
use super::principal::Reach;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub caller: &'a Caller,
    /// `SERVICE:OPERATION`.
    pub action: &'a str,
    /// The resource's ARN, or `*` for an action that has none.
    pub resource: &'a str,
    /// Condition keys beyond those that follow from the caller.
    pub context: &'a Context,
}

/// Every policy that has a say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policies<'a> {
    /// Those of the caller's role: inline and attached.
    pub identity: &'a [Arc<Policy>],
    /// The one given to AssumeRole.
    pub session: Option<&'a Policy>,
    pub permissions_boundary: Option<&'a Policy>,
    /// The one of the resource.
    pub resource: Option<&'a Policy>,
    /// Whether the resource is a role that is to be assumed: its trust policy must allow it in any case.
    pub trust: bool,
    /// The account the resource belongs to.
    pub resource_account: &'a str,
}

/// What allowed a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedBy {
    /// The caller is the root user of the resource's account.
    Root,
    Identity,
    Resource,
    /// Of two accounts each had to allow it.
    IdentityAndResource,
}

/// Which kind of policy denied a request, or was missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    Identity,
    Resource,
    RoleTrust,
    Session,
    PermissionsBoundary,
}

/// Whether a request is allowed, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allow {
        by: AllowedBy,
    },
    Deny {
        /// A statement denies it, rather than none allowing it.
        explicit: bool,
        kind: PolicyKind,
    },
}

impl Decision {
    /// Whether the request may go on.
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// AWS's sentence of a denial; `None` for what is allowed.
    pub fn denial(self, request: &Request<'_>) -> Option<String> {
        let Self::Deny { explicit, kind } = self else { return None };
        let Request { caller, action, resource, .. } = request;
        let policy = match kind {
            PolicyKind::Identity => "identity-based policy",
            PolicyKind::Resource => "resource-based policy",
            PolicyKind::RoleTrust => "role trust policy",
            PolicyKind::Session => "session policy",
            PolicyKind::PermissionsBoundary => "permissions boundary",
        };
        let because = if explicit {
            let article = match kind {
                PolicyKind::Identity => "an",
                PolicyKind::RoleTrust => "the",
                _ => "a",
            };
            format!("with an explicit deny in {article} {policy}")
        } else {
            format!("because no {policy} allows the {action} action")
        };
        Some(format!(
            "User: {} is not authorized to perform: {action} on resource: {resource} {because}",
            caller.arn()
        ))
    }
}

/// What one policy says of a request; it may both allow and deny.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    allows: Option<Reach>,
    denies: bool,
}

/// Decides as AWS does: a denial anywhere wins; within one account either side may allow, across accounts both
/// must; boundaries and session policies only take away.
pub fn decide(request: &Request<'_>, policies: &Policies<'_>) -> Decision {
    let asked = Asked {
        request,
        action: request.action.to_ascii_lowercase(),
        facts: Facts { caller: request.caller.context(), request: request.context },
    };
    let is_root = request.caller.kind == CallerKind::Root;
    let mut identity = Said { allows: is_root.then_some(Reach::Caller), denies: false };
    for policy in policies.identity {
        let said = asked.said_by(policy);
        identity = Said { allows: identity.allows.max(said.allows), denies: identity.denies || said.denies };
    }
    let session = policies.session.map(|policy| asked.said_by(policy));
    let boundary = policies.permissions_boundary.map(|policy| asked.said_by(policy));
    let resource = policies.resource.map(|policy| asked.said_by(policy)).unwrap_or_default();
    let resource_kind = if policies.trust { PolicyKind::RoleTrust } else { PolicyKind::Resource };

    let explicit = |kind| Decision::Deny { explicit: true, kind };
    let implicit = |kind| Decision::Deny { explicit: false, kind };
    let allow = |by| Decision::Allow { by };
    if identity.denies {
        return explicit(PolicyKind::Identity);
    }
    if resource.denies {
        return explicit(resource_kind);
    }
    if boundary.is_some_and(|said| said.denies) {
        return explicit(PolicyKind::PermissionsBoundary);
    }
    if session.is_some_and(|said| said.denies) {
        return explicit(PolicyKind::Session);
    }

    if let CallerKind::Service(_) | CallerKind::Anonymous = request.caller.kind {
        // They have no policies of their own.
        return match resource.allows {
            Some(_) => allow(AllowedBy::Resource),
            None => implicit(resource_kind),
        };
    }
    let same_account = request.caller.account_id == policies.resource_account;
    if resource.allows.is_none() && (policies.trust || !same_account) {
        // Across accounts AWS names the side that is the caller's first.
        return match identity.allows {
            None if !policies.trust => implicit(PolicyKind::Identity),
            _ => implicit(resource_kind),
        };
    }
    if same_account && resource.allows == Some(Reach::Caller) {
        return allow(AllowedBy::Resource);
    }
    let by = match (same_account, resource.allows, identity.allows) {
        (true, Some(Reach::Role), _) => AllowedBy::Resource,
        (_, _, None) => return implicit(PolicyKind::Identity),
        (true, ..) if is_root => AllowedBy::Root,
        (true, ..) => AllowedBy::Identity,
        (false, ..) => AllowedBy::IdentityAndResource,
    };
    if boundary.is_some_and(|said| said.allows.is_none()) {
        return implicit(PolicyKind::PermissionsBoundary);
    }
    if session.is_some_and(|said| said.allows.is_none()) {
        return implicit(PolicyKind::Session);
    }
    allow(by)
}

/// A request with what every statement asks of it.
struct Asked<'a> {
    request: &'a Request<'a>,
    /// In lower case.
    action: String,
    facts: Facts<'a>,
}

impl Asked<'_> {
    fn said_by(&self, policy: &Policy) -> Said {
        let mut said = Said::default();
        for statement in &policy.statements {
            let Some(reach) = self.reach(statement) else { continue };
            match statement.effect {
                Effect::Allow => said.allows = said.allows.max(Some(reach)),
                Effect::Deny => said.denies = true,
            }
        }
        said
    }

    /// How closely a statement that applies names the caller; `None` if it does not apply.
    fn reach(&self, statement: &Statement) -> Option<Reach> {
        let denies = statement.effect == Effect::Deny;
        let reach = match &statement.principals {
            Some(principals) => principals.reach(self.request.caller, denies)?,
            None => Reach::Caller,
        };
        let applies = selects_action(&statement.actions, &self.action)
            && statement.resources.as_ref().is_none_or(|resources| self.selects_resource(resources, denies))
            && statement.conditions.iter().all(|condition| condition.holds(&self.facts, denies));
        applies.then_some(reach)
    }

    fn selects_resource(&self, selection: &Selection, denies: bool) -> bool {
        let mut matches = selection
            .patterns()
            .iter()
            .map(|pattern| pattern.matches(self.request.resource, &self.facts, Comparison::Plain));
        match selection {
            Selection::Is(_) => matches.any(|matched| matched == Some(true)),
            // What a variable without a value excepts is not known: nothing is excepted from a denial, and
            // nothing allowed for it.
            Selection::IsNot(_) => matches.all(|matched| matched.map_or(denies, |matched| !matched)),
        }
    }
}

/// Whether `Action` or `NotAction` selects an action in lower case.
pub(super) fn selects_action(selection: &Selection, action: &str) -> bool {
    let nothing = Context::default();
    let facts = Facts { caller: Context::default(), request: &nothing };
    let hit = selection
        .patterns()
        .iter()
        .any(|pattern| pattern.matches(action, &facts, Comparison::IgnoreCase) == Some(true));
    hit == matches!(selection, Selection::Is(_))
}
