//! Whose permission each operation needs: its action, the resource it is for, and what the policies may ask about.

use ondol_core::identity::Home;
use ondol_core::schedule::{DEFAULT_GROUP, ScheduleGroup};
use ondol_store::keys;
use ondol_wire::fault::Fault;
use serde_json::{Map, Value};

use super::{PRINCIPAL, invalid};
use crate::context::Context;

/// The kind of resource an operation is for, told by its input. Source: AWS's table of Scheduler's actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// No resource of its own: policies name it `*`.
    Everything,
    Schedule,
    Group,
    /// The group in `ResourceArn`.
    Arn,
}

/// Refuses what the caller may not do.
pub fn authorize(
    context: &Context,
    operation: &str,
    on: On,
    input: &Map<String, Value>,
) -> Result<(), Fault> {
    let Some(asked) = &context.asked else {
        return Err(Fault::new("AccessDeniedException", 403, "Nobody is known to ask."));
    };
    let resource = resource(&context.home, on, input);
    let mut conditions = asked.context();
    if let Some(name) = resource.split_once(":schedule-group/").map(|(_, name)| name) {
        let group: Option<(ScheduleGroup, _)> = context.document(&keys::schedule_group(name))?;
        for (key, value) in group.into_iter().flat_map(|(group, _)| group.tags) {
            conditions.add(format!("aws:ResourceTag/{key}"), value);
        }
    }
    let list = |name: &str| input.get(name).and_then(Value::as_array).into_iter().flatten();
    for tag in list("Tags") {
        let text = |name: &str| tag.get(name).and_then(Value::as_str).unwrap_or_default();
        conditions.add(format!("aws:RequestTag/{}", text("Key")), text("Value"));
        conditions.add("aws:TagKeys", text("Key"));
    }
    list("TagKeys").filter_map(Value::as_str).for_each(|key| conditions.add("aws:TagKeys", key));
    let allow = |action: &str, resource: &str| {
        let session_policy = asked.session_policy.as_deref();
        let authorizer = context.gatekeeper.authorizer();
        authorizer.authorize(&asked.caller, session_policy, action, resource, &conditions, None)
    };
    allow(&format!("scheduler:{operation}"), &resource)?;
    match operation {
        "CreateScheduleGroup" if list("Tags").next().is_some() => allow("scheduler:TagResource", &resource),
        "DeleteScheduleGroup" => {
            let name = input.get("Name").and_then(Value::as_str).unwrap_or_default();
            allow("scheduler:DeleteSchedule", &context.home.schedule_arn(name, "*"))
        }
        _ => Ok(()),
    }
}

fn resource(home: &Home, on: On, input: &Map<String, Value>) -> String {
    let text = |name: &str| input.get(name).and_then(Value::as_str);
    let name = text("Name").unwrap_or_default();
    match on {
        On::Everything => "*".into(),
        On::Schedule => home.schedule_arn(text("GroupName").unwrap_or(DEFAULT_GROUP), name),
        On::Group => home.schedule_group_arn(name),
        On::Arn => text("ResourceArn").unwrap_or_default().to_owned(),
    }
}

/// The caller must be allowed to hand the role on, and the role must let the service assume it.
pub fn check_pass(context: &Context, role_arn: &str, group: &str) -> Result<(), Fault> {
    let Some(asked) = &context.asked else { return Ok(()) };
    let authorizer = context.gatekeeper.authorizer();
    let session_policy = asked.session_policy.as_deref();
    authorizer.may_pass_role(&asked.caller, session_policy, role_arn, PRINCIPAL, &asked.context())?;
    // AWS asks on behalf of the group, as the schedule isn't there yet. Source: AWS's page on the confused deputy.
    let source = context.home.schedule_group_arn(group);
    match authorizer.role_exists_and_trusts(role_arn, PRINCIPAL, Some(&source)) {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid(
            "The execution role you provide must allow AWS EventBridge Scheduler to assume the role.",
        )),
    }
}
