//! What `caudal check` looks at: reachability, version, privileges, and tables that are there already.

use crate::catalog::{Relation, schema_exists};
use crate::client::{Connection, Doing, Failure};
use crate::config::{Consistency, Resolved};
use crate::quote::{ident, qualified};
use crate::state::State;
use caudal_core::{Check, Error, Result};
use std::sync::Arc;
use tokio_postgres::types::Type;

/// The oldest version that is supported, as `server_version_num` counts.
const OLDEST: i32 = 130_000;

/// Looks at everything; changes nothing.
pub(crate) async fn run(config: &Arc<Resolved>) -> Vec<Check> {
    let subject = format!("sink {}", config.name);
    let connection = match Connection::open(config).await {
        Ok(connection) => connection,
        Err(error) => {
            let fix = error.hint_text().unwrap_or("see the message").to_owned();
            return vec![Check::error(subject, error.to_string(), fix)];
        }
    };
    let mut checks = vec![Check::ok(subject.clone(), format!("reached {}", config.target.place()))];
    match look(&connection, config).await {
        Ok(found) => checks.extend(found),
        Err(failure) => {
            let error = failure.into_error(config, "look at the server");
            checks.push(Check::error(
                subject,
                error.to_string(),
                error.hint_text().unwrap_or("see the message"),
            ));
        }
    }
    checks
}

async fn look(connection: &Connection, config: &Resolved) -> Result<Vec<Check>, Failure> {
    let mut checks = vec![version(connection).await?];
    checks.push(writable(connection).await?);
    let mut schemas = vec![config.state_schema.as_str()];
    if !config.schema.contains('{') {
        schemas.push(&config.schema);
    }
    for schema in schemas {
        checks.push(privileges(connection, schema).await?);
    }
    checks.push(least_privileges(connection, config).await?);
    checks.extend(tables(connection, config).await?);
    Ok(checks)
}

/// What a role for this sink needs, as statements that can be pasted: the user of the URL, or, where that is a superuser, a role to be made.
async fn least_privileges(connection: &Connection, config: &Resolved) -> Result<Check, Failure> {
    let sql = "SELECT current_user::text, rolsuper, current_database()::text FROM pg_roles WHERE rolname = current_user";
    let rows = connection.query(sql, &[]).await?;
    let (user, all, database): (String, bool, String) = rows
        .first()
        .map_or_else(|| (String::new(), true, String::new()), |row| (row.get(0), row.get(1), row.get(2)));
    let role = ident(if all { "caudal" } else { &user });
    let mut statements = Vec::new();
    if all {
        statements.push(format!("CREATE ROLE {role} LOGIN PASSWORD '…'"));
    }
    statements.push(format!("GRANT CONNECT ON DATABASE {} TO {role}", ident(&database)));
    let mut schemas = vec![config.state_schema.clone()];
    if config.schema.contains('{') || config.tables.name_schemas() {
        statements.push(format!("GRANT CREATE ON DATABASE {} TO {role}", ident(&database)));
    }
    schemas.extend((!config.schema.contains('{')).then(|| config.schema.clone()));
    schemas.sort();
    schemas.dedup();
    for schema in &schemas {
        let name = ident(schema);
        statements.push(if schema_exists(connection, schema).await? {
            format!("GRANT USAGE, CREATE ON SCHEMA {name} TO {role}")
        } else {
            format!("CREATE SCHEMA {name} AUTHORIZATION {role}")
        });
    }
    let state = State::new(&config.state_schema);
    let there =
        connection.query("SELECT to_regclass($1) IS NOT NULL", &[(&state.tables, Type::TEXT)]).await?;
    if there.first().is_some_and(|row| row.get(0)) {
        // Of what is there already it must be the owner: shapes change, stages are made anew.
        let sql = "SELECT n.nspname::text, c.relname::text, c.relkind = 'S' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                   JOIN pg_roles r ON r.oid = c.relowner WHERE r.rolname <> $2 AND c.relkind IN ('r', 'p', 'v', 'S') AND n.nspname = $1 \
                   ORDER BY c.relname";
        let owner = if all { "caudal" } else { &user };
        let params = [(&config.state_schema as _, Type::TEXT), (&owner as _, Type::TEXT)];
        for row in connection.query(sql, &params).await? {
            let kind = if row.get(2) { "SEQUENCE" } else { "TABLE" };
            let name = qualified(row.get(0), row.get(1));
            statements.push(format!("ALTER {kind} {name} OWNER TO {role}"));
        }
    }
    let who = if all { "a role of its own needs" } else { "it needs" };
    Ok(Check::ok(
        "least privileges",
        format!("{who} no more than this, and to own the tables that it writes: {}", statements.join("; ")),
    ))
}

