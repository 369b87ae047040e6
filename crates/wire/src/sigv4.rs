//! AWS Signature Version 4 over a request's head and body: one calculation, used to check and to sign.
//! The clock and the secrets are arguments. Signing keys are cached by the caller through [`SigningKey`].

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::fault::Fault;
use crate::time::{amz_date, parse_amz_date};
use crate::uri::{percent_encode, query_pairs};

/// How far a request's clock may be from ours.
pub const SKEW_SECONDS_MAX: i64 = 300;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The parts of a request that are signed. Header names in lower case.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    pub method: &'a str,
    /// The path as it came, still encoded.
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a dyn Headers,
}

/// Looks headers up; several of one name come joined by commas.
pub trait Headers: std::fmt::Debug {
    fn get(&self, lower_case_name: &str) -> Option<String>;
}

/// The `Authorization` header, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    pub access_key_id: String,
    pub date: String,
    pub region: String,
    pub service: String,
    pub signed_headers: Vec<String>,
    pub signature: String,
}

impl Authorization {
    /// Reads the header; the error is the answer AWS gives.
    pub fn parse(header: Option<&str>) -> Result<Self, Fault> {
        let Some(header) = header else {
            return Err(Fault::new(
                "MissingAuthenticationTokenException",
                403,
                "Missing Authentication Token",
            ));
        };
        let incomplete = |what: &str| {
            Fault::new("IncompleteSignatureException", 403, format!("Authorization header requires {what}."))
        };
        let rest =
            header.strip_prefix(ALGORITHM).ok_or_else(|| incomplete("the algorithm 'AWS4-HMAC-SHA256'"))?;
        let part = |name: &str| {
            rest.split(',')
                .map(str::trim)
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
                .map(str::to_owned)
                .ok_or_else(|| incomplete(&format!("'{name}' parameter")))
        };
        let credential = part("Credential")?;
        let mut scope: Vec<&str> = credential.rsplitn(5, '/').collect();
        scope.reverse();
        let [access_key_id, date, region, service, "aws4_request"] = scope[..] else {
            return Err(incomplete("a 'Credential' of the form KEY/DATE/REGION/SERVICE/aws4_request"));
        };
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: part("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: part("Signature")?,
        })
    }
}

/// Who may sign: secrets by access key id.
pub trait Keys: Send + Sync + std::fmt::Debug {
    /// The secret of a key, if it may be used here. `session_token` is what the request carries.
    fn secret(&self, access_key_id: &str, session_token: Option<&str>) -> Option<String>;
}

/// Who signs a request, as its head says, and the secret that must have been used.
#[derive(Clone)]
pub struct Signer {
    pub authorization: Authorization,
    secret: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("authorization", &self.authorization).finish_non_exhaustive()
    }
}

impl Signer {
    /// What the head alone can show: who signs, and that the key is known. Asked before a body is read, so that
    /// strangers cannot fill the server's memory.
    pub fn of(headers: &dyn Headers, keys: &dyn Keys) -> Result<Self, Fault> {
        let authorization = Authorization::parse(headers.get("authorization").as_deref())?;
        let token = headers.get("x-amz-security-token");
        let secret = keys.secret(&authorization.access_key_id, token.as_deref()).ok_or_else(|| {
            Fault::new(
                "UnrecognizedClientException",
                403,
                "The security token included in the request is invalid.",
            )
        })?;
        Ok(Self { authorization, secret })
    }

    /// Checks the signature, once the body is there.
    pub fn check(
        &self,
        request: SignedRequest<'_>,
        body_sha256: &[u8; 32],
        now_epoch_seconds: i64,
    ) -> Result<(), Fault> {
        let Authorization { date, region, service, .. } = &self.authorization;
        let key = SigningKey::derive(&self.secret, date, region, service);
        verify(request, &self.authorization, &key, body_sha256, now_epoch_seconds)
    }
}

/// The key a secret gives for one day, region and service.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey([u8; 32]);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    pub fn derive(secret: &str, date: &str, region: &str, service: &str) -> Self {
        let mut key = hmac(format!("AWS4{secret}").as_bytes(), date.as_bytes());
        for part in [region, service, "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        Self(key)
    }
}

/// Checks a request's signature and age. `body_sha256` is the hash of the body as it was read.
pub fn verify(
    request: SignedRequest<'_>,
    authorization: &Authorization,
    key: &SigningKey,
    body_sha256: &[u8; 32],
    now_epoch_seconds: i64,
) -> Result<(), Fault> {
    let stamp = request.headers.get("x-amz-date").unwrap_or_default();
    let Some(signed_at) = parse_amz_date(&stamp) else {
        return Err(Fault::new(
            "IncompleteSignatureException",
            403,
            "The request carries no valid X-Amz-Date header.",
        ));
    };
    if !stamp.starts_with(&authorization.date) {
        return Err(mismatch(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP",
        ));
    }
    let now = amz_date(now_epoch_seconds);
    if signed_at < now_epoch_seconds - SKEW_SECONDS_MAX {
        let bound = amz_date(now_epoch_seconds - SKEW_SECONDS_MAX);
        return Err(mismatch(&format!(
            "Signature expired: {stamp} is now earlier than {bound} ({now} - 5 min.)"
        )));
    }
    if signed_at > now_epoch_seconds + SKEW_SECONDS_MAX {
        let bound = amz_date(now_epoch_seconds + SKEW_SECONDS_MAX);
        return Err(mismatch(&format!(
            "Signature not yet current: {stamp} is still later than {bound} ({now} + 5 min.)"
        )));
    }
    if !authorization.signed_headers.iter().any(|name| name == "host") {
        return Err(mismatch("'Host' must be a 'SignedHeader' in the AWS Authorization."));
    }
    let body_hash = hex(body_sha256);
    if request.headers.get("x-amz-content-sha256").is_some_and(|stated| stated != body_hash) {
        return Err(mismatch("The value of X-Amz-Content-Sha256 is not the hash of the body."));
    }
    let expected = signature(request, authorization, key, &body_hash, &stamp);
    if constant_time_equal(expected.as_bytes(), authorization.signature.as_bytes()) {
        Ok(())
    } else {
        Err(mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
        ))
    }
}

