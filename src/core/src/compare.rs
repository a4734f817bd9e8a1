//! Comparing a source with a sink while both live: what `caudal verify` asks of the two ends.
//!
//! A table is compared range by range of its key. Where both servers can make the same text of every column they each give a digest
//! of a range, and no row travels ([`has_canonical_text`] says which types). Where they cannot, or the digests differ, the source's rows are
//! read and the sink's server compares them with its own by the equality that decides whether applying them would change anything.

use crate::batch::Batch;
use crate::fault::Result;
use crate::position::LogPosition;
use crate::schema::{ColumnType, TableId, TableSchema};
use async_trait::async_trait;

/// A place in the order of a table's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// As its source writes it: only that reads it.
    pub token: String,
    /// The key, if it is made of integers alone: then both ends know its order.
    pub numbers: Option<Vec<i128>>,
}

/// The rows behind `from`, up to and with `to`; from the table's beginning, to its end, with none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Behind this key.
    pub from: Option<Bound>,
    /// Up to this key.
    pub to: Option<Bound>,
}

impl Range {
    /// Whether both ends can find it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        [&self.from, &self.to].into_iter().flatten().all(|bound| bound.numbers.is_some())
    }
}

/// What one end has in a range: the number of rows, and the sum over them of the first 60 bits of the MD5 of each row's canonical text.
/// The text is that of all columns in their order, each as `<characters>:<text>`, or `N` for NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Rows.
    pub rows: u64,
    /// The sum, in decimal digits.
    pub sum: String,
}

/// Whether each end can make the same text of a column's values. The forms: integers and decimals in plain digits, text as it is,
/// bytes in lower-case hexadecimal, `2026-11-22`, `2026-11-22 08:30:00.000000` (UTC), a time without zeros at the end of its
/// fraction. A date that is no day of the calendar is NULL.
#[must_use]
pub fn has_canonical_text(ty: &ColumnType) -> bool {
    !matches!(
        ty,
        ColumnType::Float32
            | ColumnType::Float64
            | ColumnType::Bit { .. }
            | ColumnType::Json
            | ColumnType::Geometry
            | ColumnType::Vector { .. }
            | ColumnType::Inet4
            | ColumnType::Inet6
    )
}

/// Whether a table's ranges are such that both ends find them: its key is made of integers.
#[must_use]
pub fn has_shared_order(schema: &TableSchema) -> bool {
    let number =
        |ty: &ColumnType| matches!(ty, ColumnType::Int { .. } | ColumnType::UInt { .. } | ColumnType::Year);
    !schema.key.is_empty() && schema.key_columns().all(|column| number(&column.ty))
}

/// Rows of a range, and where the next ones begin.
pub struct Rows {
    /// One event of [`crate::Op::Read`] for each row.
    pub batch: Batch,
    /// The last key read, if the range goes on behind it.
    pub more: Option<Bound>,
}

/// The source's side. Reads only; each call is a statement of its own, with a bound on its time.
#[async_trait]
pub trait SourceSide: Send {
    /// The tables that are captured, in the shape that goes out. Some cannot be compared: those without a usable key.
    async fn tables(&mut self) -> Result<Vec<(TableSchema, bool)>>;

    /// The source's clock, microseconds since the epoch, UTC: what a statement before this one saw was committed before.
    async fn now_us(&mut self) -> Result<i64>;

    /// The key that lies `rows` rows behind a bound; none if there are fewer.
    async fn cut(&mut self, table: &TableId, from: Option<&Bound>, rows: u64) -> Result<Option<Bound>>;

    /// The digest of a range.
    async fn digest(&mut self, table: &TableId, range: &Range) -> Result<Digest>;

    /// Rows of a range, about `bytes` at most.
    async fn rows(&mut self, table: &TableId, range: &Range, bytes: usize) -> Result<Rows>;

    /// A condition in the source's SQL that just these keys meet, as texts of the key's columns that the sink gave.
    fn condition(&self, schema: &TableSchema, keys: &[Vec<String>]) -> Option<String>;

    /// How many rows that are captured meet a condition; none where that cannot be asked.
    async fn count(&mut self, table: &TableId, condition: &str) -> Result<Option<u64>> {
        let _ = (table, condition);
        Ok(None)
    }
}

/// The sink's side. Changes nothing.
#[async_trait]
pub trait SinkSide: Send {
    /// The name of the table there; none if it is not there yet.
    async fn open(&mut self, schema: &TableSchema) -> Result<Option<String>>;

    /// The same for a sink that has come to all there is of the table, and to which no row has brought the table's newest columns: their names,
    /// which are left out of the comparison.
    ///
    /// # Errors
    /// As `open`; and where the columns of the key are among those that are missing.
    async fn open_without_new(&mut self, schema: &TableSchema) -> Result<Option<(String, Vec<String>)>> {
        Ok(self.open(schema).await?.map(|name| (name, Vec::new())))
    }

    /// Whether the table has all of the source's columns there, in their order, so that digests can be compared.
    fn has_all_columns(&self, schema: &TableSchema) -> bool {
        let _ = schema;
        true
    }

    /// The source's time up to which the table is complete; none where that is not known yet.
    async fn complete_to_us(&mut self, table: &TableId) -> Result<Option<i64>>;

    /// The digest of a range that both ends find.
    async fn digest(&mut self, schema: &TableSchema, range: &Range) -> Result<Digest>;

    /// The keys behind `after`, in the sink's own order, `most` of them: for tables whose ranges only the source finds. None where rows that
    /// only the sink has are no mistake, or cannot be told.
    async fn keys(
        &mut self,
        schema: &TableSchema,
        after: Option<&[String]>,
        most: u32,
    ) -> Result<Option<Vec<Vec<String>>>> {
        let _ = (schema, after, most);
        Ok(None)
    }

    /// What the sink can tell of the row with a key, given as texts of the key's columns; none if it has none, or cannot tell.
    async fn trace(&mut self, schema: &TableSchema, key: &[String]) -> Result<Option<Trace>> {
        let _ = (schema, key);
        Ok(None)
    }

    /// Where the sink stands in a topic of the log; none where that is not known.
    async fn stands_at(&mut self, topic: &str) -> Result<Option<LogPosition>> {
        let _ = topic;
        Ok(None)
    }

    /// What differs from these rows of the range: with a range that both ends find surplus rows too.
    async fn compare(&mut self, batch: &mut Batch, schema: &TableSchema, range: &Range) -> Result<Found>;
}

/// A row of a sink, as it lies there.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Trace {
    /// The sink's transaction that wrote it last.
    pub transaction: String,
    /// When that was committed, as the sink writes times; none where it does not keep that.
    pub committed: Option<String>,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Rows that differ.
    pub differences: Vec<Difference>,
    /// Rows of the source that the sink could not hold whatever happens: their values have no place there.
    pub unstorable: u64,
}

/// One row that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key's columns as the sink writes them.
    pub key: Vec<String>,
    /// How.
    pub kind: DifferenceKind,
    /// The columns that differ.
    pub columns: Vec<String>,
    /// Tells the source's row, as it was compared, from any other; empty where the source has none.
    pub stamp: String,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The source has it, the sink does not.
    Missing,
    /// The sink has it, the source does not.
    Surplus,
    /// Both have it, with other values.
    Different,
}
