//! The data partitions of one reader: their lanes, their shapes, and how far the batch in hand has taken them.
//!
//! **What compaction may have taken.** A record is not compacted away before it is `min_compaction_lag` old. Each partition
//! has an *as of*: the time of the last record read, or of a watermark that was reached, or the moment at which its reading began
//! at the first record. All that is unread was written after it. So as long as "now" is not further from it than the lag (less a
//! tenth, for clocks that differ), a missing offset is a marker or an aborted record; later it may be a deletion, with its
//! tombstone, that nobody will ever read. A table with such a partition is *read anew*: from its first record, with a sweep of
//! the keys that are not there ([`caudal_core::Sweep`]). The same holds for a topic that was made again, for an offset that is not in
//! its partition, for a sweep that was not finished, and for a topic that the sink has not met before.
//!
//! While a table is read anew the rule is not applied to it: a deletion of a key that was read, compacted before it is
//! reached, still has its tombstone, which is decoded as a deletion by key and stays readable for `delete_retention` more.

use super::feed::{Feed, Fetched, Lane, Polled, Start, Wanted};
use super::join::{Join, Joined};
use crate::decode::{Record, Shape, decode, decode_selected, tombstone};
use crate::encode::{ORDER_HEADER, TRUNCATE_HEADER};
use crate::schemas::{self, Schemas, Shapes};
use crate::topic_ids::TopicIds;
use crate::watermarks::Watermark;
use caudal_core::{
    BatchBuilder, Error, LogOffset, LogPosition, Op, Result, Selected, Sweep, SweepPart, TableSchema,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// (topic, partition)
type Name = (Arc<str>, i32);

/// For how long compaction leaves everything in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// No record younger than this is compacted away, milliseconds.
    pub(super) lag_ms: i64,
    /// Milliseconds since the epoch.
    pub(super) now: fn() -> i64,
}

impl Promise {
    /// Whether something written after `as_of_ms` may have been compacted away by now. What is unknown (0) is trusted.
    pub(super) fn may_be_broken(&self, as_of_ms: i64) -> bool {
        as_of_ms > 0 && (self.now)() - as_of_ms > self.lag_ms - self.lag_ms / 10
    }

    /// Whether a state of that time is too old to be shown: what superseded its rows may soon be all that is left.
    pub(super) fn is_old(&self, as_of_ms: i64) -> bool {
        as_of_ms > 0 && (self.now)() - as_of_ms > self.lag_ms / 2
    }
}

/// One partition.
struct Partition {
    topic: Arc<str>,
    partition: i32,
    topic_id: Uuid,
    /// The next offset that a batch would take.
    next: i64,
    /// Records that come in parts. While one does, a restart begins at its head.
    join: Join,
    shapes: Shapes,
    /// Of each of them which columns the sink looks at; none: at all.
    flags: Vec<Option<Box<[bool]>>>,
    /// Over how many partitions the table's keys are spread.
    spread: u32,
    /// [`Schemas::changes`] when `shapes` was made.
    changes: u64,
    /// All that is unread was written after this moment; 0 where unknown.
    as_of_ms: i64,
    /// Where it ended when it was opened.
    end: i64,
    /// Whether its table is being read anew.
    unswept: bool,
    /// The key of the record before, if that was a deletion: the tombstone behind it says nothing more.
    deleted: Option<Vec<u8>>,
    /// A truncation that waits for those of the table's other partitions.
    barred: Option<Barred>,
    /// Writer and number of the newest record read, where records tell theirs.
    order: Order,
}

/// A record's place among those written at least once: writer and number. None is told by others: the least.
type Order = (u64, u64);

/// What a record tells of its place.
fn order(fetched: &Fetched<'_>) -> Option<Order> {
    let (_, text) = fetched.headers.iter().find(|(name, _)| *name == ORDER_HEADER)?;
    let (epoch, number) = std::str::from_utf8(text).ok()?.split_once('/')?;
    Some((epoch.parse().ok()?, number.parse().ok()?))
}

