//! A query with places: `… WHERE fecha_foto >= {from:DATE}`. Each becomes a named parameter (`@caudal_1`), whose value is bound: no value can become SQL.
//!
//! Texts in quotes, names in backticks and comments are left as they are, but a text that is nothing but a place (`'{cartera}'`, as it is written where
//! values are pasted in) is that place.

use crate::param::{Param, name as parameter};
use caudal_core::{Error, Result};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use std::collections::BTreeMap;

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
    /// Where an incremental window begins.
    Watermark,
    /// A value of the configuration.
    Fixed(String),
}

/// Where an incremental window begins, in the column's own terms.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Low {
    Moment(Timestamp),
    Clock(DateTime),
    Date(Date),
    Int(i64),
    Text(String),
}

impl Low {
    pub(crate) fn param(&self) -> Param {
        match self {
            Self::Moment(at) => Param::moment(*at),
            Self::Clock(at) => Param::clock(*at),
            Self::Date(date) => Param::date(*date),
            Self::Int(n) => Param::int(*n),
            Self::Text(text) => Param::text(text.clone()),
        }
    }
}

/// What is bound.
pub(crate) struct Values<'a> {
    /// The time that the run is for.
    pub(crate) planned: Timestamp,
    pub(crate) zone: &'a TimeZone,
    /// Where a sliding window begins.
    pub(crate) from: Option<Timestamp>,
    /// Where an incremental window begins; none: nothing was read yet.
    pub(crate) low: Option<Low>,
}

/// Types that a place may be bound as.
const TYPES: &[&str] =
    &["STRING", "INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC", "BOOL", "DATE", "DATETIME", "TIMESTAMP"];

