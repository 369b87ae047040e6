//! Event source mappings: what is read, for which function, and how it is cut into batches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::attached::Alias;
use crate::event_source::{BATCH_BYTES_MAX, BatchLimits, Filters, Pollers, SourceReport};

/// Records of brokers and Kafka wait so long for others unless the mapping says otherwise. Source: AWS's page on batching.
const WINDOW_MILLIS: u64 = 500;
/// Provisioned pollers of a queue, unless the mapping says otherwise. Source: AWS's API reference.
const POLLERS_LEAST: u32 = 2;
const POLLERS_MOST: u32 = 200;

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

    /// The member of a record that filters see as its payload.
    fn payload_member(self) -> &'static str {
        match self {
            Self::Sqs => "body",
            Self::Msk | Self::SelfManagedKafka => "value",
            Self::Kinesis | Self::Mq => "data",
            Self::DynamoDb => "dynamodb",
            Self::DocumentDb => "event",
        }
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
    pub wanted: Wanted,
    /// What was asked for last; counted, so that it can be seen when it is carried out.
    #[serde(default)]
    pub change: Change,
    #[serde(default)]
    pub generation: u64,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Change {
    #[default]
    Created,
    Updated,
    Enabled,
    Disabled,
}

impl EventSourceMapping {
    /// The state as the API names it, by what its pollers tell.
    pub fn state(&self, report: Option<&SourceReport>) -> &'static str {
        let is_reading = report.is_some_and(|report| report.is_reading);
        let is_settled = report.is_some_and(|report| report.generation == self.generation);
        match self.wanted {
            _ if is_settled && is_reading => "Enabled",
            _ if is_settled => "Disabled",
            // Nothing has to be begun or ended for it.
            Wanted::Disabled if !is_reading => "Disabled",
            _ => self.changing(),
        }
    }

    /// The state in the answer to what was asked for last.
    pub fn changing(&self) -> &'static str {
        match self.change {
            Change::Created if self.wanted == Wanted::Disabled => "Disabled",
            Change::Created => "Creating",
            Change::Updated => "Updating",
            Change::Enabled => "Enabling",
            Change::Disabled => "Disabling",
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.settings.get(name)?.as_u64()
    }

    /// A setting that is a list of texts.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.settings.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    pub fn batch_limits(&self) -> BatchLimits {
        let size =
            self.number("BatchSize").unwrap_or_else(|| self.kind.batch_size_default().unsigned_abs().into());
        let window = self.number("MaximumBatchingWindowInSeconds").unwrap_or(0);
        let window_millis = match (self.kind, window) {
            (SourceKind::Sqs, seconds) => seconds * 1_000,
            (_, 0) => WINDOW_MILLIS,
            (_, seconds) => seconds * 1_000,
        };
        let records_max = usize::try_from(size).unwrap_or(usize::MAX);
        BatchLimits { records_max, bytes_max: BATCH_BYTES_MAX, window_millis }
    }

    /// None if what is kept can't be read.
    pub fn filters(&self) -> Option<Filters> {
        Filters::new(self.settings.get("FilterCriteria"), self.kind.payload_member())
    }

    /// How many read at once. A broker's number is its own, whatever the function's settings.
    pub fn pollers(&self, broker: u32) -> Pollers {
        match self.kind {
            SourceKind::Sqs => {
                let number = |config: &str, name: &str| {
                    let number = self.settings.get(config)?[name].as_u64()?;
                    u32::try_from(number).ok()
                };
                let provisioned = |name| number("ProvisionedPollerConfig", name);
                match (provisioned("MinimumPollers"), provisioned("MaximumPollers")) {
                    (None, None) => Pollers::of_queue(number("ScalingConfig", "MaximumConcurrency")),
                    (least, most) => {
                        Pollers::provisioned(least.unwrap_or(POLLERS_LEAST), most.unwrap_or(POLLERS_MOST))
                    }
                }
            }
            _ => Pollers::fixed(broker),
        }
    }

    pub fn reports_item_failures(&self) -> bool {
        self.kind == SourceKind::Sqs
            && self.texts("FunctionResponseTypes").any(|one| one == "ReportBatchItemFailures")
    }

    /// What is read, in a word or two.
    pub fn source(&self) -> String {
        let arn = self.event_source_arn.as_deref().unwrap_or("Kafka");
        match self.queue().or(self.topic()) {
            Some(name) => format!("{name} of {arn}"),
            None => arn.to_owned(),
        }
    }

    /// The broker's queue that is read.
    pub fn queue(&self) -> Option<&str> {
        self.texts("Queues").next()
    }

    pub fn topic(&self) -> Option<&str> {
        self.texts("Topics").next()
    }

    /// The addresses of a Kafka that its owner manages.
    pub fn bootstrap_servers(&self) -> impl Iterator<Item = &str> {
        let source = self.settings.get("SelfManagedEventSource");
        let servers = source.and_then(|source| source["Endpoints"]["KAFKA_BOOTSTRAP_SERVERS"].as_array());
        servers.into_iter().flatten().filter_map(Value::as_str)
    }

    /// A consumer group that nobody chose is named after the mapping.
    pub fn consumer_group(&self) -> &str {
        let config = self.settings.get("SelfManagedKafkaEventSourceConfig");
        config.and_then(|config| config["ConsumerGroupId"].as_str()).unwrap_or(&self.uuid)
    }

    /// Settings of Kafka that nothing here acts on; reading as if they were not there would be wrong.
    pub fn not_acted_on(&self) -> Option<String> {
        const ACCESS: [&str; 3] = ["BASIC_AUTH", "VPC_SUBNET", "VPC_SECURITY_GROUP"];
        if self.kind != SourceKind::SelfManagedKafka {
            return None;
        }
        let is_set = |name: &&str| match self.settings.get(*name) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            // For ever, and without end.
            Some(Value::Number(number)) => number.as_i64() != Some(-1),
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(members)) => !members.is_empty(),
            Some(_) => true,
        };
        let members = [
            "BisectBatchOnFunctionError",
            "MaximumRecordAgeInSeconds",
            "MaximumRetryAttempts",
            "FunctionResponseTypes",
            "ProvisionedPollerConfig",
        ];
        let member = members.iter().find(|name| is_set(name)).map(|name| (*name).to_owned());
        let destination = self.settings.get("DestinationConfig");
        let destination = destination.filter(|config| config["OnFailure"]["Destination"].is_string());
        let schemas = self.settings.get("SelfManagedKafkaEventSourceConfig");
        let schemas = schemas.filter(|config| config["SchemaRegistryConfig"].is_object());
        let access = self.settings.get("SourceAccessConfigurations").and_then(Value::as_array);
        let access = access.into_iter().flatten().filter_map(|one| one["Type"].as_str());
        member
            .or_else(|| destination.map(|_| "DestinationConfig".to_owned()))
            .or_else(|| schemas.map(|_| "SchemaRegistryConfig".to_owned()))
            .or_else(|| access.into_iter().find(|one| !ACCESS.contains(one)).map(str::to_owned))
    }

    /// What the mapping says of access, by type: `BASIC_AUTH`, `VIRTUAL_HOST`.
    pub fn access(&self, of: &str) -> Option<&str> {
        let configurations = self.settings.get("SourceAccessConfigurations")?.as_array()?;
        configurations.iter().find(|one| one["Type"] == of)?["URI"].as_str()
    }

    /// The broker's name in its ARN.
    pub fn broker(&self) -> Option<&str> {
        self.event_source_arn.as_deref()?.split(':').nth(6)
    }

    /// Where environments are kept ready for the function, though not where this invokes it; in a sentence. `provisioned`
    /// are the qualifiers with provisioned concurrency.
    pub fn misses_provisioned(&self, provisioned: &[String], aliases: &[Alias]) -> Option<String> {
        let mine = self.qualifier.as_deref().unwrap_or("$LATEST");
        let leads_to = aliases.iter().find(|alias| alias.name == mine).map(|alias| alias.version.as_str());
        let is_used = |one: &String| one == mine || Some(one.as_str()) == leads_to;
        if provisioned.is_empty() || provisioned.iter().any(is_used) {
            return None;
        }
        Some(format!(
            "It invokes {mine}, but provisioned concurrency is on {}: point the mapping at it (FunctionName {}:{}).",
            provisioned.join(", "),
            self.function,
            provisioned.first().map_or("", String::as_str)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(qualifier: Option<&str>) -> EventSourceMapping {
        EventSourceMapping {
            uuid: "u".into(),
            kind: SourceKind::Sqs,
            function: "orders".into(),
            qualifier: qualifier.map(str::to_owned),
            event_source_arn: Some("arn:aws:mq:r:0:broker:shop:b-1".into()),
            wanted: Wanted::Enabled,
            change: Change::Updated,
            generation: 3,
            state_transition_reason: String::new(),
            last_processing_result: String::new(),
            last_modified_epoch_millis: 0,
            settings: Map::new(),
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn a_state_is_that_of_the_pollers_once_they_have_caught_up() {
        let report = |generation, is_reading| SourceReport { generation, is_reading, ..Default::default() };
        let mut mapping = mapping(None);
        assert_eq!(mapping.state(None), "Updating");
        assert_eq!(mapping.state(Some(&report(2, true))), "Updating");
        assert_eq!(mapping.state(Some(&report(3, true))), "Enabled");
        assert_eq!(mapping.state(Some(&report(3, false))), "Disabled");
        mapping.change = Change::Created;
        assert_eq!(mapping.state(None), "Creating");
        mapping.change = Change::Updated;
        mapping.wanted = Wanted::Disabled;
        assert_eq!(mapping.state(None), "Disabled");
        assert_eq!(mapping.broker(), Some("shop"));
    }

    #[test]
    fn provisioned_concurrency_elsewhere_is_told() {
        let alias = Alias {
            function: "orders".into(),
            name: "live".into(),
            version: "7".into(),
            description: String::new(),
            additional_version_weights: BTreeMap::new(),
            revision_id: String::new(),
            attached: crate::attached::Attached::default(),
        };
        let told = |qualifier, provisioned: &[&str]| {
            let provisioned: Vec<String> = provisioned.iter().map(|&one| one.to_owned()).collect();
            mapping(qualifier).misses_provisioned(&provisioned, std::slice::from_ref(&alias))
        };
        assert_eq!(told(None, &[]), None);
        assert_eq!(told(Some("live"), &["live"]), None);
        assert_eq!(told(Some("live"), &["7"]), None, "the alias leads there");
        let text = told(None, &["live"]).unwrap();
        assert!(
            text.contains("invokes $LATEST") && text.contains("on live") && text.contains("orders:live"),
            "{text}"
        );
        assert!(told(Some("6"), &["live"]).is_some());
    }
}
