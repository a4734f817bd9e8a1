//! `${env:NAME}`, `${file:/path}`: what must not stand in the file is fetched before the second reading.
//!
//! What was fetched is remembered, so that no message of the configuration can show it.

use super::problem::Problem;
use super::tree::{Node, Value};
use std::fmt;
use std::path::Path;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Where secrets come from: the process, or a test's own.
pub trait Vault {
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// A file's text.
    ///
    /// # Errors
    /// As the system says.
    fn file(&self, path: &Path) -> std::io::Result<String>;
}

/// The process's environment and the file system.
pub struct Process;

impl Vault for Process {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// What was fetched, with the placeholder it stood for.
#[derive(Default)]
pub struct Fetched(Vec<(String, String)>);

impl Fetched {
    /// Remembers the value of an environment variable.
    pub(super) fn add(&mut self, value: &str, variable: &str) {
        self.0.push((value.to_owned(), format!("${{env:{variable}}}")));
    }

    /// `text` with every secret in it replaced by its placeholder. Texts below four letters stay: they would garble any message.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        self.0
            .iter()
            .filter(|(value, _)| value.chars().count() >= 4)
            .fold(text.to_owned(), |text, (value, placeholder)| text.replace(value.as_str(), placeholder))
    }

    /// The placeholder that stands for exactly this text.
    pub(super) fn placeholder(&self, text: &str) -> Option<&str> {
        self.0.iter().find(|(value, _)| value == text).map(|(_, placeholder)| placeholder.as_str())
    }

    /// The problem without secrets.
    #[must_use]
    pub fn redacted(&self, problem: Problem) -> Problem {
        let fix = problem.fix.map(|fix| self.redact(&fix));
        Problem { cause: self.redact(&problem.cause), fix, ..problem }
    }
}

/// Replaces every `${…}` in the texts of the tree; `$${` stands for a plain `${`. All that cannot be fetched is told at once.
///
/// # Errors
/// One problem for each placeholder that is unknown, missing or unreadable.
pub fn expand(root: &mut Node, vault: &dyn Vault) -> Result<Fetched, Vec<Problem>> {
    let mut work = Work { vault, fetched: Fetched::default(), problems: Vec::new() };
    work.node(root, "");
    if work.problems.is_empty() { Ok(work.fetched) } else { Err(work.problems) }
}

struct Work<'a> {
    vault: &'a dyn Vault,
    fetched: Fetched,
    problems: Vec<Problem>,
}

impl Work<'_> {
    fn node(&mut self, node: &mut Node, path: &str) {
        let below = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
        match &mut node.value {
            Value::Map(entries) => {
                for (key, node) in entries {
                    self.node(node, &below(key));
                }
            }
            Value::List(items) => {
                for (index, node) in items.iter_mut().enumerate() {
                    self.node(node, &below(&index.to_string()));
                }
            }
            Value::Text(text) if text.contains("${") => match self.text(text) {
                Ok(expanded) => {
                    *text = expanded;
                    node.expanded = true;
                }
                Err(problem) => {
                    self.problems.push(Problem { field: path.to_owned(), line: node.line, ..problem });
                }
            },
            _ => {}
        }
    }

    fn text(&mut self, text: &str) -> Result<String, Problem> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            if let Some(plain) = before.strip_suffix('$') {
                out.push_str(plain);
                out.push_str("${");
                rest = &from[2..];
                continue;
            }
            out.push_str(before);
            let end = from.find('}').ok_or_else(|| {
                Problem::new("", "`${` without a `}`").fix("close it, or write `$${` for a plain `${`")
            })?;
            out.push_str(&self.fetch(&from[2..end])?);
            rest = &from[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn fetch(&mut self, reference: &str) -> Result<String, Problem> {
        let value = match reference.split_once(':') {
            Some(("env", name)) => self.vault.variable(name).ok_or_else(|| {
                Problem::new("", format!("the environment variable {name} is not set"))
                    .fix(format!("set it before the start: export {name}=…"))
            })?,
            Some(("file", path)) => self.file(Path::new(path))?,
            Some(("gsm", _)) => {
                return Err(Problem::new(
                    "",
                    "secrets from Google Secret Manager (`${gsm:…}`) are not available yet",
                )
                .fix("use ${env:NAME} or ${file:/path} until they are"));
            }
            _ => {
                return Err(Problem::new("", "an unknown kind of `${…}`")
                    .fix("use ${env:NAME} or ${file:/path}, or write `$${` for a plain `${`"));
            }
        };
        self.fetched.0.push((value.clone(), format!("${{{reference}}}")));
        Ok(value)
    }

    /// One newline at the end goes: editors and `echo` leave it there.
    fn file(&self, path: &Path) -> Result<String, Problem> {
        let shown = path.display();
        let text = self.vault.file(path).map_err(|error| {
            Problem::new("", format!("cannot read the file {shown}: {error}"))
                .fix("create it, readable for the user that runs caudal")
        })?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Vault for Fake {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "PW").then(|| "geheim".to_owned())
        }

        fn file(&self, path: &Path) -> std::io::Result<String> {
            match path.to_str() {
                Some("/run/secret") => Ok("aus-datei\n".to_owned()),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn expanded(yaml: &str) -> Result<(Node, Fetched), Vec<String>> {
        let mut node = Node::parse(yaml).unwrap();
        let shown = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect();
        expand(&mut node, &Fake).map(|fetched| (node, fetched)).map_err(shown)
    }

    fn text(node: &Node, key: &str) -> String {
        match &node.get(key).unwrap().value {
            Value::Text(text) => text.clone(),
            _ => panic!("text"),
        }
    }

    #[test]
    fn variables_and_files_are_fetched_wherever_they_stand_in_a_text() {
        let (node, fetched) =
            expanded("a: 'mysql://u:${env:PW}@h/${file:/run/secret}'\nb: 'costs $${5}'\nc: plain\n").unwrap();
        assert_eq!(text(&node, "a"), "mysql://u:geheim@h/aus-datei");
        assert_eq!(text(&node, "b"), "costs ${5}");
        assert!(node.get("a").unwrap().expanded && !node.get("c").unwrap().expanded);
        assert_eq!(fetched.redact("wrong password geheim"), "wrong password ${env:PW}");
    }

    #[test]
    fn everything_that_cannot_be_fetched_is_told_at_once() {
        let yaml = "a: ${env:NONE}\nb:\n  - ${file:/gone}\nc: ${gsm:x}\nd: ${vault:x}\ne: 'x${'\n";
        assert_eq!(
            expanded(yaml).err().unwrap(),
            [
                "a (line 1): the environment variable NONE is not set\n  fix: set it before the start: export NONE=…",
                "b.0 (line 3): cannot read the file /gone: entity not found\n  fix: create it, readable for the user that runs caudal",
                "c (line 4): secrets from Google Secret Manager (`${gsm:…}`) are not available yet\n  fix: use ${env:NAME} or ${file:/path} until they are",
                "d (line 5): an unknown kind of `${…}`\n  fix: use ${env:NAME} or ${file:/path}, or write `$${` for a plain `${`",
                "e (line 6): `${` without a `}`\n  fix: close it, or write `$${` for a plain `${`",
            ]
        );
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::new("geheim")), "<secret>");
    }
}
