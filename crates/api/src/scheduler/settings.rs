//! What a user says of a schedule, checked whole before anything is kept, and shown again.

use ondol_core::schedule::{AfterCompletion, Settings, time_zone};
use ondol_observe::clock;
use ondol_wire::fault::Fault;
use ondol_wire::scheduler::types::{
    CreateScheduleInput, FlexibleTimeWindow, RetryPolicy, Target, UpdateScheduleInput,
};

use super::{invalid, target};
use crate::context::Context;

const UTC: &str = "UTC";
/// How far back a start may be. Source: AWS's API reference.
const START_SECONDS_AGO_MAX: u64 = 300;

/// An update gives all settings anew, as a creation does.
pub fn as_created(input: UpdateScheduleInput) -> CreateScheduleInput {
    CreateScheduleInput {
        name: input.name,
        group_name: input.group_name,
        schedule_expression: input.schedule_expression,
        start_date: input.start_date,
        end_date: input.end_date,
        description: input.description,
        schedule_expression_timezone: input.schedule_expression_timezone,
        state: input.state,
        kms_key_arn: input.kms_key_arn,
        target: input.target,
        flexible_time_window: input.flexible_time_window,
        client_token: input.client_token,
        action_after_completion: input.action_after_completion,
    }
}

pub fn read(context: &Context, input: CreateScheduleInput) -> Result<Settings, Fault> {
    if input.kms_key_arn.is_some() {
        return Err(invalid("KmsKeyArn isn't supported by this version of Ondol. Leave it out."));
    }
    #[allow(clippy::cast_possible_truncation)]
    let millis = |seconds: Option<f64>| seconds.map(|seconds| (seconds * 1_000.0).round() as i64);
    let settings = Settings {
        description: input.description,
        expression: input.schedule_expression.unwrap_or_default(),
        timezone: input.schedule_expression_timezone.unwrap_or_else(|| UTC.into()),
        start_epoch_millis: millis(input.start_date),
        end_epoch_millis: millis(input.end_date),
        enabled: input.state.as_deref() != Some("DISABLED"),
        window_minutes: window(&input.flexible_time_window.unwrap_or_default())?,
        after_completion: match input.action_after_completion.as_deref() {
            Some("DELETE") => AfterCompletion::Delete,
            _ => AfterCompletion::Keep,
        },
        target: target::read(context, input.target.unwrap_or_default())?,
    };
    if time_zone(&settings.timezone).is_none() {
        return Err(invalid(format!(
            "Invalid ScheduleExpressionTimezone {}. It must be a name of the IANA time zone database, such as Asia/Seoul.",
            settings.timezone
        )));
    }
    Ok(settings)
}

fn window(asked: &FlexibleTimeWindow) -> Result<Option<u32>, Fault> {
    match (asked.mode.as_deref(), asked.maximum_window_in_minutes) {
        (Some("FLEXIBLE"), None) => {
            Err(invalid("FlexibleTimeWindow.MaximumWindowInMinutes is required when its Mode is FLEXIBLE."))
        }
        (Some("FLEXIBLE"), Some(minutes)) => Ok(u32::try_from(minutes).ok()),
        (_, Some(_)) => {
            Err(invalid("FlexibleTimeWindow.MaximumWindowInMinutes has no meaning when its Mode is OFF."))
        }
        (_, None) => Ok(None),
    }
}

/// Checks when it is to be. What an update leaves as it was may be over by now.
pub fn check_times(settings: &Settings, before: Option<&Settings>) -> Result<(), Fault> {
    let now = clock::calendar();
    let wrong = |why: &str| invalid(format!("Invalid Schedule Expression {}. {why}", settings.expression));
    let timetable = settings.timetable(now, 0).map_err(|why| wrong(&why))?;
    // The dates of a one-time schedule are kept and don't count. Source: AWS's API reference.
    if timetable.expression.is_one_time() {
        return Ok(());
    }
    if timetable.start.zip(timetable.end).is_some_and(|(start, end)| start >= end) {
        return Err(invalid("The StartDate must be before the EndDate."));
    }
    let changed = |part: &dyn Fn(&Settings) -> Option<i64>| before.and_then(part) != part(settings);
    let start = timetable.start.filter(|_| changed(&|settings| settings.start_epoch_millis));
    if start.is_some_and(|start| start.plus_seconds(START_SECONDS_AGO_MAX) < now) {
        return Err(invalid("The StartDate you specify cannot be earlier than 5 minutes ago."));
    }
    let end = timetable.end.filter(|_| changed(&|settings| settings.end_epoch_millis));
    if end.is_some_and(|end| end <= now) {
        return Err(invalid("The EndDate must be in the future."));
    }
    let is_new = before.is_none_or(|before| before.expression != settings.expression);
    if (is_new || start.is_some() || end.is_some()) && timetable.next_after(now).is_none() {
        return Err(wrong("No time that it names is still to come."));
    }
    Ok(())
}

pub fn shown_target(settings: &Settings) -> Target {
    let number = |value: u32| i32::try_from(value).ok();
    let target = &settings.target;
    Target {
        arn: Some(target.arn.clone()),
        role_arn: Some(target.role_arn.clone()),
        input: Some(target.input.clone()),
        retry_policy: Some(RetryPolicy {
            maximum_event_age_in_seconds: number(target.age_seconds_max),
            maximum_retry_attempts: number(target.retries_max),
        }),
        ..Target::default()
    }
}

pub fn shown_window(settings: &Settings) -> FlexibleTimeWindow {
    FlexibleTimeWindow {
        mode: Some(if settings.window_minutes.is_some() { "FLEXIBLE" } else { "OFF" }.into()),
        maximum_window_in_minutes: settings.window_minutes.and_then(|minutes| i32::try_from(minutes).ok()),
    }
}

pub fn shown_state(settings: &Settings) -> Option<String> {
    Some(if settings.enabled { "ENABLED" } else { "DISABLED" }.into())
}

/// Seconds since the epoch, as wire types carry times.
#[allow(clippy::cast_precision_loss)]
pub fn seconds(epoch_millis: i64) -> f64 {
    epoch_millis as f64 / 1_000.0
}
