//! Every column type of both families with its edge values, as SQL.

use caudal_mysql::connection::{Family, ServerVersion};

/// A column's type and values for it.
pub(crate) type Sample = (&'static str, Vec<String>);

fn sample(ty: &'static str, values: &[&str]) -> Sample {
    (ty, values.iter().map(|v| (*v).to_owned()).collect())
}

pub(crate) fn of(version: &ServerVersion) -> Vec<Sample> {
    let mut all = both();
    match version.family {
        Family::MySql => {
            let since_9 = |ty: &str| ty.starts_with("VECTOR");
            all.extend(mysql().into_iter().filter(|(ty, _)| version.number >= (9, 0, 0) || !since_9(ty)));
        }
        Family::MariaDb => all.extend(mariadb()),
    }
    all
}

#[rustfmt::skip]
fn both() -> Vec<Sample> {
    let long = "REPEAT('ü€x', 5000)";
    vec![
        sample("TINYINT", &["-128", "-1", "0", "1", "127"]),
        sample("TINYINT UNSIGNED", &["0", "127", "128", "255"]),
        sample("TINYINT(1)", &["0", "1"]),
        sample("SMALLINT", &["-32768", "-1", "32767"]),
        sample("SMALLINT UNSIGNED", &["0", "65535"]),
        sample("MEDIUMINT", &["-8388608", "-1", "0", "8388607"]),
        sample("MEDIUMINT UNSIGNED", &["0", "8388608", "16777215"]),
        sample("INT", &["-2147483648", "-1", "2147483647"]),
        sample("INT UNSIGNED", &["0", "2147483648", "4294967295"]),
        sample("BIGINT", &["-9223372036854775808", "-1", "9223372036854775807"]),
        sample("BIGINT UNSIGNED", &["0", "9223372036854775808", "18446744073709551615"]),
        sample("FLOAT", &["0", "-1.5", "3.4028234e38", "1.17549435e-38", "0.1", "16777217"]),
        sample("DOUBLE", &["0", "-1.5", "1.7976931348623157e308", "2.2250738585072014e-308", "0.1", "1e-10"]),
        sample("DECIMAL(10,2)", &["0", "-0.01", "99999999.99", "-99999999.99", "1.5"]),
        sample("DECIMAL(65,30)", &["0", "12345678901234567890123456789012345.123456789012345678901234567891", "-1.1", "0.000000000000000000000000000001"]),
        sample("DECIMAL(5,5)", &["0.12345", "-0.99999", "0"]),
        sample("DECIMAL(20,0)", &["-99999999999999999999", "7"]),
        sample("DECIMAL(1,0)", &["-9", "0", "9"]),
        sample("DECIMAL(18,9)", &["123456789.987654321", "-1"]),
        sample("BIT(1)", &["b'0'", "b'1'"]),
        sample("BIT(8)", &["b'10101010'", "255"]),
        sample("BIT(17)", &["b'10000000000000001'", "0"]),
        sample("BIT(64)", &["18446744073709551615", "1"]),
        sample("DATE", &["'1000-01-01'", "'9999-12-31'", "'0000-00-00'", "'2024-02-29'", "'2024-00-00'", "'1969-12-31'", "'1970-01-01'", "'0001-01-01'", "'2024-05-00'"]),
        sample("TIME", &["'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'", "'12:34:56'"]),
        sample("TIME(1)", &["'-00:00:00.1'", "'-01:00:00.9'", "'01:02:03.4'", "'-838:59:58.9'"]),
        sample("TIME(2)", &["'-00:00:00.01'", "'-01:00:00.99'", "'01:02:03.45'"]),
        sample("TIME(3)", &["'-00:00:00.001'", "'01:02:03.456'", "'-838:59:58.999'"]),
        sample("TIME(4)", &["'-00:00:00.0001'", "'01:02:03.4567'"]),
        sample("TIME(5)", &["'-00:00:00.00001'", "'01:02:03.45678'"]),
        sample("TIME(6)", &["'-00:00:00.000001'", "'-838:59:58.999999'", "'838:59:58.999999'"]),
        sample("DATETIME", &["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'0000-00-00 00:00:00'", "'1969-12-31 23:59:59'", "'2024-00-01 10:11:12'"]),
        sample("DATETIME(1)", &["'2024-02-29 23:59:59.9'", "'0000-00-00 00:00:00'"]),
        sample("DATETIME(2)", &["'2024-02-29 23:59:59.99'"]),
        sample("DATETIME(3)", &["'2024-02-29 23:59:59.999'", "'0000-00-00 00:00:00'"]),
        sample("DATETIME(4)", &["'2024-02-29 23:59:59.9999'"]),
        sample("DATETIME(5)", &["'2024-02-29 23:59:59.99999'"]),
        sample("DATETIME(6)", &["'2024-02-29 23:59:59.999999'", "'1000-01-01 00:00:00.000001'", "'1969-12-31 23:59:59.999999'"]),
        sample("TIMESTAMP NULL", &["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'0000-00-00 00:00:00'", "'2024-03-31 02:30:00'"]),
        sample("TIMESTAMP(1) NULL", &["'2024-01-01 00:00:00.1'", "'0000-00-00 00:00:00'"]),
        sample("TIMESTAMP(3) NULL", &["'2038-01-19 03:14:07.999'", "'0000-00-00 00:00:00'"]),
        sample("TIMESTAMP(6) NULL", &["'1970-01-01 00:00:01.000001'", "'2038-01-19 03:14:07.999999'", "'0000-00-00 00:00:00'"]),
        sample("YEAR", &["0", "1901", "2024", "2155"]),
        sample("CHAR(10)", &["''", "'abc'", "'ü€😀'", "'a  '"]),
        sample("CHAR(255)", &["''", "REPEAT('€', 255)", "REPEAT('😀', 200)"]),
        sample("VARCHAR(10)", &["''", "'abc  '", "'ü€😀'"]),
        sample("VARCHAR(16000)", &["''", "'x'", long]),
        sample("VARCHAR(20) CHARACTER SET latin1", &["''", "'caf\u{e9} \u{20ac}'", "'abc'"]),
        sample("CHAR(20) CHARACTER SET latin1", &["''", "'caf\u{e9} \u{20ac}'"]),
        sample("VARCHAR(20) CHARACTER SET utf16", &["''", "'\u{e9}\u{20ac}\u{1f600}'"]),
        sample("VARCHAR(20) CHARACTER SET utf32", &["'\u{e9}\u{20ac}\u{1f600}'"]),
        sample("CHAR(20) CHARACTER SET ucs2", &["''", "'\u{e9}\u{20ac}'"]),
        sample("VARCHAR(20) CHARACTER SET gbk", &["'你好 abc'"]),
        sample("VARCHAR(20) CHARACTER SET sjis", &["'こんにちは'"]),
        sample("VARCHAR(20) CHARACTER SET ascii", &["'abc'"]),
        sample("BINARY(4)", &["''", "x'00'", "x'01000000'", "x'ffffffff'", "'a'"]),
        sample("BINARY(255)", &["''", "REPEAT(x'ff', 255)"]),
        sample("VARBINARY(20)", &["''", "x'00ff00'", "'a'"]),
        sample("VARBINARY(300)", &["''", "x'00ff00'", "REPEAT(x'00', 300)"]),
        sample("TINYTEXT", &["''", "'ü'"]),
        sample("TEXT", &["''", long]),
        sample("TEXT CHARACTER SET latin1", &["''", "REPEAT('\u{e9}', 3000)"]),
        sample("MEDIUMTEXT", &["''", "REPEAT('x', 100000)"]),
        sample("LONGTEXT", &["''", "REPEAT('é', 300000)"]),
        sample("TINYBLOB", &["''", "x'00'"]),
        sample("BLOB", &["''", "REPEAT(x'fe', 65535)"]),
        sample("MEDIUMBLOB", &["''", "REPEAT(x'01', 70000)"]),
        sample("LONGBLOB", &["''", "REPEAT(x'00ff', 150000)"]),
        sample("ENUM('a','b''c','\u{fc}')", &["'a'", "'b''c'", "'\u{fc}'", "0"]),
        sample("ENUM('x','\u{e9}') CHARACTER SET latin1", &["'\u{e9}'", "'x'"]),
        sample("SET('a','b','\u{fc}')", &["''", "'a'", "'a,b'", "'a,b,\u{fc}'", "'\u{fc}'"]),
        sample("GEOMETRY", &["ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 1)')"]),
        sample("POINT", &["ST_GeomFromText('POINT(-1.5 2.25)')"]),
    ]
}

#[rustfmt::skip]
fn mysql() -> Vec<Sample> {
    vec![
        sample("VARCHAR(20) CHARACTER SET gb18030", &["'你好😀'"]),
        sample("JSON", &["'null'", "'{}'", "'[]'", "'{\"b\": [1, 2.5, \"x\", null, true], \"a\": {\"c\": -1}}'", "'\"ü€😀\\\\n\"'", "'18446744073709551615'", "'-9223372036854775808'", "'1e300'", "CAST(CAST(1.50 AS DECIMAL(10,2)) AS JSON)", "JSON_OBJECT('d', CAST('2024-01-02' AS DATE), 't', CAST('-12:00:01.5' AS TIME(2)), 'dt', CAST('2024-01-02 03:04:05.123' AS DATETIME(3)), 'b', x'0102ff', 'bit', b'101')", "JSON_ARRAY(REPEAT('x', 70000), 1, 70000, 5000000000)"]),
        sample("VECTOR(3)", &["STRING_TO_VECTOR('[1,2.5,-3]')", "STRING_TO_VECTOR('[0,0]')"]),
        sample("GEOMETRY SRID 4326", &["ST_GeomFromText('POINT(1 2)', 4326)"]),
    ]
}

#[rustfmt::skip]
fn mariadb() -> Vec<Sample> {
    vec![
        sample("JSON", &["'{\"b\": [1, 2.50, \"x\"],  \"a\":1}'", "'null'"]),
        sample("UUID", &["'123e4567-e89b-12d3-a456-426614174000'", "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'550e8400-e29b-41d4-a716-446655440000'", "'018f4e6a-7b1c-7d3e-8f4a-9b8c7d6e5f40'", "'f47ac10b-58cc-4372-a567-0e02b2c3d479'", "'1ec9414c-232a-6b00-b3c8-9e6bdeced846'", "'00000000-0000-1000-8000-000000000000'", "'12345678-0000-5000-9000-aabbcc000000'", "'12345678-0000-8000-9000-aabbcc000000'", "'12345678-9abc-3def-0123-456789abcdef'"]),
        sample("INET4", &["'0.0.0.0'", "'192.168.1.0'", "'255.255.255.255'"]),
        sample("INET6", &["'::'", "'::1'", "'2001:db8::ff00:42:8329'", "'::ffff:1.2.3.4'", "'::1.2.3.4'", "'fe80::'", "'1:0:0:2::3'", "'1:0:2:3:4:5:6:7'", "'::1:2'", "'1:2:3:4:5:6:0:0'", "'1::'", "'0:0:0:0:0:0:ffff:ffff'", "'0:0:0:0:0:1:0:0'"]),
        sample("VARCHAR(5000) COMPRESSED", &["''", "'abc'", "REPEAT('ü', 2000)"]),
        sample("TEXT COMPRESSED", &["''", "REPEAT('abc', 2000)"]),
        sample("BLOB COMPRESSED", &["''", "REPEAT(x'00ff', 20000)", "x'00'"]),
        sample("VARBINARY(5000) COMPRESSED", &["''", "REPEAT(x'00ff', 2000)"]),
        sample("TEXT CHARACTER SET latin1 COMPRESSED", &["REPEAT('\u{e9}', 2000)", "'\u{e9}'"]),
    ]
}
