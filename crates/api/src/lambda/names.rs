//! Names in requests: whose function, which version.

use ondol_core::attached::Alias;
use ondol_core::function::{Function, FunctionVersion};
use ondol_core::identity::{FunctionReference, LATEST, Qualifier};
use ondol_store::{Revision, keys};
use ondol_wire::fault::Fault;

use crate::context::Context;
use crate::faults::{being_deleted, fault, invalid};

/// A function name and the qualifier that came with it, in the name or beside it.
#[derive(Debug, Clone)]
pub struct Named {
    pub name: String,
    pub qualifier: Option<String>,
}

pub fn not_found(context: &Context, name: &str, qualifier: Option<&str>) -> Fault {
    fault(
        "ResourceNotFoundException",
        format!("Function not found: {}", context.home.function_arn(name, qualifier)),
    )
}

/// Reads a function's name in any of its forms.
pub fn named(context: &Context, text: Option<&str>, qualifier: Option<String>) -> Result<Named, Fault> {
    let reference = FunctionReference::parse(text.unwrap_or_default());
    let qualifier = reference
        .in_home(&context.home, qualifier)
        .map_err(|refused| fault(refused.code, refused.message))?;
    Ok(Named { name: reference.name, qualifier })
}

/// The name of a function whose `$LATEST` is to be changed.
pub fn latest(context: &Context, text: Option<&str>) -> Result<String, Fault> {
    alone(
        context,
        text,
        "Current operation does not support versions other than $LATEST. Please set the version to $LATEST or do not set a version in your request.",
    )
}

/// A name that must be of the function itself.
pub fn unqualified(context: &Context, text: Option<&str>) -> Result<String, Fault> {
    alone(
        context,
        text,
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please specify either a function name or an unqualified function ARN.",
    )
}

fn alone(context: &Context, text: Option<&str>, refusal: &str) -> Result<String, Fault> {
    let Named { name, qualifier } = named(context, text, None)?;
    if qualifier.is_some_and(|qualifier| qualifier != LATEST) {
        return Err(invalid(refusal));
    }
    Ok(name)
}

pub fn function(context: &Context, name: &str) -> Result<(Function, Revision), Fault> {
    context.document(&keys::function(name))?.ok_or_else(|| not_found(context, name, None))
}

/// A function that is not being deleted.
pub fn living_function(context: &Context, name: &str) -> Result<(Function, Revision), Fault> {
    let (function, revision) = function(context, name)?;
    if function.deleting {
        return Err(being_deleted());
    }
    Ok((function, revision))
}

/// What a function's name and a qualifier stand for.
#[derive(Debug)]
pub enum Found {
    Latest(Box<Function>),
    Version(Box<Function>, Box<FunctionVersion>),
    /// An alias, and the version it points to first.
    Alias(Box<Alias>, Box<Found>),
}

pub fn find(context: &Context, named: &Named) -> Result<Found, Fault> {
    let missing = || not_found(context, &named.name, named.qualifier.as_deref());
    let (function, _) = function(context, &named.name).map_err(|_| missing())?;
    match named.qualifier.as_deref().map(Qualifier::parse) {
        None | Some(Qualifier::Latest) => Ok(Found::Latest(Box::new(function))),
        Some(Qualifier::Alias(name)) => {
            let (alias, _) =
                context.document::<Alias>(&keys::alias(&named.name, &name))?.ok_or_else(missing)?;
            let version = Named { name: named.name.clone(), qualifier: Some(alias.version.clone()) };
            let target = Box::new(find(context, &version)?);
            Ok(Found::Alias(Box::new(alias), target))
        }
        Some(qualifier) => {
            let key = keys::version(&named.name, &qualifier.to_string());
            let (version, _) = context.document::<FunctionVersion>(&key)?.ok_or_else(missing)?;
            Ok(Found::Version(Box::new(function), Box::new(version)))
        }
    }
}

/// A name whose qualifier says what is attached to: nothing for `$LATEST`.
pub fn unqualified_or(
    context: &Context,
    text: Option<&str>,
    qualifier: Option<String>,
) -> Result<Named, Fault> {
    let Named { name, qualifier } = named(context, text, qualifier)?;
    Ok(Named { name, qualifier: qualifier.filter(|qualifier| qualifier != LATEST) })
}
