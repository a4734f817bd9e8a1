//! A full disk under the embedded log.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Audit, Daemon, DaemonConfig, Family, MysqlServer, Postgres, TablePair, Workload};

use super::assert_told;

/// A small file system in memory, gone when this is dropped, also under a daemon that still holds files on it.
struct Mount(PathBuf);

impl Mount {
    /// `None` without the rights to mount.
    fn over(dir: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let options = format!("size={size},mode=755");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "caudal-test"]).arg(dir).status();
        mounted.is_ok_and(|s| s.success()).then(|| Self(dir.to_owned()))
    }

    /// Takes all the room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("balloon");
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_lost_when_there_is_room_again() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("disk").await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 31, 2_000).await.unwrap().clients(4);
    let sink = Postgres::shared().database("disk").await.unwrap();
    let prefix = format!("disk{}", std::process::id());
    let config = DaemonConfig::new(&prefix).source("shop", &server.url(&db), &[]).sink("pg", &sink, &[]);
    let mut daemon = Daemon::prepare(&config).unwrap();
    let Some(mount) = Mount::over(&daemon.data_dir(), "96m") else {
        eprintln!("NOT TESTED: a full disk needs the right to mount a tmpfs; run the tests as root");
        return;
    };
    daemon.start_again().unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let source = server.url(&db);
    wait_equal(&pairs, &source, &sink.url, Duration::from_secs(40))
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));

    let balloon = mount.fill();
    let writers = workload.start().await.unwrap();
    let told = daemon.wait_log("No space left", Duration::from_secs(30)).await;
    told.unwrap_or_else(|e| panic!("{e:#}"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let lines = daemon.log().lines().count();
    assert!(lines < 200, "{lines} lines in a few seconds:\n{}", daemon.log_tail());
    daemon.pid().unwrap();
    daemon.get("/status").await.unwrap();
    fs::remove_file(balloon).unwrap();
    writers.stop().await.unwrap();
    let equal = wait_equal(&pairs, &source, &sink.url, Duration::from_secs(60)).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    Audit::of(daemon.brokers(), &prefix, &[&db]).await.unwrap().assert_clean();

    // Full at the start of a daemon, too: it says so, and starts when there is room.
    let balloon = mount.fill();
    daemon.kill().unwrap();
    daemon.start_again().unwrap();
    workload.run(Duration::from_secs(2)).await.unwrap();
    fs::remove_file(balloon).unwrap();
    if let Ok(status) = daemon.wait_exit(Duration::from_millis(500)).await {
        assert_eq!(status.code(), Some(1));
        assert_told(&daemon.log(), &["error: data_dir: ", "fix: "]);
        daemon.start_again().unwrap();
    }
    let equal = wait_equal(&pairs, &source, &sink.url, Duration::from_secs(60)).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    Audit::of(daemon.brokers(), &prefix, &[&db]).await.unwrap().assert_clean();
    assert_told(&daemon.log(), &[]);
}
