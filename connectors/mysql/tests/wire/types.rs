//! Every column type, by the stream, against the text that SELECT gives.

use super::corpus;
use super::server::{MARIADB, MYSQL, SETTINGS, Server, decode};
use super::text;
use caudal_mysql::binlog::{RowsOp, Start};

/// MySQL's transaction payloads.
const COMPRESSION_SINCE: (u16, u16, u16) = (8, 0, 20);

/// Fills a table per type, then updates and deletes all rows, and compares each image with what was selected in between.
async fn every_type_agrees(server: &mut Server, compression: &[&str]) {
    for statement in compression {
        server.run(statement).await;
    }
    let samples = corpus::of(server.sql.version());
    let start = Start::Gtid(server.gtids().await);
    let mut tables = Vec::new();
    for (i, (ty, values)) in samples.iter().enumerate() {
        let table = format!("t{i}");
        server.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, v {ty})")).await;
        let rows: Vec<_> = values.iter().enumerate().map(|(n, value)| format!("({n},{value})")).collect();
        server.run(&format!("INSERT INTO {table} VALUES {},(999,NULL)", rows.join(","))).await;
        let schema = server.shape(&table).await;
        let column = &schema.columns[1];
        let select = format!("SELECT {} FROM {table} ORDER BY id", text::selected("v", &column.ty));
        let selected: Vec<_> = server.rows(&select).await.into_iter().map(|mut row| row.remove(0)).collect();
        server.run(&format!("UPDATE {table} SET id = id + 1000")).await;
        server.run(&format!("DELETE FROM {table}")).await;
        tables.push((ty, schema, selected));
    }
    let events = server.events(start).await;
    let mut compared = 0;
    for (ty, schema, selected) in tables {
        let rows = decode(&events, &schema);
        for (op, image) in [
            (RowsOp::Insert, "after"),
            (RowsOp::Update, "before"),
            (RowsOp::Update, "after"),
            (RowsOp::Delete, "before"),
        ] {
            let of_op = rows.iter().filter(|r| r.op == op);
            let images = of_op.map(|r| if image == "after" { &r.after } else { &r.before });
            let mut values: Vec<_> =
                images.map(|i| i.as_ref().expect("the image is there").clone()).collect();
            values.sort_by_key(|v| v[0].as_ref().and_then(|id| id.parse::<i64>().ok()));
            assert_eq!(values.len(), selected.len(), "{ty}: {op:?} {image}");
            for (value, want) in values.iter().zip(&selected) {
                let want = want.clone().map(|w| text::normal(w, &schema.columns[1].ty));
                assert!(
                    value[1] == want,
                    "{ty}: {op:?} {image} gives {:.200?}, SELECT {:.200?}",
                    value[1],
                    want
                );
                compared += 1;
            }
        }
    }
    println!("{compared} values agree");
}

#[tokio::test]
async fn every_type_of_mariadb_agrees_with_select() {
    let _alone = SETTINGS.lock().await;
    let Some(mut server) = Server::open(MARIADB, "wire_types").await else { return };
    every_type_agrees(&mut server, &["SET GLOBAL log_bin_compress=0"]).await;
}

#[tokio::test]
async fn every_type_of_mariadb_agrees_with_select_in_compressed_events() {
    let _alone = SETTINGS.lock().await;
    let Some(mut server) = Server::open(MARIADB, "wire_types_compressed").await else { return };
    every_type_agrees(
        &mut server,
        &["SET GLOBAL log_bin_compress=1", "SET GLOBAL log_bin_compress_min_len=10"],
    )
    .await;
    server.run("SET GLOBAL log_bin_compress=0").await;
}

#[tokio::test]
async fn every_type_of_mysql_agrees_with_select() {
    let Some(mut server) = Server::open(MYSQL, "wire_types").await else { return };
    let can_compress = server.sql.version().number >= COMPRESSION_SINCE;
    let plain = can_compress.then_some("SET SESSION binlog_transaction_compression=OFF");
    every_type_agrees(&mut server, plain.as_slice()).await;
}

#[tokio::test]
async fn every_type_of_mysql_agrees_with_select_in_compressed_transactions() {
    let Some(mut server) = Server::open(MYSQL, "wire_types_compressed").await else { return };
    if server.sql.version().number < COMPRESSION_SINCE {
        println!("transactions are compressed since MySQL 8.0.20: not tried");
        return;
    }
    every_type_agrees(&mut server, &["SET SESSION binlog_transaction_compression=ON"]).await;
}

