//! Which transactions are open in a partition, and which were aborted: what the last stable offset and read-committed
//! fetches are made of.
//!
//! A transaction stays open for readers until its marker is durable, so that the last stable offset never passes bytes that
//! power can take back.
//! Memory: 40 bytes per transaction that is open or whose aborted records are still stored.

use std::collections::BTreeMap;

/// A transaction whose records must be skipped by read-committed readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    /// Offset of its first record in the partition.
    pub(crate) first_offset: i64,
    /// Offset of its marker.
    pub(crate) marker_offset: i64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    producer_id: i64,
    marker_offset: Option<i64>,
}

#[derive(Default)]
pub(super) struct Transactions {
    by_first_offset: BTreeMap<i64, Open>,
    /// Ordered by marker offset.
    aborted: Vec<Aborted>,
}

impl Transactions {
    /// A producer's first record in a transaction stands at the offset.
    pub(super) fn begin(&mut self, producer_id: i64, first_offset: i64) {
        self.by_first_offset.insert(first_offset, Open { producer_id, marker_offset: None });
    }

    /// The marker that ends the transaction stands at the offset; it may not be durable yet.
    pub(super) fn end(&mut self, first_offset: i64, marker_offset: i64, commit: bool) {
        let Some(open) = self.by_first_offset.get_mut(&first_offset) else {
            return;
        };
        open.marker_offset = Some(marker_offset);
        if !commit {
            self.aborted.push(Aborted { producer_id: open.producer_id, first_offset, marker_offset });
        }
    }

    /// Everything below the offset is durable: markers there count from now on.
    pub(super) fn durable_to(&mut self, high: i64) {
        self.by_first_offset.retain(|_, open| open.marker_offset.is_none_or(|at| at >= high));
    }

    /// First offset that is not decided, never beyond `high`.
    pub(super) fn stable_offset(&self, high: i64) -> i64 {
        self.by_first_offset.keys().next().map_or(high, |first| high.min(*first))
    }

    /// Producers and first offsets of transactions without a marker.
    pub(super) fn undecided(&self) -> impl Iterator<Item = (i64, i64)> {
        self.by_first_offset
            .iter()
            .filter(|(_, open)| open.marker_offset.is_none())
            .map(|(first, open)| (open.producer_id, *first))
    }

    /// Aborted transactions with records between two offsets (end exclusive).
    pub(super) fn aborted_between(&self, from: i64, end: i64) -> Vec<Aborted> {
        let after = self.aborted.partition_point(|a| a.marker_offset < from);
        self.aborted[after..].iter().filter(|a| a.first_offset < end).copied().collect()
    }

    /// Forgets aborted transactions whose records are all gone.
    pub(super) fn forget_below(&mut self, offset: i64) {
        self.aborted.retain(|a| a.marker_offset >= offset);
    }

    pub(super) fn all_aborted(&self) -> &[Aborted] {
        &self.aborted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stable_offset_passes_a_transaction_only_when_its_marker_is_durable() {
        let mut transactions = Transactions::default();
        transactions.begin(1, 10);
        assert_eq!(transactions.stable_offset(15), 10);
        transactions.end(10, 15, true);
        transactions.durable_to(15);
        assert_eq!(transactions.stable_offset(15), 10, "the marker at 15 is not below 15");
        transactions.durable_to(16);
        assert_eq!(transactions.stable_offset(16), 16);
    }

    #[test]
    fn aborted_transactions_are_found_by_overlap() {
        let mut transactions = Transactions::default();
        for (first, marker) in [(0, 5), (2, 9), (10, 12)] {
            transactions.begin(first, first);
            transactions.end(first, marker, false);
        }
        let firsts = |from, end| -> Vec<i64> {
            transactions.aborted_between(from, end).iter().map(|a| a.first_offset).collect()
        };
        assert_eq!(firsts(0, 1), [0]);
        assert_eq!(firsts(6, 11), [2, 10]);
    }
}
