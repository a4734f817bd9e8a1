//! Shapes of tables over time.
//!
//! Why values never land in wrong columns: the log's table maps say, for each run of rows, the columns as they were when
//! those rows were written. A map that differs from the known shape makes a new version *from the map*; what the log does not
//! say (display width, UUID and INET types, comments, defaults) comes from the version before, or from `information_schema`
//! where its column of that name agrees with the map, and never overrides the map. So two ALTERs while nobody read give two
//! versions, each with its own rows.
//!
//! Where the server logs no names (`binlog_row_metadata` is not FULL) the map still has the number and layout of columns. The
//! shape that was in force before the stop is taken until the log brings a statement that changes the table; then
//! `information_schema` is asked, together with the log's end. Its answer holds at that end; it holds for the rows before it
//! unless the stream brings another statement for the table on the way there: such a guess is told to the reader, which has
//! the table read again ([`Timeline::guessed`]). A shape that does not fit the map is an error for this table alone.
//!
//! Memory: one shape per captured table, and one entry per table map in use.

mod fit;
mod mapped;
mod number;
#[cfg(test)]
mod tests;

use crate::binlog::TableMap;
use crate::client::Client;
use crate::discover::{self, Table};
use crate::position::Place;
use crate::reader::clock;
use crate::selection::Selection;
use caudal_core::{Column, Error, Result, TableId, TableSchema};
use fit::fits;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Bindings of table maps that are kept; more start afresh.
const MAX_BOUND: usize = 4_096;

/// What is known of one table.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// The newest version.
    pub(crate) schema: Arc<TableSchema>,
    /// What information_schema said when it was last asked.
    pub(crate) table: Arc<Table>,
    freshness: Freshness,
    /// Without names in the log: the shape was asked when the log ended here, and may be later than the rows before.
    guessed: Option<(String, u64)>,
    /// A statement since the newest version added a column: what looks like another name may be one that was dropped, and another one.
    added: bool,
}

/// How far what information_schema said can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    /// The newest version is what rows have, as long as their maps fit.
    Settled,
    /// It was asked since the last change that is known: the next map decides between the version before and the present.
    Asked,
    /// A statement changed the table since: it must be asked again.
    Stale,
}

/// From how many stale tables on all of them are asked for at once.
const MANY: usize = 16;

struct Bound {
    map: Arc<TableMap>,
    /// None for tables that are not captured.
    schema: Option<Arc<TableSchema>>,
}

/// All captured tables' shapes.
pub(crate) struct Timeline {
    selection: Selection,
    tables: BTreeMap<TableId, Known>,
    bound: HashMap<u64, Bound>,
    /// The log has no names of columns.
    nameless: bool,
    /// Tables that got another key.
    regenerated: Vec<TableId>,
}

impl Timeline {
    /// From what information_schema says now, and the versions that were stored.
    pub(crate) fn new(
        selection: Selection,
        now: BTreeMap<TableId, Table>,
        mut stored: BTreeMap<TableId, TableSchema>,
    ) -> Self {
        let known = |(id, table): (TableId, Table)| {
            let old = stored.remove(&id);
            let schema = match &old {
                // Which of the two the stream's next rows have, the first table map tells.
                Some(old) => old.clone(),
                None => table.schema.clone(),
            };
            let freshness = if old.is_some() { Freshness::Asked } else { Freshness::Settled };
            (
                id,
                Known {
                    schema: Arc::new(schema),
                    freshness,
                    table: Arc::new(table),
                    guessed: None,
                    added: false,
                },
            )
        };
        let tables = now.into_iter().map(known).collect();
        Self { selection, tables, bound: HashMap::new(), nameless: false, regenerated: Vec::new() }
    }

    /// Whether the log has no names of columns, as far as that is known.
    pub(crate) fn nameless(&mut self, nameless: bool) {
        if nameless && !self.nameless {
            tracing::warn!(
                "the server logs no column names (binlog_row_metadata is not FULL): shapes are asked for when a statement changes them, and a table that was changed more than once meanwhile is read again; set binlog_row_metadata=FULL"
            );
        }
        self.nameless = nameless;
    }

