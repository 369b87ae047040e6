//! What a request hands on: a role and a capacity provider, which the caller must be allowed to pass, and a role
//! that must let Lambda assume it.

use ondol_core::identity::FunctionReference;
use ondol_observe::notice;
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types;

use crate::context::Context;

/// Who assumes the roles of functions and of capacity providers.
pub const LAMBDA: &str = "lambda.amazonaws.com";

#[derive(Debug)]
pub struct Pass {
    role: Option<String>,
    capacity_provider: Option<String>,
    /// What the role is for.
    source_arn: String,
}

impl Pass {
    /// What a function's settings hand on.
    pub fn of_function(
        context: &Context,
        function: Option<&str>,
        role: Option<&str>,
        provider: Option<&types::CapacityProviderConfig>,
    ) -> Self {
        let provider = provider
            .and_then(|config| config.lambda_managed_instances_capacity_provider_config.as_ref())
            .and_then(|config| config.capacity_provider_arn.clone());
        let reference = FunctionReference::parse(function.unwrap_or_default());
        let source_arn = reference.arn(&context.home, None);
        Self { role: role.map(str::to_owned), capacity_provider: provider, source_arn }
    }

    /// What a capacity provider's settings hand on.
    pub fn of_provider(context: &Context, name: &str, role: &str) -> Self {
        let source_arn = context.home.capacity_provider_arn(name);
        Self { role: Some(role.to_owned()), capacity_provider: None, source_arn }
    }

    pub fn check(&self, context: &Context) -> Result<(), Fault> {
        let Some(asked) = &context.asked else { return Ok(()) };
        let authorizer = context.gatekeeper.authorizer();
        let session_policy = asked.session_policy.as_deref();
        if let Some(role) = &self.role {
            authorizer.may_pass_role(&asked.caller, session_policy, role, LAMBDA, &asked.context())?;
            let trust = authorizer.role_exists_and_trusts(role, LAMBDA, Some(&self.source_arn))?;
            if trust.confused_deputy && context.warns_of(role) {
                notice::warning(&deputy(role));
            }
        }
        if let Some(provider) = &self.capacity_provider {
            let mut conditions = asked.context();
            super::rules::add_tags(context, &mut conditions, provider)?;
            authorizer.authorize(
                &asked.caller,
                session_policy,
                "lambda:PassCapacityProvider",
                provider,
                &conditions,
                None,
            )?;
        }
        Ok(())
    }
}

/// The warning about a role that anybody's function could run with.
pub fn deputy(role: &str) -> String {
    format!(
        "the trust policy of {role} names neither aws:SourceAccount nor aws:SourceArn: on AWS, somebody else's function could run with it (the confused deputy)"
    )
}
