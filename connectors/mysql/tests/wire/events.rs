//! Events beside rows: statements in the log, loaded files, engines without transactions, incidents, files over 4 GiB.

use super::server::{MARIADB, MYSQL, SETTINGS, Server, decode};
use super::simulated::{Simulated, event, heartbeat_v2, query};
use caudal_core::Fault;
use caudal_mysql::binlog::{BinlogStream, Event, EventKind, Start, StreamOptions};
use caudal_mysql::connection::Family;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// The statements of the log, in short.
fn statements(events: &[Event]) -> Vec<String> {
    let text = |e: &Event| match &e.kind {
        EventKind::Query(q) => Some(q.statement.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

/// What a session logs as text, with all that such statements carry (variables, random seeds, sql_mode, other character sets).
#[tokio::test]
async fn statements_in_the_log_are_told_and_the_rows_behind_them_come() {
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_statements").await else { continue };
        server.run("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100), d DOUBLE)").await;
        let schema = server.shape("t").await;
        let start = Start::Gtid(server.gtids().await);
        server.run("SET SESSION binlog_format=STATEMENT").await;
        let logged = [
            "INSERT INTO t (v) VALUES ('one')",
            "INSERT INTO t (v, d) VALUES (@x, RAND())",
            "UPDATE t SET v = 'two' WHERE id = 1",
            "DELETE FROM t WHERE id = 1",
        ];
        server.run("SET @x = 'caf\u{e9}'").await;
        for mode in ["''", "'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES'", "'TRADITIONAL'"] {
            server
                .run(&format!(
                    "SET SESSION sql_mode={mode}, SESSION time_zone='+05:30', SESSION lc_time_names='de_DE'"
                ))
                .await;
            for statement in logged {
                server.run(statement).await;
            }
        }
        server.run("SET SESSION sql_mode='', SESSION time_zone='+00:00', NAMES latin1").await;
        server.run("INSERT INTO t (v) VALUES ('three')").await;
        server.run("SET NAMES utf8mb4, SESSION binlog_format=ROW").await;
        server.run("INSERT INTO t VALUES (900, 'row', 1)").await;
        let events = server.events(start).await;
        let told = statements(&events);
        for statement in logged {
            assert_eq!(told.iter().filter(|s| *s == statement).count(), 3, "{statement}: {told:?}");
        }
        let rows = decode(&events, &schema);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].after.as_ref().unwrap()[1].as_deref(), Some("row"));
    }
}

/// A file that is loaded comes as rows; logged as a statement it comes as one.
#[tokio::test]
async fn a_loaded_file_comes_as_rows_or_as_its_statement() {
    let Some(mut server) = Server::open(MARIADB, "wire_load").await else { return };
    let file = std::env::temp_dir().join(format!("caudal-load-{}", std::process::id()));
    let path = file.display().to_string();
    server.run("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(100))").await;
    server.run(&format!("SELECT seq, REPEAT('v', 50) FROM seq_1_to_3000 INTO OUTFILE '{path}'")).await;
    let schema = server.shape("t").await;
    let start = Start::Gtid(server.gtids().await);
    let load = format!("LOAD DATA INFILE '{path}' INTO TABLE t");
    server.run(&load).await;
    server.run("DELETE FROM t").await;
    server.run("SET SESSION binlog_format=STATEMENT").await;
    server.run(&load).await;
    server.run("SET SESSION binlog_format=ROW").await;
    let events = server.events(start).await;
    drop(std::fs::remove_file(&file));
    assert_eq!(decode(&events, &schema).len(), 6000, "3,000 inserts and deletes");
    let told = statements(&events);
    assert_eq!(told.iter().filter(|s| s.starts_with("LOAD DATA")).count(), 1, "{told:?}");
}

/// Tables without transactions: each statement ends with a COMMIT of its own, which is no XID event.
#[tokio::test]
async fn engines_without_transactions_end_each_statement() {
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_engines").await else { continue };
        let aria =
            if server.family() == Family::MariaDb { "ENGINE=Aria TRANSACTIONAL=0" } else { "ENGINE=MEMORY" };
        server.run("CREATE TABLE m (id INT PRIMARY KEY) ENGINE=MyISAM").await;
        server.run(&format!("CREATE TABLE a (id INT PRIMARY KEY) {aria}")).await;
        server.run("CREATE TABLE i (id INT PRIMARY KEY) ENGINE=InnoDB").await;
        let start = Start::Gtid(server.gtids().await);
        for statement in [
            "INSERT INTO m VALUES (1), (2)",
            "UPDATE m SET id = 3 WHERE id = 1",
            "INSERT INTO a VALUES (1)",
            "DELETE FROM a",
        ] {
            server.run(statement).await;
        }
        if server.family() == Family::MariaDb {
            // What is not rolled back was done all the same.
            for statement in ["BEGIN", "INSERT INTO i VALUES (1)", "INSERT INTO m VALUES (9)", "ROLLBACK"] {
                server.run(statement).await;
            }
        }
        let events = server.events(start).await;
        let (mut open, mut ended, mut rows) = (0, 0, 0);
        for event in &events {
            match &event.kind {
                EventKind::Begin(_) => open += 1,
                EventKind::Commit | EventKind::Rollback => ended += 1,
                EventKind::Rows(_) => {
                    rows += 1;
                    assert_eq!(open, ended + 1, "rows lie in a transaction");
                }
                _ => {}
            }
        }
        assert!(rows >= 4, "{rows}");
        // The mark's own last transaction is cut off.
        assert!(open == ended || open == ended + 1, "{open} begun, {ended} ended");
    }
}

