//! Materialized views over tables that are exchanged: made anew behind the exchange, and put in the place of those before.
//!
//! A view can be pointed at another table, a materialized view cannot. So the exchange writes down their definitions only (they name the table, and
//! whoever runs them later means the new one); readers have what they had until, behind it and one after the other, those that others read
//! first, each is *made* beside (`name__new`, empty, with owner, options and indexes), *filled* by the server as its owner, and *placed*: the names
//! change in a transaction that looks at no row. Those before go at the end, since others may still read them. What is done is noted in the
//! same transactions: who is killed in between goes on with the next call.

use super::furniture::{Furniture, Index};
use super::{FIRST_WAIT, LAST_WAIT, PgRebuild, aside};
use crate::client::{BEGIN, Connection, Doing, Failure};
use crate::quote::{ident, literal, qualified};
use caudal_core::{Error, Fault, Result, TableId};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Attempts to put a view in its place; each waits for its readers for [`LAST_WAIT`].
const ATTEMPTS: u32 = 30;
const AGAIN: Duration = Duration::from_millis(300);

/// Who reads what, and all that reads the tables `$1`, over however many others.
const BELOW: &str = "WITH RECURSIVE reads AS (SELECT DISTINCT d.refobjid AS source, r.ev_class AS reader FROM pg_depend d \
      JOIN pg_rewrite r ON r.oid = d.objid WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass \
      AND d.refobjid <> r.ev_class), \
    below (oid, level) AS (SELECT reader, 1 FROM reads WHERE source = ANY($1) \
      UNION SELECT r.reader, b.level + 1 FROM below b JOIN reads r ON r.source = b.oid WHERE b.level < 100)";

/// A view that is to be made anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Task {
    view: u32,
    /// As it was before the exchange: by names.
    definition: String,
    /// The one beside it.
    made: Option<u32>,
    placed: bool,
}

