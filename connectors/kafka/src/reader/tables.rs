//! One table of the log read by itself, up to ends that somebody names: what a table is rebuilt from.
//!
//! It takes part in no group and in nobody's watermarks: the ends are where a sink stands, and nothing at or above them is taken. So what
//! was read up to them is just what the sink has applied of the table. Rows have the right shapes for the reason that `whole.rs`
//! gives: the end of the schemas topic is asked after the ends were known. What compaction may have taken meanwhile is noticed
//! and swept as anywhere else (`partitions.rs`).
//!
//! Memory: one batch (`BATCH_BYTES` and one row) and `FETCH_BYTES` of the client's.

use super::feed::{Feed, Lane, Polled};
use super::lanes::Lanes;
use super::partitions::{Partitions, Promise};
use super::sides::{Shapes, Side};
use super::wake::Wake;
use crate::client::{Isolation, blocking};
use crate::faults::classify;
use crate::log::Log;
use crate::offsets::{Bound, bounds};
use crate::replay::Partition;
use crate::sources;
use crate::topic_ids;
use caudal_core::{Batch, BatchBuilder, Error, LogOffset, LogPosition, Position, Result, TableSchema};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A batch is closed at this size.
const BATCH_BYTES: usize = 2 << 20;
/// Bytes fetched ahead.
const FETCH_BYTES: usize = 16 << 20;
/// How long a turn may wait for records.
const TURN: Duration = Duration::from_millis(100);
/// How long nothing may come below an end that was reached by another reader.
const PATIENCE: Duration = Duration::from_secs(60);

/// A table as the log holds it.
#[derive(Clone, Debug)]
pub struct HeldTable {
    /// The source that writes it.
    pub source: String,
    /// Its newest topic.
    pub topic: Arc<str>,
    /// The topic's id; nil where the brokers tell none.
    pub topic_id: uuid::Uuid,
    /// Over how many partitions it is spread.
    pub partitions: u32,
    /// Its newest shape.
    pub schema: Arc<TableSchema>,
    schemas: (Arc<str>, i32),
}

