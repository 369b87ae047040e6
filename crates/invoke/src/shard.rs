//! One invoke thread: its gate, its environments, its door, and its lines to the other shards.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response};
use ondol_core::coins::Coins;
use ondol_core::function::Reason;
use ondol_core::gate::{ATTEMPTS_MAX, Event, Gate, ThrottleCause};
use ondol_core::identity::{EnvironmentId, Qualifier, RequestId};
use ondol_core::on_demand::Given;
use ondol_identity::Gatekeeper;
use ondol_observe::usage::UsageSender;
use ondol_protocol::invocation::{Counted, Deliver, Invocation, Refused, Reply, StreamLimits};
use ondol_store::Store;
use ondol_wire::fault::Fault;
use tokio::sync::{mpsc, oneshot};

use crate::directory::{Directory, OnDemandLimits, Target};
use crate::hosts::HostPolicy;
use crate::on_demand::OnDemand;

/// Environments an invocation on demand is offered one after the other: each refuses once at most, while its code goes
/// on after an answer or ends.
const ON_DEMAND_ATTEMPTS_MAX: usize = 20;

/// An invocation that goes to another shard, and where its outcome comes back.
#[derive(Debug)]
pub struct Hop {
    invocation: Invocation,
    /// The one environment it is for, of a Lambda (default) function; any of its publication otherwise.
    to: Option<EnvironmentId>,
    outcome: oneshot::Sender<Result<Reply, ThrottleCause>>,
}

/// Why an invocation has no reply of the function.
#[derive(Debug)]
pub(crate) enum Undelivered {
    Throttled(ThrottleCause),
    /// The function's reserved concurrency is used up.
    ReservedConcurrency,
    /// Its execution environment did not start, and why.
    NotStarted(Reason),
}

/// A request that is not an invocation, and where its answer goes.
pub type ApiCall = (Request<Incoming>, oneshot::Sender<Response<Bytes>>);
/// The sending side of the API's door.
pub type ApiDoor = mpsc::Sender<ApiCall>;

/// What every shard shares.
#[derive(Debug, Clone)]
pub struct Shared {
    pub directory: Arc<Directory>,
    pub gatekeeper: Arc<Gatekeeper>,
    pub usage: UsageSender,
    pub api: ApiDoor,
    pub hosts: HostPolicy,
    pub on_demand: Arc<OnDemand>,
    /// Where events go.
    pub store: Store,
    pub stream_limits: StreamLimits,
}

/// Single-threaded: nothing in it is locked.
#[derive(Debug)]
pub struct Shard<D> {
    pub(crate) directory: Arc<Directory>,
    pub(crate) gatekeeper: Arc<Gatekeeper>,
    pub(crate) usage: UsageSender,
    pub(crate) api: ApiDoor,
    pub(crate) hosts: HostPolicy,
    pub(crate) store: Store,
    pub(crate) stream_limits: StreamLimits,
    gate: RefCell<Gate>,
    coins: RefCell<Coins>,
    agent: D,
    on_demand: Arc<OnDemand>,
    /// The lines to all shards, and which of them is this one.
    lines: Vec<mpsc::Sender<Hop>>,
    place: usize,
}

impl<D: Deliver> Shard<D> {
    pub fn new(shared: Shared, agent: D, lines: Vec<mpsc::Sender<Hop>>, place: usize, seed: u64) -> Self {
        let Shared { directory, gatekeeper, usage, api, hosts, on_demand, store, stream_limits } = shared;
        let (gate, coins) = (RefCell::default(), RefCell::new(Coins::from_seed(seed)));
        Self {
            directory,
            gatekeeper,
            usage,
            api,
            hosts,
            store,
            stream_limits,
            gate,
            coins,
            agent,
            on_demand,
            lines,
            place,
        }
    }

    /// What the agent says of its environments here.
    pub fn gate_event(&self, event: &Event) {
        if !self.on_demand.hears(self.place, event) {
            self.gate.borrow_mut().handle(event);
        }
    }

    pub(crate) fn resolve(&self, name: &str, qualifier: Option<&Qualifier>) -> Result<Target, Fault> {
        self.directory.resolve(name, qualifier, &mut self.coins.borrow_mut())
    }

    pub(crate) fn new_request_id(&self) -> RequestId {
        RequestId::by(&mut self.coins.borrow_mut())
    }

