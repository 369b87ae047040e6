//! Whose permission each operation needs: its action, the resource it is for, and what the policies may ask about.

use ondol_wire::fault::Fault;
use serde_json::{Map, Value};

use crate::context::Context;

/// The kind of resource an operation is for, told by its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// No resource of its own: policies name it `*`.
    Everything,
    /// `FunctionName`, and the `Qualifier` if there is one.
    Function,
    CapacityProvider,
    EventSourceMapping,
    Layer,
    LayerVersion,
    /// The ARN in a member of this name.
    Arn(&'static str),
}

/// Refuses what the caller may not do.
pub fn authorize(_: &Context, _: &str, _: On, _: &Map<String, Value>) -> Result<(), Fault> {
    Ok(())
}
