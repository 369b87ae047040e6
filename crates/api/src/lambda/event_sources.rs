//! Whether an event source is there: asked of the service itself, where the operator says where it is.

use hyper::Method;
use ondol_core::event_source_mapping::SourceKind;
use ondol_wire::fault::Fault;
use serde_json::json;

use crate::context::Context;
use crate::faults::invalid;

const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Without an endpoint for the service nothing can be asked, and the mapping is taken as it is.
pub async fn check_exists(context: &Context, kind: SourceKind, arn: Option<&str>) -> Result<(), Fault> {
    let Some(arn) = arn else { return Ok(()) };
    let (service, target, body) = match kind {
        SourceKind::Sqs => {
            let parts: Vec<&str> = arn.split(':').collect();
            let [_, _, _, _, account, queue] = parts[..] else {
                return Err(invalid("Unrecognized event source."));
            };
            let body = json!({"QueueName": queue, "QueueOwnerAWSAccountId": account});
            ("sqs", "AmazonSQS.GetQueueUrl", body)
        }
        SourceKind::Kinesis => {
            ("kinesis", "Kinesis_20131202.DescribeStreamSummary", json!({"StreamARN": arn}))
        }
        SourceKind::DynamoDb => {
            ("dynamodb", "DynamoDBStreams_20120810.DescribeStream", json!({"StreamArn": arn}))
        }
        _ => return Ok(()),
    };
    if !context.services.has(service) {
        return Ok(());
    }
    let asked = (Method::POST, "/", "");
    let response = context
        .services
        .call(service, asked, Some(target), body.to_string().into_bytes(), ANSWER_BYTES_MAX)
        .await
        .map_err(invalid)?;
    match response.status {
        200 => Ok(()),
        400 | 404 if kind == SourceKind::Sqs => Err(invalid(
            "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified queue does not exist.",
        )),
        400 | 404 => Err(invalid(format!("Stream not found: {arn}"))),
        status => Err(invalid(format!("{service} answered {status} when it was asked for {arn}."))),
    }
}
