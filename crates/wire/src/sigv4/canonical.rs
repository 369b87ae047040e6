//! The canonical request, which both sides hash, and the string that is signed.

use super::authorization::Authorization;
use super::crypto::{hex, sha256};
use super::{ALGORITHM, SignedRequest};
use crate::fault::ErrorFormat;

/// How a request is read where AWS's own clients read it differently. The first is what AWS documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub path: PathReading,
    /// A `+` in the query means a space, as in a form, not itself. It must mean to the signature what it means to
    /// the service, or a space could become a plus on the way.
    pub plus_is_space: bool,
    /// The session token of a presigned request was added after it was signed.
    pub without_token: bool,
}

/// What of a path is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathReading {
    /// As it came: S3.
    AsItCame,
    /// Without dots and empty parts, encoded once more. A trailing `.` or `..` leaves no slash, as in botocore.
    Normalised,
    /// As before, but a trailing `.` or `..` leaves a slash, as in RFC 3986 and AWS's Rust SDK.
    NormalisedWithSlash,
    /// Encoded once more, dots and empty parts left: clients that do not normalise.
    Encoded,
}

impl Reading {
    /// Every way to read a request that one of AWS's clients may have meant, the documented one first. Ordinary
    /// requests have one.
    pub(super) fn all(request: &SignedRequest<'_>, authorization: &Authorization) -> Vec<Self> {
        let paths: &[PathReading] = if authorization.is_s3() {
            &[PathReading::AsItCame]
        } else if has_dots_or_empty_parts(request.path) {
            &[PathReading::Normalised, PathReading::NormalisedWithSlash, PathReading::Encoded]
        } else {
            &[PathReading::Encoded]
        };
        let plus_is_space = ErrorFormat::of_service(&authorization.service) == ErrorFormat::Query;
        let has_token = authorization.presigned.as_ref().is_some_and(|query| query.session_token.is_some());
        let tokens: &[bool] = if has_token { &[false, true] } else { &[false] };
        let mut all = Vec::with_capacity(paths.len() * tokens.len());
        for &path in paths {
            for &without_token in tokens {
                all.push(Self { path, plus_is_space, without_token });
            }
        }
        all
    }

    /// The documented reading of a request to this service.
    pub fn documented(request: &SignedRequest<'_>, authorization: &Authorization) -> Self {
        let first = Self::all(request, authorization).into_iter().next();
        first.unwrap_or(Self { path: PathReading::Normalised, plus_is_space: false, without_token: false })
    }
}

/// The canonical request. `payload_hash` is its last line: digits, or one of the words for unhashed bodies.
pub fn canonical_request(
    request: &SignedRequest<'_>,
    authorization: &Authorization,
    payload_hash: &str,
    reading: Reading,
) -> Vec<u8> {
    let signed_headers = authorization.signed_headers.as_str();
    let mut out =
        Vec::with_capacity(512 + request.path.len() + request.query.len() + signed_headers.len() * 4);
    out.extend_from_slice(request.method.as_bytes());
    out.push(b'\n');
    append_path(request.path, reading.path, &mut out);
    out.push(b'\n');
    append_query(request.query, authorization.presigned.is_some(), reading, &mut out);
    out.push(b'\n');
    for name in signed_headers.split(';') {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        request.headers.append_canonical(name, &mut out);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed_headers.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload_hash.as_bytes());
    out
}

/// What is signed of a canonical request. `stamp` is the time of the request as `X-Amz-Date` has it.
pub fn string_to_sign(stamp: &str, authorization: &Authorization, canonical_request: &[u8]) -> String {
    format!("{ALGORITHM}\n{stamp}\n{}\n{}", authorization.scope(), hex(&sha256(canonical_request)))
}

fn has_dots_or_empty_parts(path: &str) -> bool {
    path.contains("//") || path.split('/').any(|part| part == "." || part == "..")
}

fn append_path(path: &str, reading: PathReading, out: &mut Vec<u8>) {
    let keep = |byte| byte == b'/' || is_unreserved(byte);
    match reading {
        PathReading::AsItCame if path.is_empty() => out.push(b'/'),
        PathReading::AsItCame => out.extend_from_slice(path.as_bytes()),
        PathReading::Encoded if path.is_empty() => out.push(b'/'),
        PathReading::Encoded => path.bytes().for_each(|byte| append_encoded(byte, keep, out)),
        PathReading::Normalised | PathReading::NormalisedWithSlash => {
            let mut parts = Vec::new();
            for part in path.split('/') {
                match part {
                    "" | "." => {}
                    ".." => {
                        parts.pop();
                    }
                    _ => parts.push(part),
                }
            }
            for part in &parts {
                out.push(b'/');
                part.bytes().for_each(|byte| append_encoded(byte, keep, out));
            }
            let ends_in_dots = path.ends_with("/.") || path.ends_with("/..");
            let slash = path.ends_with('/') || (ends_in_dots && reading == PathReading::NormalisedWithSlash);
            if slash || parts.is_empty() {
                out.push(b'/');
            }
        }
    }
}

fn append_query(query: &str, presigned: bool, reading: Reading, out: &mut Vec<u8>) {
    if query.is_empty() {
        return;
    }
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode_again(name, reading.plus_is_space), encode_again(value, reading.plus_is_space))
        })
        .filter(|(name, _)| {
            let is_signature = presigned && name == b"X-Amz-Signature";
            let is_late_token = reading.without_token && name == b"X-Amz-Security-Token";
            !is_signature && !is_late_token
        })
        .collect();
    pairs.sort_unstable();
    for (place, (name, value)) in pairs.iter().enumerate() {
        if place > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

/// Decodes and encodes, byte by byte, so that texts that are not UTF-8 come through.
fn encode_again(text: &str, plus_is_space: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |place: usize| tail.get(place).and_then(|byte| (*byte as char).to_digit(16));
        let (byte, used) = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
            (b'+', ..) if plus_is_space => (b' ', 1),
            (byte, ..) => (byte, 1),
        };
        append_encoded(byte, is_unreserved, &mut out);
        rest = rest.get(used..).unwrap_or_default();
    }
    out
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
}

fn append_encoded(byte: u8, keep: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if keep(byte) {
        out.push(byte);
    } else {
        out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Appends a header's value without space at its ends and with runs of space as one.
pub(crate) fn append_trimmed(value: &[u8], out: &mut Vec<u8>) {
    let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    for (place, word) in words.enumerate() {
        if place > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}
