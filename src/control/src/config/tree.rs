//! The configuration file as a tree, each value with the line it stands on: what the second reading and the messages need.

use super::problem::Problem;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// A value and its line, from 1; 0 where it has none.
#[derive(Clone, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub line: u64,
    /// What stands there.
    pub value: Value,
    /// Whether a `${…}` made it: then its text may be read as a number too, and is never shown.
    pub expanded: bool,
}

/// What a configuration can hold.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Nothing: `key:` alone.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number; all that fit 64 bits, with or without a sign.
    Int(i128),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys in the order of the file; none occurs twice.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A value that stands in no file.
    #[must_use]
    pub fn made(value: Value) -> Self {
        Self { line: 0, value, expanded: false }
    }

    /// Reads YAML. `file` names it in messages.
    ///
    /// # Errors
    /// If it is not YAML, or a key occurs twice.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.trim().is_empty() {
            return Ok(Self::made(Value::Map(Vec::new())));
        }
        serde_saphyr::from_str::<Spanned<Value>>(text).map(Self::from).map_err(|error| {
            let line = error.location().map_or(0, |at| at.line());
            Problem::at(line, "", cause(error.without_snippet())).fix(
                "make it valid YAML: two spaces per level, `key: value`, text with `: ` or `#` in quotes",
            )
        })
    }

    /// The value under a key of a map.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// Takes a key out of a map.
    pub fn take(&mut self, key: &str) -> Option<Self> {
        let Value::Map(entries) = &mut self.value else { return None };
        let at = entries.iter().position(|(k, _)| k == key)?;
        Some(entries.remove(at).1)
    }

    /// Puts a key into a map, in place of what it held. Does nothing to what is no map.
    pub fn put(&mut self, key: &str, node: Self) {
        self.take(key);
        if let Value::Map(entries) = &mut self.value {
            entries.push((key.to_owned(), node));
        }
    }

    /// The line of the value at a dotted path below this one, or of the nearest value above it that exists.
    #[must_use]
    pub fn line_of(&self, path: &str) -> u64 {
        let mut node = self;
        for step in path.split('.').filter(|s| !s.is_empty()) {
            match node.get(step) {
                Some(next) => node = next,
                None => break,
            }
        }
        node.line
    }

    /// What it is, for "expected …, found …". Never the value itself.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a whole number",
            Value::Float(_) => "a number with a fraction",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a group of keys",
        }
    }
}

// Values may be secrets: only the shape is shown.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Map(entries) => f.debug_map().entries(entries.iter().map(|(k, v)| (k, v))).finish(),
            Value::List(items) => f.debug_list().entries(items).finish(),
            _ => write!(f, "<{}>", self.kind()),
        }
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { line: spanned.referenced.line(), value: spanned.value, expanded: false }
    }
}

/// The parser's message, without its position (ours says it otherwise) and without its advice to programmers.
fn cause(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::DuplicateMappingKey { key, .. } = error {
        return format!("the key `{}` is there twice", key.as_deref().unwrap_or_default());
    }
    let message = error.to_string();
    let line = message.lines().next().unwrap_or_default();
    let end = line.rfind(" at line ").unwrap_or(line.len());
    line[..end].trim().to_owned()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map: Vec<(String, Node)> = Vec::new();
        while let Some(Spanned { value: key, referenced, .. }) = entries.next_key::<Spanned<String>>()? {
            if map.iter().any(|(k, _)| *k == key) {
                return Err(A::Error::custom(format!("the key `{key}` is there twice")));
            }
            let node = Node { line: referenced.line(), value: entries.next_value()?, expanded: false };
            map.push((key, node));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_knows_its_line() {
        let node = Node::parse("prefix: shop\nsources:\n  plex:\n    url: mysql://db\n    tables: [a, b]\n")
            .unwrap();
        assert_eq!(node.line_of("prefix"), 1);
        assert_eq!(node.line_of("sources.plex.url"), 4);
        assert_eq!(node.line_of("sources.plex.tables"), 5);
        assert_eq!(node.line_of("sources.plex"), 3);
        assert_eq!(node.line_of("sources.plex.urll"), 3);
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        let problem = Node::parse("prefix: shop\nsources: [a\nsinks: b\n").unwrap_err();
        assert!(problem.line >= 2, "{problem}");
        let twice = Node::parse("prefix: shop\nprefix: b\n").unwrap_err();
        assert!(twice.to_string().contains("prefix"), "{twice}");
    }

    #[test]
    fn a_tree_shows_its_shape_but_no_value() {
        let shown = format!("{:?}", Node::parse("url: mysql://u:geheim@h\nn: 5\n").unwrap());
        assert_eq!(shown, r#"{"url": <text>, "n": <a whole number>}"#);
    }
}
