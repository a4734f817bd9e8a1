//! What a partition knows of idempotent producers: epoch, the last five batches, an open transaction.
//!
//! Memory: about 300 bytes per producer; one that wrote nothing for a day is forgotten, and of more than 10,000 the one that
//! was silent longest (a forgotten producer may go on with any sequence).

use super::append::AppendError;
use crate::batch::BatchHeader;
use std::collections::{HashMap, VecDeque};

const REMEMBERED_BATCHES: usize = 5;
const MAX_PRODUCERS: usize = 10_000;
const EXPIRY_MS: i64 = 24 * 3_600_000;

#[derive(Clone, Debug)]
struct RecentBatch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    end_offset: i64,
}

/// One producer as the partition knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Producer {
    pub(super) epoch: i16,
    recent: VecDeque<RecentBatch>,
    pub(super) last_ms: i64,
    /// First offset of the transaction that it has open here.
    pub(super) open_from: Option<i64>,
}

impl Producer {
    /// Sequence of its last record, -1 when unknown.
    pub(super) fn last_sequence(&self) -> i32 {
        self.recent.back().map_or(-1, |b| b.last_sequence)
    }
}

/// What a batch is to the partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sequencing {
    /// Not seen before.
    New,
    /// Appended already, between these offsets (end exclusive).
    Duplicate { base_offset: i64, end_offset: i64 },
}

/// All producers of a partition.
#[derive(Default)]
pub(super) struct Producers {
    known: HashMap<i64, Producer>,
}

impl Producers {
    /// Judges a batch by its producer's epoch and sequence.
    pub(super) fn judge(&self, batch: &BatchHeader) -> Result<Sequencing, AppendError> {
        let Some(producer) = self.known.get(&batch.producer_id).filter(|_| batch.producer_id >= 0) else {
            return Ok(Sequencing::New);
        };
        if batch.producer_epoch < producer.epoch {
            return Err(AppendError::Fenced);
        }
        if batch.base_sequence < 0 {
            return Ok(Sequencing::New);
        }
        if batch.producer_epoch > producer.epoch {
            return if batch.base_sequence == 0 { Ok(Sequencing::New) } else { Err(AppendError::OutOfOrder) };
        }
        let same = |b: &&RecentBatch| {
            b.first_sequence == batch.base_sequence && b.last_sequence == batch.last_sequence()
        };
        if let Some(seen) = producer.recent.iter().find(same) {
            return Ok(Sequencing::Duplicate { base_offset: seen.base_offset, end_offset: seen.end_offset });
        }
        match producer.recent.back() {
            Some(last) if batch.base_sequence != following(last.last_sequence) => {
                Err(AppendError::OutOfOrder)
            }
            _ => Ok(Sequencing::New),
        }
    }

    /// Notes a data batch that was appended.
    pub(super) fn note_batch(&mut self, batch: &BatchHeader, now_ms: i64) {
        let producer = self.of_epoch(batch, now_ms);
        if batch.base_sequence >= 0 {
            producer.recent.push_back(RecentBatch {
                first_sequence: batch.base_sequence,
                last_sequence: batch.last_sequence(),
                base_offset: batch.base_offset,
                end_offset: batch.last_offset() + 1,
            });
            if producer.recent.len() > REMEMBERED_BATCHES {
                producer.recent.pop_front();
            }
        }
        if batch.transactional() && producer.open_from.is_none() {
            producer.open_from = Some(batch.base_offset);
        }
        self.bound();
    }

    /// Notes a marker that was appended; returns the first offset of the transaction that it ended.
    pub(super) fn note_marker(&mut self, marker: &BatchHeader, now_ms: i64) -> Option<i64> {
        self.of_epoch(marker, now_ms).open_from.take()
    }

