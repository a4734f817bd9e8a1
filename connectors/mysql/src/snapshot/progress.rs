//! Position notes of the snapshot: what is done, table by table.
//!
//! | note | text |
//! |---|---|
//! | `table/<db>.<table>` | [`TableNote`] |
//! | `schema/<db>.<table>` | the newest `TableSchema`, with the names of the columns that were excluded |
//! | `reread/<id>` | a [`Request`] that is not done |
//! | `left/<db>.<table>` | the table was captured, and the configuration leaves it out now |
//! | `signal` | the last command taken: its number, and what the number counts in |
//! | `paused` | reading is paused, if this is there |

use crate::position::{Place, Resend};
use crate::selection::Selection;
use crate::shape::Shape;
use crate::snapshot::bounds::Stored;
use crate::snapshot::commands::{PAUSED_NOTE, SIGNAL_NOTE};
use crate::snapshot::request::{Reason, Request};
use caudal_core::{Error, Result, TableId, TableSchema, Taken};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A range of keys that is not read yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RangeNote {
    /// Behind this key; from the table's beginning with none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<Vec<Stored>>,
    /// Up to and with this key; to the table's end with none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<Vec<Stored>>,
}

/// How far one table is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableNote {
    /// Format, 1.
    pub(crate) v: u32,
    /// All rows are delivered.
    pub(crate) done: bool,
    /// Rows delivered.
    pub(crate) rows: u64,
    /// All up to this key is delivered, but what `ranges` names; all is still to be read with none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<Vec<Stored>>,
    /// Before `from`: ranges that several readers had begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ranges: Vec<RangeNote>,
    /// Nothing is left behind `from`: only `ranges`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cut: bool,
    /// For a table read in one piece at an exact place of the log: its rows in the log up to here are in the piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upto: Option<Resend>,
}

impl TableNote {
    /// Whether some of it was delivered.
    pub(crate) fn is_begun(&self) -> bool {
        self.from.is_some() || !self.ranges.is_empty()
    }

    /// As text.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The name of a table's progress note.
pub(crate) fn table_note(id: &TableId) -> String {
    format!("table/{id}")
}

/// The name of the note that a table was left out.
fn left_note(id: &TableId) -> String {
    format!("left/{id}")
}

/// The name of the note of a table's shape.
pub(crate) fn schema_note(id: &TableId) -> String {
    format!("schema/{id}")
}

/// A shape's note: the full shape, and what the configuration leaves out of it.
pub(crate) fn schema_text(full: &TableSchema, excluded: &[&str]) -> String {
    #[derive(Serialize)]
    struct Stored<'a> {
        #[serde(flatten)]
        schema: &'a TableSchema,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        excluded: &'a [&'a str],
    }
    serde_json::to_string(&Stored { schema: full, excluded }).unwrap_or_default()
}

/// What [`schema_text`] adds.
#[derive(Deserialize)]
struct Excluded {
    #[serde(default)]
    excluded: Vec<String>,
}

/// What stored notes say.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Progress by `db.table`.
    pub(crate) tables: BTreeMap<String, TableNote>,
    /// Shapes.
    pub(crate) schemas: BTreeMap<TableId, TableSchema>,
    /// Re-reads that are not done.
    pub(crate) requests: Vec<Request>,
    /// The last command taken.
    pub(crate) signal: Taken,
    /// Reading is paused.
    pub(crate) paused: bool,
    /// Tables (`db.table`) that were captured, and then left out.
    left: BTreeSet<String>,
    /// Columns that were excluded when the shapes were stored.
    excluded: BTreeMap<TableId, Vec<String>>,
}

