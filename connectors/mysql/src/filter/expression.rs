//! A filter as written, before it meets a table.
//!
//! Bounds: 64 KiB of text, 64 levels, so that neither parsing nor evaluating it can exhaust the stack.

use super::lexer::{Token, mistake, tokens};
use super::literal::Literal;
use caudal_core::{Error, Result};
use std::cmp::Ordering;

const LONGEST: usize = 64 << 10;
const DEEPEST: usize = 64;

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    /// `NOT …`
    Not(Box<Expression>),
    /// `… AND …`
    And(Vec<Expression>),
    /// `… OR …`
    Or(Vec<Expression>),
    /// A column and what is asked of it.
    Test(String, Predicate),
}

/// What is asked of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Predicate {
    /// Compared with a literal.
    Compare(Comparison, Literal),
    /// One of these.
    In(Vec<Literal>),
    /// A pattern with `%` and `_`.
    Like(String),
    /// Is it NULL?
    IsNull,
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Comparison {
    fn from_sign(sign: &str) -> Option<Self> {
        Some(match sign {
            "=" => Self::Equal,
            "<>" | "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::AtMost,
            ">" => Self::Greater,
            ">=" => Self::AtLeast,
            _ => return None,
        })
    }

    /// As SQL writes it.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }

    /// Whether it holds of a value that stands so to the literal.
    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }

    /// Whether it asks for more than equality.
    pub(super) fn is_order(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }
}

impl Expression {
    /// Reads a filter.
    ///
    /// # Errors
    /// `Config`, naming the place.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.len() > LONGEST {
            return Err(Error::config(format!("is longer than {LONGEST} bytes")).hint("shorten it"));
        }
        let mut parser = Parser { end: text.chars().count() + 1, tokens: tokens(text)?, at: 0, depth: 0 };
        let expression = parser.any()?;
        match parser.tokens.get(parser.at) {
            None => Ok(expression),
            Some((place, _)) => Err(mistake(*place, "AND or OR is expected here")),
        }
    }

    /// All of them; none if there are none.
    pub(crate) fn all(mut list: Vec<Self>) -> Option<Self> {
        match list.len() {
            0 => None,
            1 => list.pop(),
            _ => Some(Self::And(list)),
        }
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(place, _)| *place)
    }

    fn wrong<T>(&self, what: &str) -> Result<T> {
        Err(mistake(self.place(), what))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(s)) if *s == sign);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<Expression> {
        let first = self.all()?;
        let mut list = vec![first];
        while self.word("OR") {
            list.push(self.all()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Expression::Or(list) })
    }

    fn all(&mut self) -> Result<Expression> {
        let mut list = vec![self.one()?];
        while self.word("AND") {
            list.push(self.one()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Expression::And(list) })
    }

    fn one(&mut self) -> Result<Expression> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return self.wrong("nested too deeply");
        }
        let one = if self.word("NOT") {
            Expression::Not(Box::new(self.one()?))
        } else if self.sign("(") {
            let inner = self.any()?;
            if !self.sign(")") {
                return self.wrong("`)` is expected here");
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(one)
    }

    fn test(&mut self) -> Result<Expression> {
        let column = self.column()?;
        if self.word("IS") {
            let negated = self.word("NOT");
            if !self.word("NULL") {
                return self.wrong("NULL is expected after IS");
            }
            return Ok(negate(negated, Expression::Test(column, Predicate::IsNull)));
        }
        if let Some(Token::Sign(sign)) = self.peek()
            && let Some(comparison) = Comparison::from_sign(sign)
        {
            self.at += 1;
            let literal = self.literal()?;
            return Ok(Expression::Test(column, Predicate::Compare(comparison, literal)));
        }
        let negated = self.word("NOT");
        let test = if self.word("IN") {
            Expression::Test(column, Predicate::In(self.list()?))
        } else if self.word("LIKE") {
            match self.literal()? {
                Literal::Text(pattern) => Expression::Test(column, Predicate::Like(pattern)),
                _ => return self.wrong("a pattern in quotes is expected after LIKE"),
            }
        } else if self.word("BETWEEN") {
            self.between(column)?
        } else if negated {
            return self.wrong("IN, LIKE or BETWEEN is expected after NOT");
        } else {
            // By itself: is it true?
            Expression::Test(column, Predicate::Compare(Comparison::Equal, Literal::Bool(true)))
        };
        Ok(negate(negated, test))
    }

    fn between(&mut self, column: String) -> Result<Expression> {
        let low = self.literal()?;
        if !self.word("AND") {
            return self.wrong("AND is expected in BETWEEN … AND …");
        }
        let high = self.literal()?;
        let bound = |c, literal| Expression::Test(column.clone(), Predicate::Compare(c, literal));
        Ok(Expression::And(vec![bound(Comparison::AtLeast, low), bound(Comparison::AtMost, high)]))
    }

    fn list(&mut self) -> Result<Vec<Literal>> {
        if !self.sign("(") {
            return self.wrong("`(` is expected after IN");
        }
        let mut list = vec![self.literal()?];
        while self.sign(",") {
            list.push(self.literal()?);
        }
        if self.sign(")") { Ok(list) } else { self.wrong("`,` or `)` is expected here") }
    }

    fn column(&mut self) -> Result<String> {
        const RESERVED: [&str; 11] =
            ["AND", "OR", "NOT", "IN", "IS", "LIKE", "BETWEEN", "NULL", "TRUE", "FALSE", "EXISTS"];
        let name = match self.peek() {
            Some(Token::Name(name)) => name.clone(),
            Some(Token::Word(word)) if !RESERVED.iter().any(|r| word.eq_ignore_ascii_case(r)) => word.clone(),
            _ => return self.wrong("a column is expected here"),
        };
        self.at += 1;
        if self.sign("(") {
            self.at -= 2;
            return self.wrong("there are no functions in filters");
        }
        Ok(name)
    }

    fn literal(&mut self) -> Result<Literal> {
        let literal = match self.peek() {
            Some(Token::Text(text)) => Literal::Text(text.clone()),
            Some(Token::Bytes(bytes)) => Literal::Bytes(bytes.clone()),
            Some(Token::Number(digits)) => match digits.parse() {
                Ok(number) => Literal::Number(number),
                Err(why) => return Err(mistake(self.place(), why)),
            },
            Some(Token::Word(w)) if w.eq_ignore_ascii_case("TRUE") => Literal::Bool(true),
            Some(Token::Word(w)) if w.eq_ignore_ascii_case("FALSE") => Literal::Bool(false),
            Some(Token::Word(w)) if w.eq_ignore_ascii_case("NULL") => {
                return self.wrong("nothing compares with NULL; write IS NULL or IS NOT NULL");
            }
            _ => return self.wrong("a literal is expected here: 12.5, 'text', X'00ff', TRUE"),
        };
        self.at += 1;
        Ok(literal)
    }
}

