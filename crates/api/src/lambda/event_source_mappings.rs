//! Event source mappings: kept whole and checked. `events::sources` reads the sources and tells how that goes.

use ondol_core::event_pattern::Pattern;
use ondol_core::event_source::SourceReport;
use ondol_core::event_source_mapping::{Change, EventSourceMapping, SourceKind, Wanted};
use ondol_core::identity::FunctionReference;
use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    CreateEventSourceMappingRequest, DeleteEventSourceMappingRequest, DestinationConfig,
    EventSourceMappingConfiguration, FilterCriteria, GetEventSourceMappingRequest,
    ListEventSourceMappingsRequest, ListEventSourceMappingsResponse, OnFailure,
    UpdateEventSourceMappingRequest,
};
use serde_json::{Map, Value, json};

use super::{event_sources, holder, page, tags};
use crate::context::{Context, uuid};
use crate::faults::{fault, invalid};

const NOTHING_PROCESSED: &str = "No records processed";
/// Batches of a queue larger than this must wait for a window.
const SQS_BATCH_WITHOUT_WINDOW_MAX: i32 = 10;

pub async fn create(
    context: &Context,
    input: CreateEventSourceMappingRequest,
) -> Result<EventSourceMappingConfiguration, Fault> {
    check_success(input.destination_config.as_ref())?;
    let kind = kind_of(&input)?;
    check(context, kind, &input)?;
    let (function, qualifier) = function_of(context, input.function_name.as_deref())?;
    let own_tags = input.tags.clone().unwrap_or_default();
    tags::check(&own_tags)?;
    event_sources::check(context, kind, input.event_source_arn.as_deref(), (&function, qualifier.as_deref()))
        .await?;
    let id = uuid();
    let mapping = EventSourceMapping {
        settings: settings(defaults(kind, &id, &input)),
        uuid: id,
        kind,
        function,
        qualifier,
        event_source_arn: input.event_source_arn.clone(),
        wanted: if input.enabled == Some(false) { Wanted::Disabled } else { Wanted::Enabled },
        change: Change::Created,
        generation: 1,
        state_transition_reason: reason_of(kind).into(),
        last_processing_result: NOTHING_PROCESSED.into(),
        last_modified_epoch_millis: context.now_epoch_millis(),
        tags: own_tags,
    };
    let key = keys::event_source_mapping(&mapping.uuid);
    context
        .change(|| {
            let all: Vec<EventSourceMapping> = context.all(keys::EVENT_SOURCE_MAPPINGS)?;
            if let Some(same) = all.iter().find(|other| is_same(other, &mapping)) {
                return Err(exists(context, same, &mapping));
            }
            if let Some(other) = all.iter().find(|other| shares_group(other, &mapping)) {
                return Err(invalid(format!(
                    "The consumer group {} is that of the event source mapping {}. Choose another ConsumerGroupId: two readers would lose each other's place.",
                    mapping.consumer_group(),
                    other.uuid
                )));
            }
            let absent = Precondition::Absent(key.clone());
            Ok((Transaction::default().when(absent).put(key.clone(), &mapping), ()))
        })
        .await?;
    Ok(shown_as(context, &mapping, None, mapping.changing()))
}

fn kind_of(input: &CreateEventSourceMappingRequest) -> Result<SourceKind, Fault> {
    match &input.event_source_arn {
        Some(arn) => SourceKind::of_arn(arn).ok_or_else(|| invalid("Unrecognized event source.")),
        None if input.self_managed_event_source.is_some() => Ok(SourceKind::SelfManagedKafka),
        None => Err(invalid("Unrecognized event source.")),
    }
}

/// The function or alias must be there.
fn function_of(context: &Context, text: Option<&str>) -> Result<(String, Option<String>), Fault> {
    let reference = FunctionReference::parse(text.unwrap_or_default());
    let gone = || invalid("Function does not exist");
    let qualifier = reference.in_home(&context.home, None).map_err(|_| gone())?;
    holder::find(context, &reference.name, qualifier.as_deref()).map_err(|_| gone())?;
    Ok((reference.name, qualifier))
}

