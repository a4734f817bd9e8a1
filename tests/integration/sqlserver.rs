//! SQL Server into Postgres: every type, every way that changes are found, and whatever goes wrong on the way takes nothing away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use caudal_tests::tds::model::{PASSWORD, column, sent};
use caudal_tests::tds::{Certificate, End, Mssql, Refusal, Reply, Request, Ty, Value};
use caudal_tests::{Daemon, DaemonConfig, PgDatabase, Postgres, patience};

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

/// Waits until the daemon's log has a text.
async fn logged(daemon: &Daemon, text: &str) {
    let seen = async || Ok(daemon.log().contains(text));
    let waited = patience::until(text, PATIENCE, Duration::from_millis(100), seen).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

/// Statements with a word that came so far.
fn count(server: &Mssql, word: &str) -> usize {
    server.state().asked.iter().filter(|request| request.sql.contains(word)).count()
}

/// Waits until so many more statements with a word have come.
async fn asked(daemon: &Daemon, server: &Mssql, word: &str, more: usize) {
    let before = count(server, word);
    let seen = async || Ok(count(server, word) >= before + more);
    let waited = patience::until(word, PATIENCE, Duration::from_millis(50), seen).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

fn config(name: &str, server: &Mssql, sink: &PgDatabase, lines: &[&str]) -> DaemonConfig {
    DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source_of("stellar", "sqlserver", &server.url(), &[])
        .source_lines("stellar", &["environment: local", "tls: {mode: disabled}", "every: 200ms"])
        .source_lines("stellar", lines)
        .sink("pg", sink, &["consistency: transaction"])
}

fn words(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// `id int PRIMARY KEY, nombre nvarchar(80), rv rowversion`
fn products(server: &Mssql, rows: i64) {
    let columns = vec![column("id", "int"), column("nombre", "nvarchar(80)"), column("rv", "timestamp")];
    server.create("Productos", columns, 1);
    (1..=rows).for_each(|id| product(server, id, &format!("Producto {id}")));
}

fn product(server: &Mssql, id: i64, name: &str) {
    server.put("Productos", vec![Value::Int(id), words(name), Value::Null]);
}

const REFRESH: &[&str] = &["tables:", "  productos: {from: dbo.Productos}"];

#[tokio::test]
async fn a_table_of_sql_server_follows_its_changes_and_deletes() {
    let (server, sink) = (Mssql::start().await.unwrap(), Postgres::shared().database("mssql").await.unwrap());
    products(&server, 300);
    let daemon = Daemon::start(&config("mssql_a", &server, &sink, REFRESH)).unwrap();
    until(&daemon, &sink, "SELECT count(*) || ' ' || max(nombre) FROM productos", "300 Producto 99").await;
    product(&server, 7, "Ñandú 🦤");
    server.delete("Productos", &Value::Int(300));
    until(&daemon, &sink, "SELECT nombre FROM productos WHERE id = 7", "Ñandú 🦤").await;
    until(&daemon, &sink, "SELECT count(*) FROM productos", "299").await;
    // What does not change is not written again.
    let events = async || {
        let status: serde_json::Value =
            serde_json::from_str(&daemon.get("/status").await.unwrap().1).unwrap();
        status["pipelines"][0]["events"].clone()
    };
    let before = events().await;
    asked(&daemon, &server, "FROM (", 5).await;
    assert_eq!(before, events().await);
    assert!(!daemon.log().contains(PASSWORD), "the password is in the log");
}

/// Native type, value as it is sent, and what Postgres has of it as text.
fn types() -> Vec<(&'static str, Value, &'static str)> {
    let guid = *b"\x6F\x96\x19\xFF\x8B\x86\xD0\x11\xB4\x2D\x00\xC0\x4F\xC9\x64\xFF";
    vec![
        ("int", Value::Int(1), "1"),
        ("bit", Value::Bool(true), "true"),
        ("tinyint", Value::Int(255), "255"),
        ("smallint", Value::Int(-32768), "-32768"),
        ("bigint", Value::Int(i64::MIN), "-9223372036854775808"),
        ("real", Value::Float(0.5), "0.5"),
        ("float", Value::Float(0.1), "0.1"),
        ("decimal(38,0)", Value::Decimal(10_i128.pow(38) - 1), "99999999999999999999999999999999999999"),
        ("decimal(38,10)", Value::Decimal(-5), "-0.0000000005"),
        ("numeric(9,2)", Value::Decimal(-123_456_789), "-1234567.89"),
        ("decimal(28,3)", Value::Decimal(10_i128.pow(28) - 1), "9999999999999999999999999.999"),
        ("money", Value::Decimal(i128::from(i64::MAX)), "922337203685477.5807"),
        ("smallmoney", Value::Decimal(-2_147_483_648), "-214748.3648"),
        ("date", Value::Date(719_162), "1970-01-01"),
        ("time(7)", Value::Time(863_999_999_990), "23:59:59.999999"),
        ("time(0)", Value::Time(1), "00:00:01"),
        ("datetime", Value::DateTime(46_080, 1), "2026-03-01 00:00:00.003"),
        ("smalldatetime", Value::SmallDateTime(46_080, 61), "2026-03-01 01:01:00"),
        ("datetime2(7)", Value::DateTime2(739_675, 1_234_560), "2026-03-01 00:00:00.123456"),
        ("datetime2(0)", Value::DateTime2(739_675, 1), "2026-03-01 00:00:01"),
        ("datetimeoffset(3)", Value::DateTimeOffset(739_675, 1_500, -240), "2026-03-01 00:00:01.5+00"),
        ("uniqueidentifier", Value::Guid(guid), "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        ("nvarchar(40)", words("ñandú 🦤"), "ñandú 🦤"),
        ("nvarchar(max)", Value::Text("x".repeat(20_000)), "(20000)"),
        ("varchar(20)", Value::Bytes(b"caf\xE9 \x80".to_vec()), "café €"),
        ("varchar(max)", Value::Bytes(vec![b'y'; 9_000]), "(9000)"),
        ("varbinary(8)", Value::Bytes(vec![0, 255]), "\\x00ff"),
        ("varbinary(max)", Value::Bytes(vec![1; 10_000]), "(20002)"),
        ("binary(2)", Value::Bytes(vec![7, 0]), "\\x0700"),
        ("xml", words("<a>1</a>"), "<a>1</a>"),
    ]
}

#[tokio::test]
async fn every_type_arrives_exactly_and_null_is_null() {
    let (server, sink) = (Mssql::start().await.unwrap(), Postgres::shared().database("mssql").await.unwrap());
    let all = types();
    let names: Vec<String> = (0..all.len()).map(|i| format!("c{i}")).collect();
    server.create(
        "Tipos",
        all.iter().zip(&names).map(|((native, ..), name)| column(name, native)).collect(),
        1,
    );
    server.put("Tipos", all.iter().map(|(_, value, _)| value.clone()).collect());
    let nulls = (1..all.len()).map(|_| Value::Null);
    server.put("Tipos", std::iter::once(Value::Int(2)).chain(nulls).collect());
    let lines = ["tables:", "  tipos: {from: \"[dbo].[Tipos]\"}"];
    let daemon = Daemon::start(&config("mssql_b", &server, &sink, &lines)).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM tipos", "2").await;
    for ((native, _, expected), name) in all.iter().zip(&names) {
        let told = one(&sink, &format!("SELECT {name}::text FROM tipos WHERE c0 = 1")).await.unwrap();
        let told = if told.len() > 1_000 { format!("({})", told.len()) } else { told };
        assert_eq!(told, *expected, "{native}");
    }
    let null = names[1..].iter().map(|name| format!("{name} IS NULL")).collect::<Vec<_>>().join(" AND ");
    assert_eq!(one(&sink, &format!("SELECT {null} FROM tipos WHERE c0 = 2")).await.unwrap(), "true");
}

#[tokio::test]
async fn by_rowversion_a_transaction_that_commits_late_is_not_passed_over() {
    let (server, sink) = (Mssql::start().await.unwrap(), Postgres::shared().database("mssql").await.unwrap());
    products(&server, 3);
    let lines = ["tables:", "  productos: {from: dbo.Productos, mode: incremental, column: rv}"];
    let daemon = Daemon::start(&config("mssql_c", &server, &sink, &lines)).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM productos", "3").await;
    // Version 4 is of a transaction that goes on; version 5 is committed.
    let late = {
        let mut state = server.state();
        state.version += 1;
        state.active_from = Some(state.version);
        state.version
    };
    product(&server, 5, "antes");
    asked(&daemon, &server, "MIN_ACTIVE_ROWVERSION", 4).await;
    {
        let mut state = server.state();
        let row = vec![Value::Int(4), words("tarde"), Value::Bytes(late.to_be_bytes().to_vec())];
        state.tables.get_mut("Productos").unwrap().rows.push(row);
        state.active_from = None;
    }
    until(
        &daemon,
        &sink,
        "SELECT string_agg(nombre, ',' ORDER BY id) FROM productos WHERE id > 3",
        "tarde,antes",
    )
    .await;
    // Only what is new is asked for.
    let last = server.state().asked.iter().rev().find(|r| r.sql.contains("FROM (")).cloned().unwrap();
    assert!(last.sql.contains(">= @P2") && last.params.len() == 2, "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_time_rows_within_the_overlap_are_read_again_and_a_clock_ahead_is_no_watermark() {
    let (server, sink) = (Mssql::start().await.unwrap(), Postgres::shared().database("mssql").await.unwrap());
    let columns = vec![column("id", "int"), column("cambiado", "datetime2(7)")];
    server.create("Ventas", columns, 1);
    let now = (jiff::Timestamp::now().as_second() + 719_162 * 86_400) as u64;
    let row = |id: i64, at: u64| {
        vec![Value::Int(id), Value::DateTime2((at / 86_400) as u32, at % 86_400 * 10_000_000)]
    };
    server.put("Ventas", row(1, now - 3_600));
    // A clock a year ahead: were it the watermark, nothing would be read for a year.
    server.put("Ventas", row(2, now + 31_536_000));
    let lines = ["tables:", "  ventas: {from: Ventas, mode: incremental, column: cambiado, overlap: 10m}"];
    let daemon = Daemon::start(&config("mssql_d", &server, &sink, &lines)).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM ventas", "2").await;
    asked(&daemon, &server, ">= @P1", 1).await;
    server.put("Ventas", row(3, now - 300));
    server.put("Ventas", row(4, now - 3_000));
    until(&daemon, &sink, "SELECT count(*) FROM ventas WHERE id = 3", "1").await;
    assert_eq!(
        one(&sink, "SELECT count(*) FROM ventas WHERE id = 4").await.unwrap(),
        "0",
        "older than the overlap"
    );
    // A longer look back, for once.
    let (code, said) = caudal(&daemon, &["poll", "stellar", "ventas", "--lookback", "1", "--dry-run"]);
    assert!(code == 0 && said.contains("1 changed"), "{code} {said}");
    let (code, said) = caudal(&daemon, &["poll", "stellar", "ventas", "--lookback", "1"]);
    assert!(code == 0 && said.contains("1 changed"), "{code} {said}");
    until(&daemon, &sink, "SELECT count(*) FROM ventas", "4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_servers_two_clocks_the_lower_one_bounds_the_watermark() {
    let (server, sink) = (Mssql::start().await.unwrap(), Postgres::shared().database("mssql").await.unwrap());
    server.create("Ventas", vec![column("id", "int"), column("cambiado", "datetime2(7)")], 1);
    let utc = jiff::Timestamp::now().as_second();
    let row = |id: i64, hours: i64| {
        let at = (utc - hours * 3_600 + 719_162 * 86_400) as u64;
        vec![Value::Int(id), Value::DateTime2((at / 86_400) as u32, at % 86_400 * 10_000_000)]
    };
    // Its wall clock is four hours behind, and `cambiado` is of the wall clock.
    server.instead(move |request| {
        let clocks = vec![Value::Int(utc * 1_000_000), Value::Int((utc - 4 * 3_600) * 1_000_000)];
        let columns = vec![(String::new(), Ty::BigInt), (String::new(), Ty::BigInt)];
        let is_meant = request.sql.starts_with("SELECT DATEDIFF_BIG");
        is_meant.then(|| vec![Reply::Rows(columns, Box::new(vec![clocks].into_iter()), End::Done)])
    });
    // Somebody's clock is wrong by two hours.
    server.put("Ventas", row(1, 2));
    let lines = ["tables:", "  ventas: {from: Ventas, mode: incremental, column: cambiado, overlap: 10m}"];
    let daemon = Daemon::start(&config("mssql_w", &server, &sink, &lines)).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM ventas", "1").await;
    asked(&daemon, &server, ">= @P1", 1).await;
    server.put("Ventas", row(2, 3));
    until(&daemon, &sink, "SELECT count(*) FROM ventas WHERE id = 2", "1").await;
}

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

/// Inserts, updates and deletes, as Change Tracking or Change Data Capture tells them.
async fn changes_are_followed(name: &str, mode: &str, marker: &str) {
    let (server, sink) = (Mssql::start().await.unwrap(), Postgres::shared().database("mssql").await.unwrap());
    products(&server, 5);
    {
        let mut state = server.state();
        let table = state.tables.get_mut("Productos").unwrap();
        (table.tracked_from, table.is_captured) = (Some(0), true);
    }
    let line = format!("  productos: {{from: dbo.Productos, mode: {mode}}}");
    let daemon = Daemon::start(&config(name, &server, &sink, &["tables:", &line])).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM productos", "5").await;
    product(&server, 6, "nuevo");
    product(&server, 2, "otro");
    server.delete("Productos", &Value::Int(3));
    product(&server, 7, "breve");
    server.delete("Productos", &Value::Int(7));
    let told = "SELECT string_agg(id || '=' || nombre, ',' ORDER BY id) FROM productos";
    until(&daemon, &sink, told, "1=Producto 1,2=otro,4=Producto 4,5=Producto 5,6=nuevo").await;
    // The table itself was read once.
    assert_eq!(count(&server, "FROM [dbo].[Productos] AS q"), 1 + count(&server, "TOP (0)"));
    assert!(count(&server, marker) > 0);
}

#[tokio::test]
async fn change_tracking_tells_inserts_updates_and_deletes() {
    changes_are_followed("mssql_e", "change_tracking", "CHANGETABLE").await;
}

#[tokio::test]
async fn change_data_capture_tells_inserts_updates_and_deletes() {
    changes_are_followed("mssql_f", "cdc", "fn_cdc_get_all_changes_dbo_Productos").await;
}

/// Changes are no longer there when, or while, they are to be read.
async fn cleaned_up(name: &str, mode: &str, clean_up: impl Fn(&Mssql)) {
    let (server, sink) = (Mssql::start().await.unwrap(), Postgres::shared().database("mssql").await.unwrap());
    products(&server, 5);
    {
        let mut state = server.state();
        let table = state.tables.get_mut("Productos").unwrap();
        (table.tracked_from, table.is_captured) = (Some(0), true);
    }
    let line =
        format!("  productos: {{from: dbo.Productos, mode: {mode}, schedule: {{cron: \"0 3 29 2 *\"}}}}");
    let lines = ["tables:", &line, "  otros: {from: dbo.Productos}"];
    let daemon = Daemon::start(&config(name, &server, &sink, &lines)).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM productos", "5").await;
    server.delete("Productos", &Value::Int(5));
    product(&server, 1, "otro");
    clean_up(&server);
    let (code, said) = caudal(&daemon, &["poll", "stellar", "productos"]);
    assert!(code == 1 && said.contains("what lies between is lost"), "{code} {said}");
    server.as_usual();
    assert_eq!(one(&sink, "SELECT count(*) FROM productos").await.unwrap(), "5");
    for absent in [true, false] {
        let (code, said) = caudal(&daemon, &["poll", "stellar", "productos", "--force"]);
        assert!(code == 0 && said.contains("4 rows read, 4 changed"), "{code} {said}");
        assert_eq!(said.contains("1 known rows did not come: a second forced run"), absent, "{said}");
    }
    until(&daemon, &sink, "SELECT count(*) || max(nombre) FROM productos", "4otro").await;
    let (code, said) = caudal(&daemon, &["poll", "stellar", "productos"]);
    assert!(code == 0 && said.contains("0 rows read"), "{code} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_were_cleaned_up_are_an_error_and_a_forced_run_mends_it() {
    let tracked = |server: &Mssql| {
        let mut state = server.state();
        let version = state.version;
        state.tables.get_mut("Productos").unwrap().tracked_from = Some(version);
    };
    cleaned_up("mssql_g", "change_tracking", tracked).await;
    let captured = |server: &Mssql| {
        let mut state = server.state();
        let version = state.version;
        state.tables.get_mut("Productos").unwrap().captured_from = version;
    };
    cleaned_up("mssql_gc", "cdc", captured).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_are_cleaned_up_while_they_are_read_are_an_error() {
    let meanwhile = |server: &Mssql| {
        // Asked for again, behind the rows.
        server.instead(|request| {
            let is_meant = request.sql.starts_with("SELECT CHANGE_TRACKING_MIN_VALID_VERSION");
            let rows = Box::new(vec![vec![Value::Int(1_000)]].into_iter());
            is_meant.then(|| vec![Reply::Rows(vec![(String::new(), Ty::BigInt)], rows, End::Done)])
        });
    };
    cleaned_up("mssql_gm", "change_tracking", meanwhile).await;
    let meanwhile = |server: &Mssql| {
        server.instead(|request| {
            let is_meant = request.sql == "SELECT sys.fn_cdc_get_min_lsn(@P1)";
            let rows = Box::new(vec![vec![Value::Bytes(vec![0xff; 10])]].into_iter());
            is_meant.then(|| vec![Reply::Rows(vec![(String::new(), Ty::Binary(10))], rows, End::Done)])
        });
    };
    cleaned_up("mssql_gd", "cdc", meanwhile).await;
}

/// What goes wrong in the middle of the rows, and what the log says of it.
#[tokio::test]
async fn whatever_breaks_in_the_middle_of_rows_takes_nothing_away() {
    let (server, sink) = (Mssql::start().await.unwrap(), Postgres::shared().database("mssql").await.unwrap());
    products(&server, 300);
    // Another table is well: so the source goes on.
    server.create("Almacenes", vec![column("id", "int")], 1);
    let lines =
        [&["timeout: 2s", "attempts: 1", "page_rows: 50"][..], REFRESH, &["  almacenes: {from: Almacenes}"]]
            .concat();
    let daemon = Daemon::start(&config("mssql_h", &server, &sink, &lines)).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM productos", "300").await;
    let value = "Conversion failed when converting the varchar value 'un secreto' to data type int.";
    for (end, said) in [
        (End::Error(Refusal::new(245, 16, value)), "a value cannot be converted (error 245)"),
        (End::Error(Refusal::new(1205, 13, "You are the victim")), "the victim of a deadlock"),
        (
            End::Error(Refusal::new(229, 14, "SELECT denied on Productos")),
            "SELECT is not allowed (error 229: SELECT denied on Productos)",
        ),
        (End::Cut, "the connection broke"),
        (End::Stall, "no page within 2s"),
    ] {
        let ends = end.clone();
        let half: Vec<Vec<Value>> = server.state().tables["Productos"].rows[..150].to_vec();
        let columns = sent(&server.state().tables["Productos"]);
        server.instead(move |request| {
            let rows = Box::new(half.clone().into_iter());
            let is_meant = request.sql.starts_with("SELECT q.") && request.sql.contains("Productos");
            is_meant.then(|| vec![Reply::Rows(columns.clone(), rows, ends.clone())])
        });
        logged(&daemon, said).await;
        server.as_usual();
    }
    // Two whole runs after the last half one, and still all rows are there.
    asked(&daemon, &server, "FROM [dbo].[Productos]", 4).await;
    assert_eq!(one(&sink, "SELECT count(*) FROM productos").await.unwrap(), "300");
    assert!(!daemon.log().contains("un secreto"), "a value of a row is in the log");
    product(&server, 301, "después");
    until(&daemon, &sink, "SELECT count(*) FROM productos", "301").await;
}

#[tokio::test]
async fn a_deadlock_or_a_broken_connection_is_tried_again_within_the_run() {
    broken("page_rows: 50").await;
}

#[tokio::test]
async fn what_breaks_on_the_first_page_is_tried_again_too() {
    broken("page_rows: 10000").await;
}

async fn broken(pages: &str) {
    let (server, sink) = (Mssql::start().await.unwrap(), Postgres::shared().database("mssql").await.unwrap());
    products(&server, 300);
    let times = Arc::new(AtomicUsize::new(0));
    let (counted, columns) = (Arc::clone(&times), sent(&server.state().tables["Productos"]));
    let half: Vec<Vec<Value>> = server.state().tables["Productos"].rows[..150].to_vec();
    server.instead(move |request: &Request| {
        let end = match request.sql.contains("FROM (").then(|| counted.fetch_add(1, Ordering::Relaxed))? {
            0 => End::Error(Refusal::new(1205, 13, "You are the victim")),
            1 => End::Cut,
            _ => return None,
        };
        Some(vec![Reply::Rows(columns.clone(), Box::new(half.clone().into_iter()), end)])
    });
    let lines = [
        "attempts: 4",
        pages,
        "tables:",
        "  productos: {from: dbo.Productos, schedule: {cron: \"0 3 29 2 *\"}}",
    ];
    let daemon = Daemon::start(&config("mssql_i", &server, &sink, &lines)).unwrap();
    // There is but one run: the next is in years.
    until(&daemon, &sink, "SELECT count(*) FROM productos", "300").await;
    assert_eq!(times.load(Ordering::Relaxed), 3);
    let (code, said) = caudal(&daemon, &["schedule"]);
    assert!(code == 0 && said.contains("300 rows"), "{code} {said}");
}

/// A source that is checked with a line changed.
async fn checked(server: &Mssql, sink: &PgDatabase, line: &str) -> (i32, String) {
    let lines = [&["connect_timeout: 2s", line][..], REFRESH].concat();
    let mut config = DaemonConfig::new("mssql_check")
        .source_of("stellar", "sqlserver", &server.url(), &[])
        .source_lines("stellar", &["environment: local"])
        .sink("pg", sink, &[]);
    if !line.starts_with("tls") {
        config = config.source_line("stellar", "tls: {mode: disabled}");
    }
    let daemon = Daemon::prepare(&config.source_lines("stellar", &lines)).unwrap();
    caudal(&daemon, &["check"])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_tells_a_dead_host_from_a_wrong_password_and_a_missing_database() {
    let (server, sink) = (Mssql::start().await.unwrap(), Postgres::shared().database("mssql").await.unwrap());
    products(&server, 1);
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf_port = deaf.local_addr().unwrap().port();
    let closed = caudal_tests::ports::free_port().unwrap();
    for (line, expected) in [
        ("isolation: snapshot", "reached, logged in; SQL Server 16.0.1000.6"),
        (&format!("port: {closed}"), "cannot be reached: VPN or host down"),
        (&format!("port: {deaf_port}"), "it is reached, but does not speak within 2s"),
        ("password: falso", "the login failed (error 18456"),
        ("database: nada", "the database is not there, or this login may not open it (error 4060"),
        ("tls: {mode: required}", "the server does not encrypt connections"),
    ] {
        let (_, said) = checked(&server, &sink, line).await;
        assert!(said.contains(expected), "{line}: {said}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
    server.state().tables.clear();
    let (code, said) = checked(&server, &sink, "isolation: read_uncommitted").await;
    assert!(code == 1 && said.contains("there is no such table or view"), "{code} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_and_the_certificate_is_checked_as_far_as_is_asked() {
    let sink = Postgres::shared().database("mssql").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(folder.path(), "pos.example").unwrap();
    let server = Mssql::start_with("127.0.0.1", 0, Some(certificate), true).await.unwrap();
    products(&server, 3);
    let ca = folder.path().join("cert.pem");
    for (line, expected) in [
        ("tls: {mode: required}".to_owned(), "reached, logged in"),
        (format!("tls: {{mode: verify-ca, ca: {}}}", ca.display()), "reached, logged in"),
        (
            format!("tls: {{mode: verify-identity, ca: {}}}", ca.display()),
            "the server's certificate does not hold",
        ),
        ("tls: {mode: verify-identity}".to_owned(), "the server's certificate does not hold"),
        ("tls: {mode: disabled}".to_owned(), "the server insists on encryption"),
    ] {
        let (_, said) = checked(&server, &sink, &line).await;
        assert!(said.contains(expected), "{line}: {said}");
    }
    // More than a packet and more than a TLS record.
    (4..3_000).for_each(|id| product(&server, id, &"x".repeat(40)));
    let config = DaemonConfig::new(&format!("mssql_tls{}", std::process::id()))
        .source_of("stellar", "sqlserver", &server.url(), &[])
        .source_lines("stellar", &["environment: local", "every: 200ms"])
        .source_lines("stellar", REFRESH)
        .sink("pg", &sink, &[]);
    let daemon = Daemon::start(&config).unwrap();
    until(&daemon, &sink, "SELECT count(*) FROM productos", "2999").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_have_their_own_servers_and_their_attributes_are_bound_into_the_query() {
    let sink = Postgres::shared().database("mssql").await.unwrap();
    let servers = [Mssql::start().await.unwrap(), Mssql::start().await.unwrap()];
    for (at, server) in servers.iter().enumerate() {
        let columns = vec![
            column("codigo", "varchar(10)"),
            column("deposito", "nvarchar(20)"),
            column("precio", "money"),
        ];
        server.create("Inventario", columns, 1);
        for code in 0..20_u8 {
            let deposit = words(if code % 2 == 0 { "0001" } else { "0'2" });
            let row = vec![
                Value::Bytes(vec![b'A' + code]),
                deposit,
                Value::Decimal(i128::from(code) * 1_250 + at as i128),
            ];
            server.put("Inventario", row);
        }
    }
    let dead = caudal_tests::ports::free_port().unwrap();
    let list = format!(
        "stores: {{concurrent: 2, columns: {{ubicacion_id: ubicacion_id}}, list: [\
         {{id: frio, server: 10.255.255.1, server_local: 127.0.0.1, port: {}, database: VAD10, deposito: \"0001\", ubicacion_id: 101}},\
         {{id: seco, server: 127.0.0.1, port: {}, database: VAD10, deposito: \"0'2\", ubicacion_id: 102}},\
         {{id: verde, server: 127.0.0.1, port: {dead}, database: VAD10, deposito: \"0003\", ubicacion_id: 103}}]}}",
        servers[0].port, servers[1].port
    );
    let lines = [
        "environment: local",
        "tls: {mode: disabled}",
        "connect_timeout: 5s",
        "attempts: 1",
        "every: 300ms",
        "user: caudal",
        &format!("password: {PASSWORD}"),
        &list,
        "tables:",
        "  inventario:",
        "    query: \"SELECT codigo, deposito, precio FROM dbo.Inventario WHERE deposito = {codigo_deposito} -- solo lo suyo\"",
        "    params: {codigo_deposito: \"{store.deposito}\"}",
        "    key: [codigo]",
    ];
    let config = DaemonConfig::new(&format!("mssql_s{}", std::process::id()))
        .source_of("stellar", "sqlserver", "sqlserver://unused:1/unused", &[])
        .source_lines("stellar", &lines)
        .sink("pg", &sink, &[]);
    let daemon = Daemon::start(&config).unwrap();
    let told = "SELECT string_agg(ubicacion_id || '=' || n || '/' || s, ' ' ORDER BY ubicacion_id) FROM (SELECT ubicacion_id, count(*) n, sum(precio) s FROM inventario GROUP BY 1) x";
    until(&daemon, &sink, told, "101=10/11.2500 102=10/12.5010").await;
    logged(&daemon, "VPN or host down").await;
    let (code, said) = caudal(&daemon, &["poll", "stellar", "--todas"]);
    assert!(code == 1 && said.contains("inventario@frio: 10 rows read, 0 changed"), "{code} {said}");
    assert!(said.contains(&format!("127.0.0.1:{dead} cannot be reached")), "{said}");
}
