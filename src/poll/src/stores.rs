//! Stores: one definition of a source, for each system of a list.

use crate::Scope;
use caudal_core::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

/// Largest file of stores, in bytes.
const LARGEST: u64 = 4 << 20;

/// A list of systems that are read alike: each table has the rows of all of them, with a column that tells whose they are.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoresConfig {
    /// The stores, each a group of attributes with an `id`. One with `activo: false` (or `active: false`) is left out. Attributes are
    /// used as `{store.server}`.
    pub list: Vec<BTreeMap<String, Attribute>>,
    /// In place of `list`: a CSV file whose first line names the attributes. A relative path starts at the daemon's working folder.
    pub csv: Option<PathBuf>,
    /// Only stores with these attributes: `{tipo: klk}`.
    pub only: BTreeMap<String, Attribute>,
    /// Columns that each row gets from its store: column → attribute. All of them are part of every key. By default `store: id`.
    pub columns: BTreeMap<String, String>,
    /// How many stores are read at a time.
    pub concurrent: Option<u32>,
}

/// An attribute of a store: text, or a number or truth value, taken as it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attribute(pub String);

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Attribute;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a number, or true or false")
            }
            fn visit_str<E>(self, text: &str) -> Result<Attribute, E> {
                Ok(Attribute(text.to_owned()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Attribute, E> {
                Ok(Attribute(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Attribute, E> {
                Ok(Attribute(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Attribute, E> {
                Ok(Attribute(value.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Attribute {
    fn schema_name() -> Cow<'static, str> {
        "Attribute".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"] })
    }
}

/// A store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Its id: unique.
    pub id: String,
    /// All attributes, the id too.
    pub attributes: BTreeMap<String, String>,
}

/// A list of stores that can be used.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Active ones, in the order of the list.
    pub stores: Vec<Store>,
    /// Column and attribute, at least one.
    pub columns: Vec<(String, String)>,
    /// How many are read at a time.
    pub concurrent: usize,
}

impl Stores {
    /// What tells the rows of the store at a place; none if there is no such store.
    #[must_use]
    pub fn scope(&self, at: usize) -> Option<Scope> {
        let store = self.stores.get(at)?;
        let value = |(column, attribute): &(String, String)| {
            Some((column.clone(), store.attributes.get(attribute)?.clone()))
        };
        let columns = self.columns.iter().map(value).collect::<Option<_>>()?;
        Some(Scope { name: store.id.clone(), columns })
    }
}

impl StoresConfig {
    /// Reads the list; none if there is neither a list nor a file.
    ///
    /// # Errors
    /// `Config`, naming the key within `stores`.
    pub fn resolve(self) -> Result<Option<Stores>> {
        let wrong = |field: &str, says: String| Error::config(says).field(field);
        let rows = match (&self.csv, self.list.is_empty()) {
            (None, true) if self.only.is_empty() && self.columns.is_empty() => return Ok(None),
            (None, true) => {
                return Err(wrong("list", "there are no stores".into()).hint("give a `list`, or a `csv`"));
            }
            (Some(_), false) => {
                return Err(wrong("csv", "there is a `list`, too".into()).hint("keep one of them"));
            }
            (None, false) => {
                let plain =
                    |row: BTreeMap<String, Attribute>| row.into_iter().map(|(k, v)| (k, v.0)).collect();
                self.list.into_iter().map(plain).collect()
            }
            (Some(path), true) => file(path)?,
        };
        let mut columns: Vec<(String, String)> = self.columns.into_iter().collect();
        if columns.is_empty() {
            columns.push(("store".to_owned(), "id".to_owned()));
        }
        let is_meant = |row: &&BTreeMap<String, String>| {
            let inactive = ["activo", "active"].iter().any(|key| row.get(*key).is_some_and(|v| is_no(v)));
            !inactive && self.only.iter().all(|(key, value)| row.get(key) == Some(&value.0))
        };
        let (mut stores, mut seen) = (Vec::new(), BTreeSet::new());
        for row in rows.iter().filter(is_meant) {
            let id = row.get("id").filter(|id| !id.is_empty());
            let id = id.ok_or_else(|| wrong("list", "a store has no `id`".into()))?.clone();
            if let Some((_, attribute)) =
                columns.iter().find(|(_, a)| row.get(a).is_none_or(String::is_empty))
            {
                return Err(wrong("columns", format!("the store {id} has no `{attribute}`")));
            }
            let told: Vec<&String> = columns.iter().filter_map(|(_, attribute)| row.get(attribute)).collect();
            if !seen.insert(id.clone())
                || stores.iter().any(|s: &Store| {
                    columns.iter().filter_map(|(_, a)| s.attributes.get(a)).eq(told.iter().copied())
                })
            {
                return Err(wrong("list", format!("the store {id} cannot be told from another one")));
            }
            stores.push(Store { id, attributes: row.clone() });
        }
        if stores.is_empty() {
            return Err(wrong("list", "no store is active".into()).hint("look at `activo` and at `only`"));
        }
        Ok(Some(Stores { stores, columns, concurrent: self.concurrent.unwrap_or(4).max(1) as usize }))
    }
}

fn is_no(text: &str) -> bool {
    matches!(text.trim().to_lowercase().as_str(), "false" | "no" | "0" | "f" | "n")
}

fn file(path: &std::path::Path) -> Result<Vec<BTreeMap<String, String>>> {
    let unreadable =
        |e: std::io::Error| Error::config(format!("read {}", path.display())).field("csv").because(e);
    if std::fs::metadata(path).map_err(unreadable)?.len() > LARGEST {
        return Err(
            Error::config(format!("{} is larger than {} MiB", path.display(), LARGEST >> 20)).field("csv")
        );
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let mut lines = records(text.trim_start_matches('\u{feff}')).into_iter();
    let names = lines.next().unwrap_or_default();
    let mut rows = Vec::new();
    for (i, line) in lines.enumerate() {
        if line.len() != names.len() {
            let says = format!("record {} has {} fields, the first line {}", i + 2, line.len(), names.len());
            return Err(Error::config(says).field("csv"));
        }
        rows.push(names.iter().map(|name| name.trim().to_owned()).zip(line).collect());
    }
    Ok(rows)
}

/// After RFC 4180: fields in quotes may hold commas, line breaks and doubled quotes. Empty lines are passed over.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut all, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut chars) = (false, text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\r' if !quoted => {}
            '\n' if !quoted => end(&mut all, &mut record, &mut field),
            other => field.push(other),
        }
    }
    end(&mut all, &mut record, &mut field);
    all
}

fn end(all: &mut Vec<Vec<String>>, record: &mut Vec<String>, field: &mut String) {
    if record.is_empty() && field.trim().is_empty() {
        field.clear();
        return;
    }
    record.push(std::mem::take(field));
    all.push(std::mem::take(record));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(yaml: &str) -> StoresConfig {
        serde_json::from_str(yaml).unwrap()
    }

    #[test]
    fn active_stores_of_a_list_or_a_file_are_taken() {
        let json = r#"{"list": [{"id": "t1", "activo": true, "port": 1433}, {"id": "t2", "activo": false}]}"#;
        let stores = list(json).resolve().unwrap().unwrap();
        assert_eq!(stores.stores.len(), 1);
        assert_eq!(stores.stores[0].attributes["port"], "1433");
        assert_eq!(stores.columns, [("store".to_owned(), "id".to_owned())]);
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("stores.csv");
        let text = "\u{feff}id,nombre,tipo,activo\r\nt1,\"El Bosque, \"\"Sur\"\"\",klk,1\n\nt2,Frio,stellar,true\nt3,X,klk,no\n";
        std::fs::write(&csv, text).unwrap();
        let only = BTreeMap::from([("tipo".to_owned(), Attribute("klk".to_owned()))]);
        let config = StoresConfig { csv: Some(csv), only, ..StoresConfig::default() };
        let stores = config.resolve().unwrap().unwrap();
        assert_eq!(stores.stores.len(), 1);
        assert_eq!(stores.stores[0].attributes["nombre"], "El Bosque, \"Sur\"");
        assert!(StoresConfig::default().resolve().unwrap().is_none());
    }

    #[test]
    fn a_row_is_a_stores_by_all_of_its_columns() {
        let json = r#"{"list": [{"id": "a", "e": "1", "u": "7"}, {"id": "b", "e": "2", "u": "7"}], "columns": {"empresa": "e", "ubicacion": "u"}}"#;
        let stores = list(json).resolve().unwrap().unwrap();
        let columns = |at| stores.scope(at).unwrap().columns;
        let of = |empresa: &str| {
            [("empresa", empresa), ("ubicacion", "7")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        assert_eq!((columns(0), columns(1)), (of("1").to_vec(), of("2").to_vec()));
        assert!(stores.scope(2).is_none());
    }

    #[test]
    fn stores_that_cannot_be_told_apart_are_refused() {
        for json in [
            r#"{"list": [{"id": "t1"}, {"id": "t1"}]}"#,
            r#"{"list": [{"nombre": "x"}]}"#,
            r#"{"list": [{"id": "a", "u": "1"}, {"id": "b", "u": "1"}], "columns": {"ubicacion": "u"}}"#,
            r#"{"list": [{"id": "a"}], "columns": {"ubicacion": "u"}}"#,
            r#"{"list": [{"id": "a", "activo": false}]}"#,
        ] {
            assert!(list(json).resolve().is_err(), "{json}");
        }
    }
}