/// What cannot be made anew, in words.
pub(super) async fn obstacles(connection: &Connection, table: u32) -> Result<Vec<String>, Failure> {
    let sql = format!(
        "{BELOW}, views AS (SELECT DISTINCT c.oid, c.relowner, c.reltype, pg_describe_object('pg_class'::regclass, c.oid, 0) AS name, \
           pg_has_role(c.relowner, 'MEMBER') AS ours, EXISTS (SELECT 1 FROM reads r JOIN pg_class s ON s.oid = r.source \
             WHERE r.reader = c.oid AND (s.oid = ANY($1) OR s.relkind = 'm' AND s.oid IN (SELECT oid FROM below))) AS bound \
           FROM below b JOIN pg_class c ON c.oid = b.oid WHERE c.relkind = 'm') \
         SELECT format('you may not make %s anew: it belongs to %s', name, pg_get_userbyid(relowner)) FROM views WHERE bound AND NOT ours \
         UNION SELECT format('%s belongs to an extension', name) FROM views v JOIN pg_depend d \
           ON d.classid = 'pg_class'::regclass AND d.objid = v.oid AND d.deptype = 'e' \
         UNION SELECT format('%s depends on %s, which has to be made anew', pg_describe_object(d.classid, d.objid, 0), name) \
           FROM views v JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = v.oid \
             OR d.refclassid = 'pg_type'::regclass AND d.refobjid = v.reltype \
           WHERE ours AND d.deptype IN ('n', 'a') AND d.classid <> 'pg_rewrite'::regclass \
           AND NOT EXISTS (SELECT 1 FROM pg_class x WHERE d.classid = 'pg_class'::regclass AND x.oid = d.objid AND x.relkind IN ('i', 't')) \
         UNION SELECT CASE WHEN x.relkind = 'v' THEN format('you may not make %s anew: it belongs to %s', \
             pg_describe_object('pg_class'::regclass, x.oid, 0), pg_get_userbyid(x.relowner)) \
             ELSE format('%s reads %s, which has to be made anew', pg_describe_object('pg_class'::regclass, x.oid, 0), name) END \
           FROM views v JOIN reads r ON r.source = v.oid JOIN pg_class x ON x.oid = r.reader \
           WHERE ours AND x.relkind <> 'm' AND (x.relkind <> 'v' OR NOT pg_has_role(x.relowner, 'MEMBER')) \
         UNION SELECT format('%I.%I is there, and %s has to be made anew under that name', n.nspname, x.relname, name) \
           FROM views v JOIN pg_class c ON c.oid = v.oid JOIN pg_namespace n ON n.oid = c.relnamespace \
           JOIN pg_class x ON x.relnamespace = c.relnamespace AND x.relname IN (c.relname || '__new', c.relname || '__old') WHERE ours"
    );
    let rows = connection.query(&sql, &[(&vec![table], Type::OID_ARRAY)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What reads a table, in words.
pub(super) async fn readers(connection: &Connection, table: u32) -> Result<Vec<String>, Failure> {
    let sql = "SELECT DISTINCT pg_describe_object('pg_class'::regclass, r.ev_class, 0) FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid \
               WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1";
    let rows = connection.query(sql, &[(&table, Type::OID)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The materialized views over these tables, those first that others read. Asked with an empty `search_path`.
async fn below(connection: &Connection, tables: &[u32]) -> Result<Vec<Task>, Failure> {
    let sql = format!(
        "{BELOW} SELECT c.oid, rtrim(pg_get_viewdef(c.oid), ';') FROM (SELECT oid, max(level) AS level FROM below GROUP BY oid) b \
         JOIN pg_class c ON c.oid = b.oid WHERE c.relkind = 'm' AND pg_has_role(c.relowner, 'MEMBER') ORDER BY b.level, c.oid"
    );
    let rows = connection.query(&sql, &[(&tables.to_vec(), Type::OID_ARRAY)]).await?;
    let task = |row: &Row| Task { view: row.get(0), definition: row.get(1), made: None, placed: false };
    Ok(rows.iter().map(task).collect())
}

/// Its schema, its name, and whether it is filled; none if it is gone.
async fn named(connection: &Connection, view: u32) -> Result<Option<(String, String, bool)>, Failure> {
    let sql = "SELECT n.nspname::text, c.relname::text, c.relispopulated FROM pg_class c \
               JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let rows = connection.query(sql, &[(&view, Type::OID)]).await?;
    Ok(rows.first().map(|row| (row.get(0), row.get(1), row.get(2))))
}

/// Statements that make a view like this one beside it, empty.
async fn making(
    connection: &Connection,
    view: u32,
    (schema, name): (&str, &str),
    definition: &str,
) -> Result<Vec<String>, Failure> {
    let new = qualified(schema, &aside(name, "new"));
    let sql = "SELECT quote_ident(am.amname), quote_ident(t.spcname), pg_get_userbyid(c.relowner)::text, \
                 (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0), \
                 (SELECT string_agg(o, ', ') FROM (SELECT unnest(c.reloptions) UNION ALL SELECT 'toast.' || unnest(x.reloptions) \
                   FROM pg_class x WHERE x.oid = c.reltoastrelid) AS o (o)) \
               FROM pg_class c JOIN pg_am am ON am.oid = c.relam LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.oid = $1";
    let mut made = Vec::new();
    for row in connection.query(sql, &[(&view, Type::OID)]).await? {
        let space =
            row.get::<_, Option<&str>>(1).map_or_else(String::new, |name| format!(" TABLESPACE {name}"));
        let options =
            row.get::<_, Option<&str>>(4).map_or_else(String::new, |with| format!(" WITH ({with})"));
        made.push(format!(
            "CREATE MATERIALIZED VIEW {new} ({}) USING {}{options}{space} AS {definition} WITH NO DATA",
            row.get::<_, &str>(3),
            row.get::<_, &str>(0)
        ));
    }
    made.extend(columns(connection, view, &new).await?);
    made.extend(indexes(connection, view, (schema, name)).await?);
    let sql = "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = $1";
    for row in connection.query(sql, &[(&view, Type::OID)]).await? {
        made.push(format!("ALTER MATERIALIZED VIEW {new} OWNER TO {}", ident(row.get(0))));
    }
    Ok(made)
}

/// What is said of columns: storage, statistics, comments.
async fn columns(connection: &Connection, view: u32, new: &str) -> Result<Vec<String>, Failure> {
    let sql = "SELECT quote_ident(a.attname), col_description(a.attrelid, a.attnum), \
                 concat_ws(', ', CASE WHEN a.attstattarget >= 0 THEN format('ALTER COLUMN %I SET STATISTICS %s', a.attname, a.attstattarget) END, \
                   CASE WHEN a.attstorage <> t.typstorage THEN format('ALTER COLUMN %I SET STORAGE %s', a.attname, \
                     CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END) END, \
                   CASE to_jsonb(a) ->> 'attcompression' WHEN 'l' THEN format('ALTER COLUMN %I SET COMPRESSION lz4', a.attname) \
                     WHEN 'p' THEN format('ALTER COLUMN %I SET COMPRESSION pglz', a.attname) END, \
                   CASE WHEN a.attoptions IS NOT NULL THEN format('ALTER COLUMN %I SET (%s)', a.attname, array_to_string(a.attoptions, ', ')) END) \
               FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = $1 AND a.attnum > 0 ORDER BY a.attnum";
    let mut said = Vec::new();
    for row in connection.query(sql, &[(&view, Type::OID)]).await? {
        let (column, comment, changes): (&str, Option<&str>, &str) = (row.get(0), row.get(1), row.get(2));
        if !changes.is_empty() {
            said.push(format!("ALTER MATERIALIZED VIEW {new} {changes}"));
        }
        said.extend(comment.map(|text| format!("COMMENT ON COLUMN {new}.{column} IS {}", literal(text))));
    }
    Ok(said)
}

/// The view's indexes, for the one beside it, each with a name of its own.
async fn indexes(
    connection: &Connection,
    view: u32,
    (schema, name): (&str, &str),
) -> Result<Vec<String>, Failure> {
    // The beginning of a definition is known, so that what follows it needs no parser.
    let sql = "SELECT c.relname::text, i.indisunique, substr(pg_get_indexdef(c.oid), 1 + length(format('CREATE %sINDEX %I ON %I.%I ', \
                 CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname, $2, $3))), quote_ident(t.spcname), obj_description(c.oid, 'pg_class') \
               FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace \
               WHERE i.indrelid = $1 ORDER BY c.oid";
    let params = [(&view as _, Type::OID), (&schema as _, Type::TEXT), (&name as _, Type::TEXT)];
    let new = qualified(schema, &aside(name, "new"));
    let mut made = Vec::new();
    for row in connection.query(sql, &params).await? {
        let index = aside(row.get(0), "new");
        let unique = if row.get(1) { "UNIQUE " } else { "" };
        made.push(format!("CREATE {unique}INDEX {} ON {new} {}", ident(&index), row.get::<_, &str>(2)));
        let index = qualified(schema, &index);
        if let Some(space) = row.get::<_, Option<&str>>(3) {
            made.push(format!("ALTER INDEX {index} SET TABLESPACE {space}"));
        }
        if let Some(comment) = row.get::<_, Option<&str>>(4) {
            made.push(format!("COMMENT ON INDEX {index} IS {}", literal(comment)));
        }
    }
    Ok(made)
}

/// Each index of a view beside the one that is to take its name; none if somebody has changed them since.
fn matched(before: &[Index], made: &[Index]) -> Option<Vec<(String, String)>> {
    let pair = |index: &Index| {
        let name = aside(&index.name, "new");
        made.iter()
            .any(|other| other.name == name && other.what == index.what)
            .then(|| (index.name.clone(), name))
    };
    (before.len() == made.len()).then(|| before.iter().map(pair).collect()).flatten()
}

impl PgRebuild {
    /// Makes the views that an exchange of these tables will ask for, and takes them back: what is not allowed is told before anything is done.
    pub(super) async fn try_views(&self, tables: &[u32]) -> Result<()> {
        let tasks =
            below(&self.connection, tables).await.doing(&self.config, "look for materialized views")?;
        for task in tasks {
            let Some((schema, name, _)) = self.named(task.view).await? else { continue };
            let doing = format!("try to make materialized view {schema}.{name} anew");
            let made = making(&self.connection, task.view, (&schema, &name), &task.definition).await;
            let made = made.doing(&self.config, &doing)?;
            self.sql("SAVEPOINT caudal_views", &doing).await?;
            self.sql(&made.join(";"), &doing).await?;
            self.sql("ROLLBACK TO SAVEPOINT caudal_views", &doing).await?;
        }
        Ok(())
    }

    /// The views over these tables as they are before an exchange, to be written down with it.
    pub(super) async fn views_to_come(&self, tables: &[u32]) -> Result<Option<String>> {
        let tasks =
            below(&self.connection, tables).await.doing(&self.config, "look for materialized views")?;
        if tasks.is_empty() { Ok(None) } else { written(&tasks).map(Some) }
    }

    /// Writes them down, with the table that they are told by.
    pub(super) async fn note_views(&self, id: &TableId, views: &str) -> Result<()> {
        let sql = format!(
            "UPDATE {} SET views = $3 WHERE sink = $1 AND source_table = $2 AND phase = 'kept'",
            self.rebuilds
        );
        let source = id.to_string();
        let params =
            [(&self.config.name as _, Type::TEXT), (&source as _, Type::TEXT), (&views as _, Type::TEXT)];
        self.connection.execute(&sql, &params).await.doing(&self.config, "note materialized views")?;
        Ok(())
    }

    async fn named(&self, view: u32) -> Result<Option<(String, String, bool)>> {
        named(&self.connection, view).await.doing(&self.config, "look at a materialized view")
    }

    /// What earlier exchanges have left to be made: source table, tasks.
    async fn waiting(&self) -> Result<Vec<(String, Vec<Task>)>> {
        let sql = format!(
            "SELECT source_table, views FROM {} WHERE sink = $1 AND phase = 'kept' AND views IS NOT NULL",
            self.rebuilds
        );
        let rows = self.connection.query(&sql, &[(&self.config.name, Type::TEXT)]).await;
        let rows = rows.doing(&self.config, "look what is to be made")?;
        let read = |row: &Row| {
            let tasks = serde_json::from_str(row.get(1))
                .map_err(|e| Error::bug("read the materialized views of a rebuild").because(e))?;
            Ok((row.get(0), tasks))
        };
        rows.iter().map(read).collect()
    }

    /// Refuses to begin while a view of an earlier exchange still reads the table before it.
    pub(super) async fn no_view_waits(&self) -> Result<()> {
        for (table, tasks) in self.waiting().await? {
            for task in tasks.iter().filter(|task| !task.placed) {
                if let Some((schema, name, _)) = self.named(task.view).await? {
                    return Err(Error::config(format!(
                        "materialized view {schema}.{name} still waits to be made anew since the last rebuild of {table}"
                    ))
                    .hint("mend what it stumbles over, or drop it; then call this again"));
                }
            }
        }
        Ok(())
    }

    /// Makes, fills and places what an exchange has left; gives what cannot be.
    pub(super) async fn settle_views(&mut self) -> Result<Vec<String>> {
        let mut failed = Vec::new();
        for (table, mut tasks) in self.waiting().await? {
            let mut all = true;
            for at in 0..tasks.len() {
                if let Err(error) = self.renew(&table, &mut tasks, at).await {
                    self.roll_back().await;
                    if error.fault() == Fault::Transient {
                        return Err(error);
                    }
                    failed.push(format!("{error}; it stays as it is until the next call makes it anew"));
                    all = false;
                    break;
                }
            }
            if all {
                self.drop_before(&table, &tasks).await?;
            }
        }
        Ok(failed)
    }

    /// One view, as far as it is not done yet.
    async fn renew(&mut self, table: &str, tasks: &mut [Task], at: usize) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let task = &tasks[at];
            if task.placed {
                return Ok(());
            }
            let Some((schema, name, filled)) = self.named(task.view).await? else {
                return self.forgotten(table, tasks, at).await;
            };
            let made = match task.made {
                Some(made) => self.named(made).await?.map(|_| made),
                None => None,
            };
            let made = match made {
                Some(made) => made,
                None => self.made(table, tasks, at, (&schema, &name)).await?,
            };
            let new = qualified(&schema, &aside(&name, "new"));
            if filled {
                let sql = format!(
                    "{BEGIN}; SET LOCAL statement_timeout = 0; REFRESH MATERIALIZED VIEW {new}; COMMIT"
                );
                self.sql(&sql, &format!("fill materialized view {schema}.{name}")).await?;
            }
            if self.place_view(table, tasks, at, (&schema, &name), made).await? {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
        Err(Error::transient("others hold on to a materialized view all the time")
            .hint("the tables are exchanged; call it again, it goes on: or look for long transactions in pg_stat_activity"))
    }

    /// Somebody has dropped it meanwhile: the one beside it goes too.
    async fn forgotten(&mut self, table: &str, tasks: &mut [Task], at: usize) -> Result<()> {
        let mut sql = BEGIN.to_owned();
        if let Some(made) = tasks[at].made
            && let Some((schema, name, _)) = self.named(made).await?
        {
            sql.push_str(&format!("; DROP MATERIALIZED VIEW {}", qualified(&schema, &name)));
        }
        tasks[at].placed = true;
        sql.push_str(&format!("; {}; COMMIT", self.noting(table, tasks)?));
        self.sql(&sql, "forget a materialized view").await
    }

    async fn made(
        &mut self,
        table: &str,
        tasks: &mut [Task],
        at: usize,
        (schema, name): (&str, &str),
    ) -> Result<u32> {
        self.begin_within(FIRST_WAIT).await?;
        let doing = || format!("make materialized view {schema}.{name} anew");
        let task = &tasks[at];
        let made = making(&self.connection, task.view, (schema, name), &task.definition).await;
        self.sql(&made.doing(&self.config, doing())?.join(";"), &doing()).await?;
        let made = self.oid(schema, &aside(name, "new")).await?.ok_or_else(|| Error::bug(doing()))?;
        tasks[at].made = Some(made);
        self.sql(&format!("{}; COMMIT", self.noting(table, tasks)?), &doing()).await?;
        Ok(made)
    }

    /// The two change names; false if somebody holds on to one of them, or has given it another index.
    async fn place_view(
        &mut self,
        table: &str,
        tasks: &mut [Task],
        at: usize,
        (schema, name): (&str, &str),
        made: u32,
    ) -> Result<bool> {
        self.begin_within(LAST_WAIT).await?;
        let doing = format!("put materialized view {schema}.{name} in its place");
        let (live, new) = (qualified(schema, name), qualified(schema, &aside(name, "new")));
        let view = tasks[at].view;
        let before = Furniture::of(&self.connection, view, &live).await.doing(&self.config, &doing)?;
        let after = Furniture::of(&self.connection, made, &new).await.doing(&self.config, &doing)?;
        let Some(indexes) = matched(&before.indexes, &after.indexes) else {
            let sql = format!("DROP MATERIALIZED VIEW {new}; COMMIT");
            return self.locked(&sql, &doing).await.map(|_| false);
        };
        let mut run: Vec<String> = after.revoke.iter().map(|sql| sql.replace("{}", &new)).collect();
        for (from, to) in [(&live, aside(name, "old")), (&new, name.to_owned())] {
            run.push(format!("ALTER MATERIALIZED VIEW {from} RENAME TO {}", ident(&to)));
        }
        for (index, beside) in indexes {
            for (from, to) in [(&index, aside(&index, "old")), (&beside, index.clone())] {
                run.push(format!("ALTER INDEX {} RENAME TO {}", qualified(schema, from), ident(&to)));
            }
        }
        run.extend(before.dress);
        run.extend(before.views);
        if !self.locked(&run.join(";"), &doing).await? {
            return Ok(false);
        }
        tasks[at].placed = true;
        self.sql(&format!("{}; COMMIT", self.noting(table, tasks)?), &doing).await?;
        tracing::info!(view = live, "made a materialized view anew");
        Ok(true)
    }

    /// Those before go, the last first: they read each other.
    async fn drop_before(&mut self, table: &str, tasks: &[Task]) -> Result<()> {
        let doing = "drop materialized views that were made anew";
        for _ in 0..ATTEMPTS {
            let mut sql = String::new();
            for task in tasks.iter().rev() {
                if let Some((schema, name, _)) = self.named(task.view).await? {
                    sql.push_str(&format!("DROP MATERIALIZED VIEW {};", qualified(&schema, &name)));
                }
            }
            self.begin_within(LAST_WAIT).await?;
            if self.locked(&format!("{sql}{}; COMMIT", self.noting(table, &[])?), doing).await? {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
        Err(Error::transient("others read a materialized view that was made anew all the time")
            .hint("call it again, it goes on: or look for long transactions in pg_stat_activity"))
    }

    /// The statement that notes what is done; nothing is left where there is no task.
    fn noting(&self, table: &str, tasks: &[Task]) -> Result<String> {
        let views = if tasks.is_empty() { "NULL".to_owned() } else { literal(&written(tasks)?) };
        Ok(format!(
            "UPDATE {} SET views = {views} WHERE sink = {} AND source_table = {} AND phase = 'kept'",
            self.rebuilds,
            literal(&self.config.name),
            literal(table)
        ))
    }
}

fn written(tasks: &[Task]) -> Result<String> {
    serde_json::to_string(tasks)
        .map_err(|e| Error::bug("write the materialized views of a rebuild").because(e))
}
