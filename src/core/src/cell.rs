//! One value of one row: 16 bytes, no allocation.

use std::fmt;

/// Where a value's bytes lie: `len` bytes at `offset` of buffer number `buffer` of its [`crate::Batch`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slice {
    /// Index into `Batch::buffers`.
    pub buffer: u32,
    /// First byte.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// A value, neutral of any system. Which variant a column holds follows from its [`crate::ColumnType`] (see there), and is
/// the same whether the row came from a snapshot or from the stream.
#[derive(Clone, Copy, PartialEq)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// A partial row image did not carry this column. Never to be taken for NULL.
    Unchanged,
    /// Signed integers, and the integer forms of temporal types.
    I64(i64),
    /// Unsigned integers of 64 bits, and bit fields.
    U64(u64),
    /// Single precision.
    F32(f32),
    /// Double precision.
    F64(f64),
    /// UTF-8 text.
    Text(Slice),
    /// Raw bytes.
    Bytes(Slice),
    /// A decimal number as ASCII in plain notation, with exactly the column's scale of fraction digits: `-12.50`.
    Decimal(Slice),
    /// A JSON document as UTF-8 text.
    Json(Slice),
}

const _: () = assert!(size_of::<Cell>() == 16, "Cell is 16 bytes: the hot path is laid out for it");

impl Cell {
    /// The bytes' place, for the variants that have one.
    #[must_use]
    pub fn slice(self) -> Option<Slice> {
        match self {
            Self::Text(s) | Self::Bytes(s) | Self::Decimal(s) | Self::Json(s) => Some(s),
            _ => None,
        }
    }

    /// Whether this is SQL NULL.
    #[must_use]
    pub fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }
}

// Debug shows the kind and the size, never the bytes: rows must not reach logs.
impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Unchanged => f.write_str("Unchanged"),
            Self::I64(_) => f.write_str("I64"),
            Self::U64(_) => f.write_str("U64"),
            Self::F32(_) => f.write_str("F32"),
            Self::F64(_) => f.write_str("F64"),
            Self::Text(s) => write!(f, "Text({} B)", s.len),
            Self::Bytes(s) => write!(f, "Bytes({} B)", s.len),
            Self::Decimal(s) => write!(f, "Decimal({} B)", s.len),
            Self::Json(s) => write!(f, "Json({} B)", s.len),
        }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}+{}", self.buffer, self.offset, self.len)
    }
}
