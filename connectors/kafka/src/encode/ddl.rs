//! Schema changes as Debezium's topic `<prefix>` has them: key `{databaseName}`, value with the statement and the tables'
//! shapes after it. Fields in Debezium's order.

use crate::encode::EncodeOptions;
use crate::format::Profile;
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
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ColumnShape<'a> {
    name: &'a str,
    jdbc_type: i32,
    native_type: Option<i32>,
    type_name: String,
    type_expression: String,
    charset_name: Option<String>,
    length: Option<u32>,
    scale: Option<u32>,
    position: usize,
    optional: bool,
    auto_incremented: bool,
    generated: bool,
    comment: Option<&'a str>,
    default_value_expression: Option<&'a str>,
    enum_values: Option<Vec<String>>,
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
    let debezium = options.profile == Profile::Debezium35;
    // Debezium knows a statement's time to the millisecond only, and not the connection that it came by.
    let ts_us = if debezium { change.ts_us.div_euclid(1_000) * 1_000 } else { change.ts_us };
    let value = Change {
        source: Source {
            version: env!("CARGO_PKG_VERSION"),
            connector: &options.connector,
            name: &options.prefix,
            ts_ms: change.ts_us.div_euclid(1_000),
            snapshot: "false",
            db: &change.database,
            sequence: None,
            ts_us,
            ts_ns: ts_us.saturating_mul(1_000),
            table: tables.join(","),
            server_id: transaction.server_id,
            gtid: transaction.gtid.map(|gtid| batch.text(gtid)),
            file: transaction.file.map_or("", |file| batch.text(file)),
            pos: change.pos,
            row: 0,
            thread: (transaction.thread != 0 && !debezium).then_some(transaction.thread),
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
    let charset = schema.charset.as_deref();
    Table {
        default_charset_name: charset,
        primary_key_column_names: schema.key_columns().map(|c| c.name.as_str()).collect(),
        columns: schema.columns.iter().enumerate().map(|(i, c)| column(i + 1, c, charset)).collect(),
        comment: schema.comment.as_deref(),
    }
}

fn column<'a>(position: usize, column: &'a Column, charset: Option<&str>) -> ColumnShape<'a> {
    let native = Native::of(&column.native);
    let members = match &column.ty {
        ColumnType::Enum { members } | ColumnType::Set { members } => Some(members),
        _ => None,
    };
    let (length, scale) = match (&column.ty, members) {
        (ColumnType::Enum { .. }, _) => (Some(1), None),
        (ColumnType::Set { .. }, Some(members)) => (Some(set_length(members)), None),
        _ => (native.length, native.scale),
    };
    let is_text =
        matches!(column.ty, ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. });
    ColumnShape {
        name: &column.name,
        jdbc_type: native.jdbc_type(),
        native_type: None,
        type_expression: native.name.clone(),
        type_name: native.name,
        charset_name: is_text.then(|| column.charset.as_deref().or(charset).map(str::to_owned)).flatten(),
        length,
        scale,
        position,
        optional: column.nullable,
        auto_incremented: column.auto_increment,
        // To Debezium a column is generated when the server numbers it, not when it computes it.
        generated: column.auto_increment,
        comment: None,
        default_value_expression: column.default.as_deref().map(default),
        enum_values: members.map(|members| members.iter().map(|m| format!("'{m}'")).collect()),
    }
}

/// A default that only the server can work out is the epoch.
fn default(text: &str) -> &str {
    if text.to_ascii_uppercase().starts_with("CURRENT_TIMESTAMP") { "1970-01-01 00:00:00" } else { text }
}

/// The longest value of a SET: all its labels.
fn set_length(members: &[String]) -> u32 {
    let labels: usize = members.iter().map(|m| m.chars().count()).sum();
    (labels + members.len().saturating_sub(1)) as u32
}

/// A type as the source writes it, in parts.
struct Native {
    /// Without its numbers, in capitals: `INT UNSIGNED`.
    name: String,
    length: Option<u32>,
    scale: Option<u32>,
}

impl Native {
    fn of(native: &str) -> Self {
        let (head, rest) = native.split_once('(').unwrap_or((native, ""));
        let (numbers, tail) = rest.rsplit_once(')').unwrap_or(("", ""));
        let mut numbers = numbers.split(',').map(|n| n.trim().parse().ok());
        let name = format!("{} {}", head.trim(), tail.trim()).trim().to_uppercase();
        Self { name, length: numbers.next().flatten(), scale: numbers.next().flatten() }
    }

    /// The constant of `java.sql.Types` that Debezium gives this type.
    fn jdbc_type(&self) -> i32 {
        match self.name.split_whitespace().next().unwrap_or_default() {
            "BIT" => -7,
            "TINYINT" | "SMALLINT" => 5,
            "MEDIUMINT" | "INT" | "INTEGER" | "YEAR" => 4,
            "BIGINT" => -5,
            "FLOAT" => 6,
            "DOUBLE" => 8,
            "DECIMAL" => 3,
            "DATE" => 91,
            "TIME" => 92,
            "DATETIME" => 93,
            "TIMESTAMP" => 2014,
            "CHAR" | "ENUM" | "SET" => 1,
            "VARCHAR" | "TINYTEXT" | "TEXT" | "MEDIUMTEXT" | "LONGTEXT" => 12,
            "BINARY" => -2,
            "VARBINARY" => -3,
            "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => 2004,
            _ => 1111,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(native: &str, ty: ColumnType) -> String {
        let column = Column {
            id: 1,
            name: "c".into(),
            ty,
            nullable: true,
            native: native.into(),
            charset: None,
            default: Some("CURRENT_TIMESTAMP(3)".into()),
            generated: true,
            auto_increment: false,
            comment: Some("x".into()),
        };
        serde_json::to_string(&super::column(2, &column, Some("utf8mb4"))).unwrap()
    }

    #[test]
    fn columns_are_described_as_debezium_does() {
        assert_eq!(
            shape("decimal(8,3) unsigned", ColumnType::Decimal { precision: 8, scale: 3 }),
            concat!(
                r#"{"name":"c","jdbcType":3,"nativeType":null,"typeName":"DECIMAL UNSIGNED","typeExpression":"DECIMAL UNSIGNED","#,
                r#""charsetName":null,"length":8,"scale":3,"position":2,"optional":true,"autoIncremented":false,"generated":false,"#,
                r#""comment":null,"defaultValueExpression":"1970-01-01 00:00:00","enumValues":null}"#
            )
        );
        let members = vec!["x".to_owned(), "y".into(), "z".into()];
        let set = shape("set('x','y','z')", ColumnType::Set { members });
        assert!(set.contains(r#""jdbcType":1,"nativeType":null,"typeName":"SET","#), "{set}");
        assert!(set.contains(r#""charsetName":"utf8mb4","length":5,"scale":null"#), "{set}");
        assert!(set.contains(r#""enumValues":["'x'","'y'","'z'"]"#), "{set}");
    }
}
