//! From JSON text to a policy, refusing with AWS's sentences.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::condition::{Condition, Operator};
use super::document::{Effect, MalformedPolicy, Policy, PolicyUse, Selection, Statement, Version};
use super::pattern::{Grammar, Pattern};
use super::principal::{Principal, Principals};

type Read<T> = Result<T, MalformedPolicy>;

fn malformed<T>(message: impl Into<String>) -> Read<T> {
    Err(MalformedPolicy { message: message.into() })
}

/// AWS says no more than its first sentence; the second is ours.
fn syntax<T>(detail: &str) -> Read<T> {
    malformed(format!("Syntax errors in policy. {detail}"))
}

pub(super) fn policy(text: &str, for_use: PolicyUse) -> Read<Policy> {
    let document = match serde_json::from_str(text) {
        Ok(Value::Object(document)) => document,
        Ok(_) => return syntax("A policy is a JSON object."),
        Err(error) if for_use == PolicyUse::Trust => {
            return malformed(format!("This policy contains invalid Json: {error}"));
        }
        Err(error) => return syntax(&format!("It is no JSON: {error}.")),
    };
    if let Some(name) = document.keys().find(|name| !matches!(name.as_str(), "Version" | "Id" | "Statement"))
    {
        return syntax(&format!("A policy has no element {name}."));
    }
    let version = match document.get("Version") {
        None => Version::V2008,
        Some(Value::String(text)) if text == "2008-10-17" => Version::V2008,
        Some(Value::String(text)) if text == "2012-10-17" => Version::V2012,
        Some(other) => {
            return syntax(&format!("The Version is 2012-10-17 or 2008-10-17, not {other}."));
        }
    };
    let id = optional_text(&document, "Id")?;
    let single;
    let list: &[Value] = match document.get("Statement") {
        Some(Value::Array(list)) => list,
        Some(one @ Value::Object(_)) => {
            single = [one.clone()];
            &single
        }
        Some(_) => return syntax("Statement is an object or a list of objects."),
        None => return syntax("There is no Statement."),
    };
    if list.is_empty() {
        return syntax("There is no statement.");
    }
    let drafts: Vec<&Map<String, Value>> = list.iter().map(element_names).collect::<Read<_>>()?;
    if version == Version::V2008 && for_use == PolicyUse::Identity {
        return malformed("Policy document must be version 2012-10-17 or greater.");
    }
    let mut statements = Vec::with_capacity(drafts.len());
    let mut sids = BTreeSet::new();
    for draft in drafts {
        let statement = statement(draft, version, for_use)?;
        if let Some(sid) = statement.sid.as_ref().filter(|sid| !sid.is_empty()) {
            if !sids.insert(sid.clone()) {
                return malformed("Statement IDs (SID) in a single policy must be unique.");
            }
        }
        statements.push(statement);
    }
    Ok(Policy { text: text.to_owned(), version, id, statements })
}

fn element_names(value: &Value) -> Read<&Map<String, Value>> {
    let Value::Object(statement) = value else {
        return syntax("A statement is a JSON object.");
    };
    for name in statement.keys() {
        let known = matches!(
            name.as_str(),
            "Sid"
                | "Effect"
                | "Principal"
                | "NotPrincipal"
                | "Action"
                | "NotAction"
                | "Resource"
                | "NotResource"
                | "Condition"
        );
        if !known {
            return syntax(&format!("A statement has no element {name}."));
        }
    }
    for (one, other) in [("Action", "NotAction"), ("Resource", "NotResource"), ("Principal", "NotPrincipal")]
    {
        if statement.contains_key(one) && statement.contains_key(other) {
            return syntax(&format!("A statement has {one} or {other}, not both."));
        }
    }
    Ok(statement)
}

