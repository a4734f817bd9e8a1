//! Of which tables a watermark speaks.
//!
//! A table that the schemas topic names is spoken for once its partitions were named by a watermark (a full one names all), for before
//! that nobody knows whether they hold rows. Made anew only when something changed, so that a sink can tell by the pointer.

use super::partitions::Partitions;
use crate::group::Partition;
use crate::schemas::Schemas;
use caudal_core::{Incomplete, Scope, TableId, TablePart, TableSchema};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One source's scope, as it was last.
pub(super) struct Scopes {
    /// [`Schemas::changes`], and how many partitions were known.
    of: (u64, usize),
    last: Arc<Scope>,
}

impl Scopes {
    /// Of a source.
    pub(super) fn new(source: &str) -> Self {
        let scope = Scope { source: source.to_owned(), ..Scope::default() };
        Self { of: (u64::MAX, 0), last: Arc::new(scope) }
    }

    /// All tables, each as a whole.
    pub(super) fn whole(
        &mut self,
        store: &Schemas,
        partitions: &Partitions,
        incomplete: Incomplete,
    ) -> Arc<Scope> {
        self.get((store.changes(), partitions.known()), incomplete, |source| {
            let known = |(topic, spread): (&str, u32)| {
                let schema = store.newest(topic)?;
                let all = (0..spread.max(1) as i32).all(|partition| partitions.knows(topic, partition));
                all.then_some((schema, 0, 1))
            };
            newest(store.topics(source).filter_map(known))
        })
    }

    /// What this instance owns.
    pub(super) fn shared(
        &mut self,
        store: &Schemas,
        owned: &BTreeSet<Partition>,
        incomplete: Incomplete,
    ) -> Arc<Scope> {
        self.get((store.changes(), owned.len()), incomplete, |source| {
            let of_source = |(topic, partition): &Partition| {
                let is_its = store.source(topic) == Some(source);
                let schema = store.newest(topic).filter(|_| is_its)?;
                Some((schema, *partition as u32, store.spread(topic).max(1)))
            };
            newest(owned.iter().filter_map(of_source))
        })
    }

    fn get(
        &mut self,
        of: (u64, usize),
        incomplete: Incomplete,
        tables: impl FnOnce(&str) -> Vec<TablePart>,
    ) -> Arc<Scope> {
        if self.of != of || self.last.incomplete != incomplete {
            let tables = if self.of == of { self.last.tables.clone() } else { tables(&self.last.source) };
            self.last = Arc::new(Scope { source: self.last.source.clone(), tables, incomplete });
            self.of = of;
        }
        Arc::clone(&self.last)
    }
}

/// Of a table that went on in another topic only that one counts.
fn newest(parts: impl Iterator<Item = (Arc<TableSchema>, u32, u32)>) -> Vec<TablePart> {
    let mut tables: BTreeMap<TableId, (u32, Vec<TablePart>)> = BTreeMap::new();
    for (schema, part, parts) in parts {
        let (generation, list) = tables.entry(schema.id.clone()).or_default();
        if schema.generation > *generation {
            (*generation, *list) = (schema.generation, Vec::new());
        }
        if schema.generation == *generation {
            list.push(TablePart { table: schema.id.clone(), part, parts });
        }
    }
    tables.into_values().flat_map(|(_, list)| list).collect()
}
