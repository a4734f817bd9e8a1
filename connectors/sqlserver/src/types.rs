//! Types: what a column of SQL Server becomes, how it is selected so that the driver tells its value exactly, and how that value becomes a cell.
//!
//! * `money` would come as a float: it is cast to a decimal by the server.
//! * Times finer than a microsecond (scale 7, which is the default of `datetime2`) are cut to microseconds, as all of the log's are; a row whose time
//!   was cut is counted in a finding.
//! * `datetime` counts in 1/300 s and is told as the server shows it, in milliseconds: .000, .003, .007.
//! * `datetimeoffset` is the moment; the offset that it was written with is not kept.
//! * What SQL alone can tell (`xml`, `sql_variant`, `hierarchyid`) is told as text; geometry as WKB with its SRID.

use crate::param::EPOCH_DAYS;
use caudal_core::temporal::MICROS_PER_DAY;
use caudal_core::{BatchBuilder, Cell, ColumnType};
use std::io::Write;
use tiberius::ColumnData;
use tiberius::time::{DateTime2, Time};

/// Days from 1900-01-01 to 1970-01-01.
const DAYS_TO_1900: i64 = 25_567;

/// How a column is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) ty: ColumnType,
    pub(crate) cast: Cast,
}

/// What is put around a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    None,
    /// `CAST(… AS decimal(19,4))`, or of 10 digits.
    Money(u8),
    /// `CAST(… AS nvarchar(max))`
    Text,
    /// `….ToString()`
    ToString,
    /// SRID in 4 bytes, then WKB.
    Geometry,
}

impl Cast {
    /// The expression for a quoted column.
    pub(crate) fn around(self, column: &str) -> String {
        match self {
            Self::None => column.to_owned(),
            Self::Money(digits) => format!("CAST({column} AS decimal({digits},4))"),
            Self::Text => format!("CAST({column} AS nvarchar(max))"),
            Self::ToString => format!("{column}.ToString()"),
            Self::Geometry => {
                format!("CAST(CAST({column}.STSrid AS binary(4)) + {column}.STAsBinary() AS varbinary(max))")
            }
        }
    }
}

/// By the name that the server has for a type: `decimal(38,10)`, `nvarchar(max)`. None for what has to be cast in a query.
pub(crate) fn reading(native: &str) -> Option<Reading> {
    let (base, arguments) = match native.split_once('(') {
        Some((base, rest)) => (base.trim(), rest.trim_end_matches(')')),
        None => (native.trim(), ""),
    };
    let mut numbers = arguments.split(',').map(|n| n.trim().parse::<u32>().ok());
    let first = numbers.next().flatten();
    let second = numbers.next().flatten();
    // Where nothing is written: the type's default.
    let scale = |default: u32| first.unwrap_or(default).min(6) as u8;
    let small = |n: Option<u32>| n.and_then(|n| u8::try_from(n).ok());
    let plain = |ty| Some(Reading { ty, cast: Cast::None });
    let text = |cast| Some(Reading { ty: ColumnType::Text { max_chars: None }, cast });
    match base.to_ascii_lowercase().as_str() {
        "bit" => plain(ColumnType::Bool),
        "tinyint" => plain(ColumnType::UInt { bits: 8 }),
        "smallint" => plain(ColumnType::Int { bits: 16 }),
        "int" => plain(ColumnType::Int { bits: 32 }),
        "bigint" => plain(ColumnType::Int { bits: 64 }),
        "real" => plain(ColumnType::Float32),
        "float" => {
            plain(if first.is_some_and(|n| n <= 24) { ColumnType::Float32 } else { ColumnType::Float64 })
        }
        "decimal" | "numeric" => plain(ColumnType::Decimal {
            precision: small(first).unwrap_or(18),
            scale: small(second).unwrap_or(0),
        }),
        "money" => {
            Some(Reading { ty: ColumnType::Decimal { precision: 19, scale: 4 }, cast: Cast::Money(19) })
        }
        "smallmoney" => {
            Some(Reading { ty: ColumnType::Decimal { precision: 10, scale: 4 }, cast: Cast::Money(10) })
        }
        "date" => plain(ColumnType::Date),
        "time" => plain(ColumnType::Time { precision: scale(7) }),
        "smalldatetime" => plain(ColumnType::DateTime { precision: 0 }),
        "datetime" => plain(ColumnType::DateTime { precision: 3 }),
        "datetime2" => plain(ColumnType::DateTime { precision: scale(7) }),
        "datetimeoffset" => plain(ColumnType::Timestamp { precision: scale(7) }),
        "uniqueidentifier" => plain(ColumnType::Uuid),
        "char" | "varchar" | "nchar" | "nvarchar" => plain(ColumnType::Text { max_chars: first }),
        "text" | "ntext" => plain(ColumnType::Text { max_chars: None }),
        "sysname" => plain(ColumnType::Text { max_chars: Some(128) }),
        "xml" | "sql_variant" => text(Cast::Text),
        "hierarchyid" => text(Cast::ToString),
        "json" => Some(Reading { ty: ColumnType::Json, cast: Cast::Text }),
        "binary" => plain(ColumnType::Bytes { max_bytes: first, fixed: true }),
        "varbinary" => plain(ColumnType::Bytes { max_bytes: first, fixed: false }),
        "image" => plain(ColumnType::Bytes { max_bytes: None, fixed: false }),
        "timestamp" | "rowversion" => plain(ColumnType::Bytes { max_bytes: Some(8), fixed: true }),
        "geometry" | "geography" => Some(Reading { ty: ColumnType::Geometry, cast: Cast::Geometry }),
        _ => None,
    }
}

