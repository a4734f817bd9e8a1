//! What a log and a sink would hold of a source's tables: rows by key, columns by their ids, so that shapes may change; and the
//! comparison with what the server selects.

use crate::server::{Database, Stored, next};
use crate::state::{Row, render};
use async_trait::async_trait;
use caudal_core::{
    Batch, EventHead, Op, Position, Reader, Result, Source, TableId, TableSchema, Written, WrittenRows,
};
use mysql_async::Value;
use mysql_async::prelude::Queryable;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One table, of its newest generation.
#[derive(Default)]
struct Table {
    schema: Option<Arc<TableSchema>>,
    /// By key; values by column id.
    rows: BTreeMap<Row, BTreeMap<u32, String>>,
}

/// What was delivered, as it would lie in the topics.
#[derive(Default)]
struct Topics(Mutex<Vec<Arc<Batch>>>);

/// One table's events.
struct Events(VecDeque<Batch>);

#[async_trait]
impl Written for Topics {
    async fn open(&self, table: &TableId) -> Result<Box<dyn WrittenRows>> {
        let batches = self.0.lock().unwrap().clone();
        let of = |batch: &Batch, event: &EventHead| batch.table(event).id == *table;
        // A shape without rows has its topic all the same.
        let shapes = batches.iter().flat_map(|b| b.tables.iter().filter(|t| t.id == *table));
        let newest = shapes.map(|t| t.generation).max().unwrap_or(0);
        let events = batches.iter().map(|batch| {
            let mut copy = copied(batch);
            copy.events.retain(|e| of(batch, e) && batch.table(e).generation == newest);
            copy
        });
        Ok(Box::new(Events(events.filter(|b| !b.events.is_empty()).collect())))
    }
}

#[async_trait]
impl WrittenRows for Events {
    async fn next(&mut self) -> Result<Option<Batch>> {
        Ok(self.0.pop_front())
    }
}

fn copied(batch: &Batch) -> Batch {
    Batch {
        buffers: batch.buffers.clone(),
        events: batch.events.clone(),
        cells: batch.cells.clone(),
        tables: batch.tables.clone(),
        transactions: batch.transactions.clone(),
        ..Batch::empty(batch.position.clone())
    }
}

/// A reader with what it delivered.
pub(crate) struct Mirror {
    reader: Option<Box<dyn Reader>>,
    source: Arc<dyn Source>,
    topics: Arc<Topics>,
    pub(crate) stored: Stored,
    tables: BTreeMap<String, Table>,
    /// Operations per table.
    pub(crate) seen: HashMap<(String, Op), u32>,
    /// Statements, with the tables they concern.
    pub(crate) statements: Vec<String>,
    markers: u32,
}

impl Mirror {
    /// Opens a reader and reads what is there. A table `marker` is made for [`Mirror::settle`].
    pub(crate) async fn open(database: &Database, options: &str) -> Self {
        database.run(&["CREATE TABLE marker (id INT PRIMARY KEY)"]).await;
        let source = caudal_mysql::source("test", database.config(options)).unwrap();
        let topics = Arc::new(Topics::default());
        source.bind(Arc::clone(&topics) as Arc<dyn Written>);
        let mut mirror = Self {
            reader: None,
            source: Arc::clone(&source),
            topics,
            stored: Stored::default(),
            tables: BTreeMap::new(),
            seen: HashMap::new(),
            statements: Vec::new(),
            markers: 0,
        };
        let tables = source.discover().await.unwrap();
        let tables: Vec<&str> = tables.iter().map(|t| t.id.table.as_str()).collect();
        while !mirror.stored.done(&tables) {
            mirror.step().await;
        }
        mirror.settle(database).await;
        mirror
    }

    /// Drops the reader, as a crash would: it goes on from what was stored.
    pub(crate) fn stop(&mut self) {
        self.reader = None;
    }

    /// Reads one batch.
    pub(crate) async fn step(&mut self) {
        if self.reader.is_none() {
            let from = self.stored.position.clone().map(Position::Source);
            self.reader = Some(self.source.open(from).await.unwrap_or_else(|e| panic!("open: {e}")));
        }
        let reader = self.reader.as_mut().expect("opened");
        let batch = next(reader).await;
        self.topics.0.lock().unwrap().push(Arc::new(copied(&batch)));
        reader.commit(&batch.position).await.unwrap();
        self.apply(&batch);
        self.stored.apply(&batch);
    }