fn statement(draft: &Map<String, Value>, version: Version, for_use: PolicyUse) -> Read<Statement> {
    let sid = optional_text(draft, "Sid")?;
    // Resource policies of most services take any text here; IAM does not.
    let is_plain = |sid: &str| sid.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if for_use == PolicyUse::Identity && sid.as_deref().is_some_and(|sid| !is_plain(sid)) {
        return malformed(
            "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*",
        );
    }
    let effect = match draft.get("Effect") {
        Some(Value::String(text)) if text == "Allow" => Effect::Allow,
        Some(Value::String(text)) if text == "Deny" => Effect::Deny,
        Some(other) => return syntax(&format!("The Effect is Allow or Deny, not {other}.")),
        None if for_use == PolicyUse::Trust => return malformed("Missing required field Effect"),
        None => return syntax("A statement has no Effect."),
    };
    let variables = version == Version::V2012;
    let Some(actions) = selection(draft, "Action", "NotAction", false)? else {
        return malformed("Policy statement must contain actions.");
    };
    let resources = selection(draft, "Resource", "NotResource", variables)?;
    let principals = principals(draft)?;
    match for_use {
        PolicyUse::Identity if principals.is_some() => {
            return malformed("Policy document should not specify a principal.");
        }
        PolicyUse::Trust if resources.is_some() => {
            let name = if draft.contains_key("Resource") { "Resource" } else { "NotResource" };
            return malformed(format!("Has prohibited field {name}"));
        }
        PolicyUse::Trust | PolicyUse::Resource if principals.is_none() => {
            return malformed("Missing required field Principal");
        }
        PolicyUse::Identity | PolicyUse::Resource if resources.is_none() => {
            return malformed("Policy statement must contain resources.");
        }
        _ => {}
    }
    check_actions(&actions, for_use)?;
    if let Some(resources) = &resources {
        resources.patterns().iter().try_for_each(|resource| check_resource(resource.text()))?;
    }
    let conditions = conditions(draft, variables)?;
    Ok(Statement { sid, effect, principals, actions, resources, conditions })
}

fn optional_text(object: &Map<String, Value>, name: &str) -> Read<Option<String>> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => syntax(&format!("{name} is a text.")),
    }
}

/// A text or a list of texts.
fn texts(name: &str, value: &Value) -> Read<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        _ => syntax(&format!("{name} is a text or a list of texts.")),
    };
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        other => Ok(vec![one(other)?]),
    }
}

fn selection(draft: &Map<String, Value>, is: &str, is_not: &str, variables: bool) -> Read<Option<Selection>> {
    let read = |name: &str| -> Read<Option<Vec<Pattern>>> {
        let Some(value) = draft.get(name) else { return Ok(None) };
        let texts = texts(name, value)?;
        let grammar = Grammar { wildcards: true, variables };
        // An empty list is as good as none.
        Ok((!texts.is_empty()).then(|| texts.iter().map(|text| Pattern::read(text, grammar)).collect()))
    };
    Ok(match read(is)? {
        Some(patterns) => Some(Selection::Is(patterns)),
        None => read(is_not)?.map(Selection::IsNot),
    })
}

impl Selection {
    /// The patterns, whichever way they select.
    pub fn patterns(&self) -> &[Pattern] {
        match self {
            Self::Is(patterns) | Self::IsNot(patterns) => patterns,
        }
    }
}

fn check_actions(actions: &Selection, for_use: PolicyUse) -> Read<()> {
    for action in actions.patterns().iter().map(Pattern::text) {
        if for_use == PolicyUse::Trust && !action.to_ascii_lowercase().starts_with("sts:") {
            return malformed("AssumeRole policy may only specify STS AssumeRole actions.");
        }
        if action == "*" {
            continue;
        }
        let Some((vendor, name)) = action.split_once(':') else {
            return malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.");
        };
        if name.contains(':') {
            return malformed("Actions/Condition can contain only one colon.");
        }
        let is_vendor = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if vendor != "*" && (vendor.is_empty() || !vendor.bytes().all(is_vendor)) {
            return malformed(format!("Vendor {vendor} is not valid"));
        }
    }
    Ok(())
}

fn check_resource(resource: &str) -> Read<()> {
    if resource.bytes().all(|byte| byte == b'*') && !resource.is_empty() {
        return Ok(());
    }
    let Some(rest) = resource.strip_prefix("arn:") else {
        return malformed(format!("Resource {resource} must be in ARN format or \"*\"."));
    };
    let mut parts = rest.split(':');
    let partition = parts.next().unwrap_or_default();
    if !matches!(partition, "aws" | "aws-cn" | "aws-us-gov" | "*") {
        return malformed(format!("Partition \"{partition}\" is not valid for resource \"{resource}\"."));
    }
    check_global(resource)?;
    // A star may stand for all that follows.
    if rest.ends_with('*') || parts.count() >= 4 {
        return Ok(());
    }
    malformed("Resource vendor must be fully qualified and cannot contain regexes.")
}

