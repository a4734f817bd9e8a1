//! What `caudal check` says: each table of each store is asked for its first page.

use crate::config::{Resolved, Table};
use crate::fields;
use crate::reader::{RestSession, may_pass};
use caudal_core::{Check, Error, Result};
use caudal_poll::{Look, Mode, Session, Window};
use jiff::Timestamp;
use std::sync::Arc;

/// Stores that are asked; more would take too long.
const STORES: usize = 32;

pub(crate) async fn check(config: &Arc<Resolved>) -> Vec<Check> {
    let mut findings = Vec::new();
    for at in 0..config.places.len().min(STORES) {
        let store = config.stores.as_ref().map(|stores| stores.stores[at].id.as_str());
        let mut session = RestSession::new(config, at);
        for table in &config.tables {
            let subject = store.map_or(table.id.to_string(), |store| format!("{} of {store}", table.id));
            let looked = look(&mut session, table).await;
            findings.push(match looked {
                Ok(columns) => Check::ok(
                    subject,
                    format!("{columns} columns, {}, polled {}", table.mode.name(), table.schedule.text()),
                ),
                Err(e) => failed(subject, &e, config.places.len() > 1),
            });
        }
    }
    findings
}

async fn look(session: &mut RestSession, table: &Table) -> Result<usize> {
    let window = match &table.mode {
        Mode::FullRefresh | Mode::Force => Window::All,
        Mode::Incremental { column, overlap } => Window::Since { column, watermark: None, overlap: *overlap },
        Mode::SlidingWindow { column, lookback } => Window::Lookback { column, period: *lookback },
    };
    let look = Look { table: &table.id, known: None, window, planned: Timestamp::now() };
    match session.schema(&look).await {
        Ok(schema) => Ok(schema.columns.len()),
        // An endpoint without records yet.
        Err(_) if fields::shape(table, None, None).is_ok() => Ok(table.fields.len()),
        Err(e) => Err(e),
    }
}

/// One store of several that is down stops nothing.
fn failed(subject: String, error: &Error, one_of_many: bool) -> Check {
    let fix = error.hint_text().unwrap_or("see the message");
    match one_of_many && may_pass(error) {
        true => Check::warning(subject, error.to_string(), fix),
        false => Check::error(subject, error.to_string(), fix),
    }
}