    /// Reads until all that was committed before is delivered, and all that has to be read again was.
    pub(crate) async fn settle(&mut self, database: &Database) {
        self.markers += 1;
        let marker = self.markers.to_string();
        database.run(&[&format!("INSERT INTO marker VALUES ({marker})")]).await;
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            self.step().await;
            let marked =
                self.tables.get("marker").is_some_and(|t| t.rows.contains_key(&vec![marker.clone()]));
            if marked && self.pending().is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "not settled: {:?}", self.pending());
        }
    }

    /// Notes of what is still to be read.
    pub(crate) fn pending(&self) -> Vec<String> {
        let notes = self.stored.position.as_ref().map(|p| &p.notes).into_iter().flatten();
        let open = |(name, text): (&String, &Option<String>)| {
            let text = text.as_deref().unwrap_or_default();
            let unfinished = name.starts_with("table/") && text.contains(r#""done":false"#);
            (unfinished || name.starts_with("reread/") || name.starts_with("quarantine/"))
                .then(|| format!("{name} {text}"))
        };
        notes.filter_map(open).collect()
    }

    /// How often this happened to rows of a table.
    pub(crate) fn count(&self, table: &str, op: Op) -> u32 {
        self.seen.get(&(table.to_owned(), op)).copied().unwrap_or(0)
    }

    fn apply(&mut self, batch: &Batch) {
        for event in &batch.events {
            self.event(batch, event);
        }
        let told = batch.ddl.iter().map(|d| {
            let tables: Vec<&str> = d.tables.iter().map(|t| t.table.as_str()).collect();
            format!("{}: {}", tables.join(","), d.statement)
        });
        self.statements.extend(told);
    }

    fn event(&mut self, batch: &Batch, event: &EventHead) {
        let schema = Arc::clone(batch.table(event));
        *self.seen.entry((schema.id.table.clone(), event.op)).or_default() += 1;
        let table = self.tables.entry(schema.id.table.clone()).or_default();
        let known = table.schema.as_ref().map_or(0, |s| s.generation);
        if schema.generation > known {
            // A new generation is a new topic.
            table.rows.clear();
        }
        if schema.generation < known {
            return;
        }
        if table.schema.as_ref().is_none_or(|s| s.version <= schema.version) {
            table.schema = Some(Arc::clone(&schema));
        }
        let image = |cells: &[caudal_core::Cell]| -> BTreeMap<u32, String> {
            let cells = schema.columns.iter().zip(cells);
            cells.map(|(column, &cell)| (column.id, plain(&render(batch, cell)))).collect()
        };
        let key = |row: &BTreeMap<u32, String>| -> Row {
            schema.key_columns().map(|c| row[&c.id].clone()).collect()
        };
        let (before, after) = (batch.before(event).map(image), batch.after(event).map(image));
        if event.op == Op::Truncate {
            table.rows.clear();
            return;
        }
        assert!(!schema.key.is_empty(), "tables here have keys");
        if let Some(before) = before {
            table.rows.remove(&key(&before));
        }
        if let Some(after) = after {
            table.rows.insert(key(&after), after);
        }
    }

    /// What is held of a table, as [`selected`] has it.
    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        let Some(table) = self.tables.get(table) else { return Vec::new() };
        let Some(schema) = &table.schema else { return Vec::new() };
        let value =
            |row: &BTreeMap<u32, String>, id| row.get(&id).cloned().unwrap_or_else(|| "NULL".to_owned());
        let text = |row: &BTreeMap<u32, String>| {
            let columns = schema.columns.iter();
            columns.map(|c| format!("{}={}", c.name, value(row, c.id))).collect::<Vec<_>>().join(" ")
        };
        let mut rows: Vec<String> = table.rows.values().map(text).collect();
        rows.sort();
        rows
    }

    /// Fails unless what is held of the tables is what the server selects.
    pub(crate) async fn equals(&self, database: &Database, tables: &[&str], what: &str) {
        for table in tables {
            let selected = selected(database, table).await;
            assert_eq!(self.rows(table), selected, "{what}: {table}, mariadb: {}", database.server.mariadb);
        }
    }
}

/// A rendered cell without its kind.
fn plain(rendered: &str) -> String {
    let kind = |k: &str| matches!(k, "t" | "d" | "j" | "x");
    rendered.split_once(':').filter(|(k, _)| kind(k)).map_or(rendered, |(_, text)| text).to_owned()
}

/// All rows of a table as text, with the columns' names.
async fn selected(database: &Database, table: &str) -> Vec<String> {
    let mut conn = database.connect().await;
    let rows: Vec<mysql_async::Row> = conn.query(format!("SELECT * FROM `{table}`")).await.unwrap();
    let text = |value: &Value| match value {
        Value::NULL => "NULL".to_owned(),
        Value::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        other => other.as_sql(true),
    };
    let line = |row: &mysql_async::Row| {
        let columns = row.columns_ref().iter().enumerate();
        columns.map(|(i, c)| format!("{}={}", c.name_str(), text(&row[i]))).collect::<Vec<_>>().join(" ")
    };
    let mut rows: Vec<String> = rows.iter().map(line).collect();
    rows.sort();
    rows
}
