//! Changes as the service tells them: `CHANGES(TABLE t, …)` and `APPENDS(TABLE t, …)`.
//!
//! # Why nothing is missed
//!
//! * The first run, and a forced one, read the table as it was at one moment (`FOR SYSTEM_TIME AS OF`), and that moment is the watermark. Later runs read what was
//!   committed from the watermark on up to another moment, which is the next watermark: windows are half-open, as the service's are, and meet.
//! * That moment lies back as far as the service asks for: CHANGES tells nothing of the last ten minutes. So what a window holds is final, but for the overlap of what is
//!   appended, which is read again.
//! * Of several changes of a key in a window the last one counts; of those of one transaction one that leaves a row, for what was deleted and put there again is there. Windows are
//!   cut into pieces of a day, the most that CHANGES takes; they are taken in their order.
//! * What lies further back than the service remembers (seven days at most) is an error, not a gap.
//!
//! The rules are those of Google's reference, "Time series functions" and "Work with change history" (GoogleSQL).

use crate::api::Query;
use crate::config::Table;
use crate::names::quoted;
use crate::param::{Param, name};
use crate::select::Moment;
use crate::types::Field;
use caudal_core::{Error, Result, TableSchema};
use caudal_poll::Window;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Which of the service's functions tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// Inserts, updates and deletes of a table with `enable_change_history`.
    Changes,
    /// Rows that were added, of any table.
    Appends,
}

/// The column in front of the table's own: whether the row is gone.
const GONE: &str = "caudal_gone";
/// The most that CHANGES takes.
const PIECE: SignedDuration = SignedDuration::from_hours(24);
/// The longest that any table's history goes back.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(7 * 24);

