//! The door for those within: events and event sources invoke like anybody else, without a signature.

use std::rc::Rc;
use std::sync::Arc;

use ondol_core::identity::{Qualifier, RequestId};
use ondol_observe::clock;
use ondol_protocol::inner::{Call, Called, Invoke};
use ondol_protocol::invocation::Deliver;
use tokio::sync::{mpsc, oneshot};

use crate::answer::whole_of;
use crate::carry::{Carried, Order, carry_out, new_trace};
use crate::invocation::not_started;
use crate::shard::{Shard, Undelivered};

/// A call, and where its outcome goes.
pub type InnerCall = (Call, oneshot::Sender<Called>);

/// Lines to all shards.
#[derive(Debug, Clone)]
pub struct Inner(Vec<mpsc::Sender<InnerCall>>);

impl Inner {
    pub fn new(lines: Vec<mpsc::Sender<InnerCall>>) -> Self {
        Self(lines)
    }
}

impl Invoke for Inner {
    async fn invoke(&self, call: Call) -> Called {
        let stopping = || Called::Unavailable("The server is shutting down.".into());
        // Any shard will do; the id spreads them.
        let place = usize::try_from(call.request.0 % self.0.len().max(1) as u128).unwrap_or_default();
        let Some(line) = self.0.get(place) else { return stopping() };
        let (answer, answered) = oneshot::channel();
        if line.send((call, answer)).await.is_err() {
            return stopping();
        }
        answered.await.unwrap_or_else(|_| stopping())
    }
}

impl<D: Deliver + 'static> Shard<D> {
    /// Serves what comes from within.
    pub async fn serve_inner(self: Rc<Self>, mut calls: mpsc::Receiver<InnerCall>) {
        while let Some((call, answer)) = calls.recv().await {
            let shard = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                // Whoever asked and is gone has been replaced by somebody who asks again.
                let _ = answer.send(invoke(&shard, call).await);
            });
        }
    }
}

async fn invoke<D: Deliver + 'static>(shard: &Rc<Shard<D>>, call: Call) -> Called {
    let started = clock::wall();
    let request = call.request;
    let qualifier = call.qualifier.as_deref().map(Qualifier::parse);
    let target = match shard.resolve(&call.function, qualifier.as_ref()) {
        Ok(target) => target,
        Err(fault) if fault.status == 404 => return Called::NotFound(fault.message),
        Err(fault) => return Called::Unavailable(fault.message),
    };
    let closed = target.on_demand.as_ref().is_some_and(|limits| limits.reserved == Some(0));
    if closed {
        return Called::Closed;
    }
    let order = Order {
        invoked_arn: shard.directory.home().function_arn(&call.function, call.qualifier.as_deref()).into(),
        function: call.function,
        qualifier,
        payload: call.payload,
        client_context: None,
        trace_id: call.trace_id.unwrap_or_else(|| new_trace(request)),
        wants_log_tail: false,
        stream: None,
    };
    match carry_out(shard, &order, target, started, request).await {
        Ok(Carried { version, outcome }) => called(outcome, version.version.as_str().into(), request),
        Err(fault) if fault.status == 404 => Called::NotFound(fault.message),
        Err(fault) => Called::Unavailable(fault.message),
    }
}

fn called(
    outcome: Result<ondol_protocol::invocation::Reply, Undelivered>,
    executed_version: Arc<str>,
    request: RequestId,
) -> Called {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(Undelivered::Throttled(_) | Undelivered::ReservedConcurrency) => return Called::Throttled,
        Err(Undelivered::NotStarted(reason)) => match not_started(&reason, request) {
            Ok(reply) => reply,
            Err(fault) if fault.status == 429 => return Called::Throttled,
            Err(fault) => return Called::Unavailable(fault.message),
        },
    };
    if reply.is_cut {
        return Called::Unavailable("The execution environment was shut down while it ran.".into());
    }
    let (is_error, body) = (reply.function_error.is_some(), whole_of(reply.body));
    Called::Answered { executed_version, is_error, body }
}
