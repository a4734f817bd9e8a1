//! The numbers of `caudal/v1/envelope.proto`, and what its records are written and read with: Protobuf's wire format by hand.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>. A nested message's length is written in four bytes, so that it can be put in
//! when the message is done; readers take any length of a length.

/// The version of the format.
pub const VERSION: u64 = 1;
/// Longest nested message: four bytes of seven bits.
pub const LONGEST: usize = (1 << 28) - 1;

/// Fields of `Envelope`.
pub mod change {
    #![allow(missing_docs)]
    pub const VERSION: u32 = 1;
    pub const BEFORE: u32 = 2;
    pub const AFTER: u32 = 3;
    pub const SOURCE: u32 = 4;
    pub const TRANSACTION: u32 = 5;
    pub const OP: u32 = 6;
    pub const TS_US: u32 = 7;
}

/// Fields of `Row` and `Field`.
pub mod row {
    #![allow(missing_docs)]
    pub const FIELDS: u32 = 1;
    pub const NAME: u32 = 1;
    pub const KIND: u32 = 2;
    pub const SIGNED: u32 = 3;
    pub const UNSIGNED: u32 = 4;
    pub const SINGLE: u32 = 5;
    pub const DOUBLE: u32 = 6;
    pub const TEXT: u32 = 7;
    pub const BYTES: u32 = 8;
}

/// Fields of `Source`.
pub mod source {
    #![allow(missing_docs)]
    pub const VERSION: u32 = 1;
    pub const CONNECTOR: u32 = 2;
    pub const NAME: u32 = 3;
    pub const TS_US: u32 = 4;
    pub const SNAPSHOT: u32 = 5;
    pub const DB: u32 = 6;
    pub const TABLE: u32 = 7;
    pub const SERVER_ID: u32 = 8;
    pub const GTID: u32 = 9;
    pub const FILE: u32 = 10;
    pub const POS: u32 = 11;
    pub const ROW: u32 = 12;
    pub const THREAD: u32 = 13;
}

/// Fields of `Transaction`.
pub mod transaction {
    #![allow(missing_docs)]
    pub const ID: u32 = 1;
    pub const TOTAL_ORDER: u32 = 2;
    pub const DATA_COLLECTION_ORDER: u32 = 3;
}

/// Numbers of `Kind`.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool = 1,
    Int,
    Uint,
    Float32,
    Float64,
    Decimal,
    Text,
    Bytes,
    Date,
    Time,
    DateTime,
    Timestamp,
    Year,
    Json,
    Enum,
    Set,
    Bit,
    Geometry,
    Vector,
    Uuid,
    Inet,
}

/// Appends a varint.
pub fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a field that is a varint.
pub fn number(out: &mut Vec<u8>, field: u32, n: u64) {
    varint(out, u64::from(field << 3));
    varint(out, n);
}

/// A signed number as `sint64` has it.
#[must_use]
pub fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[must_use]
pub fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Appends a field of bytes or text.
pub fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    varint(out, u64::from(field << 3 | 2));
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field of four bytes.
pub fn fixed32(out: &mut Vec<u8>, field: u32, bytes: [u8; 4]) {
    varint(out, u64::from(field << 3 | 5));
    out.extend_from_slice(&bytes);
}

/// Appends a field of eight bytes.
pub fn fixed64(out: &mut Vec<u8>, field: u32, bytes: [u8; 8]) {
    varint(out, u64::from(field << 3 | 1));
    out.extend_from_slice(&bytes);
}

/// Begins a nested message; give what it returns to [`end`].
#[must_use]
pub fn begin(out: &mut Vec<u8>, field: u32) -> usize {
    varint(out, u64::from(field << 3 | 2));
    out.extend_from_slice(&[0; 4]);
    out.len()
}

/// Ends a nested message. False if it is longer than [`LONGEST`].
#[must_use]
pub fn end(out: &mut [u8], start: usize) -> bool {
    let length = out.len() - start;
    for i in 0..4 {
        let more = if i < 3 { 0x80 } else { 0 };
        out[start - 4 + i] = (length >> (7 * i)) as u8 & 0x7f | more;
    }
    length <= LONGEST
}

/// The value of a field as it lies on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Number(u64),
    /// Wire type 1.
    Fixed64([u8; 8]),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32([u8; 4]),
}

/// The fields of a message, in the order in which they lie there; an error once, for what is no message.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    message: &'a [u8],
}

