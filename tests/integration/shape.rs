//! What is captured and how it is configured: without a file, from several servers, idle, polled.

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, Postgres, TablePair, patience, postgres};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(90);

/// What `caudal` says with these variables and no file.
fn caudal(variables: &[(String, String)], verb: &[&str]) -> (Option<i32>, String) {
    let binary = caudal_tests::daemon::binary().unwrap();
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=2", "60"])
        .arg(binary)
        .args(verb)
        .args(["--config", "/nonexistent/caudal.yaml"]);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let out = command.output().unwrap();
    let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (out.status.code(), text)
}

/// A pipeline, as `/status` shows it.
async fn pipeline(daemon: &Daemon, name: &str) -> Value {
    let (_, body) = daemon.get("/status").await.unwrap();
    let all: Value = serde_json::from_str(&body).unwrap();
    let found = all["pipelines"].as_array().and_then(|p| p.iter().find(|p| p["name"] == name));
    found.cloned().unwrap_or_default()
}

async fn position(daemon: &Daemon, name: &str) -> String {
    pipeline(daemon, name).await["position"].as_str().unwrap_or_default().to_owned()
}

/// Events since the daemon was started.
async fn events(daemon: &Daemon, name: &str) -> u64 {
    pipeline(daemon, name).await["events"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_the_etl_variables_run_two_servers_into_a_sink() {
    let (maria, mysql) = (MysqlServer::shared(Family::MariaDb), MysqlServer::shared(Family::Mysql97));
    let (main, inventory) =
        (maria.database("env_main").await.unwrap(), mysql.database("env_stock").await.unwrap());
    maria
        .sql(&main, "CREATE TABLE a (id INT PRIMARY KEY, t TEXT); INSERT INTO a VALUES (1, 'one')")
        .await
        .unwrap();
    mysql
        .sql(&inventory, "CREATE TABLE b (id INT PRIMARY KEY, n INT); INSERT INTO b VALUES (1, 1)")
        .await
        .unwrap();
    let sink = Postgres::shared().database("env_sink").await.unwrap();
    let mut variables: Vec<(String, String)> = [
        ("ETL_SERVICE_NAME", "env-test".to_owned()),
        ("ETL_REGION", "eu-west".to_owned()),
        ("ETL_LOG_LEVEL", "debug".to_owned()),
        ("ETL_BATCH_SIZE", "500".to_owned()),
        ("ETL_LLM_MODEL", "gpt-4o-mini".to_owned()),
        ("ETL_DB_HOST", "127.0.0.1".to_owned()),
        ("ETL_DB_PORT", maria.port().to_string()),
        ("ETL_DB_USER", "cdc".to_owned()),
        ("ETL_DB_PASSWORD", "cdc-secret".to_owned()),
        ("ETL_DB_DATABASE", main.clone()),
        ("ETL_DB_INVENTORY_HOST", "127.0.0.1".to_owned()),
        ("ETL_DB_INVENTORY_PORT", mysql.port().to_string()),
        ("ETL_DB_INVENTORY_DATABASE", inventory.clone()),
        ("CAUDAL_SINK_URL", sink.url.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let (code, said) = caudal(&variables, &["config", "show"]);
    assert_eq!(code, Some(0), "{said}");
    for words in [
        "prefix: env-test.eu-west",
        "main:",
        "inventory:",
        "${env:ETL_DB_PASSWORD}",
        "ETL_LLM_MODEL: has no effect",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (code, checked) = caudal(&variables, &["check"]);
    assert_eq!(code, Some(0), "{checked}");
    assert!(checked.contains("ETL_DB_HOST: sources.main.url"), "{checked}");
    assert!(!(said + &checked).contains("cdc-secret"));

    let mut daemon = Daemon::by_variables(&variables).unwrap();
    daemon.wait_healthy(SOON).await.unwrap();
    let pairs = |db: &str, table: &str| [TablePair::by_default(db, table)];
    wait_equal(&pairs(&main, "a"), &maria.url(&main), &sink.url, SOON).await.unwrap();
    wait_equal(&pairs(&inventory, "b"), &mysql.url(&inventory), &sink.url, SOON).await.unwrap();
    maria.sql(&main, "INSERT INTO a VALUES (2, 'two')").await.unwrap();
    mysql.sql(&inventory, "UPDATE b SET n = 2").await.unwrap();
    wait_equal(&pairs(&main, "a"), &maria.url(&main), &sink.url, SOON).await.unwrap();
    wait_equal(&pairs(&inventory, "b"), &mysql.url(&inventory), &sink.url, SOON).await.unwrap();
    assert!(!daemon.log().contains("cdc-secret") && daemon.log().contains("DEBUG"), "{}", daemon.log_tail());

    variables.retain(|(name, _)| name != "ETL_DB_USER");
    variables.push(("ETL_DB_USR".to_owned(), "cdc".to_owned()));
    let (code, said) = caudal(&variables, &["run"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ETL_DB_USR: unknown variable") && said.contains("ETL_DB_USER"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_and_hours_among_the_etl_variables_poll_a_server_by_the_clock() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("env_poll").await.unwrap();
    server.sql(&db, "CREATE TABLE a (id INT PRIMARY KEY); INSERT INTO a VALUES (1), (2)").await.unwrap();
    let sink = Postgres::shared().database("env_poll").await.unwrap();
    let variables: Vec<(String, String)> = [
        ("ETL_SERVICE_NAME", format!("env-poll-{}", std::process::id())),
        ("ETL_DB_HOST", "127.0.0.1".to_owned()),
        ("ETL_DB_PORT", server.port().to_string()),
        ("ETL_DB_USER", "cdc".to_owned()),
        ("ETL_DB_PASSWORD", "cdc-secret".to_owned()),
        ("ETL_DB_DATABASE", db.clone()),
        ("ETL_INCREMENTAL_HOURS", "6".to_owned()),
        ("ETL_FULL_SYNC_TIME", "02:30".to_owned()),
        ("CAUDAL_TIME_ZONE", "America/Caracas".to_owned()),
        ("CAUDAL_SINK_URL", sink.url.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let mut daemon = Daemon::by_variables(&variables).unwrap();
    daemon.wait_healthy(SOON).await.unwrap();
    wait_equal(&[TablePair::by_default(&db, "a")], &server.url(&db), &sink.url, SOON).await.unwrap();
    let poll = pipeline(&daemon, "capture/main").await["polls"][0].clone();
    assert_eq!(poll["schedule"], "30 2,8,14,20 * * * America/Caracas", "{poll}");
    let next = poll["next_us"][0].as_i64().unwrap();
    let next = jiff::Timestamp::from_microsecond(next).unwrap().in_tz("America/Caracas").unwrap();
    assert!(next.minute() == 30 && [2, 8, 14, 20].contains(&next.hour()), "{next}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_position_of_an_idle_source_moves_with_the_traffic_of_other_databases() {
    for family in [Family::MariaDb, Family::Mysql97] {
        let server = MysqlServer::shared(family);
        let (idle, busy) = (server.database("idle").await.unwrap(), server.database("busy").await.unwrap());
        server.sql(&idle, "CREATE TABLE a (id INT PRIMARY KEY)").await.unwrap();
        server.sql(&busy, "CREATE TABLE b (id INT PRIMARY KEY AUTO_INCREMENT)").await.unwrap();
        let config = DaemonConfig::new("idle")
            .source("shop", &server.url(&idle), &[])
            .source_lines("shop", &["heartbeat: 200ms"]);
        let mut daemon = Daemon::start_healthy(&config).await.unwrap();
        let moved = async |daemon: &Daemon, from: &str| {
            let seen = async || {
                server.sql(&busy, "INSERT INTO b VALUES ()").await?;
                let now = position(daemon, "capture/shop").await;
                Ok(!now.is_empty() && now != from)
            };
            patience::until("the position to move", SOON, Duration::from_millis(100), seen).await.unwrap();
        };
        moved(&daemon, "").await;
        let first = position(&daemon, "capture/shop").await;
        moved(&daemon, &first).await;
        // It is stored, too: a new start goes on from there.
        assert!(daemon.terminate(SOON).await.unwrap().success());
        daemon.start_again().unwrap();
        daemon.wait_healthy(SOON).await.unwrap();
        moved(&daemon, &first).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeats_row_comes_through_to_the_sink_and_check_says_what_it_needs() {
    for family in [Family::MariaDb, Family::Mysql97] {
        let server = MysqlServer::shared(family);
        let (db, beats) = (server.database("hb").await.unwrap(), server.database("hbrow").await.unwrap());
        server.sql(&db, "CREATE TABLE a (id INT PRIMARY KEY)").await.unwrap();
        let sink = Postgres::shared().database("hb").await.unwrap();
        let config = DaemonConfig::new("hb")
            .source("shop", &server.url(&db), &[])
            .source_lines("shop", &[&format!("heartbeat: {{every: 200ms, table: {beats}.heartbeat}}")])
            .sink("pg", &sink, &[]);
        let prepared = Daemon::prepare(&config).unwrap();
        let check = || {
            let binary = caudal_tests::daemon::binary().unwrap();
            let out = Command::new(binary)
                .args(["check", "--config"])
                .arg(prepared.config_file())
                .output()
                .unwrap();
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        let said = check();
        let table = format!("`{beats}`.`heartbeat`");
        assert!(said.contains(&format!("CREATE TABLE {table}")), "{said}");
        server
            .sql(&beats, "CREATE TABLE heartbeat (id VARCHAR(64) PRIMARY KEY, ts TIMESTAMP(6) NOT NULL)")
            .await
            .unwrap();
        let said = check();
        let grant = format!("GRANT SELECT, INSERT, UPDATE ON {table} TO ");
        let line = said.lines().find_map(|l| l.split_once("fix: ").filter(|(_, f)| f.starts_with(&grant)));
        let (_, grant) = line.unwrap_or_else(|| panic!("{said}"));
        // What check prints can be pasted.
        server.sql("mysql", grant.trim_end_matches(';')).await.unwrap();
        assert!(check().contains("a row is written each heartbeat"));
        let _daemon = Daemon::start_healthy(&config).await.unwrap();
        let client = postgres::connect(&sink.url).await.unwrap();
        let seen: Mutex<Vec<String>> = Mutex::default();
        let sql = "SELECT ts::text FROM public.heartbeat WHERE id = 'shop'";
        // A window of time in which nothing of the source changes: what moves is the heartbeat alone.
        let (seen, client) = (&seen, &client);
        let moving = move || async move {
            let row = client.query_opt(sql, &[]).await.ok().flatten();
            let mut seen = seen.lock().unwrap();
            if let Some(ts) = row.map(|row| row.get::<_, String>(0))
                && seen.last() != Some(&ts)
            {
                seen.push(ts);
            }
            Ok(seen.len() >= 3)
        };
        patience::until("three heartbeats in the sink", SOON, Duration::from_millis(50), moving)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_replication_rights_is_polled_into_the_same_topics() {
    for family in [Family::MariaDb, Family::Mysql97] {
        let server = MysqlServer::shared(family);
        let db = server.database("poll").await.unwrap();
        let rows: Vec<String> =
            (1..=1200).map(|n| format!("({n}, 'row {n}', '2024-01-01 00:00:00')")).collect();
        let statements = format!(
            "CREATE TABLE inc (id INT PRIMARY KEY, t TEXT, changed DATETIME(3), KEY (changed)); \
             INSERT INTO inc VALUES {}; \
             CREATE TABLE full_t (a INT, b VARCHAR(20), d DECIMAL(10,2), PRIMARY KEY (a, b)); \
             INSERT INTO full_t VALUES (1, 'x', 1.50), (1, 'y', NULL); \
             CREATE USER IF NOT EXISTS 'poor_{db}'@'%' IDENTIFIED BY 'poor-secret'; GRANT SELECT ON `{db}`.* TO 'poor_{db}'@'%'",
            rows.join(",")
        );
        server.sql(&db, &statements).await.unwrap();
        let sink = Postgres::shared().database("poll").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let lines = [
            "mode: poll".to_owned(),
            "heartbeat: 300ms".to_owned(),
            format!(
                "poll: {{every: 1s, page_rows: 500, dir: \"{}\", tables: {{inc: {{mode: incremental, column: changed, overlap: 1h}}}}}}",
                dir.path().display()
            ),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let config = DaemonConfig::new("poll")
            .source("shop", &server.url_as(&format!("poor_{db}"), "poor-secret", &db), &[])
            .source_lines("shop", &lines)
            .sink("pg", &sink, &[]);
        let mut daemon = Daemon::start_healthy(&config).await.unwrap();
        let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
        wait_equal(&pairs, &server.url(&db), &sink.url, SOON).await.unwrap();
        // A change, a row that was committed late, a change in a refreshed table.
        let changes = "UPDATE inc SET t = 'changed', changed = '2024-01-01 10:00:00' WHERE id = 7; \
            INSERT INTO inc VALUES (5000, 'late', '2024-01-01 09:30:00'); \
            UPDATE full_t SET d = 2.25 WHERE b = 'y'; INSERT INTO full_t VALUES (2, 'z', 0)";
        server.sql(&db, changes).await.unwrap();
        wait_equal(&pairs, &server.url(&db), &sink.url, SOON).await.unwrap();
        let before = events(&daemon, "capture/shop").await;
        // After a restart it goes on from its watermark, and what comes is still seen.
        assert!(daemon.terminate(SOON).await.unwrap().success());
        daemon.start_again().unwrap();
        daemon.wait_healthy(SOON).await.unwrap();
        server.sql(&db, "INSERT INTO inc VALUES (5001, 'after', '2024-01-01 10:00:01')").await.unwrap();
        wait_equal(&pairs, &server.url(&db), &sink.url, SOON).await.unwrap();
        // 1,202 rows and four changes. After the restart the new row; if the stop came between the last commit and the index's own file,
        // the rows of the overlap again, and no others.
        let after = events(&daemon, "capture/shop").await;
        assert!(before == 1206 && (1..=3).contains(&after), "{before} {after} {}", daemon.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polled_row_is_deleted_once_two_refreshes_lack_it_and_never_for_an_answer_that_is_not_whole() {
    let server = MysqlServer::shared(Family::Mysql97);
    let db = server.database("polldel").await.unwrap();
    let rows: Vec<String> = (1..=40).map(|n| format!("({n}, 'row {n}')")).collect();
    let table = "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))";
    server.sql(&db, &format!("{table}; INSERT INTO t VALUES {}", rows.join(","))).await.unwrap();
    let sink = Postgres::shared().database("polldel").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let poll = format!("poll: {{every: 1s, dir: \"{}\"}}", dir.path().display());
    let config = DaemonConfig::new("polldel")
        .source("shop", &server.url(&db), &[])
        .source_lines("shop", &["mode: poll", "heartbeat: 300ms", &poll])
        .sink("pg", &sink, &[]);
    let mut daemon = Daemon::start_healthy(&config).await.unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = async || wait_equal(&pairs, &server.url(&db), &sink.url, SOON).await.unwrap();
    equal().await;
    // Two rows go, one changes: two deletes and an update, and no more.
    server.sql(&db, "DELETE FROM t WHERE id IN (3, 4); UPDATE t SET v = 'new' WHERE id = 5").await.unwrap();
    equal().await;
    assert_eq!(events(&daemon, "capture/shop").await, 43, "{}", daemon.log_tail());
    // All but a few gone: that is no answer to be believed.
    server.sql(&db, "CREATE TABLE kept AS SELECT * FROM t; DELETE FROM t WHERE id > 9").await.unwrap();
    daemon.wait_log("more than may be deleted at once", SOON).await.unwrap();
    let client = postgres::connect(&sink.url).await.unwrap();
    let count =
        async || client.query_one("SELECT COUNT(*) FROM public.t", &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(count().await, 38);
    let mended = "DELETE FROM t; INSERT INTO t SELECT * FROM kept; DELETE FROM t WHERE id = 6";
    server.sql(&db, mended).await.unwrap();
    // A restart does not wait until the parked source is looked at again.
    assert!(daemon.terminate(SOON).await.unwrap().success());
    daemon.start_again().unwrap();
    equal().await;
    assert_eq!(count().await, 37);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_of_time_is_polled_by_the_calendar_and_its_hashes_lie_with_the_daemons_data() {
    for family in [Family::MariaDb, Family::Mysql97] {
        let server = MysqlServer::shared(family);
        let db = server.database("pollwin").await.unwrap();
        let statements = "CREATE TABLE seen (id INT PRIMARY KEY, v TEXT, at DATETIME NOT NULL, KEY (at)); \
            INSERT INTO seen VALUES (1, 'long ago', UTC_TIMESTAMP() - INTERVAL 3 DAY), (2, 'now', UTC_TIMESTAMP()); \
            CREATE TABLE whole (id INT PRIMARY KEY, v TEXT); INSERT INTO whole VALUES (1, 'one')";
        server.sql(&db, statements).await.unwrap();
        let sink = Postgres::shared().database("pollwin").await.unwrap();
        let poll = "poll: {schedule: {cron: \"* * * * * *\"}, tables: {seen: {mode: sliding_window, column: at, lookback: 12h}, \
            whole: {schedule: {every: 1s, window: \"00:00-23:59\"}}}}";
        let config = DaemonConfig::new("pollwin")
            .source("shop", &server.url(&db), &[])
            .source_lines("shop", &["mode: poll", "heartbeat: 300ms", poll])
            .sink("pg", &sink, &[]);
        let daemon = Daemon::start_healthy(&config).await.unwrap();
        let client = &postgres::connect(&sink.url).await.unwrap();
        let holds = async |sql: &str, wanted: &str| {
            let holds = async || {
                let row = client.query_opt(sql, &[]).await.ok().flatten();
                Ok(row.is_some_and(|row| row.get::<_, Option<String>>(0).as_deref() == Some(wanted)))
            };
            patience::until(wanted, SOON, Duration::from_millis(100), holds).await.unwrap();
        };
        let seen = "SELECT string_agg(v, ',' ORDER BY id) FROM public.seen";
        holds(seen, "now").await;
        holds("SELECT string_agg(v, ',' ORDER BY id) FROM public.whole", "one").await;
        // What lies before the window is not read, whatever becomes of it; what comes into it is.
        let changes = "UPDATE seen SET v = 'changed' WHERE id = 1; UPDATE seen SET v = 'new' WHERE id = 2; \
            INSERT INTO seen VALUES (3, 'came', UTC_TIMESTAMP()); UPDATE whole SET v = 'two'";
        server.sql(&db, changes).await.unwrap();
        holds(seen, "new,came").await;
        holds("SELECT string_agg(v, ',' ORDER BY id) FROM public.whole", "two").await;
        server.sql(&db, "UPDATE seen SET at = UTC_TIMESTAMP() WHERE id = 1").await.unwrap();
        holds(seen, "changed,new,came").await;
        let hashes = std::fs::read_dir(daemon.data_dir().join("poll/shop")).unwrap().count();
        assert!(hashes > 0, "{}", daemon.log_tail());
    }
}
