//! Tables that are read in one piece: those without a key, and those whose key cannot be used to read by chunks.
//!
//! Without a key a row cannot be told apart from an event's, so a window does not work. Instead the piece has an *exact* place P in the
//! log, and the table's events are held back: those up to P are in the piece and are dropped, those behind it follow the piece.
//! Nothing is lost, since P is taken only when the connection sees all that the stream had delivered (and dropped)
//! by then.
//!
//! How P is exact: MariaDB's consistent snapshot tells it. On MySQL a snapshot is taken between two readings of `gtid_executed` that are
//! equal. All of the first is visible. The second alone would not do: a commit is visible shortly before it enters `gtid_executed`. Until
//! then its thread owns its GTID, and passes it on in one step, so what is visible is in `gtid_owned` or in a `gtid_executed` read after that:
//! the snapshot counts only if nothing was owned. Where that does not succeed, and without GTIDs, a lock ([`crate::snapshot::lock`]) holds the table while
//! the snapshot is taken: a transaction keeps its metadata lock until it is in `gtid_executed`.
//!
//! The piece's transaction is open as long as the piece is read, at the speed of the disk: changes of such a table's definition wait
//! for that long. Rows are spooled, so that nothing downstream prolongs it.

use crate::binlog::Begin;
use crate::client::Client;
use crate::config::Resolved;
use crate::connection::results::Failure;
use crate::gtid::{Gtid, GtidSet};
use crate::position::{Place, Resend, file_number};
use crate::reader::clock::log_end;
use crate::snapshot::chunk::{is_held, limits};
use crate::snapshot::lock::lock;
use crate::snapshot::plan::Plan;
use crate::snapshot::spool::{Spool, Writer};
use crate::snapshot::visible;
use caudal_core::{Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long equal readings of `gtid_executed`, with no commit under way, are tried for before the table is locked.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bound on reading one table.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// A place that a piece is exact at: a GTID set on MySQL, else file and position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exact {
    pub(crate) gtid: Option<GtidSet>,
    pub(crate) file: String,
    pub(crate) pos: u64,
}

impl Exact {
    /// Whether a transaction that begins at this place of the log lies before.
    pub(crate) fn holds(&self, begin: &Begin, file: &str, pos: u64) -> bool {
        match (&self.gtid, &begin.gtid) {
            (Some(set), Some(gtid @ Gtid::MySql(_))) => set.contains(gtid),
            _ => (file_number(file), pos) < (file_number(&self.file), self.pos),
        }
    }

    /// Whether everything before it was delivered.
    pub(crate) fn passed(&self, place: &Place) -> bool {
        match (&self.gtid, &place.gtid) {
            (Some(exact), Some(delivered)) => delivered.covers(exact),
            _ => place.reaches(&self.file, self.pos),
        }
    }

    /// As a note stores it.
    pub(crate) fn stored(&self) -> Resend {
        Resend { gtid: self.gtid.as_ref().map(ToString::to_string), file: self.file.clone(), pos: self.pos }
    }

    /// From a note.
    pub(crate) fn from_stored(stored: &Resend) -> Result<Self> {
        let parse = |set: &String| GtidSet::parse(crate::connection::Family::MySql, set);
        Ok(Self {
            gtid: stored.gtid.as_ref().map(parse).transpose()?,
            file: stored.file.clone(),
            pos: stored.pos,
        })
    }
}

/// A table's rows.
pub(crate) struct Piece {
    pub(crate) plan: Arc<Plan>,
    pub(crate) at: Exact,
    pub(crate) spool: Spool,
}

/// Reads all rows of a table.
///
/// # Errors
/// As for SQL; `Config` if rows cannot be spooled.
pub(crate) async fn read(
    client: &mut Client,
    config: &Arc<Resolved>,
    plan: Arc<Plan>,
    delivered: &Place,
) -> Result<Piece> {
    limits(client, LIMIT).await?;
    let at = exact(client, config, &plan, delivered).await?;
    let spool = spool(client, config, &plan).await?;
    client.run("end the snapshot", "COMMIT").await?;
    Ok(Piece { plan, at, spool })
}

