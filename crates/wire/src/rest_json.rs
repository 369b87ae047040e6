//! The REST-JSON protocol, driven by a service's tables: a request becomes one JSON object by member
//! name, is validated, and becomes a typed input; a typed output becomes status, headers and body.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::model::{Kind, Location, Operation, Service, ShapeNumber};
use crate::uri::{match_path, query_pairs};
use crate::validate::validate;

/// A matched request: the operation and the path's labels, decoded.
pub type Matched = (&'static Operation, Vec<(&'static str, String)>);

/// Finds the operation of a method, a raw path and a raw query.
pub fn match_operation(service: &Service, method: &str, path: &str, query: &str) -> Option<Matched> {
    let addressed = |constant: &str| constant.is_empty() || query.split('&').any(|pair| pair == constant);
    service
        .operations
        .iter()
        .filter(|operation| operation.method == method && addressed(operation.constant_query))
        .filter_map(|operation| match_path(operation.path, path).map(|labels| (operation, labels)))
        .max_by_key(|(operation, _)| operation.constant_query.len())
}

/// Reads and validates the input of an operation. `header` looks a header up by its lower-case name.
pub fn read_input<T: DeserializeOwned>(
    service: &Service,
    matched: &Matched,
    query: &str,
    header: impl Fn(&str) -> Option<String>,
    body: &[u8],
) -> Result<T, Fault> {
    let (operation, _) = matched;
    let input = read_members(service, matched, query, header, body)?;
    if let Some(shape) = operation.input {
        validate(service, shape, &input)?;
    }
    typed(input)
}

/// An input's members in the form its operation takes them.
pub fn typed<T: DeserializeOwned>(input: Map<String, Value>) -> Result<T, Fault> {
    serde_json::from_value(Value::Object(input)).map_err(|error| serialization(&error.to_string()))
}

/// The members of an input by name, wherever they travelled; not validated yet.
pub fn read_members(
    service: &Service,
    matched: &Matched,
    query: &str,
    header: impl Fn(&str) -> Option<String>,
    body: &[u8],
) -> Result<Map<String, Value>, Fault> {
    let (operation, labels) = matched;
    let mut input = parse_body(body)?;
    if let Some(shape) = operation.input {
        for (name, value) in &input {
            let member = service.shape(shape).member(name);
            member.map_or(Ok(()), |member| check_type(service, member.shape, value))?;
        }
        let Kind::Structure(members) = service.shape(shape).kind else {
            return Err(broken_table(operation.name));
        };
        // What the operation does not know must reach nobody: not even those who only look at it.
        input.retain(|name, _| {
            members.iter().any(|member| {
                member.name == name && matches!(member.location, Location::Body | Location::Payload)
            })
        });
        let pairs = query_pairs(query);
        for member in members {
            let texts: Vec<String> = match member.location {
                Location::Body | Location::Payload | Location::Status => continue,
                Location::Uri(wire) => {
                    labels.iter().filter(|(name, _)| *name == wire).map(|(_, value)| value.clone()).collect()
                }
                Location::Query(wire) => {
                    pairs.iter().filter(|(name, _)| name == wire).map(|(_, value)| value.clone()).collect()
                }
                Location::Header(wire) => header(&wire.to_ascii_lowercase()).into_iter().collect(),
            };
            input.remove(member.name);
            if !texts.is_empty() {
                input.insert(member.name.into(), from_text(service, member.shape, member.name, &texts)?);
            }
        }
    }
    Ok(input)
}

fn parse_body(body: &[u8]) -> Result<Map<String, Value>, Fault> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(serialization("the body is not a JSON object")),
        Err(error) => Err(serialization(&error.to_string())),
    }
}

/// Whether JSON is of the model's types; if not, in the words of the service's own parser.
fn check_type(service: &Service, shape: ShapeNumber, value: &Value) -> Result<(), Fault> {
    let wanted = match (&service.shape(shape).kind, value) {
        (_, Value::Null)
        | (Kind::String | Kind::Blob, Value::String(_))
        | (Kind::Integer | Kind::Double | Kind::Timestamp, Value::Number(_))
        | (Kind::Boolean, Value::Bool(_)) => return Ok(()),
        (Kind::List(item), Value::Array(items)) => {
            return items.iter().try_for_each(|value| check_type(service, *item, value));
        }
        (Kind::Map { value: inner, .. }, Value::Object(map)) => {
            return map.values().try_for_each(|value| check_type(service, *inner, value));
        }
        (Kind::Structure(_), Value::Object(map)) => {
            return map.iter().try_for_each(|(name, value)| {
                let member = service.shape(shape).member(name);
                member.map_or(Ok(()), |member| check_type(service, member.shape, value))
            });
        }
        (Kind::String | Kind::Blob, _) => "a String",
        (Kind::Integer, _) => "an Integer",
        (Kind::Double | Kind::Timestamp, _) => "a Double",
        (Kind::Boolean, _) => "a Boolean",
        (Kind::List(_), _) => return Err(mistyped("Expected list or null")),
        (Kind::Map { .. } | Kind::Structure(_), _) => return Err(mistyped("Expected map or null")),
    };
    Err(mistyped(&match value {
        Value::String(_) => format!("STRING_VALUE can not be converted to {wanted}"),
        Value::Number(_) => format!("NUMBER_VALUE can not be converted to {wanted}"),
        Value::Bool(true) => format!("TRUE_VALUE can not be converted to {wanted}"),
        Value::Bool(false) => format!("FALSE_VALUE can not be converted to {wanted}"),
        Value::Array(_) => "Start of list found where not expected".into(),
        Value::Null | Value::Object(_) => "Start of structure or map found where not expected.".into(),
    }))
}

