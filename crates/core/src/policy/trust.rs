//! What trust policies are asked besides a decision.

use super::document::{Effect, Policy, Selection, Statement};
use super::principal::{Principal, Principals};
use super::{AllowedBy, Caller, Context, Decision, Policies, Request, decide};

/// The service that runs functions.
const LAMBDA: &str = "lambda.amazonaws.com";

/// Whether a role lets a service assume it, asked for this account.
pub fn trusts_service(trust: &Policy, service: &str, role_arn: &str, context: &Context) -> bool {
    let caller = Caller::service(service);
    let request = Request { caller: &caller, action: "sts:AssumeRole", resource: role_arn, context };
    let policies = Policies { resource: Some(trust), trust: true, ..Policies::default() };
    decide(&request, &policies) == Decision::Allow { by: AllowedBy::Resource }
}

/// Whether a role lets Lambda assume it on behalf of anybody's function: the statement that allows it does not
/// say whose, by `aws:SourceAccount` or `aws:SourceArn` (the "confused deputy").
pub fn confused_deputy(trust: &Policy) -> bool {
    let allows_lambda = |statement: &&Statement| {
        let Some(Principals::Are(list)) = &statement.principals else { return false };
        statement.effect == Effect::Allow
            && list.iter().any(|one| match one {
                Principal::Service(name) => name == LAMBDA,
                Principal::Anyone => true,
                _ => false,
            })
            && names_assume_role(&statement.actions)
    };
    let says_whose = |statement: &Statement| {
        const KEYS: [&str; 4] =
            ["aws:sourceaccount", "aws:sourcearn", "aws:sourceorgid", "aws:sourceorgpaths"];
        statement.conditions.iter().any(|condition| KEYS.iter().any(|key| condition.pins(key)))
    };
    trust.statements.iter().filter(allows_lambda).any(|statement| !says_whose(statement))
}

fn names_assume_role(actions: &Selection) -> bool {
    super::evaluate::selects_action(actions, "sts:assumerole")
}