/// Refuses a server that is too old.
pub(crate) async fn refuse_old(connection: &Connection) -> Result<()> {
    let check = version(connection).await.doing(connection.config(), "ask for the version")?;
    match check.fix {
        None => Ok(()),
        Some(fix) => Err(Error::config(check.message).field(connection.config().field("url")).hint(fix)),
    }
}

async fn version(connection: &Connection) -> Result<Check, Failure> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_version'), \
               current_setting('server_encoding')";
    let rows = connection.query(sql, &[]).await?;
    let Some(row) = rows.first() else {
        return Ok(Check::error("version", "the server tells no version", "use PostgreSQL 13 or newer"));
    };
    let (number, text, encoding): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
    if number < OLDEST {
        return Ok(Check::error(
            "version",
            format!("PostgreSQL {text}"),
            "upgrade to PostgreSQL 13 or newer",
        ));
    }
    if encoding != "UTF8" {
        return Ok(Check::error(
            "server_encoding",
            format!("the database's encoding is {encoding}"),
            "create the database with ENCODING 'UTF8': others cannot hold every text",
        ));
    }
    Ok(Check::ok("version", format!("PostgreSQL {text}")))
}

async fn writable(connection: &Connection) -> Result<Check, Failure> {
    let rows = connection.query("SELECT pg_is_in_recovery()", &[]).await?;
    Ok(if rows.first().is_some_and(|row| row.get(0)) {
        Check::error("read-only", "the server is a standby", "point the URL at the primary")
    } else {
        Check::ok("read-only", "the server takes writes")
    })
}

async fn privileges(connection: &Connection, schema: &str) -> Result<Check, Failure> {
    let sql = "SELECT current_user::text, has_database_privilege(current_database(), 'CREATE'), \
               (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1), current_database()::text";
    let rows = connection.query(sql, &[(&schema, Type::TEXT)]).await?;
    let subject = format!("schema {schema}");
    let Some(row) = rows.first() else { return Ok(Check::ok(subject, "")) };
    let (user, may_create, in_schema, database): (String, bool, Option<bool>, String) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    Ok(match in_schema {
        Some(true) => Check::ok(subject, "tables can be created in it"),
        None if may_create => Check::ok(subject, "it can be created"),
        Some(false) => Check::error(
            subject,
            format!("{user} may not create tables in it"),
            format!("GRANT CREATE, USAGE ON SCHEMA {} TO {}", ident(schema), ident(&user)),
        ),
        None => Check::error(
            subject,
            format!("it is missing, and {user} may not create it"),
            format!(
                "CREATE SCHEMA {} AUTHORIZATION {}, or GRANT CREATE ON DATABASE {} TO {}",
                ident(schema),
                ident(&user),
                ident(&database),
                ident(&user)
            ),
        ),
    })
}

/// Tables that the sink wrote before: whether they are still there and can hold what they must.
async fn tables(connection: &Connection, config: &Resolved) -> Result<Vec<Check>, Failure> {
    let state = State::new(&config.state_schema);
    let rows = connection.query("SELECT to_regclass($1) IS NOT NULL", &[(&state.tables, Type::TEXT)]).await?;
    if !rows.first().is_some_and(|row| row.get(0)) {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT shape FROM {} WHERE sink = $1 ORDER BY source_table", state.tables);
    let rows = connection.query(&sql, &[(&config.name, Type::TEXT)]).await?;
    let mut checks = Vec::new();
    for row in rows {
        let Ok(shape) = serde_json::from_str::<caudal_core::TableSchema>(row.get(0)) else { continue };
        let Ok((schema, table)) = config.target_name(&shape.id) else { continue };
        let subject = format!("{schema}.{table}");
        let names: Vec<String> = shape.columns.iter().map(|c| c.name.clone()).collect();
        let Some(relation) = Relation::find(connection, &schema, &table).await? else {
            checks.push(Check::error(subject, "the table is gone", "restore it, or have it copied anew"));
            continue;
        };
        let problems = crate::shape::misfits(&shape, &relation, &names, (config.json, &[]));
        let by_key = config.consistency == Consistency::Key && !relation.foreign_keys.is_empty();
        checks.push(if !problems.is_empty() {
            Check::error(subject, problems.join("; "), "give the columns back the types they had")
        } else if by_key {
            Check::error(subject, "it has foreign keys, which consistency: key cannot hold", "drop them")
        } else {
            Check::ok(subject, "takes every row")
        });
    }
    Ok(checks)
}
