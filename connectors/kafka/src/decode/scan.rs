//! A scanner over one JSON text: it walks, it builds nothing. Grammar: RFC 8259.
//!
//! Callers ask for what they expect next and get places in the text. Work is linear in the text; nesting of skipped values
//! is bounded by [`MAX_DEPTH`], so a hostile record cannot exhaust the stack.

use std::fmt;

/// Deepest nesting of a value that is skipped.
const MAX_DEPTH: u32 = 64;

/// Why a text is not what was expected: what, and at which byte. Never holds the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    what: String,
    at: Option<usize>,
}

impl Malformed {
    /// Something wrong that has no place of its own.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), at: None }
    }

    /// Puts the field's name in front.
    pub(crate) fn of(mut self, field: &str) -> Self {
        self.what = format!("{field}: {}", self.what);
        self
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} at byte {at}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// A string's place between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quoted<'a> {
    /// The text between the quotes, escapes and all.
    pub(crate) raw: &'a str,
    /// Where it begins in the scanned text.
    pub(crate) at: usize,
    /// Whether `raw` has escapes.
    pub(crate) escaped: bool,
}

/// Walks a JSON text.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// At the beginning of `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Where it stands, for [`Self::back_to`].
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Goes back to where it stood.
    pub(crate) fn back_to(&mut self, at: usize) {
        self.at = at;
    }

    /// The error that `what` was expected here.
    pub(crate) fn wrong(&self, what: &str) -> Malformed {
        Malformed { what: format!("{what} expected"), at: Some(self.at) }
    }

    /// The next byte that is not white space, without taking it; 0 at the end.
    pub(crate) fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return byte;
            }
            self.at += 1;
        }
        0
    }

    /// Takes `byte` if it is next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    /// Takes `byte`, which must be next.
    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(self.wrong(&format!("{:?}", char::from(byte)))) }
    }

    /// Takes `null` if it is next.
    pub(crate) fn null(&mut self) -> Result<bool, Malformed> {
        if self.peek() != b'n' {
            return Ok(false);
        }
        self.word("null").map(|()| true)
    }

    /// Takes `true` or `false`.
    pub(crate) fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.peek() {
            b't' => self.word("true").map(|()| true),
            b'f' => self.word("false").map(|()| false),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// Takes a number and gives its text.
    pub(crate) fn number(&mut self) -> Result<&'a str, Malformed> {
        self.peek();
        let rest = &self.text[self.at..];
        let end = rest.bytes().position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        let number = &rest[..end.unwrap_or(rest.len())];
        if !number.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return Err(self.wrong("a number"));
        }
        self.at += number.len();
        Ok(number)
    }

    /// Takes a number and parses it as `T`.
    pub(crate) fn parse<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, Malformed> {
        let number = self.number()?;
        number.parse().map_err(|_| self.wrong(what))
    }

    /// Takes an integer of 64 bits.
    pub(crate) fn integer(&mut self, what: &str) -> Result<i64, Malformed> {
        self.peek();
        let bytes = &self.text.as_bytes()[self.at..];
        let negative = bytes.first() == Some(&b'-');
        let digits = &bytes[usize::from(negative)..];
        let mut number = 0_i64;
        let mut len = 0;
        // 18 digits fit always; longer numbers, and what is none, go the long way.
        while let Some(digit) = digits.get(len).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10 && len < 19)
        {
            number = number.wrapping_mul(10).wrapping_add(i64::from(digit));
            len += 1;
        }
        if !(1..19).contains(&len) || matches!(digits.get(len), Some(b'.' | b'e' | b'E' | b'+' | b'-')) {
            return self.parse(what);
        }
        self.at += len + usize::from(negative);
        Ok(if negative { -number } else { number })
    }

    /// Takes a string.
    pub(crate) fn string(&mut self) -> Result<Quoted<'a>, Malformed> {
        if !self.take(b'"') {
            return Err(self.wrong("a string"));
        }
        let (start, bytes) = (self.at, self.text.as_bytes());
        let mut escaped = false;
        loop {
            self.at += plain(&bytes[self.at..]);
            match bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') if self.at + 1 < bytes.len() => {
                    escaped = true;
                    self.at += 2;
                }
                None => return Err(self.wrong("the end of a string")),
                Some(_) => return Err(self.wrong("a string without control characters")),
            }
            // An escape in front of a character of several bytes is no escape; the next slice must begin at a character.
            if !self.text.is_char_boundary(self.at) {
                return Err(self.wrong("an escape"));
            }
        }
        let raw = &self.text[start..self.at];
        self.at += 1;
        Ok(Quoted { raw, at: start, escaped })
    }

    /// Takes the next member's name and its colon; none at the object's end, which is taken too. `first` starts as true.
    pub(crate) fn member(&mut self, first: &mut bool) -> Result<Option<Quoted<'a>>, Malformed> {
        if self.take(b'}') {
            return Ok(None);
        }
        if !std::mem::take(first) {
            self.expect(b',')?;
        }
        let name = self.string()?;
        self.expect(b':')?;
        Ok(Some(name))
    }

    /// Takes the next member's name and its colon if they stand here just so: that name, and no white space. Saves reading the name
    /// where the writer's order is known. `first` as in [`Self::member`].
    pub(crate) fn named(&mut self, first: &mut bool, name: &str) -> bool {
        let text = &self.text.as_bytes()[self.at..];
        let text = if *first { text } else { text.strip_prefix(b",").unwrap_or_default() };
        let rest = text.strip_prefix(b"\"").and_then(|text| text.strip_prefix(name.as_bytes()));
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix(b"\":")) else { return false };
        // A name that JSON writes with escapes is not what stands here, though it looks the same.
        if plain(name.as_bytes()) < name.len() {
            return false;
        }
        self.at = self.text.len() - rest.len();
        *first = false;
        true
    }

    /// Takes a value of any kind.
    pub(crate) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: u32) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("less nesting"));
        }
        match self.peek() {
            b'"' => self.string().map(|_| ()),
            b'{' => self.skip_object(depth),
            b'[' => self.skip_array(depth),
            b't' | b'f' => self.boolean().map(|_| ()),
            b'n' => self.word("null"),
            _ => self.number().map(|_| ()),
        }
    }

    fn skip_object(&mut self, depth: u32) -> Result<(), Malformed> {
        self.expect(b'{')?;
        let mut first = true;
        while self.member(&mut first)?.is_some() {
            self.skip_nested(depth + 1)?;
        }
        Ok(())
    }

    fn skip_array(&mut self, depth: u32) -> Result<(), Malformed> {
        self.expect(b'[')?;
        let mut first = true;
        while !self.take(b']') {
            if !std::mem::take(&mut first) {
                self.expect(b',')?;
            }
            self.skip_nested(depth + 1)?;
        }
        Ok(())
    }

    /// Only white space may be left.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        self.peek();
        if self.at == self.text.len() { Ok(()) } else { Err(self.wrong("the end")) }
    }

    fn word(&mut self, word: &str) -> Result<(), Malformed> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.wrong(word))
    }
}

