//! One column and what is asked of it, made for a table.

use super::evaluate::Truth;
use super::expression::{Comparison, Predicate};
use super::literal::Literal;
use super::operand::{Manner, Operand, allowed, hex};
use caudal_core::{Cell, Column, Error, Result, Slice, TableSchema};
use std::cmp::Ordering;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Test {
    column: u32,
    manner: Manner,
    asks: Asks,
    sql: String,
}

#[derive(Clone, Debug)]
enum Asks {
    Compare(Comparison, Operand),
    In(Vec<Operand>),
    Like(Vec<Part>),
    IsNull,
}

/// A part of a LIKE pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Any,
    One,
    Char(char),
}

impl Test {
    pub(super) fn new(column: &str, predicate: &Predicate, schema: &TableSchema) -> Result<Self> {
        let (index, column) = find(column, schema)?;
        let manner = Manner::of(&column.ty);
        let operand = |literal: &Literal| {
            Operand::new(manner, literal).ok_or_else(|| {
                refused(column, &format!("is compared with what it cannot be: it wants {}", manner.wants()))
            })
        };
        let left = manner.left(column);
        let (asks, sql) = match predicate {
            Predicate::IsNull => (Asks::IsNull, manner.is_null(column)),
            Predicate::Compare(comparison, _) if !allowed(manner, *comparison) => {
                return Err(refused(column, "has no order that a filter knows: it has = <> IN and IS NULL"));
            }
            Predicate::Compare(comparison, literal) => {
                let operand = operand(literal)?;
                let sql = format!("({left} {} {})", comparison.sign(), operand.right(manner));
                (Asks::Compare(*comparison, operand), sql)
            }
            Predicate::In(list) => {
                let list: Vec<Operand> = list.iter().map(operand).collect::<Result<_>>()?;
                let right: Vec<String> = list.iter().map(|o| o.right(manner)).collect();
                (Asks::In(list), format!("({left} IN ({}))", right.join(",")))
            }
            Predicate::Like(pattern) => {
                if !matches!(manner, Manner::Text | Manner::Label) {
                    return Err(refused(column, "is no text: LIKE does not apply"));
                }
                let parts = parts(pattern).ok_or_else(|| refused(column, "LIKE ends in a lone backslash"))?;
                (Asks::Like(parts), like(column, pattern))
            }
        };
        Ok(Self { column: index, manner, asks, sql })
    }

    pub(super) fn column(&self) -> u32 {
        self.column
    }

    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    pub(super) fn of<'a>(&self, cell: Cell, bytes: &impl Fn(Slice) -> &'a [u8]) -> Truth {
        match (&self.asks, cell) {
            (_, Cell::Unchanged) => Truth::Untold,
            (Asks::IsNull, cell) => Truth::of(cell.is_null()),
            (_, Cell::Null) => Truth::Null,
            (Asks::Compare(comparison, operand), cell) => match self.order(operand, cell, bytes) {
                Some(order) => Truth::of(comparison.holds(order)),
                None => Truth::Untold,
            },
            (Asks::In(list), cell) => {
                Truth::any(list.iter().map(|operand| match self.order(operand, cell, bytes) {
                    Some(order) => Truth::of(order.is_eq()),
                    None => Truth::Untold,
                }))
            }
            (Asks::Like(parts), Cell::Text(s)) => match std::str::from_utf8(bytes(s)) {
                Ok(text) => Truth::of(matches(parts, text)),
                Err(_) => Truth::Untold,
            },
            (Asks::Like(_), _) => Truth::Untold,
        }
    }

    fn order<'a>(
        &self,
        operand: &Operand,
        cell: Cell,
        bytes: &impl Fn(Slice) -> &'a [u8],
    ) -> Option<Ordering> {
        match self.manner {
            Manner::Date | Manner::Moment(_) => operand.order_of_moment(self.manner, cell, bytes),
            _ => operand.order_of(cell, bytes),
        }
    }
}

fn find<'a>(name: &str, schema: &'a TableSchema) -> Result<(u32, &'a Column)> {
    let found = schema.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
    found.map(|i| (i as u32, &schema.columns[i])).ok_or_else(|| {
        Error::config(format!("the table has no column `{name}`"))
            .hint("correct the name in `filters`; names that are not plain stand in backticks")
    })
}

fn refused(column: &Column, why: &str) -> Error {
    Error::config(format!("the column `{}` ({}) {why}", column.name, column.native))
        .hint("change the filter in `filters`")
}

/// Character by character, without a collation's equalities. The escape is `\`.
fn like(column: &Column, pattern: &str) -> String {
    let name = crate::client::quoted(&column.name);
    format!(
        "(CONVERT(CAST({name} AS CHAR) USING utf8mb4) COLLATE utf8mb4_bin LIKE CONVERT({} USING utf8mb4) COLLATE utf8mb4_bin ESCAPE '\\\\')",
        hex(pattern.as_bytes())
    )
}

fn parts(pattern: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '%' => Part::Any,
            '_' => Part::One,
            '\\' => Part::Char(chars.next()?),
            c => Part::Char(c),
        });
    }
    Some(parts)
}

/// Linear in the text for each `%`: one point to go back to.
fn matches(parts: &[Part], text: &str) -> bool {
    let (mut i, mut rest) = (0, text);
    let mut back: Option<(usize, &str)> = None;
    loop {
        let mut after = rest.chars();
        let next = after.next();
        match (parts.get(i), next) {
            (Some(Part::Any), _) => {
                back = Some((i + 1, rest));
                i += 1;
            }
            (None, None) => return true,
            (Some(Part::One), Some(_)) => (i, rest) = (i + 1, after.as_str()),
            (Some(Part::Char(c)), Some(found)) if *c == found => (i, rest) = (i + 1, after.as_str()),
            _ => {
                let Some((at, from)) = back else { return false };
                let mut chars = from.chars();
                if chars.next().is_none() {
                    return false;
                }
                (i, rest) = (at, chars.as_str());
                back = Some((at, rest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts_by_characters() {
        let like = |pattern: &str, text: &str| matches(&parts(pattern).unwrap(), text);
        assert!(like("a%b_", "axxbxxbñ") && like("%", "") && like("", "") && like("a\\%", "a%"));
        assert!(!like("a%b_", "axxb") && !like("_", "") && !like("a\\%", "ab") && !like("a", "a "));
        assert!(!like(&"%a".repeat(30), &"b".repeat(10_000)));
        assert!(parts("a\\").is_none());
    }
}