/// What came of a value.
#[derive(Debug, PartialEq)]
pub(crate) enum Told {
    Cell(Cell),
    /// A time that was finer than a microsecond.
    Cut(Cell),
    /// It is of another type than the column was said to be.
    Misfit,
}

/// A value as a cell.
pub(crate) fn cell(value: &ColumnData<'_>, ty: &ColumnType, into: &mut BatchBuilder) -> Told {
    match (value, ty) {
        (ColumnData::Time(Some(time)), ColumnType::Time { .. }) => cut(ticks(*time)),
        (ColumnData::DateTime2(Some(at)), ColumnType::DateTime { .. }) => cut(moment(*at)),
        // The driver tells the moment by the clock of UTC.
        (ColumnData::DateTimeOffset(Some(at)), ColumnType::Timestamp { .. }) => cut(moment(at.datetime2())),
        _ => plain(value, ty, into).map_or(Told::Misfit, Told::Cell),
    }
}

fn plain(value: &ColumnData<'_>, ty: &ColumnType, into: &mut BatchBuilder) -> Option<Cell> {
    use ColumnType as T;
    if is_null(value) {
        return Some(Cell::Null);
    }
    Some(match (value, ty) {
        (ColumnData::Bit(bit), T::Bool) => Cell::I64((*bit)?.into()),
        (ColumnData::U8(n), T::UInt { .. }) => Cell::I64((*n)?.into()),
        (ColumnData::I16(n), T::Int { bits: 16 }) => Cell::I64((*n)?.into()),
        (ColumnData::I32(n), T::Int { bits: 32 }) => Cell::I64((*n)?.into()),
        (ColumnData::I64(n), T::Int { bits: 64 }) => Cell::I64((*n)?),
        (ColumnData::F32(n), T::Float32) => Cell::F32((*n)?),
        (ColumnData::F64(n), T::Float64) => Cell::F64((*n)?),
        (ColumnData::Numeric(n), T::Decimal { scale, .. }) => {
            let n = (*n)?;
            (n.scale() == *scale).then_some(())?;
            Cell::Decimal(into.write(|out| decimal(out, n.value(), *scale)))
        }
        (ColumnData::Date(date), T::Date) => Cell::I64(i64::from((*date)?.days()) - EPOCH_DAYS),
        (ColumnData::SmallDateTime(at), T::DateTime { .. }) => {
            let at = (*at)?;
            let minutes = i64::from(at.seconds_fragments());
            Cell::I64((i64::from(at.days()) - DAYS_TO_1900) * MICROS_PER_DAY + minutes * 60_000_000)
        }
        (ColumnData::DateTime(at), T::DateTime { .. }) => {
            let at = (*at)?;
            let millis = (i64::from(at.seconds_fragments()) * 10 + 1) / 3;
            Cell::I64((i64::from(at.days()) - DAYS_TO_1900) * MICROS_PER_DAY + millis * 1000)
        }
        (ColumnData::Guid(id), T::Uuid) => {
            let id = (*id)?;
            // Writing to a Vec does not fail.
            Cell::Text(into.write(|out| drop(write!(out, "{id}"))))
        }
        (ColumnData::String(text), T::Text { .. }) => Cell::Text(into.copy(text.as_ref()?.as_bytes())),
        (ColumnData::String(text), T::Json) => Cell::Json(into.copy(text.as_ref()?.as_bytes())),
        (ColumnData::Binary(bytes), T::Bytes { .. }) => Cell::Bytes(into.copy(bytes.as_ref()?)),
        (ColumnData::Binary(bytes), T::Geometry) => {
            let bytes = bytes.as_ref()?;
            let (srid, wkb) = bytes.split_at_checked(4)?;
            // The server writes numbers with the high byte first.
            Cell::Bytes(into.write(|out| {
                out.extend(srid.iter().rev());
                out.extend_from_slice(wkb);
            }))
        }
        _ => return None,
    })
}

