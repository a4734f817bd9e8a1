//! What the daemon takes from the machine.

use std::fs;

use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer};

#[tokio::test]
async fn the_daemon_runs_with_a_thrifty_allocator_under_its_own_name_and_process_id() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("cost").await.unwrap();
    server.sql(&db, "CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    let config = DaemonConfig::new("cost").source("shop", &server.url(&db), &[]);
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    // The id that it was started with: who watches the process sees the same one.
    let pid = daemon.pid().unwrap();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let settings: Vec<String> = environment
        .split(|byte| *byte == 0)
        .map(|one| String::from_utf8_lossy(one).into_owned())
        .filter(|one| one.starts_with("MALLOC_"))
        .collect();
    assert!(settings.contains(&"MALLOC_ARENA_MAX=2".to_owned()), "{settings:?}");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim(), "caudal");
}
