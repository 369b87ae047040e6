//! One validator for every operation, worded as AWS words its `ValidationException`.
//!
//! Structures name their member in camel case with dots. A list or map of plain values reports at the
//! list itself and names all constraints of its members, as the recorded answers of the service do.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use fancy_regex::Regex;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::model::{Kind, Service, Shape, ShapeNumber};

/// Checks an input object against its shape; every violation is named, in the model's order.
pub fn validate(service: &Service, shape: ShapeNumber, input: &Map<String, Value>) -> Result<(), Fault> {
    refuse(&violations(service, shape, input))
}

/// Every violation of an input object, in the model's order.
pub fn violations(service: &Service, shape: ShapeNumber, input: &Map<String, Value>) -> Vec<String> {
    let mut violations = Vec::new();
    structure(service, shape, input, "", &mut violations);
    violations
}

/// The answer to violations, if there are any.
pub fn refuse(violations: &[String]) -> Result<(), Fault> {
    if violations.is_empty() {
        return Ok(());
    }
    let count = violations.len();
    let noun = if count == 1 { "error" } else { "errors" };
    Err(Fault::new(
        "ValidationException",
        400,
        format!("{count} validation {noun} detected: {}", violations.join("; ")),
    ))
}

fn structure(
    service: &Service,
    shape: ShapeNumber,
    input: &Map<String, Value>,
    path: &str,
    out: &mut Vec<String>,
) {
    let Kind::Structure(members) = service.shape(shape).kind else { return };
    for member in members {
        let path = join(path, member.name);
        match input.get(member.name).filter(|value| !value.is_null()) {
            None if member.required => out.push(violation("null", &path, "Member must not be null")),
            None => {}
            Some(value) => any(service, member.shape, value, &path, out),
        }
    }
}

fn any(service: &Service, number: ShapeNumber, value: &Value, path: &str, out: &mut Vec<String>) {
    let shape = service.shape(number);
    match (&shape.kind, value) {
        (Kind::Structure(_), Value::Object(map)) => structure(service, number, map, path, out),
        (Kind::List(member), Value::Array(items)) => {
            push_all(shape, value, path, out);
            if matches!(service.shape(*member).kind, Kind::Structure(_)) {
                for (place, item) in items.iter().enumerate() {
                    any(service, *member, item, &format!("{path}.{}.member", place + 1), out);
                }
            } else if items.iter().any(|item| !broken(service.shape(*member), item).is_empty()) {
                out.push(nested("Member", service.shape(*member), value, path));
            }
        }
        (Kind::Map { key, value: inner }, Value::Object(map)) => {
            push_all(shape, value, path, out);
            if map.keys().any(|name| !broken(service.shape(*key), &Value::from(name.as_str())).is_empty()) {
                out.push(nested("Map keys", service.shape(*key), value, path));
            }
            if map.values().any(|item| !broken(service.shape(*inner), item).is_empty()) {
                out.push(nested("Map value", service.shape(*inner), value, path));
            }
        }
        _ => push_all(shape, value, path, out),
    }
}

fn push_all(shape: &Shape, value: &Value, path: &str, out: &mut Vec<String>) {
    for constraint in broken(shape, value) {
        out.push(violation(&quoted(shape, value), path, &constraint));
    }
}

fn nested(what: &str, shape: &Shape, value: &Value, path: &str) -> String {
    let mut all = constraints(shape);
    // As far as recordings tell: not where a member may be empty, nor for keys.
    let may_be_empty = shape.pattern.is_some() && shape.min.is_none_or(|min| min == 0.0);
    if what != "Map keys" && !may_be_empty {
        all.push("Member must not be null".into());
    }
    violation(&quoted(shape, value), path, &format!("{what} must satisfy constraint: [{}]", all.join(", ")))
}

/// One violation in the service's words. `value` comes quoted, or is `null`.
pub fn violation(value: &str, path: &str, constraint: &str) -> String {
    format!("Value {value} at '{path}' failed to satisfy constraint: {constraint}")
}