    /// What is captured.
    pub(crate) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// All tables.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&TableId, &Known)> {
        self.tables.iter()
    }

    /// One table.
    pub(crate) fn known(&self, id: &TableId) -> Option<&Known> {
        self.tables.get(id)
    }

    /// The shape of a map's rows, if this map was met before: `Some(None)` for a table that is not captured.
    pub(crate) fn bound(&self, map: &Arc<TableMap>) -> Option<Option<&Arc<TableSchema>>> {
        let bound = self.bound.get(&map.id).filter(|b| Arc::ptr_eq(&b.map, map))?;
        Some(bound.schema.as_ref())
    }

    /// A statement changed these tables (or, with none named, any): their next map is compared with fresh metadata.
    pub(crate) fn changed(&mut self, ids: Option<&[TableId]>) {
        self.bound.clear();
        match ids {
            Some(ids) => {
                for id in ids {
                    self.tables.entry(id.clone()).and_modify(|k| k.freshness = Freshness::Stale);
                }
            }
            None => self.tables.values_mut().for_each(|k| k.freshness = Freshness::Stale),
        }
    }

    /// A statement adds a column to the table.
    pub(crate) fn adds_columns(&mut self, id: &TableId) {
        self.tables.entry(id.clone()).and_modify(|known| known.added = true);
    }

    /// Tables that got another key since this was last asked.
    pub(crate) fn take_regenerated(&mut self) -> Vec<TableId> {
        std::mem::take(&mut self.regenerated)
    }

    /// Whether rows up to this place may have been told by a shape that is later than they: the log had no names, and a
    /// statement that changes the table again has just been met.
    pub(crate) fn guessed(&self, id: &TableId, place: &Place) -> bool {
        let guess = self.tables.get(id).and_then(|k| k.guessed.as_ref());
        guess.is_some_and(|(file, pos)| !place.reaches(file, *pos))
    }

    /// Finds the shape of a map's rows. Gives it, and whether it is a new version.
    ///
    /// # Errors
    /// As for SQL; `Data`, naming the table, where the log lacks names and the known shape does not fit.
    pub(crate) async fn bind(
        &mut self,
        client: &mut Client,
        map: &Arc<TableMap>,
    ) -> Result<Option<(Arc<TableSchema>, bool)>> {
        let id = TableId::new(map.database.clone(), map.table.clone());
        if !self.selection.selects(&id) {
            self.remember(map, None);
            return Ok(None);
        }
        let (schema, new) = self.version(client, &id, map).await?;
        self.remember(map, Some(Arc::clone(&schema)));
        Ok(Some((schema, new)))
    }

    fn remember(&mut self, map: &Arc<TableMap>, schema: Option<Arc<TableSchema>>) {
        if self.bound.len() >= MAX_BOUND {
            self.bound.clear();
        }
        self.bound.insert(map.id, Bound { map: Arc::clone(map), schema });
    }

    async fn version(
        &mut self,
        client: &mut Client,
        id: &TableId,
        map: &Arc<TableMap>,
    ) -> Result<(Arc<TableSchema>, bool)> {
        self.nameless(!map.full);
        if let Some(settled) = self.settled(id, map) {
            return Ok(settled);
        }
        let now = self.ask(client, id, map.full).await?;
        let old = self.tables.get(id).map(|k| Arc::clone(&k.schema));
        if map.full {
            let schema = match &now {
                Some(now) if fits(map, &now.schema) => now.schema.clone(),
                _ => {
                    let mut made =
                        mapped::from_map(id, map, old.as_deref(), now.as_ref().map(|t| &t.schema))?;
                    self.selection.keys.apply(&mut made)?;
                    made
                }
            };
            return Ok(self.adopt(id, schema, old, now));
        }
        let end = clock::log_end(client).await?;
        let schema = match (&now, &old) {
            (Some(now), _) if fits(map, &now.schema) => now.schema.clone(),
            (_, Some(old)) if fits(map, old) => (**old).clone(),
            _ => return Err(unknowable(id)),
        };
        let adopted = self.adopt(id, schema, old, now);
        if let Some(known) = self.tables.get_mut(id) {
            known.guessed = Some(end);
        }
        Ok(adopted)
    }

    /// The shape of a map's rows, where nobody need be asked for it.
    fn settled(&mut self, id: &TableId, map: &TableMap) -> Option<(Arc<TableSchema>, bool)> {
        let known = self.tables.get_mut(id)?;
        let keep = match known.freshness {
            Freshness::Stale => false,
            Freshness::Settled => fits(map, &known.schema),
            // Without names, only a statement in the log tells that the present is due.
            Freshness::Asked if map.full => !fits(map, &known.table.schema) && fits(map, &known.schema),
            Freshness::Asked => fits(map, &known.schema),
        };
        if keep {
            // What was asked may be due later.
            if known.freshness == Freshness::Asked && same_shape(&known.schema, &known.table.schema) {
                known.freshness = Freshness::Settled;
            }
            return Some((Arc::clone(&known.schema), false));
        }
        if known.freshness != Freshness::Asked || !fits(map, &known.table.schema) {
            return None;
        }
        let (old, table) = (Arc::clone(&known.schema), (*known.table).clone());
        Some(self.adopt(id, table.schema.clone(), Some(old), Some(table)))
    }

    /// The table as information_schema describes it now. With many that have to be asked for, all are.
    async fn ask(&mut self, client: &mut Client, id: &TableId, all: bool) -> Result<Option<Table>> {
        let stale = self.tables.values().filter(|k| k.freshness == Freshness::Stale).count();
        if !all || stale < MANY {
            return Ok(discover::tables(client, &self.selection, Some(id)).await?.remove(id));
        }
        let mut now = discover::survey(client, &self.selection, None).await?.tables;
        let asked = now.remove(id);
        for (id, table) in now {
            if let Some(known) = self.tables.get_mut(&id).filter(|k| k.freshness == Freshness::Stale) {
                known.table = Arc::new(table);
                known.freshness = Freshness::Asked;
            }
        }
        Ok(asked)
    }

    /// Makes `schema` the table's newest version, unless it already is.
    fn adopt(
        &mut self,
        id: &TableId,
        schema: TableSchema,
        old: Option<Arc<TableSchema>>,
        now: Option<Table>,
    ) -> (Arc<TableSchema>, bool) {
        let added = self.tables.get(id).is_some_and(|known| known.added);
        let schema = Arc::new(number::numbered(schema, old.as_deref(), added));
        let (schema, new) = match old {
            Some(old) if *old == *schema => (old, false),
            old => {
                if old.is_some_and(|old| old.generation < schema.generation) {
                    self.regenerated.push(id.clone());
                }
                (schema, true)
            }
        };
        let table = now.map(Arc::new).or_else(|| self.tables.get(id).map(|k| Arc::clone(&k.table)));
        let table = table.unwrap_or_else(|| Arc::new(bare_table(&schema)));
        let known = Known {
            schema: Arc::clone(&schema),
            table,
            freshness: Freshness::Settled,
            guessed: None,
            added: false,
        };
        self.tables.insert(id.clone(), known);
        (schema, new)
    }

    /// A statement that ends at `end` changed the table: takes its shape from information_schema, if the log ends there too, so
    /// that nothing can have changed it since. Gives the shape, and whether it is a new version; none if that cannot be told,
    /// or the table is gone.
    ///
    /// # Errors
    /// As for SQL.
    pub(crate) async fn after_statement(
        &mut self,
        client: &mut Client,
        id: &TableId,
        end: (&str, u64),
    ) -> Result<Option<(Arc<TableSchema>, bool)>> {
        let now = discover::survey(client, &self.selection, Some(id)).await?.tables.remove(id);
        let (file, pos) = clock::log_end(client).await?;
        let Some(now) = now.filter(|_| (file.as_str(), pos) == end) else { return Ok(None) };
        let old = self.tables.get(id).map(|k| Arc::clone(&k.schema));
        Ok(Some(self.adopt(id, now.schema.clone(), old, Some(now))))
    }

    /// For the snapshot: takes the table's shape from information_schema if a statement in the stream changed it. Gives the
    /// table as it is now and whether it has the shape of the newest version (if not, the stream has yet to bring the change).
    ///
    /// # Errors
    /// As for SQL.
    pub(crate) async fn refresh(
        &mut self,
        client: &mut Client,
        id: &TableId,
    ) -> Result<Option<(Known, bool)>> {
        // What has a column of a type that is not known can be read as little as what is gone.
        let mut found = discover::survey(client, &self.selection, Some(id)).await?.tables;
        if found.contains_key(id) {
            discover::estimates(client, &self.selection, &mut found).await?;
        }
        let Some(now) = found.remove(id) else { return Ok(None) };
        let known = self.tables.get(id).cloned();
        if known.as_ref().is_none_or(|k| k.freshness != Freshness::Settled) {
            let end = if self.nameless { Some(clock::log_end(client).await?) } else { None };
            self.adopt(id, now.schema.clone(), known.map(|k| k.schema), Some(now.clone()));
            self.tables.entry(id.clone()).and_modify(|k| k.guessed = end);
        }
        let Some(known) = self.tables.get_mut(id) else { return Ok(None) };
        let same = same_shape(&known.schema, &now.schema);
        known.table = Arc::new(now);
        Ok(Some((known.clone(), same)))
    }
}

