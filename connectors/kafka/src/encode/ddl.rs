//! Schema changes as Debezium's topic `<prefix>` has them.

use crate::encode::EncodeOptions;
use caudal_core::{Batch, Ddl, TableSchema};
use serde_json::{Value, json};

/// Key and value of each schema change of a batch.
pub(crate) fn records(batch: &Batch, options: &EncodeOptions) -> Vec<(Vec<u8>, Vec<u8>)> {
    let now = if batch.ddl.is_empty() { 0 } else { (options.clock)() };
    batch.ddl.iter().map(|change| record(batch, change, options, now)).collect()
}

fn record(batch: &Batch, change: &Ddl, options: &EncodeOptions, now: i64) -> (Vec<u8>, Vec<u8>) {
    let transaction = batch.transactions.get(change.transaction as usize).copied().unwrap_or_default();
    let text = |slice| batch.text(slice).to_owned();
    let tables: Vec<Value> = change
        .tables
        .iter()
        .filter_map(|id| batch.tables.iter().rev().find(|t| t.id == *id).map(|schema| table_change(schema)))
        .collect();
    let value = json!({
        "source": {
            "version": env!("CARGO_PKG_VERSION"),
            "connector": options.connector,
            "name": options.prefix,
            "ts_ms": change.ts_us.div_euclid(1_000),
            "snapshot": "false",
            "db": change.database,
            "sequence": null,
            "ts_us": change.ts_us,
            "ts_ns": change.ts_us.saturating_mul(1_000),
            "table": change.tables.iter().map(|t| t.table.as_str()).collect::<Vec<_>>().join(","),
            "server_id": transaction.server_id,
            "gtid": transaction.gtid.map(text),
            "file": transaction.file.map(text).unwrap_or_default(),
            "pos": change.pos,
            "row": 0,
            "thread": (transaction.thread != 0).then_some(transaction.thread),
            "query": null,
        },
        "ts_ms": now / 1_000,
        "databaseName": change.database,
        "schemaName": null,
        "ddl": change.statement,
        "tableChanges": tables,
    });
    let key = json!({ "databaseName": change.database });
    (key.to_string().into_bytes(), value.to_string().into_bytes())
}

fn table_change(schema: &TableSchema) -> Value {
    let columns: Vec<Value> = schema
        .columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            json!({
                "name": column.name,
                "typeName": column.native.split(['(', ' ']).next().unwrap_or_default().to_uppercase(),
                "typeExpression": column.native,
                "charsetName": column.charset,
                "position": i + 1,
                "optional": column.nullable,
                "autoIncremented": column.auto_increment,
                "generated": column.generated,
                "comment": column.comment,
                "defaultValueExpression": column.default,
            })
        })
        .collect();
    json!({
        "type": "ALTER",
        "id": format!("\"{}\".\"{}\"", schema.id.database, schema.id.table),
        "table": {
            "defaultCharsetName": schema.charset,
            "primaryKeyColumnNames": schema.key_columns().map(|c| &c.name).collect::<Vec<_>>(),
            "columns": columns,
            "comment": schema.comment,
        },
    })
}
