//! Walking the records of a batch without holding more than one of them.
//!
//! A record: length varint, attributes i8, timestamp delta varint, offset delta varint, key length varint (-1 is null), key,
//! value length varint, value, headers. Varints are zigzag.

use super::Malformed;
use super::codec;
use super::header::{BatchHeader, HEADER_BYTES};
use std::io::{BufReader, Read};

/// Largest record that is walked into memory, in bytes.
const MAX_RECORD_BYTES: usize = 64 << 20;

/// What is known of a record before its value is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHead {
    /// Absolute offset.
    pub(crate) offset: i64,
    /// Milliseconds since the epoch.
    pub(crate) timestamp: i64,
}

/// One record, borrowed from the walker.
pub(crate) struct Visit<'a> {
    pub(crate) head: RecordHead,
    pub(crate) key: Option<&'a [u8]>,
    /// Whether the value is null.
    pub(crate) tombstone: bool,
    /// The whole record as it stands in the unpacked block, with its length.
    pub(crate) bytes: &'a [u8],
}

/// Walks the records of one batch. Memory: the largest record (64 MiB at most) and the codec's window.
pub(crate) struct Records<'a> {
    header: BatchHeader,
    input: BufReader<Box<dyn Read + 'a>>,
    index: i32,
    record: Vec<u8>,
}

impl<'a> Records<'a> {
    /// Over a whole batch whose header was decoded.
    pub(crate) fn new(header: BatchHeader, batch: &'a [u8]) -> Result<Records<'a>, Malformed> {
        let block = batch.get(HEADER_BYTES..header.length).ok_or(Malformed::Header("cut short"))?;
        let input = BufReader::with_capacity(16 << 10, codec::reader(header.codec(), block)?);
        Ok(Records { header, input, index: 0, record: Vec::new() })
    }

    /// The next record, `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Visit<'_>>, Malformed> {
        if self.index == self.header.record_count {
            return Ok(None);
        }
        self.read_record()?;
        let wrong = |what| Malformed::Record { index: self.index, what };
        let parts = Parts::of(&self.record).ok_or(wrong("its fields exceed its length"))?;
        self.index += 1;
        let timestamp = if self.header.log_append_time() {
            self.header.max_timestamp
        } else {
            self.header.base_timestamp.saturating_add(parts.timestamp_delta)
        };
        let offset = self.header.base_offset.saturating_add(parts.offset_delta);
        Ok(Some(Visit {
            head: RecordHead { offset, timestamp },
            key: parts.key,
            tombstone: parts.tombstone,
            bytes: &self.record,
        }))
    }

    fn read_record(&mut self) -> Result<(), Malformed> {
        let index = self.index;
        let wrong = |what| Malformed::Record { index, what };
        self.record.clear();
        let length = read_varint(&mut self.input, &mut self.record)?.ok_or(wrong("bad length"))?;
        let length = usize::try_from(length).ok().filter(|n| *n <= MAX_RECORD_BYTES);
        let length = length.ok_or(wrong("bad length"))? as u64;
        let read = (&mut self.input).take(length).read_to_end(&mut self.record);
        if read.map_err(Malformed::Compression)? as u64 != length {
            return Err(wrong("cut short"));
        }
        Ok(())
    }
}

/// The fields that the log looks at.
struct Parts<'a> {
    timestamp_delta: i64,
    offset_delta: i64,
    key: Option<&'a [u8]>,
    tombstone: bool,
}

impl<'a> Parts<'a> {
    fn of(record: &'a [u8]) -> Option<Parts<'a>> {
        let mut rest = record;
        varint(&mut rest)?;
        rest = rest.get(1..)?;
        let timestamp_delta = varint(&mut rest)?;
        let offset_delta = varint(&mut rest)?;
        let key = field(&mut rest)?;
        let value = field(&mut rest)?;
        Some(Parts { timestamp_delta, offset_delta, key, tombstone: value.is_none() })
    }
}

/// A length-prefixed field; the inner `None` is null.
#[allow(clippy::option_option)]
fn field<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint(rest)?;
    if length < 0 {
        return Some(None);
    }
    let (field, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(field))
}

/// Reads a zigzag varint of at most ten bytes from a slice.
fn varint(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Reads a zigzag varint from a stream and keeps its bytes.
fn read_varint(input: &mut impl Read, bytes: &mut Vec<u8>) -> Result<Option<i64>, Malformed> {
    for _ in 0..10 {
        let mut byte = [0];
        input.read_exact(&mut byte).map_err(Malformed::Compression)?;
        bytes.push(byte[0]);
        if byte[0] & 0x80 == 0 {
            return Ok(varint(&mut bytes.as_slice()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use kafka_protocol::records::Compression;

    fn keys(batch: &[u8]) -> Result<Vec<(i64, Option<String>, bool)>, Malformed> {
        let header = BatchHeader::decode(batch)?;
        let mut records = Records::new(header, batch)?;
        let mut seen = Vec::new();
        while let Some(record) = records.next()? {
            let key = record.key.map(|k| String::from_utf8_lossy(k).into_owned());
            seen.push((record.head.offset, key, record.tombstone));
        }
        Ok(seen)
    }

    #[test]
    fn every_compression_walks_alike() {
        let rows = [(Some("a"), Some("1")), (None, Some("2")), (Some("c"), None)];
        let expected = vec![(0, Some("a".into()), false), (1, None, false), (2, Some("c".into()), true)];
        for compression in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            let batch = samples::compressed(compression, &rows);
            assert_eq!(keys(&batch).unwrap(), expected, "{compression:?}");
        }
    }

    #[test]
    fn a_batch_cut_or_flipped_anywhere_is_refused_or_walked_but_never_panics() {
        for compression in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4] {
            let batch = samples::compressed(compression, &[(Some("key"), Some("value")), (Some("k"), None)]);
            for at in 0..batch.len() {
                for bit in 0..8 {
                    let mut bad = batch.to_vec();
                    bad[at] ^= 1 << bit;
                    let _ = keys(&bad);
                }
                let _ = keys(&batch[..at]);
            }
        }
    }
}