/// A truncation of a table in several partitions, as one of them holds it. It is executed once, when all have come to it: what
/// the others hold before it is emptied with the table, and nothing behind it is read before.
struct Barred {
    /// The same in all partitions.
    id: Vec<u8>,
    offset: i64,
    ts_ms: i64,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
}

/// A table that is read anew.
struct Anew {
    schema: Arc<TableSchema>,
    lanes: Vec<Lane>,
    begun: bool,
}

/// The partitions being read, by lane; and what a sink has stored of others.
pub(super) struct Partitions {
    promise: Promise,
    stored: HashMap<Name, LogOffset>,
    names: HashMap<Name, Lane>,
    lanes: HashMap<Lane, Partition>,
    ids: HashMap<Arc<str>, Uuid>,
    /// Topics whose ids the brokers told.
    verified: HashSet<String>,
    /// Topics that are others than those the sink has read.
    changed: HashSet<Arc<str>>,
    anew: BTreeMap<Arc<str>, Anew>,
    /// Lanes that moved since the last batch.
    moved: BTreeSet<Lane>,
    /// Columns that the sink looks at; none: all.
    selected: Option<Selected>,
}

impl Partitions {
    /// Of a sink that has stored `from`, in a log whose topics have the ids `now` (those it knows).
    pub(super) fn new(from: &LogPosition, now: &TopicIds, promise: Promise) -> Self {
        let mut new = Self {
            promise,
            stored: HashMap::new(),
            names: HashMap::new(),
            lanes: HashMap::new(),
            ids: HashMap::new(),
            verified: now.iter().filter(|(_, id)| !id.is_nil()).map(|(topic, _)| topic.clone()).collect(),
            changed: HashSet::new(),
            anew: BTreeMap::new(),
            moved: BTreeSet::new(),
            selected: None,
        };
        for (topic, id) in now.iter().filter(|(_, id)| !id.is_nil()) {
            new.ids.insert(Arc::from(topic.as_str()), *id);
        }
        for offset in &from.offsets {
            let topic = &offset.topic;
            let id = now.get(&**topic).copied().filter(|id| !id.is_nil()).unwrap_or(offset.topic_id);
            if !offset.topic_id.is_nil() && id != offset.topic_id {
                new.changed.insert(Arc::clone(topic));
            }
            if !id.is_nil() {
                new.ids.insert(Arc::clone(topic), id);
            }
            new.stored.insert((Arc::clone(topic), offset.partition), offset.clone());
        }
        new
    }

    /// Of a sink that looks at these columns only.
    pub(super) fn selecting(&mut self, selected: Option<Selected>) {
        self.selected = selected;
    }

    /// What is stored of a partition of the topic that is there now.
    pub(super) fn stored(&self, topic: &str, partition: i32) -> Option<&LogOffset> {
        let stored = self.stored.get(&(Arc::from(topic), partition));
        stored.filter(|_| !self.changed.contains(topic))
    }

    /// Whether the brokers have told the topic's id.
    pub(super) fn is_verified(&self, topic: &str) -> bool {
        self.verified.contains(topic)
    }

    /// Whether a topic is the one that is read under this name: another one has other records at the same offsets, and
    /// reading on would lose them without an error. A topic that was not known is known then.
    pub(super) fn is_same(&mut self, topic: &str, id: Uuid) -> bool {
        if id.is_nil() {
            return true;
        }
        *self.ids.entry(Arc::from(topic)).or_insert(id) == id
    }

