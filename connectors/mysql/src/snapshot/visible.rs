//! Step 2 of a window: the chunk's connection waits until it sees all that the stream has delivered.
//!
//! * MySQL with GTIDs: `WAIT_FOR_EXECUTED_GTID_SET`. A transaction enters `gtid_executed` only once it is visible.
//! * MariaDB: a consistent snapshot knows its exact place in the log (`binlog_snapshot_file`, `binlog_snapshot_position`); it is taken anew
//!   until that place is not before the stream's. The SELECT then runs within it.
//! * MySQL without GTIDs: a lock on the table, held for no longer than it takes to get it. A transaction keeps its metadata lock until
//!   it is visible, so once the lock was granted, all that the log shows of this table is.

use crate::client::{Client, row_text};
use crate::position::{Place, file_number};
use crate::snapshot::lock::lock;
use caudal_core::{Error, Result};
use std::time::{Duration, Instant};

/// How long visibility may take: a semi-synchronous source can hold commits back for its own time-out (10 s by default).
const LIMIT: Duration = Duration::from_secs(60);

/// Waits. On MariaDB a transaction is open afterwards; [`close`] ends it.
///
/// # Errors
/// `Transient` if it takes too long; as for SQL.
pub(crate) async fn wait(client: &mut Client, delivered: &Place, table: &str) -> Result<()> {
    if client.version.is_mariadb() {
        return consistent_snapshot(client, delivered).await;
    }
    match &delivered.gtid {
        Some(set) if set.is_empty() => Ok(()),
        Some(set) => executed(client, &set.to_string()).await,
        None => barrier(client, table).await,
    }
}

/// Ends what [`wait`] opened, so that nothing on the source waits for us.
///
/// # Errors
/// As for SQL.
pub(crate) async fn close(client: &mut Client) -> Result<()> {
    if client.version.is_mariadb() {
        client.run("end the chunk's transaction", "COMMIT").await?;
    }
    Ok(())
}

async fn executed(client: &mut Client, set: &str) -> Result<()> {
    let sql = "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, ?)";
    let parameters = vec![set.into(), LIMIT.as_secs().into()];
    let rows =
        client.bound_rows("wait until the chunk's connection sees the stream", sql, parameters).await?;
    match rows.first().and_then(|r| row_text(r, 0)).as_deref() {
        Some("0") => Ok(()),
        _ => Err(too_long()),
    }
}

async fn consistent_snapshot(client: &mut Client, delivered: &Place) -> Result<()> {
    let started = Instant::now();
    loop {
        let (file, pos) = snapshot_place(client).await?;
        if (file_number(&file), pos) >= (file_number(&delivered.file), delivered.pos) {
            return Ok(());
        }
        client.run("end the snapshot", "ROLLBACK").await?;
        if started.elapsed() > LIMIT {
            return Err(too_long());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Starts a consistent snapshot and gives its exact place in the log.
async fn snapshot_place(client: &mut Client) -> Result<(String, u64)> {
    client.run("start a consistent snapshot", "START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    current_place(client).await
}

/// The exact place of the consistent snapshot that this connection is in. MariaDB.
///
/// # Errors
/// As for SQL.
pub(crate) async fn current_place(client: &mut Client) -> Result<(String, u64)> {
    let rows = client.rows("ask for the snapshot's place", "SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
    let value = |name: &str| {
        rows.iter()
            .find(|r| row_text(r, 0).is_some_and(|n| n.eq_ignore_ascii_case(name)))
            .and_then(|r| row_text(r, 1))
    };
    let file = value("binlog_snapshot_file").unwrap_or_default();
    let pos = value("binlog_snapshot_position").and_then(|p| p.parse().ok()).unwrap_or(0);
    Ok((file, pos))
}

async fn barrier(client: &mut Client, table: &str) -> Result<()> {
    lock(client, table).await.map_err(|e| {
        e.hint("without GTIDs a chunk needs the privilege LOCK TABLES for a moment: grant it, or set gtid_mode=ON")
    })?;
    client.run("unlock the table", "UNLOCK TABLES").await
}

fn too_long() -> Error {
    Error::transient(format!("wait until the chunk's connection sees the stream: not within {LIMIT:?}")).hint(
        "a commit that the log already shows is not visible yet: a semi-synchronous replica that does not answer can be the cause",
    )
}
