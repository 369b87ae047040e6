//! The loop that works the queue off: what is next → an attempt → what follows, on disk → the queue goes on.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ondol_core::coins::Coins;
use ondol_core::event::{Conclusion, EventHead, EventResponse, EventSettings, Outgoing, Progress};
use ondol_core::event_queue::{
    AGE_SECONDS_MAX, Claim, Condition, Event, EventId, EventQueue, Moment, Outcome, Rules, Step, Tries,
    Verdict,
};
use ondol_core::identity::Home;
use ondol_core::time::PolicyTime;
use ondol_failpoint::reach;
use ondol_identity::Authorizer;
use ondol_observe::{clock, notice};
use ondol_protocol::inner::{Called, Invoke};
use ondol_services::ServiceEndpoints;
use ondol_store::queue::{Change, Ending, Followed, Kept, NewEvent, Queued};
use ondol_store::{Store, StoreError};
use tokio::sync::{mpsc, watch};

use crate::attempt::{Note, Sent, Tools};
use crate::destination::Destinations;
use crate::settings::SettingsCache;
use crate::view::{self, Asking};

/// Between tries to write what the disk does not take.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// With so many writes under way nothing more is begun: a disk that takes nothing would have all of it done again.
const WRITES_MAX: usize = 512;

/// What is known here of an event beside what the queue's machine knows.
#[derive(Debug)]
pub struct Held {
    pub function: Arc<str>,
    pub head: EventHead,
    pub payload_bytes: u64,
    payload: Option<Kept>,
    pub enqueued_epoch_millis: i64,
    /// What its present stage's age counts from.
    since: PolicyTime,
    pub progress: Option<Progress>,
    /// What becomes of it once what is being written is on disk; none if it leaves.
    next: Option<Event>,
}

impl Held {
    /// Its place in the queue's machine.
    fn event(&self, id: EventId) -> Event {
        let (lane, due, tries) = match &self.progress {
            None => (self.head.lane(&self.function), self.since, Tries::default()),
            Some(Progress::Tried { tries, due_epoch_millis, .. }) => {
                (self.head.lane(&self.function), clock::policy_of(*due_epoch_millis), *tries)
            }
            Some(Progress::Outgoing(outgoing)) => {
                // A destination that takes nothing of a function keeps only that function's waiting.
                let arn = outgoing.targets.first().map_or("", |target| target.arn.as_str());
                let lane = format!("{} to {arn}", self.function).into();
                let tries = Tries { errors: 0, throttles: outgoing.failures };
                (lane, clock::policy_of(outgoing.due_epoch_millis), tries)
            }
        };
        Event { id, lane, payload_bytes: self.payload_bytes, since: self.since, due, tries }
    }

    /// What the function said itself in an earlier attempt; its answer is on disk.
    fn said_before(&self) -> Option<EventResponse> {
        match &self.progress {
            Some(Progress::Tried { response, .. }) => response.clone(),
            _ => None,
        }
    }
}

/// What an attempt was answered.
struct Said {
    response: EventResponse,
    /// None if the answer is on disk already.
    answer: Option<Bytes>,
}

