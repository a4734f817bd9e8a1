//! The form of a table's records: which code writes keys and values, with what is the same for all of them.

use crate::encode::change::Change;
use crate::encode::{cloudevents, connect, flat, json, maxwell};
use crate::encode::value::How;
use crate::format::Format;
use caudal_core::{Cell, Result, TableSchema};

/// How keys and values of one shape are written.
#[derive(Debug)]
pub(crate) enum Form {
    Json,
    /// `{"schema":…,"payload":` of keys and of values.
    JsonSchema { key: Vec<u8>, value: Vec<u8> },
    Flat,
    Maxwell,
    CloudEvents,
}

impl Form {
    pub(crate) fn new(format: Format, schema: &TableSchema, hows: &[How], names: (&str, &str)) -> Self {
        let (topic, connector) = names;
        match format {
            Format::JsonSchema => Self::JsonSchema {
                key: connect::key_head(schema, hows, topic),
                value: connect::value_head(schema, hows, topic, connector),
            },
            Format::Flat => Self::Flat,
            Format::Maxwell => Self::Maxwell,
            Format::CloudEvents => Self::CloudEvents,
            _ => Self::Json,
        }
    }

    /// Appends the key, of the cells of the key in its order.
    pub(crate) fn key(&self, out: &mut Vec<u8>, change: &Change<'_>, cells: &[Cell]) -> Result<()> {
        match self {
            Self::Json | Self::Flat | Self::CloudEvents => json::key(out, change, cells),
            Self::JsonSchema { key, .. } => {
                out.extend_from_slice(key);
                json::key(out, change, cells)?;
                out.push(b'}');
                Ok(())
            }
            Self::Maxwell => maxwell::key(out, change, cells),
        }
    }

    /// Appends the value.
    pub(crate) fn value(&self, out: &mut Vec<u8>, change: &Change<'_>) -> Result<()> {
        match self {
            Self::Json => json::envelope(out, change),
            Self::JsonSchema { value, .. } => {
                out.extend_from_slice(value);
                json::envelope(out, change)?;
                out.push(b'}');
                Ok(())
            }
            Self::Flat => flat::value(out, change),
            Self::Maxwell => maxwell::value(out, change),
            Self::CloudEvents => cloudevents::value(out, change),
        }
    }

    /// Whether a change of key is one record, and a deletion has no tombstone.
    pub(crate) fn is_maxwell(&self) -> bool {
        matches!(self, Self::Maxwell)
    }

    /// Whether it has a record for an emptied table.
    pub(crate) fn tells_truncation(&self) -> bool {
        !matches!(self, Self::Flat)
    }
}
