//! What the fuzzers run: any bytes as a log, read and decoded as the stream does.

use bytes::Bytes;
use caudal_core::{
    Batch, BatchBuilder, Cell, Column, ColumnType, KeyKind, Position, SourcePosition, TableId, TableSchema,
};
use caudal_mysql::binlog::{
    EventKind, MapColumn, Recording, RowDecoder, Rows, TableMap, WireType, file_events,
};
use caudal_mysql::charset::Charset;
use caudal_mysql::connection::Family;
use std::collections::HashMap;
use std::sync::Arc;

/// The largest event, compressed or not.
pub(crate) const MOST_EVENT: usize = 1 << 20;

/// Shapes of tables, as the first map told them. Kept over inputs: rows then meet maps that don't fit them.
#[derive(Default)]
pub(crate) struct Shapes(HashMap<String, Arc<TableSchema>>);

/// What became of an input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Events that came out.
    pub(crate) events: u64,
    /// Rows that came out.
    pub(crate) rows: u64,
    /// Pieces of it that were refused.
    pub(crate) refused: u64,
    /// Bytes of the largest batch that rows made.
    pub(crate) largest: usize,
}

/// The first byte chooses family and checksums, the rest is a log. Must end, without a panic, within bounded memory.
pub(crate) fn run(input: &[u8], shapes: &mut Shapes) -> Outcome {
    let mut outcome = Outcome::default();
    let Some((choice, log)) = input.split_first() else { return outcome };
    let family = if choice & 1 == 0 { Family::MySql } else { Family::MariaDb };
    let mut recording = Recording::new(family, choice & 2 == 0, MOST_EVENT);
    let mut decoder = RowDecoder::default();
    if shapes.0.len() > 1000 {
        shapes.0.clear();
    }
    for event in file_events(&Bytes::copy_from_slice(log)) {
        if recording.push(&event).is_err() {
            outcome.refused += 1;
        }
        loop {
            match recording.pop() {
                Ok(Some(event)) => {
                    outcome.events += 1;
                    if let EventKind::Rows(rows) = &event.kind {
                        decode(&mut decoder, rows, shapes, &mut outcome);
                    }
                }
                Ok(None) => break,
                Err(_) => outcome.refused += 1,
            }
        }
    }
    outcome
}

fn decode(decoder: &mut RowDecoder, rows: &Rows, shapes: &mut Shapes, outcome: &mut Outcome) {
    let name = format!("{}.{}", rows.table.database, rows.table.table);
    let schema = Arc::clone(shapes.0.entry(name).or_insert_with(|| shape(&rows.table)));
    let mut out = BatchBuilder::default();
    let decoded = decoder.decode(rows, &schema, &mut out, |_, _| {
        outcome.rows += 1;
        Ok(())
    });
    outcome.refused += u64::from(decoded.is_err());
    let batch = out.build(Position::Source(SourcePosition::default()), None);
    outcome.largest = outcome.largest.max(batch.size());
    batch.cells.iter().for_each(|cell| look(&batch, *cell));
}

/// Every slice lies in its buffer, and text is UTF-8: else this panics.
fn look(batch: &Batch, cell: Cell) {
    match cell {
        Cell::Text(s) | Cell::Json(s) | Cell::Decimal(s) => {
            assert!(std::str::from_utf8(batch.bytes(s)).is_ok(), "a text that is none");
        }
        Cell::Bytes(s) => drop(batch.bytes(s).first()),
        _ => {}
    }
}

/// A shape that fits the map, as far as the map tells.
fn shape(map: &TableMap) -> Arc<TableSchema> {
    let column = |(i, c): (usize, &MapColumn)| Column {
        id: i as u32,
        name: c.name.clone().unwrap_or_default(),
        ty: meaning(c),
        nullable: c.nullable,
        native: String::new(),
        charset: c.collation.and_then(|id| Charset::by_collation(id).ok()).map(|c| c.name().to_owned()),
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    };
    Arc::new(TableSchema {
        id: TableId::new(map.database.clone(), map.table.clone()),
        version: 1,
        generation: 1,
        columns: map.columns.iter().enumerate().map(column).collect(),
        key: vec![],
        key_kind: KeyKind::None,
        unique_keys: vec![],
        foreign_keys: vec![],
        charset: None,
        comment: None,
    })
}

fn meaning(c: &MapColumn) -> ColumnType {
    let binary = c.collation == Some(63);
    match c.ty {
        WireType::Int(bytes) if c.unsigned == Some(true) => ColumnType::UInt { bits: bytes * 8 },
        WireType::Int(bytes) => ColumnType::Int { bits: bytes * 8 },
        WireType::Float => ColumnType::Float32,
        WireType::Double => ColumnType::Float64,
        WireType::Decimal { precision, scale } => ColumnType::Decimal { precision, scale },
        WireType::Bit(bits) => ColumnType::Bit { bits: bits as u8 },
        WireType::Enum(_) => ColumnType::Enum { members: c.members.clone() },
        WireType::Set(_) => ColumnType::Set { members: c.members.clone() },
        WireType::Date => ColumnType::Date,
        WireType::Year => ColumnType::Year,
        WireType::Time(precision) => ColumnType::Time { precision },
        WireType::DateTime(precision) => ColumnType::DateTime { precision },
        WireType::Timestamp(precision) => ColumnType::Timestamp { precision },
        WireType::OldTime => ColumnType::Time { precision: 3 },
        WireType::OldDateTime => ColumnType::DateTime { precision: 3 },
        WireType::OldTimestamp => ColumnType::Timestamp { precision: 3 },
        WireType::Json { .. } => ColumnType::Json,
        WireType::Geometry { .. } => ColumnType::Geometry,
        WireType::Vector { .. } => ColumnType::Vector { dimensions: 0 },
        WireType::Char { max_bytes } if binary => {
            ColumnType::Bytes { max_bytes: Some(u32::from(max_bytes)), fixed: true }
        }
        _ if binary => ColumnType::Bytes { max_bytes: None, fixed: false },
        _ => ColumnType::Text { max_chars: None },
    }
}