/// S3 and IAM are in no region.
fn check_global(resource: &str) -> Read<()> {
    let parts: Vec<&str> = resource.splitn(6, ':').collect();
    match parts[..] {
        [_, _, "s3", region, ..] if !matches!(region, "" | "*") => {
            malformed(format!("Resource {resource} can not contain region information."))
        }
        [_, _, "iam", region, ..] if !matches!(region, "" | "*") => {
            malformed(format!("IAM resource {resource} cannot contain region information."))
        }
        _ => Ok(()),
    }
}

fn principals(draft: &Map<String, Value>) -> Read<Option<Principals>> {
    if let Some(value) = draft.get("Principal") {
        return Ok(Some(Principals::Are(principal_list("Principal", value)?)));
    }
    let excepted =
        draft.get("NotPrincipal").map(|value| principal_list("NotPrincipal", value)).transpose()?;
    Ok(excepted.map(Principals::AreNot))
}

fn principal_list(name: &str, value: &Value) -> Read<Vec<Principal>> {
    let object = match value {
        Value::String(text) if text == "*" => return Ok(vec![Principal::Anyone]),
        Value::String(text) => return malformed(format!("Invalid principal in policy: \"{text}\"")),
        Value::Object(object) => object,
        _ => return syntax(&format!("{name} is \"*\" or an object.")),
    };
    let mut list = Vec::new();
    for (kind, value) in object {
        for text in texts(kind, value)? {
            let principal = match kind.as_str() {
                "AWS" => Principal::read_aws(&text),
                "Service" => is_service(&text).then(|| Principal::Service(text.clone())),
                "Federated" => Some(Principal::Federated(text.clone())),
                "CanonicalUser" => Some(Principal::CanonicalUser(text.clone())),
                _ => return syntax(&format!("{name} has no element {kind}.")),
            };
            let Some(principal) = principal else {
                // AWS writes the kind in capitals here.
                let kind = kind.to_ascii_uppercase();
                return malformed(format!("Invalid principal in policy: \"{kind}\":\"{text}\""));
            };
            list.push(principal);
        }
    }
    if list.is_empty() {
        return syntax(&format!("{name} names nobody."));
    }
    Ok(list)
}

fn is_service(name: &str) -> bool {
    let ends = [".amazonaws.com", ".amazonaws.com.cn", ".amazon.com", ".alexa-appkit"];
    let known = ends.iter().any(|end| name.strip_suffix(end).is_some_and(|label| !label.is_empty()));
    known && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

fn conditions(draft: &Map<String, Value>, variables: bool) -> Read<Vec<Condition>> {
    let object = match draft.get("Condition") {
        None => return Ok(Vec::new()),
        Some(Value::Object(object)) => object,
        Some(_) => return syntax("Condition is an object."),
    };
    let mut conditions = Vec::new();
    for (name, keys) in object {
        let Value::Object(keys) = keys else {
            return syntax(&format!("The condition {name} is an object."));
        };
        // AWS takes an unknown operator that says nothing.
        if keys.is_empty() {
            continue;
        }
        let Some(operator) = Operator::read(name) else {
            return syntax(&format!("There is no condition operator {name}."));
        };
        for (key, value) in keys {
            if !key.contains(':') {
                return malformed(
                    "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
                );
            }
            let values = condition_values(value)?;
            let Some(condition) = Condition::read(operator, key, &values, variables) else {
                return syntax(&format!("A value of {key} is not of the kind {name} compares."));
            };
            conditions.push(condition);
        }
    }
    Ok(conditions)
}

/// Numbers and booleans count as their text.
fn condition_values(value: &Value) -> Read<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        _ => syntax("A condition's value is a text, a number, true, false, or a list of these."),
    };
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        other => Ok(vec![one(other)?]),
    }
}
