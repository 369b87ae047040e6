//! The errors operations answer with.

use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE;

/// A modelled error of Lambda.
pub fn fault(code: &'static str, message: impl Into<String>) -> Fault {
    Fault::of(&SERVICE, code, message)
}

pub fn invalid(message: impl Into<String>) -> Fault {
    fault("InvalidParameterValueException", message)
}

/// The refusal of anything but reading while a function or version is being deleted.
pub fn being_deleted() -> Fault {
    fault(
        "ResourceConflictException",
        "The operation cannot be performed at this time. The function is currently in the following state: Deleting",
    )
}

/// What is not served, said so that no client takes it for a passing fault.
pub fn unsupported(text: String) -> Fault {
    Fault::new("NotImplementedException", 501, text)
}

/// Says of a setting that it has no effect here, instead of storing it.
pub fn unsupported_setting(name: &str) -> Fault {
    invalid(format!("{name} isn't supported by this version of Ondol. Leave it out."))
}
