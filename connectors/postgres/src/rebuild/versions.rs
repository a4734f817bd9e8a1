//! What a table has and its topic no longer: ended versions of a history, rows that were deleted and are kept.
//!
//! A compacted topic holds the newest record of each key, and deletes for a while. A shadow that is filled from it lacks what came before, and
//! only the table has that. So it is kept: after the shadow was filled, the rows of the table that it lacks are added to it as they are.
//!
//! **Why none is lost, and none is there twice.** When the shadow is made, the greatest `_seq` of the table is noted. The versions up to it are of
//! records before the offsets that the sink had committed by then, and the shadow is filled beyond these before anything is kept: a version that it
//! lacks is in no record any more. Key and position, the primary key of a history, tell versions apart. Compaction leaves newer records, so a version
//! that is kept comes before those of its key that the topic holds; its `_seq` is less than theirs, as both are numbers of one sequence.
//!
//! What is so *now* the topic says alone. A version that is open in the table, and that the topic does not hold, has ended: with the next version
//! of its key, or, where there is none, at an unknown time before now, which is written as now.
//!
//! A deletion whose record was compacted away comes to the shadow by its tombstone alone, without its time and place, as a version that ends in `@0`. The
//! table may have the version that the record itself made: where its last one of the key, of those that the shadow lacks, is a deletion, it is
//! that one, and the tombstone's goes.
//!
//! Of deleted rows (`deletes: soft`) the key decides: the topic holds what came after, or nothing.

use super::reshape::NewShape;
use super::{PgRebuild, aside};
use crate::catalog::Relation;
use crate::client::Doing;
use crate::config::Deletes;
use crate::quote::{ident, qualified};
use caudal_core::{Error, Result, TableId};
use tokio_postgres::types::Type;

const IS_HISTORY: &str = "SELECT 1 FROM pg_attribute WHERE attrelid = $1 AND NOT attisdropped \
     AND attname IN ('_seq', '_position', '_valid_to') HAVING count(*) = 3";

impl PgRebuild {
    /// Whether the table has, and is to have, what its topic may no longer hold.
    pub(super) async fn keeps(&self, live: u32, id: &TableId, shape: Option<&NewShape>) -> Result<bool> {
        let rules = self.config.rules(id);
        if shape.is_some_and(|shape| shape.history) {
            return Ok(false);
        }
        if rules.history {
            return self.is_history(live).await;
        }
        Ok(rules.deletes == Deletes::Soft && self.keeps_deleted(live).await?)
    }

    async fn is_history(&self, oid: u32) -> Result<bool> {
        let rows = self.connection.query(IS_HISTORY, &[(&oid, Type::OID)]).await;
        Ok(!rows.doing(&self.config, "look for versions")?.is_empty())
    }

    /// Notes up to where versions are those of records that the shadow will have read.
    pub(super) async fn note_versions(&self, live: u32, id: &TableId) -> Result<()> {
        if !self.config.rules(id).history || !self.is_history(live).await? {
            return Ok(());
        }
        let (place, table) = self.place(id)?;
        let live = qualified(&place, &table);
        // Of several writers one may have a number below the greatest and not have committed it.
        self.sql(&format!("LOCK TABLE {live} IN SHARE MODE"), "wait for the table's writers").await?;
        let sql = format!(
            "UPDATE {} SET versions_to = (SELECT coalesce(max(_seq), 0) FROM {live}) \
             WHERE sink = $1 AND source_table = $2 AND phase = 'rebuild'",
            self.rebuilds,
        );
        let source = id.to_string();
        let params = [(&self.config.name as _, Type::TEXT), (&source as _, Type::TEXT)];
        self.connection.execute(&sql, &params).await.doing(&self.config, "note versions")?;
        Ok(())
    }

