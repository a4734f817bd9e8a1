//! What bad input gets: each mistake in a configuration, with the exact words that its writer reads.
#![allow(clippy::unwrap_used)] // a test file: what fails here fails a test

use async_trait::async_trait;
use caudal_control::config::secret::Vault;
use caudal_control::config::{self, Consistency, Invalid, OnReject, Problem, Resolved, reference};
use caudal_control::registry::Registry;
use caudal_core::{Check, DurationText, Error, Position, Reader, Result, Sink, Source, TableSchema, Writer};
use schemars::JsonSchema;
use serde::Deserialize;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A database that may be captured.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct River {
    /// Where it is.
    url: String,
    /// Which tables.
    #[serde(default)]
    #[allow(dead_code)]
    tables: Vec<String>,
    /// How often.
    #[serde(default)]
    #[allow(dead_code)]
    heartbeat: DurationText,
}

/// A target that reads `consistency` itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lake {
    /// Where it is.
    #[allow(dead_code)]
    url: String,
    /// Told by the control plane.
    #[serde(default)]
    consistency: String,
}

#[derive(Default, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Brokers {
    brokers: Vec<String>,
}

struct Nothing;

#[async_trait]
impl Source for Nothing {
    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
    async fn discover(&self) -> Result<Vec<TableSchema>> {
        Ok(Vec::new())
    }
    async fn open(&self, _: Option<Position>) -> Result<Box<dyn Reader>> {
        Err(Error::bug("not for opening"))
    }
}

#[async_trait]
impl Sink for Nothing {
    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
    async fn open(&self) -> Result<Box<dyn Writer>> {
        Err(Error::bug("not for opening"))
    }
}

fn river(name: &str, config: River) -> Result<Arc<dyn Source>> {
    if config.url.starts_with("river://") {
        return Ok(Arc::new(Nothing));
    }
    // A careless connector, that shows the whole url.
    Err(Error::config(format!("`{}` is no river", config.url))
        .field(format!("sources.{name}.url"))
        .hint("write it like river://user@host/name"))
}

fn lake(_: &str, config: Lake) -> Result<Arc<dyn Sink>> {
    assert!(
        ["key", "transaction"].contains(&config.consistency.as_str()),
        "the connector is told what counts"
    );
    Ok(Arc::new(Nothing))
}

fn registry() -> Registry<Brokers> {
    let usable = |kafka: &Brokers| match kafka.brokers.iter().find(|b| !b.contains(':')) {
        Some(_) => {
            Err(Error::config("is not a list of host:port").field("kafka.brokers").hint("write host:9092"))
        }
        None => Ok(()),
    };
    Registry::new(usable).source("river", &["river"], river).sink("lake", &["lake"], lake)
}

struct Fake;

