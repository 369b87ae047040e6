//! Whatever a client sends as a request: the operation it names, its input against the model, its signature's header.
//! The first line is `METHOD TARGET`, the next ones headers, the rest after an empty line the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ondol_wire::lambda::SERVICE;
use ondol_wire::rest_json::{match_operation, read_input};
use ondol_wire::sigv4::Authorization;
use ondol_wire::uri::{percent_decode, percent_encode, query_pairs};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap_or_default().split_once(' ').unwrap_or_default();
    let headers: Vec<(String, &str)> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value)).collect();
    let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| (*value).to_owned());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let _ = query_pairs(query);
    assert_eq!(percent_decode(&percent_encode(path, true)), path);
    let _ = Authorization::parse(header("authorization").as_deref());
    if let Some(matched) = match_operation(&SERVICE, method, path, query) {
        // An error is a fault with a text; both ways end.
        let _ = read_input::<serde_json::Value>(&SERVICE, &matched, query, header, body.as_bytes());
    }
});