/// The shape of a table that is not captured, as far as values depend on it.
///
/// # Errors
/// As for SQL; `Data` where the log lacks names and the table has another shape now.
pub(crate) async fn of_map(
    client: &mut Client,
    selection: &Selection,
    map: &TableMap,
) -> Result<TableSchema> {
    let id = TableId::new(map.database.clone(), map.table.clone());
    if map.full {
        return mapped::from_map(&id, map, None, None);
    }
    let now = discover::tables(client, selection, Some(&id)).await?.remove(&id);
    now.map(|t| t.schema).filter(|schema| fits(map, schema)).ok_or_else(|| unknowable(&id))
}

fn same_shape(a: &TableSchema, b: &TableSchema) -> bool {
    let column = |a: &Column, b: &Column| a.name == b.name && a.ty == b.ty;
    a.key == b.key
        && a.columns.len() == b.columns.len()
        && a.columns.iter().zip(&b.columns).all(|(a, b)| column(a, b))
}

fn unknowable(id: &TableId) -> Error {
    Error::data(format!(
        "{id}: the rows in the log have another shape than the table now, and the server logs no column names"
    ))
    .hint("SET GLOBAL binlog_row_metadata=FULL on the source, so that the log tells the shapes of its rows")
}

fn bare_table(schema: &TableSchema) -> Table {
    Table {
        schema: schema.clone(),
        estimated_rows: 0,
        row_bytes: 0,
        key_index: None,
        virtual_columns: Vec::new(),
        collations: vec![None; schema.columns.len()],
    }
}
