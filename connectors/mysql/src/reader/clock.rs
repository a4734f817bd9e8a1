//! "Complete up to": the source's own clock, read together with the log's end.
//!
//! First the clock is asked, then where the log ends. Whatever was committed before the first answer lies before the second, so
//! once the stream has passed that place, all up to that time is delivered. Idle sources stay fresh this way, without a
//! clock of ours.

use crate::client::{Client, row_text};
use crate::config::Resolved;
use crate::heartbeat;
use crate::position::Place;
use caudal_core::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

/// How long the answer may take: backups lock what it asks for, though not for long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A reading of the source's clock.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// Microseconds since the epoch.
    pub(crate) ts_us: i64,
    /// Where the log ended, afterwards.
    pub(crate) file: String,
    /// Position there.
    pub(crate) pos: u64,
}

/// Asks once per period.
pub(crate) struct Clock {
    config: Arc<Resolved>,
    client: Option<Client>,
    task: JoinSet<Result<(Client, Reading, bool)>>,
    /// Whether the last heartbeat's row could not be written.
    failing: bool,
    pending: Option<Reading>,
    /// The source's time, as last told.
    told: Option<i64>,
    tick: std::pin::Pin<Box<Sleep>>,
    period: Duration,
}

impl Clock {
    /// Asks for the first time at once.
    pub(crate) fn new(config: Arc<Resolved>) -> Self {
        Self {
            period: config.heartbeat,
            config,
            client: None,
            task: JoinSet::new(),
            failing: false,
            pending: None,
            told: None,
            tick: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// Waits for the next period or the answer that is under way. True: a period has begun. Cancel-safe.
    ///
    /// # Errors
    /// As for SQL.
    pub(crate) async fn next(&mut self) -> Result<bool> {
        tokio::select! {
            Some(joined) = self.task.join_next() => {
                let (client, reading, failing) = joined.map_err(|e| Error::bug("ask for the time").because(e))??;
                self.failing = failing;
                self.told = Some(reading.ts_us);
                self.pending = Some(reading);
                self.client = Some(client);
                Ok(false)
            }
            () = &mut self.tick => {
                self.tick.as_mut().reset(Instant::now() + self.period);
                if self.task.is_empty() {
                    self.ask();
                }
                Ok(true)
            }
        }
    }

    fn ask(&mut self) {
        let config = Arc::clone(&self.config);
        let (client, failing) = (self.client.take(), self.failing);
        self.task.spawn(async move {
            let ask = async {
                let mut client = match client {
                    Some(mut client) => {
                        client.revive().await?;
                        client
                    }
                    None => Client::connect(&config).await?,
                };
                let failed = match &config.heartbeat_table {
                    Some(table) => heartbeat::beat(&mut client, table, &config.name).await.err(),
                    None => None,
                };
                if let (Some(error), false) = (&failed, failing) {
                    tracing::warn!(source = config.name, error = %error, "the heartbeat's row could not be written: the capture goes on without it");
                }
                let reading = read(&mut client).await?;
                Ok((client, reading, failed.is_some()))
            };
            let late = || Error::transient(format!("the server did not tell its time within {PATIENCE:?}"));
            tokio::time::timeout(PATIENCE, ask).await.unwrap_or_else(|_| Err(late()))
        });
    }

    /// The source's time in microseconds, as it was last told.
    pub(crate) fn source_time(&self) -> Option<i64> {
        self.told
    }

    /// The reading that is due at a place of the stream, once.
    pub(crate) fn due(&mut self, place: &Place) -> Option<i64> {
        let reached = self.pending.as_ref().is_some_and(|r| place.reaches(&r.file, r.pos));
        if reached { self.pending.take().map(|r| r.ts_us) } else { None }
    }
}

/// The source's clock, then the end of its log.
///
/// # Errors
/// As for SQL; `Config` if the server writes no log.
pub(crate) async fn read(client: &mut Client) -> Result<Reading> {
    let sql = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";
    let ts = client.text("ask for the source's time", sql).await?;
    let (file, pos) = log_end(client).await?;
    Ok(Reading { ts_us: ts.and_then(|t| t.parse().ok()).unwrap_or(0), file, pos })
}

/// Where the log ends.
///
/// # Errors
/// As for SQL; `Config` if the server writes no log.
pub(crate) async fn log_end(client: &mut Client) -> Result<(String, u64)> {
    let sql = client.version.show_binlog_status();
    let row = client
        .row("ask for the log's end", sql)
        .await
        .map_err(|e| e.hint("grant REPLICATION CLIENT (MariaDB: BINLOG MONITOR) on *.* to this user"))?;
    let place = row.and_then(|r| Some((row_text(&r, 0)?, row_text(&r, 1)?.parse().ok()?)));
    place.ok_or_else(|| {
        Error::config("the server writes no binlog")
            .hint("set log_bin in the server's configuration and restart it")
    })
}
