//! What a run asks for: one SELECT, or one for each slice of its window by date, so that several are read at a time.
//!
//! # Why nothing is passed over
//!
//! * By a time or number: the next watermark is the highest value that was read, but no time that has not come yet; the next window begins the overlap before it. A
//!   row that is committed later than that is not seen.
//! * Slices are half-open and meet: `… < b1`, `>= b1 AND < b2`, …, `>= bn`. The first has no lower end but the window's own (without one, rows whose column is NULL are its, too), the last has no
//!   upper end: together they are the window. They are not of one moment: a row that moves from a slice that is to be read into one that was is met by the next run. For that it must not be deleted meanwhile:
//!   the engine deletes after two absences.

use crate::api::Query;
use crate::config::{Slices, Table};
use crate::history;
use crate::names::quoted;
use crate::param::{Param, name};
use crate::shape;
use crate::statement::{Low, Values};
use caudal_core::temporal::{MICROS_PER_DAY, civil_from_days};
use caudal_core::{Column, ColumnType, Error, Result, TableSchema};
use caudal_poll::Window;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// More slices of a window are a mistake.
const MOST_SLICES: usize = 4_000;

/// When, and by which clock.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) planned: Timestamp,
    pub(crate) zone: &'a TimeZone,
}

impl Moment<'_> {
    fn before(&self, period: Duration) -> Timestamp {
        let earlier =
            SignedDuration::try_from(period).ok().and_then(|period| self.planned.checked_sub(period).ok());
        earlier.unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// How a window is read.
#[derive(Debug)]
pub(crate) struct Plan {
    /// One for each slice.
    pub(crate) queries: Vec<Query>,
    /// The column whose highest value is the watermark.
    pub(crate) mark: Option<usize>,
    /// The watermark itself, where the service tells what changed.
    pub(crate) until: Option<String>,
}

/// The whole window in one SELECT: for its shape and its bytes. `known`: the shape, where it is known; without it the window's column has no type, and the
/// window no end.
///
/// # Errors
/// `Config` if the window cannot be read.
pub(crate) fn whole(
    table: &Table,
    known: Option<&TableSchema>,
    window: Window<'_>,
    moment: Moment<'_>,
) -> Result<Query> {
    let window = match table.history.map(|history| ((table, history), history::since(&window))) {
        Some((of, Some(since))) => {
            let until = of.1.until(moment.planned);
            let a_second_before = until.checked_sub(SignedDuration::from_secs(1)).unwrap_or(until);
            let first = history::pieces(of, since, moment)?.into_iter().next();
            return Ok(history::query(of, known, first.unwrap_or((a_second_before, until))));
        }
        Some((_, None)) => Window::All,
        None => window,
    };
    // A column that the table was given since.
    let known = known.filter(|schema| match window {
        Window::Since { column, .. } | Window::Lookback { column, .. } => {
            column.is_empty() || shape::column(schema, column).is_ok()
        }
        Window::All => true,
    });
    let mut making = Making::begin(table, known, window, moment)?;
    if let Some(schema) = known {
        making.window(schema, window, moment)?;
    }
    Ok(making.query(Vec::new()))
}

/// The window in slices, if the table is read so.
///
/// # Errors
/// `Config` if the window cannot be read.
pub(crate) fn plan(
    table: &Table,
    schema: &TableSchema,
    window: Window<'_>,
    moment: Moment<'_>,
) -> Result<Plan> {
    let until = table.history.map(|history| history.until(moment.planned).as_microsecond().to_string());
    if let Some(of) = table.history.map(|history| (table, history))
        && let Some(since) = history::since(&window)
    {
        let pieces = history::pieces(of, since, moment)?;
        let queries: Vec<Query> =
            pieces.into_iter().map(|piece| history::query(of, Some(schema), piece)).collect();
        // A run of the past moves no watermark back.
        let until = until.filter(|_| !queries.is_empty());
        return Ok(Plan { queries, mark: None, until });
    }
    let window = if table.history.is_some() { Window::All } else { window };
    let mut making = Making::begin(table, Some(schema), window, moment)?;
    let low = making.window(schema, window, moment)?;
    let column = match window {
        Window::Since { column, .. } => Some(shape::column(schema, column)?.0),
        // So that a refresh, now and then, is a begin for what is incremental.
        Window::All => {
            table.grows.as_deref().map(|name| shape::column(schema, name).map(|(at, _)| at)).transpose()?
        }
        Window::Lookback { .. } => None,
    };
    let whole = |making: &Making<'_>| {
        Ok(Plan { queries: vec![making.query(Vec::new())], mark: column, until: until.clone() })
    };
    let Some(slices) = &table.slices else { return whole(&making) };
    let name = &shape::column(schema, &slices.column)?.1.name;
    let low = low.filter(|(of, _)| of == name).map(|(_, low)| low);
    let meet = sliced(schema, slices, low.as_ref(), moment)?;
    if meet.is_empty() {
        return whole(&making);
    }
    let slice = |i| making.query(bounds(name, &meet, i, low.is_some()));
    Ok(Plan { queries: (0..=meet.len()).map(slice).collect(), mark: column, until: until.clone() })
}

