//! Values as MySQL and MariaDB send them in the binary protocol.

use anyhow::{Context, Result, bail};
use mysql_async::Value;

use super::{Kind, SourceColumn, floats, hex, json, kind};

/// The canonical text of a value of `column`; `None` for NULL.
///
/// # Errors
/// When the value isn't of the column's type.
pub fn from_mysql(column: &SourceColumn, value: &Value) -> Result<Option<String>> {
    if *value == Value::NULL {
        return Ok(None);
    }
    let text = match (kind(&column.data_type), value) {
        (Kind::Integer, Value::Int(n)) => n.to_string(),
        (Kind::Integer, Value::UInt(n)) => n.to_string(),
        (Kind::Float, Value::Float(x)) => format!("{x:?}"),
        (Kind::Double, Value::Double(x)) => format!("{x:?}"),
        (Kind::Date, Value::Date(y, m, d, ..)) => format!("{y:04}-{m:02}-{d:02}"),
        (Kind::DateTime, Value::Date(y, mo, d, h, mi, s, us)) => {
            format!("{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}.{us:06}")
        }
        (Kind::Time, Value::Time(negative, d, h, mi, s, us)) => {
            let seconds = ((i64::from(*d) * 24 + i64::from(*h)) * 60 + i64::from(*mi)) * 60 + i64::from(*s);
            let micros = seconds * 1_000_000 + i64::from(*us);
            (if *negative { -micros } else { micros }).to_string()
        }
        (kind, Value::Bytes(b)) => from_bytes(kind, b).with_context(|| format!("column {}", column.name))?,
        (kind, other) => bail!("column {}: {kind:?} came as {other:?}", column.name),
    };
    Ok(Some(text))
}

fn from_bytes(kind: Kind, bytes: &[u8]) -> Result<String> {
    Ok(match kind {
        Kind::Bytes | Kind::Geometry => hex(bytes),
        Kind::Bit => bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)).to_string(),
        Kind::Vector => floats(bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c))),
        Kind::Json => json::canonical(std::str::from_utf8(bytes)?)?,
        Kind::Decimal | Kind::Text => std::str::from_utf8(bytes)?.to_owned(),
        other => bail!("{other:?} came as bytes"),
    })
}
