//! Envelopes in Protobuf under a registry to events: the inverse of the encoder's, by the table's shape alone; no registry is asked.

use super::Place;
use super::envelope::{Envelope, SourceBlock, mark};
use super::instant;
use super::own::{Whole, damaged, text};
use super::scan::Malformed;
use crate::encode::protobuf::{FRAME, field, numbers};
use crate::encode::value::holds_text;
use caudal_core::{BatchBuilder, Cell, ColumnType, EventHead, Op, TableSchema};
use caudal_proto::envelope::{Fields, Value};
use std::sync::Arc;

/// Whether a framed record is one: behind the frame stands the number 0, "the first message", and then one of the first fields of
/// an envelope. An Avro record of ours has there the branches of two unions, each 0 or 2.
pub(super) fn is_one(value: &[u8]) -> bool {
    matches!(value.get(FRAME - 1..=FRAME), Some([0, tag]) if [field::BEFORE, field::AFTER, field::SOURCE].iter().any(|f| u32::from(*tag) == f << 3 | 2))
}

/// Decodes one envelope. The record's value lies at `place` in the batch.
pub(super) fn event(
    value: &[u8],
    place: Place,
    schema: &Arc<TableSchema>,
    batch: &mut BatchBuilder,
) -> Result<EventHead, Malformed> {
    let whole = Whole { record: value, place };
    let numbers = numbers(schema);
    let (mut found, mut whole_one) = (Envelope::default(), false);
    for told in Fields::of(value.get(FRAME..).unwrap_or_default()) {
        match told.map_err(|_| damaged())? {
            (field::BEFORE, Value::Bytes(row)) => {
                found.before =
                    Some(row_of(row, (schema, &numbers), batch, whole).map_err(|e| e.of("before"))?);
            }
            (field::AFTER, Value::Bytes(row)) => {
                found.after = Some(row_of(row, (schema, &numbers), batch, whole).map_err(|e| e.of("after"))?);
            }
            (field::SOURCE, Value::Bytes(block)) => {
                found.source = Some(source(block, whole).map_err(|e| e.of("source"))?);
            }
            (field::OP, Value::Bytes([letter])) => found.op = Op::from_letter(*letter),
            (field::TS_NS, Value::Number(_)) => whole_one = true,
            _ => {}
        }
    }
    // Protobuf does not tell a message that was cut off between two fields; the last one is always written.
    if !whole_one {
        return Err(Malformed::new("ts_ns is missing"));
    }
    found.head(schema, batch)
}

/// Decodes a key: gives the index of the first cell of a row that has the key's columns alone. None if it is no such key: the columns'
/// numbers are all that tells it from an Avro record, and those are not met by chance.
pub(super) fn key(
    key: &[u8],
    place: Place,
    schema: &TableSchema,
    batch: &mut BatchBuilder,
) -> Option<Result<u32, Malformed>> {
    if key.get(FRAME - 1) != Some(&0) {
        return None;
    }
    let numbers = numbers(schema);
    let mut fields = Vec::with_capacity(schema.key.len());
    for told in Fields::of(key.get(FRAME..)?) {
        let (number, value) = told.ok()?;
        let column = schema.key.iter().map(|&i| i as usize).find(|&i| numbers[i] == number)?;
        fields.push((column, value));
    }
    if fields.len() != schema.key.len() {
        return None;
    }
    let start = batch.cells.len();
    batch.cells.resize(start + schema.width(), Cell::Unchanged);
    let whole = Whole { record: key, place };
    let filled = fields.into_iter().try_for_each(|(column, value)| {
        batch.cells[start + column] = cell(value, &schema.columns[column].ty, batch, whole)?;
        Ok(())
    });
    Some(filled.map(|()| start as u32))
}

/// A row image: gives the index of its first cell. A column that is absent is NULL.
fn row_of(
    row: &[u8],
    (schema, numbers): (&TableSchema, &[u32]),
    batch: &mut BatchBuilder,
    whole: Whole<'_>,
) -> Result<u32, Malformed> {
    let start = batch.cells.len();
    batch.cells.resize(start + schema.width(), Cell::Null);
    let mut expected = 0;
    for told in Fields::of(row) {
        let (number, value) = told.map_err(|_| damaged())?;
        // They lie in the order of the columns.
        let ahead = numbers[expected..].iter().position(|n| *n == number).map(|at| at + expected);
        let column = ahead.or_else(|| numbers.iter().position(|n| *n == number)).ok_or_else(|| {
            Malformed::new(format!(
                "field {number} is no column of version {} of {}",
                schema.version, schema.id
            ))
        })?;
        let described = &schema.columns[column];
        batch.cells[start + column] =
            cell(value, &described.ty, batch, whole).map_err(|e| e.of(&described.name))?;
        expected = column + 1;
    }
    for (column, cell) in schema.columns.iter().zip(&batch.cells[start..]) {
        if !column.nullable && *cell == Cell::Null {
            return Err(Malformed::new("a value expected").of(&column.name));
        }
    }
    Ok(start as u32)
}