    /// Adds what only the table has to the shadow; gives the number of rows.
    pub(super) async fn keep_versions(&self, id: &TableId) -> Result<u64> {
        let (place, table) = self.place(id)?;
        let doing = || format!("keep what only {place}.{table} has");
        let (live, new) =
            (self.relation(&place, &table).await?, self.relation(&place, &aside(&table, "new")).await?);
        // A shadow of the other kind takes nothing.
        let history = self.is_history(live.oid).await?;
        if history != self.is_history(new.oid).await? {
            return Ok(0);
        }
        // Rows that were deleted are told apart in both, or nothing is kept.
        if !history {
            for oid in [live.oid, new.oid] {
                if !self.keeps_deleted(oid).await? {
                    return Ok(0);
                }
            }
        }
        let columns: Vec<String> = new
            .columns
            .iter()
            .filter(|column| {
                !column.generated && live.column(&column.name).is_some_and(|there| !there.generated)
            })
            .map(|column| ident(&column.name))
            .collect();
        let key = self.key(new.oid).await?;
        let same =
            |key: &[String]| key.iter().map(|k| format!("s.{k} = l.{k}")).collect::<Vec<_>>().join(" AND ");
        let (old, shadow) = (qualified(&place, &table), qualified(&place, &aside(&table, "new")));
        let source: Vec<String> = key.iter().filter(|column| *column != "\"_position\"").cloned().collect();
        let value = |column: &String| match column.as_str() {
            "\"_valid_to\"" if history => format!(
                "coalesce(l._valid_to, greatest(l._at, coalesce((SELECT min(s._at) FROM {shadow} s WHERE {}), now())))",
                same(&source)
            ),
            _ => format!("l.{column}"),
        };
        let values: Vec<String> = columns.iter().map(value).collect();
        let which = if history {
            format!(
                "l._seq <= (SELECT versions_to FROM {} WHERE sink = $1 AND source_table = $2 AND phase = 'rebuild')",
                self.rebuilds
            )
        } else {
            "l._deleted AND $1::text IS NOT NULL AND $2::text IS NOT NULL".to_owned()
        };
        let lacks = format!("{which} AND NOT EXISTS (SELECT 1 FROM {shadow} s WHERE {})", same(&key));
        let name = id.to_string();
        let params = [(&self.config.name as _, Type::TEXT), (&name as _, Type::TEXT)];
        if history {
            let sql = format!(
                "DELETE FROM {shadow} AS t WHERE t._op = 'd' AND t._position LIKE '%@0' AND 'd' = \
                 (SELECT l._op FROM {old} l WHERE {} AND {lacks} ORDER BY l._seq DESC LIMIT 1)",
                source.iter().map(|k| format!("t.{k} = l.{k}")).collect::<Vec<_>>().join(" AND ")
            );
            self.connection.execute(&sql, &params).await.doing(&self.config, doing())?;
        }
        let sql = format!(
            "INSERT INTO {shadow} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {old} l WHERE {lacks}",
            columns.join(", "),
            values.join(", "),
        );
        self.connection.execute(&sql, &params).await.doing(&self.config, doing())
    }

    async fn relation(&self, place: &str, table: &str) -> Result<Relation> {
        let relation = Relation::find(&self.connection, place, table).await;
        let relation = relation.doing(&self.config, format!("look at {place}.{table}"))?;
        relation
            .ok_or_else(|| Error::config(format!("{place}.{table} is gone")).hint("begin anew: --discard"))
    }

    /// The quoted columns of its primary key.
    async fn key(&self, oid: u32) -> Result<Vec<String>> {
        let sql = "SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) \
                   WHERE i.indrelid = $1 AND i.indisprimary";
        let rows = self.connection.query(sql, &[(&oid, Type::OID)]).await;
        let rows = rows.doing(&self.config, "look for a primary key")?;
        if rows.is_empty() {
            return Err(Error::config("the shadow has no primary key: nothing tells its rows apart").hint(
                "leave the table's primary key as the sink has made it, then --discard and begin anew",
            ));
        }
        Ok(rows.iter().map(|row| ident(row.get(0))).collect())
    }
}
