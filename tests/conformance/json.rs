//! JSON that keeps the order of members and the text of numbers: what a comparison to the byte needs.

use anyhow::{Result, bail};

/// A value with the text that it was read from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// A number, a string, true, false or null, as it stands in the text.
    Plain(String),
    /// Elements.
    Array(Vec<Json>),
    /// Members in their order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a whole text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut reader = Reader { text: text.as_bytes(), at: 0 };
        let value = reader.value()?;
        if reader.at != text.len() {
            bail!("more text at byte {}", reader.at);
        }
        Ok(value)
    }

    /// The member at a path of names; none where there is none.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Json> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        let Self::Object(members) = self else { return None };
        members.iter().find(|(name, _)| name == first).and_then(|(_, value)| value.at(rest))
    }

    /// The text of a plain value; strings without quotes.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Plain(text) => text.trim_matches('"'),
            _ => "",
        }
    }

    /// As text again.
    pub(crate) fn show(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Array(all) => format!("[{}]", all.iter().map(Self::show).collect::<Vec<_>>().join(",")),
            Self::Object(members) => {
                let members: Vec<String> =
                    members.iter().map(|(k, v)| format!("\"{k}\":{}", v.show())).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Json> {
        match self.text.get(self.at) {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => Ok(Json::Plain(format!("\"{}\"", self.string()?))),
            Some(_) => {
                let rest = &self.text[self.at..];
                let end = rest.iter().position(|b| b",]}".contains(b)).unwrap_or(rest.len());
                self.at += end;
                Ok(Json::Plain(String::from_utf8(rest[..end].to_vec())?))
            }
            None => bail!("a value is missing"),
        }
    }

    fn object(&mut self) -> Result<Json> {
        let mut members = Vec::new();
        self.at += 1;
        while !self.take(b'}') {
            if !members.is_empty() {
                self.expect(b',')?;
            }
            let name = self.string()?;
            self.expect(b':')?;
            members.push((name, self.value()?));
        }
        Ok(Json::Object(members))
    }

    fn array(&mut self) -> Result<Json> {
        let mut all = Vec::new();
        self.at += 1;
        while !self.take(b']') {
            if !all.is_empty() {
                self.expect(b',')?;
            }
            all.push(self.value()?);
        }
        Ok(Json::Array(all))
    }

    fn string(&mut self) -> Result<String> {
        self.expect(b'"')?;
        let start = self.at;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let text = String::from_utf8(self.text[start..self.at].to_vec())?;
        self.expect(b'"')?;
        Ok(text)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if !self.take(byte) {
            bail!("{:?} expected at byte {}", char::from(byte), self.at);
        }
        Ok(())
    }
}
