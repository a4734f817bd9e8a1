//! What hangs on a table beside its rows: what an exchange of two tables has to carry over from the one to the other.
//!
//! Columns with their defaults, NOT NULL and CHECK constraints, keys, indexes, statistics and comments come with `CREATE TABLE … (LIKE … INCLUDING
//! ALL)`. Here is the rest: names of indexes, foreign keys both ways, views, triggers, row security, owner, grants, sequences. Texts are asked with
//! an empty `search_path`, so that each name in them is whole and means, after the exchange, whichever table has it then.
//! What cannot be carried over ([`obstacles`]) is told before anything is done.

use crate::client::{Connection, Failure};
use crate::quote::{ident, literal, qualified};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// An index: its name, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) name: String,
    pub(super) what: String,
}

/// A foreign key: quoted table, quoted name, definition, whether the rows that are there hold it.
#[derive(Clone, Debug)]
pub(super) struct ForeignKey {
    pub(super) table: String,
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) definition: String,
    pub(super) valid: bool,
}

/// All of it, of one table.
#[derive(Clone, Debug)]
pub(super) struct Furniture {
    pub(super) indexes: Vec<Index>,
    pub(super) out: Vec<ForeignKey>,
    pub(super) into: Vec<ForeignKey>,
    /// Statements that make the views read whichever table has the name.
    pub(super) views: Vec<String>,
    /// Statements that take triggers and policies away; the table stands for itself as `{}`.
    pub(super) strip: Vec<String>,
    /// Statements that take away what others may do with it.
    pub(super) revoke: Vec<String>,
    /// Statements that make them again, grants and settings among them; they name the table as it is named.
    pub(super) dress: Vec<String>,
}

async fn texts(connection: &Connection, sql: &str, oid: u32) -> Result<Vec<Row>, Failure> {
    connection.query(sql, &[(&oid, Type::OID)]).await
}

