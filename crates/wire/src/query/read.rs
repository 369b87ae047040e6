//! From form parameters to a typed input: `A.B` is a member of a structure, `L.member.N` an item of a list,
//! `M.entry.N.key` and `.value` a pair of a map.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Form, unknown_action};
use crate::fault::Fault;
use crate::model::{Kind, Operation, Service, ShapeNumber};
use crate::time::parse_iso_8601;
use crate::validate::{refuse, violations};

/// Reads and validates the input of an operation from the form of the body, or the raw query of a GET.
pub fn read_input<T: DeserializeOwned>(
    service: &Service,
    operation: &Operation,
    form: &[u8],
) -> Result<T, Fault> {
    let form = Form::parse(form);
    if form.get("Version") != Some(service.api_version) {
        return Err(unknown_action(operation.name, &form));
    }
    let input = match operation.input {
        Some(shape) => {
            let input = structure(service, shape, &form, "")?;
            let found = violations(service, shape, &input);
            if let Some(fault) = of_names(service, &found) {
                return Err(fault);
            }
            refuse(&found).map_err(|fault| Fault { code: "ValidationError".into(), ..fault })?;
            input
        }
        None => Map::new(),
    };
    serde_json::from_value(Value::Object(input)).map_err(|error| malformed(&error.to_string()))
}

/// IAM's own sentence about a name or path with the wrong characters, where that is all that is wrong.
fn of_names(service: &Service, violations: &[String]) -> Option<Fault> {
    let [violation] = violations else { return None };
    let (_, rest) = violation.rsplit_once("' at '")?;
    let (name, rest) = rest.split_once('\'')?;
    let wanted = match name {
        "roleName" | "policyName" | "userName" => {
            "contain only alphanumeric characters and/or the following: +=,.@_-"
        }
        "path" => "begin and end with / and contain only alphanumeric characters and/or / characters.",
        "pathPrefix" => {
            "begin with the / character and contain only alphanumeric characters and/or / characters."
        }
        _ => return None,
    };
    let of_characters = service.signing_name == "iam" && rest.contains("regular expression");
    let text = format!("The specified value for {name} is invalid. It must {wanted}");
    of_characters.then(|| Fault::new("ValidationError", 400, text))
}

/// Members of a structure; `prefix` is empty or ends with a dot.
fn structure(
    service: &Service,
    shape: ShapeNumber,
    form: &Form,
    prefix: &str,
) -> Result<Map<String, Value>, Fault> {
    let mut map = Map::new();
    let Kind::Structure(members) = service.shape(shape).kind else { return Ok(map) };
    for member in members {
        if let Some(value) = any(service, member.shape, form, &format!("{prefix}{}", member.name))? {
            map.insert(member.name.into(), value);
        }
    }
    Ok(map)
}

/// The value of a name, if the form says anything of it. Depth is bounded: every step needs a longer name.
fn any(service: &Service, shape: ShapeNumber, form: &Form, name: &str) -> Result<Option<Value>, Fault> {
    let below = format!("{name}.");
    let plain = form.get(name);
    let has_parts = form.below(&below).next().is_some();
    Ok(match &service.shape(shape).kind {
        Kind::Structure(_) if has_parts => Some(Value::Object(structure(service, shape, form, &below)?)),
        Kind::List(member) if has_parts => {
            let below = format!("{below}member.");
            let mut items = Vec::new();
            for number in numbers(form, name, &below)? {
                // A number comes from a name below, so there is a value; a list holds no holes.
                items.extend(any(service, *member, form, &format!("{below}{number}"))?);
            }
            Some(Value::Array(items))
        }
        Kind::Map { value, .. } if has_parts => {
            let below = format!("{below}entry.");
            let mut pairs = Map::new();
            for number in numbers(form, name, &below)? {
                let entry = format!("{below}{number}");
                let key = form
                    .get(&format!("{entry}.key"))
                    .ok_or_else(|| malformed(&format!("{entry} has no key")))?;
                if let Some(value) = any(service, *value, form, &format!("{entry}.value"))? {
                    pairs.insert(key.to_owned(), value);
                }
            }
            Some(Value::Object(pairs))
        }
        // How SDKs say that a list or map is there and empty.
        Kind::List(_) if plain == Some("") => Some(Value::Array(Vec::new())),
        Kind::Map { .. } | Kind::Structure(_) if plain == Some("") => Some(Value::Object(Map::new())),
        Kind::List(_) | Kind::Map { .. } | Kind::Structure(_) if plain.is_some() => {
            return Err(malformed(&format!("Unexpected value of {name}, which has parts")));
        }
        Kind::List(_) | Kind::Map { .. } | Kind::Structure(_) => None,
        _ if has_parts => {
            return Err(malformed(&format!("{name}: start of structure or list found where not expected")));
        }
        kind => plain.map(|text| scalar(kind, name, text)).transpose()?,
    })
}

/// The numbers of the items below a prefix, in order. AWS does not ask that there are no gaps.
fn numbers(form: &Form, name: &str, below: &str) -> Result<BTreeSet<u32>, Fault> {
    form.below(below)
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .map(|number| {
            let plain = !number.starts_with(['+', '0']);
            number
                .parse()
                .ok()
                .filter(|_| plain)
                .ok_or_else(|| malformed(&format!("{number:?} is not the number of an item of {name}")))
        })
        .collect()
}

fn scalar(kind: &Kind, name: &str, text: &str) -> Result<Value, Fault> {
    let wrong = |what: &str| malformed(&format!("{name}: {text:?} is not {what}"));
    Ok(match kind {
        Kind::Integer => Value::from(text.parse::<i64>().map_err(|_| wrong("a whole number"))?),
        Kind::Double => Value::from(text.parse::<f64>().map_err(|_| wrong("a number"))?),
        Kind::Boolean if text.eq_ignore_ascii_case("true") => Value::from(true),
        Kind::Boolean if text.eq_ignore_ascii_case("false") => Value::from(false),
        Kind::Boolean => return Err(wrong("true or false")),
        Kind::Timestamp => Value::from(
            parse_iso_8601(text).ok_or_else(|| wrong("a time such as 2026-11-22T09:56:03Z"))? as f64,
        ),
        _ => Value::from(text),
    })
}

fn malformed(detail: &str) -> Fault {
    Fault::new("MalformedInput", 400, detail)
}
