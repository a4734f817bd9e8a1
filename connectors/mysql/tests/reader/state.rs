//! A sink in memory: replays batches into maps.

use caudal_core::{Batch, Cell, EventHead, Op};
use std::collections::BTreeMap;

/// A row as text, column by column, each with its kind.
pub(crate) type Row = Vec<String>;

/// What the batches say the tables hold. Keyless tables count equal rows.
#[derive(Default, Debug, PartialEq, Eq, Clone)]
pub(crate) struct State {
    pub(crate) tables: BTreeMap<String, BTreeMap<Row, Row>>,
    pub(crate) counted: BTreeMap<String, BTreeMap<Row, i64>>,
}

pub(crate) fn render(batch: &Batch, cell: Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Unchanged => "UNCHANGED".to_owned(),
        Cell::I64(n) => n.to_string(),
        Cell::U64(n) => format!("u{n}"),
        Cell::F32(n) => format!("f32:{:08x}", n.to_bits()),
        Cell::F64(n) => format!("f64:{:016x}", n.to_bits()),
        Cell::Text(s) => format!("t:{}", batch.text(s)),
        Cell::Decimal(s) => format!("d:{}", batch.text(s)),
        Cell::Json(s) => format!("j:{}", batch.text(s)),
        Cell::Bytes(s) => {
            format!("x:{}", batch.bytes(s).iter().map(|b| format!("{b:02x}")).collect::<String>())
        }
    }
}

pub(crate) fn row(batch: &Batch, cells: &[Cell]) -> Row {
    cells.iter().map(|&c| render(batch, c)).collect()
}

fn key(batch: &Batch, event: &EventHead, row: &Row) -> Row {
    batch.table(event).key.iter().map(|&i| row[i as usize].clone()).collect()
}

impl State {
    pub(crate) fn apply(&mut self, batch: &Batch) {
        for event in &batch.events {
            self.event(batch, event);
        }
    }

    fn event(&mut self, batch: &Batch, event: &EventHead) {
        let schema = batch.table(event);
        let name = schema.id.table.clone();
        let before = batch.before(event).map(|cells| row(batch, cells));
        let after = batch.after(event).map(|cells| row(batch, cells));
        if event.op == Op::Truncate {
            self.tables.remove(&name);
            self.counted.remove(&name);
        } else if schema.key.is_empty() {
            let rows = self.counted.entry(name).or_default();
            for (row, by) in before.map(|r| (r, -1)).into_iter().chain(after.map(|r| (r, 1))) {
                let count = rows.entry(row.clone()).or_default();
                *count += by;
                if *count == 0 {
                    rows.remove(&row);
                }
            }
        } else {
            let rows = self.tables.entry(name).or_default();
            if let Some(before) = before {
                rows.remove(&key(batch, event, &before));
            }
            if let Some(after) = after {
                rows.insert(key(batch, event, &after), after);
            }
        }
    }
}