impl History {
    fn function(self) -> &'static str {
        match self {
            Self::Changes => "CHANGES",
            Self::Appends => "APPENDS",
        }
    }

    /// How far behind the present a window ends: what the service asks for, and a minute for this machine's clock.
    fn behind(self) -> SignedDuration {
        match self {
            Self::Changes => SignedDuration::from_mins(11),
            Self::Appends => SignedDuration::from_mins(1),
        }
    }

    /// Up to when the run of a time reads.
    pub(crate) fn until(self, planned: Timestamp) -> Timestamp {
        planned.checked_sub(self.behind()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// The watermark that a window goes on from; none if all rows are read.
pub(crate) fn since<'a>(window: &Window<'a>) -> Option<(&'a str, Duration)> {
    match *window {
        Window::Since { watermark: Some(text), overlap, .. } => Some((text, overlap)),
        _ => None,
    }
}

/// The pieces of a window, in their order; none where it has not begun yet.
///
/// # Errors
/// `Config` where the service does not remember so long.
pub(crate) fn pieces(
    (table, history): (&Table, History),
    (mark, overlap): (&str, Duration),
    moment: Moment<'_>,
) -> Result<Vec<(Timestamp, Timestamp)>> {
    let read = || Timestamp::from_microsecond(mark.parse().ok()?).ok();
    let mark = read().ok_or_else(|| {
        Error::config(format!("{}: the stored watermark is no time", table.id))
            .hint("the mode was changed: read all rows once, `caudal poll SOURCE TABLE --force`")
    })?;
    let until = history.until(moment.planned);
    if moment.planned.duration_since(mark) > REMEMBERED {
        return Err(Error::config(format!(
            "{}: changes were read up to {mark}, and BigQuery remembers seven days: what lies between may be lost",
            table.id
        ))
        .hint("read all rows once: `caudal poll SOURCE TABLE --force`"));
    }
    let mut at = mark.checked_sub(overlap).unwrap_or(mark);
    let mut pieces = Vec::new();
    // A window without anything new has no piece, not even the overlap's.
    while mark < until && at < until {
        let end = at.checked_add(PIECE).map_or(until, |end| end.min(until));
        pieces.push((at, end));
        at = end;
    }
    Ok(pieces)
}

/// What changed between two moments.
pub(crate) fn query(
    (table, history): (&Table, History),
    known: Option<&TableSchema>,
    (from, to): (Timestamp, Timestamp),
) -> Query {
    let columns = match table.columns.is_empty() {
        true => "q.* EXCEPT (_CHANGE_TYPE, _CHANGE_TIMESTAMP)".to_owned(),
        false => table.columns.iter().map(|c| format!("q.{}", quoted(c))).collect::<Vec<_>>().join(", "),
    };
    let key: Vec<String> = match known.filter(|schema| !schema.key.is_empty()) {
        Some(schema) => schema.key.iter().map(|&i| quoted(&schema.columns[i as usize].name)).collect(),
        None => table.key.iter().map(|name| quoted(name)).collect(),
    };
    let last = match key.is_empty() {
        // Only for its shape and its bytes.
        true => String::new(),
        false => format!(
            "\nQUALIFY ROW_NUMBER() OVER (PARTITION BY {} ORDER BY q._CHANGE_TIMESTAMP DESC, q._CHANGE_TYPE = 'DELETE') = 1",
            key.iter().map(|column| format!("q.{column}")).collect::<Vec<_>>().join(", ")
        ),
    };
    let object = table.object.as_ref().map_or_else(String::new, |object| object.quoted());
    let sql = format!(
        "SELECT q._CHANGE_TYPE = 'DELETE' AS {GONE}, {columns} FROM {}(TABLE {object}, @{}, @{}) AS q\nWHERE TRUE{last}",
        history.function(),
        name(1),
        name(2),
    );
    Query {
        what: format!("read the changes of {}", table.id),
        sql,
        params: vec![Param::moment(from), Param::moment(to)],
        most_billed: table.most_billed,
    }
}

/// The table's own fields of an answer, and whether each row says in front of them that it is gone.
pub(crate) fn own<'a>(table: &Table, fields: &'a [Field]) -> (&'a [Field], bool) {
    match fields {
        [first, rest @ ..] if table.history.is_some() && first.name == GONE => (rest, true),
        _ => (fields, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Object;
    use caudal_core::TableId;
    use caudal_poll::{Mode, Schedule};
    use jiff::tz::TimeZone;

    fn table(history: History) -> Table {
        Table {
            id: TableId::new("d", "t"),
            statement: None,
            object: Object::parse("t", "p", Some("d")),
            columns: Vec::new(),
            key: vec!["id".to_owned(), "día".to_owned()],
            mode: Mode::Incremental { column: String::new(), overlap: Duration::ZERO },
            grows: None,
            history: Some(history),
            slices: None,
            most_billed: None,
            schedule: Schedule::Every(Duration::from_secs(1)),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cut(history: History, mark: &str, overlap: u64, planned: &str) -> Result<Vec<String>> {
        let moment = Moment { planned: at(planned), zone: &TimeZone::UTC };
        let mark = at(mark).as_microsecond().to_string();
        let pieces = pieces((&table(history), history), (&mark, Duration::from_secs(overlap)), moment)?;
        Ok(pieces.into_iter().map(|(from, to)| format!("{from} {to}")).collect())
    }

    #[test]
    fn windows_are_cut_into_days_that_meet_and_end_where_the_service_tells_all() {
        let changes = |mark, planned| cut(History::Changes, mark, 0, planned).unwrap();
        assert_eq!(
            changes("2026-03-01T10:00:00Z", "2026-03-03T09:11:00Z"),
            ["2026-03-01T10:00:00Z 2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z 2026-03-03T09:00:00Z",]
        );
        // Nothing is final yet that was not read.
        assert!(changes("2026-03-01T10:00:00Z", "2026-03-01T10:11:00Z").is_empty());
        let appends = cut(History::Appends, "2026-03-01T10:00:00Z", 300, "2026-03-01T11:01:00Z").unwrap();
        assert_eq!(appends, ["2026-03-01T09:55:00Z 2026-03-01T11:00:00Z"]);
        let lost = cut(History::Changes, "2026-03-01T10:00:00Z", 0, "2026-03-08T10:00:01Z").unwrap_err();
        assert!(lost.hint_text().unwrap().contains("--force"), "{lost}");
    }

    #[test]
    fn of_each_key_the_last_change_is_asked_for_and_moments_are_bound() {
        let piece = (at("2026-03-01T10:00:00Z"), at("2026-03-01T11:00:00Z"));
        let query = query((&table(History::Changes), History::Changes), None, piece);
        assert_eq!(
            query.sql,
            "SELECT q._CHANGE_TYPE = 'DELETE' AS caudal_gone, q.* EXCEPT (_CHANGE_TYPE, _CHANGE_TIMESTAMP) \
             FROM CHANGES(TABLE `p.d.t`, @caudal_1, @caudal_2) AS q\nWHERE TRUE\nQUALIFY ROW_NUMBER() OVER \
             (PARTITION BY q.`id`, q.`día` ORDER BY q._CHANGE_TIMESTAMP DESC, q._CHANGE_TYPE = 'DELETE') = 1"
        );
        assert_eq!(query.params[0].value, "2026-03-01 10:00:00.000000+00:00");
        let appends = super::query((&table(History::Appends), History::Appends), None, piece);
        assert!(appends.sql.contains("FROM APPENDS(TABLE `p.d.t`, @caudal_1, @caudal_2)"));
    }
}
