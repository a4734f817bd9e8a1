//! A JSON API into Postgres: what it answers arrives, and what it answers wrongly takes nothing away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use caudal_tests::klk::{KEY, Klk, Reply, article};
use caudal_tests::{Daemon, DaemonConfig, PgDatabase, Postgres, patience};
use serde_json::{Value, json};

use crate::monitoring::{wait_for, was};

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
    "every: 200ms",
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
        .source_line("klk", "dir: \"{data_dir}/poll\"")
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

/// What comes for a page's number.
type Answer = Box<dyn FnMut(u32) -> Reply + Send>;

/// A wrong answer, by name, and what the log says of it. The API gives it from the start of a run on, as long as it is set.
fn wrong_answers() -> Vec<(&'static str, Answer, &'static str)> {
    let items =
        |items: Vec<Value>| Reply::json(&json!({ "data": { "items": items }, "meta": { "total": 300 } }));
    let all = move |page: u32| stock(page.saturating_sub(1) * 100..page.min(3) * 100);
    let mut half = false;
    vec![
        (
            "html",
            Box::new(|_| Reply::text(200, "<html>Mantenimiento</html>")),
            "web page came in place of JSON",
        ),
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

const STORES: &[&str] = &[
    "zone: America/Caracas",
    "attempts: 1",
    "stores:",
    "  columns: {ubicacion_id: ubicacion}",
    "  list:",
    "    - {id: tienda_01, ubicacion: U1, activo: true}",
    "    - {id: tienda_02, ubicacion: U2, activo: true}",
    "    - {id: tienda_03, ubicacion: U3, activo: true}",
    "    - {id: tienda_04, ubicacion: U4, activo: false}",
    "tables:",
    "  inventario:",
    "    path: \"/{store.id}/inventario\"",
    "    records: data.items",
    "    paging: {type: page, size: 100, total: meta.total}",
    "    key: [codigo]",
    "    schedule: {cron: \"0 3 29 2 *\"}",
];

fn caudal(daemon: &Daemon, arguments: &[&str]) -> (i32, String) {
    let out = std::process::Command::new(caudal_tests::daemon::binary().unwrap())
        .arg("--config")
        .arg(daemon.config_file())
        .args(arguments)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code().unwrap_or(-1), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_share_a_table_and_one_that_is_down_stops_no_other() {
    let (klk, sink) = (Klk::start().await.unwrap(), Postgres::shared().database("rest").await.unwrap());
    for store in ["tienda_01", "tienda_02", "tienda_03", "tienda_04"] {
        klk.stock(store, stock(0..150));
    }
    let is_down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    klk.instead(move |asked| {
        let dead = down.load(Ordering::Relaxed) && asked.path.contains("tienda_02");
        dead.then(|| Reply::text(503, "{}"))
    });
    let config = config("rest_c", &klk, &sink, STORES).extra("kafka:\n  monitoring: {interval: 1s}");
    let daemon = Daemon::start(&config).unwrap();
    let count = "SELECT string_agg(ubicacion_id || '=' || n, ' ' ORDER BY ubicacion_id) FROM (SELECT ubicacion_id, count(*) n FROM inventario GROUP BY 1) x";
    until(&daemon, &sink, count, "U1=150 U3=150").await;
    daemon.wait_log("answered 503", PATIENCE).await.unwrap();
    let (code, said) = caudal(&daemon, &["schedule"]);
    assert!(code == 1 && said.contains("answered 503") && said.contains("tienda_01"), "{code} {said}");
    let alerts = format!("caudal.rest_c{}.alerts", std::process::id());
    let failed = "capture/klk/poll_failed/klk.inventario/tienda_02";
    let is_told = |all: &[Value]| was(all, failed, "open");
    let told = wait_for(&daemon, &alerts, "the store that is down", is_told).await;
    assert!(told.iter().all(|alert| alert["_key"] == failed), "{told:#?}");
    assert!(told[0]["message"].as_str().unwrap().contains("answered 503"), "{told:#?}");
    // A run of those that failed; the schedule would have it in years.
    is_down.store(false, Ordering::Relaxed);
    let (code, said) = caudal(&daemon, &["poll", "klk", "--failed"]);
    assert!(code == 0 && said.contains("inventario@tienda_02: 150 rows read, 150 changed"), "{code} {said}");
    until(&daemon, &sink, count, "U1=150 U2=150 U3=150").await;
    wait_for(&daemon, &alerts, "the store that is up again", |all| was(all, failed, "resolved")).await;
    // What is gone from one store is deleted there alone, by the second run.
    klk.stock("tienda_01", stock(10..150));
    for deleted in ["0 deleted", "10 deleted"] {
        let (code, said) = caudal(&daemon, &["poll", "klk", "inventario", "--tienda", "tienda_01"]);
        assert!(code == 0 && said.contains(deleted), "{code} {said}");
    }
    until(&daemon, &sink, count, "U1=140 U2=150 U3=150").await;
    let (code, said) = caudal(&daemon, &["poll", "klk", "--todas"]);
    assert!(code == 0 && said.matches("0 changed, 0 deleted").count() == 3, "{code} {said}");
    let (code, said) = caudal(&daemon, &["poll", "klk", "--tienda", "tienda_04"]);
    assert!(code != 0 && said.contains("tienda_01, tienda_02, tienda_03"), "{code} {said}");
    assert_eq!(caudal(&daemon, &["schedule"]).0, 0);
}

#[tokio::test]
async fn a_server_that_asks_to_wait_is_waited_for_and_a_page_that_failed_is_asked_for_again() {
    let (klk, sink) = (Klk::start().await.unwrap(), Postgres::shared().database("rest").await.unwrap());
    klk.stock("t1", stock(0..500));
    let refused = Arc::new(AtomicUsize::new(0));
    let times = Arc::clone(&refused);
    // Each page is refused at first.
    let mut seen = std::collections::BTreeSet::new();
    klk.instead(move |asked| {
        let page = asked.parameters["page"].clone();
        seen.insert(page).then(|| {
            times.fetch_add(1, Ordering::Relaxed);
            Reply::text(429, "{}").header("Retry-After", "1")
        })
    });
    let daemon = Daemon::start(&config("rest_d", &klk, &sink, INVENTORY)).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM inventario", "500").await;
    assert_eq!(refused.load(Ordering::Relaxed), 5);
    let pages: Vec<String> = klk.state().asked.iter().take(10).cloned().collect();
    let page = |target: &String| target.rsplit('=').next().unwrap_or_default().to_owned();
    assert_eq!(
        pages.iter().map(page).collect::<Vec<_>>(),
        ["1", "1", "2", "2", "3", "3", "4", "4", "5", "5"],
        "{pages:?}"
    );
}

#[tokio::test]
async fn a_server_that_asks_to_wait_for_long_holds_no_other_stores_server_up() {
    let (busy, klk) = (Klk::start().await.unwrap(), Klk::start().await.unwrap());
    let sink = Postgres::shared().database("rest").await.unwrap();
    klk.stock("t1", stock(0..150));
    busy.instead(|_| Some(Reply::text(429, "{}").header("Retry-After", "600")));
    let place = |klk: &Klk| klk.url().trim_start_matches("http://").to_owned();
    let lines = [
        "every: 200ms",
        "stores:",
        "  list:",
        &format!("    - {{id: busy, place: \"{}\"}}", place(&busy)),
        &format!("    - {{id: free, place: \"{}\"}}", place(&klk)),
        "tables:",
        "  inventario: {path: /t1/inventario, records: data.items, key: [codigo], paging: {type: page, size: 100, total: meta.total}}",
    ];
    let config = DaemonConfig::new(&format!("rest_g{}", std::process::id()))
        .source_of("klk", "rest", "http://{store.place}", &[])
        .source_line("klk", &format!("auth: {{api_key: {KEY}}}"))
        .source_lines("klk", &lines)
        .sink("pg", &sink, &[]);
    let daemon = Daemon::start(&config).unwrap();
    let seen = async || Ok(!busy.state().asked.is_empty());
    patience::until("the busy one is asked", PATIENCE, Duration::from_millis(50), seen).await.unwrap();
    klk.stock("t1", stock(0..151));
    until(&daemon, &sink, "SELECT count(*) FROM inventario WHERE store = 'free'", "151").await;
    assert_eq!(busy.state().asked.len(), 1, "it was to be left alone");
}

#[tokio::test]
async fn a_table_whose_key_is_corrected_begins_anew_under_it_and_follows() {
    let (klk, sink) = (Klk::start().await.unwrap(), Postgres::shared().database("rest_key").await.unwrap());
    klk.stock("t1", stock(0..300));
    let mut daemon = Daemon::start(&config("rest_key", &klk, &sink, INVENTORY)).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM inventario", "300").await;
    daemon.kill().unwrap();
    let wrong = std::fs::read_to_string(daemon.config_file()).unwrap();
    let right = wrong.replace("key: [codigo]", "key: [codigo, departamento]");
    assert_ne!(wrong, right);
    std::fs::write(daemon.config_file(), right).unwrap();
    // Gone while nobody looks: nothing tells of it under the new key.
    klk.stock("t1", stock(1..301));
    daemon.start_again().unwrap();
    let key = "SELECT string_agg(attname, ',' ORDER BY attname) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid \
               AND a.attnum = ANY(i.indkey) WHERE i.indrelid = to_regclass('inventario') AND i.indisprimary";
    until(&daemon, &sink, key, "codigo,departamento").await;
    let codes = "SELECT concat_ws('|', count(*), min(codigo), max(codigo)) FROM inventario";
    until(&daemon, &sink, codes, "300|000001|000300").await;
    let mut changed = stock(2..301);
    changed[0]["existencia"] = json!(0.25);
    klk.stock("t1", changed);
    until(&daemon, &sink, "SELECT existencia FROM inventario WHERE codigo = '000002'", "0.25").await;
    until(&daemon, &sink, codes, "299|000002|000300").await;
}
