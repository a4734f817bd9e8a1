//! Appending one batch: judged without the lock, written with it.

use super::LEADER_EPOCH;
use super::partition::{LogState, Partition, PartitionLog};
use super::producers::Sequencing;
use super::segment::Segment;
use super::sync::Durability;
use crate::batch::{BatchHeader, Malformed, Records, marker, patch, seal};
use crate::disk::Disk;
use kafka_protocol::error::ResponseError;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The bytes of a batch that the log itself sets: base offset, length, leader epoch.
const OWN_BYTES: usize = 16;

/// What a topic asks of its batches.
#[derive(Clone, Debug)]
pub(crate) struct TopicRules {
    /// Size in bytes at which a segment is closed.
    pub(crate) segment_bytes: u64,
    /// Largest batch in bytes.
    pub(crate) max_message_bytes: usize,
    /// Whether records without a key are refused.
    pub(crate) compacted: bool,
    /// Whether the log stamps the time.
    pub(crate) log_append_time: bool,
}

/// Why a batch was not appended. Nothing of it is in the log then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("not one whole record batch: {0}")]
    Corrupt(&'static str),
    #[error("message format is older than 2")]
    OldFormat,
    #[error("the batch is larger than max.message.bytes")]
    TooLarge,
    #[error("{0}")]
    Invalid(String),
    #[error("unknown compression")]
    UnknownCompression,
    #[error("a newer epoch of this producer exists")]
    Fenced,
    #[error("sequence number out of order")]
    OutOfOrder,
    #[error("the topic is deleted")]
    Deleted,
    #[error("storage: {0}")]
    Storage(#[from] io::Error),
}

impl AppendError {
    /// The protocol's error for it.
    pub(crate) fn response(&self) -> ResponseError {
        match self {
            AppendError::Corrupt(_) => ResponseError::CorruptMessage,
            AppendError::OldFormat => ResponseError::UnsupportedForMessageFormat,
            AppendError::TooLarge => ResponseError::MessageTooLarge,
            AppendError::Invalid(_) => ResponseError::InvalidRecord,
            AppendError::UnknownCompression => ResponseError::UnsupportedCompressionType,
            AppendError::Fenced => ResponseError::InvalidProducerEpoch,
            AppendError::OutOfOrder => ResponseError::OutOfOrderSequenceNumber,
            AppendError::Deleted => ResponseError::UnknownTopicOrPartition,
            AppendError::Storage(_) => ResponseError::KafkaStorageError,
        }
    }
}

impl From<Malformed> for AppendError {
    fn from(malformed: Malformed) -> AppendError {
        match malformed {
            Malformed::UnknownCodec(_) => AppendError::UnknownCompression,
            other => AppendError::Invalid(other.to_string()),
        }
    }
}

/// A batch that is written, not yet durable.
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    pub(crate) log_start: i64,
    /// Time in milliseconds that the log stamped, -1 when the client's stands.
    pub(crate) append_time: i64,
    pub(crate) durability: Durability,
}

impl Partition {
    /// Appends a client's batch. A batch that the producer sent before is found and answered with its first offsets.
    pub(crate) fn append(
        self: &Arc<Self>,
        bytes: &[u8],
        rules: &TopicRules,
    ) -> Result<Appended, AppendError> {
        let header = judge(bytes, rules)?;
        let now_ms = self.clock.now_ms();
        if rules.log_append_time {
            let (header, stamped) = stamp(&header, bytes, now_ms);
            return self.write(&header, &stamped, rules, now_ms, now_ms);
        }
        self.write(&header, bytes, rules, now_ms, -1)
    }

    /// Appends a marker that ends the producer's transaction, if it has one open that begins before `below`.
    /// Idempotent, so that recovery may repeat it.
    pub(crate) fn end_transaction(
        self: &Arc<Self>,
        producer_id: i64,
        producer_epoch: i16,
        commit: bool,
        below: i64,
        rules: &TopicRules,
    ) -> Result<Option<Durability>, AppendError> {
        let now_ms = self.clock.now_ms();
        let bytes = marker(producer_id, producer_epoch, commit, now_ms);
        let header = BatchHeader::decode(&bytes)?;
        let mut log = self.log();
        if log.state == LogState::Deleted {
            return Ok(None);
        }
        log.make_ready(&self.disk, &self.dir, now_ms)?;
        let open_from = log.producers.get(producer_id).and_then(|p| p.open_from);
        if open_from.is_none_or(|first| first >= below) {
            return Ok(None);
        }
        let written = log.write(&self.disk, &self.dir, &header, &bytes, rules, now_ms)?;
        log.note_marker(&written, commit, now_ms);
        let durability = self.durability(&log, log.end);
        self.request_sync(&mut log);
        Ok(Some(durability))
    }

    fn write(
        self: &Arc<Self>,
        header: &BatchHeader,
        bytes: &[u8],
        rules: &TopicRules,
        now_ms: i64,
        append_time: i64,
    ) -> Result<Appended, AppendError> {
        let mut log = self.log();
        // First of all: what a failed fsync took back is no duplicate.
        log.make_ready(&self.disk, &self.dir, now_ms)?;
        if let Sequencing::Duplicate { base_offset, end_offset } = log.producers.judge(header)? {
            let durability = self.durability(&log, end_offset);
            return Ok(Appended { base_offset, log_start: log.start, append_time: -1, durability });
        }
        let written = log.write(&self.disk, &self.dir, header, bytes, rules, now_ms)?;
        log.note_batch(&written, now_ms);
        let durability = self.durability(&log, log.end);
        self.request_sync(&mut log);
        Ok(Appended { base_offset: written.base_offset, log_start: log.start, append_time, durability })
    }
}

