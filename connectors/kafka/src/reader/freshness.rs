//! Up to which moment of its sources a sink is complete.

use caudal_core::LogPosition;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// By source: the time (the source's clock, microseconds since the epoch, UTC) up to which everything is durable in the sink.
/// Freshness is the source's now minus this. A source is missing until its first watermark has been applied.
#[derive(Debug, Default)]
pub struct Freshness {
    sources: Mutex<BTreeMap<String, Applied>>,
}

#[derive(Debug, Default)]
struct Applied {
    ts_us: Option<i64>,
    /// Delivered and not yet durable: (offset after the watermark, its time). Bound: the batches in flight.
    pending: VecDeque<(i64, i64)>,
}

impl Freshness {
    /// The times reached so far.
    #[must_use]
    pub fn watermarks(&self) -> BTreeMap<String, i64> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().filter_map(|(source, applied)| Some((source.clone(), applied.ts_us?))).collect()
    }

    /// A reader starts anew: what was in flight will come again.
    pub(super) fn restart(&self) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.values_mut().for_each(|applied| applied.pending.clear());
    }

    /// A watermark was delivered, with the offset that a durable position has after it.
    pub(super) fn delivered(&self, source: &str, offset: i64, ts_us: i64) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.entry(source.to_owned()).or_default().pending.push_back((offset, ts_us));
    }

    /// What lies below `offset` of a source's watermarks is durable.
    pub(super) fn durable(&self, source: &str, offset: i64) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(applied) = sources.get_mut(source) else { return };
        while let Some(&(at, ts_us)) = applied.pending.front()
            && at <= offset
        {
            applied.ts_us = applied.ts_us.max(Some(ts_us));
            applied.pending.pop_front();
        }
    }
}

/// The offset of one partition in a position.
pub(super) fn offset_of(position: &LogPosition, topic: &str, partition: i32) -> Option<i64> {
    let found = position.offsets.iter().find(|o| o.partition == partition && *o.topic == *topic);
    found.map(|offset| offset.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_counts_when_it_is_durable_and_not_when_it_is_delivered() {
        let freshness = Freshness::default();
        freshness.delivered("s", 5, 100);
        freshness.delivered("s", 7, 200);
        assert!(freshness.watermarks().is_empty());
        freshness.durable("s", 6);
        assert_eq!(freshness.watermarks()["s"], 100);
        freshness.durable("s", 7);
        assert_eq!(freshness.watermarks()["s"], 200);
    }
}
