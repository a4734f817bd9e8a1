//! From the rows of an event to cells.

use crate::binlog::event::Rows;
use caudal_core::{BatchBuilder, Result, TableSchema};

/// No image: of an insert the one before, of a delete the one after. The same value as `caudal_core::batch::NO_ROW`.
pub const NO_IMAGE: u32 = caudal_core::batch::NO_ROW;

/// Where the images of one row lie in `BatchBuilder::cells`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowImages {
    /// Which row of the event, from 0.
    pub row: u32,
    /// Index of the first cell of the image before, or [`NO_IMAGE`].
    pub before: u32,
    /// The same for the image after.
    pub after: u32,
}

/// Decodes rows against the shapes of their tables. Keeps, per table, how each column's bytes become a cell, so that the
/// work per row is a walk over that plan. Holds at most 4,096 plans.
#[derive(Default)]
pub struct RowDecoder {}

impl RowDecoder {
    /// Appends the images of all rows of the event to `out.cells` and calls `each` for each row, in order.
    ///
    /// Small events are copied into the builder's arena, large ones added as a buffer of their own (they keep at most a
    /// few times their size of the stream's memory alive).
    ///
    /// # Errors
    /// `Data`, naming table and column, where the bytes or the shape don't fit; what was appended before stays in `out`.
    pub fn decode(
        &mut self,
        rows: &Rows,
        schema: &std::sync::Arc<TableSchema>,
        out: &mut BatchBuilder,
        each: impl FnMut(&mut BatchBuilder, RowImages) -> Result<()>,
    ) -> Result<()> {
        let _ = (rows, schema, out, each);
        Err(caudal_core::Error::bug("decode rows"))
    }
}

/// [`RowDecoder::decode`] without a memory of plans.
///
/// # Errors
/// As there.
pub fn decode_rows(
    rows: &Rows,
    schema: &std::sync::Arc<TableSchema>,
    out: &mut BatchBuilder,
    each: impl FnMut(&mut BatchBuilder, RowImages) -> Result<()>,
) -> Result<()> {
    RowDecoder::default().decode(rows, schema, out, each)
}
