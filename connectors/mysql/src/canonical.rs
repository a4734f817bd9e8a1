//! Canonical bytes of keys: two rows have the same key exactly if these bytes are equal, whether a snapshot or the stream
//! brought them.
//!
//! They are compared exactly, never by the server's collation: a change from `a` to `A` in a case-insensitive key touches
//! both, since an event's image before and its image after are both recorded.

use caudal_core::{BatchBuilder, Cell, Slice, TableSchema};

/// Appends the canonical bytes of a row's key; of a table without one, of the whole row.
pub(crate) fn key_bytes(out: &mut Vec<u8>, schema: &TableSchema, row: &[Cell], builder: &BatchBuilder) {
    if schema.key.is_empty() {
        row.iter().for_each(|&cell| append(out, cell, |s| builder.bytes(s)));
    } else {
        schema.key.iter().for_each(|&i| append(out, row[i as usize], |s| builder.bytes(s)));
    }
}

/// Appends the canonical bytes of one cell.
pub(crate) fn append<'a>(out: &mut Vec<u8>, cell: Cell, bytes: impl Fn(Slice) -> &'a [u8]) {
    match cell {
        Cell::Null => out.push(0),
        Cell::Unchanged => out.push(1),
        Cell::I64(n) => fixed(out, 2, n.to_le_bytes()),
        Cell::U64(n) => fixed(out, 3, n.to_le_bytes()),
        Cell::F32(n) => fixed(out, 4, n.to_bits().to_le_bytes()),
        Cell::F64(n) => fixed(out, 5, n.to_bits().to_le_bytes()),
        Cell::Text(s) => sized(out, 6, bytes(s)),
        Cell::Bytes(s) => sized(out, 7, bytes(s)),
        Cell::Decimal(s) => sized(out, 8, bytes(s)),
        Cell::Json(s) => sized(out, 9, bytes(s)),
    }
}

fn fixed<const N: usize>(out: &mut Vec<u8>, tag: u8, bytes: [u8; N]) {
    out.push(tag);
    out.extend_from_slice(&bytes);
}

fn sized(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// FNV-1a, 64 bits: the hash of a key in a stored position. Part of the stored format: it must never change.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_stored_positions_is_fnv_1a() {
        assert_eq!(stable_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stable_hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn parts_of_a_composite_key_do_not_run_into_each_other() {
        let mut builder = BatchBuilder::default();
        let cells = |builder: &mut BatchBuilder, a: &[u8], b: &[u8]| {
            [Cell::Text(builder.copy(a)), Cell::Text(builder.copy(b))]
        };
        let (x, y) = (cells(&mut builder, b"ab", b"c"), cells(&mut builder, b"a", b"bc"));
        let bytes = |cells: [Cell; 2]| {
            let mut out = Vec::new();
            cells.iter().for_each(|&c| append(&mut out, c, |s| builder.bytes(s)));
            out
        };
        assert_ne!(bytes(x), bytes(y));
    }
}