fn check(context: &Context, kind: SourceKind, input: &CreateEventSourceMappingRequest) -> Result<(), Fault> {
    let arn = input.event_source_arn.as_deref().unwrap_or_default();
    if kind == SourceKind::Sqs && input.starting_position.is_some() {
        return Err(invalid("StartingPosition is not valid for SQS event sources."));
    }
    if kind == SourceKind::DynamoDb && !arn.contains("/stream/") {
        return Err(invalid("Unrecognized event source."));
    }
    if (input.starting_position.as_deref(), kind) == (Some("AT_TIMESTAMP"), SourceKind::Kinesis)
        && input.starting_position_timestamp.is_none()
    {
        return Err(invalid("Need to specify a timestamp when the starting position is AT_TIMESTAMP."));
    }
    check_members(kind, &settings(given(input)))?;
    check_broker(kind, input)?;
    if kind == SourceKind::SelfManagedKafka && input.source_access_configurations.is_none() {
        return Err(invalid("Required 'sourceAccessConfigurations' parameter is missing."));
    }
    if kind.is_stream() && input.starting_position.is_none() {
        return Err(invalid(
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null.",
        ));
    }
    if let (Some("AT_TIMESTAMP"), SourceKind::DynamoDb) = (input.starting_position.as_deref(), kind) {
        let arn = input.event_source_arn.as_deref().unwrap_or_default();
        return Err(invalid(format!("Unsupported starting position for arn type: {arn}")));
    }
    check_batch(kind, arn, input.batch_size, input.maximum_batching_window_in_seconds)?;
    check_destination(kind, input.destination_config.as_ref())?;
    check_age(input.maximum_record_age_in_seconds)?;
    check_pollers(&settings(given(input)))?;
    if kind == SourceKind::Sqs && arn.split(':').nth(3) != Some(context.home.region.as_str()) {
        return Err(invalid(format!(
            "The queue {arn} isn't in the function's region, {}.",
            context.home.region
        )));
    }
    check_filters(context, input.filter_criteria.as_ref())
}

/// A broker is read from one queue, with credentials.
fn check_broker(kind: SourceKind, input: &CreateEventSourceMappingRequest) -> Result<(), Fault> {
    if kind != SourceKind::Mq {
        return Ok(());
    }
    if input.queues.as_ref().is_none_or(|queues| queues.len() != 1) {
        return Err(invalid("Queues must name exactly one queue for an Amazon MQ event source."));
    }
    let access = input.source_access_configurations.as_deref().unwrap_or_default();
    if access.iter().all(|one| one.r#type.as_deref() != Some("BASIC_AUTH")) {
        return Err(invalid(
            "SourceAccessConfigurations must name a secret with the type BASIC_AUTH for an Amazon MQ event source.",
        ));
    }
    Ok(())
}

/// Only what failed is sent anywhere.
fn check_success(config: Option<&DestinationConfig>) -> Result<(), Fault> {
    if config.is_some_and(|config| config.on_success.is_some()) {
        return Err(invalid("Unsupported DestinationConfig parameter for given event source mapping type."));
    }
    Ok(())
}

fn check_age(seconds: Option<i32>) -> Result<(), Fault> {
    match seconds {
        Some(0..60) => Err(invalid(
            "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)",
        )),
        _ => Ok(()),
    }
}

/// Pollers are either provisioned or bounded. Asked of what the settings are to be as a whole.
fn check_pollers(settings: &Map<String, Value>) -> Result<(), Fault> {
    let number = |config: &str, name: &str| settings.get(config).and_then(|config| config[name].as_i64());
    let pollers = ["MinimumPollers", "MaximumPollers"].map(|name| number("ProvisionedPollerConfig", name));
    if pollers != [None, None] && number("ScalingConfig", "MaximumConcurrency").is_some() {
        return Err(invalid("ScalingConfig and ProvisionedPollerConfig can't be given together."));
    }
    match pollers {
        [Some(minimum), Some(maximum)] if minimum > maximum => {
            Err(invalid("MinimumPollers must not be more than MaximumPollers."))
        }
        _ => Ok(()),
    }
}

