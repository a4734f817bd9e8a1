//! One value: from bytes to a cell. Bytes that need no change are sliced where they lie.

use super::compression::inflate_column;
use super::cursor::{Cursor, Damage, Read, damage};
use super::plan::{Prefix, Step};
use super::temporal::{self, Moment};
use super::{decimal, json};
use crate::charset::Charset;
use caudal_core::{BatchBuilder, Cell, Slice};
use std::io::Write;

/// No value is longer than the longest LONGBLOB that an event can hold.
const MOST_BYTES: usize = 1 << 30;

/// Where an event's bytes are in the batch.
#[derive(Clone, Copy)]
pub(super) struct Home {
    pub(super) buffer: u32,
    pub(super) offset: u32,
    /// Bytes of the whole body: with the cursor's rest it tells where a value lies.
    pub(super) total: usize,
}

impl Home {
    /// The slice of `len` bytes that end where the cursor stands.
    #[inline]
    fn slice(self, c: &Cursor<'_>, len: usize) -> Slice {
        let offset = self.total - c.0.len() - len;
        Slice { buffer: self.buffer, offset: self.offset + offset as u32, len: len as u32 }
    }
}

impl Step {
    /// Reads one value that is not NULL.
    #[inline]
    pub(super) fn cell(&self, c: &mut Cursor<'_>, home: Home, out: &mut BatchBuilder) -> Read<Cell> {
        Ok(match self {
            Self::Signed { width } => Cell::I64(signed(c, *width)?),
            Self::Unsigned { width } => Cell::I64(c.little(usize::from(*width))? as i64),
            Self::Unsigned64 => Cell::U64(c.u64()?),
            Self::Utf8 { prefix } => Cell::Text(utf8(c, *prefix, home)?),
            Self::Bytes { prefix } => {
                let bytes = bytes(c, *prefix)?;
                Cell::Bytes(home.slice(c, bytes.len()))
            }
            Self::DateTime(p) => datetime(temporal::datetime(c, *p)?, *p, out),
            Self::Timestamp(p) => timestamp(temporal::timestamp(c, *p)?, *p, out),
            Self::Decimal { precision, scale } => {
                Cell::Decimal(written(out, |arena| decimal::write(c, *precision, *scale, arena))?)
            }
            Self::Double => Cell::F64(f64::from_bits(c.u64()?)),
            Self::Date => date(temporal::date(c)?, out),
            Self::Enum { width, members } => {
                let index = c.little(usize::from(*width))? as usize;
                Cell::Text(out.copy(label(members, index)?.as_bytes()))
            }
            Self::Json { prefix } => {
                let value = bytes(c, *prefix)?;
                Cell::Json(written(out, |arena| json::write(value, arena))?)
            }
            _ => return self.rare(c, home, out),
        })
    }

    /// The types of fewer tables, out of the way of the others.
    #[inline(never)]
    fn rare(&self, c: &mut Cursor<'_>, home: Home, out: &mut BatchBuilder) -> Read<Cell> {
        Ok(match self {
            Self::Bool { width } => Cell::I64(i64::from(c.little(usize::from(*width))? != 0)),
            Self::Float => Cell::F32(f32::from_bits(c.u32()?)),
            Self::Bit { width } => Cell::U64(c.big(usize::from(*width))?),
            Self::Set { width, members } => {
                let bits = c.little(usize::from(*width))?;
                Cell::Text(written(out, |arena| set_labels(members, bits, arena))?)
            }
            Self::Year => match c.u8()? {
                0 => Cell::I64(0),
                year => Cell::I64(1900 + i64::from(year)),
            },
            Self::Time(p) => Cell::I64(temporal::time(c, *p)?),
            Self::OldTime(p) => Cell::I64(temporal::old_time(c, *p)?),
            Self::OldDateTime(p) => datetime(temporal::old_datetime(c, *p)?, *p, out),
            Self::OldTimestamp(p) => timestamp(temporal::old_timestamp(c, *p)?, *p, out),
            Self::Text { prefix, charset } => text(c, *prefix, *charset, home, out)?,
            Self::JsonText { prefix } => Cell::Json(utf8(c, *prefix, home)?),
            Self::FixedBytes { prefix, length } => fixed(c, *prefix, *length as usize, home, out)?,
            Self::Compressed { prefix, charset } => compressed(c, *prefix, *charset, out)?,
            Self::Uuid { prefix } => Cell::Text(out.copy(&uuid(padded(c, *prefix)?))),
            Self::Inet4 { prefix } => {
                let [a, b, c, d] = padded::<4>(c, *prefix)?;
                Cell::Text(written(out, |arena| shown(arena, format_args!("{a}.{b}.{c}.{d}")))?)
            }
            Self::Inet6 { prefix } => {
                let address = padded::<16>(c, *prefix)?;
                Cell::Text(written(out, |arena| inet6(address, arena))?)
            }
            _ => return damage("a column is read in no known way"),
        })
    }
}

