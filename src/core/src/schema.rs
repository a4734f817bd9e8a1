//! Tables as the log describes them, and the one mapping from column types to cells.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A table's name in its source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableId {
    /// Database (MySQL) or schema.
    pub database: String,
    /// Table.
    pub table: String,
}

impl TableId {
    /// From its two names.
    pub fn new(database: impl Into<String>, table: impl Into<String>) -> Self {
        Self { database: database.into(), table: table.into() }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// So many ids are kept for the columns that one version of a shape adds; no source allows more columns in a table.
const IDS_OF_A_VERSION: u32 = 4_096;

/// A version of a table's shape. Rows of a batch have one cell per column, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The table.
    pub id: TableId,
    /// Counts up with each change of shape; 1 at first.
    pub version: u32,
    /// Grows by one with a change that starts a new topic (a new key, another partition count); 1 at first.
    pub generation: u32,
    /// In the order of the row image.
    pub columns: Vec<Column>,
    /// Indexes into `columns`, in the order of the key; empty for a table without a key.
    pub key: Vec<u32>,
    /// Where the key comes from.
    pub key_kind: KeyKind,
    /// Unique keys beside the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique_keys: Vec<UniqueKey>,
    /// Foreign keys of this table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKey>,
    /// Default character set, as the source names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charset: Option<String>,
    /// The table's comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl TableSchema {
    /// Cells per row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// The first id for columns that the version after this one adds. No column has ever had it, not one that was dropped since either: the ids
    /// that a version gives out are its own ([`IDS_OF_A_VERSION`]), and versions never come again.
    #[must_use]
    pub fn first_new_column_id(&self) -> u32 {
        let next = (self.version.saturating_add(1)).min(u32::MAX / IDS_OF_A_VERSION - 1) * IDS_OF_A_VERSION;
        self.columns.iter().map(|column| column.id + 1).max().unwrap_or(1).max(next)
    }

    /// The columns of the key, in the key's order.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|&i| &self.columns[i as usize])
    }
}

/// Where a table's key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// The primary key.
    Primary,
    /// A unique key over columns that cannot be NULL, taken for want of a primary key.
    Unique,
    /// Named in the configuration.
    Configured,
    /// The table has none: deletes and updates match whole rows.
    None,
}

/// A unique key beside the table's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueKey {
    /// Its name in the source.
    pub name: String,
    /// Indexes into the table's columns.
    pub columns: Vec<u32>,
}

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// Its name in the source.
    pub name: String,
    /// Columns of this table, by name.
    pub columns: Vec<String>,
    /// The table referred to.
    pub parent: TableId,
    /// Its columns, by name.
    pub parent_columns: Vec<String>,
    /// The rule on delete, as the source names it (`CASCADE`, `SET NULL`, …).
    pub on_delete: String,
    /// The rule on update.
    pub on_update: String,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Stays the same through renames; unique within the table over all its versions.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub ty: ColumnType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// The type as the source writes it: `int(10) unsigned`.
    pub native: String,
    /// Character set of text, as the source names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charset: Option<String>,
    /// The default as the source writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Whether the source computes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub generated: bool,
    /// Whether the source numbers it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto_increment: bool,
    /// Its comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// What a column holds, and so which [`crate::Cell`] its values are. Every reader gives these, every writer takes these;
/// NULL and Unchanged may stand for any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// `I64`, 0 or 1.
    Bool,
    /// `I64`. Widths 8, 16, 24, 32 and 64 bits.
    Int {
        /// Width in bits.
        bits: u8,
    },
    /// `I64` up to 32 bits, `U64` for 64.
    UInt {
        /// Width in bits.
        bits: u8,
    },
    /// `F32`.
    Float32,
    /// `F64`.
    Float64,
    /// `Decimal`, with exactly `scale` fraction digits.
    Decimal {
        /// All digits.
        precision: u8,
        /// Fraction digits.
        scale: u8,
    },
    /// `Text`. `max_chars` is the declared length, where there is one.
    Text {
        /// Declared length in characters.
        max_chars: Option<u32>,
    },
    /// `Bytes`; a fixed length is padded to it.
    Bytes {
        /// Declared length in bytes.
        max_bytes: Option<u32>,
        /// Whether each value has exactly that length.
        fixed: bool,
    },
    /// `I64`, days since 1970-01-01. What is no day of the calendar (`0000-00-00`, `2024-02-00`) is `Text`, as the source writes it.
    Date,
    /// `I64`, signed microseconds; MySQL's runs from -838:59:59 to 838:59:59.
    Time {
        /// Fraction digits, 0 to 6.
        precision: u8,
    },
    /// `I64`, microseconds since 1970-01-01 00:00:00 as if UTC. What is no moment of the calendar is `Text`, as the source writes it.
    DateTime {
        /// Fraction digits, 0 to 6.
        precision: u8,
    },
    /// `I64`, microseconds since the epoch, UTC. The zero value is `Text`, as the source writes it.
    Timestamp {
        /// Fraction digits, 0 to 6.
        precision: u8,
    },
    /// `I64`.
    Year,
    /// `Json`.
    Json,
    /// `Text`, the label; the empty text for MySQL's index 0.
    Enum {
        /// Labels in the order of their index, the first has 1.
        members: Vec<String>,
    },
    /// `Text`, labels in the order of their bits, joined by commas.
    Set {
        /// Labels in the order of their bits.
        members: Vec<String>,
    },
    /// `U64`, the bits as a number.
    Bit {
        /// Width, 1 to 64.
        bits: u8,
    },
    /// `Bytes`: the SRID in 4 bytes, little-endian, then WKB.
    Geometry,
    /// `Bytes`: 32-bit floats, little-endian.
    Vector {
        /// Number of floats.
        dimensions: u32,
    },
    /// `Text`, 36 characters, lower case.
    Uuid,
    /// `Text`.
    Inet4,
    /// `Text`.
    Inet6,
}
