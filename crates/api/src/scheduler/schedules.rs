//! Schedules.

use ondol_core::schedule::{AfterCompletion, DEFAULT_GROUP, Schedule};
use ondol_observe::clock;
use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::scheduler::types::{
    CreateScheduleInput, CreateScheduleOutput, DeleteScheduleInput, DeleteScheduleOutput, GetScheduleInput,
    GetScheduleOutput, ListSchedulesInput, ListSchedulesOutput, ScheduleSummary, TargetSummary,
    UpdateScheduleInput, UpdateScheduleOutput,
};

use super::page::page;
use super::settings::{as_created, check_times, read, seconds, shown_state, shown_target, shown_window};
use super::{fault, groups, rules};
use crate::context::Context;

fn named(group: Option<String>, name: Option<String>) -> (String, String) {
    (group.unwrap_or_else(|| DEFAULT_GROUP.into()), name.unwrap_or_default())
}

fn find(context: &Context, group: &str, name: &str) -> Result<(Schedule, Revision), Fault> {
    groups::find(context, group)?;
    context
        .document(&keys::schedule(group, name))?
        .ok_or_else(|| fault("ResourceNotFoundException", format!("Schedule {name} does not exist.")))
}

pub async fn create(context: &Context, input: CreateScheduleInput) -> Result<CreateScheduleOutput, Fault> {
    let (group, name) = named(input.group_name.clone(), input.name.clone());
    let client_token = input.client_token.clone();
    let settings = read(context, input)?;
    let now = context.now_epoch_millis();
    let schedule = Schedule {
        group,
        name,
        settings,
        anchor: clock::calendar(),
        created_epoch_millis: now,
        last_modified_epoch_millis: now,
        client_token,
    };
    rules::check_pass(context, &schedule.settings.target.role_arn, &schedule.group)?;
    let key = keys::schedule(&schedule.group, &schedule.name);
    let schedule_arn = Some(schedule.arn(&context.home));
    context
        .change(|| {
            groups::find(context, &schedule.group)?;
            if let Some((there, _)) = context.document::<Schedule>(&key)? {
                // The same request again: its first answer was lost.
                let is_repeated = there.client_token.is_some()
                    && there.client_token == schedule.client_token
                    && there.settings == schedule.settings;
                return match is_repeated {
                    true => Ok((Transaction::default(), ())),
                    false => {
                        Err(fault("ConflictException", format!("Schedule {} already exists.", schedule.name)))
                    }
                };
            }
            check_times(&schedule.settings, None)?;
            let quota = context.quotas.schedules as usize;
            if context.store.scan(keys::SCHEDULES, None, quota).len() >= quota {
                let text = format!(
                    "There are {quota} schedules already, which is the quota `schedules` of this account."
                );
                return Err(fault("ServiceQuotaExceededException", text));
            }
            Ok((
                Transaction::default().when(Precondition::Absent(key.clone())).put(key.clone(), &schedule),
                (),
            ))
        })
        .await?;
    Ok(CreateScheduleOutput { schedule_arn })
}

pub async fn update(context: &Context, input: UpdateScheduleInput) -> Result<UpdateScheduleOutput, Fault> {
    let input = as_created(input);
    let (group, name) = named(input.group_name.clone(), input.name.clone());
    find(context, &group, &name)?;
    let settings = read(context, input)?;
    rules::check_pass(context, &settings.target.role_arn, &group)?;
    let key = keys::schedule(&group, &name);
    context
        .change_of(&key, || {
            let (mut schedule, revision) = find(context, &group, &name)?;
            check_times(&settings, Some(&schedule.settings))?;
            // A rate that stays the same goes on as it went.
            if schedule.settings.expression != settings.expression {
                schedule.anchor = clock::calendar();
            }
            schedule.settings = settings.clone();
            schedule.last_modified_epoch_millis = context.now_epoch_millis();
            let unchanged = Precondition::Unchanged(key.clone(), revision);
            Ok((Transaction::default().when(unchanged).put(key.clone(), &schedule), ()))
        })
        .await?;
    Ok(UpdateScheduleOutput { schedule_arn: Some(context.home.schedule_arn(&group, &name)) })
}

pub async fn get(context: &Context, input: GetScheduleInput) -> Result<GetScheduleOutput, Fault> {
    let (group, name) = named(input.group_name, input.name);
    let (schedule, _) = find(context, &group, &name)?;
    let settings = &schedule.settings;
    Ok(GetScheduleOutput {
        arn: Some(schedule.arn(&context.home)),
        schedule_expression: Some(settings.expression.clone()),
        schedule_expression_timezone: Some(settings.timezone.clone()),
        start_date: settings.start_epoch_millis.map(seconds),
        end_date: settings.end_epoch_millis.map(seconds),
        description: settings.description.clone(),
        state: shown_state(settings),
        creation_date: Some(seconds(schedule.created_epoch_millis)),
        last_modification_date: Some(seconds(schedule.last_modified_epoch_millis)),
        kms_key_arn: None,
        target: Some(shown_target(settings)),
        flexible_time_window: Some(shown_window(settings)),
        action_after_completion: Some(
            match settings.after_completion {
                AfterCompletion::Keep => "NONE",
                AfterCompletion::Delete => "DELETE",
            }
            .into(),
        ),
        group_name: Some(schedule.group),
        name: Some(schedule.name),
    })
}

pub async fn delete(context: &Context, input: DeleteScheduleInput) -> Result<DeleteScheduleOutput, Fault> {
    let (group, name) = named(input.group_name, input.name);
    let key = keys::schedule(&group, &name);
    context
        .change_of(&key, || {
            let (_, revision) = find(context, &group, &name)?;
            let unchanged = Precondition::Unchanged(key.clone(), revision);
            let run = keys::schedule_run(&group, &name);
            Ok((Transaction::default().when(unchanged).delete(key.clone()).delete(run), ()))
        })
        .await?;
    Ok(DeleteScheduleOutput {})
}

pub async fn list(context: &Context, input: ListSchedulesInput) -> Result<ListSchedulesOutput, Fault> {
    let prefix = match &input.group_name {
        Some(group) => {
            groups::find(context, group)?;
            keys::schedules_of(group)
        }
        None => keys::SCHEDULES.into(),
    };
    let all: Vec<Schedule> = context.all(&prefix)?;
    let wanted = |schedule: &&Schedule| {
        input.name_prefix.as_ref().is_none_or(|prefix| schedule.name.starts_with(prefix.as_str()))
            && (input.state.is_none() || input.state == shown_state(&schedule.settings))
    };
    let found = all
        .iter()
        .filter(wanted)
        .map(|schedule| (keys::schedule(&schedule.group, &schedule.name), summary(context, schedule)));
    let (schedules, next_token) = page(found.collect(), input.next_token.as_deref(), input.max_results);
    Ok(ListSchedulesOutput { next_token, schedules: Some(schedules) })
}

fn summary(context: &Context, schedule: &Schedule) -> ScheduleSummary {
    ScheduleSummary {
        arn: Some(schedule.arn(&context.home)),
        name: Some(schedule.name.clone()),
        group_name: Some(schedule.group.clone()),
        state: shown_state(&schedule.settings),
        creation_date: Some(seconds(schedule.created_epoch_millis)),
        last_modification_date: Some(seconds(schedule.last_modified_epoch_millis)),
        target: Some(TargetSummary { arn: Some(schedule.settings.target.arn.clone()) }),
    }
}
