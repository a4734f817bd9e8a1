//! The daemon as a process: the real binary, a real config file, real signals.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::patience;
use crate::ports::free_port;
use crate::process::{self, Usage};
use crate::service::run_dir;
use crate::{PgDatabase, http};

/// What goes into the config file.
#[derive(Clone, Debug, Default)]
pub struct DaemonConfig {
    /// The topics' prefix; unique for a test where the broker is shared.
    pub prefix: String,
    /// `host:port` of a Kafka, several with commas between; without it the daemon serves the log itself.
    pub brokers: Option<String>,
    /// Name, connector, URL (empty: none is written), table patterns (none: all tables).
    pub sources: Vec<(String, String, String, Vec<String>)>,
    /// Name, URL, further lines of YAML (`consistency: key`).
    pub sinks: Vec<(String, String, Vec<String>)>,
    /// Name of a source, and a further line of YAML of it.
    pub source_lines: Vec<(String, String)>,
    /// Further lines of YAML under `kafka:`.
    pub kafka: Vec<String>,
    /// Further lines of YAML at the top level.
    pub extra: Vec<String>,
}

impl DaemonConfig {
    /// A config with no source and no sink yet.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), ..Self::default() }
    }

    /// Uses a Kafka instead of the embedded log.
    #[must_use]
    pub fn brokers(mut self, bootstrap: &str) -> Self {
        self.brokers = Some(bootstrap.to_owned());
        self
    }

    /// Adds a MySQL or MariaDB source.
    #[must_use]
    pub fn source(self, name: &str, url: &str, tables: &[&str]) -> Self {
        self.source_of(name, "mysql", url, tables)
    }

    /// Adds a source of a named connector: `mysql`, `mariadb`.
    #[must_use]
    pub fn source_of(mut self, name: &str, connector: &str, url: &str, tables: &[&str]) -> Self {
        let tables = tables.iter().map(ToString::to_string).collect();
        self.sources.push((name.to_owned(), connector.to_owned(), url.to_owned(), tables));
        self
    }

    /// Adds a line of YAML to a source (`tls: {mode: disabled}`); `{data_dir}` stands for the daemon's folder.
    #[must_use]
    pub fn source_line(mut self, name: &str, line: &str) -> Self {
        self.source_lines.push((name.to_owned(), line.to_owned()));
        self
    }

    /// Adds settings of a source, in YAML.
    #[must_use]
    pub fn source_lines(mut self, name: &str, lines: &[&str]) -> Self {
        self.source_lines.extend(lines.iter().map(|line| (name.to_owned(), (*line).to_owned())));
        self
    }

    /// Adds a Postgres sink that takes all sources; `lines` are further settings of it.
    #[must_use]
    pub fn sink(mut self, name: &str, database: &PgDatabase, lines: &[&str]) -> Self {
        let lines = lines.iter().map(ToString::to_string).collect();
        self.sinks.push((name.to_owned(), database.url.clone(), lines));
        self
    }

    /// Adds lines of YAML under `kafka:`, indented by two; for a config with brokers.
    #[must_use]
    pub fn kafka(mut self, lines: &str) -> Self {
        self.kafka.push(lines.to_owned());
        self
    }

    /// Adds lines of YAML at the top level.
    #[must_use]
    pub fn extra(mut self, lines: &str) -> Self {
        self.extra.push(lines.to_owned());
        self
    }

    fn yaml(&self, data_dir: &Path, http_port: u16, log_port: u16) -> String {
        let mut y = format!("prefix: {}\ndata_dir: {}\n", self.prefix, data_dir.display());
        let _ = writeln!(y, "http:\n  listen: 127.0.0.1:{http_port}");
        match &self.brokers {
            Some(b) => drop(writeln!(y, "kafka:\n  brokers: [\"{}\"]", b.replace(',', "\", \""))),
            None => drop(writeln!(y, "log:\n  listen: 127.0.0.1:{log_port}")),
        }
        for lines in &self.kafka {
            let _ = writeln!(y, "{lines}");
        }
        y.push_str("sources:\n");
        for (name, connector, url, tables) in &self.sources {
            let _ = writeln!(y, "  {name}:\n    type: {connector}");
            if !url.is_empty() {
                let _ = writeln!(y, "    url: \"{url}\"");
            }
            if !tables.is_empty() {
                let quoted: Vec<String> = tables.iter().map(|t| format!("\"{t}\"")).collect();
                let _ = writeln!(y, "    tables: [{}]", quoted.join(", "));
            }
            for (_, line) in self.source_lines.iter().filter(|(of, _)| of == name) {
                let _ = writeln!(y, "    {}", line.replace("{data_dir}", &data_dir.display().to_string()));
            }
        }
        if !self.sinks.is_empty() {
            y.push_str("sinks:\n");
        }
        let names: Vec<&str> = self.sources.iter().map(|s| s.0.as_str()).collect();
        for (name, url, lines) in &self.sinks {
            let _ = writeln!(
                y,
                "  {name}:\n    type: postgres\n    url: \"{url}\"\n    from: [{}]",
                names.join(", ")
            );
            for line in lines {
                let _ = writeln!(y, "    {line}");
            }
        }
        for lines in &self.extra {
            let _ = writeln!(y, "{lines}");
        }
        y
    }
}

/// A daemon with its folder, which outlives kills and restarts; dropping it kills the process and removes the folder.
pub struct Daemon {
    dir: TempDir,
    child: Option<Child>,
    http_port: u16,
    log_port: u16,
    brokers: String,
    variables: Vec<(String, String)>,
}