/// A column of one type comes as another variant where all of its values are NULL: any NULL is one.
fn is_null(value: &ColumnData<'_>) -> bool {
    match value {
        ColumnData::U8(v) => v.is_none(),
        ColumnData::I16(v) => v.is_none(),
        ColumnData::I32(v) => v.is_none(),
        ColumnData::I64(v) => v.is_none(),
        ColumnData::F32(v) => v.is_none(),
        ColumnData::F64(v) => v.is_none(),
        ColumnData::Bit(v) => v.is_none(),
        ColumnData::String(v) => v.is_none(),
        ColumnData::Guid(v) => v.is_none(),
        ColumnData::Binary(v) => v.is_none(),
        ColumnData::Numeric(v) => v.is_none(),
        ColumnData::Xml(v) => v.is_none(),
        ColumnData::DateTime(v) => v.is_none(),
        ColumnData::SmallDateTime(v) => v.is_none(),
        ColumnData::Time(v) => v.is_none(),
        ColumnData::Date(v) => v.is_none(),
        ColumnData::DateTime2(v) => v.is_none(),
        ColumnData::DateTimeOffset(v) => v.is_none(),
    }
}

/// Microseconds since midnight, and whether something was cut off.
fn ticks(time: Time) -> (i64, bool) {
    let (n, scale) = (time.increments(), u32::from(time.scale()));
    match scale {
        0..=6 => ((n * 10_u64.pow(6 - scale)) as i64, false),
        _ => {
            let finer = 10_u64.pow(scale - 6);
            ((n / finer) as i64, n % finer != 0)
        }
    }
}

fn moment(at: DateTime2) -> (i64, bool) {
    let (micros, cut) = ticks(at.time());
    ((i64::from(at.date().days()) - EPOCH_DAYS) * MICROS_PER_DAY + micros, cut)
}

fn cut((micros, cut): (i64, bool)) -> Told {
    if cut { Told::Cut(Cell::I64(micros)) } else { Told::Cell(Cell::I64(micros)) }
}

