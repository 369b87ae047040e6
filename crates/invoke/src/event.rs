//! Asynchronous invocations: on disk before they are acknowledged. What works them off later is another room.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use ondol_core::event::EventHead;
use ondol_core::identity::{Qualifier, RequestId};
use ondol_observe::clock;
use ondol_store::queue::{Change, Changed, NewEvent};
use ondol_store::{Store, StoreError};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE;

use crate::answer::{Body, insert, insert_ids, whole};

/// The largest event of the old operation `InvokeAsync`.
pub const INVOKE_ASYNC_BYTES_MAX: usize = 256 << 10;

/// An asynchronous invocation whose caller may and whose function is there.
#[derive(Debug)]
pub struct Event {
    pub id: RequestId,
    pub function: Arc<str>,
    pub qualifier: Option<Qualifier>,
    pub payload: Bytes,
    pub trace_id: Arc<str>,
}

/// Acknowledges an event once it is on disk.
pub async fn queue(store: &Store, event: Event) -> Result<Response<Body>, Fault> {
    let (id, trace_id) = (event.id, Arc::clone(&event.trace_id));
    let head = EventHead {
        request: id,
        qualifier: event.qualifier.map(|qualifier| qualifier.to_string().into()),
        trace_id: Some(event.trace_id),
        passed: BTreeMap::new(),
    };
    let event = NewEvent {
        function: event.function,
        // Plain data with text keys, which serde_json always writes.
        head: serde_json::to_vec(&head).unwrap_or_default().into(),
        payload: event.payload,
        enqueued_epoch_millis: clock::epoch_millis(),
    };
    match store.queue(Change::Enqueue(event)).await {
        Ok(Changed::Done) => Ok(accepted(id, &trace_id)),
        Ok(Changed::Full) => Err(Fault::of(
            &SERVICE,
            "TooManyRequestsException",
            "The queue of events is full. `ondol queue` shows what waits; --quota queued-events and queued-event-bytes are its limits.",
        )
        .with_member("Reason", "CallerRateLimitExceeded")
        .with_header("retry-after", "1")),
        Err(StoreError::Stopped) => {
            Err(Fault::of(&SERVICE, "ServiceException", "The server is shutting down."))
        }
        Err(error) => {
            Err(Fault::of(&SERVICE, "ServiceException", format!("The event couldn't be stored: {error}")))
        }
    }
}

fn accepted(id: RequestId, trace_id: &str) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = StatusCode::ACCEPTED;
    insert_ids(&mut response, id, trace_id);
    insert(&mut response, "x-amzn-remapped-content-length", "0");
    response
}

/// Events have a limit of their own.
pub fn check_size(bytes: usize, limit: usize) -> Result<(), Fault> {
    if bytes <= limit {
        return Ok(());
    }
    let text =
        format!("{bytes} byte payload is too large for the Event invocation type (limit {limit} bytes)");
    Err(Fault::new("RequestEntityTooLargeException", 413, text))
}
