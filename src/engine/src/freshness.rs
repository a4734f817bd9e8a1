//! Up to when the tables of a sink are complete, as its commits have told: for `/status`, the metrics and whoever waits.
//!
//! Why it never says more than is there: a boundary counts once the commit that holds all accepted before it went through, and only for
//! the tables that it speaks for. Of others the last that was said stays.
//!
//! Memory: the scope of each source, and one entry for each table that is not complete.

use caudal_core::{Boundary, Scope, TableId, TablePart};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Up to when a table is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableFreshness {
    /// The source.
    pub source: String,
    /// The table, by its name in the source.
    pub table: TableId,
    /// The source's clock, microseconds since the epoch, UTC: all that was committed there before is shown. None before the first
    /// reading of the table is over.
    pub complete_to_us: Option<i64>,
    /// The source's position there.
    pub position: Option<String>,
    /// The table's partitions that this instance speaks for.
    pub parts: BTreeSet<u32>,
    /// So many partitions it has.
    pub of: u32,
}

impl TableFreshness {
    /// Whether all of the table's partitions are spoken for.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.parts.len() == self.of as usize
    }
}

/// What several instances of a sink say of one table: it is complete up to where the least of its partitions is. Of a partition that
/// went from one to the other both speak, and what either has said stays true.
#[must_use]
pub fn together(told: Vec<TableFreshness>) -> Option<TableFreshness> {
    let mut parts: BTreeMap<u32, (Option<i64>, Option<String>)> = BTreeMap::new();
    let of = told.iter().map(|t| t.of).max()?;
    for one in &told {
        for part in &one.parts {
            let known = parts.entry(*part).or_insert((None, None));
            if known.0 <= one.complete_to_us {
                *known = (one.complete_to_us, one.position.clone());
            }
        }
    }
    let (complete_to_us, position) = parts.values().min_by_key(|(to, _)| *to).cloned()?;
    let parts = parts.into_keys().collect();
    let first = told.into_iter().next()?;
    Some(TableFreshness { complete_to_us, position, parts, of, ..first })
}

#[derive(Clone, Debug)]
struct Reached {
    scope: Arc<Scope>,
    ts_us: i64,
    position: String,
}

#[derive(Debug, Default)]
struct Sources {
    reached: BTreeMap<String, Reached>,
    /// Tables that the last boundary does not speak for, with what was said of them before.
    left: BTreeMap<TableId, Option<(i64, String)>>,
}

/// One sink's.
#[derive(Debug)]
pub struct Freshness {
    sources: Mutex<Sources>,
    changes: watch::Sender<u64>,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { sources: Mutex::default(), changes: watch::channel(0).0 }
    }
}

impl Freshness {
    /// A commit went through; `boundary` is the last one accepted of its source.
    pub(crate) fn committed(&self, boundary: &Boundary) {
        let Some(scope) = &boundary.scope else { return };
        let mut sources = self.sources();
        let before = sources.reached.get(&scope.source).cloned();
        if before.as_ref().is_none_or(|before| !Arc::ptr_eq(&before.scope, scope)) {
            sources.rescope(before.as_ref(), scope);
        }
        let position = boundary.position.token.clone();
        let reached = Reached { scope: Arc::clone(scope), ts_us: boundary.ts_us, position };
        sources.reached.insert(scope.source.clone(), reached);
        drop(sources);
        self.changes.send_modify(|n| *n += 1);
    }

    /// The source time up to which all sources are applied that were heard of, microseconds since the epoch.
    #[must_use]
    pub fn complete_to_us(&self) -> Option<i64> {
        self.sources().reached.values().map(|reached| reached.ts_us).min()
    }

    /// All tables, by name.
    #[must_use]
    pub fn tables(&self) -> Vec<TableFreshness> {
        self.tables_where(|_| true)
    }

    /// Those tables that `wanted` names, by name.
    #[must_use]
    pub fn tables_where(&self, wanted: impl Fn(&TableId) -> bool) -> Vec<TableFreshness> {
        let sources = self.sources();
        let mut tables = Vec::new();
        for reached in sources.reached.values() {
            let mut parts: BTreeMap<&TableId, (BTreeSet<u32>, u32)> = BTreeMap::new();
            for TablePart { table, part, parts: of } in &reached.scope.tables {
                if wanted(table) {
                    let (here, all) = parts.entry(table).or_default();
                    here.insert(*part);
                    *all = *of;
                }
            }
            tables.extend(parts.into_iter().map(|(table, parts)| sources.of(reached, table, parts)));
        }
        tables.sort_by(|a, b| a.table.cmp(&b.table));
        tables
    }

