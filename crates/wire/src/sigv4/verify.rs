//! Checking a signature: who, when, and over what.

use super::authorization::Authorization;
use super::canonical::{Reading, canonical_request, string_to_sign};
use super::chunked::{Chain, Decoded, decode};
use super::crypto::{SigningKey, constant_time_equal};
use super::payload::Payload;
use super::{Headers, Keys, SignedRequest, incomplete, mismatch};
use crate::fault::Fault;
use crate::time::{amz_date, parse_amz_date, parse_http_date};

/// How far a request's clock may be from ours.
pub const SKEW_SECONDS_MAX: i64 = 300;
/// The same for IAM and STS.
const QUERY_SKEW_SECONDS_MAX: i64 = 900;

pub(super) const DOES_NOT_MATCH: &str = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";

/// Who signs a request, as its head says, and the secret that must have been used.
#[derive(Clone)]
pub struct Signer {
    pub authorization: Authorization,
    /// What the request carries as its session token, in a header or in its query.
    pub session_token: Option<String>,
    secret: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("authorization", &self.authorization).finish_non_exhaustive()
    }
}

impl Signer {
    /// What the head alone can show: who signs, and that the key is known. Asked before a body is read, so that
    /// strangers cannot fill the server's memory. `query` is the raw query, where presigned requests carry it all.
    pub fn of(headers: &dyn Headers, query: &str, keys: &dyn Keys) -> Result<Self, Fault> {
        let authorization = Authorization::of(headers, query)?;
        let session_token = match &authorization.presigned {
            Some(presigned) => presigned.session_token.clone(),
            None => headers.get("x-amz-security-token"),
        };
        let secret =
            keys.secret(&authorization.access_key_id, session_token.as_deref()).ok_or_else(|| {
                Fault::new(
                    "UnrecognizedClientException",
                    403,
                    "The security token included in the request is invalid.",
                )
            })?;
        Ok(Self { authorization, session_token, secret })
    }

    /// Checks the signature, once the body is there. A body in chunks (`aws-chunked`) comes back without them;
    /// `None` says that the body is what it is.
    pub fn check(
        &self,
        request: SignedRequest<'_>,
        body: &[u8],
        now_epoch_seconds: i64,
    ) -> Result<Option<Decoded>, Fault> {
        let authorization = &self.authorization;
        let stamp = check_time(&request, authorization, now_epoch_seconds)?;
        check_signed_headers(authorization)?;
        let payload = Payload::of(request.headers, authorization, body)?;
        let Authorization { date, region, service, .. } = authorization;
        let key = SigningKey::remembered(&self.secret, date, region, service);
        let matches = |reading: &Reading| {
            let canonical = canonical_request(&request, authorization, payload.line(), *reading);
            let expected = key.sign(string_to_sign(&stamp, authorization, &canonical).as_bytes());
            constant_time_equal(expected.as_bytes(), authorization.signature.as_bytes())
        };
        if !Reading::all(&request, authorization).iter().any(matches) {
            return Err(mismatch(DOES_NOT_MATCH));
        }
        let Payload::Chunks { signed, trailer, .. } = payload else { return Ok(None) };
        let scope = authorization.scope();
        let previous = authorization.signature.clone();
        let chain = signed.then_some(Chain { key: &key, stamp: &stamp, scope: &scope, previous });
        decode(body, request.headers, chain, trailer).map(Some)
    }
}

/// The time of a request as it is signed, if it is near enough to ours.
fn check_time(
    request: &SignedRequest<'_>,
    authorization: &Authorization,
    now_epoch_seconds: i64,
) -> Result<String, Fault> {
    let presigned = authorization.presigned.as_ref();
    let given = match presigned {
        Some(presigned) => presigned.stamp.clone(),
        None => request.headers.get("x-amz-date").or_else(|| request.headers.get("date")).unwrap_or_default(),
    };
    let Some(signed_at) = parse_amz_date(&given).or_else(|| parse_http_date(&given)) else {
        return Err(incomplete(format!(
            "Date must be in ISO-8601 'basic format'. Got '{given}'. See http://en.wikipedia.org/wiki/ISO_8601"
        )));
    };
    let stamp = amz_date(signed_at);
    let day = stamp.get(..8).unwrap_or_default();
    if day != authorization.date {
        return Err(mismatch(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{day}', from '{stamp}'.",
            authorization.date
        )));
    }
    let now = amz_date(now_epoch_seconds);
    // The older services bear more.
    let skew = if matches!(authorization.service.as_str(), "iam" | "sts") {
        QUERY_SKEW_SECONDS_MAX
    } else {
        SKEW_SECONDS_MAX
    };
    let age_max = presigned.and_then(|presigned| presigned.expires_seconds).unwrap_or(skew);
    if signed_at < now_epoch_seconds - age_max {
        let bound = amz_date(now_epoch_seconds - age_max);
        return Err(mismatch(format!(
            "Signature expired: {stamp} is now earlier than {bound} ({now} - {})",
            span(age_max)
        )));
    }
    if signed_at > now_epoch_seconds + skew {
        let bound = amz_date(now_epoch_seconds + skew);
        return Err(mismatch(format!(
            "Signature not yet current: {stamp} is still later than {bound} ({now} + {})",
            span(skew)
        )));
    }
    Ok(stamp)
}

fn span(seconds: i64) -> String {
    if seconds % 60 == 0 { format!("{} min.", seconds / 60) } else { format!("{seconds} sec.") }
}

/// The list must name `host`, and be written as the canonical request has it.
fn check_signed_headers(authorization: &Authorization) -> Result<(), Fault> {
    let names = authorization.signed_headers.split(';');
    if !names.clone().is_sorted_by(|a, b| a < b)
        || names.clone().any(|name| name.contains(char::is_uppercase))
    {
        return Err(mismatch("The names in 'SignedHeaders' must be in lower case, sorted, and named once."));
    }
    if !names.clone().any(|name| name == "host" || name == ":authority") {
        return Err(mismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."));
    }
    Ok(())
}
