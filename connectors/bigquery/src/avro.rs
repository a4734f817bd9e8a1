//! Rows in Avro's binary encoding (<https://avro.apache.org/docs/1.11.1/specification/#binary-encoding>) as cells: those that [`crate::types`] makes of the same values' texts.
//!
//! What BigQuery's types are in Avro: <https://cloud.google.com/bigquery/docs/reference/storage#avro_schema_details>.

use crate::fields::{take, varint};
use crate::types::{Field, Scalar, cell_of, json_of};
use caudal_core::{BatchBuilder, Cell};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;

/// Records within records: BigQuery has 15 levels at most.
const DEEPEST: usize = 32;

/// How a value is written.
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Null,
    Bool,
    /// Also of 32 bits.
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    /// A whole number in two's complement, the highest byte first, and the digits behind its point.
    Decimal(u8),
    List(Box<Shape>),
    Record(Vec<(String, Shape)>),
    Either(Vec<Shape>),
}

/// How rows are written.
#[derive(Debug)]
pub(crate) struct Plan(Vec<(String, Shape)>);

impl Plan {
    /// Of a schema, in JSON; none if it is not understood.
    pub(crate) fn parse(schema: &[u8]) -> Option<Self> {
        let schema: Value = serde_json::from_slice(schema).ok()?;
        match shape(&schema, &mut BTreeMap::new(), 0)? {
            Shape::Record(fields) => Some(Self(fields)),
            _ => None,
        }
    }

    /// Whether the columns are these, by name.
    pub(crate) fn fits(&self, fields: &[Field]) -> bool {
        self.0.len() == fields.len()
            && self.0.iter().zip(fields).all(|((name, _), field)| name.eq_ignore_ascii_case(&field.name))
    }

    /// Where each of `count` rows is; none if the bytes are not so many rows.
    pub(crate) fn places(&self, rows: &[u8], count: u64) -> Option<Vec<Range<u32>>> {
        let whole = u32::try_from(rows.len()).ok()?;
        let at = |rest: &[u8]| whole - rest.len() as u32;
        let mut rest = rows;
        let mut places = Vec::with_capacity(usize::try_from(count).ok()?.min(rows.len() + 1));
        for _ in 0..count {
            let from = at(rest);
            for (_, shape) in &self.0 {
                skip(shape, &mut rest)?;
            }
            places.push(from..at(rest));
        }
        rest.is_empty().then_some(places)
    }

    /// The values of a row, in the order of the columns.
    pub(crate) fn values<'a>(&'a self, row: &'a [u8]) -> Values<'a> {
        Values { shapes: self.0.iter(), rest: row }
    }
}

/// The values of a row, from the first to the last.
pub(crate) struct Values<'a> {
    shapes: std::slice::Iter<'a, (String, Shape)>,
    rest: &'a [u8],
}

impl Values<'_> {
    /// The next one as a cell; none if it is not of the field's type.
    pub(crate) fn next(&mut self, field: &Field, into: &mut BatchBuilder) -> Option<Cell> {
        let (_, shape) = self.shapes.next()?;
        let start = self.rest;
        let found = cell(shape, field, &mut self.rest, into);
        if found.is_none() {
            // Others can be read still.
            self.rest = start;
            skip(shape, &mut self.rest)?;
        }
        found
    }
}

fn shape(schema: &Value, named: &mut BTreeMap<String, Shape>, depth: usize) -> Option<Shape> {
    (depth < DEEPEST).then_some(())?;
    match schema {
        Value::String(name) => Some(match name.as_str() {
            "null" => Shape::Null,
            "boolean" => Shape::Bool,
            "int" | "long" => Shape::Long,
            "float" => Shape::Float,
            "double" => Shape::Double,
            "bytes" => Shape::Bytes,
            "string" => Shape::Text,
            other => named.get(other)?.clone(),
        }),
        Value::Array(all) => {
            Some(Shape::Either(all.iter().map(|one| shape(one, named, depth + 1)).collect::<Option<_>>()?))
        }
        Value::Object(of) => {
            let kind = of.get("type")?;
            if of.get("logicalType").and_then(Value::as_str) == Some("decimal") {
                let scale = of.get("scale").and_then(Value::as_u64).unwrap_or(0);
                return Some(Shape::Decimal(u8::try_from(scale).ok()?));
            }
            match kind.as_str() {
                Some("record") => {
                    let field = |field: &Value, named: &mut BTreeMap<String, Shape>| {
                        let name = field.get("name")?.as_str()?.to_owned();
                        Some((name, shape(field.get("type")?, named, depth + 1)?))
                    };
                    let fields = of.get("fields")?.as_array()?;
                    let found =
                        Shape::Record(fields.iter().map(|one| field(one, named)).collect::<Option<_>>()?);
                    if let Some(name) = of.get("name").and_then(Value::as_str) {
                        named.insert(name.to_owned(), found.clone());
                    }
                    Some(found)
                }
                Some("array") => Some(Shape::List(Box::new(shape(of.get("items")?, named, depth + 1)?))),
                Some("fixed") => Some(Shape::Fixed(usize::try_from(of.get("size")?.as_u64()?).ok()?)),
                _ => shape(kind, named, depth + 1),
            }
        }
        _ => None,
    }
}

