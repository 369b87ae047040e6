//! The loop that works the queue off: what is next → an attempt → what follows, on disk → the queue goes on.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ondol_core::event::{EventHead, EventResponse, Outgoing, Progress};
use ondol_core::event_queue::{
    AGE_SECONDS_MAX, Claim, Condition, Event, EventId, EventQueue, Moment, Outcome, Rules, Step, Tries,
    Verdict,
};
use ondol_core::identity::Home;
use ondol_failpoint::reach;
use ondol_identity::Authorizer;
use ondol_observe::{clock, notice};
use ondol_protocol::inner::{Called, Invoke};
use ondol_services::ServiceEndpoints;
use ondol_store::queue::{Change, Ending, Followed, Kept, NewEvent, Queued};
use ondol_store::{Store, StoreError};
use tokio::sync::{mpsc, watch};

use crate::attempt::{Note, Sent, Tools, is_loop};
use crate::destination::Destinations;
use crate::record::SUCCESS;
use crate::settings::{Settings, SettingsCache};
use crate::view::{self, Asking};

/// Between tries to write what the disk does not take.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// What is known here of an event beside what the queue's machine knows.
#[derive(Debug)]
pub struct Held {
    pub function: Arc<str>,
    /// As it was queued, read when it is needed.
    pub head: Bytes,
    pub payload_bytes: u64,
    payload: Option<Kept>,
    pub enqueued_epoch_millis: i64,
    pub progress: Option<Progress>,
    /// What becomes of it once what is being written is on disk; none if it leaves.
    next: Option<Event>,
}

impl Held {
    pub fn head(&self) -> Option<EventHead> {
        serde_json::from_slice(&self.head).ok()
    }

    /// Its place in the queue's machine.
    fn event(&self, id: EventId, head: &EventHead) -> Event {
        let since = clock::policy_of(self.enqueued_epoch_millis);
        let payload_bytes = self.payload_bytes;
        match &self.progress {
            None => {
                let lane = head.lane(&self.function);
                Event { id, lane, payload_bytes, since, due: since, tries: Tries::default() }
            }
            Some(Progress::Tried { tries, due_epoch_millis, .. }) => {
                let due = clock::policy_of(*due_epoch_millis);
                Event { id, lane: head.lane(&self.function), payload_bytes, since, due, tries: *tries }
            }
            Some(Progress::Outgoing(outgoing)) => {
                let since = clock::policy_of(outgoing.ended_epoch_millis);
                let due = clock::policy_of(outgoing.due_epoch_millis);
                let tries = Tries { errors: 0, throttles: outgoing.failures };
                // A destination that takes nothing keeps only its own waiting.
                let lane = outgoing
                    .targets
                    .first()
                    .map_or_else(Arc::default, |target| format!("to {}", target.arn).into());
                Event { id, lane, payload_bytes, since, due, tries }
            }
        }
    }
}

pub struct Worker<I> {
    tools: Rc<Tools<I>>,
    queue: EventQueue,
    held: HashMap<EventId, Held>,
    settings: SettingsCache,
    noted: mpsc::UnboundedReceiver<Note>,
    /// What is being written.
    writes: usize,
}

impl<I> std::fmt::Debug for Worker<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("events", &self.held.len()).finish_non_exhaustive()
    }
}

