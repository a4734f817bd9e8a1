//! Rows of answers as rows of a page.

use crate::avro;
use crate::types::{self, Field, Row, cell};
use caudal_core::batch::NO_ROW;
use caudal_core::temporal::MICROS_PER_DAY;
use caudal_core::{BatchBuilder, Cell, ColumnType, EventHead, Op, SnapshotMark};
use caudal_poll::{Page, Request};
use jiff::Timestamp;

/// The highest value of a column, in the order of its type.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum High {
    Number(i64),
    Text(String),
}

/// A row of an answer.
pub(crate) enum Given<'a> {
    /// As REST writes it.
    Json(&'a str),
    Avro(avro::Values<'a>),
}

/// The values of a row, one after the other.
enum Values<'a> {
    Json(std::vec::IntoIter<types::Value<'a>>),
    Avro(avro::Values<'a>),
}

impl Values<'_> {
    fn next(&mut self, field: &Field, into: &mut BatchBuilder) -> Option<Cell> {
        match self {
            Self::Json(values) => cell(&values.next()?, field, into),
            Self::Avro(values) => values.next(field, into),
        }
    }
}

/// A page that is being filled.
pub(crate) struct Filling<'a> {
    request: &'a Request<'a>,
    fields: &'a [Field],
    /// Whether the first field says that the row is gone.
    told: bool,
    page: Page,
    /// The column whose highest value is the watermark.
    mark: Option<usize>,
    high: Option<High>,
    /// A time beyond it is no watermark: what comes after it would not be read until then.
    latest: i64,
}

impl<'a> Filling<'a> {
    pub(crate) fn new(
        request: &'a Request<'a>,
        (fields, told): (&'a [Field], bool),
        mark: Option<usize>,
        high: Option<String>,
    ) -> Self {
        let now = Timestamp::now().as_microsecond();
        let ty = mark.map(|at| &request.schema.columns[at].ty);
        let latest = match ty {
            Some(ColumnType::Timestamp { .. }) => now,
            // The clock of whatever zone it is.
            Some(ColumnType::DateTime { .. }) => now + 14 * 3_600_000_000,
            Some(ColumnType::Date) => (now + 14 * 3_600_000_000).div_euclid(MICROS_PER_DAY),
            _ => i64::MAX,
        };
        let high = high.and_then(|text| match ty {
            Some(ColumnType::Text { .. }) => Some(High::Text(text)),
            _ => text.parse().ok().map(High::Number),
        });
        Self { request, fields, told, page: Page::default(), mark, high, latest }
    }

    pub(crate) fn is_full(&self) -> bool {
        let events = self.page.rows.events.len();
        events >= self.request.rows as usize || (events > 0 && self.page.rows.size() >= self.request.bytes)
    }

    /// Takes a row, or leaves it out.
    pub(crate) fn take(&mut self, row: Given<'_>) {
        let first = self.page.rows.cells.len();
        let mut values = match row {
            Given::Json(text) => {
                let Ok(Row { f: values }) = serde_json::from_str::<Row<'_>>(text) else {
                    return self.reject("a row is none".to_owned());
                };
                if values.len() != self.fields.len() {
                    return self
                        .reject("a row has another number of values than there are columns".to_owned());
                }
                Values::Json(values.into_iter())
            }
            Given::Avro(values) => Values::Avro(values),
        };
        let own = usize::from(self.told);
        let is_gone = match self.fields.first().filter(|_| self.told) {
            Some(field) => match values.next(field, &mut self.page.rows) {
                Some(Cell::I64(gone)) => gone != 0,
                _ => return self.reject("a row does not say how it changed".to_owned()),
            },
            None => false,
        };
        for field in self.fields.iter().skip(own) {
            let Some(cell) = values.next(field, &mut self.page.rows) else {
                self.page.rows.cells.truncate(first);
                let finding = format!(
                    "`{}`: a value that is no {}: such rows are left out",
                    field.name,
                    field.native()
                );
                return self.reject(finding);
            };
            let cell = match cell {
                // JSON, and so the log, has neither.
                Cell::F64(n) if !n.is_finite() => {
                    self.find(format!("`{}`: NaN and infinities are NULL in the log", field.name));
                    Cell::Null
                }
                cell => cell,
            };
            self.page.rows.cells.push(cell);
        }
        self.rise(first);
        self.page.rows.events.push(EventHead {
            table: 0,
            transaction: 0,
            before: if is_gone { first as u32 } else { NO_ROW },
            after: if is_gone { NO_ROW } else { first as u32 },
            row: 0,
            op: Op::Read,
            snapshot: SnapshotMark::False,
            pos: 0,
            ts_us: 0,
        });
    }

    fn rise(&mut self, first: usize) {
        let Some(at) = self.mark else { return };
        let rows = &self.page.rows;
        let high = match rows.cells[first + at] {
            Cell::I64(n) => High::Number(n.min(self.latest)),
            Cell::Text(slice) => High::Text(String::from_utf8_lossy(rows.bytes(slice)).into_owned()),
            _ => return,
        };
        if self.high.as_ref().is_none_or(|before| *before < high) {
            self.high = Some(high);
        }
    }

    fn reject(&mut self, finding: String) {
        self.page.rejected += 1;
        self.find(finding);
    }

    fn find(&mut self, finding: String) {
        if !self.page.findings.contains(&finding) {
            self.page.findings.push(finding);
        }
    }

    /// The page, and the highest value so far.
    pub(crate) fn end(self) -> (Page, Option<String>) {
        let high = self.high.map(|high| match high {
            High::Number(n) => n.to_string(),
            High::Text(text) => text,
        });
        (self.page, high)
    }
}
