//! The JSON Schema of the configuration, and the reference page made of it: both from the types that are read.

use super::written::{SinkCommon, SourceCommon, Written};
use crate::registry::{Kind, Registry};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// The JSON Schema (2020-12) of the file, with the connectors of `registry`.
#[must_use]
pub fn schema<K: JsonSchema>(registry: &Registry<K>) -> Schema {
    let mut generator = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator();
    let sources = family::<dyn caudal_core::Source, SourceCommon>(&registry.sources, &mut generator);
    let sinks = family::<dyn caudal_core::Sink, SinkCommon>(&registry.sinks, &mut generator);
    let kafka = K::json_schema(&mut generator);
    let mut root = generator.into_root_schema_for::<Written>();
    set_property(&mut root, "kafka", kafka.to_value());
    set_property(&mut root, "sources", sources);
    set_property(&mut root, "sinks", sinks);
    root.insert("title".into(), "Caudal's configuration".into());
    root
}

/// Replaces a property's schema; the description in [`Written`] stays.
fn set_property(root: &mut Schema, key: &str, mut value: Value) {
    let Some(slot) = root.get_mut("properties").and_then(|properties| properties.get_mut(key)) else {
        return;
    };
    if let Some(description) = slot.get("description").cloned() {
        value["description"] = description;
    }
    *slot = value;
}

/// A map of names to one of the kinds.
fn family<End: ?Sized + 'static, Common: JsonSchema>(
    kinds: &[Kind<End>],
    generator: &mut SchemaGenerator,
) -> Value {
    let common = Common::json_schema(generator).to_value();
    let one = |kind: &Kind<End>| merged(common.clone(), kind.schema(generator).to_value(), kind.name);
    let kinds: Vec<Value> = kinds.iter().map(one).collect();
    json!({ "type": "object", "additionalProperties": { "oneOf": kinds } })
}

/// The connector's schema with the common keys in front.
fn merged(common: Value, mut own: Value, kind: &str) -> Value {
    let group =
        |value: &Value| value.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let list = |value: &Value| value.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut properties: Map<String, Value> = group(&common);
    for (key, value) in group(&own) {
        properties.entry(key).or_insert(value);
    }
    properties.insert("type".into(), json!({ "description": "The kind of system.", "const": kind }));
    let required: Vec<Value> = list(&common).into_iter().chain(list(&own)).collect();
    own["title"] = kind.into();
    own["properties"] = Value::Object(properties);
    own["required"] = required.into();
    own
}

/// The reference page, in Markdown.
#[must_use]
pub fn page(schema: &Schema) -> String {
    let root = schema.as_value();
    let mut out = String::from(
        "# Configuration\n\nGenerated from the types that read it: `caudal schema config --markdown`. For editors there is `config.schema.json`.\n\n",
    );
    let _ = writeln!(out, "{}\n", text_of(root));
    out.push_str(EXAMPLE);
    out.push_str("## Top level\n\n");
    table(&mut out, root);
    for (key, value) in properties(root) {
        match value.pointer("/additionalProperties/oneOf").and_then(Value::as_array) {
            Some(kinds) => {
                for kind in kinds {
                    let name = kind.get("title").and_then(Value::as_str).unwrap_or_default();
                    let _ = writeln!(out, "\n## `{key}.<name>` with `type: {name}`\n\n{}\n", text_of(kind));
                    table(&mut out, kind);
                }
            }
            None if !properties(value).is_empty() => {
                let _ = writeln!(out, "\n## `{key}`\n\n{}\n", text_of(value));
                table(&mut out, value);
            }
            None => {}
        }
    }
    out
}

const EXAMPLE: &str = "```yaml
prefix: shop
sources:
  plex:
    type: mysql
    url: mysql://cdc:${env:PLEX_PASSWORD}@db:3306/plex
    tables: [orders, \"fact*\", \"!*_tmp\"]
sinks:
  dashboards:
    type: postgres
    url: ${env:DATABASE_URL}
    from: [plex]
```

";

/// The table of a node's keys, those of the groups in it by dotted path; the groups of the top level have sections of their own.
fn table(out: &mut String, node: &Value) {
    out.push_str("| key | type | default | |\n|---|---|---|---|\n");
    rows(out, node, "", is_root(node));
}

fn is_root(node: &Value) -> bool {
    node.get("$schema").is_some()
}

fn rows(out: &mut String, node: &Value, prefix: &str, flat: bool) {
    let required: Vec<&str> = node
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut keys = properties(node);
    // What must be there stands first.
    keys.sort_by_key(|(key, _)| !required.contains(&key.as_str()));
    for (key, value) in keys {
        let default = match value.get("default") {
            _ if required.contains(&key.as_str()) => "required".to_owned(),
            Some(Value::Null) | None => String::new(),
            Some(Value::Object(_)) => String::new(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(other) => format!("`{other}`"),
        };
        let path = format!("{prefix}{key}");
        let inner = object_of(value);
        let _ = writeln!(out, "| `{path}` | {} | {default} | {} |", type_of(value), cell(&text_of(value)));
        if let (Some(inner), false) = (inner, flat) {
            rows(out, inner, &format!("{path}."), false);
        }
    }
}

/// The group of keys that a value is, if it is one; behind an "or nothing" too.
fn object_of(value: &Value) -> Option<&Value> {
    let here = (!properties(value).is_empty()).then_some(value);
    here.or_else(|| value.get("anyOf")?.as_array()?.iter().find(|one| !properties(one).is_empty()))
}

fn properties(node: &Value) -> Vec<(&String, &Value)> {
    node.get("properties").and_then(Value::as_object).map(|map| map.iter().collect()).unwrap_or_default()
}

fn text_of(value: &Value) -> String {
    let own = value.get("description").and_then(Value::as_str).unwrap_or_default();
    own.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn type_of(value: &Value) -> String {
    if let Some(choices) = choices(value) {
        return choices.join(", ");
    }
    if let Some(any) = value.get("anyOf").and_then(Value::as_array) {
        let kinds = any.iter().map(type_of).filter(|kind| kind != "nothing");
        return kinds.collect::<Vec<_>>().join(" or ");
    }
    if let Some(pattern) = value.get("pattern").and_then(Value::as_str) {
        return if pattern.contains("us|ms") { "duration" } else { "size" }.to_owned();
    }
    match value.get("type") {
        Some(Value::String(kind)) => word(kind, value),
        Some(Value::Array(kinds)) => {
            let words = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            words.map(|kind| word(kind, value)).collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}

fn word(kind: &str, value: &Value) -> String {
    match kind {
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "boolean" => "true, false".to_owned(),
        "object" => "group".to_owned(),
        "null" => "nothing".to_owned(),
        "array" => format!("list of {}", value.get("items").map_or("anything".to_owned(), type_of)),
        other => other.to_owned(),
    }
}

/// The values of an enumeration.
fn choices(value: &Value) -> Option<Vec<String>> {
    if let Some(one) = value.get("const") {
        return Some(vec![format!("`{}`", one.as_str().unwrap_or_default())]);
    }
    let text = |value: &Value| value.as_str().map(|text| format!("`{text}`"));
    if let Some(list) = value.get("enum").and_then(Value::as_array) {
        return Some(list.iter().filter_map(text).collect());
    }
    let list = value.get("oneOf").and_then(Value::as_array)?;
    list.iter().map(|one| one.get("const").and_then(text)).collect()
}
