//! Which databases, tables, columns and rows a source captures, and under which keys: patterns over names, and filters.

mod columns;
mod filters;
mod keys;
mod pattern;

pub(crate) use columns::Columns;
pub(crate) use filters::Filters;
pub(crate) use keys::Keys;
pub(crate) use pattern::TablePattern;

use caudal_core::{Error, Result, TableId};
use pattern::{glob, is_plain, is_system};

/// The parsed patterns. `*` stands for any characters, `?` for one. Names are compared exactly as the server writes them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    default_database: Option<String>,
    databases: Databases,
    include: Vec<TablePattern>,
    exclude: Vec<TablePattern>,
    /// Captured whatever the patterns say.
    also: Option<TableId>,
    /// Which columns of the tables.
    pub(crate) columns: Columns,
    /// Keys that the configuration gives.
    pub(crate) keys: Keys,
    /// Which rows of the tables.
    pub(crate) filters: Filters,
}

/// Patterns of databases; none written: all.
#[derive(Clone, Debug, Default)]
struct Databases {
    include: Vec<String>,
    exclude: Vec<String>,
}

impl Databases {
    fn parse(patterns: &[String]) -> Result<Self> {
        let mut databases = Self::default();
        for text in patterns {
            let (list, body) = match text.strip_prefix('!') {
                Some(body) => (&mut databases.exclude, body),
                None => (&mut databases.include, text.as_str()),
            };
            if body.is_empty() {
                return Err(Error::config(format!("`{text}` is no database pattern")).hint(
                    "write a database (`shop`), a pattern (`shop_*`), or one of these after `!` to exclude",
                ));
            }
            list.push(body.to_owned());
        }
        Ok(databases)
    }

    fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    fn selects(&self, database: &str) -> bool {
        let included = match self.include.is_empty() {
            true => !is_system(database),
            false => self.include.iter().any(|p| glob(p, database)),
        };
        included && !self.exclude.iter().any(|p| glob(p, database))
    }

    /// If they are named one by one.
    fn names(&self) -> Option<Vec<String>> {
        let plain = !self.include.is_empty() && self.include.iter().all(|p| is_plain(p));
        plain.then(|| self.include.clone())
    }
}

impl Selection {
    /// Reads patterns; `database` is the one meant by patterns that name none.
    ///
    /// # Errors
    /// `Config` for an empty pattern.
    pub fn parse(patterns: &[String], database: Option<&str>) -> Result<Self> {
        Self::within(&[], patterns, database)
    }

    /// The same with patterns of databases: with any of those, a table pattern that names no database means each database that
    /// they select, and no other database is captured, whatever names it.
    ///
    /// # Errors
    /// `Config` for an empty pattern.
    pub fn within(databases: &[String], patterns: &[String], database: Option<&str>) -> Result<Self> {
        let databases = Databases::parse(databases)?;
        let database = database.filter(|_| databases.is_empty());
        let mut selection =
            Self { default_database: database.map(str::to_owned), databases, ..Self::default() };
        for text in patterns {
            let (list, body) = match text.strip_prefix('!') {
                Some(body) => (&mut selection.exclude, body),
                None => (&mut selection.include, text.as_str()),
            };
            list.push(TablePattern::parse(body, database).ok_or_else(|| {
                Error::config(format!("`{text}` is no table pattern"))
                    .hint("write a table (`orders`), a pattern (`fact*`), `database.table`, or one of these after `!` to exclude")
            })?);
        }
        Ok(selection)
    }

    /// Whether the table is captured.
    #[must_use]
    pub fn selects(&self, id: &TableId) -> bool {
        self.selects_names(&id.database, &id.table)
    }

    /// The same, by names.
    #[must_use]
    pub fn selects_names(&self, database: &str, table: &str) -> bool {
        if self.also.as_ref().is_some_and(|id| id.database == database && id.table == table) {
            return true;
        }
        if !self.databases.is_empty() && !self.databases.selects(database) {
            return false;
        }
        let included = if self.include.is_empty() {
            self.default_database.as_deref().map_or(!is_system(database), |d| d == database)
        } else {
            self.include.iter().any(|p| p.matches(database, table))
        };
        included && !self.exclude.iter().any(|p| p.matches(database, table))
    }