impl<I: Invoke + 'static> Worker<I> {
    pub fn new(
        store: Store,
        invoke: I,
        services: Arc<ServiceEndpoints>,
        authorizer: Authorizer,
        home: Home,
    ) -> Self {
        let (notes, noted) = mpsc::unbounded_channel();
        let destinations = Destinations::new(services, authorizer);
        let tools = Rc::new(Tools { store, invoke, destinations, home, notes });
        let (queue, held, settings) = (EventQueue::default(), HashMap::new(), SettingsCache::default());
        Self { tools, queue, held, settings, noted, writes: 0 }
    }

    /// Works until the server stops: then nothing is begun any more, and what runs is waited for.
    pub async fn run(
        mut self,
        mut asked: mpsc::Receiver<Asking>,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        let Followed { backlog, mut arrivals } = self.tools.store.follow_events().await?;
        backlog.into_iter().for_each(|queued| self.take_in(queued));
        let mut is_stopping = *stopping.borrow();
        loop {
            while !is_stopping && self.step() {}
            if is_stopping && self.writes == 0 && self.queue.next_wakeup().1.is_none() {
                return Ok(());
            }
            let wake = self.wake();
            tokio::select! {
                Some(queued) = arrivals.recv() => {
                    self.take_in(queued);
                    while let Ok(queued) = arrivals.try_recv() {
                        self.take_in(queued);
                    }
                }
                Some(note) = self.noted.recv() => {
                    self.hear(note);
                    while let Ok(note) = self.noted.try_recv() {
                        self.hear(note);
                    }
                }
                Some(Asking { function, answer }) = asked.recv() => {
                    let counts = self.tools.store.event_counts();
                    // Who asked may be gone.
                    let _ = answer.send(view::page(&self.queue, &self.held, &counts, function.as_deref()));
                }
                // A sender that is gone is a server that ends.
                _ = stopping.wait_for(|stopping| *stopping), if !is_stopping => is_stopping = true,
                () = async { match wake {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                } } => {}
            }
        }
    }

    fn wake(&self) -> Option<Duration> {
        let (policy, wall) = self.queue.next_wakeup();
        let lease = wall.map(|at| Duration::from_micros(at.0.saturating_sub(clock::wall().0)));
        policy.map(clock::until).into_iter().chain(lease).min()
    }

    fn take_in(&mut self, queued: Queued) {
        let Queued { id, function, head, payload_bytes, payload, enqueued_epoch_millis, progress } = queued;
        let progress = progress.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let held =
            Held { function, head, payload_bytes, payload, enqueued_epoch_millis, progress, next: None };
        let Some(head) = held.head() else {
            notice::error(&format!("event {id} in the queue can't be read; it stays where it is"));
            return;
        };
        let event = held.event(id, &head);
        self.held.insert(id, held);
        self.queue.arrive(now(), event);
    }

    /// Begins the next attempt; false if there is none now.
    fn step(&mut self) -> bool {
        let Self { queue, held, settings, tools, .. } = self;
        let step = queue.next(now(), |event| match held.get(&event.id) {
            Some(Held { progress: Some(Progress::Outgoing(_)), .. }) => OUTGOING,
            Some(held) => {
                let qualifier = held.head().and_then(|head| head.qualifier);
                settings.of(&tools.store, &held.function, qualifier.as_ref()).rules
            }
            None => Rules::default(),
        });
        match step {
            None => return false,
            Some(Step::Attempt(claim)) => self.attempt(&claim),
            Some(Step::Expired(id)) => self.expired(id),
        }
        true
    }

    fn settings_of(&mut self, id: EventId) -> Option<(Arc<Settings>, EventHead)> {
        let held = self.held.get(&id)?;
        let head = held.head()?;
        let settings = self.settings.of(&self.tools.store, &held.function, head.qualifier.as_ref());
        Some((settings, head))
    }

    fn attempt(&mut self, claim: &Claim) {
        let Some((settings, head)) = self.settings_of(claim.id) else { return };
        let Some(held) = self.held.get_mut(&claim.id) else { return };
        let (tools, function) = (Rc::clone(&self.tools), Arc::clone(&held.function));
        let at = (claim.id, claim.token);
        match &held.progress {
            Some(Progress::Outgoing(outgoing)) => {
                let role = settings.role.clone();
                let work = tools.send(at, function, head, outgoing.clone(), role);
                tokio::task::spawn_local(work);
            }
            _ if settings.stops_loops && is_loop(&function, &head.passed) => {
                self.answered(claim, Outcome::Refused(Condition::RecursiveInvocation), None, "");
            }
            _ => {
                let kept = held.payload.take().map(|kept| kept.bytes.clone());
                tokio::task::spawn_local(tools.invoke(at, function, head, kept));
            }
        }
    }

    fn hear(&mut self, note: Note) {
        match note {
            Note::Alive { id, token } => {
                self.queue.renew(now(), id, token);
            }
            Note::Invoked { id, token, called } => self.invoked(id, token, called),
            Note::Sent { id, token, sent } => self.sent(id, token, sent),
            Note::Settled { id } => {
                self.writes -= 1;
                match self.held.get_mut(&id).and_then(|held| held.next.take()) {
                    Some(event) => self.queue.arrive(now(), event),
                    None => {
                        self.queue.finished(id);
                        self.held.remove(&id);
                    }
                }
            }
        }
    }

    fn invoked(&mut self, id: EventId, token: u64, called: Called) {
        let claim = Claim { id, token, tries: Tries::default() };
        let response = |status, message: Option<String>| {
            Some(EventResponse { status, executed_version: None, is_error: false, message })
        };
        match called {
            Called::Answered { executed_version, is_error, body } => {
                let executed_version = Some(executed_version);
                let response = EventResponse { status: 200, executed_version, is_error, message: None };
                let outcome = if is_error { Outcome::FunctionError } else { Outcome::Success };
                self.answered(&claim, outcome, Some((response, body)), "the function failed");
            }
            Called::Throttled => {
                let response = response(429, Some(RATE_EXCEEDED.into()));
                self.answered(&claim, Outcome::Throttled, response.map(no_body), "throttled");
            }
            Called::Closed => {
                let refused = Outcome::Refused(Condition::ZeroReservedConcurrency);
                self.answered(&claim, refused, None, "reserved concurrency is 0");
            }
            Called::NotFound(why) => {
                let response = response(404, Some(why.clone()));
                self.answered(&claim, Outcome::FunctionError, response.map(no_body), &why);
            }
            Called::Unavailable(why) => {
                let response = response(500, Some(why.clone()));
                self.answered(&claim, Outcome::Unavailable, response.map(no_body), &why);
            }
        }
    }

    /// An invocation's attempt is over.
    fn answered(
        &mut self,
        claim: &Claim,
        outcome: Outcome,
        response: Option<(EventResponse, Bytes)>,
        why: &str,
    ) {
        let Some((settings, _)) = self.settings_of(claim.id) else { return };
        let verdict = self.queue.answered(now(), claim.id, claim.token, outcome, settings.rules);
        match verdict {
            // It was taken for lost, and another attempt is at it.
            None => {}
            // The record of a success counts one attempt, also after others. Source: recorded from AWS.
            Some(Verdict::Done) => self.end(claim.id, &settings, SUCCESS, Tries::default(), response),
            Some(Verdict::Over(condition, tries)) => {
                self.end(claim.id, &settings, condition.name(), tries, response);
            }
            Some(Verdict::Again { due, tries }) => {
                let due_epoch_millis = clock::epoch_millis_of(due);
                self.keep(
                    claim.id,
                    Progress::Tried { tries, due_epoch_millis, why: why.into() },
                    None,
                    Vec::new(),
                );
            }
        }
    }

    fn expired(&mut self, id: EventId) {
        let Some((settings, _)) = self.settings_of(id) else { return };
        match self.held.get(&id).and_then(|held| held.progress.clone()) {
            Some(Progress::Outgoing(outgoing)) => self.give_up_sending(id, &outgoing),
            tried => {
                let (tries, why) = match tried {
                    Some(Progress::Tried { tries, why, .. }) => (tries, why),
                    _ => (Tries::default(), String::new()),
                };
                let message = if why.is_empty() || why == "throttled" { RATE_EXCEEDED.into() } else { why };
                let response = EventResponse {
                    status: 429,
                    executed_version: None,
                    is_error: false,
                    message: Some(message),
                };
                let condition = Condition::EventAgeExceeded.name();
                self.end(id, &settings, condition, tries, Some(no_body(response)));
            }
        }
    }

    /// An event's invocation is over: it leaves, or its outcome goes out.
    fn end(
        &mut self,
        id: EventId,
        settings: &Settings,
        condition: &str,
        tries: Tries,
        response: Option<(EventResponse, Bytes)>,
    ) {
        let is_success = condition == SUCCESS;
        let targets = settings.targets(is_success);
        if targets.is_empty() {
            let ending = if is_success { Ending::Succeeded } else { Ending::Discarded };
            return self.finish(id, ending, Vec::new());
        }
        let now = clock::epoch_millis();
        let (response, answer) = response.unzip();
        let outgoing = Outgoing {
            condition: condition.into(),
            ended_epoch_millis: now,
            tries,
            response,
            targets,
            is_delivered: false,
            failures: 0,
            due_epoch_millis: now,
            why: String::new(),
        };
        self.keep(id, Progress::Outgoing(outgoing), answer, Vec::new());
    }

    fn sent(&mut self, id: EventId, token: u64, sent: Sent) {
        let Some(Progress::Outgoing(mut outgoing)) =
            self.held.get(&id).and_then(|held| held.progress.clone())
        else {
            return;
        };
        let outcome = if sent.remaining.is_empty() { Outcome::Success } else { Outcome::Unavailable };
        let Some(verdict) = self.queue.answered(now(), id, token, outcome, OUTGOING) else { return };
        outgoing.is_delivered |= sent.remaining.len() < outgoing.targets.len();
        match verdict {
            Verdict::Again { due, tries } if !sent.is_damaged => {
                if outgoing.failures == 0 {
                    notice::warning(&format!("an event's outcome can't be delivered yet: {}", sent.why));
                }
                outgoing.targets = sent.remaining;
                outgoing.failures = tries.throttles;
                outgoing.due_epoch_millis = clock::epoch_millis_of(due);
                outgoing.why = sent.why;
                self.keep(id, Progress::Outgoing(outgoing), None, sent.follow_ups);
            }
            Verdict::Done => {
                let ending =
                    if outgoing.condition == SUCCESS { Ending::Succeeded } else { Ending::Delivered };
                self.finish(id, ending, sent.follow_ups);
            }
            Verdict::Again { .. } | Verdict::Over(..) => {
                outgoing.why = sent.why;
                self.give_up_sending(id, &outgoing);
            }
        }
    }

    fn give_up_sending(&mut self, id: EventId, outgoing: &Outgoing) {
        let targets: Vec<&str> = outgoing.targets.iter().map(|target| target.arn.as_str()).collect();
        notice::error(&format!(
            "event {id} isn't delivered to {}: {}; it was tried {} times and is given up",
            targets.join(", "),
            outgoing.why,
            outgoing.failures
        ));
        let ending = match outgoing.condition.as_str() {
            SUCCESS => Ending::Succeeded,
            _ if outgoing.is_delivered => Ending::Delivered,
            _ => Ending::Undeliverable,
        };
        self.finish(id, ending, Vec::new());
    }

    /// It stays in the queue, with this behind it.
    fn keep(&mut self, id: EventId, progress: Progress, answer: Option<Bytes>, follow_ups: Vec<NewEvent>) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(head) = held.head() else { return };
        // Plain data with text keys, which serde_json always writes.
        let bytes: Bytes = serde_json::to_vec(&progress).unwrap_or_default().into();
        held.progress = Some(progress);
        held.next = Some(held.event(id, &head));
        self.write(id, Change::Progress { id, progress: bytes, answer, follow_ups });
    }

    fn finish(&mut self, id: EventId, ending: Ending, follow_ups: Vec<NewEvent>) {
        let Some(held) = self.held.get(&id) else { return };
        let function = Arc::clone(&held.function);
        self.write(id, Change::Finish { id, function, ending, follow_ups });
    }

    /// Makes a change last, however long the disk takes nothing. Until then the event is nobody's turn.
    fn write(&mut self, id: EventId, change: Change) {
        self.writes += 1;
        let tools = Rc::clone(&self.tools);
        tokio::task::spawn_local(async move {
            reach("events.before-settling");
            while let Err(StoreError::Refused(_)) = tools.store.queue(change.clone()).await {
                tokio::time::sleep(WRITE_AGAIN).await;
            }
            reach("events.after-settling");
            // After a failed disk the event is where it was on it, and the next start begins there.
            let _ = tools.notes.send(Note::Settled { id });
        });
    }
}

const RATE_EXCEEDED: &str = "Rate Exceeded.";

/// A destination is tried for as long as an event may live.
const OUTGOING: Rules = Rules { retries: 0, age_seconds: AGE_SECONDS_MAX };

fn no_body(response: EventResponse) -> (EventResponse, Bytes) {
    (response, Bytes::new())
}

fn now() -> Moment {
    Moment { policy: clock::policy(), wall: clock::wall() }
}