    /// Lanes of partitions, opened where the sink stands if they are new; `base_ms`: all that was written before that moment
    /// is read. Tables that must be read anew are noted for [`Partitions::begin_sweeps`].
    ///
    /// # Errors
    /// Fault `Data` if a table must be read anew and this instance has not all of its partitions.
    pub(super) fn open<'a>(
        &mut self,
        feed: &mut impl Feed,
        partitions: impl Iterator<Item = (&'a str, i32)>,
        base_ms: i64,
        store: &Schemas,
    ) -> Result<Vec<Lane>> {
        let names: Vec<Name> = partitions.map(|(topic, p)| (Arc::from(topic), p)).collect();
        let new: Vec<Name> = names.iter().filter(|name| !self.names.contains_key(name)).cloned().collect();
        if !new.is_empty() {
            let spans = feed.spans(&new)?;
            let mut reasons: BTreeMap<Arc<str>, String> = BTreeMap::new();
            for (name, span) in new.iter().zip(&spans) {
                if let Some(reason) = self.reason(name, *span, base_ms) {
                    reasons.entry(Arc::clone(&name.0)).or_insert(reason);
                }
            }
            let wanted: Vec<Wanted> = new.iter().map(|name| self.wanted(name, &reasons)).collect();
            let lanes = feed.open(&wanted)?;
            feed.locate()?;
            let began = (self.promise.now)();
            for ((wanted, &lane), (_, end)) in wanted.iter().zip(&lanes).zip(spans) {
                let stored = self.stored.get(&(Arc::clone(&wanted.topic), wanted.partition));
                let as_of_ms = match wanted.start {
                    Start::At(_) => stored.map_or(0, |s| s.as_of_ms).max(base_ms),
                    _ => began,
                };
                let writer = match wanted.start {
                    Start::At(_) => stored.map_or(0, |s| s.writer_epoch.max(0) as u64),
                    _ => 0,
                };
                self.add(wanted, lane, (feed.position(lane), end), (as_of_ms, writer));
            }
            self.note_anew(&new, &reasons, store)?;
        }
        Ok(names.iter().map(|name| self.names[name]).collect())
    }

    /// Why the partition cannot be read on from where the sink stands, if so.
    fn reason(&self, name: &Name, (first, end): (i64, i64), base_ms: i64) -> Option<String> {
        let stored = self.stored.get(name)?;
        if self.changed.contains(&name.0) {
            return Some("the topic was made again".to_owned());
        }
        if !(first..=end).contains(&stored.offset) {
            let at = stored.offset;
            return Some(format!("the sink stands at offset {at}, and the log has {first} to {end}"));
        }
        if stored.unswept {
            return Some("a sweep was not finished".to_owned());
        }
        // One offset more is the marker behind the last record.
        if end - stored.offset > 1 && self.promise.may_be_broken(stored.as_of_ms.max(base_ms)) {
            return Some("the sink was away for longer than deletes are kept".to_owned());
        }
        None
    }

    fn wanted(&self, name: &Name, reasons: &BTreeMap<Arc<str>, String>) -> Wanted {
        let stored = self.stored.get(name).filter(|_| !reasons.contains_key(&name.0));
        let start = stored.map(|stored| stored.offset).into();
        Wanted { topic: Arc::clone(&name.0), partition: name.1, start }
    }

    fn add(&mut self, wanted: &Wanted, lane: Lane, (next, end): (i64, i64), (as_of_ms, writer): (i64, u64)) {
        let name = (Arc::clone(&wanted.topic), wanted.partition);
        let topic_id = self.ids.get(&name.0).copied().unwrap_or_default();
        let partition = Partition {
            topic: Arc::clone(&name.0),
            partition: name.1,
            topic_id,
            next,
            join: Join::default(),
            shapes: Shapes::new(),
            flags: Vec::new(),
            spread: 1,
            changes: 0,
            as_of_ms,
            end,
            unswept: false,
            deleted: None,
            barred: None,
            order: (writer, 0),
        };
        self.names.insert(name, lane);
        self.lanes.insert(lane, partition);
    }

