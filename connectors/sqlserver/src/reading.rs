//! Rows as they come, on a task of its own: the server sends on while the engine compares.
//!
//! # Bounds
//! One page that is being filled, one that waits, and one that the engine has. A value as large as the server's largest (2 GB) is held whole, in its row.

use crate::client::Client;
use crate::refusal::classify;
use crate::select::{Mark, Select};
use crate::shape::Shape;
use crate::types::{Told, cell};
use caudal_core::batch::NO_ROW;
use caudal_core::{BatchBuilder, Cell, ColumnType, Error, EventHead, Op, Result, SnapshotMark};
use futures::TryStreamExt;
use tiberius::{ColumnData, QueryItem};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;

/// A SELECT whose rows come. Dropped, it is given up, and its connection with it: that ends the statement on the server.
pub(crate) struct Reading {
    chunks: Receiver<Result<Chunk>>,
    /// Gives the connection back when all rows were read.
    task: JoinSet<Client>,
    /// Chunks that were taken.
    pub(crate) taken: u64,
}

/// A page's rows.
#[derive(Default)]
pub(crate) struct Chunk {
    pub(crate) rows: BatchBuilder,
    /// The watermark so far.
    pub(crate) watermark: Option<String>,
    pub(crate) findings: Vec<String>,
    pub(crate) is_last: bool,
    /// Rows are not of the shape that was described.
    pub(crate) reshaped: bool,
}

/// Where chunks end, and what is no watermark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    /// The server's clocks, microseconds: a time beyond is no watermark, as what comes after it would not be read until then. Of what a clock shows it is not known which one: the lower counts.
    pub(crate) utc: i64,
    pub(crate) wall: i64,
}

impl Reading {
    pub(crate) fn begin(
        client: Client,
        select: Select,
        shape: Shape,
        own: Vec<String>,
        limits: Limits,
    ) -> Self {
        let (to, chunks) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(read(client, select, shape, own, limits, to));
        Self { chunks, task, taken: 0 }
    }

    /// The next chunk; with the last one, the connection.
    ///
    /// # Errors
    /// As the server says.
    pub(crate) async fn next(&mut self) -> Result<(Chunk, Option<Client>)> {
        let Some(chunk) = self.chunks.recv().await else {
            return Err(Error::bug("rows end without a last page"));
        };
        let chunk = chunk?;
        self.taken += 1;
        let client =
            if chunk.is_last { self.task.join_next().await.and_then(std::result::Result::ok) } else { None };
        Ok((chunk, client))
    }
}

async fn read(
    mut client: Client,
    select: Select,
    shape: Shape,
    own: Vec<String>,
    limits: Limits,
    to: Sender<Result<Chunk>>,
) -> Client {
    let mut filling = Filling::new(&select, &shape, &own, limits);
    // Nobody takes it any more if the reading was given up: the task ends with it.
    let read = match fill(&mut client, &select, &mut filling, &to).await {
        Ok(()) => match &select.still {
            Some(still) => still.check(&mut client, &shape.schema.id.to_string()).await,
            None => Ok(()),
        },
        Err(e) => Err(e),
    };
    let last = read.map(|()| Chunk { is_last: true, ..filling.take() });
    let _ = to.send(last).await;
    client
}

async fn fill(
    client: &mut Client,
    select: &Select,
    filling: &mut Filling<'_>,
    to: &Sender<Result<Chunk>>,
) -> Result<()> {
    let what = format!("read {}", filling.shape.schema.id);
    let mut stream = client.stream(&what, &select.sql, &select.params).await?;
    while let Some(item) = stream.try_next().await.map_err(|e| classify(&what, e))? {
        let QueryItem::Row(row) = item else { continue };
        if filling.is_full() && to.send(Ok(filling.take())).await.is_err() {
            return Err(Error::transient(format!("{what}: it was given up")));
        }
        filling.put(row)?;
        if filling.chunk.reshaped {
            return Ok(());
        }
    }
    Ok(())
}