impl Daemon {
    /// Starts `caudal run` with these environment variables and no file; doesn't wait. Ports and folder are added.
    ///
    /// # Errors
    /// When the binary is missing or can't be started.
    pub fn by_variables(variables: &[(String, String)]) -> Result<Self> {
        let mut daemon = Self::prepare(&DaemonConfig::new("unused"))?;
        fs::remove_file(daemon.config_file())?;
        daemon.variables = variables.to_vec();
        let own = [
            ("ETL_SERVICE_PORT", daemon.http_port.to_string()),
            ("CAUDAL_LOG_LISTEN", daemon.brokers.clone()),
            ("CAUDAL_DATA_DIR", daemon.data_dir().display().to_string()),
        ];
        daemon.variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Writes the config and starts `caudal run`; doesn't wait.
    ///
    /// # Errors
    /// When the binary is missing or can't be started.
    pub fn start(config: &DaemonConfig) -> Result<Self> {
        let mut daemon = Self::prepare(config)?;
        daemon.start_again()?;
        Ok(daemon)
    }

    /// As [`Self::start`], and waits until `/health` answers 200.
    ///
    /// # Errors
    /// When it ends or stays unhealthy for a minute: with the tail of its log.
    pub async fn start_healthy(config: &DaemonConfig) -> Result<Self> {
        let mut daemon = Self::start(config)?;
        daemon.wait_healthy(Duration::from_secs(60)).await?;
        Ok(daemon)
    }

    /// Writes the config without starting anything.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn prepare(config: &DaemonConfig) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("caudal-daemon-").tempdir_in(run_dir())?;
        let (http_port, log_port) = (free_port()?, free_port()?);
        let (brokers, variables) = (String::new(), Vec::new());
        let mut daemon = Self { dir, child: None, http_port, log_port, brokers, variables };
        daemon.reconfigure(config)?;
        Ok(daemon)
    }

    /// Writes another config over the old one, same folder and ports; the next start reads it.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn reconfigure(&mut self, config: &DaemonConfig) -> Result<()> {
        let yaml = config.yaml(&self.data_dir(), self.http_port, self.log_port);
        fs::write(self.config_file(), yaml)?;
        self.brokers = config.brokers.clone().unwrap_or_else(|| format!("127.0.0.1:{}", self.log_port));
        Ok(())
    }

    /// Starts the process again on the same config and data, after a kill or a stop.
    ///
    /// # Errors
    /// When it still runs, or can't be started.
    pub fn start_again(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("the daemon runs already");
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        // setpriv makes the kernel kill the daemon if this process dies: nothing is left behind after kill -9 either.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(binary()?)
            .args(["run", "--config"])
            .arg(self.config_file())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the daemon")?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `/health` answers 200.
    ///
    /// # Errors
    /// When the process ends or `limit` passes: with the tail of its log.
    pub async fn wait_healthy(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            if matches!(http::get(self.http_port, "/health").await, Ok((200, _))) {
                return Ok(());
            }
            if let Some(status) = self.exited()? {
                bail!("the daemon ended with {status}:\n{}", self.log_tail());
            }
            if start.elapsed() > limit {
                bail!("the daemon is not healthy after {limit:?}:\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it as a crash would (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the daemon doesn't run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// When it doesn't run, or is still there after `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait_exit(limit).await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it doesn't run, or is still there after `limit`.
    pub async fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() <= limit {
            if let Some(status) = self.exited()? {
                self.child = None;
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the daemon still runs after {limit:?}:\n{}", self.log_tail())
    }

    /// Sends it a signal: `STOP` and `CONT` freeze and thaw it.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn signal(&self, name: &str) -> Result<()> {
        process::signal(self.pid()?, name)
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the daemon doesn't run")?.id())
    }

    /// Its CPU time and memory.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn usage(&self) -> Result<Usage> {
        process::usage(self.pid()?)
    }

    /// `GET` on its HTTP port: status code and body.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(self.http_port, path).await
    }

    /// `host:port` where the Kafka protocol is spoken: the brokers of the config, or its own log.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Its config file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("caudal.yaml")
    }

    /// Its data folder.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// All that it has written to its log, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_file()).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Waits until a line of its log holds `text`.
    ///
    /// # Errors
    /// When `limit` passes: with the tail of the log.
    pub async fn wait_log(&self, text: &str, limit: Duration) -> Result<()> {
        let seen = async || Ok(self.log().contains(text));
        patience::until(&format!("'{text}' in the daemon's log"), limit, Duration::from_millis(50), seen)
            .await
            .with_context(|| self.log_tail())
    }

    /// The last 60 lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("caudal.log")
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.as_mut().context("the daemon doesn't run")?.try_wait()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ends with ---\n{}\n---", self.log_tail());
        }
    }
}

/// The daemon's binary: `CAUDAL_BIN`, else the one beside this test's own in the target folder.
///
/// # Errors
/// When it is not there, or older than this test: says how to build it.
pub fn binary() -> Result<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os("CAUDAL_BIN") {
            return Some(PathBuf::from(path)).filter(|p| p.exists());
        }
        // target/debug/deps/integration-… -> target/debug/caudal
        let own = std::env::current_exe().ok()?;
        own.ancestors().skip(1).take(2).map(|dir| dir.join("caudal")).find(|p| p.is_file())
    });
    found.clone().context(
        "the daemon's binary is not built (or CAUDAL_BIN points nowhere); run: cargo build --workspace",
    )
}