fn negate(negated: bool, expression: Expression) -> Expression {
    if negated { Expression::Not(Box::new(expression)) } else { expression }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_binds_closer_than_and_and_and_closer_than_or() {
        let parsed = |t: &str| Expression::parse(t).unwrap();
        assert_eq!(parsed("NOT a = 1 AND b = 2 OR c"), parsed("((NOT (a = 1)) AND (b = 2)) OR (c = TRUE)"));
        assert_eq!(parsed("a BETWEEN 1 AND 2 AND b"), parsed("(a >= 1 AND a <= 2) AND b"));
        assert_eq!(parsed("a NOT IN (1,2)"), parsed("NOT (a IN (1, 2))"));
        assert_eq!(parsed("`a``b` <> 'it''s'"), parsed("`a``b` != 'it''s'"));
    }

    #[test]
    fn what_is_no_filter_is_told_with_its_place() {
        for (text, told) in [
            ("", "at character 1: a column is expected"),
            ("a = NULL", "at character 5: nothing compares with NULL"),
            ("a = b", "at character 5: a literal is expected"),
            ("a = 1 b", "at character 7: AND or OR"),
            ("lower(a) = 'x'", "at character 1: there are no functions"),
            ("ñ = 1 AND ;", "at character 11: not a part of a filter"),
            ("a = 'x", "at character 5: ' is never closed"),
            ("a = 1e5", "at character 5: a number has digits"),
            ("(a = 1", "at character 7: `)`"),
            ("a IN ()", "at character 7: a literal"),
            ("a = X'0'", "at character 5: no pairs"),
            ("a = 1.2.3", "at character 5"),
        ] {
            let error = Expression::parse(text).expect_err(text).to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(Expression::parse(&"(".repeat(100_000)).is_err());
        assert!(Expression::parse(&"NOT ".repeat(5_000)).is_err());
    }
}
