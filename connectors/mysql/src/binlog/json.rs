//! MySQL's binary JSON, written as text exactly as the server prints it: `, ` and `: ` between, keys in the stored order
//! (by length, then bytes), doubles in their shortest form, opaque values by their type. (`json_binary.h` and
//! `Json_wrapper::to_string` of MySQL.)
//!
//! Bytes can lie in two ways that a length check does not catch: offsets can point to what was read before, so that a small
//! document has an endless text; and it can nest for ever. The text is therefore held to [`GROWTH`] times the bytes, which no
//! honest document reaches, and the depth to the server's own limit.

mod number;
mod patch;

use super::cursor::{Cursor, Read, damage};
use super::temporal;
use super::{decimal, temporal::write_fraction};
use std::io::Write;

pub(super) use patch::write_patched;

/// What a document's text is longer than its bytes, at most: an escaped control character takes six for one.
const GROWTH: usize = 8;
/// And no document has more text than this.
const MOST_TEXT: usize = 1 << 30;
/// For documents of a few bytes.
const SLACK: usize = 64;
/// The server refuses deeper ones.
const MOST_DEPTH: usize = 100;

const SMALL_OBJECT: u8 = 0;
const LARGE_OBJECT: u8 = 1;
const LARGE_ARRAY: u8 = 3;
const LITERAL: u8 = 4;
const INT16: u8 = 5;
const UINT16: u8 = 6;
const INT32: u8 = 7;
const UINT32: u8 = 8;
const INT64: u8 = 9;
const UINT64: u8 = 10;
const DOUBLE: u8 = 11;
const STRING: u8 = 12;
const OPAQUE: u8 = 15;

/// Column types of opaque values.
const FIELD_TIMESTAMP: u8 = 7;
const FIELD_DATE: u8 = 10;
const FIELD_TIME: u8 = 11;
const FIELD_DATETIME: u8 = 12;
const FIELD_DECIMAL: u8 = 246;

/// Appends a document's text.
pub(super) fn write(document: &[u8], out: &mut Vec<u8>) -> Read<()> {
    let limit = out.len() + most_text(document.len());
    Printer { out, limit }.value(Value::document(document)?, 0)
}

fn most_text(bytes: usize) -> usize {
    (bytes * GROWTH + SLACK).min(MOST_TEXT)
}

/// A value: its type and the bytes from where it begins.
#[derive(Clone, Copy, Debug)]
struct Value<'a> {
    ty: u8,
    data: &'a [u8],
}

impl<'a> Value<'a> {
    /// The server stores an empty document where a column got NOT NULL by an ALTER; it reads as null.
    fn document(bytes: &'a [u8]) -> Read<Self> {
        match bytes.split_first() {
            Some((ty, data)) => Ok(Self { ty: *ty, data }),
            None => Ok(Self { ty: LITERAL, data: &[0] }),
        }
    }

    fn container(self) -> Read<Option<Container<'a>>> {
        if self.ty > LARGE_ARRAY {
            return Ok(None);
        }
        Container::open(self.ty, self.data).map(Some)
    }
}

/// An object or an array: count and size, then entries, then what they point to.
struct Container<'a> {
    bytes: &'a [u8],
    object: bool,
    large: bool,
    count: usize,
}

impl<'a> Container<'a> {
    fn open(ty: u8, data: &'a [u8]) -> Read<Self> {
        let large = ty == LARGE_OBJECT || ty == LARGE_ARRAY;
        let object = ty == SMALL_OBJECT || ty == LARGE_OBJECT;
        let width = if large { 4 } else { 2 };
        let mut c = Cursor(data);
        let (count, size) = (c.little(width)? as usize, c.little(width)? as usize);
        let Some(bytes) = data.get(..size) else {
            return damage("JSON goes beyond its value");
        };
        let entries = if object { (width + 2) + (width + 1) } else { width + 1 };
        match count.checked_mul(entries) {
            Some(room) if room + 2 * width <= size => Ok(Self { bytes, object, large, count }),
            _ => damage("JSON has more members than room"),
        }
    }

    fn width(&self) -> usize {
        if self.large { 4 } else { 2 }
    }

    fn at(&self, offset: usize) -> Read<Cursor<'a>> {
        match self.bytes.get(offset..) {
            Some(rest) => Ok(Cursor(rest)),
            None => damage("JSON points beyond its value"),
        }
    }

    fn key(&self, i: usize) -> Read<&'a [u8]> {
        let width = self.width();
        let mut entry = self.at(2 * width + i * (width + 2))?;
        let offset = entry.little(width)? as usize;
        let length = usize::from(entry.u16()?);
        self.at(offset)?.take(length)
    }

    fn value(&self, i: usize) -> Read<Value<'a>> {
        let width = self.width();
        let keys = if self.object { self.count * (width + 2) } else { 0 };
        let mut entry = self.at(2 * width + keys + i * (width + 1))?;
        let ty = entry.u8()?;
        let inline = entry.take(width)?;
        let stands_here =
            matches!(ty, LITERAL | INT16 | UINT16) || (self.large && matches!(ty, INT32 | UINT32));
        if stands_here {
            return Ok(Value { ty, data: inline });
        }
        let offset = Cursor(inline).little(width)? as usize;
        Ok(Value { ty, data: self.at(offset)?.0 })
    }
}

/// Writes within its limit.
struct Printer<'o> {
    out: &'o mut Vec<u8>,
    limit: usize,
}

