//! Whether a caller may do what it asks, of everything known here: the question every operation starts with.

use std::sync::Arc;

use ondol_core::policy::{
    Caller, CallerKind, Context, Decision, Policies, Policy, PolicyKind, Request, confused_deputy, decide,
    trusts_service,
};
use ondol_wire::fault::Fault;

use crate::conditions;
use crate::roles::{RolePolicies, Roles};

/// The owner in the ARNs of AWS's own managed policies, which belong to every account.
const AWS_OWNED: &str = "aws";

/// Whether requests are held against policies at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    On,
    /// Whoever can sign may do everything.
    Off,
}

/// What a role says to a service that is to run with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust {
    /// Anybody's function could run with it: its trust policy does not say whose.
    pub confused_deputy: bool,
}

/// Decides with the roles as they are now.
#[derive(Debug, Clone)]
pub struct Authorizer {
    roles: Arc<Roles>,
    enforcement: Enforcement,
}

impl Authorizer {
    pub fn new(roles: Arc<Roles>, enforcement: Enforcement) -> Self {
        Self { roles, enforcement }
    }

    /// Whether policies count.
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    /// Refuses what the caller may not do, with AWS's sentence. The code is that of the action's service.
    pub fn authorize(
        &self,
        caller: &Caller,
        session_policy: Option<&Policy>,
        action: &str,
        resource_arn: &str,
        context: &Context,
        resource_policy: Option<&Policy>,
    ) -> Result<(), Fault> {
        let code = if action.starts_with("iam:") || action.starts_with("sts:") {
            "AccessDenied"
        } else {
            "AccessDeniedException"
        };
        let asked = Asked { caller, session_policy, action, resource_arn, context };
        self.refuse(&asked, resource_policy, false).map_err(|text| Fault::new(code, 403, text))
    }

    /// Whether a caller may give a role to a service; asked by the service that is given it.
    pub fn may_pass_role(
        &self,
        caller: &Caller,
        session_policy: Option<&Policy>,
        role_arn: &str,
        service: &str,
        context: &Context,
    ) -> Result<(), Fault> {
        let owner = role_arn.split(':').nth(4).unwrap_or_default();
        if self.enforcement == Enforcement::On && owner != self.roles.home().account_id {
            let text = "Cross-account pass role is not allowed.";
            return Err(Fault::new("AccessDeniedException", 403, text));
        }
        let mut context = context.clone().with("iam:PassedToService", service);
        if let Some(role) = self.roles.by_arn(role_arn) {
            role.add_tags(&mut context);
        }
        let asked = Asked {
            caller,
            session_policy,
            action: "iam:PassRole",
            resource_arn: role_arn,
            context: &context,
        };
        self.refuse(&asked, None, false).map_err(|text| Fault::new("AccessDeniedException", 403, text))
    }

    /// Whether a role is there and lets a service assume it. `source_arn` is what the service acts for.
    pub fn role_exists_and_trusts(
        &self,
        role_arn: &str,
        service: &str,
        source_arn: Option<&str>,
    ) -> Result<Trust, Fault> {
        if self.enforcement == Enforcement::Off {
            return Ok(Trust { confused_deputy: false });
        }
        let home = self.roles.home();
        let mut context = Context::default().with("aws:SourceAccount", &home.account_id);
        if let Some(source) = source_arn {
            context.add("aws:SourceArn", source);
        }
        match self.roles.by_arn(role_arn) {
            Some(role) if trusts_service(&role.trust, service, role_arn, &context) => {
                Ok(Trust { confused_deputy: confused_deputy(&role.trust) })
            }
            _ => Err(Fault::new(
                "InvalidParameterValueException",
                400,
                "The role defined for the function cannot be assumed by Lambda.",
            )),
        }
    }

    /// A role as a service acts with it; none if it isn't here.
    pub(crate) fn session_of(&self, role_arn: &str, session_name: &str) -> Option<Caller> {
        self.roles.by_arn(role_arn).map(|role| Caller::assumed_role(&role.arn, &role.id, session_name))
    }

