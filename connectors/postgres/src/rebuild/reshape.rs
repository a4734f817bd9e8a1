//! A shadow of another shape than the table it is to replace: that which the configuration says now.
//!
//! The shadow is made like the table and is changed while it is empty, so all that hangs on what stays, stays: indexes, checks, defaults,
//! statistics. What the table has and the shadow is not meant to have (`left_out`) is written down with the rebuild. At the exchange
//! just that may be missing: whatever else somebody has changed meanwhile is found, as with a shadow of the same shape.

use super::furniture;
use super::{PgRebuild, aside};
use crate::catalog::Relation;
use crate::client::Doing;
use crate::config::Deletes;
use crate::plan::takes;
use crate::project::{Projector, ROLES, Role, VALID};
use crate::quote::{ident, qualified};
use crate::shape::Shaper;
use crate::types::{JsonAs, of};
use caudal_core::{ColumnType, Error, Result, TableId, TableSchema};
use std::sync::Arc;
use tokio_postgres::types::Type;

/// How a shadow differs from the table.
pub(super) struct NewShape {
    /// The shape that the configuration says.
    pub(super) schema: Arc<TableSchema>,
    /// Columns of the table that the shadow lacks.
    dropped: Vec<String>,
    /// Columns that are of another type there: (name, type).
    retyped: Vec<(String, String)>,
    /// Whether rows become a history, or a history rows.
    pub(super) history: bool,
}

fn is_history(schema: &TableSchema) -> bool {
    schema.columns.iter().any(|column| Role::of(column.id) == Some(Role::Seq))
}

impl PgRebuild {
    /// What the configuration says otherwise than the table is; none if a shadow that is made like the table can be led there.
    pub(super) async fn new_shape(&self, oid: u32, schema: &TableSchema) -> Result<Option<NewShape>> {
        let Some((stored, relation)) = self.stored(oid, &schema.id).await? else { return Ok(None) };
        let wanted = Projector::new(self.config.tables.clone()).schema(&Arc::new(schema.clone()))?;
        let is_wanted = |name: &str| {
            wanted.columns.iter().any(|column| column.name == name)
                || is_history(&wanted) && VALID.contains(&name)
        };
        let ours = |name: &str| {
            ROLES.iter().any(|(_, role)| *role == name)
                || VALID.contains(&name)
                || schema.columns.iter().any(|column| column.name == name)
        };
        let dropped = relation
            .columns
            .iter()
            // A column that the server computes is somebody's own, but for ours.
            .filter(|there| !is_wanted(&there.name) && ours(&there.name))
            .filter(|there| !there.generated || VALID.contains(&there.name.as_str()))
            .map(|there| there.name.clone())
            .collect();
        let json = self.config.json;
        let retyped = wanted.columns.iter().filter_map(|column| {
            let there = relation.column(&column.name)?;
            // It holds the values, but not their text, which is what was asked for.
            let text = column.ty == ColumnType::Json && json == JsonAs::Json && there.sql == "jsonb";
            (!there.generated && (text || !takes(there, column, json)))
                .then(|| (column.name.clone(), of(&column.ty, json).sql))
        });
        let shape = NewShape {
            dropped,
            retyped: retyped.collect(),
            history: is_history(&stored) != is_history(&wanted),
            schema: wanted,
        };
        let same = shape.dropped.is_empty() && shape.retyped.is_empty() && !shape.history;
        Ok((!same).then_some(shape))
    }

    /// The newest shape that the sink has written, and the table.
    async fn stored(&self, oid: u32, id: &TableId) -> Result<Option<(TableSchema, Relation)>> {
        let (place, table) = self.place(id)?;
        let sql = format!(
            "SELECT shape FROM {} WHERE sink = $1 AND source_table = $2 AND target = $3",
            self.state.tables
        );
        let (source, target) = (id.to_string(), qualified(&place, &table));
        let params =
            [(&self.config.name as _, Type::TEXT), (&source as _, Type::TEXT), (&target as _, Type::TEXT)];
        let rows = self.connection.query(&sql, &params).await.doing(&self.config, "read a table's shape")?;
        let Some(row) = rows.first() else { return Ok(None) };
        let stored = serde_json::from_str(row.get(0))
            .map_err(|e| Error::bug(format!("read the stored shape of {id}")).because(e))?;
        let relation = Relation::find(&self.connection, &place, &table).await;
        let relation = relation.doing(&self.config, format!("look at {target}"))?;
        Ok(relation.filter(|relation| relation.oid == oid).map(|relation| (stored, relation)))
    }

