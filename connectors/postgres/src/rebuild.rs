//! A table made anew beside the one that is read, and the exchange of the two.
//!
//! The *shadow* is a table of its own (`orders__new`) with the shape of the one that is read, or the one that the configuration says now
//! (`reshape.rs`), filled by a [`PgWriter`] under a sink's name of its
//! own (`dash/rebuild/shop.orders`), so its offsets, its fence and its newest shape lie in the state tables like any sink's, in the same
//! transactions as its rows. After the exchange the table before is called `orders__old`, and what is stored of it says where it stood: a way back is
//! the same way again, from there to where the sink stands now.
//!
//! **Why nothing is lost at the exchange.** [`PgRebuild::hold`] locks the table against writers (readers go on). The lock is granted when no open
//! transaction has written to the table; who wants to write from then on waits. So each transaction of the sink is of one of two kinds: its rows
//! of this table are in the table before and its offsets are committed, or it has not written to this table yet, and will write, by name, to
//! whatever table has the name then. The shadow is brought to the committed offsets, the lock is made exclusive, and the offsets are
//! compared once more *after* that: equal, so rows of the first kind are all in the shadow, and those of the second kind follow it without gap.
//! A transaction that moves offsets without rows of this table changes nothing; it makes the comparison fail at worst, and it is all tried again.
//!
//! **Locks.** Each is waited for [`FIRST_WAIT`], less than the server takes to look for a deadlock: so whoever meets us in another order
//! wins, and we begin anew. Readers wait for the statements of the exchange, which look at no row. Views are locked before their tables, as who reads
//! through them does. Only one that neither readers nor writers feel is waited for longer: an autovacuum gives way only to who waits for
//! a second.

mod exchange;
mod furniture;
mod materialized;
mod reshape;
mod versions;

use crate::client::{BEGIN, Connection, Doing, Failure};
use crate::compare::{Side, alive};
use crate::config::{Consistency, Resolved};
use crate::quote::{ident, literal, qualified};
use crate::sink::options;
use crate::state::{State, advisory, fnv};
use crate::writer::PgWriter;
use async_trait::async_trait;
use caudal_core::compare::SinkSide;
use caudal_core::rebuild::{Begin, Outlook, Rebuild};
use caudal_core::{Error, LogPosition, Result, TableId, TableSchema, Writer};
use reshape::NewShape;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::types::Type;

/// How long a first lock is waited for; `deadlock_timeout` is a second.
const FIRST_WAIT: &str = "800ms";
/// How long vacuums are waited for: longer than the `deadlock_timeout` after which one that started by itself is cancelled.
const VACUUM_WAIT: &str = "5s";
/// How long readers are waited for at the exchange; who comes meanwhile waits behind it.
const LAST_WAIT: &str = "2s";

/// Makes tables anew.
pub(crate) struct PgRebuild {
    connection: Connection,
    config: Arc<Resolved>,
    state: State,
    /// Quoted name of the table of rebuilds.
    rebuilds: String,
    /// What the open transaction holds.
    held: Vec<TableId>,
}

/// A table's place: schema and name.
type Place = (String, String);

/// The name that a table's shadow, or the table before, has: `what` is `new` or `old`.
fn aside(table: &str, what: &str) -> String {
    let name = format!("{table}__{what}");
    if name.len() <= 63 {
        return name;
    }
    let mut end = 40;
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{:08x}__{what}", &table[..end], fnv(table) as u32)
}

