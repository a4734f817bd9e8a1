//! The embedded log, as the daemon starts it.

use super::registry::Kafka;
use caudal_control::config::{LogSettings, Problem, Resolved};
pub(crate) use caudal_log::Log;
use std::net::SocketAddr;
use std::path::Path;

/// What a request holds beside its largest record.
const BESIDE_A_RECORD: usize = 4 << 20;

/// Serves the log from `data_dir/log`, for records of up to `largest_record` bytes.
///
/// # Errors
/// With the field of the configuration: the port is in use, the folder locked or not writable, a file damaged.
pub(crate) async fn start(
    settings: &LogSettings,
    data_dir: &Path,
    largest_record: u64,
) -> Result<Log, Problem> {
    std::fs::create_dir_all(data_dir).map_err(|error| {
        Problem::new("data_dir", format!("cannot create {}: {error}", data_dir.display()))
            .fix("create it, writable for the user that runs caudal, or choose another `data_dir`")
    })?;
    let config = with_records(settings, data_dir, largest_record);
    Log::start(config).await.map_err(|error| problem(&error.to_string()))
}

/// The same log as the daemon serves it, elsewhere.
pub(crate) fn configuration(
    settings: &LogSettings,
    resolved: &Resolved<Kafka>,
    listen: SocketAddr,
) -> caudal_log::Config {
    let largest_record = resolved.kafka.topics.max_message_bytes.bytes();
    caudal_log::Config { listen, ..with_records(settings, &resolved.data_dir, largest_record) }
}

fn with_records(settings: &LogSettings, data_dir: &Path, largest_record: u64) -> caudal_log::Config {
    let defaults = caudal_log::Config::default();
    caudal_log::Config {
        max_frame_bytes: defaults.max_frame_bytes.max(largest_record as usize + BESIDE_A_RECORD),
        listen: settings.listen,
        data_dir: data_dir.join("log"),
        allow_remote: settings.allow_remote,
        segment_bytes: settings.segment_bytes,
        ..defaults
    }
}

/// The log names its own settings: they are found elsewhere in the configuration.
pub(crate) fn problem(text: &str) -> Problem {
    let (field, rest) = match text.split_once(": ") {
        Some(("listen", rest)) => ("log.listen", rest),
        Some(("data_dir", rest)) => ("data_dir", rest),
        _ => ("log", text),
    };
    match rest.split_once(". ") {
        Some((cause, fix)) => Problem::new(field, cause).fix(fix),
        None => Problem::new(field, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_the_log_is_told_by_the_fields_of_the_configuration() {
        let told = |text| problem(text).to_string();
        assert_eq!(
            told("listen: port 9092 of 127.0.0.1 is already in use. Choose another one"),
            "log.listen: port 9092 of 127.0.0.1 is already in use\n  fix: Choose another one"
        );
        assert_eq!(told("data_dir: /x is locked"), "data_dir: /x is locked");
        assert_eq!(told("unheard of"), "log: unheard of");
    }
}