struct Filling<'a> {
    shape: &'a Shape,
    /// What is in the store's own columns.
    own: &'a [String],
    tells_gone: bool,
    mark: &'a Mark,
    limits: Limits,
    chunk: Chunk,
    high: Option<High>,
}

/// The highest value of a column.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum High {
    Number(i64),
    Text(String),
}

impl<'a> Filling<'a> {
    fn new(select: &'a Select, shape: &'a Shape, own: &'a [String], limits: Limits) -> Self {
        Self {
            shape,
            own,
            tells_gone: select.tells_gone,
            mark: &select.mark,
            limits,
            chunk: Chunk::default(),
            high: None,
        }
    }

    fn is_full(&self) -> bool {
        let rows = &self.chunk.rows;
        rows.events.len() >= self.limits.rows || (!rows.events.is_empty() && rows.size() >= self.limits.bytes)
    }

    /// What was filled so far.
    fn take(&mut self) -> Chunk {
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.watermark = match (self.mark, &self.high) {
            (Mark::Known(text), _) => Some(text.clone()),
            (Mark::Highest(_), Some(High::Number(n))) => Some(n.to_string()),
            (Mark::Highest(_), Some(High::Text(text))) => Some(text.clone()),
            _ => None,
        };
        chunk
    }

    fn put(&mut self, row: tiberius::Row) -> Result<()> {
        let rows = &mut self.chunk.rows;
        let first = rows.cells.len();
        let mut row = row.into_iter();
        let is_gone = self.tells_gone && matches!(row.next(), Some(ColumnData::I32(Some(1))));
        for own in self.own {
            let slice = rows.copy(own.as_bytes());
            rows.cells.push(Cell::Text(slice));
        }
        for (at, column) in self.shape.schema.columns.iter().enumerate().skip(self.shape.own) {
            let Some(value) = row.next() else {
                self.chunk.reshaped = true;
                return Ok(());
            };
            if is_gone && !self.shape.schema.key.contains(&(at as u32)) {
                rows.cells.push(Cell::Unchanged);
                continue;
            }
            match cell(&value, &column.ty, rows) {
                Told::Cell(cell) => rows.cells.push(cell),
                Told::Cut(cell) => {
                    rows.cells.push(cell);
                    let finding =
                        format!("`{}`: times finer than a microsecond are cut to microseconds", column.name);
                    if !self.chunk.findings.contains(&finding) {
                        self.chunk.findings.push(finding);
                    }
                }
                Told::Misfit => {
                    self.chunk.reshaped = true;
                    return Ok(());
                }
            }
        }
        if !is_gone {
            self.rise(first);
        }
        let (before, after) = if is_gone { (first as u32, NO_ROW) } else { (NO_ROW, first as u32) };
        self.chunk.rows.events.push(EventHead {
            table: 0,
            transaction: 0,
            before,
            after,
            row: 0,
            op: if is_gone { Op::Delete } else { Op::Read },
            snapshot: SnapshotMark::False,
            pos: 0,
            ts_us: 0,
        });
        Ok(())
    }

    fn rise(&mut self, first: usize) {
        let Mark::Highest(at) = *self.mark else { return };
        let rows = &self.chunk.rows;
        let clock = self.limits.utc.min(self.limits.wall);
        let latest = match self.shape.schema.columns[at].ty {
            ColumnType::Timestamp { .. } => self.limits.utc,
            ColumnType::DateTime { .. } => clock,
            ColumnType::Date => clock.div_euclid(caudal_core::temporal::MICROS_PER_DAY),
            _ => i64::MAX,
        };
        let high = match rows.cells[first + at] {
            Cell::I64(n) => High::Number(n.min(latest)),
            Cell::Text(slice) => High::Text(String::from_utf8_lossy(rows.bytes(slice)).into_owned()),
            _ => return,
        };
        if self.high.as_ref().is_none_or(|before| *before < high) {
            self.high = Some(high);
        }
    }
}
