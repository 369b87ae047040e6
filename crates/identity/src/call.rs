//! From a form to an operation of IAM or STS: each with its rule, each allowed before it is carried out.

use std::sync::Arc;

use ondol_core::identity::Home;
use ondol_core::policy::{Caller, Context, Policy};
use ondol_failpoint::reach;
use ondol_store::{Committed, Store, StoreError, Transaction, Turns};
use ondol_wire::fault::Fault;
use ondol_wire::query::{find_operation, read_input, write_output};
use ondol_wire::rest_json::Answer;

use crate::iam::rules::Rule;
use crate::iam::{account, attachments, policies, policy_versions, role_policies, roles, rules, tags};
use crate::{Authorizer, Roles, Sessions, sts};

/// Tries of a change whose document changed under it.
const ATTEMPTS_MAX: usize = 20;

/// Roles and policies change one after the other: most changes look at several of them.
const TURN: &str = "iam";

/// What every operation works with.
#[derive(Debug, Clone)]
pub struct Identity {
    pub store: Store,
    pub home: Home,
    pub roles: Arc<Roles>,
    pub sessions: Arc<Sessions>,
    pub authorizer: Authorizer,
    /// One change at a time, shared with the other services that change the store.
    pub turns: Arc<Turns>,
}

/// Who asks, as the signature showed, and what is known of the request besides.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub caller: &'a Caller,
    pub session_policy: Option<&'a Policy>,
    /// Condition keys such as `aws:SourceIp`.
    pub context: &'a Context,
    /// The long-lived key it is signed with; none of a session.
    pub access_key_id: Option<&'a str>,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub identity: &'a Identity,
    pub asker: &'a Asker<'a>,
}

impl Call<'_> {
    /// Lets an operation go on, or not.
    fn allow(&self, action: &str, rule: Rule) -> Result<(), Fault> {
        let (arn, more, also) = match rule {
            Rule::Resource(arn, more) => (arn, more, None),
            Rule::Both(arn, more, also) => (arn, more, Some(also)),
            Rule::Open | Rule::Own => return Ok(()),
        };
        let mut context = self.asker.context.clone();
        for (key, value) in more {
            context.add(key, value);
        }
        let Asker { caller, session_policy, .. } = *self.asker;
        let authorizer = &self.identity.authorizer;
        authorizer.authorize(caller, session_policy, action, &arn, &context, None)?;
        match also {
            Some(also) => authorizer.authorize(caller, session_policy, also, &arn, &context, None),
            None => Ok(()),
        }
    }
}

impl Identity {
    pub(crate) fn now_epoch_millis(&self) -> i64 {
        ondol_observe::clock::epoch_millis()
    }

    /// Builds a transaction from what is there and commits it; what it wrote counts before it is answered.
    pub(crate) async fn change<T>(
        &self,
        mut build: impl FnMut() -> Result<(Transaction, T), Fault>,
    ) -> Result<T, Fault> {
        let _turn = self.turns.of(TURN).await;
        for _ in 0..ATTEMPTS_MAX {
            let (transaction, result) = build()?;
            let puts = transaction.puts.iter().map(|(key, _)| key.clone());
            let keys: Vec<String> = puts.chain(transaction.deletes.iter().cloned()).collect();
            reach("identity.before-commit");
            match self.store.commit(transaction).await.map_err(|error| broken(&error))? {
                Committed::At(_) => {
                    reach("identity.after-commit");
                    self.roles.refresh(&self.store, &keys);
                    return Ok(result);
                }
                Committed::Conflict => {}
            }
        }
        let text = "The resource changes too fast; try again.";
        Err(Fault::of(&ondol_wire::iam::SERVICE, "ConcurrentModification", text))
    }
}

pub(crate) fn broken(error: &StoreError) -> Fault {
    let text = format!("The change couldn't be stored: {error}");
    Fault::of(&ondol_wire::iam::SERVICE, "ServiceFailure", text)
}

