//! The table map: the shape of the rows behind it, with as much metadata as the server logs.

mod parse;

use super::cursor::{Read, damage};
use crate::connection::Family;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// A parsed table map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMap {
    /// The server's number for this version of the table, until it restarts.
    pub id: u64,
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// In the order of the row image.
    pub columns: Vec<MapColumn>,
    /// The primary key, where logged: column index and prefix length in characters (0 = whole), in the key's order.
    pub primary_key: Vec<(u32, u32)>,
    /// Whether names, members and keys are there (`binlog_row_metadata=FULL`).
    pub full: bool,
    /// Whether signedness and character sets are there (`MINIMAL` or `FULL`; MariaDB's default `NO_LOG` has none).
    pub minimal: bool,
    /// The bytes it was parsed from.
    pub raw: Bytes,
}

/// One column of a table map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapColumn {
    /// How values are laid out.
    pub ty: WireType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// Signedness of a numeric column, where logged.
    pub unsigned: Option<bool>,
    /// Collation of text, ENUM and SET, where logged (63 = binary).
    pub collation: Option<u32>,
    /// Its name, where logged.
    pub name: Option<String>,
    /// Labels of ENUM and SET as UTF-8, where logged.
    pub members: Vec<String>,
    /// Whether `SELECT *` shows it; true where not logged.
    pub visible: bool,
    /// The kind of geometry (0 = any), where logged.
    pub geometry: Option<u32>,
    /// Dimensions of a VECTOR, where logged.
    pub dimensions: Option<u32>,
}

/// How the values of a column are laid out in row images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireType {
    /// Little-endian integer of 1, 2, 3, 4 or 8 bytes.
    Int(u8),
    /// 4 bytes.
    Float,
    /// 8 bytes.
    Double,
    /// Packed decimal.
    Decimal {
        /// All digits.
        precision: u8,
        /// Fraction digits.
        scale: u8,
    },
    /// Width in bits; big-endian bytes.
    Bit(u16),
    /// Index of 1 or 2 bytes.
    Enum(u8),
    /// Bit map of 1 to 8 bytes.
    Set(u8),
    /// 3 bytes.
    Date,
    /// 1 byte.
    Year,
    /// Packed, with fraction digits.
    Time(u8),
    /// Packed, with fraction digits.
    DateTime(u8),
    /// Packed, with fraction digits.
    Timestamp(u8),
    /// Before MySQL 5.6 (MariaDB: `mysql56_temporal_format=OFF`): the log does not tell the fraction digits.
    OldTime,
    /// See [`WireType::OldTime`].
    OldDateTime,
    /// See [`WireType::OldTime`].
    OldTimestamp,
    /// VARCHAR, VARBINARY.
    VarChar {
        /// Declared length in bytes.
        max_bytes: u16,
        /// MariaDB's compressed columns.
        compressed: bool,
    },
    /// CHAR, BINARY, and MariaDB's UUID and INET types.
    Char {
        /// Declared length in bytes.
        max_bytes: u16,
    },
    /// TEXT and BLOB of all sizes.
    Blob {
        /// Bytes of the length in front.
        length_bytes: u8,
        /// MariaDB's compressed columns.
        compressed: bool,
    },
    /// MySQL's binary JSON.
    Json {
        /// Bytes of the length in front.
        length_bytes: u8,
    },
    /// SRID and WKB.
    Geometry {
        /// Bytes of the length in front.
        length_bytes: u8,
    },
    /// Floats.
    Vector {
        /// Bytes of the length in front.
        length_bytes: u8,
    },
}

/// The table maps that the server sent, parsed. A server repeats a table's map for each statement, byte for byte as long as
/// the table's shape is the same: parsing is skipped then, which is most of the work of one-row transactions.
///
/// Memory: at most [`MOST_TABLES`] maps and [`MOST_BYTES`] of their bytes; beyond that all are forgotten at the next
/// transaction.
pub(super) struct TableMaps {
    family: Family,
    tables: HashMap<u64, Known>,
    bytes: usize,
    transaction: u64,
}

struct Known {
    map: Arc<TableMap>,
    /// The last transaction that sent it. Rows must not be read by the map of an earlier one.
    transaction: u64,
}

const MOST_TABLES: usize = 4096;
const MOST_BYTES: usize = 32 << 20;

impl TableMaps {
    pub(super) fn new(family: Family) -> Self {
        Self { family, tables: HashMap::new(), bytes: 0, transaction: 0 }
    }

    /// Maps count only within the transaction that sent them.
    pub(super) fn new_transaction(&mut self) {
        self.transaction += 1;
        if self.tables.len() > MOST_TABLES || self.bytes > MOST_BYTES {
            self.tables.clear();
            self.bytes = 0;
        }
    }

    /// Takes the body of a table map event.
    pub(super) fn map(&mut self, body: &[u8]) -> Read<Arc<TableMap>> {
        let id = super::cursor::Cursor(body).little(6)?;
        if let Some(known) = self.tables.get_mut(&id).filter(|known| known.map.raw == body) {
            known.transaction = self.transaction;
            return Ok(Arc::clone(&known.map));
        }
        let map = Arc::new(parse::table_map(body, self.family)?);
        self.bytes += body.len();
        let known = Known { map: Arc::clone(&map), transaction: self.transaction };
        if let Some(old) = self.tables.insert(id, known) {
            self.bytes -= old.map.raw.len();
        }
        Ok(map)
    }

    /// The map of a rows event.
    pub(super) fn get(&self, id: u64) -> Read<Arc<TableMap>> {
        match self.tables.get(&id).filter(|known| known.transaction == self.transaction) {
            Some(known) => Ok(Arc::clone(&known.map)),
            None => damage(
                "rows come without the map of their table: the stream began in the middle of a transaction",
            ),
        }
    }
}
