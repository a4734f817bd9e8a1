//! The second reading: from the tree into typed structs, with a message for each mistake that names path, line, cause and fix,
//! and never a value.
//!
//! Own code instead of a generic value's deserializer, because those quote what they found ("invalid type: string \"secret\""),
//! and know neither lines nor near misses.

use super::nearest::nearest;
use super::problem::Problem;
use super::tree::{Node, Value};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use std::fmt;

/// Reads a `T` out of a node that stands at the dotted path `at`.
///
/// # Errors
/// The first mistake.
pub fn read<T: DeserializeOwned>(node: &Node, at: &str) -> Result<T, Problem> {
    read_beside(node, at, &[])
}

/// The same for a node of which the keys `others` were read elsewhere: an unknown key may have meant one of those.
///
/// # Errors
/// The first mistake.
pub fn read_beside<T: DeserializeOwned>(node: &Node, at: &str, others: &[&str]) -> Result<T, Problem> {
    T::deserialize(Reader { node }).map_err(|mistake| mistake.beside(others).into_problem(at, node.line))
}

/// Above the root of a YAML tree nothing nests deeper than this (the parser's own bound is higher).
const MAX_DEPTH_SHOWN: usize = 64;

/// A mistake on its way up: each level puts its step in front.
#[derive(Debug)]
struct Mistake {
    steps: Vec<String>,
    line: Option<u64>,
    cause: String,
    fix: Option<String>,
    /// For an unknown key: those that are known.
    known: Option<&'static [&'static str]>,
}

impl Mistake {
    fn new(cause: impl Into<String>) -> Self {
        Self { steps: Vec::new(), line: None, cause: cause.into(), fix: None, known: None }
    }

    /// An unknown key of the outermost level may have meant one of `others` too.
    fn beside(mut self, others: &[&str]) -> Self {
        if let (Some(known), [field]) = (self.known, self.steps.as_slice()) {
            let own = known.iter().filter(|key| !others.contains(key));
            let all: Vec<&str> = others.iter().chain(own).copied().collect();
            self.fix = Some(known_keys(field, &all));
        }
        self
    }

    fn below(mut self, step: impl Into<String>, line: u64) -> Self {
        if self.steps.len() < MAX_DEPTH_SHOWN {
            self.steps.push(step.into());
        }
        self.line.get_or_insert(line);
        self
    }

    fn into_problem(self, at: &str, line: u64) -> Problem {
        let mut path: Vec<&str> = Some(at).filter(|at| !at.is_empty()).into_iter().collect();
        path.extend(self.steps.iter().rev().map(String::as_str));
        let problem = Problem::at(self.line.unwrap_or(line), path.join("."), self.cause);
        match self.fix {
            Some(fix) => problem.fix(fix),
            None => problem,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", kind(&found)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("out of range: expected {expected}"))
    }

    fn invalid_length(found: usize, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {found} items"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        let mut mistake = Self::new("not one of the known values");
        mistake.fix = Some(format!("use one of: {}", expected.join(", ")));
        mistake
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut mistake = Self::new("unknown key");
        mistake.fix = Some(known_keys(field, expected));
        mistake.known = Some(expected);
        mistake.below(field, 0)
    }

    fn missing_field(field: &'static str) -> Self {
        let mut mistake = Self::new("missing");
        mistake.fix = Some(format!("add `{field}: …`"));
        mistake.below(field, 0)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new("is there twice").below(field, 0)
    }
}

/// "did you mean", or the list of what there is.
pub(crate) fn known_keys(field: &str, known: &[&str]) -> String {
    let list = if known.is_empty() { "there are none here".to_owned() } else { known.join(", ") };
    match nearest(field, known) {
        Some(near) => format!("did you mean `{near}`? Known keys: {list}"),
        None => format!("remove it. Known keys: {list}"),
    }
}

fn kind(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Str(_) | Unexpected::Char(_) => "text",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a group of keys",
        Unexpected::Unit | Unexpected::Option => "nothing",
        _ => "something else",
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
}

impl<'a> Reader<'a> {
    /// Text that came out of `${…}`, or a number's own: `${env:PORT}` may stand for a number.
    fn expanded<T: std::str::FromStr>(self) -> Option<T> {
        match &self.node.value {
            Value::Text(text) if self.node.expanded => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn visit_int<'de, V: Visitor<'de>>(number: i128, visitor: V) -> Result<V::Value, Mistake> {
        match (u64::try_from(number), i64::try_from(number)) {
            (Ok(number), _) => visitor.visit_u64(number),
            (_, Ok(number)) => visitor.visit_i64(number),
            _ => Err(Mistake::new("the number is too large")),
        }
    }

    fn wrong(self, expected: &str) -> Mistake {
        Mistake::new(format!("expected {expected}, found {}", self.node.kind()))
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
            match self.expanded::<i128>() {
                Some(number) => Self::visit_int(number, visitor),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => Self::visit_int(*value, visitor),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), current: None }),
        }
    }