/// Statements larger than a packet's usual length, and a GTID event in front of them: lengths of all widths.
#[tokio::test]
async fn events_of_every_length_are_read() {
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_lengths").await else { continue };
        server.run("CREATE TABLE t (id INT PRIMARY KEY, v LONGTEXT)").await;
        let schema = server.shape("t").await;
        let start = Start::Gtid(server.gtids().await);
        let lengths = [0, 1, 250, 251, 255, 256, 8_000, 8_200, 65_535, 65_536, 1_000_000, 3_000_000];
        for (id, length) in lengths.iter().enumerate() {
            server.run(&format!("INSERT INTO t VALUES ({id}, REPEAT('z', {length}))")).await;
        }
        let rows = decode(&server.events(start).await, &schema);
        let got: Vec<usize> =
            rows.iter().map(|r| r.after.as_ref().unwrap()[1].as_ref().unwrap().len()).collect();
        assert_eq!(got, lengths);
    }
}

fn options(start: Start) -> StreamOptions {
    let mut options = StreamOptions::new(99, start);
    options.heartbeat = Duration::from_millis(200);
    options
}

async fn next(stream: &mut BinlogStream) -> caudal_core::Result<Event> {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("an event comes")
}

const GIB: u64 = 1 << 30;

/// Positions in events have 32 bits: the rest is counted from the file's start, and what lies before the start is passed over.
#[tokio::test]
async fn a_start_beyond_four_gigabytes_is_found_again() {
    let begin = query("BEGIN").len() as u64 + 19;
    let mut log = vec![];
    // A transaction of about a GiB behind each GiB; the places wrap at 4 and 8 GiB, where one event ends at zero.
    for n in 1..10u64 {
        log.push(event(2, n * GIB, &query("BEGIN")));
        log.push(event(16, (n + 1) * GIB - begin, &[0; 8]));
    }
    log.push(heartbeat_v2("binlog.000007", 10 * GIB + 4242));
    let server = Simulated::start("binlog.000007", log).await;
    let start = 6 * GIB - begin;
    let mut stream = BinlogStream::open(
        &server.endpoint(),
        options(Start::File { name: "binlog.000007".into(), pos: start }),
    )
    .await
    .unwrap();
    let mut seen = Vec::new();
    loop {
        let event = next(&mut stream).await.unwrap();
        match event.kind {
            EventKind::Begin(_) => seen.push(("begin", event.pos, event.end_pos)),
            EventKind::Commit => seen.push(("commit", event.pos, event.end_pos)),
            EventKind::Heartbeat if event.end_pos > 10 * GIB => {
                assert_eq!((&*event.file, event.end_pos), ("binlog.000007", 10 * GIB + 4242));
                break;
            }
            _ => {}
        }
    }
    let wanted: Vec<_> = (6..10)
        .flat_map(|n| {
            let end = (n + 1) * GIB - begin;
            [("begin", n * GIB - begin, n * GIB), ("commit", end - 27, end)]
        })
        .collect();
    assert_eq!(seen, wanted);
    assert_eq!(
        server.asked(),
        ("binlog.000007".to_owned(), 4),
        "32 bits hold no such position: from the start"
    );
}

#[tokio::test]
async fn an_incident_is_told_and_what_is_not_known_is_refused_unless_it_may_be_passed_over() {
    let unknown = |flags: u8| {
        let mut bytes = event(99, 1_000, b"what is this");
        bytes[17] = flags;
        bytes
    };
    let incident = [&[1, 0, 6][..], b"a tale"].concat();
    let log = vec![unknown(0x80), event(26, 2_000, &incident), unknown(0)];
    let server = Simulated::start("binlog.000001", log).await;
    let start = Start::File { name: "binlog.000001".into(), pos: 4 };
    let mut stream = BinlogStream::open(&server.endpoint(), options(start)).await.unwrap();
    let mut told = Vec::new();
    let refused = loop {
        match next(&mut stream).await {
            Ok(event) => told.push(event.kind),
            Err(e) => break e,
        }
    };
    assert!(told.iter().any(|k| matches!(k, EventKind::Other(99))));
    assert!(told.iter().any(|k| matches!(k, EventKind::Incident(text) if text == "a tale")));
    assert_eq!(refused.fault(), Fault::Data);
    assert!(refused.to_string().contains("type 99"), "{refused}");
}

/// The server decrypts what it sends; the log on its disk is not readable.
#[tokio::test]
async fn encrypted_logs_come_as_any_other() {
    let _alone = SETTINGS.lock().await;
    for variable in ["CAUDAL_TEST_MARIADB_ENCRYPTED_URL", "CAUDAL_TEST_MYSQL_ENCRYPTED_URL"] {
        let Some(mut server) = Server::open(variable, "wire_encrypted").await else { continue };
        let on = match server.family() {
            Family::MySql => "SELECT @@global.binlog_encryption",
            Family::MariaDb => "SELECT @@global.encrypt_binlog",
        };
        assert_eq!(server.rows(on).await[0][0].as_deref(), Some("1"), "the server named encrypts its log");
        let start = Start::Gtid(server.gtids().await);
        server.run("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)").await;
        server.run("INSERT INTO t VALUES (1, 'a'), (2, REPEAT('b', 100000))").await;
        server.run("FLUSH BINARY LOGS").await;
        server.run("UPDATE t SET v = 'c'").await;
        let schema = server.shape("t").await;
        let rows = decode(&server.events(start).await, &schema);
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[3].after.as_ref().unwrap()[1].as_deref(), Some("c"));
    }
}
