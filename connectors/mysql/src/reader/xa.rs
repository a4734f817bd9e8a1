//! XA transactions: held until it is known whether they are committed.
//!
//! Rows that are too many to hold, and rows that were prepared before the capture began, are not lost: at XA COMMIT the tables
//! are read again. Which tables those were is known for the first; for the second any captured table may be one.

use super::MySqlReader;
use super::prepared::{Entry, name};
use crate::binlog::{Rows, Xid};
use crate::gtid::Gtid;
use crate::snapshot::{Reason, Request};
use caudal_core::{Result, TableId};
use std::collections::BTreeSet;
use std::sync::Arc;

impl MySqlReader {
    /// Holds rows of a transaction that is going to be prepared, or only their table's name if they are too many.
    pub(super) fn hold(&mut self, rows: Rows, pos: u64) {
        let Some(tx) = &mut self.tx else { return };
        if tx.overflow.is_empty() && self.prepared.hold(&rows) {
            tx.held.push((rows, pos));
            return;
        }
        if tx.overflow.is_empty() {
            tracing::warn!(
                source = self.config.name,
                xid = tx.begin.xa.as_ref().map(name),
                "the undecided XA transactions hold more than xa_bytes of rows: the tables of this one are read again when it is committed"
            );
            self.prepared.release(&tx.held);
            tx.overflow.extend(tx.held.drain(..).map(|(rows, _)| table(&rows)));
        }
        tx.overflow.insert(table(&rows));
    }

    /// An XA transaction that was committed in one phase.
    pub(super) async fn deliver_held(&mut self) -> Result<()> {
        let Some(tx) = &mut self.tx else { return Ok(()) };
        let (held, overflow) = (std::mem::take(&mut tx.held), std::mem::take(&mut tx.overflow));
        let replayed = tx.replayed;
        self.prepared.release(&held);
        if !replayed {
            for (rows, pos) in &held {
                self.deliver(rows, *pos).await?;
            }
            self.read_again(overflow, Reason::Statement);
        }
        Ok(())
    }

    pub(super) fn prepare(&mut self, xid: Xid, file: &Arc<str>, end: u64) -> Result<()> {
        let Some(tx) = self.tx.take() else { return Ok(()) };
        let gtid = tx.begin.gtid.clone();
        tracing::debug!(xid = name(&xid), "an XA transaction is prepared");
        self.prepared.keep(Entry {
            xid,
            gtid: gtid.clone(),
            before: self.place.clone(),
            rows: tx.held,
            overflow: tx.overflow,
        });
        // MySQL's set keeps a hole for it: the server sends it again. MariaDB's cannot: the token names the place before it.
        if !matches!(gtid, Some(Gtid::MySql(_))) && !tx.replayed {
            self.mark_delivered(gtid.as_ref())?;
        }
        self.moved(file, end);
        self.boundary = Some(self.builder.events.len());
        Ok(())
    }

    /// What was prepared is decided. It counts as delivered only with this transaction's end: a restart in the middle of its
    /// rows needs it sent again.
    pub(super) async fn decide(&mut self, xid: &Xid, commit: bool) -> Result<()> {
        let Some(tx) = &mut self.tx else { return Ok(()) };
        let replayed = tx.replayed;
        let Some((rows, overflow)) = self.prepared.rows(xid) else {
            if commit && !replayed {
                self.decided_unknown(xid);
            }
            return Ok(());
        };
        tx.decides = Some(xid.clone());
        if commit && !replayed {
            for (rows, pos) in &rows {
                self.deliver(rows, *pos).await?;
            }
            self.read_again(overflow, Reason::Statement);
        }
        Ok(())
    }

    /// Prepared before the capture began: its rows are in a part of the log that was never read.
    fn decided_unknown(&mut self, xid: &Xid) {
        tracing::warn!(
            source = self.config.name,
            xid = name(xid),
            "an XA transaction was committed that was prepared before the capture began, so nobody knows its tables: all are read again, and what differs is delivered"
        );
        let all: Vec<TableId> = self.timeline.tables().map(|(id, _)| id.clone()).collect();
        self.read_again(all.into_iter().collect(), Reason::Statement);
    }

    /// Asks for tables to be read again, those of them that are captured.
    pub(super) fn read_again(&mut self, tables: BTreeSet<TableId>, reason: Reason) {
        for id in tables.into_iter().filter(|id| self.config.selection.selects(id)) {
            self.snapshot.request(Request::table(id, reason));
        }
    }
}

fn table(rows: &Rows) -> TableId {
    TableId::new(rows.table.database.clone(), rows.table.table.clone())
}
