//! Chunk boundaries: values that came from the server and go back to it as typed parameters, in the column's own order.
//!
//! They are never compared here. How each type goes there and back:
//!
//! | column | read as | compared with |
//! |---|---|---|
//! | integers, YEAR, FLOAT, DOUBLE | itself, binary | `?` |
//! | BIT, ENUM, SET | `k+0` | `k+0` and `?` |
//! | DECIMAL | itself | `CAST(? AS DECIMAL(p,s))`: as text it would be compared as DOUBLE |
//! | CHAR, VARCHAR | its bytes | `CONVERT(CAST(? AS BINARY) USING charset) COLLATE collation` |
//! | BINARY, VARBINARY | itself | `CAST(? AS BINARY)` |
//! | DATE, TIME, DATETIME, TIMESTAMP | itself | `?`, a temporal parameter |
//! | UUID, INET4, INET6 | itself | `CAST(? AS type)` |
//!
//! A key with a part of any other type, or indexed by a prefix only, is unusable: the table is read in one piece.

use caudal_core::{Column, ColumnType};
use serde::{Deserialize, Serialize};

use crate::client::quoted;
use crate::value::Value;

/// One key column's part in a chunk's query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Selected for the boundary.
    pub(crate) read: String,
    /// Left side of comparisons.
    pub(crate) left: String,
    /// Right side, with one `?` for a value that the server gave.
    pub(crate) right: String,
    /// Right side, with one `?` for a value made by [`of_cell`](super::values::of_cell).
    pub(crate) of_cell: String,
    /// What it is ordered by.
    pub(crate) order: String,
}

/// How a key column is read and compared; none if it cannot be.
pub(crate) fn part(column: &Column, collation: Option<&str>) -> Option<Part> {
    let name = quoted(&column.name);
    let plain = |right: &str| Part {
        read: name.clone(),
        left: name.clone(),
        right: right.to_owned(),
        of_cell: right.to_owned(),
        order: name.clone(),
    };
    Some(match &column.ty {
        ColumnType::Bool
        | ColumnType::Int { .. }
        | ColumnType::UInt { .. }
        | ColumnType::Float32
        | ColumnType::Float64
        | ColumnType::Year
        | ColumnType::Date
        | ColumnType::Time { .. }
        | ColumnType::DateTime { .. }
        | ColumnType::Timestamp { .. } => plain("?"),
        ColumnType::Bit { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. } => {
            let number = format!("({name}+0)");
            Part { read: number.clone(), left: number, ..plain("?") }
        }
        ColumnType::Decimal { precision, scale } => {
            plain(&format!("CAST(? AS DECIMAL({precision},{scale}))"))
        }
        ColumnType::Text { max_chars: Some(_) } => {
            let (charset, collation) = (word(column.charset.as_deref()?)?, word(collation?)?);
            let right = format!("CONVERT(CAST(? AS BINARY) USING {charset}) COLLATE {collation}");
            // Cells are UTF-8, whatever the column is.
            let of_cell = format!(
                "CONVERT(CONVERT(CAST(? AS BINARY) USING utf8mb4) USING {charset}) COLLATE {collation}"
            );
            Part { read: format!("CAST({name} AS BINARY)"), of_cell, ..plain(&right) }
        }
        ColumnType::Bytes { max_bytes: Some(_), .. } => plain("CAST(? AS BINARY)"),
        ColumnType::Uuid => plain("CAST(? AS UUID)"),
        ColumnType::Inet4 => plain("CAST(? AS INET4)"),
        ColumnType::Inet6 => plain("CAST(? AS INET6)"),
        _ => return None,
    })
}

/// Names of character sets and collations go into SQL as they are, so only plain ones do.
fn word(name: &str) -> Option<&str> {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then_some(name)
}

/// "Behind this key": `(a > x) OR (a = x AND b > y)`, expanded since servers compare rows of columns without an index. The
/// first part is repeated as `a >= x`, which gives the index one range to start from. NULLs, which only keys of the
/// configuration's can hold, come before all values.
pub(crate) fn behind(parts: &[Part], key: &[Value]) -> String {
    let after = |part: &Part, value: &Value| match value {
        Value::Null => format!("{} IS NOT NULL", part.left),
        _ => format!("{} > {}", part.left, part.right),
    };
    let alternatives = alternatives(parts, key, after);
    match (parts, key.first()) {
        ([_], _) => alternatives.concat(),
        (_, None | Some(Value::Null)) => format!("({})", alternatives.join(" OR ")),
        _ => format!("{} >= {} AND ({})", parts[0].left, parts[0].right, alternatives.join(" OR ")),
    }
}

