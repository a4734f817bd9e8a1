//! Which Postgres type holds which column type, without losing a value.
//!
//! | source | Postgres | why |
//! |---|---|---|
//! | BIGINT UNSIGNED | `numeric(20,0)` | `bigint` ends at 2^63 - 1 |
//! | other integers | the next signed type that holds all values | |
//! | DECIMAL(p,s) | `numeric(p,s)` | |
//! | BIT(1), BIT(n) | `boolean`, `bit(n)` | |
//! | ENUM, SET, text | `text` | labels come and go without a table lock |
//! | JSON | `jsonb` (or `json`, by option) | MySQL keeps JSON in the same normal form as `jsonb` (last duplicate wins, members ordered by length, then bytes), so nothing is lost, and `jsonb` has operators, indexes and equality. `json` keeps the text as it came |
//! | DATETIME(p), TIMESTAMP(p) | `timestamp(p)`, `timestamptz(p)` | |
//! | TIME(p) | `interval(p)` | MySQL's runs from -838:59:59 to 838:59:59, Postgres' `time` from 0 to 24 h |
//! | YEAR | `smallint` | |
//! | BINARY, BLOB | `bytea` | |
//! | geometry | `bytea` holding EWKB | needs no extension; `ST_GeomFromEWKB(column)` reads it |
//! | VECTOR | `real[]` | |
//! | UUID, INET4, INET6 | `uuid`, `inet` | |
//!
//! Temporal values that are no moment of the calendar (`0000-00-00`) become NULL; such columns are created nullable.

use caudal_core::ColumnType;
use tokio_postgres::types::Type;

/// How a value travels to the server: the binary forms that `encode` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    Bool,
    Int2,
    Int4,
    Int8,
    Numeric,
    Float4,
    Float8,
    Text,
    Bytea,
    /// Bytes as SRID + WKB, sent as EWKB.
    Ewkb,
    Date,
    Interval,
    Timestamp,
    Timestamptz,
    Jsonb,
    Json,
    Bit(u8),
    Uuid,
    Inet,
    Float4Array,
}

impl Wire {
    /// The type of an array parameter of this form; none where arrays of it cannot be unnested by element.
    pub(crate) fn array(self) -> Option<Type> {
        Some(match self {
            Self::Bool => Type::BOOL_ARRAY,
            Self::Int2 => Type::INT2_ARRAY,
            Self::Int4 => Type::INT4_ARRAY,
            Self::Int8 => Type::INT8_ARRAY,
            Self::Numeric => Type::NUMERIC_ARRAY,
            Self::Float4 => Type::FLOAT4_ARRAY,
            Self::Float8 => Type::FLOAT8_ARRAY,
            Self::Text => Type::TEXT_ARRAY,
            Self::Bytea | Self::Ewkb => Type::BYTEA_ARRAY,
            Self::Date => Type::DATE_ARRAY,
            Self::Interval => Type::INTERVAL_ARRAY,
            Self::Timestamp => Type::TIMESTAMP_ARRAY,
            Self::Timestamptz => Type::TIMESTAMPTZ_ARRAY,
            Self::Jsonb => Type::JSONB_ARRAY,
            Self::Json => Type::JSON_ARRAY,
            Self::Bit(_) => Type::VARBIT_ARRAY,
            Self::Uuid => Type::UUID_ARRAY,
            Self::Inet => Type::INET_ARRAY,
            Self::Float4Array => return None,
        })
    }

    /// The type of one value.
    pub(crate) fn element(self) -> Type {
        match self {
            Self::Bool => Type::BOOL,
            Self::Int2 => Type::INT2,
            Self::Int4 => Type::INT4,
            Self::Int8 => Type::INT8,
            Self::Numeric => Type::NUMERIC,
            Self::Float4 => Type::FLOAT4,
            Self::Float8 => Type::FLOAT8,
            Self::Text => Type::TEXT,
            Self::Bytea | Self::Ewkb => Type::BYTEA,
            Self::Date => Type::DATE,
            Self::Interval => Type::INTERVAL,
            Self::Timestamp => Type::TIMESTAMP,
            Self::Timestamptz => Type::TIMESTAMPTZ,
            Self::Jsonb => Type::JSONB,
            Self::Json => Type::JSON,
            Self::Bit(_) => Type::VARBIT,
            Self::Uuid => Type::UUID,
            Self::Inet => Type::INET,
            Self::Float4Array => Type::FLOAT4_ARRAY,
        }
    }

