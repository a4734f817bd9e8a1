//! The sparse index of a segment: where batches stand, every 128 KiB, with the greatest timestamp before each.
//!
//! Memory: 24 bytes per 128 KiB stored, about 20 MB per 100 GiB.

const INTERVAL_BYTES: u64 = 128 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    offset: i64,
    position: u64,
    max_timestamp_before: i64,
}

/// Entries in the order of offsets, positions and greatest timestamps.
#[derive(Debug, Default)]
pub(super) struct SparseIndex {
    entries: Vec<Entry>,
    max_timestamp: i64,
}

impl SparseIndex {
    pub(super) fn new() -> SparseIndex {
        SparseIndex { entries: Vec::new(), max_timestamp: -1 }
    }

    /// Notes a batch that was appended to the segment.
    pub(super) fn note(&mut self, offset: i64, position: u64, max_timestamp: i64) {
        let due = self.entries.last().is_none_or(|last| position - last.position >= INTERVAL_BYTES);
        if due {
            self.entries.push(Entry { offset, position, max_timestamp_before: self.max_timestamp });
        }
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
    }

    /// Greatest timestamp of the segment in milliseconds, -1 when it has none.
    pub(super) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// A position at or before the batch that holds the offset.
    pub(super) fn position_before(&self, offset: i64) -> u64 {
        let after = self.entries.partition_point(|e| e.offset <= offset);
        after.checked_sub(1).map_or(0, |i| self.entries[i].position)
    }

    /// A position at or before the first batch with a record at or after the time.
    pub(super) fn position_before_time(&self, ms: i64) -> u64 {
        let after = self.entries.partition_point(|e| e.max_timestamp_before < ms);
        after.checked_sub(1).map_or(0, |i| self.entries[i].position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_at_or_before_what_is_sought() {
        let mut index = SparseIndex::new();
        for i in 0..100 {
            index.note(i * 10, i as u64 * 50_000, i * 1_000);
        }
        for i in 0..100 {
            assert!(index.position_before(i * 10 + 3) <= i as u64 * 50_000);
            assert!(index.position_before(i * 10 + 3) + INTERVAL_BYTES + 50_000 > i as u64 * 50_000);
            assert!(index.position_before_time(i * 1_000) <= i as u64 * 50_000);
        }
        assert_eq!(index.max_timestamp(), 99_000);
    }
}
