//! Whether a payload is JSON, and what is said when it is not.

use bytes::Bytes;
use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE;
use serde::de::IgnoredAny;

/// One scan over the payload; nothing is built from it.
pub fn check_payload(payload: &Bytes) -> Result<(), Fault> {
    if payload.is_empty() {
        return Ok(());
    }
    serde_json::from_slice::<IgnoredAny>(payload).map(drop).map_err(|error| {
        let what = no_json(payload).unwrap_or_else(|| error.to_string());
        let text =
            format!("Could not parse request body into json: Could not parse payload into json: {what}");
        Fault::of(&SERVICE, "InvalidRequestContentException", text)
    })
}

/// What is wrong with a payload, in the words of the service's own parser, as far as its answers are known.
fn no_json(payload: &[u8]) -> Option<String> {
    const WANTED: &str = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')";
    let at = |index: usize| {
        let before = &payload[..index];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = index - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1) + 1;
        format!(
            "\n at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: {line}, column: {column}]"
        )
    };
    let start = payload.iter().position(|byte| !b" \t\r\n".contains(byte))?;
    let first = payload[start];
    if b"{[\"-0123456789".contains(&first) {
        let broken = std::str::from_utf8(payload).err()?.valid_up_to();
        return Some(format!("Invalid UTF-8 start byte 0x{:x}{}", payload[broken], at(broken)));
    }
    if first.is_ascii_alphabetic() || first == b'_' || first == b'$' {
        let word = payload[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
        let word: Vec<u8> = word.copied().collect();
        if ["true", "false", "null"].iter().any(|known| known.as_bytes() == word) {
            return None;
        }
        let end = at(start + word.len());
        return Some(format!(
            "Unrecognized token '{}': was expecting {WANTED}{end}",
            String::from_utf8_lossy(&word)
        ));
    }
    let described = match first {
        0..=31 | 127..=159 => format!("(CTRL-CHAR, code {first})"),
        _ => format!("'{}' (code {first})", char::from(first)),
    };
    Some(format!("Unexpected character ({described}): expected a valid value {WANTED}{}", at(start)))
}