/// Conditions, each a text with a place for one parameter at most.
type Condition = (String, Option<Param>);

struct Making<'a> {
    table: &'a Table,
    sql: String,
    params: Vec<Param>,
    conditions: Vec<Condition>,
}

impl<'a> Making<'a> {
    fn begin(
        table: &'a Table,
        known: Option<&TableSchema>,
        window: Window<'_>,
        moment: Moment<'_>,
    ) -> Result<Self> {
        let from = match window {
            Window::Lookback { period, .. } => Some(moment.before(period)),
            _ => None,
        };
        let low = match (window, known) {
            (Window::Since { column, watermark: Some(text), overlap }, Some(schema)) => {
                Some(lowest(schema, shape::column(schema, column)?.1, text, overlap)?)
            }
            _ => None,
        };
        let mut params = Vec::new();
        let values = Values { planned: moment.planned, zone: moment.zone, from, low };
        let inner = match &table.statement {
            // Behind a line break: the statement may end with a comment.
            Some(statement) => format!("(\n{}\n)", statement.fill(&values, &mut params)?),
            None => table.object.as_ref().map_or_else(String::new, |object| object.quoted()),
        };
        let columns = match table.columns.is_empty() {
            true => "*".to_owned(),
            false => table.columns.iter().map(|c| format!("q.{}", quoted(c))).collect::<Vec<_>>().join(", "),
        };
        let mut sql = format!("SELECT {columns} FROM {inner} AS q");
        if let Some(history) = table.history {
            params.push(Param::moment(history.until(moment.planned)));
            sql.push_str(&format!(" FOR SYSTEM_TIME AS OF @{}", name(params.len())));
        }
        Ok(Self { table, sql, params, conditions: Vec::new() })
    }

    /// Adds the window's own condition; gives its column and where it begins.
    fn window(
        &mut self,
        schema: &TableSchema,
        window: Window<'_>,
        moment: Moment<'_>,
    ) -> Result<Option<(String, Low)>> {
        let (column, low) = match window {
            Window::Lookback { column, period } if !column.is_empty() => {
                let (_, column) = shape::column(schema, column)?;
                (column, begins(schema, column, moment.before(period), moment.zone)?)
            }
            Window::Since { column, watermark, overlap } => {
                let (_, column) = shape::column(schema, column)?;
                check(schema, column)?;
                let Some(text) = watermark else { return Ok(None) };
                (column, lowest(schema, column, text, overlap)?)
            }
            _ => return Ok(None),
        };
        self.conditions.push((format!("q.{} >= ?", quoted(&column.name)), Some(low.param())));
        Ok(Some((column.name.clone(), low)))
    }

    fn query(&self, more: Vec<Condition>) -> Query {
        let (mut sql, mut params) = (self.sql.clone(), self.params.clone());
        for (i, (text, param)) in self.conditions.iter().chain(&more).enumerate() {
            let text = match param {
                Some(param) => {
                    params.push(param.clone());
                    text.replacen('?', &format!("@{}", name(params.len())), 1)
                }
                None => text.clone(),
            };
            sql.push_str(if i == 0 { "\nWHERE " } else { " AND " });
            sql.push_str(&text);
        }
        Query { what: format!("read {}", self.table.id), sql, params, most_billed: self.table.most_billed }
    }
}

/// Where slices meet, in the order of the column.
fn sliced(schema: &TableSchema, slices: &Slices, low: Option<&Low>, moment: Moment<'_>) -> Result<Vec<Low>> {
    let (_, column) = shape::column(schema, &slices.column)?;
    let begin = match low {
        Some(Low::Moment(at)) => Some(*at),
        Some(Low::Clock(at)) => {
            moment.zone.to_ambiguous_zoned(*at).compatible().ok().map(|at| at.timestamp())
        }
        Some(Low::Date(day)) => midnight(*day, moment.zone),
        Some(Low::Int(_) | Low::Text(_)) => None,
        None => slices.since.and_then(|day| midnight(day, moment.zone)),
    };
    let Some(begin) = begin else { return Ok(Vec::new()) };
    let step = SignedDuration::try_from(slices.step).unwrap_or(SignedDuration::from_hours(24));
    let mut meet = Vec::new();
    let mut at = begin;
    while let Ok(next) = at.checked_add(step) {
        if next > moment.planned {
            break;
        }
        meet.push(begins(schema, column, next, moment.zone)?);
        if meet.len() > MOST_SLICES {
            return Err(Error::config(format!(
                "{}: the window has more than {MOST_SLICES} slices",
                schema.id
            ))
            .hint("make `slice` longer"));
        }
        at = next;
    }
    meet.dedup();
    Ok(meet)
}

