//! Changes by foreign keys that no log tells.
//!
//! MariaDB, and MySQL before 9.6, log only the parent's row of a cascade. So the parents' rows in the stream, captured or not, are
//! looked at: a deleted row, or one whose referenced columns changed, has its children read again, by the values that they
//! referred to; rows that the log holds with these values and the source no more are deleted there. The request is stored with the
//! batch that passes the parent's transaction, and reads behind it, so it sees what the cascade did. What such a re-read finds gone
//! or changed is itself a parent's change: its children are asked for in turn, level by level.
//!
//! A child that is not captured cannot be looked at: what hangs below it is read again as a whole.
//!
//! Memory: the foreign keys with a rule, and at most [`MAX_VALUES`] values for each within one transaction; beyond that the
//! child is read again as a whole.

use super::MySqlReader;
use crate::binlog::{RowDecoder, Rows, RowsOp, TableMap};
use crate::client::Client;
use crate::discover::{self, Cascade};
use crate::schema;
use crate::selection::Selection;
use crate::snapshot::bounds::Stored;
use crate::snapshot::values::of_cell;
use crate::snapshot::{Reason, Request, Rows as Which};
use caudal_core::batch::NO_ROW;
use caudal_core::{
    Batch, BatchBuilder, Cell, Column, ColumnType, Fault, Op, Result, Slice, SnapshotMark, TableId,
    TableSchema,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Shapes of parents that are kept; more start afresh.
const MAX_SHAPES: usize = 256;
/// Most values of one foreign key that are asked for by themselves.
const MAX_VALUES: usize = 10_000;

/// Foreign keys whose rules change rows, by parent.
#[derive(Default)]
pub(crate) struct Kin {
    /// None: the server logs what cascades do.
    selection: Option<Selection>,
    links: BTreeMap<TableId, Vec<Cascade>>,
    /// Statements may have changed them.
    stale: bool,
    pending: BTreeMap<(TableId, Vec<String>), Pending>,
    whole: BTreeSet<TableId>,
    /// Shapes of parents that are not captured, by the number of their table map.
    shapes: HashMap<u64, (Arc<TableMap>, Arc<TableSchema>)>,
    decoder: RowDecoder,
}

/// Children to be read again.
#[derive(Default)]
struct Pending {
    values: Vec<Vec<Stored>>,
    whole: bool,
}

/// Where the bytes of a cell are.
type Bytes<'a> = dyn Fn(Slice) -> &'a [u8] + 'a;

/// What happened to a parent's row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Deleted,
    Updated,
}

impl Kin {
    /// With the foreign keys as they are now, for a server that does not log what they do.
    pub(crate) fn new(selection: &Selection, cascades: Vec<Cascade>) -> Self {
        let mut kin = Self { selection: Some(selection.clone()), ..Self::default() };
        kin.learn(cascades);
        kin
    }

    /// A statement changed these tables, or any.
    pub(super) fn changed(&mut self, _ids: Option<&[TableId]>) {
        self.stale = self.selection.is_some();
    }

    /// What is known stays: rows before a foreign key was dropped are still to come.
    async fn reload(&mut self, client: &mut Client) -> Result<()> {
        self.stale = false;
        let Some(selection) = &self.selection else { return Ok(()) };
        let cascades = discover::cascades(client, selection).await?;
        self.learn(cascades);
        Ok(())
    }

    fn learn(&mut self, cascades: Vec<Cascade>) {
        for cascade in cascades {
            let links = self.links.entry(cascade.parent.clone()).or_default();
            if !links.contains(&cascade) {
                links.push(cascade);
            }
        }
    }

    /// The shape of a parent that is not captured.
    async fn shape(
        &mut self,
        sql: &mut Client,
        selection: &Selection,
        rows: &Rows,
    ) -> Result<Arc<TableSchema>> {
        if let Some((_, schema)) =
            self.shapes.get(&rows.table.id).filter(|(map, _)| Arc::ptr_eq(map, &rows.table))
        {
            return Ok(Arc::clone(schema));
        }
        let schema = Arc::new(schema::of_map(sql, selection, &rows.table).await?);
        if self.shapes.len() >= MAX_SHAPES {
            self.shapes.clear();
        }
        self.shapes.insert(rows.table.id, (Arc::clone(&rows.table), Arc::clone(&schema)));
        Ok(schema)
    }

