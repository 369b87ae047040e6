//! Bringing an outcome to a queue, topic, bus or bucket of the services Ondol does not serve itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ondol_core::event::{Form, Target};
use ondol_identity::Authorizer;
use ondol_services::{Asked, Response, ServiceEndpoints, get_queue_url};
use ondol_wire::uri::percent_encode;
use serde_json::{Map, Value, json};

use crate::record::Facts;

const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What a queue and a bus take, with room for what is around it; and a topic.
const MESSAGE_BYTES_MAX: usize = (1 << 20) - (8 << 10);
const NOTIFICATION_BYTES_MAX: usize = 256 << 10;
/// What is kept of a service's words.
const WHY_CHARS_MAX: usize = 500;

#[derive(Debug)]
pub struct Destinations {
    services: Arc<ServiceEndpoints>,
    authorizer: Authorizer,
    /// Where queues are, as their service said.
    queue_urls: Mutex<HashMap<String, String>>,
}

impl Destinations {
    pub fn new(services: Arc<ServiceEndpoints>, authorizer: Authorizer) -> Self {
        Self { services, authorizer, queue_urls: Mutex::default() }
    }

    /// Whether a function's role may do this; the error is a sentence for its owner.
    pub fn permit(&self, role: Option<&str>, action: &str, resource: &str) -> Result<(), String> {
        let Some(role) = role else { return Err("The function is gone, and its role with it.".into()) };
        if self.authorizer.role_may(role, action, resource) {
            return Ok(());
        }
        Err(format!("The function's role {role} isn't allowed {action} on {resource}."))
    }

    /// Sends an outcome to one target. The error is a sentence.
    pub async fn send(&self, target: &Target, facts: &Facts<'_>, role: Option<&str>) -> Result<(), String> {
        let arn = target.arn.as_str();
        match arn.split(':').nth(2).unwrap_or_default() {
            "sqs" => {
                self.permit(role, "sqs:SendMessage", arn)?;
                let sent = self.send_message(target, facts).await;
                if sent.is_err() {
                    // It may have been made anew elsewhere.
                    self.queue_urls.lock().unwrap_or_else(PoisonError::into_inner).remove(arn);
                }
                sent
            }
            "sns" => {
                self.permit(role, "sns:Publish", arn)?;
                self.publish(target, facts).await
            }
            "events" => {
                self.permit(role, "events:PutEvents", arn)?;
                self.put_events(arn, facts).await
            }
            "s3" => self.put_object(arn, facts, role).await,
            other => Err(format!("{other:?} of {arn} is no service that takes outcomes.")),
        }
    }

    async fn send_message(&self, target: &Target, facts: &Facts<'_>) -> Result<(), String> {
        let url = self.queue_url(&target.arn).await?;
        let mut message =
            json!({"QueueUrl": url, "MessageBody": body(target.form, facts, MESSAGE_BYTES_MAX)});
        if target.form == Form::DeadLetter {
            let attributes: Map<String, Value> = facts
                .dead_letter_attributes()
                .into_iter()
                .map(|(name, kind, value)| (name.into(), json!({"DataType": kind, "StringValue": value})))
                .collect();
            message["MessageAttributes"] = Value::Object(attributes);
        }
        if let Some(trace) = &facts.head.trace_id {
            message["MessageSystemAttributes"] =
                json!({"AWSTraceHeader": {"DataType": "String", "StringValue": **trace}});
        }
        let asked = Asked::json("1.0", "AmazonSQS.SendMessage", &message);
        refused("sqs", &self.services.call("sqs", asked, ANSWER_BYTES_MAX).await?)
    }

    async fn queue_url(&self, arn: &str) -> Result<String, String> {
        let known = self.queue_urls.lock().unwrap_or_else(PoisonError::into_inner).get(arn).cloned();
        if let Some(url) = known {
            return Ok(url);
        }
        let url = queue_url(&self.services, arn).await?;
        self.queue_urls.lock().unwrap_or_else(PoisonError::into_inner).insert(arn.into(), url.clone());
        Ok(url)
    }

