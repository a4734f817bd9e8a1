//! Sweeps: rows that the log no longer knows are deleted.
//!
//! From a sweep's begin on, the key of each row written goes into a table of its own (`sweep_…` in the state schema), and that
//! of each row deleted comes out of it. At the end it holds just the keys that the topic holds, and one statement deletes the target's
//! rows with other keys. Begin, keys, end and rows are in the transactions of the rows themselves, so a writer that goes away
//! leaves nothing that the next one, whose reader begins again, would take for its own: the begin makes the table anew.
//!
//! Why it is right under live changes: the target's rows and the collected keys are changed by the same events in the same
//! order. So whatever the log goes on to say while the sweep runs, a key is collected exactly if the events read so far leave
//! its row alive; what the sweep deletes has no live row in the log up to where the sink stands, and comes again if it ever
//! does.
//!
//! A row that the target refused keeps its key: the log knows it. Where not even the key can be told (a record that nobody can decode)
//! nothing is deleted, and the log says so.
//!
//! A table that is empty at the begin has nothing to sweep: the first copy of a table costs no keys.
//!
//! Memory: none here; the server's, for one anti-join, is bounded by its `work_mem`.

use crate::client::{Connection, Doing};
use crate::config::Resolved;
use crate::plan::Plan;
use crate::state::State;
use caudal_core::{Error, Result, Sweep, TableId};
use std::collections::HashMap;
use std::sync::Arc;

/// A table that is being swept.
#[derive(Debug)]
pub(crate) struct Sweeping {
    topic: Arc<str>,
    /// Quoted name of the table of keys; none where there is nothing to sweep.
    keys: Option<String>,
    /// A record's key could not be told.
    doubtful: bool,
    /// Whether all of the table's changes come in one order.
    ordered: bool,
}

/// What a writer of rows must know of a sweep.
#[derive(Clone, Debug)]
pub(crate) struct Collecting {
    /// Quoted name of the table of keys.
    pub(crate) keys: String,
    /// Whether a row may push out any other that has its unique values.
    pub(crate) ordered: bool,
}

/// The sweeps of one writer.
#[derive(Debug, Default)]
pub(crate) struct Sweeps {
    open: HashMap<TableId, Sweeping>,
}

impl Sweeps {
    /// Forgets all: what was begun is begun again.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// What collects the keys of a table's rows, if it is being swept.
    pub(crate) fn collecting(&self, table: &TableId) -> Option<Collecting> {
        let sweeping = self.open.get(table)?;
        let keys = sweeping.keys.clone()?;
        Some(Collecting { keys, ordered: sweeping.ordered })
    }

    /// A record of the topic could not be decoded.
    pub(crate) fn doubt(&mut self, topic: &str) {
        self.open.values_mut().filter(|s| &*s.topic == topic).for_each(|s| s.doubtful = true);
    }

    /// The same, of a table.
    pub(crate) fn doubt_table(&mut self, table: &TableId) {
        if let Some(sweeping) = self.open.get_mut(table) {
            sweeping.doubtful = true;
        }
    }

    /// Whether offsets of the topic wait for the end of a sweep: not where there is nothing to sweep.
    pub(crate) fn waits(&self, topic: &str) -> bool {
        self.open.values().any(|s| &*s.topic == topic && s.keys.is_some())
    }

    /// Begins a sweep inside the open transaction.
    pub(crate) async fn begin(
        &mut self,
        connection: &Connection,
        state: &State,
        plan: &Plan,
        sweep: &Sweep,
    ) -> Result<()> {
        let config = connection.config();
        let doing = || format!("begin the sweep of {}", plan.name);
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", plan.target);
        let rows = connection.query(&sql, &[]).await.doing(config, doing())?;
        let is_empty = rows.first().is_some_and(|row| !row.get::<_, bool>(0));
        if sweep.schema.key.is_empty() {
            // Nothing tells its rows apart: all of them come again.
            if !is_empty {
                tracing::warn!(
                    sink = config.name,
                    table = plan.name,
                    "emptying a table without a key, to fill it anew"
                );
                connection.batch(&plan.truncate(0)).await.doing(config, doing())?;
            }
            return Ok(());
        }
        let keys = (!is_empty).then(|| state.stage(&plan.stage_name.replacen("stage", "sweep", 1)));
        if let Some(keys) = &keys {
            tracing::info!(
                sink = config.name,
                table = plan.name,
                "reading the table anew, with a sweep at the end"
            );
            connection.batch(&plan.make_keys(keys)).await.doing(config, doing())?;
        }
        let sweeping = Sweeping {
            topic: Arc::clone(&sweep.topic),
            keys,
            doubtful: false,
            ordered: sweep.partitions == 1,
        };
        self.open.insert(sweep.schema.id.clone(), sweeping);
        Ok(())
    }

