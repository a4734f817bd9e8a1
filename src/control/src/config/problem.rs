//! What is wrong with a configuration, as its writer should read it: field, line, cause, fix.

use serde::Serialize;
use std::fmt;

/// One thing that is wrong. Never holds a secret: what `${…}` gave is replaced before it gets here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The dotted path: `sources.plex.url`; empty for the file as a whole.
    pub field: String,
    /// From 1; 0 where there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: u64,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape that serde calls
fn is_zero(line: &u64) -> bool {
    *line == 0
}

impl Problem {
    /// With the line of the field.
    pub fn at(line: u64, field: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { field: field.into(), line, cause: cause.into(), fix: None }
    }

    /// Where no line is known.
    pub fn new(field: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::at(0, field, cause)
    }

    /// For a problem that the reader of the node at `at` found: its field may be given from the root or from the node.
    #[must_use]
    pub fn under(mut self, at: &str, node: &super::tree::Node) -> Self {
        let inner = match self.field.strip_prefix(at) {
            Some(inner) => inner.trim_start_matches('.').to_owned(),
            None => self.field.clone(),
        };
        self.line = node.line_of(&inner);
        self.field = if inner.is_empty() { at.to_owned() } else { format!("{at}.{inner}") };
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

impl From<caudal_core::Error> for Problem {
    fn from(error: caudal_core::Error) -> Self {
        let field = error.field_name().unwrap_or_default().to_owned();
        let text = error.to_string();
        let cause = text.strip_prefix(&format!("{field}: ")).unwrap_or(&text).to_owned();
        Self { field, line: 0, cause, fix: error.hint_text().map(str::to_owned) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.field.as_str(), self.line) {
            ("", 0) => {}
            ("", line) => write!(f, "line {line}: ")?,
            (field, 0) => write!(f, "{field}: ")?,
            (field, line) => write!(f, "{field} (line {line}): ")?,
        }
        f.write_str(&self.cause)?;
        match &self.fix {
            Some(fix) => write!(f, "\n  fix: {fix}"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with one configuration; at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Where it was read from.
    pub origin: String,
    /// In the order of the file, as far as that is known.
    pub problems: Vec<Problem>,
}

impl Invalid {
    /// Of one problem.
    pub fn one(origin: impl Into<String>, problem: Problem) -> Self {
        Self { origin: origin.into(), problems: vec![problem] }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        write!(f, "{}: {n} problem{}", self.origin, if n == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            write!(f, "\n{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
