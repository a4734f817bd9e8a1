//! Walking the records of a batch without holding more than one of them.
//!
//! A record: length varint, attributes i8, timestamp delta varint, offset delta varint, key length varint (-1 is null), key,
//! value length varint, value, headers. Varints are zigzag.

use super::Malformed;
use super::codec;
use super::header::{BatchHeader, HEADER_BYTES};
use std::io::{self, BufReader, Read, Write};

/// Bytes that are reserved on the word of a length; more are reserved as they come.
const MOSTLY: u64 = 4 << 10;

/// What is known of a record before its value is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHead {
    /// Absolute offset.
    pub(crate) offset: i64,
    /// Milliseconds since the epoch.
    pub(crate) timestamp: i64,
}

/// One record as far as its value, borrowed from the walker.
pub(crate) struct Visit<'a> {
    pub(crate) head: RecordHead,
    pub(crate) key: Option<&'a [u8]>,
    /// Whether the value is null.
    pub(crate) tombstone: bool,
}

/// Walks the records of one batch. A value is read only when it is asked for, so that a batch may unpack to any size.
///
/// Memory: the largest key and the codec's window.
pub(crate) struct Records<'a> {
    header: BatchHeader,
    input: BufReader<Box<dyn Read + 'a>>,
    index: i32,
    /// The bytes of the record that were read: its length, and what it has up to its value.
    front: Vec<u8>,
    /// Bytes of the record that were not read.
    rest: u64,
}

impl<'a> Records<'a> {
    /// Over a whole batch whose header was decoded.
    pub(crate) fn new(header: BatchHeader, batch: &'a [u8]) -> Result<Records<'a>, Malformed> {
        let block = batch.get(HEADER_BYTES..header.length).ok_or(Malformed::Header("cut short"))?;
        let input = BufReader::with_capacity(16 << 10, codec::reader(header.codec(), block)?);
        Ok(Records { header, input, index: -1, front: Vec::new(), rest: 0 })
    }

    /// The next record, `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Visit<'_>>, Malformed> {
        self.copy_rest(&mut io::sink())?;
        self.index += 1;
        if self.index >= self.header.record_count {
            return Ok(None);
        }
        self.front.clear();
        self.rest = u64::MAX;
        let length = self.varint("bad length")?;
        self.rest = u64::try_from(length).map_err(|_| self.wrong("bad length"))?;
        self.take(1)?;
        let timestamp_delta = self.varint("bad timestamp")?;
        let offset_delta = self.varint("bad offset")?;
        let key = self.varint("bad key length")?;
        let key_at = self.front.len();
        if let Ok(length) = u64::try_from(key) {
            self.take(length)?;
        }
        let key_end = self.front.len();
        let value = self.varint("bad value length")?;
        if u64::try_from(value).is_ok_and(|length| length > self.rest) {
            return Err(self.wrong("its fields exceed its length"));
        }
        let timestamp = if self.header.log_append_time() {
            self.header.max_timestamp
        } else {
            self.header.base_timestamp.saturating_add(timestamp_delta)
        };
        let offset = self.header.base_offset.saturating_add(offset_delta);
        Ok(Some(Visit {
            head: RecordHead { offset, timestamp },
            key: (key >= 0).then(|| &self.front[key_at..key_end]),
            tombstone: value < 0,
        }))
    }

    /// Appends the record that [`Records::next`] gave last, as it stands in the unpacked block, with its length.
    pub(crate) fn copy_to(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.extend_from_slice(&self.front);
        self.copy_rest(out)
    }

    fn copy_rest(&mut self, out: &mut impl Write) -> Result<(), Malformed> {
        let rest = std::mem::take(&mut self.rest);
        let copied = io::copy(&mut (&mut self.input).take(rest), out).map_err(Malformed::Compression)?;
        if copied == rest { Ok(()) } else { Err(self.wrong("cut short")) }
    }

    /// Reads bytes of the record to its front.
    fn take(&mut self, bytes: u64) -> Result<(), Malformed> {
        self.rest = self.rest.checked_sub(bytes).ok_or_else(|| self.wrong("its fields exceed its length"))?;
        if bytes <= MOSTLY {
            let have = self.front.len();
            self.front.resize(have + bytes as usize, 0);
            return self.input.read_exact(&mut self.front[have..]).map_err(Malformed::Compression);
        }
        let read =
            (&mut self.input).take(bytes).read_to_end(&mut self.front).map_err(Malformed::Compression)?;
        if read as u64 == bytes { Ok(()) } else { Err(self.wrong("cut short")) }
    }

    /// Reads a zigzag varint of at most ten bytes.
    fn varint(&mut self, what: &'static str) -> Result<i64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            self.take(1)?;
            let byte = self.front[self.front.len() - 1];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(self.wrong(what))
    }

    fn wrong(&self, what: &'static str) -> Malformed {
        Malformed::Record { index: self.index, what }
    }
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
    fn a_record_is_copied_as_it_stands_and_walking_goes_on_behind_it() {
        for compression in [Compression::None, Compression::Zstd] {
            let rows = [(Some("a"), Some("1")), (None, Some("2")), (Some("c"), None)];
            let batch = samples::compressed(compression, &rows);
            let plain = samples::compressed(Compression::None, &rows);
            let header = BatchHeader::decode(&batch).unwrap();
            let mut records = Records::new(header, &batch).unwrap();
            let mut copy = Vec::new();
            while records.next().unwrap().is_some() {
                records.copy_to(&mut copy).unwrap();
            }
            assert_eq!(copy, plain[HEADER_BYTES..], "{compression:?}");
        }
    }

    #[test]
    fn keys_are_read_whatever_the_size_of_the_values() {
        let value = "v".repeat(80 << 20);
        let batch = samples::compressed(Compression::Zstd, &[(Some("a"), Some(&value)), (Some("b"), None)]);
        let header = BatchHeader::decode(&batch).unwrap();
        let mut records = Records::new(header, &batch).unwrap();
        assert_eq!(records.next().unwrap().unwrap().key, Some(&b"a"[..]));
        assert_eq!(records.next().unwrap().unwrap().key, Some(&b"b"[..]));
        assert!(records.front.capacity() < 1 << 10, "a value was read to memory");
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
