//! Pages by SELECT.

use crate::client::Client;
use crate::config::Resolved;
use crate::connection::results::{Failure, PackedRow};
use crate::discover::{self, Table};
use crate::shape::Shape;
use crate::snapshot::bounds::{self, Part, Stored};
use crate::snapshot::cells;
use crate::value::Value;
use async_trait::async_trait;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    BatchBuilder, Column, ColumnType, Error, EventHead, Op, Result, SnapshotMark, TableId, TableSchema,
};
use caudal_poll::{Look, Page, Request, Session, Window};
use std::sync::Arc;
use std::time::Duration;

/// A connection, and the table that a run reads.
pub(super) struct MySqlSession {
    client: Client,
    config: Arc<Resolved>,
    /// As it was when the run began.
    table: Option<(Arc<Table>, Shape)>,
}

impl MySqlSession {
    pub(super) fn new(client: Client, config: Arc<Resolved>) -> Self {
        Self { client, config, table: None }
    }

    async fn look(&mut self, id: &TableId) -> Result<()> {
        let found = discover::tables(&mut self.client, &self.config.selection, Some(id)).await?.remove(id);
        let table = found.ok_or_else(|| {
            Error::config(format!("the table {id} does not exist any more, or this user may not see it"))
                .hint("exclude it, or GRANT SELECT on it")
        })?;
        let shape = Shape::new(&Arc::new(table.schema.clone()), &self.config.selection)
            .map_err(|e| self.config.own_field(e))?;
        self.table = Some((Arc::new(table), shape));
        Ok(())
    }
}

#[async_trait]
impl Session for MySqlSession {
    async fn now_us(&mut self) -> Result<i64> {
        let sql = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";
        let text = self.client.text("ask for the source's time", sql).await?;
        Ok(text.and_then(|t| t.parse().ok()).unwrap_or(0))
    }

    async fn schema(&mut self, look: &Look<'_>) -> Result<Arc<TableSchema>> {
        self.look(look.table).await?;
        let (_, shape) =
            self.table.as_ref().ok_or_else(|| Error::bug("poll a table that was not looked at"))?;
        Ok(Arc::clone(shape.out()))
    }

    async fn page(&mut self, request: &Request<'_>) -> Result<Page> {
        if self.table.as_ref().is_none_or(|(_, shape)| shape.full().id != request.schema.id) {
            // Another connection than the one that the run began with.
            self.look(&request.schema.id).await?;
        }
        let Some((table, shape)) = &self.table else {
            return Err(Error::bug("poll a table that was not looked at"));
        };
        if !caudal_poll::same_shape(shape.out(), request.schema) {
            return Ok(Page { reshaped: true, ..Page::default() });
        }
        let query = Query::new(table, shape, request)?;
        let failed = |e: Failure| e.into_error().context(format!("read a page of {}", request.schema.id));
        self.client.revive().await?;
        let mut result = self.client.stream(&query.sql, &query.parameters).await.map_err(failed)?;
        let mut page =
            Filling { request, builder: BatchBuilder::default(), taken: 0, cut: false, last: None };
        while let Some(row) = result.next().await.map_err(failed)? {
            page.take(row)?;
        }
        page.done(query.watermark)
    }
}

/// A page's statement.
struct Query {
    sql: String,
    parameters: Vec<Value>,
    /// Whether the order's first part is the window's column.
    watermark: bool,
}

impl Query {
    fn new(table: &Table, shape: &Shape, request: &Request<'_>) -> Result<Self> {
        let schema = shape.full();
        let key = schema.key.iter().map(|&i| part(table, schema, i));
        let mut parts = key.collect::<Result<Vec<_>>>()?;
        let (mut conditions, mut parameters) = (Vec::new(), Vec::new());
        let mut watermark = false;
        match request.window {
            Window::All => {}
            Window::Since { column, watermark: from, overlap } => {
                let (i, column) = find(schema, column)?;
                let part = part(table, schema, i)?;
                if let Some(from) = from {
                    let value = place(from)?.into_iter().next().ok_or_else(|| damaged(schema))?;
                    conditions.push(format!("{} >= {}", part.left, less(column, &part, overlap)?));
                    parameters.push(value);
                }
                parts.retain(|p| p.left != part.left);
                parts.insert(0, part);
                watermark = true;
            }
            Window::Lookback { column, period } => {
                let (_, column) = find(schema, column)?;
                conditions.push(format!(
                    "{} >= {}",
                    crate::client::quoted(&column.name),
                    ago(column, period)?
                ));
            }
        }
        if let Some(after) = request.after {
            let key = place(after)?;
            conditions.push(bounds::behind(&parts, &key));
            parameters.extend(bounds::key_parameters(&key));
        }
        conditions.extend(shape.condition().map(str::to_owned));
        let conditions: Vec<String> = conditions.iter().map(|c| format!("({c})")).collect();
        let condition = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        let names: Vec<String> = shape.out().columns.iter().map(|c| crate::client::quoted(&c.name)).collect();
        let read: Vec<&str> = parts.iter().map(|p| p.read.as_str()).collect();
        let order: Vec<&str> = parts.iter().map(|p| p.order.as_str()).collect();
        let sql = format!(
            "SELECT {}, {} FROM {}.{}{condition} ORDER BY {} LIMIT {}",
            names.join(", "),
            read.join(", "),
            crate::client::quoted(&schema.id.database),
            crate::client::quoted(&schema.id.table),
            order.join(", "),
            u64::from(request.rows) + 1,
        );
        Ok(Self { sql, parameters, watermark })
    }
}

