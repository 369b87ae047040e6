//! AWS's own vectors of signatures: canonical request, string to sign and signature of each, and the signed
//! request as a server reads it. `cargo xtask prepare` fetches them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{KEY, Request, SECRET};
use ondol_wire::http::HeaderView;
use ondol_wire::sigv4::{
    Authorization, Reading, SignedRequest, SigningKey, canonical_request, string_to_sign,
};
use ondol_wire::sigv4::{hex, sha256};
use serde_json::Value;

const NOW: i64 = 1_440_938_160; // 2015-08-30T12:36:00Z

fn suite() -> Value {
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let file = target.join("aws-sig-v4-test-suite/package/index.json");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask prepare`", file.display()));
    serde_json::from_str(&text).unwrap()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name}"))
}

/// The request of a vector. What its file says before normalisation is taken from the raw request, as the package's
/// parsed form drops a query's odd ends.
fn request(vector: &Value) -> Request {
    let parsed = &vector["request"];
    let target = text(parsed, "uri");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = parsed["headers"].as_array().unwrap().iter();
    Request {
        method: text(parsed, "method").into(),
        path: path.into(),
        query: query.into(),
        headers: headers
            .map(|pair| (pair[0].as_str().unwrap().into(), pair[1].as_str().unwrap().into()))
            .collect(),
        body: text(parsed, "body").into(),
    }
}

/// Vectors whose canonical request in the package is not the one that their string to sign is the hash of: it has a
/// `content-length` that was never signed. Their strings to sign and signatures are AWS's and are checked.
const WRONG_CANONICAL_REQUEST: [&str; 2] =
    ["post-x-www-form-urlencoded", "post-x-www-form-urlencoded-parameters"];

/// The header of the signed request, which is right where the package's file of the header alone is not.
fn authorization_of(vector: &Value) -> &str {
    let lines = text(vector, "sreq").lines();
    lines.filter_map(|line| line.strip_prefix("Authorization: ")).next().expect("a signed request")
}

#[test]
fn every_vector_holds_in_both_directions() {
    let suite = suite();
    let vectors = suite["tests"]["all"].as_array().unwrap();
    assert_eq!(vectors.len(), 28, "the suite has changed");
    for vector in vectors {
        let name = text(vector, "name");
        let mut request = request(vector);
        if name == "post-x-www-form-urlencoded-parameters" {
            // AWS's file says `charset=utf8`, and so do its string to sign and signature.
            for (_, value) in &mut request.headers {
                *value = value.replace("charset=utf-8", "charset=utf8");
            }
        }
        let authorization = Authorization::parse(Some(authorization_of(vector))).unwrap();
        let signing = SignedRequest {
            method: &request.method,
            path: &request.path,
            query: &request.query,
            headers: &HeaderView(&request.parts().unwrap_or_else(|| panic!("{name}: {request:?}")).headers),
        };
        // Signing.
        let reading = Reading::documented(&signing, &authorization);
        let canonical = canonical_request(&signing, &authorization, &hex(&sha256(&request.body)), reading);
        if !WRONG_CANONICAL_REQUEST.contains(&name) {
            assert_eq!(String::from_utf8(canonical.clone()).unwrap(), text(vector, "creq"), "{name}");
        }
        let to_sign = string_to_sign("20150830T123600Z", &authorization, &canonical);
        assert_eq!(to_sign, text(vector, "sts"), "{name}");
        let key = SigningKey::derive(SECRET, "20150830", "us-east-1", "service");
        assert_eq!(key.sign(to_sign.as_bytes()), authorization.signature, "{name}");
        assert_eq!(authorization.access_key_id, KEY, "{name}");
        // Checking, of the signed request: with its session token, where it is added after signing too.
        request.headers.push(("Authorization".into(), authorization_of(vector).into()));
        if name == "post-sts-header-after" {
            request.headers.push(("X-Amz-Security-Token".into(), text(&suite, "stsToken").into()));
        }
        assert_eq!(request.check(NOW), Ok(None), "{name}");
        request.method.push('X');
        assert_eq!(request.check(NOW).unwrap_err().code, "InvalidSignatureException", "{name}");
    }
}
