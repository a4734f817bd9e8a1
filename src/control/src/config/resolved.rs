//! Stage two: the configuration as the daemon runs it. Whoever holds a [`Resolved`] has nothing left to check in it.

use super::de::{known_keys, read};
use super::environment::Note;
use super::problem::Problem;
use super::secret::Secret;
use super::tree::{Node, Value};
use super::written::{
    Consistency, HttpWritten, LogWritten, OnReject, SinkCommon, SourceCommon, VerifySettings, Written,
};
use crate::registry::{Kind, Registry};
use caudal_core::{Sink, Source};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Shortest key that guards the HTTP API, in characters.
pub const SHORTEST_API_KEY: usize = 16;
/// Longest name of a source, a sink or a prefix: they become parts of topic names (Kafka allows 249 characters in all).
pub const LONGEST_NAME: usize = 64;

/// Most that apply one sink's tables side by side: each holds a connection, and some tens of megabytes.
pub const MOST_PARALLEL: u32 = 16;

/// A configuration without a mistake.
pub struct Resolved<K> {
    /// First part of the names of all topics.
    pub prefix: String,
    /// Absolute, or relative to the working directory if the file's own path was.
    pub data_dir: PathBuf,
    /// How the log is reached and its topics are made. Without brokers if `log` is there.
    pub kafka: K,
    /// The embedded log, if there are no brokers.
    pub log: Option<LogSettings>,
    /// The HTTP API.
    pub http: HttpSettings,
    /// In the order of the file.
    pub sources: Vec<SourceEntry>,
    /// In the order of the file.
    pub sinks: Vec<SinkEntry>,
    /// What environment variables did, where they are the configuration; else empty.
    pub notes: Vec<Note>,
}

/// How the embedded log is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether listening beyond loopback was asked for.
    pub allow_remote: bool,
    /// Bytes of a segment.
    pub segment_bytes: u64,
}

/// How the HTTP API is served.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Always there if `listen` is not loopback.
    pub api_key: Option<Secret>,
}

/// A source that is captured.
#[derive(Clone)]
pub struct SourceEntry {
    /// Its name.
    pub name: String,
    /// What `type:` says.
    pub kind: &'static str,
    /// The source.
    pub source: Arc<dyn Source>,
}

/// A sink.
pub struct SinkEntry {
    /// Its name.
    pub name: String,
    /// What `type:` says.
    pub kind: &'static str,
    /// Names of sources, each of which exists.
    pub from: Vec<String>,
    /// What a reader of the target sees.
    pub consistency: Consistency,
    /// What happens to events that it cannot take.
    pub on_reject: OnReject,
    /// How many apply its tables side by side: 1 to [`MOST_PARALLEL`], and 1 with `consistency: transaction`.
    pub parallel: u32,
    /// How its tables are compared again and again, if they are.
    pub verify: Option<VerifySettings>,
    /// The sink.
    pub sink: Arc<dyn Sink>,
}

/// Resolves a tree whose `${…}` are expanded. `folder` is where relative paths start.
pub(super) fn resolve<K: DeserializeOwned + JsonSchema>(
    root: &Node,
    folder: &Path,
    registry: &Registry<K>,
) -> Result<Resolved<K>, Vec<Problem>> {
    let mut stage = Stage { registry, problems: Vec::new() };
    let written = stage.keep(read::<Written>(root, ""));
    let kafka_node = root.get("kafka").filter(|node| node.value != Value::Null);
    let kafka = stage.keep(registry.kafka(kafka_node));
    let sources = stage.sources(root.get("sources"));
    let names: Vec<&str> = names(root.get("sources"));
    let sinks = stage.sinks(root.get("sinks"), &names);
    let Some(written) = written else { return Err(stage.problems) };
    stage.prefix(&written.prefix, root);
    let http = stage.http(&written.http, root);
    let log = stage.log(&written.log, root, kafka_node);
    match (kafka, http, log) {
        (Some(kafka), Some(http), Some(log)) if stage.problems.is_empty() => Ok(Resolved {
            prefix: written.prefix,
            data_dir: folder.join(written.data_dir),
            kafka,
            log,
            http,
            sources,
            sinks,
            notes: Vec::new(),
        }),
        _ => Err(stage.problems),
    }
}

fn names(group: Option<&Node>) -> Vec<&str> {
    match group.map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.iter().map(|(name, _)| name.as_str()).collect(),
        _ => Vec::new(),
    }
}