    /// Notes the tables among the partitions just opened that are read anew: those with a reason, and those that are new to
    /// the sink.
    fn note_anew(
        &mut self,
        opened: &[Name],
        reasons: &BTreeMap<Arc<str>, String>,
        store: &Schemas,
    ) -> Result<()> {
        let topics: BTreeSet<&Arc<str>> = opened.iter().map(|(topic, _)| topic).collect();
        for topic in topics {
            let reason = reasons.get(topic);
            let is_new = !self.stored.keys().any(|(known, _)| known == topic);
            if reason.is_none() && !is_new {
                continue;
            }
            let lanes: Vec<Lane> =
                (0..store.spread(topic) as i32).filter_map(|p| self.lane(topic, p)).collect();
            let whole = lanes.len() == store.spread(topic) as usize;
            if let (Some(reason), false) = (reason, whole) {
                return Err(Error::data(format!("topic {topic} must be read anew: {reason}")).hint(
                    "its partitions are shared with other instances: stop those until this one has caught up",
                ));
            }
            // Who comes to an empty table needs no sweep; a shape that nobody announced has no rows.
            let Some(schema) =
                store.newest(topic).filter(|s| whole && (reason.is_some() || !s.key.is_empty()))
            else {
                continue;
            };
            if let Some(reason) = reason {
                tracing::warn!(%topic, reason, "reading the table anew");
            }
            if !schema.key.is_empty() {
                for lane in &lanes {
                    if let Some(partition) = self.lanes.get_mut(lane) {
                        partition.unswept = true;
                    }
                }
            }
            self.anew.insert(Arc::clone(topic), Anew { schema, lanes, begun: false });
        }
        Ok(())
    }

    /// Puts the begin of each sweep that is due into the batch, of topics that are read now.
    pub(super) fn begin_sweeps(&mut self, batch: &mut BatchBuilder, is_read: impl Fn(&str) -> bool) {
        for (topic, anew) in self.anew.iter_mut().filter(|(topic, anew)| !anew.begun && is_read(topic)) {
            anew.begun = true;
            let (topic, schema) = (Arc::clone(topic), Arc::clone(&anew.schema));
            let partitions = anew.lanes.len() as u32;
            batch.sweeps.push(Sweep { topic, schema, partitions, part: SweepPart::Begin });
        }
        self.anew.retain(|_, anew| !anew.begun || !anew.schema.key.is_empty());
    }

    /// Puts the end of each sweep into the batch whose lanes have all `reached` what there was when they were opened.
    pub(super) fn end_sweeps(&mut self, batch: &mut BatchBuilder, reached: impl Fn(Lane) -> bool) {
        let done: Vec<Arc<str>> = self
            .anew
            .iter()
            .filter(|(_, anew)| anew.begun && anew.lanes.iter().all(|lane| reached(*lane)))
            .map(|(topic, _)| Arc::clone(topic))
            .collect();
        for topic in done {
            let Some(anew) = self.anew.remove(&topic) else { continue };
            let partitions = anew.lanes.len() as u32;
            for lane in anew.lanes {
                if let Some(partition) = self.lanes.get_mut(&lane) {
                    partition.unswept = false;
                    self.moved.insert(lane);
                }
            }
            batch.sweeps.push(Sweep { topic, schema: anew.schema, partitions, part: SweepPart::End });
        }
    }

    /// The lanes that a watermark does not name of the topics that it does, where these are read anew, with where they end: nothing
    /// was written to them since the sink has read them.
    pub(super) fn unnamed(&self, watermark: &Watermark) -> Vec<(Lane, i64)> {
        let mut unnamed = Vec::new();
        let is_read = |topic: &str| watermark.ends.keys().any(|(read, _)| read == topic);
        for (topic, anew) in self.anew.iter().filter(|(topic, _)| is_read(topic)) {
            for lane in &anew.lanes {
                let Some(partition) = self.lanes.get(lane) else { continue };
                if !watermark.ends.contains_key(&(topic.to_string(), partition.partition))
                    && let Some(stored) = self.stored(topic, partition.partition)
                {
                    unnamed.push((*lane, stored.offset.min(partition.end)));
                }
            }
        }
        unnamed
    }