/// The value columns of each row's images, in order.
fn images(rows: &[super::server::Row]) -> Vec<Vec<Option<String>>> {
    let all = rows.iter().flat_map(|r| [&r.before, &r.after]).flatten();
    all.map(|image| image[1..].to_vec()).collect()
}

/// MariaDB's default: the log tells neither names nor signedness; the shape known from the server is enough.
#[tokio::test]
async fn without_metadata_the_known_shape_is_enough() {
    let _alone = SETTINGS.lock().await;
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_bare").await else { continue };
        let bare = if variable == MARIADB { "NO_LOG" } else { "MINIMAL" };
        let before = server
            .sql
            .scalar("SELECT @@global.binlog_row_metadata")
            .await
            .expect("a setting")
            .expect("a value");
        server.run(&format!("SET GLOBAL binlog_row_metadata={bare}")).await;
        let start = Start::Gtid(server.gtids().await);
        server
            .run("CREATE TABLE t (id INT PRIMARY KEY, u BIGINT UNSIGNED, b BINARY(4), e ENUM('x','y'), l VARCHAR(9) CHARACTER SET latin1)")
            .await;
        server.run("INSERT INTO t VALUES (1, 18446744073709551615, x'0100', 'y', 'é')").await;
        let schema = server.shape("t").await;
        let rows = decode(&server.events(start).await, &schema);
        server.run(&format!("SET GLOBAL binlog_row_metadata={before}")).await;
        let want = ["18446744073709551615", "01000000", "y", "é"].map(|v| Some(v.to_owned()));
        assert_eq!(images(&rows), [want.to_vec()]);
    }
}

/// The forms of temporal values before MySQL 5.6, and MariaDB's own with fractions.
#[tokio::test]
async fn old_temporal_columns_agree_with_select() {
    let _alone = SETTINGS.lock().await;
    let Some(mut server) = Server::open(MARIADB, "wire_old_times").await else { return };
    server.run("SET GLOBAL mysql56_temporal_format=OFF").await;
    let start = Start::Gtid(server.gtids().await);
    let mut tables = Vec::new();
    for (i, (ty, values)) in corpus::of(server.sql.version()).into_iter().enumerate() {
        if !ty.starts_with("TIME") && !ty.starts_with("DATETIME") {
            continue;
        }
        let table = format!("t{i}");
        server.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, v {ty})")).await;
        let rows: Vec<_> = values.iter().enumerate().map(|(n, value)| format!("({n},{value})")).collect();
        server.run(&format!("INSERT INTO {table} VALUES {}", rows.join(","))).await;
        let selected = server.rows(&format!("SELECT v FROM {table} ORDER BY id")).await;
        tables.push((ty, server.shape(&table).await, selected));
    }
    server.run("SET GLOBAL mysql56_temporal_format=ON").await;
    let events = server.events(start).await;
    for (ty, schema, selected) in tables {
        assert_eq!(images(&decode(&events, &schema)), selected, "{ty}");
    }
}

/// A session may log less than whole images; what it left out is no NULL.
#[tokio::test]
async fn columns_that_the_log_leaves_out_are_unchanged() {
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_minimal").await else { continue };
        server.run("CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT)").await;
        server.run("INSERT INTO t VALUES (1, 2, NULL)").await;
        let schema = server.shape("t").await;
        let start = Start::Gtid(server.gtids().await);
        server.run("SET SESSION binlog_row_image=MINIMAL").await;
        server.run("UPDATE t SET a = NULL").await;
        let rows = decode(&server.events(start).await, &schema);
        let unchanged = Some("(unchanged)".to_owned());
        assert_eq!(rows[0].before, Some(vec![Some("1".into()), unchanged.clone(), unchanged.clone()]));
        // The key did not change either, and the image before tells it.
        assert_eq!(rows[0].after, Some(vec![Some("1".into()), None, unchanged]));
    }
}

/// Columns that a table computes, or hides.
#[tokio::test]
async fn generated_and_invisible_columns_keep_their_place() {
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_generated").await else { continue };
        server
            .run("CREATE TABLE t (id INT PRIMARY KEY, v INT AS (id * 2) VIRTUAL, s INT AS (id * 3) STORED, h INT INVISIBLE DEFAULT 5, z INT)")
            .await;
        let start = Start::Gtid(server.gtids().await);
        server.run("INSERT INTO t (id, z) VALUES (7, 9)").await;
        let schema = server.shape("t").await;
        let rows = decode(&server.events(start).await, &schema);
        let want = ["14", "21", "5", "9"].map(|v| Some(v.to_owned()));
        assert_eq!(images(&rows), [want.to_vec()], "{variable}");
    }
}