fn midnight(day: Date, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_ambiguous_zoned(day.at(0, 0, 0, 0)).compatible().ok().map(|at| at.timestamp())
}

/// The conditions of slice `i` of those that meet at `meet`.
fn bounds(column: &str, meet: &[Low], i: usize, has_low: bool) -> Vec<Condition> {
    let column = quoted(column);
    let lower = i.checked_sub(1).map(|i| (format!("q.{column} >= ?"), Some(meet[i].param())));
    let upper = meet.get(i).map(|end| match (i, has_low) {
        (0, false) => (format!("(q.{column} < ? OR q.{column} IS NULL)"), Some(end.param())),
        _ => (format!("q.{column} < ?"), Some(end.param())),
    });
    lower.into_iter().chain(upper).collect()
}

fn check(schema: &TableSchema, column: &Column) -> Result<()> {
    use ColumnType as T;
    match column.ty {
        T::DateTime { .. } | T::Timestamp { .. } | T::Date | T::Int { .. } | T::Text { .. } => Ok(()),
        _ => Err(Error::config(format!(
            "{}: by `{}`, which is of {}, nothing can be polled",
            schema.id, column.name, column.native
        ))
        .hint("name a time, a whole number, or a text that grows with every change")),
    }
}

/// A moment in the column's own terms.
fn begins(schema: &TableSchema, column: &Column, at: Timestamp, zone: &TimeZone) -> Result<Low> {
    Ok(match column.ty {
        ColumnType::Timestamp { .. } => Low::Moment(at),
        ColumnType::DateTime { .. } => Low::Clock(zone.to_datetime(at)),
        ColumnType::Date => Low::Date(zone.to_datetime(at).date()),
        _ => {
            return Err(Error::config(format!(
                "{}: `{}` is of {}, which is no time",
                schema.id, column.name, column.native
            ))
            .hint("name a column that holds a time, or use {from} in `query`"));
        }
    })
}

/// The watermark less the overlap, in the column's own terms.
fn lowest(schema: &TableSchema, column: &Column, text: &str, overlap: Duration) -> Result<Low> {
    let lost = || {
        Error::config(format!("{}: the stored watermark is not of this column", schema.id))
            .hint("the column or mode was changed: read all rows once, `caudal poll SOURCE TABLE --force`")
    };
    let number = || text.parse::<i64>().map_err(|_| lost());
    let micros = || Ok(number()?.saturating_sub(i64::try_from(overlap.as_micros()).unwrap_or(i64::MAX)));
    match column.ty {
        ColumnType::Timestamp { .. } => {
            Timestamp::from_microsecond(micros()?).map(Low::Moment).map_err(|_| lost())
        }
        ColumnType::DateTime { .. } => clock(micros()?).map(Low::Clock).ok_or_else(lost),
        ColumnType::Date => day(number()?.saturating_sub(overlap.as_secs().div_ceil(86_400) as i64))
            .map(Low::Date)
            .ok_or_else(lost),
        ColumnType::Text { .. } => Ok(Low::Text(text.to_owned())),
        _ => Ok(Low::Int(number()?.saturating_sub(overlap.as_secs() as i64))),
    }
}

