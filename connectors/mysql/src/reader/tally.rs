//! Which rows of a transaction were delivered, table by table.
//!
//! A restart in the middle of a transaction gets it again from its beginning. Of each table exactly the rows that were
//! delivered are its first ones, however the other tables' rows lie between them: so they are told apart also when the
//! selection of tables was changed meanwhile. The last delivered row's key is compared, so that another transaction in
//! this place is found out.
//!
//! Memory: one entry for each captured table of the transaction.

use crate::position::Within;
use caudal_core::TableId;

/// Rows of the transaction that is being read.
#[derive(Default)]
pub(super) struct Tally {
    /// Delivered before the reader was opened.
    before: Within,
    /// Rows seen so far.
    tables: Vec<(TableId, u64)>,
    rows: u64,
    /// Where the last row that was not skipped belongs, with its key's hash.
    last: Option<(usize, u64)>,
}

impl Tally {
    /// Of a transaction of which this was delivered.
    pub(super) fn new(before: Within) -> Self {
        Self { before, ..Self::default() }
    }

    /// The number of a table here.
    pub(super) fn table(&mut self, id: &TableId) -> usize {
        if let Some(i) = self.tables.iter().position(|(known, _)| known == id) {
            return i;
        }
        self.tables.push((id.clone(), 0));
        self.tables.len() - 1
    }

    /// How many of the table's next rows were delivered.
    pub(super) fn skips(&self, table: usize) -> u64 {
        if self.before.tables.is_empty() {
            return self.before.rows.saturating_sub(self.rows);
        }
        let (id, seen) = &self.tables[table];
        self.before.tables.get(&id.to_string()).copied().unwrap_or(0).saturating_sub(*seen)
    }

    /// The hash that the last skipped row's key must have, if this table has that row.
    pub(super) fn expected(&self, table: usize) -> Option<u64> {
        let last = self.before.last.as_ref();
        last.is_none_or(|last| *last == self.tables[table].0.to_string()).then_some(self.before.key)
    }

    /// Adds rows of one event, with the last one's key; `new`: it was not skipped.
    pub(super) fn add(&mut self, table: usize, rows: u64, key: u64, new: bool) {
        self.tables[table].1 += rows;
        self.rows += rows;
        if new {
            self.last = Some((table, key));
        }
    }

    /// All rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// What is delivered now.
    pub(super) fn within(&self) -> Within {
        if self.before.tables.is_empty() && self.before.rows > self.rows {
            return self.before.clone();
        }
        let mut now = self.before.clone();
        for (id, seen) in self.tables.iter().filter(|(_, seen)| *seen > 0) {
            let rows = now.tables.entry(id.to_string()).or_default();
            *rows = (*rows).max(*seen);
        }
        now.rows = now.tables.values().sum();
        if let Some((table, key)) = self.last {
            now.last = Some(self.tables[table].0.to_string());
            now.key = key;
        }
        now
    }

    /// Whether rows that were delivered did not come again: those of tables that are still `followed`.
    pub(super) fn owes(&self, followed: impl Fn(&str) -> bool) -> bool {
        if self.before.tables.is_empty() {
            return self.before.rows > self.rows;
        }
        let seen = |name: &str| self.tables.iter().find(|(id, _)| id.to_string() == name).map_or(0, |t| t.1);
        self.before.tables.iter().any(|(name, rows)| *rows > seen(name) && followed(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(table: &str) -> TableId {
        TableId::new("d", table)
    }

    /// Delivers rows of tables; gives those that were not skipped.
    fn deliver(tally: &mut Tally, rows: &[(&str, u64)]) -> Vec<(String, u64)> {
        let mut out = Vec::new();
        for &(table, key) in rows {
            let i = tally.table(&id(table));
            let skip = tally.skips(i) > 0;
            tally.add(i, 1, key, !skip);
            if !skip {
                out.push((table.to_owned(), key));
            }
        }
        out
    }

    #[test]
    fn what_was_delivered_is_skipped_whatever_tables_come_or_go() {
        let rows = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5), ("a", 6)];
        let only = |tables: &[&str], rows: &[(&'static str, u64)]| {
            rows.iter().copied().filter(|(t, _)| tables.contains(t)).collect::<Vec<_>>()
        };
        for cut in 0..=rows.len() {
            let mut first = Tally::default();
            let mut all = deliver(&mut first, &only(&["a", "b"], &rows[..cut]));
            let mut second = Tally::new(first.within());
            all.extend(deliver(&mut second, &only(&["a", "c"], &rows)));
            for table in ["a", "c"] {
                let told: Vec<u64> = all.iter().filter(|(t, _)| t == table).map(|(_, k)| *k).collect();
                let expected: Vec<u64> = only(&[table], &rows).into_iter().map(|(_, k)| k).collect();
                assert_eq!(told, expected, "cut {cut}");
            }
            assert!(!second.owes(|name| name != "d.b"));
        }
    }

    #[test]
    fn rows_that_do_not_come_again_are_missed() {
        let mut first = Tally::default();
        deliver(&mut first, &[("a", 1), ("a", 2)]);
        let mut second = Tally::new(first.within());
        deliver(&mut second, &[("a", 1)]);
        assert!(second.owes(|_| true) && !second.owes(|_| false));
        assert_eq!(second.within(), first.within(), "until all is passed again, it still counts");
        let i = second.table(&id("a"));
        assert_eq!((second.skips(i), second.expected(i)), (1, Some(2)));
    }

    #[test]
    fn places_of_the_first_version_skip_rows_of_any_table() {
        let mut tally = Tally::new(Within { rows: 2, key: 7, ..Within::default() });
        assert_eq!(deliver(&mut tally, &[("a", 1), ("b", 7), ("a", 3)]), [("a".to_owned(), 3)]);
        assert_eq!((tally.within().rows, tally.within().tables["d.a"]), (3, 2));
    }
}
