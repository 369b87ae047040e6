//! Self-managed Kafka: each partition has a poller of its own, so that each stays in order.
//!
//! Partitions are assigned here, not by a group's members: only one server reads for a mapping. How far it came is committed
//! under the mapping's consumer group, where Kafka's own tools see it, and after the function has answered.

mod batches;
mod connection;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FindCoordinatorRequest, GroupId, ListOffsetsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{Record as KafkaRecord, TimestampType};
use ondol_core::event_source::{Pollers, again_seconds};
use ondol_observe::notice;
use ondol_services::BasicCredentials;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use connection::{Connection, address, fine};

use super::broker::basic_auth;
use super::mapping::Reading;
use super::source::{AfterFailure, Record, Source, Trouble, joined};

/// Versions that brokers from 2.3 to 4 speak, none of them with tagged fields.
mod version {
    pub const METADATA: i16 = 5;
    pub const FIND_COORDINATOR: i16 = 2;
    pub const OFFSET_FETCH: i16 = 5;
    pub const OFFSET_COMMIT: i16 = 7;
    pub const LIST_OFFSETS: i16 = 4;
    pub const FETCH: i16 = 11;
}

const FETCH_BYTES: i32 = 4 << 20;
const OUT_OF_RANGE: i16 = 1;
/// How often it is looked for new partitions.
const PARTITIONS_LOOK: Duration = Duration::from_secs(60);
/// Kafka forgets the offset of a group without members seven days after its last commit.
const COMMIT_AGAIN: Duration = Duration::from_secs(3_600);
const COMMITS: usize = 3;
const COMMIT_PAUSE: Duration = Duration::from_secs(1);
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

pub struct Kafka<'a, I> {
    reading: &'a Reading<I>,
    credentials: Option<BasicCredentials>,
    servers: Vec<String>,
    topic: TopicName,
    partition: i32,
    group: GroupId,
    leader: Connection,
    coordinator: Connection,
    /// Fetched, and not yet asked for.
    fetched: VecDeque<KafkaRecord>,
    /// The next offset to fetch.
    next: i64,
    /// Received and not done.
    open: BTreeSet<i64>,
    committed: i64,
    committed_at: Instant,
    looked_at: Instant,
}

/// What a topic's partitions are, and where.
struct Cluster {
    leaders: Vec<Option<(String, u16)>>,
}

impl<'a, I> Kafka<'a, I> {
    /// The poller with this number reads the partition with this number.
    pub async fn open(reading: &'a Reading<I>, index: usize) -> Result<Self, Trouble> {
        let mapping = &reading.mapping;
        let credentials = basic_auth(reading).await?;
        let name = mapping.topic().unwrap_or_default();
        let topic = TopicName(StrBytes::from_string(name.to_owned()));
        let group = GroupId(StrBytes::from_string(mapping.consumer_group().to_owned()));
        let servers: Vec<String> = mapping.bootstrap_servers().map(str::to_owned).collect();
        let partition = i32::try_from(index).unwrap_or(i32::MAX);
        let (mut bootstrap, cluster) = cluster(&servers, &topic, credentials.as_ref()).await?;
        if index == 0 {
            expect(reading, cluster.leaders.len());
        }
        let leader = cluster.leader(partition, &topic, credentials.as_ref()).await?;
        let coordinator = coordinator(&mut bootstrap, &group, credentials.as_ref()).await?;
        let now = Instant::now();
        let mut kafka = Self {
            reading,
            credentials,
            servers,
            topic,
            partition,
            group,
            leader,
            coordinator,
            fetched: VecDeque::new(),
            next: 0,
            open: BTreeSet::new(),
            committed: -1,
            committed_at: now,
            looked_at: now,
        };
        kafka.begin().await?;
        Ok(kafka)
    }

    /// Finds leader and coordinator anew: both may have moved, and brokers end connections that are idle.
    async fn reconnect(&mut self) -> Result<(), Trouble> {
        let credentials = self.credentials.as_ref();
        let (mut bootstrap, cluster) = cluster(&self.servers, &self.topic, credentials).await?;
        self.leader = cluster.leader(self.partition, &self.topic, credentials).await?;
        self.coordinator = coordinator(&mut bootstrap, &self.group, credentials).await?;
        Ok(())
    }

    fn trouble(&self, doing: &str, why: &str) -> Trouble {
        Trouble(format!("{doing} partition {} of the topic {}: {why}", self.partition, self.topic.0))
    }

