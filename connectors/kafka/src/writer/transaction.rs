//! One Kafka transaction: schema records, data, watermark, position.
//!
//! In one step ([`Steps::One`]) all is sent at once with predicted offsets, and the delivery reports are compared before the
//! commit. In many ([`Steps::Many`]) the sending stops wherever an offset is needed until all before is delivered. Records that
//! are written at least once are sent in no transaction ([`Steps::Loose`]): `at_least_once.rs` says what is then.

use crate::encode::ORDER_HEADER;
use crate::encode::plan::TablePlan;
use crate::encode::{Encoded, system_clock};
use crate::replay::Partition;
use crate::writer::polled::Polled;
use crate::writer::at_least_once;
use crate::writer::deliveries::{Delivered, NO_SLOT};
use crate::writer::flush::flush;
use crate::writer::ledger::Slots;
use crate::writer::session::{LINGER, Session};
use caudal_core::{Boundary, Error, Result, SourcePosition};
use caudal_proto::side::{
    OpenTransaction, PositionRecord, SchemaRecord, TopicEnds, VERSION, WatermarkRecord,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a watermark lists all partitions, at last; four times while one is kept, if that is more often.
const FULL_EVERY: Duration = Duration::from_secs(300);
/// The same while topics are being met one after the other, as in a first snapshot.
const FULL_AT_MOST_EVERY: Duration = Duration::from_secs(10);
/// The library's own `batch.size`: topics that others made take a megabyte.
const BATCH_BYTES: u64 = 1_000_000;
/// A flush is asked for so long before a failure is looked for again.
const FLUSH: Duration = Duration::from_millis(100);
/// How often another writer is told of.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A batch that was accepted and waits for the commit.
pub(crate) struct Accepted {
    pub(crate) encoded: Encoded,
    pub(crate) position: SourcePosition,
    pub(crate) boundary: Option<Boundary>,
    /// Records of the topic of schema changes.
    pub(crate) ddl: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steps {
    One,
    Many,
    /// In no transaction.
    Loose,
}

/// Where a source stands after some batches: what is stored of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub(super) token: String,
    /// Notes that changed.
    pub(super) notes: BTreeMap<String, Option<String>>,
    /// The announced transaction that goes on.
    pub(super) open: Option<OpenTransaction>,
}

impl Standing {
    /// After these too.
    pub(super) fn follow(&mut self, accepted: &[Accepted]) {
        for Accepted { position, encoded, .. } in accepted {
            self.notes.extend(position.notes.iter().map(|(name, text)| (name.clone(), text.clone())));
            self.token.clone_from(&position.token);
            self.open.clone_from(&encoded.open);
        }
    }
}

/// Commits all that was accepted as one transaction.
///
/// # Errors
/// `Fenced`, `Transient` (reopen: the outcome is settled there), `Config`, `Data`; `Bug` for a shape that changed without
/// a new version.
pub(crate) fn commit(session: &mut Session, mut accepted: Vec<Accepted>) -> Result<()> {
    if session.loose.is_some() {
        return at_least_once::write(session, accepted);
    }
    if let Some(end) = session.last_end {
        session.markers.wait(end, session.identity.clients.resolved());
    }
    if attempt(session, &mut accepted, Steps::One)? {
        return Ok(());
    }
    session.statistics.repeat();
    warn_of_another_writer(session);
    if attempt(session, &mut accepted, Steps::Many)? {
        return Ok(());
    }
    Err(Error::transient("another writer keeps writing to this source's topics"))
}

/// Once a minute: a writer that stays would else be told of in each transaction.
pub(super) fn warn_of_another_writer(session: &mut Session) {
    if session.last_warning.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
        session.last_warning = Some(Instant::now());
        tracing::warn!(
            source = session.identity.source,
            "another writer is in this source's topics; transactions are repeated in steps"
        );
    }
}