/// A whole number: zigzag, seven bits of each byte.
fn long(from: &mut &[u8]) -> Option<i64> {
    let n = varint(from)?;
    Some((n >> 1) as i64 ^ -((n & 1) as i64))
}

fn run<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = usize::try_from(long(from)?).ok()?;
    take(from, size)
}

/// Elements of the list's next block; 0 at its end.
fn elements(from: &mut &[u8]) -> Option<u64> {
    let count = long(from)?;
    if count < 0 {
        // Its size in bytes, for those who skip it.
        long(from)?;
    }
    Some(count.unsigned_abs())
}

fn skip(shape: &Shape, from: &mut &[u8]) -> Option<()> {
    match shape {
        Shape::Null => {}
        Shape::Bool => drop(take(from, 1)?),
        Shape::Long => drop(long(from)?),
        Shape::Float => drop(take(from, 4)?),
        Shape::Double => drop(take(from, 8)?),
        Shape::Bytes | Shape::Text | Shape::Decimal(_) => drop(run(from)?),
        Shape::Fixed(size) => drop(take(from, *size)?),
        Shape::List(of) => loop {
            let count = elements(from)?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let before = from.len();
                skip(of, from)?;
                // Elements without bytes could be any number.
                (from.len() < before).then_some(())?;
            }
        },
        Shape::Record(fields) => fields.iter().try_for_each(|(_, shape)| skip(shape, from))?,
        Shape::Either(all) => skip(branch(all, from)?, from)?,
    }
    Some(())
}

fn branch<'a>(all: &'a [Shape], from: &mut &[u8]) -> Option<&'a Shape> {
    all.get(usize::try_from(long(from)?).ok()?)
}

fn cell(shape: &Shape, field: &Field, from: &mut &[u8], into: &mut BatchBuilder) -> Option<Cell> {
    match shape {
        Shape::Either(all) => cell(branch(all, from)?, field, from, into),
        Shape::Null if field.is_repeated() => Some(Cell::Json(into.copy(b"[]"))),
        Shape::Null => Some(Cell::Null),
        Shape::List(_) => composed(shape, field, from, into),
        Shape::Record(_) if !field.is_range() => composed(shape, field, from, into),
        other => cell_of(scalar(other, field, from)?, field, into),
    }
}

fn composed(shape: &Shape, field: &Field, from: &mut &[u8], into: &mut BatchBuilder) -> Option<Cell> {
    let mut out = Vec::new();
    json(shape, field, from, &mut out)?;
    Some(Cell::Json(into.copy(&out)))
}

fn scalar<'a>(shape: &Shape, field: &Field, from: &mut &'a [u8]) -> Option<Scalar<'a>> {
    Some(match shape {
        Shape::Bool => Scalar::Bool(take(from, 1)?[0] != 0),
        Shape::Long => Scalar::Long(long(from)?),
        Shape::Float => Scalar::Double(f32::from_le_bytes(take(from, 4)?.try_into().ok()?).into()),
        Shape::Double => Scalar::Double(f64::from_le_bytes(take(from, 8)?.try_into().ok()?)),
        Shape::Bytes => Scalar::Bytes(run(from)?),
        Shape::Fixed(size) => Scalar::Bytes(take(from, *size)?),
        Shape::Text => Scalar::Text(std::str::from_utf8(run(from)?).ok()?),
        Shape::Decimal(scale) => Scalar::Owned(decimal(run(from)?, *scale)?),
        Shape::Record(fields) => {
            let [(_, start), (_, end)] = &fields[..] else { return None };
            let element = field.element();
            let start = bound(start, &element, from)?;
            Scalar::Owned(format!("[{start}, {})", bound(end, &element, from)?))
        }
        Shape::Null | Shape::List(_) | Shape::Either(_) => return None,
    })
}

