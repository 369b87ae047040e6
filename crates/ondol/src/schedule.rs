//! `ondol schedule`: how many execution environments a function keeps, by the clock. Schedules are EventBridge
//! Scheduler's; nothing here can do what its API can't.

pub mod page;

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hyper::Method;
use ondol_core::identity::{FunctionReference, Home, LATEST_PUBLISHED};
use ondol_core::schedule::{DEFAULT_GROUP, Expression};
use ondol_wire::uri::percent_encode;
use serde_json::{Value, json};

use crate::client::{Call, Server, refusal};
use crate::commands::show;
use crate::words::{list, word};
use crate::{Address, Output, ScheduleCommand, ScheduleCreate};

/// The role of schedules that are given none.
const ROLE: &str = "ondol-scheduled-scaling";
const TARGET: &str = "arn:aws:scheduler:::aws-sdk:lambda:putFunctionScalingConfig";
const GLOBAL_REGION: &str = "us-east-1";

pub fn schedule(command: &ScheduleCommand, output: Output) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        ScheduleCommand::Create(asked) => {
            let home = home(&asked.address)?;
            let made = runtime.block_on(create(asked, &home))?;
            let mut page = found(&asked.address, &asked.name)?;
            page["roleCreated"] = made.into();
            show(output, &page, || {
                let role = match made {
                    Some(true) => "It acts as a role that was made for it",
                    Some(false) => "It acts as the role that was made for such schedules before",
                    None => "It acts as the role",
                };
                format!("{}{role}: {}\n", line(&page), word(&page["roleArn"]))
            })
        }
        ScheduleCommand::List(address) => {
            let page = Server::of(address)?.get("/_ondol/schedules", "")?;
            show(output, &page, || match list(&page["schedules"]) {
                [] => "there are no schedules; make one with: ondol schedule create\n".into(),
                schedules => schedules.iter().map(line).collect(),
            })
        }
        ScheduleCommand::Show { name, address } => {
            let page = found(address, name)?;
            show(output, &page, || format!("{}  role {}\n", line(&page), word(&page["roleArn"])))
        }
        ScheduleCommand::Delete { name, address } => {
            let (group, alone) = named(name);
            let path = format!("/schedules/{}", encode(alone));
            let query = format!("groupName={}", encode(group));
            let (server, home) = (Server::of(address)?, home(address)?);
            let call =
                Call { method: Method::DELETE, path: &path, query: &query, headers: &[], body: Bytes::new() };
            runtime.block_on(ask(&server, (&home.region, "scheduler"), &call))?;
            show(output, &json!({"deleted": format!("{group}/{alone}")}), String::new)
        }
    }
}

fn encode(text: &str) -> String {
    percent_encode(text, false)
}

/// `GROUP/NAME`, or a name in the default group.
fn named(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or((DEFAULT_GROUP, text))
}

/// One schedule of the server's page.
fn found(address: &Address, name: &str) -> Result<Value> {
    let (group, name) = named(name);
    let query = format!("group={}&name={}", encode(group), encode(name));
    let page = Server::of(address)?.get("/_ondol/schedules", &query)?;
    match list(&page["schedules"]) {
        [one] => Ok(one.clone()),
        _ => bail!("there is no schedule {group}/{name}; `ondol schedule list` shows those there are"),
    }
}

/// The account and region of the server.
fn home(address: &Address) -> Result<Home> {
    let page = Server::of(address)?.get("/_ondol/status", "")?;
    let text = |name: &str| {
        page[name].as_str().map(str::to_owned).with_context(|| format!("the status has no {name}"))
    };
    Ok(Home { region: text("region")?, account_id: text("accountId")? })
}

/// Makes a schedule. Says whether its role was made too; nothing if it was given.
async fn create(asked: &ScheduleCreate, home: &Home) -> Result<Option<bool>> {
    let server = Server::of(&asked.address)?;
    let reference = FunctionReference::parse(&asked.function);
    let qualifier = reference.qualifier.as_deref().unwrap_or(LATEST_PUBLISHED);
    // A slip of the pen shows now and not at night, and before a role is made.
    let expression = asked.expression();
    if let Err(why) = Expression::parse(&expression) {
        bail!("Invalid Schedule Expression {expression}. {why}");
    }
    let path =
        format!("/2025-11-30/functions/{}/function-scaling-config", encode(&reference.arn(home, None)));
    let query = format!("Qualifier={}", encode(qualifier));
    let call = Call { method: Method::GET, path: &path, query: &query, headers: &[], body: Bytes::new() };
    ask(&server, (&home.region, "lambda"), &call).await?;

    let (role_arn, made) = match &asked.role {
        Some(role) => (role.clone(), None),
        None => {
            let (arn, is_new) = own_role(&server, home).await?;
            (arn, Some(is_new))
        }
    };
    // Nothing but no environment at all goes with no minimum.
    let max = asked.max.or((asked.min == 0).then_some(0));
    let mut scaling = json!({"MinExecutionEnvironments": asked.min});
    if let Some(max) = max {
        scaling["MaxExecutionEnvironments"] = max.into();
    }
    let input =
        json!({"FunctionName": reference.name, "Qualifier": qualifier, "FunctionScalingConfig": scaling});
    let (group, name) = named(&asked.name);
    let body = json!({
        "GroupName": group,
        "ScheduleExpression": expression,
        "ScheduleExpressionTimezone": asked.timezone,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {"Arn": TARGET, "RoleArn": role_arn, "Input": input.to_string()},
    });
    let path = format!("/schedules/{}", encode(name));
    let body = Bytes::from(body.to_string());
    let call = Call { method: Method::POST, path: &path, query: "", headers: &[], body };
    ask(&server, (&home.region, "scheduler"), &call).await?;
    Ok(made)
}

