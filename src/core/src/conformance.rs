//! The conformance suite: what every connector must do, run against the real system. A connector writes a fixture and calls
//! [`source`] or [`sink`]; a broken promise panics with its name. `connectors/README.md` states the promises in prose.

use crate::batch::{Batch, BatchBuilder, Boundary, EventHead, NO_ROW, Op, SnapshotMark, Transaction};
use crate::cell::Cell;
use crate::connector::{Reader, Sink, Source, Writer};
use crate::fault::Fault;
use crate::position::{LogOffset, LogPosition, Position, SourcePosition};
use crate::schema::{Column, ColumnType, KeyKind, TableId, TableSchema};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A system (a server, or the log itself) with one table `items(id bigint primary key, name text)` that the suite can write to.
#[async_trait]
pub trait SourceFixture: Sync {
    /// The source under test, selecting just that table, with a heartbeat of at most a second.
    fn source(&self) -> Arc<dyn Source>;
    /// Inserts rows with these ids, each with the name `name <id>`, one transaction for each call.
    async fn insert(&self, ids: std::ops::Range<i64>);
    /// Deletes a row.
    async fn delete(&self, id: i64);
}

/// Runs the suite of sources.
///
/// # Panics
/// With the name of the promise that is broken.
pub async fn source(fixture: &dyn SourceFixture) {
    let source = fixture.source();
    let findings = source.check().await;
    assert!(
        findings.iter().all(|f| f.severity < crate::Severity::Error),
        "check passes on a good server: {findings:?}"
    );
    // A log knows a table from its first row on.
    fixture.insert(0..50).await;
    let tables = source.discover().await.expect("discover works");
    assert_eq!(tables.len(), 1, "discover gives just the selected tables");
    assert_eq!(tables[0].key, vec![0], "the primary key is the key");

    source.claim().await.expect("is free to be read");
    let mut reader = source.open(None).await.expect("opens without a position");
    let mut seen = Seen::default();
    seen.read_until(reader.as_mut(), 50).await;
    fixture.insert(50..60).await;
    fixture.delete(3).await;
    seen.read_until(reader.as_mut(), 61).await;
    seen.assert_state((0..60).filter(|id| *id != 3));
    resumes_anywhere(fixture, &seen).await;
    beats(reader.as_mut()).await;
}

/// From each position that a batch carried, the rest is delivered and adds up to the source's state. Once existing rows are
/// read, the rest is just the events that were not delivered before; until then rows are read as they are by now.
async fn resumes_anywhere(fixture: &dyn SourceFixture, seen: &Seen) {
    for (events, position) in &seen.positions {
        let mut reader = fixture.source().open(Some(position.clone())).await.expect("reopens");
        let mut rest = Seen { state: seen.states[*events].clone(), total: *events, ..Seen::default() };
        if *events >= 50 {
            rest.read_until(reader.as_mut(), seen.total).await;
            assert_eq!(rest.total, seen.total, "after {events} events, just the others are delivered");
        }
        rest.read_to_state(reader.as_mut(), &seen.state).await;
    }
}

async fn beats(reader: &mut dyn Reader) {
    let beat = tokio::time::timeout(std::time::Duration::from_secs(5), reader.next());
    beat.await.expect("next returns at least once per heartbeat").expect("a heartbeat is no error");
}

#[derive(Default)]
struct Seen {
    total: usize,
    state: BTreeMap<i64, String>,
    states: Vec<BTreeMap<i64, String>>,
    notes: BTreeMap<String, Option<String>>,
    offsets: BTreeMap<(Arc<str>, i32), LogOffset>,
    positions: Vec<(usize, Position)>,
    ts_us: i64,
}

impl Seen {
    async fn read_until(&mut self, reader: &mut dyn Reader, total: usize) {
        self.read_while(reader, |seen| seen.total < total).await;
    }

    async fn read_to_state(&mut self, reader: &mut dyn Reader, state: &BTreeMap<i64, String>) {
        self.read_while(reader, |seen| seen.state != *state).await;
    }

    async fn read_while(&mut self, reader: &mut dyn Reader, wanting: impl Fn(&Self) -> bool) {
        if self.states.is_empty() {
            self.states.resize(self.total + 1, self.state.clone());
        }
        let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while wanting(self) {
            let next = tokio::time::timeout_at(limit, reader.next()).await;
            self.batch(&next.expect("what is owed arrives within 30 s").expect("reads on"));
        }
    }

    fn batch(&mut self, batch: &Batch) {
        check_batch(batch);
        for event in &batch.events {
            let (row, gone) = match (batch.after(event), batch.before(event)) {
                (Some(after), _) => (after, false),
                (None, before) => (before.expect("a delete has the row before"), true),
            };
            let (Cell::I64(id), Cell::Text(name)) = (row[0], row[1]) else {
                panic!("cells follow the columns' types")
            };
            if gone {
                self.state.remove(&id);
            } else {
                self.state.insert(id, batch.text(name).to_owned());
            }
            self.total += 1;
            self.states.push(self.state.clone());
        }
        if let Some(boundary) = &batch.boundary {
            assert!(boundary.ts_us >= self.ts_us, "boundaries never go back in time");
            self.ts_us = boundary.ts_us;
        }
        let whole = self.whole(&batch.position);
        self.positions.push((self.total, whole));
    }

