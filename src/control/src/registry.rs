//! The connectors that a configuration may name. The daemon fills it, one line per connector; nothing here knows any of them.

use crate::config::de::read_beside;
use crate::config::problem::Problem;
use crate::config::tree::{Node, Value};
use caudal_core::{Result, Sink, Source};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// One kind of connector: what `type:` names.
pub struct Kind<End: ?Sized> {
    /// The word behind `type:`.
    pub name: &'static str,
    /// One line for the reference page.
    pub summary: &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
    build: Build<End>,
}

type Build<End> =
    Box<dyn Fn(&str, &str, Node, &[&str]) -> std::result::Result<Arc<End>, Problem> + Send + Sync>;

impl<End: ?Sized + 'static> Kind<End> {
    /// A kind whose keys are those of `C`, and that `open` makes of its name and configuration.
    pub fn new<C>(name: &'static str, summary: &'static str, open: fn(&str, C) -> Result<Arc<End>>) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
    {
        let build = move |name: &str, at: &str, mut node: Node, common: &[&str]| {
            keep_own_keys::<C>(&mut node, common);
            let config: C = read_beside(&node, at, common)?;
            open(name, config).map_err(|error| Problem::from(error).under(at, &node))
        };
        Self { name, summary, schema: subschema::<C>, build: Box::new(build) }
    }

    /// The end that the node at the path `at` describes. `common` are the keys that stand in every node of its family.
    ///
    /// # Errors
    /// The first mistake of the node.
    pub fn build(
        &self,
        name: &str,
        at: &str,
        node: Node,
        common: &[&str],
    ) -> std::result::Result<Arc<End>, Problem> {
        (self.build)(name, at, node, common)
    }

    /// The schema of its own keys.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }
}

/// In full, not by reference: it becomes one alternative of its family.
fn subschema<C: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    C::json_schema(generator)
}

/// Takes out the common keys that the connector does not read itself.
fn keep_own_keys<C: JsonSchema>(node: &mut Node, common: &[&str]) {
    let schema = C::json_schema(&mut SchemaGenerator::default());
    let own = schema.get("properties").and_then(|p| p.as_object()).cloned().unwrap_or_default();
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|(key, _)| !common.contains(&key.as_str()) || own.contains_key(key));
    }
}

/// All kinds of connectors.
#[derive(Default)]
pub struct Registry {
    /// What may stand under `sources`.
    pub sources: Vec<Kind<dyn Source>>,
    /// What may stand under `sinks`.
    pub sinks: Vec<Kind<dyn Sink>>,
    /// The schema of `kafka:`.
    pub kafka: Option<fn(&mut SchemaGenerator) -> Schema>,
}

impl Registry {
    /// Adds a kind of source.
    #[must_use]
    pub fn source<C>(
        mut self,
        name: &'static str,
        summary: &'static str,
        open: fn(&str, C) -> Result<Arc<dyn Source>>,
    ) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
    {
        self.sources.push(Kind::new(name, summary, open));
        self
    }

    /// Adds a kind of sink.
    #[must_use]
    pub fn sink<C>(
        mut self,
        name: &'static str,
        summary: &'static str,
        open: fn(&str, C) -> Result<Arc<dyn Sink>>,
    ) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
    {
        self.sinks.push(Kind::new(name, summary, open));
        self
    }

    /// Says what `kafka:` may hold.
    #[must_use]
    pub fn kafka<C: JsonSchema>(mut self) -> Self {
        self.kafka = Some(subschema::<C>);
        self
    }
}
