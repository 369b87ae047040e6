//! Event source mappings: what is read, for which function, and how it is cut into batches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a mapping reads from, told by its ARN or its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceKind {
    Sqs,
    Kinesis,
    DynamoDb,
    Msk,
    SelfManagedKafka,
    Mq,
    DocumentDb,
}

impl SourceKind {
    /// By the service's name in an ARN.
    pub fn of_arn(arn: &str) -> Option<Self> {
        match arn.split(':').nth(2)? {
            "sqs" => Some(Self::Sqs),
            "kinesis" => Some(Self::Kinesis),
            "dynamodb" => Some(Self::DynamoDb),
            "kafka" => Some(Self::Msk),
            "mq" => Some(Self::Mq),
            "rds" => Some(Self::DocumentDb),
            _ => None,
        }
    }

    /// Records come in order from shards or partitions, from a position that must be named.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Kinesis | Self::DynamoDb)
    }

    pub fn has_starting_position(self) -> bool {
        !matches!(self, Self::Sqs | Self::Mq)
    }

    /// Items of one batch, unless the mapping says otherwise. Source: AWS's API reference.
    pub fn batch_size_default(self) -> i32 {
        if self == Self::Sqs { 10 } else { 100 }
    }
}

/// A mapping. The settings the service hands back as they are stay in the form they were given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventSourceMapping {
    pub uuid: String,
    pub kind: SourceKind,
    pub function: String,
    pub qualifier: Option<String>,
    pub event_source_arn: Option<String>,
    /// `Enabled`, `Disabled`, `Deleting`: what is asked for.
    pub wanted: Wanted,
    pub state_transition_reason: String,
    pub last_processing_result: String,
    pub last_modified_epoch_millis: i64,
    /// Members of the API's answer that are the user's own settings, with their defaults.
    pub settings: Map<String, Value>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    Enabled,
    Disabled,
}
