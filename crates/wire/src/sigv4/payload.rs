//! What a signature says of the body.

use super::authorization::Authorization;
use super::crypto::{hex, sha256};
use super::{Headers, mismatch};
use crate::fault::Fault;

/// How the body takes part in the signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// By this last line of the canonical request: its hash, or `UNSIGNED-PAYLOAD`.
    Whole(String),
    /// In chunks (`aws-chunked`).
    Chunks { word: &'static str, signed: bool, trailer: bool },
}

const CHUNKED: [(&str, bool, bool); 3] = [
    ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", true, false),
    ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", true, true),
    ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", false, true),
];

impl Payload {
    /// What `X-Amz-Content-Sha256` says, or what holds where it is not given. A stated hash must be the body's.
    pub fn of(headers: &dyn Headers, authorization: &Authorization, body: &[u8]) -> Result<Self, Fault> {
        let presigned = authorization.presigned.as_ref();
        let stated = headers
            .get("x-amz-content-sha256")
            .or_else(|| presigned.and_then(|query| query.content_sha256.clone()));
        let Some(stated) = stated else {
            let unsigned = presigned.is_some() && authorization.is_s3();
            return Ok(Self::Whole(if unsigned { "UNSIGNED-PAYLOAD".into() } else { hex(&sha256(body)) }));
        };
        if stated == "UNSIGNED-PAYLOAD" {
            return Ok(Self::Whole(stated));
        }
        if let Some(&(word, signed, trailer)) = CHUNKED.iter().find(|(word, ..)| *word == stated) {
            return Ok(Self::Chunks { word, signed, trailer });
        }
        if stated != hex(&sha256(body)) {
            return Err(mismatch("The value of X-Amz-Content-Sha256 is not the hash of the body."));
        }
        Ok(Self::Whole(stated))
    }

    /// The last line of the canonical request.
    pub fn line(&self) -> &str {
        match self {
            Self::Whole(line) => line,
            Self::Chunks { word, .. } => word,
        }
    }
}
