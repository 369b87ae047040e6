//! The service models that are generated from, and how they come from `botocore`: prose stripped, and of
//! large services only the operations that Ondol knows, so that the files stay small enough to review.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::shell::run;

/// One service model.
pub struct Source {
    /// The name of the file in `models/` and of the module in `crates/wire/src`.
    pub name: &'static str,
    /// The folder in botocore's `data`.
    version: &'static str,
    /// The operations that are kept; `None` keeps all.
    operations: Option<&'static [&'static str]>,
}

pub const SOURCES: [Source; 4] = [
    Source { name: "lambda", version: "2015-03-31", operations: None },
    Source { name: "scheduler", version: "2021-06-30", operations: None },
    Source { name: "iam", version: "2010-05-08", operations: Some(IAM) },
    Source { name: "sts", version: "2011-06-15", operations: Some(STS) },
];

const IAM: &[&str] = &[
    "AttachRolePolicy",
    "CreatePolicy",
    "CreatePolicyVersion",
    "CreateRole",
    "DeletePolicy",
    "DeletePolicyVersion",
    "DeleteRole",
    "DeleteRolePolicy",
    "DetachRolePolicy",
    "GetPolicy",
    "GetPolicyVersion",
    "GetRole",
    "GetRolePolicy",
    "GetUser",
    "ListAccountAliases",
    "ListAttachedRolePolicies",
    "ListEntitiesForPolicy",
    "ListInstanceProfilesForRole",
    "ListPolicies",
    "ListPolicyTags",
    "ListPolicyVersions",
    "ListRolePolicies",
    "ListRoleTags",
    "ListRoles",
    "PutRolePolicy",
    "SetDefaultPolicyVersion",
    "TagPolicy",
    "TagRole",
    "UntagPolicy",
    "UntagRole",
    "UpdateAssumeRolePolicy",
    "UpdateRole",
    "UpdateRoleDescription",
];

const STS: &[&str] = &["AssumeRole", "GetAccessKeyInfo", "GetCallerIdentity", "GetSessionToken"];

impl Source {
    /// The committed model.
    pub fn path(&self, root: &Path) -> PathBuf {
        root.join("models").join(self.name).with_extension("json")
    }
}

/// Downloads botocore in the version of `models/VERSION` and writes every model anew.
pub fn fetch(root: &Path) -> Result<()> {
    let version = std::fs::read_to_string(root.join("models/VERSION"))?;
    let folder = root.join("target/botocore");
    run(Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"])
        .arg(&folder)
        .arg(format!("botocore=={}", version.trim())))?;
    let script = "import gzip,sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())";
    for source in &SOURCES {
        let file = format!("botocore/data/{}/{}/service-2.json.gz", source.name, source.version);
        let output = Command::new("python3").args(["-c", script]).arg(folder.join(&file)).output()?;
        let mut model: Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("reading {file}"))?;
        strip_prose(&mut model);
        if let Some(operations) = source.operations {
            restrict(&mut model, operations)?;
        }
        std::fs::write(source.path(root), serde_json::to_string_pretty(&model)? + "\n")?;
    }
    Ok(())
}

fn strip_prose(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, inner| {
                !(matches!(key.as_str(), "documentation" | "documentationUrl") && inner.is_string())
            });
            map.values_mut().for_each(strip_prose);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_prose),
        _ => {}
    }
}

/// Leaves the operations of a list, and the shapes and errors that they reach.
fn restrict(model: &mut Value, wanted: &[&str]) -> Result<()> {
    let operations = model["operations"].as_object_mut().context("the model has no operations")?;
    for name in wanted {
        operations.get(*name).with_context(|| format!("the model has no operation {name}"))?;
    }
    operations.retain(|name, _| wanted.contains(&name.as_str()));
    let mut todo: Vec<String> = Vec::new();
    for operation in operations.values() {
        let errors = operation["errors"].as_array().into_iter().flatten();
        let sides = ["input", "output"].map(|side| &operation[side]);
        todo.extend(errors.chain(sides).filter_map(|place| place["shape"].as_str()).map(String::from));
    }
    let shapes = model["shapes"].as_object_mut().context("the model has no shapes")?;
    let reached = reach(shapes, todo)?;
    shapes.retain(|name, _| reached.contains(name));
    Ok(())
}

/// The shapes of a list and all that they are made of, in name order.
pub fn reach(shapes: &Map<String, Value>, mut todo: Vec<String>) -> Result<BTreeSet<String>> {
    let mut reached = BTreeSet::new();
    while let Some(name) = todo.pop() {
        let shape = shapes.get(&name).with_context(|| format!("shape {name} is missing"))?;
        if !reached.insert(name) {
            continue;
        }
        let members = shape["members"].as_object().into_iter().flat_map(Map::values);
        let parts = ["member", "key", "value"].iter().filter_map(|part| shape.get(*part));
        for part in members.chain(parts) {
            todo.push(part["shape"].as_str().context("a member without a shape")?.to_owned());
        }
    }
    Ok(reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restricted_model_keeps_what_its_operations_reach() {
        let mut model: Value = serde_json::from_str(
            r#"{"operations":{
                    "Keep":{"input":{"shape":"In"},"errors":[{"shape":"Oops"}]},
                    "Drop":{"input":{"shape":"Other"}}},
                "shapes":{"In":{"type":"structure","members":{"A":{"shape":"S"}}},"S":{"type":"string"},
                    "Oops":{"type":"structure","members":{}},"Other":{"type":"structure","members":{}}}}"#,
        )
        .unwrap();
        restrict(&mut model, &["Keep"]).unwrap();
        let names: Vec<&String> = model["shapes"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["In", "S", "Oops"]);
        assert!(restrict(&mut model, &["Absent"]).unwrap_err().to_string().contains("Absent"));
    }
}