    /// Decodes a lane's next record below `end` into the batch, if there is one.
    pub(super) fn poll(
        &mut self,
        feed: &mut impl Feed,
        (lane, end): (Lane, i64),
        schemas: &Schemas,
        batch: &mut BatchBuilder,
    ) -> Result<Polled> {
        let whole = self.has_all_of(lane, schemas);
        let Some(partition) = self.lanes.get_mut(&lane) else {
            return Err(Error::bug("a lane without a partition was read"));
        };
        if partition.barred.is_some() {
            return Ok(Polled::Empty);
        }
        let (promise, selected) = (self.promise, self.selected.as_ref());
        let mut taken = Ok(());
        let polled = feed.poll(lane, end, &mut |fetched| {
            taken = partition.pass(fetched.offset, promise);
            if taken.is_ok() && !partition.drops(&fetched) {
                taken = partition.take(fetched, schemas, (whole, selected), batch);
            }
        })?;
        taken?;
        match polled {
            // A piece of a record moves nothing.
            Polled::Taken if partition.join.from().is_some() => {}
            Polled::Taken => {
                let barred = partition.barred.is_some();
                self.moved.insert(lane);
                if barred {
                    self.lift_barrier(lane, schemas, batch);
                }
            }
            Polled::Reached => partition.check_joined()?,
            Polled::Empty => {}
        }
        Ok(polled)
    }

    /// Whether this reader has all partitions of a lane's table.
    fn has_all_of(&self, lane: Lane, schemas: &Schemas) -> bool {
        let Some(Partition { topic, .. }) = self.lanes.get(&lane) else { return false };
        match schemas.spread(topic) {
            1 => true,
            spread => (0..spread as i32).all(|p| self.lane(topic, p).is_some()),
        }
    }

    /// Executes a truncation once all partitions of the table have come to it.
    fn lift_barrier(&mut self, lane: Lane, schemas: &Schemas, batch: &mut BatchBuilder) {
        let Some(topic) = self.lanes.get(&lane).map(|partition| Arc::clone(&partition.topic)) else { return };
        let lanes: Vec<Lane> =
            (0..schemas.spread(&topic) as i32).filter_map(|p| self.lane(&topic, p)).collect();
        let ids: Vec<(&[u8], i64)> = lanes
            .iter()
            .filter_map(|lane| self.lanes[lane].barred.as_ref())
            .map(|barred| (barred.id.as_slice(), barred.ts_ms))
            .collect();
        if ids.len() < lanes.len() {
            return;
        }
        let Some(&(newest, _)) = ids.iter().max_by_key(|(_, ts_ms)| *ts_ms) else { return };
        if ids.iter().all(|(id, _)| *id == newest) {
            self.truncate(&lanes, schemas, batch);
            return;
        }
        // Compaction left the newest truncation alone in some partitions: those before it, in the others, count no more.
        let newest = newest.to_vec();
        for lane in lanes {
            if let Some(partition) = self.lanes.get_mut(&lane)
                && partition.barred.as_ref().is_some_and(|barred| barred.id != newest)
            {
                partition.pass_barrier();
            }
        }
    }

    fn truncate(&mut self, lanes: &[Lane], schemas: &Schemas, batch: &mut BatchBuilder) {
        for (number, lane) in lanes.iter().enumerate() {
            let Some(partition) = self.lanes.get_mut(lane) else { continue };
            let Some(barred) = partition.barred.as_ref().filter(|_| number == 0) else {
                partition.pass_barrier();
                self.moved.insert(*lane);
                continue;
            };
            let record = Record {
                topic: &partition.topic,
                partition: partition.partition,
                offset: barred.offset,
                spread: 1,
                key: barred.key.as_deref(),
                value: Some(&barred.value),
                own: None,
                headers: &[(TRUNCATE_HEADER, barred.id.as_slice())],
            };
            let shapes = schemas.shapes(&partition.topic, partition.partition);
            decode(&record, schemas::at(&shapes, barred.offset), batch);
            partition.pass_barrier();
            self.moved.insert(*lane);
        }
    }

    /// Where a lane stands: no record below is still to come. One that waits at a truncation stands there.
    pub(super) fn position(&self, feed: &impl Feed, lane: Lane) -> i64 {
        let barred = self.lanes.get(&lane).and_then(|partition| partition.barred.as_ref());
        barred.map_or_else(|| feed.position(lane), |barred| barred.offset)
    }

