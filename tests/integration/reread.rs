//! `caudal snapshot` on a running daemon, through the log and into the sink; tables that are added to a running configuration.

use std::process::Output;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, PgDatabase, Postgres, TablePair, patience};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(180);

/// Runs a verb beside the daemon.
async fn caudal(daemon: &Daemon, arguments: &[&str]) -> Output {
    let binary = caudal_tests::daemon::binary().unwrap();
    let mut command = tokio::process::Command::new("timeout");
    command.arg("300").arg(binary).args(arguments).arg("--config").arg(daemon.config_file());
    command.output().await.unwrap()
}

async fn unlogged(server: &MysqlServer, db: &str, statements: &str) {
    server.sql(db, &format!("SET SESSION sql_log_bin = 0; {statements}")).await.unwrap();
}

async fn repairs(family: Family, name: &str) {
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let rows: Vec<String> = (1..=2_000).map(|id| format!("({id}, 'name {id}')")).collect();
    let table = "CREATE TABLE items (id BIGINT PRIMARY KEY, name TEXT)";
    server.sql(&db, &format!("{table}; INSERT INTO items VALUES {}", rows.join(","))).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let config = DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .sink("dash", &sink, &["consistency: transaction"]);
    let daemon = Daemon::start(&config).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = async || wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
    equal().await;
    unlogged(server, &db, "DELETE FROM items WHERE id <= 50; UPDATE items SET name = 'x' WHERE id > 1990")
        .await;
    let done = caudal(&daemon, &["snapshot", "shop", "items", "--output", "json"]).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said} {}", String::from_utf8_lossy(&done.stderr));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let table = &said["tables"][0];
    assert_eq!((&table["deleted"], &table["delivered"]), (&50.into(), &10.into()), "{said}");
    equal().await;
    // The one that was deleted and the one that changed since, by a condition.
    unlogged(server, &db, "UPDATE items SET name = 'y' WHERE id IN (100, 200)").await;
    let done = caudal(&daemon, &["snapshot", "shop", "items", "--where", "id < 150"]).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("1 delivered, 0 deleted"), "{said}");
    let wrong = caudal(&daemon, &["snapshot", "shop", "nothing"]).await;
    assert_eq!(wrong.status.code(), Some(1));
    let none = caudal(&daemon, &["snapshot", "nobody", "items"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("there are: shop"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_repairs_what_no_log_shows_mariadb() {
    repairs(Family::MariaDb, "reread_mariadb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_repairs_what_no_log_shows_mysql() {
    repairs(Family::Mysql97, "reread_mysql").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_added_is_read_while_the_others_stream_on() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("reread_added").await.unwrap();
    let rows: Vec<String> = (1..=500).map(|id| format!("({id})")).collect();
    let rows = rows.join(",");
    server
        .sql(&db, &format!("CREATE TABLE a (id BIGINT PRIMARY KEY); CREATE TABLE b (id BIGINT PRIMARY KEY); INSERT INTO a VALUES {rows}; INSERT INTO b VALUES {rows}"))
        .await
        .unwrap();
    let sink = Postgres::shared().database("reread_added").await.unwrap();
    let base = DaemonConfig::new(&format!("added{}", std::process::id()));
    let with = |tables: &[&str]| {
        base.clone().source("shop", &server.url(&db), tables).sink(
            "dash",
            &sink,
            &["consistency: transaction"],
        )
    };
    let mut daemon = Daemon::start(&with(&["a"])).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let (a, b): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|p| p.table == "a");
    assert_eq!((a.len(), b.len()), (1, 1));
    wait_equal(&a, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
    daemon.terminate(Duration::from_secs(30)).await.unwrap();
    server
        .sql(&db, "DELETE FROM a WHERE id < 10; INSERT INTO b VALUES (1000); DELETE FROM b WHERE id = 3")
        .await
        .unwrap();
    daemon.reconfigure(&with(&["a", "b"])).unwrap();
    daemon.start_again().unwrap();
    server.sql(&db, "INSERT INTO a VALUES (2000); UPDATE b SET id = 4000 WHERE id = 4").await.unwrap();
    wait_equal(&a, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
    wait_equal(&b, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
}

/// What is being read of the source `shop`, as `/status` shows it: the phase of each table, by the command's id.
async fn phases(daemon: &Daemon) -> Vec<(String, String)> {
    let Ok((_, body)) = daemon.get("/status").await else { return Vec::new() };
    let all: Value = serde_json::from_str(&body).unwrap_or_default();
    let pipelines = all["pipelines"].as_array().cloned().unwrap_or_default();
    let reading = pipelines.iter().find(|p| p["name"] == "capture/shop").map(|p| p["reading"].clone());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |r: &Value| (text(&r["id"]), text(&r["phase"]));
    reading.and_then(|r| r.as_array().map(|r| r.iter().map(one).collect())).unwrap_or_default()
}

async fn wait_phase(daemon: &Daemon, id: &str, phase: &str) {
    let seen = async || Ok(phases(daemon).await.contains(&(id.to_owned(), phase.to_owned())));
    patience::until(&format!("{id} to be {phase}"), PATIENCE, Duration::from_millis(50), seen)
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

/// Sends a command and does not wait for what it does; gives its id.
async fn send(daemon: &Daemon, arguments: &[&str]) -> String {
    let arguments: Vec<&str> = ["snapshot", "shop"].iter().chain(arguments).copied().collect();
    let sent = caudal(daemon, &[&arguments[..], &["--output", "json"]].concat()).await;
    let said = String::from_utf8_lossy(&sent.stdout).into_owned();
    assert_eq!(sent.status.code(), Some(0), "{said} {}", String::from_utf8_lossy(&sent.stderr));
    let said: Value = serde_json::from_str(&said).unwrap();
    said["id"].as_str().unwrap().to_owned()
}

/// Waits until the stream has brought what is written now.
async fn stream_on(server: &MysqlServer, db: &str, sink: &PgDatabase, number: i64) {
    server.sql(db, &format!("INSERT INTO marker VALUES ({number})")).await.unwrap();
    let client = &sink.connect().await.unwrap();
    let there = move || async move {
        let sql = "SELECT 1 FROM public.marker WHERE id = $1";
        Ok(client.query_opt(sql, &[&number]).await.is_ok_and(|row| row.is_some()))
    };
    patience::until("the stream to go on", PATIENCE, Duration::from_millis(50), there).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_is_paused_over_a_restart_goes_on_and_is_given_up_while_the_stream_goes_on() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("reread_paused").await.unwrap();
    let rows: Vec<String> = (1..=300).map(|id| format!("({id}, 'name {id}')")).collect();
    let tables =
        "CREATE TABLE items (id BIGINT PRIMARY KEY, name TEXT); CREATE TABLE marker (id BIGINT PRIMARY KEY)";
    server
        .sql(
            &db,
            &format!("{tables}; INSERT INTO marker VALUES (0); INSERT INTO items VALUES {}", rows.join(",")),
        )
        .await
        .unwrap();
    let sink = Postgres::shared().database("reread_paused").await.unwrap();
    let config = DaemonConfig::new(&format!("paused{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .sink("dash", &sink, &["consistency: transaction"]);
    let mut daemon = Daemon::start_healthy(&config).await.unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = async || wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
    equal().await;
    let name = async |id: i64| {
        let client = sink.connect().await.unwrap();
        let row = client.query_one("SELECT name FROM public.items WHERE id = $1", &[&id]).await.unwrap();
        row.get::<_, String>(0)
    };

    send(&daemon, &["--pause"]).await;
    unlogged(server, &db, "UPDATE items SET name = 'changed' WHERE id = 7").await;
    let first = send(&daemon, &["items", "--detach"]).await;
    wait_phase(&daemon, &first, "paused").await;
    stream_on(server, &db, &sink, 1).await;
    assert_eq!(name(7).await, "name 7", "nothing is read while reading is paused");
    // Both the pause and what it holds up are stored.
    assert!(daemon.terminate(PATIENCE).await.unwrap().success());
    daemon.start_again().unwrap();
    daemon.wait_healthy(PATIENCE).await.unwrap();
    wait_phase(&daemon, &first, "paused").await;
    stream_on(server, &db, &sink, 2).await;
    assert_eq!(name(7).await, "name 7", "nothing is read while reading is paused");
    send(&daemon, &["--resume"]).await;
    wait_phase(&daemon, &first, "done").await;
    equal().await;

    // Given up before it began, it repairs nothing; the next one does.
    send(&daemon, &["--pause"]).await;
    unlogged(server, &db, "UPDATE items SET name = 'changed' WHERE id = 8").await;
    let second = send(&daemon, &["items", "--detach"]).await;
    wait_phase(&daemon, &second, "paused").await;
    send(&daemon, &["items", "--stop"]).await;
    wait_phase(&daemon, &second, "stopped").await;
    send(&daemon, &["--resume"]).await;
    let other = send(&daemon, &["marker", "--detach"]).await;
    wait_phase(&daemon, &other, "done").await;
    stream_on(server, &db, &sink, 3).await;
    assert_eq!(name(8).await, "name 8", "what was given up is not read");
    let third = send(&daemon, &["items", "--detach"]).await;
    wait_phase(&daemon, &third, "done").await;
    equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_source_is_not_read_until_it_is_at_rest() {
    // A server of its own: its load is what is measured.
    let server = MysqlServer::start(Family::MariaDb, &[]).unwrap();
    let db = server.database("busy").await.unwrap();
    server
        .sql(&db, "CREATE TABLE items (id BIGINT PRIMARY KEY); INSERT INTO items VALUES (1), (2), (3)")
        .await
        .unwrap();
    let sink = Postgres::shared().database("busy").await.unwrap();
    let mut busy = Vec::new();
    for _ in 0..12 {
        let mut conn = server.admin(&db).await.unwrap();
        busy.push(tokio::spawn(async move {
            let _ = mysql_async::prelude::Queryable::query_drop(&mut conn, "SELECT SLEEP(600)").await;
        }));
    }
    let config = DaemonConfig::new("busy")
        .source("shop", &server.url(&db), &[])
        .source_lines("shop", &["snapshot: {max_threads_running: 8}"])
        .sink("dash", &sink, &[]);
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    wait_phase(&daemon, "", "throttled").await;
    // It is asked once a second; so it was found busy more than once.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(phases(&daemon).await.iter().all(|(_, phase)| phase == "throttled"), "{}", daemon.log_tail());
    }
    let kill = "SELECT GROUP_CONCAT(CONCAT('KILL ', id) SEPARATOR ';') FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
    let mut conn = server.admin(&db).await.unwrap();
    let statements: Option<Option<String>> =
        mysql_async::prelude::Queryable::query_first(&mut conn, kill).await.unwrap();
    server.sql(&db, &statements.flatten().unwrap()).await.unwrap();
    for sleeper in busy {
        sleeper.await.unwrap();
    }
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
}

/// What the re-read with this id has read so far.
async fn rows_read(daemon: &Daemon, id: &str) -> u64 {
    let Ok((_, body)) = daemon.get("/status").await else { return 0 };
    let all: Value = serde_json::from_str(&body).unwrap_or_default();
    let pipelines = all["pipelines"].as_array().cloned().unwrap_or_default();
    let reading = pipelines.iter().flat_map(|p| p["reading"].as_array().cloned().unwrap_or_default());
    reading.filter(|r| r["id"] == id).filter_map(|r| r["rows"].as_u64()).max().unwrap_or(0)
}

/// A daemon that is killed, or stopped, in the middle of a re-read goes on with the chunks that are left.
async fn goes_on(family: Family, name: &str, kill: bool) {
    const ROWS: u32 = 40_000;
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let tables = "CREATE TABLE items (id INT PRIMARY KEY, name VARCHAR(40)); CREATE TABLE marker (id BIGINT PRIMARY KEY)";
    server.sql(&db, &format!("{tables}; INSERT INTO marker VALUES (0)")).await.unwrap();
    for start in (0..ROWS).step_by(10_000) {
        let rows: Vec<String> = (start..start + 10_000).map(|id| format!("({id}, 'old')")).collect();
        server.sql(&db, &format!("INSERT INTO items VALUES {}", rows.join(","))).await.unwrap();
    }
    let sink = Postgres::shared().database(name).await.unwrap();
    let config = DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .source_lines("shop", &["snapshot: {readers: 1, chunk_rows: 100}"])
        .sink("dash", &sink, &["consistency: transaction"]);
    let mut daemon = Daemon::start_healthy(&config).await.unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = async || wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
    equal().await;
    let far = ROWS - 10;
    unlogged(server, &db, &format!("DELETE FROM items WHERE id < 10 OR id >= {far}")).await;
    let id = send(&daemon, &["items", "--detach"]).await;
    let begun = async || Ok(rows_read(&daemon, &id).await >= 500);
    patience::until("some chunks to be read", PATIENCE, Duration::from_millis(5), begun).await.unwrap();
    // No further chunk is read: what was is stored meanwhile.
    let mut holder = server.admin(&db).await.unwrap();
    mysql_async::prelude::Queryable::query_drop(&mut holder, "LOCK TABLES items WRITE").await.unwrap();
    // What comes to the sink behind them shows that those before are stored.
    stream_on(server, &db, &sink, 1).await;
    let before = rows_read(&daemon, &id).await;
    assert!(before < u64::from(far), "the re-read was over before it was cut off: {before}");
    if kill {
        daemon.kill().unwrap();
    } else {
        assert!(daemon.terminate(PATIENCE).await.unwrap().success());
    }
    mysql_async::prelude::Queryable::query_drop(&mut holder, "UNLOCK TABLES").await.unwrap();
    drop(holder);
    // The first would come if a chunk that is done were read again; the second must come.
    let late = far - 10;
    unlogged(server, &db, &format!("UPDATE items SET name = 'late' WHERE id IN (100, {late})")).await;
    server
        .sql(
            &db,
            &format!("DELETE FROM items WHERE id IN (200, {late} - 1); INSERT INTO items VALUES (5, 'new')"),
        )
        .await
        .unwrap();
    daemon.start_again().unwrap();
    daemon.wait_healthy(PATIENCE).await.unwrap();
    wait_phase(&daemon, &id, "done").await;
    let name = async |id: u32| {
        let client = sink.connect().await.unwrap();
        let row =
            client.query_one("SELECT name FROM public.items WHERE id = $1", &[&(id as i32)]).await.unwrap();
        row.get::<_, String>(0)
    };
    stream_on(server, &db, &sink, 2).await;
    assert_eq!((name(100).await, name(late).await), ("old".to_owned(), "late".to_owned()));
    server.sql(&db, "UPDATE items SET name = 'logged' WHERE id = 100").await.unwrap();
    equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_of_mariadb_goes_on_after_a_kill_with_the_chunks_that_are_left() {
    goes_on(Family::MariaDb, "reread_killed_m", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_of_mysql_goes_on_after_a_kill_with_the_chunks_that_are_left() {
    goes_on(Family::Mysql97, "reread_killed", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_goes_on_after_a_restart_with_the_chunks_that_are_left() {
    goes_on(Family::MariaDb, "reread_stopped", false).await;
}
