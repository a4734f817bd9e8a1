//! `caudal schema`, and the test that the committed reference is current.

use super::cli::SchemaArguments;
use super::exit::Failure;
use super::output::line;
use super::registry::registry;
use caudal_control::config::reference;
use std::process::ExitCode;

/// Prints the schema, or the reference page made of it.
pub(crate) fn schema(arguments: &SchemaArguments) -> Result<ExitCode, Failure> {
    line(&if arguments.markdown { page() } else { text() })?;
    Ok(ExitCode::SUCCESS)
}

fn text() -> String {
    format!("{:#}", reference::schema(&registry()).as_value())
}

fn page() -> String {
    reference::page(&reference::schema(&registry()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn committed(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn the_committed_schema_is_current() {
        assert!(
            committed("config.schema.json").trim_end() == text().trim_end(),
            "docs/config.schema.json is stale; run: cargo run -- schema config > docs/config.schema.json"
        );
    }

    #[test]
    fn the_committed_reference_page_is_current() {
        assert!(
            committed("configuration.md").trim_end() == page().trim_end(),
            "docs/configuration.md is stale; run: cargo run -- schema config --markdown > docs/configuration.md"
        );
    }
}
