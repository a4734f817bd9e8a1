//! Versions of shapes, from maps.

use super::fit::fits;
use super::mapped::{from_map, native_text};
use super::number::numbered;
use crate::binlog::{MapColumn, TableMap, WireType};
use bytes::Bytes;
use caudal_core::{Column, ColumnType, KeyKind, TableId, TableSchema};

fn column(name: &str, ty: ColumnType) -> Column {
    Column {
        id: 1,
        name: name.to_owned(),
        native: native_text(&ty),
        ty,
        nullable: false,
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    }
}

fn table(columns: Vec<Column>) -> TableSchema {
    let columns: Vec<Column> =
        columns.into_iter().enumerate().map(|(i, c)| Column { id: i as u32 + 1, ..c }).collect();
    TableSchema {
        id: TableId::new("d", "t"),
        version: 1,
        generation: 1,
        columns,
        key: vec![0],
        key_kind: KeyKind::Primary,
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        charset: None,
        comment: None,
    }
}

fn map(columns: &[(&str, WireType, bool)]) -> TableMap {
    let columns = columns.iter().map(|&(name, ty, unsigned)| MapColumn {
        ty,
        nullable: false,
        unsigned: Some(unsigned),
        collation: None,
        name: Some(name.to_owned()),
        members: Vec::new(),
        visible: true,
        geometry: None,
        dimensions: None,
    });
    TableMap {
        id: 1,
        database: "d".to_owned(),
        table: "t".to_owned(),
        columns: columns.collect(),
        primary_key: vec![(0, 0)],
        full: true,
        minimal: true,
        raw: Bytes::new(),
    }
}

const INT: ColumnType = ColumnType::Int { bits: 32 };

#[test]
fn a_map_with_swapped_columns_does_not_fit_and_makes_a_version_of_its_own() {
    let known = table(vec![column("id", INT), column("a", INT), column("flag", ColumnType::Bool)]);
    let same = map(&[
        ("id", WireType::Int(4), false),
        ("a", WireType::Int(4), false),
        ("flag", WireType::Int(1), false),
    ]);
    assert!(fits(&same, &known));
    let swapped = map(&[
        ("id", WireType::Int(4), false),
        ("flag", WireType::Int(1), false),
        ("a", WireType::Int(4), false),
    ]);
    assert!(!fits(&swapped, &known));
    let made = numbered(from_map(&known.id, &swapped, Some(&known), None).unwrap(), Some(&known), false);
    assert_eq!((made.version, made.generation), (2, 1));
    assert_eq!(made.columns.iter().map(|c| c.id).collect::<Vec<_>>(), [1, 3, 2]);
    assert_eq!(made.columns[1].ty, ColumnType::Bool);
}

#[test]
fn the_present_never_overrides_the_log() {
    let known = table(vec![column("id", INT)]);
    let now = table(vec![column("id", INT), column("x", ColumnType::Text { max_chars: Some(5) })]);
    let logged = map(&[("id", WireType::Int(4), false), ("x", WireType::Int(8), true)]);
    let made = from_map(&known.id, &logged, Some(&known), Some(&now)).unwrap();
    assert_eq!(made.columns[1].ty, ColumnType::UInt { bits: 64 });
}

#[test]
fn a_renamed_column_keeps_its_id_and_a_new_one_gets_a_new_id() {
    let known = table(vec![column("id", INT), column("a", INT)]);
    let renamed = numbered(table(vec![column("id", INT), column("b", INT)]), Some(&known), false);
    assert_eq!(renamed.columns[1].id, 2);
    let other = numbered(table(vec![column("id", INT), column("b", INT)]), Some(&known), true);
    assert_eq!(other.columns[1].id, 8192, "a was dropped, and b added");
    let added =
        numbered(table(vec![column("id", INT), column("b", INT), column("c", INT)]), Some(&known), false);
    assert_eq!(added.columns.iter().map(|c| c.id).collect::<Vec<_>>(), [1, 8192, 8193]);
}

#[test]
fn a_column_never_has_the_id_of_one_that_was_dropped() {
    let known = table(vec![column("id", INT), column("a", INT)]);
    let dropped = numbered(table(vec![column("id", INT)]), Some(&known), false);
    let added = numbered(table(vec![column("id", INT), column("b", INT)]), Some(&dropped), false);
    assert_eq!((added.version, added.columns[1].id), (3, 3 * 4096), "a had 2");
    let dropped = numbered(table(vec![column("id", INT)]), Some(&added), false);
    let again = numbered(table(vec![column("id", INT), column("b", INT)]), Some(&dropped), false);
    assert_ne!(again.columns[1].id, added.columns[1].id);
}

#[test]
fn another_key_starts_a_new_generation() {
    let known = table(vec![column("id", INT), column("a", INT)]);
    let mut rekeyed = known.clone();
    rekeyed.key = vec![1];
    let made = numbered(rekeyed, Some(&known), false);
    assert_eq!((made.version, made.generation), (2, 2));
}