impl PgRebuild {
    /// Connects, makes the table that it keeps its state in, and drops tables whose time is over.
    pub(crate) async fn open(config: &Arc<Resolved>) -> Result<Self> {
        let connection = Connection::open(config).await?;
        let state = State::new(&config.state_schema);
        state.create(&connection).await?;
        let rebuilds = qualified(&config.state_schema, "rebuilds");
        let sql = format!(
            "{BEGIN}; SELECT pg_advisory_xact_lock({}); CREATE TABLE IF NOT EXISTS {rebuilds} ( \
             sink text NOT NULL, source_table text NOT NULL, phase text NOT NULL, kind text NOT NULL, topic text NOT NULL, \
             target_schema text NOT NULL, target text NOT NULL, shadow text NOT NULL, begun_at timestamptz NOT NULL DEFAULT now(), \
             exchanged_at timestamptz, keep_until timestamptz, to_check text[], PRIMARY KEY (sink, source_table, phase)); \
             ALTER TABLE {rebuilds} ADD COLUMN IF NOT EXISTS left_out text[], ADD COLUMN IF NOT EXISTS views text, \
             ADD COLUMN IF NOT EXISTS versions_to bigint; COMMIT",
            advisory(&config.state_schema)
        );
        connection.batch(&sql).await.doing(config, "create the table of rebuilds")?;
        Ok(Self { connection, config: Arc::clone(config), state, rebuilds, held: Vec::new() })
    }

    fn place(&self, id: &TableId) -> Result<Place> {
        self.config.target_name(id)
    }

    /// The sink's name that a shadow's state lies under (`rebuild`), or that of a table that is kept (`kept`).
    fn run(&self, phase: &str, id: &TableId) -> String {
        format!("{}/{phase}/{id}", self.config.name)
    }

    /// The configuration under which the shadow is written.
    fn shadow_config(&self, id: &TableId) -> Result<Arc<Resolved>> {
        let (_, table) = self.place(id)?;
        let mut config = (*self.config).clone();
        config.name = self.run("rebuild", id);
        config.rename.insert(id.to_string(), aside(&table, "new"));
        config.consistency = Consistency::Key;
        // The shadow is nobody's yet.
        config.sweep_limit = 100;
        config.is_shadow = true;
        Ok(Arc::new(config))
    }

    async fn oid(&self, schema: &str, table: &str) -> Result<Option<u32>> {
        let found = furniture::oid(&self.connection, (schema, table)).await;
        found.doing(&self.config, format!("look for {schema}.{table}"))
    }

    async fn sql(&self, sql: &str, doing: &str) -> Result<()> {
        self.connection.batch(sql).await.doing(&self.config, doing)
    }

    /// Kind and end of what is stored of a table in a phase.
    async fn phase(&self, id: &TableId, phase: &str) -> Result<Option<(String, Option<i64>)>> {
        let sql = format!(
            "SELECT kind, (extract(epoch FROM keep_until) * 1000)::bigint FROM {} WHERE sink = $1 AND source_table = $2 AND phase = $3",
            self.rebuilds
        );
        let id = id.to_string();
        let params =
            [(&self.config.name as _, Type::TEXT), (&id as _, Type::TEXT), (&phase as _, Type::TEXT)];
        let rows = self.connection.query(&sql, &params).await.doing(&self.config, "look for a rebuild")?;
        Ok(rows.first().map(|row| (row.get(0), row.get(1))))
    }

    /// Statements that forget what is stored of a shadow or a kept table.
    fn forget(&self, id: &TableId, phase: &str) -> String {
        let (run, sink, table) =
            (literal(&self.run(phase, id)), literal(&self.config.name), literal(&id.to_string()));
        let mut sql = format!(
            "DELETE FROM {} WHERE sink = {sink} AND source_table = {table} AND phase = {};",
            self.rebuilds,
            literal(phase)
        );
        for state in self.state.all() {
            sql.push_str(&format!("DELETE FROM {state} WHERE sink = {run};"));
        }
        sql
    }