/// The parameters of [`behind`] and of [`up_to`], in their order.
pub(crate) fn key_parameters(key: &[Value]) -> Vec<Value> {
    let first = key.first().filter(|_| key.len() > 1);
    let all = (0..key.len()).flat_map(|i| &key[..=i]);
    first.into_iter().chain(all).filter(|v| **v != Value::Null).cloned().collect()
}

/// "Not behind this key": `a <= x AND ((a < x) OR (a = x AND b <= y))`.
pub(crate) fn up_to(parts: &[Part], key: &[Value]) -> String {
    let last = parts.len().saturating_sub(1);
    let before = |i: usize, part: &Part, value: &Value| match (value, i == last) {
        (Value::Null, false) => "FALSE".to_owned(),
        (Value::Null, true) => format!("{} IS NULL", part.left),
        (_, at_last) => {
            let sign = if at_last { "<=" } else { "<" };
            format!("({0} {sign} {1} OR {0} IS NULL)", part.left, part.right)
        }
    };
    let mut i = 0;
    let alternatives = alternatives(parts, key, |part, value| {
        i += 1;
        before(i - 1, part, value)
    });
    match (parts, key.first()) {
        ([_], _) => alternatives.concat(),
        (_, None) => "FALSE".to_owned(),
        (_, Some(Value::Null)) => format!("{} IS NULL AND ({})", parts[0].left, alternatives.join(" OR ")),
        _ => format!(
            "({0} <= {1} OR {0} IS NULL) AND ({2})",
            parts[0].left,
            parts[0].right,
            alternatives.join(" OR ")
        ),
    }
}

/// For each part: all before it are equal to the key's, and `differs` is said of it.
fn alternatives(
    parts: &[Part],
    key: &[Value],
    mut differs: impl FnMut(&Part, &Value) -> String,
) -> Vec<String> {
    let equal = |(part, value): (&Part, &Value)| match value {
        Value::Null => format!("{} IS NULL", part.left),
        _ => format!("{} = {}", part.left, part.right),
    };
    let pairs: Vec<(&Part, &Value)> = parts.iter().zip(key).collect();
    let mut one = |i: usize| {
        let mut terms: Vec<String> = pairs[..i].iter().copied().map(equal).collect();
        terms.push(differs(pairs[i].0, pairs[i].1));
        format!("({})", terms.join(" AND "))
    };
    (0..pairs.len()).map(&mut one).collect()
}

/// "One of these `count` rows of values": for values that were made from cells.
pub(crate) fn one_of(parts: &[Part], count: usize) -> String {
    let row: Vec<String> = parts.iter().map(|p| format!("{} = {}", p.left, p.of_cell)).collect();
    vec![format!("({})", row.join(" AND ")); count].join(" OR ")
}

/// "One of these keys", and the parameters: for keys that were made from cells, NULLs among them too.
pub(crate) fn one_of_keys(parts: &[Part], keys: &[Vec<Stored>]) -> (String, Vec<Value>) {
    let equal = |(part, value): (&Part, &Stored)| match value {
        Stored::Null => format!("{} IS NULL", part.left),
        _ => format!("{} = {}", part.left, part.of_cell),
    };
    let key = |key: &Vec<Stored>| {
        let terms: Vec<String> = parts.iter().zip(key).map(equal).collect();
        format!("({})", terms.join(" AND "))
    };
    let condition = keys.iter().map(key).collect::<Vec<_>>().join(" OR ");
    let told = keys.iter().flatten().filter(|value| **value != Stored::Null);
    (condition, told.filter_map(Stored::to_value).collect())
}

/// A boundary value as a progress note stores it: exactly, whatever its type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stored {
    /// NULL, in a key of the configuration's.
    Null,
    /// Signed.
    Int(i64),
    /// Unsigned.
    Uint(u64),
    /// The bits of a FLOAT.
    Float(u32),
    /// The bits of a DOUBLE.
    Double(u64),
    /// Bytes, in hexadecimal.
    Bytes(String),
    /// Year, month, day, hour, minute, second, microsecond.
    Date(u16, u8, u8, u8, u8, u8, u32),
    /// Negative, days, hours, minutes, seconds, microseconds.
    Time(bool, u32, u8, u8, u8, u32),
}

