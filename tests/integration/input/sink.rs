//! Sinks that cannot be written: the capture and the other sinks go on, and they catch up by themselves.

use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, PgDatabase, Postgres, TablePair, Workload};

use super::{MENDED_WITHIN, assert_told, caudal, wait_state};

/// A server that asks the role `app` for a password, and nobody else.
fn asking_server() -> (Postgres, tempfile::TempDir) {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("hba");
    std::fs::write(&file, "host all app 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")
        .unwrap();
    (Postgres::start(&[&format!("hba_file={}", file.display())]).unwrap(), dir)
}

#[tokio::test]
async fn sinks_that_are_down_or_locked_or_of_another_shape_recover_and_the_rest_goes_on() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("sinks").await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 21, 2_000).await.unwrap().clients(2);
    let well = Postgres::shared().database("sinks_well").await.unwrap();
    let shape = Postgres::shared().database("sinks_shape").await.unwrap();
    shape
        .sql("CREATE TABLE people (id bigint PRIMARY KEY, name integer, extra text NOT NULL)")
        .await
        .unwrap();
    let away = Postgres::start(&[]).unwrap();
    let down = away.database("sinks_down").await.unwrap();
    away.service().stop(false).unwrap();
    let (asking, _hba) = asking_server();
    let locked = asking.database("sinks_locked").await.unwrap();
    locked.sql("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'sink-s3cret'").await.unwrap();
    let wrong = PgDatabase { url: locked.url.replace("postgres@", "app:guessed-badly@") };

    let mut config =
        DaemonConfig::new(&format!("sinks{}", std::process::id())).source("shop", &server.url(&db), &[]);
    for (name, database) in [("well", &well), ("down", &down), ("shape", &shape), ("locked", &wrong)] {
        config = config.sink(name, database, &[]);
    }
    let mut daemon = Daemon::start(&config).unwrap();
    let port = away.port().to_string();
    wait_state(&daemon, "sink/down", "retrying", &["sinks.down.url", &port, "refused"]).await;
    wait_state(
        &daemon,
        "sink/locked",
        "parked",
        &["sinks.locked.url", "password authentication failed", "pg_hba"],
    )
    .await;
    wait_state(&daemon, "sink/shape", "parked", &["sinks.shape", "people", "name", "extra", "another shape"])
        .await;
    let checked = caudal(&daemon.config_file(), &["check"]);
    checked.assert(1, &["sinks.down", &port, "sinks.locked", "password authentication failed", "fix:"]);

    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    workload.run(Duration::from_secs(2)).await.unwrap();
    let source = server.url(&db);
    wait_equal(&pairs, &source, &well.url, Duration::from_secs(40))
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));

    away.service().start_again().unwrap();
    locked.sql("ALTER ROLE app PASSWORD 'guessed-badly'").await.unwrap();
    shape.sql("DROP TABLE people").await.unwrap();
    workload.run(Duration::from_secs(1)).await.unwrap();
    for database in [&well, &down, &locked, &shape] {
        let equal = wait_equal(&pairs, &source, &database.url, MENDED_WITHIN).await;
        equal.unwrap_or_else(|e| panic!("{}: {e:#}\n{}", database.url, daemon.log_tail()));
    }
    daemon.wait_healthy(Duration::from_secs(10)).await.unwrap();
    assert_told(
        &daemon.log(),
        &["sink/down", "trying again", "sink/locked", "sink/shape", "parked until that is mended"],
    );
}

#[tokio::test]
async fn a_postgres_that_goes_away_and_comes_back_gets_what_it_missed() {
    let server = MysqlServer::shared(Family::Mysql97);
    let db = server.database("gone").await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 22, 2_000).await.unwrap().clients(4);
    let postgres = Postgres::start(&["fsync=on"]).unwrap();
    let sink = postgres.database("gone").await.unwrap();
    let config = DaemonConfig::new(&format!("gone{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .sink("pg", &sink, &[]);
    let daemon = Daemon::start(&config).unwrap();
    let writers = workload.start().await.unwrap();
    for crash in [true, false] {
        tokio::time::sleep(Duration::from_secs(3)).await;
        postgres.service().stop(crash).unwrap();
        wait_state(&daemon, "sink/pg", "retrying", &[]).await;
        wait_state(&daemon, "capture/shop", "running", &[]).await;
        postgres.service().start_again().unwrap();
    }
    writers.stop().await.unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(60)).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    assert_told(&daemon.log(), &["sink/pg", "trying again"]);
}