impl PartitionLog {
    /// Writes a batch at the end; returns its header with the offset that it got.
    fn write(
        &mut self,
        disk: &Disk,
        dir: &Path,
        header: &BatchHeader,
        bytes: &[u8],
        rules: &TopicRules,
        now_ms: i64,
    ) -> Result<BatchHeader, AppendError> {
        let active = self.active();
        if active.size > 0 && active.size + bytes.len() as u64 > rules.segment_bytes {
            self.roll(disk, dir)?;
        }
        let placed = BatchHeader { base_offset: self.end, ..*header };
        let mut own = [0; OWN_BYTES];
        own.copy_from_slice(&bytes[..OWN_BYTES]);
        patch::base_offset(&mut own, placed.base_offset);
        patch::leader_epoch(&mut own, LEADER_EPOCH);
        let active = self.active();
        if let Err(e) = active.file.append_two(&own, &bytes[OWN_BYTES..]) {
            self.state = LogState::TornTail;
            let _ = self.cut_torn_tail();
            return Err(e.into());
        }
        active.note(&placed, now_ms);
        let file = active.file.clone();
        if !self.dirty.last().is_some_and(|last| Arc::ptr_eq(last, &file)) {
            self.dirty.push(file);
        }
        self.end = placed.last_offset() + 1;
        Ok(placed)
    }

    fn make_ready(&mut self, disk: &Disk, dir: &Path, now_ms: i64) -> Result<(), AppendError> {
        match self.state {
            LogState::Ready => Ok(()),
            LogState::TornTail => Ok(self.cut_torn_tail()?),
            LogState::Uncertain => Ok(self.cut_back(disk, dir, now_ms)?),
            LogState::Deleted => Err(AppendError::Deleted),
        }
    }

    fn cut_torn_tail(&mut self) -> io::Result<()> {
        let active = self.active();
        active.file.cut(active.size)?;
        self.state = LogState::Ready;
        Ok(())
    }

    /// Begins a new segment at the end.
    pub(super) fn roll(&mut self, disk: &Disk, dir: &Path) -> io::Result<()> {
        let segment = Segment::create(disk, dir, self.end)?;
        self.segments.push(segment);
        Ok(())
    }

    /// Notes a data batch that is in the log.
    pub(super) fn note_batch(&mut self, batch: &BatchHeader, now_ms: i64) {
        if batch.producer_id < 0 {
            return;
        }
        let was_open = self.producers.get(batch.producer_id).is_some_and(|p| p.open_from.is_some());
        self.producers.note_batch(batch, now_ms);
        if batch.transactional() && !was_open {
            self.transactions.begin(batch.producer_id, batch.base_offset);
        }
    }

    /// Notes a marker that is in the log.
    pub(super) fn note_marker(&mut self, marker: &BatchHeader, commit: bool, now_ms: i64) {
        if let Some(first) = self.producers.note_marker(marker, now_ms) {
            self.transactions.end(first, marker.base_offset, commit);
        }
    }
}

/// Decides whether the bytes are one batch that the topic accepts.
fn judge(bytes: &[u8], rules: &TopicRules) -> Result<BatchHeader, AppendError> {
    if bytes.get(16).is_some_and(|magic| *magic < 2) {
        return Err(AppendError::OldFormat);
    }
    let header = BatchHeader::decode(bytes).map_err(|_| AppendError::Corrupt("bad header"))?;
    if header.length > rules.max_message_bytes {
        return Err(AppendError::TooLarge);
    }
    if header.length < bytes.len() {
        return Err(AppendError::Invalid("more than one batch for a partition".into()));
    }
    if header.length > bytes.len() {
        return Err(AppendError::Corrupt("cut short"));
    }
    if !header.intact(bytes) {
        return Err(AppendError::Corrupt("wrong CRC"));
    }
    if header.control() || header.record_count == 0 || header.last_offset_delta + 1 != header.record_count {
        return Err(AppendError::Invalid("control batch, or count and offsets disagree".into()));
    }
    if header.codec() > 4 {
        return Err(AppendError::UnknownCompression);
    }
    if header.producer_id >= 0 && header.producer_epoch < 0 {
        return Err(AppendError::Invalid("producer without epoch".into()));
    }
    if rules.compacted {
        require_keys(&header, bytes)?;
    }
    Ok(header)
}

fn require_keys(header: &BatchHeader, bytes: &[u8]) -> Result<(), AppendError> {
    let mut records = Records::new(*header, bytes)?;
    while let Some(record) = records.next()? {
        if record.key.is_none() {
            return Err(AppendError::Invalid("a compacted topic takes no record without a key".into()));
        }
    }
    Ok(())
}

fn stamp(header: &BatchHeader, bytes: &[u8], now_ms: i64) -> (BatchHeader, Vec<u8>) {
    let mut stamped = bytes.to_vec();
    patch::attributes(&mut stamped, header.stamped_attributes());
    patch::max_timestamp(&mut stamped, now_ms);
    seal(&mut stamped);
    let header = BatchHeader { max_timestamp: now_ms, attributes: header.stamped_attributes(), ..*header };
    (header, stamped)
}