    /// Whether a role may do something with a resource, by its own policies alone: those of other accounts' resources
    /// are not here to be asked.
    pub fn role_may(&self, role_arn: &str, action: &str, resource_arn: &str) -> bool {
        let Some(role) = self.roles.by_arn(role_arn) else { return self.enforcement == Enforcement::Off };
        let caller = Caller::assumed_role(&role.arn, &role.id, "lambda");
        let now = ondol_observe::clock::epoch_millis() / 1_000;
        let home = self.roles.home();
        let context = conditions::now(&home.region, Some(now));
        let asked = Asked { caller: &caller, session_policy: None, action, resource_arn, context: &context };
        self.refuse_of(&asked, None, false, &home.account_id).is_ok()
    }

    /// Whether a caller may assume a role: its trust policy must say so. `Err` has AWS's sentence.
    pub(crate) fn may_assume(
        &self,
        caller: &Caller,
        session_policy: Option<&Policy>,
        role: Option<&RolePolicies>,
        role_arn: &str,
        context: &Context,
    ) -> Result<(), Fault> {
        let asked =
            Asked { caller, session_policy, action: "sts:AssumeRole", resource_arn: role_arn, context };
        // That there is no such role is not told to who might only be guessing.
        let refused = match role {
            Some(role) => self.refuse(&asked, Some(&role.trust), true),
            None => Err(asked.denial(Decision::Deny { explicit: false, kind: PolicyKind::RoleTrust })),
        };
        refused.map_err(|text| Fault::new("AccessDenied", 403, text))
    }

    fn refuse(&self, asked: &Asked<'_>, resource_policy: Option<&Policy>, trust: bool) -> Result<(), String> {
        let home = self.roles.home().account_id.as_str();
        let owner = asked.resource_arn.split(':').nth(4).unwrap_or_default();
        // Resources without an account in their ARN, such as `*`, are this account's.
        let resource_account = if owner.is_empty() || owner == AWS_OWNED { home } else { owner };
        self.refuse_of(asked, resource_policy, trust, resource_account)
    }

    fn refuse_of(
        &self,
        asked: &Asked<'_>,
        resource_policy: Option<&Policy>,
        trust: bool,
        resource_account: &str,
    ) -> Result<(), String> {
        if self.enforcement == Enforcement::Off {
            return Ok(());
        }
        let home = self.roles.home().account_id.as_str();
        let is_root = asked.caller.kind == CallerKind::Root && asked.caller.account_id == home;
        if is_root && resource_policy.is_none() && asked.session_policy.is_none() && resource_account == home
        {
            return Ok(());
        }
        let role = self.role_of(asked.caller);
        let tagged;
        let context = match &role {
            Some(role) if !role.tags.is_empty() => {
                let mut context = asked.context.clone();
                for (key, value) in &role.tags {
                    context.add(format!("aws:PrincipalTag/{key}"), value);
                }
                tagged = context;
                &tagged
            }
            _ => asked.context,
        };
        let policies = Policies {
            identity: role.as_ref().map_or(&[], |role| &role.identity),
            session: asked.session_policy,
            permissions_boundary: role.as_ref().and_then(|role| role.permissions_boundary.as_deref()),
            resource: resource_policy,
            trust,
            resource_account,
        };
        let request =
            Request { caller: asked.caller, action: asked.action, resource: asked.resource_arn, context };
        let decision = decide(&request, &policies);
        // A session outlives its role, but not what the role was allowed.
        let orphan = role.is_none() && matches!(asked.caller.kind, CallerKind::AssumedRole { .. });
        match decision {
            Decision::Allow { .. } if orphan => {
                Err(asked.denial(Decision::Deny { explicit: false, kind: PolicyKind::Identity }))
            }
            Decision::Allow { .. } => Ok(()),
            denied => Err(asked.denial(denied)),
        }
    }

    /// The role of a session, if it is still the one the session is of.
    fn role_of(&self, caller: &Caller) -> Option<Arc<RolePolicies>> {
        let CallerKind::AssumedRole { role_arn, role_id, .. } = &caller.kind else { return None };
        self.roles.by_arn(role_arn).filter(|role| role.id == *role_id)
    }
}

/// What is asked, before any policy is looked up.
struct Asked<'a> {
    caller: &'a Caller,
    session_policy: Option<&'a Policy>,
    action: &'a str,
    resource_arn: &'a str,
    context: &'a Context,
}

impl Asked<'_> {
    fn denial(&self, decision: Decision) -> String {
        let request = Request {
            caller: self.caller,
            action: self.action,
            resource: self.resource_arn,
            context: self.context,
        };
        decision.denial(&request).unwrap_or_default()
    }
}
