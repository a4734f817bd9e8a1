//! A cell as the server's SELECT writes it (bytes in upper-case hex).

use caudal_core::temporal::{MICROS_PER_DAY, civil_from_days};
use caudal_core::{Batch, Cell, ColumnType};

pub(crate) fn of(batch: &Batch, cell: Cell, ty: &ColumnType) -> Option<String> {
    Some(match (cell, ty) {
        (Cell::Null, _) => return None,
        (Cell::Unchanged, _) => "(unchanged)".into(),
        (Cell::I64(0), ColumnType::Year) => "0000".into(),
        (Cell::I64(v), ColumnType::Date) => date(v),
        (Cell::I64(v), ColumnType::Time { precision }) => time(v, *precision),
        (Cell::I64(v), ColumnType::DateTime { precision } | ColumnType::Timestamp { precision }) => {
            format!(
                "{} {}",
                date(v.div_euclid(MICROS_PER_DAY)),
                time(v.rem_euclid(MICROS_PER_DAY), *precision)
            )
        }
        (Cell::I64(v), _) => v.to_string(),
        (Cell::U64(v), _) => v.to_string(),
        (Cell::F32(v), _) => format!("{:e}", f64::from(v)),
        (Cell::F64(v), _) => format!("{v:e}"),
        (Cell::Bytes(s), _) => batch.bytes(s).iter().map(|b| format!("{b:02X}")).collect(),
        (Cell::Text(s) | Cell::Decimal(s) | Cell::Json(s), _) => {
            String::from_utf8(batch.bytes(s).to_vec()).expect("text cells are UTF-8")
        }
    })
}

fn date(days: i64) -> String {
    let (y, m, d) = civil_from_days(days);
    format!("{y:04}-{m:02}-{d:02}")
}

fn time(micros: i64, precision: u8) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let size = micros.unsigned_abs();
    let (seconds, fraction) = (size / 1_000_000, size % 1_000_000);
    let mut text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if precision > 0 {
        text.push('.');
        text.push_str(&format!("{fraction:06}")[..usize::from(precision)]);
    }
    text
}

/// How SELECT must ask for a column so that its text compares with [`of`].
pub(crate) fn selected(column: &str, ty: &ColumnType) -> String {
    match ty {
        ColumnType::Bytes { .. } | ColumnType::Geometry | ColumnType::Vector { .. } => {
            format!("HEX({column})")
        }
        ColumnType::Bit { .. } => format!("{column}+0"),
        ColumnType::Float32 => format!("{column}+0e0"),
        _ => column.into(),
    }
}

/// The server's text of a number, in the form of [`of`].
pub(crate) fn normal(text: String, ty: &ColumnType) -> String {
    match ty {
        ColumnType::Float32 | ColumnType::Float64 => {
            format!("{:e}", text.parse::<f64>().expect("a number"))
        }
        _ => text,
    }
}