fn other() -> Malformed {
    Malformed::new("another kind of value expected")
}

fn cell(
    value: Value<'_>,
    ty: &ColumnType,
    batch: &mut BatchBuilder,
    whole: Whole<'_>,
) -> Result<Cell, Malformed> {
    use ColumnType as T;
    Ok(match (ty, value) {
        (T::Bool, Value::Number(n)) => Cell::I64((n != 0).into()),
        (T::Bit { bits: 1 }, Value::Number(n)) => Cell::U64((n != 0).into()),
        (T::Bit { .. }, Value::Bytes(bytes)) => {
            Cell::U64(bytes.iter().take(8).rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
        }
        (T::UInt { bits: 64 }, Value::Number(n)) => Cell::U64(n),
        (T::DateTime { precision: ..=3 }, Value::Number(n)) => {
            let micros = (n as i64).checked_mul(1_000);
            Cell::I64(micros.ok_or_else(|| Malformed::new("a moment within range expected"))?)
        }
        (
            T::Int { .. } | T::UInt { .. } | T::Date | T::Time { .. } | T::DateTime { .. } | T::Year,
            Value::Number(n),
        ) => Cell::I64(n as i64),
        (T::Float32, Value::Fixed32(f)) => Cell::F32(f32::from_le_bytes(f)),
        (T::Float64, Value::Fixed64(f)) => Cell::F64(f64::from_le_bytes(f)),
        (T::Decimal { .. }, Value::Bytes(bytes)) => Cell::Decimal(whole.slice(text(bytes)?.as_bytes())),
        (T::Timestamp { .. }, Value::Bytes(bytes)) => {
            let micros = instant::micros(text(bytes)?);
            Cell::I64(micros.ok_or_else(|| Malformed::new("an instant expected"))?)
        }
        (T::Json, Value::Bytes(bytes)) => Cell::Json(whole.slice(text(bytes)?.as_bytes())),
        (T::Bytes { .. }, Value::Bytes(bytes)) => Cell::Bytes(whole.slice(bytes)),
        (T::Geometry, Value::Bytes(message)) => geometry(message, batch)?,
        (T::Vector { .. }, Value::Bytes(message)) => vector(message, batch)?,
        (ty, Value::Bytes(bytes)) if holds_text(ty) => Cell::Text(whole.slice(text(bytes)?.as_bytes())),
        _ => return Err(other()),
    })
}

fn geometry(message: &[u8], batch: &mut BatchBuilder) -> Result<Cell, Malformed> {
    let (mut wkb, mut srid) = (&[][..], 0);
    for told in Fields::of(message) {
        match told.map_err(|_| damaged())? {
            (field::WKB, Value::Bytes(bytes)) => wkb = bytes,
            (field::SRID, Value::Number(n)) => srid = n as u32,
            _ => {}
        }
    }
    Ok(Cell::Bytes(batch.write(|arena| {
        arena.extend_from_slice(&srid.to_le_bytes());
        arena.extend_from_slice(wkb);
    })))
}

/// Packed, or one by one as other writers may have them.
fn vector(message: &[u8], batch: &mut BatchBuilder) -> Result<Cell, Malformed> {
    let start = batch.arena().len();
    for told in Fields::of(message) {
        match told.map_err(|_| damaged())? {
            (field::VALUES, Value::Bytes(floats)) => batch.arena().extend_from_slice(floats),
            (field::VALUES, Value::Fixed32(float)) => batch.arena().extend_from_slice(&float),
            _ => {}
        }
    }
    Ok(Cell::Bytes(batch.slice_from(start)))
}

fn source(block: &[u8], whole: Whole<'_>) -> Result<SourceBlock, Malformed> {
    let mut found = SourceBlock::default();
    for told in Fields::of(block) {
        match told.map_err(|_| damaged())? {
            (5, Value::Bytes(word)) => {
                found.snapshot = mark(word).ok_or_else(|| Malformed::new("a snapshot mark expected"))?;
            }
            (8, Value::Number(n)) => found.ts_us = n as i64,
            (11, Value::Number(n)) => found.transaction.server_id = n as u32,
            (12, Value::Bytes(gtid)) => found.transaction.gtid = Some(whole.slice(text(gtid)?.as_bytes())),
            (13, Value::Bytes(file)) => {
                found.transaction.file =
                    Some(whole.slice(text(file)?.as_bytes())).filter(|file| file.len > 0);
            }
            (14, Value::Number(n)) => found.pos = n,
            (15, Value::Number(n)) => found.row = n as u32,
            (16, Value::Number(n)) => found.transaction.thread = n as u32,
            _ => {}
        }
    }
    Ok(found)
}
