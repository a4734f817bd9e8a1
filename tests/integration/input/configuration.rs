//! What stops the daemon before it starts: the file, the ports, the folder.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use caudal_tests::{Daemon, DaemonConfig, PgDatabase};

use super::caudal;

/// A config that is right, and needs no server to be read.
fn config() -> DaemonConfig {
    let nowhere = PgDatabase { url: "postgres://app:sink-s3cret@127.0.0.1:1/dash".into() };
    DaemonConfig::new("input").source("shop", "mysql://cdc:cdc-secret@127.0.0.1:1/shop", &[]).sink(
        "dash",
        &nowhere,
        &[],
    )
}

/// The config file with a line replaced.
fn broken(daemon: &Daemon, from: &str, to: &str) -> PathBuf {
    let path = daemon.config_file();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    path
}

/// The port that the group `group` of the config listens on.
fn port(daemon: &Daemon, group: &str) -> u16 {
    let text = fs::read_to_string(daemon.config_file()).unwrap();
    let after = text.split_once(&format!("{group}:\n  listen: 127.0.0.1:")).unwrap().1;
    after.lines().next().unwrap().parse().unwrap()
}

#[test]
fn a_right_configuration_passes_the_offline_check() {
    let daemon = Daemon::prepare(&config()).unwrap();
    caudal(&daemon.config_file(), &["check", "--offline"]).assert(0, &["all well"]);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let daemon = Daemon::prepare(&config()).unwrap();
    let path = broken(&daemon, "    url:", "    ulr:");
    for verb in [&["check", "--offline"][..], &["check"], &["run"]] {
        caudal(&path, verb).assert(1, &["sources.shop.ulr", "line", "unknown key", "url"]);
    }
}

#[test]
fn hosts_that_have_no_address_or_do_not_answer_are_told_for_each_end() {
    let daemon = Daemon::prepare(&config()).unwrap();
    let path = broken(&daemon, "cdc-secret@127.0.0.1:1", "cdc-secret@no-such-host.invalid");
    let words = [
        "sources.shop.url",
        "no-such-host.invalid",
        "failed to lookup address",
        "sinks.dash",
        "127.0.0.1:1",
        "refused",
    ];
    caudal(&path, &["check"]).assert(1, &words);
}

#[test]
fn a_missing_file_and_a_missing_variable_are_told() {
    let daemon = Daemon::prepare(&config()).unwrap();
    let none = daemon.config_file().with_file_name("none.yaml");
    caudal(&none, &["run"]).assert(1, &["none.yaml", "--config", "caudal init"]);
    let path = broken(&daemon, "cdc-secret", "${env:CAUDAL_TEST_UNSET}");
    caudal(&path, &["run"]).assert(1, &["sources.shop.url", "CAUDAL_TEST_UNSET", "not set"]);
}

#[test]
fn a_word_that_is_no_verb_or_option_ends_with_code_2() {
    let daemon = Daemon::prepare(&config()).unwrap();
    caudal(&daemon.config_file(), &["rum"]).assert(2, &["rum", "run"]);
    caudal(&daemon.config_file(), &["check", "--ofline"]).assert(2, &["--ofline", "--offline"]);
}

#[test]
fn a_port_in_use_is_named_with_its_field() {
    for group in ["http", "log"] {
        let daemon = Daemon::prepare(&config()).unwrap();
        let port = port(&daemon, group);
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let field = format!("{group}.listen");
        caudal(&daemon.config_file(), &["run"])
            .assert(1, &[&field, &port.to_string(), "already in use", "fix:"]);
    }
}

#[tokio::test]
async fn a_second_daemon_on_one_folder_is_refused_and_the_first_goes_on() {
    let mut first = Daemon::start(&DaemonConfig::new("folder")).unwrap();
    first.wait_healthy(std::time::Duration::from_secs(30)).await.unwrap();
    let second = Daemon::prepare(&DaemonConfig::new("folder")).unwrap();
    let folder = first.data_dir().display().to_string();
    let path = broken(&second, &second.data_dir().display().to_string(), &folder);
    caudal(&path, &["run"]).assert(1, &["data_dir", "in use", "Stop that process"]);
    assert_eq!(first.get("/health").await.unwrap().0, 200);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let daemon = Daemon::prepare(&config()).unwrap();
    // A file where the folder should be: refused to root, too.
    let file = daemon.config_file().with_file_name("file");
    fs::write(&file, "").unwrap();
    let path =
        broken(&daemon, &daemon.data_dir().display().to_string(), &file.join("data").display().to_string());
    caudal(&path, &["run"]).assert(1, &["data_dir", "fix:"]);
}