/// Settings that only some sources know. Source: AWS's table of parameters by event source.
fn check_members(kind: SourceKind, given: &Map<String, Value>) -> Result<(), Fault> {
    let is_kafka = matches!(kind, SourceKind::Msk | SourceKind::SelfManagedKafka);
    let is_known = |name: &str| match name {
        // Kafka knows some of these too, where its pollers are provisioned.
        "BisectBatchOnFunctionError" | "MaximumRecordAgeInSeconds" | "MaximumRetryAttempts" => {
            kind.is_stream() || is_kafka
        }
        "TumblingWindowInSeconds" | "ParallelizationFactor" => kind.is_stream(),
        "FunctionResponseTypes" => !matches!(kind, SourceKind::Mq | SourceKind::DocumentDb),
        "Topics" => is_kafka,
        "Queues" => kind == SourceKind::Mq,
        "ScalingConfig" => kind == SourceKind::Sqs,
        "ProvisionedPollerConfig" => is_kafka || kind == SourceKind::Sqs,
        "SourceAccessConfigurations" => is_kafka || matches!(kind, SourceKind::Mq | SourceKind::DocumentDb),
        "SelfManagedEventSource" | "SelfManagedKafkaEventSourceConfig" => {
            kind == SourceKind::SelfManagedKafka
        }
        "AmazonManagedKafkaEventSourceConfig" => kind == SourceKind::Msk,
        "DocumentDBEventSourceConfig" => kind == SourceKind::DocumentDb,
        _ => true,
    };
    match given.keys().find(|name| !is_known(name)) {
        Some(name) => {
            let name: String = name[..1].to_ascii_lowercase() + &name[1..];
            Err(invalid(format!("Unsupported '{name}' parameter for given event source mapping type.")))
        }
        None => Ok(()),
    }
}

fn check_batch(kind: SourceKind, arn: &str, size: Option<i32>, window: Option<i32>) -> Result<(), Fault> {
    if kind == SourceKind::Sqs && arn.ends_with(".fifo") && window.unwrap_or(0) > 0 {
        return Err(invalid("Batching window is not supported for FIFO queues"));
    }
    let size = size.unwrap_or_else(|| kind.batch_size_default());
    if kind == SourceKind::Sqs && arn.ends_with(".fifo") && size > SQS_BATCH_WITHOUT_WINDOW_MAX {
        return Err(invalid(format!(
            "Maximum batch size must be between 1 and {SQS_BATCH_WITHOUT_WINDOW_MAX} inclusive"
        )));
    }
    if kind == SourceKind::Sqs && size > SQS_BATCH_WITHOUT_WINDOW_MAX && window.unwrap_or(0) == 0 {
        return Err(invalid(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ));
    }
    Ok(())
}

fn check_destination(kind: SourceKind, config: Option<&DestinationConfig>) -> Result<(), Fault> {
    if kind == SourceKind::Sqs && config.is_some() {
        return Err(invalid("Unsupported DestinationConfig parameter for given event source mapping type."));
    }
    if config.and_then(|config| config.on_failure.as_ref()).is_some_and(|side| side.destination.is_none()) {
        return Err(invalid("The Destination field is required for an OnFailure configuration."));
    }
    Ok(())
}