/// Appends by `f` and gives what was appended.
#[inline]
pub(super) fn written(out: &mut BatchBuilder, f: impl FnOnce(&mut Vec<u8>) -> Read<()>) -> Read<Slice> {
    let start = out.arena().len();
    f(out.arena())?;
    Ok(out.slice_from(start))
}

fn shown(arena: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> Read<()> {
    arena.write_fmt(text).map_err(|_| Damage::of("a value can't be written"))
}

/// As the server writes it: `::` for the longest run of zeros (the first of equals, be it of one group only), and the form
/// with dots for what embeds an IPv4 address.
fn inet6(address: [u8; 16], arena: &mut Vec<u8>) -> Read<()> {
    let groups = std::net::Ipv6Addr::from(address).segments();
    let [.., a, b, c, d] = address;
    let (gap, length) = longest_zeros(&groups);
    let dots = (gap, length) == (0, 6) || (groups[5] == 0xffff && (gap, length) == (0, 5));
    let end = if dots { 6 } else { 8 };
    let mut i = 0;
    while i < end {
        if length > 0 && i == gap {
            arena.extend_from_slice(b"::");
            i += length;
            continue;
        }
        let colon = if i == 0 || (length > 0 && i == gap + length) { "" } else { ":" };
        shown(arena, format_args!("{colon}{:x}", groups[i]))?;
        i += 1;
    }
    match (dots, length) {
        (false, _) => Ok(()),
        (true, 6) => shown(arena, format_args!("{a}.{b}.{c}.{d}")),
        (true, _) => shown(arena, format_args!(":{a}.{b}.{c}.{d}")),
    }
}

/// Where the longest run of zeros begins, and its length.
fn longest_zeros(groups: &[u16; 8]) -> (usize, usize) {
    let mut longest = (0, 0);
    let mut start = 0;
    for (i, group) in groups.iter().enumerate() {
        if *group != 0 {
            start = i + 1;
        } else if i + 1 - start > longest.1 {
            longest = (start, i + 1 - start);
        }
    }
    longest
}

#[inline]
fn signed(c: &mut Cursor<'_>, width: u8) -> Read<i64> {
    let unused = 64 - 8 * u32::from(width);
    Ok((c.little(usize::from(width))? << unused) as i64 >> unused)
}

#[inline]
pub(super) fn bytes<'a>(c: &mut Cursor<'a>, prefix: Prefix) -> Read<&'a [u8]> {
    let length = c.little(usize::from(prefix))? as usize;
    c.take(length)
}

#[inline]
fn utf8(c: &mut Cursor<'_>, prefix: Prefix, home: Home) -> Read<Slice> {
    let value = bytes(c, prefix)?;
    if std::str::from_utf8(value).is_err() {
        return damage("text is not valid UTF-8");
    }
    Ok(home.slice(c, value.len()))
}

fn text(
    c: &mut Cursor<'_>,
    prefix: Prefix,
    charset: Charset,
    home: Home,
    out: &mut BatchBuilder,
) -> Read<Cell> {
    let value = bytes(c, prefix)?;
    if charset.keeps_ascii() && value.is_ascii() {
        return Ok(Cell::Text(home.slice(c, value.len())));
    }
    Ok(Cell::Text(written(out, |arena| convert(charset, value, arena))?))
}