    /// Also captures this table, whatever the patterns say.
    pub(crate) fn add(&mut self, id: TableId) {
        self.also = Some(id);
    }

    /// The databases that can hold selected tables, where all patterns name theirs exactly; none if that is open.
    #[must_use]
    pub fn databases(&self) -> Option<Vec<String>> {
        let mut names = match (self.databases.names(), self.include.is_empty()) {
            (Some(names), _) => names,
            (None, true) => vec![self.default_database.clone()?],
            (None, false) => {
                let plain = |p: &TablePattern| p.database.clone().filter(|d| is_plain(d));
                self.include.iter().map(plain).collect::<Option<Vec<_>>>()?
            }
        };
        names.extend(self.also.as_ref().map(|id| id.database.clone()));
        names.sort();
        names.dedup();
        Some(names)
    }

    /// The patterns that name one table exactly: what must exist.
    #[must_use]
    pub fn named_tables(&self) -> Vec<TableId> {
        let exact = |p: &TablePattern| {
            let database = p.database.as_deref().filter(|d| is_plain(d))?;
            is_plain(&p.table).then(|| TableId::new(database, p.table.clone()))
        };
        self.include.iter().filter_map(exact).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(patterns: &[&str], database: Option<&str>) -> Selection {
        Selection::parse(&patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>(), database).unwrap()
    }

    #[test]
    fn excludes_win_over_includes() {
        let s = selection(&["factcabecera", "fact*", "!*_tmp"], Some("plex"));
        assert!(s.selects_names("plex", "factlineas"));
        assert!(!s.selects_names("plex", "fact_tmp"));
        assert!(!s.selects_names("plex", "clients"));
        assert!(!s.selects_names("other", "factlineas"));
    }

    #[test]
    fn without_patterns_all_of_the_database_or_all_of_the_users() {
        assert!(selection(&[], Some("a")).selects_names("a", "x"));
        assert!(!selection(&[], Some("a")).selects_names("b", "x"));
        assert!(selection(&[], None).selects_names("b", "x"));
        assert!(!selection(&[], None).selects_names("mysql", "user"));
        assert!(selection(&["!secret*"], Some("a")).selects_names("a", "x"));
    }

    #[test]
    fn a_pattern_may_name_its_database() {
        let s = selection(&["shop_*.orders", "x"], Some("a"));
        assert!(s.selects_names("shop_1", "orders"));
        assert!(s.selects_names("a", "x"));
        assert!(!s.selects_names("shop_1", "x"));
        assert_eq!(s.databases(), None);
        assert_eq!(s.named_tables(), vec![TableId::new("a", "x")]);
    }

    #[test]
    fn patterns_of_databases_bound_all_others() {
        let within = |databases: &[&str], tables: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
            Selection::within(&owned(databases), &owned(tables), Some("url")).unwrap()
        };
        let s = within(&["shop_*", "!shop_test"], &["orders", "crm.people"]);
        assert!(s.selects_names("shop_1", "orders") && s.selects_names("shop_2", "orders"));
        assert!(!s.selects_names("shop_test", "orders") && !s.selects_names("url", "orders"));
        assert!(!s.selects_names("crm", "people") && !s.selects_names("shop_1", "other"));
        let s = within(&["!test"], &[]);
        assert!(
            s.selects_names("a", "x") && !s.selects_names("test", "x") && !s.selects_names("mysql", "user")
        );
        assert_eq!(within(&["a", "b"], &["x"]).databases(), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert!(Selection::within(&["!".to_owned()], &[], None).is_err());
    }

    #[test]
    fn a_table_can_be_added_without_losing_the_others() {
        let beat = TableId::new("caudal", "heartbeat");
        for (mut s, other) in [
            (selection(&[], Some("a")), "x"),
            (selection(&["x"], Some("a")), "x"),
            (selection(&[], None), "x"),
        ] {
            s.add(beat.clone());
            assert!(s.selects(&beat) && s.selects_names("a", other));
            assert!(s.databases().is_none_or(|d| d.contains(&beat.database)));
        }
    }
}
