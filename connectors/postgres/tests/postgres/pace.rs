//! How fast rows become durable; printed with `--nocapture`, asserted only against standstill.

use crate::database::Database;
use crate::rows::{I, Rows, T, V, int, table, text};
use caudal_core::{Batch, ColumnType, Op, TableSchema};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn orders() -> Arc<TableSchema> {
    let columns = [
        ("id", ColumnType::Int { bits: 64 }),
        ("customer", int()),
        ("state", text()),
        ("total", ColumnType::Decimal { precision: 12, scale: 2 }),
        ("note", text()),
        ("at", ColumnType::DateTime { precision: 6 }),
        ("stamp", ColumnType::Timestamp { precision: 0 }),
        ("flag", ColumnType::Bool),
    ];
    Arc::new(table("orders", &columns))
}

/// About 100 bytes a row.
fn row(id: i64, state: &'static str) -> Vec<V> {
    let at = 1_700_000_000_000_000 + id * 1_000;
    let note = "left at the door, the bell does not ring; call before";
    vec![I(id), I(id % 977), T(state), V::D("1234567.89"), T(note), I(at), I(at), I(id % 2)]
}

fn batches(t: &Arc<TableSchema>, op: Op, total: i64, size: i64, state: &'static str) -> Vec<Batch> {
    let batch = |first: i64| {
        let mut rows = Rows::new();
        for i in first..(first + size).min(total) {
            // Updates hop about, as they do.
            let id = if op == Op::Update { i * 7_919 % total } else { i };
            rows.push(t, op, (op == Op::Update).then(|| row(id, "before")).as_deref(), Some(&row(id, state)));
        }
        rows.at(first + size)
    };
    (0..total).step_by(size as usize).map(batch).collect()
}

/// Prepares and writes side by side, as the engine does; commits after every 50,000 rows.
async fn run(db: &Database, mut batches: Vec<Batch>) -> Duration {
    let mut writer = db.writer().await;
    let offset =
        db.rows("SELECT next_offset FROM caudal.offsets").await.first().map_or(0, |o| o.parse().unwrap());
    for (number, batch) in batches.iter_mut().enumerate() {
        batch.position = crate::rows::at(offset + number as i64 + 1);
    }
    let prepare = writer.prepare().unwrap();
    let (out, mut input) = tokio::sync::mpsc::channel(2);
    let started = Instant::now();
    std::thread::spawn(move || {
        for mut batch in batches {
            prepare.prepare(&mut batch).unwrap();
            if out.blocking_send(batch).is_err() {
                return;
            }
        }
    });
    let mut accepted = 0;
    while let Some(mut batch) = input.recv().await {
        accepted += batch.events.len();
        assert!(writer.write(&mut batch).await.unwrap().rejected.is_empty());
        if accepted >= 50_000 {
            writer.commit().await.unwrap();
            accepted = 0;
        }
    }
    writer.commit().await.unwrap();
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_become_durable_at_pace() {
    let Some(db) = Database::new().await else { return };
    let t = orders();
    let total: i64 = std::env::var("CAUDAL_TEST_PACE_ROWS").map_or(20_000, |n| n.parse().unwrap());
    for (what, op, size, state) in [
        ("snapshot, 5,000 a batch", Op::Read, 5_000, "new"),
        ("updates, 10,000 a batch", Op::Update, 10_000, "paid"),
        ("updates, 2,000 a batch", Op::Update, 2_000, "sent"),
        ("updates, 100 a batch", Op::Update, 100, "back"),
    ] {
        let took = run(&db, batches(&t, op, total, size, state)).await;
        let pace = total as f64 / took.as_secs_f64();
        println!("{what}: {pace:.0} rows/s");
        assert!(pace > 1_000.0, "{what}: {pace}");
        assert_eq!(
            db.value(&format!("SELECT count(*) FROM orders WHERE state = '{state}'")).await,
            total.to_string()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_commits_are_quick() {
    let Some(db) = Database::new().await else { return };
    let t = orders();
    let mut writer = db.writer().await;
    let mut times = Vec::new();
    for number in 0..500 {
        let batch =
            Rows::new().create(&t, &row(number, "new")).create(&t, &row(number % 7, "again")).at(number + 1);
        let started = Instant::now();
        crate::rows::put(writer.as_mut(), batch).await;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    println!("a commit of two rows: p50 {:?}, p99 {:?}", times[250], times[495]);
    assert!(times[250] < Duration::from_millis(200), "{:?}", times[250]);
}
