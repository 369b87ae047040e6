//! What waits, for `ondol queue`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ondol_core::event::Progress;
use ondol_core::event_queue::{EventId, EventQueue};
use ondol_observe::clock;
use ondol_store::queue::Counts;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::worker::Held;

/// Events listed one by one.
const EVENTS_SHOWN_MAX: usize = 100;

/// A question to the worker: of all functions, or of one and its events.
#[derive(Debug)]
pub struct Asking {
    pub function: Option<String>,
    pub answer: oneshot::Sender<Value>,
}

/// Where questions go.
#[derive(Debug, Clone)]
pub struct Pages(pub mpsc::Sender<Asking>);

impl Pages {
    pub async fn page(&self, function: Option<String>) -> Result<Value, String> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| "the queue isn't worked off any more; the server is stopping".to_owned();
        self.0.send(Asking { function, answer }).await.map_err(|_| gone(()))?;
        answered.await.map_err(|_| gone(()))
    }
}

#[derive(Debug, Default)]
struct Waiting {
    queued: u64,
    running: u64,
    retrying: u64,
    outgoing: u64,
    payload_bytes: u64,
    oldest_epoch_millis: Option<i64>,
}

pub fn page(
    queue: &EventQueue,
    held: &HashMap<EventId, Held>,
    counts: &BTreeMap<Arc<str>, Counts>,
    function: Option<&str>,
) -> Value {
    let now = clock::epoch_millis();
    let wanted = |name: &str| function.is_none_or(|function| function == name);
    let mut functions: BTreeMap<Arc<str>, Waiting> = counts
        .keys()
        .filter(|name| wanted(name))
        .map(|name| (Arc::clone(name), Waiting::default()))
        .collect();
    let mut events = Vec::new();
    for (event, is_running) in queue.events() {
        let Some(held) = held.get(&event.id).filter(|held| wanted(&held.function)) else { continue };
        let waiting = functions.entry(Arc::clone(&held.function)).or_default();
        waiting.queued += 1;
        waiting.running += u64::from(is_running);
        waiting.retrying += u64::from(matches!(held.progress, Some(Progress::Tried { .. })));
        waiting.outgoing += u64::from(matches!(held.progress, Some(Progress::Outgoing(_))));
        waiting.payload_bytes += held.payload_bytes;
        let oldest = waiting.oldest_epoch_millis.get_or_insert(held.enqueued_epoch_millis);
        *oldest = (*oldest).min(held.enqueued_epoch_millis);
        if function.is_some() && events.len() < EVENTS_SHOWN_MAX {
            events.push(shown(event.id, held, is_running, clock::epoch_millis_of(event.due), now));
        }
    }
    let rows: Vec<Value> = functions
        .iter()
        .map(|(name, waiting)| {
            let counts = counts.get(name).copied().unwrap_or_default();
            json!({
                "function": **name,
                "queued": waiting.queued,
                "running": waiting.running,
                "retrying": waiting.retrying,
                "outgoing": waiting.outgoing,
                "payloadBytes": waiting.payload_bytes,
                "oldestAgeSeconds": waiting.oldest_epoch_millis.map(|oldest| (now - oldest).max(0) / 1_000),
                "accepted": counts.accepted,
                "succeeded": counts.succeeded,
                "delivered": counts.delivered,
                "discarded": counts.discarded,
                "undeliverable": counts.undeliverable,
            })
        })
        .collect();
    let lanes: Vec<Value> = queue
        .lanes()
        .filter(|_| function.is_none())
        .map(|(name, lane)| {
            json!({
                "lane": **name,
                "waiting": lane.waiting,
                "running": lane.running,
                "window": lane.window,
                "pausedSeconds": clock::until(lane.paused_until).as_secs(),
            })
        })
        .collect();
    json!({"functions": rows, "lanes": lanes, "events": events})
}

fn shown(id: EventId, held: &Held, is_running: bool, due_epoch_millis: i64, now: i64) -> Value {
    let (stage, errors, throttles, why) = match &held.progress {
        None => ("waiting", 0, 0, ""),
        Some(Progress::Tried { tries, why, .. }) => ("retrying", tries.errors, tries.throttles, why.as_str()),
        Some(Progress::Outgoing(out)) => ("outgoing", out.tries.errors, out.failures, out.why.as_str()),
    };
    json!({
        "id": id,
        "requestId": held.head.request.uuid(),
        "qualifier": held.head.qualifier.as_deref(),
        "stage": if is_running { "running" } else { stage },
        "ageSeconds": (now - held.enqueued_epoch_millis).max(0) / 1_000,
        "dueInSeconds": (due_epoch_millis - now).max(0) / 1_000,
        "errors": errors,
        "throttles": throttles,
        "why": why,
    })
}
