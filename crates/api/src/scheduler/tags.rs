//! Tags of schedule groups; schedules have none on AWS either.

use std::collections::BTreeMap;

use ondol_core::schedule::ScheduleGroup;
use ondol_wire::fault::Fault;
use ondol_wire::scheduler::types::{
    ListTagsForResourceInput, ListTagsForResourceOutput, Tag, TagResourceInput, TagResourceOutput,
    UntagResourceInput, UntagResourceOutput,
};

use super::{fault, groups, invalid};
use crate::context::Context;

const TAGS_MAX: usize = 50;

type Tags = BTreeMap<String, String>;

/// Each key once, and none of AWS's own.
pub fn read(tags: Vec<Tag>) -> Result<Tags, Fault> {
    let count = tags.len();
    let pairs = tags.into_iter().map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
    let read: Tags = pairs.collect();
    if read.len() < count {
        return Err(invalid("A tag key is given more than once."));
    }
    match read.keys().find(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        Some(key) => Err(invalid(format!("The tag key {key} begins with aws:, which is reserved."))),
        None => Ok(read),
    }
}

pub fn check_count(tags: &Tags) -> Result<(), Fault> {
    match tags.len() {
        0..=TAGS_MAX => Ok(()),
        _ => Err(invalid(format!("A schedule group can have {TAGS_MAX} tags at most."))),
    }
}

/// The name of a group of this account and region.
fn group_of(context: &Context, arn: Option<&str>) -> Result<String, Fault> {
    let arn = arn.unwrap_or_default();
    let name = arn.rsplit('/').next().unwrap_or_default();
    match arn == context.home.schedule_group_arn(name) {
        true => Ok(name.to_owned()),
        false => Err(fault("ResourceNotFoundException", format!("Schedule group {arn} does not exist."))),
    }
}

async fn change(
    context: &Context,
    arn: Option<&str>,
    apply: impl Fn(&mut ScheduleGroup) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let name = group_of(context, arn)?;
    context
        .change(|| {
            let (mut group, revision) = groups::find(context, &name)?;
            apply(&mut group)?;
            Ok((groups::replace(&group, revision), ()))
        })
        .await
}

pub async fn tag(context: &Context, input: TagResourceInput) -> Result<TagResourceOutput, Fault> {
    let added = read(input.tags.unwrap_or_default())?;
    change(context, input.resource_arn.as_deref(), |group| {
        group.tags.extend(added.clone());
        check_count(&group.tags)
    })
    .await?;
    Ok(TagResourceOutput {})
}

pub async fn untag(context: &Context, input: UntagResourceInput) -> Result<UntagResourceOutput, Fault> {
    let removed = input.tag_keys.unwrap_or_default();
    change(context, input.resource_arn.as_deref(), |group| {
        group.tags.retain(|key, _| !removed.contains(key));
        Ok(())
    })
    .await?;
    Ok(UntagResourceOutput {})
}

pub async fn list(
    context: &Context,
    input: ListTagsForResourceInput,
) -> Result<ListTagsForResourceOutput, Fault> {
    let (group, _) = groups::find(context, &group_of(context, input.resource_arn.as_deref())?)?;
    let tags = group.tags.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) });
    Ok(ListTagsForResourceOutput { tags: Some(tags.collect()) })
}
