//! The query protocol of IAM and STS, driven by a service's tables: form parameters become one JSON object by
//! member name, which is validated and becomes a typed input; a typed output becomes XML.

mod form;
mod read;
mod write;

use crate::fault::Fault;
use crate::model::{Operation, Service};

pub use form::Form;
pub use read::read_input;
pub use write::write_output;

/// Finds the operation that `Action` names. `form` is the form of the body, or the raw query of a GET.
pub fn match_operation(service: &Service, form: &[u8]) -> Option<&'static Operation> {
    service.operation(Form::parse(form).get("Action")?)
}

/// Finds the operation that `Action` names; the error is the answer to a request that names none.
pub fn find_operation(service: &Service, form: &[u8]) -> Result<&'static Operation, Fault> {
    let form = Form::parse(form);
    let Some(action) = form.get("Action").filter(|action| !action.is_empty()) else {
        return Err(Fault::new("MissingAction", 400, "Missing Action"));
    };
    service.operation(action).ok_or_else(|| unknown_action(action, &form))
}

/// AWS names an operation together with its version, so a wrong version is an unknown operation.
fn unknown_action(action: &str, form: &Form) -> Fault {
    let version = form.get("Version").unwrap_or("NO_VERSION_SPECIFIED");
    Fault::new("InvalidAction", 400, format!("Could not find operation {action} for version {version}"))
}

#[cfg(test)]
mod tests;
