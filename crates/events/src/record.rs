//! What destinations and dead-letter queues are sent, in AWS's form. Source: records taken from AWS.

use std::sync::Arc;

use ondol_core::event::{Conclusion, EventHead, EventResponse, Outgoing};
use ondol_core::event_queue::Condition;
use ondol_core::identity::{Home, LATEST};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The text of an error a dead letter carries, at most.
const ERROR_BYTES_MAX: usize = 1_024;

/// An event's own facts, as every form needs them.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub home: &'a Home,
    pub function: &'a Arc<str>,
    pub head: &'a EventHead,
    pub payload: &'a [u8],
    pub outgoing: &'a Outgoing,
    /// What the function answered, as it wrote it.
    pub answer: Option<&'a [u8]>,
}

impl Facts<'_> {
    pub fn function_arn(&self) -> String {
        self.home.function_arn(self.function, Some(self.head.qualifier.as_deref().unwrap_or(LATEST)))
    }

    pub fn is_success(&self) -> bool {
        self.outgoing.condition == Conclusion::Success
    }

    /// The record of an invocation for a service that takes no more than this: without its payloads, if it is larger.
    pub fn record_within(&self, limit: usize) -> String {
        let whole = self.record();
        if whole.len() <= limit { whole } else { self.record_of(false) }
    }

    /// The record of an invocation. The event and the answer are in it byte for byte.
    pub fn record(&self) -> String {
        self.record_of(true)
    }

    fn record_of(&self, with_payloads: bool) -> String {
        let context = json!({
            "requestId": self.head.request.uuid(),
            "functionArn": self.function_arn(),
            "condition": self.outgoing.condition.name(),
            "approximateInvokeCount": self.outgoing.tries.errors + u32::from(self.is_success()),
        });
        let timestamp = ondol_wire::time::iso_8601_millis(self.outgoing.ended_epoch_millis);
        let mut record = format!(r#"{{"version":"1.0","timestamp":"{timestamp}","requestContext":{context}"#);
        if with_payloads {
            let payload = text_of_json(self.payload).unwrap_or("{}");
            record.push_str(&format!(r#","requestPayload":{payload}"#));
        }
        if let Some(response) = &self.outgoing.response {
            record.push_str(&format!(r#","responseContext":{}"#, response_context(response)));
            let answer = self.answer.filter(|answer| with_payloads && !answer.is_empty());
            match (answer.and_then(text_of_json), answer) {
                (Some(text), _) => record.push_str(&format!(r#","responsePayload":{text}"#)),
                (None, Some(_)) => record.push_str(UNREADABLE),
                (None, None) => {}
            }
        }
        record.push('}');
        record
    }

    /// What a dead letter says of its event beside the event itself: name, type, value.
    pub fn dead_letter_attributes(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut attributes = vec![("RequestID", "String", self.head.request.uuid())];
        let response = self.outgoing.response.as_ref();
        if let Some(response) = response {
            attributes.push(("ErrorCode", "Number", response.status.to_string()));
        }
        // AWS's words, as they are.
        let closed = "Function not invoked. Function isconfigured with zero reserved concurrent executions";
        let message = match response {
            Some(response) => self.error_message(response),
            None if self.outgoing.condition == CLOSED => Some(closed.into()),
            None => None,
        };
        if let Some(message) = message.filter(|message| !message.is_empty()) {
            attributes.push(("ErrorMessage", "String", cut(&message)));
        }
        attributes
    }

    /// The function's own word for its error, or what was answered in its place.
    fn error_message(&self, response: &EventResponse) -> Option<String> {
        let own = self.answer.and_then(|answer| serde_json::from_slice::<Value>(answer).ok());
        let own = own.and_then(|value| value["errorMessage"].as_str().map(str::to_owned));
        own.or_else(|| response.message.clone())
    }
}

const CLOSED: Conclusion = Conclusion::Failure(Condition::ZeroReservedConcurrency);
const UNREADABLE: &str = r#","deliveryError":{"statusCode":400,"errorCode":"InvalidRequestContentException","errorMessage":"The function response payload could not be parsed as JSON."}"#;

fn text_of_json(bytes: &[u8]) -> Option<&str> {
    serde_json::from_slice::<&RawValue>(bytes).ok()?;
    std::str::from_utf8(bytes).ok()
}

fn response_context(response: &EventResponse) -> Value {
    let mut context = Map::new();
    context.insert("statusCode".into(), response.status.into());
    if let Some(version) = &response.executed_version {
        context.insert("executedVersion".into(), Value::from(&**version));
    }
    if response.is_error {
        context.insert("functionError".into(), "Unhandled".into());
    }
    Value::Object(context)
}

fn cut(text: &str) -> String {
    String::from_utf8_lossy(&text.as_bytes()[..text.len().min(ERROR_BYTES_MAX)]).into_owned()
}
