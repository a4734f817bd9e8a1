//! What the daemon tells of itself in topics, read as whoever watches Kafka reads it: with ordinary consumers and tools.

use std::process::Command;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::kafka::{consume, produce};
use caudal_tests::patience::until;
use caudal_tests::ports::free_port;
use caudal_tests::{Daemon, DaemonConfig, Family, Kafka, MysqlServer, PgDatabase, Postgres, TablePair};
use mysql_async::prelude::Queryable;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(300);

/// The values of a topic, in order, each with its key in `_key`.
async fn values(daemon: &Daemon, topic: &str) -> Vec<Value> {
    let records = consume(daemon.brokers(), topic).await.unwrap_or_default();
    let keyed = |record: &caudal_tests::kafka::Consumed| {
        let mut value = record.json();
        value["_key"] = record.key().into();
        value
    };
    records.iter().map(keyed).collect()
}

/// Waits until a topic holds what `wanted` looks for; gives it.
pub(crate) async fn wait_for(
    daemon: &Daemon,
    topic: &str,
    what: &str,
    wanted: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let there = async || Ok(wanted(&values(daemon, topic).await));
    let waited = until(&format!("{what} in {topic}"), LIMIT, PAUSE, there).await;
    if let Err(error) = waited {
        let all = values(daemon, topic).await;
        panic!("{error:#}\n{all:#?}\n{}", daemon.log_tail());
    }
    values(daemon, topic).await
}

fn last<'a>(all: &'a [Value], key: &str) -> Option<&'a Value> {
    all.iter().rev().find(|value| value["_key"] == key)
}

/// The state of an alert, and its value.
fn alert(all: &[Value], id: &str) -> (String, f64) {
    let text = |value: &Value| value["state"].as_str().unwrap_or_default().to_owned();
    last(all, id).map_or_else(Default::default, |a| (text(a), a["value"].as_f64().unwrap_or_default()))
}

struct Scene {
    server: &'static MysqlServer,
    db: String,
    sink: PgDatabase,
    prefix: String,
}

impl Scene {
    async fn new(name: &str) -> Self {
        let server = MysqlServer::shared(Family::MariaDb);
        let db = server.database(name).await.unwrap();
        let rows: Vec<String> = (1..=300).map(|id| format!("({id}, 1)")).collect();
        let table = "CREATE TABLE items (id BIGINT PRIMARY KEY, n INT NOT NULL)";
        server.sql(&db, &format!("{table}; INSERT INTO items VALUES {}", rows.join(","))).await.unwrap();
        let sink = Postgres::shared().database(name).await.unwrap();
        Self { server, db, sink, prefix: format!("{name}{}", std::process::id()) }
    }

    fn topic(&self, name: &str) -> String {
        format!("caudal.{}.{name}", self.prefix)
    }

    async fn sql(&self, text: &str) {
        self.server.sql(&self.db, text).await.unwrap();
    }

    async fn equal(&self, daemon: &Daemon, sink: &PgDatabase) {
        let pairs = TablePair::all(&self.server.admin_url(&self.db), &self.db).await.unwrap();
        let equal = wait_equal(&pairs, &self.server.url(&self.db), &sink.url, LIMIT).await;
        equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    }
}

/// Often, so that a test need not wait.
const OFTEN: &str = "  monitoring: {interval: 1s}\n  properties: {statistics.interval.ms: \"500\"}";