    fn rows(&mut self, rows: &Rows, schema: &Arc<TableSchema>, change: Change) -> Result<()> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let read = decoder.decode(rows, schema, &mut BatchBuilder::default(), |out, images| {
            let image = |at: u32| (at != NO_ROW).then(|| &out.cells[at as usize..][..schema.width()]);
            let images: Vec<&[Cell]> =
                [image(images.before), image(images.after)].into_iter().flatten().collect();
            self.touched(schema, change, &images, &|slice| out.bytes(slice));
            Ok(())
        });
        self.decoder = decoder;
        read
    }

    /// A parent's row is another, or gone.
    fn touched(&mut self, schema: &TableSchema, change: Change, images: &[&[Cell]], bytes: &Bytes<'_>) {
        let Some(links) = self.links.get(&schema.id).cloned() else { return };
        for link in &links {
            let place = |name: &String| schema.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
            let columns: Option<Vec<usize>> = link.parent_columns.iter().map(place).collect();
            let same = columns.as_ref().is_some_and(|columns| {
                images.windows(2).all(|w| columns.iter().all(|&i| equal(w[0][i], w[1][i], bytes)))
            });
            if !acts(link, change) || (change == Change::Updated && images.len() > 1 && same) {
                continue;
            }
            for image in images {
                let values =
                    columns.as_ref().map(|c| c.iter().map(|&i| stored(&schema.columns[i], image[i], bytes)));
                match values.map(Iterator::collect::<Option<Vec<Stored>>>) {
                    Some(Some(values)) => self.child(link, values),
                    // NULL refers to nothing; what cannot be asked for by value is asked for as a whole.
                    _ if columns.as_ref().is_some_and(|c| c.iter().any(|&i| image[i] == Cell::Null)) => {}
                    _ => self.below(&link.child),
                }
            }
        }
    }

    fn child(&mut self, link: &Cascade, values: Vec<Stored>) {
        if !self.selection.as_ref().is_some_and(|s| s.selects(&link.child)) {
            return self.below(&link.child);
        }
        let pending = self.pending.entry((link.child.clone(), link.columns.clone())).or_default();
        if pending.values.len() >= MAX_VALUES {
            (pending.whole, pending.values) = (true, Vec::new());
        }
        if !pending.whole && !pending.values.contains(&values) {
            pending.values.push(values);
        }
    }

    /// This table and what hangs below it, as a whole.
    fn below(&mut self, id: &TableId) {
        let mut next = vec![id.clone()];
        let mut met = BTreeSet::new();
        while let Some(id) = next.pop() {
            if !met.insert(id.clone()) {
                continue;
            }
            if self.selection.as_ref().is_some_and(|s| s.selects(&id)) {
                self.whole.insert(id);
                continue;
            }
            next.extend(self.links.get(&id).into_iter().flatten().map(|link| link.child.clone()));
        }
    }

    /// What a re-read brought: rows that it found gone, and rows that a rule may have given other values.
    pub(super) fn emitted(&mut self, batch: &Batch) {
        if self.links.is_empty() {
            return;
        }
        for event in &batch.events {
            let schema = batch.table(event);
            if !self.links.contains_key(&schema.id) {
                continue;
            }
            let change = match event.op {
                Op::Delete => Change::Deleted,
                Op::Read if event.snapshot == SnapshotMark::Incremental && self.passes_on(schema) => {
                    Change::Updated
                }
                _ => continue,
            };
            if let Some(image) = batch.before(event).or(batch.after(event)) {
                self.touched(schema, change, &[image], &|slice| batch.bytes(slice));
            }
        }
    }

    /// Whether a cascade can change columns of this table that others refer to.
    fn passes_on(&self, schema: &TableSchema) -> bool {
        let own: Vec<&String> = self
            .links
            .values()
            .flatten()
            .filter(|link| link.child == schema.id)
            .flat_map(|link| &link.columns)
            .collect();
        let referred = self.links.get(&schema.id).into_iter().flatten().flat_map(|link| &link.parent_columns);
        referred.into_iter().any(|column| own.contains(&column))
    }

    fn requests(&mut self) -> Vec<Request> {
        let mut out: Vec<Request> = std::mem::take(&mut self.whole)
            .into_iter()
            .map(|id| Request::table(id, Reason::Cascade))
            .collect();
        for ((child, columns), pending) in std::mem::take(&mut self.pending) {
            let rows = match pending.whole {
                true => Which::All,
                false => Which::Matching { columns, values: pending.values },
            };
            out.push(Request::new(child, rows, Reason::Cascade));
        }
        out
    }
}

impl MySqlReader {
    /// Rows of a table that others may refer to; `schema`: their shape, if the table is captured.
    pub(super) async fn kin_rows(&mut self, rows: &Rows, schema: Option<&Arc<TableSchema>>) -> Result<()> {
        let change = match rows.op {
            RowsOp::Insert => return Ok(()),
            RowsOp::Update => Change::Updated,
            RowsOp::Delete => Change::Deleted,
        };
        if self.kin.stale {
            self.sql.revive().await?;
            self.kin.reload(&mut self.sql).await?;
        }
        let id = TableId::new(rows.table.database.clone(), rows.table.table.clone());
        if !self.kin.links.get(&id).is_some_and(|links| links.iter().any(|link| acts(link, change))) {
            return Ok(());
        }
        let schema = match schema {
            Some(schema) => Ok(Arc::clone(schema)),
            None => {
                self.sql.revive().await?;
                self.kin.shape(&mut self.sql, &self.config.selection, rows).await
            }
        };
        let read = match schema {
            Ok(schema) => self.kin.rows(rows, &schema, change),
            Err(error) => Err(error),
        };
        match read {
            Err(error) if error.fault() == Fault::Data => {
                let children: Vec<TableId> =
                    self.kin.links[&id].iter().map(|link| link.child.clone()).collect();
                children.iter().for_each(|child| self.kin.below(child));
                Ok(())
            }
            read => read,
        }
    }

    /// The parent's transaction ends: what hangs on it is asked for.
    pub(super) fn kin_end(&mut self) {
        for request in self.kin.requests() {
            self.snapshot.request(request);
        }
    }
}

fn acts(link: &Cascade, change: Change) -> bool {
    if change == Change::Deleted { link.on_delete } else { link.on_update }
}

fn equal(a: Cell, b: Cell, bytes: &Bytes<'_>) -> bool {
    match (a, b) {
        (Cell::Text(a), Cell::Text(b))
        | (Cell::Bytes(a), Cell::Bytes(b))
        | (Cell::Decimal(a), Cell::Decimal(b)) => bytes(a) == bytes(b),
        (a, b) => a == b,
    }
}

/// A value to be asked for. Text compares by its collation, which only the server knows: such children are read as a whole.
fn stored(column: &Column, cell: Cell, bytes: &Bytes<'_>) -> Option<Stored> {
    match column.ty {
        ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. } => None,
        _ => of_cell(column, cell, bytes),
    }
}
