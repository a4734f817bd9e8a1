//! Values of the binary protocol to cells: the same cells, bit for bit, that the stream's decoder makes.
//!
//! The binary protocol is what makes this possible: FLOAT arrives as its four bytes (the text protocol rounds it), temporal values as
//! their parts (also those that are no moment of the calendar), BIT and BINARY as their bytes.

use crate::value::Value;
use caudal_core::temporal::{MICROS_PER_DAY, days_from_civil};
use caudal_core::{BatchBuilder, Cell, ColumnType};

/// The cell of a value; none if the value is not of the column's type (the table was altered under the query).
pub(crate) fn cell<B: AsRef<[u8]>>(
    value: &Value<B>,
    ty: &ColumnType,
    out: &mut BatchBuilder,
) -> Option<Cell> {
    Some(match (value, ty) {
        (Value::Null, _) => Cell::Null,
        (Value::Int(n), ColumnType::Bool) => Cell::I64(i64::from(*n != 0)),
        (Value::Int(n), ColumnType::Int { .. } | ColumnType::Year) => Cell::I64(*n),
        (Value::UInt(n), ColumnType::Year) => Cell::I64(i64::try_from(*n).ok()?),
        (Value::UInt(n), ColumnType::UInt { bits: 64 }) => Cell::U64(*n),
        (Value::Int(n), ColumnType::UInt { bits: 64 }) => Cell::U64(u64::try_from(*n).ok()?),
        (Value::UInt(n), ColumnType::UInt { .. }) => Cell::I64(i64::try_from(*n).ok()?),
        (Value::Int(n), ColumnType::UInt { .. }) if *n >= 0 => Cell::I64(*n),
        (Value::Float(n), ColumnType::Float32) => Cell::F32(*n),
        (Value::Double(n), ColumnType::Float64) => Cell::F64(*n),
        (Value::Bytes(b), ColumnType::Decimal { .. }) => Cell::Decimal(out.write(|a| decimal(a, b.as_ref()))),
        (Value::Bytes(b), ColumnType::Bit { .. }) if b.as_ref().len() <= 8 => {
            Cell::U64(b.as_ref().iter().fold(0, |n, &x| n << 8 | u64::from(x)))
        }
        (Value::Bytes(b), ColumnType::Json) => Cell::Json(out.copy(b.as_ref())),
        (Value::Bytes(b), ty) if is_text(ty) => Cell::Text(out.copy(b.as_ref())),
        (Value::Bytes(b), ColumnType::Bytes { .. } | ColumnType::Geometry | ColumnType::Vector { .. }) => {
            Cell::Bytes(out.copy(b.as_ref()))
        }
        (Value::Date(y, m, d, ..), ColumnType::Date) => date(*y, *m, *d, out),
        (
            Value::Date(y, m, d, h, min, s, us),
            ColumnType::DateTime { precision } | ColumnType::Timestamp { precision },
        ) => moment((*y, *m, *d), (*h, *min, *s, *us), *precision, out),
        (Value::Time(negative, days, h, m, s, us), ColumnType::Time { .. }) => {
            let seconds = ((i64::from(*days) * 24 + i64::from(*h)) * 60 + i64::from(*m)) * 60 + i64::from(*s);
            let micros = seconds * 1_000_000 + i64::from(*us);
            Cell::I64(if *negative { -micros } else { micros })
        }
        _ => return None,
    })
}

fn is_text(ty: &ColumnType) -> bool {
    matches!(
        ty,
        ColumnType::Text { .. }
            | ColumnType::Enum { .. }
            | ColumnType::Set { .. }
            | ColumnType::Uuid
            | ColumnType::Inet4
            | ColumnType::Inet6
    )
}

/// ZEROFILL columns come with zeros in front, which are a matter of display.
fn decimal(out: &mut Vec<u8>, text: &[u8]) {
    let (sign, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let whole = digits.iter().position(|&b| b == b'.').unwrap_or(digits.len());
    let zeros = digits.iter().take(whole.saturating_sub(1)).take_while(|&&b| b == b'0').count();
    if sign {
        out.push(b'-');
    }
    if whole == 0 {
        out.push(b'0');
    }
    out.extend_from_slice(&digits[zeros..]);
}

fn date(y: u16, m: u8, d: u8, out: &mut BatchBuilder) -> Cell {
    match days_from_civil(i32::from(y), u32::from(m), u32::from(d)) {
        Some(days) => Cell::I64(days),
        None => Cell::Text(out.copy(format!("{y:04}-{m:02}-{d:02}").as_bytes())),
    }
}

fn moment(
    (y, mo, d): (u16, u8, u8),
    (h, mi, s, us): (u8, u8, u8, u32),
    precision: u8,
    out: &mut BatchBuilder,
) -> Cell {
    if let Some(days) = days_from_civil(i32::from(y), u32::from(mo), u32::from(d)) {
        let seconds = (i64::from(h) * 60 + i64::from(mi)) * 60 + i64::from(s);
        return Cell::I64(days * MICROS_PER_DAY + seconds * 1_000_000 + i64::from(us));
    }
    let mut text = format!("{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}");
    if precision > 0 {
        let fraction = format!("{us:06}");
        text.push('.');
        text.push_str(&fraction[..usize::from(precision.min(6))]);
    }
    Cell::Text(out.copy(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &Value, ty: &ColumnType) -> String {
        let mut out = BatchBuilder::default();
        let cell = cell(value, ty, &mut out).unwrap();
        String::from_utf8(out.bytes(cell.slice().unwrap()).to_vec()).unwrap()
    }

    #[test]
    fn zeros_of_zerofill_are_display_and_not_value() {
        let ty = ColumnType::Decimal { precision: 8, scale: 2 };
        for (given, expected) in
            [("000012.50", "12.50"), ("000000.00", "0.00"), ("-1.00", "-1.00"), ("0.5", "0.5")]
        {
            assert_eq!(text(&Value::Bytes(given.into()), &ty), expected);
        }
    }

    #[test]
    fn what_is_no_moment_of_the_calendar_stays_as_the_source_writes_it() {
        let zero: Value = Value::Date(0, 0, 0, 0, 0, 0, 0);
        assert_eq!(text(&zero, &ColumnType::Date), "0000-00-00");
        assert_eq!(text(&zero, &ColumnType::DateTime { precision: 3 }), "0000-00-00 00:00:00.000");
        assert_eq!(text(&zero, &ColumnType::Timestamp { precision: 0 }), "0000-00-00 00:00:00");
    }

    #[test]
    fn negative_times_are_negative_as_a_whole() {
        let mut out = BatchBuilder::default();
        let value: Value = Value::Time(true, 34, 22, 59, 59, 999_999);
        let cell = cell(&value, &ColumnType::Time { precision: 6 }, &mut out);
        assert!(cell == Some(Cell::I64(-((838 * 3600 + 59 * 60 + 59) * 1_000_000 + 999_999))));
    }

    #[test]
    fn a_value_of_another_type_is_found_out() {
        let mut out = BatchBuilder::default();
        assert!(cell(&Value::Bytes(b"1".to_vec()), &ColumnType::Int { bits: 32 }, &mut out).is_none());
    }
}
