//! One change of one row, with all that any form of a record tells of it.

use crate::encode::orders::Order;
use crate::encode::plan::TablePlan;
use crate::encode::value::{How, Mismatch};
use caudal_core::{Batch, Cell, Error, EventHead, Op, Transaction};

/// A change to be written. `op` and the images are those of the record: a change of key is a delete and a create.
pub(crate) struct Change<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) event: &'a EventHead,
    pub(crate) plan: &'a TablePlan,
    pub(crate) op: Op,
    pub(crate) before: Option<&'a [Cell]>,
    pub(crate) after: Option<&'a [Cell]>,
    /// Its place in its transaction, where those are announced.
    pub(crate) order: Option<Order<'a>>,
    /// The time of processing, microseconds since the epoch.
    pub(crate) now: i64,
    /// Whether it is the last of its transaction.
    pub(crate) last: bool,
}

impl Change<'_> {
    pub(crate) fn transaction(&self) -> Transaction {
        self.batch.transactions.get(self.event.transaction as usize).copied().unwrap_or_default()
    }

    /// GTID, where there is one.
    pub(crate) fn gtid(&self) -> Option<&str> {
        self.transaction().gtid.map(|gtid| self.batch.text(gtid))
    }

    /// The log file's name; empty where there is none.
    pub(crate) fn file(&self) -> &str {
        self.transaction().file.map_or("", |file| self.batch.text(file))
    }

    /// What the values of a column depend on.
    pub(crate) fn how(&self, column: usize) -> How {
        How { read: self.event.op == Op::Read, ..self.plan.hows[column] }
    }

    /// A reader's mistake: a cell that its column's type does not allow.
    pub(crate) fn misfit(&self, column: usize, cell: Cell) -> impl FnOnce(Mismatch) -> Error {
        move |Mismatch| {
            let column = &self.plan.schema.columns[column];
            let (table, name, ty) = (&self.plan.schema.id, &column.name, &column.ty);
            Error::bug(format!("encode {table}.{name}: the cell {cell:?} does not fit the type {ty:?}"))
        }
    }
}
