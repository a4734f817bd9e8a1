//! Polling, for an account without replication rights: SELECTs only, through the poll engine (`caudal_poll`), with the topics and the
//! envelope of a capture.
//!
//! A page is one SELECT in the order of the window's column and the key, so that its last row's values are where the next one begins, and
//! rows that change meanwhile move to its end. Each page is a transaction of its own. Values come by the binary protocol and
//! become cells as the snapshot's do, so a source that is captured later gives the same cells.

pub(crate) mod config;
mod session;

pub use config::{PollConfig, PollMode, TablePoll};

use crate::check;
use crate::client::Client;
use crate::config::Resolved;
use crate::discover;
use async_trait::async_trait;
use caudal_core::{Check, Error, Position, Reader, Result, TableId, Written};
use caudal_poll::{Desk, Job, PollReader, Polled, Session, Start};
use session::MySqlSession;
use std::sync::Arc;

/// Opens a reader that polls.
///
/// # Errors
/// `Config`, naming the field, if a table cannot be polled as configured; as for SQL.
pub(crate) async fn open(
    config: &Arc<Resolved>,
    (written, desk): (Option<Arc<dyn Written>>, &Arc<Desk>),
    from: Option<Position>,
) -> Result<Box<dyn Reader>> {
    let mut client = Client::connect(config).await?;
    let tables = discover::tables(&mut client, &config.selection, None).await?;
    check::named_tables(config, &tables, |_| true)?;
    check::shapes(config, &tables)?;
    let jobs: Vec<Job> = tables.keys().map(|id| job(config, id)).collect::<Result<_>>()?;
    if jobs.is_empty() {
        return Err(Error::config("no table is selected").field(config.field("tables")).hint(
            "check the database in the url, the patterns in `tables`, and that this user has SELECT on them",
        ));
    }
    tracing::info!(source = config.name, server = client.version.text, tables = jobs.len(), "polling");
    let start = Start {
        name: config.name.clone(),
        systems: vec![Arc::new(System(Arc::clone(config)))],
        concurrent: 1,
        desk: Arc::clone(desk),
        clock: Arc::new(jiff::Timestamp::now),
        jobs,
        dir: config.poll_dir(),
        written,
        heartbeat: config.heartbeat,
        from,
    };
    Ok(Box::new(PollReader::open(start).await?))
}

/// How a table is polled.
///
/// # Errors
/// `Config`, naming the field, if its mode needs a column that is not named.
pub(crate) fn job(config: &Resolved, id: &TableId) -> Result<Job> {
    config.poll.job(id).map_err(|e| e.field(config.field("poll.tables")))
}

/// What `caudal check` says of the polled tables.
pub(crate) fn findings(
    config: &Resolved,
    tables: &std::collections::BTreeMap<TableId, discover::Table>,
) -> Vec<Check> {
    let one = |(id, table): (&TableId, &discover::Table)| match job(config, id) {
        Err(e) => Check::error(id.to_string(), e.to_string(), e.hint_text().unwrap_or("see the message")),
        Ok(_) if table.schema.key.is_empty() => Check::error(
            id.to_string(),
            "has no key: what changed in it cannot be told by polling",
            format!("name its key in `keys`, or exclude it: `!{}`", id.table),
        ),
        Ok(job) => Check::ok(id.to_string(), format!("polled {}, {}", job.schedule.text(), job.mode.name())),
    };
    tables.iter().map(one).collect()
}

struct System(Arc<Resolved>);

#[async_trait]
impl Polled for System {
    async fn connect(&self) -> Result<Box<dyn Session>> {
        let client = Client::connect(&self.0).await?;
        Ok(Box::new(MySqlSession::new(client, Arc::clone(&self.0))))
    }
}
