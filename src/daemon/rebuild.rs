//! `caudal rebuild`: tables of a sink made anew from the log, beside those that are read.
//!
//! The command does the work itself, as `caudal verify` does; it says nothing to the daemon, and need not: what keeps the two
//! apart is the sink (`caudal_core::rebuild` says how), and a daemon that does not run is a sink that stands still. Of the embedded log
//! the daemon is the server, so there it must run.
//!
//! The order: a shadow of each table is brought to where the sink stands (`fill`), compared with what the topic holds (`proof`), and then, in rounds
//! that each hold up the sink for [`HOLD`] at most, brought to just there and exchanged. Memory: a batch, and what the reader
//! holds.

mod fill;
mod from;
mod proof;

use super::cli::{Cli, RebuildArguments};
use super::compose;
use super::exit::Failure;
use super::output::{Format, count, duration, line};
use super::registry::{Kafka, registry};
use super::verify::{is_meant, sink_of};
use caudal_control::config::{self, OnReject, Problem, Resolved};
use caudal_core::rebuild::{Begin, Rebuild};
use caudal_core::{Error, Fault, Result, TableId};
use caudal_kafka::{HeldTable, Log};
use fill::Shadow;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the sink's writes may wait for one attempt of the exchange.
const HOLD: Duration = Duration::from_secs(5);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(300);
/// Rows per second that an estimate reckons with: what a machine of two cores does.
const ROWS_PER_SECOND: u64 = 40_000;
/// Errors that time may mend, one after the other, before it gives up. What was done is not lost.
const FAILURES: u32 = 5;

/// What all parts of the command need.
struct Work<'a> {
    cli: &'a Cli,
    arguments: &'a RebuildArguments,
    log: Log,
    rebuild: Box<dyn Rebuild>,
    /// Whether rows that the table refuses may be left out, as the sink leaves them out.
    leave_out: bool,
}

/// Does what the arguments say.
pub(crate) async fn rebuild(cli: &Cli, arguments: &RebuildArguments) -> Result<ExitCode, Failure> {
    let resolved = config::load(&cli.config, &registry())?;
    let entry = sink_of(&resolved, &arguments.sink)?;
    let unable = || Problem::new("SINK", format!("a sink of type {} cannot be rebuilt", entry.kind));
    let rebuild = entry.sink.rebuild().await?.ok_or_else(unable)?;
    let log = compose::log(&resolved, resolved.log.as_ref().map(|log| log.listen))?;
    let tables = chosen(&log, &entry.from, arguments, &resolved).await?;
    let leave_out = entry.on_reject == OnReject::DeadLetter;
    let mut work = Work { cli, arguments, log, rebuild, leave_out };
    if arguments.discard {
        return work.discard(&tables).await;
    }
    if arguments.dry_run {
        return work.dry_run(&tables).await;
    }
    work.run(&tables).await
}

/// The tables that are meant, each of which must be in the log.
async fn chosen(
    log: &Log,
    from: &[String],
    arguments: &RebuildArguments,
    resolved: &Resolved<Kafka>,
) -> Result<Vec<HeldTable>, Failure> {
    let held =
        log.held(from).await.map_err(|error| match error.fault() {
            Fault::Transient if resolved.log.is_some() => Failure::from(Problem::from(error).fix(
                "the log is served by the daemon: start it with `caudal run`, then rebuild from elsewhere",
            )),
            _ => error.into(),
        })?;
    for name in &arguments.tables {
        let one = [name.clone()];
        match held.iter().filter(|table| is_meant(&table.schema, &one)).count() {
            1 => {}
            0 => {
                let names: Vec<String> = held.iter().map(|table| table.schema.id.to_string()).collect();
                let problem = Problem::new("TABLE", format!("the log holds no table {name} for this sink"));
                return Err(problem.fix(format!("there are: {}", names.join(", "))).into());
            }
            _ => {
                let problem = Problem::new("TABLE", format!("{name} is the name of several tables"));
                return Err(problem.fix("write database.table").into());
            }
        }
    }
    Ok(held.into_iter().filter(|table| is_meant(&table.schema, &arguments.tables)).collect())
}

