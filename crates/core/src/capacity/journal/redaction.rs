//! What the journal must not tell: values of functions' environment variables, and what functions wrote themselves when
//! they failed. Each is replaced by the same words in whatever is recorded, and as no decision looks at them the journal
//! still gives the same plans.

use std::collections::BTreeSet;

use crate::function::{FunctionVersion, LastUpdate, Publication, Reason};

use super::super::{Environment, EnvironmentState, Memory, Picture, Plan, Step, VersionChange};
use super::PictureChange;

/// Stands for what is not recorded.
pub const REDACTED: &str = "(not recorded)";

/// Reasons of this kind are in the function's own words.
const FUNCTION_ERROR: &str = "FunctionError";

pub fn redact_picture(picture: &mut Picture) {
    picture.versions.values_mut().for_each(redact_version);
    picture.on_demand.values_mut().for_each(|(_, publication)| redact_publication(publication));
    picture.environments.values_mut().for_each(redact_environment);
}

pub fn redact_change(change: &mut PictureChange) {
    change.versions.put.iter_mut().for_each(|(_, version)| redact_version(version));
    change.on_demand.put.iter_mut().for_each(|(_, (_, publication))| redact_publication(publication));
    change.environments.put.iter_mut().for_each(|(_, environment)| redact_environment(environment));
}

pub fn redact_memory(memory: &mut Memory) {
    memory.failures.values_mut().for_each(|failures| redact_reason(&mut failures.last));
}

/// `picture` and `memory` are those the plan was made from, as they were.
pub fn redact_plan(plan: &mut Plan, picture: &Picture, memory: &Memory) {
    let words = words_of_functions(picture, memory);
    for (step, why) in &mut plan.steps {
        match step {
            Step::SetVersion {
                change: VersionChange::Fail(reason) | VersionChange::FailUpdate(reason),
                ..
            }
            | Step::Refuse { reason, .. } => redact_reason(reason),
            _ => {}
        }
        if words.contains(why.as_str()) {
            REDACTED.clone_into(why);
        }
    }
    plan.unmet.values_mut().for_each(redact_reason);
    plan.scaling.values_mut().filter_map(|scaling| scaling.blocked.as_mut()).for_each(redact_reason);
}

/// Texts a step may give as its why.
fn words_of_functions<'a>(picture: &'a Picture, memory: &'a Memory) -> BTreeSet<&'a str> {
    let of_environments = picture.environments.values().filter_map(|environment| match &environment.state {
        EnvironmentState::Ended { reason, .. } => Some(reason),
        _ => None,
    });
    let remembered = memory.failures.values().map(|failures| &failures.last);
    of_environments
        .chain(remembered)
        .filter(|reason| is_of_function(reason))
        .map(|reason| reason.text.as_str())
        .collect()
}

fn redact_version(version: &mut FunctionVersion) {
    redact_publication(&mut version.publication);
    version.serving.iter_mut().for_each(redact_publication);
    version.state_reason.iter_mut().for_each(redact_reason);
    if let LastUpdate::Failed(reason) = &mut version.last_update {
        redact_reason(reason);
    }
}

fn redact_publication(publication: &mut Publication) {
    for value in publication.configuration.environment.iter_mut().flat_map(|map| map.values_mut()) {
        REDACTED.clone_into(value);
    }
}

fn redact_environment(environment: &mut Environment) {
    if let EnvironmentState::Ended { reason, .. } = &mut environment.state {
        redact_reason(reason);
    }
}

fn is_of_function(reason: &Reason) -> bool {
    reason.code.starts_with(FUNCTION_ERROR)
}

fn redact_reason(reason: &mut Reason) {
    if is_of_function(reason) {
        REDACTED.clone_into(&mut reason.text);
    }
    if let Some(answer) = &mut reason.answer {
        REDACTED.clone_into(answer);
    }
}
