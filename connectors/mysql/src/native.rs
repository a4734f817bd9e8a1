//! Column types as the server writes them (`int(10) unsigned`, `enum('a','b')`) to [`ColumnType`].

use caudal_core::ColumnType;

/// What `information_schema.COLUMNS` says of a column's type.
#[derive(Clone, Debug, Default)]
pub(crate) struct NativeType {
    /// `DATA_TYPE`, lower case.
    pub(crate) name: String,
    /// `COLUMN_TYPE`.
    pub(crate) full: String,
    /// `CHARACTER_MAXIMUM_LENGTH`.
    pub(crate) length: Option<u64>,
    /// `NUMERIC_PRECISION`.
    pub(crate) precision: Option<u64>,
    /// `NUMERIC_SCALE`.
    pub(crate) scale: Option<u64>,
    /// `DATETIME_PRECISION`.
    pub(crate) fraction: Option<u64>,
}

impl NativeType {
    /// The type of its cells; none for a type that is not known.
    pub(crate) fn column_type(&self) -> Option<ColumnType> {
        let unsigned = self.full.contains(" unsigned") || self.full.contains(" zerofill");
        let int = |bits| if unsigned { ColumnType::UInt { bits } } else { ColumnType::Int { bits } };
        let fraction = self.fraction.unwrap_or(0) as u8;
        let length = self.length.map(|n| n.min(u64::from(u32::MAX)) as u32);
        Some(match self.name.as_str() {
            "tinyint" if !unsigned && self.full.starts_with("tinyint(1)") => ColumnType::Bool,
            "tinyint" => int(8),
            "smallint" => int(16),
            "mediumint" => int(24),
            "int" | "integer" => int(32),
            "bigint" => int(64),
            "float" => ColumnType::Float32,
            "double" => ColumnType::Float64,
            "decimal" => ColumnType::Decimal {
                precision: self.precision.unwrap_or(10) as u8,
                scale: self.scale.unwrap_or(0) as u8,
            },
            "bit" => ColumnType::Bit { bits: self.precision.unwrap_or(1) as u8 },
            "char" | "varchar" => ColumnType::Text { max_chars: length },
            "tinytext" | "text" | "mediumtext" | "longtext" => ColumnType::Text { max_chars: None },
            "binary" => ColumnType::Bytes { max_bytes: length, fixed: true },
            "varbinary" => ColumnType::Bytes { max_bytes: length, fixed: false },
            "tinyblob" | "blob" | "mediumblob" | "longblob" => {
                ColumnType::Bytes { max_bytes: None, fixed: false }
            }
            "date" => ColumnType::Date,
            "time" => ColumnType::Time { precision: fraction },
            "datetime" => ColumnType::DateTime { precision: fraction },
            "timestamp" => ColumnType::Timestamp { precision: fraction },
            "year" => ColumnType::Year,
            "json" => ColumnType::Json,
            "enum" => ColumnType::Enum { members: members(&self.full) },
            "set" => ColumnType::Set { members: members(&self.full) },
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geomcollection" => ColumnType::Geometry,
            "vector" => ColumnType::Vector { dimensions: parenthesised(&self.full).unwrap_or(0) },
            "uuid" => ColumnType::Uuid,
            "inet4" => ColumnType::Inet4,
            "inet6" => ColumnType::Inet6,
            _ => return None,
        })
    }
}

/// The number in `name(number)`.
fn parenthesised(full: &str) -> Option<u32> {
    full.split_once('(')?.1.split_once(')')?.0.trim().parse().ok()
}

/// The labels in `enum('a','it''s')`. The server doubles quotes, and escapes backslashes, line ends and zero bytes.
fn members(full: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = full.chars().peekable();
    while rest.by_ref().any(|c| c == '\'') {
        let mut label = String::new();
        while let Some(c) = rest.next() {
            match c {
                '\'' if rest.peek() == Some(&'\'') => {
                    label.push('\'');
                    rest.next();
                }
                '\'' => break,
                '\\' => label.extend(rest.next().map(unescaped)),
                c => label.push(c),
            }
        }
        out.push(label);
    }
    out
}

fn unescaped(c: char) -> char {
    match c {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        'Z' => '\x1a',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, full: &str) -> ColumnType {
        NativeType { name: name.to_owned(), full: full.to_owned(), ..NativeType::default() }
            .column_type()
            .unwrap()
    }

    #[test]
    fn a_tinyint_of_width_one_is_a_boolean_and_others_are_numbers() {
        assert_eq!(of("tinyint", "tinyint(1)"), ColumnType::Bool);
        assert_eq!(of("tinyint", "tinyint(4)"), ColumnType::Int { bits: 8 });
        assert_eq!(of("tinyint", "tinyint(1) unsigned"), ColumnType::UInt { bits: 8 });
        assert_eq!(of("int", "int(5) unsigned zerofill"), ColumnType::UInt { bits: 32 });
        assert_eq!(of("bigint", "bigint"), ColumnType::Int { bits: 64 });
    }

    #[test]
    fn labels_with_quotes_commas_and_backslashes_are_read() {
        let expected: Vec<String> = ["it's", "a,b", "", "\\", "x)"].map(str::to_owned).into();
        assert_eq!(of("enum", r"enum('it''s','a,b','','\\','x)')"), ColumnType::Enum { members: expected });
    }

    #[test]
    fn vectors_have_their_dimensions() {
        assert_eq!(of("vector", "vector(3)"), ColumnType::Vector { dimensions: 3 });
    }
}
