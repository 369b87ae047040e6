//! A message as a broker dispatches it.

use std::io::Read as _;

use super::frame::{Malformed, Read, Reader, Writer, from_modified_utf_8, of};

/// Bytes of a message's content, unpacked: more than any invocation takes.
const CONTENT_BYTES_MAX: u64 = 8 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageId {
    text_view: Option<String>,
    connection: String,
    producer: i64,
    session: i64,
    sequence: i64,
    broker_sequence: i64,
}

impl MessageId {
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        const NO_ID: Malformed = Malformed("a message without an id");
        if reader.kind()? != Some(of::MESSAGE_ID) {
            return Err(NO_ID);
        }
        let text_view = reader.text()?;
        if reader.kind()? != Some(of::PRODUCER_ID) {
            return Err(NO_ID);
        }
        Ok(Self {
            text_view,
            connection: reader.text()?.unwrap_or_default(),
            producer: reader.long()?,
            session: reader.long()?,
            sequence: reader.long()?,
            broker_sequence: reader.long()?,
        })
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.object(of::MESSAGE_ID, |writer| {
            match &self.text_view {
                Some(text) => writer.text(text),
                None => writer.none(1),
            };
            writer.object(of::PRODUCER_ID, |writer| {
                writer.text(&self.connection).long(self.producer).long(self.session);
            });
            writer.long(self.sequence).long(self.broker_sequence);
        });
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.text_view {
            Some(text) => f.write_str(text),
            None => write!(f, "{}:{}:{}:{}", self.connection, self.session, self.producer, self.sequence),
        }
    }
}

/// What a message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    /// Maps, objects, streams, or what is damaged or too large.
    Other(&'static str),
}

#[derive(Debug, Clone)]
pub struct Message {
    pub id: MessageId,
    /// The queue's or topic's name it was sent to.
    pub destination: String,
    pub reply_to: Option<String>,
    pub correlation_id: Option<String>,
    pub jms_type: Option<String>,
    pub is_persistent: bool,
    pub expiration: i64,
    pub priority: u8,
    pub timestamp: i64,
    pub content: Content,
    /// Names and values, as text.
    pub properties: Vec<(String, String)>,
    pub redeliveries: i32,
    pub broker_in_time: i64,
    pub broker_out_time: i64,
}

impl Message {
    /// The message of a dispatch; none ends a browse, which nobody asks for here.
    pub fn of_dispatch(reader: &mut Reader<'_>) -> Read<Option<Self>> {
        reader.skip()?;
        reader.skip()?;
        let Some(kind) = reader.kind()? else { return Ok(None) };
        let mut message = Self::read(reader, kind)?;
        message.redeliveries = reader.int()?;
        Ok(Some(message))
    }

    fn read(reader: &mut Reader<'_>, kind: u8) -> Read<Self> {
        reader.int()?;
        reader.flag()?;
        reader.skip()?;
        let destination = destination(reader)?.map(|(_, name)| name).unwrap_or_default();
        reader.skip()?;
        reader.skip()?;
        let id = MessageId::read(reader)?;
        reader.skip()?;
        reader.text()?;
        reader.int()?;
        let correlation_id = reader.text()?;
        let is_persistent = reader.flag()?;
        let expiration = reader.long()?;
        let priority = reader.byte()?;
        let reply_to = destination_name(reader)?;
        let timestamp = reader.long()?;
        let jms_type = reader.text()?;
        let content = reader.bytes()?.unwrap_or_default();
        let properties = reader.bytes()?.unwrap_or_default();
        reader.skip()?;
        reader.skip()?;
        let is_compressed = reader.flag()?;
        let redeliveries = reader.int()?;
        reader.skip_list()?;
        reader.long()?;
        reader.text()?;
        reader.flag()?;
        reader.flag()?;
        reader.skip_list()?;
        let (broker_in_time, broker_out_time) = (reader.long()?, reader.long()?);
        reader.flag()?;
        Ok(Self {
            id,
            destination,
            reply_to,
            correlation_id,
            jms_type,
            is_persistent,
            expiration,
            priority,
            timestamp,
            content: unpacked(kind, content, is_compressed),
            properties: read_properties(properties)?,
            redeliveries,
            broker_in_time,
            broker_out_time,
        })
    }
}

/// A destination's kind and name.
fn destination(reader: &mut Reader<'_>) -> Read<Option<(u8, String)>> {
    match reader.kind()? {
        None => Ok(None),
        Some(kind @ 100..=103) => Ok(Some((kind, reader.text()?.unwrap_or_default()))),
        Some(_) => Err(Malformed("a destination of an unknown kind")),
    }
}

/// As JMS prints it.
fn destination_name(reader: &mut Reader<'_>) -> Read<Option<String>> {
    const KINDS: [&str; 4] = ["queue", "topic", "temp-queue", "temp-topic"];
    let name = |(kind, name): (u8, String)| format!("{}://{name}", KINDS[usize::from(kind - 100)]);
    Ok(destination(reader)?.map(name))
}

fn unpacked(kind: u8, content: &[u8], is_compressed: bool) -> Content {
    if !matches!(kind, of::TEXT_MESSAGE | of::BYTES_MESSAGE) {
        return Content::Other("it is neither a text message nor a bytes message");
    }
    let packed = match (is_compressed, kind, content.split_at_checked(4)) {
        (false, ..) => None,
        // The bytes' own length goes before what is packed.
        (true, of::BYTES_MESSAGE, Some((_, packed))) => Some(packed),
        (true, ..) => Some(content),
    };
    let content = match packed.map(inflate) {
        None => content.to_vec(),
        Some(Some(content)) => content,
        Some(None) => return Content::Other("its content can't be unpacked, or is too large"),
    };
    if kind == of::BYTES_MESSAGE {
        return Content::Bytes(content);
    }
    if content.is_empty() {
        return Content::Text(content);
    }
    match Reader::new(&content).counted() {
        Ok(text) => Content::Text(from_modified_utf_8(text).into_bytes()),
        Err(_) => Content::Other("its text is damaged"),
    }
}

fn inflate(packed: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let read = flate2::read::ZlibDecoder::new(packed).take(CONTENT_BYTES_MAX + 1).read_to_end(&mut content);
    (read.is_ok() && content.len() as u64 <= CONTENT_BYTES_MAX).then_some(content)
}

fn read_properties(bytes: &[u8]) -> Read<Vec<(String, String)>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(bytes);
    let count = reader.int()?;
    (0..count).map(|_| Ok((reader.utf()?, value(&mut reader)?))).collect()
}

/// A property's value as text: JMS allows plain types only.
fn value(reader: &mut Reader<'_>) -> Read<String> {
    Ok(match reader.byte()? {
        0 => "null".to_owned(),
        1 => reader.flag()?.to_string(),
        2 => reader.byte()?.cast_signed().to_string(),
        3 => char::from_u32(reader.short()?.cast_unsigned().into())
            .unwrap_or(char::REPLACEMENT_CHARACTER)
            .into(),
        4 => reader.short()?.to_string(),
        5 => reader.int()?.to_string(),
        6 => reader.long()?.to_string(),
        7 => f64::from_be_bytes(reader.bits()?).to_string(),
        8 => f32::from_bits(reader.int()?.cast_unsigned()).to_string(),
        9 => reader.utf()?,
        13 => from_modified_utf_8(reader.counted()?),
        _ => return Err(Malformed("a property of a type that JMS doesn't know")),
    })
}
