//! Record batches of format 2: the bytes that clients send, that segments hold and that fetches return, verbatim.
//!
//! Layout (Kafka's message format, "Record Batch"): base offset i64, length i32, leader epoch i32, magic i8, crc i32
//! (CRC-32C of everything after it), attributes i16, last offset delta i32, base and max timestamp i64, producer id i64,
//! producer epoch i16, base sequence i32, record count i32, then the records, compressed as one block.

mod codec;
mod header;
mod marker;
mod records;

pub(crate) use codec::pack;
pub(crate) use header::{BatchHeader, HEADER_BYTES, patch, seal};
pub(crate) use marker::{marker, marker_commits};
pub(crate) use records::{RecordHead, Records};

#[cfg(test)]
pub(crate) mod samples;

/// A batch that does not hold what its header promises.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// The header itself.
    #[error("batch header: {0}")]
    Header(&'static str),
    /// A record.
    #[error("record {index}: {what}")]
    Record {
        /// Index of the record in the batch.
        index: i32,
        /// What is wrong.
        what: &'static str,
    },
    /// The compressed block.
    #[error("compressed records: {0}")]
    Compression(std::io::Error),
    /// A codec that the format doesn't define.
    #[error("unknown compression {0}")]
    UnknownCodec(u8),
}