fn mismatch(message: &str) -> Fault {
    Fault::new("InvalidSignatureException", 403, message)
}

fn signature(
    request: SignedRequest<'_>,
    authorization: &Authorization,
    SigningKey(key): &SigningKey,
    body_hash: &str,
    stamp: &str,
) -> String {
    let mut pairs: Vec<(String, String)> = query_pairs(request.query)
        .into_iter()
        .map(|(name, value)| (percent_encode(&name, false), percent_encode(&value, false)))
        .collect();
    pairs.sort();
    let query: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut canonical =
        format!("{}\n{}\n{}\n", request.method, percent_encode(request.path, true), query.join("&"));
    for name in &authorization.signed_headers {
        let value = request.headers.get(name).unwrap_or_default();
        canonical.push_str(name);
        canonical.push(':');
        canonical.push_str(&value.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
        canonical.push('\n');
    }
    canonical.push('\n');
    canonical.push_str(&authorization.signed_headers.join(";"));
    canonical.push('\n');
    canonical.push_str(body_hash);
    let Authorization { date, region, service, .. } = authorization;
    let to_sign = format!(
        "{ALGORITHM}\n{stamp}\n{date}/{region}/{service}/aws4_request\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    hex(&hmac(key, to_sign.as_bytes()))
}

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
    let date = stamp.get(..8).unwrap_or(stamp).to_owned();
    let key = SigningKey::derive(secret, &date, region, service);
    let mut authorization = Authorization {
        access_key_id: access_key_id.to_owned(),
        date,
        region: region.to_owned(),
        service: service.to_owned(),
        signed_headers: vec!["host".into(), "x-amz-date".into()],
        signature: String::new(),
    };
    let signed = SignedRequest { method, path, query, headers: request };
    authorization.signature = signature(signed, &authorization, &key, &hex(&Sha256::digest(body)), stamp);
    let Authorization { date, signature, .. } = authorization;
    format!(
        "{ALGORITHM} Credential={access_key_id}/{date}/{region}/{service}/aws4_request, SignedHeaders=host;x-amz-date, Signature={signature}"
    )
}

pub fn sha256(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length, so this cannot fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
    out
}

/// Compares without telling by its time where two texts differ.
pub fn constant_time_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_440_938_160; // 2015-08-30T12:36:00Z
    const STAMP: &str = "20150830T123600Z";

    fn outgoing<'a>(method: &'a str, path: &'a str, query: &'a str, body: &'a [u8]) -> Outgoing<'a> {
        Outgoing { method, path, query, host: "example.amazonaws.com", stamp: STAMP, body }
    }

    /// The published `get-vanilla-query-order-key-case` case of AWS's own signing test suite.
    #[test]
    fn a_published_case_gives_the_published_signature() {
        let header = sign(
            &outgoing("GET", "/", "Param2=value2&Param1=value1", b""),
            ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            ("us-east-1", "service"),
        );
        assert!(
            header.ends_with("Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
            "{header}"
        );
    }

    #[test]
    fn what_is_signed_verifies_and_any_change_does_not() {
        let sent = outgoing("POST", "/a%3Ab/c", "x=1", b"body");
        let header = sign(&sent, ("test", "test"), ("us-east-1", "lambda"));
        let request = SignedRequest { method: "POST", path: sent.path, query: sent.query, headers: &sent };
        let authorization = Authorization::parse(Some(&header)).unwrap();
        let key = SigningKey::derive("test", "20150830", "us-east-1", "lambda");
        let check = |request, body: &[u8], now| verify(request, &authorization, &key, &sha256(body), now);
        assert_eq!(check(request, b"body", NOW), Ok(()));
        assert!(check(request, b"Body", NOW).is_err());
        assert!(check(SignedRequest { path: "/a%3Ab/d", ..request }, b"body", NOW).is_err());
        assert!(check(SignedRequest { query: "x=2", ..request }, b"body", NOW).is_err());
        assert!(check(SignedRequest { method: "PUT", ..request }, b"body", NOW).is_err());
        let late = check(request, b"body", NOW + SKEW_SECONDS_MAX + 1).unwrap_err();
        assert!(late.message.starts_with("Signature expired"));
        assert!(check(request, b"body", NOW - SKEW_SECONDS_MAX - 1).is_err());
        let wrong = SigningKey::derive("tost", "20150830", "us-east-1", "lambda");
        assert!(verify(request, &authorization, &wrong, &sha256(b"body"), NOW).is_err());
    }

    #[test]
    fn broken_headers_are_refused_with_a_code() {
        assert_eq!(Authorization::parse(None).unwrap_err().code, "MissingAuthenticationTokenException");
        for bad in
            ["Basic x", "AWS4-HMAC-SHA256 Credential=a/b", "AWS4-HMAC-SHA256 Credential=k/d/r/s/aws4_request"]
        {
            assert_eq!(
                Authorization::parse(Some(bad)).unwrap_err().code,
                "IncompleteSignatureException",
                "{bad}"
            );
        }
    }
}