/// False: the offsets were not as predicted, and nothing was committed. Else nothing is accepted any more: its memory is given back before
/// anyone may read what was sent.
fn attempt(session: &mut Session, accepted: &mut Vec<Accepted>, steps: Steps) -> Result<bool> {
    session.producer.context().reset();
    session.producer.begin_transaction().map_err(|e| session.failure(e, "begin a transaction"))?;
    let mut run = Run::new(session, steps);
    let sent = run.send_all(accepted).and_then(|()| run.as_predicted());
    match sent {
        Ok(true) => {}
        Ok(false) => {
            let partitions: Vec<Partition> = run.slots.list.into_iter().map(|s| s.partition).collect();
            session.abort();
            // Another writer, or another topic under the old name: its offsets begin again, and it has no shapes yet.
            session.meet_again(&partitions);
            session.learn_ends(&partitions)?;
            return Ok(false);
        }
        Err(error) => {
            session.abort();
            return Err(error);
        }
    }
    accepted.clear();
    session.commit_transaction()?;
    let done = run.done();
    apply(session, steps, done);
    Ok(true)
}

/// What a committed transaction changes in the books.
pub(super) struct Done {
    pub(super) lasts: Vec<(Partition, i64)>,
    touched: BTreeMap<Partition, i64>,
    shapes: Vec<Arc<TablePlan>>,
    watermark: Option<(i64, bool)>,
    heartbeat: bool,
    records: u64,
    bytes: u64,
}

/// Takes into the books what was sent and, in a transaction, committed.
pub(super) fn apply(session: &mut Session, steps: Steps, done: Done) {
    for (partition, last) in done.lasts {
        match steps {
            Steps::Loose => session.ledger.written(partition, last),
            Steps::One | Steps::Many => session.ledger.committed(partition, last),
        }
    }
    for plan in done.shapes {
        let topic = session.topics.entry(plan.topic.clone()).or_default();
        topic.shapes.insert(plan.schema.version, Arc::clone(&plan.schema));
    }
    if steps != Steps::Loose {
        session.touched = done.touched;
    }
    let now = Instant::now();
    if let Some((ts_us, full)) = done.watermark {
        session.watermark += 1;
        session.ts_us = ts_us;
        if full {
            session.last_full = Some(now);
            session.full_wanted = false;
        }
    }
    if done.heartbeat {
        session.last_heartbeat = Some(now);
    }
    session.last_end = Some(now);
    session.statistics.committed(done.records, done.bytes);
}

pub(super) struct Run<'a> {
    session: &'a Session,
    producer: &'a Polled,
    steps: Steps,
    /// The number of the next record, where records tell theirs.
    pub(super) number: u64,
    pub(super) slots: Slots,
    /// Records sent, of all topics.
    sent: u64,
    records: u64,
    bytes: u64,
    shapes: Vec<Arc<TablePlan>>,
    /// Source time, and whether it was a full one.
    watermark: Option<(i64, bool)>,
    heartbeat: bool,
}

impl<'a> Run<'a> {
    /// Through the producer of the steps, which has nothing in flight.
    pub(super) fn new(session: &'a Session, steps: Steps) -> Self {
        let loose = session.loose.as_ref().filter(|_| steps == Steps::Loose);
        Self {
            session,
            producer: loose.map_or(&session.producer, |loose| &loose.producer),
            number: loose.map_or(0, |loose| loose.number),
            steps,
            slots: Slots::default(),
            sent: 0,
            records: 0,
            bytes: 0,
            shapes: Vec::new(),
            watermark: None,
            heartbeat: false,
        }
    }

    fn send_all(&mut self, accepted: &[Accepted]) -> Result<()> {
        let last_boundary = accepted.iter().rposition(|a| a.boundary.is_some());
        for (i, batch) in accepted.iter().enumerate() {
            let boundary = batch.boundary.as_ref().filter(|_| last_boundary == Some(i));
            self.send_batch(batch, boundary)?;
        }
        self.send_heartbeat()?;
        let mut standing = Standing::default();
        standing.follow(accepted);
        if !accepted.is_empty() {
            self.send_position(&standing)?;
        }
        self.delivered()
    }

