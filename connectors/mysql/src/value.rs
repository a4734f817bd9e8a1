//! A value of SQL, as the binary protocol carries it: to the server as a parameter, from it as a row's field.
//!
//! (MySQL internals manual, "Binary Protocol Value"; types and lengths as in `COM_STMT_EXECUTE`.)

use crate::packet::Fields;
use std::fmt;

/// Types of the protocol that have a form of their own; all others are bytes with their length in front.
mod kind {
    pub(super) const TINY: u8 = 1;
    pub(super) const SHORT: u8 = 2;
    pub(super) const LONG: u8 = 3;
    pub(super) const FLOAT: u8 = 4;
    pub(super) const DOUBLE: u8 = 5;
    pub(super) const NULL: u8 = 6;
    pub(super) const TIMESTAMP: u8 = 7;
    pub(super) const LONGLONG: u8 = 8;
    pub(super) const INT24: u8 = 9;
    pub(super) const DATE: u8 = 10;
    pub(super) const TIME: u8 = 11;
    pub(super) const DATETIME: u8 = 12;
    pub(super) const YEAR: u8 = 13;
    pub(super) const NEWDATE: u8 = 14;
    pub(super) const VAR_STRING: u8 = 253;
}

/// One value; `B` holds its bytes: owned, or borrowed from the row's packet.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Value<B = Vec<u8>> {
    /// NULL.
    Null,
    /// Integers, but for unsigned ones of 64 bits.
    Int(i64),
    /// Unsigned integers of 64 bits.
    UInt(u64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// Text, DECIMAL, BIT and everything else.
    Bytes(B),
    /// Year, month, day, hour, minute, second, microsecond; zeros where there is no date.
    Date(u16, u8, u8, u8, u8, u8, u32),
    /// Negative, days, hours, minutes, seconds, microseconds.
    Time(bool, u32, u8, u8, u8, u32),
}

// What a row holds is nobody's to log.
impl<B> fmt::Debug for Value<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Int(_) => "Int(…)",
            Self::UInt(_) => "UInt(…)",
            Self::Float(_) => "Float(…)",
            Self::Double(_) => "Double(…)",
            Self::Bytes(_) => "Bytes(…)",
            Self::Date(..) => "Date(…)",
            Self::Time(..) => "Time(…)",
        })
    }
}

impl From<u64> for Value {
    fn from(n: u64) -> Self {
        Self::UInt(n)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Bytes(text.into_bytes())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

/// How the fields of a result's column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    kind: u8,
    unsigned: bool,
}

impl Form {
    /// Of a column's type byte and flags.
    pub(crate) fn new(kind: u8, flags: u16) -> Self {
        const UNSIGNED: u16 = 0x20;
        Self { kind, unsigned: flags & UNSIGNED != 0 }
    }
}

impl<'a> Value<&'a [u8]> {
    /// The next field of a row; none if it does not hold one of this form.
    pub(crate) fn read(form: Form, fields: &mut Fields<'a>) -> Option<Self> {
        let signed = |wide: u64, narrow: i64| if form.unsigned { wide as i64 } else { narrow };
        Some(match form.kind {
            kind::TINY => {
                let n = fields.take(1)?[0];
                Self::Int(signed(n.into(), (n as i8).into()))
            }
            kind::SHORT | kind::YEAR => {
                let n = u16::from_le_bytes(fields.array()?);
                Self::Int(signed(n.into(), (n as i16).into()))
            }
            kind::LONG | kind::INT24 => {
                let n = u32::from_le_bytes(fields.array()?);
                Self::Int(signed(n.into(), (n as i32).into()))
            }
            kind::LONGLONG => {
                let n = u64::from_le_bytes(fields.array()?);
                if form.unsigned { Self::UInt(n) } else { Self::Int(n as i64) }
            }
            kind::FLOAT => Self::Float(f32::from_le_bytes(fields.array()?)),
            kind::DOUBLE => Self::Double(f64::from_le_bytes(fields.array()?)),
            kind::DATE | kind::NEWDATE | kind::DATETIME | kind::TIMESTAMP => Self::date(fields.short()?)?,
            kind::TIME => Self::time(fields.short()?)?,
            kind::NULL => Self::Null,
            _ => {
                let length = usize::try_from(fields.length_encoded()?).ok()?;
                Self::Bytes(fields.take(length)?)
            }
        })
    }

    /// Parts that are zero at the end are left out.
    fn date(parts: &[u8]) -> Option<Self> {
        let mut full = [0; 11];
        if !matches!(parts.len(), 0 | 4 | 7 | 11) {
            return None;
        }
        full[..parts.len()].copy_from_slice(parts);
        let [y0, y1, mo, d, h, mi, s, u0, u1, u2, u3] = full;
        let (year, micros) = (u16::from_le_bytes([y0, y1]), u32::from_le_bytes([u0, u1, u2, u3]));
        Some(Self::Date(year, mo, d, h, mi, s, micros))
    }

    fn time(parts: &[u8]) -> Option<Self> {
        let mut full = [0; 12];
        if !matches!(parts.len(), 0 | 8 | 12) {
            return None;
        }
        full[..parts.len()].copy_from_slice(parts);
        let [negative, d0, d1, d2, d3, h, m, s, u0, u1, u2, u3] = full;
        let (days, micros) = (u32::from_le_bytes([d0, d1, d2, d3]), u32::from_le_bytes([u0, u1, u2, u3]));
        Some(Self::Time(negative != 0, days, h, m, s, micros))
    }
}

impl<B: AsRef<[u8]>> Value<B> {
    /// With bytes of its own.
    pub(crate) fn to_owned(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Int(n) => Value::Int(*n),
            Self::UInt(n) => Value::UInt(*n),
            Self::Float(n) => Value::Float(*n),
            Self::Double(n) => Value::Double(*n),
            Self::Bytes(b) => Value::Bytes(b.as_ref().to_vec()),
            &Self::Date(y, mo, d, h, mi, s, us) => Value::Date(y, mo, d, h, mi, s, us),
            &Self::Time(negative, d, h, m, s, us) => Value::Time(negative, d, h, m, s, us),
        }
    }

