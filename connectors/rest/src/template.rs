//! Texts with places to fill in: `{today}`, `{yesterday:%d/%m/%Y}`, `{watermark}`, `{store.deposito}`.

use caudal_core::{Error, Result};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A text with places.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Place { name: Name, format: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Today,
    Yesterday,
    Day,
    From,
    Now,
    Watermark,
    Store(String),
}

/// What is filled in.
#[derive(Debug)]
pub(crate) struct Values<'a> {
    /// The time that the run is for.
    pub(crate) planned: Timestamp,
    pub(crate) zone: &'a TimeZone,
    /// The day that is read, where a window is read day by day.
    pub(crate) day: Option<Zoned>,
    /// The first moment of a window.
    pub(crate) from: Option<Timestamp>,
    pub(crate) watermark: Option<Mark>,
    pub(crate) store: &'a BTreeMap<String, String>,
}

/// Where an incremental window begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mark {
    Moment(Timestamp),
    Day(jiff::civil::Date),
    Text(String),
}

const DATE: &str = "%Y-%m-%d";
const MOMENT: &str = "%Y-%m-%dT%H:%M:%S%:z";

impl Template {
    /// Reads it. `{{` and `}}` are plain braces.
    ///
    /// # Errors
    /// `Config` for a place that is not known.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            plain.push_str(before);
            if after.starts_with("{{") || after.starts_with("}}") {
                plain.push_str(&after[..1]);
                rest = &after[2..];
                continue;
            }
            let end = after.find('}').filter(|_| after.starts_with('{')).ok_or_else(|| unknown(after))?;
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(place(&after[1..end])?);
            rest = &after[end + 1..];
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().filter_map(|part| match part {
            Part::Place { name, .. } => Some(name),
            Part::Text(_) => None,
        })
    }

    /// Whether it asks for a window's time at all.
    pub(crate) fn tells_time(&self) -> bool {
        self.names().any(|name| !matches!(name, Name::Store(_)))
    }

    /// Whether it asks for one day after the other.
    pub(crate) fn is_daily(&self) -> bool {
        self.names().any(|name| *name == Name::Day)
    }

    /// What a store is asked for.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = &str> {
        self.names().filter_map(|name| match name {
            Name::Store(attribute) => Some(attribute.as_str()),
            _ => None,
        })
    }

    /// The text; none if a place has no value: there is no watermark yet.
    pub(crate) fn fill(&self, values: &Values<'_>) -> Option<String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Place { name, format } => text.push_str(&values.of(name, format.as_deref())?),
            }
        }
        Some(text)
    }
}

fn place(text: &str) -> Result<Part> {
    let (name, format) = match text.split_once(':') {
        Some((name, format)) => (name, Some(format.to_owned())),
        None => (text, None),
    };
    let name = match name {
        "today" => Name::Today,
        "yesterday" => Name::Yesterday,
        "day" => Name::Day,
        "from" => Name::From,
        "now" => Name::Now,
        "watermark" => Name::Watermark,
        _ => match name.strip_prefix("store.") {
            Some(attribute) => Name::Store(attribute.to_owned()),
            None => return Err(unknown(text)),
        },
    };
    if let Some(format) = &format {
        // A date has no hour: what does not fit is found out here and not at night.
        let sample = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        if jiff::fmt::strtime::format(format, &sample).is_err() {
            return Err(Error::config(format!("`{format}` is no format of dates"))
                .hint("use %Y, %m, %d, %H, %M, %S as strftime does: {today:%d/%m/%Y}"));
        }
    }
    Ok(Part::Place { name, format })
}

fn unknown(text: &str) -> Error {
    let text: String = text.chars().take(30).collect();
    Error::config(format!("`{text}` is no place to be filled in")).hint(
        "there are {today}, {yesterday}, {day}, {from}, {now}, {watermark}, each with a format if need be ({today:%Y%m%d}), and {store.…}; a plain brace is written twice",
    )
}

impl Values<'_> {
    fn of(&self, name: &Name, format: Option<&str>) -> Option<String> {
        let now = self.planned.to_zoned(self.zone.clone());
        let (moment, default) = match name {
            Name::Today => (now, DATE),
            Name::Yesterday => (now.checked_sub(1.day()).ok()?, DATE),
            Name::Day => (self.day.clone()?, DATE),
            Name::From => (self.from?.to_zoned(self.zone.clone()), DATE),
            Name::Now => (now, MOMENT),
            Name::Watermark => match self.watermark.as_ref()? {
                Mark::Moment(at) => (at.to_zoned(self.zone.clone()), MOMENT),
                Mark::Day(day) => (day.to_zoned(TimeZone::UTC).ok()?, DATE),
                Mark::Text(text) => return Some(text.clone()),
            },
            Name::Store(attribute) => return self.store.get(attribute).cloned(),
        };
        jiff::fmt::strtime::format(format.unwrap_or(default), &moment).ok()
    }
}

/// As it stands in a path or a query: all but letters, digits and `-._~` as `%XX`; in a path, `/` too.
pub(crate) fn encoded(text: &str, in_path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            b'/' if in_path => out.push('/'),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Option<String> {
        let store = BTreeMap::from([("deposito".to_owned(), "0101".to_owned())]);
        let zone = TimeZone::get("America/Caracas").unwrap();
        // Two in the morning of the 2nd in UTC is ten in the evening of the 1st there.
        let planned: Timestamp = "2026-03-02T02:00:00Z".parse().unwrap();
        let watermark = Some(Mark::Moment("2026-02-28T23:00:00Z".parse().unwrap()));
        let values = Values { planned, zone: &zone, day: None, from: None, watermark, store: &store };
        Template::parse(text).unwrap().fill(&values)
    }

    #[test]
    fn dates_are_those_of_the_zone_and_of_the_time_that_the_run_is_for() {
        for (text, expected) in [
            ("{today}", "2026-03-01"),
            ("{yesterday}", "2026-02-28"),
            ("{yesterday:%d/%m/%Y}", "28/02/2026"),
            ("{now}", "2026-03-01T22:00:00-04:00"),
            ("{watermark}", "2026-02-28T19:00:00-04:00"),
            ("d={store.deposito}&x", "d=0101&x"),
            ("{{plain}}", "{plain}"),
        ] {
            assert_eq!(filled(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(filled("{from}"), None);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["{tomorrow}", "{today", "}", "{}", "{today:%!}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_would_end_a_parameter_is_encoded() {
        assert_eq!(encoded("a b&c=d/é", false), "a%20b%26c%3Dd%2F%C3%A9");
        assert_eq!(encoded("/a b/c", true), "/a%20b/c");
    }
}
