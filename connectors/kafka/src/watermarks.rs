//! Watermark records, followed in order: what must be read for the next state that a sink may show.
//!
//! A watermark lists the ends of the partitions touched since the one before it; only a *full* one lists all. So a chain of
//! records means something only without a gap, and a reader that knows nothing starts with a full one.

use caudal_core::{Error, Incomplete, Result};
use caudal_proto::side::{VERSION, WatermarkRecord};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How far to read one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// All records below belong to the watermark, none at or above.
    pub(crate) offset: i64,
    /// The topic's id; nil where unknown.
    pub(crate) topic_id: Uuid,
}

/// One or more watermarks that follow each other, taken as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// By topic and partition.
    pub(crate) ends: BTreeMap<(String, i32), End>,
    /// The source's position there.
    pub(crate) position: String,
    /// Source commit time, microseconds since the epoch, UTC.
    pub(crate) ts_us: i64,
    /// The offset after its record in the watermarks partition.
    pub(crate) next: i64,
    /// When its record was written, by the log's clock: milliseconds since the epoch.
    pub(crate) logged_ms: i64,
    /// Tables of which this says nothing.
    pub(crate) incomplete: Incomplete,
}

/// The order of one source's watermarks.
#[derive(Debug)]
pub(crate) struct Chain {
    source: String,
    /// The last number accepted.
    last: Option<u64>,
    /// Whether what lies below the next record is known: a stored position, or a full watermark.
    based: bool,
    /// Whether only states of the source are wanted: those of records written at least once are passed over.
    states: bool,
}

impl Chain {
    /// Of a source; `resumed` if a sink has a stored position in it, else it waits for a full watermark.
    pub(crate) fn new(source: impl Into<String>, resumed: bool) -> Self {
        Self { source: source.into(), last: None, based: resumed, states: false }
    }

    /// The same for a reader that shows states of the source: watermarks that are none count for nothing, and behind them it waits
    /// for a full one.
    pub(crate) fn of_states(self) -> Self {
        Self { states: true, ..self }
    }

    /// Takes the next record of the source's partition. None: it says nothing yet (a part, and no full one before it).
    ///
    /// # Errors
    /// Fault `Data` for a damaged record or a gap: what lies in a gap would be missing from the sink in silence.
    pub(crate) fn take(
        &mut self,
        value: Option<&[u8]>,
        (offset, logged_ms): (i64, i64),
    ) -> Result<Option<Watermark>> {
        let context = || format!("read the watermark of {} at offset {offset}", self.source);
        let value = value.ok_or_else(|| Error::data(context()).hint("a tombstone is no watermark"))?;
        let record: WatermarkRecord =
            serde_json::from_slice(value).map_err(|e| Error::data(context()).because(e))?;
        if record.v > VERSION {
            let hint = "a newer release wrote it: upgrade this instance";
            return Err(Error::config(format!("{}: format {}", context(), record.v)).hint(hint));
        }
        if record.source != self.source {
            return Err(Error::data(format!("{}: it is of source {}", context(), record.source))
                .hint("two sources share a partition of the watermarks topic; rename one of them"));
        }
        self.check_order(&record, offset)?;
        if self.states && record.at_least_once {
            if self.based || self.last.is_none() {
                tracing::warn!(
                    source = self.source,
                    "the source is captured with `delivery: at_least_once`, and a sink with `consistency: transaction` waits until it is \
                     captured exactly once again; take `consistency: key`"
                );
            }
            (self.last, self.based) = (Some(record.number), false);
            return Ok(None);
        }
        self.last = Some(record.number);
        self.based |= record.full;
        Ok(self.based.then(|| watermark(record, offset, logged_ms)))
    }

    fn check_order(&self, record: &WatermarkRecord, offset: i64) -> Result<()> {
        match self.last {
            Some(last) if !record.full && record.number != last + 1 => Err(Error::data(format!(
                "watermarks of {}: number {} follows {last} at offset {offset}",
                self.source, record.number
            ))
            .hint("records were deleted from the watermarks topic; rebuild the sink's tables")),
            _ => Ok(()),
        }
    }
}

