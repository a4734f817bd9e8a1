//! The form of a table's records: which code writes keys and values, with what is the same for all of them.

use crate::encode::change::Change;
use crate::encode::value::How;
use crate::encode::{avro, cloudevents, connect, flat, json, maxwell, own, protobuf};
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
    /// The numbers of the files of keys and of values, and of the columns.
    Protobuf {
        key: u32,
        value: u32,
        columns: Vec<u32>,
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
                let texts = (
                    avro::key_schema(schema, hows, topic),
                    avro::value_schema(schema, hows, topic, connector),
                );
                let (key, value) = registered(registry, Language::Avro, (schema, topic), &texts)?;
                Self::Avro { key, value }
            }
            (Format::Protobuf, Some(registry)) => {
                let texts =
                    (protobuf::key_schema(schema, hows, topic), protobuf::value_schema(schema, hows, topic));
                let (key, value) = registered(registry, Language::Protobuf, (schema, topic), &texts)?;
                Self::Protobuf { key, value, columns: protobuf::numbers(schema) }
            }
            (Format::Avro | Format::Protobuf, None) => {
                return Err(Error::bug(format!("the format `{}` without a registry", format.as_str())));
            }
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
            Self::Protobuf { key, columns, .. } => {
                protobuf::frame(out, *key);
                protobuf::key(out, change, cells, columns)
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
            Self::Protobuf { value, columns, .. } => {
                protobuf::frame(out, *value);
                protobuf::envelope(out, change, columns)
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

/// Registers the schemas of a table's keys, if it has any, and of its values, under the subjects that belong to their topic; gives their numbers.
fn registered(
    registry: &Client,
    language: Language,
    (schema, topic): (&TableSchema, &str),
    (key, value): &(String, String),
) -> Result<(u32, u32)> {
    let register = |part: &str, text: &str| registry.register(&format!("{topic}-{part}"), language, text);
    let key = if schema.key.is_empty() { 0 } else { register("key", key)? };
    Ok((key, register("value", value)?))
}
