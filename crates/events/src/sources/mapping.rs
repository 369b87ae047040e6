//! One mapping's supervisor: reads its source with as many pollers as are wanted, as long as it is to be read.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ondol_core::event_source::{BatchLimits, Filters, Pollers, SourceCounts, SourceReport};
use ondol_core::event_source_mapping::{EventSourceMapping, SourceKind, Wanted};
use ondol_observe::{clock, notice};
use ondol_protocol::inner::Invoke;
use ondol_services::{Broker, Engine};
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinSet};

use super::activemq::ActiveMq;
use super::broker::AHEAD_MAX;
use super::kafka::Kafka;
use super::poller::poll;
use super::rabbitmq::RabbitMq;
use super::source::Trouble;
use super::sqs::Sqs;
use super::{Outside, Tools};

/// After a poller that ended by a fault of ours.
const FAULT_WAIT: Duration = Duration::from_secs(1);

/// What pollers are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Read,
    /// The mapping changed: what was received is worked off, nothing more is.
    Finish,
    /// The server stops: what runs may end, nothing is waited for.
    Leave,
}

/// A mapping that is being read.
pub struct Reading<I> {
    pub tools: Rc<Tools<I>>,
    pub mapping: Rc<EventSourceMapping>,
    pub function: Arc<str>,
    pub qualifier: Option<Arc<str>>,
    pub limits: BatchLimits,
    pub filters: Filters,
    pub pollers: RefCell<Pollers>,
    pub busy: Cell<usize>,
    /// What keeps pollers from reading, by their number.
    troubles: RefCell<BTreeMap<usize, String>>,
    /// Rung when another number of pollers may be wanted.
    pub changed: Notify,
    pub order: watch::Receiver<Order>,
}

/// Where a mapping's records come from.
#[derive(Clone)]
enum Origin {
    Sqs,
    Broker(Broker),
    Kafka,
}

impl Origin {
    /// The error says what the operator can do.
    fn of(mapping: &EventSourceMapping, outside: &Outside) -> Result<Self, String> {
        match mapping.kind {
            SourceKind::Sqs if outside.services.has("sqs") => Ok(Self::Sqs),
            SourceKind::Sqs => Err(
                "Ondol doesn't serve SQS itself: start it with --service-endpoint sqs=URL to read queues."
                    .into(),
            ),
            SourceKind::Mq => {
                let name = mapping.broker().unwrap_or_default();
                outside.brokers.get(name).cloned().map(Self::Broker).ok_or_else(|| {
                    format!(
                        "Where the broker {name} is isn't known: start Ondol with --broker {name}=amqp://HOST:PORT (RabbitMQ) or --broker {name}=tcp://HOST:PORT (ActiveMQ)."
                    )
                })
            }
            SourceKind::SelfManagedKafka => match mapping.not_acted_on() {
                None => Ok(Self::Kafka),
                Some(setting) => Err(format!(
                    "ESM_CONFIG_NOT_VALID: Ondol doesn't act on {setting} for Kafka: leave it out."
                )),
            },
            kind => Err(format!(
                "Ondol has no poller for {kind:?} in this version; the mapping is kept and reads nothing."
            )),
        }
    }
}

/// Carries out what is wanted of one mapping, until it is gone or the server stops.
pub async fn supervise<I: Invoke + 'static>(
    tools: Rc<Tools<I>>,
    uuid: String,
    mut wanted: watch::Receiver<Option<Rc<EventSourceMapping>>>,
) {
    loop {
        let mapping = wanted.borrow_and_update().clone();
        let Some(mapping) = mapping else {
            tools.reports.send_modify(|reports| drop(reports.remove(&uuid)));
            return;
        };
        let origin = match mapping.wanted {
            Wanted::Disabled => None,
            Wanted::Enabled => Some(Origin::of(&mapping, &tools.outside).and_then(|origin| {
                let unreadable = "ESM_CONFIG_NOT_VALID: A filter pattern of the mapping isn't valid: give its FilterCriteria anew.";
                Ok((origin, mapping.filters().ok_or(unreadable)?))
            })),
        };
        match origin {
            Some(Ok((origin, filters))) => {
                if !read(&tools, mapping, origin, filters, &mut wanted).await {
                    return;
                }
                continue;
            }
            not_read => {
                let trouble = not_read.and_then(Result::err);
                tools.report(&uuid, |report| settled(report, mapping.generation, false, trouble));
            }
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

fn settled(report: &mut SourceReport, generation: u64, is_reading: bool, trouble: Option<String>) {
    let SourceReport { last_processing_result, counts, .. } = std::mem::take(report);
    *report = SourceReport { generation, is_reading, pollers: 0, trouble, last_processing_result, counts };
}

/// Reads until the mapping changes; false when the server stops.
async fn read<I: Invoke + 'static>(
    tools: &Rc<Tools<I>>,
    mapping: Rc<EventSourceMapping>,
    origin: Origin,
    filters: Filters,
    wanted: &mut watch::Receiver<Option<Rc<EventSourceMapping>>>,
) -> bool {
    let (order, orders) = watch::channel(Order::Read);
    let concurrency = match &origin {
        // Of a topic's partitions the first poller hears first.
        Origin::Sqs | Origin::Kafka => 1,
        Origin::Broker(broker) => broker.engine.concurrency(),
    };
    let mut limits = mapping.batch_limits();
    if let Origin::Broker(_) = origin {
        // A batch waits for no more than a broker gives.
        limits.records_max = limits.records_max.min(AHEAD_MAX);
    }
    let reading = Rc::new(Reading {
        tools: Rc::clone(tools),
        function: mapping.function.as_str().into(),
        qualifier: mapping.qualifier.as_deref().map(Arc::from),
        limits,
        filters,
        pollers: RefCell::new(mapping.pollers(concurrency)),
        mapping,
        busy: Cell::new(0),
        troubles: RefCell::default(),
        changed: Notify::new(),
        order: orders,
    });
    reading.report(|report| settled(report, reading.mapping.generation, true, None));
    let mut tasks = JoinSet::new();
    let mut running: BTreeSet<usize> = BTreeSet::new();
    let mut numbers: HashMap<Id, usize> = HashMap::new();
    let goes_on = loop {
        let wanted_now = reading.pollers.borrow().wanted();
        if running.len() < wanted_now {
            for index in 0..wanted_now {
                if running.insert(index) {
                    let task = tasks.spawn_local(start(Rc::clone(&reading), origin.clone(), index));
                    numbers.insert(task.id(), index);
                }
            }
        }
        reading.report(|report| report.pollers = running.len());
        tokio::select! {
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, ())| *id);
                let index = numbers.remove(&id).unwrap_or_default();
                running.remove(&index);
                if let Err(error) = ended {
                    reading.trouble(index, Trouble(format!("a poller failed: {error}")));
                    tokio::time::sleep(FAULT_WAIT).await;
                }
            }
            () = reading.changed.notified() => {}
            changed = wanted.changed() => break changed.is_ok(),
        }
    };
    order.send_replace(if goes_on { Order::Finish } else { Order::Leave });
    let finished = async { while tasks.join_next().await.is_some() {} };
    if !goes_on {
        finished.await;
        return false;
    }
    tokio::pin!(finished);
    loop {
        tokio::select! {
            () = &mut finished => return true,
            // Whatever it is to be next, it is after this.
            changed = wanted.changed() => if changed.is_err() {
                let is_gone = wanted.borrow().is_none();
                if !is_gone {
                    order.send_replace(Order::Leave);
                }
                finished.await;
                return is_gone;
            },
        }
    }
}

