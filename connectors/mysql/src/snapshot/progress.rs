//! Position notes of the snapshot: what is done, table by table.
//!
//! | note | text |
//! |---|---|
//! | `table/<db>.<table>` | [`TableNote`] |
//! | `schema/<db>.<table>` | the newest `TableSchema` |
//! | `reread/<id>` | a [`Request`] that is not done |
//! | `signal` | the number of the last command taken |
//! | `paused` | reading is paused, if this is there |

use crate::position::{Place, Resend};
use crate::snapshot::bounds::Stored;
use crate::snapshot::commands::{PAUSED_NOTE, SIGNAL_NOTE};
use crate::snapshot::request::Request;
use caudal_core::{Error, Result, TableId, TableSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// The name of the note of a table's shape.
pub(crate) fn schema_note(id: &TableId) -> String {
    format!("schema/{id}")
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
    pub(crate) signal: i64,
    /// Reading is paused.
    pub(crate) paused: bool,
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
                out.schemas.insert(schema.id.clone(), schema);
            } else if name.starts_with("reread/") {
                out.requests.push(serde_json::from_str(text).map_err(damaged)?);
            } else if name == SIGNAL_NOTE {
                out.signal = text.parse().unwrap_or(0);
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
