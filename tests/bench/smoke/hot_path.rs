//! The hot path by itself, in one thread: a recorded binlog (`recorded.binlog` beside this) is read, its rows decoded into batches, and
//! the batches encoded as the capture sink does it. Run under valgrind by `tests/bench/run --smoke`, which counts what one
//! more round over the file costs.
//!
//! `hot_path ROUNDS` prints how many events one round has.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    BatchBuilder, Boundary, Column, ColumnType, EventHead, KeyKind, Op, Position, Prepare, SnapshotMark,
    SourcePosition, TableId, TableSchema, Transaction,
};
use caudal_kafka::{CaptureOptions, Config, Log};
use caudal_mysql::binlog::{EventKind, Recording, RowDecoder, Rows, RowsOp, file_events};
use caudal_mysql::connection::Family;

static RECORDED: &[u8] = include_bytes!("recorded.binlog");
/// A batch is closed at as many bytes as by default.
const BATCH: usize = 1 << 20;

fn main() -> Result<()> {
    let rounds: u32 = std::env::args().nth(1).context("how many rounds?")?.parse()?;
    let config = Config { brokers: vec!["127.0.0.1:9".into()], ..Config::default() };
    let options = CaptureOptions { clock: || 1_767_225_600_000_000, ..CaptureOptions::default() };
    let encoder = Log::new(config, "smoke")?.encoder(&options)?;
    let schema = shape();
    let mut events = 0;
    for _ in 0..rounds {
        events = round(encoder.as_ref(), &schema)?;
    }
    println!("{events}");
    Ok(())
}

/// Reads the whole file once; gives the number of its events.
fn round(encoder: &dyn Prepare, schema: &Arc<TableSchema>) -> Result<usize> {
    let mut recording = Recording::new(Family::MariaDb, true, 1 << 20);
    let mut decoder = RowDecoder::default();
    let (mut builder, mut transaction, mut events) = (BatchBuilder::default(), 0, 0);
    for event in file_events(&Bytes::from_static(RECORDED)) {
        recording.push(&event)?;
        while let Some(event) = recording.pop()? {
            match event.kind {
                EventKind::Begin(_) => transaction = begin(&event.file, &mut builder),
                EventKind::Rows(rows) if rows.table.table == schema.id.table => {
                    take(&rows, schema, (transaction, event.pos), &mut decoder, &mut builder)?;
                }
                EventKind::Commit if builder.size() >= BATCH => events += encode(encoder, &mut builder)?,
                _ => {}
            }
        }
    }
    Ok(events + encode(encoder, &mut builder)?)
}

fn begin(file: &str, builder: &mut BatchBuilder) -> u32 {
    let file = Some(builder.copy(file.as_bytes()));
    builder.transaction(Transaction { gtid: None, file, server_id: 10, thread: 7 })
}

fn take(
    rows: &Rows,
    schema: &Arc<TableSchema>,
    (transaction, pos): (u32, u64),
    decoder: &mut RowDecoder,
    builder: &mut BatchBuilder,
) -> Result<()> {
    let table = builder.table(schema);
    let op = match rows.op {
        RowsOp::Insert => Op::Create,
        RowsOp::Update => Op::Update,
        RowsOp::Delete => Op::Delete,
    };
    decoder.decode(rows, schema, builder, |out, images| {
        debug_assert!(images.before == NO_ROW || op != Op::Create);
        out.events.push(EventHead {
            table,
            transaction,
            before: images.before,
            after: images.after,
            row: images.row,
            op,
            snapshot: SnapshotMark::False,
            pos,
            ts_us: 1_767_225_600_000_000,
        });
        Ok(())
    })?;
    Ok(())
}

fn encode(encoder: &dyn Prepare, builder: &mut BatchBuilder) -> Result<usize> {
    let events = builder.events.len();
    let position = SourcePosition::default();
    let boundary = Boundary { events: events as u32, position: position.clone(), ts_us: 0, scope: None };
    let mut batch = std::mem::take(builder).build(Position::Source(position), Some(boundary));
    encoder.prepare(&mut batch)?;
    Ok(events)
}

/// The shape of the table that `record` made.
fn shape() -> Arc<TableSchema> {
    let text = |max| ColumnType::Text { max_chars: Some(max) };
    let members = ["a", "b", "c"].map(String::from).to_vec();
    let types = [
        ("id", ColumnType::Int { bits: 64 }),
        ("k", ColumnType::Int { bits: 32 }),
        ("c", text(60)),
        ("pad", text(60)),
        ("price", ColumnType::Decimal { precision: 12, scale: 2 }),
        ("score", ColumnType::Float64),
        ("flag", ColumnType::Bool),
        ("created", ColumnType::DateTime { precision: 3 }),
        ("ts", ColumnType::Timestamp { precision: 6 }),
        ("e", ColumnType::Enum { members }),
        ("doc", ColumnType::Json),
        ("bin", ColumnType::Bytes { max_bytes: Some(16), fixed: false }),
        ("note", ColumnType::Text { max_chars: None }),
    ];
    let columns = types.into_iter().zip(0..).map(|((name, ty), id)| Column {
        id,
        name: name.into(),
        charset: matches!(ty, ColumnType::Text { .. }).then(|| "utf8mb4".to_owned()),
        ty,
        nullable: true,
        native: String::new(),
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    });
    Arc::new(TableSchema {
        id: TableId::new("smoke", "sbtest"),
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
