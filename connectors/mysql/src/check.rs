//! What `caudal check` finds on a source, and what `open` refuses: the same findings.

mod grants;

use crate::client::{Client, Row, row_text};
use crate::config::{Mode, Resolved, SnapshotMode};
use crate::connection::Family;
use crate::discover::{self, Table};
use crate::heartbeat;
use crate::poll;
use crate::shape::Shape;
use caudal_core::{Check, Error, KeyKind, Result, Severity, TableId};
use grants::Grants;
pub(crate) use grants::quoted_user;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Binlogs kept for less than this are purged under a longer stop or snapshot.
const SHORT_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// All findings, of each server of the list. Changes nothing; what cannot be reached is a finding.
pub(crate) async fn check(config: &Resolved) -> Vec<Check> {
    let places = config.places();
    let mut findings = Vec::new();
    for place in &places {
        let found = check_one(&config.at(place)).await;
        let named = |mut check: Check| {
            if places.len() > 1 {
                check.subject = format!("{} ({}:{})", check.subject, place.0, place.1);
            }
            check
        };
        findings.extend(found.into_iter().map(named));
    }
    findings
}

async fn check_one(config: &Resolved) -> Vec<Check> {
    let mut client = match Client::connect(config).await {
        Ok(client) => client,
        Err(e) => return vec![finding("connection", &e)],
    };
    let mut findings = vec![Check::ok(
        "connection",
        format!("{} at {}:{}", client.version.text, config.address.host, config.address.port),
    )];
    findings.push(version(&client));
    findings.push(encryption(config, &client));
    let mut known = None;
    if config.mode == Mode::Capture {
        let found = settings(&mut client).await;
        findings.extend(found.unwrap_or_else(|e| vec![finding("settings", &e)]));
        match grants(&mut client).await {
            Ok(grants) => {
                findings.extend(privileges(&grants, &client, config));
                known = Some(grants);
            }
            Err(e) => findings.push(finding("privileges", &e)),
        }
        let found = heartbeat::findings(&mut client, config).await;
        findings.extend(found.unwrap_or_else(|e| vec![finding("heartbeat", &e)]));
        findings.extend(signals(&mut client, config).await.unwrap_or_else(|e| Some(finding("signals", &e))));
    }
    match discover::survey(&mut client, &config.selection, None).await {
        Ok(survey) => {
            if let Some(grants) = &known {
                findings.extend(privileges_on(&mut client, config, grants, &survey.tables).await);
            }
            let logged = discover::logs_cascades(&mut client).await.unwrap_or(false);
            findings.extend(tables_found(config, logged, &survey.tables));
            findings.extend(survey.refused.iter().map(|(id, e)| finding(&id.to_string(), e)));
        }
        Err(e) => findings.push(finding("tables", &e)),
    }
    findings
}

/// The table of commands: Debezium's shape.
async fn signals(client: &mut Client, config: &Resolved) -> Result<Option<Check>> {
    let Some(table) = &config.signal_table else { return Ok(None) };
    let shape = "id VARCHAR(42) PRIMARY KEY, type VARCHAR(32) NOT NULL, data VARCHAR(2048) NULL";
    let subject = format!("signal_table {table}");
    let of = (table, &["id", "type", "data"][..]);
    let missing = heartbeat::missing(client, &subject, of, (shape, "SELECT")).await?;
    Ok(Some(missing.unwrap_or_else(|| Check::ok(subject, "rows inserted there are commands"))))
}

/// What would make the capture wrong or impossible, as a fault.
///
/// # Errors
/// `Config`, with the fix.
pub(crate) async fn require(client: &mut Client, config: &Resolved) -> Result<()> {
    let mut findings = settings(client).await?;
    findings.extend(privileges(&grants(client).await?, client, config));
    match findings.into_iter().find(|f| f.severity == Severity::Error) {
        Some(found) => Err(Error::config(format!("{}: {}", found.subject, found.message))
            .field(config.field("url"))
            .hint(found.fix.unwrap_or_default())),
        None => Ok(()),
    }
}

