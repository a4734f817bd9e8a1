//! Which tables a source captures: include and exclude patterns over `database.table`.

use caudal_core::{Error, Result, TableId};

/// Databases that belong to the server itself.
const SYSTEM: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];

/// The parsed patterns. `*` stands for any characters, `?` for one. Names are compared exactly as the server writes them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    default_database: Option<String>,
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// None: any database of the user's.
    database: Option<String>,
    table: String,
}

impl Selection {
    /// Reads patterns; `database` is the one meant by patterns that name none.
    ///
    /// # Errors
    /// `Config` for an empty pattern.
    pub fn parse(patterns: &[String], database: Option<&str>) -> Result<Self> {
        let mut selection = Self { default_database: database.map(str::to_owned), ..Self::default() };
        for text in patterns {
            let (list, body) = match text.strip_prefix('!') {
                Some(body) => (&mut selection.exclude, body),
                None => (&mut selection.include, text.as_str()),
            };
            list.push(Pattern::parse(body, database).ok_or_else(|| {
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
        let included = if self.include.is_empty() {
            self.default_database.as_deref().map_or(!is_system(database), |d| d == database)
        } else {
            self.include.iter().any(|p| p.matches(database, table))
        };
        included && !self.exclude.iter().any(|p| p.matches(database, table))
    }

    /// The databases that can hold selected tables, where all patterns name theirs exactly; none if that is open.
    #[must_use]
    pub fn databases(&self) -> Option<Vec<String>> {
        if self.include.is_empty() {
            return self.default_database.clone().map(|d| vec![d]);
        }
        let mut names = self
            .include
            .iter()
            .map(|p| p.database.clone().filter(|d| !d.contains(['*', '?'])))
            .collect::<Option<Vec<_>>>()?;
        names.sort();
        names.dedup();
        Some(names)
    }

    /// The patterns that name one table exactly: what must exist.
    #[must_use]
    pub fn named_tables(&self) -> Vec<TableId> {
        let plain = |s: &str| !s.contains(['*', '?']);
        let exact = |p: &Pattern| {
            let database = p.database.as_deref().filter(|d| plain(d))?;
            plain(&p.table).then(|| TableId::new(database, p.table.clone()))
        };
        self.include.iter().filter_map(exact).collect()
    }
}

impl Pattern {
    fn parse(text: &str, default: Option<&str>) -> Option<Self> {
        let (database, table) = match text.split_once('.') {
            Some((database, table)) => (Some(database.to_owned()), table),
            None => (default.map(str::to_owned), text),
        };
        let empty = table.is_empty() || database.as_deref() == Some("");
        (!empty).then(|| Self { database, table: table.to_owned() })
    }

    fn matches(&self, database: &str, table: &str) -> bool {
        let in_database = match &self.database {
            Some(pattern) => glob(pattern, database),
            None => !is_system(database),
        };
        in_database && glob(&self.table, table)
    }
}

fn is_system(database: &str) -> bool {
    SYSTEM.iter().any(|s| s.eq_ignore_ascii_case(database))
}

/// Linear-time matching with one point to go back to: the last `*`.
fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(&c) if c == '?' || c == t[j] => {
                i += 1;
                j += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                i = at + 1;
                j = from + 1;
            }
        }
    }
    p[i..].iter().all(|&c| c == '*')
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
    fn stars_match_across_the_name() {
        assert!(glob("*a*b?", "xxaxxbxxby"));
        assert!(!glob("*a*b?", "xxaxxb"));
        assert!(glob("**", ""));
    }
}
