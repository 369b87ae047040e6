//! Who says to have signed a request, and how: the `Authorization` header, or the query of a presigned request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::crypto::sha256;
use super::{ALGORITHM, Headers, incomplete, mismatch};
use crate::fault::Fault;
use crate::uri::percent_decode;

/// How long a presigned request may be good for: a week.
pub const EXPIRES_SECONDS_MAX: i64 = 604_800;

/// A signature, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    pub access_key_id: String,
    /// The day of the credential scope, `20150830`.
    pub date: String,
    pub region: String,
    pub service: String,
    /// The names of the signed headers as the request lists them: in lower case, sorted, with semicolons between.
    pub signed_headers: String,
    pub signature: String,
    /// What the query says in a presigned request; `None` for a signature in the header.
    pub presigned: Option<Presigned>,
}

/// What a presigned request says in its query, where others use headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presigned {
    /// `X-Amz-Date`.
    pub stamp: String,
    /// `X-Amz-Expires`; `None` when it does not say, which gives it the age of any other request.
    pub expires_seconds: Option<i64>,
    /// `X-Amz-Security-Token`.
    pub session_token: Option<String>,
    /// `X-Amz-Content-Sha256`.
    pub content_sha256: Option<String>,
}

impl Authorization {
    /// Reads the header, or else the query; the error is the answer AWS gives.
    pub fn of(headers: &dyn Headers, query: &str) -> Result<Self, Fault> {
        match headers.get("authorization") {
            Some(header) => {
                let dated = headers.get("x-amz-date").is_some() || headers.get("date").is_some();
                Self::from_header(&header, dated)
            }
            None if is_presigned(query) => Self::from_query(query),
            None => Self::parse(None),
        }
    }

    /// Reads the `Authorization` header alone.
    pub fn parse(header: Option<&str>) -> Result<Self, Fault> {
        match header {
            Some(header) => Self::from_header(header, true),
            None => {
                Err(Fault::new("MissingAuthenticationTokenException", 403, "Missing Authentication Token"))
            }
        }
    }

    fn from_header(header: &str, dated: bool) -> Result<Self, Fault> {
        let (algorithm, rest) = header.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((header, ""));
        if algorithm != ALGORITHM {
            return Err(not_ours(algorithm, header));
        }
        let mut parts: [Option<&str>; 3] = [None; 3];
        for piece in rest.split(',').map(str::trim).filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').ok_or_else(|| not_a_pair(header))?;
            let place = ["Credential", "Signature", "SignedHeaders"].iter().position(|known| *known == name);
            if let Some(part) = place.and_then(|place| parts.get_mut(place)) {
                part.get_or_insert(value);
            }
        }
        let [Some(credential), Some(signature), Some(signed_headers)] = parts else {
            return Err(lacking(parts, dated, header));
        };
        if !dated {
            return Err(lacking(parts, dated, header));
        }
        Self::assemble(credential, signature, signed_headers, None)
    }

    fn from_query(query: &str) -> Result<Self, Fault> {
        let part = |name: &str| parameter(query, name);
        let algorithm = part("X-Amz-Algorithm");
        if let Some(other) = algorithm.as_ref().filter(|algorithm| *algorithm != ALGORITHM) {
            return Err(incomplete(format!("Unsupported AWS 'algorithm': '{other}'.")));
        }
        let (credential, signature) = (part("X-Amz-Credential"), part("X-Amz-Signature"));
        let (signed_headers, stamp) = (part("X-Amz-SignedHeaders"), part("X-Amz-Date"));
        let (Some(_), Some(credential), Some(signature), Some(signed_headers), Some(stamp)) =
            (&algorithm, &credential, &signature, &signed_headers, &stamp)
        else {
            let lacking = [
                ("X-Amz-Algorithm", algorithm.is_none()),
                ("X-Amz-Credential", credential.is_none()),
                ("X-Amz-Signature", signature.is_none()),
                ("X-Amz-SignedHeaders", signed_headers.is_none()),
                ("X-Amz-Date", stamp.is_none()),
            ];
            let mut text = String::new();
            for (name, _) in lacking.iter().filter(|(_, lacks)| *lacks) {
                text.push_str(&format!("AWS query-string parameters must include '{name}'. "));
            }
            return Err(incomplete(text + "Re-examine the query-string parameters."));
        };
        let expires_seconds = part("X-Amz-Expires").map(|text| expires(&text)).transpose()?;
        let presigned = Presigned {
            stamp: stamp.clone(),
            expires_seconds,
            session_token: part("X-Amz-Security-Token"),
            content_sha256: part("X-Amz-Content-Sha256").or_else(|| part("X-Amz-Content-SHA256")),
        };
        Self::assemble(credential, signature, signed_headers, Some(presigned))
    }

    fn assemble(
        credential: &str,
        signature: &str,
        signed_headers: &str,
        presigned: Option<Presigned>,
    ) -> Result<Self, Fault> {
        let mut scope = credential.split('/');
        let (Some(access_key_id), Some(date), Some(region), Some(service), Some(term), None) =
            (scope.next(), scope.next(), scope.next(), scope.next(), scope.next(), scope.next())
        else {
            return Err(incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{credential}'"
            )));
        };
        if term != "aws4_request" {
            return Err(mismatch(format!(
                "Credential should be scoped with a valid terminator: 'aws4_request', not '{term}'."
            )));
        }
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: signed_headers.to_owned(),
            signature: signature.to_owned(),
            presigned,
        })
    }

    /// Refuses a signature made for another region or service. Which are right here, the caller knows.
    pub fn check_scope(&self, regions: &[&str], service: &str) -> Result<(), Fault> {
        if !regions.contains(&self.region.as_str()) {
            return Err(mismatch("Credential should be scoped to a valid region."));
        }
        if self.service != service {
            return Err(mismatch(format!("Credential should be scoped to correct service: '{service}'.")));
        }
        Ok(())
    }

    /// `20150830/us-east-1/lambda/aws4_request`.
    pub(super) fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }

    /// S3 signs its paths as they are and may leave the bodies of presigned requests out.
    pub(super) fn is_s3(&self) -> bool {
        self.service == "s3" || self.service.starts_with("s3-") || self.service == "s3express"
    }
}

