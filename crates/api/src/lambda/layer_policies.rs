//! Who else may use a layer version: its resource policy.

use ondol_core::attached::{Statement, policy_document};
use ondol_core::layer::LayerVersion;
use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    AddLayerVersionPermissionRequest, AddLayerVersionPermissionResponse, GetLayerVersionPolicyRequest,
    GetLayerVersionPolicyResponse, RemoveLayerVersionPermissionRequest,
};
use serde_json::{Map, Value, json};

use super::{layers, policies};
use crate::context::{Context, uuid};
use crate::faults::{fault, invalid};

fn find(
    context: &Context,
    name: Option<&str>,
    number: Option<i64>,
) -> Result<(LayerVersion, Revision), Fault> {
    let name = layers::name_of(context, name)?;
    let number = layers::number_of(number)?;
    context.document(&keys::layer_version(&name, number))?.ok_or_else(|| {
        let arn = context.home.layer_version_arn(&name, number);
        fault("ResourceNotFoundException", format!("Layer version {arn} does not exist."))
    })
}

fn replace(version: &LayerVersion, revision: Revision) -> Transaction {
    let key = keys::layer_version(&version.name, version.version);
    Transaction::default().when(Precondition::Unchanged(key.clone(), revision)).put(key, version)
}

fn check_revision(version: &LayerVersion, revision_id: Option<&str>) -> Result<(), Fault> {
    if revision_id.is_some_and(|given| given != version.policy_revision_id) {
        let text = "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the latest Revision Id";
        return Err(fault("PreconditionFailedException", text));
    }
    Ok(())
}

pub async fn add(
    context: &Context,
    input: AddLayerVersionPermissionRequest,
) -> Result<AddLayerVersionPermissionResponse, Fault> {
    context
        .change_of(input.layer_name.as_deref().unwrap_or_default(), || {
            let (mut version, revision) = find(context, input.layer_name.as_deref(), input.version_number)?;
            // That the id is taken is said first.
            policies::must_be_new(&version.policy, input.statement_id.as_deref().unwrap_or_default())?;
            check_revision(&version, input.revision_id.as_deref())?;
            let arn = context.home.layer_version_arn(&version.name, version.version);
            let statement = statement(&input, &arn)?;
            policies::append(&mut version.policy, statement.clone())?;
            version.policy_revision_id = uuid();
            let shown = AddLayerVersionPermissionResponse {
                statement: Some(statement.json.to_string()),
                revision_id: Some(version.policy_revision_id.clone()),
            };
            Ok((replace(&version, revision), shown))
        })
        .await
}

fn statement(input: &AddLayerVersionPermissionRequest, arn: &str) -> Result<Statement, Fault> {
    let sid = input.statement_id.clone().unwrap_or_default();
    let given = input.principal.as_deref().unwrap_or_default();
    let principal = policies::principal(given).ok_or_else(policies::bad_principal)?;
    if input.organization_id.is_some() && given != "*" {
        return Err(invalid("OrganizationId can only be specified when the principal is *."));
    }
    let mut json = Map::new();
    json.insert("Sid".into(), sid.clone().into());
    json.insert("Effect".into(), "Allow".into());
    json.insert("Principal".into(), principal);
    json.insert("Action".into(), input.action.clone().unwrap_or_default().into());
    json.insert("Resource".into(), arn.into());
    if let Some(organization) = &input.organization_id {
        json.insert("Condition".into(), json!({"StringEquals": {"aws:PrincipalOrgID": organization}}));
    }
    Ok(Statement { sid, json: Value::Object(json) })
}

pub async fn get(
    context: &Context,
    input: GetLayerVersionPolicyRequest,
) -> Result<GetLayerVersionPolicyResponse, Fault> {
    let (version, _) = find(context, input.layer_name.as_deref(), input.version_number)?;
    if version.policy.is_empty() {
        return Err(policies::no_policy());
    }
    Ok(GetLayerVersionPolicyResponse {
        policy: Some(policy_document(&version.policy)),
        revision_id: Some(version.policy_revision_id),
    })
}

pub async fn remove(context: &Context, input: RemoveLayerVersionPermissionRequest) -> Result<(), Fault> {
    let sid = input.statement_id.clone().unwrap_or_default();
    context
        .change_of(input.layer_name.as_deref().unwrap_or_default(), || {
            let (mut version, revision) = find(context, input.layer_name.as_deref(), input.version_number)?;
            if version.policy.is_empty() {
                return Err(policies::no_policy());
            }
            check_revision(&version, input.revision_id.as_deref())?;
            if !version.policy.iter().any(|statement| statement.sid == sid) {
                return Err(policies::no_statement(&sid));
            }
            version.policy.retain(|statement| statement.sid != sid);
            version.policy_revision_id = uuid();
            Ok((replace(&version, revision), ()))
        })
        .await
}