    /// Whether a lane waits at a truncation.
    pub(super) fn is_barred(&self, lane: Lane) -> bool {
        self.lanes.get(&lane).is_some_and(|partition| partition.barred.is_some())
    }

    /// Up to where a partition is delivered; none if the sink does not read it.
    pub(super) fn delivered(&self, topic: &str, partition: i32) -> Option<i64> {
        match self.lane(topic, partition) {
            Some(lane) => Some(self.next(lane)),
            None => self.stored(topic, partition).map(|stored| stored.offset),
        }
    }

    /// How many partitions were met so far.
    pub(super) fn known(&self) -> usize {
        self.stored.len() + self.names.len()
    }

    /// Whether a partition was met: it is being read, or the sink has an offset in it.
    pub(super) fn knows(&self, topic: &str, partition: i32) -> bool {
        self.lane(topic, partition).is_some() || self.stored(topic, partition).is_some()
    }

    /// What a sink has stored under a name, of whichever topic had that name.
    pub(super) fn ever_stored(&self, topic: &str, partition: i32) -> Option<&LogOffset> {
        self.stored.get(&(Arc::from(topic), partition))
    }

    /// Moves a lane to an end that it has reached.
    ///
    /// # Errors
    /// `Transient` if what was passed over may have been compacted away, `Data` if a record that was written in parts lacks some.
    pub(super) fn reached(&mut self, lane: Lane, end: i64) -> Result<()> {
        let Some(partition) = self.lanes.get_mut(&lane) else { return Ok(()) };
        if partition.next < end {
            // The last offset may be a marker's.
            partition.pass(end - 1, self.promise)?;
            partition.next = end;
            self.moved.insert(lane);
        }
        if partition.next == end { partition.check_joined() } else { Ok(()) }
    }

    /// All that was written before `as_of_ms` to the lanes of a source is read: what they have moved tells so.
    ///
    /// # Errors
    /// `Transient` if what was passed over may have been compacted away.
    pub(super) fn complete_to(
        &mut self,
        as_of_ms: i64,
        source: &str,
        store: &Schemas,
        feed: &impl Feed,
    ) -> Result<()> {
        for (lane, partition) in &mut self.lanes {
            if partition.as_of_ms < as_of_ms
                && partition.barred.is_none()
                && store.source(&partition.topic) == Some(source)
            {
                partition.pass(feed.position(*lane) - 1, self.promise)?;
                partition.as_of_ms = as_of_ms;
                self.moved.insert(*lane);
            }
        }
        Ok(())
    }

    /// All that was written before `base_ms` to these lanes is read.
    pub(super) fn stamp(&mut self, lanes: impl Iterator<Item = Lane>, base_ms: i64) {
        for lane in lanes {
            if let Some(partition) = self.lanes.get_mut(&lane) {
                partition.as_of_ms = partition.as_of_ms.max(base_ms);
            }
        }
    }

