//! Records of the data topics to events of a batch: the inverse of the encoder (JSON envelope, profile `safe`).
//!
//! A record's bytes are copied once, into the batch's arena; cells are slices of that copy wherever the value's text is its
//! meaning. No tree of values is built. A record that cannot be decoded becomes an [`Undecodable`] of the batch and leaves
//! nothing else behind: one damaged record never stops its table, and is never passed over in silence.

mod envelope;
mod instant;
mod number;
mod scan;
mod value;

#[cfg(test)]
mod roundtrip;

use caudal_core::{BatchBuilder, Raw, TableSchema, Undecodable};
use scan::Malformed;
use std::sync::Arc;

/// A record of a data topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// The topic.
    pub(crate) topic: &'a Arc<str>,
    /// The partition.
    pub(crate) partition: i32,
    /// The offset.
    pub(crate) offset: i64,
    /// The key; none for tables without one.
    pub(crate) key: Option<&'a [u8]>,
    /// The value; none for a tombstone.
    pub(crate) value: Option<&'a [u8]>,
}

/// Adds a record to the batch: as an event, as an undecodable record, or, a tombstone, not at all (the delete before it said
/// it all). `schema` is the shape in force at the record's offset.
pub(crate) fn decode(record: &Record<'_>, schema: Option<&Arc<TableSchema>>, batch: &mut BatchBuilder) {
    let Some(value) = record.value else { return };
    let base = batch.arena().len();
    batch.arena().extend_from_slice(value);
    let raw_value = batch.slice_from(base);
    let decoded = match schema {
        Some(schema) => event(value, base, schema, batch),
        None => Err(Malformed::new("no schema is known for its table at this offset")),
    };
    let raw = Raw {
        topic: Arc::clone(record.topic),
        partition: record.partition,
        offset: record.offset,
        key: record.key.map(|key| batch.copy(key)),
        value: Some(raw_value),
    };
    match decoded {
        Ok(()) => batch.raw.push(raw),
        Err(cause) => batch.undecodable.push(Undecodable { raw, cause: cause.to_string() }),
    }
}

/// Adds the event, or leaves cells and events as they were.
fn event(
    value: &[u8],
    base: usize,
    schema: &Arc<TableSchema>,
    batch: &mut BatchBuilder,
) -> Result<(), Malformed> {
    let text = std::str::from_utf8(value).map_err(|_| Malformed::new("UTF-8 expected"))?;
    let cells = batch.cells.len();
    let decoded = envelope::event(text, base, schema, batch);
    if decoded.is_err() {
        batch.cells.truncate(cells);
    }
    decoded.map(|event| batch.events.push(event))
}
