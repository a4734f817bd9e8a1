//! A server process that lives exactly as long as this process holds it.
//!
//! The server runs under `tests/services/keep`, whose standard input is a pipe from us. When the handle is dropped, or this process
//! ends in whatever way (a panic, Ctrl-C, kill -9), the pipe closes and the keeper stops the server and removes its folder.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::ports::free_port;

/// A running server with a private folder and port.
pub struct Service {
    kind: &'static str,
    dir: PathBuf,
    port: u16,
    options: Vec<String>,
    keeper: Child,
    lifeline: Option<ChildStdin>,
}

/// The folder of the start and stop scripts.
#[must_use]
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("services")
}

/// Where this run puts its folders: `CAUDAL_TEST_DIR`, else the machine's temporary folder.
#[must_use]
pub fn run_dir() -> PathBuf {
    std::env::var_os("CAUDAL_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

impl Service {
    /// Starts a server of `kind` (as `tests/services/keep` knows it) with server options that override the defaults. Blocks until it answers.
    ///
    /// # Errors
    /// When it doesn't start: with what the start script said.
    pub fn start(kind: &'static str, options: &[&str]) -> Result<Self> {
        Self::start_at(kind, free_port()?, options)
    }

    /// The same on a port that the caller knows to be free.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start_at(kind: &'static str, port: u16, options: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("caudal-{kind}-")).tempdir_in(run_dir())?.keep();
        let mut keeper = Command::new(scripts().join("keep"))
            .arg(kind)
            .arg(&dir)
            .arg(port.to_string())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run tests/services/keep")?;
        let lifeline = keeper.stdin.take();
        let mut first = String::new();
        BufReader::new(keeper.stdout.take().context("keeper without output")?).read_line(&mut first)?;
        if first.trim().parse::<u32>().is_err() {
            let mut said = String::new();
            keeper.stderr.take().context("keeper without errors")?.read_to_string(&mut said)?;
            bail!("start {kind}: {}", said.trim());
        }
        let options = options.iter().map(ToString::to_string).collect();
        Ok(Self { kind, dir, port, options, keeper, lifeline })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with the server's data and log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn pid(&self) -> Result<u32> {
        let noted = std::fs::read_to_string(self.dir.join("pid")).context("the server doesn't run")?;
        noted.split_whitespace().next().and_then(|pid| pid.parse().ok()).context("what the start noted")
    }

    /// Stops the server and keeps its data: tidily, or as a crash would. [`Self::start_again`] brings it back.
    ///
    /// # Errors
    /// When the stop script fails.
    pub fn stop(&self, crash: bool) -> Result<()> {
        let mut stop = Command::new(scripts().join("stop"));
        stop.arg(&self.dir);
        if crash {
            stop.arg("now");
        }
        run(&mut stop)
    }

    /// Starts the stopped server again on its port and data.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start_again(&self) -> Result<()> {
        let mut start = match self.kind.strip_prefix("mysql") {
            Some(version) => {
                let mut c = Command::new(scripts().join("start-mysql"));
                c.arg(version);
                c
            }
            None => Command::new(scripts().join(format!("start-{}", self.kind))),
        };
        run(start.arg(&self.dir).arg(self.port.to_string()).args(&self.options))
    }
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.stdin(Stdio::null()).output()?;
    if !out.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // The keeper ends by itself; waiting for it frees the port before the next server starts.
        let _ = self.keeper.wait();
    }
}
