//! A segment: frames of a length, a kind, a time, a stream, and the rest. A stream is described once in each
//! segment, so that every segment can be read alone. Integers are little-endian.

use ondol_core::identity::RequestId;

use super::{Entry, LogStream, Record};
use crate::platform::Status;

const STREAM: u8 = 0;
const TEXT: u8 = 1;
const START: u8 = 2;
const REPORT: u8 = 3;
/// Kind, time and stream number.
const HEAD: usize = 1 + 8 + 4;
const STATUS: [Status; 4] = [Status::Success, Status::Error, Status::Failure, Status::Timeout];

fn frame(out: &mut Vec<u8>, kind: u8, epoch_micros: u64, stream: u32, parts: &[&[u8]]) {
    let length = HEAD + parts.iter().map(|part| part.len()).sum::<usize>();
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&epoch_micros.to_le_bytes());
    out.extend_from_slice(&stream.to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

pub fn describe(out: &mut Vec<u8>, number: u32, stream: &LogStream) {
    frame(out, STREAM, 0, number, &[&serde_json::to_vec(stream).unwrap_or_default()]);
}

pub fn write(out: &mut Vec<u8>, number: u32, record: &Record) {
    let request = record.request.map_or(0, |request| request.0).to_le_bytes();
    let at = record.epoch_micros;
    match &record.entry {
        Entry::Text(text) => frame(out, TEXT, at, number, &[&request, text.as_bytes()]),
        Entry::Start => frame(out, START, at, number, &[&request]),
        Entry::Report { duration_micros, status } => {
            let status = STATUS.iter().position(|known| known == status).unwrap_or_default();
            let status = [u8::try_from(status).unwrap_or_default()];
            frame(out, REPORT, at, number, &[&request, &duration_micros.to_le_bytes(), &status]);
        }
    }
}

/// One frame as read.
pub enum Frame {
    Stream { number: u32, stream: LogStream },
    Line { number: u32, epoch_micros: u64, request: Option<RequestId>, entry: Entry },
}

/// The frame at an offset and where the next begins; `None` at the end, and where a segment is torn.
pub fn read(bytes: &[u8], offset: usize) -> Option<(Frame, usize)> {
    let rest = bytes.get(offset..)?;
    let length = usize::try_from(u32::from_le_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
    let frame = rest.get(4..4_usize.checked_add(length)?)?;
    let (kind, at) = (*frame.first()?, u64::from_le_bytes(frame.get(1..9)?.try_into().ok()?));
    let number = u32::from_le_bytes(frame.get(9..HEAD)?.try_into().ok()?);
    let body = frame.get(HEAD..)?;
    let next = offset + 4 + length;
    if kind == STREAM {
        let stream = serde_json::from_slice(body).ok()?;
        return Some((Frame::Stream { number, stream }, next));
    }
    let request = u128::from_le_bytes(body.get(..16)?.try_into().ok()?);
    let rest = body.get(16..)?;
    let entry = match kind {
        TEXT => Entry::Text(String::from_utf8_lossy(rest).into()),
        START => Entry::Start,
        REPORT => Entry::Report {
            duration_micros: u64::from_le_bytes(rest.get(..8)?.try_into().ok()?),
            status: *STATUS.get(usize::from(*rest.get(8)?))?,
        },
        _ => return None,
    };
    let request = (request != 0).then_some(RequestId(request));
    Some((Frame::Line { number, epoch_micros: at, request, entry }, next))
}
