//! One invoke thread: its gate, its environments, its door, and its lines to the other shards.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response};
use ondol_core::coins::Coins;
use ondol_core::gate::{Event, Gate, ThrottleCause};
use ondol_core::identity::{EnvironmentId, RequestId};
use ondol_observe::usage::UsageSender;
use ondol_protocol::invocation::{Deliver, Invocation, Refused, Reply};
use ondol_wire::sigv4::Keys;
use tokio::sync::{mpsc, oneshot};

use crate::directory::Directory;
use crate::hosts::HostPolicy;

/// Environments an invocation is offered to before it is throttled.
const ATTEMPTS_MAX: usize = 3;

/// An invocation that goes to another shard, and where its outcome comes back.
pub type Hop = (Invocation, oneshot::Sender<Result<Reply, ThrottleCause>>);

/// A request that is not an invocation, and where its answer goes.
pub type ApiCall = (Request<Incoming>, oneshot::Sender<Response<Bytes>>);
/// The sending side of the API's door.
pub type ApiDoor = mpsc::Sender<ApiCall>;

/// What every shard shares.
#[derive(Debug, Clone)]
pub struct Shared {
    pub directory: Arc<Directory>,
    pub keys: Arc<dyn Keys>,
    pub usage: UsageSender,
    pub api: ApiDoor,
    pub hosts: HostPolicy,
}

/// Single-threaded: nothing in it is locked.
#[derive(Debug)]
pub struct Shard<D> {
    pub(crate) directory: Arc<Directory>,
    pub(crate) keys: Arc<dyn Keys>,
    pub(crate) usage: UsageSender,
    pub(crate) api: ApiDoor,
    pub(crate) hosts: HostPolicy,
    gate: RefCell<Gate>,
    coins: RefCell<Coins>,
    agent: D,
    others: Vec<mpsc::Sender<Hop>>,
}

impl<D: Deliver> Shard<D> {
    pub fn new(shared: Shared, agent: D, others: Vec<mpsc::Sender<Hop>>, seed: u64) -> Self {
        let Shared { directory, keys, usage, api, hosts } = shared;
        let (gate, coins) = (RefCell::default(), RefCell::new(Coins::from_seed(seed)));
        Self { directory, keys, usage, api, hosts, gate, coins, agent, others }
    }

    /// What the agent says of its environments here.
    pub fn gate_event(&self, event: &Event) {
        self.gate.borrow_mut().handle(event);
    }

    pub(crate) fn new_request_id(&self) -> RequestId {
        let mut coins = self.coins.borrow_mut();
        RequestId::from_random(coins.flip(), coins.flip())
    }

    /// Admits and delivers: here if there is a free slot, else in another shard, else a throttle.
    pub(crate) async fn deliver(&self, invocation: Invocation) -> Result<Reply, ThrottleCause> {
        let mut cause = match self.deliver_here(&invocation).await {
            Ok(reply) => return Ok(reply),
            Err(cause) => cause,
        };
        for other in &self.others {
            let (answer, answered) = oneshot::channel();
            if other.send((invocation.clone(), answer)).await.is_err() {
                continue;
            }
            match answered.await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(other_cause)) => cause = other_cause,
                Err(_) => {}
            }
        }
        Err(cause)
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
        while let Some((invocation, answer)) = hops.recv().await {
            let shard = std::rc::Rc::clone(&self);
            tokio::task::spawn_local(async move {
                // A caller that went away does not undo the invocation.
                let _ = answer.send(shard.deliver_here(&invocation).await);
            });
        }
    }
}