impl Printer<'_> {
    fn value(&mut self, value: Value<'_>, depth: usize) -> Read<()> {
        if depth > MOST_DEPTH {
            return damage("JSON nests too deep");
        }
        let Some(container) = value.container()? else {
            return self.scalar(value);
        };
        self.open(container.object)?;
        for i in 0..container.count {
            let key = if container.object { Some(container.key(i)?) } else { None };
            self.before_member(i, key)?;
            self.value(container.value(i)?, depth + 1)?;
        }
        self.close(container.object)
    }

    fn open(&mut self, object: bool) -> Read<()> {
        self.out.push(if object { b'{' } else { b'[' });
        self.check()
    }

    fn before_member(&mut self, i: usize, key: Option<&[u8]>) -> Read<()> {
        if i > 0 {
            self.out.extend_from_slice(b", ");
        }
        if let Some(key) = key {
            self.quoted(key)?;
            self.out.extend_from_slice(b": ");
        }
        self.check()
    }

    fn close(&mut self, object: bool) -> Read<()> {
        self.out.push(if object { b'}' } else { b']' });
        self.check()
    }

    fn check(&self) -> Read<()> {
        if self.out.len() > self.limit {
            damage("JSON has more text than its bytes can hold")
        } else {
            Ok(())
        }
    }

    fn scalar(&mut self, value: Value<'_>) -> Read<()> {
        let mut c = Cursor(value.data);
        match value.ty {
            LITERAL => self.out.extend_from_slice(match c.u8()? {
                0 => b"null",
                1 => b"true",
                2 => b"false",
                _ => return damage("JSON has an unknown literal"),
            }),
            INT16 => self.shown(c.u16()? as i16),
            UINT16 => self.shown(c.u16()?),
            INT32 => self.shown(c.u32()? as i32),
            UINT32 => self.shown(c.u32()?),
            INT64 => self.shown(c.u64()? as i64),
            UINT64 => self.shown(c.u64()?),
            DOUBLE => number::write_double(f64::from_bits(c.u64()?), self.out),
            STRING => {
                let length = variable_length(&mut c)?;
                self.quoted(c.take(length)?)?;
            }
            OPAQUE => {
                let field = c.u8()?;
                let length = variable_length(&mut c)?;
                self.opaque(field, c.take(length)?)?;
            }
            _ => return damage("JSON has a value of an unknown type"),
        }
        self.check()
    }

    fn shown(&mut self, value: impl std::fmt::Display) {
        // Writing to a vector cannot fail.
        let _ = write!(self.out, "{value}");
    }

    fn opaque(&mut self, field: u8, bytes: &[u8]) -> Read<()> {
        let mut c = Cursor(bytes);
        match field {
            FIELD_DECIMAL => {
                let (precision, scale) = (c.u8()?, c.u8()?);
                if precision > 65 || scale > precision {
                    return damage("JSON has a decimal of impossible digits");
                }
                decimal::write(&mut c, precision, scale, self.out)
            }
            FIELD_DATE | FIELD_DATETIME | FIELD_TIMESTAMP => {
                let packed = c.u64()? & i64::MAX as u64;
                let moment = temporal::unpack(packed >> 24, (packed & 0xff_ffff) as u32);
                self.out.push(b'"');
                if field == FIELD_DATE {
                    moment.write_date(self.out);
                } else {
                    moment.write(6, self.out);
                }
                self.out.push(b'"');
                Ok(())
            }
            FIELD_TIME => {
                let packed = c.u64()? as i64;
                self.time(packed < 0, packed.unsigned_abs());
                Ok(())
            }
            _ => {
                let _ = write!(self.out, "\"base64:type{field}:");
                base64_lines(bytes, self.out);
                self.out.push(b'"');
                Ok(())
            }
        }
    }

    fn time(&mut self, negative: bool, packed: u64) {
        let hms = packed >> 24;
        let sign = if negative { "-" } else { "" };
        let (h, m, s) = (hms >> 12 & 0x3ff, hms >> 6 & 63, hms & 63);
        let _ = write!(self.out, "\"{sign}{h:02}:{m:02}:{s:02}");
        write_fraction((packed & 0xff_ffff) as u32, 6, self.out);
        self.out.push(b'"');
    }

    fn quoted(&mut self, text: &[u8]) -> Read<()> {
        if std::str::from_utf8(text).is_err() {
            return damage("JSON has text that is not UTF-8");
        }
        self.out.push(b'"');
        let mut plain = 0;
        for (i, byte) in text.iter().enumerate() {
            if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            self.out.extend_from_slice(&text[plain..i]);
            plain = i + 1;
            match byte {
                b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', *byte]),
                0x08 => self.out.extend_from_slice(b"\\b"),
                0x0c => self.out.extend_from_slice(b"\\f"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                other => drop(write!(self.out, "\\u{other:04x}")),
            }
            self.check()?;
        }
        self.out.extend_from_slice(&text[plain..]);
        self.out.push(b'"');
        self.check()
    }
}

/// Seven bits a byte, lowest first, the high bit says that more follow.
fn variable_length(c: &mut Cursor<'_>) -> Read<usize> {
    let mut length = 0usize;
    for i in 0..5 {
        let byte = c.u8()?;
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    damage("JSON has a length without end")
}

/// Base64 in lines of 76 characters, whose ends show as `\n` within the JSON string.
fn base64_lines(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const LINE_BYTES: usize = 76 / 4 * 3;
    for (n, line) in bytes.chunks(LINE_BYTES).enumerate() {
        if n > 0 {
            out.extend_from_slice(b"\\n");
        }
        for group in line.chunks(3) {
            let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for i in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
                out.push(if i <= group.len() { digit } else { b'=' });
            }
        }
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
