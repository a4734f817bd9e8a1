//! A query with places: `… WHERE d.c_codigo = {codigo_deposito}`. Each becomes a parameter (`@P1`), whose value is bound: no value can become SQL.
//!
//! Texts in quotes, names in brackets and comments are left as they are, but a text that is nothing but a place (`'{deposito}'`, as it is written where
//! values are pasted in) is that place.

use crate::param::Param;
use caudal_core::{Error, Result};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Sql(String),
    Place { name: Name, as_type: Option<String> },
}

#[derive(Clone, Debug, PartialEq)]
enum Name {
    Today,
    Yesterday,
    /// Where a sliding window begins.
    From,
    Now,
    /// An attribute of the store.
    Store(String),
    /// A value of the configuration.
    Fixed(String),
}

/// What is bound.
pub(crate) struct Values<'a> {
    /// The time that the run is for.
    pub(crate) planned: Timestamp,
    pub(crate) zone: &'a TimeZone,
    pub(crate) from: Option<Timestamp>,
    pub(crate) store: &'a BTreeMap<String, String>,
}

impl Statement {
    /// Reads it. `params`: values by name, where `{store.x}` stands for an attribute.
    ///
    /// # Errors
    /// `Config` for a place that is not known, or stands within a longer text.
    pub(crate) fn parse(sql: &str, params: &BTreeMap<String, String>) -> Result<Self> {
        let sql = sql.trim().trim_end_matches(';').trim_end();
        if sql.is_empty() {
            return Err(Error::config("is empty").field("query"));
        }
        if starts_with_with(sql) {
            return Err(Error::config("begins with WITH, which a query within a query cannot")
                .field("query")
                .hint("put it into a view, or write the common table expressions as subqueries"));
        }
        let mut parts = Vec::new();
        let (mut plain, mut rest) = (String::new(), sql);
        while let Some(c) = rest.chars().next() {
            let token = token(rest);
            let (text, after) = rest.split_at(token.len);
            rest = after;
            let place = match (c, token.kind) {
                (_, Kind::Text) => {
                    let inner = text.get(1..text.len().max(2) - 1).unwrap_or_default();
                    let is_place =
                        inner.strip_prefix('{').and_then(|t| t.strip_suffix('}')).is_some_and(is_name);
                    if !is_place && names_a_place(inner, params) {
                        return Err(Error::config(
                            "a place stands within a longer text in quotes, where nothing can be bound",
                        )
                        .field("query")
                        .hint("put the text together: '%' + {name} + '%'"));
                    }
                    is_place.then(|| &inner[1..inner.len() - 1])
                }
                ('{', Kind::Place) => Some(&text[1..text.len() - 1]),
                ('{' | '}', _) => return Err(unknown(text)),
                _ => None,
            };
            match place {
                Some(place) => {
                    parts.push(Part::Sql(std::mem::take(&mut plain)));
                    parts.push(read_place(place, params)?);
                }
                None => plain.push_str(text),
            }
        }
        parts.push(Part::Sql(plain));
        Ok(Self(parts))
    }

    /// All of a table.
    pub(crate) fn table(quoted: &str) -> Self {
        Self(vec![Part::Sql(format!("SELECT * FROM {quoted}"))])
    }

    /// Attributes that every store must have.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Place { name: Name::Store(attribute), .. } => Some(attribute.as_str()),
            _ => None,
        })
    }

    /// Whether it asks for a part of the rows by a time.
    pub(crate) fn tells_time(&self) -> bool {
        let is_time = |name: &Name| !matches!(name, Name::Store(_) | Name::Fixed(_));
        self.0.iter().any(|part| matches!(part, Part::Place { name, .. } if is_time(name)))
    }

    /// The SQL and its parameters; those are added to `params`, which may hold some before.
    ///
    /// # Errors
    /// `Config` if a value cannot be (`{from}` without a window).
    pub(crate) fn fill(&self, values: &Values<'_>, params: &mut Vec<Param>) -> Result<String> {
        let mut sql = String::new();
        for part in &self.0 {
            match part {
                Part::Sql(text) => sql.push_str(text),
                Part::Place { name, as_type } => {
                    params.push(values.of(name)?);
                    let at = params.len();
                    // Writing to a String does not fail.
                    let _ = match as_type {
                        Some(ty) => write!(sql, "CAST(@P{at} AS {ty})"),
                        None => write!(sql, "@P{at}"),
                    };
                }
            }
        }
        Ok(sql)
    }
}

/// Whether it can be meant as a place: a name, and maybe a type. JSON is none.
fn is_name(text: &str) -> bool {
    let name = text.split(':').next().unwrap_or_default();
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
}

fn starts_with_with(sql: &str) -> bool {
    let word: String = sql.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
    word.eq_ignore_ascii_case("with")
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// In single quotes.
    Text,
    Place,
    Other,
}

struct Token {
    len: usize,
    kind: Kind,
}

/// The token at the beginning of some SQL: a text, a quoted name, a comment, a place, or one character.
fn token(sql: &str) -> Token {
    let other = |len| Token { len, kind: Kind::Other };
    let bytes = sql.as_bytes();
    match bytes[0] {
        b'\'' => Token { len: quoted(sql, '\''), kind: Kind::Text },
        b'"' => other(quoted(sql, '"')),
        b'[' => other(quoted(sql, ']')),
        b'-' if sql.starts_with("--") => other(sql.find('\n').unwrap_or(sql.len())),
        b'/' if sql.starts_with("/*") => other(comment(sql)),
        b'{' => match sql.find('}') {
            Some(end) => Token { len: end + 1, kind: Kind::Place },
            None => other(sql.len()),
        },
        _ => other(sql.chars().next().map_or(1, char::len_utf8)),
    }
}