#[tokio::test]
async fn runs_metrics_and_freshness_are_told_to_ordinary_consumers_and_tools() {
    let scene = Scene::new("told").await;
    let config = DaemonConfig::new(&scene.prefix)
        .brokers(&Kafka::shared().bootstrap())
        .source("shop", &scene.server.url(&scene.db), &[])
        .sink("dash", &scene.sink, &[])
        .kafka(OFTEN);
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    scene.equal(&daemon, &scene.sink).await;
    let table = format!("{}.items", scene.db);

    let done = |all: &[Value]| all.iter().any(|run| run["kind"] == "snapshot" && run["state"] == "done");
    let runs = wait_for(&daemon, &scene.topic("runs"), "the snapshot's end", done).await;
    let run = runs.iter().find(|run| run["state"] == "done").unwrap();
    assert_eq!((&run["pipeline"], &run["table"]), (&"capture/shop".into(), &table.as_str().into()));
    assert_eq!((&run["rows"], &run["v"]), (&300.into(), &1.into()), "{run}");
    assert!(run["ended_us"].as_i64() >= run["started_us"].as_i64() && run["took_ms"].is_u64(), "{run}");
    assert_eq!(run["_key"], run["id"]);
    // 300 rows of two numbers, 16 bytes each in memory, and what each event has beside.
    let bytes = run["bytes"].as_u64().unwrap_or_default();
    assert!((300 * 32..300 * 200).contains(&bytes), "{run}");

    // A comparison tells of itself where the daemon does.
    let binary = caudal_tests::daemon::binary().unwrap();
    let verified =
        Command::new(binary).args(["verify", "dash", "--config"]).arg(daemon.config_file()).output();
    assert!(verified.unwrap().status.success());
    let verified = |all: &[Value]| all.iter().any(|run| run["kind"] == "verify" && run["rows"] == 300);
    wait_for(&daemon, &scene.topic("runs"), "the comparison", verified).await;

    let counted = |all: &[Value]| {
        let events = |name: &str| last(all, name).map(|m| m["pipeline"]["events"].as_u64() >= Some(300));
        let client = |key: &str| last(all, key).is_some_and(|m| m["client"]["sent_bytes"].as_i64() > Some(0));
        [events("capture/shop"), events("sink/dash")] == [Some(true), Some(true)]
            && client(&format!("client/caudal-{}-shop-capture/producer", scene.prefix))
    };
    let metrics = wait_for(&daemon, &scene.topic("metrics"), "the counters", counted).await;
    let of_sink = &last(&metrics, "sink/dash").unwrap()["pipeline"];
    assert_eq!((&of_sink["state"], &of_sink["dead_letters"]), (&"running".into(), &0.into()), "{of_sink}");
    assert!(of_sink["lag_seconds"].is_number(), "{of_sink}");
    let exposed = daemon.get("/metrics").await.unwrap().1;
    for name in ["caudal_kafka_sent_bytes_total", "caudal_kafka_requests_total", "caudal_kafka_queued_bytes"]
    {
        let line = format!("{name}{{client=\"caudal-{}-shop-capture\",kind=\"producer\"}} ", scene.prefix);
        assert!(exposed.contains(&line), "{line} not in\n{exposed}");
    }
    let line = format!("caudal_kafka_broker_rtt_seconds{{client=\"caudal-{}-shop-capture\"", scene.prefix);
    assert!(exposed.contains(&line), "{exposed}");

    // The moment of a table moves with the source.
    let key = format!("dash/shop/{table}");
    let complete = |all: &[Value]| last(all, &key).and_then(|f| f["complete_to_us"].as_i64());
    let fresh =
        wait_for(&daemon, &scene.topic("freshness"), "the table", |all| complete(all).is_some()).await;
    let first = complete(&fresh);
    scene.sql("INSERT INTO items VALUES (1000, 1)").await;
    let fresh =
        wait_for(&daemon, &scene.topic("freshness"), "a later moment", |all| complete(all) > first).await;
    let whole = last(&fresh, "dash").unwrap();
    assert!(whole["complete_to_us"].is_i64() && whole["table"].is_null(), "{whole}");
    let of_table = last(&fresh, &key).unwrap();
    assert_eq!((&of_table["sink"], &of_table["source"]), (&"dash".into(), &"shop".into()), "{of_table}");

    // Kafka's own consumer reads it as it is.
    let runs = scene.topic("runs");
    let all = ["--topic", &runs, "--from-beginning", "--max-messages", "1", "--timeout-ms", "60000"];
    let console = kafka_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", daemon.brokers(), &all);
    assert!(console.contains(&format!("\"table\":\"{table}\"")), "{console}");
}

