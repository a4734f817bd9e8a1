//! What `caudal check` says: each store is reached, logged in to and asked, and each of its tables described.

use crate::client::{number, text, values};
use crate::config::{Isolation, Resolved, Table, Way};
use crate::session::SqlSession;
use caudal_core::{Check, Error, Fault, Result};
use caudal_poll::{Look, Mode, Session, Window};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Stores that are asked; more would take too long.
const STORES: usize = 32;

const SERVER: &str = "SELECT CAST(SERVERPROPERTY('ProductVersion') AS nvarchar(40)), CAST(SERVERPROPERTY('Edition') AS nvarchar(60)), \
    CAST(d.snapshot_isolation_state AS int) FROM sys.databases AS d WHERE d.database_id = DB_ID()";

pub(crate) async fn check(config: &Arc<Resolved>) -> Vec<Check> {
    let mut findings = Vec::new();
    let several = config.places.len() > 1;
    for at in 0..config.places.len().min(STORES) {
        let place = &config.places[at];
        let store = config.stores.as_ref().map(|stores| stores.stores[at].id.as_str());
        let subject = format!("{}:{}/{}", place.host, place.port, place.database);
        let subject = store.map_or(subject.clone(), |store| format!("{store} ({subject})"));
        let mut session = match SqlSession::open(config, at).await {
            Ok(session) => session,
            Err(e) => {
                findings.push(failed(subject, &e, several));
                continue;
            }
        };
        findings.extend(server(&mut session, config.isolation, &subject, several).await);
        for table in &config.tables {
            let subject = store.map_or(table.id.to_string(), |store| format!("{} of {store}", table.id));
            findings.push(match look(&mut session, table).await {
                Ok(columns) => Check::ok(
                    subject,
                    format!("{columns} columns, {}, polled {}", way(table), table.schedule.text()),
                ),
                Err(e) => failed(subject, &e, several),
            });
        }
    }
    findings
}

fn way(table: &Table) -> &'static str {
    match table.way {
        Way::Rows(_) => table.mode.name(),
        Way::Tracking => "change_tracking",
        Way::Capture(_) => "cdc",
    }
}

async fn server(session: &mut SqlSession, isolation: Isolation, subject: &str, several: bool) -> Vec<Check> {
    let asked = async {
        let rows = session.client().await?.rows("ask for the server's version", SERVER, &[]).await?;
        Ok::<_, Error>(rows.into_iter().next().map(values).unwrap_or_default())
    };
    let row = match asked.await {
        Ok(row) => row,
        Err(e) => return vec![failed(subject.to_owned(), &e, several)],
    };
    let version = text(row.first()).unwrap_or_default();
    let edition = text(row.get(1)).unwrap_or_default();
    let mut findings =
        vec![Check::ok(subject, format!("reached, logged in; SQL Server {version}, {edition}"))];
    if isolation == Isolation::Snapshot && number(row.get(2)) != Some(1) {
        findings.push(Check::error(
            format!("isolation of {subject}"),
            "the database does not allow snapshots",
            "ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON",
        ));
    }
    findings
}

/// Describes a table, and asks for a page of no rows: that shows whether it may be read, and its changes.
async fn look(session: &mut SqlSession, table: &Table) -> Result<usize> {
    let window = match &table.mode {
        Mode::FullRefresh | Mode::Force => Window::All,
        Mode::Incremental { column, .. } => {
            Window::Since { column, watermark: None, overlap: Duration::ZERO }
        }
        Mode::SlidingWindow { column, lookback } => Window::Lookback { column, period: *lookback },
    };
    let look = Look { table: &table.id, known: None, window, planned: Timestamp::now() };
    let columns = session.schema(&look).await?.columns.len();
    session.try_window(&look).await?;
    Ok(columns)
}

/// One store of several that is down stops nothing.
fn failed(subject: String, error: &Error, one_of_many: bool) -> Check {
    let fix = error.hint_text().unwrap_or("see the message");
    match one_of_many && error.fault() == Fault::Transient {
        true => Check::warning(subject, error.to_string(), fix),
        false => Check::error(subject, error.to_string(), fix),
    }
}