    /// The records of a batch, with the watermark at its boundary.
    pub(super) fn send_batch(&mut self, batch: &Accepted, boundary: Option<&Boundary>) -> Result<()> {
        let encoded = &batch.encoded;
        let split = boundary.and(encoded.boundary);
        let mut slots: Vec<Vec<Option<usize>>> =
            encoded.tables.iter().map(|t| vec![None; t.partitions.max(1) as usize]).collect();
        if self.steps == Steps::Loose {
            self.publish_first(batch)?;
        }
        let mut met = vec![false; encoded.tables.len()];
        for (i, record) in encoded.records.iter().enumerate() {
            if let (Some(boundary), true) = (boundary, split == Some(i)) {
                self.send_watermark(boundary)?;
            }
            let table = record.table as usize;
            let plan = &encoded.tables[table];
            if !std::mem::replace(&mut met[table], true) {
                self.send_schema(plan, &batch.position.token)?;
            }
            let ledger = &self.session.ledger;
            let slot = *slots[table][record.partition as usize]
                .get_or_insert_with(|| self.slots.of(&plan.topic, record.partition, ledger));
            let arena = &encoded.arena;
            let key = record.key.as_ref().map(|span| &arena[span.clone()]);
            let value = record.value.as_ref().map(|span| &arena[span.clone()]);
            let own = record.header.as_ref().map(|(kind, span)| (kind.name(), &arena[span.clone()]));
            let order = self.next_order();
            let headers = headers(own, order.as_deref(), &self.session.context);
            self.send(&plan.topic, record.partition, (key, value), headers, slot)?;
            self.slots.list[slot].sent += 1;
            self.records += 1;
            self.bytes += (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)) as u64;
        }
        // Shapes without rows: the reader announces empty tables, and what a schema change has made.
        for (plan, _) in encoded.tables.iter().zip(&met).filter(|(_, met)| !**met) {
            self.send_schema(plan, &batch.position.token)?;
        }
        if let (Some(boundary), true) = (boundary, split == Some(encoded.records.len())) {
            self.send_watermark(boundary)?;
        }
        let names = &self.session.identity.names;
        for (key, value) in &batch.ddl {
            let headers = headers(None, None, &self.session.context);
            self.send(names.prefix(), 0, (Some(key), Some(value)), headers, NO_SLOT)?;
        }
        let transactions = names.transactions();
        for (key, value) in &encoded.transactions {
            let pair = (Some(&encoded.arena[key.clone()]), Some(&encoded.arena[value.clone()]));
            self.send(&transactions, 0, pair, None, NO_SLOT)?;
        }
        Ok(())
    }

    /// What a record tells of its place among all, where records do.
    fn next_order(&mut self) -> Option<String> {
        if self.steps != Steps::Loose {
            return None;
        }
        self.number += 1;
        Some(format!("{}/{}", self.session.epoch, self.number))
    }

    /// Debezium's heartbeat, if it is time.
    pub(super) fn send_heartbeat(&mut self) -> Result<()> {
        let identity = &self.session.identity;
        let every = identity.clients.resolved().config.heartbeats.get();
        if every.is_zero() || self.session.last_heartbeat.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        let key = serde_json::json!({ "serverName": identity.names.prefix() }).to_string();
        let value = serde_json::json!({ "ts_ms": system_clock() / 1_000 }).to_string();
        let topic = identity.names.heartbeats();
        self.send(&topic, 0, (Some(key.as_bytes()), Some(value.as_bytes())), None, NO_SLOT)?;
        self.heartbeat = true;
        Ok(())
    }

    /// The shape's record, unless an earlier row had it.
    fn send_schema(&mut self, plan: &Arc<TablePlan>, position: &str) -> Result<()> {
        let known = self.session.topics.get(&plan.topic);
        let version = plan.schema.version;
        if let Some(shape) = known.and_then(|t| t.shapes.get(&version)) {
            return same_shape(plan, shape);
        }
        if self.shapes.iter().any(|p| p.topic == plan.topic && p.schema.version == version) {
            return Ok(());
        }
        if self.steps == Steps::Loose {
            return self.publish(&[plan], position);
        }
        let (key, record) = self.schema_record(plan, position)?;
        self.send_side(&self.session.identity.names.schemas(), &key, Some(&record))?;
        self.shapes.push(Arc::clone(plan));
        Ok(())
    }

    /// The shapes that a batch's records need from its first record on, in one go: those of a topic that has but one in it.
    fn publish_first(&mut self, batch: &Accepted) -> Result<()> {
        let tables = &batch.encoded.tables;
        let known = |plan: &TablePlan| {
            let known = self.session.topics.get(&plan.topic);
            let version = plan.schema.version;
            known.is_some_and(|t| t.shapes.contains_key(&version))
                || self.shapes.iter().any(|p| p.topic == plan.topic && p.schema.version == version)
        };
        let alone = |plan: &TablePlan| tables.iter().filter(|other| other.topic == plan.topic).count() == 1;
        let plans: Vec<_> = tables.iter().filter(|plan| alone(plan) && !known(plan)).collect();
        if plans.is_empty() { Ok(()) } else { self.publish(&plans, &batch.position.token) }
    }

    /// Commits shapes before a record has them, so that whoever reads a record finds its shape.
    fn publish(&mut self, plans: &[&Arc<TablePlan>], position: &str) -> Result<()> {
        let records = plans.iter().map(|plan| self.schema_record(plan, position));
        let records = records.collect::<Result<Vec<_>>>()?;
        let topic = self.session.identity.names.schemas();
        let session = self.session;
        session.aside(|aside| {
            records.iter().try_for_each(|(key, record)| aside.send_side(&topic, key, Some(record)))
        })?;
        self.shapes.extend(plans.iter().map(|plan| Arc::clone(plan)));
        Ok(())
    }

    /// A shape's key and record.
    fn schema_record(&self, plan: &Arc<TablePlan>, position: &str) -> Result<(String, SchemaRecord)> {
        let known = self.session.topics.get(&plan.topic);
        self.settle()?;
        let from = (0..plan.partitions as i32)
            .map(|partition| (partition, self.end(&(plan.topic.clone(), partition))))
            .collect();
        let identity = &self.session.identity;
        let record = SchemaRecord {
            v: VERSION,
            source: identity.source.clone(),
            topic: plan.topic.clone(),
            topic_id: known.map_or_else(Default::default, |t| t.id),
            partitions: plan.partitions,
            from,
            position: position.to_owned(),
            schema: plan.schema.as_ref().clone(),
        };
        Ok((format!("{}/{}", plan.topic, plan.schema.version), record))
    }

    /// The watermark with the ends as they are at this point of the sending.
    pub(super) fn send_watermark(&mut self, boundary: &Boundary) -> Result<()> {
        self.settle()?;
        let session = self.session;
        // A sink that finds its own watermark gone needs a full one to begin with, and that must be there.
        let kept = session.identity.clients.resolved().config.topics.watermark_retention.get();
        let every = if session.full_wanted { FULL_AT_MOST_EVERY } else { FULL_EVERY }.min(kept / 4);
        let full = session.last_full.is_none_or(|at| at.elapsed() >= every);
        let mut ends = session.touched.clone();
        if full {
            ends.extend(session.ledger.all().map(|(partition, end)| (partition.clone(), end)));
        }
        for slot in 0..self.slots.list.len() {
            let end = self.slot_end(slot);
            let slot = &mut self.slots.list[slot];
            slot.before_boundary = slot.sent;
            ends.insert(slot.partition.clone(), end);
        }
        let mut by_topic: BTreeMap<String, TopicEnds> = BTreeMap::new();
        for ((topic, partition), end) in ends {
            let id = session.topics.get(&topic).map_or_else(Default::default, |t| t.id);
            by_topic
                .entry(topic)
                .or_insert_with(|| TopicEnds { id, ends: Vec::new() })
                .ends
                .push((partition, end));
        }
        let ts_us = boundary.ts_us.max(session.ts_us);
        let record = WatermarkRecord {
            v: VERSION,
            source: session.identity.source.clone(),
            number: session.watermark + 1,
            full,
            position: boundary.position.token.clone(),
            ts_us,
            ends: by_topic,
            incomplete: boundary.scope.as_ref().map(|s| s.incomplete.clone()).unwrap_or_default(),
            at_least_once: session.loose.is_some(),
        };
        self.send_side(&session.identity.names.watermarks(), &session.identity.source, Some(&record))?;
        self.watermark = Some((ts_us, full));
        Ok(())
    }

    /// The position, with the notes that changed since the last.
    pub(super) fn send_position(&mut self, standing: &Standing) -> Result<()> {
        self.settle()?;
        let identity = &self.session.identity;
        let topic = identity.names.positions();
        for (name, text) in &standing.notes {
            let key = format!("{}/{name}", identity.source);
            self.send(
                &topic,
                identity.number,
                (Some(key.as_bytes()), text.as_deref().map(str::as_bytes)),
                None,
                NO_SLOT,
            )?;
        }
        let mut touched: BTreeMap<String, Vec<(i32, i64)>> = BTreeMap::new();
        for ((topic, partition), end) in self.touched() {
            touched.entry(topic).or_default().push((partition, end));
        }
        let record = PositionRecord {
            v: VERSION,
            token: standing.token.clone(),
            touched,
            watermark: self.session.watermark + u64::from(self.watermark.is_some()),
            epoch: self.session.epoch,
            transaction: standing.open.clone(),
        };
        self.send_side(&topic, &identity.source, Some(&record))
    }

    /// What the next watermark starts from.
    fn touched(&self) -> BTreeMap<Partition, i64> {
        let mut touched = match self.watermark {
            Some(_) => BTreeMap::new(),
            None => self.session.touched.clone(),
        };
        for (i, slot) in self.slots.list.iter().enumerate().filter(|(_, s)| s.sent > s.before_boundary) {
            touched.insert(slot.partition.clone(), self.slot_end(i));
        }
        touched
    }

    /// In steps, offsets are known once all that was sent is delivered; in one step they are predicted.
    fn settle(&self) -> Result<()> {
        match self.steps {
            Steps::One => Ok(()),
            Steps::Many | Steps::Loose => self.delivered(),
        }
    }

    fn slot_end(&self, slot: usize) -> i64 {
        let delivered = self.producer.context().slot(slot);
        match self.steps {
            Steps::Many | Steps::Loose if delivered.count > 0 => delivered.last + 1,
            _ => self.slots.list[slot].end(),
        }
    }

    fn end(&self, partition: &Partition) -> i64 {
        match self.slots.find(partition) {
            Some(slot) => self.slot_end(slot),
            None => self.session.ledger.end(partition),
        }
    }

    /// Waits until all that was sent is delivered.
    pub(super) fn delivered(&self) -> Result<()> {
        let producer = self.producer;
        let deliveries = producer.context();
        let failed = |e| self.session.failure(e, "deliver the records");
        // Full batches leave by themselves; only what cannot fill one any more is told to.
        let in_a_batch = BATCH_BYTES * self.records.max(1) / self.bytes.max(1);
        if let Some(full) = self.sent.checked_sub(in_a_batch.max(1)) {
            deliveries.wait(full, LINGER).map_err(failed)?;
        }
        let patience = self.session.identity.clients.resolved().config.transaction_timeout.get();
        let deadline = Instant::now() + patience;
        while !deliveries.wait(self.sent, Duration::ZERO).map_err(failed)? {
            if Instant::now() >= deadline {
                return Err(Error::transient("the brokers did not take the records in time"));
            }
            flush(&**producer, FLUSH);
        }
        Ok(())
    }

    /// Whether each partition's records got the offsets that the watermark, position and schema records tell.
    fn as_predicted(&self) -> Result<bool> {
        let deliveries = self.producer.context();
        Ok(self.slots.list.iter().enumerate().all(|(i, slot)| {
            let delivered = deliveries.slot(i);
            match self.steps {
                Steps::Many | Steps::Loose => delivered.count == slot.sent,
                Steps::One => {
                    let wanted = Delivered { first: slot.start, last: slot.end() - 1, count: slot.sent };
                    delivered == wanted
                }
            }
        }))
    }

    /// Whether nobody else wrote to the partitions meanwhile, as far as offsets tell.
    pub(super) fn is_alone(&self) -> bool {
        let deliveries = self.producer.context();
        self.slots.list.iter().enumerate().all(|(i, slot)| {
            let wanted = Delivered { first: slot.start, last: slot.end() - 1, count: slot.sent };
            deliveries.slot(i) == wanted
        })
    }

    /// Where the partitions that were written to end now.
    pub(super) fn ends(&self) -> BTreeMap<Partition, i64> {
        let slots = self.slots.list.iter().enumerate();
        slots.map(|(i, slot)| (slot.partition.clone(), self.slot_end(i))).collect()
    }

    pub(super) fn done(self) -> Done {
        let deliveries = self.producer.context();
        let lasts = (0..self.slots.list.len())
            .map(|i| (self.slots.list[i].partition.clone(), deliveries.slot(i).last))
            .collect();
        Done {
            lasts,
            touched: self.touched(),
            shapes: self.shapes,
            watermark: self.watermark,
            heartbeat: self.heartbeat,
            records: self.records,
            bytes: self.bytes,
        }
    }

    pub(super) fn send_side<T: Serialize>(
        &mut self,
        topic: &str,
        key: &str,
        record: Option<&T>,
    ) -> Result<()> {
        let value = serde_json::to_vec(&record)
            .map_err(|e| Error::bug(format!("encode a record of {topic}")).because(e))?;
        let partition = self.session.identity.number;
        self.send(topic, partition, (Some(key.as_bytes()), Some(&value)), None, NO_SLOT)
    }

    fn send(
        &mut self,
        topic: &str,
        partition: i32,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: Option<OwnedHeaders>,
        slot: usize,
    ) -> Result<()> {
        let producer = self.producer;
        let mut record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(topic, slot).partition(partition);
        record.key = key;
        record.payload = value;
        record.headers = headers;
        let patience = self.session.identity.clients.resolved().config.transaction_timeout.get();
        let deadline = Instant::now() + patience;
        loop {
            match producer.send(record) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same))
                    if Instant::now() < deadline =>
                {
                    record = same;
                    let next = producer.context().reported() + 1;
                    producer
                        .context()
                        .wait(next, Duration::from_millis(50))
                        .map_err(|e| self.session.failure(e, "deliver the records"))?;
                }
                Err((e, _)) => return Err(self.session.failure(e, &format!("send a record to {topic}"))),
            }
        }
    }
}

