//! RabbitMQ, by AMQP 0-9-1.
//!
//! What failed is given back to its queue, at its old place, and comes again as `redelivered`: so the queue's own limits of
//! age and deliveries hold, and its dead letters. AWS says only that a batch is tried until it succeeds or expires.

use std::time::Duration;

use amqprs::callbacks::DefaultChannelCallback;
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicNackArguments, BasicQosArguments, Channel, ConsumerMessage,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::{BasicProperties, FieldTable, FieldValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ondol_core::event_source::again_seconds;
use ondol_services::Broker;
use ondol_wire::time::java_date;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::broker::{ahead, credentials, queue, unreachable};
use super::mapping::Reading;
use super::source::{AfterFailure, Record, Source, Trouble, joined};

const HEARTBEAT_SECONDS: u16 = 30;
const OPEN_WAIT: Duration = Duration::from_secs(10);

pub struct RabbitMq<'a> {
    // Messages come for as long as both are open.
    connection: Connection,
    channel: Channel,
    messages: UnboundedReceiver<ConsumerMessage>,
    broker: &'a Broker,
    arn: &'a str,
    /// As events name it: its name, two colons, the virtual host.
    queue: String,
}

impl<'a> RabbitMq<'a> {
    pub async fn open<I>(reading: &'a Reading<I>, broker: &'a Broker) -> Result<Self, Trouble> {
        let credentials = credentials(reading).await?;
        let queue = queue(reading)?;
        let virtual_host = reading.mapping.access("VIRTUAL_HOST").unwrap_or("/");
        if virtual_host.len() > 255 {
            return Err(Trouble(
                "ESM_CONFIG_NOT_VALID: The virtual host's name has more than 255 bytes.".into(),
            ));
        }
        let host = if broker.host.contains(':') { format!("[{}]", broker.host) } else { broker.host.clone() };
        let mut arguments =
            OpenConnectionArguments::new(&host, broker.port, &credentials.username, &credentials.password);
        arguments.virtual_host(virtual_host).heartbeat(HEARTBEAT_SECONDS);
        let open = async {
            let connection = Connection::open(&arguments).await?;
            let channel = connection.open_channel(None).await?;
            // With it a consumer ends when the broker cancels it, as when its queue is deleted.
            channel.register_callback(DefaultChannelCallback).await?;
            channel.basic_qos(BasicQosArguments::new(0, ahead(reading), false)).await?;
            let (_, messages) = channel.basic_consume_rx(BasicConsumeArguments::new(queue, "")).await?;
            Ok::<_, amqprs::error::Error>((connection, channel, messages))
        };
        let refused = |error: amqprs::error::Error| {
            let why = error.to_string();
            // RabbitMQ closes the connection of somebody it does not know without a word.
            let hint = "are the user, the password, the virtual host and the queue right?";
            unreachable(broker, &format!("{why} ({hint})"))
        };
        let late = |_| unreachable(broker, "it gave no answer in 10 seconds");
        let opened = tokio::time::timeout(OPEN_WAIT, open).await.map_err(late)?;
        let (connection, channel, messages) = opened.map_err(refused)?;
        Ok(Self {
            connection,
            channel,
            messages,
            broker,
            arn: reading.mapping.event_source_arn.as_deref().unwrap_or_default(),
            queue: format!("{queue}::{virtual_host}"),
        })
    }

    fn lost(&self) -> Trouble {
        let why = if self.connection.is_open() { "the queue is gone" } else { "the connection is lost" };
        unreachable(self.broker, why)
    }

    fn trouble(&self, error: &amqprs::error::Error) -> Trouble {
        unreachable(self.broker, &error.to_string())
    }
}

/// A message as Lambda writes it. Source: AWS's example event.
fn record(message: ConsumerMessage) -> Option<Record<u64>> {
    let (deliver, properties) = (message.deliver?, message.basic_properties?);
    let content = message.content.unwrap_or_default();
    let shown = json!({
        "basicProperties": basic_properties(&properties, content.len()),
        "redelivered": deliver.redelivered(),
        "data": STANDARD.encode(&content),
    });
    Some(Record {
        id: deliver.delivery_tag().to_string(),
        members: Map::new(),
        payload: content.into(),
        rendered: shown.to_string(),
        until: None,
        handle: deliver.delivery_tag(),
    })
}

