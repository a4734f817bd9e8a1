//! Events of the stream, and where transactions begin and end.

use super::MySqlReader;
use super::asked;
use super::rows::other_transaction;
use super::tally::Tally;
use crate::binlog::{Begin, Event, EventKind, Rows, Xid};
use crate::ddl::{self, Statement};
use crate::gtid::Gtid;
use crate::position::{Place, Within};
use caudal_core::{BatchBuilder, Error, Result, TableId, Transaction};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The transaction that is being delivered.
pub(crate) struct Tx {
    pub(super) begin: Box<Begin>,
    /// Where it begins in the log.
    pub(super) file: Arc<str>,
    pub(super) pos: u64,
    server_id: u32,
    /// Its number in the current batch, once a row of it is in.
    index: Option<u32>,
    /// Its rows so far.
    pub(super) tally: Tally,
    /// The position of the last rows event, and how many rows came before the first event there. The events of a compressed
    /// transaction all stand at one position: their rows are numbered through, so that (file, pos, row) names one row.
    pub(super) at: (u64, u64),
    pub(super) ts_us: i64,
    /// Was delivered before; only what is prepared in it counts.
    pub(super) replayed: bool,
    /// Rows of an XA transaction that is not prepared yet.
    pub(super) held: Vec<(Rows, u64)>,
    /// Tables of such rows that were too many to hold.
    pub(super) overflow: BTreeSet<TableId>,
    /// The prepared transaction that it commits or rolls back.
    pub(super) decides: Option<Xid>,
    /// Commands that were inserted in it.
    pub(super) asked: Vec<asked::Row>,
}

impl Tx {
    /// How far it was delivered; the next batch needs the transaction's facts again.
    pub(super) fn delivered(&mut self) -> Within {
        self.index = None;
        self.tally.within()
    }

    /// Its number in the batch.
    pub(super) fn number(&mut self, builder: &mut BatchBuilder) -> u32 {
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
            EventKind::Query(query) => {
                self.statement(&query, event.pos)?;
                self.shapes_after(&event.file, event.end_pos, event.timestamp).await?;
            }
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
            EventKind::Query(query) => {
                ddl::read(&query.statement, &query.database, &|_| None) != Statement::Other
            }
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
        let before = if replayed { Within::default() } else { std::mem::take(&mut self.skip) };
        self.tx = Some(Tx {
            ts_us: commit_time(&begin, timestamp),
            begin,
            file: Arc::clone(file),
            pos,
            server_id,
            index: None,
            tally: Tally::new(before),
            replayed,
            at: (0, 0),
            held: Vec::new(),
            overflow: BTreeSet::new(),
            decides: None,
            asked: Vec::new(),
        });
    }

    /// The transaction's end: the place moves.
    async fn finish(&mut self, file: &Arc<str>, end: u64, timestamp: u32) -> Result<()> {
        self.deliver_held().await?;
        self.kin_end();
        let Some(tx) = self.tx.take() else { return Ok(()) };
        if !tx.replayed && tx.tally.owes(|name| self.follows(name)) {
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
        self.moved(file, end);
        self.snapshot.passed(&self.place);
        self.asked_end(tx.asked);
        Ok(())
    }

    /// Whether rows of this table (`db.table`) are delivered.
    fn follows(&self, name: &str) -> bool {
        let Some((database, table)) = name.split_once('.') else { return false };
        let id = TableId::new(database, table);
        self.config.selection.selects(&id) && !self.quarantine.holds(&id)
    }

    pub(super) fn moved(&mut self, file: &Arc<str>, end: u64) {
        self.place.file = file.to_string();
        self.place.pos = end;
        // A place of another server has no file: there its GTIDs tell each transaction, to the end.
        let passed = |r: &Place| !r.file.is_empty() && self.place.reaches(&r.file, r.pos);
        if self.replayed.as_ref().is_some_and(passed) {
            self.replayed = None;
        }
    }

    pub(super) fn mark_delivered(&mut self, gtid: Option<&Gtid>) -> Result<()> {
        match (&mut self.place.gtid, gtid) {
            (Some(set), Some(gtid)) => set.add(gtid),
            _ => Ok(()),
        }
    }
}

fn commit_time(begin: &Begin, timestamp: u32) -> i64 {
    match begin.commit_us {
        0 => i64::from(timestamp) * 1_000_000,
        us => us as i64,
    }
}
