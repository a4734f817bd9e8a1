//! Canonical bytes of keys and rows: equal exactly if the cells are.

use caudal_core::{Cell, Slice, TableSchema};
use caudal_index::{KeyHash, content_hash, key_hash};

/// Hashes rows. Keeps a buffer between them.
#[derive(Default)]
pub(crate) struct Hasher(Vec<u8>);

impl Hasher {
    /// Of the key's cells; none if one of them is NULL or not there.
    pub(crate) fn key<'a>(
        &mut self,
        schema: &TableSchema,
        row: &[Cell],
        bytes: impl Fn(Slice) -> &'a [u8],
    ) -> Option<KeyHash> {
        self.0.clear();
        for &i in &schema.key {
            match row.get(i as usize)? {
                Cell::Null | Cell::Unchanged => return None,
                &cell => append(&mut self.0, cell, &bytes),
            }
        }
        Some(key_hash(&self.0))
    }

    /// Of all cells, and of the columns' names: a new column makes all rows new.
    pub(crate) fn row<'a>(
        &mut self,
        schema: &TableSchema,
        row: &[Cell],
        bytes: impl Fn(Slice) -> &'a [u8],
    ) -> u64 {
        self.0.clear();
        for (column, &cell) in schema.columns.iter().zip(row) {
            sized(&mut self.0, 0, column.name.as_bytes());
            append(&mut self.0, cell, &bytes);
        }
        content_hash(&self.0)
    }
}

fn append<'a>(out: &mut Vec<u8>, cell: Cell, bytes: &impl Fn(Slice) -> &'a [u8]) {
    match cell {
        Cell::Null => out.push(1),
        Cell::Unchanged => out.push(2),
        Cell::I64(n) => fixed(out, 3, n.to_le_bytes()),
        Cell::U64(n) => fixed(out, 4, n.to_le_bytes()),
        Cell::F32(n) => fixed(out, 5, n.to_bits().to_le_bytes()),
        Cell::F64(n) => fixed(out, 6, n.to_bits().to_le_bytes()),
        Cell::Text(s) => sized(out, 7, bytes(s)),
        Cell::Bytes(s) => sized(out, 8, bytes(s)),
        Cell::Decimal(s) => sized(out, 9, bytes(s)),
        Cell::Json(s) => sized(out, 10, bytes(s)),
    }
}

fn fixed<const N: usize>(out: &mut Vec<u8>, tag: u8, bytes: [u8; N]) {
    out.push(tag);
    out.extend_from_slice(&bytes);
}

fn sized(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}