fn basic_properties(of: &BasicProperties, body_bytes: usize) -> Value {
    let timestamp = of.timestamp().and_then(|seconds| i64::try_from(seconds).ok()).map(java_date);
    json!({
        "contentType": of.content_type(),
        "contentEncoding": of.content_encoding(),
        "headers": of.headers().map(table),
        "deliveryMode": of.delivery_mode(),
        "priority": of.priority(),
        "correlationId": of.correlation_id(),
        "replyTo": of.reply_to(),
        "expiration": of.expiration(),
        "messageId": of.message_id(),
        "timestamp": timestamp,
        "type": of.message_type(),
        "userId": of.user_id(),
        "appId": of.app_id(),
        "clusterId": of.cluster_id(),
        "bodySize": body_bytes,
    })
}

fn table(fields: &FieldTable) -> Value {
    let mut fields: Vec<(&String, Value)> =
        fields.as_ref().iter().map(|(name, value)| (name.as_ref(), field(value))).collect();
    fields.sort_by(|one, other| one.0.cmp(other.0));
    Value::Object(fields.into_iter().map(|(name, value)| (name.clone(), value)).collect())
}

/// Texts are bytes, as AWS's example shows them, and Java's have a sign; of the other types it shows numbers only.
fn field(value: &FieldValue) -> Value {
    match value {
        FieldValue::t(value) => (*value).into(),
        FieldValue::b(value) => (*value).into(),
        FieldValue::B(value) => (*value).into(),
        FieldValue::s(value) => (*value).into(),
        FieldValue::u(value) => (*value).into(),
        FieldValue::I(value) => (*value).into(),
        FieldValue::i(value) => (*value).into(),
        FieldValue::l(value) => (*value).into(),
        FieldValue::f(value) => (*value).into(),
        FieldValue::d(value) => (*value).into(),
        FieldValue::D(value) => value.to_string().into(),
        FieldValue::S(text) => signed(text.as_ref().as_bytes()),
        FieldValue::A(values) => {
            let values: Vec<FieldValue> = values.clone().into();
            values.iter().map(field).collect::<Vec<_>>().into()
        }
        FieldValue::T(seconds) => i64::try_from(*seconds).map(java_date).unwrap_or_default().into(),
        FieldValue::F(fields) => table(fields),
        FieldValue::V => Value::Null,
        FieldValue::x(bytes) => {
            let bytes: Vec<u8> = bytes.clone().into();
            signed(&bytes)
        }
    }
}

fn signed(bytes: &[u8]) -> Value {
    let bytes: Vec<i8> = bytes.iter().map(|byte| byte.cast_signed()).collect();
    json!({"bytes": bytes})
}

impl Source for RabbitMq<'_> {
    type Handle = u64;
    const MAY_LEAVE: bool = true;
    const GIVES_ALL_BACK: bool = true;

    async fn receive(&mut self, count_max: usize, wait: Duration) -> Result<Vec<Record<u64>>, Trouble> {
        let first = match tokio::time::timeout(wait, self.messages.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(self.lost()),
            Err(_) if self.channel.is_open() && self.connection.is_open() => return Ok(Vec::new()),
            Err(_) => return Err(self.lost()),
        };
        let mut records: Vec<Record<u64>> = record(first).into_iter().collect();
        while records.len() < count_max
            && let Ok(message) = self.messages.try_recv()
        {
            records.extend(record(message));
        }
        Ok(records)
    }

    async fn done(&mut self, tags: Vec<u64>) -> Result<(), Trouble> {
        for tag in tags {
            let acknowledged = self.channel.basic_ack(BasicAckArguments::new(tag, false)).await;
            acknowledged.map_err(|error| self.trouble(&error))?;
        }
        Ok(())
    }

    fn pause_seconds(&self, failures: u32) -> u64 {
        again_seconds(failures - 1)
    }

    async fn failed(&mut self, batch: &mut Vec<Record<u64>>, _: u32) -> Result<AfterFailure, Trouble> {
        // With what came behind them, which must not overtake them.
        let mut last = batch.drain(..).map(|record| record.handle).max().unwrap_or_default();
        while let Ok(message) = self.messages.try_recv() {
            last = message.deliver.map_or(last, |deliver| last.max(deliver.delivery_tag()));
        }
        let arguments = BasicNackArguments::new(last, true, true);
        self.channel.basic_nack(arguments).await.map_err(|error| self.trouble(&error))?;
        Ok(AfterFailure::Left)
    }

    fn event(&self, batch: &[Record<u64>]) -> Bytes {
        let (arn, queue) = (Value::from(self.arn), Value::from(self.queue.as_str()));
        format!(
            r#"{{"eventSource":"aws:rmq","eventSourceArn":{arn},"rmqMessagesByQueue":{{{queue}:[{}]}}}}"#,
            joined(batch)
        )
        .into()
    }
}
