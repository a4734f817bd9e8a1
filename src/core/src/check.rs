//! What `caudal check` finds.

use serde::Serialize;

/// How bad a finding is. Only [`Severity::Error`] makes `caudal check` exit with 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, with a limit that the user should know.
    Warning,
    /// `run` would fail or lose something.
    Error,
}

/// One finding of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: a setting, a privilege, a table (`binlog_format`, `shop.orders`).
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub message: String,
    /// What to do about it, as a command or a setting where there is one.
    pub fix: Option<String>,
}

impl Check {
    /// A finding that needs nothing.
    pub fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), severity: Severity::Ok, message: message.into(), fix: None }
    }

    /// A finding to know about.
    pub fn warning(subject: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            severity: Severity::Warning,
            message: message.into(),
            fix: Some(fix.into()),
        }
    }

    /// A finding that stops `run`.
    pub fn error(subject: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            severity: Severity::Error,
            message: message.into(),
            fix: Some(fix.into()),
        }
    }
}
