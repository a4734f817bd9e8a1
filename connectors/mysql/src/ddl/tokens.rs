//! A statement as words: as much of a lexer as reading names and clauses needs.
//!
//! Memory: at most 16,384 tokens of the first 256 Ki characters; what is longer ends in a mark that no clause knows.

use caudal_core::TableId;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// As written.
    Word(String),
    /// An identifier in quotes.
    Quoted(String),
    /// A text in quotes.
    Text(String),
    /// Anything else, one character.
    Mark(char),
}

/// Stands for the rest of a statement that is longer than what is read.
const CUT: char = '…';

impl Token {
    /// Upper case; empty for an identifier in quotes, which is no keyword.
    pub(super) fn word(&self) -> String {
        match self {
            Self::Word(w) => w.to_ascii_uppercase(),
            Self::Quoted(_) | Self::Text(_) => String::new(),
            Self::Mark(c) => c.to_string(),
        }
    }
}

/// A place among the tokens.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    tokens: &'a [Token],
    at: usize,
    database: &'a str,
}

impl<'a> Words<'a> {
    pub(super) fn next(&mut self) -> Option<&'a Token> {
        self.at += 1;
        self.tokens.get(self.at - 1)
    }

    pub(super) fn next_word(&mut self) -> String {
        self.next().map(Token::word).unwrap_or_default()
    }

    pub(super) fn skip(&mut self, word: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|t| t.word() == word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|w| self.skip(w))
    }

    pub(super) fn skip_all(&mut self, words: &[&str]) {
        while self.skip_any(words) {}
    }

    /// `table`, `database.table`, either part in quotes.
    pub(super) fn name(&mut self) -> Option<TableId> {
        let first = self.identifier()?;
        if self.skip(".") {
            return Some(TableId::new(first, self.identifier()?));
        }
        Some(TableId::new(self.database, first))
    }

    pub(super) fn identifier(&mut self) -> Option<String> {
        let (Token::Word(name) | Token::Quoted(name)) = self.tokens.get(self.at)? else { return None };
        self.at += 1;
        Some(name.clone())
    }

    /// From the first token on.
    pub(super) fn new(tokens: &'a [Token], database: &'a str) -> Self {
        Self { tokens, at: 0, database }
    }

    /// The next word, without taking it; empty for an identifier in quotes and at the end.
    pub(super) fn peek(&self) -> String {
        self.tokens.get(self.at).map(Token::word).unwrap_or_default()
    }

    /// A text in quotes.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let Token::Text(text) = self.tokens.get(self.at)? else { return None };
        self.at += 1;
        Some(text)
    }

    /// Whether the statement is longer than what was read of it.
    pub(super) fn is_cut(&self) -> bool {
        self.tokens.last() == Some(&Token::Mark(CUT))
    }

    /// Whether nothing follows.
    pub(super) fn is_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// Takes tokens up to the first `word` that is no identifier in quotes, and that word. Whether it was there.
    pub(super) fn skip_to(&mut self, word: &str) -> bool {
        while let Some(token) = self.next() {
            if token.word() == word {
                return true;
            }
        }
        false
    }

    /// What follows up to the next comma outside of brackets, which is taken too.
    pub(super) fn clause(&mut self) -> Words<'a> {
        let (start, mut depth) = (self.at, 0u32);
        while let Some(token) = self.next() {
            match token {
                Token::Mark('(') => depth += 1,
                Token::Mark(')') => depth = depth.saturating_sub(1),
                Token::Mark(',') if depth == 0 => {
                    return Words {
                        tokens: &self.tokens[start..self.at - 1],
                        at: 0,
                        database: self.database,
                    };
                }
                _ => {}
            }
        }
        self.at = self.tokens.len();
        Words { tokens: &self.tokens[start.min(self.at)..], at: 0, database: self.database }
    }

    /// What stands in the brackets that begin here, without them; none if there are none.
    pub(super) fn brackets(&mut self) -> Option<Words<'a>> {
        if !self.skip("(") {
            return None;
        }
        let (start, mut depth) = (self.at, 1u32);
        while let Some(token) = self.next() {
            match token {
                Token::Mark('(') => depth += 1,
                Token::Mark(')') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(Words {
                    tokens: &self.tokens[start..self.at - 1],
                    at: 0,
                    database: self.database,
                });
            }
        }
        self.at = self.tokens.len();
        Some(Words { tokens: &self.tokens[start.min(self.at)..], at: 0, database: self.database })
    }

    /// All names that may be tables'.
    pub(super) fn names(mut self) -> Vec<TableId> {
        let mut names = Vec::new();
        while !self.is_end() {
            match self.name() {
                Some(name) if !names.contains(&name) => names.push(name),
                Some(_) => {}
                None => self.at += 1,
            }
        }
        names
    }
}

/// Words, quoted identifiers, texts and marks; comments are left out, but what servers execute of comments (`/*! … */`) stays.
pub(super) fn tokens(statement: &str) -> Vec<Token> {
    const MOST: usize = 16_384;
    const MOST_CHARS: usize = 1 << 18;
    let chars: Vec<char> = statement.chars().take(MOST_CHARS).collect();
    let mut out = Vec::new();
    let mut i = 0;
    while i < chars.len() && out.len() < MOST {
        let rest = &chars[i..];
        match rest[0] {
            '/' if rest.get(1) == Some(&'*') => i += comment(rest),
            '*' if rest.get(1) == Some(&'/') => i += 2,
            '#' => i += line(rest),
            '-' if rest.starts_with(&['-', '-']) && rest.get(2).is_none_or(|c| c.is_whitespace()) => {
                i += line(rest)
            }
            c if c.is_whitespace() => i += 1,
            '\'' => {
                let (text, len) = quoted(rest);
                out.push(Token::Text(text));
                i += len;
            }
            '`' | '"' => {
                let (text, len) = quoted(rest);
                out.push(Token::Quoted(text));
                i += len;
            }
            c if is_word(c) => {
                let word: String = rest.iter().take_while(|&&c| is_word(c)).collect();
                i += word.chars().count();
                out.push(Token::Word(word));
            }
            c => {
                out.push(Token::Mark(c));
                i += 1;
            }
        }
    }
    if i < chars.len() || chars.len() == MOST_CHARS {
        out.push(Token::Mark(CUT));
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn line(rest: &[char]) -> usize {
    rest.iter().position(|&c| c == '\n').unwrap_or(rest.len())
}

/// Length of a comment; of an executable one, of what opens it, with its version number.
fn comment(rest: &[char]) -> usize {
    let mark = match rest {
        ['/', '*', '!', ..] => 3,
        ['/', '*', 'M', '!', ..] => 4,
        _ => {
            let end = rest.windows(2).skip(2).position(|w| w == ['*', '/']);
            return end.map_or(rest.len(), |n| n + 4);
        }
    };
    mark + rest[mark..].iter().take_while(|c| c.is_ascii_digit()).count()
}

/// What is in quotes, and its length with them.
fn quoted(rest: &[char]) -> (String, usize) {
    let quote = rest[0];
    let mut text = String::new();
    let mut i = 1;
    while i < rest.len() {
        match rest[i] {
            '\\' if quote != '`' => {
                text.extend(rest.get(i + 1));
                i += 2;
            }
            c if c == quote && rest.get(i + 1) == Some(&quote) => {
                text.push(quote);
                i += 2;
            }
            c if c == quote => return (text, i + 1),
            c => {
                text.push(c);
                i += 1;
            }
        }
    }
    (text, rest.len())
}
