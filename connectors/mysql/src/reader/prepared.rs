//! Rows of prepared XA transactions, until they are decided.
//!
//! `XA PREPARE` is in the log, with a GTID of its own, while nobody sees its rows; they may be rolled back days later. So its
//! rows go out at `XA COMMIT`. Until then its GTID stays out of the delivered set (MySQL resends the holes of a set), and where a
//! position cannot have holes (MariaDB, file and position), the token names the place from which the server must send again.
//!
//! Memory: the rows as they came, up to the configured bound for all of them together; of a transaction beyond it only the
//! names of its tables.

use crate::binlog::{Rows, Xid};
use crate::gtid::Gtid;
use crate::position::{Place, Resend};
use caudal_core::TableId;
use std::collections::BTreeSet;

/// Undecided transactions, oldest first.
pub(crate) struct Prepared {
    bound: usize,
    bytes: usize,
    list: Vec<Entry>,
}

/// One of them.
pub(crate) struct Entry {
    pub(crate) xid: Xid,
    pub(crate) gtid: Option<Gtid>,
    /// The place before it.
    pub(crate) before: Place,
    pub(crate) rows: Vec<(Rows, u64)>,
    /// Tables of rows that were too many to keep; then `rows` is empty.
    pub(crate) overflow: BTreeSet<TableId>,
}

/// Rows with their positions, and the tables whose rows were not kept.
pub(crate) type Held = (Vec<(Rows, u64)>, BTreeSet<TableId>);

impl Prepared {
    pub(crate) fn new(bound: usize) -> Self {
        Self { bound, bytes: 0, list: Vec::new() }
    }

    /// Counts a row event of a transaction that is going to be prepared. False: with it, all of them together would exceed the
    /// bound; it is not counted.
    pub(crate) fn hold(&mut self, rows: &Rows) -> bool {
        let fits = self.bytes + rows.body.len() <= self.bound;
        if fits {
            self.bytes += rows.body.len();
        }
        fits
    }

    /// Gives back the bytes of rows that were held and are going out.
    pub(crate) fn release(&mut self, rows: &[(Rows, u64)]) {
        let bytes: usize = rows.iter().map(|(r, _)| r.body.len()).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Keeps a prepared transaction.
    pub(crate) fn keep(&mut self, entry: Entry) {
        self.list.retain(|e| e.xid != entry.xid);
        self.list.push(entry);
    }

    /// The rows of a prepared transaction, which share their bytes, and the tables whose rows were not kept.
    pub(crate) fn rows(&self, xid: &Xid) -> Option<Held> {
        self.list.iter().find(|e| e.xid == *xid).map(|e| (e.rows.clone(), e.overflow.clone()))
    }

    /// Takes a transaction that was decided.
    pub(crate) fn take(&mut self, xid: &Xid) -> Option<Entry> {
        let at = self.list.iter().position(|e| e.xid == *xid)?;
        let entry = self.list.remove(at);
        self.release(&entry.rows);
        Some(entry)
    }

    /// Where the server must begin to send again, if that is before the position: none for MySQL with GTIDs.
    pub(crate) fn resend(&self) -> Option<Resend> {
        let oldest = self.list.first()?;
        if matches!(oldest.gtid, Some(Gtid::MySql(_))) {
            return None;
        }
        Some(Resend {
            gtid: oldest.before.gtid.as_ref().map(ToString::to_string),
            file: oldest.before.file.clone(),
            pos: oldest.before.pos,
        })
    }
}

/// As XA RECOVER shows it.
pub(crate) fn name(xid: &Xid) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("X'{}',X'{}',{}", hex(&xid.global), hex(&xid.branch), xid.format)
}
