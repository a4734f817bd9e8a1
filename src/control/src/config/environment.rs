//! A configuration of environment variables alone: `ETL_*`, for deployments without a file.
//!
//! [`read`] turns them into the tree that a file would be, which then goes the same way ([`super::resolved`]). What each variable did is
//! kept, so that `check` and `config show` can say it and mistakes name the variable. `docs/environment.md` has the whole table.
//!
//! The namespace is ours alone: an `ETL_*` variable that is not known is a mistake, as an unknown key of a file is.

mod database;
mod known;
mod schedule;

use super::nearest::nearest;
use super::problem::Problem;
use super::secret::Fetched;
use super::tree::{Node, Value};
use known::{Effect, KNOWN};
use std::collections::BTreeMap;

/// Variables by name.
pub type Variables = BTreeMap<String, String>;

/// What one variable did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its name.
    pub variable: String,
    /// The dotted path that it set; none if it set none.
    pub path: Option<String>,
    /// For people.
    pub says: String,
}

/// What the variables say.
pub(super) struct Environment {
    /// As a file would have it.
    pub(super) root: Node,
    /// One for each variable that is set.
    pub(super) notes: Vec<Note>,
    /// Values that no message may show.
    pub(super) fetched: Fetched,
}

/// What the registry knows of the databases and targets that variables name.
pub(crate) struct Systems<'a> {
    /// Kind and scheme of the databases behind `ETL_DB_*`.
    pub(crate) database: (&'a str, &'a str),
    /// Kinds of sinks, with the schemes of the URLs that mean them.
    pub(crate) sinks: Vec<(&'a str, &'a [&'a str])>,
}

impl Systems<'_> {
    fn sink(&self, url: &str) -> Option<&str> {
        let scheme = url.split_once("://")?.0;
        let means = |schemes: &[&str]| schemes.iter().any(|s| s.eq_ignore_ascii_case(scheme));
        self.sinks.iter().find(|(_, schemes)| means(schemes)).map(|(kind, _)| *kind)
    }
}

/// The variables of the process that may concern us; those that are empty count as not set.
#[must_use]
pub fn of_process() -> Variables {
    let ours = |name: &str| name.starts_with("ETL_") || name.starts_with("CAUDAL_");
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| ours(name) && !value.trim().is_empty())
        .collect()
}

/// Whether they describe anything to run.
#[must_use]
pub fn describes(variables: &Variables) -> bool {
    variables.keys().any(|name| name.starts_with("ETL_DB_"))
}

/// The tree that the variables mean.
///
/// # Errors
/// All that is wrong with them, each named by its variable.
pub(super) fn read(variables: &Variables, systems: &Systems<'_>) -> Result<Environment, Vec<Problem>> {
    let mut work =
        Work { variables, root: map(), notes: Vec::new(), fetched: Fetched::default(), problems: Vec::new() };
    work.unknown();
    work.top();
    if work.enabled() {
        let sources = work.databases(systems);
        work.sink(systems, &sources);
    }
    work.rest();
    if work.problems.is_empty() {
        work.notes.sort_by(|a, b| a.variable.cmp(&b.variable));
        Ok(Environment { root: work.root, notes: work.notes, fetched: work.fetched })
    } else {
        Err(work.problems)
    }
}

/// The problem with the variables that set what is wrong.
pub(super) fn blamed(problem: Problem, notes: &[Note]) -> Problem {
    let below = |path: &str| problem.field == path || problem.field.starts_with(&format!("{path}."));
    let concerned = notes.iter().filter(|n| n.path.as_deref().is_some_and(below));
    let mut names: Vec<&str> = concerned.map(|n| n.variable.as_str()).collect();
    names.dedup();
    if names.is_empty() {
        return problem;
    }
    Problem { cause: format!("{} (set by {})", problem.cause, names.join(", ")), ..problem }
}

fn map() -> Node {
    Node::made(Value::Map(Vec::new()))
}

struct Work<'a> {
    variables: &'a Variables,
    root: Node,
    notes: Vec<Note>,
    fetched: Fetched,
    problems: Vec<Problem>,
}