/// Tables that the configuration names exactly must exist, unless they are not `missing`; at least one table must be selected.
///
/// # Errors
/// `Config`, naming `tables`.
pub(crate) fn named_tables(
    config: &Resolved,
    tables: &BTreeMap<TableId, Table>,
    missing: impl Fn(&TableId) -> bool,
) -> Result<()> {
    if let Some(id) = config
        .selection
        .named_tables()
        .into_iter()
        .find(|id| !tables.contains_key(id) && config.selection.selects(id) && missing(id))
    {
        return Err(Error::config(format!("the table {id} does not exist, or this user may not see it"))
            .field(config.field("tables"))
            .hint(format!("correct the name, or GRANT SELECT ON `{}`.* TO this user", id.database)));
    }
    Ok(())
}

/// Key columns may not be excluded, and filters must fit their tables.
///
/// # Errors
/// `Config`, naming `columns` or `filters`.
pub(crate) fn shapes(config: &Resolved, tables: &BTreeMap<TableId, Table>) -> Result<()> {
    for table in tables.values() {
        Shape::new(&Arc::new(table.schema.clone()), &config.selection).map_err(|e| config.own_field(e))?;
    }
    Ok(())
}

/// What the configuration says of columns, keys and rows that no table has: mostly a name that is written wrong.
fn idle_shaping(config: &Resolved, tables: &BTreeMap<TableId, Table>) -> Vec<Check> {
    let idle = |field: &str, what: String| {
        Check::warning(
            config.field(field),
            format!("`{what}` means nothing that is there"),
            "correct or remove it",
        )
    };
    let selection = &config.selection;
    let columns = selection.columns.unmatched(tables.values().map(|t| &t.schema));
    let keys = selection.keys.tables().filter(|id| !tables.contains_key(*id)).map(ToString::to_string);
    let filters = selection.filters.unmatched(tables.keys());
    let mut found: Vec<Check> = columns.into_iter().map(|p| idle("columns", p)).collect();
    found.extend(keys.map(|k| idle("keys", k)));
    found.extend(filters.into_iter().map(|f| idle("filters", f)));
    found
}

fn finding(subject: &str, error: &Error) -> Check {
    Check::error(subject, error.to_string(), error.hint_text().unwrap_or("see the message"))
}

fn version(client: &Client) -> Check {
    if client.version.supported() {
        return Check::ok("version", client.version.text.clone());
    }
    Check::warning(
        "version",
        format!("{} is older than what Caudal is tested with", client.version.text),
        "upgrade to MySQL 8.0 or MariaDB 10.11, or newer",
    )
}

fn encryption(config: &Resolved, client: &Client) -> Check {
    if client.encrypted {
        Check::ok("tls", "the connection is encrypted")
    } else {
        let local = matches!(config.address.host.as_str(), "localhost" | "127.0.0.1" | "::1");
        let message = "the connection is not encrypted";
        if local {
            Check::ok("tls", message)
        } else {
            Check::warning("tls", message, "enable TLS on the server and set tls.mode: verify-ca with its ca")
        }
    }
}

/// The server's variables.
async fn settings(client: &mut Client) -> Result<Vec<Check>> {
    let variables = variables(client).await?;
    let value = |name: &str| variables.get(name).map(String::as_str).unwrap_or_default();
    let set = |name: &str, to: &str| match client.version.family {
        Family::MySql => format!("SET PERSIST {name} = {to};"),
        Family::MariaDb => {
            format!("SET GLOBAL {name} = {to};  -- and in the [mariadb] section of the configuration")
        }
    };
    let mut found = vec![if is_on(value("log_bin")) {
        Check::ok("log_bin", "ON")
    } else {
        Check::error(
            "log_bin",
            "the server writes no binlog",
            "add `log_bin` to the server's configuration and restart it",
        )
    }];
    let wants = |name: &str, wanted: &str, why: &str| {
        if value(name).eq_ignore_ascii_case(wanted) {
            Check::ok(name, wanted)
        } else {
            Check::error(name, format!("is {}, {why}", value(name)), set(name, wanted))
        }
    };
    found.push(wants("binlog_format", "ROW", "so changes are logged as statements that tell no rows"));
    found.push(wants("binlog_row_image", "FULL", "so events tell rows in part"));
    found.push(if value("binlog_row_metadata").eq_ignore_ascii_case("FULL") {
        Check::ok("binlog_row_metadata", "FULL")
    } else {
        Check::warning(
            "binlog_row_metadata",
            "is not FULL: an ALTER while the capture is stopped cannot be followed",
            set("binlog_row_metadata", "FULL"),
        )
    });
    if client.version.family == Family::MySql {
        found.push(gtid(value("gtid_mode")));
        if !value("binlog_row_value_options").is_empty() {
            found.push(Check::warning(
                "binlog_row_value_options",
                "updates of JSON are logged in part",
                set("binlog_row_value_options", "''"),
            ));
        }
    }
    found.push(retention(&variables, client.version.family));
    Ok(found)
}

fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "ON" | "1")
}

async fn variables(client: &mut Client) -> Result<BTreeMap<String, String>> {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin','binlog_format','binlog_row_image','binlog_row_metadata',\
               'gtid_mode','binlog_expire_logs_seconds','expire_logs_days','binlog_row_value_options')";
    let rows = client.rows("read the server's settings", sql).await?;
    let pair = |r: &Row| Some((row_text(r, 0)?.to_ascii_lowercase(), row_text(r, 1)?));
    let mut variables: BTreeMap<String, String> = rows.iter().filter_map(pair).collect();
    // MySQL is going to have no other format, and then no variable.
    variables.entry("binlog_format".to_owned()).or_insert_with(|| "ROW".to_owned());
    Ok(variables)
}

fn gtid(mode: &str) -> Check {
    if mode.eq_ignore_ascii_case("ON") {
        return Check::ok("gtid_mode", "ON");
    }
    Check::warning(
        "gtid_mode",
        format!(
            "is {mode}: positions are a file and a byte, so a failover to another server cannot be followed, and each chunk of the snapshot needs a short LOCK TABLES"
        ),
        "set gtid_mode=ON and enforce_gtid_consistency=ON",
    )
}

fn retention(variables: &BTreeMap<String, String>, family: Family) -> Check {
    let number = |name: &str| variables.get(name).and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0);
    let mut seconds = number("binlog_expire_logs_seconds");
    if seconds == 0.0 {
        seconds = number("expire_logs_days") * 86_400.0;
    }
    if seconds == 0.0 {
        return Check::ok("binlog retention", "binlogs are kept until they are purged by hand");
    }
    let hours = format!("binlogs are kept for {:.0} hours", seconds / 3600.0);
    if seconds >= SHORT_RETENTION.as_secs_f64() {
        return Check::ok("binlog retention", hours);
    }
    let fix = match family {
        Family::MySql => "SET PERSIST binlog_expire_logs_seconds = 604800;",
        Family::MariaDb => "SET GLOBAL binlog_expire_logs_seconds = 604800;",
    };
    Check::warning("binlog retention", format!("{hours}: a longer stop loses the place"), fix)
}

async fn grants(client: &mut Client) -> Result<Grants> {
    let rows = client.rows("read this user's privileges", "SHOW GRANTS").await?;
    let rows: Vec<String> = rows.iter().filter_map(|r| row_text(r, 0)).collect();
    let user = client.text("ask who this is", "SELECT CURRENT_USER()").await?.unwrap_or_default();
    Ok(Grants::read(&rows, &user))
}

/// Privileges without which nothing works.
fn privileges(grants: &Grants, client: &Client, config: &Resolved) -> Vec<Check> {
    let mut found = grants.replication(client.version.family);
    found.extend(grants.any_select(config.address.database.as_deref()));
    found
}

