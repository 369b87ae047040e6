//! SQS queues, standard and FIFO.
//!
//! A batch that failed is left alone: the queue shows its messages again when their visibility timeout is over, counts
//! that, and moves them to its dead-letter queue. Source: AWS's page on queues as event sources.

use std::time::Duration;

use bytes::Bytes;
use ondol_core::event_source::visibility_asked;
use ondol_core::time::WallTime;
use ondol_observe::{clock, notice};
use ondol_services::{Asked, get_queue_url};
use serde_json::{Map, Value, json};

use super::mapping::Reading;
use super::source::{AfterFailure, Record, Source, Trouble, joined};

/// Messages of one call. Source: SQS's API reference.
const MESSAGES_MAX: usize = 10;
/// Ten messages of 1 MiB, as JSON.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The visibility timeout of a queue that does not say its own. Source: SQS's API reference.
const VISIBILITY_SECONDS: u64 = 30;
const NO_WAIT_PAUSE: Duration = Duration::from_millis(500);
/// Tries of a deletion; what is not deleted comes again.
const DELETIONS: usize = 3;
const DELETION_PAUSE: Duration = Duration::from_millis(200);

pub struct Sqs<'a, I> {
    reading: &'a Reading<I>,
    arn: &'a str,
    region: String,
    url: String,
    /// How long a received message is hidden from others, by the queue or because that is asked for.
    hidden_seconds: u64,
    asks_to_hide: Option<u64>,
}

impl<'a, I> Sqs<'a, I> {
    pub async fn open(reading: &'a Reading<I>) -> Result<Self, Trouble> {
        let arn = reading.mapping.event_source_arn.as_deref().unwrap_or_default();
        let region = arn.split(':').nth(3).unwrap_or_default().to_owned();
        let mut sqs =
            Self { reading, arn, region, url: String::new(), hidden_seconds: 0, asks_to_hide: None };
        sqs.permit()?;
        let body = get_queue_url(arn).ok_or_else(|| Trouble(format!("{arn} is no queue's ARN.")))?;
        let answer = sqs.call("AmazonSQS.GetQueueUrl", &body).await?;
        sqs.url = answer["QueueUrl"].as_str().unwrap_or_default().to_owned();
        let body = json!({"QueueUrl": sqs.url, "AttributeNames": ["VisibilityTimeout"]});
        let answer = sqs.call("AmazonSQS.GetQueueAttributes", &body).await?;
        let seconds =
            answer["Attributes"]["VisibilityTimeout"].as_str().and_then(|text| text.parse::<u64>().ok());
        let own = seconds.unwrap_or(VISIBILITY_SECONDS);
        sqs.asks_to_hide =
            visibility_asked(own, &reading.limits, reading.tools.timeout_seconds(&reading.mapping));
        sqs.hidden_seconds = sqs.asks_to_hide.unwrap_or(own);
        Ok(sqs)
    }

    fn permit(&self) -> Result<(), Trouble> {
        let actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"];
        actions.iter().try_for_each(|action| self.reading.permit(action, self.arn))
    }

    async fn call(&self, target: &str, body: &Value) -> Result<Value, Trouble> {
        let services = &self.reading.tools.outside.services;
        let response = services.call("sqs", Asked::json("1.0", target, body), ANSWER_BYTES_MAX).await?;
        if response.status == 200 {
            return serde_json::from_slice(&response.body)
                .map_err(|error| Trouble(format!("SQS answered {target} with what is no JSON: {error}")));
        }
        let code = response.text("Code", "__type").unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or_default();
        let message = response.text("Message", "message").unwrap_or_default();
        Err(Trouble(format!("SQS refused {target} for {} ({} {code}): {message}", self.arn, response.status)))
    }

    /// Deletes messages; keeps those that could not be.
    async fn delete(&self, receipts: &mut Vec<&str>) -> Result<(), Trouble> {
        let entry = |(id, receipt): (usize, &&str)| json!({"Id": id.to_string(), "ReceiptHandle": receipt});
        let entries: Vec<Value> = receipts.iter().enumerate().map(entry).collect();
        let body = json!({"QueueUrl": self.url, "Entries": entries});
        let answer = self.call("AmazonSQS.DeleteMessageBatch", &body).await?;
        let failed = answer["Failed"].as_array().into_iter().flatten();
        let failed: Vec<&str> = failed.filter_map(|entry| entry["Id"].as_str()).collect();
        let mut place = 0;
        receipts.retain(|_| {
            place += 1;
            failed.contains(&(place - 1).to_string().as_str())
        });
        Ok(())
    }

