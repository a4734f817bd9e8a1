//! Literals as values of a column's type: how they are compared with cells, and how SQL writes them.

use super::expression::Comparison;
use super::literal::{Literal, Moment, duration, duration_number};
use super::number::Number;
use crate::client::quoted;
use caudal_core::{Cell, Column, ColumnType, Slice};
use std::cmp::Ordering;

/// How values of a column are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Integer,
    Decimal,
    Flag,
    Double,
    Text,
    /// Text without an order: labels, addresses.
    Label,
    Bytes,
    Date,
    /// With so many fraction digits.
    Moment(u8),
    Duration,
    /// Only `IS NULL`.
    Nothing,
}

impl Manner {
    pub(super) fn of(ty: &ColumnType) -> Self {
        match ty {
            ColumnType::Int { .. } | ColumnType::UInt { .. } | ColumnType::Year | ColumnType::Bit { .. } => {
                Self::Integer
            }
            ColumnType::Bool => Self::Flag,
            ColumnType::Decimal { .. } => Self::Decimal,
            ColumnType::Float32 | ColumnType::Float64 => Self::Double,
            ColumnType::Text { .. } => Self::Text,
            ColumnType::Enum { .. }
            | ColumnType::Set { .. }
            | ColumnType::Uuid
            | ColumnType::Inet4
            | ColumnType::Inet6 => Self::Label,
            ColumnType::Bytes { .. } => Self::Bytes,
            ColumnType::Date => Self::Date,
            ColumnType::DateTime { precision } | ColumnType::Timestamp { precision } => {
                Self::Moment(*precision)
            }
            ColumnType::Time { .. } => Self::Duration,
            ColumnType::Json | ColumnType::Geometry | ColumnType::Vector { .. } => Self::Nothing,
        }
    }

    /// Whether `<` and its like are asked of it.
    pub(super) fn is_ordered(self) -> bool {
        !matches!(self, Self::Label | Self::Flag | Self::Nothing)
    }

    /// What a literal must be.
    pub(super) fn wants(self) -> &'static str {
        match self {
            Self::Integer | Self::Decimal | Self::Double => "a number",
            Self::Flag => "TRUE, FALSE, 1 or 0",
            Self::Text | Self::Label => "a text in quotes",
            Self::Bytes => "X'…' or a text in quotes",
            Self::Date => "a date: '2024-12-31'",
            Self::Moment(_) => "a date and time: '2024-12-31 23:59:59'",
            Self::Duration => "a time: '23:59:59'",
            Self::Nothing => "nothing: this type has only IS NULL and IS NOT NULL",
        }
    }

    /// The column in SQL.
    pub(super) fn left(self, column: &Column) -> String {
        let name = quoted(&column.name);
        match self {
            Self::Integer => format!("({name}+0)"),
            Self::Flag => format!("({name}<>0)"),
            Self::Decimal | Self::Double | Self::Nothing => name,
            Self::Text => format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY)"),
            Self::Label => format!("CAST(CONVERT(CAST({name} AS CHAR) USING utf8mb4) AS BINARY)"),
            Self::Bytes => format!("CAST({name} AS BINARY)"),
            Self::Date | Self::Moment(_) => format!("CAST(CAST({name} AS CHAR) AS BINARY)"),
            Self::Duration => format!("CAST({name} AS DECIMAL(20,6))"),
        }
    }

    /// `IS NULL` in SQL.
    pub(super) fn is_null(self, column: &Column) -> String {
        match self {
            Self::Date | Self::Moment(_) => format!("({} IS NULL)", self.left(column)),
            _ => format!("({} IS NULL)", quoted(&column.name)),
        }
    }
}

/// A literal as a value.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Number(Number),
    Flag(bool),
    Double(f64),
    Bytes(Vec<u8>),
    Moment(Moment),
    Duration(i64),
}