/// All constraints of a shape, in AWS's order of naming them.
fn constraints(shape: &Shape) -> Vec<String> {
    let bounds = match shape.kind {
        Kind::Integer | Kind::Double => ["value", "value"],
        _ => ["length", "length"],
    };
    let number = |bound: f64| match shape.kind {
        Kind::Double => format!("{bound:?}"),
        _ => format!("{bound}"),
    };
    let mut all = Vec::new();
    if let Some(max) = shape.max {
        all.push(format!("Member must have {} less than or equal to {}", bounds[0], number(max)));
    }
    if let Some(min) = shape.min {
        all.push(format!("Member must have {} greater than or equal to {}", bounds[1], number(min)));
    }
    if let Some(pattern) = shape.pattern {
        all.push(format!("Member must satisfy regular expression pattern: {pattern}"));
    }
    if !shape.values.is_empty() {
        all.push(format!("Member must satisfy enum value set: [{}]", shape.values.join(", ")));
    }
    all
}

/// The constraints a value breaks. A value of the wrong JSON type breaks none: the decoder refuses it.
fn broken(shape: &Shape, value: &Value) -> Vec<String> {
    let size = match (&shape.kind, value) {
        (Kind::Integer | Kind::Double, Value::Number(number)) => number.as_f64(),
        (Kind::String, Value::String(text)) if shape.min.is_some() || shape.max.is_some() => {
            Some(text.chars().count() as f64)
        }
        (Kind::List(_), Value::Array(items)) => Some(items.len() as f64),
        (Kind::Map { .. }, Value::Object(map)) => Some(map.len() as f64),
        _ => None,
    };
    let too_large = size.is_some_and(|size| shape.max.is_some_and(|max| size > max));
    let too_small = size.is_some_and(|size| shape.min.is_some_and(|min| size < min));
    let text = value.as_str();
    let other_form = text.is_some_and(|text| shape.pattern.is_some_and(|pattern| !matches(pattern, text)));
    let other_value = text.is_some_and(|text| !shape.values.is_empty() && !shape.values.contains(&text));
    if !(too_large || too_small || other_form || other_value) {
        // By far the most values: no word is made.
        return Vec::new();
    }
    constraints(shape)
        .into_iter()
        .filter(|constraint| {
            if constraint.contains("less than or equal to") {
                too_large
            } else if constraint.contains("greater than or equal to") {
                too_small
            } else if constraint.contains("regular expression") {
                other_form
            } else {
                other_value
            }
        })
        .collect()
}

/// Whether the whole text matches a pattern of the model. Patterns are compiled once.
fn matches(pattern: &'static str, text: &str) -> bool {
    static COMPILED: LazyLock<Mutex<HashMap<&'static str, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let regex = compiled
        .entry(pattern)
        .or_insert_with(|| Regex::new(&format!(r"\A(?:{})\z", rust_syntax(pattern))).ok());
    // A pattern this engine cannot read, or that it gives up on, refuses: open doors are worse than shut ones.
    regex.as_ref().is_some_and(|regex| regex.is_match(text).unwrap_or(false))
}

/// A pattern of the model, which is written for Java, in the syntax and meaning of this engine: a plain hyphen
/// between a range and a letter, `\w` and `\d` of ASCII alone, and characters beyond `\uFFFF`.
fn rust_syntax(pattern: &str) -> String {
    pattern
        .replace("0-9-_", "0-9\\-_")
        .replace("a-z-_", "a-z\\-_")
        .replace("A-Z-_", "A-Z\\-_")
        .replace("\\w", "[a-zA-Z0-9_]")
        .replace("\\d", "[0-9]")
        .replace("\\u10000-\\u10FFFF", "\\u{10000}-\\u{10FFFF}")
}

fn quoted(shape: &Shape, value: &Value) -> String {
    if shape.sensitive { "'***'".into() } else { format!("'{}'", java_text(value)) }
}

