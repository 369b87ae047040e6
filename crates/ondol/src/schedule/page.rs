//! The page of schedules: what each is to do, when it is due next, and how it went last.

use ondol_core::schedule::{Due, Run, Schedule};
use ondol_core::time::PolicyTime;
use ondol_observe::clock;
use ondol_store::{Store, StoreError, keys};
use ondol_wire::time::{iso_8601, iso_8601_millis};
use serde_json::{Value, json};

/// All schedules, or the one of a group and name.
pub fn page(store: &Store, only: Option<(&str, &str)>) -> Result<Value, StoreError> {
    let schedules: Vec<Schedule> = match only {
        Some((group, name)) => {
            store.document(&keys::schedule(group, name))?.map(|(schedule, _)| schedule).into_iter().collect()
        }
        None => store.all(keys::SCHEDULES)?,
    };
    let shown = schedules.iter().map(|schedule| {
        let run = store.document::<Run>(&keys::schedule_run(&schedule.group, &schedule.name))?;
        Ok(one(schedule, run.map(|(run, _)| run).unwrap_or_default()))
    });
    Ok(json!({"schedules": shown.collect::<Result<Vec<_>, StoreError>>()?}))
}

fn one(schedule: &Schedule, run: Run) -> Value {
    let settings = &schedule.settings;
    let input: Value = serde_json::from_str(&settings.target.input).unwrap_or_default();
    let scaling = &input["FunctionScalingConfig"];
    let next = next(schedule, run.fired);
    let last = run.outcome.as_ref().filter(|outcome| outcome.trouble.is_some());
    json!({
        "group": schedule.group,
        "name": schedule.name,
        "expression": settings.expression,
        "timezone": settings.timezone,
        "state": if settings.enabled { "ENABLED" } else { "DISABLED" },
        "function": input["FunctionName"],
        "qualifier": input["Qualifier"],
        "minExecutionEnvironments": scaling["MinExecutionEnvironments"],
        "maxExecutionEnvironments": scaling["MaxExecutionEnvironments"],
        "roleArn": settings.target.role_arn,
        "next": next.map(|due| time(due.at)),
        "isRetried": next.zip(last).is_some_and(|(due, outcome)| due.occurrence == outcome.occurrence),
        "last": run.outcome.map(|outcome| json!({
            "scheduledTime": time(outcome.occurrence),
            "endedAt": iso_8601_millis(outcome.ended_epoch_millis),
            "attempts": outcome.attempts,
            "succeeded": outcome.trouble.is_none(),
            "error": outcome.trouble,
        })),
    })
}

fn next(schedule: &Schedule, fired: Option<PolicyTime>) -> Option<Due> {
    let timetable = schedule.timetable().ok().filter(|_| schedule.settings.enabled)?;
    let age = schedule.settings.target.age_seconds_max.into();
    timetable.due(fired, clock::calendar(), age)
}

fn time(at: PolicyTime) -> String {
    iso_8601(i64::try_from(at.0 / 1_000_000).unwrap_or_default())
}
