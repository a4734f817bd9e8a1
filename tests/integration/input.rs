//! What bad input gets, through the front door: a message with field, cause and fix, the right exit code, no stack trace, no
//! secret; what can go on goes on, and when the cause is mended nothing is missing.

mod configuration;
mod disk;
mod sink;
mod source;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use caudal_tests::{Daemon, patience};
use serde_json::Value;

/// A parked pipeline looks again after a minute, a retrying one after half of that.
const MENDED_WITHIN: Duration = Duration::from_secs(100);
/// Passwords that these tests use, right and wrong: none may be printed.
const SECRETS: [&str; 4] = ["cdc-secret", "admin-secret", "guessed-badly", "sink-s3cret"];

/// What a verb printed and how it ended.
struct Said {
    code: Option<i32>,
    text: String,
}

/// Runs a verb that must end by itself within 30 s; a longer one ends with code 124.
fn caudal(config: &Path, verb: &[&str]) -> Said {
    let binary = caudal_tests::daemon::binary().unwrap();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=2", "30"]).arg(binary).args(verb).arg("--config").arg(config);
    let out = command.output().unwrap();
    let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    Said { code: out.status.code(), text }
}

impl Said {
    /// It ended with `code` and said all of `words`, calmly.
    fn assert(&self, code: i32, words: &[&str]) {
        assert_told(&self.text, words);
        assert_eq!(self.code, Some(code), "{}", self.text);
    }
}

/// The text holds all of `words`, and neither a stack trace nor a secret.
fn assert_told(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "'{word}' is not in:\n{text}");
    }
    for word in ["panicked", "RUST_BACKTRACE", "stack backtrace"].iter().chain(&SECRETS) {
        assert!(!text.contains(word), "'{word}' is in:\n{text}");
    }
}

/// What `/status` says about a pipeline.
async fn status(daemon: &Daemon, pipeline: &str) -> anyhow::Result<Value> {
    let (_, body) = daemon.get("/status").await?;
    assert_told(&body, &[]);
    let all: Value = serde_json::from_str(&body)?;
    let found = all["pipelines"].as_array().and_then(|p| p.iter().find(|p| p["name"] == pipeline));
    Ok(found.cloned().unwrap_or_default())
}

/// Waits until the pipeline is in `state`, its last error saying all of `words` (message and hint).
async fn wait_state(daemon: &Daemon, pipeline: &str, state: &str, words: &[&str]) {
    let what = format!("{pipeline} being {state}, saying {words:?}");
    let reached = async || {
        let found = status(daemon, pipeline).await?;
        let said = found["last_error"].to_string();
        anyhow::ensure!(found["state"] == state && words.iter().all(|w| said.contains(w)), "{found}");
        Ok(true)
    };
    patience::until(&what, Duration::from_secs(45), Duration::from_millis(100), reached)
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}