impl Log {
    /// The tables that the captured sources `from` have written into this log.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn held(&self, from: &[String]) -> Result<Vec<HeldTable>> {
        let mut numbers = sources::numbers(&self.clients, &self.names, "held").await?;
        numbers.retain(|source, _| from.contains(source));
        let schemas = sources::schemas(&self.clients, &self.names, "held", &numbers).await?;
        let mut held: Vec<HeldTable> = Vec::new();
        for (source, number) in &numbers {
            for (topic, partitions) in schemas.topics(source) {
                let Some(schema) = schemas.newest(topic) else { continue };
                let schemas = (Arc::from(self.names.schemas()), *number);
                let topic = Arc::from(topic);
                let (source, topic_id) = (source.clone(), uuid::Uuid::nil());
                let table = HeldTable { source, topic, topic_id, partitions, schema, schemas };
                match held.iter_mut().find(|t| t.source == table.source && t.schema.id == table.schema.id) {
                    Some(older) if older.schema.generation < table.schema.generation => *older = table,
                    Some(_) => {}
                    None => held.push(table),
                }
            }
        }
        let topics: Vec<String> = held.iter().map(|table| table.topic.to_string()).collect();
        let ids = topic_ids::fetch(self.clients.resolved(), &topics).await;
        for table in &mut held {
            table.topic_id = ids.get(&*table.topic).copied().unwrap_or_default();
        }
        held.sort_by(|a, b| a.schema.id.cmp(&b.schema.id));
        Ok(held)
    }

    /// First offset and end of each partition of a table: how many records there are at most.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn spans(&self, table: &HeldTable) -> Result<Vec<(i64, i64)>> {
        let (clients, names) = (self.clients.clone(), table.names());
        blocking(move || {
            let reader = clients.reader("held", Isolation::Uncommitted)?;
            let (first, end) = (bounds(&reader, &names, Bound::First)?, bounds(&reader, &names, Bound::End)?);
            let at = |of: &std::collections::BTreeMap<Partition, i64>, name| of.get(name).copied();
            Ok(names
                .iter()
                .map(|name| (at(&first, name).unwrap_or(0), at(&end, name).unwrap_or(0)))
                .collect())
        })
        .await
    }

    /// Where the records of a table begin that were written at or after a moment (milliseconds since the epoch, UTC).
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn offsets_at(&self, table: &HeldTable, ms: i64) -> Result<LogPosition> {
        let (clients, table) = (self.clients.clone(), table.clone());
        blocking(move || {
            let what = || format!("look for a time in {}", table.topic);
            let reader = clients.reader("held", Isolation::Uncommitted)?;
            let mut list = TopicPartitionList::new();
            for (topic, partition) in table.names() {
                list.add_partition_offset(&topic, partition, Offset::Offset(ms))
                    .map_err(|e| classify(e, what()))?;
            }
            let found = reader
                .offsets_for_times(list, crate::client::REQUEST_TIMEOUT)
                .map_err(|e| classify(e, what()))?;
            let ends = bounds(&reader, &table.names(), Bound::End)?;
            let offset = |name: Partition| {
                let at = found.find_partition(&name.0, name.1).map(|e| e.offset());
                match at {
                    Some(Offset::Offset(offset)) => table.offset(name.1, offset),
                    _ => table.offset(name.1, ends.get(&name).copied().unwrap_or(0)),
                }
            };
            Ok(LogPosition { offsets: table.names().into_iter().map(offset).collect() })
        })
        .await
    }

    /// A reader of one table that goes on behind `from`; `role` is for the client ids.
    ///
    /// # Errors
    /// `Config` if the client's settings are refused.
    pub async fn read_table(&self, role: &str, table: &HeldTable, from: LogPosition) -> Result<TableReader> {
        let ids = [(table.topic.to_string(), table.topic_id)].into_iter().collect();
        let (log, role, table) = (self.clone(), role.to_owned(), table.clone());
        let inner = blocking(move || {
            let lag_ms = log.clients.resolved().config.topics.min_compaction_lag.get().as_millis() as i64;
            let promise = Promise { lag_ms, now: super::now_ms };
            let expected = (table.partitions as usize).max(1);
            let mut feed = Lanes::new(&log.clients, &role, expected, FETCH_BYTES)?;
            let mut shapes = Shapes::default();
            let (topic, partition) = table.schemas.clone();
            shapes.open(&mut feed, &Side { topic, topic_id: uuid::Uuid::nil(), partition })?;
            let wake = feed.wake();
            let partitions = Partitions::new(&from, &ids, promise);
            let batch = BatchBuilder::default();
            Ok(Inner {
                feed,
                wake,
                partitions,
                shapes,
                lanes: Vec::new(),
                table,
                ends: Vec::new(),
                known: false,
                told: false,
                batch,
            })
        })
        .await?;
        Ok(TableReader { inner: Some(inner) })
    }
}

impl HeldTable {
    fn names(&self) -> Vec<Partition> {
        (0..self.partitions as i32).map(|p| (self.topic.to_string(), p)).collect()
    }

    /// A place in one of its partitions.
    #[must_use]
    pub fn offset(&self, partition: i32, offset: i64) -> LogOffset {
        LogOffset {
            topic: Arc::clone(&self.topic),
            topic_id: self.topic_id,
            partition,
            offset,
            leader_epoch: -1,
            as_of_ms: 0,
            unswept: false,
            writer_epoch: 0,
        }
    }
}

/// Reads one table.
pub struct TableReader {
    inner: Option<Inner>,
}

impl TableReader {
    /// From now on reads up to these offsets; where it stands further already, nothing is read.
    ///
    /// # Errors
    /// `Bug` after an error.
    pub fn aim(&mut self, ends: &LogPosition) -> Result<()> {
        let inner = self.inner.as_mut().ok_or_else(|| Error::bug("a reader was used after an error"))?;
        inner.ends = ends.offsets.clone();
        inner.known = false;
        Ok(())
    }

    /// The next batch; none when all ends are reached. Not cancel-safe.
    ///
    /// # Errors
    /// What the log gives; the reader is of no use after one.
    pub async fn next(&mut self) -> Result<Option<Batch>> {
        let mut inner = self.inner.take().ok_or_else(|| Error::bug("a reader was used after an error"))?;
        let (inner, batch) = blocking(move || inner.next().map(|batch| (inner, batch))).await?;
        self.inner = Some(inner);
        Ok(batch)
    }
}

struct Inner {
    feed: Lanes,
    wake: Arc<Wake>,
    partitions: Partitions,
    shapes: Shapes,
    lanes: Vec<Lane>,
    table: HeldTable,
    ends: Vec<LogOffset>,
    /// Whether the shapes below the ends are known.
    known: bool,
    /// Whether a last batch was given once.
    told: bool,
    batch: BatchBuilder,
}