    numbers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.expanded::<bool>() {
            Some(value) => visitor.visit_bool(value),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.expanded::<f64>() {
            Some(value) => visitor.visit_f64(value),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let mut mistake = match &self.node.value {
            Value::Text(text) => return visitor.visit_str(text),
            _ => self.wrong("text"),
        };
        if matches!(self.node.value, Value::Bool(_) | Value::Int(_) | Value::Float(_)) {
            mistake.fix = Some("put the value in quotes".to_owned());
        }
        Err(mistake)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    /// `key:` with nothing behind it is an empty group: all of its keys may have defaults.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::Null => visitor.visit_map(Entries { entries: [].iter(), current: None }),
            Value::Map(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a group of keys")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::List(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Map(entries) if entries.len() == 1 => {
                let (name, node) = &entries[0];
                visitor.visit_enum(Variant { name, node })
            }
            _ => {
                let mut mistake = self.wrong("one of the known values");
                mistake.fix = Some(format!("use one of: {}", variants.join(", ")));
                Err(mistake)
            }
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let item = seed.deserialize(Reader { node });
        item.map(Some).map_err(|mistake| mistake.below(index.to_string(), node.line))
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, (String, Node)>,
    current: Option<&'a (String, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        self.current = self.entries.next();
        let Some((key, node)) = self.current else { return Ok(None) };
        // An unknown key has put its own step already; it gets the line here.
        let at_line = |mistake: Mistake| Mistake { line: Some(node.line), ..mistake };
        seed.deserialize(key.as_str().into_deserializer()).map(Some).map_err(at_line)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Mistake> {
        let Some((key, node)) = self.current else { return Err(Mistake::new("a value without a key")) };
        seed.deserialize(Reader { node }).map_err(|mistake| mistake.below(key.as_str(), node.line))
    }
}

struct Variant<'a> {
    name: &'a str,
    node: &'a Node,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Mistake> {
        seed.deserialize(self.name.into_deserializer()).map(|value| (value, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        match self.node.value {
            Value::Null => Ok(()),
            _ => Err(Mistake::new("takes no value")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mistake> {
        let (name, line) = (self.name, self.node.line);
        seed.deserialize(Reader { node: self.node }).map_err(|mistake| mistake.below(name, line))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mistake> {
        let (name, line) = (self.name, self.node.line);
        Reader { node: self.node }.deserialize_seq(visitor).map_err(|mistake| mistake.below(name, line))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let (name, line) = (self.name, self.node.line);
        let reader = Reader { node: self.node };
        reader.deserialize_struct("", fields, visitor).map_err(|mistake| mistake.below(name, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        url: String,
        #[serde(default)]
        port: Option<u16>,
        #[serde(default)]
        tables: Vec<String>,
        #[serde(default)]
        mode: Mode,
        #[serde(default)]
        wait: caudal_core::DurationText,
        #[serde(default)]
        on: bool,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        #[default]
        Key,
        Transaction,
        Every(u32),
    }

    fn shape(yaml: &str) -> Result<Shape, String> {
        read(&Node::parse(yaml).unwrap(), "sources.plex").map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_right_tree_is_read() {
        let yaml = "url: x\nport: 3306\ntables: [a, b]\nmode: transaction\nwait: 5s\non: true\n";
        let read = shape(yaml).unwrap();
        assert_eq!((read.port, read.tables.len(), read.mode), (Some(3306), 2, Mode::Transaction));
        assert_eq!(shape("url: x\nmode: {every: 5}\n").unwrap().mode, Mode::Every(5));
        assert_eq!(shape("url: x\nport:\n").unwrap().port, None);
    }

    #[test]
    fn each_mistake_says_where_what_and_how_to_mend_it() {
        let known = "url, port, tables, mode, wait, on";
        for (yaml, expected) in [
            (
                "url: x\nurll: x\n",
                format!("sources.plex.urll (line 2): unknown key\n  fix: did you mean `url`? Known keys: {known}"),
            ),
            (
                "url: x\nzzzzz: x\n",
                format!("sources.plex.zzzzz (line 2): unknown key\n  fix: remove it. Known keys: {known}"),
            ),
            ("port: 1\n", "sources.plex.url: missing\n  fix: add `url: …`".to_owned()),
            (
                "url: 5\n",
                "sources.plex.url (line 1): expected text, found a whole number\n  fix: put the value in quotes".to_owned(),
            ),
            ("url: x\nport: 99999\n", "sources.plex.port (line 2): out of range: expected u16".to_owned()),
            ("url: x\nport: text\n", "sources.plex.port (line 2): expected u16, found text".to_owned()),
            (
                "url: x\ntables:\n  - a\n  - {b: c}\n",
                "sources.plex.tables.1 (line 4): expected text, found a group of keys".to_owned(),
            ),
            (
                "url: x\nmode: fast\n",
                "sources.plex.mode (line 2): not one of the known values\n  fix: use one of: key, transaction, every".to_owned(),
            ),
            (
                "url: x\nwait: 5\n",
                "sources.plex.wait (line 2): `5` is no duration; write a number with a unit, like 500ms, 5s, 10m or 7d".to_owned(),
            ),
            ("url: x\ntables: a\n", "sources.plex.tables (line 2): expected a list, found text".to_owned()),
        ] {
            assert_eq!(shape(yaml).unwrap_err(), expected, "{yaml}");
        }
    }

    #[test]
    fn what_was_expanded_may_stand_for_a_number_and_stays_text_where_text_is_wanted() {
        let mut node = Node::parse("url: '1'\nport: '3306'\non: 'true'\n").unwrap();
        let Value::Map(entries) = &mut node.value else { panic!("a map") };
        entries.iter_mut().for_each(|(_, node)| node.expanded = true);
        let read: Shape = read(&node, "").unwrap();
        assert_eq!((read.url.as_str(), read.port, read.on), ("1", Some(3306), true));
    }
}
