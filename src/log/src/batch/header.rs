//! The 61 bytes before the records.

use super::Malformed;

/// Length in bytes of a batch header.
pub(crate) const HEADER_BYTES: usize = 61;
/// Bytes before those that the batch's own length counts (base offset and length).
const PREFIX_BYTES: usize = 12;
/// Where the CRC stands, and where what it covers begins.
const CRC_AT: usize = 17;
const COVERED_FROM: usize = 21;

const CODEC: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// A decoded batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Offset of the first record (before compaction removed any).
    pub(crate) base_offset: i64,
    /// Length in bytes of the whole batch, with header.
    pub(crate) length: usize,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    /// Milliseconds since the epoch.
    pub(crate) base_timestamp: i64,
    /// Milliseconds since the epoch.
    pub(crate) max_timestamp: i64,
    /// -1: not of an idempotent producer.
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    /// -1: no sequence.
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
}

impl BatchHeader {
    /// Decodes the header at the start of the bytes; the batch's body need not be there.
    pub(crate) fn decode(bytes: &[u8]) -> Result<BatchHeader, Malformed> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(Malformed::Header("shorter than 61 bytes"));
        };
        if head[16] != 2 {
            return Err(Malformed::Header("message format is not 2"));
        }
        let length = i32_at(head, 8);
        if length < (HEADER_BYTES - PREFIX_BYTES) as i32 {
            return Err(Malformed::Header("length is too small"));
        }
        let header = BatchHeader {
            base_offset: i64_at(head, 0),
            length: length as usize + PREFIX_BYTES,
            crc: i32_at(head, CRC_AT) as u32,
            attributes: i16_at(head, 21),
            last_offset_delta: i32_at(head, 23),
            base_timestamp: i64_at(head, 27),
            max_timestamp: i64_at(head, 35),
            producer_id: i64_at(head, 43),
            producer_epoch: i16_at(head, 51),
            base_sequence: i32_at(head, 53),
            record_count: i32_at(head, 57),
        };
        if header.last_offset_delta < 0 || header.record_count < 0 {
            return Err(Malformed::Header("negative count"));
        }
        Ok(header)
    }

    /// Offset of the last record that the batch was written with.
    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Sequence of the last record; sequences wrap to 0 after `i32::MAX`.
    pub(crate) fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }

    /// Whether the batch belongs to a transaction.
    pub(crate) fn transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction marker.
    pub(crate) fn control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Number of the compression codec, 0 for none.
    pub(crate) fn codec(&self) -> u8 {
        (self.attributes & CODEC) as u8
    }

    /// Attributes of the same batch outside of any transaction.
    pub(crate) fn settled_attributes(&self) -> i16 {
        self.attributes & !TRANSACTIONAL
    }

    /// Attributes that say that the broker stamped the time.
    pub(crate) fn stamped_attributes(&self) -> i16 {
        self.attributes | LOG_APPEND_TIME
    }

    /// Whether `max_timestamp` is the time of all records.
    pub(crate) fn log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Whether the CRC of a whole batch is right.
    pub(crate) fn intact(&self, batch: &[u8]) -> bool {
        batch.len() == self.length && crc32c::crc32c(&batch[COVERED_FROM..]) == self.crc
    }
}

/// A field of the header that is rewritten in place.
pub(crate) mod patch {
    /// Sets the base offset; outside of the CRC.
    pub(crate) fn base_offset(batch: &mut [u8], offset: i64) {
        batch[..8].copy_from_slice(&offset.to_be_bytes());
    }
    /// Sets the leader epoch; outside of the CRC.
    pub(crate) fn leader_epoch(batch: &mut [u8], epoch: i32) {
        batch[12..16].copy_from_slice(&epoch.to_be_bytes());
    }
    /// Sets the attributes; call [`super::seal`] afterwards.
    pub(crate) fn attributes(batch: &mut [u8], attributes: i16) {
        batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    }
    /// Sets the greatest timestamp; call [`super::seal`] afterwards.
    pub(crate) fn max_timestamp(batch: &mut [u8], ms: i64) {
        batch[35..43].copy_from_slice(&ms.to_be_bytes());
    }
    /// Sets the number of records; call [`super::seal`] afterwards.
    pub(crate) fn record_count(batch: &mut [u8], count: i32) {
        batch[57..61].copy_from_slice(&count.to_be_bytes());
    }
}

/// Writes length and CRC of a batch whose other bytes are final.
pub(crate) fn seal(batch: &mut [u8]) {
    let length = (batch.len() - PREFIX_BYTES) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[COVERED_FROM..]);
    batch[CRC_AT..COVERED_FROM].copy_from_slice(&crc.to_be_bytes());
}

fn i16_at(head: &[u8; HEADER_BYTES], at: usize) -> i16 {
    i16::from_be_bytes([head[at], head[at + 1]])
}

fn i32_at(head: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn i64_at(head: &[u8; HEADER_BYTES], at: usize) -> i64 {
    (i64::from(i32_at(head, at)) << 32) | i64::from(i32_at(head, at + 4) as u32)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_sealed_batch_decodes_and_any_flipped_bit_is_found() {
        let batch = samples::plain(&[(Some("k"), Some("v")), (None, Some("w"))]);
        let header = BatchHeader::decode(&batch).unwrap();
        assert_eq!((header.record_count, header.last_offset_delta, header.length), (2, 1, batch.len()));
        assert!(header.intact(&batch));
        for at in COVERED_FROM..batch.len() {
            let mut bad = batch.to_vec();
            bad[at] ^= 1;
            assert!(!header.intact(&bad), "flip at {at}");
        }
    }

    #[test]
    fn short_old_and_negative_headers_are_refused() {
        let batch = samples::plain(&[(None, Some("v"))]);
        assert!(BatchHeader::decode(&batch[..60]).is_err());
        let mut old = batch.to_vec();
        old[16] = 1;
        assert!(BatchHeader::decode(&old).is_err());
        let mut negative = batch.to_vec();
        negative[57] = 0x80;
        assert!(BatchHeader::decode(&negative).is_err());
    }

    #[test]
    fn sequences_wrap_after_the_largest() {
        let batch = samples::of_producer(7, 0, i32::MAX, &["a", "b"]);
        assert_eq!(BatchHeader::decode(&batch).unwrap().last_sequence(), 0);
    }
}