/// One list says which operations work, what must be allowed for each, and which function it is. A line without
/// a rule is no line.
macro_rules! operations {
    ($works:ident, $call:ident, $service:literal, $tables:path: $($name:literal, $rule:path => $function:path,)*) => {
        /// The operations that work.
        pub const $works: &[&str] = &[$($name),*];

        async fn $call(call: &Call<'_>, form: &[u8], request_id: &str) -> Result<Answer, Fault> {
            let operation = find_operation(&$tables, form)?;
            match operation.name {
                $($name => {
                    let input = read_input(&$tables, operation, form)?;
                    call.allow(concat!($service, ":", $name), $rule(call, &input))?;
                    let output = $function(call, input).await?;
                    write_output(&$tables, operation, &output, request_id)
                })*
                other => Err(Fault::new(
                    "NotImplemented",
                    501,
                    format!("{other} isn't supported by this version of Ondol. COMPATIBILITY.md lists what is."),
                )),
            }
        }
    };
}

operations! { IAM_WORKS, iam, "iam", ondol_wire::iam::SERVICE:
    "CreateRole", rules::new_role => roles::create,
    "GetRole", rules::role => roles::get,
    "ListRoles", rules::all => roles::list,
    "UpdateRole", rules::role => roles::update,
    "UpdateRoleDescription", rules::role => roles::update_description,
    "UpdateAssumeRolePolicy", rules::role => roles::update_assume_role_policy,
    "DeleteRole", rules::role => roles::delete,
    "PutRolePolicy", rules::grants_of_role => role_policies::put,
    "GetRolePolicy", rules::role => role_policies::get,
    "ListRolePolicies", rules::role => role_policies::list,
    "DeleteRolePolicy", rules::grants_of_role => role_policies::delete,
    "AttachRolePolicy", rules::role_and_policy => attachments::attach,
    "DetachRolePolicy", rules::role_and_policy => attachments::detach,
    "ListAttachedRolePolicies", rules::role => attachments::list,
    "ListEntitiesForPolicy", rules::policy => attachments::list_entities,
    "CreatePolicy", rules::new_policy => policies::create,
    "GetPolicy", rules::policy => policies::get,
    "ListPolicies", rules::all => policies::list,
    "DeletePolicy", rules::policy => policies::delete,
    "CreatePolicyVersion", rules::policy => policy_versions::create,
    "GetPolicyVersion", rules::policy => policy_versions::get,
    "ListPolicyVersions", rules::policy => policy_versions::list,
    "SetDefaultPolicyVersion", rules::policy => policy_versions::set_default,
    "DeletePolicyVersion", rules::policy => policy_versions::delete,
    "TagRole", rules::tags_of_role => tags::tag_role,
    "UntagRole", rules::tags_off_role => tags::untag_role,
    "ListRoleTags", rules::role => tags::list_role,
    "TagPolicy", rules::tags_of_policy => tags::tag_policy,
    "UntagPolicy", rules::tags_off_policy => tags::untag_policy,
    "ListPolicyTags", rules::policy => tags::list_policy,
    "ListInstanceProfilesForRole", rules::role => roles::list_instance_profiles,
    "GetUser", rules::user => account::get_user,
    "ListAccountAliases", rules::all => account::list_aliases,
}

operations! { STS_WORKS, sts, "sts", ondol_wire::sts::SERVICE:
    "GetCallerIdentity", rules::open => sts::get_caller_identity,
    "AssumeRole", rules::own => sts::assume_role,
    "GetSessionToken", rules::open => sts::get_session_token,
    "GetAccessKeyInfo", rules::all => sts::get_access_key_info,
}

/// Carries out a request of `iam` or `sts` whose signature was checked.
pub async fn call(
    identity: &Identity,
    asker: &Asker<'_>,
    service: &str,
    form: &[u8],
    request_id: &str,
) -> Result<Answer, Fault> {
    let call = Call { identity, asker };
    match service {
        "iam" => iam(&call, form, request_id).await,
        "sts" => sts(&call, form, request_id).await,
        other => {
            let text = format!("The service {other} isn't supported by this version of Ondol.");
            Err(Fault::new("NotImplemented", 501, text))
        }
    }
}
