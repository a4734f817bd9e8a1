//! The envelope and the key as JSON.

use crate::encode::change::Change;
use crate::encode::plan;
use crate::encode::{text, value};
use caudal_core::{Cell, Result};

/// The key's object, of the cells of the key in its order.
pub(crate) fn key(out: &mut Vec<u8>, change: &Change<'_>, cells: &[Cell]) -> Result<()> {
    out.push(b'{');
    for (n, (&column, &cell)) in change.plan.schema.key.iter().zip(cells).enumerate() {
        if n > 0 {
            out.push(b',');
        }
        field(out, change, column as usize, cell)?;
    }
    out.push(b'}');
    Ok(())
}

/// `{"before":…,"after":…,"source":…,"transaction":…,"op":…,"ts_ms":…,"ts_us":…,"ts_ns":…}`
pub(crate) fn envelope(out: &mut Vec<u8>, change: &Change<'_>) -> Result<()> {
    out.extend_from_slice(b"{\"before\":");
    image(out, change, change.before)?;
    out.extend_from_slice(b",\"after\":");
    image(out, change, change.after)?;
    out.push(b',');
    source(out, change);
    out.extend_from_slice(b",\"transaction\":");
    match &change.order {
        Some(order) => order.write(out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(plan::op(change.op));
    out.extend_from_slice(b",\"ts_ms\":");
    value::integer(out, change.now / 1_000);
    out.extend_from_slice(b",\"ts_us\":");
    value::integer(out, change.now);
    out.extend_from_slice(b",\"ts_ns\":");
    value::integer(out, change.now * 1_000);
    out.push(b'}');
    Ok(())
}

/// A row's object; a column that a partial image does not carry is absent.
pub(crate) fn image(out: &mut Vec<u8>, change: &Change<'_>, row: Option<&[Cell]>) -> Result<()> {
    let Some(row) = row else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    out.push(b'{');
    members(out, change, row)?;
    out.push(b'}');
    Ok(())
}

/// The members of a row's object.
pub(crate) fn members(out: &mut Vec<u8>, change: &Change<'_>, row: &[Cell]) -> Result<()> {
    let mut first = true;
    for (i, &cell) in row.iter().enumerate().filter(|(_, c)| **c != Cell::Unchanged) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        field(out, change, i, cell)?;
    }
    Ok(())
}

fn field(out: &mut Vec<u8>, change: &Change<'_>, column: usize, cell: Cell) -> Result<()> {
    out.extend_from_slice(&change.plan.names[column]);
    let ty = &change.plan.schema.columns[column].ty;
    value::cell(out, change.batch, ty, change.how(column), cell).map_err(change.misfit(column, cell))
}

/// `"source":{…}`
fn source(out: &mut Vec<u8>, change: &Change<'_>) {
    let (event, batch, plan) = (change.event, change.batch, change.plan);
    let transaction = change.transaction();
    out.extend_from_slice(&plan.source_head);
    value::integer(out, event.ts_us.div_euclid(1_000));
    out.extend_from_slice(b",\"snapshot\":\"");
    out.extend_from_slice(event.snapshot.as_str().as_bytes());
    out.extend_from_slice(&plan.source_db);
    value::integer(out, event.ts_us);
    out.extend_from_slice(b",\"ts_ns\":");
    value::integer(out, event.ts_us.saturating_mul(1_000));
    out.extend_from_slice(&plan.source_table);
    value::integer(out, transaction.server_id);
    out.extend_from_slice(b",\"gtid\":");
    match transaction.gtid {
        Some(gtid) => text::string(out, batch.bytes(gtid)),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"file\":");
    text::string(out, transaction.file.map_or(&[], |file| batch.bytes(file)));
    out.extend_from_slice(b",\"pos\":");
    value::integer(out, event.pos);
    out.extend_from_slice(b",\"row\":");
    value::integer(out, event.row);
    out.extend_from_slice(b",\"thread\":");
    match transaction.thread {
        0 => out.extend_from_slice(b"null"),
        thread => value::integer(out, thread),
    }
    out.extend_from_slice(b",\"query\":null}");
}