impl Inner {
    fn next(&mut self) -> Result<Option<Batch>> {
        self.learn()?;
        if self.lanes.is_empty() {
            let names = self.table.names();
            let names = names.iter().map(|(topic, p)| (topic.as_str(), *p));
            self.lanes = self.partitions.open(&mut self.feed, names, 0, &self.shapes.store)?;
            self.partitions.begin_sweeps(&mut self.batch, |_| true);
        }
        let mut heard = Instant::now();
        loop {
            let (took, reached) = self.read()?;
            if reached {
                return Ok(self.finish());
            }
            if self.batch.size() >= BATCH_BYTES {
                return Ok(Some(self.take()));
            }
            if took {
                heard = Instant::now();
            } else if heard.elapsed() > PATIENCE {
                return Err(Error::transient(format!(
                    "read {} up to where the sink stands",
                    self.table.topic
                ))
                .hint("the brokers are slow, or a transaction on it is still open"));
            }
            self.wake.wait(TURN);
        }
    }

    /// Reads the shapes that were written before now.
    fn learn(&mut self) -> Result<()> {
        if self.known {
            return Ok(());
        }
        self.shapes.aim(&mut self.feed, 0)?;
        let begun = Instant::now();
        while !self.shapes.follow(&mut self.feed, 0)? {
            if begun.elapsed() > PATIENCE {
                return Err(Error::transient("read the shapes of the tables"));
            }
            self.wake.wait(TURN);
        }
        self.known = true;
        Ok(())
    }

    /// Reads each partition towards its end: whether a record came, and whether all ends are reached.
    fn read(&mut self) -> Result<(bool, bool)> {
        let (mut took, mut waiting) = (false, Vec::new());
        for (lane, end) in self.goals() {
            while self.partitions.next(lane) < end && self.batch.size() < BATCH_BYTES {
                match self.partitions.poll(
                    &mut self.feed,
                    (lane, end),
                    &self.shapes.store,
                    &mut self.batch,
                )? {
                    Polled::Taken => {
                        took = true;
                        if self.partitions.is_barred(lane) {
                            break;
                        }
                    }
                    Polled::Reached => self.partitions.reached(lane, end)?,
                    Polled::Empty => break,
                }
            }
            if self.partitions.next(lane) < end {
                waiting.push((lane, end));
            }
        }
        if waiting.is_empty() {
            return Ok((took, true));
        }
        self.feed.locate()?;
        let mut reached = true;
        for (lane, end) in waiting {
            if self.partitions.position(&self.feed, lane) >= end {
                self.partitions.reached(lane, end)?;
            } else {
                reached = false;
            }
        }
        Ok((took, reached))
    }

    fn goals(&self) -> Vec<(Lane, i64)> {
        let goal = |end: &LogOffset| Some((self.partitions.lane(&end.topic, end.partition)?, end.offset));
        self.ends.iter().filter_map(goal).collect()
    }

    /// The last batch below the ends, if there is anything in it.
    fn finish(&mut self) -> Option<Batch> {
        self.partitions.end_sweeps(&mut self.batch, |_| true);
        let mut batch = self.take();
        if !std::mem::replace(&mut self.told, true)
            && let Position::Log(position) = &mut batch.position
        {
            // Partitions that stood at their ends from the start too: a sink knows then that it has read them.
            let goals = self.ends.iter().filter(|end| {
                let lane = self.partitions.lane(&end.topic, end.partition);
                let named = position.offsets.iter().any(|o| o.partition == end.partition);
                !named && lane.is_some_and(|lane| self.partitions.next(lane) == end.offset)
            });
            let goals: Vec<LogOffset> =
                goals.map(|end| LogOffset { unswept: false, ..end.clone() }).collect();
            position.offsets.extend(goals);
        }
        let moved = batch.position.log().is_some_and(|position| !position.offsets.is_empty());
        let anything = !batch.events.is_empty() || !batch.sweeps.is_empty() || !batch.undecodable.is_empty();
        (anything || moved).then_some(batch)
    }

    fn take(&mut self) -> Batch {
        let position = self.partitions.moved();
        std::mem::take(&mut self.batch).build(Position::Log(position), None)
    }
}
