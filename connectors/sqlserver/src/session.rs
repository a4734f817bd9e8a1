//! A session of the poll engine: one connection, and what is read through it.

use crate::client::{Client, number, values};
use crate::config::{Resolved, Table};
use crate::param::Param;
use crate::reading::{Limits, Reading};
use crate::select::{Moment, select};
use crate::shape::{self, Shape};
use crate::statement::Values;
use async_trait::async_trait;
use caudal_core::{Error, Fault, Result, TableId, TableSchema};
use caudal_poll::{Look, Page, Request, Session, Window};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Microseconds since the epoch of its clock in UTC, and of its clock on the wall.
const CLOCKS: &str = "SELECT DATEDIFF_BIG(microsecond, '19700101', SYSUTCDATETIME()), DATEDIFF_BIG(microsecond, '19700101', SYSDATETIME())";

/// A connection to one server.
pub(crate) struct SqlSession {
    source: Arc<Resolved>,
    at: usize,
    /// Not here while a reading has it.
    client: Option<Client>,
    reading: Option<(TableId, Reading)>,
    shapes: BTreeMap<TableId, Shape>,
    /// The server's two clocks, when it was last asked.
    utc: i64,
    wall: i64,
}

impl SqlSession {
    pub(crate) async fn open(source: &Arc<Resolved>, at: usize) -> Result<Self> {
        let client = Client::connect(source, &source.places[at]).await?;
        let source = Arc::clone(source);
        let mut session = Self {
            source,
            at,
            client: Some(client),
            reading: None,
            shapes: BTreeMap::new(),
            utc: i64::MAX,
            wall: i64::MAX,
        };
        session.clock().await?;
        Ok(session)
    }

    pub(crate) fn table(&self, id: &TableId) -> Result<Arc<Table>> {
        let found = self.source.tables.iter().find(|table| table.id == *id);
        found.cloned().ok_or_else(|| Error::bug(format!("poll {id}, which is not configured")))
    }

    /// The connection, free for a statement: what was still being read is given up.
    pub(crate) async fn client(&mut self) -> Result<&mut Client> {
        self.reading = None;
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.source, &self.source.places[self.at]).await?);
        }
        self.client.as_mut().ok_or_else(|| Error::bug("no connection"))
    }

    async fn clock(&mut self) -> Result<i64> {
        let client = self.client().await?;
        let row = client
            .rows("ask for the time", CLOCKS, &[])
            .await?
            .into_iter()
            .next()
            .map(values)
            .unwrap_or_default();
        let (Some(utc), Some(wall)) = (number(row.first()), number(row.get(1))) else {
            return Err(Error::transient("ask for the time: no answer"));
        };
        (self.utc, self.wall) = (utc, wall);
        Ok(utc)
    }

    fn filled(&self, table: &Table, window: Window<'_>, planned: Timestamp) -> Result<(String, Vec<Param>)> {
        let moment = Moment { planned, zone: &self.source.zone };
        let from = match window {
            Window::Lookback { period, .. } => Some(moment.before(period)),
            _ => None,
        };
        let store = &self.source.places[self.at].store;
        let mut params = Vec::new();
        let sql =
            table.statement.fill(&Values { planned, zone: &self.source.zone, from, store }, &mut params)?;
        Ok((sql, params))
    }

    /// Whether the window of a table that was described can be read, as far as that shows without reading it.
    pub(crate) async fn try_window(&mut self, look: &Look<'_>) -> Result<()> {
        let table = self.table(look.table)?;
        let shape =
            self.shapes.get(&table.id).cloned().ok_or_else(|| Error::bug("a window before its shape"))?;
        let (sql, params) = self.filled(&table, look.window, look.planned)?;
        let source = Arc::clone(&self.source);
        let moment = Moment { planned: look.planned, zone: &source.zone };
        select(self.client().await?, &table, &shape, (&sql, params), (look.window, &moment)).await?;
        Ok(())
    }

    async fn begin(&mut self, request: &Request<'_>) -> Result<Reading> {
        let table = self.table(&request.schema.id)?;
        let shape =
            self.shapes.get(&table.id).cloned().ok_or_else(|| Error::bug("rows before their shape"))?;
        let (sql, params) = self.filled(&table, request.window, request.planned)?;
        let source = Arc::clone(&self.source);
        let moment = Moment { planned: request.planned, zone: &source.zone };
        let client = self.client().await?;
        let select = select(client, &table, &shape, (&sql, params), (request.window, &moment)).await?;
        let limits =
            Limits { rows: request.rows as usize, bytes: request.bytes, utc: self.utc, wall: self.wall };
        let store = &self.source.places[self.at].store;
        let own = table
            .store_columns
            .iter()
            .map(|(_, attribute)| store.get(attribute).cloned().unwrap_or_default());
        let own = own.collect();
        let client = self.client.take().ok_or_else(|| Error::bug("no connection"))?;
        Ok(Reading::begin(client, select, shape, own, limits))
    }
}

#[async_trait]
impl Session for SqlSession {
    /// The first statement of a run: a connection that was cut while nothing was asked is replaced here.
    async fn now_us(&mut self) -> Result<i64> {
        match self.clock().await {
            Err(e) if e.fault() == Fault::Transient => {
                self.client = None;
                self.clock().await
            }
            asked => asked,
        }
    }

    async fn schema(&mut self, look: &Look<'_>) -> Result<Arc<TableSchema>> {
        let table = self.table(look.table)?;
        let (sql, params) = self.filled(&table, look.window, look.planned)?;
        let shape = shape::shape(self.client().await?, &table, &sql, &params).await?;
        let schema = Arc::clone(&shape.schema);
        self.shapes.insert(table.id.clone(), shape);
        Ok(schema)
    }

    async fn page(&mut self, request: &Request<'_>) -> Result<Page> {
        let id = &request.schema.id;
        if request.after.is_none() {
            if !self.shapes.contains_key(id) {
                // It was another connection that asked for the shape: the run begins anew.
                return Ok(Page { lost: true, ..Page::default() });
            }
            let reading = self.begin(request).await?;
            self.reading = Some((id.clone(), reading));
        }
        // Rows have no order: where another connection was, this one cannot go on.
        let taken = |reading: &Reading| request.after.is_none_or(|after| after == reading.taken.to_string());
        let Some((_, reading)) = self.reading.as_mut().filter(|(of, reading)| of == id && taken(reading))
        else {
            return Ok(Page { lost: true, ..Page::default() });
        };
        let (chunk, client) = reading.next().await?;
        let next = (!chunk.is_last).then(|| reading.taken.to_string());
        if chunk.is_last {
            (self.client, self.reading) = (client, None);
        }
        Ok(Page {
            rows: chunk.rows,
            next,
            watermark: chunk.watermark,
            findings: chunk.findings,
            reshaped: chunk.reshaped,
            ..Page::default()
        })
    }
}
