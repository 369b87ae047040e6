//! One poller: receive → filter → gather → invoke → settle, one batch at a time.

use std::sync::Arc;
use std::time::Duration;

use ondol_core::event_source::{Gathering, Verdict, again_seconds};
use ondol_core::identity::RequestId;
use ondol_core::time::{PolicyTime, WallTime};
use ondol_failpoint::reach;
use ondol_observe::{clock, notice};
use ondol_protocol::inner::{Call, Called, Invoke};

use super::mapping::{Order, Reading};
use super::source::{AfterFailure, Record, Source, Trouble};

/// The longest wait for records at a time.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What became of a batch.
enum Delivered {
    Answered {
        is_error: bool,
        body: bytes::Bytes,
    },
    /// It found no capacity in time, or is not waited for any more.
    Left,
}

/// Reads a source while this poller is wanted, and connects again whenever it can't.
pub async fn poll<S: Source, I: Invoke>(
    reading: &Reading<I>,
    index: usize,
    open: impl AsyncFn() -> Result<S, Trouble>,
) {
    let mut tries = 0;
    while reading.wants(index) {
        let ended = match open().await {
            Ok(mut source) => {
                let ended = work(reading, index, &mut source, &mut tries).await;
                if ended.is_ok() {
                    source.close().await;
                }
                ended
            }
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = ended {
            reading.trouble(index, trouble);
            let wait = Duration::from_secs(again_seconds(tries));
            tries += 1;
            let mut order = reading.order.clone();
            let _ = tokio::time::timeout(wait, order.wait_for(|order| *order != Order::Read)).await;
        }
    }
    reading.is_well(index);
}

async fn work<S: Source, I: Invoke>(
    reading: &Reading<I>,
    index: usize,
    source: &mut S,
    tries: &mut u32,
) -> Result<(), Trouble> {
    let mut gathering = Gathering::new(reading.limits);
    let mut failures = 0;
    loop {
        let Some(mut batch) = gather(reading, index, source, &mut gathering, tries).await? else {
            return Ok(());
        };
        let _busy = reading.begin();
        loop {
            reading.count(|counts| {
                counts.batches += 1;
                counts.records += batch.len() as u64;
            });
            let Delivered::Answered { is_error, body } = deliver(reading, source, &batch).await else {
                // What came behind it must not overtake it.
                if *reading.order.borrow() != Order::Read {
                    return Ok(());
                }
                break;
            };
            if !settle(reading, source, &mut batch, is_error, &body).await? {
                failures = 0;
                break;
            }
            failures += 1;
            if !reading.pause(source.pause_seconds(failures)).await {
                return Ok(());
            }
            if S::GIVES_ALL_BACK {
                batch.extend(gathering.clear());
            }
            if source.failed(&mut batch, failures).await? == AfterFailure::Left {
                break;
            }
        }
    }
}

/// The next batch; none if this poller is not wanted any more.
async fn gather<S: Source, I: Invoke>(
    reading: &Reading<I>,
    index: usize,
    source: &mut S,
    gathering: &mut Gathering<Record<S::Handle>>,
    tries: &mut u32,
) -> Result<Option<Vec<Record<S::Handle>>>, Trouble> {
    loop {
        let now = clock::policy();
        // What is left over from the batch before may have gone back meanwhile.
        if let Some(mut batch) = gathering.take(now) {
            batch.retain(|record| record.until.is_none_or(|until| clock::wall() < until));
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
            continue;
        }
        let is_empty = gathering.due().is_none();
        if !reading.wants(index) {
            match (is_empty, *reading.order.borrow()) {
                (false, Order::Finish | Order::Read) => {
                    // The window ends early for what was received.
                    return Ok(gathering.take(PolicyTime(u64::MAX)));
                }
                _ => return Ok(None),
            }
        }
        let wait = gathering.due().map_or(WAIT_MAX, |due| clock::until(due).min(WAIT_MAX));
        let mut order = reading.order.clone();
        let received = tokio::select! {
            received = source.receive(gathering.wants(), wait) => received?,
            _ = order.wait_for(|order| *order == Order::Leave || (S::MAY_LEAVE && *order == Order::Finish)) => continue,
        };
        *tries = 0;
        reading.is_well(index);
        if received.is_empty() && is_empty {
            reading.pollers.borrow_mut().found_nothing();
        }
        add(reading, source, gathering, received).await?;
    }
}

/// Gathers what the filters let through; the rest is done.
async fn add<S: Source, I>(
    reading: &Reading<I>,
    source: &mut S,
    gathering: &mut Gathering<Record<S::Handle>>,
    received: Vec<Record<S::Handle>>,
) -> Result<(), Trouble> {
    let mut unwanted = Vec::new();
    for record in received {
        if !reading.filters.let_through(&record.members, &record.payload) {
            reading.count(|counts| counts.filtered += 1);
            unwanted.push(record.handle);
            continue;
        }
        let bytes = record.rendered.len() + 1;
        if let Err(record) = gathering.add(clock::policy(), record, bytes) {
            notice::warning(&format!(
                "event source mapping {} of {}: the record {} has {bytes} bytes, which no invocation takes; it is dropped",
                reading.mapping.uuid, reading.mapping.function, record.id
            ));
            unwanted.push(record.handle);
        }
    }
    if unwanted.is_empty() { Ok(()) } else { source.done(unwanted).await }
}

/// Invokes with a batch, again and again while there is no capacity.
async fn deliver<S: Source, I: Invoke>(
    reading: &Reading<I>,
    source: &S,
    batch: &[Record<S::Handle>],
) -> Delivered {
    let payload = source.event(batch);
    let until: Option<WallTime> = batch.iter().filter_map(|record| record.until).min();
    let mut tries = 0;
    loop {
        let call = Call {
            request: RequestId::by(&mut reading.tools.coins.borrow_mut()),
            function: Arc::clone(&reading.function),
            qualifier: reading.qualifier.clone(),
            payload: payload.clone(),
            trace_id: None,
        };
        reach("sources.before-invoke");
        let why = match reading.tools.invoke.invoke(call).await {
            Called::Answered { is_error, body, .. } => return Delivered::Answered { is_error, body },
            Called::Throttled => "throttled".to_owned(),
            Called::Closed => "reserved concurrency is 0".to_owned(),
            Called::NotFound(why) | Called::Unavailable(why) => why,
        };
        reading.count(|counts| counts.throttled += 1);
        reading.report(|report| report.last_processing_result = Some(format!("PROBLEM: {why}")));
        reading.pollers.borrow_mut().slow_down();
        let goes_on = reading.pause(again_seconds(tries)).await;
        tries += 1;
        if !goes_on {
            return Delivered::Left;
        }
        if until.is_some_and(|until| clock::wall() >= until) {
            return Delivered::Left;
        }
    }
}

/// Tells the source what is done; keeps the rest in the batch and says whether there is any.
async fn settle<S: Source, I>(
    reading: &Reading<I>,
    source: &mut S,
    batch: &mut Vec<Record<S::Handle>>,
    is_error: bool,
    body: &[u8],
) -> Result<bool, Trouble> {
    let reports_item_failures = reading.mapping.reports_item_failures();
    let ids: Vec<&str> = batch.iter().map(|record| record.id.as_str()).collect();
    let verdict = Verdict::of(is_error, reports_item_failures, body, &ids);
    let result = if is_error { "PROBLEM: Function call failed" } else { "OK" };
    reading.report(|report| report.last_processing_result = Some(result.into()));
    // What reports its failures itself is not slowed down by them. Source: AWS's page on errors of queues.
    if is_error && !reports_item_failures {
        reading.pollers.borrow_mut().slow_down();
    }
    let mut places = 0..;
    let is_done = |_: &mut Record<S::Handle>| places.next().is_some_and(|place| verdict.is_done(place));
    let done: Vec<S::Handle> = batch.extract_if(.., is_done).map(|record| record.handle).collect();
    reach("sources.before-settling");
    if !done.is_empty() {
        source.done(done).await?;
    }
    if batch.is_empty() {
        return Ok(false);
    }
    reading.count(|counts| counts.failed += 1);
    Ok(true)
}