    /// The lanes of a step are complete up to the moment of its watermark.
    pub(super) fn stamp_moved(&mut self, as_of_ms: i64) {
        for lane in &self.moved {
            if let Some(partition) = self.lanes.get_mut(lane) {
                partition.as_of_ms = partition.as_of_ms.max(as_of_ms);
            }
        }
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
    /// Passes over what lies between the last offset and `offset`.
    fn pass(&self, offset: i64, promise: Promise) -> Result<()> {
        if offset > self.next && !self.unswept && promise.may_be_broken(self.as_of_ms) {
            let (topic, partition, next) = (&self.topic, self.partition, self.next);
            return Err(Error::transient(format!(
                "topic {topic} partition {partition}: records from offset {next} on are older than compaction leaves alone; \
                 the table is read anew"
            )));
        }
        Ok(())
    }

    /// Goes on behind a truncation.
    fn pass_barrier(&mut self) {
        if let Some(barred) = self.barred.take() {
            self.next = barred.offset + 1;
            self.as_of_ms = self.as_of_ms.max(barred.ts_ms);
        }
    }

    /// Passes over a record of a writer that was displaced before it wrote it (`writer/at_least_once.rs`).
    fn drops(&mut self, fetched: &Fetched<'_>) -> bool {
        let Some(order) = order(fetched) else { return false };
        if order > self.order {
            self.order = order;
            return false;
        }
        let (topic, partition, offset) = (&self.topic, self.partition, fetched.offset);
        tracing::debug!(%topic, partition, offset, "a record of a displaced writer is dropped");
        self.next = offset + 1;
        true
    }

    /// `whole`: this reader has all partitions of the table.
    fn take(
        &mut self,
        fetched: Fetched<'_>,
        schemas: &Schemas,
        (whole, selected): (bool, Option<&Selected>),
        batch: &mut BatchBuilder,
    ) -> Result<()> {
        if self.changes != schemas.changes() {
            self.shapes = schemas.shapes(&self.topic, self.partition);
            let flags =
                |(_, schema): &(i64, Arc<TableSchema>)| selected.and_then(|selected| selected.of(schema));
            self.flags = self.shapes.iter().map(flags).collect();
            self.spread = schemas.spread(&self.topic);
            self.changes = schemas.changes();
        }
        let truncation = fetched.headers.iter().find(|(name, _)| *name == TRUNCATE_HEADER);
        if let (Some((_, id)), Some(value), true) = (truncation, fetched.value, whole && self.spread > 1) {
            self.barred = Some(Barred {
                id: id.to_vec(),
                offset: fetched.offset,
                ts_ms: fetched.ts_ms,
                key: fetched.key.map(<[u8]>::to_vec),
                value: value.to_vec(),
            });
            return Ok(());
        }
        let joined = self.join.take(fetched).map_err(|e| e.context(format!("read {}", self.topic)))?;
        match &joined {
            Joined::Plain(record) => self.decode(record, batch),
            Joined::Whole(offset, key, value) => {
                let (value, own) = (Some(&value[..]), Some(value));
                let whole =
                    Fetched { offset: *offset, key: key.as_deref(), value, own, ts_ms: 0, headers: &[] };
                self.decode(&whole, batch);
            }
            Joined::Piece => {}
        }
        self.next = fetched.offset + 1;
        if self.join.from().is_none() {
            self.as_of_ms = self.as_of_ms.max(fetched.ts_ms);
        }
        Ok(())
    }

    fn decode(&mut self, fetched: &Fetched<'_>, batch: &mut BatchBuilder) {
        let Fetched { offset, key, value, own, headers, .. } = *fetched;
        let (topic, partition, spread) = (&self.topic, self.partition, self.spread);
        let record = Record { topic, partition, offset, spread, key, value, own, headers };
        let number = schemas::number_at(&self.shapes, offset);
        let shape = number.map(|number| Shape {
            schema: &self.shapes[number].1,
            selected: self.flags.get(number).and_then(Option::as_deref),
        });
        match record.value {
            Some(_) => {
                let events = batch.events.len();
                decode_selected(&record, shape, batch);
                let deletion = batch.events[events..].last().is_some_and(|event| event.op == Op::Delete);
                self.deleted = record.key.filter(|_| deletion).map(<[u8]>::to_vec);
            }
            None if self.deleted.is_some() && self.deleted.as_deref() == record.key => self.deleted = None,
            None => tombstone(&record, shape.map(|shape| shape.schema), batch),
        }
    }

    /// At an end that was reached: no record may lack parts.
    fn check_joined(&mut self) -> Result<()> {
        let place = format!("read topic {} partition {}", self.topic, self.partition);
        self.join.check_end().map_err(|e| e.context(place))
    }

    fn offset(&self) -> LogOffset {
        LogOffset {
            topic: Arc::clone(&self.topic),
            topic_id: self.topic_id,
            partition: self.partition,
            offset: self.join.from().unwrap_or(self.next),
            // The client does not tell it.
            leader_epoch: -1,
            as_of_ms: self.as_of_ms,
            unswept: self.unswept,
            writer_epoch: self.order.0 as i64,
        }
    }
}
