//! Events of the stream into the batch.

use super::MySqlReader;
use super::prepared::{Entry, name};
use crate::binlog::{AlterPhase, Begin, Event, EventKind, Query, RowDecoder, RowImages, Rows, RowsOp, Xid};
use crate::canonical::{key_bytes, stable_hash};
use crate::ddl::{self, Statement};
use crate::gtid::Gtid;
use crate::position::{Place, Within};
use crate::shape::Shape;
use crate::snapshot::Verdict;
use crate::snapshot::progress::{TableNote, schema_note, schema_text, table_note};
use crate::snapshot::table::Table;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    BatchBuilder, Cell, Ddl, Error, EventHead, Op, Result, SnapshotMark, TableId, TableSchema, Transaction,
};
use std::sync::Arc;

/// The transaction that is being delivered.
pub(crate) struct Tx {
    begin: Box<Begin>,
    /// Where it begins in the log.
    file: Arc<str>,
    pos: u64,
    server_id: u32,
    /// Its number in the current batch, once a row of it is in.
    index: Option<u32>,
    /// Rows of captured tables so far.
    rows: u64,
    /// The position of the last rows event, and how many rows came before the first event there. The events of a compressed
    /// transaction all stand at one position: their rows are numbered through, so that (file, pos, row) names one row.
    at: (u64, u64),
    /// Hash of the last one's key.
    key: u64,
    ts_us: i64,
    /// Was delivered before; only what is prepared in it counts.
    replayed: bool,
    /// Rows of an XA transaction that is not prepared yet.
    held: Vec<(Rows, u64)>,
    /// The prepared transaction that it commits or rolls back.
    decides: Option<Xid>,
}

impl Tx {
    /// How far it was delivered; the next batch needs the transaction's facts again.
    pub(super) fn delivered(&mut self) -> Within {
        self.index = None;
        Within { rows: self.rows, key: self.key }
    }
}

impl MySqlReader {
    /// Takes one event of the stream.
    pub(super) async fn event(&mut self, event: Event) -> Result<()> {
        if self.must_wait(&event) {
            self.held = Some(event);
            return Ok(());
        }
        match event.kind {
            EventKind::Begin(begin) => {
                self.begin(begin, &event.file, event.pos, event.timestamp, event.server_id);
            }
            EventKind::Rows(rows) => self.rows(rows, event.pos).await?,
            EventKind::Query(query) => self.statement(&query, event.pos)?,
            EventKind::Commit => self.finish(&event.file, event.end_pos, event.timestamp).await?,
            EventKind::Rollback => {
                tracing::warn!(
                    source = self.config.name,
                    file = %event.file,
                    pos = event.pos,
                    "a transaction was rolled back after tables without transactions took part in it: its rows are delivered"
                );
                self.finish(&event.file, event.end_pos, event.timestamp).await?;
            }
            EventKind::XaPrepare(xid) => self.prepare(xid, &event.file, event.end_pos)?,
            EventKind::XaCommit(xid) => self.decide(&xid, true).await?,
            EventKind::XaRollback(xid) => self.decide(&xid, false).await?,
            EventKind::Rotate { file, pos } => self.step_to(&file, pos),
            EventKind::Heartbeat => self.step_to(&event.file, event.end_pos),
            EventKind::Incident(message) => {
                return Err(Error::data(format!("the source reports that changes may be missing in its log: {message}"))
                    .hint("rows may have changed that no log tells: start this source anew so that its tables are read again"));
            }
            EventKind::TableMap(_)
            | EventKind::RowsQuery(_)
            | EventKind::Previous(_)
            | EventKind::Other(_) => {}
        }
        Ok(())
    }

    /// Events of a table whose piece is being read wait for it; so does what may concern it.
    fn must_wait(&self, event: &Event) -> bool {
        let Some(id) = self.snapshot.holds() else { return false };
        match &event.kind {
            EventKind::Rows(rows) => rows.table.table == id.table && rows.table.database == id.database,
            EventKind::Query(query) => ddl::read(&query.statement, &query.database) != Statement::Other,
            EventKind::XaCommit(_) => true,
            EventKind::Commit => self.tx.as_ref().is_some_and(|tx| !tx.held.is_empty()),
            _ => false,
        }
    }