fn day(days: i64) -> Option<Date> {
    let within = (-719_162..=2_932_896).contains(&days).then_some(days)?;
    let (year, month, day) = civil_from_days(within);
    Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

fn clock(micros: i64) -> Option<DateTime> {
    let date = day(micros.div_euclid(MICROS_PER_DAY))?;
    let since = SignedDuration::from_micros(micros.rem_euclid(MICROS_PER_DAY));
    date.at(0, 0, 0, 0).checked_add(since).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Object;
    use crate::types::Field;
    use caudal_core::{KeyKind, TableId};
    use caudal_poll::{Mode, Schedule};

    fn table(slices: Option<Slices>) -> Table {
        Table {
            id: TableId::new("d", "t"),
            statement: None,
            object: Object::parse("t", "p", Some("d")),
            columns: Vec::new(),
            key: vec!["id".to_owned()],
            mode: Mode::FullRefresh,
            grows: None,
            history: None,
            slices,
            most_billed: None,
            schedule: Schedule::Every(Duration::from_secs(1)),
        }
    }

    fn schema(table: &Table, ty: &str) -> TableSchema {
        let field = |name: &str, ty: &str| Field { name: name.into(), ty: ty.into(), ..Field::default() };
        let fields = [field("id", "INTEGER"), field("at", ty)];
        shape::shape(table, &fields, &table.key, KeyKind::Configured).unwrap()
    }

    fn slices(days: u64, since: Option<Date>) -> Option<Slices> {
        Some(Slices { column: "at".to_owned(), step: Duration::from_secs(days * 86_400), since })
    }

    /// The conditions of each query, with what is bound in their places.
    fn asked(table: &Table, ty: &str, window: Window<'_>, zone: &str) -> Vec<String> {
        let zone = TimeZone::get(zone).unwrap();
        let moment = Moment { planned: "2026-03-10T03:00:00Z".parse().unwrap(), zone: &zone };
        let plan = plan(table, &schema(table, ty), window, moment).unwrap();
        let filled = |query: Query| {
            let mut text = query.sql.split_once("WHERE ").map_or(String::new(), |(_, text)| text.to_owned());
            for (i, param) in query.params.iter().enumerate().rev() {
                text = text.replace(&format!("@{}", name(i + 1)), &param.value);
            }
            text
        };
        plan.queries.into_iter().map(filled).collect()
    }

    #[test]
    fn slices_meet_and_are_the_window_together() {
        let since = Some(jiff::civil::date(2026, 3, 1));
        let sliced = table(slices(3, since));
        // Ten at night of the 9th in Lima. Without an end of its own the first one has what is older, and what has no date.
        assert_eq!(
            asked(&sliced, "DATE", Window::All, "America/Lima"),
            [
                "(q.`at` < 2026-03-04 OR q.`at` IS NULL)",
                "q.`at` >= 2026-03-04 AND q.`at` < 2026-03-07",
                "q.`at` >= 2026-03-07",
            ]
        );
        let lookback = Window::Lookback { column: "at", period: Duration::from_secs(4 * 86_400) };
        assert_eq!(
            asked(&sliced, "DATE", lookback, "America/Lima"),
            ["q.`at` >= 2026-03-05 AND q.`at` < 2026-03-08", "q.`at` >= 2026-03-05 AND q.`at` >= 2026-03-08",]
        );
        // 2026-03-05 in days, less a day.
        let since =
            Window::Since { column: "at", watermark: Some("20517"), overlap: Duration::from_secs(300) };
        assert_eq!(
            asked(&sliced, "DATE", since, "America/Lima"),
            ["q.`at` >= 2026-03-04 AND q.`at` < 2026-03-07", "q.`at` >= 2026-03-04 AND q.`at` >= 2026-03-07",]
        );
        assert_eq!(
            asked(&table(slices(3, None)), "DATE", Window::All, "America/Lima"),
            [""],
            "nothing to begin at"
        );
    }

    #[test]
    fn a_window_begins_in_the_columns_own_terms() {
        let plain = table(None);
        let lookback = Window::Lookback { column: "AT", period: Duration::from_secs(86_400) };
        for (ty, expected) in [
            ("DATE", "q.`at` >= 2026-03-08"),
            ("DATETIME", "q.`at` >= 2026-03-08T22:00:00.000000"),
            ("TIMESTAMP", "q.`at` >= 2026-03-09 03:00:00.000000+00:00"),
        ] {
            assert_eq!(asked(&plain, ty, lookback, "America/Lima"), [expected]);
        }
        let since = |watermark| Window::Since { column: "at", watermark, overlap: Duration::from_secs(60) };
        for (ty, watermark, expected) in [
            ("TIMESTAMP", Some("1772359200000001"), "q.`at` >= 2026-03-01 09:59:00.000001+00:00"),
            ("DATETIME", Some("1772359200000001"), "q.`at` >= 2026-03-01T09:59:00.000001"),
            ("INTEGER", Some("100"), "q.`at` >= 40"),
            ("STRING", Some("b"), "q.`at` >= b"),
            ("STRING", None, ""),
        ] {
            assert_eq!(asked(&plain, ty, since(watermark), "UTC"), [expected], "{ty}");
        }
        let schema = schema(&plain, "FLOAT");
        let moment = Moment { planned: Timestamp::UNIX_EPOCH, zone: &TimeZone::UTC };
        assert!(plan(&plain, &schema, since(Some("1")), moment).is_err(), "a float is no watermark");
        assert!(plan(&plain, &schema, lookback, moment).is_err());
    }
}