    fn of_epoch(&mut self, batch: &BatchHeader, now_ms: i64) -> &mut Producer {
        let producer = self
            .known
            .entry(batch.producer_id)
            .or_insert_with(|| Producer { epoch: batch.producer_epoch, ..Producer::default() });
        if batch.producer_epoch > producer.epoch {
            producer.epoch = batch.producer_epoch;
            producer.recent.clear();
        }
        producer.last_ms = producer.last_ms.max(now_ms);
        producer
    }

    fn bound(&mut self) {
        if self.known.len() <= MAX_PRODUCERS {
            return;
        }
        let idle = self.known.iter().filter(|(_, p)| p.open_from.is_none());
        if let Some(id) = idle.min_by_key(|(_, p)| p.last_ms).map(|(id, _)| *id) {
            self.known.remove(&id);
        }
    }

    /// Forgets who wrote nothing for a day and has no transaction open.
    pub(super) fn expire(&mut self, now_ms: i64) {
        self.known.retain(|_, p| p.open_from.is_some() || p.last_ms + EXPIRY_MS > now_ms);
    }

    pub(super) fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.known.get(&producer_id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.known.iter().map(|(id, p)| (*id, p))
    }
}

fn following(sequence: i32) -> i32 {
    if sequence == i32::MAX { 0 } else { sequence + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{marker, samples};

    fn header(bytes: &[u8]) -> BatchHeader {
        BatchHeader::decode(bytes).unwrap()
    }

    fn batch(epoch: i16, sequence: i32, count: usize) -> BatchHeader {
        header(&samples::of_producer(7, epoch, sequence, &vec!["v"; count]))
    }

    #[test]
    fn a_repeated_batch_is_a_duplicate_and_a_gap_is_refused() {
        let mut producers = Producers::default();
        producers.note_batch(&batch(0, 0, 3), 1);
        assert_eq!(
            producers.judge(&batch(0, 0, 3)).unwrap(),
            Sequencing::Duplicate { base_offset: 0, end_offset: 3 }
        );
        assert_eq!(producers.judge(&batch(0, 3, 1)).unwrap(), Sequencing::New);
        assert!(matches!(producers.judge(&batch(0, 4, 1)), Err(AppendError::OutOfOrder)));
    }

    #[test]
    fn sequences_go_on_at_zero_after_the_largest() {
        let mut producers = Producers::default();
        producers.note_batch(&batch(0, i32::MAX, 1), 1);
        assert_eq!(producers.judge(&batch(0, 0, 1)).unwrap(), Sequencing::New);
    }

    #[test]
    fn a_marker_of_a_newer_epoch_fences_the_older() {
        let mut producers = Producers::default();
        producers.note_batch(&header(&samples::in_transaction(7, 3, 0, &["a"])), 1);
        assert_eq!(producers.note_marker(&header(&marker(7, 4, false, 0)), 2), Some(0));
        assert!(matches!(producers.judge(&batch(3, 1, 1)), Err(AppendError::Fenced)));
        assert!(matches!(producers.judge(&batch(5, 9, 1)), Err(AppendError::OutOfOrder)));
        assert_eq!(producers.judge(&batch(5, 0, 1)).unwrap(), Sequencing::New);
    }

    #[test]
    fn silent_producers_are_forgotten_but_not_those_with_an_open_transaction() {
        let mut producers = Producers::default();
        producers.note_batch(&batch(0, 0, 1), 0);
        producers.note_batch(&header(&samples::in_transaction(8, 0, 0, &["a"])), 0);
        producers.expire(EXPIRY_MS + 1);
        assert!(producers.get(7).is_none() && producers.get(8).is_some());
    }

    #[test]
    fn the_number_of_producers_is_bounded() {
        let mut producers = Producers::default();
        for id in 0..MAX_PRODUCERS as i64 + 50 {
            producers.note_batch(&BatchHeader { producer_id: id, ..batch(0, 0, 1) }, id);
        }
        assert_eq!(producers.known.len(), MAX_PRODUCERS);
        assert!(producers.get(3).is_none());
    }
}
