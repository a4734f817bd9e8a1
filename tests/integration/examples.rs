//! The examples of `deploy/examples` run, and check their rows themselves.

use std::path::Path;

use caudal_tests::{Postgres, daemon};

#[tokio::test(flavor = "multi_thread")]
async fn la_granja_reads_twelve_stores_of_which_one_is_down_and_one_gives_half() {
    let sink = Postgres::shared().database("granja").await.unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/la-granja/run");
    let bin = daemon::binary().unwrap();
    let out = tokio::process::Command::new(script)
        .env("CAUDAL_BIN_DIR", bin.parent().unwrap())
        .env("DATABASE_URL", &sink.url)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn pulso_reads_five_tables_of_bigquery_of_which_one_is_not_there_at_first() {
    let sink = Postgres::shared().database("pulso").await.unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/pulso/run");
    let bin = daemon::binary().unwrap();
    let out = tokio::process::Command::new(script)
        .env("CAUDAL_BIN_DIR", bin.parent().unwrap())
        .env("DATABASE_URL", &sink.url)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