impl Said {
    /// By this side, as the function said nothing. It takes the place of what the function said before.
    fn here(status: u16, message: impl Into<String>) -> Self {
        let message = Some(message.into());
        let response = EventResponse { status, executed_version: None, is_error: false, message };
        Self { response, answer: Some(Bytes::new()) }
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
    /// Lanes whose trouble the operator has heard of.
    warned: HashSet<Arc<str>>,
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
        coins: Coins,
    ) -> Self {
        let (notes, noted) = mpsc::unbounded_channel();
        let destinations = Destinations::new(services, authorizer);
        let tools = Rc::new(Tools { store, invoke, destinations, home, coins: coins.into(), notes });
        let (queue, held, settings) = (EventQueue::default(), HashMap::new(), SettingsCache::default());
        Self { tools, queue, held, settings, noted, writes: 0, warned: HashSet::new() }
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
            while !is_stopping && self.may_begin() && self.step() {}
            if is_stopping && self.writes == 0 && self.queue.next_wakeup().1.is_none() {
                return Ok(());
            }
            // While it stops nothing begins by itself.
            let wake = if is_stopping { None } else { self.wake() };
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

    /// After a failed disk nothing that follows could be kept; the next start begins where the disk is.
    fn may_begin(&self) -> bool {
        self.writes < WRITES_MAX && !self.tools.store.is_failed()
    }

    fn wake(&self) -> Option<Duration> {
        if !self.may_begin() {
            // A write that ends wakes it.
            return None;
        }
        let (policy, wall) = self.queue.next_wakeup();
        let lease = wall.map(|at| Duration::from_micros(at.0.saturating_sub(clock::wall().0)));
        policy.map(clock::until).into_iter().chain(lease).min()
    }

    fn take_in(&mut self, queued: Queued) {
        let Queued { id, function, head, payload_bytes, payload, enqueued_epoch_millis, progress } = queued;
        let progress = progress.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let began = match &progress {
            Some(Progress::Outgoing(outgoing)) => outgoing.ended_epoch_millis,
            _ => enqueued_epoch_millis,
        };
        // Nothing has begun in the future, whatever the clock said then.
        let since = clock::policy_of(began).min(clock::policy());
        let Ok(head) = serde_json::from_slice(&head) else {
            notice::error(&format!("event {id} in the queue can't be read and is given up"));
            let ending = Ending::Undeliverable;
            return self.write(id, Change::Finish { id, function, ending, follow_ups: Vec::new() });
        };
        let next = None;
        let held =
            Held { function, head, payload_bytes, payload, enqueued_epoch_millis, since, progress, next };
        self.queue.arrive(now(), held.event(id));
        self.held.insert(id, held);
    }

    /// Begins the next attempt; false if there is none now.
    fn step(&mut self) -> bool {
        let Self { queue, held, settings, tools, .. } = self;
        let step = queue.next(now(), |event| match held.get(&event.id) {
            Some(Held { progress: Some(Progress::Outgoing(_)), .. }) => OUTGOING,
            Some(held) => settings.of(&tools.store, &held.function, held.head.qualifier.as_ref()).rules,
            None => Rules::default(),
        });
        match step {
            None => return false,
            Some(Step::Attempt(claim)) => self.attempt(claim),
            Some(Step::Expired(id)) => self.expired(id),
        }
        true
    }

    fn settings_of(&mut self, id: EventId) -> Option<Arc<EventSettings>> {
        let held = self.held.get(&id)?;
        Some(self.settings.of(&self.tools.store, &held.function, held.head.qualifier.as_ref()))
    }

    fn attempt(&mut self, claim: Claim) {
        let Some(settings) = self.settings_of(claim.id) else { return };
        let Some(held) = self.held.get_mut(&claim.id) else { return };
        let (tools, function, head) = (Rc::clone(&self.tools), Arc::clone(&held.function), held.head.clone());
        match &held.progress {
            Some(Progress::Outgoing(outgoing)) => {
                let role = settings.role.clone();
                tokio::task::spawn_local(tools.send(claim, function, head, outgoing.clone(), role));
            }
            _ if settings.stops_loops && head.is_in_a_loop(&function) => {
                let said = Said::here(400, "Destinations brought the event round in circles.");
                let refused = Outcome::Refused(Condition::RecursiveInvocation);
                self.answered(claim, refused, Some(said), "");
            }
            _ => {
                let kept = held.payload.take().map(|kept| kept.bytes.clone());
                tokio::task::spawn_local(tools.invoke(claim, function, head, kept));
            }
        }
    }

    fn hear(&mut self, note: Note) {
        match note {
            Note::Alive(claim) => {
                self.queue.renew(now(), claim);
            }
            Note::Invoked(claim, called) => self.invoked(claim, called),
            Note::Sent(claim, sent) => self.sent(claim, sent),
            Note::Settled(id) => {
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

    fn invoked(&mut self, claim: Claim, called: Called) {
        let (outcome, said, why) = match called {
            Called::Answered { executed_version, is_error, body } => {
                let executed_version = Some(executed_version);
                let response = EventResponse { status: 200, executed_version, is_error, message: None };
                let outcome = if is_error { Outcome::FunctionError } else { Outcome::Success };
                (outcome, Some(Said { response, answer: Some(body) }), "the function failed".into())
            }
            Called::Throttled => {
                (Outcome::Throttled, Some(Said::here(429, RATE_EXCEEDED)), "throttled".into())
            }
            Called::Closed => {
                let refused = Outcome::Refused(Condition::ZeroReservedConcurrency);
                (refused, None, "reserved concurrency is 0".into())
            }
            Called::NotFound(why) => (Outcome::FunctionError, Some(Said::here(404, why.as_str())), why),
            Called::Unavailable(why) => (Outcome::Unavailable, Some(Said::here(500, why.as_str())), why),
        };
        self.answered(claim, outcome, said, &why);
    }

    /// An invocation's attempt is over.
    fn answered(&mut self, claim: Claim, outcome: Outcome, said: Option<Said>, why: &str) {
        let Some(settings) = self.settings_of(claim.id) else { return };
        match self.queue.answered(now(), claim, outcome, settings.rules) {
            // It was taken for lost, and another attempt is at it.
            None => {}
            // The record of a success counts one attempt, also after others. Source: recorded from AWS.
            Some(Verdict::Done) => self.end(claim.id, &settings, Conclusion::Success, Tries::default(), said),
            Some(Verdict::Over(condition, tries)) => {
                self.end(claim.id, &settings, Conclusion::Failure(condition), tries, said);
            }
            Some(Verdict::Again { due, tries }) => {
                let due_epoch_millis = clock::epoch_millis_of(due);
                // What the function itself said is kept: the last word of an event that becomes too old.
                let (response, answer) = match said.filter(|said| said.response.status == 200) {
                    Some(Said { response, answer }) => (Some(response), answer),
                    None => (self.held.get(&claim.id).and_then(Held::said_before), None),
                };
                let tried = Progress::Tried { tries, due_epoch_millis, why: why.into(), response };
                self.keep(claim.id, tried, answer, Vec::new());
            }
        }
    }

    fn expired(&mut self, id: EventId) {
        let Some(settings) = self.settings_of(id) else { return };
        let Some(held) = self.held.get(&id) else { return };
        let tries = match &held.progress {
            Some(Progress::Outgoing(outgoing)) => {
                let outgoing = outgoing.clone();
                return self.give_up_sending(id, &outgoing);
            }
            Some(Progress::Tried { tries, .. }) => *tries,
            None => Tries::default(),
        };
        let said = match held.said_before() {
            Some(response) => Said { response, answer: None },
            None => Said::here(429, RATE_EXCEEDED),
        };
        let conclusion = Conclusion::Failure(Condition::EventAgeExceeded);
        self.end(id, &settings, conclusion, tries, Some(said));
    }

    /// An event's invocation is over: it leaves, or its outcome goes out.
    fn end(
        &mut self,
        id: EventId,
        settings: &EventSettings,
        conclusion: Conclusion,
        tries: Tries,
        said: Option<Said>,
    ) {
        let targets = settings.targets(conclusion);
        if targets.is_empty() {
            let is_success = conclusion == Conclusion::Success;
            let ending = if is_success { Ending::Succeeded } else { Ending::Discarded };
            return self.finish(id, ending, Vec::new());
        }
        let now = clock::epoch_millis();
        let (response, answer) = said.map_or((None, None), |said| (Some(said.response), said.answer));
        let outgoing = Outgoing {
            condition: conclusion,
            ended_epoch_millis: now,
            tries,
            response,
            targets,
            is_delivered: false,
            failures: 0,
            due_epoch_millis: now,
            why: String::new(),
        };
        if let Some(held) = self.held.get_mut(&id) {
            held.since = clock::policy();
        }
        self.keep(id, Progress::Outgoing(outgoing), answer, Vec::new());
    }

    fn sent(&mut self, claim: Claim, sent: Sent) {
        let id = claim.id;
        let Some(Progress::Outgoing(mut outgoing)) =
            self.held.get(&id).and_then(|held| held.progress.clone())
        else {
            return;
        };
        let outcome = if sent.remaining.is_empty() { Outcome::Success } else { Outcome::Unavailable };
        let Some(verdict) = self.queue.answered(now(), claim, outcome, OUTGOING) else { return };
        outgoing.is_delivered |= sent.remaining.len() < outgoing.targets.len();
        match verdict {
            Verdict::Again { due, tries } if !sent.is_damaged => {
                self.warn_once(id, &sent.why);
                outgoing.targets = sent.remaining;
                outgoing.failures = tries.throttles;
                outgoing.due_epoch_millis = clock::epoch_millis_of(due);
                outgoing.why = sent.why;
                self.keep(id, Progress::Outgoing(outgoing), None, sent.follow_ups);
            }
            Verdict::Done => {
                if let Some(lane) = self.queue.lane_of(id) {
                    self.warned.remove(&lane);
                }
                self.finish(id, ending_of(&outgoing), sent.follow_ups);
            }
            Verdict::Again { .. } | Verdict::Over(..) => {
                outgoing.why = sent.why;
                self.give_up_sending(id, &outgoing);
            }
        }
    }

    /// A destination in trouble is told of once, until it takes something again.
    fn warn_once(&mut self, id: EventId, why: &str) {
        if let Some(lane) = self.queue.lane_of(id).filter(|lane| !self.warned.contains(lane)) {
            notice::warning(&format!("outcomes of events can't be delivered yet, {lane}: {why}"));
            self.warned.insert(lane);
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
        self.finish(id, ending_of(outgoing), Vec::new());
    }

    /// It stays in the queue, with this behind it.
    fn keep(&mut self, id: EventId, progress: Progress, answer: Option<Bytes>, follow_ups: Vec<NewEvent>) {
        let Some(held) = self.held.get_mut(&id) else { return };
        // Plain data with text keys, which serde_json always writes.
        let bytes: Bytes = serde_json::to_vec(&progress).unwrap_or_default().into();
        held.progress = Some(progress);
        held.next = Some(held.event(id));
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
            let _ = tools.notes.send(Note::Settled(id));
        });
    }
}

const RATE_EXCEEDED: &str = "Rate Exceeded.";

/// A destination is tried for as long as an event may live.
const OUTGOING: Rules = Rules { retries: 0, age_seconds: AGE_SECONDS_MAX };

/// How an event leaves whose outcome has gone out as far as it will.
fn ending_of(outgoing: &Outgoing) -> Ending {
    match outgoing.condition {
        Conclusion::Success => Ending::Succeeded,
        Conclusion::Failure(_) if outgoing.is_delivered => Ending::Delivered,
        Conclusion::Failure(_) => Ending::Undeliverable,
    }
}

fn now() -> Moment {
    Moment { policy: clock::policy(), wall: clock::wall() }
}
