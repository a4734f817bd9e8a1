//! BigQuery into Postgres: every type, windows, what a run may cost, and whatever goes wrong on the way takes nothing away.

mod history;
mod storage;

use std::process::Command;
use std::time::Duration;

use caudal_tests::bigquery::{Dataset, Emulator, Front, PROJECT, refusal};
use caudal_tests::klk::Reply;
use caudal_tests::{Daemon, DaemonConfig, PgDatabase, Postgres, patience};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

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

/// What `/status` says of the first pipeline.
async fn status(daemon: &Daemon) -> Value {
    let all: Value = serde_json::from_str(&daemon.get("/status").await.unwrap().1).unwrap();
    all["pipelines"][0].clone()
}

/// The record of a table's last run.
async fn last(daemon: &Daemon, table: &str) -> Value {
    let status = status(daemon).await;
    let polls = status["polls"].as_array().cloned().unwrap_or_default();
    let ends = format!(".{table}");
    let found = polls.iter().find(|p| p["table"].as_str().is_some_and(|name| name.ends_with(&ends)));
    found.map(|poll| poll["last"].clone()).unwrap_or_default()
}

/// Waits until a table's runs, of those that have ended, are so many more. Gives the last one's record.
async fn runs(daemon: &Daemon, table: &str, more: u64) -> Value {
    let number = async || last(daemon, table).await["number"].as_u64().unwrap_or(0);
    let before = number().await;
    let seen = async || Ok(number().await >= before + more);
    let waited = patience::until("runs", PATIENCE, Duration::from_millis(100), seen).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    last(daemon, table).await
}

fn caudal(daemon: &Daemon, arguments: &[&str]) -> (i32, String) {
    let out = Command::new(caudal_tests::daemon::binary().unwrap())
        .arg("--config")
        .arg(daemon.config_file())
        .args(arguments)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code().unwrap_or(-1), said)
}

/// A front, a dataset and a sink of a test's own.
struct Bench {
    front: Front,
    data: Dataset,
    sink: PgDatabase,
}

impl Bench {
    async fn new(name: &str) -> Self {
        let emulator = Emulator::shared();
        let front = Front::start(emulator).await.unwrap();
        let data = emulator.dataset(name).await.unwrap();
        let sink = Postgres::shared().database(name).await.unwrap();
        Self { front, data, sink }
    }

    /// Settings of the source beside these: where it is, and a run every 200 ms.
    fn config(&self, lines: &[&str]) -> DaemonConfig {
        let (endpoint, dataset) =
            (format!("endpoint: {}", self.front.url()), format!("dataset: {}", self.data.id));
        let project = format!("project: {PROJECT}");
        DaemonConfig::new(&format!("{}_{}", self.data.id, std::process::id()))
            .source_of("pulso", "bigquery", "", &[])
            .source_lines("pulso", &[&project, &dataset, &endpoint, "every: 200ms"])
            .source_lines("pulso", lines)
            .sink("pg", &self.sink, &["consistency: transaction"])
    }

    fn start(&self, lines: &[&str]) -> Daemon {
        Daemon::start(&self.config(lines)).unwrap()
    }

    /// `gestiones (id, nombre, fecha)`: so many rows, on ten days of January 2026.
    async fn gestiones(&self, rows: u32) {
        let fill = format!(
            "INSERT INTO `{{}}.gestiones` (id, nombre, fecha) SELECT x, CONCAT('Gestión ', CAST(x AS STRING)), \
             DATE_ADD(DATE '2026-01-01', INTERVAL MOD(x, 10) DAY) FROM UNNEST(GENERATE_ARRAY(1, {rows})) AS x"
        );
        self.run(&[
            "CREATE TABLE `{}.gestiones` (id INT64, nombre STRING, fecha DATE) PARTITION BY fecha",
            &fill,
        ])
        .await;
    }

    async fn run(&self, statements: &[&str]) {
        self.data.run(statements).await.unwrap();
    }
}

