//! The pool of Lambda (default) functions as all invoke threads share it. Its lock is held for a few steps of the
//! pool's machine, never while anything is waited for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ondol_core::function::Reason;
use ondol_core::gate::Event;
use ondol_core::identity::{EnvironmentId, PublicationId};
use ondol_core::on_demand::{Demand, Given, Place, Pool, Ticket, Whom};
use ondol_observe::clock;
use tokio::sync::{oneshot, watch};

/// Longer than any initialisation may take.
const WAIT: Duration = Duration::from_secs(1_000);

type Answer = Result<Given, Reason>;

#[derive(Debug)]
pub struct OnDemand {
    state: Mutex<State>,
    demand: watch::Sender<Demand>,
}

#[derive(Debug, Default)]
struct State {
    pool: Pool,
    waiters: HashMap<Ticket, oneshot::Sender<Answer>>,
    next_ticket: Ticket,
    /// The server ends: nothing is started any more.
    closed: bool,
}

impl OnDemand {
    /// The pool, and what it wants of the control loop.
    pub fn new() -> (Self, watch::Receiver<Demand>) {
        let (demand, demanded) = watch::channel(Demand::default());
        (Self { state: Mutex::default(), demand }, demanded)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves the pool's machine as it was before its step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An environment for one invocation, as soon as there is one; or why none comes.
    pub(crate) async fn acquire(&self, publication: PublicationId) -> Answer {
        let (ticket, answered) = {
            let mut state = self.state();
            if state.closed {
                return Err(Reason::new("ShuttingDown", "The server is shutting down."));
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            if let Some(given) = state.pool.arrive(publication, ticket) {
                return Ok(given);
            }
            let (answer, answered) = oneshot::channel();
            state.waiters.insert(ticket, answer);
            (ticket, answered)
        };
        self.tell();
        let mut answered = answered;
        if let Ok(Ok(answer)) = tokio::time::timeout(WAIT, &mut answered).await {
            return answer;
        }
        let mut state = self.state();
        state.waiters.remove(&ticket);
        if state.pool.leave(publication, ticket) {
            return Err(Reason::new("InternalError", "No execution environment came in time."));
        }
        // It came at the last moment.
        answered
            .try_recv()
            .unwrap_or_else(|_| Err(Reason::new("InternalError", "No execution environment came.")))
    }

    /// What the agent says of an environment; true if the pool's it is.
    pub(crate) fn hears(&self, place: Place, event: &Event) -> bool {
        let mut state = self.state();
        let now = clock::wall();
        let given = match *event {
            Event::Ready { environment, publication, is_on_demand: true, .. } => {
                state.pool.ready(now, environment, publication, place)
            }
            Event::SlotReleased { environment } if state.pool.has(environment) => {
                state.pool.freed(now, environment)
            }
            Event::Closed { environment } if state.pool.has(environment) => {
                state.pool.closed(environment);
                None
            }
            _ => return false,
        };
        if let Some(given) = given {
            state.answer(given.ticket, Ok(given));
        }
        drop(state);
        self.tell();
        true
    }

    /// Invocations that wait are told why they get no environment: one, or all of them.
    pub fn refuse(&self, publication: PublicationId, reason: &Reason, whom: Whom) {
        let mut state = self.state();
        for ticket in state.pool.refused(publication, whom) {
            state.answer(ticket, Err(reason.clone()));
        }
        drop(state);
        self.tell();
    }

    /// These give way to others, if they are idle.
    pub fn retire(&self, environments: &[EnvironmentId]) {
        self.state().pool.retire(environments);
        self.tell();
    }

    /// Retires what has been idle for so long; forgets what has ended.
    pub fn tidy(&self, idle_seconds: u64, is_living: impl Fn(EnvironmentId) -> bool) {
        let mut state = self.state();
        state.pool.expire(clock::wall(), idle_seconds);
        state.pool.forget_retired(is_living);
        drop(state);
        self.tell();
    }

    /// Nothing is started any more, and nobody waits for it.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let publications: Vec<PublicationId> = state.pool.demand().waiting.into_keys().collect();
        drop(state);
        let reason = Reason::new("ShuttingDown", "The server is shutting down.");
        publications.into_iter().for_each(|publication| self.refuse(publication, &reason, Whom::All));
    }

    fn tell(&self) {
        self.demand.send_if_modified(|told| {
            // Looked at in here, so that an older look never replaces a newer one.
            let now = self.state().pool.demand();
            let changed = *told != now;
            if changed {
                *told = now;
            }
            changed
        });
    }
}

impl State {
    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if let Some(waiter) = self.waiters.remove(&ticket) {
            // Its task lives until it is answered; only a server that ends loses it.
            let _ = waiter.send(answer);
        }
    }
}
