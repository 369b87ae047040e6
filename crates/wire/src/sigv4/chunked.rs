//! Bodies in chunks (`aws-chunked`): every chunk carries a signature that is made of the one before, the first of
//! the request's own. Lines are `SIZE;chunk-signature=…`, sizes in hexadecimal digits; trailers come last.

use super::crypto::{SigningKey, constant_time_equal, hex, sha256};
use super::verify::DOES_NOT_MATCH;
use super::{Headers, mismatch};
use crate::fault::Fault;

/// Bounds on what is not data: the digits of a size, the bytes and number of trailers.
const SIZE_DIGITS_MAX: usize = 15;
const TRAILER_BYTES_MAX: usize = 16_384;
const TRAILERS_MAX: usize = 64;

/// A body out of its chunks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decoded {
    pub body: Vec<u8>,
    /// Names in lower case and values, such as `x-amz-checksum-crc32c`. Nothing here compares checksums.
    pub trailers: Vec<(String, String)>,
}

/// The signatures of a body's chunks, each made of the one before.
pub(super) struct Chain<'a> {
    pub key: &'a SigningKey,
    pub stamp: &'a str,
    pub scope: &'a str,
    /// The signature before; to begin with, that of the request.
    pub previous: String,
}

impl Chain<'_> {
    fn follow(&mut self, kind: &str, hashes: &str, given: &str) -> Result<(), Fault> {
        let text =
            format!("AWS4-HMAC-SHA256-{kind}\n{}\n{}\n{}\n{hashes}", self.stamp, self.scope, self.previous);
        let expected = self.key.sign(text.as_bytes());
        if !constant_time_equal(expected.as_bytes(), given.as_bytes()) {
            return Err(mismatch(DOES_NOT_MATCH));
        }
        self.previous = expected;
        Ok(())
    }

    fn chunk(&mut self, data: &[u8], given: &str) -> Result<(), Fault> {
        let hashes = format!("{}\n{}", hex(&sha256(b"")), hex(&sha256(data)));
        self.follow("PAYLOAD", &hashes, given)
    }

    fn trailer(&mut self, canonical: &str, given: &str) -> Result<(), Fault> {
        self.follow("TRAILER", &hex(&sha256(canonical.as_bytes())), given)
    }
}

/// Takes a body out of its chunks and checks the chain, if there is one. The length after decoding must be the one
/// that the head states.
pub(super) fn decode(
    body: &[u8],
    headers: &dyn Headers,
    mut chain: Option<Chain<'_>>,
    trailer: bool,
) -> Result<Decoded, Fault> {
    let length: usize = headers
        .get("x-amz-decoded-content-length")
        .ok_or_else(|| {
            Fault::new("MissingContentLength", 411, "You must provide the Content-Length HTTP header.")
        })?
        .parse()
        .map_err(|_| incomplete_body("X-Amz-Decoded-Content-Length is not a number"))?;
    if length > body.len() {
        return Err(incomplete_body("the body ended before the stated length"));
    }
    let mut decoded = Decoded { body: Vec::with_capacity(length), ..Decoded::default() };
    let mut rest = body;
    loop {
        let (line, after) = take_line(rest).ok_or_else(|| incomplete_body("a chunk has no size"))?;
        let (size, signature) = chunk_line(line, chain.is_some())?;
        if size > length.saturating_sub(decoded.body.len()) {
            return Err(incomplete_body("the chunks are longer than the stated length"));
        }
        let (data, after) =
            after.split_at_checked(size).ok_or_else(|| incomplete_body("a chunk ended early"))?;
        if let Some(chain) = &mut chain {
            chain.chunk(data, signature)?;
        }
        if size == 0 {
            rest = after;
            break;
        }
        decoded.body.extend_from_slice(data);
        rest =
            after.strip_prefix(b"\r\n").ok_or_else(|| incomplete_body("a chunk is longer than its size"))?;
    }
    if decoded.body.len() != length {
        return Err(incomplete_body("the chunks are shorter than the stated length"));
    }
    if trailer {
        decoded.trailers = trailers(rest, headers, chain)?;
    } else if !matches!(rest, b"" | b"\r\n") {
        return Err(incomplete_body("something comes after the last chunk"));
    }
    Ok(decoded)
}

/// A line, and what comes after it.
fn take_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).take(256).position(|two| two == b"\r\n")?;
    Some((bytes.get(..end)?, bytes.get(end + 2..)?))
}

fn chunk_line(line: &[u8], signed: bool) -> Result<(usize, &str), Fault> {
    let line = std::str::from_utf8(line).map_err(|_| incomplete_body("a chunk's line is no text"))?;
    let (digits, extension) = line.split_once(';').unwrap_or((line, ""));
    let is_size = !digits.is_empty()
        && digits.len() <= SIZE_DIGITS_MAX
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let size = usize::from_str_radix(digits, 16).ok().filter(|_| is_size);
    let size = size.ok_or_else(|| incomplete_body("a chunk's size is not a hexadecimal number"))?;
    match extension.strip_prefix("chunk-signature=") {
        Some(signature) => Ok((size, signature)),
        None if signed => Err(mismatch("A chunk carries no signature.")),
        None => Ok((size, "")),
    }
}

/// The lines after the last chunk. In a signed body the last of them is the signature of those before.
fn trailers(
    rest: &[u8],
    headers: &dyn Headers,
    chain: Option<Chain<'_>>,
) -> Result<Vec<(String, String)>, Fault> {
    let text = std::str::from_utf8(rest).ok().filter(|text| text.len() <= TRAILER_BYTES_MAX);
    let mut trailers = Vec::new();
    let mut canonical = String::new();
    let mut signature = None;
    for line in
        text.ok_or_else(malformed_trailer)?.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line))
    {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(malformed_trailer)?;
        let (name, value) = (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']));
        if signature.is_some() || trailers.len() == TRAILERS_MAX {
            return Err(malformed_trailer());
        }
        if name == "x-amz-trailer-signature" {
            signature = Some(value);
        } else {
            canonical.push_str(&format!("{name}:{value}\n"));
            trailers.push((name, value.to_owned()));
        }
    }
    let announced = headers.get("x-amz-trailer").unwrap_or_default().to_ascii_lowercase();
    if trailers.iter().any(|(name, _)| !announced.split(',').any(|known| known.trim() == name)) {
        return Err(malformed_trailer());
    }
    if let Some(mut chain) = chain {
        chain.trailer(&canonical, signature.unwrap_or_default())?;
    }
    Ok(trailers)
}

fn incomplete_body(what: &str) -> Fault {
    Fault::new("IncompleteBody", 400, format!("The request body terminated unexpectedly: {what}."))
}

fn malformed_trailer() -> Fault {
    Fault::new(
        "MalformedTrailerError",
        400,
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    )
}
