//! How the next part of an answer is asked for, and where a page of the engine begins.

use crate::answer::Answer;
use crate::client::Reply;
use crate::config::{Paging, PagingKind};
use caudal_core::{Error, Result};
use hyper::header::LINK;
use serde::{Deserialize, Serialize};

/// Where a page begins: which request of the run, how many of its records were taken, and what was seen before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The day of the window, from 0, where it is read day by day.
    #[serde(default)]
    pub(crate) day: u32,
    /// Requests of this day before this one.
    #[serde(default)]
    pub(crate) page: u32,
    /// Records of this day before this request.
    #[serde(default)]
    pub(crate) before: u64,
    /// What the answer before named: a cursor, or an address.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// Records of this request that were taken.
    #[serde(default)]
    pub(crate) taken: usize,
    /// The highest value of the window's column.
    #[serde(default)]
    pub(crate) high: Option<String>,
}

impl Place {
    pub(crate) fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::default()) };
        serde_json::from_str(text).map_err(|e| Error::bug("read a place of our own").because(e))
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether both are of one request.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (self.day, self.page, &self.cursor) == (other.day, other.page, &other.cursor)
    }

    /// The next request of the day; none after the last.
    ///
    /// # Errors
    /// `Data` if the answer names what it was asked with, or the pages have no end.
    pub(crate) fn next(&self, paging: &Paging, answer: &Answer, reply: &Head) -> Result<Option<Self>> {
        let read = self.before + answer.len() as u64;
        let cursor = match paging.kind {
            PagingKind::None => return Ok(None),
            PagingKind::Page | PagingKind::Offset => {
                if !goes_on(paging, answer, read) {
                    return Ok(None);
                }
                None
            }
            PagingKind::Cursor => answer.text(paging.next_path()),
            PagingKind::Link => match &paging.next {
                Some(path) => answer.text(path),
                None => reply.next.clone(),
            },
        };
        let cursor = cursor.filter(|cursor| !cursor.is_empty());
        if cursor.is_none() && matches!(paging.kind, PagingKind::Cursor | PagingKind::Link) {
            return Ok(None);
        }
        if cursor.is_some() && cursor == self.cursor {
            return Err(Error::data("the answer names itself as the next one: its paging has no end"));
        }
        if self.page + 1 >= paging.max_pages {
            return Err(Error::data(format!("no end after {} pages", paging.max_pages)).hint(
                "look whether the API follows `paging`; raise `max_pages` if there are really so many",
            ));
        }
        let high = self.high.clone();
        Ok(Some(Self { day: self.day, page: self.page + 1, before: read, cursor, taken: 0, high }))
    }
}

/// Whether pages by number go on. A server may give less than it was asked for: only it knows which page is its last.
fn goes_on(paging: &Paging, answer: &Answer, read: u64) -> bool {
    if answer.len() == 0 {
        return false;
    }
    if let Some(more) = &paging.more {
        return answer.value(more).is_some_and(|value| !matches!(value.get(), "false" | "0"));
    }
    if paging.short_is_last && paging.size.is_some_and(|size| answer.len() < size as usize) {
        return false;
    }
    match paging.total.as_ref().and_then(|path| answer.text(path)).and_then(|text| text.parse::<u64>().ok()) {
        Some(total) => read < total,
        None => true,
    }
}

/// What paging needs of a reply's headers.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// `Link: <…>; rel="next"`
    next: Option<String>,
}

impl Head {
    pub(crate) fn of(reply: &Reply) -> Self {
        let links = reply.headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        Self { next: links.flat_map(|text| parts(text, ',')).find_map(next_link) }
    }
}

/// Parts a header at a character, but not within `<…>` or quotes.
fn parts(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut from, mut address, mut quoted) = (Vec::new(), 0, false, false);
    for (i, c) in text.char_indices() {
        match c {
            '<' if !quoted => address = true,
            '>' if !quoted => address = false,
            '"' if !address => quoted = !quoted,
            c if c == at && !address && !quoted => {
                parts.push(&text[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// After RFC 8288, as far as `rel=next` needs it.
fn next_link(link: &str) -> Option<String> {
    let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("rel")
            && value.trim().trim_matches('"').split_whitespace().any(|rel| rel.eq_ignore_ascii_case("next"))
    };
    parts(parameters, ';').into_iter().any(is_next).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        let found = |text: &str| parts(text, ',').into_iter().find_map(next_link);
        let text = r#"<https://a/x?page=1>; rel="prev", <https://a/x?page=3>; title="n"; rel=next"#;
        assert_eq!(found(text).as_deref(), Some("https://a/x?page=3"));
        assert_eq!(found(r#"<https://a/x>; rel="last""#), None);
        let text = r#"<https://a/x?f=a,b&page=1>; rel="prev", <https://a/x?f=a,b;c&page=2>; title="x, y; rel=last"; rel="next""#;
        assert_eq!(found(text).as_deref(), Some("https://a/x?f=a,b;c&page=2"));
        assert_eq!(found(r#"<https://a/x>; title="; rel=next""#), None);
    }
}
