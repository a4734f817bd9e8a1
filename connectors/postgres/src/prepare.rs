//! From events to what is written: coalesced by key, encoded, sorted.
//!
//! Why coalescing is right: within the batch only the state after its last event is ever visible, and that state has, for each
//! key, what the key's last event says. Cells that a partial image left out take the value of the image before it in the
//! batch; what is still missing then is written as an update of the columns that are there.
//!
//! A table whose shape changes within the batch starts a new group; groups of one table are written in their order.
//! Memory: about the encoded size of the rows that remain, beside the batch itself.

mod collector;

use crate::project::Projector;
use crate::types::{JsonAs, Wire};
use bytes::Bytes;
use caudal_core::{Batch, Op, Prepare, Rejected, Result, TableSchema};
use collector::Collector;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// What the configuration says about preparing.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) json: JsonAs,
    /// What is done to rows first, and what is said of single tables.
    pub(crate) projector: Arc<Projector>,
    /// Rows of a table from which on COPY is used.
    pub(crate) copy_rows: usize,
    /// The same where all rows are new, as in a snapshot.
    pub(crate) copy_new_rows: usize,
}

/// Prepares ahead, on another thread.
pub(crate) struct Encoder(pub(crate) Options);

impl Prepare for Encoder {
    fn prepare(&self, batch: &mut Batch) -> Result<()> {
        self.0.projector.apply(batch)?;
        let all = 0..batch.events.len() as u32;
        batch.prepared = Some(Box::new(Prepared::of(batch, all, &self.0)));
        Ok(())
    }
}

/// A range of a batch's events, ready to be written.
pub(crate) struct Prepared {
    pub(crate) groups: Vec<Group>,
    pub(crate) rejected: Vec<Rejected>,
}

/// What is to be written to one table in one shape.
pub(crate) struct Group {
    pub(crate) schema: Arc<TableSchema>,
    /// Empty the table first: when the source did, microseconds since the epoch.
    pub(crate) truncate: Option<i64>,
    /// Keys to delete.
    pub(crate) deletes: Columns,
    /// Whole rows to insert or update, by key.
    pub(crate) upserts: Rows,
    /// Updates of some columns, by key.
    pub(crate) patches: Vec<Patch>,
    /// Steps of a table without a key, in order.
    pub(crate) steps: Vec<Step>,
    /// Whether all events say that their rows are new.
    pub(crate) new_rows: bool,
}

/// Whole rows, one field for each column of the table.
pub(crate) enum Rows {
    /// For array parameters.
    Arrays(Columns),
    /// For COPY: the rows and their number.
    Copy(Bytes, usize),
}

/// Fields by column: array parameters.
pub(crate) struct Columns {
    pub(crate) len: usize,
    pub(crate) fields: Vec<(Wire, Vec<u8>)>,
}

/// Updates of the same columns.
pub(crate) struct Patch {
    /// Indexes of the columns that are there, in order, the key's among them.
    pub(crate) present: Vec<usize>,
    pub(crate) rows: Columns,
}

/// A step of a table without a key.
pub(crate) enum Step {
    Insert(Rows),
    /// One row that looks like this; `None` where the image has no value for the column.
    Remove(Vec<Option<Vec<u8>>>),
}

/// Events that cannot be encoded, with the reason.
type Refused = BTreeMap<u32, String>;

impl Prepared {
    /// Prepares the events of a range, which are projected. Those that cannot be encoded are named and left out: the earlier image of their key,
    /// if the range has one, is written instead.
    pub(crate) fn of(batch: &Batch, range: Range<u32>, options: &Options) -> Self {
        let mut refused = Refused::new();
        loop {
            let before = refused.len();
            let groups = groups(batch, range.clone(), options, &mut refused);
            if refused.len() == before {
                let rejected = refused.into_iter().map(|(event, cause)| Rejected { event, cause }).collect();
                return Self { groups, rejected };
            }
        }
    }
}

