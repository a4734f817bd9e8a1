//! Up to which moment of its sources a sink is complete.

use crate::group::Partition;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// By source: the time (the source's clock, microseconds since the epoch, UTC) up to which everything is durable in the sink.
/// Freshness is the source's now minus this. A source is missing until its first watermark has been applied.
#[derive(Debug, Default)]
pub struct Freshness {
    sources: Mutex<BTreeMap<String, Applied>>,
}

/// Offsets that must be durable.
pub(super) type Needs = Vec<(Partition, i64)>;

#[derive(Debug, Default)]
struct Applied {
    ts_us: Option<i64>,
    /// Delivered and not yet durable, with the time. Bound: the batches in flight.
    pending: VecDeque<(Needs, i64)>,
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

    /// Whether a source has a watermark in flight.
    pub(super) fn in_flight(&self, source: &str) -> bool {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.get(source).is_some_and(|applied| !applied.pending.is_empty())
    }

    /// A watermark was delivered: it is reached when all it needs is durable.
    pub(super) fn delivered(&self, source: &str, needs: Needs, ts_us: i64) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.entry(source.to_owned()).or_default().pending.push_back((needs, ts_us));
    }

    /// What is durable now.
    pub(super) fn durable(&self, offsets: &BTreeMap<Partition, i64>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        for applied in sources.values_mut() {
            while let Some((needs, ts_us)) = applied.pending.front()
                && needs.iter().all(|(partition, needed)| offsets.get(partition) >= Some(needed))
            {
                applied.ts_us = applied.ts_us.max(Some(*ts_us));
                applied.pending.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_counts_when_it_is_durable_and_not_when_it_is_delivered() {
        let freshness = Freshness::default();
        let at = |offset| vec![(("w".to_owned(), 0), offset)];
        freshness.delivered("s", at(5), 100);
        freshness.delivered("s", at(7), 200);
        assert!(freshness.watermarks().is_empty());
        freshness.durable(&at(6).into_iter().collect());
        assert_eq!(freshness.watermarks()["s"], 100);
        freshness.durable(&at(7).into_iter().collect());
        assert_eq!(freshness.watermarks()["s"], 200);
    }
}
