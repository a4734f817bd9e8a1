//! Rows that an event tells in part: a session may log minimal images, or images without blobs.
//!
//! What such an image leaves out is `Unchanged`, never NULL. What can be told without the rest is delivered: an update under the same
//! key (sinks change the columns that are there), a deletion. What cannot is left to the re-read of the key that follows in any
//! case, so that the log holds the whole row again:
//! * a row that is inserted: what the statement did not name has its column's default, which no log tells;
//! * a row that moves to another key: the old key is deleted, the new one would lack what did not change.
//!
//! Why that ends right: the re-read sees the row as it is then or later, and what the stream still owes of the row comes after it.
//!
//! Memory: the keys of one batch, at most [`MOST_KEYS`] a table; more of them become a re-read of the table.

use crate::binlog::{NO_IMAGE, RowImages, RowsOp};
use crate::snapshot::bounds::Stored;
use crate::snapshot::values;
use crate::snapshot::{Reason, Request, Rows};
use caudal_core::{BatchBuilder, Cell, TableId, TableSchema};
use std::collections::BTreeMap;

const MOST_KEYS: usize = 5_000;

/// What is delivered of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deliver {
    /// Its images as they are.
    AsItIs,
    /// The image before, as a deletion.
    Deletion,
    /// Nothing.
    Nothing,
}

/// The keys of rows told in part since the last batch.
#[derive(Default)]
pub(super) struct Partials {
    tables: BTreeMap<TableId, Keys>,
}

struct Keys {
    columns: Vec<String>,
    values: Vec<Vec<Stored>>,
    /// A key that cannot be asked for, or too many.
    all: bool,
}

impl Partials {
    /// Looks at a row that is going to be delivered.
    pub(super) fn judge(
        &mut self,
        schema: &TableSchema,
        out: &BatchBuilder,
        op: RowsOp,
        row: RowImages,
    ) -> Deliver {
        if row.after == NO_IMAGE {
            return Deliver::AsItIs;
        }
        let after = image(out, schema, row.after);
        if is_whole(schema, after) {
            return Deliver::AsItIs;
        }
        self.note(schema, out, after);
        match op {
            RowsOp::Update if schema.key.is_empty() => Deliver::Nothing,
            RowsOp::Update if moves(schema, out, image(out, schema, row.before), after) => Deliver::Deletion,
            RowsOp::Update => Deliver::AsItIs,
            RowsOp::Insert | RowsOp::Delete => Deliver::Nothing,
        }
    }

    fn note(&mut self, schema: &TableSchema, out: &BatchBuilder, row: &[Cell]) {
        let keys = self.tables.entry(schema.id.clone()).or_insert_with(|| Keys {
            columns: schema.key.iter().map(|i| schema.columns[*i as usize].name.clone()).collect(),
            values: Vec::new(),
            all: schema.key.is_empty(),
        });
        if keys.all {
            return;
        }
        let columns = schema.key.iter().map(|i| *i as usize);
        let value = |i: usize| values::of_cell(&schema.columns[i], row[i], |s| out.bytes(s));
        match columns.map(value).collect::<Option<Vec<_>>>() {
            Some(key) if keys.values.len() < MOST_KEYS => keys.values.push(key),
            _ => {
                keys.values = Vec::new();
                keys.all = true;
            }
        }
    }

    /// Whether none is due.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The re-reads that are due.
    pub(super) fn take(&mut self) -> Vec<Request> {
        let request = |(id, keys): (TableId, Keys)| {
            if keys.all {
                return Request::table(id, Reason::Partial);
            }
            let mut values = keys.values;
            values.dedup();
            Request::new(id, Rows::Matching { columns: keys.columns, values }, Reason::Partial)
        };
        std::mem::take(&mut self.tables).into_iter().map(request).collect()
    }
}

fn image<'a>(out: &'a BatchBuilder, schema: &TableSchema, at: u32) -> &'a [Cell] {
    &out.cells[at as usize..][..schema.width()]
}

/// Whether nothing is missing but what the server computes and does not log.
pub(super) fn is_whole(schema: &TableSchema, row: &[Cell]) -> bool {
    row.iter().zip(&schema.columns).all(|(cell, column)| *cell != Cell::Unchanged || column.generated)
}

fn moves(schema: &TableSchema, out: &BatchBuilder, before: &[Cell], after: &[Cell]) -> bool {
    schema.key.iter().map(|i| *i as usize).any(|i| match (before[i].slice(), after[i].slice()) {
        (Some(old), Some(new)) => out.bytes(old) != out.bytes(new),
        _ => before[i] != after[i],
    })
}