fn watermark(record: WatermarkRecord, offset: i64, logged_ms: i64) -> Watermark {
    let mut ends = BTreeMap::new();
    for (topic, topic_ends) in record.ends {
        for (partition, end) in topic_ends.ends {
            ends.insert((topic.clone(), partition), End { offset: end, topic_id: topic_ends.id });
        }
    }
    let WatermarkRecord { position, ts_us, incomplete, .. } = record;
    Watermark { ends, position, ts_us, next: offset + 1, logged_ms, incomplete }
}

impl Watermark {
    /// Takes the one that follows into this one.
    pub(crate) fn merge(&mut self, later: Self) {
        self.ends.extend(later.ends);
        self.position = later.position;
        self.ts_us = self.ts_us.max(later.ts_us);
        self.next = later.next;
        self.logged_ms = self.logged_ms.max(later.logged_ms);
        self.incomplete = later.incomplete;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use caudal_proto::side::TopicEnds;

    pub(crate) fn record(number: u64, full: bool, ends: &[(&str, i64)]) -> Vec<u8> {
        record_of(number, full, ends, 7)
    }

    /// Of topics with that id.
    pub(crate) fn record_of(number: u64, full: bool, ends: &[(&str, i64)], id: u128) -> Vec<u8> {
        let ends = ends.iter().map(|(topic, end)| {
            ((*topic).to_owned(), TopicEnds { id: Uuid::from_u128(id), ends: vec![(0, *end)] })
        });
        let record = WatermarkRecord {
            v: VERSION,
            source: "s".into(),
            number,
            full,
            position: format!("p{number}"),
            ts_us: number as i64,
            ends: ends.collect(),
            incomplete: Incomplete::None,
            at_least_once: false,
        };
        serde_json::to_vec(&record).unwrap()
    }

    #[test]
    fn a_new_sink_waits_for_a_full_watermark() {
        let mut chain = Chain::new("s", false);
        assert_eq!(chain.take(Some(&record(4, false, &[("t", 3)])), (0, 0)).unwrap(), None);
        assert!(chain.take(Some(&record(5, true, &[("t", 3)])), (1, 0)).unwrap().is_some());
        assert!(chain.take(Some(&record(6, false, &[("t", 4)])), (2, 0)).unwrap().is_some());
    }

    #[test]
    fn what_was_written_at_least_once_is_no_state_to_be_shown() {
        let loose = |number, full| {
            let text = String::from_utf8(record(number, full, &[("t", 3)])).unwrap();
            format!("{},\"at_least_once\":true}}", text.strip_suffix('}').unwrap()).into_bytes()
        };
        let mut chain = Chain::new("s", true).of_states();
        assert!(chain.take(Some(&record(4, false, &[("t", 2)])), (0, 0)).unwrap().is_some());
        assert_eq!(chain.take(Some(&loose(5, true)), (1, 0)).unwrap(), None);
        assert_eq!(chain.take(Some(&record(6, false, &[("t", 3)])), (2, 0)).unwrap(), None);
        assert!(chain.take(Some(&record(7, true, &[("t", 3)])), (3, 0)).unwrap().is_some());
        let mut chain = Chain::new("s", true);
        assert!(chain.take(Some(&loose(5, false)), (1, 0)).unwrap().is_some(), "it tells what is there");
    }

    #[test]
    fn a_gap_between_deltas_is_an_error() {
        let mut chain = Chain::new("s", true);
        chain.take(Some(&record(5, false, &[("t", 3)])), (0, 0)).unwrap();
        assert!(chain.take(Some(&record(7, false, &[("t", 9)])), (1, 0)).is_err());
    }

    #[test]
    fn merged_watermarks_end_where_the_last_one_does() {
        let mut chain = Chain::new("s", true);
        let mut first = chain.take(Some(&record(5, false, &[("t", 3), ("u", 8)])), (10, 0)).unwrap().unwrap();
        first.merge(chain.take(Some(&record(6, false, &[("t", 4)])), (12, 0)).unwrap().unwrap());
        let offsets: Vec<i64> = first.ends.values().map(|end| end.offset).collect();
        assert_eq!((offsets, first.next, first.position.as_str()), (vec![4, 8], 13, "p6"));
    }
}
