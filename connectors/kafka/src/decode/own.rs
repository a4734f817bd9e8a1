//! Envelopes of `proto/caudal/v1/envelope.proto` to events.

use super::envelope::{Envelope, SourceBlock, mark};
use super::scan::Malformed;
use super::{Place, Shape};
use caudal_core::{BatchBuilder, Cell, ColumnType, EventHead, Op, Slice};
use caudal_proto::envelope::{self as proto, Fields, Value, unzigzag};

/// How a record begins: the field `version`, a number.
pub(super) const FIRST_BYTE: u8 = 8;

/// A record, and where it lies.
#[derive(Clone, Copy)]
pub(super) struct Whole<'a> {
    pub(super) record: &'a [u8],
    pub(super) place: Place,
}

impl Whole<'_> {
    /// The slice of a part of the record.
    pub(super) fn slice(self, part: &[u8]) -> Slice {
        self.place.slice(part.as_ptr().addr() - self.record.as_ptr().addr(), part.len())
    }
}

/// Decodes one envelope. The record's value lies at `place` in the batch.
pub(super) fn event(
    value: &[u8],
    place: Place,
    shape: Shape<'_>,
    batch: &mut BatchBuilder,
) -> Result<EventHead, Malformed> {
    let whole = Whole { record: value, place };
    let mut found = Envelope::default();
    for field in Fields::of(value) {
        match field.map_err(|_| damaged())? {
            (proto::change::VERSION, Value::Number(version)) if version != proto::VERSION => {
                return Err(Malformed::new(format!(
                    "the envelope is of format {version}: a newer release wrote it"
                )));
            }
            (proto::change::BEFORE, Value::Bytes(row)) => {
                found.before = Some(row_of(row, shape, batch, whole).map_err(|e| e.of("before"))?);
            }
            (proto::change::AFTER, Value::Bytes(row)) => {
                found.after = Some(row_of(row, shape, batch, whole).map_err(|e| e.of("after"))?);
            }
            (proto::change::SOURCE, Value::Bytes(block)) => {
                found.source = Some(source(block, whole).map_err(|e| e.of("source"))?);
            }
            (proto::change::OP, Value::Bytes([letter])) => found.op = Op::from_letter(*letter),
            _ => {}
        }
    }
    found.head(shape.schema, batch)
}

pub(super) fn damaged() -> Malformed {
    Malformed::new("Protobuf expected")
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::new("UTF-8 expected"))
}

/// A row image: gives the index of its first cell. A column that is absent is `Unchanged`.
fn row_of(
    row: &[u8],
    shape: Shape<'_>,
    batch: &mut BatchBuilder,
    whole: Whole<'_>,
) -> Result<u32, Malformed> {
    let start = batch.cells.len();
    batch.cells.resize(start + shape.schema.width(), Cell::Unchanged);
    let mut expected = 0;
    for field in Fields::of(row) {
        if let (proto::row::FIELDS, Value::Bytes(field)) = field.map_err(|_| damaged())? {
            let (column, cell) = field_of(field, shape, expected, whole)?;
            batch.cells[start + column] = cell;
            expected = column + 1;
        }
    }
    Ok(start as u32)
}

fn field_of(
    field: &[u8],
    shape: Shape<'_>,
    expected: usize,
    whole: Whole<'_>,
) -> Result<(usize, Cell), Malformed> {
    let schema = shape.schema;
    let (mut name, mut value) = (&[][..], None);
    for field in Fields::of(field) {
        match field.map_err(|_| damaged())? {
            (proto::row::NAME, Value::Bytes(bytes)) => name = bytes,
            (proto::row::KIND, _) => {}
            (number, found) => value = Some((number, found)),
        }
    }
    let is = |i: usize| schema.columns.get(i).is_some_and(|c| c.name.as_bytes() == name);
    let column = Some(expected).filter(|&i| is(i)).or_else(|| (0..schema.width()).find(|&i| is(i)));
    let column = column.ok_or_else(|| {
        let name = String::from_utf8_lossy(name);
        Malformed::new(format!("column {name:?} is not in version {} of {}", schema.version, schema.id))
    })?;
    if shape.passes(column) {
        return Ok((column, Cell::Unchanged));
    }
    let described = &schema.columns[column];
    let cell = value.map_or(Ok(Cell::Null), |value| cell(value, &described.ty, whole));
    Ok((column, cell.map_err(|e| e.of(&described.name))?))
}

fn cell((number, value): (u32, Value<'_>), ty: &ColumnType, whole: Whole<'_>) -> Result<Cell, Malformed> {
    use ColumnType as T;
    use proto::row as field;
    Ok(match (number, value, ty) {
        (
            field::SIGNED,
            Value::Number(n),
            T::Bool
            | T::Int { .. }
            | T::UInt { .. }
            | T::Date
            | T::Time { .. }
            | T::DateTime { .. }
            | T::Timestamp { .. }
            | T::Year,
        ) => Cell::I64(unzigzag(n)),
        (field::UNSIGNED, Value::Number(n), T::UInt { .. } | T::Bit { .. }) => Cell::U64(n),
        (field::SINGLE, Value::Fixed32(f), T::Float32) => Cell::F32(f32::from_le_bytes(f)),
        (field::DOUBLE, Value::Fixed64(f), T::Float64) => Cell::F64(f64::from_le_bytes(f)),
        (field::TEXT, Value::Bytes(bytes), ty) => {
            let slice = whole.slice(text(bytes)?.as_bytes());
            match ty {
                T::Decimal { .. } => Cell::Decimal(slice),
                T::Json => Cell::Json(slice),
                ty if crate::encode::value::holds_text(ty) => Cell::Text(slice),
                _ => return Err(Malformed::new("another kind of value expected")),
            }
        }
        (field::BYTES, Value::Bytes(bytes), T::Bytes { .. } | T::Geometry | T::Vector { .. }) => {
            Cell::Bytes(whole.slice(bytes))
        }
        _ => return Err(Malformed::new("another kind of value expected")),
    })
}

fn source(block: &[u8], whole: Whole<'_>) -> Result<SourceBlock, Malformed> {
    use proto::source as field;
    let mut found = SourceBlock::default();
    for told in Fields::of(block) {
        match told.map_err(|_| damaged())? {
            (field::TS_US, Value::Number(n)) => found.ts_us = n as i64,
            (field::SNAPSHOT, Value::Bytes(word)) => {
                found.snapshot = mark(word).ok_or_else(|| Malformed::new("a snapshot mark expected"))?;
            }
            (field::SERVER_ID, Value::Number(n)) => found.transaction.server_id = n as u32,
            (field::GTID, Value::Bytes(gtid)) => {
                found.transaction.gtid = Some(whole.slice(text(gtid)?.as_bytes()));
            }
            (field::FILE, Value::Bytes(file)) => {
                found.transaction.file =
                    Some(whole.slice(text(file)?.as_bytes())).filter(|file| file.len > 0);
            }
            (field::POS, Value::Number(n)) => found.pos = n,
            (field::ROW, Value::Number(n)) => found.row = n as u32,
            (field::THREAD, Value::Number(n)) => found.transaction.thread = n as u32,
            _ => {}
        }
    }
    Ok(found)
}
