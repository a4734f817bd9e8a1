//! One canonical text per column type, so that a value read from the source and one read from the sink can be compared as strings.
//!
//! The type that decides is the *source's*: the sink may hold an unsigned BIGINT as numeric or a BIT as bytes, but both must say the same
//! number. Times become microseconds (PostgreSQL writes 26 hours in another way than MySQL), JSON is written with sorted keys and plain
//! numbers, bytes are hexadecimal, floats are written as the shortest text that reads back as the same number.

mod json;
mod mysql;
mod postgres;

pub use mysql::from_mysql;
pub use postgres::from_postgres;

/// A column of the source as `information_schema.columns` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceColumn {
    /// Its name.
    pub name: String,
    /// `DATA_TYPE`, in lower case (`bigint`, `varchar`).
    pub data_type: String,
    /// Part of the primary key.
    pub in_key: bool,
}

/// How the values of a type are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Integer,
    Bit,
    Decimal,
    Float,
    Double,
    Date,
    DateTime,
    Time,
    Bytes,
    Geometry,
    Json,
    Vector,
    Text,
}

fn kind(data_type: &str) -> Kind {
    match data_type {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => Kind::Integer,
        "bit" => Kind::Bit,
        "decimal" => Kind::Decimal,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "date" => Kind::Date,
        "datetime" | "timestamp" => Kind::DateTime,
        "time" => Kind::Time,
        "json" => Kind::Json,
        "vector" => Kind::Vector,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Bytes,
        t if is_geometry(t) => Kind::Geometry,
        _ => Kind::Text,
    }
}

fn is_geometry(data_type: &str) -> bool {
    matches!(
        data_type,
        "geometry"
            | "point"
            | "linestring"
            | "polygon"
            | "multipoint"
            | "multilinestring"
            | "multipolygon"
            | "geometrycollection"
            | "geomcollection"
    )
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

fn floats(values: impl Iterator<Item = f32>) -> String {
    values.map(|v| format!("{v:?}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql_async::Value;

    fn agree(data_type: &str, mysql: Value, pg_type: &str, pg_text: &str) {
        let column = SourceColumn { name: "c".into(), data_type: data_type.into(), in_key: false };
        let source = from_mysql(&column, &mysql).unwrap();
        let sink = from_postgres(&column, pg_type, pg_text).unwrap();
        assert_eq!(source, sink, "{data_type} / {pg_type}");
    }

    fn bytes(b: &[u8]) -> Value {
        Value::Bytes(b.to_vec())
    }

    #[test]
    fn both_sides_of_each_type_agree() {
        agree("tinyint", Value::Int(1), "boolean", "t");
        agree("tinyint", Value::Int(-5), "smallint", "-5");
        agree("bigint", Value::UInt(u64::MAX), "numeric(20,0)", "18446744073709551615");
        agree("bit", bytes(&[0b101]), "bit(3)", "101");
        agree("bit", bytes(&[1]), "boolean", "t");
        agree("decimal", bytes(b"-1.50"), "numeric(10,2)", "-1.50");
        agree("float", Value::Float(0.1), "real", "0.1");
        agree("float", Value::Float(1e10), "real", "1e+10");
        agree("double", Value::Double(1e300), "double precision", "1e+300");
        agree("date", Value::Date(2026, 2, 3, 0, 0, 0, 0), "date", "2026-02-03");
        agree(
            "datetime",
            Value::Date(2026, 2, 3, 4, 5, 6, 700_000),
            "timestamp without time zone",
            "2026-02-03 04:05:06.7",
        );
        agree(
            "timestamp",
            Value::Date(2026, 2, 3, 4, 5, 6, 0),
            "timestamp with time zone",
            "2026-02-03 04:05:06+00",
        );
        agree("time", Value::Time(true, 34, 22, 59, 59, 500_000), "interval", "-838:59:59.5");
        agree("time", Value::Time(false, 1, 2, 0, 0, 0), "interval", "1 day 02:00:00");
        agree("varbinary", bytes(&[0, 255]), "bytea", "\\x00ff");
        // MySQL: SRID, WKB; sink: EWKB, which has the SRID behind the type if there is one.
        agree("point", bytes(&[0, 0, 0, 0, 1, 1, 0, 0, 0, 7]), "bytea", "\\x010100000007");
        agree("point", bytes(&[0xe6, 0x10, 0, 0, 1, 1, 0, 0, 0, 7]), "bytea", "\\x0101000020e610000007");
        agree("json", bytes(br#"{"b": 1.50, "a": [1e2, "x"]}"#), "jsonb", r#"{"a": [100, "x"], "b": 1.5}"#);
        agree("vector", bytes(&[0, 0, 128, 63, 0, 0, 0, 64]), "real[]", "{1,2}");
        agree("char", bytes(b"ab"), "character(5)", "ab   ");
        agree("inet4", bytes(b"10.0.0.1"), "inet", "10.0.0.1/32");
    }

    #[test]
    fn a_small_difference_is_seen() {
        let column = SourceColumn { name: "c".into(), data_type: "json".into(), in_key: false };
        let a = from_mysql(&column, &bytes(b"[1.10000000000000000001]")).unwrap();
        assert_ne!(a, from_postgres(&column, "jsonb", "[1.1]").unwrap());
        let column = SourceColumn { data_type: "varchar".into(), ..column };
        assert_ne!(from_mysql(&column, &bytes(b"a ")).unwrap(), from_postgres(&column, "text", "a").unwrap());
    }
}