/// A record's own header, its place where it tells one, then those that all records of the session have.
fn headers(
    own: Option<(&str, &[u8])>,
    order: Option<&str>,
    context: &[(&'static str, String)],
) -> Option<OwnedHeaders> {
    let count = usize::from(own.is_some()) + usize::from(order.is_some()) + context.len();
    if count == 0 {
        return None;
    }
    let context = context.iter().map(|(key, value)| (*key, value.as_bytes()));
    let order = order.map(|order| (ORDER_HEADER, order.as_bytes()));
    let all = own.into_iter().chain(order).chain(context);
    Some(all.fold(OwnedHeaders::new_with_capacity(count), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    }))
}

/// A version stands for one shape: else records written before would be read by the wrong one.
fn same_shape(plan: &TablePlan, known: &Arc<caudal_core::TableSchema>) -> Result<()> {
    let schema = &plan.schema;
    let of = |s: &caudal_core::TableSchema| {
        let columns: Vec<_> = s.columns.iter().map(|c| (c.id, c.name.clone(), c.ty.clone())).collect();
        (columns, s.key.clone())
    };
    if Arc::ptr_eq(schema, known) || of(schema) == of(known) {
        return Ok(());
    }
    Err(Error::bug(format!("version {} of {} has another shape than before", schema.version, schema.id)))
}