    /// Tells of each commit that said something new.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    // A panic while the lock is held leaves plain values: they are as good as ever.
    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sources {
    /// Keeps what was said of tables that the new scope does not speak for.
    fn rescope(&mut self, before: Option<&Reached>, scope: &Scope) {
        let complete = |before: &Reached| before.scope.complete().map(|p| p.table.clone()).collect();
        let spoken: HashSet<TableId> = before.map(complete).unwrap_or_default();
        let said = |table: &TableId| {
            let before = before.filter(|_| spoken.contains(table))?;
            Some((before.ts_us, before.position.clone()))
        };
        for table in names(scope) {
            if scope.incomplete.contains(table) {
                let old = said(table).or_else(|| self.left.get(table).cloned().flatten());
                self.left.insert(table.clone(), old);
            } else {
                self.left.remove(table);
            }
        }
    }

    fn of(&self, reached: &Reached, table: &TableId, (parts, of): (BTreeSet<u32>, u32)) -> TableFreshness {
        let said = match self.left.get(table) {
            Some(left) => left.clone(),
            None => Some((reached.ts_us, reached.position.clone())),
        };
        let (complete_to_us, position) = said.unzip();
        let source = reached.scope.source.clone();
        TableFreshness { source, table: table.clone(), complete_to_us, position, parts, of }
    }
}

/// The tables of a scope, each once.
fn names(scope: &Scope) -> Vec<&TableId> {
    let mut seen = HashSet::new();
    scope.tables.iter().map(|part| &part.table).filter(|table| seen.insert(*table)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::{Incomplete, SourcePosition};

    fn boundary(ts_us: i64, tables: &[(&str, u32, u32)], incomplete: &[&str]) -> Boundary {
        let id = |name: &str| TableId::new("shop", name);
        let tables = tables.iter().map(|(name, part, parts)| TablePart {
            table: id(name),
            part: *part,
            parts: *parts,
        });
        let incomplete = Incomplete::of(incomplete.iter().map(|name| id(name)).collect());
        let scope = Scope { source: "plex".to_owned(), tables: tables.collect(), incomplete };
        let position = SourcePosition { token: format!("p{ts_us}"), ..SourcePosition::default() };
        Boundary { events: 0, position, ts_us, scope: Some(Arc::new(scope)) }
    }

    fn told(freshness: &Freshness) -> Vec<(String, Option<i64>, bool)> {
        let all = freshness.tables().into_iter();
        all.map(|t| (t.table.table.clone(), t.complete_to_us, t.is_whole())).collect()
    }

    #[test]
    fn a_table_that_is_not_complete_keeps_what_was_said_of_it() {
        let freshness = Freshness::default();
        let tables = [("a", 0, 1), ("b", 0, 1)];
        freshness.committed(&boundary(10, &tables, &["b"]));
        assert_eq!(told(&freshness), [("a".into(), Some(10), true), ("b".into(), None, true)]);
        freshness.committed(&boundary(20, &tables, &[]));
        freshness.committed(&boundary(30, &tables, &["b"]));
        freshness.committed(&boundary(40, &tables, &["b"]));
        assert_eq!(told(&freshness), [("a".into(), Some(40), true), ("b".into(), Some(20), true)]);
        freshness.committed(&boundary(50, &tables, &[]));
        assert_eq!(told(&freshness)[1], ("b".into(), Some(50), true));
    }

    #[test]
    fn of_a_table_in_parts_it_is_told_whether_all_are_here() {
        let freshness = Freshness::default();
        freshness.committed(&boundary(10, &[("a", 0, 2)], &[]));
        assert_eq!(told(&freshness), [("a".into(), Some(10), false)]);
        freshness.committed(&boundary(20, &[("a", 0, 2), ("a", 1, 2)], &[]));
        assert_eq!(told(&freshness), [("a".into(), Some(20), true)]);
    }
    #[test]
    fn what_instances_say_together_is_the_least_of_their_parts() {
        let said = |parts: &[u32], to: Option<i64>| TableFreshness {
            source: "plex".to_owned(),
            table: TableId::new("shop", "a"),
            complete_to_us: to,
            position: to.map(|to| format!("p{to}")),
            parts: parts.iter().copied().collect(),
            of: 3,
        };
        let of = |told: &[(&[u32], Option<i64>)]| {
            let told = told.iter().map(|(parts, to)| said(parts, *to)).collect();
            together(told).map(|t| (t.complete_to_us, t.position.clone(), t.is_whole()))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(&[0, 2], Some(20)), (&[1], Some(10))]), Some((Some(10), Some("p10".into()), true)));
        assert_eq!(of(&[(&[0, 2], Some(20)), (&[1], None)]), Some((None, None, true)));
        // One partition has no owner here.
        assert_eq!(of(&[(&[0], Some(20)), (&[1], Some(10))]).map(|t| t.2), Some(false));
        // A partition was handed over: its old owner tells nothing new.
        assert_eq!(
            of(&[(&[0, 1], Some(10)), (&[1, 2], Some(30)), (&[0], Some(20))]).map(|t| t.0),
            Some(Some(20))
        );
    }
}