/// The table's number; none if it is not there.
pub(super) async fn oid(
    connection: &Connection,
    (schema, table): (&str, &str),
) -> Result<Option<u32>, Failure> {
    let sql = "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relname = $2";
    let rows = connection.query(sql, &[(&schema, Type::TEXT), (&table, Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// The columns in their order: what must be alike in both tables.
pub(super) async fn columns(connection: &Connection, oid: u32) -> Result<Vec<String>, Failure> {
    let sql = "SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END \
               FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    Ok(texts(connection, sql, oid).await?.iter().map(|row| row.get(0)).collect())
}

/// The indexes. What they are is told by columns, expressions and condition, not by names.
pub(super) async fn indexes(connection: &Connection, oid: u32) -> Result<Vec<Index>, Failure> {
    let sql = "SELECT c.relname::text, concat_ws(' ', am.amname, CASE WHEN i.indisprimary THEN 'primary' END, \
                 CASE WHEN i.indisunique THEN 'unique' END, k.contype::text, k.condeferrable, k.condeferred, i.indnkeyatts, \
                 (SELECT string_agg(pg_get_indexdef(i.indexrelid, n, false), ', ' ORDER BY n) FROM generate_series(1, i.indnatts) n), \
                 pg_get_expr(i.indpred, i.indrelid)) \
               FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam \
               LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x') \
               WHERE i.indrelid = $1 ORDER BY c.oid";
    let rows = texts(connection, sql, oid).await?;
    Ok(rows.iter().map(|row| Index { name: row.get(0), what: row.get(1) }).collect())
}

async fn foreign_keys(
    connection: &Connection,
    oid: u32,
    condition: &str,
) -> Result<Vec<ForeignKey>, Failure> {
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, c.oid, k.conname::text, pg_get_constraintdef(k.oid), k.convalidated \
         FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND {condition} ORDER BY k.oid"
    );
    let rows = texts(connection, &sql, oid).await?;
    let key = |row: &Row| ForeignKey {
        table: qualified(row.get(0), row.get(1)),
        oid: row.get(2),
        name: ident(row.get(3)),
        definition: row.get::<_, String>(4).trim_end_matches(" NOT VALID").to_owned(),
        valid: row.get(5),
    };
    Ok(rows.iter().map(key).collect())
}

impl Furniture {
    /// Of a table, whose quoted name is `name`.
    pub(super) async fn of(connection: &Connection, oid: u32, name: &str) -> Result<Self, Failure> {
        let mut furniture = Self {
            indexes: indexes(connection, oid).await?,
            out: foreign_keys(connection, oid, "k.conrelid = $1").await?,
            into: foreign_keys(connection, oid, "k.confrelid = $1 AND k.conrelid <> $1").await?,
            views: views(connection, oid).await?,
            strip: Vec::new(),
            revoke: Vec::new(),
            dress: Vec::new(),
        };
        furniture.settings(connection, oid, name).await?;
        furniture.grants(connection, oid, name).await?;
        furniture.triggers(connection, oid, name).await?;
        furniture.policies(connection, oid, name).await?;
        Ok(furniture)
    }

    async fn settings(&mut self, connection: &Connection, oid: u32, name: &str) -> Result<(), Failure> {
        let sql = "SELECT pg_get_userbyid(relowner)::text, relrowsecurity, relforcerowsecurity, relreplident::text, \
                   obj_description(oid, 'pg_class'), CASE relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END FROM pg_class WHERE oid = $1";
        for row in texts(connection, sql, oid).await? {
            self.dress.push(format!("ALTER TABLE {name} OWNER TO {}", ident(row.get(0))));
            for (on, what) in [(1, "ENABLE"), (2, "FORCE")] {
                if row.get(on) {
                    self.dress.push(format!("ALTER TABLE {name} {what} ROW LEVEL SECURITY"));
                }
            }
            match row.get::<_, &str>(3) {
                "f" => self.dress.push(format!("ALTER TABLE {name} REPLICA IDENTITY FULL")),
                "n" => self.dress.push(format!("ALTER TABLE {name} REPLICA IDENTITY NOTHING")),
                _ => {}
            }
            if let Some(comment) = row.get::<_, Option<String>>(4) {
                let kind: &str = row.get(5);
                self.dress.push(format!("COMMENT ON {kind} {name} IS {}", literal(&comment)));
            }
        }
        // The indexes have their names again when this is run.
        let sql = "SELECT c.relname::text, i.indisreplident, i.indisclustered FROM pg_index i \
                   JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1 AND (i.indisreplident OR i.indisclustered)";
        for row in texts(connection, sql, oid).await? {
            let index = ident(row.get(0));
            if row.get(1) {
                self.dress.push(format!("ALTER TABLE {name} REPLICA IDENTITY USING INDEX {index}"));
            }
            if row.get(2) {
                self.dress.push(format!("ALTER TABLE {name} CLUSTER ON {index}"));
            }
        }
        Ok(())
    }

    async fn grants(&mut self, connection: &Connection, oid: u32, name: &str) -> Result<(), Failure> {
        let grantee = "CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END";
        let sql = format!(
            "SELECT a.privilege_type || CASE WHEN l.col IS NULL THEN '' ELSE ' (' || quote_ident(l.col) || ')' END, {grantee}, a.is_grantable \
             FROM (SELECT relacl AS acl, NULL::text AS col, relowner AS owner FROM pg_class WHERE oid = $1 \
               UNION ALL SELECT t.attacl, t.attname::text, c.relowner FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid \
               WHERE t.attrelid = $1 AND t.attnum > 0 AND NOT t.attisdropped) l, aclexplode(l.acl) a WHERE a.grantee <> l.owner"
        );
        for row in texts(connection, &sql, oid).await? {
            let (what, whom): (&str, &str) = (row.get(0), row.get(1));
            let option = if row.get(2) { " WITH GRANT OPTION" } else { "" };
            self.dress.push(format!("GRANT {what} ON TABLE {name} TO {whom}{option}"));
        }
        // What somebody's default privileges gave to a new table is not the old one's.
        let sql = format!(
            "SELECT DISTINCT {grantee} FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = $1 AND a.grantee <> c.relowner"
        );
        for row in texts(connection, &sql, oid).await? {
            self.revoke.push(format!("REVOKE ALL ON TABLE {{}} FROM {}", row.get::<_, &str>(0)));
        }
        Ok(())
    }

    async fn triggers(&mut self, connection: &Connection, oid: u32, name: &str) -> Result<(), Failure> {
        let sql = "SELECT tgname::text, pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger \
                   WHERE tgrelid = $1 AND NOT tgisinternal ORDER BY oid";
        for row in texts(connection, sql, oid).await? {
            let trigger = ident(row.get(0));
            self.strip.push(format!("DROP TRIGGER {trigger} ON {{}}"));
            self.dress.push(row.get(1));
            let enabled = match row.get::<_, &str>(2) {
                "D" => "DISABLE",
                "R" => "ENABLE REPLICA",
                "A" => "ENABLE ALWAYS",
                _ => continue,
            };
            self.dress.push(format!("ALTER TABLE {name} {enabled} TRIGGER {trigger}"));
        }
        Ok(())
    }

    async fn policies(&mut self, connection: &Connection, oid: u32, name: &str) -> Result<(), Failure> {
        let sql = "SELECT polname::text, polpermissive, CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' \
                     WHEN 'd' THEN 'DELETE' ELSE 'ALL' END, \
                   (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(polroles) r), \
                   pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid) FROM pg_policy WHERE polrelid = $1";
        for row in texts(connection, sql, oid).await? {
            let policy = ident(row.get(0));
            self.strip.push(format!("DROP POLICY {policy} ON {{}}"));
            let kind = if row.get(1) { "PERMISSIVE" } else { "RESTRICTIVE" };
            let (command, roles): (&str, &str) = (row.get(2), row.get(3));
            let mut sql = format!("CREATE POLICY {policy} ON {name} AS {kind} FOR {command} TO {roles}");
            for (at, word) in [(4, "USING"), (5, "WITH CHECK")] {
                if let Some(expression) = row.get::<_, Option<&str>>(at) {
                    sql.push_str(&format!(" {word} ({expression})"));
                }
            }
            self.dress.push(sql);
        }
        Ok(())
    }
}

async fn views(connection: &Connection, oid: u32) -> Result<Vec<String>, Failure> {
    let sql = "SELECT DISTINCT n.nspname::text, v.relname::text, pg_get_viewdef(v.oid), array_to_string(v.reloptions, ', ') \
               FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class \
               JOIN pg_namespace n ON n.oid = v.relnamespace \
               WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND v.relkind = 'v'";
    let statement = |row: &Row| {
        let options = row.get::<_, Option<&str>>(3).filter(|o| !o.is_empty());
        let options = options.map_or_else(String::new, |o| format!(" WITH ({o})"));
        format!(
            "CREATE OR REPLACE VIEW {}{options} AS {}",
            qualified(row.get(0), row.get(1)),
            row.get::<_, &str>(2)
        )
    };
    Ok(texts(connection, sql, oid).await?.iter().map(statement).collect())
}

/// Statements that lock the views over a table, and nothing else: `LOCK TABLE` would need rights to what they read.
pub(super) async fn view_locks(connection: &Connection, oid: u32) -> Result<Vec<String>, Failure> {
    let sql = "SELECT DISTINCT format('ALTER VIEW %I.%I OWNER TO %I', n.nspname, v.relname, pg_get_userbyid(v.relowner)) \
               FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class \
               JOIN pg_namespace n ON n.oid = v.relnamespace \
               WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND v.relkind = 'v' \
               ORDER BY 1";
    Ok(texts(connection, sql, oid).await?.iter().map(|row| row.get(0)).collect())
}

/// What an exchange could not carry over, in words. Up to version 14 a table with a generated column depends on itself.
pub(super) async fn obstacles(connection: &Connection, oid: u32) -> Result<Vec<String>, Failure> {
    let sql = "SELECT 'it is no plain table' FROM pg_class WHERE oid = $1 AND (relkind <> 'r' OR relispartition OR relhassubclass) \
               UNION ALL SELECT format('you may not make %s anew: it belongs to %s', pg_describe_object('pg_class'::regclass, v.oid, 0), \
                   pg_get_userbyid(v.relowner)) \
                 FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class \
                 WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 \
                 AND v.relkind = 'v' AND NOT pg_has_role(v.relowner, 'MEMBER') \
               UNION ALL SELECT DISTINCT format('%s, which is partitioned, has a foreign key to it', k.conrelid::regclass) \
                 FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid \
                 WHERE k.contype = 'f' AND k.confrelid = $1 AND (c.relkind = 'p' OR c.relispartition) \
               UNION ALL SELECT DISTINCT format('%s reads it', pg_describe_object('pg_class'::regclass, v.oid, 0)) \
                 FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class \
                 WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND v.relkind NOT IN ('v', 'm') \
               UNION ALL SELECT DISTINCT format('%s depends on it', pg_describe_object(d.classid, d.objid, 0)) FROM pg_depend d \
                 WHERE NOT (d.classid = 'pg_class'::regclass AND d.objid = $1) AND ((d.refclassid = 'pg_class'::regclass AND d.refobjid = $1) OR (d.refclassid = 'pg_type'::regclass \
                   AND d.refobjid IN (SELECT reltype FROM pg_class WHERE oid = $1))) AND d.deptype IN ('n', 'a') \
                 AND d.classid NOT IN ('pg_rewrite'::regclass, 'pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_trigger'::regclass, \
                   'pg_policy'::regclass, 'pg_statistic_ext'::regclass) \
                 AND NOT EXISTS (SELECT 1 FROM pg_class x WHERE d.classid = 'pg_class'::regclass AND x.oid = d.objid AND x.relkind IN ('i', 'S', 't'))";
    Ok(texts(connection, sql, oid).await?.iter().map(|row| row.get(0)).collect())
}

/// Sequences of a table's columns: those of `serial` columns move along; those of identity columns go on where they stood.
pub(super) async fn sequences(
    connection: &Connection,
    oid: u32,
    name: &str,
    from: &str,
) -> Result<Vec<String>, Failure> {
    let sql = "SELECT n.nspname::text, s.relname::text, a.attname::text, d.deptype::text FROM pg_depend d \
               JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace \
               JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
               WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.deptype IN ('a', 'i')";
    let statement = |row: &Row| {
        let (sequence, column): (String, &str) = (qualified(row.get(0), row.get(1)), row.get(2));
        match row.get::<_, &str>(3) {
            "a" => format!("ALTER SEQUENCE {sequence} OWNED BY {name}.{}", ident(column)),
            _ => format!(
                "SELECT setval(pg_get_serial_sequence({}, {}), q.last_value, q.is_called) FROM {sequence} q",
                literal(from),
                literal(column)
            ),
        }
    };
    Ok(texts(connection, sql, oid).await?.iter().map(statement).collect())
}