    async fn make(&self, schema: &TableSchema, topic: &str, begin: Begin) -> Result<()> {
        let (place, table) = self.place(&schema.id)?;
        let live = self.oid(&place, &table).await?.ok_or_else(|| {
            Error::config(format!("{place}.{table} is not there: the sink has not made it yet"))
                .hint("start the daemon; a table that nobody has is copied by itself")
        })?;
        let shape = self.new_shape(live, schema).await?;
        self.refuse(live, schema, shape.as_ref()).await?;
        if shape.is_some() && begin == Begin::Copy {
            return Err(Error::config(format!(
                "{place}.{table} is to have another shape: its rows cannot be copied"
            ))
            .hint("leave --from out: all of it is made from the topic"));
        }
        let (old, new) = (qualified(&place, &table), qualified(&place, &aside(&table, "new")));
        let options = "SELECT array_to_string(reloptions, ', '), quote_ident(t.spcname) FROM pg_class c \
                       LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.oid = $1";
        let rows = self.connection.query(options, &[(&live, Type::OID)]).await;
        let rows = rows.doing(&self.config, format!("look at {place}.{table}"))?;
        let (with, space): (Option<String>, Option<String>) =
            rows.first().map_or((None, None), |row| (row.get(0), row.get(1)));
        let with = with.filter(|w| !w.is_empty()).map_or_else(String::new, |w| format!(" WITH ({w})"));
        let space = space.map_or_else(String::new, |s| format!(" TABLESPACE {s}"));
        let mut sql = format!("CREATE TABLE {new} (LIKE {old} INCLUDING ALL){with}{space};");
        if begin == Begin::Copy {
            sql.push_str(&self.copy(live, &old, &new).await?);
        }
        let kind = if begin == Begin::Copy { "copy" } else { "empty" };
        let (sink, id, run) = (
            literal(&self.config.name),
            literal(&schema.id.to_string()),
            literal(&self.run("rebuild", &schema.id)),
        );
        let stored = match &shape {
            None => "version, generation, shape".to_owned(),
            Some(shape) => {
                let text = serde_json::to_string(&*shape.schema)
                    .map_err(|e| Error::bug("write a table's shape").because(e))?;
                format!("{}, {}, {}", shape.schema.version, shape.schema.generation, literal(&text))
            }
        };
        sql.push_str(&format!(
            "INSERT INTO {tables} SELECT {run}, source_table, {target}, {stored} FROM {tables} \
             WHERE sink = {sink} AND source_table = {id}; \
             INSERT INTO {rebuilds} (sink, source_table, phase, kind, topic, target_schema, target, shadow) \
             VALUES ({sink}, {id}, 'rebuild', '{kind}', {topic}, {schema}, {table}, {shadow});",
            tables = self.state.tables,
            rebuilds = self.rebuilds,
            target = literal(&new),
            topic = literal(topic),
            schema = literal(&place),
            table = literal(&table),
            shadow = literal(&aside(&table, "new")),
        ));
        self.sql(&sql, &format!("make a shadow of {place}.{table}")).await?;
        if let Some(shape) = &shape {
            self.reshape(live, shape).await?;
        }
        self.note_versions(live, &schema.id).await
    }

    /// The statement that copies the rows that are there, but for columns that the server computes.
    async fn copy(&self, live: u32, old: &str, new: &str) -> Result<String> {
        let sql = "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
        let rows = self.connection.query(sql, &[(&live, Type::OID)]).await;
        let rows = rows.doing(&self.config, format!("look at {old}"))?;
        let columns: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let columns = columns.join(", ");
        Ok(format!("INSERT INTO {new} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {old};"))
    }

    async fn obstacles(&self, oid: u32, id: &TableId) -> Result<Vec<String>> {
        let (place, table) = self.place(id)?;
        let doing = || format!("look at {place}.{table}");
        let mut found = furniture::obstacles(&self.connection, oid).await.doing(&self.config, doing())?;
        found.extend(materialized::obstacles(&self.connection, oid).await.doing(&self.config, doing())?);
        Ok(found)
    }

    /// Refuses a table of which something would be lost.
    async fn refuse(&self, oid: u32, schema: &TableSchema, shape: Option<&NewShape>) -> Result<()> {
        let mut found = self.obstacles(oid, &schema.id).await?;
        found.extend(self.obstacles_of_shape(oid, schema, shape).await?);
        self.refused(&schema.id, &found)
    }

