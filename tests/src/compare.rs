//! Source and sink, row by row.
//!
//! The source's table is read whole into memory (key → row, in canonical text), then the sink's rows are struck off it one by one: what is
//! left over on either side, or differs, is a finding. Good for tables of some hundred thousand rows.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{TryStreamExt, pin_mut};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::canon::{SourceColumn, from_mysql, from_postgres};
use crate::{patience, postgres};

/// At most so many differences of a table are described; all are counted.
const DESCRIBED: usize = 5;
/// At most so many over several tables.
const DESCRIBED_IN_ALL: usize = 60;
/// Between the columns of a row's canonical text; NULL is a text that no value has.
const SEPARATOR: char = '\u{1f}';
const NULL: &str = "\u{0}";

/// A source table and the table that should equal it.
#[derive(Clone, Debug)]
pub struct TablePair {
    /// The source's database.
    pub database: String,
    /// The source's table.
    pub table: String,
    /// The sink's schema.
    pub sink_schema: String,
    /// The sink's table.
    pub sink_table: String,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Rows in the source.
    pub source_rows: u64,
    /// Rows in the sink.
    pub sink_rows: u64,
    /// Rows of the source that the sink has not.
    pub missing: u64,
    /// Rows of the sink that the source has not.
    pub surplus: u64,
    /// Rows that both have, with other values.
    pub different: u64,
    /// Tables of which a side can't be read: not created yet, a column missing, a value that isn't of its type.
    pub unreadable: u64,
    /// The first findings in words.
    pub findings: Vec<String>,
}

impl TablePair {
    /// The pair where the sink has its defaults: the table's own name in the schema `public`.
    #[must_use]
    pub fn by_default(database: &str, table: &str) -> Self {
        let (database, table) = (database.to_owned(), table.to_owned());
        Self { sink_schema: "public".to_owned(), sink_table: table.clone(), database, table }
    }

    /// One pair per base table of a database.
    ///
    /// # Errors
    /// When the source can't be read.
    pub async fn all(source_url: &str, database: &str) -> Result<Vec<Self>> {
        let mut conn = crate::mysql::connect(source_url).await?;
        let query = "SELECT table_name FROM information_schema.tables WHERE table_schema = ? AND table_type = 'BASE TABLE' ORDER BY 1";
        let names: Vec<String> = conn.exec(query, (database,)).await?;
        conn.disconnect().await?;
        Ok(names.iter().map(|t| Self::by_default(database, t)).collect())
    }

    /// Compares the two tables as they are now.
    ///
    /// # Errors
    /// When a side can't be read, or a column is missing in the sink.
    pub async fn compare(&self, source_url: &str, sink_url: &str) -> Result<Comparison> {
        let name = format!("{}.{}", self.database, self.table);
        let mut conn = crate::mysql::connect(source_url).await?;
        let columns = source_columns(&mut conn, &self.database, &self.table).await?;
        let client = postgres::connect(sink_url).await?;
        let types =
            self.sink_types(&client, &columns).await.with_context(|| format!("sink table of {name}"))?;
        let source = self.read_source(&mut conn, &columns).await.with_context(|| format!("read {name}"))?;
        conn.disconnect().await?;
        let mut result = Comparison {
            source_rows: source.values().map(|r| r.len() as u64).sum(),
            ..Comparison::default()
        };
        self.strike_off(&client, &columns, &types, source, &mut result).await?;
        Ok(result)
    }

    /// The source's rows in canonical text, their columns separated by a blank, a bar and a blank.
    ///
    /// # Errors
    /// When the source can't be read.
    pub async fn source_texts(&self, source_url: &str) -> Result<Vec<String>> {
        let mut conn = crate::mysql::connect(source_url).await?;
        let columns = source_columns(&mut conn, &self.database, &self.table).await?;
        let rows = self.read_source(&mut conn, &columns).await?;
        conn.disconnect().await?;
        Ok(rows.values().flatten().map(|r| show(r)).collect())
    }

    async fn sink_types(&self, client: &Client, columns: &[SourceColumn]) -> Result<Vec<String>> {
        let query = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a \
             JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped";
        let rows = client.query(query, &[&self.sink_schema, &self.sink_table]).await?;
        let types: HashMap<String, String> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
        if types.is_empty() {
            bail!("{}.{} does not exist", self.sink_schema, self.sink_table);
        }
        columns
            .iter()
            .map(|c| types.get(&c.name).cloned().with_context(|| format!("column {} is missing", c.name)))
            .collect()
    }

    async fn read_source(
        &self,
        conn: &mut Conn,
        columns: &[SourceColumn],
    ) -> Result<HashMap<String, Vec<String>>> {
        let list: Vec<String> = columns.iter().map(|c| format!("`{}`", c.name)).collect();
        let query = format!("SELECT {} FROM `{}`.`{}`", list.join(", "), self.database, self.table);
        let mut rows: HashMap<String, Vec<String>> = HashMap::new();
        // Prepared, because only the binary protocol gives floats exactly.
        let stream = conn.exec_stream::<Row, _, _>(query, ()).await?;
        pin_mut!(stream);
        while let Some(row) = stream.try_next().await? {
            let values: Vec<Value> = row.unwrap();
            let texts =
                columns.iter().zip(&values).map(|(c, v)| from_mysql(c, v)).collect::<Result<Vec<_>>>()?;
            let (key, row) = join(columns, &texts);
            rows.entry(key).or_default().push(row);
        }
        Ok(rows)
    }