/// A bound of a range, as GoogleSQL writes it.
fn bound(shape: &Shape, element: &Field, from: &mut &[u8]) -> Option<String> {
    match shape {
        Shape::Either(all) => bound(branch(all, from)?, element, from),
        Shape::Null => Some("UNBOUNDED".to_owned()),
        other => scalar(other, element, from)?.text(element),
    }
}

/// A value within a STRUCT or an ARRAY.
fn json(shape: &Shape, field: &Field, from: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
    match shape {
        Shape::Either(all) => json(branch(all, from)?, field, from, out),
        Shape::Null => {
            out.extend_from_slice(if field.is_repeated() { b"[]" } else { b"null" });
            Some(())
        }
        Shape::List(of) => {
            let element = field.unrepeated();
            let mut first = true;
            out.push(b'[');
            loop {
                let count = elements(from)?;
                for _ in 0..count {
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    json(of, &element, from, out)?;
                }
                if count == 0 {
                    break;
                }
            }
            out.push(b']');
            Some(())
        }
        Shape::Record(shapes) if !field.is_range() => {
            (shapes.len() == field.fields.len()).then_some(())?;
            out.push(b'{');
            for (i, ((_, shape), field)) in shapes.iter().zip(&field.fields).enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, &field.name).ok()?;
                out.push(b':');
                json(shape, field, from, out)?;
            }
            out.push(b'}');
            Some(())
        }
        other => json_of(scalar(other, field, from)?, field, out),
    }
}