    /// What a writer would have stored by now: batches carry only what changed.
    fn whole(&mut self, position: &Position) -> Position {
        match position {
            Position::Source(position) => {
                for (name, note) in &position.notes {
                    match note {
                        Some(_) => self.notes.insert(name.clone(), note.clone()),
                        None => self.notes.remove(name),
                    };
                }
                let (token, notes) = (position.token.clone(), self.notes.clone());
                Position::Source(SourcePosition { token, notes })
            }
            Position::Log(position) => {
                for offset in &position.offsets {
                    self.offsets.insert((Arc::clone(&offset.topic), offset.partition), offset.clone());
                }
                Position::Log(LogPosition { offsets: self.offsets.values().cloned().collect() })
            }
        }
    }

    fn assert_state(&self, ids: impl Iterator<Item = i64>) {
        let expected: BTreeMap<i64, String> = ids.map(|id| (id, format!("name {id}"))).collect();
        assert_eq!(self.state, expected, "the events add up to the source's state");
    }
}

/// What holds for every batch: rows as wide as their tables, cells of their columns' types, boundaries within.
///
/// # Panics
/// If it does not hold.
pub fn check_batch(batch: &Batch) {
    for event in &batch.events {
        let schema = batch.table(event);
        for row in [batch.before(event), batch.after(event)].into_iter().flatten() {
            for (column, cell) in schema.columns.iter().zip(row) {
                assert!(
                    fits(column, *cell),
                    "{}.{} ({:?}) holds {cell:?}",
                    schema.id,
                    column.name,
                    column.ty
                );
                if let Some(slice) = cell.slice() {
                    let _ = batch.bytes(slice);
                }
            }
        }
    }
    let events = batch.events.len();
    assert!(
        batch.boundary.as_ref().is_none_or(|b| b.events as usize <= events),
        "a boundary lies within its batch"
    );
    assert!(
        batch.raw.is_empty() || batch.raw.len() == events,
        "raw has one record for each event, or none at all"
    );
}

/// Whether a cell is one that the column's type allows: the table of [`ColumnType`].
#[must_use]
pub fn fits(column: &Column, cell: Cell) -> bool {
    use ColumnType as T;
    match cell {
        Cell::Null => column.nullable,
        Cell::Unchanged => true,
        Cell::I64(v) => match column.ty {
            T::Bool => v == 0 || v == 1,
            T::Int { .. } | T::Date | T::Time { .. } | T::DateTime { .. } | T::Timestamp { .. } | T::Year => {
                true
            }
            T::UInt { bits } => bits <= 32 && v >= 0,
            _ => false,
        },
        Cell::U64(_) => matches!(column.ty, T::UInt { bits: 64 } | T::Bit { .. }),
        Cell::F32(_) => column.ty == T::Float32,
        Cell::F64(_) => column.ty == T::Float64,
        Cell::Decimal(_) => matches!(column.ty, T::Decimal { .. }),
        Cell::Json(_) => column.ty == T::Json,
        Cell::Bytes(_) => matches!(column.ty, T::Bytes { .. } | T::Geometry | T::Vector { .. }),
        Cell::Text(_) => matches!(
            column.ty,
            T::Text { .. }
                | T::Enum { .. }
                | T::Set { .. }
                | T::Uuid
                | T::Inet4
                | T::Inet6
                | T::Date
                | T::DateTime { .. }
                | T::Timestamp { .. }
        ),
    }
}

/// A target that the suite can write to and look into.
#[async_trait]
pub trait SinkFixture: Sync {
    /// The sink under test.
    fn sink(&self) -> Arc<dyn Sink>;
    /// A position of the kind that this sink stores; later numbers lie further on.
    async fn position(&self, number: u64) -> Position;
    /// The ids of the rows of `db.items` that a reader sees now, in order.
    async fn visible(&self) -> Vec<i64>;
}