impl Vault for Fake {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "PW").then(|| "geheim".to_owned())
    }
    fn file(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn parsed(yaml: &str) -> std::result::Result<Resolved<Brokers>, Invalid> {
    config::parse(yaml, "caudal.yaml", Path::new("/etc/caudal"), &registry(), &Fake)
}

fn refused(yaml: &str) -> Vec<String> {
    parsed(yaml)
        .err()
        .map(|invalid| invalid.problems.iter().map(Problem::to_string).collect())
        .unwrap_or_default()
}

const GOOD: &str = "prefix: shop
sources:
  plex:
    type: river
    url: river://u:${env:PW}@h/d
    tables: [a, b]
sinks:
  dash:
    type: lake
    url: lake://h
    from: [plex]
";

#[test]
fn a_right_configuration_is_resolved_with_its_defaults() {
    let resolved = parsed(GOOD).unwrap_or_else(|invalid| panic!("{invalid}"));
    assert_eq!(resolved.prefix, "shop");
    assert_eq!(resolved.data_dir, Path::new("/etc/caudal/caudal-data"));
    assert_eq!(resolved.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(resolved.log.unwrap().listen.to_string(), "127.0.0.1:9092");
    assert_eq!((resolved.sources[0].name.as_str(), resolved.sources[0].kind), ("plex", "river"));
    let sink = &resolved.sinks[0];
    assert_eq!((sink.consistency, sink.on_reject), (Consistency::Transaction, OnReject::Park));
}

#[test]
fn rejects_park_a_transactional_sink_and_are_set_aside_by_one_that_goes_by_key() {
    let with = |more: &str| parsed(&format!("{GOOD}{more}")).ok().map(|r| r.sinks[0].on_reject);
    assert_eq!(with("    consistency: key\n"), Some(OnReject::DeadLetter));
    assert_eq!(with("    consistency: key\n    on_reject: park\n"), Some(OnReject::Park));
}

#[test]
fn with_brokers_no_log_is_served() {
    let resolved = parsed(&format!("{GOOD}kafka:\n  brokers: [k:9092]\n")).unwrap_or_else(|e| panic!("{e}"));
    assert!(resolved.log.is_none());
    assert_eq!(resolved.kafka.brokers, ["k:9092"]);
}

#[test]
fn each_mistake_is_told_in_these_words() {
    let with = |more: &str| format!("{GOOD}{more}");
    let swapped = |from: &str, to: &str| GOOD.replace(from, to);
    let mut wrong = Vec::new();
    for (yaml, expected) in [
        (String::new(), "prefix: missing\n  fix: add `prefix: …`"),
        ("just text\n".into(), "line 1: expected a group of keys, found text"),
        (
            with("sink: {}\n"),
            "sink (line 12): unknown key\n  fix: did you mean `sinks`? Known keys: prefix, data_dir, kafka, log, http, sources, sinks",
        ),
        (
            swapped("url: river", "urll: river"),
            "sources.plex.urll (line 5): unknown key\n  fix: did you mean `url`? Known keys: type, url, tables, heartbeat",
        ),
        (swapped("from: [plex]", "form: [plex]"), "sinks.dash.from: missing\n  fix: add `from: …`"),
        (
            with("    consistancy: key\n"),
            "sinks.dash.consistancy (line 12): unknown key\n  fix: did you mean `consistency`? Known keys: type, from, consistency, on_reject, parallel, verify, url",
        ),
        (
            with("    consistency: key\n    parallel: 17\n"),
            "sinks.dash.parallel (line 13): is 17\n  fix: write a number from 1 to 16",
        ),
        (
            with("    parallel: 2\n"),
            "sinks.dash.parallel (line 12): whole transactions are applied by one, in the order of their commits\n  fix: set `consistency: key`, or leave `parallel` out",
        ),
        (
            swapped("[plex]", "[plx]"),
            "sinks.dash.from (line 11): there is no source `plx`\n  fix: did you mean `plex`? Sources: plex",
        ),
        (
            swapped("[plex]", "[]"),
            "sinks.dash.from (line 11): is empty\n  fix: name at least one source: plex",
        ),
        (
            swapped("type: river", "type: rivver"),
            "sources.plex.type (line 4): no such kind of connector\n  fix: did you mean `river`? There are: river",
        ),
        (swapped("    type: river\n", ""), "sources.plex.type: missing\n  fix: add `type: …`"),
        (
            swapped("river://", "stream://"),
            "sources.plex.url (line 5): `stream://u:${env:PW}@h/d` is no river\n  fix: write it like river://user@host/name",
        ),
        (
            swapped("tables: [a, b]", "heartbeat: 5"),
            "sources.plex.heartbeat (line 6): `5` is no duration; write a number with a unit, like 500ms, 5s, 10m or 7d",
        ),
        (
            swapped("  dash:", "  da sh:"),
            "sinks.da sh (line 8): is no name\n  fix: use letters, digits, `_` and `-`, at most 64, a letter or digit first",
        ),
        (
            swapped("prefix: shop", "prefix: caudal"),
            "prefix (line 1): is reserved for Caudal's own topics\n  fix: use letters, digits, `.`, `_`, `-`, at most 64, a letter or digit first: prefix: shop",
        ),
        (
            swapped("prefix: shop", "prefix: my shop"),
            "prefix (line 1): is no name\n  fix: use letters, digits, `.`, `_`, `-`, at most 64, a letter or digit first: prefix: shop",
        ),
        (
            swapped("prefix: shop", "prefix: 5"),
            "prefix (line 1): expected text, found a whole number\n  fix: put the value in quotes",
        ),
        (
            with("http:\n  listen: 0.0.0.0:8080\n"),
            "http.api_key (line 13): missing: 0.0.0.0:8080 is reachable from other machines\n  fix: add `api_key: ${env:CAUDAL_API_KEY}` under `http`, or listen on 127.0.0.1",
        ),
        (
            with("http:\n  listen: 0.0.0.0:8080\n  api_key: ${env:PW}\n"),
            "http.api_key (line 14): shorter than 16 characters\n  fix: make one with `openssl rand -hex 24`",
        ),
        (
            with("http:\n  listen: 8080\n"),
            "http.listen (line 13): expected text, found a whole number\n  fix: put the value in quotes",
        ),
        (
            with("http:\n  listen: db:8080\n"),
            "http.listen (line 13): no address with a port\n  fix: write it like 127.0.0.1:8080 or [::1]:8080",
        ),
        (
            with("log:\n  listen: 0.0.0.0:9092\n"),
            "log.listen (line 13): 0.0.0.0:9092 is reachable from other machines, and the embedded log has neither TLS nor a password\n  fix: listen on 127.0.0.1, or add `allow_remote: true` under `log` where the network is trusted",
        ),
        (
            with("log:\n  segment_size: 8\n"),
            "log.segment_size (line 13): out of range\n  fix: use 1MiB to 1GiB",
        ),
        (
            with("log: {}\nkafka:\n  brokers: [k:9092]\n"),
            "log (line 12): has no effect: with `kafka.brokers` the daemon serves no log of its own\n  fix: remove `log`, or `kafka.brokers`",
        ),
        (
            with("kafka:\n  brokers: [k]\n"),
            "kafka.brokers (line 13): is not a list of host:port\n  fix: write host:9092",
        ),
        (
            with("kafka:\n  brokrs: [k]\n"),
            "kafka.brokrs (line 13): unknown key\n  fix: did you mean `brokers`? Known keys: brokers",
        ),
        (
            swapped("${env:PW}", "${env:PLEX_PASSWORD}"),
            "sources.plex.url (line 5): the environment variable PLEX_PASSWORD is not set\n  fix: set it before the start: export PLEX_PASSWORD=…",
        ),
        (
            swapped("${env:PW}", "${gsm:plex}"),
            "sources.plex.url (line 5): secrets from Google Secret Manager (`${gsm:…}`) are not available yet\n  fix: use ${env:NAME} or ${file:/path} until they are",
        ),
        (
            "prefix: shop\nsources: [plex]\n".into(),
            "sources (line 2): expected names with their settings, found a list",
        ),
        (
            "prefix: shop\nprefix: b\n".into(),
            "line 2: the key `prefix` is there twice\n  fix: make it valid YAML: two spaces per level, `key: value`, text with `: ` or `#` in quotes",
        ),
    ] {
        let told = refused(&yaml);
        if told != [expected] {
            wrong.push(format!("{yaml}\n  told: {told:#?}\n  expected: {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_in_several_places_are_told_together_in_the_order_of_the_file() {
    let yaml = GOOD.replace("river://", "stream://").replace("[plex]", "[x]").replace("shop", "__x");
    let lines: Vec<u64> = parsed(&yaml).err().unwrap().problems.iter().map(|p| p.line).collect();
    assert_eq!(lines, [1, 5, 11]);
}

#[test]
fn no_message_and_no_debug_shows_a_secret() {
    let mistakes =
        ["url: stream://${env:PW}", "url: {a: '${env:PW}'}", "url: river://h\n    heartbeat: ${env:PW}"];
    for mistake in mistakes {
        let yaml = GOOD.replace("url: river://u:${env:PW}@h/d", mistake);
        let invalid = parsed(&yaml).err().unwrap();
        assert!(!format!("{invalid} {invalid:?}").contains("geheim"), "{invalid}");
    }
    let long = GOOD.to_owned() + "http:\n  api_key: a-very-long-api-key\n";
    let http = parsed(&long).unwrap_or_else(|e| panic!("{e}")).http;
    assert!(!format!("{http:?}").contains("a-very-long"), "{http:?}");
}

#[test]
fn the_schema_has_the_connectors_keys_beside_the_common_ones() {
    let schema = reference::schema(&registry());
    let lake = schema.pointer("/properties/sinks/additionalProperties/oneOf/0").unwrap();
    let keys: Vec<&String> = lake["properties"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["consistency", "from", "on_reject", "type", "url", "verify"]);
    assert_eq!(lake["properties"]["type"]["const"], "lake");
    assert_eq!(lake["additionalProperties"], false);
    assert_eq!(schema.pointer("/properties/kafka/properties/brokers/type").unwrap(), "array");
    let page = reference::page(&schema);
    assert!(page.contains("| `heartbeat` | duration |"), "{page}");
}
