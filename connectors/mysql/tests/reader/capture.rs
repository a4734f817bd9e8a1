//! A source with a log around it, to read again from: what was delivered, and what a sink would hold.

use crate::server::{Database, Stored, next};
use crate::state::State;
use async_trait::async_trait;
use caudal_core::{
    Action, Batch, BatchBuilder, Cell, EventHead, Op, Phase, Position, Progress, Reader, Result, Signal,
    Source, TableId, TableSchema, Written, WrittenRows,
};
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A cell that owns its bytes.
#[derive(Clone)]
enum Owned {
    Plain(Cell),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Decimal(Vec<u8>),
    Json(Vec<u8>),
}

#[derive(Clone)]
struct Event {
    schema: Arc<TableSchema>,
    op: Op,
    before: Option<Vec<Owned>>,
    after: Option<Vec<Owned>>,
}

/// What a log would hold: all events, in order. Counts how often it was read.
#[derive(Clone, Default)]
pub(crate) struct Topic(Arc<Mutex<Vec<Event>>>, pub(crate) Arc<AtomicUsize>);

fn owned(batch: &Batch, cells: &[Cell]) -> Vec<Owned> {
    let own = |&cell: &Cell| match cell {
        Cell::Text(s) => Owned::Text(batch.bytes(s).to_vec()),
        Cell::Bytes(s) => Owned::Bytes(batch.bytes(s).to_vec()),
        Cell::Decimal(s) => Owned::Decimal(batch.bytes(s).to_vec()),
        Cell::Json(s) => Owned::Json(batch.bytes(s).to_vec()),
        plain => Owned::Plain(plain),
    };
    cells.iter().map(own).collect()
}

fn image(cells: Option<&Vec<Owned>>, out: &mut BatchBuilder) -> u32 {
    let Some(cells) = cells else { return caudal_core::batch::NO_ROW };
    let at = out.cells.len() as u32;
    for cell in cells {
        let cell = match cell {
            Owned::Plain(cell) => *cell,
            Owned::Text(b) => Cell::Text(out.copy(b)),
            Owned::Bytes(b) => Cell::Bytes(out.copy(b)),
            Owned::Decimal(b) => Cell::Decimal(out.copy(b)),
            Owned::Json(b) => Cell::Json(out.copy(b)),
        };
        out.cells.push(cell);
    }
    at
}

impl Topic {
    pub(crate) fn take(&self, batch: &Batch) {
        let mut events = self.0.lock().unwrap();
        events.extend(batch.events.iter().map(|e| Event {
            schema: Arc::clone(batch.table(e)),
            op: e.op,
            before: batch.before(e).map(|cells| owned(batch, cells)),
            after: batch.after(e).map(|cells| owned(batch, cells)),
        }));
    }
}

#[async_trait]
impl Written for Topic {
    async fn open(&self, table: &TableId) -> Result<Box<dyn WrittenRows>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let events: Vec<Event> =
            self.0.lock().unwrap().iter().filter(|e| e.schema.id == *table).cloned().collect();
        Ok(Box::new(Rows(events.into_iter().collect())))
    }
}

struct Rows(std::collections::VecDeque<Event>);

#[async_trait]
impl WrittenRows for Rows {
    async fn next(&mut self) -> Result<Option<Batch>> {
        let mut builder = BatchBuilder::default();
        for event in self.0.drain(..self.0.len().min(100)) {
            let table = builder.table(&event.schema);
            let before = image(event.before.as_ref(), &mut builder);
            let after = image(event.after.as_ref(), &mut builder);
            builder.events.push(EventHead {
                table,
                transaction: 0,
                before,
                after,
                row: 0,
                op: event.op,
                snapshot: caudal_core::SnapshotMark::False,
                pos: 0,
                ts_us: 0,
            });
        }
        let empty = builder.events.is_empty();
        Ok((!empty).then(|| builder.build(Position::Log(Default::default()), None)))
    }
}

/// A source with all that is around it.
pub(crate) struct Capture {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) reader: Box<dyn Reader>,
    pub(crate) topic: Topic,
    pub(crate) state: State,
    pub(crate) stored: Stored,
    /// Operations by table since the last look.
    pub(crate) ops: BTreeMap<(String, char), usize>,
    pub(crate) numbers: i64,
    /// What outlives a process beside the log.
    pub(crate) kept: tempfile::TempDir,
}