    /// The type of a stage table's column.
    pub(crate) fn stage_sql(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Numeric => "numeric",
            Self::Float4 => "real",
            Self::Float8 => "double precision",
            Self::Text => "text",
            Self::Bytea | Self::Ewkb => "bytea",
            Self::Date => "date",
            Self::Interval => "interval",
            Self::Timestamp => "timestamp without time zone",
            Self::Timestamptz => "timestamp with time zone",
            Self::Jsonb => "jsonb",
            Self::Json => "json",
            Self::Bit(_) => "bit varying",
            Self::Uuid => "uuid",
            Self::Inet => "inet",
            Self::Float4Array => "real[]",
        }
    }
}

/// A column's form on the wire and its type in the table that Caudal creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PgType {
    pub(crate) wire: Wire,
    /// As `format_type` prints it.
    pub(crate) sql: String,
}

/// How JSON columns are created.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum JsonAs {
    /// `jsonb`: equal values, with operators and indexes.
    #[default]
    Jsonb,
    /// `json`: the text exactly as the source gave it.
    Json,
}

/// The type of a column type.
pub(crate) fn of(ty: &ColumnType, json: JsonAs) -> PgType {
    let (wire, sql) = match ty {
        ColumnType::Bool | ColumnType::Bit { bits: 1 } => (Wire::Bool, "boolean".to_owned()),
        ColumnType::Int { bits } => integer(*bits),
        ColumnType::UInt { bits: 64 } => (Wire::Numeric, "numeric(20,0)".to_owned()),
        // An unsigned type of n bits fits the signed one of n + 1.
        ColumnType::UInt { bits } => integer(bits + 1),
        ColumnType::Float32 => (Wire::Float4, "real".to_owned()),
        ColumnType::Float64 => (Wire::Float8, "double precision".to_owned()),
        ColumnType::Decimal { precision, scale } => (Wire::Numeric, format!("numeric({precision},{scale})")),
        ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. } => {
            (Wire::Text, "text".to_owned())
        }
        ColumnType::Bytes { .. } => (Wire::Bytea, "bytea".to_owned()),
        ColumnType::Geometry => (Wire::Ewkb, "bytea".to_owned()),
        ColumnType::Date => (Wire::Date, "date".to_owned()),
        ColumnType::Time { precision } => (Wire::Interval, format!("interval({precision})")),
        ColumnType::DateTime { precision } => {
            (Wire::Timestamp, format!("timestamp({precision}) without time zone"))
        }
        ColumnType::Timestamp { precision } => {
            (Wire::Timestamptz, format!("timestamp({precision}) with time zone"))
        }
        ColumnType::Year => (Wire::Int2, "smallint".to_owned()),
        ColumnType::Json => match json {
            JsonAs::Jsonb => (Wire::Jsonb, "jsonb".to_owned()),
            JsonAs::Json => (Wire::Json, "json".to_owned()),
        },
        ColumnType::Bit { bits } => (Wire::Bit(*bits), format!("bit({bits})")),
        ColumnType::Vector { .. } => (Wire::Float4Array, "real[]".to_owned()),
        ColumnType::Uuid => (Wire::Uuid, "uuid".to_owned()),
        ColumnType::Inet4 | ColumnType::Inet6 => (Wire::Inet, "inet".to_owned()),
    };
    PgType { wire, sql }
}

fn integer(bits: u8) -> (Wire, String) {
    match bits {
        ..=16 => (Wire::Int2, "smallint".to_owned()),
        17..=32 => (Wire::Int4, "integer".to_owned()),
        _ => (Wire::Int8, "bigint".to_owned()),
    }
}

/// Whether values of this type may arrive as text that is no moment, and so become NULL.
pub(crate) fn may_become_null(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. })
}

