//! A body as records: where each lies in it, without a tree of values.

use bytes::Bytes;
use caudal_core::{Error, Result};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// The fields of an object, in its order, with their values as they stand. Of a field that occurs twice the last one counts.
pub(crate) struct Fields<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(field, _)| field == name).map(|(_, value)| *value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor).map(Fields)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            fields.push((name, value));
        }
        Ok(fields)
    }
}

/// A field's name: borrowed, where nothing in it is escaped.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(NameVisitor).map(Name)
    }
}

/// The value at a dotted path below another; none if it is not there, or null.
pub(crate) fn at<'a>(value: &'a RawValue, path: &str) -> Option<&'a RawValue> {
    let mut value = value;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        value = serde_json::from_str::<Fields<'a>>(value.get()).ok()?.get(step)?;
    }
    (value.get() != "null").then_some(value)
}

/// A body, and where its records lie. Memory: the body, 8 bytes a record.
pub(crate) struct Answer {
    body: Bytes,
    records: Vec<Range<u32>>,
}

impl Answer {
    /// Finds the records at a path.
    ///
    /// # Errors
    /// `Transient` for a body that breaks off or is a web page, `Data` for one that is something else than it should be.
    pub(crate) fn read(body: Bytes, path: &str) -> Result<Self> {
        if body.iter().all(u8::is_ascii_whitespace) {
            // 204, and what means the same.
            return Ok(Self { body: Bytes::new(), records: Vec::new() });
        }
        let text = std::str::from_utf8(&body).map_err(|_| Error::data("the answer is no UTF-8"))?;
        let root: &RawValue = serde_json::from_str(text).map_err(|e| unreadable(text, &e))?;
        let missing = || {
            Error::data(match path {
                "" => "the answer is no list of records".to_owned(),
                path => format!("the answer has no list of records at `{path}`"),
            })
            .hint("tell where the list is in the table's `records`: `data.items`")
        };
        let list = at(root, path).ok_or_else(missing)?;
        let list: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| missing())?;
        let start = body.as_ptr() as usize;
        let place = |record: &&RawValue| {
            let from = (record.get().as_ptr() as usize - start) as u32;
            from..from + record.get().len() as u32
        };
        let records = list.iter().map(place).collect();
        Ok(Self { records, body })
    }

    /// How many records it holds.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// A record's text.
    pub(crate) fn record(&self, at: usize) -> &str {
        let range = self.records[at].clone();
        std::str::from_utf8(&self.body[range.start as usize..range.end as usize]).unwrap_or_default()
    }

    /// The value at a path beside the records.
    pub(crate) fn value(&self, path: &str) -> Option<&RawValue> {
        let root: &RawValue = serde_json::from_slice(&self.body).ok()?;
        at(root, path)
    }

    /// The same as text: a string's, or a number's.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let value = self.value(path)?.get();
        Some(serde_json::from_str(value).unwrap_or_else(|_| value.to_owned()))
    }
}

fn unreadable(text: &str, error: &serde_json::Error) -> Error {
    if text.trim_start().starts_with('<') {
        return Error::transient("a web page came in place of JSON")
            .hint("the service is being maintained, or asks to log in: look at `url` and `auth`");
    }
    match error.is_eof() {
        true => Error::transient("the answer breaks off"),
        // The parser's own words may quote the text.
        false => {
            Error::data(format!("the answer is no JSON (line {}, column {})", error.line(), error.column()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::Fault;

    fn read(body: &'static str, path: &str) -> Result<Answer> {
        Answer::read(Bytes::from_static(body.as_bytes()), path)
    }

    #[test]
    fn records_are_found_where_they_are() {
        let body = r#"{"meta":{"total":2,"next":"c\u0031"},"data":{"items":[{"a":1}, {"a":"ñ"}]}}"#;
        let answer = read(body, "data.items").unwrap();
        assert_eq!((answer.len(), answer.record(0), answer.record(1)), (2, r#"{"a":1}"#, r#"{"a":"ñ"}"#));
        assert_eq!(answer.text("meta.total").as_deref(), Some("2"));
        assert_eq!(answer.text("meta.next").as_deref(), Some("c1"));
        assert_eq!(answer.text("meta.none"), None);
        assert_eq!(read("[]", "").unwrap().len(), 0);
        assert_eq!(read("  ", "").unwrap().len(), 0);
    }

    #[test]
    fn what_is_no_list_of_records_is_told_by_who_must_act() {
        for (body, path, fault) in [
            (r#"{"data":[{"a":1},{"a"#, "data", Fault::Transient),
            ("<html><body>Mantenimiento</body></html>", "data", Fault::Transient),
            (r#"{"error":"no such thing"}"#, "data", Fault::Data),
            (r#"{"data":{"a":1}}"#, "data", Fault::Data),
            (r#"{"data":null}"#, "data", Fault::Data),
            ("[1,]", "", Fault::Data),
        ] {
            assert_eq!(read(body, path).err().unwrap().fault(), fault, "{body}");
        }
    }
}