    fn record(&self, message: &Value, until: WallTime) -> Option<Record<String>> {
        let text = |name: &str| message[name].as_str();
        let (id, receipt, body) = (text("MessageId")?, text("ReceiptHandle")?, text("Body")?);
        let attributes = message["MessageAttributes"].as_object();
        let attributes: Map<String, Value> =
            attributes.into_iter().flatten().map(|(name, value)| (name.clone(), attribute(value))).collect();
        let mut record = Map::new();
        let mut add = |name: &str, value: Value| drop(record.insert(name.to_owned(), value));
        add("messageId", id.into());
        add("receiptHandle", receipt.into());
        add("body", body.into());
        add("attributes", message.get("Attributes").cloned().unwrap_or_else(|| json!({})));
        add("messageAttributes", attributes.into());
        if let Some(md5) = text("MD5OfMessageAttributes") {
            add("md5OfMessageAttributes", md5.into());
        }
        add("md5OfBody", text("MD5OfBody").into());
        add("eventSource", "aws:sqs".into());
        add("eventSourceARN", self.arn.into());
        add("awsRegion", self.region.as_str().into());
        let rendered = Value::Object(record.clone()).to_string();
        record.remove("body");
        Some(Record {
            id: id.to_owned(),
            members: record,
            payload: Bytes::copy_from_slice(body.as_bytes()),
            rendered,
            until: Some(until),
            handle: receipt.to_owned(),
        })
    }
}

/// A message attribute as Lambda writes it. Source: recorded from AWS.
fn attribute(value: &Value) -> Value {
    let mut shown = Map::new();
    for (name, from) in [("stringValue", "StringValue"), ("binaryValue", "BinaryValue")] {
        if let Some(value) = value.get(from) {
            shown.insert(name.to_owned(), value.clone());
        }
    }
    shown.insert("stringListValues".to_owned(), json!([]));
    shown.insert("binaryListValues".to_owned(), json!([]));
    shown.insert("dataType".to_owned(), value["DataType"].clone());
    Value::Object(shown)
}

impl<I> Source for Sqs<'_, I> {
    /// A message's receipt handle.
    type Handle = String;
    /// What a queue answers to somebody who left is hidden until its visibility timeout is over.
    const MAY_LEAVE: bool = false;

    async fn receive(
        &mut self,
        count_max: usize,
        wait: Duration,
    ) -> Result<Vec<Record<Self::Handle>>, Trouble> {
        self.permit()?;
        let asked_at = tokio::time::Instant::now();
        let mut body = json!({
            "QueueUrl": self.url,
            "MaxNumberOfMessages": count_max.min(MESSAGES_MAX),
            "WaitTimeSeconds": wait.as_secs(),
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        });
        if let Some(seconds) = self.asks_to_hide {
            body["VisibilityTimeout"] = seconds.into();
        }
        let answer = self.call("AmazonSQS.ReceiveMessage", &body).await?;
        let messages = answer["Messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        if messages.is_empty() && asked_at.elapsed() < wait / 2 {
            // A queue waits for whole seconds, and one that does not wait is not asked without end.
            tokio::time::sleep(NO_WAIT_PAUSE.min(wait)).await;
        }
        let until = clock::wall().plus_millis(self.hidden_seconds * 1_000);
        Ok(messages.iter().filter_map(|message| self.record(message, until)).collect())
    }

    async fn done(&mut self, handles: Vec<Self::Handle>) -> Result<(), Trouble> {
        let (mut left, mut outcome) = (0, Ok(()));
        for chunk in handles.chunks(MESSAGES_MAX) {
            let mut receipts: Vec<&str> = chunk.iter().map(String::as_str).collect();
            for _ in 0..DELETIONS {
                outcome = self.delete(&mut receipts).await;
                if receipts.is_empty() {
                    break;
                }
                tokio::time::sleep(DELETION_PAUSE).await;
            }
            left += receipts.len();
        }
        if left == 0 {
            return Ok(());
        }
        notice::warning(&format!(
            "{left} messages of {} were worked on and could not be deleted: they will be worked on again",
            self.arn
        ));
        outcome
    }

    fn pause_seconds(&self, _: u32) -> u64 {
        0
    }

    async fn failed(&mut self, _: &mut Vec<Record<Self::Handle>>, _: u32) -> Result<AfterFailure, Trouble> {
        Ok(AfterFailure::Left)
    }

    fn event(&self, batch: &[Record<Self::Handle>]) -> Bytes {
        format!(r#"{{"Records":[{}]}}"#, joined(batch)).into()
    }
}
