//! The data partitions of one reader: their lanes, their shapes, and how far the batch in hand has taken them.

use super::feed::{Feed, Fetched, Lane, Polled, Wanted};
use super::join::{Join, Joined};
use crate::decode::{Record, decode};
use crate::schemas::{self, Schemas, Shapes};
use crate::watermarks::{End, Watermark};
use caudal_core::{BatchBuilder, Error, LogOffset, LogPosition, Result};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// One partition.
struct Partition {
    topic: Arc<str>,
    partition: i32,
    topic_id: Uuid,
    /// The next offset that a batch would take.
    next: i64,
    shapes: Shapes,
    /// Over how many partitions the table's keys are spread.
    spread: u32,
    /// [`Schemas::changes`] when `shapes` was made.
    changes: u64,
    join: Join,
}

/// The partitions being read, by lane; and what a sink has stored of others.
#[derive(Default)]
pub(super) struct Partitions {
    stored: HashMap<(Arc<str>, i32), LogOffset>,
    names: HashMap<(Arc<str>, i32), Lane>,
    lanes: HashMap<Lane, Partition>,
    ids: HashMap<Arc<str>, Uuid>,
    /// Lanes that moved since the last batch.
    moved: BTreeSet<Lane>,
}

impl Partitions {
    /// Of a sink that has stored `from`.
    pub(super) fn new(from: &LogPosition) -> Self {
        let mut new = Self::default();
        for offset in &from.offsets {
            new.stored.insert((Arc::clone(&offset.topic), offset.partition), offset.clone());
            if !offset.topic_id.is_nil() {
                new.ids.insert(Arc::clone(&offset.topic), offset.topic_id);
            }
        }
        new
    }

    /// What is stored of a partition.
    pub(super) fn stored(&self, topic: &str, partition: i32) -> Option<i64> {
        self.stored.get(&(Arc::from(topic), partition)).map(|offset| offset.offset)
    }

    /// Checks that a topic is the one that was read so far: another one under the same name has other records at the
    /// same offsets, and reading on would lose them without an error.
    pub(super) fn check_id(&mut self, topic: &str, id: Uuid) -> Result<()> {
        if id.is_nil() {
            return Ok(());
        }
        match self.ids.get(topic) {
            Some(known) if *known != id => Err(Error::data(format!(
                "topic {topic} is another one than the sink has read: its id was {known} and is {id}"
            ))
            .hint("it was deleted and made again; rebuild the sink's table from it (caudal rebuild)")),
            Some(_) => Ok(()),
            None => {
                self.ids.insert(Arc::from(topic), id);
                Ok(())
            }
        }
    }

    /// Lanes of partitions, opened where the sink stands if they are new.
    pub(super) fn open<'a>(
        &mut self,
        feed: &mut impl Feed,
        partitions: impl Iterator<Item = (&'a str, i32)>,
    ) -> Result<Vec<Lane>> {
        let names: Vec<(Arc<str>, i32)> = partitions.map(|(topic, p)| (Arc::from(topic), p)).collect();
        let new: Vec<Wanted> =
            names.iter().filter(|name| !self.names.contains_key(name)).map(|n| self.wanted(n)).collect();
        if !new.is_empty() {
            let lanes = feed.open(&new)?;
            feed.locate()?;
            for (wanted, lane) in new.into_iter().zip(lanes) {
                self.add(wanted, lane, feed.position(lane));
            }
        }
        Ok(names.iter().map(|name| self.names[name]).collect())
    }

    fn wanted(&self, name: &(Arc<str>, i32)) -> Wanted {
        let stored = self.stored.get(name).map(|stored| stored.offset);
        Wanted { topic: Arc::clone(&name.0), partition: name.1, start: stored.into() }
    }

    fn add(&mut self, wanted: Wanted, lane: Lane, next: i64) {
        let Wanted { topic, partition, .. } = wanted;
        self.names.insert((Arc::clone(&topic), partition), lane);
        let topic_id = self.ids.get(&topic).copied().unwrap_or_default();
        let shapes = Shapes::new();
        let (spread, changes, join) = (1, 0, Join::default());
        self.lanes
            .insert(lane, Partition { topic, partition, topic_id, next, shapes, spread, changes, join });
    }

    /// Checks an end against where the lane stands: a topic's end never goes back.
    pub(super) fn check_end(&self, lane: Lane, end: End) -> Result<()> {
        let partition = &self.lanes[&lane];
        if end.offset >= partition.next {
            return Ok(());
        }
        Err(Error::data(format!(
            "topic {} partition {} ends at {} by its watermark, and the sink has read up to {}",
            partition.topic, partition.partition, end.offset, partition.next
        ))
        .hint("the topic was truncated or made again; rebuild the sink's table from it (caudal rebuild)"))
    }

