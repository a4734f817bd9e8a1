//! Log lines, on stderr.

use super::cli::LogFormat;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Libraries that log what a server says, values of rows in it: never, whatever is asked for. Their errors are told by who called them.
const SILENT: &[&str] = &["tiberius=off"];

/// Starts logging. RUST_LOG decides what; without it the daemon logs from ETL_LOG_LEVEL up, or from `info` up, other verbs from `warn`
/// up.
pub(crate) fn start(format: LogFormat, daemon: bool) {
    let asked = std::env::var("ETL_LOG_LEVEL").ok().filter(|_| daemon);
    let level = match asked.as_deref().map(str::trim).map(str::to_ascii_lowercase).as_deref() {
        Some("trace") => "trace",
        Some("debug") => "debug",
        Some("warn" | "warning") => "warn",
        Some("error" | "critical" | "fatal") => "error",
        Some("off") => "off",
        _ if daemon => "info",
        _ => "warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let filter = SILENT.iter().filter_map(|text| text.parse().ok()).fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