    /// What a new shape, or the same one, cannot be made of: the topic may hold less than the table, or something hangs on what goes.
    pub(super) async fn obstacles_of_shape(
        &self,
        oid: u32,
        schema: &TableSchema,
        shape: Option<&NewShape>,
    ) -> Result<Vec<String>> {
        let rules = self.config.rules(&schema.id);
        let switched = shape.is_some_and(|shape| shape.history);
        let mut found = Vec::new();
        let keeps = self.keeps(oid, &schema.id, shape).await?;
        if rules.history && schema.key.is_empty() {
            found.push(
                "it has no key: what of a history is so now could not be compared with its topic".to_owned(),
            );
        } else if rules.deletes == Deletes::Ignore && !rules.history {
            found.push("deletes: ignore has kept rows that its topic may no longer hold".to_owned());
        } else if keeps && shape.is_some_and(|shape| !shape.retyped.is_empty()) {
            found.push(
                "it has kept rows that its topic may no longer hold, and columns are to be of another type"
                    .to_owned(),
            );
        }
        let Some(shape) = shape else { return Ok(found) };
        let doing = || format!("look at what hangs on {}", schema.id);
        if rules.history && switched {
            let sql = "SELECT format('foreign key %I is for rows, not for a history of them', conname) FROM pg_constraint \
                       WHERE contype = 'f' AND $1 IN (conrelid, confrelid)";
            let rows = self.connection.query(sql, &[(&oid, Type::OID)]).await.doing(&self.config, doing())?;
            found.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        // Views and the like name columns; what hangs on none of those that change is made again as it is.
        let mut gone: Vec<&str> = shape.dropped.iter().map(String::as_str).collect();
        gone.extend(shape.retyped.iter().map(|(name, _)| name.as_str()));
        let sql = "SELECT DISTINCT format('%s needs column %I as it is', pg_describe_object(d.classid, d.objid, 0), a.attname) \
                     FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
                     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND a.attname = ANY($2) \
                     AND (d.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass) \
                       OR d.classid = 'pg_constraint'::regclass AND (SELECT contype FROM pg_constraint WHERE oid = d.objid) = 'f' \
                       OR d.classid = 'pg_attrdef'::regclass AND NOT EXISTS (SELECT 1 FROM pg_attrdef f JOIN pg_attribute o \
                         ON o.attrelid = f.adrelid AND o.attnum = f.adnum WHERE f.oid = d.objid \
                         AND (o.attname = ANY($2) OR o.attnum = a.attnum))) \
                   UNION ALL SELECT format('rights were given on column %I', attname) FROM pg_attribute \
                     WHERE attrelid = $1 AND attname = ANY($2) AND attacl IS NOT NULL";
        let rows = self.connection.query(sql, &[(&oid, Type::OID), (&gone, Type::TEXT_ARRAY)]).await;
        found.extend(rows.doing(&self.config, doing())?.iter().map(|row| row.get::<_, String>(0)));
        Ok(found)
    }

    /// Whether the table has kept deleted rows so far.
    pub(super) async fn keeps_deleted(&self, oid: u32) -> Result<bool> {
        let sql =
            "SELECT 1 FROM pg_attribute WHERE attrelid = $1 AND attname = '_deleted' AND NOT attisdropped";
        let rows = self.connection.query(sql, &[(&oid, Type::OID)]).await;
        Ok(!rows.doing(&self.config, "look for deleted rows")?.is_empty())
    }

    /// Gives the empty shadow its shape, and notes what it lacks on purpose.
    pub(super) async fn reshape(&self, live: u32, shape: &NewShape) -> Result<()> {
        let (place, table) = self.place(&shape.schema.id)?;
        let name = aside(&table, "new");
        let shadow = qualified(&place, &name);
        let doing = || format!("give the shadow of {place}.{table} its shape");
        if shape.history {
            self.sql(&self.unique(&place, &name).await?, &doing()).await?;
        }
        let mut sql = String::new();
        // What is computed of another goes first.
        for column in shape.dropped.iter().rev() {
            sql.push_str(&format!("ALTER TABLE {shadow} DROP COLUMN {};", ident(column)));
        }
        for (column, ty) in &shape.retyped {
            let column = ident(column);
            sql.push_str(&format!(
                "ALTER TABLE {shadow} ALTER COLUMN {column} DROP DEFAULT, ALTER COLUMN {column} TYPE {ty} USING NULL::{ty};"
            ));
        }
        self.sql(&sql, &doing()).await?;
        let relation = Relation::find(&self.connection, &place, &name).await.doing(&self.config, doing())?;
        let relation = relation.ok_or_else(|| Error::config(format!("{shadow} is gone")))?;
        let sql = self.completed(shape, &relation, (&place, &name));
        self.sql(&sql, &doing()).await?;
        self.note_left_out(live, relation.oid, &shape.schema.id).await
    }

    /// Statements that take the shadow's unique indexes away: a history has a key more than once.
    async fn unique(&self, place: &str, name: &str) -> Result<String> {
        let sql = "SELECT CASE WHEN k.oid IS NULL THEN format('DROP INDEX %I.%I;', $1, c.relname) \
                   ELSE format('ALTER TABLE %I.%I DROP CONSTRAINT %I;', $1, $2, k.conname) END FROM pg_index i \
                   JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid \
                   WHERE i.indrelid = format('%I.%I', $1, $2)::regclass AND (i.indisunique OR i.indisexclusion)";
        let rows = self.connection.query(sql, &[(&place, Type::TEXT), (&name, Type::TEXT)]).await;
        let rows = rows.doing(&self.config, "look at a shadow's indexes")?;
        Ok(rows.iter().map(|row| row.get::<_, String>(0)).collect())
    }