/// Patterns are JSON objects whose leaves are lists of what matches.
fn check_filters(context: &Context, criteria: Option<&FilterCriteria>) -> Result<(), Fault> {
    let filters = criteria.and_then(|criteria| criteria.filters.as_deref()).unwrap_or_default();
    let limit = context.quotas.filters_per_event_source_mapping;
    if filters.len() > limit as usize {
        return Err(invalid(format!("An event source mapping may have {limit} filters.")));
    }
    for filter in filters {
        let pattern = filter.pattern.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        if pattern.as_ref().and_then(Pattern::parse).is_none() {
            return Err(invalid("Invalid filter pattern definition."));
        }
    }
    Ok(())
}

/// The settings a request gives.
fn given(input: &CreateEventSourceMappingRequest) -> EventSourceMappingConfiguration {
    EventSourceMappingConfiguration {
        batch_size: input.batch_size,
        maximum_batching_window_in_seconds: input.maximum_batching_window_in_seconds,
        starting_position: input.starting_position.clone(),
        starting_position_timestamp: input.starting_position_timestamp,
        filter_criteria: input.filter_criteria.clone(),
        kms_key_arn: input.kms_key_arn.clone(),
        metrics_config: input.metrics_config.clone(),
        logging_config: input.logging_config.clone(),
        scaling_config: input.scaling_config.clone(),
        destination_config: input.destination_config.clone(),
        parallelization_factor: input.parallelization_factor,
        maximum_record_age_in_seconds: input.maximum_record_age_in_seconds,
        bisect_batch_on_function_error: input.bisect_batch_on_function_error,
        maximum_retry_attempts: input.maximum_retry_attempts,
        tumbling_window_in_seconds: input.tumbling_window_in_seconds,
        topics: input.topics.clone(),
        queues: input.queues.clone(),
        source_access_configurations: input.source_access_configurations.clone(),
        self_managed_event_source: input.self_managed_event_source.clone(),
        function_response_types: input.function_response_types.clone(),
        amazon_managed_kafka_event_source_config: input.amazon_managed_kafka_event_source_config.clone(),
        self_managed_kafka_event_source_config: input.self_managed_kafka_event_source_config.clone(),
        document_db_event_source_config: input.document_db_event_source_config.clone(),
        provisioned_poller_config: input.provisioned_poller_config.clone(),
        ..Default::default()
    }
}

/// What the service answers when a mapping's settings are left out, by what it reads. Source: AWS's API reference.
fn defaults(
    kind: SourceKind,
    uuid: &str,
    input: &CreateEventSourceMappingRequest,
) -> EventSourceMappingConfiguration {
    let mut out = given(input);
    // What says nothing is as good as left out.
    out.filter_criteria =
        out.filter_criteria.filter(|given| given.filters.as_ref().is_some_and(|f| !f.is_empty()));
    out.scaling_config = out.scaling_config.filter(|given| given.maximum_concurrency.is_some());
    out.provisioned_poller_config = out
        .provisioned_poller_config
        .filter(|given| given.minimum_pollers.is_some() || given.maximum_pollers.is_some());
    if kind.is_stream() {
        out.destination_config = out.destination_config.filter(|given| given.on_failure.is_some());
    }
    out.batch_size.get_or_insert_with(|| kind.batch_size_default());
    let no_failures = || DestinationConfig { on_success: None, on_failure: Some(OnFailure::default()) };
    match kind {
        SourceKind::Sqs => {
            out.maximum_batching_window_in_seconds.get_or_insert(0);
            out.function_response_types.get_or_insert_default();
        }
        SourceKind::Kinesis | SourceKind::DynamoDb => {
            out.maximum_batching_window_in_seconds.get_or_insert(0);
            out.function_response_types.get_or_insert_default();
            out.parallelization_factor.get_or_insert(1);
            out.maximum_record_age_in_seconds.get_or_insert(-1);
            out.maximum_retry_attempts.get_or_insert(-1);
            out.tumbling_window_in_seconds.get_or_insert(0);
            out.bisect_batch_on_function_error.get_or_insert(false);
            out.destination_config.get_or_insert_with(no_failures);
        }
        SourceKind::Msk | SourceKind::SelfManagedKafka => {
            out.starting_position.get_or_insert_with(|| "TRIM_HORIZON".into());
            out.destination_config.get_or_insert_with(no_failures);
            // A consumer group that nobody chose is named after the mapping.
            let group = Some(uuid.to_owned());
            if kind == SourceKind::SelfManagedKafka {
                let config = out.self_managed_kafka_event_source_config.get_or_insert_default();
                config.consumer_group_id = config.consumer_group_id.take().or(group);
            } else {
                let config = out.amazon_managed_kafka_event_source_config.get_or_insert_default();
                config.consumer_group_id = config.consumer_group_id.take().or(group);
            }
        }
        SourceKind::Mq | SourceKind::DocumentDb => {
            out.maximum_batching_window_in_seconds.get_or_insert(0);
        }
    }
    out
}

