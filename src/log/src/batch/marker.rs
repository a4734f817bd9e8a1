//! Transaction markers: control batches of one record that say how a producer's transaction in the partition ended.
//!
//! The record's key is (version i16, type i16), type 0 for abort and 1 for commit; its value (version i16, coordinator epoch i32).

use super::header::{BatchHeader, HEADER_BYTES, seal};
use super::{Malformed, Records};

const TRANSACTIONAL_CONTROL: i16 = 0x30;
const MAGIC: u8 = 2;

/// A marker for the end of a producer's transaction; its base offset is 0 until it is appended.
pub(crate) fn marker(producer_id: i64, producer_epoch: i16, commit: bool, now_ms: i64) -> Vec<u8> {
    let mut batch = Vec::with_capacity(HEADER_BYTES + 17);
    batch.extend_from_slice(&[0; 16]);
    batch.push(MAGIC);
    batch.extend_from_slice(&[0; 4]);
    batch.extend_from_slice(&TRANSACTIONAL_CONTROL.to_be_bytes());
    batch.extend_from_slice(&0i32.to_be_bytes());
    batch.extend_from_slice(&now_ms.to_be_bytes());
    batch.extend_from_slice(&now_ms.to_be_bytes());
    batch.extend_from_slice(&producer_id.to_be_bytes());
    batch.extend_from_slice(&producer_epoch.to_be_bytes());
    batch.extend_from_slice(&(-1i32).to_be_bytes());
    batch.extend_from_slice(&1i32.to_be_bytes());
    // Zigzag lengths: record 16, key 4, value 6.
    batch.extend_from_slice(&[32, 0, 0, 0, 8, 0, 0, 0, u8::from(commit), 12, 0, 0, 0, 0, 0, 0, 0]);
    seal(&mut batch);
    batch
}

/// Whether a control batch is a commit (`Some(true)`), an abort (`Some(false)`) or another control record (`None`).
pub(crate) fn marker_commits(header: &BatchHeader, batch: &[u8]) -> Result<Option<bool>, Malformed> {
    let mut records = Records::new(*header, batch)?;
    let Some(record) = records.next()? else {
        return Ok(None);
    };
    Ok(match record.key {
        Some([_, _, 0, 0]) => Some(false),
        Some([_, _, 0, 1]) => Some(true),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::records::RecordBatchDecoder;

    #[test]
    fn a_marker_reads_back_and_another_decoder_agrees() {
        for commit in [true, false] {
            let batch = marker(42, 3, commit, 1_700_000_000_000);
            let header = BatchHeader::decode(&batch).unwrap();
            assert!(header.intact(&batch) && header.control() && header.transactional());
            assert_eq!(marker_commits(&header, &batch).unwrap(), Some(commit));
            let decoded = RecordBatchDecoder::decode(&mut Bytes::from(batch)).unwrap();
            assert!(decoded.records[0].control);
            assert_eq!(decoded.records[0].key.as_deref(), Some(&[0, 0, 0, u8::from(commit)][..]));
        }
    }
}