/// Whether a query says that it is signed, however badly.
fn is_presigned(query: &str) -> bool {
    query.contains("X-Amz-")
        && ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"]
            .iter()
            .any(|name| parameter(query, name).is_some())
}

/// The decoded value of the first parameter of a name.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name || (key.contains('%') && percent_decode(key) == name)).then(|| percent_decode(value))
    })
}

fn expires(text: &str) -> Result<i64, Fault> {
    let refuse = |what: &str| Fault::new("AuthorizationQueryParametersError", 400, what);
    let seconds: i64 = text.parse().map_err(|_| refuse("X-Amz-Expires should be a number"))?;
    if seconds < 0 {
        return Err(refuse("X-Amz-Expires must be non-negative"));
    }
    if seconds > EXPIRES_SECONDS_MAX {
        return Err(refuse(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds",
        ));
    }
    Ok(seconds)
}

fn not_ours(algorithm: &str, header: &str) -> Fault {
    if algorithm.starts_with("AWS") {
        return incomplete(format!("Unsupported AWS 'algorithm': '{algorithm}'."));
    }
    if !header.contains('=') {
        return not_a_pair(header);
    }
    lacking([None; 3], true, header)
}

fn not_a_pair(header: &str) -> Fault {
    incomplete(format!(
        "Invalid key=value pair (missing equal-sign) in Authorization header (hashed with SHA-256 and encoded with Base64): '{}'.",
        hashed(header)
    ))
}

/// One sentence for each part that is not there. The header itself is not said again, as it may be a secret.
fn lacking(parts: [Option<&str>; 3], dated: bool, header: &str) -> Fault {
    let mut text = String::new();
    for (name, part) in ["Credential", "Signature", "SignedHeaders"].iter().zip(parts) {
        if part.is_none() {
            text.push_str(&format!("Authorization header requires '{name}' parameter. "));
        }
    }
    if !dated {
        text.push_str(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
        );
    }
    incomplete(format!(
        "{text}(Hashed with SHA-256 and encoded with Base64) Authorization={}",
        hashed(header)
    ))
}

fn hashed(header: &str) -> String {
    STANDARD.encode(sha256(header.as_bytes()))
}
