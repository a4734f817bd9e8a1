//! `caudal verify --repair`: what differs is mended through the log, never around it.
//!
//! 1. *The sink alone is wrong*, as the rule is: its reader is asked to apply each key's current value in the topic again, as it does with
//!    dead letters. A key that the topic knows nothing of, and that neither the source has, is deleted by the same way.
//! 2. It is compared again. What still differs is wrong in the topic: the running capture reads just these keys from the source again, which
//!    writes to the topic what differs there, deletions among them, and the sink comes by that itself.
//! 3. It is compared again, and that is what is told.
//!
//! Memory: up to [`caudal_engine::verify::MOST_TOLD`] keys.

use super::super::cli::{Cli, VerifyArguments};
use super::super::output::{Format, count};
use super::super::registry::Kafka;
use super::super::{compose, dlq, snapshot};
use super::{Outcome, one};
use crate::daemon::exit::Failure;
use caudal_control::config::{Problem, Resolved};
use caudal_core::compare::{SinkSide, SourceSide};
use caudal_core::temporal::{MICROS_PER_DAY, civil_from_days};
use caudal_core::{Batch, Cell, ColumnType, Fault, LogPosition, Phase, TableSchema};
use caudal_engine::verify::{MOST_TOLD, Report};
use caudal_kafka::{HeldTable, Log};
use caudal_proto::side::{SignalCondition, SignalData, SignalRecord};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// What was done about a table's differences.
#[derive(Debug, Default, Serialize)]
pub(super) struct Repaired {
    /// Rows that differed at first.
    differed: u64,
    /// Rows that the sink applied again from its topic.
    from_topic: u64,
    /// Rows for which the source was asked again.
    from_source: u64,
}

impl Repaired {
    pub(super) fn text(&self) -> String {
        format!(
            " (of {} that differed {} were applied again from the topic, {} asked for again at the source)",
            count(self.differed),
            count(self.from_topic),
            count(self.from_source)
        )
    }
}

/// Mends what `outcome` tells, and compares again.
pub(super) async fn repair(
    cli: &Cli,
    arguments: &VerifyArguments,
    resolved: &Resolved<Kafka>,
    (there, here): (&mut dyn SourceSide, &mut dyn SinkSide),
    schema: &TableSchema,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let Some(report) = outcome.report.as_ref().filter(|report| !report.differences.is_empty()) else {
        return Ok(());
    };
    let log = compose::log(resolved, resolved.log.as_ref().map(|log| log.listen))?;
    let table = held(&log, resolved, &outcome.source, schema).await?;
    let mut repaired = Repaired { differed: report.count(), ..Repaired::default() };
    let keys = keys_of(report);
    let requests = requests(&log, &table, schema, &keys).await?;
    if !requests.is_empty() {
        say(cli, &format!("{}: applying {} rows again from the topic", schema.id, requests.len()));
        let letters = log.apply_again(&arguments.sink, &table, &requests).await?;
        let wait = Duration::from_secs(arguments.wait);
        let left = dlq::applied(&log, &arguments.sink, &letters, wait).await?;
        repaired.from_topic = (letters.len() - left.len()) as u64;
    }
    let source = outcome.source.clone();
    let mut again = one(cli, arguments, &source, (&mut *there, &mut *here), schema, true).await;
    if let Some(report) = again.report.as_ref().filter(|report| !report.differences.is_empty()) {
        let keys = keys_of(report);
        repaired.from_source = keys.len() as u64;
        say(cli, &format!("{}: asking the source for {} rows again", schema.id, keys.len()));
        let condition = there.condition(schema, &keys);
        reread(cli, resolved, &log, &source, (schema, condition)).await?;
        again = one(cli, arguments, &source, (there, here), schema, true).await;
    }
    *outcome = Outcome { repaired: Some(repaired), ..again };
    Ok(())
}

fn say(cli: &Cli, text: &str) {
    if cli.output == Format::Text {
        eprintln!("{text}");
    }
}

fn keys_of(report: &Report) -> Vec<Vec<String>> {
    report.differences.iter().take(MOST_TOLD).map(|told| told.key.clone()).collect()
}

