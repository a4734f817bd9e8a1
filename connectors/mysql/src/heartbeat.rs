//! A row of ours in the source, written each heartbeat: it comes back through the log, the topics and the sinks, so whoever reads it at the end sees how
//! old everything there is, and positions move where nothing else does.
//!
//! The table is the operator's: [`findings`] says how to make it and what to grant. A beat that cannot be written (a server that became
//! read-only, say) never stops the capture: it is told once, and tried again.

use crate::client::{Client, quoted, row_text};
use crate::config::Resolved;
use caudal_core::{Check, Error, Result, TableId};

/// The table's shape.
const COLUMNS: &str = "id VARCHAR(64) PRIMARY KEY, ts TIMESTAMP(6) NOT NULL";

/// Reads `database.table`; `database` is the url's.
///
/// # Errors
/// `Config` if it names no table.
pub(crate) fn table(text: &str, database: Option<&str>) -> Result<TableId> {
    let (database, table) = match text.split_once('.') {
        Some((database, table)) => (Some(database), table),
        None => (database, text),
    };
    match database {
        Some(database) if !database.is_empty() && !table.is_empty() && !table.contains('.') => {
            Ok(TableId::new(database, table))
        }
        _ => Err(Error::config(format!("`{text}` is no table"))
            .hint("write it like `heartbeat: {table: caudal.heartbeat}`")),
    }
}

fn name(table: &TableId) -> String {
    format!("{}.{}", quoted(&table.database), quoted(&table.table))
}

/// Writes the row of this source.
///
/// # Errors
/// As for SQL.
pub(crate) async fn beat(client: &mut Client, table: &TableId, source: &str) -> Result<()> {
    let sql = format!(
        "INSERT INTO {} (id, ts) VALUES (?, NOW(6)) ON DUPLICATE KEY UPDATE ts = NOW(6)",
        name(table)
    );
    client.bound_rows("write the heartbeat's row", &sql, vec![source.into()]).await.map(drop)
}

/// What `caudal check` says of the table: without writing to it.
///
/// # Errors
/// As for SQL.
pub(crate) async fn findings(client: &mut Client, config: &Resolved) -> Result<Vec<Check>> {
    let Some(table) = &config.heartbeat_table else { return Ok(Vec::new()) };
    let subject = format!("heartbeat {table}");
    let grant = "SELECT, INSERT, UPDATE";
    if let Some(missing) = missing(client, &subject, (table, &["id", "ts"]), (COLUMNS, grant)).await? {
        return Ok(vec![missing]);
    }
    let grants = client.rows("read this user's privileges", "SHOW GRANTS").await?;
    let grants: Vec<String> = grants.iter().filter_map(|r| row_text(r, 0)).collect();
    let missing: Vec<&str> =
        ["INSERT", "UPDATE"].into_iter().filter(|p| !grants.iter().any(|g| covers(g, p, table))).collect();
    if missing.is_empty() {
        return Ok(vec![Check::ok(subject, "a row is written each heartbeat")]);
    }
    let says = format!("this user may not write it: no {}", missing.join(", "));
    Ok(vec![Check::error(subject, says, granting(client, grant, table).await?)])
}

async fn granting(client: &mut Client, privileges: &str, table: &TableId) -> Result<String> {
    let user = client.text("ask who this is", "SELECT CURRENT_USER()").await?.unwrap_or_default();
    Ok(format!("GRANT {privileges} ON {} TO {};", name(table), crate::check::quoted_user(&user)))
}

/// What is wrong with a table of the operator's that must have these columns (in lower case), and the statements that make it and
/// grant what is needed of it.
///
/// # Errors
/// As for SQL.
pub(crate) async fn missing(
    client: &mut Client,
    subject: &str,
    (table, columns): (&TableId, &[&str]),
    (shape, privileges): (&str, &str),
) -> Result<Option<Check>> {
    let sql =
        "SELECT LOWER(COLUMN_NAME) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
    let parameters = vec![table.database.as_str().into(), table.table.as_str().into()];
    let found = client.bound_rows("look at a table of the operator", sql, parameters).await?;
    let found: Vec<String> = found.iter().filter_map(|r| row_text(r, 0)).collect();
    if columns.iter().all(|column| found.iter().any(|found| found == column)) {
        return Ok(None);
    }
    let create = format!(
        "CREATE DATABASE IF NOT EXISTS {};\nCREATE TABLE {} ({shape});\n{}",
        quoted(&table.database),
        name(table),
        granting(client, privileges, table).await?
    );
    let says = match found.is_empty() {
        true => "does not exist, or this user may not see it".to_owned(),
        false => format!("has not the columns `{}`", columns.join("`, `")),
    };
    Ok(Some(Check::error(subject, says, create)))
}

/// Whether a line of SHOW GRANTS gives a privilege on the table.
fn covers(grant: &str, privilege: &str, table: &TableId) -> bool {
    let Some((privileges, rest)) = grant.strip_prefix("GRANT ").and_then(|g| g.split_once(" ON ")) else {
        return false;
    };
    let Some((place, _)) = rest.split_once(" TO ") else { return false };
    let has =
        privileges.split(',').map(str::trim).any(|p| p == privilege || p == "ALL PRIVILEGES" || p == "ALL");
    let plain = place.replace('`', "");
    // Patterns of databases stand in grants with `\_` and `%`.
    let (database, of) = plain.split_once('.').unwrap_or((&plain, "*"));
    let in_database = database == "*" || database.replace('\\', "") == table.database;
    has && in_database && (of == "*" || of == table.table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_cover_a_table_by_name_by_database_or_for_all() {
        let table = TableId::new("caudal_1", "heartbeat");
        for yes in [
            "GRANT SELECT, INSERT, UPDATE ON `caudal_1`.`heartbeat` TO `c`@`%`",
            "GRANT ALL PRIVILEGES ON `caudal\\_1`.* TO `c`@`%`",
            "GRANT INSERT ON *.* TO `c`@`%` WITH GRANT OPTION",
        ] {
            assert!(covers(yes, "INSERT", &table), "{yes}");
        }
        for no in [
            "GRANT SELECT ON *.* TO `c`@`%`",
            "GRANT INSERT ON `caudal_1`.`x` TO `c`",
            "GRANT `r` TO `c`@`%`",
        ] {
            assert!(!covers(no, "INSERT", &table), "{no}");
        }
    }

    #[test]
    fn a_heartbeats_table_needs_a_database() {
        assert_eq!(table("a.b", None).unwrap(), TableId::new("a", "b"));
        assert_eq!(table("b", Some("a")).unwrap(), TableId::new("a", "b"));
        assert!(table("b", None).is_err() && table("a.b.c", None).is_err() && table(".b", None).is_err());
    }
}