    fn step_to(&mut self, file: &Arc<str>, pos: u64) {
        if self.tx.is_none() && !file.is_empty() && (*self.place.file != **file || self.place.pos != pos) {
            self.place.file = file.to_string();
            self.place.pos = pos;
        }
    }

    fn begin(&mut self, begin: Box<Begin>, file: &Arc<str>, pos: u64, timestamp: u32, server_id: u32) {
        let replayed = match (&self.replayed, &begin.gtid) {
            (Some(place), Some(gtid)) => place.gtid.as_ref().is_some_and(|set| set.contains(gtid)),
            (Some(place), None) => place.reaches(&self.place.file, self.place.pos.saturating_add(1)),
            (None, _) => false,
        };
        self.tx = Some(Tx {
            ts_us: commit_time(&begin, timestamp),
            begin,
            file: Arc::clone(file),
            pos,
            server_id,
            index: None,
            rows: 0,
            key: 0,
            replayed,
            at: (0, 0),
            held: Vec::new(),
            decides: None,
        });
    }

    async fn rows(&mut self, rows: Rows, pos: u64) -> Result<()> {
        let Some(tx) = &mut self.tx else {
            return Err(Error::bug("rows outside of a transaction"));
        };
        if let Some(xid) = &tx.begin.xa {
            // Whether it will be prepared or committed at once is not known yet.
            self.prepared.hold(xid, &rows)?;
            tx.held.push((rows, pos));
            return Ok(());
        }
        if tx.replayed {
            return Ok(());
        }
        self.deliver(&rows, pos).await
    }

    /// Decodes the rows of one event into the batch.
    async fn deliver(&mut self, rows: &Rows, pos: u64) -> Result<()> {
        let schema = match self.timeline.bound(&rows.table) {
            Some(bound) => bound.cloned(),
            None => self.bind(rows).await?,
        };
        let Some(schema) = schema else { return Ok(()) };
        let shape = self.shapes.of(&schema)?;
        let Self { tx: Some(tx), builder, decoder, snapshot, skip, place, .. } = self else { return Ok(()) };
        if tx.at.0 != pos {
            tx.at = (pos, tx.rows);
        }
        let to = Delivery {
            first: tx.at.1,
            transaction: tx.number(builder),
            ts_us: tx.ts_us,
            pos,
            before: tx.rows,
            skip: skip.rows,
            verdict: snapshot.verdict(&schema.id, &tx.begin, &tx.file, tx.pos),
        };
        let done = append(rows, &shape, &to, builder, decoder, snapshot.recorder(&schema.id))?;
        (tx.rows, tx.key) = (done.rows, done.key.unwrap_or(tx.key));
        // The row at which delivery goes on must be the one at which it stopped.
        if let Some(key) = done.skipped {
            if key != skip.key {
                return Err(other_transaction(place));
            }
            *skip = Within::default();
        }
        Ok(())
    }

    async fn bind(&mut self, rows: &Rows) -> Result<Option<Arc<TableSchema>>> {
        let bound = self.timeline.bind(&mut self.sql, &rows.table).await?;
        let Some((schema, new)) = bound else { return Ok(None) };
        if new {
            tracing::info!(source = self.config.name, table = %schema.id, version = schema.version, "the table has a new shape");
            self.note_schema(&schema)?;
            self.snapshot.changed(Some(std::slice::from_ref(&schema.id)));
        }
        if schema.key.is_empty() {
            tracing::debug!(table = %schema.id, "the table has no key");
        }
        Ok(Some(schema))
    }

