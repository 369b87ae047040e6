//! What AWS's own Rust crate signs, we accept; what was touched afterwards, we refuse.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest,
    SignatureLocation, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use common::{Chance, KEY, Request, SECRET, check};
use ondol_wire::uri::query_pairs;

const NOW: i64 = 1_795_341_363;
const REQUESTS: usize = 100_000;

/// How a request is signed.
#[derive(Debug, Clone, Copy)]
struct How {
    service: &'static str,
    presigned: bool,
    token: Option<SessionTokenMode>,
    unsigned_body: bool,
}

/// Signs a request as the SDK does, and puts in what the SDK would send.
fn signed(mut request: Request, how: How) -> Request {
    let token = how.token.map(|_| "to/ken+with=odd letters".replace(' ', "%"));
    let identity: Identity = Credentials::new(KEY, SECRET, token, None, "test").into();
    let is_s3 = how.service == "s3";
    let mut settings = SigningSettings::default();
    settings.session_token_mode = how.token.unwrap_or(SessionTokenMode::Include);
    if is_s3 {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    if is_s3 || how.unsigned_body {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    if how.presigned {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(900));
    }
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name(how.service)
        .time(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW as u64))
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let host = "localhost:9000";
    let question = if request.query.is_empty() { "" } else { "?" };
    let uri = format!("http://{host}{}{question}{}", request.path, request.query);
    let body =
        if how.unsigned_body { SignableBody::UnsignedPayload } else { SignableBody::Bytes(&request.body) };
    let headers = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let signable = SignableRequest::new(&request.method, uri, headers, body).unwrap();
    let (instructions, _) = sign(signable, &params).unwrap().into_parts();
    let (headers, query) = instructions.into_parts();
    request.headers.push(("host".into(), host.into()));
    for header in headers {
        request.headers.push((header.name().into(), header.value().into()));
    }
    for (name, value) in query {
        if !request.query.is_empty() {
            request.query.push('&');
        }
        request.query.push_str(&format!("{name}={}", ondol_wire::uri::percent_encode(&value, false)));
    }
    request
}

const PATH: &[&str] = &[
    "a",
    "Z",
    "0",
    "-",
    "_",
    ".",
    "~",
    "/",
    "/",
    "//",
    "/./",
    "/../",
    "%20",
    "%2F",
    "%3a",
    "%25",
    "%C3%A9",
    "!",
    "$",
    "&",
    "'",
    "(",
    ")",
    "*",
    "+",
    ",",
    ";",
    "=",
    ":",
    "@",
    "functions",
    "arn%3Aaws%3Alambda",
];
const QUERY: &[&str] = &[
    "a",
    "b",
    "Qualifier",
    "X-Amz-",
    "=",
    "=",
    "&",
    "&",
    "&&",
    "+",
    "%20",
    "%2B",
    "%2b",
    "%C3%A9",
    "%26",
    "%3D",
    "~",
    "*",
    "/",
    "?",
    ":",
    "@",
    "!",
    "'",
    "(",
    ")",
    ",",
    ";",
    "1",
];
const VALUE: &[&str] = &["a", "B", "  ", " ", "   ", ",", "\"", "=", ";", "0", "/", "~"];
const NAMES: &[&str] =
    &["X-Amz-Meta", "x-amz-meta-b", "Content-Type", "My-Header1", "my-header1", "X-Amz-Client-Context", "a"];

fn random_request(chance: &mut Chance) -> (Request, How) {
    let how = How {
        service: chance.pick(&["lambda", "iam", "sts", "s3"]),
        presigned: chance.below(4) == 0,
        token: [None, None, Some(SessionTokenMode::Include), Some(SessionTokenMode::Exclude)]
            [chance.below(4)],
        unsigned_body: false,
    };
    // A presigned request of another service has no place to say that its body is unsigned.
    let unsigned_body = if how.presigned { how.service == "s3" } else { chance.below(8) == 0 };
    let headers = (0..chance.below(5))
        .map(|_| (chance.pick(NAMES).to_owned(), chance.text(VALUE, 6).trim().to_owned()))
        .collect();
    let mut query = if chance.below(3) == 0 { String::new() } else { chance.text(QUERY, 14) };
    if matches!(how.service, "lambda" | "s3") {
        // Their plus is a plus, but the crate signs it as a space; SDKs never send it as it is.
        query = query.replace('+', "%2B");
    }
    let request = Request {
        method: chance.pick(&["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"]).into(),
        path: format!("/{}", chance.text(PATH, 12)),
        query,
        headers,
        body: chance.text(&["a", "{", "\n", "é"], 20).into_bytes(),
    };
    (request, How { unsigned_body, ..how })
}

