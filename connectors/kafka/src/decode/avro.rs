//! Envelopes in Avro to events: the inverse of the encoder's, by the table's shape alone; no registry is asked.

use super::Place;
use super::envelope::{Envelope, SourceBlock, mark};
use super::instant;
use super::number;
use super::scan::Malformed;
use crate::encode::value::How;
use crate::format::{Format, Profile};
use caudal_core::{BatchBuilder, Cell, Column, ColumnType, EventHead, Op, Slice, TableSchema};
use std::sync::Arc;

/// What comes before a record: 0 and the schema's number.
const FRAME: usize = 5;

/// Decodes one envelope. The record's value lies at `place` in the batch.
pub(super) fn event(
    value: &[u8],
    place: Place,
    schema: &Arc<TableSchema>,
    batch: &mut BatchBuilder,
) -> Result<EventHead, Malformed> {
    let mut reader = Reader { bytes: value, at: FRAME, place };
    let before = row(&mut reader, schema, batch).map_err(|e| e.of("before"))?;
    let after = row(&mut reader, schema, batch).map_err(|e| e.of("after"))?;
    let source = source(&mut reader).map_err(|e| e.of("source"))?;
    if reader.long()? == 1 {
        reader.bytes()?;
        reader.long()?;
        reader.long()?;
    }
    let op = reader.bytes()?;
    let op = match reader.of(op) {
        [letter] => Op::from_letter(*letter),
        _ => None,
    };
    for _ in 0..3 {
        if reader.long()? == 1 {
            reader.long()?;
        }
    }
    if reader.at != value.len() {
        return Err(reader.wrong("the end"));
    }
    Envelope { before, after, source: Some(source), op, passed: None }.head(schema, batch)
}

/// Decodes a key: gives the index of the first cell of a row that has the key's columns alone.
pub(super) fn key(
    key: &[u8],
    place: Place,
    schema: &TableSchema,
    batch: &mut BatchBuilder,
) -> Result<u32, Malformed> {
    let mut reader = Reader { bytes: key, at: FRAME, place };
    let start = batch.cells.len();
    batch.cells.resize(start + schema.width(), Cell::Unchanged);
    for &i in &schema.key {
        batch.cells[start + i as usize] = column(&mut reader, &schema.columns[i as usize], batch)?;
    }
    if reader.at == key.len() { Ok(start as u32) } else { Err(reader.wrong("the end")) }
}

/// A position in one record.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    place: Place,
}

impl Reader<'_> {
    fn wrong(&self, what: &str) -> Malformed {
        Malformed::new(format!("{what} expected at byte {}", self.at))
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(|| self.wrong("a byte"))?;
        self.at += 1;
        Ok(byte)
    }

    fn long(&mut self) -> Result<i64, Malformed> {
        let mut zigzag = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            zigzag |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            }
        }
        Err(self.wrong("a number of 64 bits"))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .ok_or_else(|| self.wrong("more bytes"))?;
        self.at += N;
        Ok(*taken)
    }

    /// Bytes or text, as a slice of the record in the batch.
    fn bytes(&mut self) -> Result<Slice, Malformed> {
        let length = usize::try_from(self.long()?).map_err(|_| self.wrong("a length"))?;
        if length > self.bytes.len().saturating_sub(self.at) {
            return Err(self.wrong("more bytes"));
        }
        let slice = self.place.slice(self.at, length);
        self.at += length;
        Ok(slice)
    }

    fn text(&mut self) -> Result<Slice, Malformed> {
        let slice = self.bytes()?;
        std::str::from_utf8(self.of(slice)).map_err(|_| self.wrong("UTF-8"))?;
        Ok(slice)
    }

    fn maybe(&mut self) -> Result<Option<Slice>, Malformed> {
        if self.long()? == 1 { self.text().map(Some) } else { Ok(None) }
    }

    fn of(&self, slice: Slice) -> &[u8] {
        &self.bytes[slice.offset as usize - self.place.base..][..slice.len as usize]
    }
}

fn row(
    reader: &mut Reader<'_>,
    schema: &TableSchema,
    batch: &mut BatchBuilder,
) -> Result<Option<u32>, Malformed> {
    if reader.long()? == 0 {
        return Ok(None);
    }
    let start = batch.cells.len();
    for described in &schema.columns {
        let cell = column(reader, described, batch)?;
        batch.cells.push(cell);
    }
    Ok(Some(start as u32))
}

fn column(reader: &mut Reader<'_>, column: &Column, batch: &mut BatchBuilder) -> Result<Cell, Malformed> {
    if column.nullable && reader.long()? == 0 {
        return Ok(Cell::Null);
    }
    let how = How::of(Profile::Safe, Format::Avro, column);
    cell(reader, &column.ty, how, batch).map_err(|e| e.of(&column.name))
}

