//! A JSON API into Postgres: what it answers arrives, and what it answers wrongly takes nothing away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use caudal_tests::klk::{KEY, Klk, Reply, article};
use caudal_tests::{Daemon, DaemonConfig, PgDatabase, Postgres, patience};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);

/// One row's first column as text.
async fn one(sink: &PgDatabase, query: &str) -> anyhow::Result<String> {
    let row = sink.connect().await?.query_one(&format!("SELECT ({query})::text"), &[]).await?;
    Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
}

/// Waits until a query has an answer.
async fn until(daemon: &Daemon, sink: &PgDatabase, query: &str, expected: &str) {
    let seen = async || Ok(one(sink, query).await? == expected);
    let waited =
        patience::until(&format!("{query} = {expected}"), PATIENCE, Duration::from_millis(100), seen).await;
    if let Err(e) = waited {
        panic!("{e:#}; now {:?}\n{}", one(sink, query).await.ok(), daemon.log_tail());
    }
}

/// Waits until the API was asked so many times more.
async fn asked(klk: &Klk, more: usize) {
    let before = klk.state().asked.len();
    let seen = async || Ok(klk.state().asked.len() >= before + more);
    patience::until("requests", PATIENCE, Duration::from_millis(50), seen).await.unwrap();
}

const INVENTORY: &[&str] = &[
    "every: 1s",
    "zone: America/Caracas",
    "tables:",
    "  inventario:",
    "    path: /t1/inventario",
    "    records: data.items",
    "    paging: {type: page, size: 100, total: meta.total}",
    "    key: [codigo]",
    "    fields:",
    "      precio: {type: \"decimal(12,2)\"}",
    "      departamento: {from: producto.departamento, type: text}",
];

fn config(name: &str, klk: &Klk, sink: &PgDatabase, lines: &[&str]) -> DaemonConfig {
    DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source_of("klk", "rest", &klk.url(), &[])
        .source_line("klk", &format!("auth: {{api_key: {KEY}}}"))
        .source_lines("klk", lines)
        .sink("pg", sink, &["consistency: transaction"])
}

fn stock(articles: std::ops::Range<u32>) -> Vec<Value> {
    articles.map(|code| article(code, f64::from(code) + 0.5)).collect()
}

#[tokio::test]
async fn a_json_api_becomes_a_table_and_follows_its_changes_and_deletes() {
    let (klk, sink) = (Klk::start().await.unwrap(), Postgres::shared().database("rest").await.unwrap());
    klk.stock("t1", stock(0..1_050));
    let daemon = Daemon::start(&config("rest_a", &klk, &sink, INVENTORY)).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM inventario", "1050").await;
    let row = "SELECT concat_ws('|', codigo, descripcion, existencia, precio, departamento, activo) FROM inventario WHERE codigo = '000007'";
    assert_eq!(one(&sink, row).await.unwrap(), "000007|Artículo 7|7.5|12.50|VIVERES|t");
    let mut changed = stock(1..1_051);
    changed[6]["existencia"] = json!(0.25);
    klk.stock("t1", changed);
    until(&daemon, &sink, "SELECT existencia FROM inventario WHERE codigo = '000007'", "0.25").await;
    until(&daemon, &sink, "SELECT count(*) FROM inventario WHERE codigo IN ('000000', '001050')", "1").await;
    until(&daemon, &sink, "SELECT count(*) FROM inventario WHERE codigo = '000000'", "0").await;
    // What does not change is not written again.
    let before = daemon.get("/status").await.unwrap().1;
    asked(&klk, 30).await;
    let counted = |status: &str| {
        let status: Value = serde_json::from_str(status).unwrap();
        status["pipelines"][0]["events"].clone()
    };
    assert_eq!(counted(&before), counted(&daemon.get("/status").await.unwrap().1));
    assert!(!daemon.log().contains(KEY), "the key is in the log");
}

/// Its name, what it says to the n-th request, and what the log must say then.
type WrongAnswer = (&'static str, Box<dyn FnMut(u32) -> Reply + Send>, &'static str);

