//! ActiveMQ, by OpenWire.
//!
//! What failed is offered again after a second, five times; then it goes to the broker's dead letters, as ActiveMQ's own
//! client does it by default, which is what AWS says Lambda uses.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ondol_observe::notice;
use ondol_services::Broker;
use serde_json::{Map, Value, json};

use super::broker::{ahead, credentials, queue, unreachable};
use super::mapping::Reading;
use super::openwire::{Ack, Consumer, Content, Login, Message, MessageId};
use super::source::{AfterFailure, Record, Source, Trouble, joined};

const REDELIVERIES_MAX: i32 = 5;

pub struct ActiveMq<'a> {
    consumer: Consumer,
    broker: &'a Broker,
    arn: &'a str,
}

/// What is kept of a message until it is settled.
#[derive(Debug)]
pub struct Kept {
    id: MessageId,
    shown: Value,
    redeliveries: i32,
}

impl<'a> ActiveMq<'a> {
    pub async fn open<I>(reading: &'a Reading<I>, broker: &'a Broker, index: usize) -> Result<Self, Trouble> {
        let credentials = credentials(reading).await?;
        // A broker that has not noticed yet that a connection is gone refuses its name.
        let connection = reading.tools.coins.borrow_mut().flip();
        let login = Login {
            client_id: &format!("ID:ondol-{}-{index}-{connection:x}", reading.mapping.uuid),
            username: &credentials.username,
            password: &credentials.password,
            queue: queue(reading)?,
            prefetch: ahead(reading),
        };
        let opened = Consumer::open(&broker.host, broker.port, login).await;
        let consumer = opened.map_err(|why| unreachable(broker, &why))?;
        Ok(Self { consumer, broker, arn: reading.mapping.event_source_arn.as_deref().unwrap_or_default() })
    }

    async fn acknowledge(&mut self, messages: &[MessageId], what: Ack) -> Result<(), Trouble> {
        self.consumer.acknowledge(messages, what).await.map_err(|why| unreachable(self.broker, &why))
    }

    /// A message as a record; what no event can carry goes to the dead letters.
    async fn record(&mut self, message: Message) -> Result<Option<Record<Kept>>, Trouble> {
        let (kind, payload) = match &message.content {
            Content::Text(text) => ("jms/text-message", Bytes::copy_from_slice(text)),
            Content::Bytes(bytes) => ("jms/bytes-message", Bytes::copy_from_slice(bytes)),
            Content::Other(why) => {
                notice::warning(&format!(
                    "{}: the message {} goes to the dead letters: {why}",
                    self.arn, message.id
                ));
                self.acknowledge(&[message.id], Ack::Poison).await?;
                return Ok(None);
            }
        };
        let shown = shown(&message, kind, &payload);
        Ok(Some(Record {
            id: message.id.to_string(),
            members: Map::new(),
            payload,
            rendered: shown.to_string(),
            until: None,
            handle: Kept { id: message.id, shown, redeliveries: message.redeliveries },
        }))
    }
}

/// A message as Lambda writes it. Source: an event captured from AWS.
fn shown(message: &Message, kind: &str, payload: &[u8]) -> Value {
    let properties: Map<String, Value> =
        message.properties.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    json!({
        "messageID": message.id.to_string(),
        "messageType": kind,
        "timestamp": message.timestamp,
        "deliveryMode": if message.is_persistent { 2 } else { 1 },
        "correlationID": message.correlation_id.as_deref().unwrap_or_default(),
        "replyTo": message.reply_to.as_deref().unwrap_or("null"),
        "destination": {"physicalName": message.destination},
        "redelivered": message.redeliveries > 0,
        "type": message.jms_type.as_deref().unwrap_or_default(),
        "expiration": message.expiration,
        "priority": message.priority,
        "data": STANDARD.encode(payload),
        "brokerInTime": message.broker_in_time,
        "brokerOutTime": message.broker_out_time,
        "properties": properties,
    })
}

impl Source for ActiveMq<'_> {
    type Handle = Kept;
    const MAY_LEAVE: bool = true;

    async fn receive(&mut self, count_max: usize, wait: Duration) -> Result<Vec<Record<Kept>>, Trouble> {
        let first = match tokio::time::timeout(wait, self.consumer.messages.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => {
                let why = self.consumer.lost().await;
                return Err(unreachable(self.broker, &why));
            }
            Err(_) => return Ok(Vec::new()),
        };
        let mut records: Vec<Record<Kept>> = self.record(first).await?.into_iter().collect();
        while records.len() < count_max
            && let Ok(message) = self.consumer.messages.try_recv()
        {
            records.extend(self.record(message).await?);
        }
        Ok(records)
    }

    async fn done(&mut self, handles: Vec<Kept>) -> Result<(), Trouble> {
        let ids: Vec<MessageId> = handles.into_iter().map(|kept| kept.id).collect();
        self.acknowledge(&ids, Ack::Individual).await
    }

    fn pause_seconds(&self, _: u32) -> u64 {
        1
    }

    async fn failed(&mut self, batch: &mut Vec<Record<Kept>>, _: u32) -> Result<AfterFailure, Trouble> {
        for record in batch.iter_mut() {
            record.handle.redeliveries += 1;
            record.handle.shown["redelivered"] = true.into();
            record.rendered = record.handle.shown.to_string();
        }
        let is_poison = |record: &mut Record<Kept>| record.handle.redeliveries > REDELIVERIES_MAX;
        let poison: Vec<MessageId> = batch.extract_if(.., is_poison).map(|record| record.handle.id).collect();
        self.acknowledge(&poison, Ack::Poison).await?;
        Ok(if batch.is_empty() { AfterFailure::Left } else { AfterFailure::Again })
    }

    async fn close(self) {
        self.consumer.close().await;
    }

    fn event(&self, batch: &[Record<Kept>]) -> Bytes {
        let arn = Value::from(self.arn);
        format!(r#"{{"eventSource":"aws:mq","eventSourceArn":{arn},"messages":[{}]}}"#, joined(batch)).into()
    }
}