fn mistyped(text: &str) -> Fault {
    Fault::new("SerializationException", 400, text)
}

fn from_text(service: &Service, shape: ShapeNumber, name: &str, texts: &[String]) -> Result<Value, Fault> {
    let text = &texts[0];
    let wrong = |what: &str| serialization(&format!("{name}: {text:?} is not {what}"));
    Ok(match service.shape(shape).kind {
        Kind::Integer => Value::from(text.parse::<i64>().map_err(|_| wrong("a whole number"))?),
        Kind::Double | Kind::Timestamp => Value::from(text.parse::<f64>().map_err(|_| wrong("a number"))?),
        Kind::Boolean => Value::from(text.parse::<bool>().map_err(|_| wrong("true or false"))?),
        Kind::List(_) => Value::from(texts.to_vec()),
        _ => Value::from(text.as_str()),
    })
}

fn serialization(detail: &str) -> Fault {
    Fault::new("SerializationException", 400, format!("Could not parse the request: {detail}"))
}

fn broken_table(operation: &str) -> Fault {
    Fault::new("ServiceException", 500, format!("The tables of {operation} are inconsistent."))
}

/// A success as it goes out.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Empty for an operation without an output.
    pub body: Vec<u8>,
}

/// Writes an operation's output where its table says each member travels.
pub fn write_output<T: Serialize>(
    service: &Service,
    operation: &Operation,
    output: &T,
) -> Result<Answer, Fault> {
    let mut answer = Answer { status: operation.status, headers: Vec::new(), body: Vec::new() };
    let Some(shape) = operation.output else { return Ok(answer) };
    let value = serde_json::to_value(output).map_err(|_| broken_table(operation.name))?;
    let (Value::Object(mut map), Kind::Structure(members)) = (value, &service.shape(shape).kind) else {
        return Err(broken_table(operation.name));
    };
    for member in *members {
        match member.location {
            Location::Status => {
                if let Some(status) = map.remove(member.name).and_then(|value| value.as_u64()) {
                    answer.status = u16::try_from(status).unwrap_or(answer.status);
                }
            }
            Location::Header(wire) => {
                if let Some(value) = map.remove(member.name) {
                    let text = value.as_str().map_or_else(|| value.to_string(), String::from);
                    answer.headers.push((wire.to_ascii_lowercase(), text));
                }
            }
            _ => {}
        }
    }
    let has_body = members.iter().any(|member| matches!(member.location, Location::Body | Location::Payload));
    if has_body {
        answer.body = Value::Object(map).to_string().into_bytes();
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lambda::SERVICE;
    use crate::lambda::types::{
        DeleteFunctionResponse, ListCapacityProvidersRequest, PutFunctionScalingConfigRequest,
        UntagResourceRequest,
    };

    #[test]
    fn members_come_from_path_query_and_body() {
        let matched =
            match_operation(&SERVICE, "PUT", "/2025-11-30/functions/f/function-scaling-config", "").unwrap();
        assert_eq!(matched.0.name, "PutFunctionScalingConfig");
        let body = br#"{"FunctionScalingConfig":{"MinExecutionEnvironments":2},"Unknown":1,"FunctionName":"spoofed"}"#;
        let input: PutFunctionScalingConfigRequest =
            read_input(&SERVICE, &matched, "Qualifier=%24LATEST.PUBLISHED", |_| None, body).unwrap();
        assert_eq!(input.function_name.as_deref(), Some("f"));
        assert_eq!(input.qualifier.as_deref(), Some("$LATEST.PUBLISHED"));
        assert_eq!(input.function_scaling_config.unwrap().min_execution_environments, Some(2));
    }

    /// A member that travels elsewhere, or that the operation does not have, cannot come in the body.
    #[test]
    fn the_body_cannot_bring_what_is_not_its_own() {
        let matched = match_operation(&SERVICE, "PUT", "/2015-03-31/functions/f/configuration", "").unwrap();
        let body = br#"{"Qualifier":"dev","FunctionName":"other","Description":"d","UUID":"u"}"#;
        let members = read_members(&SERVICE, &matched, "", |_| None, body).unwrap();
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        assert_eq!(names, ["Description", "FunctionName"]);
        assert_eq!(members["FunctionName"], "f");
    }

    #[test]
    fn repeated_query_names_make_a_list_and_numbers_are_checked() {
        let arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af";
        let matched = match_operation(&SERVICE, "DELETE", &format!("/2017-03-31/tags/{arn}"), "").unwrap();
        let input: UntagResourceRequest =
            read_input(&SERVICE, &matched, "tagKeys=a&tagKeys=b", |_| None, b"").unwrap();
        assert_eq!(input.tag_keys, Some(vec!["a".into(), "b".into()]));
        let matched = match_operation(&SERVICE, "GET", "/2025-11-30/capacity-providers", "").unwrap();
        let error =
            read_input::<ListCapacityProvidersRequest>(&SERVICE, &matched, "MaxItems=x", |_| None, b"")
                .unwrap_err();
        assert_eq!(error.code, "SerializationException");
    }

    #[test]
    fn a_status_member_sets_the_status_and_leaves_no_body() {
        let operation = SERVICE.operation("DeleteFunction").unwrap();
        let answer =
            write_output(&SERVICE, operation, &DeleteFunctionResponse { status_code: Some(202) }).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (202, &b""[..]));
    }

    #[test]
    fn every_operation_is_found_by_its_own_path() {
        for operation in SERVICE.operations {
            let path = operation.path.replace(['{', '}', '+'], "");
            let found = match_operation(&SERVICE, operation.method, &path, operation.constant_query)
                .map(|(operation, _)| operation.name);
            assert_eq!(found, Some(operation.name), "{path}");
        }
    }
}
