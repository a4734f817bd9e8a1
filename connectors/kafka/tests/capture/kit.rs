//! Batches to write, and what the log then holds.

use caudal_core::batch::NO_ROW;
use caudal_core::{
    Batch, BatchBuilder, Boundary, Cell, Column, ColumnType, EventHead, KeyKind, Op, Position, SnapshotMark,
    SourcePosition, TableId, TableSchema, Transaction, Writer,
};
use caudal_kafka::{CaptureOptions, Config, Log};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The brokers to test with, if there are any. `tests/run` starts some and names them here.
pub(crate) fn brokers() -> Option<String> {
    let brokers = std::env::var("CAUDAL_TEST_KAFKA").ok().filter(|b| !b.is_empty());
    if brokers.is_none() {
        eprintln!("CAUDAL_TEST_KAFKA names no brokers: this test needs them and did nothing");
    }
    brokers
}

/// A prefix that no other test or run has.
pub(crate) fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    format!("t{now}x{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn config(brokers: &str) -> Config {
    Config { brokers: vec![brokers.to_owned()], ..Config::default() }
}

pub(crate) fn log(brokers: &str, prefix: &str) -> Log {
    Log::new(config(brokers), prefix).unwrap()
}

pub(crate) async fn open(log: &Log, source: &str) -> Box<dyn Writer> {
    log.capture_sink(source, CaptureOptions::default()).open().await.unwrap()
}

/// `id` and `name`, keyed by `id` if `keyed`.
pub(crate) fn table(name: &str, keyed: bool) -> Arc<TableSchema> {
    let column = |id, name: &str, ty| Column {
        id,
        name: name.into(),
        ty,
        nullable: true,
        native: "x".into(),
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    };
    Arc::new(TableSchema {
        id: TableId::new("shop", name),
        version: 1,
        generation: 1,
        columns: vec![
            column(1, "id", ColumnType::Int { bits: 32 }),
            column(2, "name", ColumnType::Text { max_chars: None }),
        ],
        key: if keyed { vec![0] } else { vec![] },
        key_kind: if keyed { KeyKind::Primary } else { KeyKind::None },
        unique_keys: vec![],
        foreign_keys: vec![],
        charset: None,
        comment: None,
    })
}

/// Builds a batch of changes.
pub(crate) struct Changes {
    builder: BatchBuilder,
    boundary: Option<u32>,
}

impl Changes {
    pub(crate) fn new() -> Self {
        let mut builder = BatchBuilder::default();
        let file = builder.copy(b"binlog.000001");
        builder.transaction(Transaction { gtid: None, file: Some(file), server_id: 1, thread: 7 });
        Self { builder, boundary: None }
    }

    pub(crate) fn insert(self, table: &Arc<TableSchema>, id: i64) -> Self {
        self.event(table, Op::Create, None, Some(id))
    }

    pub(crate) fn delete(self, table: &Arc<TableSchema>, id: i64) -> Self {
        self.event(table, Op::Delete, Some(id), None)
    }

    pub(crate) fn event(
        mut self,
        table: &Arc<TableSchema>,
        op: Op,
        before: Option<i64>,
        after: Option<i64>,
    ) -> Self {
        let table = self.builder.table(table);
        let (before, after) = (self.row(before), self.row(after));
        self.builder.events.push(EventHead {
            table,
            transaction: 0,
            before,
            after,
            row: 0,
            op,
            snapshot: SnapshotMark::False,
            pos: 4,
            ts_us: 1_700_000_000_000_000,
        });
        self
    }

    fn row(&mut self, id: Option<i64>) -> u32 {
        let Some(id) = id else { return NO_ROW };
        let at = self.builder.cells.len() as u32;
        let name = self.builder.copy(format!("name {id}").as_bytes());
        self.builder.cells.extend([Cell::I64(id), Cell::Text(name)]);
        at
    }

    /// The source's transaction ends here.
    pub(crate) fn boundary(mut self) -> Self {
        self.boundary = Some(self.builder.events.len() as u32);
        self
    }

    pub(crate) fn build(self, token: &str) -> Batch {
        self.build_with_notes(token, &[])
    }

    pub(crate) fn build_with_notes(self, token: &str, notes: &[(&str, Option<&str>)]) -> Batch {
        let notes = notes.iter().map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned))).collect();
        let position = SourcePosition { token: token.into(), notes };
        let boundary = self.boundary.map(|events| Boundary {
            events,
            position: SourcePosition { token: format!("{token}-boundary"), notes: Default::default() },
            ts_us: 1_700_000_000_000_000,
            scope: None,
        });
        self.builder.build(Position::Source(position), boundary)
    }
}

pub(crate) async fn put(writer: &mut dyn Writer, mut batch: Batch) -> caudal_core::Result<Position> {
    writer.write(&mut batch).await?;
    writer.commit().await
}

/// A record as a consumer sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) offset: i64,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<Value>,
    pub(crate) headers: Vec<(String, String)>,
}

/// All that a `read_committed` consumer sees in a partition now.
pub(crate) fn read(brokers: &str, topic: &str, partition: i32) -> Vec<Seen> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test-reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut seen = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(20)) {
            None => panic!("{topic}/{partition} is silent"),
            Some(Err(KafkaError::PartitionEOF(_))) => return seen,
            Some(Err(e)) => panic!("{topic}/{partition}: {e}"),
            Some(Ok(message)) => seen.push(Seen {
                offset: message.offset(),
                key: message.key().map(|k| String::from_utf8(k.to_vec()).unwrap()),
                value: message.payload().map(|v| serde_json::from_slice(v).unwrap()),
                headers: message.headers().map_or_else(Vec::new, |headers| {
                    let text = |v: Option<&[u8]>| String::from_utf8(v.unwrap_or_default().to_vec()).unwrap();
                    headers.iter().map(|h| (h.key.to_owned(), text(h.value))).collect()
                }),
            }),
        }
    }
}

/// The values of the records under one key.
pub(crate) fn values(records: &[Seen], key: &str) -> Vec<Value> {
    records.iter().filter(|r| r.key.as_deref() == Some(key)).filter_map(|r| r.value.clone()).collect()
}

/// The newest watermark of the only source of a prefix.
pub(crate) fn watermarks(brokers: &str, prefix: &str) -> Vec<Value> {
    let records = read(brokers, &format!("caudal.{prefix}.watermarks"), 0);
    records.into_iter().filter_map(|r| r.value).collect()
}