async fn held(
    log: &Log,
    resolved: &Resolved<Kafka>,
    source: &str,
    schema: &TableSchema,
) -> Result<HeldTable, Failure> {
    let held =
        log.held(&[source.to_owned()]).await.map_err(|error| match error.fault() {
            Fault::Transient if resolved.log.is_some() => Failure::from(Problem::from(error).fix(
                "the log is served by the daemon: start it with `caudal run`, then repair from elsewhere",
            )),
            _ => error.into(),
        })?;
    held.into_iter().find(|table| table.schema.id == schema.id).ok_or_else(|| {
        let problem = Problem::new("TABLE", format!("the log holds no table {}", schema.id));
        problem.fix("let the capture run: see caudal status").into()
    })
}

/// The keys as their topic has them, each with its partition. A key without a record is given as JSON, if the topic's keys are.
async fn requests(
    log: &Log,
    table: &HeldTable,
    schema: &TableSchema,
    keys: &[Vec<String>],
) -> Result<Vec<(Option<i32>, Vec<u8>)>, Failure> {
    let mut found: HashMap<&[String], (i32, Vec<u8>)> = HashMap::new();
    let spans = log.spans(table).await?;
    let ends = (0..).zip(spans).map(|(partition, (_, end))| table.offset(partition, end)).collect();
    let mut reader = log.read_table("repair", table, LogPosition::default()).await?;
    reader.aim(&LogPosition { offsets: ends })?;
    let wanted: HashSet<&[String]> = keys.iter().map(Vec::as_slice).collect();
    // With no record at all nothing tells of another form.
    let mut plain = true;
    while let Some(batch) = reader.next().await? {
        for (event, raw) in batch.events.iter().zip(&batch.raw) {
            let Some(bytes) = raw.key.map(|slice| batch.bytes(slice)) else { continue };
            plain &= bytes.starts_with(b"{") && !bytes.starts_with(b"{\"schema\"");
            let row = batch.after(event).or_else(|| batch.before(event));
            let Some(texts) = row.and_then(|row| key_texts(&batch, batch.table(event), row)) else {
                continue;
            };
            if let Some(key) = wanted.get(texts.as_slice()) {
                found.insert(key, (raw.partition, bytes.to_vec()));
            }
        }
    }
    let request = |key: &Vec<String>| match found.remove(key.as_slice()) {
        Some((partition, bytes)) => Some((Some(partition), bytes)),
        None => json_key(schema, key).filter(|_| plain).map(|bytes| (None, bytes)),
    };
    Ok(keys.iter().filter_map(request).collect())
}

/// A row's key as the sink writes it; none for types of which that is not known here.
fn key_texts(batch: &Batch, schema: &TableSchema, row: &[Cell]) -> Option<Vec<String>> {
    let text = |column: &u32| {
        let at = *column as usize;
        cell_text(batch, *row.get(at)?, &schema.columns.get(at)?.ty)
    };
    schema.key.iter().map(text).collect()
}

fn cell_text(batch: &Batch, cell: Cell, ty: &ColumnType) -> Option<String> {
    Some(match (cell, ty) {
        (Cell::I64(v), ColumnType::Int { .. } | ColumnType::UInt { .. } | ColumnType::Year) => v.to_string(),
        (Cell::U64(v), ColumnType::UInt { .. }) => v.to_string(),
        (Cell::I64(days), ColumnType::Date) => {
            let (year, month, day) = civil_from_days(days);
            format!("{year:04}-{month:02}-{day:02}")
        }
        (Cell::I64(us), ColumnType::DateTime { .. }) => {
            let (year, month, day) = civil_from_days(us.div_euclid(MICROS_PER_DAY));
            let (seconds, fraction) = (us.rem_euclid(MICROS_PER_DAY) / 1_000_000, us.rem_euclid(1_000_000));
            let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
            let fraction = format!(".{fraction:06}");
            let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
            format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}")
        }
        (Cell::Text(slice), _) => batch.text(slice).to_owned(),
        (Cell::Decimal(slice), _) => batch.text(slice).to_owned(),
        (Cell::Bytes(slice), ColumnType::Bytes { .. }) => {
            let hex: String = batch.bytes(slice).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\\x{hex}")
        }
        _ => return None,
    })
}