impl Work<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim())
    }

    fn unknown(&mut self) {
        let lower: Vec<String> =
            KNOWN.iter().map(|(name, _)| (*name).to_lowercase()).chain(database::main_fields()).collect();
        let names: Vec<&str> = lower.iter().map(String::as_str).collect();
        for variable in self.variables.keys().filter(|v| v.starts_with("ETL_")) {
            if KNOWN.iter().any(|(name, _)| name == variable) || database::is_field(variable) {
                continue;
            }
            let fix = match nearest(variable, &names) {
                Some(near) => format!("did you mean {}?", near.to_uppercase()),
                None => "unset it; docs/environment.md lists the variables".to_owned(),
            };
            self.problems.push(Problem::new(variable, "unknown variable").fix(fix));
        }
    }

    /// Once, however many databases are concerned.
    fn problem(&mut self, variable: &str, cause: &str, fix: &str) {
        let problem = Problem::new(variable, cause).fix(fix);
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Sets a dotted path, and notes that the variable did it.
    fn set(&mut self, variable: &str, path: &str, value: Node) {
        self.put(path, value);
        self.note(variable, Some(path), "");
    }

    fn put(&mut self, path: &str, value: Node) {
        let mut steps: Vec<&str> = path.split('.').collect();
        let Some(last) = steps.pop() else { return };
        let mut node = &mut self.root;
        for step in steps {
            if node.get(step).is_none() {
                node.put(step, map());
            }
            let Value::Map(entries) = &mut node.value else { return };
            let Some((_, next)) = entries.iter_mut().find(|(key, _)| key == step) else { return };
            node = next;
        }
        node.put(last, value);
    }

    fn note(&mut self, variable: &str, path: Option<&str>, says: &str) {
        let (variable, path) = (variable.to_owned(), path.map(str::to_owned));
        self.notes.push(Note { variable, path, says: says.to_owned() });
    }

    /// A secret: never shown.
    fn secret(&mut self, variable: &str) -> Option<Node> {
        let value = self.get(variable)?.to_owned();
        self.fetched.add(&value, variable);
        Some(Node { line: 0, value: Value::Text(value), expanded: true })
    }

    fn flag(&mut self, variable: &str) -> Option<bool> {
        let value = self.get(variable)?.to_ascii_lowercase();
        match value.as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => {
                self.problem(variable, "is neither true nor false", "write true or false");
                None
            }
        }
    }

    fn number(&mut self, variable: &str, most: i128) -> Option<i128> {
        let value = self.get(variable)?.parse().ok().filter(|n| (1..=most).contains(n));
        if value.is_none() {
            self.problem(
                variable,
                "is no whole number in range",
                &format!("write a number from 1 to {most}"),
            );
        }
        value
    }

    fn enabled(&mut self) -> bool {
        match self.flag("ETL_ENABLED") {
            Some(false) => {
                self.note("ETL_ENABLED", None, "nothing is captured: only the log and the API are served");
                false
            }
            Some(true) => {
                self.note("ETL_ENABLED", None, "everything runs");
                true
            }
            None => true,
        }
    }

    /// Name, address, place.
    fn top(&mut self) {
        let text = |text: String| Node { line: 0, value: Value::Text(text), expanded: true };
        let name = self.get("ETL_SERVICE_NAME").unwrap_or("etl").to_owned();
        let prefix = self.get("ETL_REGION").map_or(name.clone(), |region| format!("{name}.{region}"));
        self.put("prefix", text(prefix));
        for variable in ["ETL_SERVICE_NAME", "ETL_REGION"] {
            if self.get(variable).is_some() {
                self.note(variable, Some("prefix"), "");
            }
        }
        self.http();
        for (variable, path) in [("CAUDAL_DATA_DIR", "data_dir"), ("CAUDAL_LOG_LISTEN", "log.listen")] {
            if let Some(value) = self.get(variable).map(str::to_owned) {
                self.set(variable, path, text(value));
            }
        }
        if let Some(brokers) = self.get("CAUDAL_BROKERS") {
            let list = brokers.split(',').map(|b| text(b.trim().to_owned())).collect();
            self.set("CAUDAL_BROKERS", "kafka.brokers", Node::made(Value::List(list)));
        }
    }

    /// Beyond this machine only with a key that guards it.
    fn http(&mut self) {
        let port = self.number("ETL_SERVICE_PORT", 65_535).unwrap_or(9_000);
        let key = self.secret("ETL_API_KEY");
        let host = if key.is_some() { "0.0.0.0" } else { "127.0.0.1" };
        let listen = Node { line: 0, value: Value::Text(format!("{host}:{port}")), expanded: true };
        self.put("http.listen", listen);
        if self.get("ETL_SERVICE_PORT").is_some() {
            let says = match key {
                Some(_) => "",
                None => "on this machine only: other machines may ask once ETL_API_KEY is set",
            };
            self.note("ETL_SERVICE_PORT", Some("http.listen"), says);
        }
        if let Some(key) = key {
            self.set("ETL_API_KEY", "http.api_key", key);
        }
    }

    fn sink(&mut self, systems: &Systems<'_>, sources: &[String]) {
        const NAME: &str = "target";
        let Some(url) = self.secret("CAUDAL_SINK_URL") else { return };
        let Value::Text(text) = &url.value else { return };
        let Some(kind) = systems.sink(text) else {
            return self.problem(
                "CAUDAL_SINK_URL",
                "is no URL of a known kind of sink",
                "write it like postgres://user:password@host/database",
            );
        };
        let from = sources.iter().map(|s| Node::made(Value::Text(s.clone()))).collect();
        self.put(&format!("sinks.{NAME}.type"), Node::made(Value::Text(kind.to_owned())));
        self.put(&format!("sinks.{NAME}.from"), Node::made(Value::List(from)));
        self.set("CAUDAL_SINK_URL", &format!("sinks.{NAME}.url"), url);
    }

    /// What is known but sets nothing here.
    fn rest(&mut self) {
        for (variable, effect) in KNOWN {
            if self.get(variable).is_none() || self.notes.iter().any(|n| n.variable == *variable) {
                continue;
            }
            match effect {
                Effect::Elsewhere(says) | Effect::None(says) => self.note(variable, None, says),
                Effect::Refused(cause, fix) => {
                    if self.flag(variable) == Some(true) {
                        self.problem(variable, cause, fix);
                    } else {
                        self.note(variable, None, "is off");
                    }
                }
                Effect::Here => self.note(variable, None, "has no effect in this configuration"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
