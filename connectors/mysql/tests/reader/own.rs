//! Servers of a test's own: to be killed, promoted, and started again.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running server; it ends with the test, and its folder is removed.
pub(crate) struct Own {
    kind: &'static str,
    options: Vec<String>,
    keeper: Child,
    folder: PathBuf,
    pub(crate) port: u16,
}

fn services() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/services")
}

/// Below the range from which the kernel takes ports for clients: a server that was killed finds its port free again.
fn free_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..200).map(|_| rand::random_range(20_000..24_000)).find(free).expect("one of 200 ports is free")
}

impl Own {
    /// `kind` is mariadb, mysql97 or mysql80. Making a data folder fails now and then on a machine under load: it is tried again.
    pub(crate) fn start(kind: &'static str, options: &[&str]) -> Self {
        let started = (0..3).find_map(|_| Self::try_new(kind, options));
        started.unwrap_or_else(|| panic!("{kind} does not start"))
    }

    fn try_new(kind: &'static str, options: &[&str]) -> Option<Self> {
        let base = std::env::var_os("CAUDAL_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let port = free_port();
        let folder = base.join(format!("caudal-own-{}-{port}", std::process::id()));
        let mut keeper = Command::new(services().join("keep"))
            .arg(kind)
            .arg(&folder)
            .arg(port.to_string())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        let own = Self { kind, options, keeper, folder, port };
        line.trim().parse::<u32>().is_ok().then_some(own)
    }

    /// Kills the server; its data stay.
    pub(crate) fn kill(&self) {
        let done = Command::new(services().join("stop")).arg(&self.folder).arg("now").status().unwrap();
        assert!(done.success());
    }

    /// Starts it again after a kill, on the same data and port. Until the killed process is gone for good, a server holds its socket
    /// for taken.
    pub(crate) fn start_again(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !self.try_start() {
            assert!(std::time::Instant::now() < deadline, "{} does not start again", self.kind);
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    fn try_start(&self) -> bool {
        let mut command = match self.kind.strip_prefix("mysql") {
            Some(version) => {
                let mut command = Command::new(services().join("start-mysql"));
                command.arg(version);
                command
            }
            None => Command::new(services().join("start-mariadb")),
        };
        command.arg(&self.folder).arg(self.port.to_string()).args(&self.options);
        command.stdout(Stdio::null()).status().unwrap().success()
    }

    /// The place of its server, for `hosts`.
    pub(crate) fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// With an account that may do everything.
    pub(crate) async fn connect(&self) -> Conn {
        let opts = Opts::from_url(&format!("mysql://admin:admin-secret@{}/", self.place())).unwrap();
        let opts = OptsBuilder::from_opts(opts).prefer_socket(false).init(vec!["SET NAMES utf8mb4"]);
        Conn::new(opts).await.unwrap()
    }

    /// Runs statements, one after the other.
    pub(crate) async fn run(&self, statements: &[&str]) {
        let mut conn = self.connect().await;
        for statement in statements {
            conn.query_drop(*statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    }

    /// The first value, as text.
    pub(crate) async fn ask(&self, query: &str) -> String {
        let mut conn = self.connect().await;
        let row: Option<mysql_async::Row> = conn.query_first(query).await.unwrap();
        row.and_then(|r| r.get::<Option<String>, _>(0).flatten()).unwrap_or_default()
    }

    /// Makes it a replica of the other.
    pub(crate) async fn follow(&self, primary: &Self) {
        let port = primary.port;
        if self.kind == "mariadb" {
            let change = format!(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='cdc', MASTER_PASSWORD='cdc-secret', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1"
            );
            self.run(&[&change, "START SLAVE", "SET GLOBAL read_only=1"]).await;
        } else {
            let change = format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='cdc', SOURCE_PASSWORD='cdc-secret', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1"
            );
            self.run(&[&change, "START REPLICA", "SET GLOBAL super_read_only=1"]).await;
        }
    }

    /// Waits until it has applied all that the other has.
    pub(crate) async fn catch_up(&self, primary: &Self) {
        let (theirs, wait) = if self.kind == "mariadb" {
            (primary.ask("SELECT @@GLOBAL.gtid_binlog_pos").await, "SELECT MASTER_GTID_WAIT")
        } else {
            (primary.ask("SELECT @@GLOBAL.gtid_executed").await, "SELECT WAIT_FOR_EXECUTED_GTID_SET")
        };
        assert_eq!(self.ask(&format!("{wait}('{theirs}', 120)")).await, "0", "the replica catches up");
    }

    /// Makes it the primary, once it has applied all that it received.
    pub(crate) async fn promote(&self) {
        if self.kind == "mariadb" {
            self.run(&["STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only=0"]).await;
        } else {
            let open = "SET GLOBAL super_read_only=0";
            self.run(&["STOP REPLICA", "RESET REPLICA ALL", open, "SET GLOBAL read_only=0"]).await;
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // The keeper stops the server when its input ends.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
