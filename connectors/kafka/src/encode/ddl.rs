//! Schema changes as Debezium's topic `<prefix>` has them: key `{databaseName}`, value with the statement and the tables'
//! shapes after it. Fields in Debezium's order; `jdbcType`, which only Java knows, is 0.

use crate::encode::EncodeOptions;
use caudal_core::fault::Classify;
use caudal_core::{Batch, Column, ColumnType, Ddl, Fault, Result, TableId, TableSchema};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Key<'a> {
    database_name: &'a str,
}

#[derive(Serialize)]
struct Change<'a> {
    source: Source<'a>,
    ts_ms: i64,
    #[serde(rename = "databaseName")]
    database_name: &'a str,
    #[serde(rename = "schemaName")]
    schema_name: Option<&'a str>,
    ddl: &'a str,
    #[serde(rename = "tableChanges")]
    table_changes: Vec<TableChange<'a>>,
}

#[derive(Serialize)]
struct Source<'a> {
    version: &'a str,
    connector: &'a str,
    name: &'a str,
    ts_ms: i64,
    snapshot: &'a str,
    db: &'a str,
    sequence: Option<&'a str>,
    ts_us: i64,
    ts_ns: i64,
    table: String,
    server_id: u32,
    gtid: Option<&'a str>,
    file: &'a str,
    pos: u64,
    row: u32,
    thread: Option<u32>,
    query: Option<&'a str>,
}

#[derive(Serialize)]
struct TableChange<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: String,
    /// None for a table that is gone.
    table: Option<Table<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Table<'a> {
    default_charset_name: Option<&'a str>,
    primary_key_column_names: Vec<&'a str>,
    columns: Vec<ColumnShape<'a>>,
    comment: Option<&'a str>,
    attributes: [&'a str; 0],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ColumnShape<'a> {
    name: &'a str,
    jdbc_type: i32,
    native_type: Option<i32>,
    type_name: String,
    type_expression: String,
    charset_name: Option<&'a str>,
    length: Option<u32>,
    scale: Option<u32>,
    position: usize,
    optional: bool,
    auto_incremented: bool,
    generated: bool,
    comment: Option<&'a str>,
    default_value_expression: Option<&'a str>,
    enum_values: Option<&'a [String]>,
}

/// Key and value of each schema change of a batch.
///
/// # Errors
/// `Bug`, if it cannot be written as JSON.
pub(crate) fn records(batch: &Batch, options: &EncodeOptions) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let now = if batch.ddl.is_empty() { 0 } else { (options.clock)() };
    let records = batch.ddl.iter().map(|change| record(batch, change, options, now));
    records.collect::<serde_json::Result<_>>().fault(Fault::Bug, "encode a schema change")
}

fn record(
    batch: &Batch,
    change: &Ddl,
    options: &EncodeOptions,
    now: i64,
) -> serde_json::Result<(Vec<u8>, Vec<u8>)> {
    let transaction = batch.transactions.get(change.transaction as usize).copied().unwrap_or_default();
    let tables: Vec<&str> = change.tables.iter().map(|t| t.table.as_str()).collect();
    let value = Change {
        source: Source {
            version: env!("CARGO_PKG_VERSION"),
            connector: &options.connector,
            name: &options.prefix,
            ts_ms: change.ts_us.div_euclid(1_000),
            snapshot: "false",
            db: &change.database,
            sequence: None,
            ts_us: change.ts_us,
            ts_ns: change.ts_us.saturating_mul(1_000),
            table: tables.join(","),
            server_id: transaction.server_id,
            gtid: transaction.gtid.map(|gtid| batch.text(gtid)),
            file: transaction.file.map_or("", |file| batch.text(file)),
            pos: change.pos,
            row: 0,
            thread: (transaction.thread != 0).then_some(transaction.thread),
            query: None,
        },
        ts_ms: now / 1_000,
        database_name: &change.database,
        schema_name: None,
        ddl: &change.statement,
        table_changes: change
            .tables
            .iter()
            .filter_map(|id| table_change(batch, &change.statement, id))
            .collect(),
    };
    Ok((serde_json::to_vec(&Key { database_name: &change.database })?, serde_json::to_vec(&value)?))
}

/// None for a table whose shape after the statement is not known: a reader of the topic takes an entry as the table's shape.
fn table_change<'a>(batch: &'a Batch, statement: &str, id: &TableId) -> Option<TableChange<'a>> {
    let mut words = statement.split_whitespace().map(str::to_ascii_lowercase);
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    // An index, made or dropped, alters its table.
    let kind = if first == "create" && second != "index" && second != "unique" {
        "CREATE"
    } else if first == "drop" && second != "index" {
        "DROP"
    } else {
        "ALTER"
    };
    let shape = batch.tables.iter().rev().find(|t| t.id == *id).filter(|_| kind != "DROP");
    (kind == "DROP" || shape.is_some()).then(|| TableChange {
        kind,
        id: format!("\"{}\".\"{}\"", id.database, id.table),
        table: shape.map(|shape| table(shape)),
    })
}

fn table(schema: &TableSchema) -> Table<'_> {
    Table {
        default_charset_name: schema.charset.as_deref(),
        primary_key_column_names: schema.key_columns().map(|c| c.name.as_str()).collect(),
        columns: schema.columns.iter().enumerate().map(|(i, c)| column(i + 1, c)).collect(),
        comment: schema.comment.as_deref(),
        attributes: [],
    }
}

fn column(position: usize, column: &Column) -> ColumnShape<'_> {
    let (length, scale) = size(&column.ty);
    let expression = column.native.split('(').next().unwrap_or_default().to_uppercase();
    ColumnShape {
        name: &column.name,
        jdbc_type: 0,
        native_type: None,
        type_name: expression.clone(),
        type_expression: expression,
        charset_name: column.charset.as_deref(),
        length,
        scale,
        position,
        optional: column.nullable,
        auto_incremented: column.auto_increment,
        generated: column.generated,
        comment: column.comment.as_deref(),
        default_value_expression: column.default.as_deref(),
        enum_values: match &column.ty {
            ColumnType::Enum { members } | ColumnType::Set { members } => Some(members),
            _ => None,
        },
    }
}

fn size(ty: &ColumnType) -> (Option<u32>, Option<u32>) {
    match ty {
        ColumnType::Decimal { precision, scale } => (Some((*precision).into()), Some((*scale).into())),
        ColumnType::Text { max_chars } => (*max_chars, None),
        ColumnType::Bytes { max_bytes, .. } => (*max_bytes, None),
        ColumnType::Bit { bits } => (Some((*bits).into()), None),
        ColumnType::Time { precision }
        | ColumnType::DateTime { precision }
        | ColumnType::Timestamp { precision }
            if *precision > 0 =>
        {
            (Some((*precision).into()), None)
        }
        _ => (None, None),
    }
}