impl Statement {
    /// Reads it. `params`: values by name.
    ///
    /// # Errors
    /// `Config` for a place that is not known, or stands within a longer text.
    pub(crate) fn parse(sql: &str, params: &BTreeMap<String, String>) -> Result<Self> {
        let sql = sql.trim().trim_end_matches(';').trim_end();
        if sql.is_empty() {
            return Err(Error::config("is empty").field("query"));
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
                    let place = inner.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
                    let place = place.filter(|place| is_name(place));
                    if place.is_none() && names_a_place(inner, params) {
                        return Err(Error::config(
                            "a place stands within a longer text in quotes, where nothing can be bound",
                        )
                        .field("query")
                        .hint("put the text together: CONCAT('%', {name}, '%')"));
                    }
                    place
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

    fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().filter_map(|part| match part {
            Part::Place { name, .. } => Some(name),
            Part::Sql(_) => None,
        })
    }

    /// Whether it asks for a part of the rows by a time.
    pub(crate) fn tells_time(&self) -> bool {
        self.names().any(|name| !matches!(name, Name::Fixed(_)))
    }

    /// Whether it asks where an incremental window begins.
    pub(crate) fn asks_watermark(&self) -> bool {
        self.names().any(|name| *name == Name::Watermark)
    }

    /// The SQL and its parameters.
    ///
    /// # Errors
    /// `Config` if a value cannot be (`{from}` without a window).
    pub(crate) fn fill(&self, values: &Values<'_>, params: &mut Vec<Param>) -> Result<String> {
        let mut sql = String::new();
        for part in &self.0 {
            match part {
                Part::Sql(text) => sql.push_str(text),
                Part::Place { name, as_type } => {
                    params.push(values.of(name, as_type.as_deref())?);
                    sql.push('@');
                    sql.push_str(&parameter(params.len()));
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
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// In one pair of quotes.
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
        b'\'' | b'"' => {
            let mark = &sql[..1];
            let three = mark.repeat(3);
            match sql.starts_with(&three) {
                true => other(quoted(sql, &three)),
                false => Token { len: quoted(sql, mark), kind: Kind::Text },
            }
        }
        b'`' => other(quoted(sql, "`")),
        b'#' => other(sql.find('\n').unwrap_or(sql.len())),
        b'-' if sql.starts_with("--") => other(sql.find('\n').unwrap_or(sql.len())),
        b'/' if sql.starts_with("/*") => other(sql.find("*/").map_or(sql.len(), |end| end + 2)),
        b'{' => match sql.find('}') {
            Some(end) => Token { len: end + 1, kind: Kind::Place },
            None => other(sql.len()),
        },
        _ => other(sql.chars().next().map_or(1, char::len_utf8)),
    }
}

/// Up to the closing mark; what a backslash stands before does not close, in raw texts neither.
fn quoted(sql: &str, mark: &str) -> usize {
    let mut at = mark.len();
    while at < sql.len() {
        let rest = &sql[at..];
        if rest.starts_with(mark) {
            return at + mark.len();
        }
        let mut chars = rest.chars();
        let step = chars.next().map_or(1, char::len_utf8);
        let escaped = if rest.starts_with('\\') { chars.next().map_or(0, char::len_utf8) } else { 0 };
        at += step + escaped;
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
        Some((name, ty)) => (name.trim(), Some(ty.trim().to_ascii_uppercase())),
        None => (text.trim(), None),
    };
    if as_type.as_deref().is_some_and(|ty| !TYPES.contains(&ty)) {
        return Err(unknown(text).hint(format!("a type behind the colon: one of {}", TYPES.join(", "))));
    }
    let name = match (params.get(name), name) {
        (Some(value), _) => Name::Fixed(value.clone()),
        (None, "today") => Name::Today,
        (None, "yesterday") => Name::Yesterday,
        (None, "from") => Name::From,
        (None, "now") => Name::Now,
        (None, "watermark") => Name::Watermark,
        _ => return Err(unknown(text)),
    };
    Ok(Part::Place { name, as_type })
}

fn unknown(text: &str) -> Error {
    let text: String = text.chars().take(30).collect();
    Error::config(format!("`{text}` is no place to be filled in")).field("query").hint(
        "there are {today}, {yesterday}, {now}, {from}, {watermark}, each with a type if need be ({from:DATE}), and what `params` names",
    )
}

impl Values<'_> {
    fn of(&self, name: &Name, as_type: Option<&str>) -> Result<Param> {
        let day = self.zone.to_datetime(self.planned).date();
        match name {
            Name::Today => self.dated(day, as_type),
            Name::Yesterday => self.dated(day.saturating_sub(1.day()), as_type),
            Name::Now => self.timed(self.planned, as_type),
            Name::From => match self.from {
                Some(from) => self.timed(from, as_type),
                None => Err(Error::config("{from} is where a sliding window begins, and there is none")
                    .field("query")
                    .hint("mode: sliding_window")),
            },
            Name::Watermark => self.low(as_type),
            Name::Fixed(value) => {
                Ok(Param { ty: as_type.unwrap_or("STRING").to_owned(), value: value.clone() })
            }
        }
    }

    fn dated(&self, day: Date, as_type: Option<&str>) -> Result<Param> {
        match as_type {
            None | Some("DATE") => Ok(Param::date(day)),
            Some("STRING") => Ok(Param::text(Param::date(day).value)),
            Some("DATETIME") => Ok(Param::clock(day.at(0, 0, 0, 0))),
            Some("TIMESTAMP") => {
                let midnight = self.zone.to_ambiguous_zoned(day.at(0, 0, 0, 0)).compatible();
                midnight.map(|at| Param::moment(at.timestamp())).map_err(|_| misfit("a day", "TIMESTAMP"))
            }
            Some(other) => Err(misfit("a day", other)),
        }
    }

    fn timed(&self, at: Timestamp, as_type: Option<&str>) -> Result<Param> {
        let clock = self.zone.to_datetime(at);
        match as_type {
            None | Some("TIMESTAMP") => Ok(Param::moment(at)),
            Some("DATETIME") => Ok(Param::clock(clock)),
            Some("DATE") => Ok(Param::date(clock.date())),
            Some("STRING") => Ok(Param::text(Param::date(clock.date()).value)),
            Some(other) => Err(misfit("a time", other)),
        }
    }

    /// Before anything was read: the lowest of the type, so that all rows are meant.
    fn low(&self, as_type: Option<&str>) -> Result<Param> {
        let first = jiff::civil::date(1, 1, 2);
        match (&self.low, as_type) {
            (Some(Low::Moment(at)), Some(ty)) => self.timed(*at, Some(ty)),
            (Some(Low::Date(day)), Some(ty)) => self.dated(*day, Some(ty)),
            (Some(low), None) => Ok(low.param()),
            (Some(low), Some(ty)) => Ok(Param { ty: ty.to_owned(), value: low.param().value }),
            (None, Some("DATE")) => Ok(Param::date(first)),
            (None, Some("DATETIME")) => Ok(Param::clock(first.at(0, 0, 0, 0))),
            (None, Some("INT64")) => Ok(Param::int(i64::MIN)),
            (None, Some("STRING")) => Ok(Param::text("")),
            (None, None | Some("TIMESTAMP")) => {
                Ok(Param { ty: "TIMESTAMP".to_owned(), value: "0001-01-02 00:00:00.000000+00:00".to_owned() })
            }
            (None, Some(other)) => Err(misfit("{watermark}", other)),
        }
    }
}

fn misfit(what: &str, ty: &str) -> Error {
    Error::config(format!("{what} cannot be bound as {ty}"))
        .field("query")
        .hint("DATE, DATETIME, TIMESTAMP or STRING")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(sql: &str, low: Option<Low>) -> Result<(String, Vec<(String, String)>)> {
        let params = BTreeMap::from([("cartera".to_owned(), "A' OR 1=1 --".to_owned())]);
        let zone = TimeZone::get("America/Lima").unwrap();
        // The first of March at 03:30 UTC is still February in Lima.
        let planned: Timestamp = "2026-03-01T03:30:00Z".parse().unwrap();
        let values = Values { planned, zone: &zone, from: None, low };
        let mut bound = Vec::new();
        let sql = Statement::parse(sql, &params)?.fill(&values, &mut bound)?;
        Ok((sql, bound.into_iter().map(|p| (p.ty, p.value)).collect()))
    }

    fn one(ty: &str, value: &str) -> Vec<(String, String)> {
        vec![(ty.to_owned(), value.to_owned())]
    }

    #[test]
    fn places_become_parameters_and_their_values_never_become_sql() {
        let evil = one("STRING", "A' OR 1=1 --");
        let day = Low::Date(jiff::civil::date(2026, 2, 20));
        for (sql, low, expected, bound) in [
            ("SELECT 1 WHERE a = {cartera};\n", None, "SELECT 1 WHERE a = @caudal_1", evil.clone()),
            ("SELECT '{cartera}'", None, "SELECT @caudal_1", evil),
            ("SELECT {today}", None, "SELECT @caudal_1", one("DATE", "2026-02-28")),
            ("SELECT {yesterday:STRING}", None, "SELECT @caudal_1", one("STRING", "2026-02-27")),
            (
                "SELECT {now:datetime}",
                None,
                "SELECT @caudal_1",
                one("DATETIME", "2026-02-28T22:30:00.000000"),
            ),
            (
                "SELECT {today:TIMESTAMP}",
                None,
                "SELECT @caudal_1",
                one("TIMESTAMP", "2026-02-28 05:00:00.000000+00:00"),
            ),
            ("SELECT {watermark}", Some(day.clone()), "SELECT @caudal_1", one("DATE", "2026-02-20")),
            (
                "SELECT {watermark:DATETIME}",
                Some(day),
                "SELECT @caudal_1",
                one("DATETIME", "2026-02-20T00:00:00.000000"),
            ),
            ("SELECT {watermark:DATE}", None, "SELECT @caudal_1", one("DATE", "0001-01-02")),
            (
                "SELECT '{\"json\": 1}', r'\\{', '''{x} ' ''', `a{b}` -- {z\n# {\n/* {a */",
                None,
                "SELECT '{\"json\": 1}', r'\\{', '''{x} ' ''', `a{b}` -- {z\n# {\n/* {a */",
                vec![],
            ),
            ("SELECT 'it\\'s {', \"ñ\"", None, "SELECT 'it\\'s {', \"ñ\"", vec![]),
        ] {
            assert_eq!(filled(sql, low).unwrap(), (expected.to_owned(), bound), "{sql}");
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
            "SELECT '%{cartera}%'",
            "SELECT {today:DATE; DROP}",
            "SELECT {today:INT64}",
        ] {
            assert!(filled(sql, None).is_err(), "{sql}");
        }
    }
}
