//! Whether an event source is there, asked of the service itself where the operator says where it is, and whether
//! the function's role may read it.

use ondol_core::event_source_mapping::SourceKind;
use ondol_services::{Asked, get_queue_url};
use ondol_wire::fault::Fault;
use serde_json::{Value, json};

use super::holder;
use crate::context::Context;
use crate::faults::invalid;

const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What reading a source takes of the function's role. Source: AWS's pages on event source mappings.
fn actions(kind: SourceKind) -> &'static [&'static str] {
    match kind {
        SourceKind::Sqs => &["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"],
        SourceKind::Kinesis => &["kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:DescribeStream"],
        SourceKind::DynamoDb => {
            &["dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:DescribeStream"]
        }
        _ => &[],
    }
}

/// Refuses a source that the function could not read.
pub async fn check(
    context: &Context,
    kind: SourceKind,
    arn: Option<&str>,
    (function, qualifier): (&str, Option<&str>),
) -> Result<(), Fault> {
    let Some(arn) = arn else { return Ok(()) };
    let settings = holder::find(context, function, qualifier)?.settings(context)?;
    let authorizer = context.gatekeeper.authorizer();
    if let Some(action) =
        actions(kind).iter().find(|action| !authorizer.role_may(&settings.role, action, arn))
    {
        let list = match kind {
            SourceKind::Sqs => {
                let name = action.trim_start_matches("sqs:");
                return Err(invalid(format!(
                    "The function execution role does not have permissions to call {name} on SQS"
                )));
            }
            SourceKind::Kinesis => {
                "GetRecords, GetShardIterator, DescribeStream, ListShards, and ListStreams"
            }
            _ => "GetRecords, GetShardIterator, DescribeStream, and ListStreams",
        };
        return Err(invalid(format!(
            "Cannot access stream {arn}. Please ensure the role can perform the {list} Actions on your stream in IAM."
        )));
    }
    let found = ask(context, kind, arn).await?;
    if let (SourceKind::Sqs, Some(url)) = (kind, found) {
        check_visibility(context, &url, settings.timeout_seconds).await?;
    }
    Ok(())
}

/// A message that comes back while the function still works on it would be worked on twice.
async fn check_visibility(context: &Context, url: &str, timeout_seconds: u32) -> Result<(), Fault> {
    let body = json!({"QueueUrl": url, "AttributeNames": ["VisibilityTimeout"]});
    let asked = Asked::json("1.0", "AmazonSQS.GetQueueAttributes", &body);
    let response = context.services.call("sqs", asked, ANSWER_BYTES_MAX).await.map_err(invalid)?;
    let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let visible =
        answer["Attributes"]["VisibilityTimeout"].as_str().and_then(|text| text.parse::<u32>().ok());
    match visible {
        Some(seconds) if seconds < timeout_seconds => Err(invalid(format!(
            "Queue visibility timeout: {seconds} seconds is less than Function timeout: {timeout_seconds} seconds"
        ))),
        _ => Ok(()),
    }
}

/// Asks the service whether the source is there; gives a queue's address. Without an endpoint for the service
/// nothing can be asked, and the source is taken as it is.
async fn ask(context: &Context, kind: SourceKind, arn: &str) -> Result<Option<String>, Fault> {
    let (service, target, body) = match kind {
        SourceKind::Sqs => {
            let body = get_queue_url(arn).ok_or_else(|| invalid("Unrecognized event source."))?;
            ("sqs", "AmazonSQS.GetQueueUrl", body)
        }
        SourceKind::Kinesis => {
            ("kinesis", "Kinesis_20131202.DescribeStreamSummary", json!({"StreamARN": arn}))
        }
        SourceKind::DynamoDb => {
            ("dynamodb", "DynamoDBStreams_20120810.DescribeStream", json!({"StreamArn": arn}))
        }
        _ => return Ok(None),
    };
    if !context.services.has(service) {
        return Ok(None);
    }
    let version = if kind == SourceKind::Kinesis { "1.1" } else { "1.0" };
    let asked = Asked::json(version, target, &body);
    let response = context.services.call(service, asked, ANSWER_BYTES_MAX).await.map_err(invalid)?;
    match response.status {
        200 => {
            let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
            Ok(answer["QueueUrl"].as_str().map(str::to_owned))
        }
        400 | 404 if kind == SourceKind::Sqs => Err(invalid(
            "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified queue does not exist.",
        )),
        400 | 404 => Err(invalid(format!("Stream not found: {arn}"))),
        status => Err(invalid(format!("{service} answered {status} when it was asked for {arn}."))),
    }
}