    fn note_schema(&mut self, schema: &Arc<TableSchema>) -> Result<()> {
        let shape = self.shapes.of(schema)?;
        self.notes.insert(schema_note(&schema.id), Some(schema_text(schema, &shape.excluded())));
        Ok(())
    }

    /// A statement: what it does to captured tables.
    fn statement(&mut self, query: &Query, pos: u64) -> Result<()> {
        let Some(tx) = &self.tx else { return Ok(()) };
        if tx.replayed || matches!(tx.begin.alter, Some(AlterPhase::Start | AlterPhase::Rollback(_))) {
            return Ok(());
        }
        match ddl::read(&query.statement, &query.database) {
            Statement::Other => Ok(()),
            Statement::Truncate(id) => self.truncate(&id, pos),
            Statement::Creates(ids) => {
                self.created(&ids);
                self.shapes_changed(query, Some(&ids), pos);
                Ok(())
            }
            Statement::Changes(ids) => {
                self.shapes_changed(query, Some(&ids), pos);
                Ok(())
            }
            Statement::Unknown => {
                self.shapes_changed(query, None, pos);
                Ok(())
            }
            Statement::Rows(id) => {
                if id.as_ref().is_none_or(|id| self.config.selection.selects(id)) {
                    let table = id.map_or_else(|| "a table".to_owned(), |id| id.to_string());
                    tracing::warn!(
                        source = self.config.name,
                        table,
                        "a change was logged as a statement (binlog_format is not ROW): it cannot be captured"
                    );
                }
                Ok(())
            }
        }
    }

    fn truncate(&mut self, id: &TableId, pos: u64) -> Result<()> {
        if !self.config.selection.selects(id) {
            return Ok(());
        }
        if let Some(table) = self.snapshot.recorder(id) {
            table.recording.discard("the table was truncated");
        }
        let Some(schema) = self.timeline.known(id).map(|k| Arc::clone(&k.schema)) else { return Ok(()) };
        let Some(tx) = &mut self.tx else { return Ok(()) };
        if self.snapshot.verdict(id, &tx.begin, &tx.file, tx.pos) == Verdict::Drop {
            return Ok(());
        }
        let transaction = tx.number(&mut self.builder);
        let table = self.builder.table(self.shapes.of(&schema)?.out());
        self.builder.events.push(EventHead {
            table,
            transaction,
            before: NO_ROW,
            after: NO_ROW,
            row: 0,
            op: Op::Truncate,
            snapshot: SnapshotMark::False,
            pos,
            ts_us: tx.ts_us,
        });
        Ok(())
    }

    /// All rows of a new table come by the stream: nothing of it is left to read.
    fn created(&mut self, ids: &[TableId]) {
        for id in ids.iter().filter(|id| self.config.selection.selects(id)) {
            let note = TableNote { v: 1, done: true, ..TableNote::default() };
            self.notes.insert(table_note(id), Some(note.text()));
        }
    }

    fn shapes_changed(&mut self, query: &Query, ids: Option<&[TableId]>, pos: u64) {
        let captured: Vec<TableId> =
            ids.unwrap_or_default().iter().filter(|id| self.config.selection.selects(id)).cloned().collect();
        if ids.is_some() && captured.is_empty() {
            return;
        }
        let concerned = ids.map(|_| captured.as_slice());
        self.timeline.changed(concerned);
        self.snapshot.changed(concerned);
        if captured.is_empty() {
            return;
        }
        let Some(tx) = &mut self.tx else { return };
        let transaction = tx.number(&mut self.builder);
        self.builder.ddl.push(Ddl {
            events: self.builder.events.len() as u32,
            statement: query.statement.clone(),
            database: query.database.clone(),
            tables: captured,
            transaction,
            pos,
            ts_us: tx.ts_us,
        });
    }