impl Operand {
    /// None if the literal is not of the column's type.
    pub(super) fn new(manner: Manner, literal: &Literal) -> Option<Self> {
        Some(match (manner, literal) {
            (Manner::Integer | Manner::Decimal, Literal::Number(n)) => Self::Number(n.clone()),
            (Manner::Double, Literal::Number(n)) => Self::Double(n.double()),
            (Manner::Flag, Literal::Number(n)) => Self::Flag(n.flag()?),
            (Manner::Flag, Literal::Bool(flag)) => Self::Flag(*flag),
            (Manner::Text | Manner::Label | Manner::Bytes, Literal::Text(t)) => Self::Bytes(t.clone().into()),
            (Manner::Bytes, Literal::Bytes(b)) => Self::Bytes(b.clone()),
            (Manner::Date, Literal::Text(t)) => Self::Moment(moment(t).filter(|m| m.is_date())?),
            (Manner::Moment(_), Literal::Text(t)) => Self::Moment(moment(t)?),
            (Manner::Duration, Literal::Text(t)) => Self::Duration(duration(t)?),
            _ => return None,
        })
    }

    /// In SQL: digits or hexadecimal, so nothing needs quoting.
    pub(super) fn right(&self, manner: Manner) -> String {
        match self {
            Self::Number(n) => n.text(),
            Self::Flag(flag) => u8::from(*flag).to_string(),
            // An exponent makes it a DOUBLE.
            Self::Double(n) => format!("{n:e}"),
            Self::Bytes(b) => binary(b),
            Self::Moment(m) => match manner {
                Manner::Moment(precision) => binary(m.text(precision).as_bytes()),
                _ => binary(m.date_text().as_bytes()),
            },
            Self::Duration(us) => duration_number(*us),
        }
    }

    /// How a cell that is not NULL stands to it; none if it is no cell of the type.
    pub(super) fn order_of<'a>(&self, cell: Cell, bytes: &impl Fn(Slice) -> &'a [u8]) -> Option<Ordering> {
        match (self, cell) {
            (Self::Number(n), Cell::I64(value)) => Some(n.order_of_integer(value.into())),
            (Self::Number(n), Cell::U64(value)) => Some(n.order_of_integer(value.into())),
            (Self::Number(n), Cell::Decimal(s)) => n.order_of_text(std::str::from_utf8(bytes(s)).ok()?),
            (Self::Flag(flag), Cell::I64(value)) => Some((value != 0).cmp(flag)),
            (Self::Double(n), Cell::F32(value)) => f64::from(value).partial_cmp(n),
            (Self::Double(n), Cell::F64(value)) => value.partial_cmp(n),
            (Self::Bytes(b), Cell::Text(s) | Cell::Bytes(s)) => Some(bytes(s).cmp(b)),
            (Self::Duration(us), Cell::I64(value)) => Some(value.cmp(us)),
            _ => None,
        }
    }

    /// The same for a moment, whose cell counts days or microseconds, or is text where it is no day of the calendar.
    pub(super) fn order_of_moment<'a>(
        &self,
        manner: Manner,
        cell: Cell,
        bytes: &impl Fn(Slice) -> &'a [u8],
    ) -> Option<Ordering> {
        let Self::Moment(moment) = self else { return None };
        let value = match (manner, cell) {
            (Manner::Date, Cell::I64(days)) => Moment::from_days(days),
            (_, Cell::I64(micros)) => Moment::from_micros(micros),
            (_, Cell::Text(s)) => Moment::parse(std::str::from_utf8(bytes(s)).ok()?)?,
            _ => return None,
        };
        Some(value.cmp(moment))
    }
}

fn moment(text: &str) -> Option<Moment> {
    Moment::parse(text).filter(|m| m.is_storable())
}

/// Bytes in SQL.
fn binary(bytes: &[u8]) -> String {
    format!("CAST({} AS BINARY)", hex(bytes))
}

/// Bytes as a literal of SQL.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("X'{digits}'")
}

/// Whether the comparison is one that the column's manner has.
pub(super) fn allowed(manner: Manner, comparison: Comparison) -> bool {
    manner.is_ordered() || !comparison.is_order()
}