    /// Where the group stopped, or where the mapping says that a new one starts.
    async fn begin(&mut self) -> Result<(), Trouble> {
        let mut topic = OffsetFetchRequestTopic::default();
        topic.name = self.topic.clone();
        topic.partition_indexes = vec![self.partition];
        let mut request = OffsetFetchRequest::default();
        request.group_id = self.group.clone();
        request.topics = Some(vec![topic]);
        let answer = self.coordinator.ask(&request, version::OFFSET_FETCH).await.map_err(Trouble)?;
        let doing = "Asking for the offset of";
        fine(answer.error_code).map_err(|why| self.trouble(doing, &why))?;
        let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
        if let Some(found) = found {
            fine(found.error_code).map_err(|why| self.trouble(doing, &why))?;
        }
        self.committed = found.map_or(-1, |found| found.committed_offset);
        self.next = self.committed;
        if self.committed < 0 {
            self.next = self.start().await?;
            // A record that comes before the first batch is done must be read after a crash too.
            self.commit(self.next).await?;
        }
        Ok(())
    }

    /// The first offset of a group that has none.
    async fn start(&mut self) -> Result<i64, Trouble> {
        let settings = &self.reading.mapping.settings;
        let position = settings.get("StartingPosition").and_then(Value::as_str);
        #[allow(clippy::cast_possible_truncation)]
        let at = match position {
            Some("LATEST") => LATEST,
            Some("AT_TIMESTAMP") => {
                let seconds = settings.get("StartingPositionTimestamp").and_then(Value::as_f64);
                seconds.map_or(EARLIEST, |seconds| (seconds * 1_000.0) as i64)
            }
            _ => EARLIEST,
        };
        match self.offset_at(at).await? {
            // Nothing is that young.
            -1 => self.offset_at(LATEST).await,
            offset => Ok(offset),
        }
    }

    async fn offset_at(&mut self, timestamp: i64) -> Result<i64, Trouble> {
        let mut partition = ListOffsetsPartition::default();
        partition.partition_index = self.partition;
        partition.timestamp = timestamp;
        let mut topic = ListOffsetsTopic::default();
        topic.name = self.topic.clone();
        topic.partitions = vec![partition];
        let mut request = ListOffsetsRequest::default();
        request.replica_id = BrokerId(-1);
        request.topics = vec![topic];
        let doing = "Asking for the first offset of";
        let answer = self.leader.ask(&request, version::LIST_OFFSETS).await;
        let answer = answer.map_err(|why| self.trouble(doing, &why))?;
        let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
        let found = found.ok_or_else(|| self.trouble(doing, "the answer names it not"))?;
        fine(found.error_code).map_err(|why| self.trouble(doing, &why))?;
        Ok(found.offset)
    }

    /// What the function has answered is not given to it again for a connection that was lost meanwhile.
    async fn commit(&mut self, offset: i64) -> Result<(), Trouble> {
        let mut tries = 0;
        while let Err(trouble) = self.commit_once(offset).await {
            tries += 1;
            if tries == COMMITS {
                return Err(trouble);
            }
            tokio::time::sleep(COMMIT_PAUSE).await;
            self.reconnect().await?;
        }
        (self.committed, self.committed_at) = (offset, Instant::now());
        Ok(())
    }