/// How many bytes stand before the first quote, backslash or control character. Eight at a time: a byte of `x ^ c` is zero where `x` is
/// `c`, and the lowest bit that the subtraction borrows into a byte's highest one is right (those above it need not be).
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHEST: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quote, backslash) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        if found & HIGHEST != 0 {
            return i * 8 + ((found & HIGHEST).trailing_zeros() / 8) as usize;
        }
    }
    let stops = |b: &u8| matches!(b, b'"' | b'\\' | ..0x20);
    bytes.len() - rest.len() + rest.iter().position(stops).unwrap_or(rest.len())
}

/// Appends the meaning of a string with escapes to `out`. Lone surrogates are no text.
pub(crate) fn unescape(quoted: Quoted<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let wrong = || Malformed { what: "a valid escape expected".into(), at: Some(quoted.at) };
    let mut rest = quoted.raw;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let (meaning, length) = escape(&rest[at + 1..]).ok_or_else(wrong)?;
        out.extend_from_slice(meaning.encode_utf8(&mut [0; 4]).as_bytes());
        rest = rest.get(at + 1 + length..).ok_or_else(wrong)?;
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(())
}

/// The character that an escape stands for, and the escape's length after the backslash.
fn escape(text: &str) -> Option<(char, usize)> {
    let meaning = match text.as_bytes().first()? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(&text[1..]),
        _ => return None,
    };
    Some((meaning, 1))
}