    /// Ends a sweep inside the open transaction: deletes what the log does not know.
    ///
    /// # Errors
    /// `Data` if that is more than `sweep_limit` of the table's rows.
    pub(crate) async fn end(&mut self, connection: &Connection, plan: &Plan, sweep: &Sweep) -> Result<()> {
        let config = connection.config();
        let Some(Sweeping { keys: Some(keys), doubtful, .. }) = self.open.remove(&sweep.schema.id) else {
            return Ok(());
        };
        let doing = || format!("sweep {}", plan.name);
        if doubtful {
            tracing::warn!(
                sink = config.name,
                table = plan.name,
                "records of its topic could not be decoded: no row is swept away; deletes of the time away may be missing"
            );
        } else {
            let swept = connection.execute(&plan.sweep(&keys), &[]).await.doing(config, doing())?;
            refuse_too_many(connection, config, plan, swept).await?;
            tracing::info!(sink = config.name, table = plan.name, rows = swept, "swept");
        }
        connection.batch(&format!("DROP TABLE {keys}")).await.doing(config, doing())
    }
}

/// A topic that holds next to nothing (it was made again, and only filled from then on) must not empty the target.
async fn refuse_too_many(connection: &Connection, config: &Resolved, plan: &Plan, swept: u64) -> Result<()> {
    if swept < LEAST_LIMITED || config.sweep_limit >= 100 {
        return Ok(());
    }
    let sql = format!("SELECT count(*) FROM {}", plan.target);
    let rows = connection.query(&sql, &[]).await.doing(config, format!("count {}", plan.name))?;
    let left = rows.first().map_or(0, |row| row.get::<_, i64>(0)) as u64;
    if swept * 100 <= (swept + left) * u64::from(config.sweep_limit) {
        return Ok(());
    }
    Err(Error::data(format!(
        "a sweep of {} would delete {swept} of {} rows, which its topic does not hold; nothing was deleted",
        plan.name,
        swept + left
    ))
    .field(config.field("sweep_limit"))
    .hint("if the topic is not complete, read the table into it again; if it is, raise sweep_limit (percent) for this once"))
}

/// Fewer rows than this may always go.
const LEAST_LIMITED: u64 = 1_000;

impl Plan {
    /// A table for the keys, with the types and collations of the target's.
    fn make_keys(&self, keys: &str) -> String {
        let columns: Vec<String> = self
            .key
            .iter()
            .enumerate()
            .map(|(i, k)| format!("{} AS k{i}", self.columns[*k].name()))
            .collect();
        let names: Vec<String> = (0..self.key.len()).map(|i| format!("k{i}")).collect();
        format!(
            "DROP TABLE IF EXISTS {keys}; CREATE UNLOGGED TABLE {keys} AS SELECT {} FROM {} WITH NO DATA; \
             ALTER TABLE {keys} ADD PRIMARY KEY ({})",
            columns.join(", "),
            self.target,
            names.join(", ")
        )
    }

    fn sweep(&self, keys: &str) -> String {
        let equal: Vec<String> = self
            .key
            .iter()
            .enumerate()
            .map(|(i, k)| format!("s.k{i} = t.{}", self.columns[*k].name()))
            .collect();
        let unknown = format!("NOT EXISTS (SELECT 1 FROM {keys} AS s WHERE {})", equal.join(" AND "));
        match self.gone("clock_timestamp()") {
            Some(gone) => format!("{gone} AND {unknown}"),
            None => format!("DELETE FROM {} AS t WHERE {unknown}", self.target),
        }
    }
}
