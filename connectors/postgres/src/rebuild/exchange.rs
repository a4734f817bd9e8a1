//! The exchange itself: all of it in the transaction that holds the tables.

use super::furniture::{self, ForeignKey, Furniture, Index};
use super::materialized;
use super::{LAST_WAIT, PgRebuild, aside};
use crate::client::Doing;
use crate::quote::{ident, literal, qualified};
use caudal_core::{Error, Result, TableId};
use std::time::Duration;
use tokio_postgres::types::Type;

/// The id of a topic whose brokers tell none.
const NIL: &str = "'00000000-0000-0000-0000-000000000000'::uuid";

/// A table and its shadow.
struct Pair {
    id: TableId,
    schema: String,
    table: String,
    /// Quoted names.
    live: String,
    shadow: String,
    live_oid: u32,
    /// What hangs on the table; and on its shadow, as its writer or an earlier exchange left it.
    of_live: Furniture,
    of_shadow: Furniture,
    sequences: Vec<String>,
    /// What the shadow lacks on purpose, where it is of another shape.
    left_out: Option<Vec<String>>,
}

impl PgRebuild {
    /// False if the sink has gone on, or a lock was not to be had.
    pub(super) async fn exchange_held(&mut self, keep: Duration) -> Result<bool> {
        let tables = self.held.clone();
        let mut names = Vec::new();
        for id in &tables {
            let (schema, table) = self.place(id)?;
            names.push(qualified(&schema, &table));
            names.push(qualified(&schema, &aside(&table, "new")));
            let Some(oid) = self.oid(&schema, &table).await? else { continue };
            let views = furniture::view_locks(&self.connection, oid).await;
            for lock in views.doing(&self.config, format!("look at {schema}.{table}"))? {
                if !self.locked(&lock, "lock the views").await? {
                    return Ok(false);
                }
            }
        }
        let lock = format!(
            "SET LOCAL lock_timeout = '{LAST_WAIT}'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
            names.join(", ")
        );
        if !self.locked(&lock, "lock the tables for the exchange").await? {
            return Ok(false);
        }
        for id in &tables {
            if !self.level(id).await? {
                return Ok(false);
            }
        }
        let mut pairs = Vec::new();
        for id in tables {
            pairs.push(self.pair(id).await?);
        }
        let live: Vec<u32> = pairs.iter().map(|pair| pair.live_oid).collect();
        let views = self.views_to_come(&live).await?;
        let statements = statements(&pairs)?;
        for statement in &statements.run {
            if !self.locked(statement, "exchange the tables").await? {
                return Ok(false);
            }
        }
        for pair in &pairs {
            self.note(pair, keep, &statements.to_check).await?;
        }
        // With one of the tables: they are made in one order.
        if let (Some(views), Some(pair)) = (views, pairs.first()) {
            self.note_views(&pair.id, &views).await?;
        }
        Ok(true)
    }

    /// Whether the sink and the shadow stand at the same offsets. Read after the locks were granted: by a statement of its own, which
    /// sees what was committed while it waited.
    async fn level(&self, id: &TableId) -> Result<bool> {
        let (sink, run) = (self.config.name.clone(), self.run("rebuild", id));
        let offsets = self.state.offsets_table();
        let sql = format!(
            "SELECT 1 FROM {} r WHERE r.sink = $1 AND r.source_table = $3 AND r.phase = 'rebuild' AND NOT EXISTS (SELECT 1 \
             FROM (SELECT * FROM {offsets} WHERE sink = $1 AND topic = r.topic) l \
             FULL JOIN (SELECT * FROM {offsets} WHERE sink = $2 AND topic = r.topic) s USING (partition) \
             WHERE l.next_offset IS DISTINCT FROM s.next_offset OR l.unswept OR s.unswept \
             OR (l.topic_id <> s.topic_id AND {NIL} NOT IN (l.topic_id, s.topic_id)))",
            self.rebuilds
        );
        let table = id.to_string();
        let params = [(&sink as _, Type::TEXT), (&run as _, Type::TEXT), (&table as _, Type::TEXT)];
        let rows = self.connection.query(&sql, &params).await;
        let rows = rows.doing(&self.config, "compare the offsets")?;
        Ok(rows.len() == 1)
    }

