//! What a run asks for: one SELECT, whose rows are read as they come.
//!
//! # Why nothing is passed over
//!
//! * By a `rowversion`: `MIN_ACTIVE_ROWVERSION()` is asked for before the SELECT. All rows below it are committed (MS: it is the lowest that is in use by a
//!   transaction that goes on, or the next one), so that the window [watermark, it) is complete, and it is the next watermark. A row that is committed
//!   late has a version at or above it and comes with a later run; one that is changed while rows are read gets a higher one, too.
//! * By a time or number: the next watermark is the highest value that was read, but no time that the server's clock has not reached; the next window begins the overlap
//!   before it. A row that is committed later than that is not seen.
//! * By Change Tracking: the version is asked for before the SELECT, and changes up to it are read. That the oldest version kept is not above the watermark is
//!   asked for before, and again when all rows were read; changes that were cleaned up are an error.
//! * By Change Data Capture: the same with log sequence numbers; the oldest one that is kept is asked for before and behind, too.

use crate::client::{Client, bytes, number, values};
use crate::config::{Table, Way};
use crate::names::{ObjectName, quoted};
use crate::param::{Param, clock_of, day_of};
use crate::shape::Shape;
use caudal_core::{Column, ColumnType, Error, Result};
use caudal_poll::Window;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write;
use std::time::Duration;
use tiberius::ColumnData;

/// A SELECT.
pub(crate) struct Select {
    pub(crate) sql: String,
    pub(crate) params: Vec<Param>,
    pub(crate) mark: Mark,
    /// The first column tells whether a row is gone: then only its key counts.
    pub(crate) tells_gone: bool,
    /// What must still hold when all rows were read.
    pub(crate) still: Option<Still>,
}

/// Changes since a watermark must not have been cleaned up while they were read.
pub(crate) enum Still {
    /// By Change Tracking: the table, and the version.
    Tracked { object: String, since: i64 },
    /// By Change Data Capture: the capture instance, the first log sequence number that is read, and the watermark.
    Captured { instance: String, from: Vec<u8>, since: String },
}

const MIN_VALID: &str = "SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(@P1))";
const MIN_LSN: &str = "SELECT sys.fn_cdc_get_min_lsn(@P1)";

impl Still {
    /// Asks.
    ///
    /// # Errors
    /// `Config` if changes are lost; as the server says.
    pub(crate) async fn check(&self, client: &mut Client, table: &str) -> Result<()> {
        let (sql, of, way) = match self {
            Self::Tracked { object, .. } => (MIN_VALID, object, TRACKING),
            Self::Captured { instance, .. } => (MIN_LSN, instance, CAPTURE),
        };
        let what = format!("ask for the oldest change of {way}, for {table}");
        let rows = client.rows(&what, sql, &[Param::Text(of.clone())]).await?;
        let row = rows.into_iter().next().map(values).unwrap_or_default();
        let (holds, since, oldest) = match self {
            Self::Tracked { since, .. } => {
                let oldest = number(row.first());
                let holds = oldest.is_some_and(|oldest| oldest <= *since);
                (holds, since.to_string(), oldest.map(|oldest| oldest.to_string()))
            }
            Self::Captured { from, since, .. } => {
                let oldest = log_number(row.first());
                let holds = oldest.as_ref().is_some_and(|oldest| oldest <= from);
                (holds, since.clone(), oldest.map(|oldest| hex(&oldest)))
            }
        };
        match holds {
            true => Ok(()),
            false => Err(forgotten(table, way, &since, oldest.as_deref().unwrap_or("nowhere"))),
        }
    }
}

const TRACKING: &str = "Change Tracking";
const CAPTURE: &str = "Change Data Capture";

/// What the watermark is after the run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mark {
    /// There is none.
    None,
    /// Known before a row is read.
    Known(String),
    /// The highest value of a column.
    Highest(usize),
}

/// When, and by which clock.
pub(crate) struct Moment<'a> {
    pub(crate) planned: Timestamp,
    pub(crate) zone: &'a TimeZone,
}

