//! Words of a filter.

use caudal_core::{Error, Result};

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A plain name or a keyword.
    Word(String),
    /// A name in backticks.
    Name(String),
    /// Digits, with a sign and a point perhaps.
    Number(String),
    /// `'text'`
    Text(String),
    /// `X'00ff'`
    Bytes(Vec<u8>),
    /// Comparisons, parentheses, comma.
    Sign(&'static str),
}

/// Two letters first: `<=` is not `<`.
const SIGNS: [&str; 10] = ["<=", ">=", "<>", "!=", "=", "<", ">", "(", ")", ","];

/// The words of a text, each with its place in characters from 1.
///
/// # Errors
/// `Config`, naming the place.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>> {
    let mut lexer = Lexer { text, at: 0 };
    let mut out = Vec::new();
    while let Some(token) = lexer.next()? {
        out.push(token);
    }
    Ok(out)
}

/// A mistake at a place.
pub(super) fn mistake(place: usize, what: impl std::fmt::Display) -> Error {
    Error::config(format!("at character {place}: {what}")).hint(
        "a filter compares columns with literals: status IN ('paid', 'sent') AND total >= 10.50 AND deleted_at IS NULL",
    )
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn place(&self) -> usize {
        self.text[..self.at].chars().count() + 1
    }

    fn next(&mut self) -> Result<Option<(usize, Token)>> {
        self.at = self.text.len() - self.rest().trim_start().len();
        let place = self.place();
        let Some(first) = self.rest().chars().next() else { return Ok(None) };
        let token = match first {
            '\'' => Token::Text(self.quoted('\'')?),
            '`' => Token::Name(self.quoted('`')?),
            'x' | 'X' if self.rest()[1..].starts_with('\'') => {
                self.at += 1;
                let digits = self.quoted('\'')?;
                Token::Bytes(unhex(&digits).ok_or_else(|| mistake(place, "no pairs of hexadecimal digits"))?)
            }
            '0'..='9' | '.' | '-' | '+' => self.number()?,
            c if c.is_alphabetic() || c == '_' => Token::Word(self.take(|c| c.is_alphanumeric() || c == '_')),
            _ => self.sign()?,
        };
        Ok(Some((place, token)))
    }

    fn take(&mut self, of: impl Fn(char) -> bool) -> String {
        let end = self.rest().find(|c| !of(c)).unwrap_or(self.rest().len());
        let taken = self.rest()[..end].to_owned();
        self.at += end;
        taken
    }

    fn number(&mut self) -> Result<Token> {
        let place = self.place();
        let sign = self.rest().starts_with(['-', '+']);
        let mut number = self.rest()[..usize::from(sign)].to_owned();
        self.at += usize::from(sign);
        number.push_str(&self.take(|c| c.is_ascii_digit() || c == '.'));
        if self.rest().starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            return Err(mistake(place, "a number has digits and one point, no exponent"));
        }
        Ok(Token::Number(number))
    }

    /// Doubled quotes stand for one.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let place = self.place();
        let mut out = String::new();
        self.at += 1;
        loop {
            out.push_str(&self.take(|c| c != quote));
            if self.rest().is_empty() {
                return Err(mistake(place, format!("{quote} is never closed")));
            }
            self.at += 1;
            if !self.rest().starts_with(quote) {
                return Ok(out);
            }
            out.push(quote);
            self.at += 1;
        }
    }

    fn sign(&mut self) -> Result<Token> {
        let found = SIGNS.iter().find(|s| self.rest().starts_with(**s));
        let sign = found.ok_or_else(|| mistake(self.place(), "not a part of a filter"))?;
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = digits.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|p| p[0] << 4 | p[1]).collect())
}
