//! The table map: the shape of the rows behind it, with as much metadata as the server logs.

use bytes::Bytes;

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
