//! Accounts, passwords that change, and what lies between us and the server.

use crate::resume::events;
use crate::server::{Database, Kind, Stored, next, servers};
use caudal_core::{Check, Fault, Position, Severity};
use mysql_async::prelude::Queryable;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn place(database: &Database) -> String {
    database.server.url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned()
}

/// An account of the test's own, without any privilege.
async fn account(database: &Database) -> String {
    let user = format!("u{}", &database.name[14..]);
    let mut conn = database.connect().await;
    conn.query_drop(format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'first'")).await.unwrap();
    user
}

fn source(text: &str) -> std::sync::Arc<dyn caudal_core::Source> {
    caudal_mysql::source("test", serde_json::from_str(text).unwrap()).unwrap()
}

fn errors(found: &[Check]) -> Vec<&str> {
    let errors = found.iter().filter(|f| f.severity == Severity::Error);
    errors.map(|f| f.fix.as_deref().unwrap_or_else(|| panic!("no fix for {}", f.message))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grants_that_check_prints_are_enough_to_capture_and_no_more_than_documented() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
        let user = account(&database).await;
        let text = format!(
            r#"{{"url":"mysql://{user}:first@{}/{}","heartbeat":"200ms"}}"#,
            place(&database),
            database.name
        );
        let source = source(&text);
        let mut granted: Vec<String> = Vec::new();
        let found = loop {
            let found = source.check().await;
            let fixes = errors(&found);
            if fixes.is_empty() {
                break found;
            }
            assert!(granted.len() < 8, "the printed statements do not help: {found:?}");
            for fix in fixes {
                assert!(fix.starts_with("GRANT "), "{found:?}");
                database.run(&[fix]).await;
                granted.push(fix.to_owned());
            }
        };
        let privileges = granted.iter().map(|g| g.split(" ON ").next().unwrap().replace("GRANT ", ""));
        let mut privileges: Vec<String> = privileges.collect();
        privileges.sort();
        let position = if server.mariadb { "BINLOG MONITOR" } else { "REPLICATION CLIENT" };
        let mut expected = vec![position, "REPLICATION SLAVE", "SELECT"];
        if server.kind == Kind::Plain {
            expected.insert(0, "LOCK TABLES");
        }
        assert_eq!(privileges, expected, "{granted:?}");
        assert!(!found.iter().any(|f| f.subject == "LOCK TABLES"), "{found:?}");

        let mut reader = source.open(None).await.unwrap_or_else(|e| panic!("open: {e}"));
        let (mut seen, mut stored) = (Vec::new(), Stored::default());
        while !stored.done(&["t"]) {
            let batch = next(&mut reader).await;
            seen.extend(events(&batch));
            stored.apply(&batch);
        }
        database.run(&["INSERT INTO t VALUES (2)"]).await;
        while seen.len() < 2 {
            seen.extend(events(&next(&mut reader).await));
        }
        assert_eq!(seen, ["t r 1", "t c 2"]);
        database.run(&[&format!("DROP USER '{user}'@'%'")]).await;
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_changed_in_its_file_needs_no_restart() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
        let user = account(&database).await;
        let grant = format!("GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{user}'@'%'");
        database.run(&[&grant]).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "first\n").unwrap();
        let text = format!(
            r#"{{"url":"mysql://{user}@{}/{}","password_file":{:?},"snapshot":{{"mode":"never"}}}}"#,
            place(&database),
            database.name,
            file
        );
        let source = source(&text);
        let mut reader = source.open(None).await.unwrap_or_else(|e| panic!("open: {e}"));
        let mut stored = Stored::default();
        stored.apply(&next(&mut reader).await);
        drop(reader);
        database.run(&[&format!("ALTER USER '{user}'@'%' IDENTIFIED BY 'second'")]).await;
        let from = || stored.position.clone().map(Position::Source);
        let refused = source.open(from()).await.err().expect("the old password is refused");
        assert_eq!(refused.fault(), Fault::Config, "{refused}");
        assert!(!refused.to_string().contains("first"));
        std::fs::write(&file, "second\n").unwrap();
        source.open(from()).await.unwrap_or_else(|e| panic!("open with the new password: {e}"));
        std::fs::remove_file(&file).unwrap();
        let refused = source.open(from()).await.err().expect("no file");
        assert_eq!(
            (refused.fault(), refused.field_name()),
            (Fault::Config, Some("sources.test.password_file")),
            "{refused}"
        );
        database.run(&[&format!("DROP USER '{user}'@'%'")]).await;
        database.drop().await;
    }
}

/// Forwards, and cuts each connection on which nothing moved for `idle`. Gives its port.
async fn impatient_proxy(to: String, idle: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(&to).await else { return };
                let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
                loop {
                    let moved = async {
                        tokio::select! {
                            n = near.read(&mut a) => match n {
                                Ok(n) if n > 0 => far.write_all(&a[..n]).await.is_ok(),
                                _ => false,
                            },
                            n = far.read(&mut b) => match n {
                                Ok(n) if n > 0 => near.write_all(&b[..n]).await.is_ok(),
                                _ => false,
                            },
                        }
                    };
                    if !matches!(tokio::time::timeout(idle, moved).await, Ok(true)) {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_cuts_idle_connections_is_not_noticed() {
    const IDLE: Duration = Duration::from_secs(3);
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
        let port = impatient_proxy(place(&database), IDLE).await;
        let (who, _) = server.url.rsplit_once('@').unwrap();
        let text = format!(
            r#"{{"url":"{who}@127.0.0.1:{port}/{}","heartbeat":"500ms","snapshot":{{"mode":"never"}}}}"#,
            database.name
        );
        let mut reader = source(&text).open(None).await.unwrap_or_else(|e| panic!("open: {e}"));
        let _ = next(&mut reader).await;
        // The connection that is asked for shapes lies idle meanwhile, and is cut.
        let until = tokio::time::Instant::now() + IDLE * 2;
        while tokio::time::Instant::now() < until {
            let _ = next(&mut reader).await;
        }
        database.run(&["CREATE TABLE u (id INT PRIMARY KEY)", "INSERT INTO u VALUES (7)"]).await;
        let mut seen = Vec::new();
        while seen.is_empty() {
            seen = events(&next(&mut reader).await);
        }
        assert_eq!(seen, ["u c 7"]);
        database.drop().await;
    }
}