impl ScheduleCreate {
    /// With or without the word and the parentheses of the API.
    fn expression(&self) -> String {
        let whole = |word: &str, text: &String| match text.starts_with(&format!("{word}(")) {
            true => text.clone(),
            false => format!("{word}({text})"),
        };
        let ways = [("at", &self.at), ("rate", &self.rate), ("cron", &self.cron)];
        ways.iter().find_map(|(word, text)| Some(whole(word, text.as_ref()?))).unwrap_or_default()
    }
}

/// A role that may change scaling, and nothing else; and whether it is new.
async fn own_role(server: &Server, home: &Home) -> Result<(String, bool)> {
    let Home { account_id, region } = home;
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"Service": "scheduler.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": account_id}},
    }]});
    let may = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Action": "lambda:PutFunctionScalingConfig",
        "Resource": format!("arn:aws:lambda:{region}:{account_id}:function:*"),
    }]});
    let description = "For schedules of `ondol schedule create` that name no role";
    let made = iam(
        server,
        &[
            ("Action", "CreateRole"),
            ("RoleName", ROLE),
            ("Description", description),
            ("AssumeRolePolicyDocument", &trust.to_string()),
        ],
    )
    .await?;
    let is_new = match made {
        (200, _) => true,
        (409, _) => false,
        (status, text) => {
            bail!("the role {ROLE} can't be made ({status}): {text}. Give one that is there with --role")
        }
    };
    // Also of one that is there: whoever made it may have been cut off before this.
    let allowed = iam(
        server,
        &[
            ("Action", "PutRolePolicy"),
            ("RoleName", ROLE),
            ("PolicyName", "put-function-scaling-config"),
            ("PolicyDocument", &may.to_string()),
        ],
    )
    .await?;
    if let (status @ 300.., text) = allowed {
        bail!(
            "the role {ROLE} can't be given its policy ({status}): {text}. Give one that is there with --role"
        );
    }
    Ok((format!("arn:aws:iam::{account_id}:role/{ROLE}"), is_new))
}

/// A request to IAM: its status, and its text.
async fn iam(server: &Server, form: &[(&str, &str)]) -> Result<(u16, String)> {
    let mut body = String::from("Version=2010-05-08");
    for (name, value) in form {
        let _ = write!(body, "&{name}={}", encode(value));
    }
    let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
    let call = Call { method: Method::POST, path: "/", query: "", headers: &headers, body: body.into() };
    let answer = server.connect().await?.signing_for(GLOBAL_REGION, "iam").send(&call).await?;
    Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

async fn ask(server: &Server, (region, service): (&str, &'static str), call: &Call<'_>) -> Result<()> {
    let answer = server.connect().await?.signing_for(region, service).send(call).await?;
    match answer.status {
        200..300 => Ok(()),
        status => bail!("the server refused ({status}): {}", refusal(&answer)),
    }
}

/// A schedule as people read it.
fn line(schedule: &Value) -> String {
    let text = |name: &str| word(&schedule[name]);
    let mut out = format!(
        "{}/{} {}: {} {}\n  sets {}:{} to min {}",
        text("group"),
        text("name"),
        text("state"),
        text("expression"),
        text("timezone"),
        text("function"),
        text("qualifier"),
        text("minExecutionEnvironments"),
    );
    if !schedule["maxExecutionEnvironments"].is_null() {
        let _ = write!(out, " max {}", text("maxExecutionEnvironments"));
    }
    let _ = match schedule["next"].as_str() {
        Some(_) if schedule["isRetried"] == true => writeln!(out, ", being tried again"),
        Some(next) => writeln!(out, ", next at {next}"),
        None => writeln!(out, ", never again"),
    };
    let last = &schedule["last"];
    let _ = match last["succeeded"].as_bool() {
        None => Ok(()),
        Some(true) => {
            writeln!(out, "  last for {}: done at {}", word(&last["scheduledTime"]), word(&last["endedAt"]))
        }
        Some(false) => writeln!(
            out,
            "  last for {}: failed at {} after {} attempts: {}",
            word(&last["scheduledTime"]),
            word(&last["endedAt"]),
            last["attempts"],
            word(&last["error"])
        ),
    };
    out
}