    fn refused(&self, id: &TableId, found: &[String]) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        let (schema, table) = self.place(id)?;
        Err(Error::config(format!("{schema}.{table} cannot be exchanged: {}", found.join("; ")))
            .hint("take that away for as long as it takes; nothing has been done yet"))
    }

    /// The kept table becomes the shadow.
    async fn take_back(&self, schema: &TableSchema) -> Result<()> {
        let id = &schema.id;
        let (place, table) = self.place(id)?;
        let Some(_) = self.phase(id, "kept").await? else {
            return Err(Error::config(format!("no table before {place}.{table} is kept"))
                .hint("the time for going back is over (rollback_window), or it was never rebuilt"));
        };
        let (kept, run) = (literal(&self.run("kept", id)), literal(&self.run("rebuild", id)));
        let (sink, source) = (literal(&self.config.name), literal(&id.to_string()));
        let new = aside(&table, "new");
        let mut sql = format!(
            "{} ALTER TABLE {} RENAME TO {}; \
             UPDATE {} SET phase = 'rebuild', kind = 'kept', shadow = {}, keep_until = NULL, to_check = NULL, left_out = NULL \
             WHERE sink = {sink} AND source_table = {source} AND phase = 'kept'; \
             UPDATE {} SET target = {} WHERE sink = {kept};",
            self.forget(id, "rebuild"),
            qualified(&place, &aside(&table, "old")),
            ident(&new),
            self.rebuilds,
            literal(&new),
            self.state.tables,
            literal(&qualified(&place, &new)),
        );
        for state in self.state.all() {
            sql.push_str(&format!("UPDATE {state} SET sink = {run} WHERE sink = {kept};"));
        }
        self.sql(&sql, &format!("take the table before {place}.{table}")).await?;
        match (self.oid(&place, &table).await?, self.oid(&place, &new).await?) {
            (Some(live), Some(shadow)) => self.take_back_shape(id, live, shadow).await,
            _ => Ok(()),
        }
    }

    /// Statements that make the shadow the kept table that it was.
    fn keep_on(&self, id: &TableId, (place, table): (&str, &str), shadow: &str) -> String {
        let (run, kept) = (literal(&self.run("rebuild", id)), literal(&self.run("kept", id)));
        let old = aside(table, "old");
        let mut sql = format!(
            "ALTER TABLE {shadow} RENAME TO {}; UPDATE {} SET phase = 'kept', shadow = {}, \
             keep_until = now() + {} * interval '1 second' WHERE sink = {} AND source_table = {} AND phase = 'rebuild'; \
             UPDATE {} SET target = {} WHERE sink = {run};",
            ident(&old),
            self.rebuilds,
            literal(&old),
            self.config.rollback_window.as_secs(),
            literal(&self.config.name),
            literal(&id.to_string()),
            self.state.tables,
            literal(&qualified(place, &old)),
        );
        for state in self.state.all() {
            sql.push_str(&format!("UPDATE {state} SET sink = {kept} WHERE sink = {run};"));
        }
        sql
    }

    async fn begun(&self, schema: &TableSchema, topic: &str, begin: Begin) -> Result<bool> {
        let (place, table) = self.place(&schema.id)?;
        let shadow = aside(&table, "new");
        let found = self.phase(&schema.id, "rebuild").await?;
        let there = self.oid(&place, &shadow).await?.is_some();
        let kind = match begin {
            Begin::Empty => "empty",
            Begin::Copy => "copy",
            Begin::Kept => "kept",
        };
        match found {
            Some((other, _)) if there && other != kind => {
                return Err(Error::config(format!("another rebuild of {place}.{table} was begun ({other})"))
                    .hint("end that one, or give it up: --discard"));
            }
            Some(_) if there => return Ok(false),
            None if there => {
                return Err(Error::config(format!("{place}.{shadow} is there, and no rebuild has made it"))
                    .hint("move it away"));
            }
            _ => self.sql(&self.forget(&schema.id, "rebuild"), "forget a rebuild").await?,
        }
        self.no_view_waits().await?;
        match begin {
            Begin::Kept => self.take_back(schema).await?,
            _ => self.make(schema, topic, begin).await?,
        }
        match self.oid(&place, &table).await? {
            Some(live) => self.try_views(&[live]).await.map(|()| true),
            None => Ok(true),
        }
    }

    /// Begins a transaction that waits for locks no longer than `wait`.
    async fn begin_within(&self, wait: &str) -> Result<()> {
        self.sql(
            &format!(
                "{BEGIN}; SET LOCAL lock_timeout = '{wait}'; SET LOCAL statement_timeout = 0; \
                 SET LOCAL idle_in_transaction_session_timeout = '120s'; SET LOCAL search_path = ''"
            ),
            "begin a transaction",
        )
        .await
    }

    async fn roll_back(&mut self) {
        self.held.clear();
        // Best effort: the connection's end ends the transaction too.
        let _ = self.connection.batch("ROLLBACK").await;
    }

    /// All tables whose locks an exchange needs: the tables themselves, and those joined to them by foreign keys.
    async fn concerned(&self, tables: &[TableId]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for id in tables {
            let (schema, table) = self.place(id)?;
            let target = qualified(&schema, &table);
            let sql = "SELECT DISTINCT n.nspname::text, c.relname::text FROM pg_constraint k \
                       JOIN pg_class c ON c.oid IN (k.conrelid, k.confrelid) JOIN pg_namespace n ON n.oid = c.relnamespace \
                       WHERE k.contype = 'f' AND to_regclass($1) IN (k.conrelid, k.confrelid)";
            let rows = self.connection.query(sql, &[(&target, Type::TEXT)]).await;
            let rows = rows.doing(&self.config, format!("look at {target}"))?;
            names.push(target);
            names.extend(rows.iter().map(|row| qualified(row.get(0), row.get(1))));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Runs a statement that waits for locks; false if it does not get them.
    async fn locked(&mut self, sql: &str, doing: &str) -> Result<bool> {
        match self.connection.batch(sql).await {
            Ok(()) => Ok(true),
            Err(failure) if failure.is_lock() => {
                self.roll_back().await;
                Ok(false)
            }
            Err(failure) => {
                self.roll_back().await;
                Err(failure.into_error(&self.config, doing))
            }
        }
    }
}

/// Drops tables that were kept after an exchange, and whose time is over. Of sinks that never rebuilt anything it costs one look.
pub(crate) async fn drop_expired(connection: &Connection) -> Result<(), Failure> {
    let config = connection.config();
    let rebuilds = qualified(&config.state_schema, "rebuilds");
    let there = connection.query("SELECT to_regclass($1) IS NOT NULL", &[(&rebuilds, Type::TEXT)]).await?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(());
    }
    let sql = format!(
        "SELECT source_table, target_schema, shadow FROM {rebuilds} AS r WHERE sink = $1 AND phase = 'kept' AND keep_until < now() \
         AND to_jsonb(r) ->> 'views' IS NULL"
    );
    for row in connection.query(&sql, &[(&config.name, Type::TEXT)]).await? {
        let (table, place): (&str, String) = (row.get(0), qualified(row.get(1), row.get(2)));
        let run = literal(&format!("{}/kept/{table}", config.name));
        let state: String = State::new(&config.state_schema)
            .all()
            .iter()
            .map(|state| format!("DELETE FROM {state} WHERE sink = {run};"))
            .collect();
        let dropped = connection
            .batch(&format!(
                "{BEGIN}; SET LOCAL lock_timeout = '2s'; DROP TABLE IF EXISTS {place}; {state} \
                 DELETE FROM {rebuilds} WHERE sink = {} AND source_table = {} AND phase = 'kept'; COMMIT",
                literal(&config.name),
                literal(table)
            ))
            .await;
        match dropped {
            Ok(()) => tracing::info!(
                table = place,
                "dropped a table that was kept after a rebuild: its time is over"
            ),
            // Somebody reads it, or something of somebody's depends on it: nobody has to wait for that.
            Err(failure) => {
                let error =
                    failure.into_error(config, format!("drop {place}, which was kept after a rebuild"));
                tracing::warn!(%error, "its time is over, and it is still there");
                connection.batch("ROLLBACK").await?;
            }
        }
    }
    Ok(())
}

