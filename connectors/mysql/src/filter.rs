//! Row filters: which rows of a table are captured.
//!
//! # The language
//!
//! `status IN ('paid', 'sent') AND (total >= 10.50 OR vip) AND deleted_at IS NULL AND name NOT LIKE 'test%'`
//!
//! A column stands on the left, literals on the right: `= <> != < <= > >=`, `[NOT] IN (…)`, `[NOT] BETWEEN … AND …`, `[NOT] LIKE '…'`,
//! `IS [NOT] NULL`, a TINYINT(1) column by itself; `AND`, `OR`, `NOT` and parentheses; numbers, `'text'` (a `'` in it doubled),
//! `X'00ff'`, `TRUE`, `FALSE`. Names in backticks where they are not plain. NULL is neither true nor false, as in SQL; a row is
//! captured where the filter is true.
//!
//! # Why snapshot and stream agree
//!
//! The same filter is a condition of the snapshot's SELECT ([`Filter::sql`]) and is evaluated on the cells of the stream ([`Filter::of`]).
//! A plain SQL condition would differ from any evaluation of ours in many places (collations, padding, conversions between types, special
//! cases of zero dates), so the language has only comparisons whose meaning is exact, and each is written in SQL so that the server has no
//! choice:
//!
//! | column | compared by | in SQL |
//! |---|---|---|
//! | integers, YEAR, BIT | number, exactly; a literal may have a fraction | `(c+0)`: a YEAR compares `24` as 2024 otherwise |
//! | TINYINT(1) | true or false, as it is captured: any number but 0 is true | `(c<>0)` |
//! | DECIMAL | number, exactly | itself |
//! | FLOAT, DOUBLE | double: `f = 0.1` is false for a FLOAT | literals as `0.1e0`: with a DECIMAL the server rounds |
//! | CHAR, VARCHAR, TEXT | Unicode code points: case and trailing spaces count, whatever the collation | as bytes of utf8mb4 |
//! | ENUM, SET | label as text; `=`, `IN`, `LIKE` only | as text |
//! | BINARY, VARBINARY, BLOB | bytes | as bytes |
//! | DATE, DATETIME, TIMESTAMP | calendar order, `0000-00-00` and its like first; TIMESTAMP literals are UTC | as text, of one length |
//! | TIME | signed duration | as a number, `hhmmss.ffffff` |
//! | UUID, INET4, INET6 | the text that the server shows; `=` and `IN` only | as text |
//! | JSON, spatial types, VECTOR | `IS NULL` only | |
//!
//! `IS NULL` of a temporal column goes through text as well: for one that is NOT NULL the server finds zero dates by it.
//! The tests put every type and its edge values through both and compare.

mod evaluate;
mod expression;
mod lexer;
mod literal;
mod number;
mod operand;
mod test;

pub(crate) use evaluate::Truth;
pub(crate) use expression::Expression;

use caudal_core::{Cell, Error, Result, Slice, TableSchema};
use test::Test;

/// A filter made for one shape of a table.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    bound: Bound,
    sql: String,
}

/// An expression whose columns and literals are those of a table.
#[derive(Clone, Debug)]
enum Bound {
    Not(Box<Bound>),
    And(Vec<Bound>),
    Or(Vec<Bound>),
    Test(Test),
}

impl Filter {
    /// Looks columns up and reads literals as values of the columns' types.
    ///
    /// # Errors
    /// `Config`, naming the table and column.
    pub(crate) fn new(expression: &Expression, schema: &TableSchema) -> Result<Self> {
        let bound =
            bind(expression, schema).map_err(|e: Error| e.context(format!("the filter of {}", schema.id)))?;
        let sql = bound.sql();
        Ok(Self { bound, sql })
    }

    /// As a condition of SQL: without parameters, for its literals are digits and hexadecimal only.
    pub(crate) fn sql(&self) -> &str {
        &self.sql
    }

    /// What it says of a row. `bytes` gives those of a cell's slice; the row has one cell per column of the shape.
    pub(crate) fn of<'a>(&self, row: &impl Fn(u32) -> Cell, bytes: &impl Fn(Slice) -> &'a [u8]) -> Truth {
        self.bound.of(row, bytes)
    }
}

fn bind(expression: &Expression, schema: &TableSchema) -> Result<Bound> {
    let each = |list: &[Expression]| list.iter().map(|e| bind(e, schema)).collect::<Result<Vec<_>>>();
    Ok(match expression {
        Expression::Not(inner) => Bound::Not(Box::new(bind(inner, schema)?)),
        Expression::And(list) => Bound::And(each(list)?),
        Expression::Or(list) => Bound::Or(each(list)?),
        Expression::Test(column, predicate) => Bound::Test(Test::new(column, predicate, schema)?),
    })
}

impl Bound {
    fn sql(&self) -> String {
        let joined = |list: &[Self], word: &str| {
            let parts: Vec<String> = list.iter().map(Self::sql).collect();
            format!("({})", parts.join(word))
        };
        match self {
            Self::Not(inner) => format!("(NOT {})", inner.sql()),
            Self::And(list) => joined(list, " AND "),
            Self::Or(list) => joined(list, " OR "),
            Self::Test(test) => test.sql().to_owned(),
        }
    }

    fn of<'a>(&self, row: &impl Fn(u32) -> Cell, bytes: &impl Fn(Slice) -> &'a [u8]) -> Truth {
        match self {
            Self::Not(inner) => inner.of(row, bytes).not(),
            Self::And(list) => Truth::all(list.iter().map(|b| b.of(row, bytes))),
            Self::Or(list) => Truth::any(list.iter().map(|b| b.of(row, bytes))),
            Self::Test(test) => test.of(row(test.column()), bytes),
        }
    }
}
