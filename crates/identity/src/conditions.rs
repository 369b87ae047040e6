//! What policies may ask of any request, whatever it is about.

use ondol_core::policy::Context;
use ondol_observe::clock;
use ondol_wire::time::iso_8601;

/// The keys of a request that is made now; `issued_epoch_seconds` is when the session that asks was made.
pub(crate) fn now(region: &str, issued_epoch_seconds: Option<i64>) -> Context {
    let seconds = clock::epoch_millis() / 1_000;
    let context = Context::default()
        .with("aws:CurrentTime", iso_8601(seconds))
        .with("aws:EpochTime", seconds.to_string())
        .with("aws:SecureTransport", "false")
        .with("aws:ViaAWSService", "false")
        .with("aws:RequestedRegion", region);
    match issued_epoch_seconds {
        Some(issued) => {
            context.with("aws:TokenIssueTime", iso_8601(issued)).with("aws:MultiFactorAuthPresent", "false")
        }
        None => context,
    }
}
