//! A message as a broker dispatches it.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::frame::{Malformed, Read, Reader, Writer, from_modified_utf_8, of};

/// Bytes of a message's content, unpacked: more than any invocation takes.
const CONTENT_BYTES_MAX: u64 = 8 << 20;
/// Properties within each other.
const DEPTH_MAX: u32 = 8;

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
        let read = read_properties(properties);
        let is_readable = read.is_ok();
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
            content: if is_readable {
                unpacked(kind, content, is_compressed)
            } else {
                Content::Other("its properties can't be read")
            },
            properties: read.unwrap_or_default(),
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
    members(&mut Reader::new(bytes), DEPTH_MAX)
}

fn members(reader: &mut Reader<'_>, depth: u32) -> Read<Vec<(String, String)>> {
    let count = reader.int()?;
    (0..count).map(|_| Ok((reader.utf()?, value(reader, depth)?))).collect()
}

/// A property's value as text. JMS allows plain types only, the broker's own client some more, written as Java prints them.
fn value(reader: &mut Reader<'_>, depth: u32) -> Read<String> {
    let depth = depth.checked_sub(1).ok_or(Malformed("properties too deep in each other"))?;
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
        10 => STANDARD.encode(reader.counted()?),
        11 => {
            let members = members(reader, depth)?;
            let shown: Vec<String> = members.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{{{}}}", shown.join(", "))
        }
        12 => {
            let count = reader.int()?;
            let shown = (0..count).map(|_| value(reader, depth)).collect::<Read<Vec<String>>>()?;
            format!("[{}]", shown.join(", "))
        }
        13 => from_modified_utf_8(reader.counted()?),
        _ => return Err(Malformed("a property of a type that JMS doesn't know")),
    })
}

#[cfg(test)]
mod tests {
    use ondol_core::coins::Coins;

    use super::*;

    fn dispatch(kind: u8, content: &[u8], is_compressed: bool, properties: &[u8]) -> Vec<u8> {
        let mut writer = Writer::default();
        let producer = |writer: &mut Writer| {
            writer.object(of::PRODUCER_ID, |writer| _ = writer.text("ID:a").long(3).long(2));
        };
        writer.object(of::CONSUMER_ID, |writer| _ = writer.text("c").long(1).long(1));
        writer.object(of::QUEUE, |writer| _ = writer.text("q"));
        writer.object(kind, |writer| {
            writer.int(5).flag(false);
            producer(writer);
            writer.object(of::QUEUE, |writer| _ = writer.text("q"));
            // Of a transaction.
            writer.object(111, |writer| {
                writer.long(9).object(of::CONNECTION_ID, |writer| _ = writer.text("c"));
            });
            writer.none(1);
            writer.object(of::MESSAGE_ID, |writer| {
                writer.none(1);
                producer(writer);
                writer.long(7).long(8);
            });
            writer.none(1).none(1).int(0).text("c-1").flag(true).long(60_000).byte(4);
            writer.object(101, |writer| _ = writer.text("answers")).long(1_000).none(1);
            for bytes in [content, properties] {
                writer.flag(true).int(i32::try_from(bytes.len()).unwrap());
                writer.0.extend(bytes);
            }
            writer
                .none(2)
                .flag(is_compressed)
                .int(0)
                .none(1)
                .long(1)
                .none(1)
                .none(2)
                .none(1)
                .long(11)
                .long(12)
                .none(1);
        });
        writer.int(2);
        writer.0
    }

    fn message(frame: &[u8]) -> Message {
        Message::of_dispatch(&mut Reader::new(frame)).unwrap().unwrap()
    }

    fn text(text: &str) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut packed = flate2::read::ZlibEncoder::new(bytes, flate2::Compression::fast());
        let mut out = Vec::new();
        packed.read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn a_message_is_read_whole() {
        let mut properties = Writer::default();
        properties.int(5);
        properties.utf("text").byte(9).utf("x").utf("flag").byte(1).flag(true).utf("number").byte(5).int(-3);
        properties.utf("bytes").byte(10).int(2).byte(1).byte(2);
        properties.utf("list").byte(12).int(2).byte(9).utf("a").byte(11).int(1).utf("k").byte(6).long(4);
        let found = message(&dispatch(of::TEXT_MESSAGE, &text("hello"), false, &properties.0));
        assert_eq!(
            (found.id.to_string(), found.content),
            ("ID:a:2:3:7".into(), Content::Text(b"hello".to_vec()))
        );
        assert_eq!((found.destination.as_str(), found.reply_to.as_deref()), ("q", Some("topic://answers")));
        assert_eq!(
            (found.is_persistent, found.expiration, found.priority, found.timestamp),
            (true, 60_000, 4, 1_000)
        );
        assert_eq!((found.redeliveries, found.broker_in_time, found.broker_out_time), (2, 11, 12));
        let shown: Vec<(&str, &str)> =
            found.properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let wanted =
            [("text", "x"), ("flag", "true"), ("number", "-3"), ("bytes", "AQI="), ("list", "[a, {k=4}]")];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn content_is_unpacked_within_bounds() {
        let content = |kind, bytes: &[u8], packed| message(&dispatch(kind, bytes, packed, &[])).content;
        assert_eq!(
            content(of::TEXT_MESSAGE, &deflated(&text("hello")), true),
            Content::Text(b"hello".to_vec())
        );
        let bytes = [&[0, 0, 0, 2][..], &deflated(&[1, 255])].concat();
        assert_eq!(content(of::BYTES_MESSAGE, &bytes, true), Content::Bytes(vec![1, 255]));
        let bomb = deflated(&vec![0; 9 << 20]);
        for (kind, bytes, packed) in
            [(of::TEXT_MESSAGE, &bomb[..], true), (of::TEXT_MESSAGE, b"\0\0\0\x09x", false), (25, b"", false)]
        {
            assert!(matches!(content(kind, bytes, packed), Content::Other(_)));
        }
        // What can't be read of a message does not end the connection that brought it.
        let strange = message(&dispatch(of::TEXT_MESSAGE, &text("x"), false, b"\0\0\0\x01\0\x01a\x63"));
        assert!(matches!(strange.content, Content::Other(_)));
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let frame = dispatch(of::TEXT_MESSAGE, &text("hello"), false, b"\0\0\0\x01\0\x01a\x09\0\x01b");
        let mut coins = Coins::from_seed(5);
        for cut in 0..frame.len() {
            let _ = Message::of_dispatch(&mut Reader::new(&frame[..cut]));
        }
        for _ in 0..20_000 {
            let mut touched = frame.clone();
            for _ in 0..=coins.below(3) {
                let place = coins.below(touched.len());
                touched[place] = u8::try_from(coins.below(256)).unwrap();
            }
            let _ = Message::of_dispatch(&mut Reader::new(&touched));
        }
    }
}
