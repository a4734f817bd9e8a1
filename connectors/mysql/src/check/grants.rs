//! What `SHOW GRANTS` says, and what of it a capture lacks, as statements to paste.

use crate::client::quoted;
use crate::connection::Family;
use caudal_core::{Check, TableId};
use std::collections::BTreeSet;

/// The privileges of an account.
#[derive(Debug)]
pub(super) struct Grants {
    grants: Vec<Grant>,
    /// What roles bring is not listed everywhere: then only the server can tell.
    roles: bool,
    /// As a statement names it: `'cdc'@'%'`.
    user: String,
}

#[derive(Debug, PartialEq)]
struct Grant {
    /// Upper case.
    privileges: Vec<String>,
    /// A pattern; none for all.
    database: Option<String>,
    /// None for all of the database.
    table: Option<String>,
}

impl Grants {
    /// From the rows of `SHOW GRANTS` and `CURRENT_USER()`.
    pub(super) fn read(rows: &[String], user: &str) -> Self {
        Self {
            grants: rows.iter().filter_map(|r| Grant::read(r)).collect(),
            roles: rows.iter().any(|r| r.starts_with("GRANT ") && !r.contains(" ON ")),
            user: quoted_user(user),
        }
    }

    fn globally(&self, names: &[&str]) -> bool {
        self.grants.iter().any(|g| g.database.is_none() && g.holds(names))
    }

    fn on(&self, id: &TableId, name: &str) -> bool {
        self.grants.iter().any(|g| g.covers(id) && g.holds(&[name]))
    }

    fn missing(&self, subject: &str, what: &str, statement: String) -> Check {
        if self.roles {
            return Check::warning(subject, format!("{what}, unless a role grants it"), statement);
        }
        Check::error(subject, what, statement)
    }

    /// Privileges that hold for the whole server.
    pub(super) fn replication(&self, family: Family) -> Vec<Check> {
        let needs = |name: &str, any: &[&str], why: &str| {
            if self.globally(any) {
                return Check::ok(name, "granted");
            }
            let what = format!("this user has no {name}, {why}");
            self.missing(name, &what, format!("GRANT {name} ON *.* TO {};", self.user))
        };
        let position = match family {
            Family::MariaDb => "BINLOG MONITOR",
            Family::MySql => "REPLICATION CLIENT",
        };
        vec![
            needs(
                "REPLICATION SLAVE",
                &["REPLICATION SLAVE", "REPLICATION REPLICA"],
                "so it may not read the binlog",
            ),
            needs(
                position,
                &["REPLICATION CLIENT", "BINLOG MONITOR"],
                "so it may not ask where the binlog ends",
            ),
        ]
    }

    /// Whether it may read any table at all. Which ones shows in `information_schema`: a table on which it has no privilege is not there.
    pub(super) fn any_select(&self, database: Option<&str>) -> Option<Check> {
        if self.grants.iter().any(|g| g.holds(&["SELECT"])) {
            return None;
        }
        let place = database.map_or("*".to_owned(), quoted);
        let statement = format!("GRANT SELECT ON {place}.* TO {};", self.user);
        Some(self.missing("SELECT", "this user may read no table", statement))
    }

    /// SELECT on these tables, which it sees by some other privilege.
    pub(super) fn select(&self, tables: &[&TableId]) -> Vec<Check> {
        let lacks = tables.iter().filter(|id| !self.on(id, "SELECT"));
        lacks
            .map(|id| {
                let statement = format!(
                    "GRANT SELECT ON {}.{} TO {};",
                    quoted(&id.database),
                    quoted(&id.table),
                    self.user
                );
                self.missing(&id.to_string(), "this user may not read the whole table", statement)
            })
            .collect()
    }

    /// LOCK TABLES on the databases of these tables, of which it is said `why` they need it.
    pub(super) fn lock(&self, tables: &[&TableId], why: &str, needed: bool) -> Vec<Check> {
        let lacks: BTreeSet<&str> =
            tables.iter().filter(|id| !self.on(id, "LOCK TABLES")).map(|id| id.database.as_str()).collect();
        lacks
            .into_iter()
            .map(|database| {
                let what = format!("this user has no LOCK TABLES on {}: {why}", quoted(database));
                let statement = format!("GRANT LOCK TABLES ON {}.* TO {};", quoted(database), self.user);
                if needed {
                    self.missing("LOCK TABLES", &what, statement)
                } else {
                    Check::warning("LOCK TABLES", what, statement)
                }
            })
            .collect()
    }
}

impl Grant {
    /// From `GRANT SELECT, RELOAD ON *.* TO …`; none for what grants a role or a proxy.
    fn read(row: &str) -> Option<Self> {
        let (privileges, rest) = row.strip_prefix("GRANT ")?.split_once(" ON ")?;
        let rest = rest.strip_prefix("TABLE ").unwrap_or(rest);
        let (database, rest) = name(rest)?;
        let (table, _) = name(rest.strip_prefix('.')?)?;
        Some(Self { privileges: split(privileges), database, table })
    }

    fn holds(&self, names: &[&str]) -> bool {
        self.privileges
            .iter()
            .any(|p| matches!(p.as_str(), "ALL PRIVILEGES" | "ALL") || names.contains(&p.as_str()))
    }

