//! A sink's tables compared with their sources again and again, beside the pipelines, as slowly as configured.
//!
//! A table that is equal is *verified up to* the time that its source's clock showed when the comparison began: what was committed there
//! before was looked at. The gauge is the oldest such time of all tables, once each has one. A table that differs keeps the time at which it was
//! equal last, so the gauge stands still, and there is a warning (which becomes an alert) until it is equal again. Only the instance whose
//! pipeline runs compares. Memory: one comparison's, and a time for each table.

use super::{record, tell};
use crate::daemon::commands::Sources;
use caudal_control::config::VerifySettings;
use caudal_core::compare::{SinkSide, SourceSide};
use caudal_core::{Result, Sink, TableId, TableSchema, Warning};
use caudal_engine::StatusHandle;
use caudal_engine::shutdown::Shutdown;
use caudal_engine::status::{State, now_us};
use caudal_engine::verify::{Options, Report, table};
use caudal_kafka::Log;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};

/// How often it is looked whether the sink runs.
const LOOK: Duration = Duration::from_secs(1);
/// After a round in which a server did not answer.
const AGAIN: Duration = Duration::from_secs(30);
/// How long the sink may take to come up to the source.
const WAIT: Duration = Duration::from_secs(300);
/// Rows of a range.
const CHUNK_ROWS: u64 = 2_000;

/// What is known of a table.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Up to when it was equal, by its source's clock; 0 while that was never found.
    verified_us: i64,
    differing: u64,
}

/// What is known of all of them.
type Tables = BTreeMap<TableId, Known>;

/// Compares until the daemon stops.
pub(crate) async fn again_and_again(
    (name, sink): (String, Arc<dyn Sink>),
    sources: Sources,
    (settings, handle, log): (VerifySettings, StatusHandle, Log),
    shutdown: Shutdown,
) {
    let verifier = Verifier { name, sink, sources, settings, handle, log };
    tokio::select! {
        () = verifier.run() => {}
        () = shutdown.wait() => {}
    }
}

struct Verifier {
    name: String,
    sink: Arc<dyn Sink>,
    sources: Sources,
    settings: VerifySettings,
    handle: StatusHandle,
    log: Log,
}

impl Verifier {
    async fn run(&self) {
        let mut tables = Tables::new();
        loop {
            while self.handle.state() != State::Running {
                tokio::time::sleep(LOOK).await;
            }
            let began = Instant::now();
            let pause = match self.round(&mut tables).await {
                Ok(true) => self.settings.every.get().saturating_sub(began.elapsed()),
                Ok(false) => AGAIN.min(self.settings.every.get()),
                Err(error) => {
                    debug!(sink = self.name, %error, "tables cannot be compared now");
                    AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Compares each table once; whether all could be.
    async fn round(&self, tables: &mut Tables) -> Result<bool> {
        let mut all = true;
        let mut met = Vec::new();
        for source in self.sources.values() {
            let (Some(mut there), Some(mut here)) = (source.side().await?, self.sink.side().await?) else {
                continue;
            };
            for (schema, usable) in there.tables().await? {
                if !usable || self.handle.state() != State::Running {
                    all &= !usable;
                    continue;
                }
                met.push(schema.id.clone());
                let (began_us, at_us) = (now_us(), there.now_us().await?);
                let compared = self.one(there.as_mut(), here.as_mut(), &schema).await;
                let name = schema.id.to_string();
                let cause = compared.as_ref().err().map(ToString::to_string);
                let told = compared.as_ref().map_err(|_| cause.as_deref());
                tell(&self.log, &[record(&self.name, &name, told, began_us)]).await;
                let known = tables.entry(schema.id.clone()).or_default();
                match compared {
                    Ok(report) => {
                        if report.count() > 0 {
                            warn!(
                                sink = self.name,
                                table = name,
                                rows = report.count(),
                                "differs from its source"
                            );
                        }
                        take(known, &report, at_us);
                    }
                    Err(error) => {
                        debug!(sink = self.name, table = name, %error, "it cannot be compared now");
                        all = false;
                    }
                }
                self.show(tables);
            }
        }
        tables.retain(|id, _| met.contains(id));
        self.show(tables);
        Ok(all)
    }

    async fn one(
        &self,
        there: &mut dyn SourceSide,
        here: &mut dyn SinkSide,
        schema: &TableSchema,
    ) -> Result<Report> {
        super::opened((&mut *there, &mut *here), schema, WAIT).await?;
        let options = Options { chunk_rows: CHUNK_ROWS, rate: Some(self.settings.rate), wait: WAIT };
        table(there, here, schema, options, &mut |_| {}).await
    }

    /// Tells what is known: metrics, and warnings.
    fn show(&self, tables: &Tables) {
        let metrics = self.handle.metrics();
        metrics.verified_us.store(verified_us(tables), Relaxed);
        metrics.differing.store(tables.values().map(|known| known.differing).sum(), Relaxed);
        let warnings = warnings(&self.name, tables);
        self.handle.note(warnings);
    }
}

fn take(known: &mut Known, report: &Report, at_us: i64) {
    known.differing = report.count();
    if report.count() == 0 && report.undecided == 0 {
        known.verified_us = at_us;
    }
}

/// The oldest time; 0 while a table has none.
fn verified_us(tables: &Tables) -> i64 {
    tables.values().map(|known| known.verified_us).min().unwrap_or(0)
}

/// One for all tables: who is warned looks at them all.
fn warnings(sink: &str, tables: &Tables) -> Vec<Warning> {
    let differing: Vec<(String, u64)> = tables
        .iter()
        .filter(|(_, known)| known.differing > 0)
        .map(|(id, known)| (id.to_string(), known.differing))
        .collect();
    let Some((first, _)) = differing.first() else { return Vec::new() };
    let told: Vec<String> =
        differing.iter().take(10).map(|(table, rows)| format!("{table}: {rows} row(s)")).collect();
    vec![Warning {
        kind: "verify_differs".to_owned(),
        message: format!("differs from its source: {}", told.join(", ")),
        hint: format!("caudal verify {sink} {first} names them; with --repair they are mended"),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_verified_is_as_old_as_its_oldest_table_and_stands_still_while_one_differs() {
        let (a, b) = (TableId::new("shop", "a"), TableId::new("shop", "b"));
        let mut tables = Tables::new();
        tables.insert(a.clone(), Known { verified_us: 5, differing: 0 });
        tables.insert(b.clone(), Known::default());
        assert_eq!(verified_us(&tables), 0, "b was never looked at");
        tables.insert(b.clone(), Known { verified_us: 7, differing: 0 });
        assert_eq!((verified_us(&tables), warnings("dash", &tables).len()), (5, 0));
        tables.insert(a, Known { verified_us: 5, differing: 2 });
        tables.insert(b, Known { verified_us: 9, differing: 0 });
        let warned = warnings("dash", &tables);
        assert_eq!((verified_us(&tables), warned.len()), (5, 1));
        assert!(warned[0].message.contains("shop.a: 2") && !warned[0].message.contains("shop.b"));
        assert!(warned[0].hint.contains("caudal verify dash shop.a"));
    }
}
