//! Avro and Protobuf under a real schema registry: rows reach the sink, subjects and versions are what readers expect, and a registry
//! that refuses, is away or asks for a password loses nothing.

use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::kafka::consume;
use caudal_tests::patience::until;
use caudal_tests::{
    Daemon, DaemonConfig, Family, MysqlServer, PgDatabase, Postgres, SchemaRegistry, TablePair,
};

const LIMIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

const ROWS: &str = "CREATE TABLE t (id INT PRIMARY KEY, u BIGINT UNSIGNED, f TINYINT(1), d DECIMAL(12,3), x DOUBLE, r FLOAT, v VARCHAR(20), b VARBINARY(9), \
     ts TIMESTAMP(3) NULL, dt DATETIME(6), da DATE, ti TIME(6), y YEAR, e ENUM('a','b'), s SET('x','y'), bi BIT(9), g POINT, j JSON); \
     INSERT INTO t VALUES (1, 18446744073709551615, 1, -1.5, 1e300, -0.5, '🦫', X'00FF', '2026-02-03 04:05:06.7', '2026-02-03 04:05:06.000007', \
       '2026-02-03', '-01:02:03.5', 2026, 'b', 'x,y', b'100000001', ST_GeomFromText('POINT(1 -2)'), '[1]'), \
     (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), \
     (3, 1, 0, 0, 0, 0, '', X'', NULL, NULL, '1000-01-01', '00:00:00', 1901, 'a', '', b'0', NULL, '{}'); \
     CREATE TABLE keyless (a INT, v VARCHAR(9)); INSERT INTO keyless VALUES (1, 'x'), (NULL, NULL)";

/// A source with rows, a sink, and the configuration between them.
struct Scene {
    server: &'static MysqlServer,
    db: String,
    sink: PgDatabase,
    prefix: String,
    format: &'static str,
}

impl Scene {
    async fn new(name: &str, format: &'static str, rows: &str) -> Self {
        let server = MysqlServer::shared(Family::MariaDb);
        let name = format!("{name}_{format}");
        let db = server.database(&name).await.unwrap();
        server.sql(&db, rows).await.unwrap();
        let sink = Postgres::shared().database(&name).await.unwrap();
        Self { server, db, sink, prefix: format!("{name}{}", std::process::id()), format }
    }

    fn config(&self, registry: &str) -> DaemonConfig {
        let format = self.format;
        DaemonConfig::new(&self.prefix)
            .source("all", &self.server.url(&self.db), &[])
            .sink("pg", &self.sink, &[])
            .extra(&format!("kafka:\n  format: {format}\n  registry: {registry}"))
    }

    fn subject(&self, table: &str, part: &str) -> String {
        format!("{}.{}.{table}-{part}", self.prefix, self.db)
    }

    async fn sql(&self, text: &str) {
        self.server.sql(&self.db, text).await.unwrap();
    }

    async fn equal(&self, daemon: &Daemon) {
        let pairs = TablePair::all(&self.server.admin_url(&self.db), &self.db).await.unwrap();
        let equal = wait_equal(&pairs, &self.server.url(&self.db), &self.sink.url, LIMIT).await;
        equal.unwrap_or_else(|e| panic!("{}: {e:#}\n{}", self.format, daemon.log_tail()));
    }
}

fn at(url: &str) -> String {
    format!("{{url: \"{url}\"}}")
}

/// Rows by snapshot and by stream, with a column that comes and one that goes.
async fn rows_come_through(format: &'static str) {
    let registry = SchemaRegistry::shared();
    let scene = Scene::new("registered", format, ROWS).await;
    let daemon = Daemon::start_healthy(&scene.config(&at(&registry.url()))).await.unwrap();
    scene.equal(&daemon).await;
    scene
        .sql("UPDATE t SET v = 'new' WHERE id = 1; UPDATE t SET id = 9 WHERE id = 2; DELETE FROM t WHERE id = 3; \
              UPDATE keyless SET v = 'y' WHERE a = 1; ALTER TABLE t ADD COLUMN n BIGINT AFTER id; INSERT INTO t (id, n) VALUES (30, -7); \
              ALTER TABLE t DROP COLUMN x; INSERT INTO t (id, n, v) VALUES (31, NULL, 'z')")
        .await;
    scene.equal(&daemon).await;

    // The subjects are those of Confluent's TopicNameStrategy; a table without a key has none for keys.
    let versions = |table, part| registry.versions(&scene.subject(table, part)).unwrap();
    assert_eq!([versions("t", "key"), versions("t", "value")], [1, 3], "{format}");
    assert_eq!([versions("keyless", "key"), versions("keyless", "value")], [0, 1], "{format}");
    let (_, schema) =
        registry.ask("GET", &format!("/subjects/{}/versions/3", scene.subject("t", "value")), "").unwrap();
    let kind = schema["schemaType"].as_str().unwrap_or("AVRO");
    assert_eq!(kind, format.to_uppercase(), "{schema}");
    // Each record is framed with the number of a schema that the registry knows.
    let records = consume(daemon.brokers(), &format!("{}.{}.t", scene.prefix, scene.db)).await.unwrap();
    for record in &records {
        for part in [&record.key, &record.value].into_iter().flatten() {
            assert_eq!(part[0], 0, "{format}: {part:?}");
            let id = u32::from_be_bytes([part[1], part[2], part[3], part[4]]);
            assert_eq!(registry.ask("GET", &format!("/schemas/ids/{id}"), "").unwrap().0, 200, "{format}");
        }
    }
    assert!(records.iter().any(|record| record.value.is_none()), "{format}: a tombstone");
}

