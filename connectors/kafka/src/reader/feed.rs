//! Partitions as queues of records: all that the modes of reading need of a consumer, so that tests can hold the order in
//! which things become visible.

use crate::decode::Header;
use bytes::Bytes;
use caudal_core::Result;
use std::sync::Arc;

/// Number of a partition that is being read.
pub(super) type Lane = usize;

/// A record as it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched<'a> {
    /// Its offset.
    pub(super) offset: i64,
    /// Its key.
    pub(super) key: Option<&'a [u8]>,
    /// Its value.
    pub(super) value: Option<&'a [u8]>,
    /// The value of a large record again: as a buffer that whoever takes it may keep, for nothing else holds it.
    pub(super) own: Option<&'a Bytes>,
    /// When it was written, by the log's clock: milliseconds since the epoch; 0 where unknown.
    pub(super) ts_ms: i64,
    /// Its headers.
    pub(super) headers: &'a [Header<'a>],
}

/// What [`Feed::poll`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// A record below the end was handed over.
    Taken,
    /// The next record lies at or above the end; it is kept for later.
    Reached,
    /// There is no record now. Whether the end is reached follows from the position.
    Empty,
}

/// A partition to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The topic.
    pub(super) topic: Arc<str>,
    /// The partition.
    pub(super) partition: i32,
    /// Where to begin.
    pub(super) start: Start,
}

/// Where to begin reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At the first record that is there.
    First,
    /// At an offset, which must be there.
    At(i64),
    /// Behind all that is there.
    End,
}

impl From<Option<i64>> for Start {
    /// From what a sink has stored.
    fn from(stored: Option<i64>) -> Self {
        stored.map_or(Self::First, Self::At)
    }
}

/// Reads partitions, committed records only.
pub(super) trait Feed {
    /// Where partitions begin and end now, open transactions included: (first offset, end).
    fn spans(&mut self, partitions: &[(Arc<str>, i32)]) -> Result<Vec<(i64, i64)>>;

    /// Starts reading partitions, and gives their lanes in the same order.
    ///
    /// # Errors
    /// Fault `Data` if an offset is not (or no longer) in its partition.
    fn open(&mut self, wanted: &[Wanted]) -> Result<Vec<Lane>>;