fn settings(config: EventSourceMappingConfiguration) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(settings)) => settings,
        _ => Map::new(),
    }
}

fn reason_of(kind: SourceKind) -> &'static str {
    if kind.is_stream() { "User action" } else { "USER_INITIATED" }
}

/// Whether two mappings would read the same for the same function.
fn is_same(a: &EventSourceMapping, b: &EventSourceMapping) -> bool {
    let setting = |of: &EventSourceMapping, name: &str| of.settings.get(name).cloned();
    let source = |of: &EventSourceMapping| match &of.event_source_arn {
        Some(arn) => Value::from(arn.as_str()),
        None => setting(of, "SelfManagedEventSource").unwrap_or_default(),
    };
    let queue = |of: &EventSourceMapping| (setting(of, "Topics"), setting(of, "Queues"));
    let reads_same = || match a.kind {
        // One server and one topic in common are enough.
        SourceKind::SelfManagedKafka => {
            a.bootstrap_servers().any(|server| b.bootstrap_servers().any(|other| other == server))
                && a.texts("Topics").any(|topic| b.texts("Topics").any(|other| other == topic))
        }
        _ => source(a) == source(b) && queue(a) == queue(b),
    };
    (a.function.as_str(), &a.qualifier) == (b.function.as_str(), &b.qualifier)
        && a.kind == b.kind
        && reads_same()
}

/// Whether two mappings would keep their place under the same name.
fn shares_group(a: &EventSourceMapping, b: &EventSourceMapping) -> bool {
    let is_kafka = |of: &EventSourceMapping| of.kind == SourceKind::SelfManagedKafka;
    is_kafka(a) && is_kafka(b) && a.consumer_group() == b.consumer_group()
}

fn exists(context: &Context, same: &EventSourceMapping, asked: &EventSourceMapping) -> Fault {
    let EventSourceMapping { uuid, function, .. } = same;
    let arn = same.event_source_arn.as_deref().unwrap_or_default();
    let please = format!("Please update or delete the existing mapping with UUID {uuid}");
    let text = match same.kind {
        SourceKind::Sqs => format!(
            "An event source mapping with SQS arn (\" {arn} \") and function (\" {function} \") already exists. {please}"
        ),
        kind if kind.is_stream() => format!(
            "The event source arn (\" {arn} \") and function (\" {function} \") provided mapping already exists. {please}"
        ),
        kind => {
            let source = if kind == SourceKind::SelfManagedKafka {
                asked.bootstrap_servers().collect::<Vec<_>>().join(",")
            } else {
                arn.to_owned()
            };
            let function = context.home.function_arn(function, same.qualifier.as_deref());
            let topics = asked.texts("Topics").collect::<Vec<_>>().join(",");
            format!(
                "An event source mapping with event source (\"{source}\"), function (\"{function}\"), topics (\"{topics}\") already exists. {please}"
            )
        }
    };
    fault("ResourceConflictException", text)
}

/// A mapping in its present state.
fn shown(context: &Context, mapping: &EventSourceMapping) -> EventSourceMappingConfiguration {
    let reports = context.sources.borrow();
    let report = reports.get(&mapping.uuid);
    shown_as(context, mapping, report, mapping.state(report))
}