/// Whether a column of type `actual` (as `format_type` prints it) takes every value of `wanted`.
/// `max_chars` is the declared length of a text column, `is_enum` whether `actual` is an enumeration.
pub(crate) fn holds(actual: &str, is_enum: bool, wanted: &PgType, max_chars: Option<u32>) -> bool {
    if actual == wanted.sql || is_enum && wanted.wire == Wire::Text {
        return true;
    }
    let (base, args) = split(actual);
    let (_, wanted_args) = split(&wanted.sql);
    match (wanted.wire, base.as_str()) {
        (Wire::Int2, "integer" | "bigint") | (Wire::Int4, "bigint") => true,
        (Wire::Int2, "numeric") => digits_fit(&args, 5, 0),
        (Wire::Int4, "numeric") => digits_fit(&args, 10, 0),
        (Wire::Int8, "numeric") => digits_fit(&args, 19, 0),
        (Wire::Numeric, "numeric") => digits_fit(&args, wanted_args[0], wanted_args[1]),
        (Wire::Float4, "double precision") => true,
        (Wire::Text, "character varying") => {
            args.first().is_none_or(|limit| max_chars.is_some_and(|m| m <= *limit))
        }
        (Wire::Text, "citext") => true,
        (Wire::Jsonb | Wire::Json, "json" | "jsonb") => true,
        (Wire::Interval, "interval")
        | (Wire::Timestamp, "timestamp without time zone")
        | (Wire::Timestamptz, "timestamp with time zone") => {
            args.first().is_none_or(|p| *p >= wanted_args[0])
        }
        (Wire::Bit(n), "bit varying") => args.first().is_none_or(|limit| u32::from(n) <= *limit),
        (Wire::Float4Array, "double precision[]") => true,
        (Wire::Bytea | Wire::Ewkb | Wire::Float4Array, _) => false,
        (_, "text") => true,
        _ => false,
    }
}

/// `numeric(p,s)` (or without arguments) holds `precision` digits, `scale` of them fractions.
fn digits_fit(args: &[u32], precision: u32, scale: u32) -> bool {
    match args {
        [] => true,
        [p, rest @ ..] => {
            let s = rest.first().copied().unwrap_or(0);
            s >= scale && p.saturating_sub(s) >= precision - scale
        }
    }
}

/// `timestamp(3) without time zone` → (`timestamp without time zone`, [3]).
fn split(sql: &str) -> (String, Vec<u32>) {
    match (sql.find('('), sql.find(')')) {
        (Some(open), Some(close)) => {
            let args = sql[open + 1..close].split(',').filter_map(|a| a.trim().parse().ok()).collect();
            (format!("{}{}", &sql[..open], &sql[close + 1..]), args)
        }
        _ => (sql.to_owned(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pg(ty: ColumnType) -> PgType {
        of(&ty, JsonAs::Jsonb)
    }

    #[test]
    fn every_unsigned_type_has_room_for_its_largest_value() {
        for (bits, sql) in
            [(8, "smallint"), (16, "integer"), (24, "integer"), (32, "bigint"), (64, "numeric(20,0)")]
        {
            assert_eq!(pg(ColumnType::UInt { bits }).sql, sql);
        }
        for (bits, sql) in
            [(8, "smallint"), (16, "smallint"), (24, "integer"), (32, "integer"), (64, "bigint")]
        {
            assert_eq!(pg(ColumnType::Int { bits }).sql, sql);
        }
    }

    #[test]
    fn a_wider_column_holds_and_a_narrower_does_not() {
        let decimal = pg(ColumnType::Decimal { precision: 10, scale: 2 });
        assert!(holds("numeric(12,3)", false, &decimal, None));
        assert!(holds("numeric", false, &decimal, None));
        assert!(!holds("numeric(10,3)", false, &decimal, None), "one digit before the point is missing");
        assert!(!holds("numeric(12,1)", false, &decimal, None));
        let int = pg(ColumnType::Int { bits: 32 });
        assert!(holds("bigint", false, &int, None));
        assert!(!holds("smallint", false, &int, None));
        let text = pg(ColumnType::Text { max_chars: Some(20) });
        assert!(holds("character varying(20)", false, &text, Some(20)));
        assert!(!holds("character varying(19)", false, &text, Some(20)));
        assert!(!holds("character varying(19)", false, &text, None));
        assert!(holds("mood", true, &text, None));
        let at = pg(ColumnType::DateTime { precision: 6 });
        assert!(holds("timestamp without time zone", false, &at, None));
        assert!(!holds("timestamp(3) without time zone", false, &at, None));
        assert!(!holds("timestamp with time zone", false, &at, None));
        assert!(!holds("text", false, &pg(ColumnType::Bytes { max_bytes: None, fixed: false }), None));
    }
}
