//! OpenWire's loose encoding, version 12: what is written and read of it here.
//!
//! Big-endian. A nested object is a flag, a type byte and its fields; texts are in Java's modified UTF-8.

/// Type bytes of commands and of what they hold.
pub mod of {
    pub const WIRE_FORMAT_INFO: u8 = 1;
    pub const CONNECTION_INFO: u8 = 3;
    pub const SESSION_INFO: u8 = 4;
    pub const CONSUMER_INFO: u8 = 5;
    pub const KEEP_ALIVE_INFO: u8 = 10;
    pub const SHUTDOWN_INFO: u8 = 11;
    pub const REMOVE_INFO: u8 = 12;
    pub const MESSAGE_DISPATCH: u8 = 21;
    pub const MESSAGE_ACK: u8 = 22;
    pub const BYTES_MESSAGE: u8 = 24;
    pub const TEXT_MESSAGE: u8 = 28;
    pub const RESPONSE: u8 = 30;
    pub const EXCEPTION_RESPONSE: u8 = 31;
    pub const QUEUE: u8 = 100;
    pub const MESSAGE_ID: u8 = 110;
    pub const CONNECTION_ID: u8 = 120;
    pub const SESSION_ID: u8 = 121;
    pub const CONSUMER_ID: u8 = 122;
    pub const PRODUCER_ID: u8 = 123;
}

/// Objects within each other that are read.
const DEPTH_MAX: u32 = 8;

#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.byte(value.into())
    }

    /// That many flags that are not set, or objects that are not there.
    pub fn none(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    pub fn int(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn long(&mut self, value: i64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A text without the flag that it is there. What is longer than 65,535 bytes is cut.
    pub fn utf(&mut self, text: &str) -> &mut Self {
        let mut bytes = modified_utf_8(text);
        bytes.truncate(u16::MAX.into());
        self.0.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.flag(true).utf(text)
    }

    pub fn object(&mut self, kind: u8, fields: impl FnOnce(&mut Self)) -> &mut Self {
        self.flag(true).byte(kind);
        fields(self);
        self
    }
}

/// What can't be read: in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

pub type Read<T> = Result<T, Malformed>;

#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("a frame that ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn byte(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub fn flag(&mut self) -> Read<bool> {
        Ok(self.byte()? != 0)
    }

    pub fn short(&mut self) -> Read<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn int(&mut self) -> Read<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn long(&mut self) -> Read<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn bits(&mut self) -> Read<[u8; 8]> {
        self.array()
    }

    pub fn utf(&mut self) -> Read<String> {
        let length = u16::from_be_bytes(self.array()?);
        Ok(from_modified_utf_8(self.take(length.into())?))
    }

    pub fn text(&mut self) -> Read<Option<String>> {
        if self.flag()? { self.utf().map(Some) } else { Ok(None) }
    }

    /// A length and as many bytes.
    pub fn counted(&mut self) -> Read<&'a [u8]> {
        let length = usize::try_from(self.int()?).map_err(|_| Malformed("a negative length"))?;
        self.take(length)
    }

    pub fn bytes(&mut self) -> Read<Option<&'a [u8]>> {
        if self.flag()? { self.counted().map(Some) } else { Ok(None) }
    }

    /// The type byte of an object, if there is one.
    pub fn kind(&mut self) -> Read<Option<u8>> {
        if self.flag()? { self.byte().map(Some) } else { Ok(None) }
    }

    /// Reads over an object of those that come within messages.
    pub fn skip(&mut self) -> Read<()> {
        self.skip_within(DEPTH_MAX)
    }

    fn skip_within(&mut self, depth: u32) -> Read<()> {
        let depth = depth.checked_sub(1).ok_or(Malformed("objects too deep in each other"))?;
        let Some(kind) = self.kind()? else { return Ok(()) };
        match kind {
            // Destinations, a connection's id and a broker's.
            100..=103 | of::CONNECTION_ID | 124 => self.text().map(drop),
            of::SESSION_ID => self.text().and_then(|_| self.long()).map(drop),
            of::CONSUMER_ID | of::PRODUCER_ID => {
                self.text()?;
                self.long()?;
                self.long().map(drop)
            }
            // Transactions, of one broker and of several.
            111 => self.long().and_then(|_| self.skip_within(depth)),
            112 => {
                self.int()?;
                self.bytes()?;
                self.bytes().map(drop)
            }
            _ => Err(Malformed("an object of a type that doesn't belong in a message")),
        }
    }

    pub fn skip_list(&mut self) -> Read<()> {
        if self.flag()? {
            for _ in 0..self.short()? {
                self.skip()?;
            }
        }
        Ok(())
    }
}

/// Java's: zero in two bytes, and what is beyond 16 bits as two surrogates of three bytes each.
fn modified_utf_8(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for unit in text.encode_utf16() {
        let [high, low] = unit.to_be_bytes();
        match unit {
            1..=0x7F => bytes.push(low),
            0 | 0x80..=0x7FF => bytes.extend([0xC0 | (high << 2) | (low >> 6), 0x80 | (low & 0x3F)]),
            0x800.. => bytes.extend([
                0xE0 | (high >> 4),
                0x80 | ((high & 0x0F) << 2) | (low >> 6),
                0x80 | (low & 0x3F),
            ]),
        }
    }
    bytes
}

/// Plain UTF-8, as the broker keeps what came by other protocols, or Java's. What is neither becomes replacement characters.
pub fn from_modified_utf_8(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, behind @ ..] = rest {
        let (unit, left) = match (first, behind) {
            (0x01..=0x7F, left) => (u16::from(*first), left),
            (0xC0..=0xDF, [second, left @ ..]) => {
                ((u16::from(first & 0x1F) << 6) | u16::from(second & 0x3F), left)
            }
            (0xE0..=0xEF, [second, third, left @ ..]) => {
                let unit = (u16::from(first & 0x0F) << 12)
                    | (u16::from(second & 0x3F) << 6)
                    | u16::from(third & 0x3F);
                (unit, left)
            }
            (_, left) => (0xFFFD, left),
        };
        units.push(unit);
        rest = left;
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_java_s() {
        assert_eq!(modified_utf_8("a\0é€😀"), b"a\xC0\x80\xC3\xA9\xE2\x82\xAC\xED\xA0\xBD\xED\xB8\x80");
        for text in ["", "plain", "a\0é€😀", "\u{7FF}\u{800}\u{FFFF}"] {
            assert_eq!(from_modified_utf_8(&modified_utf_8(text)), text);
            assert_eq!(from_modified_utf_8(text.as_bytes()), text);
        }
        assert_eq!(from_modified_utf_8(b"\xFFa\xE2\x82"), "\u{FFFD}a\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn frames_that_end_early_or_nest_for_ever_are_refused() {
        assert!(Reader::new(&[0, 0]).int().is_err());
        assert!(Reader::new(&[1, 0xFF, 0xFF, 0xFF, 0xFF]).bytes().is_err());
        let deep: Vec<u8> = [1, 111, 0, 0, 0, 0, 0, 0, 0, 0].repeat(100);
        assert!(Reader::new(&deep).skip().is_err());
    }
}
