//! Maxwell's JSON: `{"database","table","type","ts","xid","xoffset"|"commit","gtid","position","data","old"}`.
//!
//! Values as Maxwell writes them: decimals are numbers, moments are text, JSON stands inline, a SET is an array. `xid` is the number in the
//! GTID (the storage engine's own is not kept); `commit` is on a transaction's last row, `xoffset` on the others. Geometries are WKB in base64.

use crate::encode::change::Change;
use crate::encode::text;
use crate::encode::value::{self, Mismatch};
use caudal_core::temporal::{MICROS_PER_DAY, civil_from_days};
use caudal_core::{Cell, ColumnType, Op, Result};

/// `{"database":…,"table":…,"pk.<column>":…}`
pub(crate) fn key(out: &mut Vec<u8>, change: &Change<'_>, cells: &[Cell]) -> Result<()> {
    head(out, change);
    for (&column, &cell) in change.plan.schema.key.iter().zip(cells) {
        let name = format!("pk.{}", change.plan.schema.columns[column as usize].name.to_lowercase());
        out.push(b',');
        text::string(out, name.as_bytes());
        out.push(b':');
        plain(out, change, column as usize, cell)?;
    }
    out.push(b'}');
    Ok(())
}

pub(crate) fn value(out: &mut Vec<u8>, change: &Change<'_>) -> Result<()> {
    head(out, change);
    out.extend_from_slice(b",\"type\":\"");
    out.extend_from_slice(match change.op {
        Op::Read => b"bootstrap-insert",
        Op::Create => b"insert",
        Op::Update => b"update",
        Op::Delete => b"delete",
        Op::Truncate => b"table-truncate",
    });
    out.extend_from_slice(b"\",\"ts\":");
    value::integer(out, change.event.ts_us.div_euclid(1_000_000));
    if let Some(gtid) = change.gtid() {
        let number = gtid.rsplit([':', '-']).next().and_then(|n| n.parse::<u64>().ok());
        if let Some(number) = number {
            out.extend_from_slice(b",\"xid\":");
            value::integer(out, number);
        }
        if change.last {
            out.extend_from_slice(b",\"commit\":true");
        } else {
            out.extend_from_slice(b",\"xoffset\":");
            value::integer(out, change.event.row);
        }
        out.extend_from_slice(b",\"gtid\":");
        text::string(out, gtid.as_bytes());
    }
    out.extend_from_slice(b",\"position\":");
    text::string(out, format!("{}:{}", change.file(), change.event.pos).as_bytes());
    let row = if change.op == Op::Delete { change.before } else { change.after };
    out.extend_from_slice(b",\"data\":");
    object(out, change, row.unwrap_or_default(), |_| true)?;
    if let (Op::Update, Some(before), Some(after)) = (change.op, change.before, change.after) {
        out.extend_from_slice(b",\"old\":");
        object(out, change, before, |i| !same(change, before[i], after[i]))?;
    }
    out.push(b'}');
    Ok(())
}

fn head(out: &mut Vec<u8>, change: &Change<'_>) {
    out.extend_from_slice(b"{\"database\":");
    text::string(out, change.plan.schema.id.database.as_bytes());
    out.extend_from_slice(b",\"table\":");
    text::string(out, change.plan.schema.id.table.as_bytes());
}

/// A cell that the image after does not carry did not change.
fn same(change: &Change<'_>, a: Cell, b: Cell) -> bool {
    match (a.slice(), b.slice()) {
        (Some(x), Some(y)) => change.batch.bytes(x) == change.batch.bytes(y),
        _ => a == b || b == Cell::Unchanged,
    }
}

fn object(
    out: &mut Vec<u8>,
    change: &Change<'_>,
    row: &[Cell],
    wanted: impl Fn(usize) -> bool,
) -> Result<()> {
    out.push(b'{');
    for (i, &cell) in row.iter().enumerate().filter(|(i, c)| **c != Cell::Unchanged && wanted(*i)) {
        if !out.ends_with(b"{") {
            out.push(b',');
        }
        out.extend_from_slice(&change.plan.names[i]);
        plain(out, change, i, cell)?;
    }
    out.push(b'}');
    Ok(())
}

fn plain(out: &mut Vec<u8>, change: &Change<'_>, column: usize, cell: Cell) -> Result<()> {
    let ty = &change.plan.schema.columns[column].ty;
    written(out, change, ty, column, cell).map_err(change.misfit(column, cell))
}

fn written(
    out: &mut Vec<u8>,
    change: &Change<'_>,
    ty: &ColumnType,
    column: usize,
    cell: Cell,
) -> std::result::Result<(), Mismatch> {
    let batch = change.batch;
    match (ty, cell) {
        (ColumnType::Bool, Cell::I64(n)) => value::integer(out, n),
        (ColumnType::Bit { bits: 2.. }, Cell::U64(n)) => value::integer(out, n),
        (ColumnType::Decimal { .. }, Cell::Decimal(s)) | (ColumnType::Json, Cell::Json(s)) => {
            out.extend_from_slice(batch.bytes(s));
        }
        (ColumnType::Set { .. }, Cell::Text(s)) => {
            let labels: Vec<&str> = batch.text(s).split(',').filter(|label| !label.is_empty()).collect();
            serde_json::to_writer(out, &labels).map_err(|_| Mismatch)?;
        }
        (ColumnType::Date, Cell::I64(days)) => quoted(out, &date(days)),
        (ColumnType::Time { precision }, Cell::I64(us)) => quoted(out, &time(us, *precision)),
        (ColumnType::DateTime { precision } | ColumnType::Timestamp { precision }, Cell::I64(us)) => {
            let (days, of_day) = (us.div_euclid(MICROS_PER_DAY), us.rem_euclid(MICROS_PER_DAY));
            quoted(out, &format!("{} {}", date(days), time(of_day, *precision)));
        }
        (ColumnType::Geometry, Cell::Bytes(s)) => {
            value::base64(out, batch.bytes(s).get(4..).ok_or(Mismatch)?)
        }
        _ => return value::cell(out, batch, ty, change.how(column), cell),
    }
    Ok(())
}

fn quoted(out: &mut Vec<u8>, plain: &str) {
    text::string(out, plain.as_bytes());
}

fn date(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

fn time(us: i64, precision: u8) -> String {
    let (sign, us) = (if us < 0 { "-" } else { "" }, us.unsigned_abs());
    let seconds = us / 1_000_000;
    let whole = format!("{sign}{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = format!("{:06}", us % 1_000_000);
    match precision.min(6) {
        0 => whole,
        n => format!("{whole}.{}", &fraction[..usize::from(n)]),
    }
}