/// A wrong answer, by name, and what the log says of it. The API gives it from the start of a run on, as long as it is set.
fn wrong_answers() -> Vec<WrongAnswer> {
    let items =
        |items: Vec<Value>| Reply::json(&json!({ "data": { "items": items }, "meta": { "total": 300 } }));
    let all = move |page: u32| stock(page.saturating_sub(1) * 100..page.min(3) * 100);
    let mut half = false;
    vec![
        ("html", Box::new(|_| Reply::text(200, "<html>Mantenimiento</html>")), "web page in place of JSON"),
        ("cut", Box::new(move |page| Reply { cut: Some(500), ..items(all(page)) }), "broke off"),
        ("cut JSON", Box::new(|_| Reply::text(200, r#"{"data":{"items":[{"codigo":"0"#)), "breaks off"),
        ("no JSON", Box::new(|_| Reply::text(200, "nothing here")), "is no JSON"),
        ("no list", Box::new(|_| Reply::text(200, r#"{"error":"x"}"#)), "no list of records at `data.items`"),
        ("empty", Box::new(|_| Reply::text(200, r#"{"data":{"items":[]}}"#)), "the answer is empty"),
        (
            "a tenth",
            Box::new(|page| {
                Reply::json(&json!({"data": {"items": if page == 1 { stock(0..30) } else { vec![] }}}))
            }),
            "270 of 300 known rows",
        ),
        (
            "the same page",
            Box::new(|_| Reply::json(&json!({"data": {"items": stock(0..100)}}))),
            "the same page came twice",
        ),
        ("error", Box::new(|_| Reply::text(500, "{}")), "answered 500"),
        (
            "gzip cut",
            Box::new(|_| Reply {
                body: vec![0x1f, 0x8b, 8, 0, 0],
                ..Reply::text(200, "").header("Content-Encoding", "gzip")
            }),
            "broke off, or is no gzip",
        ),
        ("too large", Box::new(|_| Reply::text(200, &" ".repeat(2 << 20))), "larger than 1 MiB"),
        (
            "half the pages",
            Box::new(move |page| {
                half = !half;
                items(if page <= 2 { all(page) } else { vec![] })
            }),
            "the API counts 300 records and gave 200",
        ),
        (
            "no keys",
            Box::new(move |page| {
                let mut page = if page <= 3 { all(page) } else { vec![] };
                page.iter_mut().for_each(|item| item["codigo"] = Value::Null);
                Reply::json(&json!({ "data": { "items": page } }))
            }),
            "rows without a key",
        ),
        (
            "key missing",
            Box::new(move |page| {
                let page = if page <= 3 { all(page) } else { vec![] };
                let strip = |mut item: Value| {
                    item.as_object_mut().map(|o| o.remove("codigo"));
                    item
                };
                Reply::json(&json!({ "data": { "items": page.into_iter().map(strip).collect::<Vec<_>>() } }))
            }),
            "rows without a key",
        ),
        (
            "another type",
            Box::new(move |page| {
                let mut page = if page <= 3 { all(page) } else { vec![] };
                page.iter_mut().for_each(|item| item["existencia"] = json!("muchas"));
                Reply::json(&json!({ "data": { "items": page } }))
            }),
            "`existencia`: text that is no number",
        ),
        (
            "no objects",
            Box::new(|page| {
                Reply::json(&json!({ "data": { "items": if page == 1 { vec![1, 2] } else { vec![] } } }))
            }),
            "a record is no object",
        ),
    ]
}

#[tokio::test]
async fn no_wrong_answer_takes_a_row_away_and_each_is_told() {
    let (klk, sink) = (Klk::start().await.unwrap(), Postgres::shared().database("rest").await.unwrap());
    klk.stock("t1", stock(0..300));
    let mut config = config("rest_b", &klk, &sink, INVENTORY);
    // A second table that is always well: what is wrong with the first must not stop it.
    config = config.source_lines(
        "klk",
        &[
            "  bien:",
            "    path: /t2/inventario",
            "    records: data.items",
            "    key: [codigo]",
            "max_body: 1MiB",
            "attempts: 1",
        ],
    );
    klk.stock("t2", stock(0..1));
    let daemon = Daemon::start(&config).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM inventario", "300").await;
    for (well, (name, mut wrong, told)) in (1..).zip(wrong_answers()) {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        klk.instead(move |asked| {
            if !asked.path.ends_with("t1/inventario") {
                return None;
            }
            let page = asked.parameters["page"].parse().unwrap_or(1);
            counted.fetch_add(usize::from(page == 1), Ordering::Relaxed);
            Some(wrong(page))
        });
        daemon.wait_log(told, PATIENCE).await.unwrap_or_else(|e| panic!("{name}: {e:#}"));
        // Three runs: two would do for a delete.
        let seen = async || Ok(runs.load(Ordering::Relaxed) >= 4);
        patience::until(name, PATIENCE, Duration::from_millis(50), seen).await.unwrap();
        assert_eq!(one(&sink, "SELECT count(*) FROM inventario").await.unwrap(), "300", "{name}");
        klk.stock("t2", stock(0..well + 1));
        let other = format!("{}", well + 1);
        until(&daemon, &sink, "SELECT count(*) FROM bien", &other).await;
        klk.as_usual();
    }
    // And it is well again.
    let mut changed = stock(0..300);
    changed[5]["existencia"] = json!(777.0);
    klk.stock("t1", changed);
    until(&daemon, &sink, "SELECT existencia FROM inventario WHERE codigo = '000005'", "777").await;
}