fn groups(batch: &Batch, range: Range<u32>, options: &Options, refused: &mut Refused) -> Vec<Group> {
    let mut groups: Vec<Collector<'_>> = Vec::new();
    let mut current: HashMap<&caudal_core::TableId, usize> = HashMap::new();
    // Runs of events of one table are the rule.
    let mut last = (u32::MAX, 0);
    for number in range {
        let event = &batch.events[number as usize];
        if refused.contains_key(&number) {
            continue;
        }
        if last.0 != event.table {
            let schema = batch.table(event);
            let at = *current
                .entry(&schema.id)
                .and_modify(|at| {
                    let same = &groups[*at].schema;
                    if (same.version, same.generation) != (schema.version, schema.generation) {
                        *at = groups.len();
                    }
                })
                .or_insert(groups.len());
            if at == groups.len() {
                groups.push(Collector::new(batch, schema, options));
            }
            last = (event.table, at);
        }
        if event.op == Op::Truncate && groups[last.1].outlives_truncate() {
            // What came before is not gone with it, and stays in a group of its own.
            let schema = batch.table(event);
            last = (event.table, groups.len());
            current.insert(&schema.id, last.1);
            groups.push(Collector::new(batch, schema, options));
        }
        if let Err(cause) = groups[last.1].add(number, event) {
            refused.insert(number, cause);
        }
    }
    groups.into_iter().map(|g| g.finish(refused)).collect()
}

impl Columns {
    fn new(wires: impl IntoIterator<Item = Wire>) -> Self {
        Self { len: 0, fields: wires.into_iter().map(|w| (w, Vec::new())).collect() }
    }
}

impl Rows {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Arrays(columns) => columns.len,
            Self::Copy(_, len) => *len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::batch::NO_ROW;
    use caudal_core::{
        BatchBuilder, Cell, Column, ColumnType, EventHead, KeyKind, LogPosition, Position, SnapshotMark,
        TableId,
    };

    fn options() -> Options {
        let projector = Arc::new(Projector::new(crate::tables::Tables::default()));
        Options { json: JsonAs::Jsonb, projector, copy_rows: 100, copy_new_rows: 100 }
    }

    fn schema(version: u32) -> Arc<TableSchema> {
        let column = |id, name: &str| Column {
            id,
            name: name.to_owned(),
            ty: ColumnType::Int { bits: 16 },
            nullable: true,
            native: String::new(),
            charset: None,
            default: None,
            generated: false,
            auto_increment: false,
            comment: None,
        };
        Arc::new(TableSchema {
            id: TableId::new("shop", "t"),
            version,
            generation: 1,
            columns: vec![column(1, "id"), column(2, "n")],
            key: vec![0],
            key_kind: KeyKind::Primary,
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            charset: None,
            comment: None,
        })
    }

    /// Events of `(shape, op, id, n)`.
    fn batch(events: &[(&Arc<TableSchema>, Op, i64, Cell)]) -> Batch {
        let mut builder = BatchBuilder::default();
        for (schema, op, id, n) in events {
            let at = builder.cells.len() as u32;
            builder.cells.extend([Cell::I64(*id), *n]);
            let table = builder.table(schema);
            let (before, after) = match op {
                Op::Truncate => (NO_ROW, NO_ROW),
                Op::Delete => (at, NO_ROW),
                _ => (NO_ROW, at),
            };
            let snapshot = SnapshotMark::False;
            let head = EventHead {
                table,
                transaction: 0,
                before,
                after,
                row: 0,
                op: *op,
                snapshot,
                pos: 0,
                ts_us: 0,
            };
            builder.events.push(head);
        }
        builder.build(Position::Log(LogPosition::default()), None)
    }

    fn prepare(events: &[(&Arc<TableSchema>, Op, i64, Cell)]) -> Prepared {
        let batch = batch(events);
        Prepared::of(&batch, 0..events.len() as u32, &options())
    }

    /// Deleted keys, whole rows, updates of some columns.
    fn sizes(group: &Group) -> (usize, usize, usize) {
        (group.deletes.len, group.upserts.len(), group.patches.iter().map(|p| p.rows.len).sum())
    }

