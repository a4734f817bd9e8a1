//! The shapes of polled tables: what the log was told last, and what comes after it.
//!
//! A version stands for one shape, and a record of the log is read by the newest version that begins before it. So a table's shape
//! changes only while no run of it goes on: each run holds its table's shape until its last batch was handed on, and one that
//! needs another shape waits for the others. The shape is stored with the position (as a note of the table), so that versions go
//! on after a restart.

use crate::{Look, Session};
use caudal_core::{Error, Result, TableId, TableSchema};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

const NAME: &str = "shape/";
/// How often a shape may change under the hands of a run that begins.
const ATTEMPTS: u32 = 8;

type Slot = Arc<RwLock<Option<Arc<TableSchema>>>>;

/// The shapes of a source's tables.
#[derive(Default)]
pub(crate) struct Shapes {
    slots: Mutex<BTreeMap<TableId, Slot>>,
    /// Tables whose shape was not handed on yet: the run that found it may have failed, or begun anew.
    unstored: Mutex<BTreeSet<TableId>>,
}

/// A table's shape, which does not change as long as this is held.
pub(crate) struct Held {
    pub(crate) schema: Arc<TableSchema>,
    /// Whether it was not handed on yet: it must be stored.
    pub(crate) is_new: bool,
    _guard: OwnedRwLockReadGuard<Option<Arc<TableSchema>>>,
}

/// The name of a table's note.
pub(crate) fn name(table: &TableId) -> String {
    format!("{NAME}{table}")
}

/// The note's text.
pub(crate) fn text(schema: &TableSchema) -> String {
    serde_json::to_string(schema).unwrap_or_default()
}

impl Shapes {
    /// From stored notes.
    ///
    /// # Errors
    /// `Data` for one that cannot be read.
    pub(crate) fn stored(notes: &BTreeMap<String, Option<String>>) -> Result<Self> {
        let mut shapes = BTreeMap::new();
        for (name, text) in notes.iter().filter(|(name, _)| name.starts_with(NAME)) {
            let Some(text) = text else { continue };
            let schema: TableSchema = serde_json::from_str(text)
                .map_err(|e| Error::data(format!("read the stored note {name}")).because(e))?;
            shapes.insert(schema.id.clone(), Arc::new(RwLock::new(Some(Arc::new(schema)))));
        }
        Ok(Self { slots: Mutex::new(shapes), unstored: Mutex::default() })
    }

    fn slot(&self, table: &TableId) -> Slot {
        // A panic while the lock is held leaves a whole map.
        let mut shapes = self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(shapes.entry(table.clone()).or_default())
    }

    /// A table's shape is handed on.
    pub(crate) fn told(&self, table: &TableId) {
        self.unstored().remove(table);
    }

    fn unstored(&self) -> std::sync::MutexGuard<'_, BTreeSet<TableId>> {
        self.unstored.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The shape for a run that begins: what the session makes of what is known.
    ///
    /// # Errors
    /// As the session says.
    pub(crate) async fn hold(&self, session: &mut dyn Session, look: &Look<'_>) -> Result<Held> {
        let slot = self.slot(look.table);
        for _ in 0..ATTEMPTS {
            let guard = Arc::clone(&slot).read_owned().await;
            let known = guard.clone();
            let found = session.schema(&Look { known: known.as_ref(), ..*look }).await?;
            if let Some(schema) = known.as_ref().filter(|known| same(known, &found)) {
                let is_new = self.unstored().contains(look.table);
                return Ok(Held { schema: Arc::clone(schema), is_new, _guard: guard });
            }
            drop(guard);
            let mut shape = slot.write().await;
            // Another run may have changed it meanwhile: then the session is asked again.
            if shape.as_ref().map(|s| s.version) == known.as_ref().map(|s| s.version) {
                *shape = Some(Arc::new(following(known.as_deref(), &found)));
                self.unstored().insert(look.table.clone());
            }
        }
        Err(Error::transient(format!("{}: its shape changes again and again", look.table)))
    }
}

/// Whether two shapes read the same rows the same way; numbers of columns and versions aside.
#[must_use]
pub fn same(a: &TableSchema, b: &TableSchema) -> bool {
    let columns =
        |s: &TableSchema| s.columns.iter().map(|c| (c.name.clone(), c.ty.clone())).collect::<Vec<_>>();
    a.key == b.key && columns(a) == columns(b)
}

/// `found` as the version after `known`: columns that were there keep their numbers.
fn following(known: Option<&TableSchema>, found: &TableSchema) -> TableSchema {
    let Some(known) = known else {
        return TableSchema { version: 1, ..found.clone() };
    };
    let mut next = known.first_new_column_id();
    let mut columns = found.columns.clone();
    for column in &mut columns {
        column.id = match known.columns.iter().find(|c| c.name == column.name) {
            Some(before) => before.id,
            None => {
                next += 1;
                next - 1
            }
        };
    }
    let names = |s: &TableSchema| s.key_columns().map(|c| c.name.clone()).collect::<Vec<_>>();
    let rekeyed = names(known) != names(found);
    TableSchema {
        version: known.version + 1,
        generation: known.generation + u32::from(rekeyed),
        columns,
        ..found.clone()
    }
}