    /// Hands the lane's next record over if its offset is below `end`. Never waits.
    fn poll(&mut self, lane: Lane, end: i64, take: &mut dyn FnMut(Fetched<'_>)) -> Result<Polled>;

    /// Learns the positions of all lanes anew: they pass what is never handed over (commit markers, aborted records).
    fn locate(&mut self) -> Result<()>;

    /// Where the lane stood at the last [`Feed::locate`]: no record below it is still to come.
    fn position(&self, lane: Lane) -> i64;

    /// The lane's end now, open transactions included.
    fn end(&mut self, lane: Lane) -> Result<i64>;

    /// The lanes' ends now, up to the first open transaction.
    fn committed(&mut self, lanes: &[Lane]) -> Result<Vec<i64>>;
}

/// A feed of records held in memory.
#[cfg(test)]
pub(super) mod memory {
    use super::*;
    use caudal_core::Error;
    use std::collections::{HashMap, VecDeque};

    /// (key, value)
    type Pair = (Vec<u8>, Option<Vec<u8>>);

    /// When a record at an offset was written, unless the test says otherwise.
    fn written(offset: i64) -> i64 {
        offset + 1
    }

    /// What lies in a partition: offsets, and the record of each that holds one.
    type Visible = VecDeque<(i64, Option<Pair>)>;

    #[derive(Default)]
    pub(in super::super) struct Memory {
        lanes: Vec<((String, i32), i64)>,
        visible: HashMap<(String, i32), Visible>,
        ends: HashMap<(String, i32), i64>,
        located: Vec<i64>,
        /// Name and value, by topic and offset.
        headers: HashMap<(String, i64), (&'static str, String)>,
    }

    impl Memory {
        /// Makes an offset visible: a record, or what takes an offset and is none.
        pub(in super::super) fn show(
            &mut self,
            topic: &str,
            offset: i64,
            record: Option<(&str, Option<&[u8]>)>,
        ) {
            self.show_in((topic, 0), offset, record);
        }

        /// The same in any partition.
        pub(in super::super) fn show_in(
            &mut self,
            (topic, partition): (&str, i32),
            offset: i64,
            record: Option<(&str, Option<&[u8]>)>,
        ) {
            let at = (topic.to_owned(), partition);
            let pair = record.map(|(key, value)| (key.as_bytes().to_vec(), value.map(<[u8]>::to_vec)));
            self.visible.entry(at.clone()).or_default().push_back((offset, pair));
            let end = self.ends.entry(at).or_default();
            *end = (*end).max(offset + 1);
        }

        /// Makes a truncation's control record visible in a partition.
        pub(in super::super) fn truncate(&mut self, topic: &str, partition: i32, offset: i64, id: &str) {
            let value = br#"{"before":null,"after":null,"source":{"ts_us":1},"op":"t","ts_ms":1}"#;
            self.head(topic, offset, (crate::encode::TRUNCATE_HEADER, id));
            self.show_in((topic, partition), offset, Some((crate::encode::TRUNCATE_KEY, Some(value))));
        }

        /// Gives the record at an offset a header.
        pub(in super::super) fn head(
            &mut self,
            topic: &str,
            offset: i64,
            (name, value): (&'static str, &str),
        ) {
            self.headers.insert((topic.to_owned(), offset), (name, value.to_owned()));
        }

        /// Sets the end that open transactions make.
        pub(in super::super) fn end_at(&mut self, topic: &str, end: i64) {
            self.ends.insert((topic.to_owned(), 0), end);
        }

        /// Passes what lies below the lane's position, and offsets that hold no record.
        fn pass(&mut self, lane: Lane) -> Option<i64> {
            let (at, position) = &mut self.lanes[lane];
            let queue = self.visible.get_mut(at)?;
            while let Some((offset, pair)) = queue.front() {
                if *offset >= *position && pair.is_some() {
                    return Some(*offset);
                }
                *position = (*position).max(*offset + 1);
                queue.pop_front();
            }
            None
        }
    }

    impl Feed for Memory {
        fn spans(&mut self, partitions: &[(Arc<str>, i32)]) -> Result<Vec<(i64, i64)>> {
            let end = |(topic, p): &(Arc<str>, i32)| self.ends.get(&(topic.to_string(), *p)).copied();
            Ok(partitions.iter().map(|name| (0, end(name).unwrap_or(0))).collect())
        }

        fn open(&mut self, wanted: &[Wanted]) -> Result<Vec<Lane>> {
            let mut lanes = Vec::new();
            for w in wanted {
                let at = (w.topic.to_string(), w.partition);
                let end = self.ends.get(&at).copied().unwrap_or(0);
                let start = match w.start {
                    Start::First => 0,
                    Start::At(offset) if offset > end => return Err(Error::data("offset beyond the end")),
                    Start::At(offset) => offset,
                    Start::End => end,
                };
                self.lanes.push((at, start));
                self.located.push(start);
                lanes.push(self.lanes.len() - 1);
            }
            Ok(lanes)
        }

        fn poll(&mut self, lane: Lane, end: i64, take: &mut dyn FnMut(Fetched<'_>)) -> Result<Polled> {
            let Some(offset) = self.pass(lane) else { return Ok(Polled::Empty) };
            if offset >= end {
                return Ok(Polled::Reached);
            }
            let (at, position) = &mut self.lanes[lane];
            let record = self.visible.get_mut(at).and_then(VecDeque::pop_front);
            if let Some((offset, Some((key, value)))) = record {
                *position = offset + 1;
                take(Fetched {
                    offset,
                    key: Some(&key),
                    value: value.as_deref(),
                    own: None,
                    ts_ms: written(offset),
                    headers: &self
                        .headers
                        .get(&(at.0.clone(), offset))
                        .map_or_else(Vec::new, |(name, value)| vec![(*name, value.as_bytes())]),
                });
            }
            Ok(Polled::Taken)
        }

        fn locate(&mut self) -> Result<()> {
            self.located = self.lanes.iter().map(|(_, position)| *position).collect();
            Ok(())
        }

        fn position(&self, lane: Lane) -> i64 {
            self.located[lane]
        }

        fn end(&mut self, lane: Lane) -> Result<i64> {
            Ok(self.ends.get(&self.lanes[lane].0).copied().unwrap_or(0))
        }

        fn committed(&mut self, lanes: &[Lane]) -> Result<Vec<i64>> {
            let end = |lane: &Lane| {
                let (at, position) = &self.lanes[*lane];
                let last = self.visible.get(at).and_then(VecDeque::back);
                last.map_or(*position, |(offset, _)| offset + 1)
            };
            Ok(lanes.iter().map(end).collect())
        }
    }
}
