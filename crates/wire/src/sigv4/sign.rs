//! Signing requests of our own.

use super::authorization::Authorization;
use super::canonical::{Reading, canonical_request, string_to_sign};
use super::crypto::{SigningKey, hex, sha256};
use super::{ALGORITHM, Headers, SignedRequest};

/// A request of ours that is to be signed; it carries `host` and `x-amz-date` (`stamp`).
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub host: &'a str,
    pub stamp: &'a str,
    pub body: &'a [u8],
}

impl Headers for Outgoing<'_> {
    fn get(&self, name: &str) -> Option<String> {
        match name {
            "host" => Some(self.host.to_owned()),
            "x-amz-date" => Some(self.stamp.to_owned()),
            _ => None,
        }
    }
}

/// The `Authorization` header of a request.
pub fn sign(
    request: &Outgoing<'_>,
    (access_key_id, secret): (&str, &str),
    (region, service): (&str, &str),
) -> String {
    let Outgoing { method, path, query, stamp, body, .. } = *request;
    let date = stamp.get(..8).unwrap_or(stamp);
    let authorization = Authorization {
        access_key_id: access_key_id.to_owned(),
        date: date.to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
        signed_headers: "host;x-amz-date".into(),
        signature: String::new(),
        presigned: None,
    };
    let signed = SignedRequest { method, path, query, headers: request };
    let reading = Reading::documented(&signed, &authorization);
    let canonical = canonical_request(&signed, &authorization, &hex(&sha256(body)), reading);
    let signature = SigningKey::derive(secret, date, region, service)
        .sign(string_to_sign(stamp, &authorization, &canonical).as_bytes());
    let (scope, signed_headers) = (authorization.scope(), authorization.signed_headers);
    format!(
        "{ALGORITHM} Credential={access_key_id}/{scope}, SignedHeaders={signed_headers}, Signature={signature}"
    )
}