    #[test]
    fn each_key_is_written_once() {
        let t = &schema(1);
        let one = Cell::I64(1);
        let prepared = prepare(&[
            (t, Op::Create, 1, one),
            (t, Op::Create, 2, one),
            (t, Op::Update, 1, Cell::I64(2)),
            (t, Op::Delete, 2, one),
            (t, Op::Update, 3, Cell::Unchanged),
            (t, Op::Create, 4, one),
            (t, Op::Update, 4, Cell::Unchanged),
        ]);
        assert_eq!(prepared.groups.len(), 1);
        assert_eq!(sizes(&prepared.groups[0]), (1, 2, 1));
    }

    #[test]
    fn rows_are_in_the_order_of_their_keys() {
        let t = &schema(1);
        let prepared = prepare(&[3, 1, 2].map(|id| (t, Op::Create, id, Cell::Null)));
        let Rows::Arrays(columns) = &prepared.groups[0].upserts else { panic!("few rows are arrays") };
        assert_eq!(columns.fields[0].1, [0, 0, 0, 2, 0, 1, 0, 0, 0, 2, 0, 2, 0, 0, 0, 2, 0, 3]);
    }

    #[test]
    fn a_refused_image_leaves_the_one_before() {
        let t = &schema(1);
        let prepared = prepare(&[(t, Op::Create, 1, Cell::I64(5)), (t, Op::Update, 1, Cell::I64(70_000))]);
        assert_eq!(prepared.rejected.len(), 1);
        assert_eq!(prepared.rejected[0].event, 1);
        assert!(prepared.rejected[0].cause.contains("column n"));
        assert_eq!(sizes(&prepared.groups[0]), (0, 1, 0));
    }

    #[test]
    fn a_truncate_and_a_new_shape_each_end_what_was_before() {
        let (old, new) = (&schema(1), &schema(2));
        let prepared = prepare(&[
            (old, Op::Create, 1, Cell::Null),
            (old, Op::Truncate, 0, Cell::Null),
            (old, Op::Create, 2, Cell::Null),
            (new, Op::Create, 3, Cell::Null),
        ]);
        let groups: Vec<_> =
            prepared.groups.iter().map(|g| (g.schema.version, g.truncate.is_some(), sizes(g))).collect();
        assert_eq!(groups, [(1, true, (0, 1, 0)), (2, false, (0, 1, 0))]);
    }

    #[test]
    fn a_large_row_takes_the_form_of_copy() {
        let mut wide = schema(1).as_ref().clone();
        wide.columns[1].ty = ColumnType::Bytes { max_bytes: None, fixed: false };
        let wide = Arc::new(wide);
        for (bytes, copied) in [(100, false), (2 << 20, true)] {
            let mut builder = BatchBuilder::default();
            let value = builder.copy(&vec![7; bytes]);
            builder.cells.extend([Cell::I64(1), Cell::Bytes(value)]);
            let table = builder.table(&wide);
            builder.events.push(EventHead {
                table,
                transaction: 0,
                before: NO_ROW,
                after: 0,
                row: 0,
                op: Op::Update,
                snapshot: SnapshotMark::False,
                pos: 0,
                ts_us: 0,
            });
            let batch = builder.build(Position::Log(LogPosition::default()), None);
            let prepared = Prepared::of(&batch, 0..1, &options());
            assert!(prepared.rejected.is_empty());
            assert_eq!(matches!(prepared.groups[0].upserts, Rows::Copy(..)), copied, "{bytes} bytes");
        }
    }

    #[test]
    fn many_rows_take_the_form_of_copy() {
        let t = &schema(1);
        let events: Vec<_> = (0..100).map(|id| (t, Op::Read, id, Cell::Null)).collect();
        let prepared = prepare(&events);
        let Rows::Copy(bytes, 100) = &prepared.groups[0].upserts else { panic!("many rows are copied") };
        assert_eq!(bytes.len(), 100 * (2 + 4 + 2 + 4), "a count of columns, an id, a NULL");
    }
}
