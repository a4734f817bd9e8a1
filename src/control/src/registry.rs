//! The connectors that a configuration may name. The daemon fills it, one line per connector; nothing here knows any of them.

use crate::config::de::read_beside;
use crate::config::environment::Systems;
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
    /// Schemes of the URLs that mean it: `mysql`, `mariadb`.
    pub schemes: &'static [&'static str],
    schema: fn(&mut SchemaGenerator) -> Schema,
    build: Build<End>,
}

type Build<End> =
    Box<dyn Fn(&str, &str, Node, &[&str]) -> std::result::Result<Arc<End>, Problem> + Send + Sync>;

impl<End: ?Sized + 'static> Kind<End> {
    /// A kind whose keys are those of `C`, and that `open` makes of its name and configuration.
    pub fn new<C>(
        name: &'static str,
        schemes: &'static [&'static str],
        open: fn(&str, C) -> Result<Arc<End>>,
    ) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
    {
        let build = move |name: &str, at: &str, mut node: Node, common: &[&str]| {
            keep_own_keys::<C>(&mut node, common);
            let config: C = read_beside(&node, at, common)?;
            open(name, config).map_err(|error| Problem::from(error).under(at, &node))
        };
        Self { name, schemes, schema: subschema::<C>, build: Box::new(build) }
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

    /// Whether a URL means this kind.
    #[must_use]
    pub fn is_meant_by(&self, url: &str) -> bool {
        url.split_once("://")
            .is_some_and(|(scheme, _)| self.schemes.iter().any(|s| s.eq_ignore_ascii_case(scheme)))
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

/// All kinds of connectors, and how the log is configured (`K`: the type behind `kafka:`).
pub struct Registry<K> {
    /// What may stand under `sources`.
    pub sources: Vec<Kind<dyn Source>>,
    /// What may stand under `sinks`.
    pub sinks: Vec<Kind<dyn Sink>>,
    /// The kind of source that `ETL_DB_*` variables describe.
    database: Option<&'static str>,
    validate: fn(&K) -> Result<()>,
}

impl<K: DeserializeOwned + JsonSchema> Registry<K> {
    /// Without connectors. `validate` tells what is wrong with a `kafka:` node, by its fields (`kafka.brokers`); where the
    /// daemon serves the log itself, the node has no brokers.
    pub fn new(validate: fn(&K) -> Result<()>) -> Self {
        Self { sources: Vec::new(), sinks: Vec::new(), database: None, validate }
    }

    /// Adds a kind of source.
    #[must_use]
    pub fn source<C>(
        mut self,
        name: &'static str,
        schemes: &'static [&'static str],
        open: fn(&str, C) -> Result<Arc<dyn Source>>,
    ) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
    {
        self.sources.push(Kind::new(name, schemes, open));
        self
    }

    /// The kind of source that `ETL_DB_*` variables describe: one that was added, with a URL.
    #[must_use]
    pub fn database(mut self, kind: &'static str) -> Self {
        self.database = Some(kind);
        self
    }

    /// What variables can name.
    pub(crate) fn systems(&self) -> Systems<'_> {
        let kind = self.sources.iter().find(|k| Some(k.name) == self.database);
        let database = kind.and_then(|k| Some((k.name, *k.schemes.first()?))).unwrap_or_default();
        Systems { database, sinks: self.sinks.iter().map(|k| (k.name, k.schemes)).collect() }
    }

    /// Adds a kind of sink.
    #[must_use]
    pub fn sink<C>(
        mut self,
        name: &'static str,
        schemes: &'static [&'static str],
        open: fn(&str, C) -> Result<Arc<dyn Sink>>,
    ) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
    {
        self.sinks.push(Kind::new(name, schemes, open));
        self
    }

    /// Reads the `kafka:` node; an absent one has all defaults.
    pub(crate) fn kafka(&self, node: Option<&Node>) -> std::result::Result<K, Problem> {
        let nothing = Node::made(Value::Map(Vec::new()));
        let node = node.unwrap_or(&nothing);
        let kafka: K = read_beside(node, "kafka", &[])?;
        (self.validate)(&kafka).map_err(|error| Problem::from(error).under("kafka", node))?;
        Ok(kafka)
    }
}