    async fn publish(&self, target: &Target, facts: &Facts<'_>) -> Result<(), String> {
        let mut form = vec![
            ("Action".to_owned(), "Publish".to_owned()),
            ("Version".to_owned(), "2010-03-31".to_owned()),
            ("TopicArn".to_owned(), target.arn.clone()),
            ("Message".to_owned(), body(target.form, facts, NOTIFICATION_BYTES_MAX)),
        ];
        if target.form == Form::DeadLetter {
            for (number, (name, kind, value)) in (1..).zip(facts.dead_letter_attributes()) {
                let entry = format!("MessageAttributes.entry.{number}");
                form.push((format!("{entry}.Name"), name.to_owned()));
                form.push((format!("{entry}.Value.DataType"), kind.to_owned()));
                form.push((format!("{entry}.Value.StringValue"), value));
            }
        }
        let form: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", percent_encode(value, false))).collect();
        refused("sns", &self.services.call("sns", Asked::form(form.join("&")), ANSWER_BYTES_MAX).await?)
    }

    async fn put_events(&self, arn: &str, facts: &Facts<'_>) -> Result<(), String> {
        let outcome = if facts.is_success() { "Success" } else { "Failure" };
        #[allow(clippy::cast_precision_loss)]
        let time = (facts.outgoing.ended_epoch_millis / 1_000) as f64;
        let entry = json!({
            "Source": "lambda",
            "DetailType": format!("Lambda Function Invocation Result - {outcome}"),
            "Time": time,
            "EventBusName": arn,
            "Resources": [arn, facts.function_arn()],
            "Detail": facts.record_within(MESSAGE_BYTES_MAX),
        });
        let asked = Asked::json("1.1", "AWSEvents.PutEvents", &json!({"Entries": [entry]}));
        let response = self.services.call("events", asked, ANSWER_BYTES_MAX).await?;
        refused("events", &response)?;
        let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        match answer["FailedEntryCount"].as_i64() {
            None | Some(0) => Ok(()),
            Some(_) => {
                let entry = &answer["Entries"][0];
                Err(format!("events refused the record: {} {}", entry["ErrorCode"], entry["ErrorMessage"]))
            }
        }
    }

    async fn put_object(&self, arn: &str, facts: &Facts<'_>, role: Option<&str>) -> Result<(), String> {
        let bucket = arn.rsplit(':').next().unwrap_or_default();
        let at = ondol_wire::time::iso_8601_millis(facts.outgoing.ended_epoch_millis);
        let (day, clock) = (&at[..10], at[11..19].replace(':', "."));
        // The event's id makes a second delivery the same object.
        let id = facts.head.request.uuid();
        let key = format!("aws/lambda/async/{}/{}/{day}T{clock}-{id}", facts.function, day.replace('-', "/"));
        self.permit(role, "s3:PutObject", &format!("{arn}/{key}"))?;
        let path = format!("/{}/{}", percent_encode(bucket, false), percent_encode(&key, true));
        let asked = Asked::put(&path, facts.record().into_bytes());
        refused("s3", &self.services.call("s3", asked, ANSWER_BYTES_MAX).await?)
    }
}

/// Where a queue is.
async fn queue_url(services: &ServiceEndpoints, arn: &str) -> Result<String, String> {
    let input = get_queue_url(arn).ok_or_else(|| format!("{arn} is no queue."))?;
    let asked = Asked::json("1.0", "AmazonSQS.GetQueueUrl", &input);
    let response = services.call("sqs", asked, ANSWER_BYTES_MAX).await?;
    refused("sqs", &response)?;
    let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    answer["QueueUrl"].as_str().map(str::to_owned).ok_or_else(|| format!("sqs named no URL for {arn}."))
}

fn body(form: Form, facts: &Facts<'_>, limit: usize) -> String {
    match form {
        Form::Record => facts.record_within(limit),
        // Nothing was an empty object for the function too.
        Form::DeadLetter if facts.payload.is_empty() => "{}".into(),
        Form::DeadLetter => String::from_utf8_lossy(facts.payload).into_owned(),
    }
}

fn refused(service: &str, response: &Response) -> Result<(), String> {
    if (200..300).contains(&response.status) {
        return Ok(());
    }
    let code = response.text("Code", "__type").unwrap_or_default();
    let message = response
        .text("Message", "message")
        .or_else(|| response.text("Message", "Message"))
        .unwrap_or_default();
    let words = format!("{service} refused ({} {code}): {message}", response.status);
    Err(words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WHY_CHARS_MAX).collect())
}