impl Work<'_> {
    async fn discard(&mut self, tables: &[HeldTable]) -> Result<ExitCode, Failure> {
        let mut gone = Vec::new();
        for table in tables {
            if self.rebuild.discard(&table.schema.id).await? {
                gone.push(table.schema.id.to_string());
            }
        }
        let text = if gone.is_empty() {
            "nothing was begun".to_owned()
        } else {
            format!("given up: {}", gone.join(", "))
        };
        self.say(&json!({ "discarded": gone }), &text)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn dry_run(&mut self, tables: &[HeldTable]) -> Result<ExitCode, Failure> {
        let (mut told, mut lines, mut blocked) = (Vec::new(), Vec::new(), false);
        for table in tables {
            let outlook = self.rebuild.look(&table.schema).await?;
            let start = from::start(&self.log, table, self.arguments.from.as_deref()).await?;
            let spans = self.log.spans(table).await?;
            let first = |partition: usize, (first, _): (i64, i64)| {
                let at =
                    start.as_ref().and_then(|s| s.offsets.iter().find(|o| o.partition == partition as i32));
                at.map_or(first, |o| o.offset.max(first))
            };
            let records: u64 =
                spans.iter().enumerate().map(|(p, span)| (span.1 - first(p, *span)).max(0) as u64).sum();
            // Each record is read three times: once to be written, twice to be compared.
            let seconds = records.div_ceil(ROWS_PER_SECOND) * 2 + outlook.rows.div_ceil(ROWS_PER_SECOND * 4);
            blocked |= !outlook.obstacles.is_empty() || outlook.target.is_none();
            lines.push(self.foresee(table, &outlook, records, seconds));
            told.push(json!({
                "table": table.schema.id.to_string(), "target": outlook.target, "topic": *table.topic, "records": records,
                "rows": outlook.rows, "bytes": outlook.bytes, "seconds": seconds, "obstacles": outlook.obstacles, "keeps": outlook.keeps,
                "begun": outlook.begun, "kept_until_ms": outlook.kept_until_ms,
            }));
        }
        self.say(&json!({ "tables": told }), &lines.join("\n"))?;
        Ok(if blocked { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn foresee(
        &self,
        table: &HeldTable,
        outlook: &caudal_core::rebuild::Outlook,
        records: u64,
        seconds: u64,
    ) -> String {
        let Some(target) = &outlook.target else {
            return format!("{}: the sink has no such table yet", table.schema.id);
        };
        let mut text = format!(
            "{}: {target}, about {} rows in {} MB, from at most {} records of {}: about {}",
            table.schema.id,
            count(outlook.rows),
            count(outlook.bytes >> 20),
            count(records),
            table.topic,
            duration(Duration::from_secs(seconds.max(1))),
        );
        if outlook.begun {
            text.push_str("; a rebuild was begun: it goes on");
        }
        if outlook.keeps {
            text.push_str("\n  a compacted topic does not hold all versions: those that only the table has (ended versions, deleted rows) are kept as they are");
        }
        for obstacle in &outlook.obstacles {
            text.push_str(&format!("\n  it cannot be exchanged: {obstacle}"));
        }
        text
    }

    async fn run(&mut self, tables: &[HeldTable]) -> Result<ExitCode, Failure> {
        let begun = Instant::now();
        // What an earlier call could not check any more.
        self.rebuild.settle().await?;
        let mut shadows = Vec::new();
        for table in tables {
            shadows.push(self.filled(table).await?);
        }
        for shadow in shadows.iter_mut().filter(|_| !self.arguments.rollback) {
            shadow.kept = self.rebuild.keep(shadow.id()).await?;
            if shadow.kept > 0 {
                let kept = count(shadow.kept);
                self.tell(&format!(
                    "{}: kept {kept} rows that the topic no longer holds, as they are",
                    shadow.id()
                ));
            }
        }
        // The table before is wanted as it is, whatever was wrong with it.
        for shadow in shadows.iter().filter(|_| !self.arguments.rollback) {
            let rows = proof::prove(self, shadow).await?;
            self.tell(&format!("{}: {} rows are what the topic holds", shadow.id(), count(rows)));
        }
        self.exchange(&mut shadows).await?;
        let unchecked = self.rebuild.settle().await?;
        let told: Vec<Value> = shadows
            .iter()
            .map(|s| json!({ "table": s.id().to_string(), "events": s.events, "kept": s.kept, "refused": s.refused.len() }))
            .collect();
        let value = json!({ "exchanged": true, "seconds": begun.elapsed().as_secs(), "tables": told, "unchecked": unchecked });
        let names: Vec<String> = shadows.iter().map(|shadow| shadow.id().to_string()).collect();
        let mut text = format!("{}: exchanged after {}", names.join(", "), duration(begun.elapsed()));
        for failed in &unchecked {
            text.push_str(&format!("\n{failed}"));
        }
        self.say(&value, &text)?;
        Ok(if unchecked.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The shadow of a table, filled up to where the sink stands. What time may mend is tried again from where it got to.
    async fn filled(&mut self, table: &HeldTable) -> Result<Shadow, Failure> {
        let start = from::start(&self.log, table, self.arguments.from.as_deref()).await?;
        let begin = match (self.arguments.rollback, &start) {
            (true, _) => Begin::Kept,
            (false, Some(_)) => Begin::Copy,
            (false, None) => Begin::Empty,
        };
        if start.is_some() && table.schema.key.is_empty() {
            let problem = Problem::new(
                "--from",
                format!("{} has no key: nothing can be applied twice", table.schema.id),
            );
            return Err(problem.fix("leave --from out").into());
        }
        let made = self.rebuild.begin(&table.schema, &table.topic, begin).await?;
        if !made {
            self.tell(&format!("{}: going on with the rebuild that was begun", table.schema.id));
        }
        let mut failures = 0;
        loop {
            let mut shadow = Shadow::open(self, table, start.clone()).await?;
            match shadow.fill(self).await {
                Ok(()) => return Ok(shadow),
                Err(error) if error.fault() == Fault::Transient && failures < FAILURES => {
                    failures = if shadow.events > 0 { 0 } else { failures + 1 };
                    self.tell(&format!("{}: {error}; trying again", table.schema.id));
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Brings the shadows to just where the sink stands, and exchanges them.
    async fn exchange(&mut self, shadows: &mut [Shadow]) -> Result<()> {
        let ids: Vec<TableId> = shadows.iter().map(|shadow| shadow.id().clone()).collect();
        let until = Instant::now() + Duration::from_secs(self.arguments.wait);
        let keep = self.arguments.keep.map(|hours| Duration::from_secs(hours * 3600));
        loop {
            // Near, without holding anybody up.
            catch_up(self, shadows, None).await?;
            if self.rebuild.hold(&ids).await? {
                match catch_up(self, shadows, Some(Instant::now() + HOLD)).await {
                    Ok(true) => {
                        if self.rebuild.exchange(keep).await? {
                            return Ok(());
                        }
                    }
                    Ok(false) => self.rebuild.release().await?,
                    Err(error) => {
                        self.rebuild.release().await?;
                        return Err(error);
                    }
                }
            }
            if Instant::now() > until {
                return Err(Error::transient("others hold on to the tables all the time, or the sink does not stand still")
                    .hint("nothing was exchanged; call it again, it goes on: or look for long transactions in pg_stat_activity"));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn tell(&self, text: &str) {
        if self.cli.output == Format::Text {
            eprintln!("{text}");
        }
    }

    fn say(&self, value: &Value, text: &str) -> std::io::Result<()> {
        match self.cli.output {
            Format::Json => line(&value.to_string()),
            Format::Text => line(text),
        }
    }
}

/// Brings each shadow to where the sink stands now; whether all got there by `until`.
async fn catch_up(work: &mut Work<'_>, shadows: &mut [Shadow], until: Option<Instant>) -> Result<bool> {
    for shadow in shadows {
        if !shadow.catch_up(work, until).await? {
            return Ok(false);
        }
    }
    Ok(true)
}
