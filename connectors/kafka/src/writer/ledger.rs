//! Where the log's partitions end, and what offsets the next records get.
//!
//! The capture is the only writer of its data partitions: a record's offset is the partition's end plus the records before it
//! in the transaction. A committed transaction ends with one marker in each partition that it wrote to, and the marker takes
//! an offset: the next end is the last record's offset plus two.

use crate::replay::Partition;
use std::collections::BTreeMap;

/// The offset that the next record of each partition gets. All partitions of the source that are in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    ends: BTreeMap<Partition, i64>,
}

impl Ledger {
    /// As the broker tells it, with no transaction of ours open.
    pub(crate) fn learn(&mut self, ends: BTreeMap<Partition, i64>) {
        self.ends.extend(ends);
    }

    /// The end of a partition; 0 for one that was never asked for: a topic just made.
    pub(crate) fn end(&self, partition: &Partition) -> i64 {
        self.ends.get(partition).copied().unwrap_or(0)
    }

    /// After a commit: `last` is the last record's offset, the marker follows it.
    pub(crate) fn committed(&mut self, partition: Partition, last: i64) {
        self.ends.insert(partition, last + 2);
    }

    /// After records outside of a transaction: no marker follows `last`.
    pub(crate) fn written(&mut self, partition: Partition, last: i64) {
        self.ends.insert(partition, last + 1);
    }

    /// All partitions with their ends.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Partition, i64)> {
        self.ends.iter().map(|(partition, &end)| (partition, end))
    }
}

/// One partition's part in the running transaction.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) partition: Partition,
    /// The offset that the first record is to get.
    pub(crate) start: i64,
    /// Records sent.
    pub(crate) sent: u64,
    /// Records sent before the boundary, once it is passed.
    pub(crate) before_boundary: u64,
}

impl Slot {
    /// The end by prediction.
    pub(crate) fn end(&self) -> i64 {
        self.start + self.sent as i64
    }
}

/// The partitions of the running transaction, by number.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    pub(crate) list: Vec<Slot>,
    by_partition: BTreeMap<Partition, usize>,
}

impl Slots {
    /// The number of a partition's slot, made at its first record.
    pub(crate) fn of(&mut self, topic: &str, partition: i32, ledger: &Ledger) -> usize {
        let partition = (topic.to_owned(), partition);
        if let Some(&slot) = self.by_partition.get(&partition) {
            return slot;
        }
        let slot = self.list.len();
        self.by_partition.insert(partition.clone(), slot);
        self.list.push(Slot { start: ledger.end(&partition), partition, sent: 0, before_boundary: 0 });
        slot
    }

    /// The slot of a partition, if it takes part.
    pub(crate) fn find(&self, partition: &Partition) -> Option<usize> {
        self.by_partition.get(partition).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_transaction_starts_behind_the_marker_of_the_last() {
        let mut ledger = Ledger::default();
        let partition = ("t".to_owned(), 0);
        ledger.learn(BTreeMap::from([(partition.clone(), 10)]));
        let mut slots = Slots::default();
        let slot = slots.of("t", 0, &ledger);
        slots.list[slot].sent = 3;
        assert_eq!(slots.list[slot].end(), 13);
        ledger.committed(partition.clone(), 12);
        assert_eq!(ledger.end(&partition), 14);
    }
}
