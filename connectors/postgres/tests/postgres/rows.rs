//! Batches written down as values.

use caudal_core::batch::NO_ROW;
use caudal_core::{
    Batch, BatchBuilder, Boundary, Cell, Column, ColumnType, EventHead, KeyKind, LogOffset, LogPosition, Op,
    Position, Scope, SnapshotMark, SourcePosition, TableId, TablePart, TableSchema, Transaction, Writer,
};
use std::sync::Arc;
use uuid::Uuid;

/// A value of a row.
#[derive(Clone, Debug)]
pub(crate) enum V {
    Null,
    Unchanged,
    I(i64),
    U(u64),
    F32(f32),
    F64(f64),
    T(&'static str),
    B(&'static [u8]),
    D(&'static str),
    J(&'static str),
}

pub(crate) use V::{I, T};

pub(crate) fn column(id: u32, name: &str, ty: ColumnType) -> Column {
    Column {
        id,
        name: name.to_owned(),
        ty,
        nullable: true,
        native: String::new(),
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    }
}

pub(crate) fn int() -> ColumnType {
    ColumnType::Int { bits: 32 }
}

pub(crate) fn text() -> ColumnType {
    ColumnType::Text { max_chars: None }
}

/// Table `shop.<name>` with its first column as the key.
pub(crate) fn table(name: &str, columns: &[(&str, ColumnType)]) -> TableSchema {
    let columns: Vec<Column> =
        columns.iter().enumerate().map(|(i, (name, ty))| column(i as u32 + 1, name, ty.clone())).collect();
    TableSchema {
        id: TableId::new("shop", name),
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

pub(crate) fn keyless(mut schema: TableSchema) -> TableSchema {
    schema.key.clear();
    schema.key_kind = KeyKind::None;
    schema
}

/// A batch in the making.
#[derive(Default)]
pub(crate) struct Rows {
    builder: BatchBuilder,
}

impl Rows {
    pub(crate) fn new() -> Self {
        let mut rows = Self::default();
        rows.builder.transaction(Transaction::default());
        rows
    }

    pub(crate) fn event(
        mut self,
        schema: &Arc<TableSchema>,
        op: Op,
        before: Option<&[V]>,
        after: Option<&[V]>,
    ) -> Self {
        self.push(schema, op, before, after);
        self
    }

    pub(crate) fn push(
        &mut self,
        schema: &Arc<TableSchema>,
        op: Op,
        before: Option<&[V]>,
        after: Option<&[V]>,
    ) {
        let table = self.builder.table(schema);
        let before = before.map_or(NO_ROW, |row| self.image(row));
        let after = after.map_or(NO_ROW, |row| self.image(row));
        let head = EventHead {
            table,
            transaction: 0,
            before,
            after,
            row: 0,
            op,
            snapshot: SnapshotMark::False,
            pos: 0,
            ts_us: 0,
        };
        self.builder.events.push(head);
    }

    fn image(&mut self, row: &[V]) -> u32 {
        let at = self.builder.cells.len() as u32;
        for value in row {
            let cell = match value {
                V::Null => Cell::Null,
                V::Unchanged => Cell::Unchanged,
                V::I(v) => Cell::I64(*v),
                V::U(v) => Cell::U64(*v),
                V::F32(v) => Cell::F32(*v),
                V::F64(v) => Cell::F64(*v),
                V::T(t) => Cell::Text(self.builder.copy(t.as_bytes())),
                V::B(b) => Cell::Bytes(self.builder.copy(b)),
                V::D(d) => Cell::Decimal(self.builder.copy(d.as_bytes())),
                V::J(j) => Cell::Json(self.builder.copy(j.as_bytes())),
            };
            self.builder.cells.push(cell);
        }
        at
    }

    pub(crate) fn create(self, schema: &Arc<TableSchema>, row: &[V]) -> Self {
        self.event(schema, Op::Create, None, Some(row))
    }

    pub(crate) fn update(self, schema: &Arc<TableSchema>, before: &[V], after: &[V]) -> Self {
        self.event(schema, Op::Update, Some(before), Some(after))
    }

    pub(crate) fn delete(self, schema: &Arc<TableSchema>, row: &[V]) -> Self {
        self.event(schema, Op::Delete, Some(row), None)
    }

    pub(crate) fn truncate(self, schema: &Arc<TableSchema>) -> Self {
        self.event(schema, Op::Truncate, None, None)
    }

    /// The batch that ends at offset `offset` and at a boundary.
    pub(crate) fn at(self, offset: i64) -> Batch {
        let events = self.builder.events.len() as u32;
        let position = SourcePosition { token: format!("gtid-{offset}"), notes: Default::default() };
        let part = TablePart { table: TableId::new("shop", "people"), part: 0, parts: 1 };
        let scope = Scope { source: "plex".to_owned(), tables: vec![part], ..Scope::default() };
        let ts_us = 1_700_000_000_000_000 + offset;
        let boundary = Boundary { events, position, ts_us, scope: Some(Arc::new(scope)) };
        self.builder.build(at(offset), Some(boundary))
    }
}

/// A position of the log.
pub(crate) fn at(offset: i64) -> Position {
    Position::Log(LogPosition {
        offsets: vec![LogOffset {
            topic: "shop.t".into(),
            topic_id: Uuid::from_u128(7),
            partition: 0,
            offset,
            leader_epoch: 3,
            as_of_ms: 0,
            unswept: false,
            writer_epoch: 0,
        }],
    })
}

/// Prepares and writes; all rows must be taken.
pub(crate) async fn write(writer: &mut dyn Writer, mut batch: Batch) {
    if let Some(prepare) = writer.prepare() {
        prepare.prepare(&mut batch).unwrap();
    }
    let outcome = writer.write(&mut batch).await.unwrap();
    assert!(outcome.rejected.is_empty(), "{outcome:?}");
}

/// Writes and commits.
pub(crate) async fn put(writer: &mut dyn Writer, batch: Batch) {
    let position = batch.position.clone();
    write(writer, batch).await;
    assert_eq!(writer.commit().await.unwrap(), position);
}