/// Takes a consistent snapshot and tells its place. Where that takes a lock, a transaction that holds the table is waited for, with pauses
/// in which others can write; meanwhile the stream goes on.
async fn exact(client: &mut Client, config: &Arc<Resolved>, plan: &Plan, delivered: &Place) -> Result<Exact> {
    let started = Instant::now();
    loop {
        match try_exact(client, config, plan, delivered).await {
            Err(held) if is_held(&held) && started.elapsed() < LIMIT => {
                tracing::info!(table = %plan.id(), "a transaction holds the table; its rows are read when that ends");
                tokio::time::sleep(PATIENCE).await;
            }
            result => return result,
        }
    }
}

async fn try_exact(
    client: &mut Client,
    config: &Arc<Resolved>,
    plan: &Plan,
    delivered: &Place,
) -> Result<Exact> {
    visible::wait(client, delivered, &plan.name()).await?;
    if client.version.is_mariadb() {
        let (file, pos) = visible::current_place(client).await?;
        return Ok(Exact { gtid: None, file, pos });
    }
    if delivered.gtid.is_some()
        && let Some(gtid) = between_equal_readings(client).await?
    {
        return Ok(Exact { gtid: Some(gtid), file: String::new(), pos: 0 });
    }
    locked(client, config, plan, delivered.gtid.is_some()).await
}

async fn between_equal_readings(client: &mut Client) -> Result<Option<GtidSet>> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let before = executed(client).await?;
        client.run("start a consistent snapshot", "START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
        // In this order: what is owned no longer is in the reading that follows.
        let owned =
            client.text("ask for the GTIDs of commits under way", "SELECT @@GLOBAL.gtid_owned").await?;
        let after = executed(client).await?;
        if before == after && owned.is_none_or(|o| o.is_empty()) {
            return Ok(Some(before));
        }
        client.run("end the snapshot", "ROLLBACK").await?;
    }
    Ok(None)
}

async fn executed(client: &mut Client) -> Result<GtidSet> {
    let text = client.text("ask for the executed GTIDs", "SELECT @@GLOBAL.gtid_executed").await?;
    GtidSet::parse(client.version.family, &text.unwrap_or_default())
}

/// Under a lock of the table, which another connection holds: starting a transaction would end one's own.
async fn locked(client: &mut Client, config: &Arc<Resolved>, plan: &Plan, gtids: bool) -> Result<Exact> {
    let mut holder = Client::connect(config).await?;
    limits(&mut holder, LIMIT).await?;
    holder.pressed = client.pressed;
    let locked = lock(&mut holder, &plan.name()).await;
    client.pressed = holder.pressed;
    locked.map_err(|e| e.hint("grant LOCK TABLES, or give the table a primary key, or set gtid_mode=ON"))?;
    let gtid = if gtids { Some(executed(client).await?) } else { None };
    let (file, pos) = log_end(client).await?;
    client.run("start a consistent snapshot", "START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    holder.run("unlock the table", "UNLOCK TABLES").await?;
    Ok(Exact { gtid, file, pos })
}

async fn spool(client: &mut Client, config: &Resolved, plan: &Plan) -> Result<Spool> {
    let dir = config.spool_dir();
    let mut writer = Writer::new(&dir, config.snapshot.chunk_bytes.bytes() as usize);
    let failed = |e: Failure| e.into_error().context(format!("read {}", plan.id()));
    let mut result = client.stream(&plan.whole(), &[]).await.map_err(failed)?;
    while let Some(row) = result.next().await.map_err(failed)? {
        if row.width() != plan.schema.width() {
            return Err(Error::transient(format!("{}: the table was changed while it was read", plan.id())));
        }
        writer.push(&row).await?;
    }
    writer.finish().await
}
