//! What leaves the connector of a table: its rows without the excluded columns, and only those that the filter takes.
//!
//! The full shape stays inside: rows of the log are decoded by it, filters may look at excluded columns, and versions are counted on it. The
//! shape that goes out has the same version and column ids. Excluded columns are cut off row by row, before anything else
//! sees the cells; the snapshot does not select them at all.
//!
//! A row that enters or leaves the filter by an update is a create or a delete ([`Shape::fate`]), so that the topic holds exactly the rows
//! that the filter takes. Where an event does not carry what the filter asks (`binlog_row_image` is not FULL), a row counts
//! as having been there, since deleting what is not there harms nothing, and one that may have to be written has the table set aside and
//! read again ([`crate::reader::quarantine`]): guessing would put into the log what must not be there, or leave out what must.

use crate::binlog::{NO_IMAGE, RowImages};
use crate::filter::{Filter, Truth};
use crate::selection::Selection;
use caudal_core::{BatchBuilder, Cell, Error, Op, Result, TableId, TableSchema, UniqueKey};
use std::collections::HashMap;
use std::sync::Arc;

/// One table's. See the module.
#[derive(Debug)]
pub(crate) struct Shape {
    full: Arc<TableSchema>,
    out: Arc<TableSchema>,
    /// Places of the columns that go out; none: all.
    kept: Option<Vec<u32>>,
    filter: Option<Filter>,
}

/// What becomes of a row of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// What happened, as far as the filter lets it be seen.
    pub(crate) op: Op,
    /// Whether the image before goes out.
    pub(crate) before: bool,
    /// Whether the image after goes out.
    pub(crate) after: bool,
}

impl Shape {
    /// Of a version of a table.
    ///
    /// # Errors
    /// `Config` if a key column is excluded, or the filter does not fit the table; its field is that of the source's node.
    pub(crate) fn new(full: &Arc<TableSchema>, selection: &Selection) -> Result<Self> {
        let kept = selection.columns.kept(full).map_err(|e| e.field("columns"))?;
        let kept: Option<Vec<u32>> = kept
            .contains(&false)
            .then(|| (0..).zip(kept).filter(|(_, keep)| *keep).map(|(i, _)| i).collect());
        let out = kept.as_ref().map_or_else(|| Arc::clone(full), |kept| Arc::new(narrowed(full, kept)));
        let filter = selection.filters.of(&full.id).map(|e| Filter::new(&e, full)).transpose();
        let filter = filter.map_err(|e| e.field("filters"))?;
        Ok(Self { full: Arc::clone(full), out, kept, filter })
    }

    /// Of a table of which all is captured.
    #[cfg(test)]
    pub(crate) fn whole(full: Arc<TableSchema>) -> Self {
        Self { out: Arc::clone(&full), full, kept: None, filter: None }
    }

    /// As the log's rows are laid out.
    pub(crate) fn full(&self) -> &Arc<TableSchema> {
        &self.full
    }

    /// As rows leave the connector.
    pub(crate) fn out(&self) -> &Arc<TableSchema> {
        &self.out
    }

    /// Names of the columns that are left out.
    pub(crate) fn excluded(&self) -> Vec<&str> {
        let gone = |i: u32| self.kept.as_ref().is_some_and(|kept| !kept.contains(&i));
        (0..).zip(&self.full.columns).filter(|(i, _)| gone(*i)).map(|(_, c)| c.name.as_str()).collect()
    }

    /// The filter as a condition of SQL.
    pub(crate) fn condition(&self) -> Option<&str> {
        self.filter.as_ref().map(Filter::sql)
    }