impl Moment<'_> {
    pub(crate) fn before(&self, period: Duration) -> Timestamp {
        SignedDuration::try_from(period)
            .ok()
            .and_then(|period| self.planned.checked_sub(period).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Makes the SELECT of a window. `inner`: the table's statement, filled.
///
/// # Errors
/// `Config` if the window cannot be read; as the server says.
pub(crate) async fn select(
    client: &mut Client,
    table: &Table,
    shape: &Shape,
    (inner, params): (&str, Vec<Param>),
    (window, moment): (Window<'_>, &Moment<'_>),
) -> Result<Select> {
    match (&table.way, &table.object) {
        (Way::Tracking, Some(object)) => tracked(client, table, object, shape, window).await,
        (Way::Capture(instance), Some(object)) => {
            captured(client, table, (object, instance), shape, window).await
        }
        _ => rows(client, table, shape, (inner, params), (window, moment)).await,
    }
}

/// The columns, read from `q`.
fn columns(shape: &Shape, from: impl Fn(&Column) -> &'static str) -> String {
    let mut list = String::new();
    for (_, column, cast) in shape.selected() {
        let name = quoted(&column.name);
        let expression = cast.around(&format!("{}.{name}", from(column)));
        let comma = if list.is_empty() { "" } else { ", " };
        // Writing to a String does not fail.
        let _ = write!(list, "{comma}{expression} AS {name}");
    }
    list
}

async fn rows(
    client: &mut Client,
    table: &Table,
    shape: &Shape,
    (inner, mut params): (&str, Vec<Param>),
    (window, moment): (Window<'_>, &Moment<'_>),
) -> Result<Select> {
    // Behind a line break: the statement may end with a comment.
    let mut sql = format!("SELECT {} FROM (\n{inner}\n) AS q", columns(shape, |_| "q"));
    let mut mark = Mark::None;
    let column = match (&window, &table.way) {
        (Window::Since { column, .. }, _) => Some((*column).to_owned()),
        (Window::All, Way::Rows(column)) => column.clone(),
        _ => None,
    };
    match (window, column) {
        (Window::Lookback { column, period }, _) if !column.is_empty() => {
            let (_, column) = shape.column(column)?;
            params.push(from(table, column, moment, period)?);
            let _ = write!(sql, "\nWHERE q.{} >= @P{}", quoted(&column.name), params.len());
        }
        (_, Some(name)) => {
            let (at, column) = shape.column(&name)?;
            let since = match window {
                Window::Since { watermark: Some(watermark), overlap, .. } => Some((watermark, overlap)),
                _ => None,
            };
            let name = quoted(&column.name);
            if is_rowversion(column) {
                let high = min_active(client, table).await?;
                mark = Mark::Known(hex(&high));
                // What is not in an answer for all rows counts as gone: none is left out there. They come again.
                if !matches!(window, Window::All) {
                    params.push(Param::Bytes(high));
                    let _ = write!(sql, "\nWHERE q.{name} < @P{}", params.len());
                }
                if let Some((watermark, _)) = since {
                    params.push(Param::Bytes(unhex(watermark).ok_or_else(|| no_mark(table))?));
                    let _ = write!(sql, " AND q.{name} >= @P{}", params.len());
                }
            } else {
                mark = Mark::Highest(at);
                let lowest = since.map(|(text, overlap)| lowest(table, column, text, overlap)).transpose()?;
                check(table, column)?;
                if let Some(lowest) = lowest {
                    params.push(lowest);
                    let _ = write!(sql, "\nWHERE q.{name} >= @P{}", params.len());
                }
            }
        }
        _ => {}
    }
    Ok(Select { sql, params, mark, tells_gone: false, still: None })
}

fn is_rowversion(column: &Column) -> bool {
    matches!(column.native.as_str(), "timestamp" | "rowversion")
        || matches!(column.ty, ColumnType::Bytes { max_bytes: Some(8), .. })
}

async fn min_active(client: &mut Client, table: &Table) -> Result<Vec<u8>> {
    let what = format!("ask for the rowversions in use, for {}", table.id);
    let rows = client.rows(&what, "SELECT MIN_ACTIVE_ROWVERSION()", &[]).await?;
    let found = rows.into_iter().next().and_then(|row| bytes(values(row).first())).filter(|b| b.len() == 8);
    found.ok_or_else(|| Error::data(format!("{what}: no answer")))
}

fn check(table: &Table, column: &Column) -> Result<()> {
    use ColumnType as T;
    match column.ty {
        T::DateTime { .. }
        | T::Timestamp { .. }
        | T::Date
        | T::Int { .. }
        | T::UInt { .. }
        | T::Text { .. } => Ok(()),
        _ => Err(Error::config(format!(
            "{}: by `{}`, which is of {}, nothing can be polled",
            table.id, column.name, column.native
        ))
        .hint("name a rowversion, a time, a whole number, or a text that grows with every change")),
    }
}

/// Where a sliding window begins, in the column's own terms.
fn from(table: &Table, column: &Column, moment: &Moment<'_>, period: Duration) -> Result<Param> {
    let at = moment.before(period);
    Ok(match column.ty {
        ColumnType::Timestamp { .. } => Param::Moment(at),
        ColumnType::DateTime { .. } => Param::Clock(moment.zone.to_datetime(at)),
        ColumnType::Date => Param::Date(moment.zone.to_datetime(at).date()),
        _ => {
            return Err(Error::config(format!(
                "{}: `{}` is of {}, which is no time",
                table.id, column.name, column.native
            ))
            .hint("name a column that holds a time, or use {from} in `query`"));
        }
    })
}

/// The watermark less the overlap, in the column's own terms.
fn lowest(table: &Table, column: &Column, text: &str, overlap: Duration) -> Result<Param> {
    let number = || text.parse::<i64>().map_err(|_| no_mark(table));
    let micros = || Ok(number()?.saturating_sub(i64::try_from(overlap.as_micros()).unwrap_or(i64::MAX)));
    let known = |param: Option<Param>| param.ok_or_else(|| no_mark(table));
    match column.ty {
        ColumnType::DateTime { .. } => known(clock_of(micros()?).map(Param::Clock)),
        ColumnType::Timestamp { .. } => known(Timestamp::from_microsecond(micros()?).ok().map(Param::Moment)),
        ColumnType::Date => {
            known(day_of(number()? - overlap.as_secs().div_ceil(86_400) as i64).map(Param::Date))
        }
        ColumnType::Text { .. } => Ok(Param::Text(text.to_owned())),
        _ => Ok(Param::Int(number()?.saturating_sub(overlap.as_secs() as i64))),
    }
}

fn no_mark(table: &Table) -> Error {
    Error::config(format!("{}: the stored watermark is not of this column", table.id))
        .hint("the column or mode was changed: read all rows once, `caudal poll SOURCE TABLE --force`")
}

/// What was to be read from is no longer there.
fn forgotten(table: &str, what: &str, mark: &str, oldest: &str) -> Error {
    Error::config(format!("{table}: {what} goes back to {oldest} only, and changes were read up to {mark}: what lies between is lost"))
        .hint("read all rows once: `caudal poll SOURCE TABLE --force`; keep changes for longer than the source may be down")
}

async fn tracked(
    client: &mut Client,
    table: &Table,
    object: &ObjectName,
    shape: &Shape,
    window: Window<'_>,
) -> Result<Select> {
    let what = format!("ask for the version of Change Tracking, for {}", table.id);
    let sql = "SELECT CHANGE_TRACKING_CURRENT_VERSION(), CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(@P1))";
    let row = client.rows(&what, sql, &[Param::Text(object.quoted())]).await?.into_iter().next().map(values);
    let row = row.unwrap_or_default();
    let (Some(now), Some(oldest)) = (number(row.first()), number(row.get(1))) else {
        return Err(Error::config(format!("{}: Change Tracking is not enabled, or not visible", table.id)).hint(format!(
            "ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 7 DAYS); ALTER TABLE {0} ENABLE CHANGE_TRACKING; GRANT VIEW CHANGE TRACKING ON {0} TO <user>",
            object.quoted()
        )));
    };
    let mark = Mark::Known(now.to_string());
    let Window::Since { watermark: Some(since), .. } = window else {
        let sql = format!("SELECT {} FROM {} AS q", columns(shape, |_| "q"), object.quoted());
        return Ok(Select { sql, params: Vec::new(), mark, tells_gone: false, still: None });
    };
    let since: i64 = since.parse().map_err(|_| no_mark(table))?;
    if since < oldest || since > now {
        return Err(forgotten(&table.id.to_string(), TRACKING, &since.to_string(), &oldest.to_string()));
    }
    let names: Vec<String> = shape.key().map(|column| quoted(&column.name)).collect();
    let on = names.iter().map(|name| format!("q.{name} = ct.{name}")).collect::<Vec<_>>().join(" AND ");
    let first = names.first().cloned().unwrap_or_default();
    let is_key = |column: &Column| shape.key().any(|key| key.name == column.name);
    let list = columns(shape, |column| if is_key(column) { "ct" } else { "q" });
    // A row that was changed and is gone by now is gone: that it was deleted comes with a later version.
    let sql = format!(
        "SELECT CASE WHEN ct.SYS_CHANGE_OPERATION = 'D' OR q.{first} IS NULL THEN 1 ELSE 0 END AS [caudal_gone], {list} \
         FROM CHANGETABLE(CHANGES {0}, @P1) AS ct LEFT JOIN {0} AS q ON {on} WHERE ct.SYS_CHANGE_VERSION <= @P2",
        object.quoted()
    );
    let still = Some(Still::Tracked { object: object.quoted(), since });
    Ok(Select { sql, params: vec![Param::Int(since), Param::Int(now)], mark, tells_gone: true, still })
}

/// A log sequence number; none where all bytes are zero.
fn log_number(value: Option<&ColumnData<'static>>) -> Option<Vec<u8>> {
    bytes(value).filter(|lsn| lsn.len() == 10 && lsn.iter().any(|byte| *byte != 0))
}

async fn captured(
    client: &mut Client,
    table: &Table,
    (object, instance): (&ObjectName, &str),
    shape: &Shape,
    window: Window<'_>,
) -> Result<Select> {
    let what = format!("ask for the log sequence numbers of Change Data Capture, for {}", table.id);
    let sql = "SELECT sys.fn_cdc_get_min_lsn(@P1), sys.fn_cdc_get_max_lsn()";
    let row =
        client.rows(&what, sql, &[Param::Text(instance.to_owned())]).await?.into_iter().next().map(values);
    let row = row.unwrap_or_default();
    let Some(oldest) = log_number(row.first()) else {
        return Err(Error::config(format!("{}: there is no capture instance `{instance}`, or it is not visible", table.id))
            .hint("EXEC sys.sp_cdc_enable_db; EXEC sys.sp_cdc_enable_table @source_schema, @source_name, @role_name = NULL; and SQL Server Agent must run"));
    };
    // The last one that is read; before the first change of all: the one before the oldest.
    let high = log_number(row.get(1)).filter(|max| *max >= oldest).unwrap_or_else(|| stepped(&oldest, false));
    let mark = Mark::Known(hex(&high));
    let Window::Since { watermark: Some(since), .. } = window else {
        let sql = format!("SELECT {} FROM {} AS q", columns(shape, |_| "q"), object.quoted());
        return Ok(Select { sql, params: Vec::new(), mark, tells_gone: false, still: None });
    };
    let next = stepped(&unhex(since).filter(|lsn| lsn.len() == 10).ok_or_else(|| no_mark(table))?, true);
    if next < oldest {
        return Err(forgotten(&table.id.to_string(), CAPTURE, since, &hex(&oldest)));
    }
    let list = columns(shape, |_| "q");
    let gone = "CASE q.[__$operation] WHEN 1 THEN 1 ELSE 0 END AS [caudal_gone]";
    if next > high {
        // Nothing new: the function would refuse the range. The same columns, and no row.
        let sql = format!("SELECT TOP (0) 0 AS [caudal_gone], {list} FROM {} AS q", object.quoted());
        return Ok(Select {
            sql,
            params: Vec::new(),
            mark: Mark::Known(since.to_owned()),
            tells_gone: true,
            still: None,
        });
    }
    let function = quoted(&format!("fn_cdc_get_all_changes_{instance}"));
    let sql = format!(
        "SELECT {gone}, {list} FROM cdc.{function}(@P1, @P2, N'all') AS q ORDER BY q.[__$start_lsn], q.[__$seqval], q.[__$operation]"
    );
    let still =
        Still::Captured { instance: instance.to_owned(), from: next.clone(), since: since.to_owned() };
    Ok(Select {
        sql,
        params: vec![Param::Bytes(next), Param::Bytes(high)],
        mark,
        tells_gone: true,
        still: Some(still),
    })
}

/// The next, or the one before, of numbers that are written with the high byte first.
fn stepped(number: &[u8], up: bool) -> Vec<u8> {
    let mut number = number.to_vec();
    for byte in number.iter_mut().rev() {
        let (next, carries) = if up { byte.overflowing_add(1) } else { byte.overflowing_sub(1) };
        *byte = next;
        if !carries {
            break;
        }
    }
    number
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() % 2 == 0 && digits.is_ascii())?;
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sequence_numbers_are_counted_byte_by_byte() {
        let number = unhex("0x000000250000FFFFFFFF").unwrap();
        assert_eq!(hex(&stepped(&number, true)), "0x00000025000100000000");
        assert_eq!(stepped(&stepped(&number, true), false), number);
        assert_eq!((unhex("25"), unhex("0x2"), unhex("0xZZ")), (None, None, None));
    }
}