    /// The transaction's end: the place moves.
    async fn finish(&mut self, file: &Arc<str>, end: u64, timestamp: u32) -> Result<()> {
        self.deliver_held().await?;
        let Some(tx) = self.tx.take() else { return Ok(()) };
        if self.skip.rows > 0 && !tx.replayed {
            return Err(other_transaction(&self.place));
        }
        if let Some(entry) = tx.decides.as_ref().and_then(|xid| self.prepared.take(xid))
            && matches!(entry.gtid, Some(Gtid::MySql(_)))
        {
            self.mark_delivered(entry.gtid.as_ref())?;
        }
        if !tx.replayed {
            self.mark_delivered(tx.begin.gtid.as_ref())?;
            let ts = if timestamp > 0 { tx.ts_us.max(i64::from(timestamp) * 1_000_000) } else { tx.ts_us };
            self.ts_us = self.ts_us.max(ts);
            self.boundary = Some(self.builder.events.len());
        }
        self.place.file = file.to_string();
        self.place.pos = end;
        self.snapshot.passed(&self.place);
        self.end_of_replay();
        Ok(())
    }

    fn end_of_replay(&mut self) {
        if self.replayed.as_ref().is_some_and(|r| self.place.reaches(&r.file, r.pos)) {
            self.replayed = None;
        }
    }

    fn mark_delivered(&mut self, gtid: Option<&Gtid>) -> Result<()> {
        match (&mut self.place.gtid, gtid) {
            (Some(set), Some(gtid)) => set.add(gtid),
            _ => Ok(()),
        }
    }

    /// An XA transaction that was committed in one phase.
    async fn deliver_held(&mut self) -> Result<()> {
        let Some(tx) = &mut self.tx else { return Ok(()) };
        let held = std::mem::take(&mut tx.held);
        let replayed = tx.replayed;
        self.prepared.release(&held);
        if !replayed {
            for (rows, pos) in &held {
                self.deliver(rows, *pos).await?;
            }
        }
        Ok(())
    }

    fn prepare(&mut self, xid: Xid, file: &Arc<str>, end: u64) -> Result<()> {
        let Some(tx) = self.tx.take() else { return Ok(()) };
        let gtid = tx.begin.gtid.clone();
        tracing::debug!(xid = name(&xid), "an XA transaction is prepared");
        self.prepared.keep(Entry { xid, gtid: gtid.clone(), before: self.place.clone(), rows: tx.held });
        // MySQL's set keeps a hole for it: the server sends it again. MariaDB's cannot: the token names the place before it.
        if !matches!(gtid, Some(Gtid::MySql(_))) && !tx.replayed {
            self.mark_delivered(gtid.as_ref())?;
        }
        self.place.file = file.to_string();
        self.place.pos = end;
        self.boundary = Some(self.builder.events.len());
        self.end_of_replay();
        Ok(())
    }

    /// What was prepared is decided. It counts as delivered only with this transaction's end: a restart in the middle of its
    /// rows needs it sent again.
    async fn decide(&mut self, xid: &Xid, commit: bool) -> Result<()> {
        let Some(tx) = &mut self.tx else { return Ok(()) };
        let replayed = tx.replayed;
        let Some(rows) = self.prepared.rows(xid) else {
            if commit && !replayed {
                tracing::warn!(
                    source = self.config.name,
                    xid = name(xid),
                    "an XA transaction was committed that was prepared before the capture began: its rows are not in the log that was read; read its tables again"
                );
            }
            return Ok(());
        };
        tx.decides = Some(xid.clone());
        if commit && !replayed {
            for (rows, pos) in &rows {
                self.deliver(rows, *pos).await?;
            }
        }
        Ok(())
    }
}

impl Tx {
    /// Its number in the batch.
    fn number(&mut self, builder: &mut BatchBuilder) -> u32 {
        if let Some(index) = self.index {
            return index;
        }
        let gtid = self.begin.gtid.as_ref().map(|g| builder.copy(g.to_string().as_bytes()));
        let file = Some(builder.copy(self.file.as_bytes()));
        let index = builder.transaction(Transaction {
            gtid,
            file,
            server_id: self.server_id,
            thread: self.begin.thread,
        });
        self.index = Some(index);
        index
    }
}