#[async_trait]
impl Rebuild for PgRebuild {
    async fn look(&mut self, schema: &TableSchema) -> Result<Outlook> {
        let (place, table) = self.place(&schema.id)?;
        let Some(oid) = self.oid(&place, &table).await? else { return Ok(Outlook::default()) };
        let sql =
            "SELECT greatest(reltuples, 0)::bigint, pg_total_relation_size(oid) FROM pg_class WHERE oid = $1";
        let rows = self.connection.query(sql, &[(&oid, Type::OID)]).await;
        let rows = rows.doing(&self.config, format!("look at {place}.{table}"))?;
        let (count, bytes): (i64, i64) = rows.first().map_or((0, 0), |row| (row.get(0), row.get(1)));
        let shape = self.new_shape(oid, schema).await?;
        let mut obstacles = self.obstacles(oid, &schema.id).await?;
        obstacles.extend(self.obstacles_of_shape(oid, schema, shape.as_ref()).await?);
        Ok(Outlook {
            target: Some(format!("{place}.{table}")),
            rows: count as u64,
            bytes: bytes as u64,
            obstacles,
            begun: self.phase(&schema.id, "rebuild").await?.is_some(),
            keeps: self.keeps(oid, &schema.id, shape.as_ref()).await?,
            kept_until_ms: self.phase(&schema.id, "kept").await?.and_then(|(_, until)| until),
        })
    }