    async fn pair(&self, id: TableId) -> Result<Pair> {
        let (schema, table) = self.place(&id)?;
        let shadow_name = aside(&table, "new");
        let (live, shadow) = (qualified(&schema, &table), qualified(&schema, &shadow_name));
        let gone = |name: &str| Error::config(format!("{name} is gone")).hint("begin anew: --discard");
        let live_oid = self.oid(&schema, &table).await?.ok_or_else(|| gone(&live))?;
        let shadow_oid = self.oid(&schema, &shadow_name).await?.ok_or_else(|| gone(&shadow))?;
        self.refused(&id, &self.obstacles(live_oid, &id).await?)?;
        let left_out = self.left_out(&id).await?;
        let on_purpose = |what: &String| left_out.as_ref().is_some_and(|left| left.contains(what));
        self.old_can_go(&id, (&schema, &aside(&table, "old"))).await?;
        let doing = || format!("look at {schema}.{table}");
        let connection = &self.connection;
        let columns = furniture::columns(connection, live_oid).await.doing(&self.config, doing())?;
        let theirs = furniture::columns(connection, shadow_oid).await.doing(&self.config, doing())?;
        // The shadow may have been given columns that the configuration has chosen since.
        if !columns.iter().all(|column| theirs.contains(column) || on_purpose(column)) {
            return Err(Error::config(format!(
                "{schema}.{table} was given other columns since the rebuild began"
            ))
            .hint("begin anew: --discard, then rebuild again"));
        }
        let of_live = Furniture::of(connection, live_oid, &live).await.doing(&self.config, doing())?;
        let of_shadow = Furniture::of(connection, shadow_oid, &shadow).await.doing(&self.config, doing())?;
        let sequences = furniture::sequences(connection, live_oid, &live, &live).await;
        let sequences = sequences.doing(&self.config, doing())?;
        Ok(Pair { id, schema, table, live, shadow, live_oid, of_live, of_shadow, sequences, left_out })
    }

    /// Whether the table that an earlier exchange has replaced, if there is one, may be dropped.
    async fn old_can_go(&self, id: &TableId, (schema, old): (&str, &str)) -> Result<()> {
        let Some(there) = self.oid(schema, old).await? else { return Ok(()) };
        if self.phase(id, "kept").await?.is_none() {
            return Err(Error::config(format!("{schema}.{old} is there, and no rebuild has kept it"))
                .hint("move it away"));
        }
        let readers = materialized::readers(&self.connection, there).await;
        let readers = readers.doing(&self.config, format!("look at {schema}.{old}"))?;
        if readers.is_empty() {
            return Ok(());
        }
        Err(Error::config(format!("{} still reads {schema}.{old}, which has to go", readers.join(", ")))
            .hint("drop what reads it, then call this again"))
    }

    /// What is stored changes places with the tables: what was the shadow's is the kept table's, but for the offsets, which are the same.
    async fn note(&self, pair: &Pair, keep: Duration, to_check: &[String]) -> Result<()> {
        let (run, kept) = (literal(&self.run("rebuild", &pair.id)), literal(&self.run("kept", &pair.id)));
        let (sink, table) = (literal(&self.config.name), literal(&pair.id.to_string()));
        let old = aside(&pair.table, "old");
        let checks: Vec<String> = to_check.iter().map(|sql| literal(sql)).collect();
        let mut sql = self.forget(&pair.id, "kept");
        sql.push_str(&format!(
            "UPDATE {tables} AS a SET version = b.version, generation = b.generation, shape = b.shape FROM {tables} AS b \
             WHERE a.source_table = {table} AND b.source_table = {table} \
             AND ((a.sink = {sink} AND b.sink = {run}) OR (a.sink = {run} AND b.sink = {sink})); \
             UPDATE {tables} SET target = {target} WHERE sink = {run}; \
             UPDATE {rebuilds} SET phase = 'kept', shadow = {shadow}, exchanged_at = now(), \
             keep_until = now() + {seconds} * interval '1 second', to_check = ARRAY[{checks}]::text[] \
             WHERE sink = {sink} AND source_table = {table} AND phase = 'rebuild';",
            tables = self.state.tables,
            target = literal(&qualified(&pair.schema, &old)),
            rebuilds = self.rebuilds,
            shadow = literal(&old),
            seconds = keep.as_secs(),
            checks = checks.join(", "),
        ));
        for state in self.state.all() {
            sql.push_str(&format!("UPDATE {state} SET sink = {kept} WHERE sink = {run};"));
        }
        self.sql(&sql, "note the exchange").await
    }
}

/// What is run at the exchange, and what is checked behind it.
struct Statements {
    run: Vec<String>,
    to_check: Vec<String>,
}

