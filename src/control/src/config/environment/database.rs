//! `ETL_DB_*`: one database, and `ETL_DB_<NAME>_*`: more of them.

use super::{Systems, Work};
use crate::config::tree::{Node, Value};
use std::collections::BTreeSet;
use std::fmt::Write;

/// What is said of a database.
const FIELDS: [&str; 5] = ["HOST", "PORT", "USER", "PASSWORD", "DATABASE"];
/// The name of the one that has none.
const MAIN: &str = "main";

/// Whether a variable says anything of a database.
pub(super) fn is_field(variable: &str) -> bool {
    split(variable).is_some()
}

/// The main one's variables, in lower case.
pub(super) fn main_fields() -> impl Iterator<Item = String> {
    FIELDS.iter().map(|field| variable("", field).to_lowercase())
}

/// The database's name in the variable, empty for the main one, and the field.
fn split(variable: &str) -> Option<(&str, &str)> {
    let rest = variable.strip_prefix("ETL_DB_")?;
    if let Some(field) = FIELDS.iter().find(|f| **f == rest) {
        return Some(("", field));
    }
    let (name, field) = rest.rsplit_once('_')?;
    let known = FIELDS.iter().find(|f| **f == field)?;
    (!name.is_empty()).then_some((name, known))
}

impl Work<'_> {
    /// Adds a source for each database; gives their names.
    pub(super) fn databases(&mut self, systems: &Systems<'_>) -> Vec<String> {
        let names: BTreeSet<String> =
            self.variables.keys().filter_map(|v| split(v)).map(|(name, _)| name.to_owned()).collect();
        let mut sources = Vec::new();
        for name in names {
            let source = if name.is_empty() { MAIN.to_owned() } else { name.to_lowercase() };
            if sources.contains(&source) {
                let cause = format!("two databases would have the name `{source}`");
                self.problem(&variable(&name, "HOST"), &cause, "give one of them another name");
                continue;
            }
            if self.database(systems, &name, &source) {
                sources.push(source);
            }
        }
        sources
    }

    /// Host and port belong together, and so do user and password: a named database has its own or, where it has
    /// neither, those of the main one. So the main password goes nowhere but to the main user.
    fn database(&mut self, systems: &Systems<'_>, name: &str, source: &str) -> bool {
        let own = |work: &Self, field: &str| work.get(&variable(name, field)).is_some();
        let place = if own(self, "HOST") || own(self, "PORT") { name } else { "" };
        let who = if own(self, "USER") || own(self, "PASSWORD") { name } else { "" };
        let Some(host) = self.required(place, "HOST", "the server's name or address") else { return false };
        let Some(user) = self.required(who, "USER", "the account to connect with") else { return false };
        let port = self.number(&variable(place, "PORT"), 65_535).unwrap_or(3_306);
        let database = self.get(&variable(name, "DATABASE")).map(str::to_owned);
        let (kind, scheme) = systems.database;
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
        let url =
            format!("{scheme}://{}@{host}:{port}/{}", escaped(&user), escaped(&database.unwrap_or_default()));
        let at = format!("sources.{source}");
        self.put(&format!("{at}.type"), Node::made(Value::Text(kind.to_owned())));
        self.put(&format!("{at}.url"), Node { line: 0, value: Value::Text(url), expanded: true });
        for (of, field) in [(place, "HOST"), (place, "PORT"), (who, "USER"), (name, "DATABASE")] {
            let variable = variable(of, field);
            if self.get(&variable).is_some() {
                self.note(&variable, Some(&format!("{at}.url")), "");
            }
        }
        let password = variable(who, "PASSWORD");
        match self.secret(&password) {
            Some(secret) => self.set(&password, &format!("{at}.password"), secret),
            None => {
                let says = format!("no {password} is set: {user} connects without a password");
                self.note(&variable(who, "USER"), None, &says);
            }
        }
        let polled = self.schedule(&at);
        if let Some(rows) = self.number("ETL_BATCH_SIZE", 10_000_000) {
            let key = if polled { "poll.page_rows" } else { "snapshot.chunk_rows" };
            self.set("ETL_BATCH_SIZE", &format!("{at}.{key}"), Node::made(Value::Int(rows)));
        }
        true
    }

    fn required(&mut self, name: &str, field: &str, what: &str) -> Option<String> {
        let variable = variable(name, field);
        let value = self.get(&variable).map(str::to_owned);
        if value.is_none() && !self.problems.iter().any(|p| p.field == variable) {
            self.problem(&variable, "is not set", &format!("set it to {what}"));
        }
        value
    }
}

fn variable(name: &str, field: &str) -> String {
    if name.is_empty() { format!("ETL_DB_{field}") } else { format!("ETL_DB_{name}_{field}") }
}

/// What would be read as a part of the URL's own.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'~' | b'$' => {
                out.push(char::from(byte));
            }
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}
