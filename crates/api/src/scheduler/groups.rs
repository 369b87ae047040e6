//! Groups of schedules. The default one is there without being kept, until it has tags.

use std::collections::BTreeMap;

use ondol_core::schedule::{DEFAULT_GROUP, Schedule, ScheduleGroup};
use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::scheduler::types::{
    CreateScheduleGroupInput, CreateScheduleGroupOutput, DeleteScheduleGroupInput, DeleteScheduleGroupOutput,
    GetScheduleGroupInput, GetScheduleGroupOutput, ListScheduleGroupsInput, ListScheduleGroupsOutput,
    ScheduleGroupSummary,
};

use super::page::page;
use super::settings::seconds;
use super::{fault, invalid, tags};
use crate::context::Context;

const ACTIVE: &str = "ACTIVE";

/// A group, and its revision if it is kept.
pub fn find(context: &Context, name: &str) -> Result<(ScheduleGroup, Option<Revision>), Fault> {
    match context.document(&keys::schedule_group(name))? {
        Some((group, revision)) => Ok((group, Some(revision))),
        None if name == DEFAULT_GROUP => Ok((default_group(), None)),
        None => Err(fault("ResourceNotFoundException", format!("Schedule group {name} does not exist."))),
    }
}

fn default_group() -> ScheduleGroup {
    ScheduleGroup {
        name: DEFAULT_GROUP.into(),
        tags: BTreeMap::new(),
        created_epoch_millis: 0,
        last_modified_epoch_millis: 0,
        client_token: None,
    }
}

/// Puts a group in the place of what `find` gave.
pub fn replace(group: &ScheduleGroup, revision: Option<Revision>) -> Transaction {
    let key = keys::schedule_group(&group.name);
    let condition = match revision {
        Some(revision) => Precondition::Unchanged(key.clone(), revision),
        None => Precondition::Absent(key.clone()),
    };
    Transaction::default().when(condition).put(key, group)
}

pub async fn create(
    context: &Context,
    input: CreateScheduleGroupInput,
) -> Result<CreateScheduleGroupOutput, Fault> {
    let name = input.name.unwrap_or_default();
    let tags = tags::read(input.tags.unwrap_or_default())?;
    tags::check_count(&tags)?;
    let now = context.now_epoch_millis();
    let group = ScheduleGroup {
        name: name.clone(),
        tags,
        created_epoch_millis: now,
        last_modified_epoch_millis: now,
        client_token: input.client_token,
    };
    context
        .change(|| {
            if let Ok((there, _)) = find(context, &name) {
                let is_repeated = there.client_token.is_some()
                    && there.client_token == group.client_token
                    && there.tags == group.tags;
                return match is_repeated {
                    true => Ok((Transaction::default(), ())),
                    false => Err(fault("ConflictException", format!("Schedule group {name} already exists."))),
                };
            }
            let quota = context.quotas.schedule_groups as usize;
            if context.store.scan(keys::SCHEDULE_GROUPS, None, quota).len() >= quota {
                let text = format!("There are {quota} schedule groups already, which is the quota `schedule-groups` of this account.");
                return Err(fault("ServiceQuotaExceededException", text));
            }
            Ok((replace(&group, None), ()))
        })
        .await?;
    Ok(CreateScheduleGroupOutput { schedule_group_arn: Some(context.home.schedule_group_arn(&name)) })
}

pub async fn get(context: &Context, input: GetScheduleGroupInput) -> Result<GetScheduleGroupOutput, Fault> {
    let (group, _) = find(context, &input.name.unwrap_or_default())?;
    let ScheduleGroupSummary { arn, name, state, creation_date, last_modification_date } =
        summary(context, group);
    Ok(GetScheduleGroupOutput { arn, name, state, creation_date, last_modification_date })
}

/// All its schedules go with it, at once.
pub async fn delete(
    context: &Context,
    input: DeleteScheduleGroupInput,
) -> Result<DeleteScheduleGroupOutput, Fault> {
    let name = input.name.unwrap_or_default();
    if name == DEFAULT_GROUP {
        return Err(invalid("The schedule group default can't be deleted."));
    }
    context
        .change(|| {
            let (_, revision) = find(context, &name)?;
            let key = keys::schedule_group(&name);
            let unchanged = revision.map(|revision| Precondition::Unchanged(key.clone(), revision));
            let mut transaction = Transaction::default().delete(key);
            transaction.preconditions.extend(unchanged);
            let schedules: Vec<Schedule> = context.all(&keys::schedules_of(&name))?;
            for Schedule { group, name, .. } in schedules {
                transaction.deletes.push(keys::schedule(&group, &name));
                transaction.deletes.push(keys::schedule_run(&group, &name));
            }
            Ok((transaction, ()))
        })
        .await?;
    Ok(DeleteScheduleGroupOutput {})
}

pub async fn list(
    context: &Context,
    input: ListScheduleGroupsInput,
) -> Result<ListScheduleGroupsOutput, Fault> {
    let mut all: Vec<ScheduleGroup> = context.all(keys::SCHEDULE_GROUPS)?;
    if all.iter().all(|group| group.name != DEFAULT_GROUP) {
        all.push(default_group());
    }
    let prefix = input.name_prefix.as_deref().unwrap_or_default();
    let found = all.into_iter().filter(|group| group.name.starts_with(prefix));
    let found = found.map(|group| (group.name.clone(), summary(context, group))).collect();
    let (schedule_groups, next_token) = page(found, input.next_token.as_deref(), input.max_results);
    Ok(ListScheduleGroupsOutput { next_token, schedule_groups: Some(schedule_groups) })
}

fn summary(context: &Context, group: ScheduleGroup) -> ScheduleGroupSummary {
    // Nobody made the default group.
    let date = |millis: i64| (millis != 0).then(|| seconds(millis));
    ScheduleGroupSummary {
        arn: Some(context.home.schedule_group_arn(&group.name)),
        state: Some(ACTIVE.into()),
        creation_date: date(group.created_epoch_millis),
        last_modification_date: date(group.last_modified_epoch_millis),
        name: Some(group.name),
    }
}