    /// Admits and delivers: here if there is a free slot, else in another shard, else a throttle.
    pub(crate) async fn deliver(&self, invocation: Invocation) -> Result<Reply, Undelivered> {
        let mut cause = match self.deliver_here(&invocation).await {
            Ok(reply) => return Ok(reply),
            Err(cause) => cause,
        };
        for other in (0..self.lines.len()).filter(|place| *place != self.place) {
            match self.hop(other, invocation.clone(), None).await {
                Some(Ok(reply)) => return Ok(reply),
                // What is too hot says more than that there is nothing else.
                Some(Err(other_cause)) => cause = cause.max(other_cause),
                None => {}
            }
        }
        Err(Undelivered::Throttled(cause))
    }

    async fn hop(
        &self,
        place: usize,
        invocation: Invocation,
        to: Option<EnvironmentId>,
    ) -> Option<Result<Reply, ThrottleCause>> {
        let (outcome, decided) = oneshot::channel();
        self.lines.get(place)?.send(Hop { invocation, to, outcome }).await.ok()?;
        decided.await.ok()
    }

    /// Delivers to a Lambda (default) function: within its concurrency, to an idle environment or to one that is
    /// started for it.
    pub(crate) async fn deliver_on_demand(
        &self,
        mut invocation: Invocation,
        limits: &OnDemandLimits,
    ) -> Result<Reply, Undelivered> {
        // Both are counted for as long as they run, so that a limit that changes meanwhile counts them too.
        let Some(of_function) = Running::start(&limits.running, limits.reserved.unwrap_or(u32::MAX)) else {
            return Err(Undelivered::ReservedConcurrency);
        };
        let of_account = match limits.reserved {
            Some(_) => None,
            None => {
                let running = &self.directory.unreserved_running;
                let started = Running::start(running, self.directory.unreserved());
                Some(started.ok_or(Undelivered::Throttled(ThrottleCause::Concurrency))?)
            }
        };
        invocation.counted = Some(Counted::by((of_function, of_account)));
        for _ in 0..ON_DEMAND_ATTEMPTS_MAX {
            let acquired = self.on_demand.acquire(invocation.publication).await;
            let Given { environment, place, .. } = acquired.map_err(Undelivered::NotStarted)?;
            let outcome = if place == self.place {
                self.agent.deliver(environment, invocation.clone()).await.map_err(|Refused(cause)| cause)
            } else {
                let hopped = self.hop(place, invocation.clone(), Some(environment)).await;
                hopped.unwrap_or(Err(ThrottleCause::Concurrency))
            };
            // An environment may end between being given and being reached; then another is asked for.
            if let Ok(reply) = outcome {
                return Ok(reply);
            }
        }
        Err(Undelivered::Throttled(ThrottleCause::Concurrency))
    }

    async fn deliver_here(&self, invocation: &Invocation) -> Result<Reply, ThrottleCause> {
        let mut tried: Vec<EnvironmentId> = Vec::new();
        let mut cause = ThrottleCause::Concurrency;
        while tried.len() < ATTEMPTS_MAX {
            let admitted = {
                let coins = &mut self.coins.borrow_mut();
                self.gate.borrow_mut().admit(invocation.publication, &tried, coins)
            };
            let environment = match admitted {
                Ok(environment) => environment,
                Err(saturated) => return Err(if tried.is_empty() { saturated } else { cause }),
            };
            match self.agent.deliver(environment, invocation.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(Refused(why)) => {
                    tried.push(environment);
                    cause = why;
                }
            }
        }
        Err(cause)
    }

    /// Serves what other shards send here.
    pub async fn serve_hops(self: std::rc::Rc<Self>, mut hops: mpsc::Receiver<Hop>)
    where
        D: 'static,
    {
        while let Some(Hop { invocation, to, outcome }) = hops.recv().await {
            let shard = std::rc::Rc::clone(&self);
            tokio::task::spawn_local(async move {
                let delivered = match to {
                    Some(environment) => {
                        let delivered = shard.agent.deliver(environment, invocation).await;
                        delivered.map_err(|Refused(cause)| cause)
                    }
                    None => shard.deliver_here(&invocation).await,
                };
                // A caller that went away does not undo the invocation.
                let _ = outcome.send(delivered);
            });
        }
    }
}

/// One running invocation, counted for as long as this lives.
struct Running(Arc<AtomicU32>);

impl Running {
    /// None if as many run as may.
    fn start(running: &Arc<AtomicU32>, limit: u32) -> Option<Self> {
        let more = |now: u32| (now < limit).then(|| now + 1);
        running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(running)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