fn shown_as(
    context: &Context,
    mapping: &EventSourceMapping,
    report: Option<&SourceReport>,
    state: &str,
) -> EventSourceMappingConfiguration {
    let mut out: EventSourceMappingConfiguration =
        serde_json::from_value(Value::Object(mapping.settings.clone())).unwrap_or_default();
    out.uuid = Some(mapping.uuid.clone());
    out.event_source_arn.clone_from(&mapping.event_source_arn);
    out.event_source_mapping_arn = Some(context.home.event_source_mapping_arn(&mapping.uuid));
    out.function_arn = Some(context.home.function_arn(&mapping.function, mapping.qualifier.as_deref()));
    #[allow(clippy::cast_precision_loss)]
    let last_modified = mapping.last_modified_epoch_millis as f64 / 1_000.0;
    out.last_modified = Some(last_modified);
    out.state = Some(state.to_owned());
    let trouble = report.and_then(|report| report.trouble.as_ref());
    out.state_transition_reason = Some(trouble.unwrap_or(&mapping.state_transition_reason).clone());
    if mapping.kind != SourceKind::Sqs {
        let result = report.and_then(|report| report.last_processing_result.as_ref());
        out.last_processing_result = Some(result.unwrap_or(&mapping.last_processing_result).clone());
    }
    out
}

fn find(context: &Context, uuid: Option<&str>) -> Result<(EventSourceMapping, Revision), Fault> {
    let found = context.document(&keys::event_source_mapping(uuid.unwrap_or_default()))?;
    found.ok_or_else(|| fault("ResourceNotFoundException", "The resource you requested does not exist."))
}

/// The mapping of an ARN, for its tags.
pub fn of_arn(context: &Context, arn: &str) -> Result<(EventSourceMapping, Revision), Fault> {
    let missing = || fault("ResourceNotFoundException", format!("Event source mapping not found: {arn}"));
    let uuid = arn.rsplit(':').next().unwrap_or_default();
    if arn != context.home.event_source_mapping_arn(uuid) {
        return Err(missing());
    }
    find(context, Some(uuid)).map_err(|_| missing())
}

pub fn replace(mapping: &EventSourceMapping, revision: Revision) -> Transaction {
    let key = keys::event_source_mapping(&mapping.uuid);
    Transaction::default().when(Precondition::Unchanged(key.clone(), revision)).put(key, mapping)
}

pub async fn get(
    context: &Context,
    input: GetEventSourceMappingRequest,
) -> Result<EventSourceMappingConfiguration, Fault> {
    Ok(shown(context, &find(context, input.uuid.as_deref())?.0))
}

