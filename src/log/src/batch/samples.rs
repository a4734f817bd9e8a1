//! Batches for tests, made by the client's encoder.

use super::{BatchHeader, patch, seal};
use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

/// Who a batch says it is from.
#[derive(Clone, Copy)]
pub(crate) struct From {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) transactional: bool,
    pub(crate) timestamp: i64,
}

/// Nobody in particular.
pub(crate) const ANYONE: From =
    From { producer_id: -1, epoch: -1, sequence: -1, transactional: false, timestamp: 1_000 };

/// An uncompressed batch of (key, value).
pub(crate) fn plain(rows: &[(Option<&str>, Option<&str>)]) -> Bytes {
    encode(ANYONE, Compression::None, rows)
}

/// A compressed batch of (key, value).
pub(crate) fn compressed(compression: Compression, rows: &[(Option<&str>, Option<&str>)]) -> Bytes {
    encode(ANYONE, compression, rows)
}

/// A batch of an idempotent producer.
pub(crate) fn of_producer(producer_id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    encode(From { producer_id, epoch, sequence, ..ANYONE }, Compression::None, &keyed(values))
}

/// A batch inside of a transaction.
pub(crate) fn in_transaction(producer_id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let from = From { producer_id, epoch, sequence, transactional: true, ..ANYONE };
    encode(from, Compression::None, &keyed(values))
}

fn keyed<'a>(values: &[&'a str]) -> Vec<(Option<&'a str>, Option<&'a str>)> {
    values.iter().map(|v| (Some(*v), Some(*v))).collect()
}

/// A batch of (key, value) as a client would send it.
pub(crate) fn encode(from: From, compression: Compression, rows: &[(Option<&str>, Option<&str>)]) -> Bytes {
    let records: Vec<Record> = rows
        .iter()
        .enumerate()
        .map(|(i, (key, value))| Record {
            transactional: from.transactional,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: from.producer_id,
            producer_epoch: from.epoch,
            timestamp_type: TimestampType::Creation,
            offset: i as i64,
            sequence: from.sequence.wrapping_add(i as i32),
            timestamp: from.timestamp,
            key: key.map(|k| Bytes::copy_from_slice(k.as_bytes())),
            value: value.map(|v| Bytes::copy_from_slice(v.as_bytes())),
            headers: Default::default(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("a sample encodes");
    let header = BatchHeader::decode(&bytes).expect("a sample is one batch");
    assert_eq!((header.length, header.record_count), (bytes.len(), rows.len() as i32));
    patch::base_offset(&mut bytes, 0);
    seal(&mut bytes);
    bytes.freeze()
}