fn convert(charset: Charset, value: &[u8], arena: &mut Vec<u8>) -> Read<()> {
    charset
        .decode(value, arena)
        .map_err(|_| Damage::of(format!("text is not of its character set {}", charset.name())))
}

fn fixed(
    c: &mut Cursor<'_>,
    prefix: Prefix,
    length: usize,
    home: Home,
    out: &mut BatchBuilder,
) -> Read<Cell> {
    let value = bytes(c, prefix)?;
    if value.len() >= length {
        return Ok(Cell::Bytes(home.slice(c, value.len())));
    }
    let padded = written(out, |arena| {
        let end = arena.len() + length;
        arena.extend_from_slice(value);
        arena.resize(end, 0);
        Ok(())
    })?;
    Ok(Cell::Bytes(padded))
}

fn compressed(
    c: &mut Cursor<'_>,
    prefix: Prefix,
    charset: Option<Charset>,
    out: &mut BatchBuilder,
) -> Read<Cell> {
    let value = bytes(c, prefix)?;
    let Some(charset) = charset else {
        return Ok(Cell::Bytes(written(out, |arena| inflate_column(value, MOST_BYTES, arena))?));
    };
    let mut plain = Vec::new();
    inflate_column(value, MOST_BYTES, &mut plain)?;
    Ok(Cell::Text(written(out, |arena| convert(charset, &plain, arena))?))
}

/// A value of fixed length whose zero bytes at the end the server strips.
fn padded<const N: usize>(c: &mut Cursor<'_>, prefix: Prefix) -> Read<[u8; N]> {
    let value = bytes(c, prefix)?;
    let mut whole = [0; N];
    match whole.get_mut(..value.len()) {
        Some(front) => front.copy_from_slice(value),
        None => return damage("a value is longer than its type"),
    }
    Ok(whole)
}

/// The time-based versions (1 to 5) are stored with their parts in reverse, so that they sort by time; the others as they
/// are. (`sql_type_uuid.h` of MariaDB.)
fn uuid(stored: [u8; 16]) -> [u8; 36] {
    let s = stored;
    let swapped = s[6] & 0x80 != 0 && s[8] > 0 && s[8] < 0x60;
    let plain = if swapped {
        [s[12], s[13], s[14], s[15], s[10], s[11], s[8], s[9], s[6], s[7], s[0], s[1], s[2], s[3], s[4], s[5]]
    } else {
        s
    };
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in plain.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        for nibble in [byte >> 4, byte & 15] {
            text[at] = b"0123456789abcdef"[usize::from(nibble)];
            at += 1;
        }
    }
    text
}

fn label(members: &[String], index: usize) -> Read<&str> {
    if index == 0 {
        return Ok("");
    }
    match members.get(index - 1) {
        Some(label) => Ok(label),
        None => Err(Damage::of(format!("label {index} of an ENUM that has {}", members.len()))),
    }
}

fn set_labels(members: &[String], bits: u64, arena: &mut Vec<u8>) -> Read<()> {
    let mut rest = bits;
    while rest != 0 {
        let i = rest.trailing_zeros() as usize;
        let Some(label) = members.get(i) else {
            return Err(Damage::of(format!("label {} of a SET that has {}", i + 1, members.len())));
        };
        arena.extend_from_slice(label.as_bytes());
        rest &= rest - 1;
        if rest != 0 {
            arena.push(b',');
        }
    }
    Ok(())
}

fn date(day: Moment, out: &mut BatchBuilder) -> Cell {
    match caudal_core::temporal::days_from_civil(day.year as i32, day.month, day.day) {
        Some(days) => Cell::I64(days),
        None => Cell::Text(out.write(|arena| day.write_date(arena))),
    }
}

#[inline]
fn datetime(moment: Moment, precision: u8, out: &mut BatchBuilder) -> Cell {
    match moment.micros() {
        Some(micros) => Cell::I64(micros),
        None => Cell::Text(out.write(|arena| moment.write(precision, arena))),
    }
}

#[inline]
fn timestamp(micros: Option<i64>, precision: u8, out: &mut BatchBuilder) -> Cell {
    match micros {
        Some(micros) => Cell::I64(micros),
        None => Cell::Text(out.write(|arena| Moment::default().write(precision, arena))),
    }
}