fn source(reader: &mut Reader<'_>) -> Result<SourceBlock, Malformed> {
    let mut found = SourceBlock::default();
    for _ in 0..3 {
        reader.bytes()?;
    }
    reader.long()?;
    if let Some(word) = reader.maybe()? {
        found.snapshot = mark(reader.of(word)).ok_or_else(|| reader.wrong("a snapshot mark"))?;
    }
    reader.bytes()?;
    reader.maybe()?;
    if reader.long()? == 1 {
        found.ts_us = reader.long()?;
    }
    if reader.long()? == 1 {
        reader.long()?;
    }
    reader.maybe()?;
    found.transaction.server_id = reader.long()? as u32;
    found.transaction.gtid = reader.maybe()?;
    found.transaction.file = Some(reader.text()?).filter(|file| file.len > 0);
    found.pos = reader.long()? as u64;
    found.row = reader.long()? as u32;
    if reader.long()? == 1 {
        found.transaction.thread = reader.long()? as u32;
    }
    reader.maybe()?;
    Ok(found)
}

fn cell(
    reader: &mut Reader<'_>,
    ty: &ColumnType,
    how: How,
    batch: &mut BatchBuilder,
) -> Result<Cell, Malformed> {
    use ColumnType as T;
    Ok(match ty {
        T::Bool => Cell::I64((reader.byte()? != 0).into()),
        T::Bit { bits: 1 } => Cell::U64((reader.byte()? != 0).into()),
        T::Bit { .. } => {
            let bytes = reader.bytes()?;
            Cell::U64(reader.of(bytes).iter().take(8).rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
        }
        T::UInt { bits: 64 } => {
            let bytes = reader.bytes()?;
            let number = number::plain(reader.of(bytes), 0).and_then(|digits| digits.parse().ok());
            Cell::U64(number.ok_or_else(|| reader.wrong("an unsigned 64-bit integer"))?)
        }
        T::DateTime { precision: ..=3 } => {
            let micros = reader.long()?.checked_mul(1_000);
            Cell::I64(micros.ok_or_else(|| reader.wrong("a moment within range"))?)
        }
        T::Int { .. } | T::UInt { .. } | T::Date | T::Time { .. } | T::DateTime { .. } | T::Year => {
            Cell::I64(reader.long()?)
        }
        T::Float32 => Cell::F32(f32::from_le_bytes(reader.take()?)),
        T::Float64 => Cell::F64(f64::from_le_bytes(reader.take()?)),
        T::Decimal { scale, .. } => {
            let bytes = reader.bytes()?;
            let plain =
                number::plain(reader.of(bytes), *scale).ok_or_else(|| reader.wrong("a decimal number"))?;
            Cell::Decimal(batch.copy(plain.as_bytes()))
        }
        T::Timestamp { .. } => {
            let text = reader.text()?;
            let micros = std::str::from_utf8(reader.of(text)).ok().and_then(instant::micros);
            Cell::I64(micros.ok_or_else(|| reader.wrong("an instant"))?)
        }
        T::Json => Cell::Json(reader.text()?),
        T::Text { .. } | T::Enum { .. } | T::Set { .. } | T::Uuid | T::Inet4 | T::Inet6 => {
            Cell::Text(reader.text()?)
        }
        T::Bytes { .. } => Cell::Bytes(reader.bytes()?),
        T::Geometry => geometry(reader, how, batch)?,
        T::Vector { .. } => vector(reader, batch)?,
    })
}

fn geometry(reader: &mut Reader<'_>, how: How, batch: &mut BatchBuilder) -> Result<Cell, Malformed> {
    if how.point {
        reader.take::<16>()?;
    }
    let wkb = reader.bytes()?;
    let srid = if reader.long()? == 1 { reader.long()? as i32 as u32 } else { 0 };
    let bytes = reader.of(wkb);
    Ok(Cell::Bytes(batch.write(|arena| {
        arena.extend_from_slice(&srid.to_le_bytes());
        arena.extend_from_slice(bytes);
    })))
}

fn vector(reader: &mut Reader<'_>, batch: &mut BatchBuilder) -> Result<Cell, Malformed> {
    let start = batch.arena().len();
    loop {
        let count = reader.long()?;
        if count == 0 {
            return Ok(Cell::Bytes(batch.slice_from(start)));
        }
        for _ in 0..count {
            let float = reader.take::<4>()?;
            batch.arena().extend_from_slice(&float);
        }
    }
}
