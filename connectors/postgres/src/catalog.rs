//! What the server's catalog says about a table.

use crate::client::{Connection, Failure};
use tokio_postgres::types::Type;

/// A table as it is.
#[derive(Debug)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    /// `r` for a table, `p` for a partitioned one.
    pub(crate) kind: String,
    pub(crate) columns: Vec<Present>,
    pub(crate) uniques: Vec<Unique>,
    pub(crate) foreign_keys: Vec<Reference>,
    /// Whether other tables' foreign keys point here: then it cannot be truncated by itself.
    pub(crate) referenced: bool,
    /// Whether a row that is deleted and written again leaves its mark in rows that refer to it: they go too, lose their reference, or forbid it.
    pub(crate) holds_others: bool,
}

/// A column as it is.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) name: String,
    /// As `format_type` prints it.
    pub(crate) sql: String,
    pub(crate) not_null: bool,
    /// Whether the server fills it where a row does not name it.
    pub(crate) has_default: bool,
    /// Whether the server computes it; it cannot be written.
    pub(crate) generated: bool,
    pub(crate) is_enum: bool,
}

/// A unique index.
#[derive(Debug)]
pub(crate) struct Unique {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    /// Over plain columns, of all rows, checked at once: what `ON CONFLICT` can name.
    pub(crate) plain: bool,
    /// Over plain columns, of all rows, checked when the transaction commits: its values may move between rows as they like.
    pub(crate) deferrable: bool,
}

/// A foreign key of the table.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) deferrable: bool,
}

impl Relation {
    /// Looks a table up; none if there is no relation of that name.
    pub(crate) async fn find(
        connection: &Connection,
        schema: &str,
        name: &str,
    ) -> Result<Option<Self>, Failure> {
        let rows = connection
            .query(
                "SELECT c.oid, c.relkind::text, EXISTS (SELECT 1 FROM pg_constraint k WHERE k.contype = 'f' \
                 AND k.confrelid = c.oid AND k.conrelid <> c.oid), \
                 EXISTS (SELECT 1 FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid = c.oid \
                 AND NOT (k.confdeltype = 'a' AND k.condeferrable)) \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2",
                &[(&schema, Type::TEXT), (&name, Type::TEXT)],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let mut relation = Self {
            oid: row.get(0),
            kind: row.get(1),
            columns: Vec::new(),
            uniques: Vec::new(),
            foreign_keys: Vec::new(),
            referenced: row.get(2),
            holds_others: row.get(3),
        };
        relation.read_columns(connection).await?;
        relation.read_constraints(connection).await?;
        Ok(Some(relation))
    }

    async fn read_columns(&mut self, connection: &Connection) -> Result<(), Failure> {
        let rows = connection
            .query(
                "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, \
                 a.atthasdef OR a.attidentity <> '', a.attgenerated <> '', t.typtype = 'e' \
                 FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
                 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                &[(&self.oid, Type::OID)],
            )
            .await?;
        self.columns = rows
            .iter()
            .map(|row| Present {
                name: row.get(0),
                sql: row.get(1),
                not_null: row.get(2),
                has_default: row.get(3),
                generated: row.get(4),
                is_enum: row.get(5),
            })
            .collect();
        Ok(())
    }

    async fn read_constraints(&mut self, connection: &Connection) -> Result<(), Failure> {
        let rows = connection
            .query(
                "SELECT c.relname::text, i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL, \
                 ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(n, at) \
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n \
                 WHERE k.at <= i.indnkeyatts ORDER BY k.at), \
                 NOT i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL \
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                 WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid",
                &[(&self.oid, Type::OID)],
            )
            .await?;
        self.uniques = rows
            .iter()
            .map(|row| Unique {
                name: row.get(0),
                plain: row.get(1),
                columns: row.get(2),
                deferrable: row.get(3),
            })
            .collect();
        let rows = connection
            .query(
                "SELECT conname::text, condeferrable FROM pg_constraint WHERE contype = 'f' AND conrelid = $1",
                &[(&self.oid, Type::OID)],
            )
            .await?;
        self.foreign_keys =
            rows.iter().map(|row| Reference { name: row.get(0), deferrable: row.get(1) }).collect();
        Ok(())
    }

    /// A column by its name.
    pub(crate) fn column(&self, name: &str) -> Option<&Present> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// Whether `ON CONFLICT` over just these columns (in any order) has its index.
    pub(crate) fn has_key(&self, key: &[&str]) -> bool {
        self.uniques.iter().any(|u| u.plain && is_key(u, key))
    }
}

/// Whether a unique index is over just these columns.
pub(crate) fn is_key(unique: &Unique, key: &[&str]) -> bool {
    unique.columns.len() == key.len() && key.iter().all(|k| unique.columns.iter().any(|c| c == k))
}

/// Whether a schema is there.
pub(crate) async fn schema_exists(connection: &Connection, schema: &str) -> Result<bool, Failure> {
    let sql = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
    Ok(!connection.query(sql, &[(&schema, Type::TEXT)]).await?.is_empty())
}