/// Runs the suite of sinks.
///
/// # Panics
/// With the name of the promise that is broken.
pub async fn sink(fixture: &dyn SinkFixture) {
    let sink = fixture.sink();
    let findings = sink.check().await;
    assert!(
        findings.iter().all(|f| f.severity < crate::Severity::Error),
        "check passes on a good target: {findings:?}"
    );

    let mut first = open(fixture).await;
    assert!(first.resume().await.expect("resumes").is_none(), "a new sink has no position");
    put(fixture, first.as_mut(), 1, &[1, 2, 3]).await;
    assert_eq!(fixture.visible().await, Vec::<i64>::new(), "what is not committed is not visible");
    commit(fixture, first.as_mut(), 1).await;
    assert_eq!(fixture.visible().await, [1, 2, 3], "what is committed is visible");
    put(fixture, first.as_mut(), 2, &[4]).await;
    drop(first);
    assert_eq!(
        fixture.visible().await,
        [1, 2, 3],
        "a writer that goes away takes what it did not commit with it"
    );

    let mut second = open(fixture).await;
    stands_at(fixture, second.as_mut(), 1).await;
    put(fixture, second.as_mut(), 2, &[4]).await;
    commit(fixture, second.as_mut(), 2).await;

    let mut third = open(fixture).await;
    stands_at(fixture, third.as_mut(), 2).await;
    let fenced = match write(fixture, second.as_mut(), 3, &[99]).await {
        Err(e) => Err(e),
        Ok(()) => second.commit().await.map(|_| ()),
    };
    assert_eq!(fenced.expect_err("the one before is fenced").fault(), Fault::Fenced, "a zombie gets Fenced");
    assert_eq!(fixture.visible().await, [1, 2, 3, 4], "nothing of a zombie is visible");
    put(fixture, third.as_mut(), 3, &[5, 6]).await;
    commit(fixture, third.as_mut(), 3).await;
    assert_eq!(fixture.visible().await, [1, 2, 3, 4, 5, 6], "the one that took over goes on");
}

async fn open(fixture: &dyn SinkFixture) -> Box<dyn Writer> {
    fixture.sink().open().await.expect("opens")
}

async fn stands_at(fixture: &dyn SinkFixture, writer: &mut dyn Writer, number: u64) {
    let at = writer.resume().await.expect("resumes").expect("there is a position after a commit");
    assert!(covers(&at, &fixture.position(number).await), "resumes where the last commit was");
}

/// Positions of the log may hold more partitions than asked for.
fn covers(at: &Position, expected: &Position) -> bool {
    match (at, expected) {
        (Position::Source(a), Position::Source(b)) => a.token == b.token,
        (Position::Log(a), Position::Log(b)) => b.offsets.iter().all(|o| {
            a.offsets.iter().any(|p| (&p.topic, p.partition, p.offset) == (&o.topic, o.partition, o.offset))
        }),
        _ => false,
    }
}

async fn put(fixture: &dyn SinkFixture, writer: &mut dyn Writer, number: u64, ids: &[i64]) {
    write(fixture, writer, number, ids).await.expect("writes");
}

async fn write(
    fixture: &dyn SinkFixture,
    writer: &mut dyn Writer,
    number: u64,
    ids: &[i64],
) -> crate::Result<()> {
    let mut batch = items(ids, fixture.position(number).await, number);
    if let Some(prepare) = writer.prepare() {
        prepare.prepare(&mut batch)?;
    }
    let outcome = writer.write(&mut batch).await?;
    assert!(outcome.rejected.is_empty(), "good rows are not rejected: {outcome:?}");
    Ok(())
}

async fn commit(fixture: &dyn SinkFixture, writer: &mut dyn Writer, number: u64) {
    let at = writer.commit().await.expect("commits");
    assert!(covers(&at, &fixture.position(number).await), "commit gives the position reached");
}

/// Inserts into `db.items(id, name)`.
#[must_use]
pub fn items(ids: &[i64], position: Position, number: u64) -> Batch {
    let mut b = BatchBuilder::default();
    let schema = items_schema();
    let (table, transaction) = (b.table(&schema), b.transaction(Transaction::default()));
    for (row, id) in ids.iter().enumerate() {
        let name = b.copy(format!("name {id}").as_bytes());
        let after = b.cells.len() as u32;
        b.cells.extend([Cell::I64(*id), Cell::Text(name)]);
        b.events.push(EventHead {
            table,
            transaction,
            before: NO_ROW,
            after,
            row: row as u32,
            op: Op::Create,
            snapshot: SnapshotMark::False,
            pos: number,
            ts_us: number as i64 * 1_000_000,
        });
    }
    let token = position.source().map(|p| p.token.clone()).unwrap_or_else(|| number.to_string());
    let boundary = Boundary {
        events: ids.len() as u32,
        position: SourcePosition { token, ..SourcePosition::default() },
        ts_us: number as i64 * 1_000_000,
        scope: None,
    };
    b.build(position, Some(boundary))
}

fn items_schema() -> Arc<TableSchema> {
    let column = |id, name: &str, ty, native: &str| Column {
        id,
        name: name.into(),
        ty,
        nullable: id != 1,
        native: native.into(),
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    };
    Arc::new(TableSchema {
        id: TableId::new("db", "items"),
        version: 1,
        generation: 1,
        columns: vec![
            column(1, "id", ColumnType::Int { bits: 64 }, "bigint"),
            column(2, "name", ColumnType::Text { max_chars: None }, "text"),
        ],
        key: vec![0],
        key_kind: KeyKind::Primary,
        unique_keys: vec![],
        foreign_keys: vec![],
        charset: None,
        comment: None,
    })
}
