//! Requests as tests make them, checked by the way of a real server.
#![allow(dead_code)]

use bytes::Bytes;
use http::request::Parts;
use ondol_wire::fault::Fault;
use ondol_wire::http::{HeaderView, check_signature};
use ondol_wire::sigv4::{Keys, Signer};

pub const KEY: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// One key, by its own name only.
#[derive(Debug)]
pub struct OneKey;

impl Keys for OneKey {
    fn secret(&self, access_key_id: &str, _: Option<&str>) -> Option<String> {
        (access_key_id == KEY).then(|| SECRET.to_owned())
    }
}

/// A request whose every part can be touched.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// As a server has read it; `None` if no server could have, as its parts are no HTTP.
    pub fn parts(&self) -> Option<Parts> {
        let question = if self.query.is_empty() { "" } else { "?" };
        let mut builder = http::Request::builder()
            .method(self.method.as_bytes())
            .uri(format!("{}{question}{}", self.path, self.query));
        for (name, value) in &self.headers {
            // As a server reads it: without space at the ends.
            builder = builder.header(name, value.trim_matches([' ', '\t']));
        }
        let parts = builder.body(()).ok()?.into_parts().0;
        (parts.uri.path() == self.path && parts.uri.query().unwrap_or("") == self.query).then_some(parts)
    }

    pub fn check(&self, now_epoch_seconds: i64) -> Result<Option<Bytes>, Fault> {
        check(&self.parts().expect("a request that is no HTTP"), &self.body, now_epoch_seconds)
    }
}

pub fn check(parts: &Parts, body: &[u8], now_epoch_seconds: i64) -> Result<Option<Bytes>, Fault> {
    let signer = Signer::of(&HeaderView(&parts.headers), parts.uri.query().unwrap_or(""), &OneKey)?;
    check_signature(&signer, parts, body, now_epoch_seconds)
}

/// Numbers that look random and repeat with their seed (SplitMix64).
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// From `ONDOL_SEED`, or from the clock; printed, so that a failure can be seen again.
    pub fn new() -> Self {
        let seed = std::env::var("ONDOL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
        });
        println!("ONDOL_SEED={seed}");
        Self(seed)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    pub fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// Up to `most` choices one after another.
    pub fn text(&mut self, choices: &[&str], most: usize) -> String {
        (0..self.below(most + 1)).map(|_| self.pick(choices)).collect()
    }
}

/// The signature of the head of a request to S3 whose body comes in chunks.
pub fn seed(request: &Request, payload: &str) -> String {
    use ondol_wire::sigv4::{
        Authorization, Reading, SignedRequest, SigningKey, canonical_request, string_to_sign,
    };
    let authorization = Authorization {
        access_key_id: KEY.into(),
        date: "20150830".into(),
        region: "us-east-1".into(),
        service: "s3".into(),
        signed_headers: "host;x-amz-content-sha256;x-amz-date".into(),
        signature: String::new(),
        presigned: None,
    };
    let parts = request.parts().expect("a request that is no HTTP");
    let headers = HeaderView(&parts.headers);
    let signed = SignedRequest {
        method: &request.method,
        path: &request.path,
        query: &request.query,
        headers: &headers,
    };
    let reading = Reading::documented(&signed, &authorization);
    let canonical = canonical_request(&signed, &authorization, payload, reading);
    let key = SigningKey::derive(SECRET, "20150830", "us-east-1", "s3");
    key.sign(string_to_sign("20150830T123600Z", &authorization, &canonical).as_bytes())
}