#[tokio::test]
async fn rows_in_avro_reach_the_sink_under_subjects_and_versions_of_a_registry() {
    rows_come_through("avro").await;
}

#[tokio::test]
async fn rows_in_protobuf_reach_the_sink_under_subjects_and_versions_of_a_registry() {
    rows_come_through("protobuf").await;
}

/// A change of a table that the registry's rule forbids.
async fn a_refusal_parks(format: &'static str) {
    let registry = SchemaRegistry::shared();
    let rows = "CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1)";
    let scene = Scene::new("refused", format, rows).await;
    let mut daemon = Daemon::start_healthy(&scene.config(&at(&registry.url()))).await.unwrap();
    scene.equal(&daemon).await;
    let subject = scene.subject("t", "value");
    let rule = |level: &str| {
        let body = format!("{{\"compatibility\":\"{level}\"}}");
        let (code, answer) = registry.ask("PUT", &format!("/config/{subject}"), &body).unwrap();
        assert_eq!(code, 200, "{answer}");
    };
    rule("BACKWARD");
    scene.sql("INSERT INTO t VALUES (2, 2); ALTER TABLE t MODIFY v VARCHAR(9); INSERT INTO t VALUES (3, 'three')").await;
    let said = format!("refuses the new schema of subject {subject} as incompatible");
    daemon.wait_log(&said, LIMIT).await.unwrap();
    daemon.wait_log("parked until that is mended", LIMIT).await.unwrap();
    let (code, health) = daemon.get("/health").await.unwrap();
    assert_eq!(code, 503, "{health}");
    for told in [&said, &format!("PUT /config/{subject}")] {
        assert!(health.contains(told.as_str()), "{told} not in {health}");
    }
    assert_eq!(registry.versions(&subject).unwrap(), 1);
    // Loosened, all goes on where it stood. It looks by itself every minute; a restart looks at once.
    rule("NONE");
    daemon.kill().unwrap();
    daemon.start_again().unwrap();
    scene.equal(&daemon).await;
    assert_eq!(registry.versions(&subject).unwrap(), 2);
}

#[tokio::test]
async fn a_change_that_the_registry_refuses_parks_the_capture_with_subject_reason_and_what_to_do_avro() {
    a_refusal_parks("avro").await;
}

#[tokio::test]
async fn a_change_that_the_registry_refuses_parks_the_capture_with_subject_reason_and_what_to_do_protobuf() {
    a_refusal_parks("protobuf").await;
}

#[tokio::test]
async fn a_registry_that_is_away_at_the_start_and_midway_is_waited_for_and_nothing_is_lost() {
    let registry = SchemaRegistry::start().unwrap();
    let rows = "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1), (2)";
    let scene = Scene::new("away", "protobuf", rows).await;
    registry.service().stop(false).unwrap();
    let daemon = Daemon::start(&scene.config(&at(&registry.url()))).unwrap();
    daemon.wait_log("is the schema registry reachable at", LIMIT).await.unwrap();
    daemon.wait_log("trying again", LIMIT).await.unwrap();
    registry.service().start_again().unwrap();
    scene.equal(&daemon).await;

    // What is registered needs no registry; what is new waits for it.
    registry.service().stop(true).unwrap();
    scene.sql("INSERT INTO t VALUES (3)").await;
    scene.equal(&daemon).await;
    let before = daemon.log().matches("trying again").count();
    scene
        .sql("CREATE TABLE u (id INT PRIMARY KEY); INSERT INTO u VALUES (1); INSERT INTO t VALUES (4)")
        .await;
    let waits = async || Ok(daemon.log().matches("trying again").count() > before);
    until("the capture waits for the registry", LIMIT, PAUSE, waits).await.unwrap();
    scene.sql("UPDATE u SET id = 5; DELETE FROM t WHERE id = 1").await;
    registry.service().start_again().unwrap();
    scene.equal(&daemon).await;
}

#[tokio::test]
async fn a_registry_with_a_password_is_opened_by_the_right_one_and_the_wrong_one_parks_and_is_not_shown() {
    let registry = SchemaRegistry::shared();
    // ed:right
    let door = registry.guarded("ZWQ6cmlnaHQ=").unwrap();
    let rows = "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)";
    let scene = Scene::new("guarded", "avro", rows).await;
    let with = |password: &str| {
        scene.config(&format!("{{url: \"{door}\", username: ed, password: \"{password}\"}}"))
    };
    let mut daemon = Daemon::start(&with("wr0ng-one")).unwrap();
    let subject = scene.subject("t", "key");
    daemon.wait_log(&format!("refuses this user the subject {subject} (401)"), LIMIT).await.unwrap();
    daemon.wait_log("kafka.registry.username", LIMIT).await.unwrap();
    daemon.kill().unwrap();
    daemon.reconfigure(&with("right")).unwrap();
    daemon.start_again().unwrap();
    scene.equal(&daemon).await;
    assert!(!daemon.log().contains("wr0ng-one"), "{}", daemon.log_tail());
}
