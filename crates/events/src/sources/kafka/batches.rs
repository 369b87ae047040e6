//! The batches of records of one fetch.

use bytes::Bytes;
use kafka_protocol::records::{Record, RecordBatchDecoder};

/// Offset and length, which the length does not count.
const HEAD_BYTES: usize = 12;
const MAGIC_AT: usize = 16;
const LAST_OFFSET_DELTA_AT: usize = 23;
const RECORD_COUNT_AT: usize = 57;
/// Records that a batch may say it has: room is made for all of them at once.
const RECORDS_MAX: i32 = 1 << 20;

/// The records from an offset on, and the next to fetch. A broker cuts the last batch where its answer is full: it is
/// fetched again. Batches may be without their last records, or empty, and count as read all the same.
pub fn read(mut bytes: Bytes, from: i64) -> Result<(Vec<Record>, i64), String> {
    let (mut records, mut next, is_empty) = (Vec::new(), from, bytes.is_empty());
    while let Some(end) = end(&bytes) {
        let mut batch = bytes.split_to(end);
        let last = last_offset(&batch)?;
        let sets = RecordBatchDecoder::decode_all(&mut batch).map_err(|error| error.to_string())?;
        let wanted = sets.into_iter().flat_map(|set| set.records).filter(|record| record.offset >= from);
        let before = records.len();
        records.extend(wanted.filter(|record| !record.control));
        let seen = records.get(before..).unwrap_or_default().last().map(|record: &Record| record.offset);
        next = next.max(last.or(seen).map_or(next, |last| last + 1));
    }
    if next == from && !is_empty {
        return Err(format!("nothing of the answer is a whole batch with offset {from} or later"));
    }
    Ok((records, next))
}

/// Where the first batch ends, if it is there whole.
fn end(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(int(bytes, 8)?).ok()?;
    Some(HEAD_BYTES + length).filter(|end| *end <= bytes.len() && length > 0)
}

/// The last offset that a batch stands for; none for the forms before version 2, whose records say it all.
fn last_offset(batch: &[u8]) -> Result<Option<i64>, String> {
    if batch.get(MAGIC_AT) != Some(&2) {
        return Ok(None);
    }
    let malformed = || "a batch of records ends within its head".to_owned();
    let base = batch.first_chunk().map(|base| i64::from_be_bytes(*base)).ok_or_else(malformed)?;
    let delta = int(batch, LAST_OFFSET_DELTA_AT).ok_or_else(malformed)?;
    match int(batch, RECORD_COUNT_AT).ok_or_else(malformed)? {
        0..=RECORDS_MAX => Ok(Some(base.saturating_add(delta.into()))),
        count => Err(format!("a batch that says it has {count} records")),
    }
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(i32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut as _, BytesMut};
    use kafka_protocol::indexmap::IndexMap;
    use kafka_protocol::records::{Compression, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

    use super::*;

    fn batch(offsets: std::ops::Range<i64>) -> Bytes {
        let record = |offset| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset,
            sequence: i32::try_from(offset).unwrap(),
            timestamp: 0,
            key: None,
            value: Some(Bytes::from(vec![0; 100])),
            headers: IndexMap::new(),
        };
        let records: Vec<Record> = offsets.map(record).collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::Lz4 };
        RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
        bytes.freeze()
    }

    fn offsets(bytes: Bytes, from: i64) -> (Vec<i64>, i64) {
        let (records, next) = read(bytes, from).unwrap();
        (records.iter().map(|record| record.offset).collect(), next)
    }

    #[test]
    fn a_batch_that_was_cut_is_fetched_again() {
        let whole = [batch(0..3), batch(3..6)].concat();
        assert_eq!(offsets(whole.clone().into(), 1), (vec![1, 2, 3, 4, 5], 6));
        let first = batch(0..3).len();
        for cut in first..whole.len() {
            assert_eq!(offsets(Bytes::copy_from_slice(&whole[..cut]), 0), (vec![0, 1, 2], 3), "{cut}");
        }
        assert!(read(Bytes::copy_from_slice(&whole[..first - 1]), 0).is_err());
        assert_eq!(offsets(Bytes::new(), 7), (vec![], 7));
    }

    #[test]
    fn records_that_are_gone_from_a_batch_are_passed() {
        // As after compaction: the batch stands for offsets to 9 and holds three.
        let mut compacted = BytesMut::from(&batch(0..3)[..]);
        compacted[LAST_OFFSET_DELTA_AT..LAST_OFFSET_DELTA_AT + 4].copy_from_slice(&9_i32.to_be_bytes());
        let crc = crc32c(&compacted[21..]);
        compacted[17..21].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(offsets(compacted.clone().freeze(), 2), (vec![2], 10));
        assert_eq!(offsets(compacted.freeze(), 5), (vec![], 10));
    }

    #[test]
    fn no_room_is_made_for_what_only_says_it_is_large() {
        let mut bytes = BytesMut::from(&batch(0..3)[..]);
        bytes[RECORD_COUNT_AT..RECORD_COUNT_AT + 4].copy_from_slice(&i32::MAX.to_be_bytes());
        assert!(read(bytes.freeze(), 0).unwrap_err().contains("records"));
        let mut short = BytesMut::new();
        short.put_i64(0);
        short.put_i32(9);
        short.put_bytes(2, 9);
        assert!(read(short.freeze(), 0).is_err());
    }

    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0x82F6_3B78 & 0_u32.wrapping_sub(crc & 1))
            })
        })
    }
}
