//! A table's lock, held for a moment: how a MySQL server without GTIDs tells that all of a table that its log shows is visible.
//!
//! A read lock is enough, but a server lets every write that comes meanwhile go before it: on a table that several sessions write without a
//! pause it is never granted. A write lock goes before them. It is asked for only after the read lock was not to be had, since reads and
//! writes of the application queue behind it: for [`PRESSED`] at most, and no more than once in [`APART`] while it is not had either (a
//! long transaction holds the table then, and nothing but its end helps).

use crate::client::Client;
use crate::snapshot::chunk::is_held;
use caudal_core::{Error, Result};
use std::time::{Duration, Instant};

/// How long others wait behind the write lock while it is asked for.
const PRESSED: Duration = Duration::from_secs(1);
/// Between two questions for a write lock on one connection, if the first was in vain.
const APART: Duration = Duration::from_secs(30);

/// Locks a table until `UNLOCK TABLES`: no transaction that wrote it is between its commit and being visible then.
///
/// # Errors
/// As for SQL; the server's 1205 ([`is_held`]) if the lock is not to be had within some seconds.
pub(crate) async fn lock(client: &mut Client, table: &str) -> Result<()> {
    let waited = waiting_for(client, table, "READ").await;
    let Err(held) = waited else { return Ok(()) };
    if !is_held(&held) || client.pressed.is_some_and(|at| at.elapsed() < APART) {
        return Err(held);
    }
    let before = client.text("ask for the session's patience", "SELECT @@SESSION.lock_wait_timeout").await?;
    patience(client, &PRESSED.as_secs().to_string()).await?;
    let pressed = waiting_for(client, table, "WRITE").await;
    patience(client, &before.unwrap_or_default()).await?;
    client.pressed = pressed.as_ref().err().map(|_| Instant::now());
    // A replica that takes no writes but its source's grants none, and says so: then it is the read lock that was not to be had.
    pressed.map_err(|e| if is_held(&e) { e } else { held })
}

async fn waiting_for(client: &mut Client, table: &str, kind: &str) -> Result<()> {
    client.run("lock the table for a moment", &format!("LOCK TABLES {table} {kind}")).await
}

async fn patience(client: &mut Client, seconds: &str) -> Result<(), Error> {
    client.run("bound the wait for a lock", &format!("SET SESSION lock_wait_timeout={seconds}")).await
}
