//! AWS Signature Version 4, whole: one calculation, used to check and to sign.
//!
//! A request carries its signature in the `Authorization` header or, presigned, in its query. The body is hashed,
//! left unsigned, or signed in chunks. The clock and the secrets are arguments.
//!
//! Which headers a client signs is its choice, as on AWS, but for `host`. Only S3 asks that every `x-amz-*` header
//! is signed, and only S3 does not normalise paths.

mod authorization;
mod canonical;
mod chunked;
mod crypto;
mod payload;
mod sign;
mod verify;

pub use authorization::{Authorization, EXPIRES_SECONDS_MAX, Presigned};
pub(crate) use canonical::append_trimmed;
pub use canonical::{PathReading, Reading, canonical_request, string_to_sign};
pub use chunked::Decoded;
pub use crypto::{SigningKey, constant_time_equal, hex, hmac, sha256};
pub use sign::{Outgoing, sign};
pub use verify::{SKEW_SECONDS_MAX, Signer};

use crate::fault::Fault;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The parts of a request that are signed. Header names in lower case.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    pub method: &'a str,
    /// The path as it came, still encoded.
    pub path: &'a str,
    /// The query as it came, still encoded, without its question mark.
    pub query: &'a str,
    pub headers: &'a dyn Headers,
}

/// Looks headers up; several of one name come joined by commas.
pub trait Headers: std::fmt::Debug {
    fn get(&self, lower_case_name: &str) -> Option<String>;

    /// Appends the value as it is signed: without space at its ends, runs of space as one. A header that is not
    /// there is signed as empty.
    fn append_canonical(&self, lower_case_name: &str, out: &mut Vec<u8>) {
        canonical::append_trimmed(self.get(lower_case_name).unwrap_or_default().as_bytes(), out);
    }
}

/// Who may sign: secrets by access key id.
pub trait Keys: Send + Sync + std::fmt::Debug {
    /// The secret of a key, if it may be used here. `session_token` is what the request carries.
    fn secret(&self, access_key_id: &str, session_token: Option<&str>) -> Option<String>;
}

/// A signature that does not hold.
fn mismatch(message: impl Into<String>) -> Fault {
    Fault::new("InvalidSignatureException", 403, message)
}

/// A signature that lacks a part, or has one that cannot be read.
fn incomplete(message: impl Into<String>) -> Fault {
    Fault::new("IncompleteSignatureException", 403, message)
}

#[cfg(test)]
mod tests;
