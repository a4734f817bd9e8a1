//! Every column type, by the stream, against the text that SELECT gives.

use super::corpus;
use super::server::{MARIADB, MYSQL, Server, decode};
use super::text;
use caudal_mysql::binlog::{RowsOp, Start};

/// Fills a table per type, then updates and deletes all rows, and compares each image with what was selected in between.
async fn every_type_agrees(server: &mut Server, compression: &[&str]) {
    for statement in compression {
        server.run(statement).await;
    }
    let samples = corpus::of(server.family());
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
    let Some(mut server) = Server::open(MARIADB, "wire_types").await else { return };
    every_type_agrees(&mut server, &["SET GLOBAL log_bin_compress=0"]).await;
}

#[tokio::test]
async fn every_type_of_mariadb_agrees_with_select_in_compressed_events() {
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
    every_type_agrees(&mut server, &["SET SESSION binlog_transaction_compression=OFF"]).await;
}

#[tokio::test]
async fn every_type_of_mysql_agrees_with_select_in_compressed_transactions() {
    let Some(mut server) = Server::open(MYSQL, "wire_types_compressed").await else { return };
    every_type_agrees(&mut server, &["SET SESSION binlog_transaction_compression=ON"]).await;
}