    /// As text, where it is what the server says of itself; none for NULL.
    pub(crate) fn text(&self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Int(n) => n.to_string(),
            Self::UInt(n) => n.to_string(),
            Self::Float(n) => n.to_string(),
            Self::Double(n) => n.to_string(),
            Self::Bytes(b) => String::from_utf8_lossy(b.as_ref()).into_owned(),
            Self::Date(y, mo, d, h, mi, s, us) => {
                format!("{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}.{us:06}")
            }
            Self::Time(negative, d, h, m, s, us) => {
                let sign = if *negative { "-" } else { "" };
                format!("{sign}{:02}:{m:02}:{s:02}.{us:06}", d * 24 + u32::from(*h))
            }
        })
    }

    /// The type under which it is sent as a parameter, with the flag of unsigned ones.
    pub(crate) fn parameter_type(&self) -> [u8; 2] {
        match self {
            Self::Null => [kind::NULL, 0],
            Self::Int(_) => [kind::LONGLONG, 0],
            Self::UInt(_) => [kind::LONGLONG, 0x80],
            Self::Float(_) => [kind::FLOAT, 0],
            Self::Double(_) => [kind::DOUBLE, 0],
            Self::Bytes(_) => [kind::VAR_STRING, 0],
            Self::Date(..) => [kind::DATETIME, 0],
            Self::Time(..) => [kind::TIME, 0],
        }
    }

    /// Appends it as a parameter; NULL is told elsewhere and takes nothing.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Int(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::UInt(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::Float(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::Double(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::Bytes(b) => {
                write_length(b.as_ref().len() as u64, out);
                out.extend_from_slice(b.as_ref());
            }
            Self::Date(y, mo, d, h, mi, s, us) => {
                out.push(11);
                out.extend_from_slice(&y.to_le_bytes());
                out.extend_from_slice(&[*mo, *d, *h, *mi, *s]);
                out.extend_from_slice(&us.to_le_bytes());
            }
            Self::Time(negative, d, h, m, s, us) => {
                out.extend_from_slice(&[12, u8::from(*negative)]);
                out.extend_from_slice(&d.to_le_bytes());
                out.extend_from_slice(&[*h, *m, *s]);
                out.extend_from_slice(&us.to_le_bytes());
            }
        }
    }
}

fn write_length(n: u64, out: &mut Vec<u8>) {
    match n {
        0..=0xfa => out.push(n as u8),
        0xfb..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&(n as u16).to_le_bytes());
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: u8, flags: u16, bytes: &[u8]) -> Option<Value> {
        Value::read(Form::new(kind, flags), &mut Fields(bytes)).map(|v| v.to_owned())
    }

    #[test]
    fn parameters_come_back_as_they_were() {
        let values: [Value; 9] = [
            Value::Int(-5),
            Value::UInt(u64::MAX),
            Value::Float(16_777_217.0),
            Value::Double(-0.1),
            Value::Bytes(vec![7; 250]),
            Value::Bytes(vec![7; 251]),
            Value::Bytes(vec![7; 70_000]),
            Value::Date(2024, 2, 29, 23, 59, 58, 999_999),
            Value::Time(true, 34, 22, 59, 59, 1),
        ];
        for value in values {
            let mut bytes = Vec::new();
            value.write(&mut bytes);
            let [kind, sign] = value.parameter_type();
            let flags = if sign == 0 { 0 } else { 0x20 };
            assert!(read(kind, flags, &bytes) == Some(value), "{kind}");
            assert!(read(kind, flags, &bytes[..bytes.len() - 1]).is_none(), "{kind}: cut");
        }
    }

    #[test]
    fn integers_of_every_width_have_their_sign() {
        for (kind, bytes, signed, unsigned) in [
            (kind::TINY, &b"\xff"[..], -1, 255),
            (kind::SHORT, b"\xfe\xff", -2, 65_534),
            (kind::LONG, b"\xfd\xff\xff\xff", -3, 4_294_967_293),
        ] {
            assert!(read(kind, 0, bytes) == Some(Value::Int(signed)));
            assert!(read(kind, 0x20, bytes) == Some(Value::Int(unsigned)));
        }
        assert!(read(kind::LONGLONG, 0x20, &[0xff; 8]) == Some(Value::UInt(u64::MAX)));
    }

    #[test]
    fn temporal_values_may_be_cut_short_where_they_are_zero() {
        assert!(read(kind::DATE, 0, b"\x00") == Some(Value::Date(0, 0, 0, 0, 0, 0, 0)));
        assert!(
            read(kind::DATETIME, 0, b"\x04\xe8\x07\x02\x1d") == Some(Value::Date(2024, 2, 29, 0, 0, 0, 0))
        );
        assert!(read(kind::TIME, 0, b"\x00") == Some(Value::Time(false, 0, 0, 0, 0, 0)));
        assert!(read(kind::DATE, 0, b"\x05\xe8\x07\x02\x1d\x00").is_none());
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(format!("{:?}", [Value::from("secret"), Value::Int(42)]), "[Bytes(…), Int(…)]");
    }
}