    async fn begin(&mut self, schema: &TableSchema, topic: &str, begin: Begin) -> Result<bool> {
        drop_expired(&self.connection).await.doing(&self.config, "drop tables that were kept")?;
        self.begin_within("10s").await?;
        let (place, table) = self.place(&schema.id)?;
        let lock = advisory(&format!("rebuild {place}.{table}"));
        self.sql(&format!("SELECT pg_advisory_xact_lock({lock})"), "lock a rebuild").await?;
        match self.begun(schema, topic, begin).await {
            Ok(made) => self.sql("COMMIT", "begin a rebuild").await.map(|()| made),
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    async fn writer(&mut self, table: &TableId) -> Result<Box<dyn Writer>> {
        let config = self.shadow_config(table)?;
        let connection = Connection::open(&config).await?;
        let options = options(&config);
        Ok(Box::new(PgWriter::new(connection, config, options)))
    }

    async fn live(&mut self, topic: &str) -> Result<LogPosition> {
        let offsets = self.state.of_topic(&self.connection, &self.config.name, topic).await;
        offsets.doing(&self.config, "look where the sink stands")
    }

    async fn shadow(&mut self, schema: &TableSchema) -> Result<(Box<dyn SinkSide>, u64)> {
        let config = self.shadow_config(&schema.id)?;
        let (place, table) = config.target_name(&schema.id)?;
        let name = qualified(&place, &table);
        self.sql(&format!("ANALYZE {name}"), &format!("look at all of {name}")).await?;
        let alive = alive(&config.rules(&schema.id)).unwrap_or_else(|| "true".to_owned());
        let count = format!("SELECT count(*) FROM {name} WHERE {alive}");
        let rows = self.connection.query(&count, &[]).await.doing(&self.config, format!("count {name}"))?;
        let count = rows.first().map_or(0, |row| row.get::<_, i64>(0)) as u64;
        Ok((Box::new(Side::open(&config).await?), count))
    }

    async fn keep(&mut self, table: &TableId) -> Result<u64> {
        self.begin_within("10s").await?;
        match self.keep_versions(table).await {
            Ok(kept) => self.sql("COMMIT", "keep versions").await.map(|()| kept),
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    async fn hold(&mut self, tables: &[TableId]) -> Result<bool> {
        let names = self.concerned(tables).await?;
        self.begin_within(VACUUM_WAIT).await?;
        let names = names.join(", ");
        let ahead = format!("LOCK TABLE {names} IN SHARE UPDATE EXCLUSIVE MODE");
        let sql = format!(
            "SET LOCAL lock_timeout = '{FIRST_WAIT}'; LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE"
        );
        let got =
            self.locked(&ahead, "lock the tables").await? && self.locked(&sql, "lock the tables").await?;
        if got {
            self.held = tables.to_vec();
        }
        Ok(got)
    }

    async fn exchange(&mut self, keep: Option<Duration>) -> Result<bool> {
        let exchanged = self.exchange_held(keep.unwrap_or(self.config.rollback_window)).await;
        match exchanged {
            Ok(true) => {
                self.held.clear();
                self.sql("COMMIT", "exchange the tables").await.map(|()| true)
            }
            Ok(false) => {
                self.roll_back().await;
                Ok(false)
            }
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    async fn release(&mut self) -> Result<()> {
        self.roll_back().await;
        Ok(())
    }

    async fn settle(&mut self) -> Result<Vec<String>> {
        let sql = format!(
            "SELECT source_table, to_check FROM {} WHERE sink = $1 AND phase = 'kept' AND to_check IS NOT NULL",
            self.rebuilds
        );
        let rows = self.connection.query(&sql, &[(&self.config.name, Type::TEXT)]).await;
        let rows = rows.doing(&self.config, "look what is to be checked")?;
        let mut failed = Vec::new();
        for row in rows {
            let statements: Vec<String> = row.get(1);
            for statement in statements {
                match self.connection.batch(&statement).await {
                    Ok(()) => {}
                    Err(failure) if failure.is_data() => {
                        let cause = failure.data_cause();
                        failed.push(format!(
                            "rows that are there break it; new ones are checked: {statement}: {cause}"
                        ));
                    }
                    Err(failure) => return Err(failure.into_error(&self.config, statement)),
                }
            }
            let done = format!(
                "UPDATE {} SET to_check = NULL WHERE sink = $1 AND source_table = $2 AND phase = 'kept'",
                self.rebuilds
            );
            let table: &str = row.get(0);
            let params = [(&self.config.name as _, Type::TEXT), (&table as _, Type::TEXT)];
            self.connection.execute(&done, &params).await.doing(&self.config, "note what was checked")?;
        }
        failed.extend(self.settle_views().await?);
        Ok(failed)
    }

    async fn discard(&mut self, table: &TableId) -> Result<bool> {
        let Some((kind, _)) = self.phase(table, "rebuild").await? else { return Ok(false) };
        let (place, target) = self.place(table)?;
        let shadow = qualified(&place, &aside(&target, "new"));
        let work = if kind == "kept" {
            self.keep_on(table, (&place, &target), &shadow)
        } else {
            format!("DROP TABLE IF EXISTS {shadow}; {}", self.forget(table, "rebuild"))
        };
        let sql = format!("{BEGIN}; SET LOCAL lock_timeout = '10s'; {work} COMMIT");
        self.sql(&sql, &format!("give the rebuild of {place}.{target} up")).await?;
        tracing::info!(table = %table, kind, "gave a rebuild up");
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_shadows_are_told_apart_within_what_postgres_keeps() {
        assert_eq!(aside("orders", "new"), "orders__new");
        let (a, b) =
            (aside(&format!("{}a", "ö".repeat(30)), "old"), aside(&format!("{}b", "ö".repeat(30)), "old"));
        assert!(a.len() <= 63 && b.len() <= 63 && a != b, "{a} {b}");
    }
}
