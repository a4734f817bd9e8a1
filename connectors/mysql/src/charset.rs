//! Character sets: from a column's bytes to UTF-8, as the server itself would convert.
//!
//! A snapshot gets its text from the server, which converts it; the stream gets the column's own bytes. Both must end in the
//! same text, so the measure is the server: its own tables are used (`latin1` is cp1252 with C1 controls in the gaps), and
//! what the server has no character for becomes the `?` that it sends. Bytes that are not well-formed in their set are an error, never a guess.

mod collations;
mod multi_byte;
mod single_byte;

use caudal_core::{Error, Result};

/// A character set whose bytes can be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charset {
    name: &'static str,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    Utf8,
    /// Big-endian code units of 2 bytes, with surrogate pairs.
    Utf16,
    Utf16Le,
    Utf32,
    /// The upper half; the lower one is ASCII.
    Single(&'static [u16; 128]),
    Ascii,
    Swe7,
    Multi(multi_byte::Multi),
}

/// Bytes that are not of their character set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotOfCharset;

impl Charset {
    /// By the server's name for it: `utf8mb4`, `latin1`, … Case does not matter.
    ///
    /// # Errors
    /// `Data`, naming it, for a set that is not covered.
    pub fn by_name(name: &str) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        let found = if lower == "utf8" { Some(&ALL[1]) } else { ALL.iter().find(|c| c.name == lower) };
        found.copied().ok_or_else(|| {
            Error::data(format!("character set {name} is not known"))
                .hint("convert the column to utf8mb4, or leave its table out")
        })
    }

    /// By the id of a collation, as table maps and query events have it.
    ///
    /// # Errors
    /// `Data`, naming the id, for one that is not known.
    pub fn by_collation(id: u32) -> Result<Self> {
        match collations::charset_of(id) {
            Some(name) => Self::by_name(name),
            None => Err(Error::data(format!("collation {id} is not known"))
                .hint("give the table a collation that comes with the server, or leave it out")),
        }
    }

    /// The server's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Whether it is `binary`: bytes, not text.
    #[must_use]
    pub fn is_binary(self) -> bool {
        self.form == Form::Binary
    }

    /// Whether its bytes are UTF-8 as they are.
    #[must_use]
    pub fn is_utf8(self) -> bool {
        self.form == Form::Utf8
    }

    /// Whether ASCII is itself in it.
    pub(crate) fn keeps_ascii(self) -> bool {
        !matches!(self.form, Form::Binary | Form::Utf16 | Form::Utf16Le | Form::Utf32 | Form::Swe7)
    }

    /// Appends `bytes` as UTF-8. At most three bytes come out for each that goes in.
    pub(crate) fn decode(self, bytes: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), NotOfCharset> {
        match self.form {
            Form::Binary => return Err(NotOfCharset),
            Form::Utf8 => {
                std::str::from_utf8(bytes).map_err(|_| NotOfCharset)?;
                out.extend_from_slice(bytes);
            }
            Form::Utf16 => utf16(bytes, u16::from_be_bytes, out)?,
            Form::Utf16Le => utf16(bytes, u16::from_le_bytes, out)?,
            Form::Utf32 => utf32(bytes, out)?,
            Form::Ascii => bytes.iter().for_each(|b| out.push(if b.is_ascii() { *b } else { b'?' })),
            Form::Swe7 => bytes.iter().for_each(|b| push(swe7(*b), out)),
            Form::Single(upper) => single(bytes, upper, out),
            Form::Multi(multi) => multi.decode(bytes, out)?,
        }
        Ok(())
    }

    /// A label of an ENUM or SET. In a binary column labels are bytes, shown where they are UTF-8.
    pub(crate) fn label(self, bytes: &[u8]) -> Option<String> {
        if self.is_binary() { String::from_utf8(bytes.to_vec()).ok() } else { self.text(bytes) }
    }

    /// `bytes` as text; none if they are not of this set, or it is `binary`.
    #[must_use]
    pub fn text(self, bytes: &[u8]) -> Option<String> {
        let mut out = Vec::with_capacity(bytes.len());
        self.decode(bytes, &mut out).ok()?;
        String::from_utf8(out).ok()
    }
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn single(bytes: &[u8], upper: &[u16; 128], out: &mut Vec<u8>) {
    for &byte in bytes {
        if byte.is_ascii() {
            out.push(byte);
        } else {
            push(char::from_u32(u32::from(upper[usize::from(byte) - 128])).unwrap_or('?'), out);
        }
    }
}

fn swe7(byte: u8) -> char {
    let special = single_byte::SWE7_LOWER.iter().find(|(b, _)| *b == byte);
    special.map_or(if byte.is_ascii() { char::from(byte) } else { '?' }, |(_, c)| *c)
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16, out: &mut Vec<u8>) -> std::result::Result<(), NotOfCharset> {
    let units = bytes.chunks_exact(2);
    if !units.remainder().is_empty() {
        return Err(NotOfCharset);
    }
    for c in char::decode_utf16(units.map(|u| unit([u[0], u[1]]))) {
        push(c.map_err(|_| NotOfCharset)?, out);
    }
    Ok(())
}