pub async fn update(
    context: &Context,
    input: UpdateEventSourceMappingRequest,
) -> Result<EventSourceMappingConfiguration, Fault> {
    let (before, _) = find(context, input.uuid.as_deref())?;
    let function = match &input.function_name {
        Some(name) => Some(function_of(context, Some(name))?),
        None => None,
    };
    check_success(input.destination_config.as_ref())?;
    check_destination(before.kind, input.destination_config.as_ref())?;
    check_age(input.maximum_record_age_in_seconds)?;
    check_filters(context, input.filter_criteria.as_ref())?;
    // What is only switched off or adjusted need not be there any more.
    if function.is_some() || input.enabled == Some(true) {
        let (name, qualifier) = function.clone().unwrap_or((before.function, before.qualifier));
        let arn = before.event_source_arn.as_deref();
        event_sources::check(context, before.kind, arn, (&name, qualifier.as_deref())).await?;
    }
    let updated = context
        .change(|| {
            let (mut mapping, revision) = find(context, input.uuid.as_deref())?;
            if let Some((name, qualifier)) = function.clone() {
                (mapping.function, mapping.qualifier) = (name, qualifier);
            }
            if let Some(enabled) = input.enabled {
                mapping.wanted = if enabled { Wanted::Enabled } else { Wanted::Disabled };
            }
            mapping.change = match input.enabled {
                Some(true) => Change::Enabled,
                Some(false) => Change::Disabled,
                None => Change::Updated,
            };
            mapping.generation += 1;
            // What the request gives replaces what was there, member by member.
            let Ok(Value::Object(mut asked)) = serde_json::to_value(&input) else {
                return Err(fault("ServiceException", "The request can't be kept."));
            };
            asked.retain(|name, _| !matches!(name.as_str(), "UUID" | "FunctionName" | "Enabled"));
            check_members(mapping.kind, &asked)?;
            for (name, value) in asked {
                match name.as_str() {
                    // A stream's destination of nothing is none; of a queue it has none at all.
                    "DestinationConfig" if !has_destination(&value) => {
                        mapping.settings.insert(name, json!({"OnFailure": {}}));
                    }
                    "ScalingConfig" | "ProvisionedPollerConfig"
                        if value.as_object().is_none_or(Map::is_empty) =>
                    {
                        mapping.settings.remove(&name);
                    }
                    // No filters any more is no criteria at all.
                    "FilterCriteria" if value["Filters"].as_array().is_none_or(Vec::is_empty) => {
                        mapping.settings.remove(&name);
                    }
                    _ => drop(mapping.settings.insert(name, value)),
                }
            }
            check_pollers(&mapping.settings)?;
            let number = |name: &str| {
                mapping.settings.get(name).and_then(Value::as_i64).and_then(|value| i32::try_from(value).ok())
            };
            check_batch(
                mapping.kind,
                mapping.event_source_arn.as_deref().unwrap_or_default(),
                number("BatchSize"),
                number("MaximumBatchingWindowInSeconds"),
            )?;
            mapping.state_transition_reason = reason_of(mapping.kind).into();
            mapping.last_modified_epoch_millis = context.now_epoch_millis();
            Ok((replace(&mapping, revision), mapping))
        })
        .await?;
    Ok(shown_as(context, &updated, None, updated.changing()))
}

fn has_destination(config: &Value) -> bool {
    let of = |side: &str| config[side]["Destination"].as_str().is_some_and(|arn| !arn.is_empty());
    of("OnFailure") || of("OnSuccess")
}

pub async fn delete(
    context: &Context,
    input: DeleteEventSourceMappingRequest,
) -> Result<EventSourceMappingConfiguration, Fault> {
    let deleted = context
        .change(|| {
            let (mapping, revision) = find(context, input.uuid.as_deref())?;
            let key = keys::event_source_mapping(&mapping.uuid);
            let unchanged = Precondition::Unchanged(key.clone(), revision);
            Ok((Transaction::default().when(unchanged).delete(key), mapping))
        })
        .await?;
    Ok(shown_as(context, &deleted, None, "Deleting"))
}

pub async fn list(
    context: &Context,
    input: ListEventSourceMappingsRequest,
) -> Result<ListEventSourceMappingsResponse, Fault> {
    let function = input.function_name.as_deref().map(FunctionReference::parse);
    let wanted = |mapping: &EventSourceMapping| {
        let of_function = function.as_ref().is_none_or(|reference| {
            mapping.function == reference.name
                && (reference.qualifier.is_none() || mapping.qualifier == reference.qualifier)
        });
        of_function
            && (input.event_source_arn.is_none() || mapping.event_source_arn == input.event_source_arn)
    };
    let all: Vec<EventSourceMapping> = context.all(keys::EVENT_SOURCE_MAPPINGS)?;
    let shown = all
        .iter()
        .filter(|mapping| wanted(mapping))
        .map(|mapping| (mapping.uuid.clone(), shown(context, mapping)))
        .collect();
    let (mappings, next_marker) = page(shown, input.marker.as_deref(), input.max_items);
    Ok(ListEventSourceMappingsResponse { next_marker, event_source_mappings: Some(mappings) })
}
