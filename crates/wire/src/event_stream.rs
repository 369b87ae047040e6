//! AWS's framing of event streams (`application/vnd.amazon.eventstream`): lengths, headers of text, payload, checksums.

use bytes::{BufMut as _, Bytes, BytesMut};

pub const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// The type of a header whose value is text.
const TEXT: u8 = 7;
/// Both lengths and their checksum.
const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

/// One event. Names and values of headers are ours, and short.
pub fn event(event_type: &str, content_type: &str, payload: &[u8]) -> Bytes {
    let headers = [(":event-type", event_type), (":content-type", content_type), (":message-type", "event")];
    let mut block = BytesMut::new();
    for (name, value) in headers {
        block.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        block.put_slice(name.as_bytes());
        block.put_u8(TEXT);
        block.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        block.put_slice(value.as_bytes());
    }
    let length = PRELUDE_BYTES + block.len() + payload.len() + CHECKSUM_BYTES;
    let mut out = BytesMut::with_capacity(length);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    out.put_u32(u32::try_from(block.len()).unwrap_or(u32::MAX));
    out.put_u32(crc32fast::hash(&out));
    out.put_slice(&block);
    out.put_slice(payload);
    out.put_u32(crc32fast::hash(&out));
    out.freeze()
}

/// An event as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub event_type: String,
    pub payload: Bytes,
}

/// Takes the first event off what has been read so far; none if it is not all there yet. The error says what is
/// wrong with it.
pub fn take_event(read: &mut BytesMut) -> Result<Option<Event>, String> {
    let number =
        |at: usize| read.get(at..at + 4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]));
    let (Some(length), Some(headers), Some(checksum)) = (number(0), number(4), number(8)) else {
        return Ok(None);
    };
    let (length, headers) = (length as usize, headers as usize);
    if checksum != crc32fast::hash(&read[..8]) || length < PRELUDE_BYTES + headers + CHECKSUM_BYTES {
        return Err("the prelude of an event is broken".into());
    }
    if read.len() < length {
        return Ok(None);
    }
    let message = read.split_to(length).freeze();
    let end = length - CHECKSUM_BYTES;
    if message[end..] != crc32fast::hash(&message[..end]).to_be_bytes() {
        return Err("an event is not what was sent".into());
    }
    let event_type = text_header(&message[PRELUDE_BYTES..PRELUDE_BYTES + headers], ":event-type");
    let payload = message.slice(PRELUDE_BYTES + headers..end);
    Ok(Some(Event { event_type: event_type.unwrap_or_default(), payload }))
}

/// The value of a header, as long as all before it are text too.
fn text_header(mut block: &[u8], wanted: &str) -> Option<String> {
    loop {
        let (length, rest) = block.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (&[kind, high, low], rest) = rest.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if kind != TEXT {
            return None;
        }
        if name == wanted.as_bytes() {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        block = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_framed_is_read_back_however_it_is_cut() {
        let whole = [event("PayloadChunk", "a/b", b"one"), event("InvokeComplete", "c/d", b"{}")].concat();
        for step in [1, 7, whole.len()] {
            let (mut read, mut found) = (BytesMut::new(), Vec::new());
            for part in whole.chunks(step) {
                read.extend_from_slice(part);
                while let Some(event) = take_event(&mut read).unwrap() {
                    found.push((event.event_type, event.payload));
                }
            }
            let wanted = [("PayloadChunk", "one"), ("InvokeComplete", "{}")];
            assert_eq!(found, wanted.map(|(kind, payload)| (kind.to_owned(), Bytes::from(payload))));
        }
        for place in 0..whole.len() / 2 {
            let mut broken = BytesMut::from(&whole[..]);
            broken[place] ^= 1;
            assert_ne!(
                take_event(&mut broken).map(|event| event.map(|e| e.payload)),
                Ok(Some("one".into())),
                "{place}"
            );
        }
    }

    #[test]
    fn an_event_is_framed_with_its_lengths_and_checksums() {
        let message = event("PayloadChunk", "application/octet-stream", b"hello");
        let number = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
        let (length, headers) = (number(0) as usize, number(4) as usize);
        assert_eq!(length, message.len());
        assert_eq!(&message[12 + headers..length - 4], b"hello");
        assert_eq!(number(8), crc32fast::hash(&message[..8]));
        assert_eq!(number(length - 4), crc32fast::hash(&message[..length - 4]));
        assert_eq!(&message[12..27], b"\x0b:event-type\x07\x00\x0c");
    }
}
