//! The form of a table's records: which code writes keys and values, with what is the same for all of them.

use crate::encode::change::Change;
use crate::encode::value::How;
use crate::encode::{avro, cloudevents, connect, flat, json, maxwell, own};
use crate::format::Format;
use crate::registry::{Client, Language};
use caudal_core::{Cell, Error, Result, TableSchema};

/// How keys and values of one shape are written.
#[derive(Debug)]
pub(crate) enum Form {
    Json,
    /// `{"schema":…,"payload":` of keys and of values.
    JsonSchema {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Flat,
    Maxwell,
    CloudEvents,
    /// The numbers of the schemas of keys and of values.
    Avro {
        key: u32,
        value: u32,
    },
    /// Caudal's own; keys are those of `Json`.
    Own,
}

impl Form {
    /// The form of a table whose topic and connector are `names`. Registers the schemas of a form that has such: waits for the registry.
    pub(crate) fn new(
        (format, registry): (Format, Option<&Client>),
        schema: &TableSchema,
        hows: &[How],
        names: (&str, &str),
    ) -> Result<Self> {
        let (topic, connector) = names;
        Ok(match (format, registry) {
            (Format::Avro, Some(registry)) => {
                let key = avro::key_schema(schema, hows, topic);
                let value = avro::value_schema(schema, hows, topic, connector);
                let keyed = !schema.key.is_empty();
                let register = |part: &str, text: &str| {
                    registry.register(&format!("{topic}-{part}"), Language::Avro, text)
                };
                Self::Avro {
                    key: if keyed { register("key", &key)? } else { 0 },
                    value: register("value", &value)?,
                }
            }
            (Format::Avro, None) => return Err(Error::bug("the format `avro` without a registry")),
            (format, _) => Self::unregistered(format, schema, hows, names),
        })
    }

    fn unregistered(format: Format, schema: &TableSchema, hows: &[How], names: (&str, &str)) -> Self {
        let (topic, connector) = names;
        match format {
            Format::JsonSchema => Self::JsonSchema {
                key: connect::key_head(schema, hows, topic),
                value: connect::value_head(schema, hows, topic, connector),
            },
            Format::Flat => Self::Flat,
            Format::Maxwell => Self::Maxwell,
            Format::CloudEvents => Self::CloudEvents,
            Format::Caudal => Self::Own,
            _ => Self::Json,
        }
    }

    /// Appends the key, of the cells of the key in its order.
    pub(crate) fn key(&self, out: &mut Vec<u8>, change: &Change<'_>, cells: &[Cell]) -> Result<()> {
        match self {
            Self::Json | Self::Flat | Self::CloudEvents | Self::Own => json::key(out, change, cells),
            Self::JsonSchema { key, .. } => {
                out.extend_from_slice(key);
                json::key(out, change, cells)?;
                out.push(b'}');
                Ok(())
            }
            Self::Maxwell => maxwell::key(out, change, cells),
            Self::Avro { key, .. } => {
                avro::frame(out, *key);
                avro::key(out, change, cells)
            }
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
            Self::Own => own::envelope(out, change),
            Self::Avro { value, .. } => {
                avro::frame(out, *value);
                avro::envelope(out, change)
            }
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
