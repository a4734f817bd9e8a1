//! Names of tables and columns, quoted.

/// A table's name, of one to three parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectName(Vec<String>);

impl ObjectName {
    /// `Productos`, `dbo.Productos`, `[dbo].[My.Table]`, `VAD10.dbo.Productos`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text.trim();
        loop {
            let (part, after) = match rest.strip_prefix('[') {
                Some(quoted) => bracketed(quoted)?,
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            if part.is_empty() || part.chars().count() > 128 || part.contains('\0') {
                return None;
            }
            parts.push(part);
            if after.is_empty() {
                break;
            }
            rest = after.strip_prefix('.')?;
        }
        (parts.len() <= 3).then_some(Self(parts))
    }

    pub(crate) fn quoted(&self) -> String {
        self.0.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(".")
    }

    /// As change data capture names it by default.
    pub(crate) fn capture_instance(&self) -> String {
        let table = self.0.last().map_or("", String::as_str);
        let schema = self.0.len().checked_sub(2).map_or("dbo", |at| &self.0[at]);
        format!("{schema}_{table}")
    }
}

/// Up to the closing bracket, and what comes after it.
fn bracketed(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            ']' if chars.peek().is_some_and(|(_, next)| *next == ']') => {
                chars.next();
                name.push(']');
            }
            ']' => return Some((name, &text[at + 1..])),
            c => name.push(c),
        }
    }
    None
}

/// A name within brackets.
pub(crate) fn quoted(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        for (text, expected) in [
            ("Productos", Some("[Productos]")),
            ("dbo.Productos", Some("[dbo].[Productos]")),
            ("[dbo].[My.Table]]; DROP TABLE x--]", Some("[dbo].[My.Table]]; DROP TABLE x--]")),
            ("VAD10.dbo.x y", Some("[VAD10].[dbo].[x y]")),
            ("a.b.c.d", None),
            ("a..b", None),
            ("", None),
            ("[a", None),
            ("[a]b", None),
        ] {
            assert_eq!(ObjectName::parse(text).map(|name| name.quoted()).as_deref(), expected, "{text}");
        }
        assert_eq!(
            ObjectName::parse("Productos").map(|n| n.capture_instance()).as_deref(),
            Some("dbo_Productos")
        );
        assert_eq!(ObjectName::parse("x.pos.T").map(|n| n.capture_instance()).as_deref(), Some("pos_T"));
    }
}