fn commit_time(begin: &Begin, timestamp: u32) -> i64 {
    match begin.commit_us {
        0 => i64::from(timestamp) * 1_000_000,
        us => us as i64,
    }
}

fn other_transaction(place: &Place) -> Error {
    Error::data(format!(
        "the transaction behind {}:{} is not the one that was being delivered: its rows differ",
        place.file, place.pos
    ))
    .hint("this happens when the source is another server, or `tables` was changed, in the middle of a transaction; start the source anew under another name so that its tables are read again")
}

/// What the rows of one event share.
struct Delivery {
    transaction: u32,
    ts_us: i64,
    pos: u64,
    /// Rows of the transaction before the first event at this position.
    first: u64,
    /// Rows of the transaction before this event.
    before: u64,
    /// How many of the transaction's rows were delivered already; 0: none.
    skip: u64,
    /// Rows that are dropped count all the same.
    verdict: Verdict,
}

/// What an event added to its transaction.
struct Delivered {
    /// Rows of the transaction, with this event's.
    rows: u64,
    /// Hash of the last row's key.
    key: Option<u64>,
    /// Hash of the key of the last row that was skipped, if it was in this event.
    skipped: Option<u64>,
}

/// Appends the rows of one event, but those that were delivered already.
fn append(
    rows: &Rows,
    shape: &Shape,
    to: &Delivery,
    builder: &mut BatchBuilder,
    decoder: &mut RowDecoder,
    mut recorder: Option<&mut Table>,
) -> Result<Delivered> {
    let op = match rows.op {
        RowsOp::Insert => Op::Create,
        RowsOp::Update => Op::Update,
        RowsOp::Delete => Op::Delete,
    };
    let schema = shape.out();
    let table = builder.table(schema);
    let mut seen = to.before;
    let (mut last, mut skipped) = (None, None);
    let mut key = Vec::new();
    decoder.decode(rows, shape.full(), builder, |out, full| {
        seen += 1;
        // Rows that are not going out count too, and their keys are recorded: places in the log are counted before filters.
        let fate = shape.fate(op, full, out)?;
        let images = shape.narrow(full, &mut out.cells);
        last = Some(images);
        if let Some(table) = recorder.as_deref_mut() {
            record(table, schema, out, images, &mut key);
        }
        if seen <= to.skip {
            skipped = (seen == to.skip).then_some(images);
            return Ok(());
        }
        if to.verdict == Verdict::Drop {
            return Ok(());
        }
        let Some(fate) = fate else { return Ok(()) };
        out.events.push(EventHead {
            table,
            transaction: to.transaction,
            before: if fate.before { images.before } else { NO_ROW },
            after: if fate.after { images.after } else { NO_ROW },
            row: (seen - 1 - to.first) as u32,
            op: fate.op,
            snapshot: SnapshotMark::False,
            pos: to.pos,
            ts_us: to.ts_us,
        });
        Ok(())
    })?;
    let hash = |images: RowImages| {
        let at = if images.after == NO_ROW { images.before } else { images.after };
        key.clear();
        key_bytes(&mut key, schema, &builder.cells[at as usize..][..schema.width()], builder);
        stable_hash(&key)
    };
    let mut hash = hash;
    Ok(Delivered { rows: seen, key: last.map(&mut hash), skipped: skipped.map(&mut hash) })
}

/// Step 1 of a window, for one row: both images' keys.
fn record(table: &mut Table, schema: &TableSchema, out: &BatchBuilder, images: RowImages, key: &mut Vec<u8>) {
    for at in [images.before, images.after] {
        if at == NO_ROW {
            continue;
        }
        let row = &out.cells[at as usize..][..schema.width()];
        if row.contains(&Cell::Unchanged) {
            // The chunk's row would be dropped for an event that does not tell the whole row.
            table.recording.discard("an event told a row in part");
            return;
        }
        key.clear();
        key_bytes(key, schema, row, out);
        table.touch(key);
    }
}
