//! What `caudal check` says: each table is described by a dry run, which costs nothing and tells what a run would read.

use crate::config::{Resolved, Table};
use crate::session::TableSession;
use caudal_core::{Check, Error, Result};
use caudal_poll::{Look, Mode, Window};
use jiff::Timestamp;
use std::sync::Arc;

pub(crate) async fn check(config: &Arc<Resolved>) -> Vec<Check> {
    let mut findings = Vec::new();
    for table in &config.tables {
        let subject = table.id.to_string();
        findings.push(match look(config, table).await {
            Ok(says) => Check::ok(subject, says),
            Err(e) => Check::error(subject, e.to_string(), e.hint_text().unwrap_or("see the message")),
        });
    }
    findings
}

async fn look(config: &Arc<Resolved>, table: &Arc<Table>) -> Result<String, Error> {
    let window = match &table.mode {
        Mode::FullRefresh | Mode::Force => Window::All,
        Mode::Incremental { column, overlap } => Window::Since { column, watermark: None, overlap: *overlap },
        Mode::SlidingWindow { column, lookback } => Window::Lookback { column, period: *lookback },
    };
    let session = TableSession::new(config, table, &Arc::default());
    let look = Look { table: &table.id, known: None, window, planned: Timestamp::now() };
    let (schema, bytes) = session.describe(&look).await?;
    config.prices.allow(table, bytes)?;
    let price =
        config.prices.estimated(bytes).map_or_else(String::new, |price| format!(", about {price:.4}"));
    let first = if matches!(table.mode, Mode::Incremental { .. }) { "the first run" } else { "a run" };
    Ok(format!(
        "{} columns, {}, polled {}; {first} reads {bytes} bytes{price}",
        schema.columns.len(),
        table.mode.name(),
        table.schedule.text()
    ))
}
