//! Candidates that were asked for: what makes a delete of them, and what does not.

use crate::canonical;
use crate::snapshot::against::Candidates;
use crate::snapshot::board::Board;
use crate::snapshot::chunk::Chunk;
use crate::snapshot::hand_on;
use crate::snapshot::model::{Model, config, plan};
use crate::snapshot::progress::Notes;
use crate::snapshot::request::{Reason, Request};
use crate::snapshot::run::Snapshot;
use crate::snapshot::table::{Step, Table};
use caudal_core::batch::NO_ROW;
use caudal_core::{BatchBuilder, Cell, EventHead, Op, SnapshotMark, TableId};
use caudal_index::key_hash;
use std::sync::Arc;

fn bytes(key: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    canonical::append(&mut bytes, Cell::I64(key), |_| &[]);
    bytes
}

/// A row as an event of `op`.
fn push(builder: &mut BatchBuilder, key: i64, op: Op) {
    let at = builder.cells.len() as u32;
    builder.cells.extend([Cell::I64(key), Cell::I64(0)]);
    let table = builder.table(&plan().schema);
    let (before, after) = if op == Op::Delete { (at, NO_ROW) } else { (NO_ROW, at) };
    builder.events.push(EventHead {
        table,
        transaction: 0,
        before,
        after,
        row: 0,
        op,
        snapshot: SnapshotMark::Incremental,
        pos: 0,
        ts_us: 0,
    });
}

/// The keys that are deleted of the candidates 1 to 4.
fn deleted(prepare: impl FnOnce(&mut Table, &mut Chunk)) -> Vec<i64> {
    let mut snapshot = Snapshot::none(
        config(1, 10),
        Arc::new(Model::default()),
        &Notes::default(),
        None,
        Arc::<Board>::default(),
    );
    let request = Request::table(TableId::new("d", "t"), Reason::Asked);
    let mut table = Table::again(request, Vec::new(), 10, Step::Searching);
    let window = table.recording.open();
    let mut candidates =
        Candidates { builder: BatchBuilder::default(), keys: Vec::new(), bytes: Vec::new(), filter: None };
    for key in 1..=4 {
        push(&mut candidates.builder, key, Op::Delete);
        candidates.keys.push(key_hash(&bytes(key)));
        candidates.bytes.push(bytes(key));
    }
    let mut chunk = Chunk::new(BatchBuilder::default(), plan());
    prepare(&mut table, &mut chunk);
    snapshot.tables.push((1, table));
    let emissions = hand_on::checked(&mut snapshot, 1, window, (candidates, None), chunk);
    let mut keys = Vec::new();
    for emission in &emissions {
        for event in emission.builder.events.iter().filter(|e| e.op == Op::Delete) {
            let Cell::I64(key) = emission.builder.cells[event.before as usize] else { panic!("a number") };
            keys.push(key);
        }
    }
    keys
}

#[test]
fn what_is_there_or_was_touched_is_not_deleted() {
    assert_eq!(deleted(|_, _| {}), [1, 2, 3, 4]);
    // The same row as the log has: it was left out of the chunk, and its key was seen.
    assert_eq!(deleted(|_, chunk| chunk.keys.push(key_hash(&bytes(2)))), [1, 3, 4]);
    // By an event while the window was open, of more keys than are remembered beyond it.
    assert_eq!(deleted(|table, _| table.recording.touch(&bytes(3))), [1, 2, 4]);
    // By an event before, which may have told that it is gone.
    let told = |table: &mut Table, _: &mut Chunk| {
        table.touched.insert(key_hash(&bytes(4)));
    };
    assert_eq!(deleted(told), [1, 2, 3]);
}
