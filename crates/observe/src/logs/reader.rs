//! Reading segments: by group, function, request and time, a page at a time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ondol_core::identity::RequestId;

use super::writer::{group_folder, segments};
use super::{Entry, LogStream, segment};
use crate::platform;

/// What to read. Everything that is not given matches.
#[derive(Debug, Clone)]
pub struct Query {
    pub group: String,
    pub function: Option<String>,
    pub version: Option<String>,
    pub request: Option<RequestId>,
    pub since_epoch_millis: i64,
    pub after: Option<Cursor>,
    pub limit: usize,
    /// Only so many of the newest, whatever the limit.
    pub newest: Option<usize>,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            group: String::new(),
            function: None,
            version: None,
            request: None,
            since_epoch_millis: 0,
            after: None,
            limit: 10_000,
            newest: None,
        }
    }
}

/// A place in a group: what was written before it has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    segment: String,
    offset: usize,
}

impl Cursor {
    pub fn parse(text: &str) -> Option<Self> {
        let (segment, offset) = text.split_once(':')?;
        let name =
            segment.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte.is_ascii_lowercase());
        name.then_some(Self { segment: segment.into(), offset: offset.parse().ok()? })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

#[derive(Debug, Clone)]
pub struct Event {
    pub epoch_millis: i64,
    pub stream: Arc<LogStream>,
    pub request: Option<RequestId>,
    pub message: String,
}

#[derive(Debug, Clone, Default)]
pub struct Page {
    pub events: Vec<Event>,
    /// Where to go on; everything up to here was looked at.
    pub cursor: Cursor,
    /// The limit was reached: there may be more at once.
    pub more: bool,
    /// Of all messages together.
    bytes: usize,
}

/// A page ends at its limit, or when its messages are this large.
const PAGE_BYTES_MAX: usize = 4 << 20;

pub fn read(folder: &Path, query: &Query) -> Page {
    let mut page = Page { cursor: query.after.clone().unwrap_or_default(), ..Page::default() };
    let all = segments(&group_folder(folder, &query.group));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for (place, (path, _)) in all.iter().enumerate() {
        let name = name(path);
        // Older than the cursor, or wholly older than what is asked for: the next one begins before it.
        let next_begins =
            all.get(place + 1).and_then(|(next, _)| next.file_stem()?.to_str()?.parse::<i64>().ok());
        if name < page.cursor.segment || next_begins.is_some_and(|at| at / 1_000 < query.since_epoch_millis) {
            continue;
        }
        // Removed meanwhile: its lines are gone.
        let Ok(bytes) = std::fs::read(path) else { continue };
        let from = if name == page.cursor.segment { page.cursor.offset } else { 0 };
        page.cursor = Cursor { segment: name, offset: from };
        if !read_segment(&bytes, from, query, &mut page) {
            page.more = true;
            break;
        }
    }
    if let Some(newest) = query.newest {
        page.events.drain(..page.events.len().saturating_sub(newest));
    }
    page
}

/// False when the page is full.
fn read_segment(bytes: &[u8], from: usize, query: &Query, page: &mut Page) -> bool {
    let mut streams: BTreeMap<u32, Arc<LogStream>> = BTreeMap::new();
    let mut offset = 0;
    while let Some((frame, next)) = segment::read(bytes, offset) {
        match frame {
            segment::Frame::Stream { number, stream } => {
                streams.insert(number, Arc::new(stream));
            }
            segment::Frame::Line { number, epoch_micros, request, entry } if offset >= from => {
                let epoch_millis = i64::try_from(epoch_micros / 1_000).unwrap_or(i64::MAX);
                let Some(stream) = streams.get(&number) else { return true };
                if matches(query, stream, request, epoch_millis) {
                    match query.newest {
                        // Now and then, so that it costs little and holds little.
                        Some(newest) if page.events.len() > 2 * newest || page.bytes > PAGE_BYTES_MAX => {
                            page.events.drain(..page.events.len() / 2);
                            page.bytes = page.events.iter().map(|event| event.message.len()).sum();
                        }
                        Some(_) => {}
                        None if page.events.len() >= query.limit || page.bytes > PAGE_BYTES_MAX => {
                            return false;
                        }
                        None => {}
                    }
                    let message = message(stream, epoch_millis, request, entry);
                    page.bytes += message.len();
                    page.events.push(Event { epoch_millis, stream: Arc::clone(stream), request, message });
                }
            }
            segment::Frame::Line { .. } => {}
        }
        offset = next;
        page.cursor.offset = page.cursor.offset.max(offset);
    }
    true
}

fn matches(query: &Query, stream: &LogStream, request: Option<RequestId>, epoch_millis: i64) -> bool {
    epoch_millis >= query.since_epoch_millis
        && query.request.is_none_or(|wanted| request == Some(wanted))
        && query.function.as_ref().is_none_or(|wanted| stream.function == *wanted)
        && query.version.as_ref().is_none_or(|wanted| stream.version == *wanted)
}

fn message(stream: &LogStream, epoch_millis: i64, request: Option<RequestId>, entry: Entry) -> String {
    let request = request.unwrap_or(RequestId(0));
    match entry {
        Entry::Text(text) => text.into(),
        Entry::Start => {
            platform::start(epoch_millis, request, &stream.version, &stream.function_arn).to_string()
        }
        Entry::Report { duration_micros, status } => {
            platform::report(epoch_millis, request, duration_micros, status).to_string()
        }
    }
}
