//! Caudal's own tables in the database, and the fence.
//!
//! **Why only one writer's rows are ever visible.** `sinks.epoch` counts who took over. `take_over` raises it, which waits for any
//! transaction that holds the row. The last statements of each batch's transaction are: lock that row FOR SHARE *if it still
//! has our epoch*, then move the offsets *from what we read or wrote last*. Either the owner before has locked the row: then the
//! take-over waits until it committed, and reads its offsets; or the take-over was first: then the lock finds another epoch, the
//! row count is wrong, and the transaction is rolled back with its rows ([`caudal_core::Fault::Fenced`]). READ COMMITTED looks at
//! the row again after waiting for its lock, so there is no third case. The comparison of offsets also catches a store that was
//! restored or edited underneath.
//!
//! **With `consistency: key`** several instances own different partitions of one sink, and one's take-over must not displace the
//! others: there is no common epoch, and the comparison of offsets alone is the fence. It holds by the same lock: of two
//! transactions that move one partition from the same offset, the second waits for the first, finds another offset, and is
//! rolled back. Every event moves its partition's offset, so no row passes unfenced.

use crate::catalog::schema_exists;
use crate::client::{BEGIN, Connection, Doing, Failure};
use crate::config::Consistency;
use crate::quote::{ident, qualified};
use caudal_core::{Boundary, Error, LogOffset, LogPosition, Result, TablePart};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// A partition's offset as stored, by topic and partition.
pub(crate) type Offsets = HashMap<(Arc<str>, i32), LogOffset>;

/// Statements over the state tables of one sink.
#[derive(Debug)]
pub(crate) struct State {
    schema: String,
    sinks: String,
    offsets: String,
    watermarks: String,
    freshness: String,
    pub(crate) tables: String,
}

impl State {
    pub(crate) fn new(schema: &str) -> Self {
        Self {
            sinks: qualified(schema, "sinks"),
            offsets: qualified(schema, "offsets"),
            watermarks: qualified(schema, "watermarks"),
            freshness: qualified(schema, "freshness"),
            tables: qualified(schema, "tables"),
            schema: schema.to_owned(),
        }
    }

    /// The schema, unquoted.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Quoted names of all tables with a column `sink`, but that of the rebuilds.
    pub(crate) fn all(&self) -> [&str; 4] {
        [&self.sinks, &self.offsets, &self.watermarks, &self.tables]
    }

    /// The quoted name of the table of offsets.
    pub(crate) fn offsets_table(&self) -> &str {
        &self.offsets
    }

    /// What a sink has stored of a topic.
    pub(crate) async fn of_topic(
        &self,
        connection: &Connection,
        sink: &str,
        topic: &str,
    ) -> Result<LogPosition, Failure> {
        let sql = format!("SELECT {COLUMNS} FROM {} WHERE sink = $1 AND topic = $2", self.offsets);
        let rows = connection.query(&sql, &[(&sink, Type::TEXT), (&topic, Type::TEXT)]).await?;
        Ok(LogPosition { offsets: offsets(&rows).into_values().collect() })
    }

    /// The quoted name of the sequence that numbers batches with rows of histories.
    pub(crate) fn history_sequence(&self) -> String {
        qualified(&self.schema, "history_batches")
    }

    /// The quoted name of a stage table.
    pub(crate) fn stage(&self, name: &str) -> String {
        qualified(&self.schema, name)
    }