    /// What becomes of a row whose images are full; none: nobody sees it.
    ///
    /// # Errors
    /// `Data`, naming the table, if the filter cannot tell whether the row must be written.
    pub(crate) fn fate(&self, op: Op, images: RowImages, builder: &BatchBuilder) -> Result<Option<Fate>> {
        let all = Fate { op, before: images.before != NO_IMAGE, after: images.after != NO_IMAGE };
        let Some(filter) = &self.filter else { return Ok(Some(all)) };
        let bytes = |slice| builder.bytes(slice);
        let cell = |image: u32, column: u32| builder.cells[(image + column) as usize];
        // What an image after does not carry was not changed.
        let after = |column| match (cell(images.after, column), all.before) {
            (Cell::Unchanged, true) => cell(images.before, column),
            (cell, _) => cell,
        };
        let was = if all.before { filter.of(&|c| cell(images.before, c), &bytes) } else { Truth::False };
        let is = if all.after { filter.of(&after, &bytes) } else { Truth::False };
        let was = matches!(was, Truth::True | Truth::Untold);
        Ok(match (was, is) {
            (_, Truth::Untold) => return Err(untold(&self.full.id)),
            (true, Truth::True) => Some(all),
            (false, Truth::True) => Some(Fate { op: Op::Create, before: false, after: true }),
            (true, Truth::False | Truth::Null) => Some(Fate { op: Op::Delete, before: true, after: false }),
            (false, Truth::False | Truth::Null) => None,
        })
    }

    /// Cuts the excluded columns off the images that were decoded last.
    pub(crate) fn narrow(&self, images: RowImages, cells: &mut Vec<Cell>) -> RowImages {
        let Some(kept) = &self.kept else { return images };
        let mut end = [images.before, images.after].into_iter().filter(|&i| i != NO_IMAGE).min().unwrap_or(0);
        let mut cut = |image: u32| {
            if image == NO_IMAGE {
                return image;
            }
            let first = end;
            for &column in kept {
                cells[end as usize] = cells[(image + column) as usize];
                end += 1;
            }
            first
        };
        let (before, after) = (cut(images.before), cut(images.after));
        cells.truncate(end as usize);
        RowImages { before, after, ..images }
    }
}

fn untold(id: &TableId) -> Error {
    Error::data(format!(
        "{id}: the filter asks for a column that an event does not carry, so nobody can tell whether its row is captured"
    ))
    .hint("the statement ran with a binlog_row_image other than FULL: the table is read again; set it to FULL, for all sessions, or remove the filter")
}

/// The shape without columns; keys that lose one are no keys of what is left.
fn narrowed(full: &TableSchema, kept: &[u32]) -> TableSchema {
    let place = |old: &u32| kept.iter().position(|k| k == old).map(|i| i as u32);
    let places = |columns: &[u32]| columns.iter().map(place).collect::<Option<Vec<_>>>();
    let columns: Vec<_> = kept.iter().map(|&i| full.columns[i as usize].clone()).collect();
    let unique = |key: &UniqueKey| Some(UniqueKey { name: key.name.clone(), columns: places(&key.columns)? });
    let has = |name: &String| columns.iter().any(|c| c.name == *name);
    TableSchema {
        key: places(&full.key).unwrap_or_default(),
        unique_keys: full.unique_keys.iter().filter_map(unique).collect(),
        foreign_keys: full.foreign_keys.iter().filter(|k| k.columns.iter().all(has)).cloned().collect(),
        columns,
        ..full.clone()
    }
}

/// The shapes of all tables that were met: one each.
pub(crate) struct Shapes {
    selection: Selection,
    known: HashMap<TableId, Arc<Shape>>,
}

impl Shapes {
    pub(crate) fn new(selection: Selection) -> Self {
        Self { selection, known: HashMap::new() }
    }

    /// Of a version of a table.
    ///
    /// # Errors
    /// As for [`Shape::new`].
    pub(crate) fn of(&mut self, full: &Arc<TableSchema>) -> Result<Arc<Shape>> {
        if let Some(shape) = self.known.get(&full.id)
            && Arc::ptr_eq(&shape.full, full)
        {
            return Ok(Arc::clone(shape));
        }
        let shape = Arc::new(Shape::new(full, &self.selection)?);
        self.known.insert(full.id.clone(), Arc::clone(&shape));
        Ok(shape)
    }
}