fn statements(pairs: &[Pair]) -> Result<Statements> {
    let mut run = Vec::new();
    // A foreign key between two of the tables is told by both.
    let ours = |key: &ForeignKey| pairs.iter().any(|pair| pair.live_oid == key.oid);
    let keys: Vec<&ForeignKey> = pairs
        .iter()
        .flat_map(|pair| pair.of_live.out.iter().chain(pair.of_live.into.iter().filter(|key| !ours(key))))
        .collect();
    run.extend(keys.iter().map(|key| format!("ALTER TABLE {} DROP CONSTRAINT {}", key.table, key.name)));
    for pair in pairs {
        run.extend(pair.of_live.strip.iter().map(|sql| sql.replace("{}", &pair.live)));
        run.extend(pair.of_shadow.revoke.iter().map(|sql| sql.replace("{}", &pair.shadow)));
        run.extend(renames(pair)?);
        run.extend(pair.sequences.iter().cloned());
        run.extend(pair.of_live.dress.iter().cloned());
    }
    for key in &keys {
        let ForeignKey { table, name, definition, .. } = key;
        run.push(format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID"));
    }
    for pair in pairs {
        run.extend(pair.of_live.views.iter().cloned());
    }
    let valid = keys.iter().filter(|key| key.valid);
    let to_check =
        valid.map(|key| format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", key.table, key.name)).collect();
    Ok(Statements { run, to_check })
}

/// Tables and indexes change names.
fn renames(pair: &Pair) -> Result<Vec<String>> {
    let old = aside(&pair.table, "old");
    let index = |name: &str| qualified(&pair.schema, name);
    let mut run = vec![format!("DROP TABLE IF EXISTS {}", qualified(&pair.schema, &old))];
    let indexes =
        matched(&pair.of_live.indexes, &pair.of_shadow.indexes, pair.left_out.as_deref(), &pair.live)?;
    for (number, (live, shadow)) in indexes.iter().enumerate() {
        let between = format!("caudal_exchanged_{number}");
        for (from, to) in [(live.as_str(), between.as_str()), (shadow, live), (&between, shadow)] {
            run.push(format!("ALTER INDEX {} RENAME TO {}", index(from), ident(to)));
        }
    }
    run.push(format!("ALTER TABLE {} RENAME TO {}", pair.live, ident(&old)));
    run.push(format!("ALTER TABLE {} RENAME TO {}", pair.shadow, ident(&pair.table)));
    Ok(run)
}

/// Each index of the one table with one of the other that is the same but for its name. With a shadow of another shape those that are
/// left out have none; the primary keys change names all the same.
fn matched(
    live: &[Index],
    shadow: &[Index],
    left_out: Option<&[String]>,
    name: &str,
) -> Result<Vec<(String, String)>> {
    let primary = |indexes: &[Index]| indexes.iter().position(|index| index.what.contains(" primary "));
    let mut left: Vec<&Index> = shadow.iter().collect();
    let (mut pairs, mut gone) = (Vec::new(), Vec::new());
    for index in live {
        let Some(at) = left.iter().position(|other| other.what == index.what) else {
            if left_out.is_some_and(|left_out| left_out.contains(&index.what)) {
                gone.push(index.clone());
                continue;
            }
            return Err(Error::config(format!(
                "{name} was given another index since the rebuild began: {}",
                index.name
            ))
            .hint("begin anew: --discard, then rebuild again"));
        };
        pairs.push((index.name.clone(), left.remove(at).name.clone()));
    }
    if left_out.is_some() {
        let added: Vec<Index> = left.into_iter().cloned().collect();
        if let (Some(one), Some(other)) = (primary(&gone), primary(&added)) {
            pairs.push((gone[one].name.clone(), added[other].name.clone()));
        }
        return Ok(pairs);
    }
    match left.first() {
        None => Ok(pairs),
        Some(_) => Err(Error::config(format!("{name} has lost an index since the rebuild began"))
            .hint("begin anew: --discard, then rebuild again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_matched_by_what_they_are() {
        let index = |name: &str, what: &str| Index { name: name.to_owned(), what: what.to_owned() };
        let live = [index("a", "btree n"), index("b", "btree unique m"), index("c", "btree n")];
        let shadow = [index("x", "btree unique m"), index("y", "btree n"), index("z", "btree n")];
        let pairs = matched(&live, &shadow, None, "t").unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(pairs, [pair("a", "y"), pair("b", "x"), pair("c", "z")]);
        assert!(
            matched(&live, &shadow[..2], None, "t").is_err()
                && matched(&live[..2], &shadow, None, "t").is_err()
        );
        // Of another shape: just what is left out may be missing, and primary keys keep their name.
        let (was, is) =
            ([index("p", "btree primary a"), live[0].clone()], [index("q", "btree primary a, b")]);
        let left = ["btree primary a".to_owned(), "btree n".to_owned()];
        assert_eq!(matched(&was, &is, Some(&left), "t").unwrap(), [pair("p", "q")]);
        assert!(matched(&was, &is, Some(&left[..1]), "t").is_err());
    }
}