    /// Decodes a lane's next record below `end` into the batch, if there is one.
    pub(super) fn poll(
        &mut self,
        feed: &mut impl Feed,
        (lane, end): (Lane, i64),
        schemas: &Schemas,
        batch: &mut BatchBuilder,
    ) -> Result<Polled> {
        let Some(partition) = self.lanes.get_mut(&lane) else {
            return Err(Error::bug("a lane without a partition was read"));
        };
        let (mut taken, before) = (Ok(()), partition.next);
        let polled = feed.poll(lane, end, &mut |fetched| taken = partition.take(fetched, schemas, batch))?;
        taken?;
        match polled {
            // A piece of a record moves nothing.
            Polled::Taken if partition.next == before => {}
            Polled::Taken => drop(self.moved.insert(lane)),
            Polled::Reached => partition.check_end()?,
            Polled::Empty => {}
        }
        Ok(polled)
    }

    /// Moves a lane to an end that it has reached.
    ///
    /// # Errors
    /// `Data` if a record that was written in parts lacks some of them there.
    pub(super) fn reached(&mut self, lane: Lane, end: i64) -> Result<()> {
        let Some(partition) = self.lanes.get_mut(&lane) else { return Ok(()) };
        partition.check_end()?;
        if partition.next < end {
            partition.next = end;
            self.moved.insert(lane);
        }
        Ok(())
    }

    /// Whether a record of the lane is being joined.
    pub(super) fn is_joining(&self, lane: Lane) -> bool {
        self.lanes.get(&lane).is_some_and(|partition| partition.join.from().is_some())
    }

    /// The next offset of a lane.
    pub(super) fn next(&self, lane: Lane) -> i64 {
        self.lanes.get(&lane).map_or(0, |partition| partition.next)
    }

    /// About how many records lie between where the lanes stand and a watermark.
    pub(super) fn records(&self, watermark: &Watermark) -> i64 {
        let records = watermark.ends.iter().map(|((topic, partition), end)| {
            end.offset - self.lane(topic, *partition).map_or(0, |lane| self.next(lane))
        });
        records.sum()
    }

    /// The partitions that moved since this was last asked, and whether any did.
    pub(super) fn moved(&mut self) -> LogPosition {
        let moved = std::mem::take(&mut self.moved);
        LogPosition {
            offsets: moved.iter().filter_map(|lane| self.lanes.get(lane)).map(Partition::offset).collect(),
        }
    }

    /// Looks at all lanes without taking anything, so that their positions pass what is never handed over. What is seen
    /// stays in its lane: at most one record each.
    pub(super) fn look(&self, feed: &mut impl Feed) -> Result<()> {
        for lane in self.lanes.keys() {
            feed.poll(*lane, i64::MIN, &mut |_| {})?;
        }
        feed.locate()
    }

    /// The lane of a partition that is being read.
    pub(super) fn lane(&self, topic: &str, partition: i32) -> Option<Lane> {
        self.names.get(&(Arc::from(topic), partition)).copied()
    }
}

impl Partition {
    fn take(&mut self, fetched: Fetched<'_>, schemas: &Schemas, batch: &mut BatchBuilder) -> Result<()> {
        if self.changes != schemas.changes() {
            self.shapes = schemas.shapes(&self.topic, self.partition);
            self.spread = schemas.spread(&self.topic);
            self.changes = schemas.changes();
        }
        let joined = self.join.take(fetched).map_err(|e| e.context(format!("read {}", self.topic)))?;
        match &joined {
            Joined::Plain(Fetched { offset, key, value }) => self.decode(*offset, *key, *value, batch),
            Joined::Whole(offset, key, value) => self.decode(*offset, key.as_deref(), Some(value), batch),
            Joined::Piece => {}
        }
        self.next = self.join.from().unwrap_or(fetched.offset + 1);
        Ok(())
    }

    fn decode(&self, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>, batch: &mut BatchBuilder) {
        let (topic, partition, spread) = (&self.topic, self.partition, self.spread);
        let record = Record { topic, partition, offset, spread, key, value };
        decode(&record, schemas::at(&self.shapes, offset), batch);
    }

    fn check_end(&mut self) -> Result<()> {
        let place = format_args!("read topic {} partition {}", self.topic, self.partition).to_string();
        self.join.check_end().map_err(|e| e.context(place))
    }

    fn offset(&self) -> LogOffset {
        LogOffset {
            topic: Arc::clone(&self.topic),
            topic_id: self.topic_id,
            partition: self.partition,
            offset: self.next,
            leader_epoch: -1,
        }
    }
}