    /// Makes what is missing. Needs no privilege where nothing is.
    pub(crate) async fn create(&self, connection: &Connection) -> Result<()> {
        let config = connection.config();
        if self.exists(connection).await.doing(config, "look for the state tables")? {
            return Ok(());
        }
        let there =
            schema_exists(connection, &self.schema).await.doing(config, "look for the state schema")?;
        let old = self.has_old_freshness(connection).await.doing(config, "look for the state tables")?;
        let schema = if there {
            String::new()
        } else {
            format!("CREATE SCHEMA IF NOT EXISTS {};", ident(&self.schema))
        };
        let sql = format!(
            "{BEGIN}; SELECT pg_advisory_xact_lock({lock});
             {schema}
             CREATE TABLE IF NOT EXISTS {sinks} (
                 sink text PRIMARY KEY, epoch bigint NOT NULL, taken_over_at timestamptz NOT NULL DEFAULT now());
             CREATE TABLE IF NOT EXISTS {offsets} (
                 sink text NOT NULL, topic text NOT NULL, partition integer NOT NULL, topic_id uuid NOT NULL,
                 next_offset bigint NOT NULL, leader_epoch integer NOT NULL, epoch bigint NOT NULL,
                 as_of_ms bigint NOT NULL DEFAULT 0, unswept boolean NOT NULL DEFAULT false,
                 writer_epoch bigint NOT NULL DEFAULT 0,
                 PRIMARY KEY (sink, topic, partition));
             ALTER TABLE {offsets} ADD COLUMN IF NOT EXISTS as_of_ms bigint NOT NULL DEFAULT 0;
             ALTER TABLE {offsets} ADD COLUMN IF NOT EXISTS unswept boolean NOT NULL DEFAULT false;
             ALTER TABLE {offsets} ADD COLUMN IF NOT EXISTS writer_epoch bigint NOT NULL DEFAULT 0;
             COMMENT ON COLUMN {offsets}.as_of_ms IS
                 'milliseconds since the epoch: what was written to the partition before is applied';
             COMMENT ON COLUMN {offsets}.unswept IS 'a sweep of the table has begun and is not over';
             COMMENT ON COLUMN {offsets}.writer_epoch IS
                 'the newest writer of the partition that was read; what those before it wrote later is not applied';
             CREATE TABLE IF NOT EXISTS {tables} (
                 sink text NOT NULL, source_table text NOT NULL, target text NOT NULL, version integer NOT NULL,
                 generation integer NOT NULL, shape text NOT NULL, PRIMARY KEY (sink, source_table));
             CREATE TABLE IF NOT EXISTS {watermarks} (
                 sink text NOT NULL, source_table text NOT NULL, part integer NOT NULL, parts integer NOT NULL,
                 source text NOT NULL, complete_to timestamptz NOT NULL, source_position text NOT NULL,
                 applied_at timestamptz NOT NULL, PRIMARY KEY (sink, source_table, part)) WITH (fillfactor = 50);
             {old}
             CREATE OR REPLACE VIEW {freshness} AS
                 SELECT w.sink, w.source, w.source_table, t.target, min(w.complete_to) AS complete_to,
                     (array_agg(w.source_position ORDER BY w.complete_to))[1] AS source_position,
                     max(w.applied_at) AS applied_at
                 FROM {watermarks} w LEFT JOIN {tables} t USING (sink, source_table)
                 GROUP BY w.sink, w.source, w.source_table, t.target HAVING count(*) = max(w.parts);
             COMMENT ON VIEW {freshness} IS
                 'for each table complete_to: the clock of its source, up to which the table shows everything that was committed there';
             COMMIT",
            lock = advisory(&self.schema),
            sinks = self.sinks,
            offsets = self.offsets,
            tables = self.tables,
            watermarks = self.watermarks,
            freshness = self.freshness,
            // Releases before had one row for each sink there. Nothing is lost: the next watermark tells it anew.
            old = if old { format!("DROP TABLE {};", self.freshness) } else { String::new() },
        );
        connection
            .batch(&sql)
            .await
            .doing(config, format!("create the state tables in schema {}", self.schema))
    }