    /// Statements that add what the shape has and the shadow not, as a table that is made now would have it.
    fn completed(&self, shape: &NewShape, relation: &Relation, (place, name): (&str, &str)) -> String {
        let schema = &shape.schema;
        let shadow = qualified(place, name);
        let mut sql = String::new();
        for (at, column) in schema.columns.iter().enumerate() {
            let key = schema.key.contains(&(at as u32));
            let quoted = ident(&column.name);
            match relation.column(&column.name) {
                None => {
                    let null =
                        if Role::of(column.id).is_some() && !column.nullable { " NOT NULL" } else { "" };
                    let ty = of(&column.ty, self.config.json).sql;
                    sql.push_str(&format!("ALTER TABLE {shadow} ADD COLUMN {quoted} {ty}{null};"));
                }
                Some(there) if there.not_null && column.nullable && !key => {
                    sql.push_str(&format!("ALTER TABLE {shadow} ALTER COLUMN {quoted} DROP NOT NULL;"));
                }
                Some(_) => {}
            }
        }
        if !shape.history {
            return sql;
        }
        let shaper = Shaper { connection: &self.connection, state: &self.state, schema };
        for column in shaper.validity() {
            sql.push_str(&format!("ALTER TABLE {shadow} ADD COLUMN {column};"));
        }
        if !schema.key.is_empty() {
            sql.push_str(&format!("ALTER TABLE {shadow} ADD {};", shaper.primary_key()));
        }
        if is_history(schema) {
            sql.push_str(shaper.of_history((place, name)).trim_start_matches(';'));
        }
        sql
    }

    /// Notes what the table has now and its shadow has not.
    pub(super) async fn note_left_out(&self, live: u32, shadow: u32, id: &TableId) -> Result<()> {
        let connection = &self.connection;
        let doing = || format!("look at {id}");
        let columns = furniture::columns(connection, live).await.doing(&self.config, doing())?;
        let theirs = furniture::columns(connection, shadow).await.doing(&self.config, doing())?;
        let indexes = furniture::indexes(connection, live).await.doing(&self.config, doing())?;
        let matches = furniture::indexes(connection, shadow).await.doing(&self.config, doing())?;
        let mut left: Vec<String> = columns.into_iter().filter(|column| !theirs.contains(column)).collect();
        let missing =
            indexes.into_iter().filter(|index| matches.iter().all(|other| other.what != index.what));
        left.extend(missing.map(|index| index.what));
        let sql = format!(
            "UPDATE {} SET left_out = $3 WHERE sink = $1 AND source_table = $2 AND phase = 'rebuild'",
            self.rebuilds
        );
        let source = id.to_string();
        let params = [
            (&self.config.name as _, Type::TEXT),
            (&source as _, Type::TEXT),
            (&left as _, Type::TEXT_ARRAY),
        ];
        self.connection.execute(&sql, &params).await.doing(&self.config, "note a rebuild")?;
        Ok(())
    }

    /// What the shadow lacks on purpose; none where both are of one shape.
    pub(super) async fn left_out(&self, id: &TableId) -> Result<Option<Vec<String>>> {
        let sql = format!(
            "SELECT left_out FROM {} WHERE sink = $1 AND source_table = $2 AND phase = 'rebuild'",
            self.rebuilds
        );
        let source = id.to_string();
        let params = [(&self.config.name as _, Type::TEXT), (&source as _, Type::TEXT)];
        let rows = self.connection.query(&sql, &params).await.doing(&self.config, "look for a rebuild")?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// Whether table and kept table are of one kind: rows, or a history. If not, what differs is noted as with a new shape.
    pub(super) async fn take_back_shape(&self, id: &TableId, live: u32, shadow: u32) -> Result<()> {
        let sql = "SELECT count(*) FROM (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = $1 AND NOT a.attisdropped \
                     AND a.attname = ANY($3) EXCEPT SELECT b.attname FROM pg_attribute b WHERE b.attrelid = $2 AND NOT b.attisdropped) x";
        let ours: Vec<&str> = ROLES.iter().map(|(_, name)| *name).chain(VALID).collect();
        for (one, other) in [(live, shadow), (shadow, live)] {
            let params = [(&one as _, Type::OID), (&other as _, Type::OID), (&ours as _, Type::TEXT_ARRAY)];
            let rows = self.connection.query(sql, &params).await.doing(&self.config, "compare two shapes")?;
            if rows.first().is_some_and(|row| row.get::<_, i64>(0) > 0) {
                return self.note_left_out(live, shadow, id).await;
            }
        }
        Ok(())
    }
}
