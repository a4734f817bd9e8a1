//! The row alone, as Debezium's ExtractNewRecordState leaves it with deletes rewritten: `__deleted`, `__op`, `__source_ts_ms` follow the
//! columns. A deletion shows the row as it was.

use crate::encode::change::Change;
use crate::encode::{json, value};
use caudal_core::{Op, Result};

pub(crate) fn value(out: &mut Vec<u8>, change: &Change<'_>) -> Result<()> {
    out.push(b'{');
    let deleted = change.op == Op::Delete;
    let row = if deleted { change.before } else { change.after };
    json::members(out, change, row.unwrap_or_default())?;
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    out.extend_from_slice(if deleted { b"\"__deleted\":\"true\"" } else { b"\"__deleted\":\"false\"" });
    out.extend_from_slice(b",\"__op\":\"");
    out.extend_from_slice(change.op.letter().encode_utf8(&mut [0; 4]).as_bytes());
    out.extend_from_slice(b"\",\"__source_ts_ms\":");
    value::integer(out, change.event.ts_us.div_euclid(1_000));
    out.push(b'}');
    Ok(())
}