/// A number of up to 256 bits in plain notation, with `scale` fraction digits.
fn decimal(bytes: &[u8], scale: u8) -> Option<String> {
    const LIMBS: usize = 8;
    const BILLION: u64 = 1_000_000_000;
    (1..=LIMBS * 4).contains(&bytes.len()).then_some(())?;
    let negative = bytes[0] >= 0x80;
    let mut whole = [if negative { 0xff } else { 0 }; LIMBS * 4];
    whole[LIMBS * 4 - bytes.len()..].copy_from_slice(bytes);
    let mut limbs = [0u32; LIMBS];
    for (limb, four) in limbs.iter_mut().zip(whole.chunks_exact(4)) {
        *limb = u32::from_be_bytes(four.try_into().ok()?);
    }
    if negative {
        let mut carry = true;
        for limb in limbs.iter_mut().rev() {
            (*limb, carry) = (!*limb).overflowing_add(carry.into());
        }
        // The least number of all is its own opposite: its digits are right as they stand.
        let _ = carry;
    }
    let mut nines = Vec::new();
    while limbs.iter().any(|limb| *limb != 0) {
        let mut rest = 0;
        for limb in &mut limbs {
            let part = rest << 32 | u64::from(*limb);
            (*limb, rest) = ((part / BILLION) as u32, part % BILLION);
        }
        nines.push(rest);
    }
    let mut digits: String = nines.iter().rev().map(|nine| format!("{nine:09}")).collect();
    let scale = usize::from(scale);
    if digits.len() <= scale {
        digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
    }
    if scale > 0 {
        digits.insert(digits.len() - scale, '.');
    }
    let sign = if negative { "-" } else { "" };
    Some(format!("{sign}{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types;

    fn field(json: &str) -> Field {
        serde_json::from_str(json).unwrap()
    }

    fn zigzag(n: i64) -> Vec<u8> {
        let mut n = ((n << 1) ^ (n >> 63)) as u64;
        let mut out = Vec::new();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out
    }

    fn runs(bytes: &[u8]) -> Vec<u8> {
        [&zigzag(bytes.len() as i64), bytes].concat()
    }

    fn shown(cell: Option<Cell>, into: &BatchBuilder) -> String {
        match cell {
            Some(Cell::I64(n)) => format!("i64 {n}"),
            Some(Cell::F64(n)) => format!("f64 {n}"),
            Some(Cell::Null) => "null".into(),
            None => "misfit".into(),
            Some(other) => format!(
                "{} {:?}",
                format!("{other:?}").split('(').next().unwrap_or_default(),
                String::from_utf8_lossy(into.bytes(other.slice().unwrap()))
            ),
        }
    }

    /// As Avro has it, and as REST does: the same cell.
    fn alike(of: &str, schema: &str, avro: &[u8], rest: &str) -> String {
        let field = field(of);
        let schema =
            format!(r#"{{"type":"record","name":"Root","fields":[{{"name":"c","type":{schema}}}]}}"#);
        let plan = Plan::parse(schema.as_bytes()).unwrap();
        let whole = 0..avro.len() as u32;
        assert_eq!(plan.places(avro, 1).as_deref(), Some(&[whole][..]), "{of}");
        let mut into = BatchBuilder::default();
        let cell = plan.values(avro).next(&field, &mut into);
        let found = shown(cell, &into);
        let json = format!(r#"{{"v":{rest}}}"#);
        let value: types::Value<'_> = serde_json::from_str(&json).unwrap();
        let cell = types::cell(&value, &field, &mut into);
        assert_eq!(found, shown(cell, &into), "{of}");
        // Cut off anywhere it is an error, and no panic.
        for end in 0..avro.len() {
            assert_eq!(plan.places(&avro[..end], 1), None, "{of} cut at {end}");
            plan.values(&avro[..end]).next(&field, &mut into);
        }
        found
    }

    #[test]
    fn values_become_the_cells_that_they_become_by_rest() {
        let of = |ty: &str| format!(r#"{{"name":"c","type":"{ty}"}}"#);
        let numeric = r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":9}"#;
        let big = r#"{"type":"bytes","logicalType":"decimal","precision":77,"scale":38}"#;
        let some = |bytes: Vec<u8>| [vec![2], bytes].concat();
        let largest = [&[0x7f][..], &[0xff; 31]].concat();
        let least = [&[0x80][..], &[0; 31]].concat();
        for (ty, schema, avro, rest) in [
            ("INTEGER", r#""long""#, zigzag(i64::MIN), r#""-9223372036854775808""#),
            ("INTEGER", r#"["null","long"]"#, some(zigzag(-1)), r#""-1""#),
            ("INTEGER", r#"["null","long"]"#, vec![0], "null"),
            ("FLOAT", r#""double""#, 0.1f64.to_le_bytes().to_vec(), r#""0.1""#),
            ("FLOAT", r#""double""#, f64::NAN.to_le_bytes().to_vec(), r#""NaN""#),
            ("BOOLEAN", r#""boolean""#, vec![1], r#""true""#),
            ("STRING", r#""string""#, runs("ñandú \"🦤\"".as_bytes()), r#""ñandú \"🦤\"""#),
            ("BYTES", r#""bytes""#, runs(&[0, 255]), r#""AP8=""#),
            ("NUMERIC", numeric, runs(&[0xff]), r#""-0.000000001""#),
            ("NUMERIC", numeric, runs(&[0]), r#""0""#),
            ("NUMERIC", numeric, runs(&12_500_000_000i64.to_be_bytes()), r#""12.5""#),
            (
                "BIGNUMERIC",
                big,
                runs(&largest),
                r#""578960446186580977117854925043439539266.34992332820282019728792003956564819967""#,
            ),
            (
                "BIGNUMERIC",
                big,
                runs(&least),
                r#""-578960446186580977117854925043439539266.34992332820282019728792003956564819968""#,
            ),
            (
                "TIMESTAMP",
                r#"{"type":"long","logicalType":"timestamp-micros"}"#,
                zigzag(1_772_359_200_123_456),
                r#""1772359200123456""#,
            ),
            (
                "DATETIME",
                r#"{"type":"string","sqlType":"DATETIME"}"#,
                runs(b"2026-03-01T10:00:00.000001"),
                r#""2026-03-01T10:00:00.000001""#,
            ),
            ("DATE", r#"{"type":"int","logicalType":"date"}"#, zigzag(-719_162), r#""0001-01-01""#),
            (
                "TIME",
                r#"{"type":"long","logicalType":"time-micros"}"#,
                zigzag(86_399_999_999),
                r#""23:59:59.999999""#,
            ),
            ("JSON", r#""string""#, runs(br#"{"a":1.50}"#), r#""{\"a\":1.50}""#),
            ("GEOGRAPHY", r#""string""#, runs(b"POINT(1 2)"), r#""POINT(1 2)""#),
        ] {
            let found = alike(&of(ty), schema, &avro, rest);
            assert_ne!(found, "misfit", "{ty}");
        }
    }

    #[test]
    fn what_is_composed_becomes_the_same_json() {
        let of = r#"{"name":"c","type":"RECORD","mode":"REPEATED","fields":[
            {"name":"n","type":"NUMERIC"}, {"name":"t","type":"TIMESTAMP"}, {"name":"l","type":"STRING","mode":"REPEATED"},
            {"name":"f","type":"FLOAT"}, {"name":"d","type":"DATETIME"}, {"name":"k","type":"TIME"}, {"name":"e","type":"DATE"},
            {"name":"b","type":"BYTES"}, {"name":"o","type":"BOOL"}, {"name":"j","type":"JSON"}]}"#;
        let schema = r#"{"type":"array","items":{"type":"record","name":"c","fields":[
            {"name":"n","type":["null",{"type":"bytes","logicalType":"decimal","precision":38,"scale":9}]},
            {"name":"t","type":{"type":"long","logicalType":"timestamp-micros"}},
            {"name":"l","type":{"type":"array","items":"string"}}, {"name":"f","type":"double"},
            {"name":"d","type":"string"}, {"name":"k","type":"long"}, {"name":"e","type":"int"}, {"name":"b","type":"bytes"},
            {"name":"o","type":"boolean"}, {"name":"j","type":"string"}]}}"#;
        let row = [
            vec![2],
            runs(&1_500_000_000i64.to_be_bytes()),
            zigzag(1_772_359_200_000_001),
            zigzag(2),
            runs(b"a\"b"),
            runs(b""),
            vec![0],
            f64::INFINITY.to_le_bytes().to_vec(),
            runs(b"2026-03-01T10:00:00.500000"),
            zigzag(43_200_500_000),
            zigzag(20_513),
            runs(&[0, 255]),
            vec![1],
            runs(br#"{"x":[1]}"#),
        ]
        .concat();
        // One block that says its size, too.
        let avro = [zigzag(-1), zigzag(row.len() as i64), row, vec![0]].concat();
        let rest = r#"[{"v":{"f":[{"v":"1.5"},{"v":"1772359200000001"},{"v":[{"v":"a\"b"},{"v":""}]},{"v":"Infinity"},
            {"v":"2026-03-01T10:00:00.500000"},{"v":"12:00:00.500000"},{"v":"2026-03-01"},{"v":"AP8="},{"v":"true"},{"v":"{\"x\":[1]}"}]}}]"#;
        assert_eq!(
            alike(of, schema, &avro, rest),
            format!(
                "Json {:?}",
                r#"[{"n":1.5,"t":"2026-03-01T10:00:00.000001Z","l":["a\"b",""],"f":"Infinity","d":"2026-03-01T10:00:00.5","k":"12:00:00.5","e":"2026-03-01","b":"AP8=","o":true,"j":{"x":[1]}}]"#
            )
        );
        let list = r#"{"name":"c","type":"INTEGER","mode":"REPEATED"}"#;
        assert_eq!(alike(list, r#"{"type":"array","items":"long"}"#, &[0], "[]"), r#"Json "[]""#);
    }

    #[test]
    fn ranges_keep_their_bounds() {
        let of = |element: &str| {
            format!(r#"{{"name":"c","type":"RANGE","rangeElementType":{{"type":"{element}"}}}}"#)
        };
        let schema = |ty: &str| {
            format!(
                r#"["null",{{"type":"record","name":"r","fields":[{{"name":"start","type":["null",{ty}]}},{{"name":"end","type":["null",{ty}]}}]}}]"#
            )
        };
        let days = [vec![2, 2], zigzag(20_454), vec![0]].concat();
        alike(&of("DATE"), &schema(r#""int""#), &days, r#""[2026-01-01, UNBOUNDED)""#);
        let moments = [vec![2, 0, 2], zigzag(1_772_359_200_000_001)].concat();
        alike(&of("TIMESTAMP"), &schema(r#""long""#), &moments, r#""[UNBOUNDED, 1772359200000001)""#);
    }

    #[test]
    fn rows_are_counted_and_what_is_left_over_is_an_error() {
        let plan = Plan::parse(
            br#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"},{"name":"b","type":{"type":"array","items":"null"}}]}"#,
        )
        .unwrap();
        assert_eq!(plan.places(&[2, 0, 4, 0], 2), Some(vec![0..2, 2..4]));
        assert_eq!(plan.places(&[2, 0, 4, 0], 1), None);
        assert_eq!(plan.places(&[2, 0, 4, 0], 3), None);
        // A list of so many nothings.
        let endless = [&[2][..], &zigzag(i64::MAX), &[0]].concat();
        assert_eq!(plan.places(&endless, 1), None);
        assert!(Plan::parse(br#""long""#).is_none());
        assert!(
            Plan::parse(br#"{"type":"record","name":"r","fields":[{"name":"a","type":"novelty"}]}"#)
                .is_none()
        );
    }
}
