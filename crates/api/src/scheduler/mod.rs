//! EventBridge Scheduler, as far as scaling by the clock needs it: schedules are kept here; `events::Schedules` says when
//! each is due, and comes back to `carry_out`.

mod groups;
mod page;
mod rules;
mod schedules;
mod settings;
mod tags;
mod target;

use ondol_wire::fault::Fault;
use ondol_wire::rest_json::{Answer, match_operation, read_members, typed, write_output};
use ondol_wire::scheduler::SERVICE;
use ondol_wire::validate::validate;

use crate::context::Context;
use crate::lambda::Call;
use rules::On;
pub use target::carry_out;

/// Who assumes the roles of schedules.
const PRINCIPAL: &str = "scheduler.amazonaws.com";

/// A modelled error.
fn fault(code: &'static str, message: impl Into<String>) -> Fault {
    Fault::of(&SERVICE, code, message)
}

fn invalid(message: impl Into<String>) -> Fault {
    fault("ValidationException", message)
}

/// One list says which operations work, which function each is, and whose permission it needs.
macro_rules! operations {
    ($($name:literal => $function:path, on $on:expr;)*) => {
        /// The operations that work: all there are.
        pub const WORKS: &[&str] = &[$($name),*];

        pub async fn call(context: &Context, call: &Call<'_>) -> Result<Answer, Fault> {
            let Some(matched) = match_operation(&SERVICE, call.method, call.path, call.query) else {
                let text = format!("{} {} is no operation of EventBridge Scheduler.", call.method, call.path);
                return Err(Fault::new("UnknownOperationException", 404, text));
            };
            let operation = matched.0;
            let input =
                read_members(&SERVICE, &matched, call.query, |name| call.headers.get(name), call.body)?;
            if let Some(shape) = operation.input {
                validate(&SERVICE, shape, &input)?;
            }
            let answer = match operation.name {
                $($name => {
                    rules::authorize(context, operation.name, $on, &input)?;
                    let output = $function(context, typed(input)?).await;
                    output.and_then(|output| write_output(&SERVICE, operation, &output))
                })*
                other => Err(fault("InternalServerException", format!("{other} is missing."))),
            };
            answer.map_err(|fault| match fault.code.as_str() {
                // Of the store, in Lambda's words.
                "ServiceException" => Fault { code: "InternalServerException".into(), ..fault },
                _ => fault,
            })
        }
    };
}

operations! {
    "CreateSchedule" => schedules::create, on On::Schedule;
    "GetSchedule" => schedules::get, on On::Schedule;
    "UpdateSchedule" => schedules::update, on On::Schedule;
    "DeleteSchedule" => schedules::delete, on On::Schedule;
    "ListSchedules" => schedules::list, on On::Everything;
    "CreateScheduleGroup" => groups::create, on On::Group;
    "GetScheduleGroup" => groups::get, on On::Group;
    "DeleteScheduleGroup" => groups::delete, on On::Group;
    "ListScheduleGroups" => groups::list, on On::Everything;
    "TagResource" => tags::tag, on On::Arn;
    "UntagResource" => tags::untag, on On::Arn;
    "ListTagsForResource" => tags::list, on On::Arn;
}
