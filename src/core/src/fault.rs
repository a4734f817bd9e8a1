//! One error type: it says who must act, and what they can do.

use std::fmt;

/// Who must act. The engine has the one policy for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It may pass by itself: back off with jitter, reopen from the stored position.
    Transient,
    /// The operator must change something (a password, a grant, a setting): park the pipeline, show the hint, look again now and then.
    Config,
    /// The data cannot be taken: dead-letter the named events, or park.
    Data,
    /// Another instance owns this: stop at once, rejoin; never reopen by itself.
    Fenced,
    /// Our own mistake: stop the pipeline and page.
    Bug,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient",
            Self::Config => "config",
            Self::Data => "data",
            Self::Fenced => "fenced",
            Self::Bug => "bug",
        })
    }
}

/// An error with the fault that decides what happens next. Messages never hold secrets or values of rows.
#[derive(Debug)]
pub struct Error {
    fault: Fault,
    message: String,
    field: Option<String>,
    hint: Option<String>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything that a connector does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `fault`; `message` says what failed: "read chunk 7 of shop.orders".
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), field: None, hint: None, cause: None }
    }

    /// May pass by itself.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Fault::Transient, message)
    }

    /// The operator must act.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Fault::Config, message)
    }

    /// The data cannot be taken.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Fault::Data, message)
    }

    /// Another instance owns this.
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(Fault::Fenced, message)
    }

    /// Our own mistake.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Fault::Bug, message)
    }

    /// The configuration field that the message is about: `sources.plex.url`.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// What the operator can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error below.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Puts "verb object" in front of the message: the way from the outside in.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Who must act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// What the operator can do, where that is known.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The configuration field concerned, where there is one.
    #[must_use]
    pub fn field_name(&self) -> Option<&str> {
        self.field.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        let mut cause: Option<&(dyn std::error::Error + 'static)> =
            self.cause.as_ref().map(|c| c.as_ref() as _);
        while let Some(c) = cause {
            write!(f, ": {c}")?;
            cause = c.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Gives a foreign error its fault and its context in one step.
pub trait Classify<T> {
    /// Wraps the error as `fault`, with "verb object" as its message.
    fn fault(self, fault: Fault, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Classify<T> for std::result::Result<T, E> {
    fn fault(self, fault: Fault, message: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::new(fault, message).because(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_from_the_field_to_the_root_cause() {
        let io = std::io::Error::other("refused");
        let e = Error::config("connect")
            .because(io)
            .context("open source plex")
            .field("sources.plex.url")
            .hint("start it");
        assert_eq!(e.to_string(), "sources.plex.url: open source plex: connect: refused");
        assert_eq!(e.hint_text(), Some("start it"));
        assert_eq!(e.fault(), Fault::Config);
    }
}
