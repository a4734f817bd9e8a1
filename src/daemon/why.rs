//! `caudal why`: one row's way, from the source's log to the sinks.
//!
//! The topic is read from its first record to where it ends now, and what has the key is told: the log is the only witness that saw all of
//! it. A record that a sink has passed is applied there, or lies among its dead letters. Memory: a batch, and what is told.

use super::cli::{Cli, WhyArguments};
use super::compose;
use super::exit::Failure;
use super::output::{Format, line};
use super::registry::registry;
use super::verify::is_meant;
use caudal_control::config::{self, Problem, SinkEntry};
use caudal_core::compare::Trace;
use caudal_core::{Batch, EventHead, Fault, LogPosition, Raw};
use caudal_kafka::{HeldTable, Log};
use serde::Serialize;
use serde_json::Value;
use std::process::ExitCode;

/// Changes that are told: the last ones.
const TOLD: usize = 200;

/// A change of the row.
#[derive(Debug, Serialize)]
struct Change {
    op: char,
    /// When the source committed it (or it was read), UTC.
    committed: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gtid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pos: u64,
    #[serde(skip_serializing_if = "is_zero")]
    server_id: u64,
    topic: String,
    partition: i32,
    offset: i64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What became of it in a sink.
#[derive(Debug, Serialize)]
struct Arrived {
    sink: String,
    /// The offset of the last of the changes that is applied there, or was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_to: Option<i64>,
    /// Whether that is the last change.
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<Trace>,
    /// The dead letters of this key.
    dead_letters: Vec<DeadLetter>,
}

#[derive(Debug, Serialize)]
struct DeadLetter {
    id: String,
    cause: String,
}

/// Tells it.
pub(crate) async fn why(cli: &Cli, arguments: &WhyArguments) -> Result<ExitCode, Failure> {
    let resolved = config::load(&cli.config, &registry())?;
    let log = compose::log(&resolved, resolved.log.as_ref().map(|log| log.listen))?;
    let sources: Vec<String> = resolved.sources.iter().map(|source| source.name.clone()).collect();
    let held = log.held(&sources).await.map_err(|error| match error.fault() {
        Fault::Transient if resolved.log.is_some() => Failure::from(
            Problem::from(error)
                .fix("the log is served by the daemon: start it with `caudal run`, then ask from elsewhere"),
        ),
        _ => error.into(),
    })?;
    let names = [arguments.table.clone()];
    let mut meant = held.iter().filter(|table| is_meant(&table.schema, &names));
    let (Some(table), None) = (meant.next(), meant.next()) else {
        let all: Vec<String> = held.iter().map(|table| table.schema.id.to_string()).collect();
        let problem = Problem::new(
            "TABLE",
            format!("{} is not the name of just one table of the log", arguments.table),
        );
        return Err(problem.fix(format!("one of: {}", all.join(", "))).into());
    };
    let columns: Vec<&str> = table.schema.key_columns().map(|column| column.name.as_str()).collect();
    if columns.len() != arguments.key.len() {
        let problem =
            Problem::new("KEY", format!("the key of {} is ({})", table.schema.id, columns.join(", ")));
        return Err(problem.fix("give a value for each column, in this order").into());
    }
    let (changes, keys) = changes(&log, table, &arguments.key).await?;
    let mut arrived = Vec::new();
    for entry in resolved.sinks.iter().filter(|sink| sink.from.contains(&table.source)) {
        arrived.push(arrival(&log, entry, table, &arguments.key, (&changes, &keys)).await?);
    }
    match cli.output {
        Format::Json => {
            let table = table.schema.id.to_string();
            line(&serde_json::json!({ "table": table, "key": arguments.key, "changes": changes, "sinks": arrived }).to_string())?;
        }
        Format::Text => line(&text(&changes, &arrived))?,
    }
    Ok(if changes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The row's changes, oldest first, and the bytes of its key as the topic has them.
async fn changes(
    log: &Log,
    table: &HeldTable,
    key: &[String],
) -> Result<(Vec<Change>, Vec<Vec<u8>>), Failure> {
    let spans = log.spans(table).await?;
    let ends = (0..).zip(spans).map(|(partition, (_, end))| table.offset(partition, end)).collect();
    let mut reader = log.read_table("why", table, LogPosition::default()).await?;
    reader.aim(&LogPosition { offsets: ends })?;
    let (mut changes, mut keys) = (Vec::new(), Vec::new());
    while let Some(batch) = reader.next().await? {
        for (event, raw) in batch.events.iter().zip(&batch.raw) {
            let Some(bytes) = raw.key.map(|slice| batch.bytes(slice)) else { continue };
            if !has_key(bytes, table, key) {
                continue;
            }
            if !keys.iter().any(|known: &Vec<u8>| known == bytes) {
                keys.push(bytes.to_vec());
            }
            changes.push(change(&batch, event, raw));
            if changes.len() > TOLD * 2 {
                changes.drain(..TOLD);
            }
        }
    }
    changes.drain(..changes.len().saturating_sub(TOLD));
    Ok((changes, keys))
}

/// Whether a record's key has these values: numbers and texts are compared as they are written.
fn has_key(bytes: &[u8], table: &HeldTable, key: &[String]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return false };
    // With schemas, the key itself lies within.
    let value = value.get("payload").filter(|payload| payload.is_object()).unwrap_or(&value);
    table.schema.key_columns().zip(key).all(|(column, wanted)| match value.get(&column.name) {
        Some(Value::String(text)) => text == wanted,
        Some(other) => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == *other),
        None => false,
    })
}

fn change(batch: &Batch, event: &EventHead, raw: &Raw) -> Change {
    let transaction = batch.transactions.get(event.transaction as usize).copied().unwrap_or_default();
    let text =
        |slice: Option<caudal_core::Slice>| slice.map(|s| batch.text(s).to_owned()).filter(|t| !t.is_empty());
    let committed =
        jiff::Timestamp::from_microsecond(event.ts_us).map(|at| at.to_string()).unwrap_or_default();
    Change {
        op: event.op.letter(),
        committed,
        gtid: text(transaction.gtid),
        file: text(transaction.file),
        pos: event.pos,
        server_id: u64::from(transaction.server_id),
        topic: raw.topic.to_string(),
        partition: raw.partition,
        offset: raw.offset,
    }
}

async fn arrival(
    log: &Log,
    entry: &SinkEntry,
    table: &HeldTable,
    key: &[String],
    (changes, keys): (&[Change], &[Vec<u8>]),
) -> Result<Arrived, Failure> {
    let mut arrived = Arrived {
        sink: entry.name.clone(),
        applied_to: None,
        complete: false,
        row: None,
        dead_letters: Vec::new(),
    };
    if let Some(mut side) = entry.sink.side().await?
        && side.open(&table.schema).await?.is_some()
    {
        arrived.row = side.trace(&table.schema, key).await?;
        let passed = |change: &&Change, at: &LogPosition| {
            at.offsets.iter().any(|o| o.partition == change.partition && o.offset > change.offset)
        };
        if let Some(at) = side.stands_at(&table.topic).await? {
            arrived.applied_to = changes.iter().rev().find(|change| passed(change, &at)).map(|c| c.offset);
            arrived.complete = changes.last().is_some_and(|last| passed(&last, &at));
        }
    }
    let letters = log.letters(&entry.name).await?;
    let of_key = letters.into_iter().filter(|letter| {
        letter.topic == *table.topic && letter.key.as_ref().is_some_and(|key| keys.contains(key))
    });
    arrived.dead_letters = of_key.map(|letter| DeadLetter { id: letter.id, cause: letter.cause }).collect();
    Ok(arrived)
}

fn text(changes: &[Change], arrived: &[Arrived]) -> String {
    if changes.is_empty() {
        return "the log knows no such key".to_owned();
    }
    let mut lines: Vec<String> = changes.iter().map(way).collect();
    for one in arrived {
        let so_far = match (one.complete, one.applied_to) {
            (true, _) => "has come by all of it".to_owned(),
            (false, Some(offset)) => format!("has come by offset {offset}"),
            (false, None) => "has come by none of it yet".to_owned(),
        };
        let row = match &one.row {
            Some(Trace { transaction, committed: Some(at) }) => {
                format!("the row is of its transaction {transaction}, {at}")
            }
            Some(Trace { transaction, committed: None }) => {
                format!("the row is of its transaction {transaction}")
            }
            None => "it has no such row".to_owned(),
        };
        lines.push(format!("sink {}: {so_far}; {row}", one.sink));
        lines.extend(
            one.dead_letters.iter().map(|letter| format!("  set aside: {}: {}", letter.id, letter.cause)),
        );
    }
    lines.join("\n")
}

fn way(change: &Change) -> String {
    let place = match (&change.file, &change.gtid) {
        (Some(file), Some(gtid)) => format!("{file}:{} {gtid}", change.pos),
        (Some(file), None) => format!("{file}:{}", change.pos),
        (None, Some(gtid)) => gtid.clone(),
        (None, None) => "read".to_owned(),
    };
    let Change { op, committed, topic, partition, offset, .. } = change;
    format!("{op}  {committed}  {place}  ->  {topic} [{partition}] offset {offset}")
}