/// A number of units of 10^-scale, in plain notation with exactly that many fraction digits.
fn decimal(out: &mut Vec<u8>, unscaled: i128, scale: u8) {
    let digits = unscaled.unsigned_abs().to_string();
    let scale = usize::from(scale);
    if unscaled < 0 {
        out.push(b'-');
    }
    let whole = digits.len().saturating_sub(scale);
    match whole {
        0 => out.push(b'0'),
        n => out.extend_from_slice(&digits.as_bytes()[..n]),
    }
    if scale > 0 {
        out.push(b'.');
        out.resize(out.len() + scale.saturating_sub(digits.len()), b'0');
        out.extend_from_slice(&digits.as_bytes()[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiberius::numeric::Numeric;
    use tiberius::time::{Date, DateTime, DateTimeOffset, SmallDateTime};

    fn told(value: ColumnData<'static>, native: &str) -> String {
        let reading = reading(native).unwrap();
        let mut into = BatchBuilder::default();
        let (cell, cut) = match cell(&value, &reading.ty, &mut into) {
            Told::Cell(cell) => (cell, ""),
            Told::Cut(cell) => (cell, " cut"),
            Told::Misfit => return "misfit".into(),
        };
        let text = match cell {
            Cell::Null => "NULL".into(),
            Cell::I64(n) => n.to_string(),
            Cell::F32(n) => n.to_string(),
            Cell::F64(n) => n.to_string(),
            Cell::Bytes(slice) => format!("{:02x?}", into.bytes(slice)),
            other => String::from_utf8(into.bytes(other.slice().unwrap()).to_vec()).unwrap(),
        };
        text + cut
    }

    #[test]
    fn values_become_cells_exactly() {
        let at = |days, ticks, scale| DateTime2::new(Date::new(days), Time::new(ticks, scale));
        for (value, native, expected) in [
            (ColumnData::Bit(Some(true)), "bit", "1"),
            (ColumnData::U8(Some(255)), "tinyint", "255"),
            (ColumnData::I16(Some(i16::MIN)), "smallint", "-32768"),
            (ColumnData::I32(Some(i32::MIN)), "int", "-2147483648"),
            (ColumnData::I64(Some(i64::MIN)), "bigint", "-9223372036854775808"),
            (ColumnData::F32(Some(0.1)), "real", "0.1"),
            (ColumnData::F64(Some(0.1)), "float", "0.1"),
            (ColumnData::Numeric(Some(Numeric::new_with_scale(-1, 4))), "money", "-0.0001"),
            (
                ColumnData::Numeric(Some(Numeric::new_with_scale(i128::from(i64::MAX), 4))),
                "money",
                "922337203685477.5807",
            ),
            (
                ColumnData::Numeric(Some(Numeric::new_with_scale(10_i128.pow(38) - 1, 0))),
                "decimal(38,0)",
                "99999999999999999999999999999999999999",
            ),
            (
                ColumnData::Numeric(Some(Numeric::new_with_scale(1 - 10_i128.pow(38), 37))),
                "numeric(38,37)",
                "-9.9999999999999999999999999999999999999",
            ),
            (ColumnData::Numeric(Some(Numeric::new_with_scale(5, 10))), "decimal(38,10)", "0.0000000005"),
            (ColumnData::Numeric(Some(Numeric::new_with_scale(5, 3))), "decimal(38,10)", "misfit"),
            (ColumnData::Date(Some(Date::new(719_162))), "date", "0"),
            (ColumnData::Date(Some(Date::new(0))), "date", "-719162"),
            (ColumnData::Time(Some(Time::new(863_999_999_999, 7))), "time(7)", "86399999999 cut"),
            (ColumnData::Time(Some(Time::new(863_999_999_990, 7))), "time(7)", "86399999999"),
            (ColumnData::Time(Some(Time::new(86_399, 0))), "time(0)", "86399000000"),
            (ColumnData::DateTime2(Some(at(719_163, 1, 0))), "datetime2(0)", "86401000000"),
            (ColumnData::DateTime2(Some(at(719_162, 1_234_567, 7))), "datetime2(7)", "123456 cut"),
            (
                ColumnData::DateTimeOffset(Some(DateTimeOffset::new(at(719_162, 3_600, 0), -240))),
                "datetimeoffset(0)",
                "3600000000",
            ),
            (ColumnData::DateTime(Some(DateTime::new(25_567, 1))), "datetime", "3000"),
            (ColumnData::DateTime(Some(DateTime::new(25_567, 2))), "datetime", "7000"),
            (ColumnData::DateTime(Some(DateTime::new(25_567, 3))), "datetime", "10000"),
            (ColumnData::DateTime(Some(DateTime::new(-53_690, 25_919_999))), "datetime", "-6847718400003000"),
            (
                ColumnData::SmallDateTime(Some(SmallDateTime::new(25_567, 1439))),
                "smalldatetime",
                "86340000000",
            ),
            (
                ColumnData::Guid(Some(tiberius::Uuid::from_u128(0x6F96_19FF_8B86_D011_B42D_00C0_4FC9_64FF))),
                "uniqueidentifier",
                "6f9619ff-8b86-d011-b42d-00c04fc964ff",
            ),
            (ColumnData::String(Some("ñandú 🦤".into())), "nvarchar(max)", "ñandú 🦤"),
            (ColumnData::Binary(Some(vec![0, 0, 16, 230, 1].into())), "geography", "[e6, 10, 00, 00, 01]"),
            (
                ColumnData::Binary(Some(vec![0, 0, 0, 0, 0, 0, 7, 209].into())),
                "timestamp",
                "[00, 00, 00, 00, 00, 00, 07, d1]",
            ),
            (ColumnData::I32(None), "nvarchar(10)", "NULL"),
            (ColumnData::I32(Some(1)), "nvarchar(10)", "misfit"),
        ] {
            assert_eq!(told(value.clone(), native), expected, "{value:?} as {native}");
        }
    }

    #[test]
    fn what_the_driver_cannot_tell_exactly_is_cast_by_the_server() {
        let cast = |native: &str| reading(native).unwrap().cast.around("q.[c]");
        assert_eq!(cast("money"), "CAST(q.[c] AS decimal(19,4))");
        assert_eq!(cast("smallmoney"), "CAST(q.[c] AS decimal(10,4))");
        assert_eq!(cast("xml"), "CAST(q.[c] AS nvarchar(max))");
        assert_eq!(cast("decimal(38,0)"), "q.[c]");
        assert_eq!(reading("datetime2(7)").unwrap().ty, ColumnType::DateTime { precision: 6 });
        assert_eq!(reading("nvarchar(40)").unwrap().ty, ColumnType::Text { max_chars: Some(40) });
        assert_eq!(reading("nvarchar(max)").unwrap().ty, ColumnType::Text { max_chars: None });
        assert_eq!(reading("my.clr_type"), None);
    }
}