    async fn commit_once(&mut self, offset: i64) -> Result<(), Trouble> {
        let mut partition = OffsetCommitRequestPartition::default();
        partition.partition_index = self.partition;
        partition.committed_offset = offset;
        partition.committed_leader_epoch = -1;
        partition.committed_metadata = Some(StrBytes::default());
        let mut topic = OffsetCommitRequestTopic::default();
        topic.name = self.topic.clone();
        topic.partitions = vec![partition];
        let mut request = OffsetCommitRequest::default();
        request.group_id = self.group.clone();
        // Of nobody in the group.
        request.generation_id_or_member_epoch = -1;
        request.topics = vec![topic];
        let doing = "Committing the offset of";
        let answer = self.coordinator.ask(&request, version::OFFSET_COMMIT).await;
        let answer = answer.map_err(|why| self.trouble(doing, &why))?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            fine(partition.error_code).map_err(|why| self.trouble(doing, &why))?;
        }
        Ok(())
    }

    /// What is before the first record that is not done.
    fn position(&self) -> i64 {
        let fetched = self.fetched.front().map(|record| record.offset);
        self.open.first().copied().or(fetched).unwrap_or(self.next)
    }

    /// Keeps connections and the group's offset from being forgotten, and looks whether the topic has more partitions.
    async fn look(&mut self) -> Result<(), Trouble> {
        if self.leader.is_idle() {
            self.reconnect().await?;
        }
        if self.committed_at.elapsed() > COMMIT_AGAIN {
            self.commit(self.position()).await?;
        }
        if self.partition == 0 && self.looked_at.elapsed() > PARTITIONS_LOOK {
            self.looked_at = Instant::now();
            let (_, cluster) = cluster(&self.servers, &self.topic, self.credentials.as_ref()).await?;
            expect(self.reading, cluster.leaders.len());
        }
        Ok(())
    }

    async fn fetch(&mut self, wait: Duration) -> Result<(), Trouble> {
        let mut partition = FetchPartition::default();
        partition.partition = self.partition;
        partition.fetch_offset = self.next;
        partition.current_leader_epoch = -1;
        partition.log_start_offset = -1;
        partition.partition_max_bytes = FETCH_BYTES;
        let mut topic = FetchTopic::default();
        topic.topic = self.topic.clone();
        topic.partitions = vec![partition];
        let mut request = FetchRequest::default();
        request.replica_id = BrokerId(-1);
        request.max_wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        request.min_bytes = 1;
        request.max_bytes = FETCH_BYTES;
        request.session_epoch = -1;
        request.topics = vec![topic];
        let answer = self.leader.ask(&request, version::FETCH).await;
        let answer = answer.map_err(|why| self.trouble("Reading", &why))?;
        fine(answer.error_code).map_err(|why| self.trouble("Reading", &why))?;
        let Some(found) = answer.responses.into_iter().flat_map(|topic| topic.partitions).next() else {
            return Ok(());
        };
        if found.error_code == OUT_OF_RANGE {
            let start = self.start().await?;
            notice::warning(&format!(
                "event source mapping {}: offset {} of partition {} of {} is no longer kept; reading goes on at {start}",
                self.reading.mapping.uuid, self.next, self.partition, self.topic.0
            ));
            self.next = start;
            return Ok(());
        }
        fine(found.error_code).map_err(|why| self.trouble("Reading", &why))?;
        let read = batches::read(found.records.unwrap_or_default(), self.next);
        let (records, next) = read.map_err(|why| self.trouble("Reading", &why))?;
        self.fetched.extend(records);
        self.next = next;
        Ok(())
    }

    fn record(&self, record: KafkaRecord) -> Record<i64> {
        let headers: Vec<Value> = record
            .headers
            .iter()
            .map(|(name, value)| {
                // Java's bytes have a sign.
                let value: Vec<i8> =
                    value.as_deref().unwrap_or_default().iter().map(|byte| byte.cast_signed()).collect();
                json!({name.to_string(): value})
            })
            .collect();
        let shown = json!({
            "topic": self.topic.0.as_str(),
            "partition": self.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "timestampType": if record.timestamp_type == TimestampType::LogAppend { "LOG_APPEND_TIME" } else { "CREATE_TIME" },
            "key": record.key.as_ref().map(|key| STANDARD.encode(key)),
            "value": record.value.as_ref().map(|value| STANDARD.encode(value)),
            "headers": headers,
        });
        Record {
            id: record.offset.to_string(),
            members: Map::new(),
            payload: record.value.unwrap_or_default(),
            rendered: shown.to_string(),
            until: None,
            handle: record.offset,
        }
    }
}

impl Cluster {
    async fn leader(
        &self,
        partition: i32,
        topic: &TopicName,
        credentials: Option<&BasicCredentials>,
    ) -> Result<Connection, Trouble> {
        let name = &topic.0;
        let leader = usize::try_from(partition).ok().and_then(|place| self.leaders.get(place));
        let gone = || Trouble(format!("The topic {name} has no partition {partition} any more."));
        let no_leader = || Trouble(format!("Partition {partition} of the topic {name} has no leader now."));
        let (host, port) = leader.ok_or_else(gone)?.as_ref().ok_or_else(no_leader)?;
        connect((host, *port), credentials).await
    }
}

async fn coordinator(
    bootstrap: &mut Connection,
    group: &GroupId,
    credentials: Option<&BasicCredentials>,
) -> Result<Connection, Trouble> {
    let mut request = FindCoordinatorRequest::default();
    request.key = group.0.clone();
    let answer = bootstrap.ask(&request, version::FIND_COORDINATOR).await.map_err(Trouble)?;
    fine(answer.error_code)
        .map_err(|why| Trouble(format!("The group's coordinator can't be found: {why}")))?;
    connect((&answer.host, u16::try_from(answer.port).unwrap_or_default()), credentials).await
}