/// A value as Java prints it: `[a, b]` and `{a=b}`.
fn java_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(java_text).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(name, value)| format!("{name}={}", java_text(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

fn join(path: &str, member: &str) -> String {
    let mut letters = member.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase()).into_iter();
    let camel: String = first.chain(letters).collect();
    if path.is_empty() { camel } else { format!("{path}.{camel}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lambda::SERVICE;

    fn message(operation: &str, input: &str) -> String {
        let Value::Object(map) = serde_json::from_str(input).unwrap() else { panic!("not an object") };
        let shape = SERVICE.operation(operation).unwrap().input.unwrap();
        validate(&SERVICE, shape, &map).err().map(|fault| fault.message).unwrap_or_default()
    }

    #[test]
    fn recorded_texts() {
        let cases = [
            (
                "PutProvisionedConcurrencyConfig",
                r#"{"FunctionName":"f","Qualifier":"1","ProvisionedConcurrentExecutions":0}"#,
                "1 validation error detected: Value '0' at 'provisionedConcurrentExecutions' failed to satisfy constraint: Member must have value greater than or equal to 1",
            ),
            (
                "UntagResource",
                r#"{"Resource":"arn:aws:lambda:us-east-1:000000000000:function:f"}"#,
                "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null",
            ),
            (
                "PutFunctionRecursionConfig",
                r#"{"FunctionName":"f","RecursiveLoop":"InvalidValue"}"#,
                "1 validation error detected: Value 'InvalidValue' at 'recursiveLoop' failed to satisfy constraint: Member must satisfy enum value set: [Allow, Terminate]",
            ),
            (
                "PublishVersion",
                r#"{"FunctionName":"f","PublishTo":"x"}"#,
                "1 validation error detected: Value 'x' at 'publishTo' failed to satisfy constraint: Member must satisfy enum value set: [LATEST_PUBLISHED]",
            ),
            (
                "CreateAlias",
                r#"{"FunctionName":"f","Name":"2024","FunctionVersion":"1"}"#,
                "1 validation error detected: Value '2024' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)",
            ),
            (
                "Invoke",
                r#"{"FunctionName":"f","Qualifier":"invalid-qualifier-with-?-char"}"#,
                r"1 validation error detected: Value 'invalid-qualifier-with-?-char' at 'qualifier' failed to satisfy constraint: Member must satisfy regular expression pattern: \$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+",
            ),
        ];
        for (operation, input, expected) in cases {
            assert_eq!(message(operation, input), expected);
        }
    }

    #[test]
    fn lists_and_maps_of_plain_values_report_at_the_list() {
        let text = message(
            "CreateFunction",
            r#"{"FunctionName":"f","Role":"arn:aws:iam::000000000000:role/r","Code":{},"Architectures":["X86_64"]}"#,
        );
        assert_eq!(
            text,
            "1 validation error detected: Value '[X86_64]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"
        );
        let text = message(
            "CreateAlias",
            r#"{"FunctionName":"f","Name":"a","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"2":2.0}}}"#,
        );
        assert_eq!(
            text,
            "1 validation error detected: Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]"
        );
    }

    #[test]
    fn nested_members_and_several_violations_are_all_named() {
        let text = message(
            "CreateFunction",
            r#"{"FunctionName":"f","Code":{},"CapacityProviderConfig":{"LambdaManagedInstancesCapacityProviderConfig":{}}}"#,
        );
        assert!(text.starts_with("2 validation errors detected: "), "{text}");
        assert!(text.contains("Value null at 'role'"), "{text}");
        assert!(
            text.contains(
                "at 'capacityProviderConfig.lambdaManagedInstancesCapacityProviderConfig.capacityProviderArn'"
            ),
            "{text}"
        );
    }

    #[test]
    fn patterns_mean_what_java_means() {
        assert!(matches(r"[\w+=,.@-]+", "role_name-1@x"));
        assert!(!matches(r"[\w+=,.@-]+", "é"), "ASCII letters alone");
        assert!(!matches(r"[\d]*", "٣"), "ASCII digits alone");
        let document = r"[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+";
        assert!(matches(document, "a😀\t") && !matches(document, "\u{1}"));
    }

    #[test]
    fn every_pattern_of_the_model_compiles() {
        let services = [&SERVICE, &crate::iam::SERVICE, &crate::scheduler::SERVICE, &crate::sts::SERVICE];
        for shape in services.iter().flat_map(|service| service.shapes) {
            if let Some(pattern) = shape.pattern {
                assert!(
                    !pattern.contains(r"\\"),
                    "{pattern}: rust_syntax would read an escaped backslash wrongly"
                );
                let regex = Regex::new(&format!("^(?:{})$", rust_syntax(pattern)));
                assert!(regex.is_ok(), "{}: {pattern}: {regex:?}", shape.name);
            }
        }
    }
}