    async fn exists(&self, connection: &Connection) -> Result<bool, Failure> {
        // The newest part of them.
        let sql = "SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'writer_epoch') \
                   AND EXISTS (SELECT 1 FROM pg_class WHERE oid = to_regclass($2) AND relkind = 'v')";
        let names = [(&self.offsets as _, Type::TEXT), (&self.freshness as _, Type::TEXT)];
        let rows = connection.query(sql, &names).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    async fn has_old_freshness(&self, connection: &Connection) -> Result<bool, Failure> {
        let sql = "SELECT 1 FROM pg_class WHERE oid = to_regclass($1) AND relkind = 'r'";
        Ok(!connection.query(sql, &[(&self.freshness as _, Type::TEXT)]).await?.is_empty())
    }

    /// Fences whoever wrote before, and gives the new epoch (none where instances share the sink) with the stored offsets.
    pub(crate) async fn take_over(&self, connection: &Connection) -> Result<(Option<i64>, Offsets)> {
        let config = connection.config();
        let doing = || format!("take over sink {}", config.name);
        if config.consistency == Consistency::Key {
            let sql = format!("SELECT {COLUMNS} FROM {} WHERE sink = $1", self.offsets);
            let rows = connection.query(&sql, &[(&config.name, Type::TEXT)]).await.doing(config, doing())?;
            return Ok((None, offsets(&rows)));
        }
        let lock_timeout = config.lock_timeout.as_millis();
        connection
            .batch(&format!(
                "{BEGIN}; SET LOCAL lock_timeout = {lock_timeout}; SET LOCAL statement_timeout = 0"
            ))
            .await
            .doing(config, doing())?;
        let bump = format!(
            "INSERT INTO {} AS s (sink, epoch) VALUES ($1, 1) \
             ON CONFLICT (sink) DO UPDATE SET epoch = s.epoch + 1, taken_over_at = now() RETURNING epoch",
            self.sinks
        );
        let rows = connection.query(&bump, &[(&config.name, Type::TEXT)]).await.doing(config, doing())?;
        let epoch: i64 =
            rows.first().map(|row| row.get(0)).ok_or_else(|| Error::bug("no epoch was returned"))?;
        let stamp = format!("UPDATE {} SET epoch = $2 WHERE sink = $1 RETURNING {COLUMNS}", self.offsets);
        let rows = connection
            .query(&stamp, &[(&config.name, Type::TEXT), (&epoch, Type::INT8)])
            .await
            .doing(config, doing())?;
        let offsets = offsets(&rows);
        connection.batch("COMMIT").await.doing(config, doing())?;
        Ok((Some(epoch), offsets))
    }

    /// Locks the fence for the rest of the transaction; without an epoch there is none but the offsets.
    ///
    /// # Errors
    /// `Fenced` if somebody took over.
    pub(crate) async fn hold_fence(&self, connection: &Connection, epoch: Option<i64>) -> Result<()> {
        let Some(epoch) = epoch else { return Ok(()) };
        let config = connection.config();
        let sql = format!("SELECT 1 FROM {} WHERE sink = $1 AND epoch = $2 FOR SHARE", self.sinks);
        let held = connection
            .query(&sql, &[(&config.name, Type::TEXT), (&epoch, Type::INT8)])
            .await
            .doing(config, "hold the sink's fence")?;
        if held.len() == 1 { Ok(()) } else { Err(fenced(&config.name)) }
    }

    /// Moves offsets from `stored` to `moved`.
    ///
    /// # Errors
    /// `Fenced` if one is not where we left it.
    pub(crate) async fn move_offsets(
        &self,
        connection: &Connection,
        epoch: Option<i64>,
        stored: &Offsets,
        moved: &Offsets,
    ) -> Result<()> {
        let (known, new): (Vec<_>, Vec<_>) = moved.iter().partition(|(key, _)| stored.contains_key(*key));
        let from: Vec<i64> = known.iter().filter_map(|(key, _)| stored.get(*key)).map(|o| o.offset).collect();
        let known: Vec<&LogOffset> = known.into_iter().map(|(_, o)| o).collect();
        let new: Vec<&LogOffset> = new.into_iter().map(|(_, o)| o).collect();
        if !known.is_empty() {
            self.update(connection, epoch, &known, &from).await?;
        }
        if !new.is_empty() {
            self.insert(connection, epoch, &new).await?;
        }
        Ok(())
    }

    async fn update(
        &self,
        connection: &Connection,
        epoch: Option<i64>,
        to: &[&LogOffset],
        from: &[i64],
    ) -> Result<()> {
        let config = connection.config();
        let sql = format!(
            "UPDATE {} AS o SET next_offset = n.next, topic_id = n.id, leader_epoch = n.leader, as_of_ms = n.as_of, \
             unswept = n.unswept, writer_epoch = n.writer \
             FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11) \
             AS n(topic, id, partition, next, leader, as_of, unswept, writer, old) \
             WHERE o.sink = $1 AND o.epoch = coalesce($2, o.epoch) AND o.topic = n.topic AND o.partition = n.partition \
             AND o.next_offset = n.old",
            self.offsets
        );
        let columns = OffsetColumns::of(to);
        let mut params = columns.params(&config.name, &epoch);
        params.push((&from, Type::INT8_ARRAY));
        let count = connection.execute(&sql, &params).await.doing(config, "move the offsets")?;
        if count == to.len() as u64 { Ok(()) } else { Err(fenced(&config.name)) }
    }

    async fn insert(&self, connection: &Connection, epoch: Option<i64>, new: &[&LogOffset]) -> Result<()> {
        let config = connection.config();
        let epoch = Some(epoch.unwrap_or_default());
        let sql = format!(
            "INSERT INTO {} (sink, epoch, topic, topic_id, partition, next_offset, leader_epoch, as_of_ms, unswept, \
             writer_epoch) SELECT $1, $2, n.* FROM unnest($3, $4, $5, $6, $7, $8, $9, $10) AS n ON CONFLICT DO NOTHING",
            self.offsets
        );
        let columns = OffsetColumns::of(new);
        let params = columns.params(&config.name, &epoch);
        let count = connection.execute(&sql, &params).await.doing(config, "store the first offsets")?;
        if count == new.len() as u64 { Ok(()) } else { Err(fenced(&config.name)) }
    }

    /// Tells readers up to when these parts of tables are complete. Never back: a watermark that is repeated says nothing new.
    pub(crate) async fn tell_freshness(
        &self,
        connection: &Connection,
        boundary: &Boundary,
        source: &str,
        parts: &[&TablePart],
    ) -> Result<()> {
        let config = connection.config();
        let sql = format!(
            "INSERT INTO {} AS w (sink, source, complete_to, source_position, applied_at, source_table, part, parts) \
             SELECT $1, $2, to_timestamp(0) + $3 * interval '1 microsecond', $4, clock_timestamp(), n.* \
             FROM unnest($5, $6, $7) AS n(source_table, part, parts) \
             ON CONFLICT (sink, source_table, part) DO UPDATE SET complete_to = excluded.complete_to, \
             source_position = excluded.source_position, applied_at = excluded.applied_at, source = excluded.source, \
             parts = excluded.parts",
            self.watermarks
        );
        // A token may hold any character but this one.
        let token = boundary.position.token.replace('\0', "");
        let tables: Vec<String> = parts.iter().map(|p| p.table.to_string()).collect();
        let part: Vec<i32> = parts.iter().map(|p| p.part as i32).collect();
        let of: Vec<i32> = parts.iter().map(|p| p.parts as i32).collect();
        let params: [crate::client::Param<'_>; 7] = [
            (&config.name, Type::TEXT),
            (&source, Type::TEXT),
            (&(boundary.ts_us as f64), Type::FLOAT8),
            (&token, Type::TEXT),
            (&tables, Type::TEXT_ARRAY),
            (&part, Type::INT4_ARRAY),
            (&of, Type::INT4_ARRAY),
        ];
        connection.execute(&sql, &params).await.doing(config, "tell the freshness")?;
        Ok(())
    }

    /// Removes what was told of parts that no longer are: a table whose rows are spread otherwise now.
    pub(crate) async fn forget_parts(&self, connection: &Connection, parts: &[&TablePart]) -> Result<()> {
        let config = connection.config();
        let sql = format!(
            "DELETE FROM {} w USING unnest($2, $3) AS n(source_table, parts) WHERE w.sink = $1 \
             AND w.source_table = n.source_table AND w.parts <> n.parts",
            self.watermarks
        );
        let tables: Vec<String> = parts.iter().map(|p| p.table.to_string()).collect();
        let of: Vec<i32> = parts.iter().map(|p| p.parts as i32).collect();
        let params: [crate::client::Param<'_>; 3] =
            [(&config.name, Type::TEXT), (&tables, Type::TEXT_ARRAY), (&of, Type::INT4_ARRAY)];
        connection.execute(&sql, &params).await.doing(config, "tell the freshness")?;
        Ok(())
    }
}

/// Offsets by column, as array parameters.
struct OffsetColumns<'a> {
    topics: Vec<&'a str>,
    ids: Vec<uuid::Uuid>,
    partitions: Vec<i32>,
    next: Vec<i64>,
    leaders: Vec<i32>,
    as_of: Vec<i64>,
    unswept: Vec<bool>,
    writers: Vec<i64>,
}

impl<'a> OffsetColumns<'a> {
    fn of(offsets: &[&'a LogOffset]) -> Self {
        Self {
            topics: offsets.iter().map(|o| &*o.topic).collect(),
            ids: offsets.iter().map(|o| o.topic_id).collect(),
            partitions: offsets.iter().map(|o| o.partition).collect(),
            next: offsets.iter().map(|o| o.offset).collect(),
            leaders: offsets.iter().map(|o| o.leader_epoch).collect(),
            as_of: offsets.iter().map(|o| o.as_of_ms).collect(),
            unswept: offsets.iter().map(|o| o.unswept).collect(),
            writers: offsets.iter().map(|o| o.writer_epoch).collect(),
        }
    }

    fn params<'p>(&'p self, sink: &'p String, epoch: &'p Option<i64>) -> Vec<crate::client::Param<'p>> {
        vec![
            (sink, Type::TEXT),
            (epoch, Type::INT8),
            (&self.topics, Type::TEXT_ARRAY),
            (&self.ids, Type::UUID_ARRAY),
            (&self.partitions, Type::INT4_ARRAY),
            (&self.next, Type::INT8_ARRAY),
            (&self.leaders, Type::INT4_ARRAY),
            (&self.as_of, Type::INT8_ARRAY),
            (&self.unswept, Type::BOOL_ARRAY),
            (&self.writers, Type::INT8_ARRAY),
        ]
    }
}

/// What is read of an offset.
const COLUMNS: &str =
    "topic, topic_id, partition, next_offset, leader_epoch, as_of_ms, unswept, writer_epoch";

/// Rows of (topic, its id, partition, next offset, leader's epoch).
fn offsets(rows: &[Row]) -> Offsets {
    let offset = |row: &Row| {
        let topic: Arc<str> = Arc::from(row.get::<_, &str>(0));
        let partition = row.get(2);
        let offset = LogOffset {
            topic: Arc::clone(&topic),
            topic_id: row.get(1),
            partition,
            offset: row.get(3),
            leader_epoch: row.get(4),
            as_of_ms: row.get(5),
            unswept: row.get(6),
            writer_epoch: row.get(7),
        };
        ((topic, partition), offset)
    };
    rows.iter().map(offset).collect()
}

fn fenced(sink: &str) -> Error {
    Error::fenced(format!("another instance took sink {sink} over; nothing of this batch was applied"))
}

/// The number of an advisory lock: FNV-1a of its name, so that all instances agree.
pub(crate) fn advisory(name: &str) -> i64 {
    fnv(name) as i64
}

/// FNV-1a, 64 bits.
pub(crate) fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