async fn connect(at: (&str, u16), credentials: Option<&BasicCredentials>) -> Result<Connection, Trouble> {
    let opened = Connection::open(at, credentials).await;
    opened.map_err(|why| Trouble(format!("A Kafka broker can't be asked: {why}")))
}

/// Asks the first server that answers where the topic's partitions are.
async fn cluster(
    servers: &[String],
    topic: &TopicName,
    credentials: Option<&BasicCredentials>,
) -> Result<(Connection, Cluster), Trouble> {
    let mut trouble = Trouble("ESM_CONFIG_NOT_VALID: The mapping names no KAFKA_BOOTSTRAP_SERVERS.".into());
    for server in servers {
        let (host, port) = address(server).map_err(|why| Trouble(format!("ESM_CONFIG_NOT_VALID: {why}")))?;
        let mut connection = match connect((&host, port), credentials).await {
            Ok(connection) => connection,
            Err(why) => {
                trouble = why;
                continue;
            }
        };
        let mut wanted = MetadataRequestTopic::default();
        wanted.name = Some(topic.clone());
        let mut request = MetadataRequest::default();
        request.topics = Some(vec![wanted]);
        request.allow_auto_topic_creation = false;
        let answer = connection.ask(&request, version::METADATA).await.map_err(Trouble)?;
        let found = answer.topics.first();
        let found =
            found.ok_or_else(|| Trouble(format!("{server} says nothing of the topic {}.", topic.0)))?;
        fine(found.error_code).map_err(|why| Trouble(format!("The topic {}: {why}", topic.0)))?;
        let mut leaders = vec![None; found.partitions.len()];
        for partition in &found.partitions {
            let leader = answer.brokers.iter().find(|broker| broker.node_id == partition.leader_id);
            let place =
                usize::try_from(partition.partition_index).ok().and_then(|place| leaders.get_mut(place));
            if let (Some(place), Some(leader)) = (place, leader) {
                *place = Some((leader.host.to_string(), u16::try_from(leader.port).unwrap_or_default()));
            }
        }
        return Ok((connection, Cluster { leaders }));
    }
    Err(trouble)
}

/// As many pollers as partitions.
fn expect<I>(reading: &Reading<I>, partitions: usize) {
    let wanted = Pollers::fixed(u32::try_from(partitions.max(1)).unwrap_or(u32::MAX));
    if *reading.pollers.borrow() != wanted {
        *reading.pollers.borrow_mut() = wanted;
        reading.changed.notify_one();
    }
}

impl<I> Source for Kafka<'_, I> {
    /// A record's offset.
    type Handle = i64;
    const MAY_LEAVE: bool = false;

    async fn receive(&mut self, count_max: usize, wait: Duration) -> Result<Vec<Record<i64>>, Trouble> {
        self.look().await?;
        if self.fetched.is_empty() {
            self.fetch(wait).await?;
        }
        let taken = self.fetched.len().min(count_max);
        let taken: Vec<KafkaRecord> = self.fetched.drain(..taken).collect();
        self.open.extend(taken.iter().map(|record| record.offset));
        Ok(taken.into_iter().map(|record| self.record(record)).collect())
    }

    async fn done(&mut self, offsets: Vec<i64>) -> Result<(), Trouble> {
        for offset in offsets {
            self.open.remove(&offset);
        }
        let offset = self.position();
        if offset == self.committed { Ok(()) } else { self.commit(offset).await }
    }

    fn pause_seconds(&self, failures: u32) -> u64 {
        again_seconds(failures - 1)
    }

    async fn failed(&mut self, _: &mut Vec<Record<i64>>, _: u32) -> Result<AfterFailure, Trouble> {
        Ok(AfterFailure::Again)
    }

    fn event(&self, batch: &[Record<i64>]) -> Bytes {
        let (servers, place) = (
            Value::from(self.servers.join(",")),
            Value::from(format!("{}-{}", self.topic.0, self.partition)),
        );
        format!(
            r#"{{"eventSource":"aws:SelfManagedKafka","bootstrapServers":{servers},"records":{{{place}:[{}]}}}}"#,
            joined(batch)
        )
        .into()
    }
}
