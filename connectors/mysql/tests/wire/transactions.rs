//! Where streams begin, how transactions are bracketed, how a stream ends.

use super::server::{MARIADB, MYSQL, SETTINGS, Server, alone, decode};
use caudal_core::Fault;
use caudal_mysql::binlog::{BinlogStream, EventKind, Start, StreamOptions};
use caudal_mysql::connection::Family;
use caudal_mysql::gtid::GtidSet;
use std::time::Duration;

/// The transactions among the events, in short.
fn brackets(events: &[caudal_mysql::binlog::Event]) -> Vec<&'static str> {
    let short = |kind: &EventKind| match kind {
        EventKind::Begin(b) if b.standalone => Some("begin standalone"),
        EventKind::Begin(_) => Some("begin"),
        EventKind::Rows(_) => Some("rows"),
        EventKind::Query(_) => Some("query"),
        EventKind::Commit => Some("commit"),
        EventKind::Rollback => Some("rollback"),
        EventKind::XaPrepare(_) => Some("xa prepare"),
        EventKind::XaCommit(_) => Some("xa commit"),
        EventKind::XaRollback(_) => Some("xa rollback"),
        _ => None,
    };
    events.iter().filter_map(|e| short(&e.kind)).collect()
}

async fn transactions_are_bracketed(server: &mut Server) {
    server.run("CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB").await;
    server.run("CREATE TABLE m (id INT PRIMARY KEY) ENGINE=MyISAM").await;
    let start = Start::Gtid(server.gtids().await);
    let mut want = Vec::new();
    let mut expect = |kinds: &[&'static str]| want.extend_from_slice(kinds);
    server.run("INSERT INTO t VALUES (1)").await;
    expect(&["begin", "rows", "commit"]);
    server.run("INSERT INTO m VALUES (1)").await;
    expect(&["begin", "rows", "commit"]);
    server.run("ALTER TABLE t ADD COLUMN x INT").await;
    expect(&["begin standalone", "query", "commit"]);
    for statement in [
        "BEGIN",
        "INSERT INTO t VALUES (2, 2)",
        "SAVEPOINT s",
        "INSERT INTO t VALUES (3, 3)",
        "ROLLBACK TO s",
        "COMMIT",
    ] {
        server.run(statement).await;
    }
    expect(&["begin", "rows", "commit"]);
    for statement in ["BEGIN", "INSERT INTO t VALUES (4, 4)", "ROLLBACK"] {
        server.run(statement).await;
    }
    for (id, end) in [("a", "XA COMMIT 'a'"), ("b", "XA ROLLBACK 'b'")] {
        for statement in [
            &format!("XA START '{id}'"),
            &format!("INSERT INTO t VALUES (ASCII('{id}'), 0)"),
            &format!("XA END '{id}'"),
            &format!("XA PREPARE '{id}'"),
            end,
        ] {
            server.run(statement).await;
        }
    }
    expect(&["begin", "rows", "xa prepare", "begin standalone", "xa commit", "commit"]);
    expect(&["begin", "rows", "xa prepare", "begin standalone", "xa rollback", "commit"]);
    for statement in ["XA START 'c'", "INSERT INTO t VALUES (5, 5)", "XA END 'c'", "XA COMMIT 'c' ONE PHASE"]
    {
        server.run(statement).await;
    }
    expect(&["begin", "rows", "commit"]);
    let events = server.events(start).await;
    let mut got = brackets(&events);
    // The mark's own begin.
    got.pop();
    // A savepoint may be logged as a statement of its own.
    let savepoint = |q: &EventKind| matches!(q, EventKind::Query(q) if q.statement.starts_with("SAVEPOINT") || q.statement.starts_with("ROLLBACK TO"));
    let logged = events.iter().filter(|e| savepoint(&e.kind)).count();
    let statements = want.iter().filter(|k| **k == "query").count() + logged;
    // The mark's CREATE and its commit stand before its DROP.
    let mark = ["begin standalone", "commit"];
    assert_eq!(got.iter().filter(|k| **k == "query").count(), statements);
    let without =
        |kinds: &[&'static str]| kinds.iter().copied().filter(|k| *k != "query").collect::<Vec<_>>();
    want.extend(mark);
    assert_eq!(without(&got), without(&want));
}

#[tokio::test]
async fn transactions_of_mysql_are_bracketed() {
    let Some(mut server) = Server::open(MYSQL, "wire_brackets").await else { return };
    transactions_are_bracketed(&mut server).await;
}

#[tokio::test]
async fn transactions_of_mariadb_are_bracketed() {
    let Some(mut server) = Server::open(MARIADB, "wire_brackets").await else { return };
    transactions_are_bracketed(&mut server).await;
}

/// Resumes after each transaction by its GTID, and by its file and position, and must get all others and no more.
async fn resumes_anywhere(server: &mut Server) {
    server.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    let schema = server.shape("t").await;
    let begin = server.gtids().await;
    for id in 0..6 {
        server.run(&format!("INSERT INTO t VALUES ({id})")).await;
        if id == 3 {
            server.run("FLUSH BINARY LOGS").await;
        }
    }
    let events = server.events(Start::Gtid(begin.clone())).await;
    server.run("DROP TABLE IF EXISTS the_mark").await;
    let mut seen = begin;
    let mut inserted = 0;
    let ids = |events: &[caudal_mysql::binlog::Event]| -> Vec<_> {
        decode(events, &schema).into_iter().map(|r| r.after.expect("an insert")[0].clone()).collect()
    };
    let all = ids(&events);
    assert_eq!(all.len(), 6);
    let mut pending = None;
    for event in &events {
        match &event.kind {
            EventKind::Begin(b) => pending = b.gtid.clone(),
            EventKind::Rows(_) => inserted += 1,
            EventKind::Commit if inserted > 0 => {
                seen.add(&pending.take().expect("GTIDs are on")).expect("of this family");
                let by_gtid = server.events(Start::Gtid(seen.clone())).await;
                assert_eq!(ids(&by_gtid), all[inserted..]);
                let start = Start::File { name: event.file.to_string(), pos: event.end_pos };
                let by_position = server.events(start).await;
                assert_eq!(ids(&by_position), all[inserted..]);
                if inserted == 6 {
                    return;
                }
            }
            _ => {}
        }
    }
    panic!("all transactions end");
}

#[tokio::test]
async fn mysql_resumes_after_any_transaction() {
    let Some(mut server) = Server::open(MYSQL, "wire_resume").await else { return };
    resumes_anywhere(&mut server).await;
}

#[tokio::test]
async fn mariadb_resumes_after_any_transaction() {
    let Some(mut server) = Server::open(MARIADB, "wire_resume").await else { return };
    resumes_anywhere(&mut server).await;
}

#[tokio::test]
async fn tagged_gtids_are_streamed_and_resumed() {
    let Some(mut server) = Server::open(MYSQL, "wire_tags").await else { return };
    if server.sql.version().number < (8, 3, 0) {
        println!("tags came with MySQL 8.3: not tried");
        return;
    }
    server.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    let schema = server.shape("t").await;
    let mut seen = server.gtids().await;
    let start = Start::Gtid(seen.clone());
    for statement in [
        "SET gtid_next='AUTOMATIC:wire_tag'",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES (2)",
        "SET gtid_next='AUTOMATIC'",
    ] {
        server.run(statement).await;
    }
    let events = server.events(start).await;
    let gtid = events.iter().find_map(|e| match &e.kind {
        EventKind::Begin(b) => b.gtid.clone().filter(|_| b.commit_us > 0),
        _ => None,
    });
    let gtid = gtid.expect("a GTID with its commit time");
    assert!(gtid.to_string().contains(":wire_tag:"), "{gtid}");
    seen.add(&gtid).expect("of this family");
    let rest = decode(&server.events(Start::Gtid(seen)).await, &schema);
    assert_eq!(rest.len(), 1);
}

async fn refused(server: &Server, start: Start) -> caudal_core::Error {
    let mut options = StreamOptions::new(69_999, start);
    options.heartbeat = Duration::from_millis(500);
    match BinlogStream::open(&server.endpoint, options).await {
        Err(e) => e,
        Ok(mut stream) => loop {
            match stream.next().await {
                Err(e) => return e,
                Ok(event) if matches!(event.kind, EventKind::Heartbeat) => panic!("the start is accepted"),
                Ok(_) => {}
            }
        },
    }
}

async fn bad_starts_are_named(server: &mut Server) {
    let unknown = match server.family() {
        Family::MySql => {
            let mut set = server.gtids().await;
            let uuid = server.sql.scalar("SELECT @@server_uuid").await.expect("uuid").expect("uuid");
            set.union(&GtidSet::parse(Family::MySql, &format!("{uuid}:1-99999999")).expect("a set"))
                .expect("of this family");
            set
        }
        Family::MariaDb => GtidSet::parse(Family::MariaDb, "0-10-99999999").expect("a set"),
    };
    let e = refused(server, Start::Gtid(unknown)).await;
    assert_eq!(e.fault(), Fault::Config);
    assert!(e.to_string().contains("unknown GTID") && e.hint_text().is_some(), "{e}");
    let Start::File { name, pos } = server.end().await else { panic!("a position") };
    let e = refused(server, Start::File { name: name.clone(), pos: pos + 1_000_000 }).await;
    assert_eq!(e.fault(), Fault::Config);
    assert!(e.to_string().contains("wrong position"), "{e}");
    let e = refused(server, Start::File { name: "binlog.999999".into(), pos: 4 }).await;
    assert!(e.to_string().contains("purged"), "{e}");
}

#[tokio::test]
async fn starts_that_mysql_refuses_are_named() {
    let Some(mut server) = Server::open(MYSQL, "wire_refused").await else { return };
    bad_starts_are_named(&mut server).await;
}

#[tokio::test]
async fn starts_that_mariadb_refuses_are_named() {
    let Some(mut server) = Server::open(MARIADB, "wire_refused").await else { return };
    bad_starts_are_named(&mut server).await;
}

async fn idle_streams_beat(server: &mut Server) {
    let start = Start::Gtid(server.gtids().await);
    let mut stream = server.stream(start).await;
    let mut beats = 0;
    while beats < 2 {
        let event = tokio::time::timeout(Duration::from_secs(30), stream.next())
            .await
            .expect("in time")
            .expect("an event");
        beats += u32::from(matches!(event.kind, EventKind::Heartbeat));
    }
}

#[tokio::test]
async fn idle_streams_beat_on_both_families() {
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_heartbeat").await else { continue };
        idle_streams_beat(&mut server).await;
    }
}

/// A row above 16 MiB takes several packets.
#[tokio::test]
async fn rows_of_many_packets_arrive_whole() {
    let _alone = SETTINGS.lock().await;
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_large").await else { continue };
        server.run("SET GLOBAL max_allowed_packet=134217728").await;
        drop(server);
        let Some(mut server) = Server::open(variable, "wire_large").await else { continue };
        let start = Start::Gtid(server.gtids().await);
        server.run("CREATE TABLE t (id INT PRIMARY KEY, v LONGBLOB)").await;
        server.run("INSERT INTO t VALUES (1, REPEAT(x'ab', 40000000)), (2, 'x')").await;
        let schema = server.shape("t").await;
        let rows = decode(&server.events(start).await, &schema);
        assert_eq!(rows.len(), 2);
        let value = rows[0].after.as_ref().and_then(|r| r[1].clone()).expect("a value");
        assert!(value.len() == 80_000_000 && value.as_bytes().chunks(2).all(|c| c == b"AB"));
        server.run("DROP TABLE t").await;
    }
}