impl Stored {
    /// Of bytes.
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Of a value.
    pub(crate) fn from_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Int(n) => Self::Int(*n),
            Value::UInt(n) => Self::Uint(*n),
            Value::Float(n) => Self::Float(n.to_bits()),
            Value::Double(n) => Self::Double(n.to_bits()),
            Value::Bytes(b) => Self::bytes(b),
            &Value::Date(y, mo, d, h, mi, s, us) => Self::Date(y, mo, d, h, mi, s, us),
            &Value::Time(neg, d, h, m, s, us) => Self::Time(neg, d, h, m, s, us),
        }
    }

    /// Back; none if the stored text was damaged.
    pub(crate) fn to_value(&self) -> Option<Value> {
        Some(match self {
            Self::Null => Value::Null,
            Self::Int(n) => Value::Int(*n),
            Self::Uint(n) => Value::UInt(*n),
            Self::Float(bits) => Value::Float(f32::from_bits(*bits)),
            Self::Double(bits) => Value::Double(f64::from_bits(*bits)),
            Self::Bytes(hex) => Value::Bytes(unhex(hex)?),
            &Self::Date(y, mo, d, h, mi, s, us) => Value::Date(y, mo, d, h, mi, s, us),
            &Self::Time(neg, d, h, m, s, us) => Value::Time(neg, d, h, m, s, us),
        })
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    digits
        .len()
        .is_multiple_of(2)
        .then(|| digits.chunks(2).map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(n: &str) -> Part {
        let (name, value) = (n.to_owned(), "?".to_owned());
        Part { read: name.clone(), left: name.clone(), right: value.clone(), of_cell: value, order: name }
    }

    #[test]
    fn a_composite_boundary_is_expanded_with_its_parameters_in_order() {
        let values: Vec<Value> = [1, 2, 3].map(Value::Int).into();
        assert_eq!(one_of(&[part("a"), part("b")], 2), "(a = ? AND b = ?) OR (a = ? AND b = ?)");
        assert_eq!(behind(&[part("a")], &values[..1]), "(a > ?)");
        assert_eq!(
            behind(&[part("a"), part("b"), part("c")], &values),
            "a >= ? AND ((a > ?) OR (a = ? AND b > ?) OR (a = ? AND b = ? AND c > ?))"
        );
        let expected: Vec<Value> = [1, 1, 1, 2, 1, 2, 3].map(Value::Int).into();
        assert_eq!(key_parameters(&values), expected);
    }

    #[test]
    fn keys_that_hold_null_are_asked_for_too() {
        let parts = [part("a"), part("b")];
        let keys = [vec![Stored::Int(1), Stored::Null], vec![Stored::Int(2), Stored::Int(3)]];
        let (condition, parameters) = one_of_keys(&parts, &keys);
        assert_eq!(condition, "(a = ? AND b IS NULL) OR (a = ? AND b = ?)");
        assert_eq!(parameters, [1, 2, 3].map(Value::Int));
    }

    #[test]
    fn null_comes_before_all_values_of_a_key() {
        let parts = [part("a"), part("b")];
        let key = [Value::Null, Value::Int(2)];
        assert_eq!(behind(&parts, &key), "((a IS NOT NULL) OR (a IS NULL AND b > ?))");
        assert_eq!(key_parameters(&key), [Value::Int(2)]);
        let expected = "a IS NULL AND ((FALSE) OR (a IS NULL AND (b <= ? OR b IS NULL)))";
        assert_eq!(up_to(&parts, &key), expected);
        let key = [Value::Int(1), Value::Null];
        assert_eq!(behind(&parts, &key), "a >= ? AND ((a > ?) OR (a = ? AND b IS NOT NULL))");
        assert_eq!(key_parameters(&key), [1, 1, 1].map(Value::Int));
        let expected = "(a <= ? OR a IS NULL) AND (((a < ? OR a IS NULL)) OR (a = ? AND b IS NULL))";
        assert_eq!(up_to(&parts, &key), expected);
    }

    #[test]
    fn boundaries_are_stored_exactly() {
        let values = [
            Value::Int(-1),
            Value::UInt(u64::MAX),
            Value::Float(16_777_217.0),
            Value::Double(0.1),
            Value::Bytes(vec![0, 255, 39]),
            Value::Date(0, 0, 0, 0, 0, 0, 0),
            Value::Time(true, 34, 22, 59, 59, 1),
        ];
        for value in values {
            let text = serde_json::to_string(&Stored::from_value(&value)).unwrap();
            assert_eq!(serde_json::from_str::<Stored>(&text).unwrap().to_value(), Some(value));
        }
    }
}
