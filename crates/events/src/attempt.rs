//! One attempt at an event: its invocation, or bringing its outcome out.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ondol_core::event::{EventHead, Outgoing, Target};
use ondol_core::event_queue::LEASE_MILLIS;
use ondol_core::identity::{FunctionReference, Home, RequestId};
use ondol_failpoint::reach;
use ondol_observe::clock;
use ondol_protocol::inner::{Call, Called, Invoke};
use ondol_store::queue::{EventId, NewEvent};
use ondol_store::{Store, StoreError, keys};
use tokio::sync::mpsc;

use crate::destination::Destinations;
use crate::record::Facts;

/// What a function takes as an event.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// What attempts and writes tell the worker.
#[derive(Debug)]
pub enum Note {
    Alive {
        id: EventId,
        token: u64,
    },
    Invoked {
        id: EventId,
        token: u64,
        called: Called,
    },
    Sent {
        id: EventId,
        token: u64,
        sent: Sent,
    },
    /// What followed from an attempt is on disk.
    Settled {
        id: EventId,
    },
}

/// How far an outcome came.
#[derive(Debug, Default)]
pub struct Sent {
    /// Events for functions that want the outcome.
    pub follow_ups: Vec<NewEvent>,
    /// Who has not taken it, and the last reason.
    pub remaining: Vec<Target>,
    pub why: String,
    /// The event itself can't be read any more.
    pub is_damaged: bool,
}

/// What every attempt needs.
pub struct Tools<I> {
    pub store: Store,
    pub invoke: I,
    pub destinations: Destinations,
    pub home: Home,
    pub notes: mpsc::UnboundedSender<Note>,
}

/// Sends a sign of life for as long as the work takes.
async fn alive<T>(
    notes: &mpsc::UnboundedSender<Note>,
    (id, token): (EventId, u64),
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval(Duration::from_millis(LEASE_MILLIS / 3));
    ticks.tick().await;
    loop {
        tokio::select! {
            done = &mut work => return done,
            // A worker that is gone leaves the event to the next start.
            _ = ticks.tick() => drop(notes.send(Note::Alive { id, token })),
        }
    }
}

impl<I: Invoke> Tools<I> {
    pub async fn invoke(
        self: Rc<Self>,
        (id, token): (EventId, u64),
        function: Arc<str>,
        head: EventHead,
        kept: Option<Bytes>,
    ) {
        let work = async {
            let payload = match kept {
                Some(payload) => Ok(Some(payload)),
                None => self.read(move |store| store.event_payload(id)).await,
            };
            match payload {
                Ok(Some(payload)) => {
                    let EventHead { request, qualifier, trace_id, .. } = head;
                    self.invoke.invoke(Call { request, function, qualifier, payload, trace_id }).await
                }
                Ok(None) => Called::NotFound("The event is gone.".into()),
                Err(error) => Called::Unavailable(error.to_string()),
            }
        };
        let called = alive(&self.notes, (id, token), work).await;
        let _ = self.notes.send(Note::Invoked { id, token, called });
    }

    pub async fn send(
        self: Rc<Self>,
        (id, token): (EventId, u64),
        function: Arc<str>,
        head: EventHead,
        outgoing: Outgoing,
        role: Option<String>,
    ) {
        let sent =
            alive(&self.notes, (id, token), self.send_all(id, &function, &head, &outgoing, role)).await;
        let _ = self.notes.send(Note::Sent { id, token, sent });
    }

    async fn send_all(
        &self,
        id: EventId,
        function: &Arc<str>,
        head: &EventHead,
        outgoing: &Outgoing,
        role: Option<String>,
    ) -> Sent {
        let mut sent = Sent::default();
        let read = self.read(move |store| Ok((store.event_payload(id)?, store.event_answer(id)?))).await;
        let (payload, answer) = match read {
            Ok((Some(payload), answer)) => (payload, answer),
            Ok((None, _)) => return sent,
            Err(error) => {
                let (remaining, why) = (outgoing.targets.clone(), error.to_string());
                let is_damaged = matches!(error, StoreError::DamagedEvent(_));
                return Sent { remaining, why, is_damaged, ..sent };
            }
        };
        let facts = Facts {
            home: &self.home,
            function,
            head,
            payload: &payload,
            outgoing,
            answer: answer.as_deref(),
        };
        for target in &outgoing.targets {
            reach("events.before-send");
            let outcome = if target.arn.split(':').nth(2) == Some("lambda") {
                self.follow_up(target, &facts, role.as_deref()).map(|event| sent.follow_ups.push(event))
            } else {
                self.destinations.send(target, &facts, role.as_deref()).await
            };
            reach("events.after-send");
            if let Err(why) = outcome {
                sent.remaining.push(target.clone());
                sent.why = why;
            }
        }
        sent
    }

    /// The event that brings an outcome to a function here.
    fn follow_up(&self, target: &Target, facts: &Facts<'_>, role: Option<&str>) -> Result<NewEvent, String> {
        self.destinations.permit(role, "lambda:InvokeFunction", &target.arn)?;
        let reference = FunctionReference::parse(&target.arn);
        let qualifier = reference.in_home(&self.home, None).map_err(|refused| refused.message)?;
        if self.store.get(&keys::function(&reference.name)).is_none() {
            return Err(format!("Function not found: {}", target.arn));
        }
        let mut passed = facts.head.passed.clone();
        // Where the chain began counts too.
        passed.entry(Arc::clone(facts.function)).or_insert(1);
        *passed.entry(reference.name.as_str().into()).or_default() += 1;
        let head = EventHead {
            request: random_request(),
            qualifier: qualifier.map(Into::into),
            trace_id: facts.head.trace_id.clone(),
            passed,
        };
        Ok(NewEvent {
            function: reference.name.into(),
            head: serde_json::to_vec(&head).unwrap_or_default().into(),
            payload: facts.record_within(EVENT_BYTES_MAX).into(),
            enqueued_epoch_millis: clock::epoch_millis(),
        })
    }

    /// Reads the disk beside everything else.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || read(&store)).await;
        read.unwrap_or(Err(StoreError::Stopped))
    }
}

fn random_request() -> RequestId {
    // Without random numbers from the system nothing here would have started.
    let flip = || getrandom::u64().unwrap_or_default();
    RequestId::from_random(flip(), flip())
}

/// Whether a chain of destinations came through a function too often.
pub fn is_loop(function: &str, passed: &BTreeMap<Arc<str>, u32>) -> bool {
    passed.get(function).is_some_and(|passes| *passes > ondol_core::event::PASSES_MAX)
}
