//! A log of its own for each test, a capture to write it, and what a reader gave.

use caudal_core::{
    Batch, BatchBuilder, Boundary, Cell, Column, ColumnType, EventHead, Fault, KeyKind, LogPosition, Op,
    Position, Reader, Result, Sink, SnapshotMark, SourcePosition, SweepPart, TableId, TableSchema,
    Transaction, Writer,
};
use caudal_kafka::config::Topics;
use caudal_kafka::{CaptureOptions, Config, Consistency, Log, LogSource, ReadOptions};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A prefix of its own on the log under test.
pub(crate) struct TestLog {
    pub(crate) brokers: String,
    pub(crate) prefix: String,
    pub(crate) log: Log,
}

impl TestLog {
    /// None where no log is given to test against.
    pub(crate) fn from_env() -> Option<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        Self::of(&format!("r{now}x{}", std::process::id()), Topics::default())
    }

    /// With a prefix and settings of topics.
    pub(crate) fn of(prefix: &str, topics: Topics) -> Option<Self> {
        let brokers = std::env::var("CAUDAL_TEST_KAFKA").ok()?;
        let config = Config { brokers: vec![brokers.clone()], topics, ..Config::default() };
        let log = Log::new(config, prefix).unwrap();
        Some(Self { brokers, prefix: prefix.to_owned(), log })
    }

    /// The same, over other addresses.
    pub(crate) fn with_brokers(&self, brokers: &[&str]) -> Self {
        let all = brokers.iter().map(|b| (*b).to_owned()).collect();
        let config = Config { brokers: all, ..Config::default() };
        let log = Log::new(config, &self.prefix).unwrap();
        Self { brokers: self.brokers.clone(), prefix: self.prefix.clone(), log }
    }

    pub(crate) fn topic(&self, table: &str) -> String {
        format!("{}.db.{table}", self.prefix)
    }

    pub(crate) fn source(&self, sink: &str, from: &[&str], consistency: Consistency) -> Arc<LogSource> {
        let from = from.iter().map(|s| (*s).to_owned()).collect();
        self.log.sink_source(sink, from, consistency, ReadOptions::default())
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap()
    }

    /// Writes records to a topic and takes them back.
    pub(crate) async fn abort(&self, topic: &str, records: usize) {
        let (brokers, topic) = (self.brokers.clone(), topic.to_owned());
        let id = format!("{}-abort", self.prefix);
        let work = move || {
            let producer: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", &brokers)
                .set("transactional.id", id)
                .create()
                .unwrap();
            producer.init_transactions(PATIENCE).unwrap();
            producer.begin_transaction().unwrap();
            for _ in 0..records {
                producer
                    .send(BaseRecord::to(&topic).partition(0).key("k").payload("{}"))
                    .map_err(|(e, _)| e)
                    .unwrap();
            }
            producer.flush(PATIENCE).unwrap();
            producer.abort_transaction(PATIENCE).unwrap();
        };
        tokio::task::spawn_blocking(work).await.unwrap();
    }

    /// All committed records of a topic's first partition, by key.
    pub(crate) async fn all(&self, topic: &str) -> BTreeMap<String, Stored> {
        let (brokers, topic) = (self.brokers.clone(), topic.to_owned());
        let work = move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &brokers)
                .set("group.id", "none")
                .set("enable.partition.eof", "true")
                .create()
                .unwrap();
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
            consumer.assign(&list).unwrap();
            let mut all = BTreeMap::new();
            loop {
                match consumer.poll(PATIENCE).expect("an answer") {
                    Ok(message) => all.insert(text(message.key()), stored(&message)),
                    Err(KafkaError::PartitionEOF(_)) => return all,
                    Err(error) => panic!("{error}"),
                };
            }
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    /// Makes a topic as a capture would, less its settings.
    pub(crate) async fn create(&self, topic: &str) {
        let admin = self.admin();
        let new = [NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact")];
        eventually("the topic is made again", async || {
            let made = admin.create_topics(&new, &AdminOptions::new()).await.unwrap();
            made.iter().all(Result::is_ok)
        })
        .await;
    }

    /// Deletes a topic, so that the next capture makes it again.
    pub(crate) async fn delete(&self, topic: &str) {
        let admin = self.admin();
        for result in admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        let gone = || {
            let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(5)).unwrap();
            metadata.topics().iter().all(|t| t.name() != topic)
        };
        while !gone() {
            assert!(Instant::now() < deadline, "{topic} was not deleted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A record as it lies in a topic.
pub(crate) struct Stored {
    pub(crate) value: Vec<u8>,
    pub(crate) headers: BTreeMap<String, String>,
}

fn stored(message: &impl Message) -> Stored {
    let mut headers = BTreeMap::new();
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        headers.insert(header.key.to_owned(), text(header.value));
    }
    Stored { value: message.payload().unwrap_or_default().to_vec(), headers }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
}

/// Tries until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A change of one row of a table.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) table: String,
    pub(crate) op: Op,
    pub(crate) id: i64,
    pub(crate) text: String,
}

pub(crate) fn change(table: &str, op: Op, id: i64) -> Change {
    Change { table: table.into(), op, id, text: format!("{table} {id}") }
}

/// Writes source transactions.
pub(crate) struct Capture {
    sink: Arc<dyn Sink>,
    writer: Box<dyn Writer>,
    tables: BTreeMap<String, Arc<TableSchema>>,
    /// Of the last transaction.
    pub(crate) number: i64,
}

impl Capture {
    pub(crate) async fn open(log: &TestLog, source: &str) -> Self {
        let sink = log.log.capture_sink(source, CaptureOptions::default());
        let deadline = Instant::now() + PATIENCE;
        // What passes by itself (a topic was just made) is the engine's to try again; here there is none.
        let mut writer = loop {
            let opened = match sink.claim().await {
                Ok(()) => sink.open().await,
                Err(error) => Err(error),
            };
            match opened {
                Err(e) if e.fault() == Fault::Transient && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                opened => break opened.unwrap(),
            }
        };
        let resumed = writer.resume().await.unwrap();
        let number = resumed.and_then(|p| p.source()?.token.parse().ok()).unwrap_or(0);
        Self { sink, writer, tables: BTreeMap::new(), number }
    }

    /// One source transaction, committed.
    pub(crate) async fn transaction(&mut self, changes: &[Change]) {
        self.try_transaction(changes).await.unwrap();
    }

    /// One source transaction. A writer that fails is used up: the next attempt has a new one.
    pub(crate) async fn try_transaction(&mut self, changes: &[Change]) -> Result<()> {
        let written = self.write(changes).await;
        if written.is_err() {
            self.writer = self.sink.open().await?;
            self.writer.resume().await?;
        }
        written
    }

    async fn write(&mut self, changes: &[Change]) -> Result<()> {
        self.number += 1;
        let mut builder = BatchBuilder::default();
        let file = builder.copy(b"bin.000001");
        let transaction =
            builder.transaction(Transaction { file: Some(file), server_id: 1, ..Transaction::default() });
        for change in changes {
            self.add(&mut builder, transaction, change);
        }
        let position = SourcePosition { token: self.number.to_string(), ..SourcePosition::default() };
        let events = changes.len() as u32;
        let boundary = Some(Boundary { events, position: position.clone(), ts_us: self.number, scope: None });
        let mut batch = builder.build(Position::Source(position), boundary);
        if let Some(prepare) = self.writer.prepare() {
            prepare.prepare(&mut batch).unwrap();
        }
        assert!(self.writer.write(&mut batch).await?.rejected.is_empty());
        self.writer.commit().await.map(|_| ())
    }

    fn add(&mut self, builder: &mut BatchBuilder, transaction: u32, change: &Change) {
        let schema = self.tables.entry(change.table.clone()).or_insert_with(|| table(&change.table));
        let table = builder.table(schema);
        let row = |builder: &mut BatchBuilder| {
            let at = builder.cells.len() as u32;
            let text = builder.copy(change.text.as_bytes());
            builder.cells.extend([Cell::I64(change.id), Cell::Text(text)]);
            at
        };
        let none = caudal_core::batch::NO_ROW;
        let before = if matches!(change.op, Op::Update | Op::Delete) { row(builder) } else { none };
        let after = if matches!(change.op, Op::Delete) { none } else { row(builder) };
        builder.events.push(EventHead {
            table,
            transaction,
            before,
            after,
            row: 0,
            op: change.op,
            snapshot: SnapshotMark::False,
            pos: self.number as u64,
            ts_us: self.number,
        });
    }
}

fn table(name: &str) -> Arc<TableSchema> {
    let column = |id, name: &str, ty, native: &str| Column {
        id,
        name: name.into(),
        ty,
        nullable: id > 1,
        native: native.into(),
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    };
    Arc::new(TableSchema {
        id: TableId::new("db", name),
        version: 1,
        generation: 1,
        columns: vec![
            column(1, "id", ColumnType::Int { bits: 64 }, "bigint"),
            column(2, "text", ColumnType::Text { max_chars: Some(50) }, "varchar(50)"),
        ],
        key: vec![0],
        key_kind: KeyKind::Primary,
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        charset: None,
        comment: None,
    })
}

/// What a reader gave.
#[derive(Default)]
pub(crate) struct Seen {
    /// Table to events, as `c1`.
    pub(crate) events: BTreeMap<String, Vec<String>>,
    /// By batch: how many events, and whether it ended at a boundary.
    pub(crate) batches: Vec<(usize, bool)>,
    pub(crate) count: usize,
    pub(crate) undecodable: usize,
    /// All offsets that moved.
    pub(crate) position: LogPosition,
    pub(crate) ends_at_boundary: bool,
    /// Parts of sweeps, of whatever table.
    pub(crate) sweeps: Vec<SweepPart>,
}

impl Seen {
    pub(crate) fn of(&self, table: &str) -> Vec<String> {
        self.events.get(table).cloned().unwrap_or_default()
    }

    pub(crate) fn take(&mut self, batch: &Batch) {
        for event in &batch.events {
            let row = batch.after(event).or(batch.before(event)).unwrap();
            let Cell::I64(id) = row[0] else { panic!("an id is a number") };
            let table = batch.table(event).id.table.clone();
            self.events.entry(table).or_default().push(format!("{}{id}", event.op.letter()));
        }
        self.sweeps.extend(batch.sweeps.iter().map(|sweep| sweep.part));
        self.count += batch.events.len();
        self.undecodable += batch.undecodable.len();
        self.ends_at_boundary = batch.boundary.is_some();
        self.batches.push((batch.events.len(), batch.boundary.is_some()));
        self.advance(batch.position.log().unwrap());
    }

    fn advance(&mut self, position: &LogPosition) {
        for offset in &position.offsets {
            self.position.offsets.retain(|o| (&o.topic, o.partition) != (&offset.topic, offset.partition));
            self.position.offsets.push(offset.clone());
        }
    }

    pub(crate) fn extend(&mut self, later: Self) {
        for (table, events) in later.events {
            self.events.entry(table).or_default().extend(events);
        }
        self.count += later.count;
        self.advance(&later.position);
    }
}

/// Reads until `events` have come and the last batch ends at a boundary.
pub(crate) async fn drain(reader: &mut dyn Reader, events: usize) -> Seen {
    let mut seen = Seen::default();
    let read = async {
        while seen.count + seen.undecodable < events || !seen.ends_at_boundary {
            let batch = reader.next().await.unwrap();
            seen.take(&batch);
        }
    };
    assert!(tokio::time::timeout(PATIENCE, read).await.is_ok(), "fewer than {events} events came");
    assert_eq!(seen.count + seen.undecodable, events);
    seen
}

/// Reads until `events` have come, in either mode, and all sweeps that began are over.
pub(crate) async fn drain_events(reader: &mut dyn Reader, events: usize) -> Seen {
    let mut seen = Seen::default();
    let read = async {
        while seen.count < events || seen.sweeps.last() == Some(&SweepPart::Begin) {
            let batch = reader.next().await.unwrap();
            seen.take(&batch);
        }
    };
    let came = tokio::time::timeout(PATIENCE, read).await.is_ok();
    let (events_of, sweeps, bad) = (&seen.events, &seen.sweeps, seen.undecodable);
    assert!(
        came,
        "fewer than {events} events came: {events_of:?}, {sweeps:?}, {bad} undecodable, {:?}",
        seen.position
    );
    seen
}