/// Up to the closing mark, which stands for itself where it is doubled.
fn quoted(sql: &str, close: char) -> usize {
    let mut chars = sql.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != close {
            continue;
        }
        if chars.peek().is_some_and(|(_, next)| *next == close) {
            chars.next();
        } else {
            return at + close.len_utf8();
        }
    }
    sql.len()
}

/// Comments of this kind hold others.
fn comment(sql: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < sql.len() {
        match &sql.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    sql.len()
}

fn names_a_place(text: &str, params: &BTreeMap<String, String>) -> bool {
    text.split('{')
        .skip(1)
        .any(|rest| rest.split_once('}').is_some_and(|(name, _)| read_place(name, params).is_ok()))
}

fn read_place(text: &str, params: &BTreeMap<String, String>) -> Result<Part> {
    let (name, as_type) = match text.split_once(':') {
        Some((name, ty)) => (name.trim(), Some(ty.trim())),
        None => (text.trim(), None),
    };
    let fits = |ty: &str| {
        !ty.is_empty()
            && ty.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '(' | ')' | ',' | ' ' | '_'))
    };
    if as_type.is_some_and(|ty| !fits(ty)) {
        return Err(unknown(text).hint("a type behind the colon: {deposito:varchar(20)}"));
    }
    let name = match (name, name.strip_prefix("store."), params.get(name)) {
        (_, _, Some(value)) => match value.strip_prefix("{store.").and_then(|v| v.strip_suffix('}')) {
            Some(attribute) => Name::Store(attribute.to_owned()),
            None => Name::Fixed(value.clone()),
        },
        (_, Some(attribute), _) => Name::Store(attribute.to_owned()),
        ("today", ..) => Name::Today,
        ("yesterday", ..) => Name::Yesterday,
        ("from", ..) => Name::From,
        ("now", ..) => Name::Now,
        _ => return Err(unknown(text)),
    };
    Ok(Part::Place { name, as_type: as_type.map(str::to_owned) })
}

fn unknown(text: &str) -> Error {
    let text: String = text.chars().take(30).collect();
    Error::config(format!("`{text}` is no place to be filled in")).field("query").hint(
        "there are {today}, {yesterday}, {from}, {now}, {store.…}, and what `params` names: params: {codigo_deposito: \"{store.deposito}\"}",
    )
}

impl Values<'_> {
    fn of(&self, name: &Name) -> Result<Param> {
        let clock = |at: Timestamp| self.zone.to_datetime(at);
        Ok(match name {
            Name::Today => Param::Date(clock(self.planned).date()),
            Name::Yesterday => Param::Date(clock(self.planned).date().saturating_sub(1.day())),
            Name::Now => Param::Clock(clock(self.planned)),
            Name::From => match self.from {
                Some(from) => Param::Clock(clock(from)),
                None => {
                    return Err(Error::config("{from} is where a sliding window begins, and there is none")
                        .field("query")
                        .hint("mode: sliding_window"));
                }
            },
            Name::Store(attribute) => Param::Text(self.store.get(attribute).cloned().unwrap_or_default()),
            Name::Fixed(value) => Param::Text(value.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(sql: &str) -> Result<(String, Vec<Param>)> {
        let params = BTreeMap::from([
            ("codigo_deposito".to_owned(), "{store.deposito}".to_owned()),
            ("excluido".to_owned(), "000017".to_owned()),
        ]);
        let store = BTreeMap::from([("deposito".to_owned(), "0001'; DROP TABLE x--".to_owned())]);
        let zone = TimeZone::get("America/Caracas").unwrap();
        // The first of March at 03:30 UTC is still February in Caracas.
        let planned: Timestamp = "2026-03-01T03:30:00Z".parse().unwrap();
        let values = Values { planned, zone: &zone, from: None, store: &store };
        let mut bound = Vec::new();
        let sql = Statement::parse(sql, &params)?.fill(&values, &mut bound)?;
        Ok((sql, bound))
    }

    #[test]
    fn places_become_parameters_and_their_values_never_become_sql() {
        let evil = Param::Text("0001'; DROP TABLE x--".into());
        for (sql, expected, bound) in [
            ("SELECT 1 WHERE a = {codigo_deposito};\n", "SELECT 1 WHERE a = @P1", vec![evil.clone()]),
            ("SELECT '{codigo_deposito}'", "SELECT @P1", vec![evil.clone()]),
            ("SELECT {store.deposito:varchar(10)}", "SELECT CAST(@P1 AS varchar(10))", vec![evil.clone()]),
            (
                "SELECT {excluido}, {today}, {yesterday}",
                "SELECT @P1, @P2, @P3",
                vec![
                    Param::Text("000017".into()),
                    Param::Date(jiff::civil::date(2026, 2, 28)),
                    Param::Date(jiff::civil::date(2026, 2, 27)),
                ],
            ),
            (
                "SELECT 'it''s {{', [a]]{x}], \"{y}\" -- {z\n/* {a /* {b} */ } */",
                "SELECT 'it''s {{', [a]]{x}], \"{y}\" -- {z\n/* {a /* {b} */ } */",
                vec![],
            ),
            ("SELECT 'ñ', '{\"json\": 1}'", "SELECT 'ñ', '{\"json\": 1}'", vec![]),
        ] {
            assert_eq!(filled(sql).unwrap(), (expected.to_owned(), bound), "{sql}");
        }
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        for sql in [
            "",
            "  ; ",
            "SELECT {tomorrow}",
            "SELECT {",
            "SELECT }",
            "SELECT {from}",
            "SELECT '%{codigo_deposito}%'",
            "SELECT {today:date; DROP TABLE x}",
            "WITH x AS (SELECT 1 AS a) SELECT * FROM x",
        ] {
            assert!(filled(sql).is_err(), "{sql}");
        }
    }
}