#[tokio::test]
async fn the_older_client_with_our_server_id_is_told_so() {
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_server_id").await else { continue };
        let mut options =
            StreamOptions::new(69_000 + std::process::id() % 900, Start::Gtid(server.gtids().await));
        options.heartbeat = Duration::from_millis(300);
        let mut older =
            BinlogStream::open(&server.endpoint, options.clone()).await.expect("the stream opens");
        let newer = BinlogStream::open(&server.endpoint, options).await.expect("the stream opens");
        let end = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                if let Err(e) = older.next().await {
                    return e;
                }
            }
        });
        let e = end.await.expect("it ends");
        assert_eq!(e.fault(), Fault::Config, "{e}");
        assert!(e.to_string().contains("another replica of the source uses the same server_id"), "{e}");
        assert!(e.hint_text().is_some_and(|h| h.contains("server_id")), "{e}");
        drop(newer);
    }
}

#[tokio::test]
async fn a_start_whose_binlogs_are_gone_is_named() {
    let _alone = alone().await;
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open_alone(variable, "wire_purged").await else { continue };
        let old = server.gtids().await;
        server.run("CREATE TABLE t (id INT)").await;
        server.run("FLUSH BINARY LOGS").await;
        server.run("INSERT INTO t VALUES (1)").await;
        let Start::File { name, .. } = server.end().await else { panic!("a position") };
        // The server keeps a file for as long as a stream that has just ended still reads it.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while server.rows("SHOW BINARY LOGS").await.len() > 1 {
            assert!(std::time::Instant::now() < deadline, "the files can be purged");
            server.run(&format!("PURGE BINARY LOGS TO '{name}'")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for start in [old, GtidSet::empty(server.family())] {
            let e = refused(&server, Start::Gtid(start)).await;
            assert_eq!(e.fault(), Fault::Config);
            assert!(e.to_string().contains("purged") && e.hint_text().is_some(), "{e}");
        }
    }
}
