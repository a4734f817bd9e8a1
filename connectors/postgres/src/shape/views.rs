//! Views that stand on a table whose columns change their types: Postgres refuses that under them. They are dropped before, and made
//! again as they were behind it, with all that stands on them, in the change's own transaction: whoever reads waits for that long.

use crate::catalog::Relation;
use crate::client::{Connection, Failure};
use crate::quote::{ident, literal, qualified};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Statements around a change.
#[derive(Debug, Default)]
pub(super) struct Views {
    pub(super) drop: Vec<String>,
    pub(super) make: Vec<String>,
}

/// Views over the table, however far, those that stand on others behind them.
const ALL: &str = "WITH RECURSIVE v(oid, depth) AS ( \
      SELECT r.ev_class, 1 FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid \
      WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND r.ev_class <> $1 \
    UNION SELECT r.ev_class, v.depth + 1 FROM v JOIN pg_depend d ON d.refobjid = v.oid JOIN pg_rewrite r ON r.oid = d.objid \
      WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND r.ev_class <> v.oid AND v.depth < 100) \
    SELECT c.oid, n.nspname::text, c.relname::text, pg_get_viewdef(c.oid), array_to_string(c.reloptions, ', '), \
      pg_get_userbyid(c.relowner)::text, obj_description(c.oid, 'pg_class') \
    FROM (SELECT oid, max(depth) AS depth FROM v GROUP BY oid) w JOIN pg_class c ON c.oid = w.oid AND c.relkind = 'v' \
    JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY w.depth, c.oid";

/// What others than the owner may do with a view: on it, or on a column of it.
const GRANTS: &str = "SELECT a.privilege_type || CASE WHEN l.col IS NULL THEN '' ELSE ' (' || quote_ident(l.col) || ')' END, \
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, a.is_grantable \
    FROM (SELECT relacl AS acl, NULL::text AS col, relowner AS owner FROM pg_class WHERE oid = $1 \
      UNION ALL SELECT t.attacl, t.attname::text, c.relowner FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid \
      WHERE t.attrelid = $1 AND t.attnum > 0 AND NOT t.attisdropped) l, aclexplode(l.acl) a WHERE a.grantee <> l.owner";

impl Views {
    /// Of the views over a table. Names in their texts are whole, since the `search_path` is empty while they are asked for.
    pub(super) async fn of(connection: &Connection, relation: &Relation) -> Result<Self, Failure> {
        connection.batch("SET LOCAL search_path = ''").await?;
        let mut views = Self::default();
        for row in connection.query(ALL, &[(&relation.oid, Type::OID)]).await? {
            let oid: u32 = row.get(0);
            let name = qualified(row.get(1), row.get(2));
            views.drop.insert(0, format!("DROP VIEW {name}"));
            views.make.extend(made(&row, &name));
            for grant in connection.query(GRANTS, &[(&oid, Type::OID)]).await? {
                let (what, whom): (&str, &str) = (grant.get(0), grant.get(1));
                let option = if grant.get(2) { " WITH GRANT OPTION" } else { "" };
                views.make.push(format!("GRANT {what} ON TABLE {name} TO {whom}{option}"));
            }
        }
        connection.batch("SET LOCAL search_path TO DEFAULT").await?;
        Ok(views)
    }
}

fn made(row: &Row, name: &str) -> Vec<String> {
    let (text, owner): (&str, &str) = (row.get(3), row.get(5));
    let options = row.get::<_, Option<&str>>(4).filter(|o| !o.is_empty());
    let options = options.map_or_else(String::new, |o| format!(" WITH ({o})"));
    let mut made = vec![
        format!("CREATE VIEW {name}{options} AS {}", text.trim_end().trim_end_matches(';')),
        format!("ALTER VIEW {name} OWNER TO {}", ident(owner)),
    ];
    if let Some(comment) = row.get::<_, Option<&str>>(6) {
        made.push(format!("COMMENT ON VIEW {name} IS {}", literal(comment)));
    }
    made
}
