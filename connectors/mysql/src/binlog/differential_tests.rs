//! Our decoder against an independent one, `mysql_cdc`, over the recorded logs: on what that one can read, both must agree.
//!
//! It knows no compression, no binary JSON, no negative TIME, no character set but UTF-8, no padding of BINARY, and keeps
//! fractions of seconds to milliseconds; integers come as their bits, ENUM and SET as numbers. Where it gives up on an event,
//! there is nothing to compare.

use super::recorded::{FILES, Reading, events};
use super::*;
use crate::binlog::table_map::{MapColumn, WireType};
use caudal_core::temporal::days_from_civil;
use caudal_core::{Batch, Cell};
use mysql_cdc::binlog_reader::BinlogReader;
use mysql_cdc::events::binlog_event::BinlogEvent;
use mysql_cdc::events::row_events::mysql_value::MySqlValue as Theirs;
use std::collections::HashMap;
use std::io::Write as _;

type Images = Vec<Vec<Option<Theirs>>>;

/// Their images by the position behind the event; updates before and after in turn.
fn theirs(file: &[u8]) -> HashMap<u32, Images> {
    let mut on_disk = tempfile::tempfile().unwrap();
    on_disk.write_all(file).unwrap();
    std::io::Seek::rewind(&mut on_disk).unwrap();
    let read = BinlogReader::new(on_disk).unwrap();
    let mut all = HashMap::new();
    for (head, event) in read.read_events().flatten() {
        let images = match event {
            BinlogEvent::WriteRowsEvent(e) => e.rows.into_iter().map(|r| r.cells).collect(),
            BinlogEvent::DeleteRowsEvent(e) => e.rows.into_iter().map(|r| r.cells).collect(),
            BinlogEvent::UpdateRowsEvent(e) => {
                e.rows.into_iter().flat_map(|r| [r.before_update.cells, r.after_update.cells]).collect()
            }
            _ => continue,
        };
        all.insert(head.next_event_position, images);
    }
    all
}

/// Whether both mean the same; none where theirs cannot tell.
fn agree(ours: Cell, theirs: &Theirs, column: &MapColumn, batch: &Batch) -> Option<bool> {
    let text = |cell: Cell| cell.slice().map(|s| String::from_utf8_lossy(batch.bytes(s)).into_owned());
    let bytes = |cell: Cell| cell.slice().map(|s| batch.bytes(s).to_vec());
    let is_utf8 = matches!(column.collation, Some(45 | 46 | 63 | 255) | None);
    Some(match (ours, theirs) {
        (Cell::I64(v), Theirs::TinyInt(t)) => v as u8 == *t,
        (Cell::I64(v), Theirs::SmallInt(t)) => v as u16 == *t,
        (Cell::I64(v), Theirs::MediumInt(t)) => v as u32 & 0xff_ffff == t & 0xff_ffff,
        (Cell::I64(v), Theirs::Int(t)) => v as u32 == *t,
        (Cell::I64(v), Theirs::BigInt(t)) => v as u64 == *t,
        (Cell::U64(v), Theirs::BigInt(t)) => v == *t,
        (Cell::F32(v), Theirs::Float(t)) => v.to_bits() == t.to_bits(),
        (Cell::F64(v), Theirs::Double(t)) => v.to_bits() == t.to_bits(),
        (Cell::Decimal(_), Theirs::Decimal(t)) => text(ours)? == *t,
        (Cell::U64(v), Theirs::Bit(t)) => {
            let number = |bits: &mut dyn Iterator<Item = &bool>| bits.fold(0, |n, b| n << 1 | u64::from(*b));
            v == number(&mut t.iter()) || v == number(&mut t.iter().rev())
        }
        (Cell::Text(_), Theirs::Enum(0)) => text(ours)?.is_empty(),
        (Cell::Text(_), Theirs::Enum(t)) => column.members.get(*t as usize - 1) == text(ours).as_ref(),
        (Cell::Text(_), Theirs::Set(t)) => {
            let labels = column.members.iter().enumerate().filter(|(i, _)| t >> i & 1 == 1);
            labels.map(|(_, l)| l.as_str()).collect::<Vec<_>>().join(",") == text(ours)?
        }
        (Cell::Text(_), Theirs::String(t)) if is_utf8 => text(ours)? == *t,
        (Cell::Text(_), Theirs::Blob(t)) if is_utf8 => text(ours)?.as_bytes() == t,
        (Cell::Bytes(_), Theirs::Blob(t)) => bytes(ours)? == *t,
        (Cell::Bytes(_), Theirs::String(t)) if !t.contains('\u{fffd}') => {
            let ours = bytes(ours)?;
            let end = ours.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
            ours.get(..end)? == t.trim_end_matches('\0').as_bytes()
        }
        (Cell::I64(0), Theirs::Year(_)) => return None,
        (Cell::I64(v), Theirs::Year(t)) => v == i64::from(*t),
        (Cell::I64(v), Theirs::Date(t)) => {
            Some(v) == days_from_civil(i32::from(t.year), u32::from(t.month), u32::from(t.day))
        }
        (Cell::I64(v), Theirs::Time(t)) => {
            let seconds = (i64::from(t.hour) * 60 + i64::from(t.minute)) * 60 + i64::from(t.second);
            v / 1000 == seconds * 1000 + i64::from(t.millis)
        }
        (Cell::I64(v), Theirs::DateTime(t)) => {
            let days = days_from_civil(i32::from(t.year), u32::from(t.month), u32::from(t.day))?;
            let hms = (i64::from(t.hour) * 60 + i64::from(t.minute)) * 60 + i64::from(t.second);
            v.div_euclid(1000) == (days * 86_400 + hms) * 1000 + i64::from(t.millis)
        }
        (Cell::I64(v), Theirs::Timestamp(t)) => v / 1000 == *t as i64,
        (Cell::Text(_), Theirs::Timestamp(t)) => *t == 0,
        (Cell::Text(_), Theirs::Date(t)) => {
            text(ours)? == format!("{:04}-{:02}-{:02}", t.year, t.month, t.day)
        }
        _ => return None,
    })
}

#[test]
fn an_independent_decoder_agrees_on_all_that_it_reads() {
    for (name, family, file) in FILES.into_iter().step_by(2) {
        let theirs = theirs(file);
        let mut reading = Reading::new(family);
        let (mut compared, mut silent) = (0, 0);
        for event in events(file) {
            reading.assembler.push(&event).unwrap();
            while let Some(event) = reading.assembler.pop().unwrap() {
                let EventKind::Rows(rows) = &event.kind else { continue };
                let Some(images) = theirs.get(&(event.end_pos as u32)) else { continue };
                let batch = reading.decoded(rows).unwrap();
                let columns = &rows.table.columns;
                assert_eq!(batch.cells.len(), images.len() * columns.len());
                for (cells, image) in batch.cells.chunks(columns.len()).zip(images) {
                    for ((cell, column), theirs) in cells.iter().zip(columns).zip(image) {
                        let same = match theirs {
                            None => Some(cell.is_null()),
                            Some(_) if matches!(column.ty, WireType::Json { .. }) => None,
                            Some(value) => agree(*cell, value, column, &batch),
                        };
                        compared += u32::from(same.is_some());
                        silent += u32::from(same.is_none());
                        let place = (name, &rows.table.table, column.ty);
                        assert!(same != Some(false), "{place:?}: ours {cell:?}, theirs {theirs:?}");
                    }
                }
            }
        }
        assert!(compared > 1000 && silent < compared / 5, "{name}: {compared} compared, {silent} not");
        println!("{name}: {compared} values agree, {silent} that it cannot tell");
    }
}
