//! `caudal config show`.

use super::cli::{Cli, ConfigArguments, ConfigVerb};
use super::exit::Failure;
use super::output::{Format, line};
use super::registry::registry;
use caudal_control::config;
use caudal_control::config::environment::Note;
use serde_json::json;
use std::process::ExitCode;

/// Prints the configuration without secrets and, of environment variables, what each did.
pub(crate) fn config(cli: &Cli, arguments: &ConfigArguments) -> Result<ExitCode, Failure> {
    let ConfigVerb::Show = arguments.what;
    let (yaml, notes) = config::show(&cli.config, &registry())?;
    match cli.output {
        Format::Json => {
            let one = |n: &Note| json!({ "variable": n.variable, "path": n.path, "says": n.says });
            let notes: Vec<_> = notes.iter().map(one).collect();
            line(&json!({ "yaml": yaml, "variables": notes }).to_string())?;
        }
        Format::Text => {
            line(yaml.trim_end())?;
            for note in &notes {
                line(&format!("# {}", said(note)))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `ETL_DB_HOST: sources.main.url`
pub(crate) fn said(note: &Note) -> String {
    let path = note.path.as_deref().unwrap_or_default();
    let between = if path.is_empty() || note.says.is_empty() { "" } else { "; " };
    format!("{}: {path}{between}{}", note.variable, note.says)
}
