//! How fast the capture sink is: encoding, then encoding and producing. Prints both.
//!
//! `cargo run --release -p caudal-kafka --example capture_rate -- 127.0.0.1:9092 [events] [lz4|zstd|none] [events per transaction] [pace in ms]`

use caudal_core::batch::NO_ROW;
use caudal_core::quantity::DurationText;
use caudal_core::{
    Batch, BatchBuilder, Boundary, Cell, Column, ColumnType, EventHead, KeyKind, Op, Position, SnapshotMark,
    SourcePosition, TableId, TableSchema, Transaction,
};
use caudal_kafka::config::Compression;
use caudal_kafka::{CaptureOptions, Config, Log};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn schema() -> Arc<TableSchema> {
    let types = [
        ("id", ColumnType::Int { bits: 64 }),
        ("customer_id", ColumnType::Int { bits: 32 }),
        ("name", ColumnType::Text { max_chars: Some(64) }),
        ("email", ColumnType::Text { max_chars: Some(128) }),
        ("total", ColumnType::Decimal { precision: 12, scale: 2 }),
        ("created", ColumnType::DateTime { precision: 6 }),
        ("updated", ColumnType::Timestamp { precision: 3 }),
        ("weight", ColumnType::Float64),
        ("notes", ColumnType::Text { max_chars: None }),
        ("active", ColumnType::Bool),
    ];
    let columns = types.into_iter().enumerate().map(|(i, (name, ty))| Column {
        id: i as u32 + 1,
        name: name.into(),
        ty,
        nullable: true,
        native: String::new(),
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    });
    Arc::new(TableSchema {
        id: TableId::new("shop", "orders"),
        version: 1,
        generation: 1,
        columns: columns.collect(),
        key: vec![0],
        key_kind: KeyKind::Primary,
        unique_keys: vec![],
        foreign_keys: vec![],
        charset: None,
        comment: None,
    })
}

fn batch(schema: &Arc<TableSchema>, first: i64, events: i64) -> Batch {
    let mut b = BatchBuilder::default();
    let file = Some(b.copy(b"binlog.000042"));
    let transaction = b.transaction(Transaction { gtid: None, file, server_id: 1, thread: 12 });
    let table = b.table(schema);
    for id in first..first + events {
        let after = b.cells.len() as u32;
        let name = b.copy(format!("customer number {}", id * 7919 % 100_003).as_bytes());
        let email = b.copy(format!("someone.{}@example.org", id * 31 % 65_537).as_bytes());
        let total = b.copy(format!("{}.{:02}", id * 17 % 10_000, id % 100).as_bytes());
        let notes = b.copy(
            format!(
                "left at the door, \"{}\" rings twice; code {:x}",
                id % 97,
                id * 2_654_435_761 % 4_294_967_291
            )
            .as_bytes(),
        );
        b.cells.extend([
            Cell::I64(id),
            Cell::I64(id % 50_000),
            Cell::Text(name),
            Cell::Text(email),
            Cell::Decimal(total),
            Cell::I64(1_700_000_000_000_000 + id * 1_001),
            Cell::I64(1_700_000_000_000_000 + id * 1_003),
            Cell::F64(id as f64 * 0.37),
            Cell::Text(notes),
            Cell::I64(id & 1),
        ]);
        b.events.push(EventHead {
            table,
            transaction,
            before: NO_ROW,
            after,
            row: 0,
            op: Op::Create,
            snapshot: SnapshotMark::False,
            pos: id as u64,
            ts_us: 1_700_000_000_000_000,
        });
    }
    let position = SourcePosition { token: first.to_string(), notes: Default::default() };
    let boundary = Boundary {
        events: events as u32,
        position: position.clone(),
        ts_us: 1_700_000_000_000_000,
        scope: None,
    };
    b.build(Position::Source(position), Some(boundary))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let brokers = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let events: i64 = args.next().map_or(Ok(500_000), |a| a.parse())?;
    let compression = match args.next().as_deref() {
        Some("zstd") => Compression::Zstd,
        Some("none") => Compression::None,
        _ => Compression::Lz4,
    };
    let each: i64 = args.next().map_or(Ok(5_000), |a| a.parse())?;
    let pace = DurationText::millis(args.next().map_or(Ok(4), |a| a.parse())?);
    let config = Config { brokers: vec![brokers], compression, pace, ..Config::default() };
    let prefix = format!("rate{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis());
    let options = CaptureOptions::default();
    let statistics = Arc::clone(&options.statistics);
    let log = Log::new(config, &prefix)?;
    let start = Instant::now();
    let mut writer = log.capture_sink("rate", options).open().await?;
    println!("open, fresh: {:?}", start.elapsed());
    let prepare = writer.prepare().ok_or("no encoder")?;
    let schema = schema();

    let mut sample: Vec<Batch> = (0..20).map(|i| batch(&schema, i * each, each)).collect();
    let start = Instant::now();
    for batch in &mut sample {
        prepare.prepare(batch)?;
    }
    let took = start.elapsed();
    println!("encode: {} ns an event", took.as_nanos() / (20 * each as u128));
    drop(sample);

    let mut times = Vec::new();
    let mut sent = 0;
    while sent < events {
        let mut batch = batch(&schema, sent, each);
        let start = Instant::now();
        prepare.prepare(&mut batch)?;
        writer.write(&mut batch).await?;
        writer.commit().await?;
        times.push(start.elapsed());
        sent += each;
    }
    let busy: Duration = times.iter().sum();
    times.sort_unstable();
    let counts = statistics.counts();
    println!(
        "encode, produce, commit: {:.0} events/s, {} B an event, {} transactions, p50 {:?}, p99 {:?}, repeated {}",
        sent as f64 / busy.as_secs_f64(),
        counts.bytes / counts.records.max(1),
        counts.transactions,
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        counts.repeated,
    );
    let start = Instant::now();
    drop(writer);
    let _writer = log.capture_sink("rate", CaptureOptions::default()).open().await?;
    println!("open again: {:?}", start.elapsed());
    Ok(())
}
