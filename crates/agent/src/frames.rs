//! The log of a runtime in the classic mode: entries in frames, so that one may have several lines.
//!
//! A frame is a header of 16 bytes (type, length and microseconds since the epoch, all big-endian) and the entry.
//! AWS's clients for Python and Node.js write them to the descriptor of `_LAMBDA_TELEMETRY_LOG_FD`.

const HEADER_BYTES: usize = 16;
/// What every type begins with; the rest says the format and the level, which the entry says as well.
const TYPE: [u8; 2] = [0xa5, 0x5a];

#[derive(Debug, Default)]
pub struct Frames {
    header: Vec<u8>,
    entry: Vec<u8>,
    /// Bytes of the entry that have not come, once its header has.
    left: Option<usize>,
    /// Something else than the runtime wrote here: where a frame begins can't be known any more.
    broken: bool,
}

impl Frames {
    /// Gives each entry that is whole now, of a long one the first `entry_bytes_max`.
    pub fn feed(&mut self, mut bytes: &[u8], entry_bytes_max: usize, mut give: impl FnMut(&[u8])) {
        while !self.broken && !bytes.is_empty() {
            let Some(left) = self.left else {
                let (header, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES - self.header.len()));
                self.header.extend_from_slice(header);
                bytes = rest;
                if self.header.len() == HEADER_BYTES {
                    self.broken = !self.header.starts_with(&TYPE);
                    let length = [4, 5, 6, 7].map(|place| self.header[place]);
                    self.left = Some(u32::from_be_bytes(length) as usize).filter(|length| *length > 0);
                    self.header.clear();
                }
                continue;
            };
            let (entry, rest) = bytes.split_at(bytes.len().min(left));
            let room = entry_bytes_max.saturating_sub(self.entry.len());
            self.entry.extend_from_slice(&entry[..entry.len().min(room)]);
            bytes = rest;
            self.left = Some(left - entry.len()).filter(|left| *left > 0);
            if self.left.is_none() {
                give(&self.entry);
                self.entry = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(entry: &str) -> Vec<u8> {
        let length = u32::try_from(entry.len()).unwrap().to_be_bytes();
        [&[0xa5, 0x5a, 0, 3][..], &length, &[0; 8], entry.as_bytes()].concat()
    }

    fn entries(pieces: &[&[u8]], entry_bytes_max: usize) -> Vec<String> {
        let (mut frames, mut given) = (Frames::default(), Vec::new());
        for piece in pieces {
            frames
                .feed(piece, entry_bytes_max, |entry| given.push(String::from_utf8(entry.to_vec()).unwrap()));
        }
        given
    }

    #[test]
    fn entries_are_whole_however_the_bytes_come() {
        let bytes = [frame("one\nand its second line"), frame(""), frame("two")].concat();
        let expected = ["one\nand its second line", "two"];
        for size in [1, 3, 16, 17, bytes.len()] {
            assert_eq!(
                entries(&bytes.chunks(size).collect::<Vec<_>>(), 100),
                expected,
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn a_long_entry_is_cut_and_what_follows_is_whole() {
        let bytes = [frame("0123456789"), frame("next")].concat();
        assert_eq!(entries(&[&bytes], 4), ["0123", "next"]);
        assert_eq!(entries(&bytes.chunks(7).collect::<Vec<_>>(), 4), ["0123", "next"]);
    }

    #[test]
    fn what_is_no_frame_is_not_taken_for_one() {
        let rubbish = b"somebody else's words, and many of them";
        assert_eq!(entries(&[&frame("one"), rubbish, &frame("two")], 100), ["one"]);
    }
}