/// Privileges on the selected tables; locks only where a snapshot takes any: on MySQL without GTIDs, and for tables without a usable key.
async fn privileges_on(
    client: &mut Client,
    config: &Resolved,
    grants: &Grants,
    tables: &BTreeMap<TableId, Table>,
) -> Vec<Check> {
    let ids: Vec<&TableId> = tables.keys().collect();
    let mut found = grants.select(&ids);
    if client.version.is_mariadb() || config.snapshot.mode == SnapshotMode::Never {
        return found;
    }
    match crate::source::gtid_mode(client).await {
        Ok(true) => {
            let keyless: Vec<&TableId> =
                tables.iter().filter(|(_, t)| t.schema.key.is_empty()).map(|(id, _)| id).collect();
            let why = "a table without a key that is never at rest for a moment is read under a short lock";
            found.extend(grants.lock(&keyless, why, false));
        }
        Ok(false) => {
            let why = "without GTIDs each chunk of the snapshot takes a short lock";
            found.extend(grants.lock(&ids, why, true));
        }
        Err(e) => found.push(finding("gtid_mode", &e)),
    }
    found
}

fn tables_found(config: &Resolved, logged: bool, tables: &BTreeMap<TableId, Table>) -> Vec<Check> {
    let mut found = Vec::new();
    if let Err(e) = named_tables(config, tables, |_| true) {
        found.push(finding("tables", &e));
    }
    if tables.is_empty() {
        found.push(Check::error(
            "tables",
            "no table is selected",
            "check the database in the url, the patterns in `tables`, and that this user has SELECT on them",
        ));
        return found;
    }
    found.push(Check::ok("tables", format!("{} selected", tables.len())));
    if let Err(e) = shapes(config, tables) {
        found.push(finding("tables", &e));
    }
    found.extend(idle_shaping(config, tables));
    if config.mode == Mode::Poll {
        found.extend(poll::findings(config, tables));
        return found;
    }
    for (id, table) in tables {
        if table.schema.key.is_empty() {
            found.push(Check::warning(
                id.to_string(),
                "has no primary key and no unique key without NULL: updates and deletes match whole rows, and it is read in one piece",
                format!("ALTER TABLE {}.{} ADD PRIMARY KEY (…);  -- or name its key in `keys`", crate::client::quoted(&id.database), crate::client::quoted(&id.table)),
            ));
        }
        found.extend(configured_key(id, table));
        found.extend(cascades(logged, id, table));
    }
    found
}

/// What a key of the configuration's means for the snapshot and for rows that are equal under it.
fn configured_key(id: &TableId, table: &Table) -> Option<Check> {
    let schema = &table.schema;
    if schema.key_kind != KeyKind::Configured {
        return None;
    }
    let columns = schema.key_columns().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    let subject = format!("{id}: key");
    if schema.key_columns().any(|c| c.nullable) {
        return Some(Check::warning(
            subject,
            format!(
                "({columns}) can hold NULL: rows whose keys are equal, NULLs too, are one row, and Postgres takes no NULL in a key"
            ),
            "make the columns NOT NULL, or filter such rows out with `filters`",
        ));
    }
    if table.key_index.is_none() {
        return Some(Check::warning(
            subject,
            format!("no index begins with ({columns}): the table is read in one piece"),
            "CREATE INDEX … on these columns, in this order",
        ));
    }
    Some(Check::ok(subject, format!("({columns}), as configured")))
}

/// Servers that log only the parent of a cascade: MariaDB, and MySQL before 9.6.
fn cascades(logged: bool, id: &TableId, table: &Table) -> Vec<Check> {
    let key = |k: &caudal_core::ForeignKey| {
        Check::ok(
            id.to_string(),
            format!(
                "its rows change with those of {} ({}: ON DELETE {}, ON UPDATE {}), which this server does not log: they are read again when that table's rows change",
                k.parent, k.name, k.on_delete, k.on_update
            ),
        )
    };
    let acts = |k: &&caudal_core::ForeignKey| discover::acts(&k.on_delete) || discover::acts(&k.on_update);
    table.schema.foreign_keys.iter().filter(|k| !logged && acts(k)).map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_retention_is_a_warning_with_a_command() {
        let variables = BTreeMap::from([("binlog_expire_logs_seconds".to_owned(), "3600".to_owned())]);
        let found = retention(&variables, Family::MySql);
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.fix.unwrap().starts_with("SET PERSIST"));
    }
}