impl Notes {
    /// Reads the notes of a position. Notes of other names are left alone.
    ///
    /// # Errors
    /// `Data` for a note that cannot be read.
    pub(crate) fn read(notes: &BTreeMap<String, Option<String>>) -> Result<Self> {
        let mut out = Self::default();
        for (name, text) in notes.iter().filter_map(|(n, t)| Some((n, t.as_ref()?))) {
            let damaged =
                |e: serde_json::Error| Error::data(format!("read the stored note {name}")).because(e);
            if let Some(id) = name.strip_prefix("table/") {
                out.tables.insert(id.to_owned(), serde_json::from_str(text).map_err(damaged)?);
            } else if name.starts_with("schema/") {
                let schema: TableSchema = serde_json::from_str(text).map_err(damaged)?;
                let Excluded { excluded } = serde_json::from_str(text).map_err(damaged)?;
                out.excluded.insert(schema.id.clone(), excluded);
                out.schemas.insert(schema.id.clone(), schema);
            } else if name.starts_with("reread/") {
                out.requests.push(serde_json::from_str(text).map_err(damaged)?);
            } else if let Some(id) = name.strip_prefix("left/") {
                out.left.insert(id.to_owned());
            } else if name == SIGNAL_NOTE {
                out.signal = Taken::parse(text);
            } else if name == PAUSED_NOTE {
                out.paused = true;
            }
        }
        Ok(out)
    }

    /// The stream goes on at another server, on whose log no stored file and position lies. A piece whose place the stream had
    /// passed needs it no more; any other table is read again from its beginning.
    pub(crate) fn moved(&mut self, passed: &Place) {
        for note in self.tables.values_mut() {
            let Some(upto) = note.upto.take_if(|upto| upto.gtid.is_none()) else { continue };
            if !passed.reaches(&upto.file, upto.pos) {
                note.done = false;
            }
        }
    }

    /// Notes which tables the configuration leaves out now. One that it has again was not followed meanwhile: it is read again, and
    /// reconciled with what was delivered of it. Gives the notes that say so.
    pub(crate) fn returned(
        &mut self,
        selects: impl Fn(&TableId) -> bool,
    ) -> BTreeMap<String, Option<String>> {
        let mut changed = BTreeMap::new();
        for id in self.schemas.keys() {
            let Some(note) = self.tables.get_mut(&id.to_string()) else { continue };
            match (selects(id), self.left.contains(&id.to_string())) {
                (false, false) => drop(changed.insert(left_note(id), Some("true".to_owned()))),
                (true, true) => {
                    changed.insert(left_note(id), None);
                    // What was read of it the first time says nothing any more.
                    *note = TableNote { v: 1, done: true, rows: note.rows, ..TableNote::default() };
                    changed.insert(table_note(id), Some(note.text()));
                    let request = Request::table(id.clone(), Reason::Returned);
                    changed.insert(request.note(), Some(request.text()));
                    self.requests.retain(|r| r.id != request.id);
                    self.requests.push(request);
                }
                _ => {}
            }
        }
        changed
    }

    /// Where the configuration excludes other columns now, the shape that goes out is another one: it gets a version of its own.
    /// Gives the notes that say so.
    pub(crate) fn reshape(&mut self, selection: &Selection) -> BTreeMap<String, Option<String>> {
        let mut changed = BTreeMap::new();
        for (id, schema) in &mut self.schemas {
            let mut now = schema.clone();
            // What does not fit the stored shape is told where the table's present one is looked at.
            let Ok(()) = selection.keys.apply(&mut now) else { continue };
            let Ok(shape) = Shape::new(&Arc::new(now), selection) else { continue };
            let excluded = shape.excluded();
            let stored = self.excluded.get(id).map(Vec::as_slice).unwrap_or_default();
            if excluded != stored {
                schema.version += 1;
                changed.insert(schema_note(id), Some(schema_text(schema, &excluded)));
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_another_server_a_piece_counts_only_if_the_stream_had_passed_its_place() {
        let piece = |pos| TableNote {
            v: 1,
            done: true,
            rows: 5,
            upto: Some(Resend { gtid: None, file: "b.000002".to_owned(), pos }),
            ..TableNote::default()
        };
        let tables = [("d.passed", 100), ("d.ahead", 101)].map(|(name, pos)| (name.to_owned(), piece(pos)));
        let mut notes = Notes { tables: tables.into(), ..Notes::default() };
        notes.moved(&Place { gtid: None, file: "b.000002".to_owned(), pos: 100 });
        let left = |name: &str| (notes.tables[name].done, notes.tables[name].upto.is_some());
        assert_eq!((left("d.passed"), left("d.ahead")), ((true, false), (false, false)));
    }
}
