//! Whether a server can go on where another, or itself, was left: it must know all that was delivered, and still have all that was not.
//!
//! MySQL tells both as sets. MariaDB tells what it has by the last transaction of each domain *and* server (`gtid_binlog_state`): a
//! position `0-10-42` is known if server 10 got to 42 there, whatever other servers wrote since; and what it lost by the place where its oldest
//! file begins. What these cannot decide (a server set up from a backup) the server decides when the dump begins.

use crate::client::{Client, row_text};
use crate::gtid::{GtidSet, MariaDbGtid, MariaDbGtids};
use crate::position::{Place, file_number};
use caudal_core::{Error, Result};

const UNKNOWN_HINT: &str = "it has another history (it was promoted without them, restored from a backup, or is another server): point the url at a server that has them, or give the source another name to start anew";
const MISSING_HINT: &str = "point the url at a server that still has them, or start the source anew under another name so that its tables are read again; to prevent it, raise binlog_expire_logs_seconds";

/// Refuses a server that cannot go on from `place`.
///
/// # Errors
/// `Config`, naming what is not known or not there any more.
pub(super) async fn require(sql: &mut Client, place: &Place) -> Result<()> {
    match &place.gtid {
        Some(set @ GtidSet::MySql(_)) => of_mysql(sql, set).await,
        Some(GtidSet::MariaDb(set)) => of_mariadb(sql, set).await,
        None => file(sql, place).await,
    }
}

async fn of_mysql(sql: &mut Client, delivered: &GtidSet) -> Result<()> {
    let family = delivered.family();
    let set = |text: Option<String>| GtidSet::parse(family, &text.unwrap_or_default());
    let executed = set(sql.text("ask for the executed GTIDs", "SELECT @@GLOBAL.gtid_executed").await?)?;
    if !executed.covers(delivered) {
        let mut missing = delivered.clone();
        missing.subtract(&executed)?;
        return Err(unknown(&missing.to_string()));
    }
    let purged = set(sql.text("ask for the purged GTIDs", "SELECT @@GLOBAL.gtid_purged").await?)?;
    if !delivered.covers(&purged) {
        let mut missing = purged;
        missing.subtract(delivered)?;
        return Err(gone(&missing.to_string()));
    }
    Ok(())
}

async fn of_mariadb(sql: &mut Client, delivered: &MariaDbGtids) -> Result<()> {
    let state = sql.text("ask for the log's GTIDs", "SELECT @@GLOBAL.gtid_binlog_state").await?;
    let state = state.unwrap_or_default();
    let state = state.split(',').filter(|g| !g.trim().is_empty()).map(str::parse);
    let state: Vec<MariaDbGtid> = state.collect::<Result<_>>()?;
    let missing: Vec<String> = delivered.iter().filter_map(|g| not_known(&state, g)).collect();
    if !missing.is_empty() {
        return Err(unknown(&missing.join(", ")));
    }
    let Some(oldest) = oldest_file(sql).await? else { return Ok(()) };
    let parameters = vec![oldest.into(), 4u64.into()];
    let rows =
        sql.bound_rows("ask where the oldest log begins", "SELECT BINLOG_GTID_POS(?, ?)", parameters).await?;
    let before = rows.first().and_then(|r| row_text(r, 0)).unwrap_or_default();
    let GtidSet::MariaDb(before) = GtidSet::parse(crate::connection::Family::MariaDb, &before)? else {
        return Ok(());
    };
    let missing: Vec<String> = before.iter().filter_map(|g| not_there(delivered, g)).collect();
    if missing.is_empty() { Ok(()) } else { Err(gone(&missing.join(", "))) }
}

/// What of a delivered domain the server never had.
fn not_known(state: &[MariaDbGtid], delivered: MariaDbGtid) -> Option<String> {
    let same = |g: &&MariaDbGtid| g.domain == delivered.domain && g.server == delivered.server;
    let last = state.iter().find(same)?;
    (last.sequence < delivered.sequence).then(|| match last.sequence + 1 {
        first if first == delivered.sequence => delivered.to_string(),
        first => format!("{}-{}-{first} to {delivered}", delivered.domain, delivered.server),
    })
}

/// What of a domain was purged before it was delivered; `last` is the last transaction before the oldest file.
fn not_there(delivered: &MariaDbGtids, last: MariaDbGtid) -> Option<String> {
    if delivered.contains(&last) {
        return None;
    }
    let first = delivered.last(last.domain).map_or(1, |g| g.sequence + 1);
    let domain = last.domain;
    Some(if first == last.sequence {
        last.to_string()
    } else {
        format!("domain {domain}: {first} to {}", last.sequence)
    })
}

/// Without GTIDs: the file must be there.
async fn file(sql: &mut Client, place: &Place) -> Result<()> {
    match oldest_file(sql).await? {
        Some(oldest) if file_number(&oldest) > file_number(&place.file) => Err(Error::config(format!(
            "the server's binlogs begin with {oldest}: {} at {}, from where changes were not delivered yet, is purged",
            place.file, place.pos
        ))
        .hint(MISSING_HINT)),
        _ => Ok(()),
    }
}

async fn oldest_file(sql: &mut Client) -> Result<Option<String>> {
    let files = sql.rows("list binlogs", "SHOW BINARY LOGS").await?;
    Ok(files.first().and_then(|r| row_text(r, 0)))
}

fn unknown(what: &str) -> Error {
    Error::config(format!("the server does not know transactions that were delivered before: {what}"))
        .hint(UNKNOWN_HINT)
}

fn gone(what: &str) -> Error {
    Error::config(format!(
        "the server's binlogs no longer hold transactions that were not delivered yet: {what}"
    ))
    .hint(MISSING_HINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gtid(text: &str) -> MariaDbGtid {
        text.parse().unwrap()
    }

    #[test]
    fn a_server_that_stopped_short_of_what_was_delivered_is_told_by_range() {
        let state = ["0-10-40", "0-20-45", "1-10-7"].map(gtid);
        assert_eq!(not_known(&state, gtid("0-10-40")), None);
        assert_eq!(not_known(&state, gtid("0-20-44")), None);
        assert_eq!(not_known(&state, gtid("0-10-42")).unwrap(), "0-10-41 to 0-10-42");
        assert_eq!(not_known(&state, gtid("1-10-8")).unwrap(), "1-10-8");
        // Never seen there: the server decides.
        assert_eq!(not_known(&state, gtid("5-1-1")), None);
    }

    #[test]
    fn purged_transactions_are_told_by_range() {
        let delivered: MariaDbGtids = "0-10-40,1-10-7".parse().unwrap();
        assert_eq!(not_there(&delivered, gtid("0-20-40")), None);
        assert_eq!(not_there(&delivered, gtid("0-20-45")).unwrap(), "domain 0: 41 to 45");
        assert_eq!(not_there(&delivered, gtid("1-10-8")).unwrap(), "1-10-8");
        assert_eq!(not_there(&delivered, gtid("2-10-3")).unwrap(), "domain 2: 1 to 3");
    }
}
