//! One attempt at an event: its invocation, or bringing its outcome out.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ondol_core::coins::Coins;
use ondol_core::event::{EVENT_BYTES_MAX, EventHead, Outgoing, Target};
use ondol_core::event_queue::{Claim, LEASE_MILLIS};
use ondol_core::identity::{FunctionReference, Home, RequestId};
use ondol_failpoint::reach;
use ondol_observe::clock;
use ondol_protocol::inner::{Call, Called, Invoke};
use ondol_store::queue::{EventId, NewEvent};
use ondol_store::{Store, StoreError, keys};
use tokio::sync::mpsc;

use crate::destination::Destinations;
use crate::record::Facts;

/// What attempts and writes tell the worker.
#[derive(Debug)]
pub enum Note {
    Alive(Claim),
    Invoked(Claim, Called),
    Sent(Claim, Sent),
    /// What followed from an attempt is on disk.
    Settled(EventId),
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
    pub coins: RefCell<Coins>,
    pub notes: mpsc::UnboundedSender<Note>,
}

/// Sends a sign of life for as long as the work takes.
async fn alive<T>(notes: &mpsc::UnboundedSender<Note>, claim: Claim, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval(Duration::from_millis(LEASE_MILLIS / 3));
    ticks.tick().await;
    loop {
        tokio::select! {
            done = &mut work => return done,
            // A worker that is gone leaves the event to the next start.
            _ = ticks.tick() => drop(notes.send(Note::Alive(claim))),
        }
    }
}

impl<I: Invoke> Tools<I> {
    pub async fn invoke(
        self: Rc<Self>,
        claim: Claim,
        function: Arc<str>,
        head: EventHead,
        kept: Option<Bytes>,
    ) {
        let id = claim.id;
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
        let called = alive(&self.notes, claim, work).await;
        let _ = self.notes.send(Note::Invoked(claim, called));
    }

    pub async fn send(
        self: Rc<Self>,
        claim: Claim,
        function: Arc<str>,
        head: EventHead,
        outgoing: Outgoing,
        role: Option<String>,
    ) {
        let work = self.send_all(claim.id, &function, &head, &outgoing, role);
        let sent = alive(&self.notes, claim, work).await;
        let _ = self.notes.send(Note::Sent(claim, sent));
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
        let request = RequestId::by(&mut self.coins.borrow_mut());
        let head = facts.head.follow_up(facts.function, request, &reference.name, qualifier);
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