fn utf32(bytes: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), NotOfCharset> {
    let units = bytes.chunks_exact(4);
    if !units.remainder().is_empty() {
        return Err(NotOfCharset);
    }
    for u in units {
        push(char::from_u32(u32::from_be_bytes([u[0], u[1], u[2], u[3]])).ok_or(NotOfCharset)?, out);
    }
    Ok(())
}

const fn set(name: &'static str, form: Form) -> Charset {
    Charset { name, form }
}

/// The frequent ones first: they are looked for in this order.
static ALL: [Charset; 41] = {
    use multi_byte::Multi;
    use single_byte as s;
    [
        set("utf8mb4", Form::Utf8),
        set("utf8mb3", Form::Utf8),
        set("latin1", Form::Single(&s::LATIN1)),
        set("binary", Form::Binary),
        set("ascii", Form::Ascii),
        set("utf16", Form::Utf16),
        set("utf16le", Form::Utf16Le),
        set("ucs2", Form::Utf16),
        set("utf32", Form::Utf32),
        set("latin2", Form::Single(&s::LATIN2)),
        set("latin5", Form::Single(&s::LATIN5)),
        set("latin7", Form::Single(&s::LATIN7)),
        set("cp1250", Form::Single(&s::CP1250)),
        set("cp1251", Form::Single(&s::CP1251)),
        set("cp1256", Form::Single(&s::CP1256)),
        set("cp1257", Form::Single(&s::CP1257)),
        set("cp850", Form::Single(&s::CP850)),
        set("cp852", Form::Single(&s::CP852)),
        set("cp866", Form::Single(&s::CP866)),
        set("dec8", Form::Single(&s::DEC8)),
        set("hp8", Form::Single(&s::HP8)),
        set("koi8r", Form::Single(&s::KOI8R)),
        set("koi8u", Form::Single(&s::KOI8U)),
        set("swe7", Form::Swe7),
        set("hebrew", Form::Single(&s::HEBREW)),
        set("tis620", Form::Single(&s::TIS620)),
        set("greek", Form::Single(&s::GREEK)),
        set("armscii8", Form::Single(&s::ARMSCII8)),
        set("geostd8", Form::Single(&s::GEOSTD8)),
        set("keybcs2", Form::Single(&s::KEYBCS2)),
        set("macce", Form::Single(&s::MACCE)),
        set("macroman", Form::Single(&s::MACROMAN)),
        set("big5", Form::Multi(Multi::Big5)),
        set("gb2312", Form::Multi(Multi::Gb2312)),
        set("gbk", Form::Multi(Multi::Gbk)),
        set("gb18030", Form::Multi(Multi::Gb18030)),
        set("sjis", Form::Multi(Multi::Sjis)),
        set("cp932", Form::Multi(Multi::Cp932)),
        set("ujis", Form::Multi(Multi::Ujis)),
        set("eucjpms", Form::Multi(Multi::EucJpMs)),
        set("euckr", Form::Multi(Multi::EucKr)),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    fn text(charset: &str, bytes: &[u8]) -> Option<String> {
        Charset::by_name(charset).unwrap().text(bytes)
    }

    #[test]
    fn text_is_converted_as_the_server_does() {
        for (charset, bytes, want) in [
            ("latin1", &b"caf\xe9 \x80 \x81"[..], "café € \u{81}"),
            ("utf8", "é".as_bytes(), "é"),
            ("cp850", b"\x82\x9b", "éø"),
            ("swe7", b"{|}", "äöå"),
            ("ascii", b"a\xff", "a?"),
            ("utf16", b"\x00a\xd8\x3d\xde\x00", "a😀"),
            ("utf16le", b"a\x00\x3d\xd8\x00\xde", "a😀"),
            ("utf32", b"\x00\x00\x00a\x00\x01\xf6\x00", "a😀"),
            ("gbk", b"\xc4\xe3", "你"),
            ("sjis", b"\x82\xa0", "あ"),
            ("euckr", b"\xb0\xa1", "가"),
        ] {
            assert_eq!(text(charset, bytes).as_deref(), Some(want), "{charset}");
        }
    }

    #[test]
    fn what_is_not_of_the_set_is_no_text() {
        for (charset, bytes) in [
            ("utf8mb4", &b"\xff"[..]),
            ("utf16", b"\x00"),
            ("utf16", b"\xd8\x00"),
            ("utf32", b"\x00\x11\x00\x00"),
        ] {
            assert_eq!(text(charset, bytes), None, "{charset}");
        }
        let unknown = Charset::by_name("klingon").unwrap_err();
        assert!(unknown.to_string().contains("klingon"));
    }
}