/// What one of Kafka's own tools prints.
fn kafka_tool(class: &str, brokers: &str, arguments: &[&str]) -> String {
    let get = caudal_tests::service::scripts().join("get-kafka");
    let dist = String::from_utf8(Command::new(get).output().unwrap().stdout).unwrap();
    let out = Command::new("java")
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &format!("{}/libs/*", dist.trim())])
        .args([class, "--bootstrap-server", brokers])
        .args(arguments)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A line of what `kafka-consumer-groups.sh --describe` prints, by the names of its columns.
fn described(text: &str) -> Vec<std::collections::HashMap<&str, &str>> {
    let mut lines = text.lines().map(str::split_whitespace).map(Iterator::collect::<Vec<_>>);
    let Some(names) = lines.find(|line| line.first() == Some(&"GROUP")) else { return Vec::new() };
    lines.map(|line| names.iter().copied().zip(line).collect()).collect()
}

#[tokio::test]
async fn kafkas_own_tool_shows_a_sinks_group_with_its_lag_and_whose_client_it_is() {
    let scene = Scene::new("group").await;
    let config = DaemonConfig::new(&scene.prefix)
        .source("shop", &scene.server.url(&scene.db), &[])
        .sink("dash", &scene.sink, &[])
        .extra("kafka:\n  client_id: ours");
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    scene.equal(&daemon, &scene.sink).await;
    let (group, data) =
        (format!("caudal.{}.dash", scene.prefix), format!("{}.{}.items", scene.prefix, scene.db));
    let client = format!("ours-{}-dash-group", scene.prefix);
    let mut text = String::new();
    // Offsets are published each second, and behind the sink's commits.
    for _ in 0..30 {
        let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        text = kafka_tool(class, daemon.brokers(), &["--describe", "--group", &group]);
        let lines = described(&text);
        let of_data = lines.iter().find(|line| line.get("TOPIC") == Some(&data.as_str()));
        let is_through = of_data.is_some_and(|line| {
            line["LAG"] == "0"
                && line["CURRENT-OFFSET"] == line["LOG-END-OFFSET"]
                && line["LOG-END-OFFSET"] != "0"
        });
        if is_through && lines.iter().any(|line| line.get("CLIENT-ID") == Some(&client.as_str())) {
            return;
        }
    }
    panic!("{text}\n{}", daemon.log_tail());
}

/// Whether an alert was told so, however it stands now.
pub(crate) fn was(all: &[Value], id: &str, state: &str) -> bool {
    all.iter().any(|alert| alert["_key"] == id && alert["state"] == state)
}