impl Capture {
    pub(crate) async fn open(database: &Database, extra: &str) -> Self {
        let source = caudal_mysql::source("test", database.config(extra)).unwrap();
        let topic = Topic::default();
        source.bind(Arc::new(topic.clone()));
        let kept = tempfile::tempdir().unwrap();
        source.keep_in(kept.path());
        let reader = source.open(None).await.unwrap();
        let (state, stored) = (State::default(), Stored::default());
        Self { source, reader, topic, state, stored, ops: BTreeMap::new(), numbers: 0, kept }
    }

    /// As a process that was killed and started again.
    pub(crate) async fn reopen(&mut self, database: &Database, extra: &str) {
        self.source = caudal_mysql::source("test", database.config(extra)).unwrap();
        self.source.bind(Arc::new(self.topic.clone()));
        self.source.keep_in(self.kept.path());
        let from = self.stored.position.clone().map(Position::Source);
        self.reader = self.source.open(from).await.unwrap();
    }

    pub(crate) async fn step(&mut self) {
        let batch = next(&mut self.reader).await;
        self.topic.take(&batch);
        self.state.apply(&batch);
        self.stored.apply(&batch);
        for event in &batch.events {
            let of = (batch.table(event).id.table.clone(), event.op.letter());
            *self.ops.entry(of).or_default() += 1;
        }
        self.reader.commit(&batch.position).await.unwrap();
    }

    pub(crate) async fn snapshot(&mut self, tables: &[&str]) {
        while !self.stored.done(tables) {
            self.step().await;
        }
        self.ops.clear();
    }

    pub(crate) fn signal(&mut self, id: &str, action: Action) {
        self.numbers += 1;
        let (number, origin) = (self.numbers, String::new());
        self.source.signal(Signal { number, origin, id: id.to_owned(), action });
    }

    pub(crate) fn reread(&mut self, id: &str, table: &str, condition: Option<&str>) {
        let conditions = condition.map(|c| (table.to_owned(), c.to_owned())).into_iter().collect();
        self.signal(id, Action::Reread { tables: vec![table.to_owned()], conditions });
    }

    pub(crate) fn ended(&self, id: &str) -> Vec<Progress> {
        let all = self.source.progress();
        let ends = |p: &Progress| matches!(p.phase, Phase::Done | Phase::Stopped | Phase::Refused);
        if all.iter().any(|p| p.id == id && !ends(p)) {
            return Vec::new();
        }
        all.into_iter().filter(|p| p.id == id).collect()
    }

    /// Until the command is done, and nothing of it is left to be stored.
    pub(crate) async fn until(&mut self, id: &str) -> Vec<Progress> {
        while self.ended(id).is_empty() || self.pending() > 0 {
            self.step().await;
        }
        self.ended(id)
    }

    /// Re-reads that are stored as not done.
    pub(crate) fn pending(&self) -> usize {
        let notes = self.stored.position.iter().flat_map(|p| p.notes.keys());
        notes.filter(|name| name.starts_with("reread/")).count()
    }

    /// Until the stream has brought what was committed before.
    pub(crate) async fn catch_up(&mut self, database: &Database) {
        database.run(&["CREATE TABLE IF NOT EXISTS marker (id INT PRIMARY KEY AUTO_INCREMENT)"]).await;
        database.run(&["INSERT INTO marker VALUES (NULL)"]).await;
        let mut conn = database.connect().await;
        let last: i64 = conn.query_first("SELECT MAX(id) FROM marker").await.unwrap().unwrap();
        let key = vec![last.to_string()];
        while !self.state.tables.get("marker").is_some_and(|m| m.contains_key(&key)) {
            self.step().await;
        }
    }

    pub(crate) fn count(&self, table: &str, op: char) -> usize {
        self.ops.get(&(table.to_owned(), op)).copied().unwrap_or(0)
    }
}

/// Changes that no log shows.
pub(crate) async fn unlogged(database: &Database, statements: &[&str]) {
    let mut conn = database.connect().await;
    conn.query_drop("SET SESSION sql_log_bin = 0").await.unwrap();
    for statement in statements {
        conn.query_drop(*statement).await.unwrap();
    }
}
