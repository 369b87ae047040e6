//! What a request hands on: a role and a capacity provider, which the caller must be allowed to pass.

use ondol_wire::fault::Fault;
use ondol_wire::lambda::types;

use crate::context::Context;

#[derive(Debug)]
pub struct Pass {
    role: Option<String>,
    capacity_provider: Option<String>,
}

impl Pass {
    pub fn of(_: &Context, role: Option<&str>, provider: Option<&types::CapacityProviderConfig>) -> Self {
        let provider = provider
            .and_then(|config| config.lambda_managed_instances_capacity_provider_config.as_ref())
            .and_then(|config| config.capacity_provider_arn.clone());
        Self { role: role.map(str::to_owned), capacity_provider: provider }
    }

    pub fn check(&self, _: &Context) -> Result<(), Fault> {
        let _ = (&self.role, &self.capacity_provider);
        Ok(())
    }
}
