//! What captures count, for metrics.

use crate::telemetry::ClientReport;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one capture; they only grow, but for the queue's two gauges. Shared with whoever shows them.
#[derive(Debug, Default)]
pub struct Statistics {
    records: AtomicU64,
    bytes: AtomicU64,
    transactions: AtomicU64,
    repeated: AtomicU64,
    queued_records: AtomicU64,
    queued_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Data records committed, tombstones included.
    pub records: u64,
    /// Bytes of their keys, values and headers.
    pub bytes: u64,
    /// Kafka transactions committed.
    pub transactions: u64,
    /// Transactions repeated in steps because another writer was in the topic.
    pub repeated: u64,
    /// Records waiting in librdkafka's queue, as of its last report.
    pub queued_records: u64,
    /// Bytes waiting there.
    pub queued_bytes: u64,
    /// Bytes sent to brokers, compressed.
    pub sent_bytes: u64,
}

impl Statistics {
    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            records: self.records.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            transactions: self.transactions.load(Relaxed),
            repeated: self.repeated.load(Relaxed),
            queued_records: self.queued_records.load(Relaxed),
            queued_bytes: self.queued_bytes.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
        }
    }

    pub(crate) fn committed(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.transactions.fetch_add(1, Relaxed);
    }

    pub(crate) fn repeat(&self) {
        self.repeated.fetch_add(1, Relaxed);
    }

    pub(crate) fn client(&self, report: &ClientReport) {
        self.queued_records.store(report.queued_records, Relaxed);
        self.queued_bytes.store(report.queued_bytes, Relaxed);
        self.sent_bytes.store(report.sent_bytes.unsigned_abs(), Relaxed);
    }
}
