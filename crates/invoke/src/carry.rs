//! One invocation from its name to its answer, whoever asked for it: admit, deliver, collect, record.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ondol_core::capacity::REPLACED;
use ondol_core::function::VersionKey;
use ondol_core::gate::ThrottleCause;
use ondol_core::identity::{PublicationId, Qualifier, RequestId};
use ondol_core::time::WallTime;
use ondol_observe::clock;
use ondol_observe::usage::{Outcome, UsageEvent};
use ondol_protocol::invocation::{Deliver, Invocation, Reply, ReplyBody, StreamLimits};
use ondol_wire::fault::Fault;

use crate::directory::Target;
use crate::shard::{Shard, Undelivered};

/// Times an invocation looks again for what its function is now, as it was updated while it waited.
const REPLACED_MAX: u32 = 20;
const NEWER_WAIT: Duration = Duration::from_secs(1);

/// What is invoked, and with what. Whoever asks may.
#[derive(Debug)]
pub struct Order {
    pub function: Arc<str>,
    pub qualifier: Option<Qualifier>,
    pub invoked_arn: Arc<str>,
    /// Nothing stands for an empty object.
    pub payload: Bytes,
    pub client_context: Option<Arc<str>>,
    pub trace_id: Arc<str>,
    pub wants_log_tail: bool,
    /// Whether the answer may come while it is written.
    pub stream: Option<StreamLimits>,
}

impl Order {
    fn invocation(&self, target: &Target, request: RequestId) -> Invocation {
        Invocation {
            request,
            publication: target.publication,
            payload: if self.payload.is_empty() { Bytes::from_static(b"{}") } else { self.payload.clone() },
            timeout_millis: target.timeout_millis,
            invoked_arn: Arc::clone(&self.invoked_arn),
            client_context: self.client_context.clone(),
            trace_id: Some(Arc::clone(&self.trace_id)),
            wants_log_tail: self.wants_log_tail,
            stream: self.stream,
            counted: None,
        }
    }
}

/// What became of an order.
#[derive(Debug)]
pub struct Carried {
    /// The version that it went to, last.
    pub version: Arc<VersionKey>,
    pub outcome: Result<Reply, Undelivered>,
}

pub async fn carry_out<D: Deliver + 'static>(
    shard: &Rc<Shard<D>>,
    order: &Order,
    mut target: Target,
    started: WallTime,
    id: RequestId,
) -> Result<Carried, Fault> {
    let mut left = REPLACED_MAX;
    let outcome = loop {
        let invocation = order.invocation(&target, id);
        let outcome = match target.on_demand.clone() {
            None => shard.deliver(invocation).await,
            // In a task of its own: a caller that goes away must not take a half-started environment with it.
            Some(limits) => {
                let shard = Rc::clone(shard);
                let delivery = async move { shard.deliver_on_demand(invocation, &limits).await };
                let lost = Undelivered::Throttled(ThrottleCause::Concurrency);
                tokio::task::spawn_local(delivery).await.unwrap_or(Err(lost))
            }
        };
        match outcome {
            // The function was updated while this waited for an environment: what it is now takes it.
            Err(Undelivered::NotStarted(reason)) if reason.code == REPLACED && left > 0 => {
                left -= 1;
                target = resolve_newer(shard, order, target.publication).await?;
            }
            outcome => break outcome,
        }
    };
    let (mut outcome, version) = (outcome, target.version);
    match &outcome {
        Ok(_) => target.meter.answered(),
        Err(Undelivered::Throttled(cause)) => target.meter.throttled(*cause),
        Err(Undelivered::ReservedConcurrency | Undelivered::NotStarted(_)) => {}
    }
    let (usage, counted) = (shard.usage.clone(), Arc::clone(&version));
    let record = move |outcome| {
        let duration_micros = clock::wall().0.saturating_sub(started.0);
        usage.record(UsageEvent { version: counted, outcome, duration_micros });
    };
    match &mut outcome {
        // It is over when its stream is.
        Ok(Reply { body: ReplyBody::Stream(stream), .. }) => stream.when_over(move |end| {
            let failed = end.is_some_and(|end| end.error.is_some());
            record(if failed { Outcome::FunctionError } else { Outcome::Success });
        }),
        Ok(reply) if reply.function_error.is_some() => record(Outcome::FunctionError),
        Ok(_) => record(Outcome::Success),
        Err(Undelivered::Throttled(cause)) => record(Outcome::Throttled(*cause)),
        Err(Undelivered::ReservedConcurrency) => record(Outcome::Throttled(ThrottleCause::Concurrency)),
        Err(Undelivered::NotStarted(_)) => record(Outcome::FunctionError),
    }
    Ok(Carried { version, outcome })
}

/// What a name stands for now. Whoever refused the publication knew of its end before this thread does, so one that
/// is still the same is waited for to change, for a while.
async fn resolve_newer<D: Deliver>(
    shard: &Rc<Shard<D>>,
    order: &Order,
    refused: PublicationId,
) -> Result<Target, Fault> {
    let mut updated = shard.directory.watch();
    let until = tokio::time::Instant::now() + NEWER_WAIT;
    loop {
        let target = shard.resolve(&order.function, order.qualifier.as_ref())?;
        if target.publication != refused {
            return Ok(target);
        }
        match tokio::time::timeout_at(until, updated.changed()).await {
            Ok(Ok(())) => {}
            _ => return Ok(target),
        }
    }
}

/// A trace of the caller's none: every invocation has one, and it is not sampled.
pub fn new_trace(request: RequestId) -> Arc<str> {
    let seconds = clock::epoch_millis() / 1_000;
    let (high, low) = ((request.0 >> 64) as u64, request.0 as u64);
    format!(
        "Root=1-{seconds:08x}-{:024x};Parent={low:016x};Sampled=0",
        u128::from(high) << 32 | u128::from(low >> 32)
    )
    .into()
}
