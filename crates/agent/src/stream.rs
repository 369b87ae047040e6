//! An answer that goes to its caller while the function writes it. A caller that reads slowly makes the function wait,
//! one that goes away or hardly reads is left behind: the function writes on, and nobody is cut off but the caller.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use ondol_core::identity::RequestId;
use ondol_core::time::WallTime;
use ondol_observe::clock;
use ondol_protocol::invocation::{PAYLOAD_BYTES_MAX, StreamLimits};
use tokio::sync::mpsc;

use crate::host::Host;
use crate::runtime_api::{Answered, ReadError, answered, broken_answer, trailing_error};

/// A caller must take a chunk within this time, and so much more for each of its bytes.
const CHUNK_SECONDS_MAX: u64 = 10;
const READ_BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// Streams a runtime's `/response`, whether it is written as a stream or whole.
pub async fn answer(
    host: &Host,
    id: RequestId,
    request: Request<Incoming>,
    limits: StreamLimits,
    streams: bool,
) -> Answered {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
    // What is written whole has the limit of what is written whole.
    let limits =
        if streams { limits } else { StreamLimits { bytes_max: PAYLOAD_BYTES_MAX as u64, ..limits } };
    let chunks = host.begin_stream(id, content_type);
    let mut unfinished = Unfinished { host, id, is_over: false };
    let forwarded = forward(request.into_body(), chunks, limits).await;
    unfinished.is_over = true;
    match forwarded {
        Ok(trailers) => match trailing_error(&trailers) {
            Some(error) => answered(host.answer(id, Some("Unhandled"), error)),
            None => answered(host.answer(id, None, Bytes::new())),
        },
        Err(error) => {
            let limit = usize::try_from(limits.bytes_max).unwrap_or(usize::MAX);
            broken_answer(host, id, &error, "Response", limit)
        }
    }
}

/// Hands chunks on until the body's end; the last one is in before this returns.
async fn forward(
    mut body: Incoming,
    mut chunks: Option<mpsc::Sender<Bytes>>,
    limits: StreamLimits,
) -> Result<HeaderMap, ReadError> {
    let (mut pace, mut written, mut trailers) = (Pace::new(limits, clock::wall()), 0, HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| ReadError::Truncated)?.into_data() {
            Ok(data) => {
                written += data.len() as u64;
                if written > limits.bytes_max {
                    return Err(ReadError::TooLarge);
                }
                let Some(open) = &chunks else { continue };
                let wait = pace.wait(clock::wall(), data.len() as u64);
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                if !take(open, data).await {
                    chunks = None;
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok(trailers)
}

/// A runtime whose connection ends in the middle has answered all the same.
struct Unfinished<'a> {
    host: &'a Host,
    id: RequestId,
    is_over: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // Nobody is there to be answered.
            drop(broken_answer(self.host, self.id, &ReadError::Truncated, "Response", 0));
        }
    }
}

/// False if the caller is gone, or reads too slowly to be waited for.
async fn take(chunks: &mpsc::Sender<Bytes>, data: Bytes) -> bool {
    if data.is_empty() {
        return true;
    }
    let seconds = CHUNK_SECONDS_MAX + data.len() as u64 / READ_BYTES_PER_SECOND_MIN;
    let taken = tokio::time::timeout(Duration::from_secs(seconds), chunks.send(data)).await;
    matches!(taken, Ok(Ok(())))
}

/// A bucket that is full at first and refills at the rate.
struct Pace {
    limits: StreamLimits,
    left: u64,
    at: WallTime,
}

impl Pace {
    fn new(limits: StreamLimits, now: WallTime) -> Self {
        Self { limits, left: limits.burst_bytes, at: now }
    }

    /// How long these bytes have to wait for their turn.
    fn wait(&mut self, now: WallTime, bytes: u64) -> Duration {
        let StreamLimits { burst_bytes, bytes_per_second, .. } = self.limits;
        let refill = u128::from(now.0.saturating_sub(self.at.0)) * u128::from(bytes_per_second) / 1_000_000;
        let left = u128::from(self.left) + refill;
        self.left = u64::try_from(left.min(u128::from(burst_bytes))).unwrap_or(burst_bytes);
        self.at = now;
        if self.left >= bytes {
            self.left -= bytes;
            return Duration::ZERO;
        }
        let missing = u128::from(bytes - self.left);
        let micros = u64::try_from(missing * 1_000_000 / u128::from(bytes_per_second.max(1)));
        let micros = micros.unwrap_or(u64::MAX);
        // What comes in until then is spent.
        (self.left, self.at) = (0, WallTime(now.0.saturating_add(micros)));
        Duration::from_micros(micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_is_free_and_the_rest_goes_at_the_rate() {
        let limits = StreamLimits { bytes_max: 1_000_000, burst_bytes: 1_000, bytes_per_second: 100 };
        let at = |seconds: u64| WallTime(seconds * 1_000_000);
        let mut pace = Pace::new(limits, at(0));
        assert_eq!(pace.wait(at(0), 900), Duration::ZERO);
        assert_eq!(pace.wait(at(0), 300), Duration::from_secs(2));
        assert_eq!(pace.wait(at(2), 100), Duration::from_secs(1));
        assert_eq!(pace.wait(at(8), 500), Duration::ZERO, "what nobody sent is saved");
        assert_eq!(pace.wait(at(1_000), 1_100), Duration::from_secs(1), "but no more than the burst");
    }
}
