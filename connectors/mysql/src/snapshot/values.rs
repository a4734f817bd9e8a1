//! Cells back to parameters: keys that an event, or the log, told are asked for on the source.

use crate::snapshot::bounds::Stored;
use caudal_core::temporal::{MICROS_PER_DAY, civil_from_days};
use caudal_core::{Cell, Column, ColumnType, Slice};

/// A cell as a parameter that the server compares with its column (with [`super::bounds::Part::of_cell`] on the right). None for NULL and for
/// what cannot be compared.
pub(crate) fn of_cell<'a>(column: &Column, cell: Cell, bytes: impl Fn(Slice) -> &'a [u8]) -> Option<Stored> {
    let text = |s: Slice| std::str::from_utf8(bytes(s)).ok();
    Some(match (&column.ty, cell) {
        (ColumnType::Date, Cell::I64(days)) => date(days, 0),
        (ColumnType::DateTime { .. } | ColumnType::Timestamp { .. }, Cell::I64(us)) => {
            date(us.div_euclid(MICROS_PER_DAY), us.rem_euclid(MICROS_PER_DAY))
        }
        (ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. }, Cell::Text(s)) => {
            no_moment(text(s)?)?
        }
        (ColumnType::Time { .. }, Cell::I64(us)) => time(us),
        (ColumnType::Enum { members }, Cell::Text(s)) => {
            let label = text(s)?;
            let index = members.iter().position(|m| m == label).map_or(0, |i| i + 1);
            if index == 0 && !label.is_empty() {
                return None;
            }
            Stored::Uint(index as u64)
        }
        (ColumnType::Set { members }, Cell::Text(s)) => Stored::Uint(bits(members, text(s)?)?),
        (_, Cell::I64(n)) => Stored::Int(n),
        (_, Cell::U64(n)) => Stored::Uint(n),
        (_, Cell::F32(n)) => Stored::Float(n.to_bits()),
        (_, Cell::F64(n)) => Stored::Double(n.to_bits()),
        (_, Cell::Text(s) | Cell::Bytes(s) | Cell::Decimal(s)) => Stored::bytes(bytes(s)),
        (_, Cell::Json(_) | Cell::Null | Cell::Unchanged) => return None,
    })
}

fn bits(members: &[String], labels: &str) -> Option<u64> {
    if labels.is_empty() {
        return Some(0);
    }
    labels.split(',').try_fold(0, |bits, label| Some(bits | 1 << members.iter().position(|m| m == label)?))
}

fn date(days: i64, us: i64) -> Stored {
    let (year, month, day) = civil_from_days(days);
    let (_, h, m, s, us) = clock(us as u64);
    Stored::Date(year as u16, month as u8, day as u8, h, m, s, us)
}

fn time(us: i64) -> Stored {
    let (days, h, m, s, micros) = clock(us.unsigned_abs());
    Stored::Time(us < 0, days, h, m, s, micros)
}

/// Days, hours, minutes, seconds, microseconds.
fn clock(us: u64) -> (u32, u8, u8, u8, u32) {
    let seconds = us / 1_000_000;
    let part = |unit: u64, of: u64| (seconds / unit % of) as u8;
    ((seconds / 86_400) as u32, part(3_600, 24), part(60, 60), part(1, 60), (us % 1_000_000) as u32)
}

/// `2024-00-00 00:00:00`: what is no moment of the calendar is text in a cell.
fn no_moment(text: &str) -> Option<Stored> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    let mut next = || parts.next().map_or(Some(0), |p| p.parse::<u16>().ok());
    let (year, month, day) = (next()?, next()?, next()?);
    let (h, m, s) = (next()?, next()?, next()?);
    let micros = text.split_once('.').map_or(Some(0), |(_, f)| format!("{f:0<6}").parse().ok())?;
    Some(Stored::Date(year, month as u8, day as u8, h as u8, m as u8, s as u8, micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(ty: ColumnType) -> Column {
        Column {
            id: 1,
            name: "a".into(),
            ty,
            nullable: false,
            native: String::new(),
            charset: None,
            default: None,
            generated: false,
            auto_increment: false,
            comment: None,
        }
    }

    fn stored(ty: ColumnType, text: Option<&'static str>, cell: Cell) -> Option<Stored> {
        of_cell(&column(ty), cell, |_| text.unwrap_or_default().as_bytes())
    }

    #[test]
    fn cells_become_the_parameters_that_the_server_gave_for_them() {
        let slice = Slice { buffer: 0, offset: 0, len: 0 };
        let t = Cell::Text(slice);
        let members = || vec!["z".to_owned(), "m".to_owned(), "a".to_owned()];
        for (ty, text, cell, expected) in [
            (ColumnType::Int { bits: 32 }, None, Cell::I64(-5), Stored::Int(-5)),
            (ColumnType::Date, None, Cell::I64(19_782), Stored::Date(2024, 2, 29, 0, 0, 0, 0)),
            (ColumnType::Date, Some("2024-00-00"), t, Stored::Date(2024, 0, 0, 0, 0, 0, 0)),
            (
                ColumnType::DateTime { precision: 6 },
                None,
                Cell::I64(-1),
                Stored::Date(1969, 12, 31, 23, 59, 59, 999_999),
            ),
            (
                ColumnType::DateTime { precision: 1 },
                Some("0000-00-00 00:00:00.5"),
                t,
                Stored::Date(0, 0, 0, 0, 0, 0, 500_000),
            ),
            (
                ColumnType::Time { precision: 3 },
                None,
                Cell::I64(-(90_061 * 1_000_000 + 1_000)),
                Stored::Time(true, 1, 1, 1, 1, 1_000),
            ),
            (ColumnType::Enum { members: members() }, Some("m"), t, Stored::Uint(2)),
            (ColumnType::Enum { members: members() }, Some(""), t, Stored::Uint(0)),
            (ColumnType::Set { members: members() }, Some("z,a"), t, Stored::Uint(5)),
            (ColumnType::Uuid, Some("12ab"), t, Stored::Bytes("31326162".into())),
        ] {
            assert_eq!(stored(ty.clone(), text, cell), Some(expected), "{ty:?}");
        }
        assert_eq!(stored(ColumnType::Enum { members: members() }, Some("gone"), t), None);
        assert_eq!(stored(ColumnType::Json, None, Cell::Null), None);
    }
}