/// The key as our own JSON form has it; none for types whose values that writes otherwise than the sink.
fn json_key(schema: &TableSchema, key: &[String]) -> Option<Vec<u8>> {
    let mut json = String::from("{");
    for (column, text) in schema.key_columns().zip(key) {
        let name = serde_json::to_string(&column.name).ok()?;
        let value = match column.ty {
            ColumnType::Int { .. } | ColumnType::UInt { .. } | ColumnType::Year => {
                text.parse::<i128>().ok().map(|number| number.to_string())?
            }
            ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Uuid => {
                serde_json::to_string(text).ok()?
            }
            _ => return None,
        };
        json.push_str(&format!("{}{name}:{value}", if json.len() > 1 { "," } else { "" }));
    }
    json.push('}');
    Some(json.into_bytes())
}

/// Has the capture read rows again, and waits until it has.
async fn reread(
    cli: &Cli,
    resolved: &Resolved<Kafka>,
    log: &Log,
    source: &str,
    (schema, condition): (&TableSchema, Option<String>),
) -> Result<(), Failure> {
    let collection = schema.id.to_string();
    let conditions = condition.map(|filter| SignalCondition { collection: collection.clone(), filter });
    let record = SignalRecord {
        id: uuid::Uuid::new_v4().to_string(),
        kind: "execute-snapshot".to_owned(),
        data: SignalData {
            collections: vec![collection],
            kind: Some("incremental".to_owned()),
            conditions: conditions.into_iter().collect(),
            condition: None,
            message: None,
        },
    };
    log.send_signal(source, &record).await?;
    let ended = snapshot::wait(cli, resolved, &record.id, source).await?;
    if ended.iter().all(|progress| progress.phase == Phase::Done) {
        return Ok(());
    }
    let problem = Problem::new("TABLE", format!("{} could not be read again", schema.id));
    Err(problem.fix("see caudal status").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::{BatchBuilder, Column, KeyKind, Position, TableId};

    fn schema(types: &[ColumnType]) -> TableSchema {
        let column = |(at, ty): (usize, &ColumnType)| Column {
            id: at as u32 + 1,
            name: format!("k{at}"),
            ty: ty.clone(),
            nullable: false,
            native: String::new(),
            charset: None,
            default: None,
            generated: false,
            auto_increment: false,
            comment: None,
        };
        TableSchema {
            id: TableId::new("shop", "t"),
            version: 1,
            generation: 1,
            columns: types.iter().enumerate().map(column).collect(),
            key: (0..types.len() as u32).collect(),
            key_kind: KeyKind::Primary,
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            charset: None,
            comment: None,
        }
    }

    #[test]
    fn keys_read_as_the_sink_writes_them() {
        let schema = schema(&[
            ColumnType::Int { bits: 64 },
            ColumnType::Date,
            ColumnType::DateTime { precision: 3 },
            ColumnType::Bytes { max_bytes: None, fixed: false },
        ]);
        let mut builder = BatchBuilder::default();
        let bytes = builder.copy(&[0, 255]);
        let batch = builder.build(Position::Log(LogPosition::default()), None);
        let row = [Cell::I64(-5), Cell::I64(-1), Cell::I64(1_704_067_200_500_000), Cell::Bytes(bytes)];
        let texts = key_texts(&batch, &schema, &row).unwrap();
        assert_eq!(texts, ["-5", "1969-12-31", "2024-01-01 00:00:00.5", "\\x00ff"]);
    }

    #[test]
    fn a_key_without_a_record_has_the_form_of_the_topics_own() {
        let schema = schema(&[ColumnType::UInt { bits: 64 }, ColumnType::Text { max_chars: None }]);
        let key = json_key(&schema, &["18446744073709551615".to_owned(), "a\"b".to_owned()]).unwrap();
        assert_eq!(String::from_utf8(key).unwrap(), r#"{"k0":18446744073709551615,"k1":"a\"b"}"#);
        assert!(json_key(&schema, &["1; DROP".to_owned(), String::new()]).is_none());
    }
}
