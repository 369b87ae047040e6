//! From a typed output to XML, members in the order of the model.

use serde::Serialize;
use serde_json::Value;

use crate::fault::Fault;
use crate::model::{Kind, Operation, Service, ShapeNumber};
use crate::rest_json::Answer;
use crate::time::iso_8601;
use crate::xml::{element_into, escape, escape_into};

/// Writes an operation's output in its wrapper, and the id of the request after it.
pub fn write_output<T: Serialize>(
    service: &Service,
    operation: &Operation,
    output: &T,
    request_id: &str,
) -> Result<Answer, Fault> {
    let name = operation.name;
    let broken = || Fault::new("InternalFailure", 500, format!("The tables of {name} are inconsistent."));
    let mut body = format!("<{name}Response");
    if let Some(namespace) = service.xml_namespace {
        body.push_str(&format!(" xmlns=\"{}\"", escape(namespace)));
    }
    body.push('>');
    if let Some(shape) = operation.output {
        let value = serde_json::to_value(output).map_err(|_| broken())?;
        match operation.result_wrapper {
            Some(wrapper) => element(service, shape, wrapper, &value, &mut body).ok_or_else(broken)?,
            None => content(service, shape, &value, &mut body).ok_or_else(broken)?,
        }
    }
    body.push_str("<ResponseMetadata>");
    element_into(&mut body, "RequestId", request_id);
    body.push_str(&format!("</ResponseMetadata></{name}Response>"));
    Ok(Answer {
        status: operation.status,
        headers: vec![("content-type".into(), "text/xml".into())],
        body: body.into_bytes(),
    })
}

fn element(service: &Service, shape: ShapeNumber, name: &str, value: &Value, out: &mut String) -> Option<()> {
    out.push_str(&format!("<{name}>"));
    content(service, shape, value, out)?;
    out.push_str(&format!("</{name}>"));
    Some(())
}

/// `None` for a value that is not of its shape, which the generated types do not let happen.
fn content(service: &Service, shape: ShapeNumber, value: &Value, out: &mut String) -> Option<()> {
    match (&service.shape(shape).kind, value) {
        (Kind::Structure(members), Value::Object(map)) => {
            for member in *members {
                if let Some(value) = map.get(member.name).filter(|value| !value.is_null()) {
                    element(service, member.shape, member.name, value, out)?;
                }
            }
        }
        (Kind::List(member), Value::Array(items)) => {
            for item in items {
                element(service, *member, "member", item, out)?;
            }
        }
        (Kind::Map { value: inner, .. }, Value::Object(map)) => {
            for (key, value) in map {
                out.push_str("<entry>");
                element_into(out, "key", key);
                element(service, *inner, "value", value, out)?;
                out.push_str("</entry>");
            }
        }
        // Whole seconds, as AWS writes them.
        (Kind::Timestamp, Value::Number(seconds)) => {
            out.push_str(&iso_8601(seconds.as_f64()?.floor() as i64))
        }
        (Kind::String | Kind::Blob, Value::String(text)) => escape_into(out, text),
        (Kind::Integer | Kind::Double, Value::Number(number)) => out.push_str(&number.to_string()),
        (Kind::Boolean, Value::Bool(truth)) => out.push_str(if *truth { "true" } else { "false" }),
        _ => return None,
    }
    Some(())
}
