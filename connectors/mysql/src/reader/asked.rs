//! Commands that are rows of a table in the source: Debezium's `signal.data.collection`.
//!
//! A row that is inserted there is a command: its columns `id`, `type` and `data`. It is taken when its transaction ends. Why none is lost or
//! taken twice: what it asks for becomes notes, which are stored together with the first position behind that transaction; until then a
//! restart reads the transaction again, its rows that were delivered before included. Rows that were there before the source was first read
//! are no commands, nor are updates and deletes.
//!
//! Memory: the commands of one transaction, at most [`MOST`].

use super::MySqlReader;
use crate::binlog::{RowDecoder, Rows, RowsOp};
use caudal_core::{BatchBuilder, Cell, Result, Signal, TableSchema};
use caudal_proto::side::SignalRecord;
use serde_json::json;
use std::sync::Arc;

/// Commands of one transaction; those behind are not taken, and that is said.
const MOST: usize = 1_000;

/// Rows as they were inserted: id, type, data.
pub(crate) type Row = [Option<String>; 3];

impl MySqlReader {
    /// Notes commands among the rows of an event.
    ///
    /// # Errors
    /// `Data` if the rows cannot be read.
    pub(super) fn asked_rows(&mut self, rows: &Rows, schema: &Arc<TableSchema>) -> Result<()> {
        if self.config.signal_table.as_ref() != Some(&schema.id) || rows.op != RowsOp::Insert {
            return Ok(());
        }
        let Some(columns) = columns(schema) else {
            tracing::warn!(
                source = self.config.name,
                table = %schema.id,
                "a command is not taken: the table has not the columns `id`, `type` and `data`"
            );
            return Ok(());
        };
        let Some(tx) = &mut self.tx else { return Ok(()) };
        let (mut builder, mut decoder) = (BatchBuilder::default(), RowDecoder::default());
        let asked = &mut tx.asked;
        let mut left_out = false;
        decoder.decode(rows, schema, &mut builder, |out, images| {
            let row = &out.cells[images.after as usize..][..schema.width()];
            let text =
                |i: usize| row[i].slice().map(|at| String::from_utf8_lossy(out.bytes(at)).into_owned());
            let number = |i: usize| match row[i] {
                Cell::I64(n) => Some(n.to_string()),
                Cell::U64(n) => Some(n.to_string()),
                _ => None,
            };
            match asked.len() < MOST {
                true => asked.push(columns.map(|i| text(i).or_else(|| number(i)))),
                false => left_out = true,
            }
            Ok(())
        })?;
        if left_out {
            tracing::warn!(
                source = self.config.name,
                "more than {MOST} commands in one transaction: the others are not taken"
            );
        }
        Ok(())
    }

    /// The transaction of commands ends.
    pub(super) fn asked_end(&mut self, asked: Vec<Row>) {
        for row in asked {
            let at = format!("{}:{}", self.place.file, self.place.pos);
            match read(row) {
                Ok(Asked::Act(signal)) => {
                    tracing::info!(source = self.config.name, id = signal.id, "a command of the source");
                    self.snapshot.act(&signal, &self.timeline);
                }
                Ok(Asked::Say(text)) => {
                    tracing::info!(source = self.config.name, "{}", text.replace("{}", &at))
                }
                Err(why) => tracing::warn!(
                    source = self.config.name,
                    at,
                    "a command of the source is not taken: {why}"
                ),
            }
        }
    }
}

/// Where `id`, `type` and `data` are.
fn columns(schema: &TableSchema) -> Option<[usize; 3]> {
    let place = |name: &str| schema.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
    Some([place("id")?, place("type")?, place("data")?])
}

/// What a row says.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Act(Signal),
    Say(String),
}

fn read([id, kind, data]: Row) -> std::result::Result<Asked, &'static str> {
    // Types are written in any case.
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let record = json!({ "id": id.unwrap_or_default(), "type": kind, "data": data });
    let record: SignalRecord =
        serde_json::from_value(record).map_err(|_| "its data is not JSON of a signal")?;
    if kind == "log" {
        return record.data.message.map(Asked::Say).ok_or("it has no message");
    }
    record.signal(0).map(Asked::Act).ok_or("its type is not known")
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::Action;

    fn row(kind: &str, data: Option<&str>) -> Row {
        [Some("1".into()), Some(kind.into()), data.map(str::to_owned)]
    }

    #[test]
    fn rows_say_what_debeziums_signals_say() {
        let act = |row| match read(row) {
            Ok(Asked::Act(signal)) => signal.action,
            other => panic!("{other:?}"),
        };
        let tables = vec!["shop.orders".to_owned()];
        assert_eq!(
            act(row(
                "EXECUTE-SNAPSHOT",
                Some(r#"{"data-collections":["shop.orders"],"type":"incremental"}"#)
            )),
            Action::Reread { tables: tables.clone(), conditions: Vec::new() }
        );
        assert_eq!(
            act(row("stop-snapshot", Some(r#"{"data-collections":["shop.orders"]}"#))),
            Action::Stop { tables }
        );
        assert_eq!(act(row("pause-snapshot", None)), Action::Pause);
        assert_eq!(act(row("resume-snapshot", Some(""))), Action::Resume);
        assert_eq!(read(row("log", Some(r#"{"message":"at {}"}"#))), Ok(Asked::Say("at {}".into())));
        for (kind, data) in [("execute-snapshot", Some("{")), ("snapshot-window-open", None), ("log", None)] {
            assert!(read(row(kind, data)).is_err(), "{kind}");
        }
    }
}
