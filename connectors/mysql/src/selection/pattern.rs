//! Names with `*` (any characters) and `?` (one).

/// Databases that belong to the server itself: no pattern without a database means them.
const SYSTEM: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];

/// A table pattern: `orders`, `fact*`, `shop_?.orders`. Compared exactly as the server writes names.
#[derive(Clone, Debug)]
pub(crate) struct TablePattern {
    /// None: any database of the user's.
    pub(super) database: Option<String>,
    pub(super) table: String,
}

impl TablePattern {
    /// None if a part is empty. `default` is the database of patterns that name none.
    pub(crate) fn parse(text: &str, default: Option<&str>) -> Option<Self> {
        let (database, table) = match text.split_once('.') {
            Some((database, table)) => (Some(database.to_owned()), table),
            None => (default.map(str::to_owned), text),
        };
        let empty = table.is_empty() || database.as_deref() == Some("");
        (!empty).then(|| Self { database, table: table.to_owned() })
    }

    /// Whether it means this table.
    pub(crate) fn matches(&self, database: &str, table: &str) -> bool {
        let in_database = match &self.database {
            Some(pattern) => glob(pattern, database),
            None => !is_system(database),
        };
        in_database && glob(&self.table, table)
    }
}

/// Whether the database is the server's own.
pub(super) fn is_system(database: &str) -> bool {
    SYSTEM.iter().any(|s| s.eq_ignore_ascii_case(database))
}

/// Whether a text is a name, not a pattern.
pub(super) fn is_plain(text: &str) -> bool {
    !text.contains(['*', '?'])
}

/// [`glob`], blind to case: column names are the same in any case on every server.
pub(super) fn glob_any_case(pattern: &str, text: &str) -> bool {
    glob(&pattern.to_lowercase(), &text.to_lowercase())
}

/// Linear-time matching with one point to go back to: the last `*`.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
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

    #[test]
    fn stars_match_across_the_name() {
        assert!(glob("*a*b?", "xxaxxbxxby"));
        assert!(!glob("*a*b?", "xxaxxb"));
        assert!(glob("**", ""));
        assert!(glob_any_case("*_Email", "WORK_EMAIL"));
    }
}