async fn start<I: Invoke>(reading: Rc<Reading<I>>, origin: Origin, index: usize) {
    match origin {
        Origin::Sqs => poll(&reading, index, async || Sqs::open(&reading).await).await,
        Origin::Kafka => poll(&reading, index, async || Kafka::open(&reading, index).await).await,
        Origin::Broker(broker) => match broker.engine {
            Engine::RabbitMq => {
                poll(&reading, index, async || RabbitMq::open(&reading, &broker).await).await;
            }
            Engine::ActiveMq => {
                poll(&reading, index, async || ActiveMq::open(&reading, &broker, index).await).await;
            }
        },
    }
}

impl<I> Reading<I> {
    pub fn report(&self, change: impl FnOnce(&mut SourceReport)) {
        self.tools.report(&self.mapping.uuid, change);
    }

    pub fn count(&self, count: impl FnOnce(&mut SourceCounts)) {
        self.report(|report| count(&mut report.counts));
    }

    pub fn permit(&self, action: &str, resource: &str) -> Result<(), Trouble> {
        let permitted = self.tools.permit(&self.mapping, action, resource);
        permitted.map_err(|why| Trouble(format!("EVENT_SOURCE_AUTHZ_ERROR: {why}")))
    }

    /// A poller can't read the source. The operator is told once, until all can.
    pub fn trouble(&self, index: usize, Trouble(why): Trouble) {
        let mut troubles = self.troubles.borrow_mut();
        if troubles.is_empty() {
            notice::warning(&format!(
                "event source mapping {} of {}: {why}",
                self.mapping.uuid, self.mapping.function
            ));
        }
        self.report(|report| report.last_processing_result = Some(format!("PROBLEM: {why}")));
        troubles.insert(index, why);
        drop(troubles);
        self.tell_trouble();
    }

    /// A poller has read the source, or ended.
    pub fn is_well(&self, index: usize) {
        if self.troubles.borrow_mut().remove(&index).is_some() {
            self.tell_trouble();
        }
    }

    fn tell_trouble(&self) {
        let first = self.troubles.borrow().values().next().cloned();
        self.report(|report| report.trouble = first);
    }

    /// Counts a batch as under way until the guard is dropped.
    pub fn begin(&self) -> Busy<'_, I> {
        self.busy.set(self.busy.get() + 1);
        self.pollers.borrow_mut().observe(clock::policy(), self.busy.get());
        self.changed.notify_one();
        Busy(self)
    }

    /// Waits in policy time; false as soon as pollers are to do anything but read.
    pub async fn pause(&self, seconds: u64) -> bool {
        let until = clock::policy().plus_seconds(seconds);
        let mut order = self.order.clone();
        let over = order.wait_for(|order| *order != Order::Read);
        tokio::time::timeout(clock::until(until), over).await.is_err()
    }

    /// Whether the poller of this number is still wanted.
    pub fn wants(&self, index: usize) -> bool {
        *self.order.borrow() == Order::Read && index < self.pollers.borrow().wanted()
    }
}

pub struct Busy<'a, I>(&'a Reading<I>);

impl<I> Drop for Busy<'_, I> {
    fn drop(&mut self) {
        self.0.pollers.borrow_mut().observe(clock::policy(), self.0.busy.get());
        self.0.busy.set(self.0.busy.get() - 1);
    }
}