    fn covers(&self, id: &TableId) -> bool {
        match (&self.database, &self.table) {
            (None, _) => true,
            (Some(database), None) => like(database.as_bytes(), id.database.as_bytes()),
            (Some(database), Some(table)) => *database == id.database && *table == id.table,
        }
    }
}

/// Privileges between commas, but for those within the parentheses of columns.
fn split(privileges: &str) -> Vec<String> {
    let (mut out, mut depth) = (vec![String::new()], 0);
    for c in privileges.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        match out.last_mut() {
            Some(last) if c != ',' || depth > 0 => last.push(c),
            _ => out.push(String::new()),
        }
    }
    out.iter().map(|p| p.trim().to_ascii_uppercase()).collect()
}

/// A name in backticks (or none for `*`), and what follows it.
fn name(text: &str) -> Option<(Option<String>, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Some((None, rest));
    }
    let mut out = String::new();
    let mut rest = text.strip_prefix('`')?;
    loop {
        let (part, behind) = rest.split_once('`')?;
        out.push_str(part);
        match behind.strip_prefix('`') {
            Some(more) => {
                out.push('`');
                rest = more;
            }
            None => return Some((Some(out), behind)),
        }
    }
}

/// SQL's LIKE: `%` for anything, `_` for one byte, `\` in front of either for itself.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'%', rest @ ..], _) => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        ([b'\\', literal, rest @ ..], [first, behind @ ..]) => literal == first && like(rest, behind),
        ([b'_', rest @ ..], [_, behind @ ..]) => like(rest, behind),
        ([literal, rest @ ..], [first, behind @ ..]) => literal == first && like(rest, behind),
        _ => false,
    }
}

pub(crate) fn quoted_user(user: &str) -> String {
    let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
    format!("'{}'@'{}'", name.replace('\'', "''"), host.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::Severity;

    fn grants(rows: &[&str]) -> Grants {
        Grants::read(&rows.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>(), "cdc@%")
    }

    fn fixes(found: &[Check]) -> Vec<&str> {
        found.iter().filter(|c| c.severity != Severity::Ok).filter_map(|c| c.fix.as_deref()).collect()
    }

    #[test]
    fn what_both_families_show_is_read() {
        let maria = grants(&[
            "GRANT SELECT, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `cdc`@`%` IDENTIFIED BY PASSWORD '*x'",
        ]);
        assert!(fixes(&maria.replication(Family::MariaDb)).is_empty());
        let all = grants(&["GRANT ALL PRIVILEGES ON *.* TO `c`@`%` WITH GRANT OPTION"]);
        assert!(fixes(&all.replication(Family::MySql)).is_empty() && all.any_select(None).is_none());
        let one = grants(&["GRANT ALL PRIVILEGES ON `shop`.* TO `c`@`%`", "GRANT PROXY ON ``@`` TO `c`@`%`"]);
        assert_eq!(
            fixes(&one.replication(Family::MySql)),
            ["GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%';", "GRANT REPLICATION CLIENT ON *.* TO 'cdc'@'%';"]
        );
    }

    #[test]
    fn a_table_that_is_seen_but_not_readable_is_named() {
        let shop = |t: &str| TableId::new("shop_a", t);
        let by = |rows: &[&str]| fixes(&grants(rows).select(&[&shop("t")])).join(" ");
        assert_eq!(by(&["GRANT SELECT ON `shop\\_a`.* TO `c`@`%`"]), "");
        assert_eq!(by(&["GRANT SELECT ON `shop%`.* TO `c`@`%`"]), "");
        assert_eq!(by(&["GRANT INSERT, SELECT ON `shop_a`.`t` TO `c`@`%`"]), "");
        let missing = "GRANT SELECT ON `shop_a`.`t` TO 'cdc'@'%';";
        assert_eq!(by(&["GRANT INSERT ON `shop_a`.* TO `c`@`%`"]), missing);
        assert_eq!(by(&["GRANT SELECT (`a`, `b`), INSERT ON `shop_a`.`t` TO `c`@`%`"]), missing);
        assert_eq!(by(&["GRANT SELECT ON `shop\\_b`.* TO `c`@`%`"]), missing);
    }

    #[test]
    fn what_a_role_may_grant_is_only_a_warning() {
        let role = grants(&["GRANT USAGE ON *.* TO `c`@`%`", "GRANT `reader`@`%` TO `c`@`%`"]);
        let found = role.any_select(Some("shop")).unwrap();
        assert_eq!(found.severity, Severity::Warning);
        assert_eq!(found.fix.as_deref(), Some("GRANT SELECT ON `shop`.* TO 'cdc'@'%';"));
    }

    #[test]
    fn locks_are_asked_for_by_database() {
        let ids = [TableId::new("a", "t"), TableId::new("a", "u"), TableId::new("b", "t")];
        let found =
            grants(&["GRANT SELECT, LOCK TABLES ON `b`.* TO `c`@`%`"]).lock(&ids.each_ref(), "x", true);
        assert_eq!(fixes(&found), ["GRANT LOCK TABLES ON `a`.* TO 'cdc'@'%';"]);
    }
}