#[tokio::test]
async fn a_sink_that_lags_and_one_that_cannot_run_are_told_and_resolved() {
    let scene = Scene::new("slow").await;
    let away = Postgres::shared().database("slow_away").await.unwrap();
    // Nobody listens there yet.
    let (there, port) = (Postgres::shared().port(), free_port().unwrap());
    let by_way = PgDatabase { url: away.url.replace(&format!(":{there}/"), &format!(":{port}/")) };
    let config = DaemonConfig::new(&scene.prefix)
        .source("shop", &scene.server.url(&scene.db), &[])
        .sink("dash", &scene.sink, &["lock_timeout: 10m"])
        .sink("away", &by_way, &[])
        .extra("kafka:\n  monitoring: {interval: 1s, lag: 4s}");
    let daemon = Daemon::start(&config).unwrap();
    scene.equal(&daemon, &scene.sink).await;
    let mut holder = scene.sink.connect().await.unwrap();
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE").await.unwrap();
    scene.sql("UPDATE items SET n = n + 1").await;
    let (lag, idle) = ("sink/dash/lag", "sink/away/not_running");
    let alerts = scene.topic("alerts");
    let told = wait_for(&daemon, &alerts, "both alerts", |all| {
        was(all, idle, "open") && alert(all, lag).0 == "open" && alert(all, lag).1 >= 4.0
    })
    .await;
    let lagging = last(&told, lag).unwrap();
    assert_eq!((&lagging["kind"], &lagging["pipeline"]), (&"lag".into(), &"sink/dash".into()), "{lagging}");
    let idling = last(&told, idle).unwrap();
    assert_eq!(
        (&idling["severity"], &idling["pipeline"]),
        (&"critical".into(), &"sink/away".into()),
        "{idling}"
    );

    lock.rollback().await.unwrap();
    let door = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = door.accept().await {
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(("127.0.0.1", there)).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let over = |all: &[Value]| was(all, lag, "resolved") && was(all, idle, "resolved");
    wait_for(&daemon, &alerts, "the end of both", over).await;
    scene.equal(&daemon, &scene.sink).await;
    scene.equal(&daemon, &away).await;
}

#[tokio::test]
async fn alerts_are_raised_told_again_when_they_grow_and_resolved_also_over_a_restart() {
    let scene = Scene::new("alarmed").await;
    let strict = Postgres::shared().database("alarmed_strict").await.unwrap();
    let config = DaemonConfig::new(&scene.prefix)
        .source("shop", &scene.server.url(&scene.db), &[])
        .sink("dash", &scene.sink, &["on_reject: dead_letter"])
        .sink("strict", &strict, &["on_reject: park"])
        .extra("kafka:\n  monitoring: {interval: 1s}");
    let mut daemon = Daemon::start_healthy(&config).await.unwrap();
    scene.equal(&daemon, &scene.sink).await;
    scene.equal(&daemon, &strict).await;
    let alerts = scene.topic("alerts");
    assert!(values(&daemon, &alerts).await.is_empty());

    // A row that neither takes: one sink sets it aside, the other stands still. What comes after it in the same table comes through.
    for sink in [&scene.sink, &strict] {
        sink.sql("ALTER TABLE items ADD CONSTRAINT small CHECK (n < 100)").await.unwrap();
    }
    scene.sql("INSERT INTO items VALUES (2000, 500); INSERT INTO items VALUES (2001, 5)").await;
    let raised = wait_for(&daemon, &alerts, "both alerts", |all| {
        alert(all, "sink/dash/dead_letters") == ("open".into(), 1.0)
            && alert(all, "sink/strict/parked").0 == "open"
    })
    .await;
    let parked = last(&raised, "sink/strict/parked").unwrap();
    assert!(parked["message"].as_str().unwrap().contains("constraint small"), "{parked}");
    assert!(parked["hint"].as_str().unwrap().contains("on_reject: dead_letter"), "{parked}");
    assert_eq!((&parked["severity"], &parked["kind"]), (&"critical".into(), &"parked".into()));
    let letters = last(&raised, "sink/dash/dead_letters").unwrap();
    assert_eq!(
        (&letters["pipeline"], &letters["hint"]),
        (&"sink/dash".into(), &"caudal dlq dash list".into())
    );
    let row = async || {
        let client = scene.sink.connect().await?;
        Ok(!client.query("SELECT 1 FROM items WHERE id = 2001", &[]).await?.is_empty())
    };
    until("the row behind the poison row", LIMIT, PAUSE, row).await.unwrap();

    scene.sql("INSERT INTO items VALUES (2002, 600); INSERT INTO items VALUES (2003, 700)").await;
    wait_for(&daemon, &alerts, "the growth", |all| {
        alert(all, "sink/dash/dead_letters") == ("open".into(), 3.0)
    })
    .await;

    // What was wrong is mended while the daemon is away: it knows from the topic what to resolve.
    daemon.kill().unwrap();
    for sink in [&scene.sink, &strict] {
        sink.sql("ALTER TABLE items DROP CONSTRAINT small").await.unwrap();
    }
    daemon.start_again().unwrap();
    daemon.wait_healthy(LIMIT).await.unwrap();
    wait_for(&daemon, &alerts, "the end of parking", |all| alert(all, "sink/strict/parked").0 == "resolved")
        .await;
    let mut replay = Command::new(caudal_tests::daemon::binary().unwrap());
    replay.args(["dlq", "dash", "replay", "--all", "--config"]).arg(daemon.config_file());
    assert!(replay.status().unwrap().success());
    let told = wait_for(&daemon, &alerts, "the end of the letters", |all| {
        alert(all, "sink/dash/dead_letters").0 == "resolved"
    })
    .await;
    let opened = told.iter().filter(|a| a["_key"] == "sink/strict/parked" && a["state"] == "open").count();
    assert_eq!(opened, 1, "raised twice: {told:#?}");
    scene.equal(&daemon, &scene.sink).await;
}

#[tokio::test]
async fn a_table_that_is_set_aside_and_a_log_that_will_soon_be_purged_are_told_and_resolved() {
    // Without names in its log, a shape that came and went while nobody read is nowhere to be asked for. What is half as old as the log
    // may get is told.
    let options = ["--binlog-row-metadata=NO_LOG", "--binlog-expire-logs-seconds=8"];
    let server = MysqlServer::start(Family::MariaDb, &options).unwrap();
    let db = server.database("aside").await.unwrap();
    let tables = "CREATE TABLE t (id INT PRIMARY KEY, a INT); INSERT INTO t VALUES (1, 11); \
                  CREATE TABLE bulk (id INT PRIMARY KEY, s VARCHAR(200) NOT NULL); INSERT INTO bulk VALUES (-1, 0)";
    server.sql(&db, tables).await.unwrap();
    let sink = Postgres::shared().database("aside").await.unwrap();
    let prefix = format!("aside{}", std::process::id());
    let config = DaemonConfig::new(&prefix)
        .source("shop", &server.url(&db), &[])
        .sink("dash", &sink, &[])
        .extra("kafka:\n  monitoring: {interval: 1s}");
    let mut daemon = Daemon::start_healthy(&config).await.unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    wait_equal(&pairs, &server.url(&db), &sink.url, LIMIT).await.unwrap();
    daemon.kill().unwrap();
    server
        .sql(
            &db,
            "ALTER TABLE t ADD wide VARCHAR(300), MODIFY a BIGINT; INSERT INTO t VALUES (4, 14, 'wide'); \
             ALTER TABLE t DROP COLUMN wide, MODIFY a VARCHAR(20), ADD z DECIMAL(5,2)",
        )
        .await
        .unwrap();
    for from in (0..500_000).step_by(10_000) {
        let rows: Vec<String> = (from..from + 10_000).map(|id| format!("({id}, REPEAT('x', 150))")).collect();
        server.sql(&db, &format!("INSERT INTO bulk VALUES {}", rows.join(","))).await.unwrap();
    }
    // Old enough to be told, and the table that is set aside stays so until it can be read.
    let mut holder = server.admin(&db).await.unwrap();
    holder.query_drop("LOCK TABLES t WRITE").await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    daemon.start_again().unwrap();
    let alerts = format!("caudal.{prefix}.alerts");
    let aside = format!("capture/shop/table_set_aside/{db}.t");
    let purge = "capture/shop/binlog_purge";
    let told =
        wait_for(&daemon, &alerts, "both alerts", |all| was(all, &aside, "open") && was(all, purge, "open"))
            .await;
    let open = |id: &str| told.iter().find(|alert| alert["_key"] == id).unwrap();
    assert_eq!(open(&aside)["table"], format!("{db}.t"), "{told:#?}");
    assert_eq!(
        (&open(&aside)["severity"], &open(purge)["severity"]),
        (&"critical".into(), &"critical".into())
    );
    let hint = open(purge)["hint"].as_str().unwrap();
    assert!(hint.contains("binlog_expire_logs_seconds"), "{hint}");

    holder.query_drop("UNLOCK TABLES").await.unwrap();
    let over = |all: &[Value]| was(all, &aside, "resolved") && was(all, purge, "resolved");
    wait_for(&daemon, &alerts, "the end of both", over).await;
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, LIMIT).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

/// `<aggregate> <type>` of each notification about a snapshot.
fn kinds(all: &[Value], aggregate: &str, id: Option<&str>) -> Vec<String> {
    let meant = |n: &&Value| n["aggregate_type"] == aggregate && id.is_none_or(|id| n["id"] == id);
    all.iter().filter(meant).map(|n| n["type"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn debeziums_signals_are_taken_from_any_producer_and_its_notifications_tell_what_became_of_them() {
    let scene = Scene::new("signalled").await;
    let config = DaemonConfig::new(&scene.prefix)
        .source("shop", &scene.server.url(&scene.db), &[])
        .sink("dash", &scene.sink, &[])
        .extra("kafka:\n  notifications: {enabled: true}");
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    scene.equal(&daemon, &scene.sink).await;
    let topic = format!("{}.notifications", scene.prefix);
    let table = format!("{}.items", scene.db);
    let initial = ["STARTED", "IN_PROGRESS", "TABLE_SCAN_COMPLETED", "COMPLETED"];
    let told =
        wait_for(&daemon, &topic, "the snapshot", |all| kinds(all, "Initial Snapshot", None) == initial)
            .await;
    let scanned = told.iter().find(|n| n["type"] == "TABLE_SCAN_COMPLETED").unwrap();
    let about = &scanned["additional_data"];
    assert_eq!(about["connector_name"], scene.prefix.as_str(), "{scanned}");
    assert_eq!(
        (&about["scanned_collection"], &about["total_rows_scanned"]),
        (&table.as_str().into(), &"300".into())
    );
    assert_eq!(scanned["_key"], format!("{{\"id\":\"{}\"}}", scanned["id"].as_str().unwrap()));

    // As Debezium's users send them: by the topics' prefix, types in any case, data as JSON or as a text of it.
    let signals = scene.topic("signals");
    let send = async |value: Value| {
        produce(daemon.brokers(), &signals, &scene.prefix, &value.to_string()).await.unwrap();
    };
    let execute = |id: &str, kind: &str| serde_json::json!({"id": id, "type": "execute-snapshot", "data": {"data-collections": [table], "type": kind}});
    send(execute("one", "INCREMENTAL")).await;
    let whole =
        |all: &[Value], id: &str, wanted: &[&str]| kinds(all, "Incremental Snapshot", Some(id)) == wanted;
    wait_for(&daemon, &topic, "a re-read", |all| whole(all, "one", &initial)).await;

    send(serde_json::json!({"id": "p", "type": "pause-snapshot", "data": {"type": "incremental"}})).await;
    send(execute("two", "blocking")).await;
    let paused = ["STARTED", "PAUSED"];
    wait_for(&daemon, &topic, "a pause", |all| whole(all, "two", &paused)).await;
    send(serde_json::json!({"id": "r", "type": "resume-snapshot", "data": "{\"type\": \"INCREMENTAL\"}"}))
        .await;
    let resumed = ["STARTED", "PAUSED", "RESUMED", "IN_PROGRESS", "TABLE_SCAN_COMPLETED", "COMPLETED"];
    wait_for(&daemon, &topic, "its end", |all| whole(all, "two", &resumed)).await;

    send(serde_json::json!({"id": "p", "type": "pause-snapshot"})).await;
    send(execute("three", "incremental")).await;
    wait_for(&daemon, &topic, "another pause", |all| whole(all, "three", &paused)).await;
    send(serde_json::json!({"id": "s", "type": "stop-snapshot", "data": {"data-collections": [table], "type": "incremental"}})).await;
    wait_for(&daemon, &topic, "the stop", |all| {
        kinds(all, "Incremental Snapshot", Some("three")).last().is_some_and(|kind| kind == "ABORTED")
    })
    .await;
    send(serde_json::json!({"id": "l", "type": "log", "data": {"message": "heard at {}"}})).await;
    daemon.wait_log("heard at ", LIMIT).await.unwrap();
    let runs = values(&daemon, &scene.topic("runs")).await;
    let of = |id: &str| runs.iter().rev().find(|run| run["command"] == id).map(|run| run["state"].clone());
    assert_eq!([of("one"), of("two")], [Some("done".into()), Some("done".into())], "{runs:#?}");
}

/// What `caudal check` prints.
fn checked(daemon: &Daemon) -> String {
    let mut check = Command::new(caudal_tests::daemon::binary().unwrap());
    check.args(["check", "--config"]).arg(daemon.config_file());
    String::from_utf8(check.output().unwrap().stdout).unwrap()
}

#[tokio::test]
async fn rows_of_a_table_in_the_source_are_commands_and_none_is_taken_twice_over_a_crash() {
    let scene = Scene::new("inserted").await;
    scene.sql("CREATE TABLE asks (id VARCHAR(42) PRIMARY KEY, type VARCHAR(32) NOT NULL)").await;
    // One that was there before the source was read is none.
    scene.sql("INSERT INTO asks VALUES ('early', 'pause-snapshot')").await;
    let config = DaemonConfig::new(&scene.prefix)
        .source("shop", &scene.server.url(&scene.db), &["items"])
        .source_line("shop", "signal_table: asks")
        .sink("dash", &scene.sink, &[])
        .extra("kafka:\n  notifications: {enabled: true}");
    let mut daemon = Daemon::start_healthy(&config).await.unwrap();
    let told = checked(&daemon);
    assert!(told.contains("has not the columns `id`, `type`, `data`"), "{told}");
    assert!(told.contains(&format!("GRANT SELECT ON `{}`.`asks` TO", scene.db)), "{told}");
    scene.sql("ALTER TABLE asks ADD data VARCHAR(2048)").await;
    let told = checked(&daemon);
    assert!(told.contains("rows inserted there are commands"), "{told}");
    scene.equal(&daemon, &scene.sink).await;
    let topic = format!("{}.notifications", scene.prefix);
    let about = format!(r#"{{"data-collections": ["{}.items"], "type": "incremental"}}"#, scene.db);
    let ask = async |id: &str, kind: &str| {
        scene.sql(&format!("INSERT INTO asks VALUES ('{id}', '{kind}', '{about}')")).await;
    };
    let of = |all: &[Value], id: &str| kinds(all, "Incremental Snapshot", Some(id));
    let whole = ["STARTED", "IN_PROGRESS", "TABLE_SCAN_COMPLETED", "COMPLETED"];
    ask("one", "execute-snapshot").await;
    wait_for(&daemon, &topic, "a re-read", |all| of(all, "one") == whole).await;
    // Neither a change of the row nor its end is a command, nor is one of a transaction that is rolled back.
    scene
        .sql("UPDATE asks SET data = CONCAT(data, ' ') WHERE id = 'one'; DELETE FROM asks WHERE id = 'one'")
        .await;
    scene
        .sql(&format!("BEGIN; INSERT INTO asks VALUES ('never', 'execute-snapshot', '{about}'); ROLLBACK"))
        .await;
    scene.sql("INSERT INTO asks VALUES ('p', 'pause-snapshot', NULL)").await;
    ask("two", "execute-snapshot").await;
    wait_for(&daemon, &topic, "a pause", |all| of(all, "two") == ["STARTED", "PAUSED"]).await;

    daemon.kill().unwrap();
    daemon.start_again().unwrap();
    daemon.wait_healthy(LIMIT).await.unwrap();
    ask("s", "stop-snapshot").await;
    let runs = scene.topic("runs");
    let state = |all: &[Value], id: &str, state: &str| {
        all.iter().filter(|run| run["command"] == id && run["state"] == state).count()
    };
    wait_for(&daemon, &runs, "the stop", |all| state(all, "two", "stopped") > 0).await;
    scene.sql("INSERT INTO asks VALUES ('r', 'resume-snapshot', '')").await;
    scene.sql(r#"INSERT INTO asks VALUES ('l', 'log', '{"message": "heard at {}"}')"#).await;
    daemon.wait_log("heard at ", LIMIT).await.unwrap();
    ask("three", "execute-snapshot").await;
    let told = wait_for(&daemon, &runs, "another re-read", |all| state(all, "three", "done") > 0).await;
    assert_eq!((state(&told, "one", "done"), state(&told, "two", "done")), (1, 0), "{told:#?}");
    assert!(told.iter().all(|run| run["command"] != "never" && run["command"] != "early"), "{told:#?}");
    scene.equal(&daemon, &scene.sink).await;
}
