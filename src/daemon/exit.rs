//! How a verb fails: field, cause, fix; exit code 1. No stack trace.

use super::output::Format;
use caudal_control::config::{Invalid, Problem};
use serde_json::json;
use std::process::ExitCode;

/// Why a verb could not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    origin: Option<String>,
    problems: Vec<Problem>,
}

impl Failure {
    /// Of one cause.
    pub(crate) fn new(cause: impl Into<String>) -> Self {
        Problem::new("", cause).into()
    }

    /// Prints itself (JSON on stdout for scripts, text on stderr for people) and gives the exit code.
    pub(crate) fn print(&self, format: Format) -> ExitCode {
        match format {
            Format::Json => {
                let _ = super::output::line(
                    &json!({ "origin": self.origin, "errors": self.problems }).to_string(),
                );
            }
            Format::Text => eprintln!("{}", self.text()),
        }
        ExitCode::FAILURE
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> = self.origin.iter().map(|origin| format!("error in {origin}")).collect();
        let start = if self.origin.is_some() { "  " } else { "error: " };
        for problem in &self.problems {
            lines.push(format!("{start}{}", problem.to_string().replace('\n', "\n  ")));
        }
        lines.join("\n")
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { origin: None, problems: vec![problem] }
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self { origin: Some(invalid.origin), problems: invalid.problems }
    }
}

impl From<caudal_core::Error> for Failure {
    fn from(error: caudal_core::Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_field_cause_and_fix() {
        let error = caudal_core::Error::config("is taken").field("http.listen").hint("choose another");
        assert_eq!(Failure::from(error).text(), "error: http.listen: is taken\n    fix: choose another");
        let problem = Problem::at(3, "prefix", "is no name").fix("use letters");
        let invalid = Invalid::one("caudal.yaml", problem);
        assert_eq!(
            Failure::from(invalid).text(),
            "error in caudal.yaml\n  prefix (line 3): is no name\n    fix: use letters"
        );
    }
}