#[test]
fn what_the_rust_crate_signs_is_accepted() {
    let mut chance = Chance::new();
    for number in 0..REQUESTS {
        let (request, how) = random_request(&mut chance);
        let sent = signed(request, how);
        assert_eq!(sent.check(NOW), Ok(None), "request {number}: {how:?} {sent:?}");
    }
}

/// Every request that differs from this one in one bit, with what was touched. What is no HTTP, or means the same
/// by the rules of encoding, is left out.
fn one_bit_away(sent: &Request) -> Vec<(String, Request)> {
    let mut all = Vec::new();
    let flips = |text: &str| -> Vec<String> {
        (0..text.len() * 8)
            .filter_map(|bit| {
                let mut bytes = text.as_bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                String::from_utf8(bytes).ok()
            })
            .collect()
    };
    for method in flips(&sent.method) {
        all.push((format!("method {method:?}"), Request { method, ..sent.clone() }));
    }
    for path in flips(&sent.path) {
        all.push((format!("path {path:?}"), Request { path, ..sent.clone() }));
    }
    for query in flips(&sent.query).into_iter().filter(|query| query_pairs(query) != query_pairs(&sent.query))
    {
        all.push((format!("query {query:?}"), Request { query, ..sent.clone() }));
    }
    for place in 0..sent.headers.len() {
        for value in flips(&sent.headers[place].1) {
            let mut touched = sent.clone();
            all.push((format!("header {}: {value:?}", touched.headers[place].0), {
                touched.headers[place].1 = value;
                touched
            }));
        }
    }
    for bit in 0..sent.body.len() * 8 {
        let mut touched = sent.clone();
        touched.body[bit / 8] ^= 1 << (bit % 8);
        all.push((format!("bit {bit} of the body"), touched));
    }
    all
}

#[test]
fn every_touched_bit_is_refused() {
    let mut touched = 0;
    for presigned in [false, true] {
        for token in [None, Some(SessionTokenMode::Include)] {
            let request = Request {
                method: "POST".into(),
                path: "/2015-03-31/functions/arn%3Aaws%3Alambda/invocations".into(),
                query: "Qualifier=%24LATEST&b=1&b=2&empty".into(),
                headers: vec![
                    ("X-Amz-Meta".into(), "two  words".into()),
                    ("X-Amz-Meta".into(), "more".into()),
                    ("Content-Type".into(), "application/json; charset=utf-8".into()),
                ],
                body: b"{\"key\": \"value\"}".to_vec(),
            };
            let how = How { service: "lambda", presigned, token, unsigned_body: false };
            let sent = signed(request, how);
            assert_eq!(sent.check(NOW), Ok(None));
            for (what, other) in one_bit_away(&sent) {
                if let Some(parts) = other.parts() {
                    touched += 1;
                    assert!(check(&parts, &other.body, NOW).is_err(), "{how:?}: {what}");
                }
            }
        }
    }
    println!("{touched} touched requests");
    assert!(touched > 10_000, "{touched}");
}

/// Whatever comes, an answer comes: nothing here may panic.
#[test]
fn random_heads_are_refused_without_a_panic() {
    let mut chance = Chance::new();
    let pieces = [
        "AWS4-HMAC-SHA256",
        " ",
        ",",
        "=",
        "Credential",
        "SignedHeaders=host",
        "Signature",
        "/",
        ";",
        "%",
        "%2",
        "é",
        "aws4_request",
        "20261122",
        "X-Amz-Signature=",
        "&",
        "X-Amz-Expires=9",
        "X-Amz-Credential=",
    ];
    for _ in 0..20_000 {
        let header = chance.text(&pieces, 14);
        let query = chance.text(&pieces, 14);
        let request = Request {
            method: "GET".into(),
            path: "/".into(),
            query: query.replace(['é', ' '], ""),
            headers: vec![("authorization".into(), header), ("x-amz-date".into(), chance.text(&pieces, 2))],
            body: Vec::new(),
        };
        if let Some(parts) = request.parts() {
            assert!(check(&parts, b"", NOW).is_err());
        }
    }
}