fn unicode(text: &str) -> Option<(char, usize)> {
    let high = hex4(text)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high).map(|c| (c, 5));
    }
    let low = hex4(text.get(4..)?.strip_prefix("\\u")?)?;
    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x10000 + ((high - 0xd800) << 10) + low).map(|c| (c, 11))
}

fn hex4(text: &str) -> Option<u32> {
    let digits = text.get(..4)?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(json: &str) -> Result<String, Malformed> {
        let mut scanner = Scanner::new(json);
        let quoted = scanner.string()?;
        scanner.end()?;
        let mut out = Vec::new();
        unescape(quoted, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_escape_means_what_the_grammar_says() {
        assert_eq!(text_of(r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é""#).unwrap(), "\"\\/\u{8}\u{c}\n\r\té😀é");
    }

    #[test]
    fn broken_strings_are_refused() {
        for json in [
            r#"""#,
            r#""\"#,
            r#""\q""#,
            r#""\ud83d""#,
            r#""\ud83dA""#,
            r#""\u12""#,
            "\"\n\"",
            r#""\é""#,
            r#""\u+123""#,
        ] {
            assert!(text_of(json).is_err(), "{json:?}");
        }
    }

    #[test]
    fn deep_nesting_ends_in_an_error_and_not_in_a_crash() {
        let json = "[".repeat(100_000);
        assert!(Scanner::new(&json).skip().is_err());
    }

    #[test]
    fn a_name_is_taken_only_where_it_stands_and_means_itself() {
        let named = |json: &str, name: &str| Scanner::new(json).named(&mut true, name);
        assert!(named(r#""id":1"#, "id"));
        for (json, name) in [
            (r#""id" :1"#, "id"),
            (r#""idx":1"#, "id"),
            (r#""i":1"#, "id"),
            // Names that are `a"b` and `a` with a line break behind it, as JSON writes them.
            (r#""a\"b":1"#, r#"a\"b"#),
            (r#""a\n":1"#, r"a\n"),
            (r#""a":1,"b":2"#, r#"a":1,"b"#),
        ] {
            assert!(!named(json, name), "{json} {name}");
        }
        assert!(Scanner::new(r#","id":1"#).named(&mut false, "id"));
        assert!(!Scanner::new(r#""id":1"#).named(&mut false, "id"));
    }

    proptest! {
        #[test]
        fn plain_bytes_end_at_the_first_that_is_not(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x1e..0x24_u8, 0x5a..0x5e_u8, 0x7e..0x82_u8], 0..40)) {
            let first = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | ..0x20)).unwrap_or(bytes.len());
            prop_assert_eq!(plain(&bytes), first);
        }

        #[test]
        fn integers_read_as_the_standard_library_reads_them(
            number in prop_oneof![any::<i64>().prop_map(|n| n.to_string()), "-?[0-9]{0,22}", "-?[0-9]{1,3}[.eE+-][0-9]?"],
        ) {
            let mut scanner = Scanner::new(&number);
            let (integer, whole) = (scanner.integer("a number").ok(), scanner.end().is_ok());
            prop_assert_eq!(integer.filter(|_| whole), number.parse::<i64>().ok().filter(|_| !number.starts_with('+')));
        }

        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(text_of(&json).unwrap(), text);
        }

        #[test]
        fn no_input_makes_it_panic(json in any::<String>(), braces in "[\\[\\]{}\",:\\\\untrue0-9. ]{0,40}") {
            let _ = Scanner::new(&json).skip();
            let _ = Scanner::new(&braces).skip();
            let _ = text_of(&braces);
        }
    }
}
