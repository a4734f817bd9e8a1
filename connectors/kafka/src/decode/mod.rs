//! Records of the data topics to events of a batch: the inverse of the encoder, for the forms that hold all of an event. Which one a
//! record has, it tells itself.
//!
//! A record's bytes are copied once, into the batch's arena (a large record comes as a buffer of its own, and is not copied); cells
//! are slices of that copy wherever the value's text is its meaning. No tree of values is built. A record that cannot be decoded becomes an [`Undecodable`] of the batch and leaves
//! nothing else behind: one damaged record never stops its table, and is never passed over in silence.

mod avro;
mod envelope;
mod instant;
mod number;
mod own;
mod protobuf;
mod scan;
mod value;

#[cfg(test)]
mod roundtrip;

use bytes::Bytes;
use caudal_core::{BatchBuilder, EventHead, Op, Raw, Slice, TableSchema, Undecodable};
use scan::Malformed;
use std::sync::Arc;

/// A header of a record: name and value.
pub(crate) type Header<'a> = (&'a str, &'a [u8]);

/// A record of a data topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// The topic.
    pub(crate) topic: &'a Arc<str>,
    /// The partition.
    pub(crate) partition: i32,
    /// The offset.
    pub(crate) offset: i64,
    /// Over how many partitions the table's keys are spread; 1 if what concerns all of them has been waited for.
    pub(crate) spread: u32,
    /// The key; none for tables without one.
    pub(crate) key: Option<&'a [u8]>,
    /// The value; none for a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// The same as a buffer that the batch may keep.
    pub(crate) own: Option<&'a Bytes>,
    /// The headers.
    pub(crate) headers: &'a [Header<'a>],
}

/// Where a record's value lies in its batch.
#[derive(Clone, Copy, Debug)]
struct Place {
    buffer: u32,
    base: usize,
}

impl Place {
    /// The slice of `len` bytes from byte `at` of the value on.
    fn slice(self, at: usize, len: usize) -> Slice {
        Slice { buffer: self.buffer, offset: (self.base + at) as u32, len: len as u32 }
    }
}

/// Gives a record's value its place in the batch.
fn settle(value: &[u8], own: Option<&Bytes>, batch: &mut BatchBuilder) -> Place {
    match own {
        Some(own) => Place { buffer: batch.buffer(own.clone()), base: 0 },
        None => {
            let slice = batch.copy(value);
            Place { buffer: slice.buffer, base: slice.offset as usize }
        }
    }
}

/// The shape of a record.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'a> {
    pub(crate) schema: &'a Arc<TableSchema>,
    /// For each column whether anybody looks at it; none: at all. Columns of the key are always selected.
    pub(crate) selected: Option<&'a [bool]>,
}

impl Shape<'_> {
    /// Whether a column of an image is not looked at.
    fn passes(self, column: usize) -> bool {
        self.selected.is_some_and(|selected| selected.get(column) == Some(&false))
    }
}

/// Adds a record to the batch: as an event, as an undecodable record, or, a tombstone, not at all ([`tombstone`] does). `schema` is the shape in force at the record's offset.
pub(crate) fn decode(record: &Record<'_>, schema: Option<&Arc<TableSchema>>, batch: &mut BatchBuilder) {
    decode_selected(record, schema.map(|schema| Shape { schema, selected: None }), batch);
}

/// The same; columns that are not selected are [`caudal_core::Cell::Unchanged`] where the form lets them be passed over.
pub(crate) fn decode_selected(record: &Record<'_>, shape: Option<Shape<'_>>, batch: &mut BatchBuilder) {
    let Some(value) = record.value else { return };
    let place = settle(value, record.own, batch);
    let raw_value = place.slice(0, value.len());
    let decoded = match shape {
        Some(shape) => event(value, (place, record.spread), shape, batch),
        None => Err(Malformed::new("no schema is known for its table at this offset")),
    };
    let raw = Raw {
        topic: Arc::clone(record.topic),
        partition: record.partition,
        offset: record.offset,
        key: record.key.map(|key| batch.copy(key)),
        value: Some(raw_value),
        headers: headers(record, batch),
    };
    match decoded {
        Ok(()) => batch.raw.push(raw),
        Err(cause) => batch.undecodable.push(Undecodable { raw, cause: cause.to_string() }),
    }
}

fn headers(record: &Record<'_>, batch: &mut BatchBuilder) -> Vec<(Slice, Slice)> {
    let kept = record.headers.iter().map(|(name, value)| (batch.copy(name.as_bytes()), batch.copy(value)));
    kept.collect()
}

/// Adds a tombstone as the deletion of its key: for one whose deletion was compacted away, or comes to nobody who read it.
/// The image before has the columns of the key alone. Nothing for a table without a shape or a key.
pub(crate) fn tombstone(record: &Record<'_>, schema: Option<&Arc<TableSchema>>, batch: &mut BatchBuilder) {
    let (Some(key), Some(schema)) = (record.key, schema.filter(|schema| !schema.key.is_empty())) else {
        return;
    };
    if key == crate::encode::TRUNCATE_KEY.as_bytes() {
        return;
    }
    let slice = batch.copy(key);
    let raw = Raw {
        topic: Arc::clone(record.topic),
        partition: record.partition,
        offset: record.offset,
        key: Some(slice),
        value: None,
        headers: headers(record, batch),
    };
    let cells = batch.cells.len();
    let place = Place { buffer: slice.buffer, base: slice.offset as usize };
    match envelope::deletion(key, place, schema, batch) {
        Ok(event) => {
            batch.events.push(event);
            batch.raw.push(raw);
        }
        Err(cause) => {
            batch.cells.truncate(cells);
            batch.undecodable.push(Undecodable { raw, cause: format!("key: {cause}") });
        }
    }
}

/// Adds the event, or leaves cells and events as they were.
fn event(
    value: &[u8],
    (place, spread): (Place, u32),
    shape: Shape<'_>,
    batch: &mut BatchBuilder,
) -> Result<(), Malformed> {
    let cells = batch.cells.len();
    // JSON begins with neither.
    let decoded = match value.first() {
        Some(0) if protobuf::is_one(value) => protobuf::event(value, place, shape.schema, batch),
        Some(0) => avro::event(value, place, shape.schema, batch),
        Some(&own::FIRST_BYTE) => own::event(value, place, shape, batch),
        _ => match std::str::from_utf8(value) {
            Ok(text) => envelope::event(text, place, shape, batch),
            Err(_) => Err(Malformed::new("UTF-8 expected")),
        },
    };
    let decoded = decoded.and_then(|event| whole_table(event, spread));
    if decoded.is_err() {
        batch.cells.truncate(cells);
    }
    decoded.map(|event| batch.events.push(event))
}

/// A truncation lies in each partition of its table, and empties the whole table: applied once for each, it would take rows
/// that were written after it to the partitions read before. Who reads all of them waits for it in each; for others it cannot be
/// applied.
fn whole_table(event: EventHead, spread: u32) -> Result<EventHead, Malformed> {
    if event.op == Op::Truncate && spread > 1 {
        return Err(Malformed::new(format!(
            "the table was truncated, and its {spread} partitions are shared among instances: empty the target, and read the table anew"
        )));
    }
    Ok(event)
}
