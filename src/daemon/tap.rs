//! `caudal tap`: events as they arrive in the log.

use super::cli::{Cli, TapArguments};
use super::compose;
use super::exit::Failure;
use super::output::{Format, line};
use super::registry::registry;
use super::signals::Signals;
use caudal_control::config::{self, Problem};
use caudal_core::Fault;
use caudal_kafka::{TapFrom, Tapped};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Prints until the limit is reached or a signal comes.
pub(crate) async fn tap(cli: &Cli, arguments: &TapArguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    let resolved = config::load(&cli.config, &registry())?;
    let log = compose::log(&resolved, resolved.log.as_ref().map(|log| log.listen))?;
    let from = if arguments.from_beginning { TapFrom::Beginning } else { TapFrom::Now };
    let embedded = resolved.log.is_some();
    let told = |error: caudal_core::Error| match error.fault() {
        Fault::Transient if embedded => Failure::from(
            Problem::from(error)
                .fix("the log is served by the daemon: start it with `caudal run`, then tap from elsewhere"),
        ),
        _ => error.into(),
    };
    let mut tap = log.tap(&arguments.topics, from).await.map_err(told)?;
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let record = tokio::select! {
            record = tap.next() => record.map_err(told)?,
            _ = signals.next() => break,
        };
        left -= 1;
        line(&match cli.output {
            Format::Json => as_json(&record).to_string(),
            Format::Text => as_text(&record),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(record: &Tapped) -> Value {
    json!({
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": parsed(record.key.as_deref()),
        "value": parsed(record.value.as_deref()),
    })
}

/// What is no JSON (another program's record) is shown as text.
fn parsed(bytes: Option<&[u8]>) -> Value {
    let text = |bytes| Value::String(String::from_utf8_lossy(bytes).into_owned());
    bytes.map_or(Value::Null, |bytes| serde_json::from_slice(bytes).unwrap_or_else(|_| text(bytes)))
}

/// `topic  op  key  row`: of an update the columns that changed, each with what it was and what it is.
fn as_text(record: &Tapped) -> String {
    let (key, value) = (parsed(record.key.as_deref()), parsed(record.value.as_deref()));
    let key = if key.is_null() { "-".to_owned() } else { key.to_string() };
    let op = value.get("op").and_then(Value::as_str);
    let what = match op {
        None if value.is_null() => "tombstone".to_owned(),
        None => value.to_string(),
        Some("d") => format!("d  {key}"),
        Some("t") => "t".to_owned(),
        Some("u") => format!("u  {key}  {}", changes(&value)),
        Some(op) => format!("{op}  {key}  {}", value["after"]),
    };
    let what = if value.is_null() { format!("{what}  {key}") } else { what };
    format!("{}  {what}", record.topic)
}

fn changes(value: &Value) -> String {
    let (before, after) = (value["before"].as_object(), value["after"].as_object());
    let (Some(before), Some(after)) = (before, after) else { return value["after"].to_string() };
    let changed = after.iter().filter(|(column, is)| before.get(*column) != Some(is));
    let shown = changed
        .map(|(column, is)| format!("{column}: {} -> {is}", before.get(column).unwrap_or(&Value::Null)));
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: Option<&str>) -> Tapped {
        Tapped {
            topic: "shop.shop.orders".into(),
            partition: 0,
            offset: 7,
            timestamp_ms: Some(1),
            key: Some(key.into()),
            value: value.map(Into::into),
        }
    }

    #[test]
    fn each_kind_of_event_is_one_line_for_people() {
        let key = r#"{"id":1}"#;
        for (value, expected) in [
            (
                Some(r#"{"op":"c","before":null,"after":{"id":1,"a":"x"}}"#),
                r#"c  {"id":1}  {"a":"x","id":1}"#,
            ),
            (
                Some(r#"{"op":"u","before":{"id":1,"a":"x"},"after":{"id":1,"a":"y"}}"#),
                r#"u  {"id":1}  a: "x" -> "y""#,
            ),
            (Some(r#"{"op":"u","before":null,"after":{"id":1}}"#), r#"u  {"id":1}  {"id":1}"#),
            (Some(r#"{"op":"d","before":{"id":1},"after":null}"#), r#"d  {"id":1}"#),
            (None, r#"tombstone  {"id":1}"#),
            (Some("no json"), r#""no json""#),
        ] {
            assert_eq!(as_text(&record(key, value)), format!("shop.shop.orders  {expected}"));
        }
    }

    #[test]
    fn scripts_get_key_and_value_as_json() {
        let shown = as_json(&record(r#"{"id":1}"#, None));
        assert_eq!((&shown["key"]["id"], &shown["value"]), (&json!(1), &Value::Null));
    }
}