    async fn strike_off(
        &self,
        client: &Client,
        columns: &[SourceColumn],
        types: &[String],
        mut source: HashMap<String, Vec<String>>,
        result: &mut Comparison,
    ) -> Result<()> {
        let list: Vec<String> =
            columns.iter().map(|c| format!("\"{}\"", c.name.replace('"', "\"\""))).collect();
        let query =
            format!("SELECT {} FROM \"{}\".\"{}\"", list.join(", "), self.sink_schema, self.sink_table);
        let stream = client.simple_query_raw(&query).await?;
        pin_mut!(stream);
        while let Some(message) = stream.try_next().await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let texts = (0..columns.len())
                .map(|i| row.get(i).map_or(Ok(None), |text| from_postgres(&columns[i], &types[i], text)))
                .collect::<Result<Vec<_>>>()?;
            result.sink_rows += 1;
            let (key, row) = join(columns, &texts);
            self.strike(&mut source, &key, &row, result);
        }
        for (key, rows) in source {
            for row in rows {
                result.missing += 1;
                result.describe(|| {
                    format!("{}: {} is missing; the source has {}", self.table, show(&key), show(&row))
                });
            }
        }
        Ok(())
    }

    fn strike(
        &self,
        source: &mut HashMap<String, Vec<String>>,
        key: &str,
        row: &str,
        result: &mut Comparison,
    ) {
        let Some(rows) = source.get_mut(key) else {
            result.surplus += 1;
            result.describe(|| format!("{}: {} is not in the source", self.table, show(key)));
            return;
        };
        let at = rows.iter().position(|r| r == row);
        if at.is_none() {
            result.different += 1;
            result.describe(|| {
                format!(
                    "{}: {}\n    source {}\n    sink   {}",
                    self.table,
                    show(key),
                    show(&rows[0]),
                    show(row)
                )
            });
        }
        rows.swap_remove(at.unwrap_or(0));
        if rows.is_empty() {
            source.remove(key);
        }
    }
}

impl Comparison {
    /// True when both sides hold the same rows.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.missing == 0 && self.surplus == 0 && self.different == 0 && self.unreadable == 0
    }

    fn describe(&mut self, text: impl FnOnce() -> String) {
        if self.findings.len() < DESCRIBED {
            self.findings.push(text());
        }
    }

    /// Adds another table's findings.
    pub fn add(&mut self, other: Self) {
        self.source_rows += other.source_rows;
        self.sink_rows += other.sink_rows;
        self.missing += other.missing;
        self.surplus += other.surplus;
        self.different += other.different;
        self.unreadable += other.unreadable;
        self.findings.extend(other.findings);
        self.findings.truncate(DESCRIBED_IN_ALL);
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rows in the source, {} in the sink: {} missing, {} surplus, {} different, {} tables unreadable",
            self.source_rows, self.sink_rows, self.missing, self.surplus, self.different, self.unreadable
        )?;
        self.findings.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Compares all pairs as they are now. A table that can't be read is a finding, not an error: the others are compared all the same.
pub async fn compare_all(pairs: &[TablePair], source_url: &str, sink_url: &str) -> Comparison {
    let mut sum = Comparison::default();
    for pair in pairs {
        sum.add(pair.compare(source_url, sink_url).await.unwrap_or_else(|e| Comparison {
            unreadable: 1,
            findings: vec![format!("{e:#}")],
            ..Comparison::default()
        }));
    }
    sum
}

/// Waits until all pairs are equal; the source must be at rest.
///
/// # Errors
/// When `limit` passes first: with the differences that were left.
pub async fn wait_equal(
    pairs: &[TablePair],
    source_url: &str,
    sink_url: &str,
    limit: Duration,
) -> Result<Comparison> {
    let last = std::cell::RefCell::new(Comparison::default());
    let probe = async || {
        let comparison = compare_all(pairs, source_url, sink_url).await;
        let equal = comparison.is_equal();
        *last.borrow_mut() = comparison;
        Ok(equal)
    };
    let outcome =
        patience::until("source and sink to be equal", limit, Duration::from_millis(500), probe).await;
    let last = last.into_inner();
    outcome.with_context(|| last.to_string())?;
    Ok(last)
}

async fn source_columns(conn: &mut Conn, database: &str, table: &str) -> Result<Vec<SourceColumn>> {
    let query = "SELECT column_name, LOWER(data_type), column_key = 'PRI' FROM information_schema.columns \
         WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position";
    let rows: Vec<(String, String, bool)> = conn.exec(query, (database, table)).await?;
    if rows.is_empty() {
        bail!("{database}.{table} does not exist in the source");
    }
    Ok(rows.into_iter().map(|(name, data_type, in_key)| SourceColumn { name, data_type, in_key }).collect())
}

/// The texts of the key columns (of all, when there is no key) and of the whole row.
fn join(columns: &[SourceColumn], texts: &[Option<String>]) -> (String, String) {
    let keyed = columns.iter().any(|c| c.in_key);
    let (mut key, mut row) = (String::new(), String::new());
    for (column, text) in columns.iter().zip(texts) {
        let text = text.as_deref().unwrap_or(NULL);
        row.push_str(text);
        row.push(SEPARATOR);
        if column.in_key || !keyed {
            key.push_str(text);
            key.push(SEPARATOR);
        }
    }
    (key, row)
}

fn show(joined: &str) -> String {
    joined.trim_end_matches(SEPARATOR).replace(SEPARATOR, " | ").replace(NULL, "NULL")
}
