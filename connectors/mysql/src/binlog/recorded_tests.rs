//! Recorded binlogs of real servers (every column type, plain and compressed, XA, savepoints, partial JSON, tagged GTIDs):
//! read whole, and then damaged in every way that a seed comes upon.

use super::*;
use crate::binlog::table_map::{MapColumn, TableMap, WireType};
use crate::binlog::{NO_IMAGE, RowDecoder};
use crate::charset::Charset;
use caudal_core::{BatchBuilder, Cell, Column, ColumnType, KeyKind, TableId, TableSchema};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;

pub(super) const FILES: [(&str, Family, &[u8]); 4] = [
    ("mariadb", Family::MariaDb, include_bytes!("../../tests/data/mariadb-10.11.binlog")),
    (
        "mariadb compressed",
        Family::MariaDb,
        include_bytes!("../../tests/data/mariadb-10.11-compressed.binlog"),
    ),
    ("mysql", Family::MySql, include_bytes!("../../tests/data/mysql-9.7.binlog")),
    ("mysql compressed", Family::MySql, include_bytes!("../../tests/data/mysql-9.7-compressed.binlog")),
];
const MOST: usize = 1 << 20;

/// The events of a file, behind its 4 bytes of magic.
pub(super) fn events(file: &'static [u8]) -> Vec<Bytes> {
    let mut rest = Bytes::from_static(file).slice(4..);
    let mut all = Vec::new();
    while !rest.is_empty() {
        let size = Head::parse(&rest).unwrap().size as usize;
        all.push(rest.split_to(size));
    }
    all
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

/// Decodes all that the assembler has ready.
pub(super) struct Reading {
    pub(super) assembler: Assembler,
    shapes: HashMap<String, Arc<TableSchema>>,
    decoder: RowDecoder,
    /// One line per event and row.
    seen: Vec<String>,
}

impl Reading {
    pub(super) fn new(family: Family) -> Self {
        Self {
            assembler: Assembler::new(family, true, MOST),
            shapes: HashMap::new(),
            decoder: RowDecoder::default(),
            seen: Vec::new(),
        }
    }

    fn event(&mut self, event: &Bytes) -> caudal_core::Result<()> {
        self.assembler.push(event)?;
        while let Some(event) = self.assembler.pop()? {
            match &event.kind {
                EventKind::Rows(rows) => self.rows(rows)?,
                EventKind::Heartbeat | EventKind::Rotate { .. } | EventKind::Other(_) => {}
                EventKind::TableMap(_) | EventKind::Begin(_) | EventKind::Previous(_) => {}
                EventKind::RowsQuery(_) => {}
                EventKind::Query(q) => self.seen.push(q.statement.clone()),
                other => self.seen.push(format!("{other:?}")),
            }
        }
        Ok(())
    }

    /// The event's images, one after the other.
    pub(super) fn decoded(&mut self, rows: &Rows) -> caudal_core::Result<caudal_core::Batch> {
        let mut out = BatchBuilder::default();
        self.decoder.decode(rows, &shape(&rows.table), &mut out, |_, _| Ok(()))?;
        Ok(out.build(caudal_core::Position::Source(caudal_core::SourcePosition::default()), None))
    }

    fn rows(&mut self, rows: &Rows) -> caudal_core::Result<()> {
        let name = format!("{}.{}", rows.table.database, rows.table.table);
        let schema = Arc::clone(self.shapes.entry(name).or_insert_with(|| shape(&rows.table)));
        let mut out = BatchBuilder::default();
        let mut images = Vec::new();
        let decoded = self.decoder.decode(rows, &schema, &mut out, |_, image| {
            images.push(image);
            Ok(())
        });
        let position = caudal_core::Position::Source(caudal_core::SourcePosition::default());
        let batch = out.build(position, None);
        for image in images {
            let mut line = format!("{:?} {}", rows.op, rows.table.table);
            for at in [image.before, image.after].into_iter().filter(|at| *at != NO_IMAGE) {
                batch.cells[at as usize..][..schema.width()].iter().for_each(|c| line += &shown(&batch, *c));
                line += " ->";
            }
            self.seen.push(line);
        }
        decoded
    }
}

fn shown(batch: &caudal_core::Batch, cell: Cell) -> String {
    match cell {
        Cell::Text(s) | Cell::Json(s) | Cell::Decimal(s) => {
            format!(" {}", std::str::from_utf8(batch.bytes(s)).expect("text cells are UTF-8"))
        }
        Cell::Bytes(s) => format!(" {:02x?}", batch.bytes(s)),
        Cell::I64(v) => format!(" {v}"),
        Cell::U64(v) => format!(" {v}"),
        Cell::F32(v) => format!(" {v}"),
        Cell::F64(v) => format!(" {v}"),
        other => format!(" {other:?}"),
    }
}

fn whole(family: Family, file: &'static [u8]) -> Vec<String> {
    let mut reading = Reading::new(family);
    for event in events(file) {
        reading.event(&event).unwrap_or_else(|e| panic!("{e}"));
    }
    reading.seen
}

#[test]
fn recorded_logs_are_read_to_their_end_and_compression_changes_nothing() {
    for pair in FILES.chunks(2) {
        let (plain, compressed) = (whole(pair[0].1, pair[0].2), whole(pair[1].1, pair[1].2));
        assert!(plain.len() > 1000, "{}", plain.len());
        for (a, b) in plain.iter().zip(&compressed) {
            assert_eq!(a, b);
        }
        assert_eq!(plain.len(), compressed.len());
    }
}

#[test]
fn partial_json_is_applied_to_the_document_before() {
    let seen = whole(Family::MySql, FILES[2].2).join("\n");
    assert!(seen.contains(r#"-> 1 {"a": 2, "b": [1, 2, {"c": "yy"}], "long": "#), "{seen:.3000}");
    assert!(seen.contains("[1, 9, 2, 3]"));
    assert!(seen.contains(r#"-> 1 {"b": [1, 2, {"c": "yy"}], "long": "#));
}

#[test]
fn xa_transactions_end_as_they_did() {
    for (name, family, file) in FILES {
        let seen = whole(family, file);
        let ends = |what: &str| seen.iter().filter(|s| s.starts_with(what)).count();
        assert_eq!((ends("XaPrepare"), ends("XaCommit"), ends("XaRollback")), (2, 1, 1), "{name}");
    }
}

/// An event with some bytes changed, its checksum made to fit again.
fn damaged(event: &Bytes, random: &mut SmallRng) -> Bytes {
    let mut bytes = event.to_vec();
    let body = 19..bytes.len() - 4;
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(body.clone());
        bytes[at] = match random.random_range(0..4) {
            0 => bytes[at] ^ 1 << random.random_range(0..8),
            1 => 0xff,
            2 => 0,
            _ => random.random(),
        };
    }
    if random.random_range(0..10) == 0 {
        bytes.truncate(random.random_range(23..=bytes.len()));
        let size = bytes.len() as u32;
        bytes[9..13].copy_from_slice(&size.to_le_bytes());
    }
    let end = bytes.len() - 4;
    let sum = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    bytes.into()
}

/// 100,000 damaged events: each gives cells or an error, none a panic, an endless loop or an allocation out of all measure.
#[test]
fn no_damage_ends_in_a_panic() {
    let (mut changed, mut refused) = (0u32, 0u32);
    for (n, (_, family, file)) in FILES.into_iter().enumerate() {
        let events = events(file);
        let mut random = SmallRng::seed_from_u64(n as u64 + 1);
        let mut reading = Reading::new(family);
        let (mut rounds, mut damaged_here) = (0, 0);
        while damaged_here < 25_000 {
            rounds += 1;
            reading.seen.clear();
            reading.assembler = Assembler::new(family, true, MOST);
            let spare_maps = rounds % 2 == 0;
            for event in &events {
                let spared = event[4] == code::FORMAT || (spare_maps && event[4] == code::TABLE_MAP);
                if spared || random.random_range(0..3) > 0 {
                    let _ = reading.event(event);
                    continue;
                }
                damaged_here += 1;
                refused += u32::from(reading.event(&damaged(event, &mut random)).is_err());
            }
            if !spare_maps {
                // Shapes that came from damaged maps would make all later rows misfit.
                reading.shapes.clear();
            }
        }
        changed += damaged_here;
    }
    assert!(changed >= 100_000 && refused > changed / 10, "{refused} of {changed} refused");
}

/// Prints how fast rows are decoded: events of a shop's order lines (integers, a decimal, a text, a datetime, an enum) of
/// 8 KiB, as the servers make them, through framing, checksum, table map and cells.
#[test]
fn rows_are_decoded_at_a_rate_worth_printing() {
    const ROWS: usize = 110;
    let column = |i: usize, name: &str, ty: ColumnType| Column {
        id: i as u32,
        name: name.into(),
        ty,
        nullable: true,
        native: String::new(),
        charset: Some("utf8mb4".into()),
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    };
    let types = [
        ("id", ColumnType::UInt { bits: 64 }),
        ("customer", ColumnType::Int { bits: 32 }),
        ("price", ColumnType::Decimal { precision: 10, scale: 2 }),
        ("title", ColumnType::Text { max_chars: Some(100) }),
        ("at", ColumnType::DateTime { precision: 6 }),
        ("state", ColumnType::Enum { members: vec!["new".into(), "paid".into()] }),
    ];
    let columns = types.into_iter().enumerate().map(|(i, (name, ty))| column(i, name, ty)).collect();
    let mut map = vec![7, 0, 0, 0, 0, 0, 1, 0, 2];
    map.extend_from_slice(b"db\0\x01t\0\x06");
    map.extend_from_slice(&[8, 3, 246, 15, 18, 254, 7, 10, 2, 144, 1, 6, 247, 1, 0xff]);
    let mut row = vec![0];
    row.extend_from_slice(&77u64.to_le_bytes());
    row.extend_from_slice(&5u32.to_le_bytes());
    row.extend_from_slice(&[0x80, 0, 0, 12, 34]);
    row.extend_from_slice(&[40, 0]);
    row.extend_from_slice(&[b'x'; 40]);
    row.extend_from_slice(&[0x99, 0xb4, 0x62, 0x12, 0x34, 1, 2, 3, 1]);
    let mut rows = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 6, 0xff];
    (0..ROWS).for_each(|_| rows.extend_from_slice(&row));
    use crate::binlog::frame::tests::event;
    let map = event(code::TABLE_MAP, 0, &map, true);
    let rows = event(code::WRITE_ROWS, 0, &rows, true);
    let mut assembler = Assembler::new(Family::MySql, true, MOST);
    assembler.push(&map).unwrap();
    let Some(EventKind::TableMap(parsed)) = assembler.pop().unwrap().map(|e| e.kind) else { panic!("a map") };
    let schema = Arc::new(TableSchema { columns, ..(*shape(&parsed)).clone() });
    let mut decoder = RowDecoder::default();
    let mut out = BatchBuilder::default();
    let (mut decoded, begun) = (0, std::time::Instant::now());
    while begun.elapsed().as_millis() < 200 {
        if out.size() > 8 << 20 {
            out = BatchBuilder::default();
        }
        assembler.push(&map).unwrap();
        assembler.push(&rows).unwrap();
        while let Some(event) = assembler.pop().unwrap() {
            if let EventKind::Rows(rows) = event.kind {
                let counted = |_: &mut BatchBuilder, _| {
                    decoded += 1;
                    Ok(())
                };
                decoder.decode(&rows, &schema, &mut out, counted).unwrap();
            }
        }
    }
    println!("{:.0} rows/s", f64::from(decoded) / begun.elapsed().as_secs_f64());
    assert!(decoded > 1000);
}
