//! Partial updates of JSON (event 39): differences to the document before. (`Json_diff_vector` in MySQL's `json_diff.h`.)
//!
//! Each is an operation, a path, and for all but removals a value. Only what lies on a path is taken apart; the rest of the
//! document stays as bytes.

use super::{Printer, Value, most_text};
use crate::binlog::cursor::{Cursor, Read, damage};
use std::borrow::Cow;

const REPLACE: u8 = 0;
const INSERT: u8 = 1;
const REMOVE: u8 = 2;

/// Appends the text of `document` with the changes applied.
pub(in crate::binlog) fn write_patched(document: &[u8], changes: &[u8], out: &mut Vec<u8>) -> Read<()> {
    let mut root = Node::Whole(Value::document(document)?);
    let mut c = Cursor(changes);
    while !c.is_empty() {
        let operation = c.u8()?;
        let path = Path::parse(c.counted()?)?;
        let value = match operation {
            REMOVE => None,
            INSERT | REPLACE => Some(Node::Whole(Value::document(c.counted()?)?)),
            _ => return damage("a partial JSON update has an unknown operation"),
        };
        apply(&mut root, operation, &path.0, value)?;
    }
    let limit = out.len() + most_text(document.len() + changes.len());
    root.print(&mut Printer { out, limit }, 0)
}

/// A document, taken apart as far as needed.
enum Node<'a> {
    Whole(Value<'a>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, [u8]>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// Takes a container apart into its members.
    fn open(&mut self) -> Read<()> {
        let Self::Whole(value) = self else {
            return Ok(());
        };
        let Some(container) = value.container()? else {
            return Ok(());
        };
        let members = 0..container.count;
        *self = if container.object {
            let member = |i| Ok((Cow::Borrowed(container.key(i)?), Node::Whole(container.value(i)?)));
            Self::Object(members.map(member).collect::<Read<_>>()?)
        } else {
            Self::Array(members.map(|i| container.value(i).map(Node::Whole)).collect::<Read<_>>()?)
        };
        Ok(())
    }

    /// The member that a step leads to, if there is one.
    fn member(&mut self, step: &Step) -> Read<Option<&mut Node<'a>>> {
        self.open()?;
        Ok(match (self, step) {
            (Self::Array(items), Step::Index(i)) => items.get_mut(*i),
            (Self::Object(members), Step::Key(key)) => {
                members.iter_mut().find(|(k, _)| k.as_ref() == key.as_bytes()).map(|(_, node)| node)
            }
            // A scalar counts as an array of itself.
            (node @ Self::Whole(_), Step::Index(0)) => Some(node),
            _ => None,
        })
    }

    fn insert(&mut self, step: &Step, value: Node<'a>) -> Read<()> {
        self.open()?;
        match (self, step) {
            (Self::Array(items), Step::Index(i)) => items.insert((*i).min(items.len()), value),
            (Self::Object(members), Step::Key(key)) => {
                let key = key.as_bytes();
                let order = |k: &[u8]| (k.len(), k).cmp(&(key.len(), key));
                match members.binary_search_by(|(k, _)| order(k)) {
                    Ok(at) => members[at].1 = value,
                    Err(at) => members.insert(at, (Cow::Owned(key.to_vec()), value)),
                }
            }
            _ => return damage("a partial JSON update adds to what is no container"),
        }
        Ok(())
    }

    fn remove(&mut self, step: &Step) -> Read<()> {
        self.open()?;
        match (self, step) {
            (Self::Array(items), Step::Index(i)) if *i < items.len() => drop(items.remove(*i)),
            (Self::Object(members), Step::Key(key)) => members.retain(|(k, _)| k.as_ref() != key.as_bytes()),
            _ => return damage("a partial JSON update removes what is not there"),
        }
        Ok(())
    }

    fn print(&self, printer: &mut Printer<'_>, depth: usize) -> Read<()> {
        if depth > super::MOST_DEPTH {
            return damage("JSON nests too deep");
        }
        match self {
            Self::Whole(value) => printer.value(*value, depth),
            Self::Array(items) => {
                printer.open(false)?;
                for (i, item) in items.iter().enumerate() {
                    printer.before_member(i, None)?;
                    item.print(printer, depth + 1)?;
                }
                printer.close(false)
            }
            Self::Object(members) => {
                printer.open(true)?;
                for (i, (key, member)) in members.iter().enumerate() {
                    printer.before_member(i, Some(key))?;
                    member.print(printer, depth + 1)?;
                }
                printer.close(true)
            }
        }
    }
}

fn apply<'a>(root: &mut Node<'a>, operation: u8, path: &[Step], value: Option<Node<'a>>) -> Read<()> {
    let Some((last, way)) = path.split_last() else {
        return match value {
            Some(value) => {
                *root = value;
                Ok(())
            }
            None => damage("a partial JSON update removes the document"),
        };
    };
    let mut parent = root;
    for step in way {
        parent = match parent.member(step)? {
            Some(member) => member,
            None => return damage("a partial JSON update leads nowhere"),
        };
    }
    match (operation, value) {
        (REPLACE, Some(value)) => match parent.member(last)? {
            Some(member) => *member = value,
            None => return damage("a partial JSON update replaces what is not there"),
        },
        (INSERT, Some(value)) => parent.insert(last, value)?,
        _ => parent.remove(last)?,
    }
    Ok(())
}

enum Step {
    Key(String),
    Index(usize),
}

/// `$.name[3]."quoted name"`.
struct Path(Vec<Step>);

impl Path {
    fn parse(text: &[u8]) -> Read<Self> {
        let parsed = std::str::from_utf8(text).ok().and_then(Self::steps);
        match parsed {
            Some(steps) if steps.len() <= super::MOST_DEPTH => Ok(Self(steps)),
            _ => damage("a partial JSON update has a path that is not understood"),
        }
    }

    fn steps(text: &str) -> Option<Vec<Step>> {
        let mut rest = text.strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(index) = rest.strip_prefix('[') {
                let (number, after) = index.split_once(']')?;
                steps.push(Step::Index(number.trim().parse().ok()?));
                rest = after;
            } else if let Some(quoted) = rest.strip_prefix(".\"") {
                let end = closing_quote(quoted)?;
                steps.push(Step::Key(serde_json::from_str(&rest[1..end + 3]).ok()?));
                rest = &quoted[end + 1..];
            } else {
                let key = rest.strip_prefix('.')?;
                let end = key.find(['.', '[']).unwrap_or(key.len());
                steps.push(Step::Key(key[..end].to_owned()));
                rest = &key[end..];
            }
        }
        Some(steps)
    }
}

/// Where the quote is that no backslash escapes.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}
