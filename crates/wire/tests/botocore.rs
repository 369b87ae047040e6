//! What botocore signs, we accept: in the header, in the query, for S3, with bodies signed, unsigned and in chunks.
//! `ONDOL_PYTHON` names a Python with botocore; `cargo xtask prepare` makes one and says where.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Chance, Request};
use serde_json::Value;

const REQUESTS: usize = 5_000;

#[test]
fn what_botocore_signs_is_accepted() {
    let python = std::env::var("ONDOL_PYTHON")
        .expect("ONDOL_PYTHON names no Python with botocore; `cargo xtask prepare` makes one and says where");
    let seed = Chance::new().0;
    let output = Command::new(python)
        .args(["-c", include_str!("botocore.py"), &seed.to_string(), &REQUESTS.to_string()])
        .env("PYTHONIOENCODING", "utf-8")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let sent: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| sent[name].as_str().unwrap().to_owned();
        let headers = sent["headers"].as_array().unwrap().iter();
        let request = Request {
            method: text("method"),
            path: text("path"),
            query: text("query"),
            headers: headers
                .map(|pair| (pair[0].as_str().unwrap().into(), pair[1].as_str().unwrap().into()))
                .collect(),
            body: STANDARD.decode(text("body")).unwrap(),
        };
        let decoded = sent["decoded"].as_str().map(|text| STANDARD.decode(text).unwrap());
        let checked = request.check(sent["now"].as_i64().unwrap());
        assert_eq!(checked.map(|body| body.map(|body| body.to_vec())), Ok(decoded), "{line}");
        let kind = if sent["decoded"].is_null() { text("kind") } else { "in chunks".into() };
        *kinds.entry(kind).or_default() += 1;
    }
    println!("{kinds:?}");
    assert_eq!(kinds.values().sum::<usize>(), REQUESTS);
    assert_eq!(kinds.len(), 5, "a kind of signing did not come up: {kinds:?}");
}