fn find<'a>(schema: &'a TableSchema, name: &str) -> Result<(u32, &'a Column)> {
    let found = schema.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
    found.map(|i| (i as u32, &schema.columns[i])).ok_or_else(|| {
        Error::config(format!("{} has no column `{name}` to be polled by", schema.id))
            .hint("correct `column` in `poll.tables`")
    })
}

fn part(table: &Table, schema: &TableSchema, column: u32) -> Result<Part> {
    let collation = table.collations.get(column as usize).and_then(Option::as_deref);
    let column = &schema.columns[column as usize];
    bounds::part(column, collation).ok_or_else(|| {
        Error::config(format!(
            "{}: rows cannot be ordered by `{}` ({})",
            schema.id, column.name, column.native
        ))
        .hint("name another key in `keys`, or poll by another column")
    })
}

/// The watermark less the overlap, in SQL, with one `?`.
fn less(column: &Column, part: &Part, overlap: Duration) -> Result<String> {
    let (seconds, micros) = (overlap.as_secs(), overlap.as_micros());
    Ok(match &column.ty {
        ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
            format!("CAST(? AS DATETIME(6)) - INTERVAL {micros} MICROSECOND")
        }
        ColumnType::Date => format!("CAST(? AS DATE) - INTERVAL {} DAY", seconds.div_ceil(86_400)),
        ColumnType::Int { .. } | ColumnType::UInt { .. } | ColumnType::Decimal { .. } => {
            format!("CAST({} AS DECIMAL(65,10)) - {seconds}", part.right)
        }
        _ if overlap.is_zero() => part.right.clone(),
        _ => {
            return Err(Error::config(format!("`{}` ({}) has no overlap", column.name, column.native))
                .hint("poll by a time or a number, or set `overlap: 0s`"));
        }
    })
}

/// A period before the server's clock, in SQL. The session's clock is UTC, and so are the server's TIMESTAMPs in it; a DATETIME is compared
/// with the same clock, so the period should have room for its time zone.
fn ago(column: &Column, period: Duration) -> Result<String> {
    match column.ty {
        ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } | ColumnType::Date => {
            Ok(format!("NOW(6) - INTERVAL {} SECOND", period.as_secs()))
        }
        _ => Err(Error::config(format!("`{}` ({}) holds no time", column.name, column.native))
            .hint("a sliding window needs a DATE, DATETIME or TIMESTAMP column")),
    }
}

fn damaged(schema: &TableSchema) -> Error {
    Error::data(format!("{}: the stored watermark is damaged", schema.id))
}

/// Values of an order, as text.
fn text(values: &[Value]) -> String {
    let stored: Vec<Stored> = values.iter().map(Stored::from_value).collect();
    serde_json::to_string(&stored).unwrap_or_default()
}

fn place(text: &str) -> Result<Vec<Value>> {
    let wrong = || Error::data("a stored place in a polled table is damaged");
    let stored: Vec<Stored> = serde_json::from_str(text).map_err(|e| wrong().because(e))?;
    stored.iter().map(Stored::to_value).collect::<Option<_>>().ok_or_else(wrong)
}

/// Rows on their way into a page.
struct Filling<'a> {
    request: &'a Request<'a>,
    builder: BatchBuilder,
    taken: u32,
    cut: bool,
    last: Option<PackedRow>,
}

impl Filling<'_> {
    fn take(&mut self, row: PackedRow) -> Result<()> {
        // What is behind the bounds is left to the next page.
        let full = self.taken > 0 && self.builder.size() >= self.request.bytes;
        if self.cut || self.taken == self.request.rows || full {
            self.cut = true;
            return Ok(());
        }
        let schema = self.request.schema;
        let first = self.builder.cells.len() as u32;
        let mut fields = row.fields();
        for column in &schema.columns {
            let value = fields.next();
            let cell = value.and_then(|value| cells::cell(&value, &column.ty, &mut self.builder));
            self.builder.cells.push(cell.ok_or_else(|| {
                Error::transient(format!("{}: the table was changed while it was read", schema.id))
            })?);
        }
        self.builder.events.push(EventHead {
            table: 0,
            transaction: 0,
            before: NO_ROW,
            after: first,
            row: 0,
            op: Op::Read,
            snapshot: SnapshotMark::False,
            pos: 0,
            ts_us: 0,
        });
        self.taken += 1;
        self.last = Some(row);
        Ok(())
    }

    fn done(self, has_watermark: bool) -> Result<Page> {
        let width = self.request.schema.width();
        let order: Option<Vec<Value>> =
            self.last.and_then(|row| row.values()).map(|mut row| row.split_off(width));
        let watermark = order.as_deref().filter(|_| has_watermark).and_then(|o| o.first());
        let watermark = watermark.filter(|v| **v != Value::Null).map(|v| text(std::slice::from_ref(v)));
        let next = order.as_deref().filter(|_| self.cut).map(text);
        Ok(Page { rows: self.builder, next, watermark, ..Page::default() })
    }
}