/// What lies there is no Protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl<'a> Fields<'a> {
    /// Of a message.
    #[must_use]
    pub fn of(message: &'a [u8]) -> Self {
        Self { message }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.message.split_first()?;
            self.message = rest;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let tag = u32::try_from(self.varint()?).ok()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => {
                let (taken, rest) = self.message.split_first_chunk()?;
                self.message = rest;
                Value::Fixed64(*taken)
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (taken, rest) = self.message.split_at_checked(length)?;
                self.message = rest;
                Value::Bytes(taken)
            }
            5 => {
                let (taken, rest) = self.message.split_first_chunk()?;
                self.message = rest;
                Value::Fixed32(*taken)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.message.is_empty() {
            return None;
        }
        let field = self.field().ok_or(Malformed);
        if field.is_err() {
            self.message = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each name with its number, of one message or enum of the file.
    fn told(block: &str) -> Vec<(String, u32)> {
        let file = include_str!("../caudal/v1/envelope.proto");
        let start = file.find(&format!("{block} {{")).unwrap();
        let text = &file[start..start + file[start..].find("\n}").unwrap()];
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let told = lines.filter_map(|line| line.strip_suffix(';')?.split_once(" = "));
        told.map(|(name, n)| (name.rsplit(' ').next().unwrap().to_uppercase(), n.parse().unwrap())).collect()
    }

    #[test]
    fn numbers_are_those_of_the_file() {
        use super::{change as e, row as r, source as s, transaction as t};
        let all = |pairs: &[(&str, u32)]| -> Vec<(String, u32)> {
            pairs.iter().map(|(n, i)| ((*n).to_owned(), *i)).collect()
        };
        let envelope = [
            ("VERSION", e::VERSION),
            ("BEFORE", e::BEFORE),
            ("AFTER", e::AFTER),
            ("SOURCE", e::SOURCE),
            ("TRANSACTION", e::TRANSACTION),
            ("OP", e::OP),
            ("TS_US", e::TS_US),
        ];
        assert_eq!(told("message Envelope"), all(&envelope));
        assert_eq!(told("message Row"), all(&[("FIELDS", r::FIELDS)]));
        let field = [
            ("NAME", r::NAME),
            ("KIND", r::KIND),
            ("SIGNED", r::SIGNED),
            ("UNSIGNED", r::UNSIGNED),
            ("SINGLE", r::SINGLE),
            ("DOUBLE", r::DOUBLE),
            ("TEXT", r::TEXT),
            ("BYTES", r::BYTES),
        ];
        assert_eq!(told("message Field"), all(&field));
        let source = [
            ("VERSION", s::VERSION),
            ("CONNECTOR", s::CONNECTOR),
            ("NAME", s::NAME),
            ("TS_US", s::TS_US),
            ("SNAPSHOT", s::SNAPSHOT),
            ("DB", s::DB),
            ("TABLE", s::TABLE),
            ("SERVER_ID", s::SERVER_ID),
            ("GTID", s::GTID),
            ("FILE", s::FILE),
            ("POS", s::POS),
            ("ROW", s::ROW),
            ("THREAD", s::THREAD),
        ];
        assert_eq!(told("message Source"), all(&source));
        let order = [
            ("ID", t::ID),
            ("TOTAL_ORDER", t::TOTAL_ORDER),
            ("DATA_COLLECTION_ORDER", t::DATA_COLLECTION_ORDER),
        ];
        assert_eq!(told("message Transaction"), all(&order));
        let kinds = told("enum Kind");
        assert_eq!(kinds[1], ("BOOL".to_owned(), Kind::Bool as u32));
        assert_eq!(kinds[12], ("TIMESTAMP".to_owned(), Kind::Timestamp as u32));
        assert_eq!(kinds.last().unwrap(), &("INET".to_owned(), Kind::Inet as u32));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        number(&mut out, 1, 300);
        let start = begin(&mut out, 2);
        bytes(&mut out, 7, b"abc");
        fixed32(&mut out, 5, 1.5_f32.to_le_bytes());
        assert!(end(&mut out, start));
        let fields: Vec<_> = Fields::of(&out).map(Result::unwrap).collect();
        assert_eq!(fields[0], (1, Value::Number(300)));
        let (2, Value::Bytes(nested)) = fields[1] else { panic!("{fields:?}") };
        let nested: Vec<_> = Fields::of(nested).map(Result::unwrap).collect();
        assert_eq!(nested, [(7, Value::Bytes(b"abc")), (5, Value::Fixed32(1.5_f32.to_le_bytes()))]);
        assert!(Fields::of(&out[..out.len() - 1]).any(|field| field == Err(Malformed)));
        for n in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(n)), n);
        }
    }
}