struct Stage<'a, K> {
    registry: &'a Registry<K>,
    problems: Vec<Problem>,
}

impl<K> Stage<'_, K> {
    fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    fn prefix(&mut self, prefix: &str, root: &Node) {
        let reserved = prefix == "caudal" || prefix.starts_with("caudal.") || prefix.starts_with("__");
        let cause = if reserved {
            "is reserved for Caudal's own topics"
        } else if !is_name(prefix, "._-") {
            "is no name"
        } else {
            return;
        };
        let fix = format!(
            "use letters, digits, `.`, `_`, `-`, at most {LONGEST_NAME}, a letter or digit first: prefix: shop"
        );
        self.problems.push(Problem::at(root.line_of("prefix"), "prefix", cause).fix(fix));
    }

    fn http(&mut self, written: &HttpWritten, root: &Node) -> Option<HttpSettings> {
        let listen = self.address("http.listen", &written.listen, root)?;
        let key_line = root.line_of("http.api_key");
        match &written.api_key {
            None if !listen.ip().is_loopback() => self.problems.push(
                Problem::at(
                    root.line_of("http.listen"),
                    "http.api_key",
                    format!("missing: {listen} is reachable from other machines"),
                )
                .fix("add `api_key: ${env:CAUDAL_API_KEY}` under `http`, or listen on 127.0.0.1"),
            ),
            Some(key) if key.chars().count() < SHORTEST_API_KEY => self.problems.push(
                Problem::at(key_line, "http.api_key", format!("shorter than {SHORTEST_API_KEY} characters"))
                    .fix("make one with `openssl rand -hex 24`"),
            ),
            _ => {}
        }
        Some(HttpSettings { listen, api_key: written.api_key.as_deref().map(Secret::new) })
    }

    /// The outer option is none after a problem; the inner one if a Kafka cluster is the log.
    fn log(
        &mut self,
        written: &LogWritten,
        root: &Node,
        kafka: Option<&Node>,
    ) -> Option<Option<LogSettings>> {
        let has_brokers = kafka.and_then(|node| node.get("brokers")).is_some();
        if has_brokers && root.get("log").is_some() {
            let cause = "has no effect: with `kafka.brokers` the daemon serves no log of its own";
            self.problems
                .push(Problem::at(root.line_of("log"), "log", cause).fix("remove `log`, or `kafka.brokers`"));
        }
        if has_brokers {
            return Some(None);
        }
        let listen = self.address("log.listen", &written.listen, root)?;
        if !listen.ip().is_loopback() && !written.allow_remote {
            let cause = format!(
                "{listen} is reachable from other machines, and the embedded log has neither TLS nor a password"
            );
            let fix =
                "listen on 127.0.0.1, or add `allow_remote: true` under `log` where the network is trusted";
            self.problems.push(Problem::at(root.line_of("log.listen"), "log.listen", cause).fix(fix));
        }
        let segment_bytes = written.segment_size.bytes();
        if !(1 << 20..=1 << 30).contains(&segment_bytes) {
            let line = root.line_of("log.segment_size");
            self.problems.push(Problem::at(line, "log.segment_size", "out of range").fix("use 1MiB to 1GiB"));
        }
        Some(Some(LogSettings { listen, allow_remote: written.allow_remote, segment_bytes }))
    }

    fn address(&mut self, field: &str, text: &str, root: &Node) -> Option<SocketAddr> {
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        let address =
            local.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).or_else(|| text.parse().ok());
        if address.is_none() {
            let problem = Problem::at(root.line_of(field), field, "no address with a port");
            self.problems.push(problem.fix("write it like 127.0.0.1:8080 or [::1]:8080"));
        }
        address
    }

    fn sources(&mut self, group: Option<&Node>) -> Vec<SourceEntry> {
        let registry = self.registry;
        self.entries("sources", group, |stage, name, at, node| {
            let common: SourceCommon = stage.keep(read(node, at))?;
            let kind = stage.kind(&registry.sources, &common.kind, at, node)?;
            let source = stage.keep(kind.build(name, at, node.clone(), &["type"]))?;
            Some(SourceEntry { name: name.to_owned(), kind: kind.name, source })
        })
    }

    fn sinks(&mut self, group: Option<&Node>, sources: &[&str]) -> Vec<SinkEntry> {
        let registry = self.registry;
        self.entries("sinks", group, |stage, name, at, node| {
            let common: SinkCommon = stage.keep(read(node, at))?;
            stage.from(&common.from, sources, at, node);
            let kind = stage.kind(&registry.sinks, &common.kind, at, node)?;
            let keys = ["type", "from", "consistency", "on_reject", "parallel", "verify"];
            // One default for all: a connector that reads it too is told what counts.
            let mut told = node.clone();
            let consistency = Value::Text(common.consistency.as_str().to_owned());
            told.put(
                "consistency",
                Node { line: node.line_of("consistency"), value: consistency, expanded: false },
            );
            let sink = stage.keep(kind.build(name, at, told, &keys))?;
            let on_reject = common.on_reject.unwrap_or(match common.consistency {
                Consistency::Transaction => OnReject::Park,
                Consistency::Key => OnReject::DeadLetter,
            });
            stage.parallel(&common, at, node);
            let SinkCommon { consistency, from, parallel, verify, .. } = common;
            let (name, kind) = (name.to_owned(), kind.name);
            Some(SinkEntry { name, kind, from, consistency, on_reject, parallel, verify, sink })
        })
    }

    fn parallel(&mut self, common: &SinkCommon, at: &str, node: &Node) {
        let at = format!("{at}.parallel");
        let line = node.line_of("parallel");
        if !(1..=MOST_PARALLEL).contains(&common.parallel) {
            let fix = format!("write a number from 1 to {MOST_PARALLEL}");
            self.problems.push(Problem::at(line, at, format!("is {}", common.parallel)).fix(fix));
        } else if common.parallel > 1 && common.consistency == Consistency::Transaction {
            let what = "whole transactions are applied by one, in the order of their commits";
            self.problems
                .push(Problem::at(line, at, what).fix("set `consistency: key`, or leave `parallel` out"));
        }
    }

    /// Every entry of a group whose name is one.
    fn entries<T>(
        &mut self,
        group: &str,
        node: Option<&Node>,
        mut one: impl FnMut(&mut Self, &str, &str, &Node) -> Option<T>,
    ) -> Vec<T> {
        let entries = match node.map(|node| (&node.value, node)) {
            None | Some((Value::Null, _)) => return Vec::new(),
            Some((Value::Map(entries), _)) => entries,
            Some((_, node)) => {
                let cause = format!("expected names with their settings, found {}", node.kind());
                self.problems.push(Problem::at(node.line, group, cause));
                return Vec::new();
            }
        };
        let mut made = Vec::new();
        for (name, node) in entries {
            let at = format!("{group}.{name}");
            if !is_name(name, "_-") {
                let fix = format!(
                    "use letters, digits, `_` and `-`, at most {LONGEST_NAME}, a letter or digit first"
                );
                self.problems.push(Problem::at(node.line, &at, "is no name").fix(fix));
                continue;
            }
            made.extend(one(self, name, &at, node));
        }
        made
    }

    fn kind<'k, End: ?Sized>(
        &mut self,
        kinds: &'k [Kind<End>],
        kind: &str,
        at: &str,
        node: &Node,
    ) -> Option<&'k Kind<End>> {
        let found = kinds.iter().find(|k| k.name == kind);
        if found.is_none() {
            let known: Vec<&str> = kinds.iter().map(|k| k.name).collect();
            let fix = match super::nearest::nearest(kind, &known) {
                Some(near) => format!("did you mean `{near}`? There are: {}", known.join(", ")),
                None => format!("use one of: {}", known.join(", ")),
            };
            self.problems.push(
                Problem::at(node.line_of("type"), format!("{at}.type"), "no such kind of connector").fix(fix),
            );
        }
        found
    }

    fn from(&mut self, from: &[String], sources: &[&str], at: &str, node: &Node) {
        let field = format!("{at}.from");
        let line = node.line_of("from");
        if from.is_empty() {
            let fix = format!("name at least one source: {}", sources.join(", "));
            self.problems.push(Problem::at(line, &field, "is empty").fix(fix));
        }
        for name in from.iter().filter(|name| !sources.contains(&name.as_str())) {
            let fix = known_keys(name, sources).replace("Known keys", "Sources");
            self.problems.push(Problem::at(line, &field, format!("there is no source `{name}`")).fix(fix));
        }
    }
}

fn is_name(text: &str, also: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(legal)
        && text.len() <= LONGEST_NAME
}