const REFRESH: &[&str] = &["tables:", "  gestiones: {key: [id]}"];
const COUNT: &str = "SELECT count(*) FROM gestiones";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_bigquery_follows_its_changes_and_deletes_what_two_runs_did_not_find() {
    let bench = Bench::new("bq_refresh").await;
    bench.gestiones(300).await;
    let daemon = bench.start(REFRESH);
    until(&daemon, &bench.sink, COUNT, "300").await;
    bench
        .run(&[
            "UPDATE `{}.gestiones` SET nombre = 'Ñandú 🦤' WHERE id = 7",
            "DELETE FROM `{}.gestiones` WHERE id = 300",
            "INSERT INTO `{}.gestiones` (id, nombre) VALUES (301, 'sin fecha')",
        ])
        .await;
    until(&daemon, &bench.sink, "SELECT nombre FROM gestiones WHERE id = 7", "Ñandú 🦤").await;
    until(&daemon, &bench.sink, "SELECT count(*) || ' ' || max(id) FROM gestiones", "300 301").await;
    // What does not change is not written again, however often it is read.
    let before = status(&daemon).await["events"].clone();
    let last = runs(&daemon, "gestiones", 3).await;
    assert_eq!(status(&daemon).await["events"], before, "an unchanged table was written again");
    assert_eq!((&last["rows"], &last["changed"]), (&json!(300), &json!(0)), "{last}");
    // What it cost is told: bytes are billed as for ten million at least.
    assert_eq!(last["cost"]["bytes_billed"], 10_000_000, "{last}");
    assert!(
        last["cost"]["slot_ms"].as_u64() > Some(0) && last["cost"]["price"].as_f64() > Some(0.000_05),
        "{last}"
    );
    let asked = bench.front.state().queries().last().unwrap().clone();
    assert_eq!(asked["formatOptions"]["useInt64Timestamp"], true);
    assert_eq!(asked["labels"]["caudal_source"], "pulso");
    let (code, said) = caudal(&daemon, &["schedule"]);
    assert!(code == 0 && said.contains("bytes billed"), "{code} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn types_of_the_emulator_arrive_exactly_and_null_is_null() {
    types(&Bench::new("bq_types").await, &["read: rest"], "").await;
}

/// Every type of the emulator but one, read as `lines` say.
async fn types(bench: &Bench, lines: &[&str], without: &str) {
    let all = [
        ("n", "NUMERIC", "NUMERIC '-12345678901.123'", "-12345678901.123000000"),
        ("f", "FLOAT64", "0.1", "0.1"),
        ("o", "BOOL", "true", "true"),
        ("s", "STRING", "'ñandú \"🦤\"'", "ñandú \"🦤\""),
        ("b", "BYTES", "FROM_BASE64('AP8=')", "\\x00ff"),
        ("ts", "TIMESTAMP", "TIMESTAMP '2026-03-01 10:00:00.123456+00'", "2026-03-01 10:00:00.123456+00"),
        ("dt", "DATETIME", "DATETIME '2026-03-01 10:00:00.5'", "2026-03-01 10:00:00.5"),
        ("d", "DATE", "DATE '2026-03-01'", "2026-03-01"),
        ("t", "TIME", "TIME '23:59:59.999999'", "23:59:59.999999"),
        ("j", "JSON", "JSON '{\"a\": [1, null]}'", "{\"a\": [1, null]}"),
        ("iv", "INTERVAL", "INTERVAL 14 MONTH", "1-2 0 0:0:0"),
        ("r", "RANGE<DATE>", "RANGE<DATE> '[2026-01-01, 2026-02-01)'", "[2026-01-01, 2026-02-01)"),
        (
            "st",
            "STRUCT<a INT64, x ARRAY<STRING>>",
            "STRUCT(9007199254740993 AS a, ['x', 'y'] AS x)",
            "{\"a\": 9007199254740993, \"x\": [\"x\", \"y\"]}",
        ),
        ("l", "ARRAY<INT64>", "[1, 2]", "[1, 2]"),
    ];
    let all: Vec<_> = all.into_iter().filter(|(_, ty, ..)| *ty != without).collect();
    let columns: Vec<String> = all.iter().map(|(name, ty, ..)| format!("{name} {ty}")).collect();
    let names: Vec<&str> = all.iter().map(|(name, ..)| *name).collect();
    let values: Vec<&str> = all.iter().map(|(_, _, value, _)| *value).collect();
    bench
        .run(&[
            &format!("CREATE TABLE `{{}}.tipos` (id INT64, {})", columns.join(", ")),
            &format!("INSERT INTO `{{}}.tipos` (id, {}) VALUES (1, {})", names.join(", "), values.join(", ")),
            "INSERT INTO `{}.tipos` (id) VALUES (2)",
        ])
        .await;
    let daemon = bench.start(&[lines, &["tables:", "  tipos: {key: [id]}"]].concat());
    until(&daemon, &bench.sink, "SELECT count(*) FROM tipos", "2").await;
    for (name, ty, _, expected) in &all {
        let told = one(&bench.sink, &format!("SELECT {name}::text FROM tipos WHERE id = 1")).await.unwrap();
        assert_eq!(told, *expected, "{ty}");
    }
    let null =
        names.iter().filter(|name| **name != "l").map(|name| format!("{name} IS NULL")).collect::<Vec<_>>();
    assert_eq!(
        one(&bench.sink, &format!("SELECT {} FROM tipos WHERE id = 2", null.join(" AND "))).await.unwrap(),
        "true"
    );
}

/// Columns as the service describes them, a value as it writes it, and what Postgres has of it as text: those that the emulator does not know.
fn written() -> Vec<(Value, Value, &'static str)> {
    let field = |name: &str, ty: &str| json!({ "name": name, "type": ty, "mode": "NULLABLE" });
    let largest = "578960446186580977117854925043439539266.34992332820282019728792003956564819967";
    vec![
        (json!({ "name": "id", "type": "INTEGER", "mode": "REQUIRED" }), json!("1"), "1"),
        (field("big", "BIGNUMERIC"), json!(largest), largest),
        (
            json!({ "name": "dinero", "type": "NUMERIC", "precision": "10", "scale": "2" }),
            json!("-0.5"),
            "-0.50",
        ),
        (
            field("exacto", "NUMERIC"),
            json!("-99999999999999999999999999999.999999999"),
            "-99999999999999999999999999999.999999999",
        ),
        (field("lugar", "GEOGRAPHY"), json!("POINT(-77.03 -12.04)"), "POINT(-77.03 -12.04)"),
        (
            json!({ "name": "vigencia", "type": "RANGE", "rangeElementType": { "type": "TIMESTAMP" } }),
            json!("[1772359200000001, UNBOUNDED)"),
            "[2026-03-01T10:00:00.000001Z, UNBOUNDED)",
        ),
        (field("primero", "TIMESTAMP"), json!("-62135596800000000"), "0001-01-01 00:00:00+00"),
        (field("nada", "FLOAT"), json!("NaN"), ""),
        (
            json!({ "name": "detalle", "type": "RECORD", "mode": "REPEATED", "fields": [
                { "name": "monto", "type": "BIGNUMERIC" }, { "name": "cuando", "type": "TIMESTAMP" },
                { "name": "datos", "type": "JSON" }, { "name": "bytes", "type": "BYTES" },
            ] }),
            json!([{ "v": { "f": [{ "v": "0.00000000000000000000000000000000000001" }, { "v": "1772359200000001" },
                { "v": "{\"x\":[1]}" }, { "v": "AP8=" }] } }]),
            "[{\"bytes\": \"AP8=\", \"datos\": {\"x\": [1]}, \"monto\": 0.00000000000000000000000000000000000001, \"cuando\": \"2026-03-01T10:00:00.000001Z\"}]",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_only_the_service_has_arrive_exactly() {
    let bench = Bench::new("bq_wire").await;
    let fields: Vec<Value> = written().into_iter().map(|(field, ..)| field).collect();
    let values: Vec<Value> = written().into_iter().map(|(_, value, _)| json!({ "v": value })).collect();
    bench.front.instead(move |asked| {
        let is_dry = asked.body.contains("\"dryRun\":true");
        let rows = if is_dry { json!([]) } else { json!([{ "f": values }]) };
        Some(Reply::json(&json!({
            "jobComplete": true, "schema": { "fields": fields }, "rows": rows, "totalBytesBilled": "0",
            "jobReference": { "projectId": PROJECT, "jobId": "j1", "location": "US" },
        })))
    });
    let daemon = bench.start(&["tables:", "  tipos: {query: SELECT 1, key: [id]}"]);
    until(&daemon, &bench.sink, "SELECT count(*) FROM tipos", "1").await;
    for (field, _, expected) in written() {
        let name = field["name"].as_str().unwrap();
        let told = one(&bench.sink, &format!("SELECT {name}::text FROM tipos")).await.unwrap();
        assert_eq!(told, expected, "{field}");
    }
    let found = runs(&daemon, "tipos", 1).await["findings"].to_string();
    assert!(found.contains("NaN and infinities are NULL"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_growing_column_late_rows_within_the_overlap_are_read_and_older_ones_are_not() {
    let bench = Bench::new("bq_late").await;
    bench
        .run(&[
            "CREATE TABLE `{}.llamadas` (id INT64, cuando TIMESTAMP)",
            "INSERT INTO `{}.llamadas` (id, cuando) VALUES (1, TIMESTAMP '2026-03-01 10:00:00+00'), (2, TIMESTAMP '2999-01-01 00:00:00+00')",
        ])
        .await;
    let daemon =
        bench.start(&["tables:", "  llamadas: {key: [id], mode: incremental, column: cuando, overlap: 10m}"]);
    until(&daemon, &bench.sink, "SELECT count(*) FROM llamadas", "2").await;
    // A row of the far future is no watermark: were it, nothing would be read for a thousand years. Its time is taken to be now.
    let watermark: i64 = runs(&daemon, "llamadas", 1).await["watermark"].as_str().unwrap().parse().unwrap();
    let now = jiff::Timestamp::now().as_microsecond();
    assert!(watermark > now - 600_000_000 && watermark <= now, "{watermark}");
    bench
        .run(&[
            "INSERT INTO `{}.llamadas` (id, cuando) VALUES (3, TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 5 MINUTE)), (4, TIMESTAMP '2026-03-01 10:00:01+00')",
        ])
        .await;
    until(&daemon, &bench.sink, "SELECT count(*) FROM llamadas WHERE id = 3", "1").await;
    assert_eq!(
        one(&bench.sink, "SELECT count(*) FROM llamadas WHERE id = 4").await.unwrap(),
        "0",
        "older than the overlap"
    );
    // Only what is new is asked for, and the value is bound.
    let asked = bench.front.state().queries().last().unwrap().clone();
    assert!(asked["query"].as_str().unwrap().ends_with("WHERE q.`cuando` >= @caudal_1"), "{asked}");
    assert_eq!(asked["queryParameters"][0]["parameterType"]["type"], "TIMESTAMP", "{asked}");
    // A longer look back, for once.
    let (code, said) = caudal(&daemon, &["poll", "pulso", "llamadas", "--lookback", "36500"]);
    assert!(code == 0 && said.contains("1 changed"), "{code} {said}");
    until(&daemon, &bench.sink, "SELECT count(*) FROM llamadas", "4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sliding_window_reads_corrections_and_leaves_deletes_to_a_refresh() {
    let bench = Bench::new("bq_window").await;
    bench
        .run(&[
            "CREATE TABLE `{}.fotos` (fecha_foto DATE, cartera STRING, monto NUMERIC) PARTITION BY fecha_foto",
            "INSERT INTO `{}.fotos` (fecha_foto, cartera, monto) SELECT DATE_SUB(CURRENT_DATE(), INTERVAL x DAY), 'TEMPRANA', 10 FROM UNNEST(GENERATE_ARRAY(0, 5)) AS x",
        ])
        .await;
    // The query's own place tells the window, and where nothing else does it is the query's matter alone.
    let lines = [
        "zone: UTC",
        "max_deleted_share: 1",
        "tables:",
        "  fotos: {key: [fecha_foto, cartera], mode: sliding_window, column: fecha_foto, lookback: 3d}",
        "  ultimas: {query: \"SELECT * FROM fotos WHERE fecha_foto >= {from:DATE} AND cartera = {cual}\", params: {cual: TEMPRANA}, key: [fecha_foto, cartera], mode: sliding_window, lookback: 1d}",
    ];
    let daemon = bench.start(&lines);
    // Today and three days before; today and yesterday. A day more, if it is midnight just now.
    until(&daemon, &bench.sink, "SELECT count(*) BETWEEN 4 AND 5 FROM fotos", "true").await;
    until(&daemon, &bench.sink, "SELECT count(*) BETWEEN 2 AND 3 FROM ultimas", "true").await;
    bench
        .run(&[
            "UPDATE `{}.fotos` SET monto = 11.5 WHERE fecha_foto >= DATE_SUB(CURRENT_DATE(), INTERVAL 1 DAY)",
            "UPDATE `{}.fotos` SET monto = 99 WHERE fecha_foto = DATE_SUB(CURRENT_DATE(), INTERVAL 5 DAY)",
            "DELETE FROM `{}.fotos` WHERE fecha_foto = DATE_SUB(CURRENT_DATE(), INTERVAL 2 DAY)",
        ])
        .await;
    until(&daemon, &bench.sink, "SELECT count(*) > 1 FROM fotos WHERE monto = 11.5", "true").await;
    runs(&daemon, "fotos", 2).await;
    assert_eq!(
        one(&bench.sink, "SELECT count(*) FROM fotos WHERE monto = 99").await.unwrap(),
        "0",
        "before the window"
    );
    assert_eq!(
        one(&bench.sink, "SELECT count(*) > 3 FROM fotos").await.unwrap(),
        "true",
        "a window deletes nothing"
    );
    // Two refreshes in a row tell what is gone.
    for _ in 0..2 {
        let (code, said) = caudal(&daemon, &["poll", "pulso", "fotos", "--force"]);
        assert!(code == 0, "{said}");
    }
    until(&daemon, &bench.sink, "SELECT count(*) || ' ' || max(monto) FROM fotos", "5 99.000000000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_read_in_slices_by_date_that_meet_and_rows_without_a_date_are_in_one() {
    let bench = Bench::new("bq_slices").await;
    bench
        .run(&[
            "CREATE TABLE `{}.gestiones` (id INT64, fecha DATE) PARTITION BY fecha",
            "INSERT INTO `{}.gestiones` (id, fecha) SELECT x, DATE_SUB(CURRENT_DATE(), INTERVAL x DAY) FROM UNNEST(GENERATE_ARRAY(1, 100)) AS x",
            "INSERT INTO `{}.gestiones` (id) VALUES (101)",
        ])
        .await;
    let since = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date() - jiff::Span::new().days(91);
    let table =
        format!("  gestiones: {{key: [id], slice: 30d, partition: fecha, since: {since}, every: 1h}}");
    let daemon = bench.start(&["parallel: 4", "page_rows: 7", "tables:", &table]);
    until(&daemon, &bench.sink, "SELECT count(*) || ' ' || sum(id) FROM gestiones", "101 5151").await;
    let seen = async || Ok(last(&daemon, "gestiones").await["number"] == 1);
    patience::until("the run's end", PATIENCE, Duration::from_millis(100), seen).await.unwrap();
    // One with all that is older and without a date, two of thirty days, one with what is newer.
    let queries = bench.front.state().queries();
    let bounds: std::collections::BTreeSet<String> =
        queries.iter().map(|body| body["queryParameters"].to_string()).collect();
    assert_eq!((queries.len(), bounds.len()), (4, 4), "one query for each slice, and none twice: {bounds:?}");
    assert_eq!(last(&daemon, "gestiones").await["cost"]["bytes_billed"], 40_000_000, "each is billed once");
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_are_asked_for_as_many_at_a_time_as_parallel_says_and_no_more() {
    let bench = Bench::new("bq_bound").await;
    bench.gestiones(50).await;
    let day =
        |n: i64| jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date() + jiff::Span::new().days(n);
    let (since, second) = (day(-12), (day(-11).to_string(), day(-10).to_string()));
    // Of a dozen pieces the second is refused twice: meanwhile those behind it are asked for.
    let asked: std::sync::Arc<std::sync::Mutex<Vec<String>>> = std::sync::Arc::default();
    let (noted, seen) =
        (std::sync::Arc::clone(&asked), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let at_refusal = std::sync::Arc::clone(&seen);
    bench.front.instead(move |request| {
        let body: Value = serde_json::from_str(&request.body).ok()?;
        let is_piece = request.path.ends_with("/queries") && body["dryRun"] != true;
        let bound = body["queryParameters"].to_string();
        if !is_piece {
            return None;
        }
        let mut all = noted.lock().unwrap();
        if !all.contains(&bound) {
            all.push(bound.clone());
        }
        let is_second = bound.contains(&second.0) && bound.contains(&second.1);
        let mut counts = at_refusal.lock().unwrap();
        (is_second && counts.len() < 2).then(|| {
            counts.push(all.len());
            refusal(503, "backendError", "try again")
        })
    });
    let table = format!("  gestiones: {{key: [id], slice: 1d, partition: fecha, since: {since}, every: 1h}}");
    let daemon = bench.start(&["parallel: 3", "tables:", &table]);
    let read = async || Ok(last(&daemon, "gestiones").await["number"] == 1);
    until(&daemon, &bench.sink, "SELECT count(*) FROM gestiones", "50").await;
    patience::until("the run's end", PATIENCE, Duration::from_millis(100), read).await.unwrap();
    // The first, which was read, and three more: the second among them. By its second refusal, a second later, all of those have been asked for, and none else.
    let counts = seen.lock().unwrap().clone();
    assert!(counts.len() == 2 && counts.iter().all(|count| (2..=4).contains(count)), "{counts:?}");
    assert!(asked.lock().unwrap().len() > 10, "pieces up to today: {asked:?}");
}

/// Has the service say that each query would read so much.
fn enormous(front: &Front, table: &'static str) {
    front.instead(move |asked| {
        let is_it = asked.body.contains("\"dryRun\":true") && asked.body.contains(table);
        is_it.then(|| {
            Reply::json(&json!({
                "jobComplete": true, "totalBytesProcessed": "50000000000", "rows": [],
                "schema": { "fields": [{ "name": "id", "type": "INTEGER" }, { "name": "nombre", "type": "STRING" }, { "name": "fecha", "type": "DATE" }] },
            }))
        })
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_would_bill_too_much_is_refused_before_it_bills_and_the_others_go_on() {
    let bench = Bench::new("bq_guard").await;
    bench.gestiones(20).await;
    bench
        .run(&[
            "CREATE TABLE `{}.enorme` (id INT64, nombre STRING, fecha DATE)",
            "INSERT INTO `{}.enorme` (id) VALUES (1)",
        ])
        .await;
    enormous(&bench.front, "enorme");
    let lines =
        ["maximum_bytes_billed: 1GiB", "tables:", "  enorme: {key: [id]}", "  gestiones: {key: [id]}"];
    let daemon = bench.start(&lines);
    until(&daemon, &bench.sink, COUNT, "20").await;
    let last = runs(&daemon, "enorme", 1).await;
    let error = last["error"].as_str().unwrap_or_default();
    assert!(error.contains("50000000000 bytes") && error.contains("maximum_bytes_billed"), "{last}");
    let billed = bench.front.state().queries();
    assert!(
        !billed.is_empty() && !billed.iter().any(|body| body.to_string().contains("enorme")),
        "it was run"
    );
    assert!(
        billed.iter().all(|body| body["maximumBytesBilled"] == "1073741824"),
        "the service must know the limit, too"
    );
    let (code, said) = caudal(&daemon, &["check"]);
    assert!(code == 1 && said.contains("50000000000"), "{code} {said}");
    // The service may know better than its dry run.
    bench.front.instead(|asked| {
        let runs = asked.path.ends_with("/queries")
            && !asked.body.contains("\"dryRun\":true")
            && asked.body.contains("enorme");
        runs.then(|| {
            refusal(
                400,
                "bytesBilledLimitExceeded",
                "Query exceeded limit for bytes billed: 1073741824. 50000000000 or higher required.",
            )
        })
    });
    let seen = async || {
        let last = runs(&daemon, "enorme", 1).await;
        Ok(last["error"].as_str().is_some_and(|error| error.contains("bytesBilledLimitExceeded")))
    };
    patience::until("the refusal", PATIENCE, Duration::from_millis(100), seen).await.unwrap();
    bench.front.as_usual();
    until(&daemon, &bench.sink, "SELECT count(*) FROM enorme", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_amid_pages_takes_nothing_away_and_runs_no_query_twice() {
    let bench = Bench::new("bq_pages").await;
    bench.gestiones(100).await;
    // Of pages the second one fails as a service does, and then the answer breaks off.
    let mut met = 0;
    bench.front.instead(move |asked| {
        let is_second = asked.parameters.get("pageToken").is_some_and(|token| token == "30");
        met += u32::from(is_second);
        match (is_second, met) {
            (true, 1) => Some(refusal(503, "backendError", "Error encountered during execution.")),
            (true, 2) => Some(Reply { cut: Some(20), ..Reply::text(200, &"x".repeat(200)) }),
            _ => None,
        }
    });
    // Another table goes on: a source of which nothing can be read would be held up as a whole.
    let tables = ["  gestiones: {key: [id], every: 1h}", "  otra: {query: SELECT 1 AS id, key: [id]}"];
    let daemon = bench.start(&["page_rows: 30", "tables:", tables[0], tables[1]]);
    until(&daemon, &bench.sink, COUNT, "100").await;
    let queries = bench.front.state().queries();
    let of_table = queries.iter().filter(|body| body.to_string().contains("gestiones")).count();
    assert_eq!(of_table, 1, "a page that failed is asked for again, not its query");
    // A page that fails for good: the run has failed, and nothing is deleted, although most rows were not met.
    bench.front.instead(|asked| {
        let is_second = asked.parameters.get("pageToken").is_some_and(|token| token == "30");
        is_second.then(|| refusal(400, "invalidQuery", "Bad int64 value: geheim"))
    });
    for _ in 0..2 {
        let (code, said) = caudal(&daemon, &["poll", "pulso", "gestiones"]);
        assert!(code == 1 && said.contains("invalidQuery"), "{code} {said}");
    }
    assert_eq!(one(&bench.sink, COUNT).await.unwrap(), "100");
    let cost = last(&daemon, "gestiones").await["cost"]["bytes_billed"].clone();
    assert_eq!(cost, 10_000_000, "the query was billed all the same");
    assert!(!daemon.log().contains("geheim"), "a row's value is in the log");
    bench.front.as_usual();
    bench.run(&["DELETE FROM `{}.gestiones` WHERE id <= 3"]).await;
    for _ in 0..2 {
        let (code, said) = caudal(&daemon, &["poll", "pulso", "gestiones"]);
        assert!(code == 0, "{code} {said}");
    }
    until(&daemon, &bench.sink, COUNT, "97").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_given_a_column_goes_on_with_it() {
    let bench = Bench::new("bq_column").await;
    bench.gestiones(10).await;
    let daemon = bench.start(REFRESH);
    until(&daemon, &bench.sink, COUNT, "10").await;
    bench
        .run(&[
            "ALTER TABLE `{}.gestiones` ADD COLUMN canal STRING",
            "UPDATE `{}.gestiones` SET canal = 'voz' WHERE id = 4",
        ])
        .await;
    let there = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'gestiones' AND column_name = 'canal'";
    until(&daemon, &bench.sink, there, "1").await;
    until(&daemon, &bench.sink, "SELECT canal FROM gestiones WHERE id = 4", "voz").await;
    assert_eq!(one(&bench.sink, COUNT).await.unwrap(), "10");
}

/// A service account's file, and the public key that its tokens are proved with.
fn account(dir: &std::path::Path, token_uri: &str) -> (std::path::PathBuf, std::path::PathBuf, String) {
    let (key, public) = (dir.join("key.pem"), dir.join("public.pem"));
    let openssl = |arguments: &[&str]| {
        let out = Command::new("openssl").args(arguments).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    let (key_text, public_text) = (key.to_str().unwrap(), public.to_str().unwrap());
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key_text]);
    openssl(&["pkey", "-in", key_text, "-pubout", "-out", public_text]);
    let pem = std::fs::read_to_string(&key).unwrap();
    let file = dir.join("account.json");
    let account = json!({
        "type": "service_account", "client_email": "caudal@pruebas.iam.gserviceaccount.com", "private_key_id": "k1",
        "private_key": pem, "token_uri": token_uri,
    });
    std::fs::write(&file, account.to_string()).unwrap();
    (file, public, pem)
}

/// Whether an assertion was signed with the key, for the server that it was shown to.
fn is_signed(dir: &std::path::Path, public: &std::path::Path, form: &str, token_uri: &str) -> bool {
    use base64::Engine;
    let decode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    let assertion = form.rsplit_once("assertion=").unwrap().1;
    let (text, signature) = assertion.rsplit_once('.').unwrap();
    let claims: Value = serde_json::from_slice(&decode(text.split('.').nth(1).unwrap())).unwrap();
    assert_eq!(claims["aud"], token_uri);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3_600);
    let (signed, signature_file) = (dir.join("text"), dir.join("signature"));
    std::fs::write(&signed, text).unwrap();
    std::fs::write(&signature_file, decode(signature)).unwrap();
    let verify = Command::new("openssl")
        .args(["dgst", "-sha256", "-verify"])
        .arg(public)
        .arg("-signature")
        .arg(&signature_file)
        .arg(&signed)
        .output();
    verify.unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_before_its_end_and_when_it_is_refused_and_nobody_sees_it() {
    let bench = Bench::new("bq_token").await;
    bench.gestiones(10).await;
    let dir = tempfile::tempdir().unwrap();
    let token_uri = format!("{}/token", bench.front.url());
    let (file, public, pem) = account(dir.path(), &token_uri);
    // It holds for 61 seconds, and is renewed a minute ahead: after one second.
    bench.front.state().tokens = Some((61, 0));
    let mut lines = vec![format!("credentials: {}", file.display())];
    lines.extend(REFRESH.iter().map(|line| (*line).to_owned()));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let daemon = bench.start(&lines);
    until(&daemon, &bench.sink, COUNT, "10").await;
    let given = || bench.front.state().tokens.map_or(0, |(_, given)| given);
    let more = async |than: u32| {
        let seen = async || Ok(given() > than);
        patience::until("another token", PATIENCE, Duration::from_millis(100), seen).await.unwrap();
    };
    more(2).await;
    // Of one hour now; and then it is taken back: nobody is shown it any more.
    let before = given();
    bench.front.state().tokens = Some((3_600, before));
    more(before).await;
    runs(&daemon, "gestiones", 2).await;
    let before = given();
    bench.front.state().tokens = Some((3_600, before + 1));
    bench.run(&["INSERT INTO `{}.gestiones` (id) VALUES (11)"]).await;
    until(&daemon, &bench.sink, COUNT, "11").await;
    assert!(given() > before + 1, "it was asked for another one");
    let form = bench.front.state().asked.iter().find(|asked| asked.path == "/token").unwrap().body.clone();
    assert!(is_signed(dir.path(), &public, &form, &token_uri), "{form}");
    // Who was refused once asks again; nothing failed for it.
    let (_, status) = daemon.get("/status").await.unwrap();
    for secret in [pem.lines().nth(1).unwrap(), "token-1", "token-2"] {
        assert!(!daemon.log().contains(secret) && !status.contains(secret), "{secret} is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_or_table_is_named_with_what_to_do() {
    let bench = Bench::new("bq_rights").await;
    bench.gestiones(5).await;
    bench.front.instead(|asked| {
        let says = "Access Denied: Project proyecto-pruebas: User does not have bigquery.jobs.create permission in project proyecto-pruebas.";
        asked.body.contains("prohibida").then(|| refusal(403, "accessDenied", says))
    });
    let lines = [
        "tables:",
        "  gestiones: {key: [id]}",
        "  prohibida: {query: SELECT 1 AS prohibida, key: [prohibida]}",
        "  ausente: {key: [id]}",
    ];
    let daemon = bench.start(&lines);
    until(&daemon, &bench.sink, COUNT, "5").await;
    let (code, said) = caudal(&daemon, &["check"]);
    assert!(code == 1 && said.contains("roles/bigquery.jobUser"), "{code} {said}");
    assert!(said.contains("ausente") && said.contains("notFound"), "{said}");
    let last = runs(&daemon, "prohibida", 1).await;
    assert!(last["error"].as_str().is_some_and(|error| error.contains("jobs.create")), "{last}");
    logged(&daemon, "prohibida").await;
}
