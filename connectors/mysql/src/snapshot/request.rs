//! Re-reads: what may ask for one, and how it is stored until it is done.
//!
//! A request is a note of the source's position (`reread/<id>`), written with the batch that holds, or follows, what asked for it:
//! so a statement that was passed has its re-read stored, whenever the process dies. A request that a resent transaction makes
//! again is the same request. The note also says how far the re-read is ([`Far`]), once it takes more than one chunk.

use crate::snapshot::bounds::Stored;
use crate::snapshot::progress::RangeNote;
use caudal_core::TableId;
use serde::{Deserialize, Serialize};

/// Most (columns, values) rows of one request by key; a longer list becomes a re-read of the table.
pub(crate) const MAX_VALUES: usize = 10_000;

/// Why rows are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// Somebody asked for it.
    Asked,
    /// A statement changed rows without row events.
    Statement,
    /// A foreign key's rule changed rows without row events.
    Cascade,
    /// An event told a row in part.
    Partial,
    /// The table could not be followed for a while.
    Quarantine,
    /// The configuration left the table out for a while.
    Returned,
}

impl Reason {
    /// For logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked for",
            Self::Statement => "a statement changed rows that the log does not show",
            Self::Cascade => "a foreign key's rule changed rows that the log does not show",
            Self::Partial => "an event told a row in part",
            Self::Quarantine => "the table could not be followed for a while",
            Self::Returned => "the configuration left the table out for a while",
        }
    }
}

/// Which rows are read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rows {
    /// The whole table, reconciled with what the log's topic holds: rows that are gone are deleted there.
    All,
    /// Rows whose columns have one of these values, and rows that the topic holds with these values: a set of keys, or the
    /// children of some parents.
    Matching {
        /// By name.
        columns: Vec<String>,
        /// One value for each of `columns`; at most [`MAX_VALUES`] rows.
        values: Vec<Vec<Stored>>,
    },
    /// Rows that meet a condition in SQL, which the operator wrote.
    Where {
        /// As it goes behind WHERE.
        condition: String,
    },
}

/// How far a re-read is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Far {
    /// What is not cut into ranges yet lies behind this key; all with none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<Vec<Stored>>,
    /// Ranges that readers had begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ranges: Vec<RangeNote>,
    /// Only `ranges` are left, and then the keys that no chunk brought.
    #[serde(default)]
    pub(crate) cut: bool,
    /// Rows read, delivered, deleted.
    pub(crate) rows: (u64, u64, u64),
    /// Names what was met ([`super::met`]).
    pub(crate) met: String,
}

/// A re-read of rows of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Names the request; made by [`Request::new`] from its content, so that the same request twice is one.
    pub(crate) id: String,
    /// The table.
    pub(crate) table: TableId,
    /// Which of its rows.
    pub(crate) rows: Rows,
    /// Why.
    pub(crate) reason: Reason,
    /// The id of the command that asked for it; empty where the source asked itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) asked_by: String,
    /// How far it is, as it was stored. What waits while it is going on says nothing of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) far: Option<Far>,
}

impl Request {
    /// A request. The table need not exist any more, nor be captured: then nothing happens.
    pub(crate) fn new(table: TableId, rows: Rows, reason: Reason) -> Self {
        let rows = match rows {
            Rows::Matching { values, .. } if values.len() > MAX_VALUES => Rows::All,
            rows => rows,
        };
        let content = serde_json::to_vec(&(&table, &rows)).unwrap_or_default();
        let id = format!("{:016x}", crate::canonical::stable_hash(&content));
        Self { id, table, rows, reason, asked_by: String::new(), far: None }
    }

    /// The whole table.
    pub(crate) fn table(table: TableId, reason: Reason) -> Self {
        Self::new(table, Rows::All, reason)
    }

    /// The same, asked for by a command.
    pub(crate) fn asked_by(self, command: &str) -> Self {
        Self { asked_by: command.to_owned(), ..self }
    }

    /// The name of its note.
    pub(crate) fn note(&self) -> String {
        reread_note(&self.id)
    }

    /// Its note's text.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Takes the values of `other` in, if both are asked for by the source itself, of the same table and columns, and they are not too many.
    /// The topic is read once for both then.
    pub(crate) fn take_in(&mut self, other: &Self) -> bool {
        let own = |r: &Self| r.asked_by.is_empty() && r.reason != Reason::Asked && r.far.is_none();
        if self.table != other.table || !own(self) || !own(other) {
            return false;
        }
        let (Rows::Matching { columns, values }, Rows::Matching { columns: same, values: more }) =
            (&mut self.rows, &other.rows)
        else {
            return false;
        };
        let fits = columns == same && values.len() + more.len() <= MAX_VALUES;
        if fits {
            values.extend_from_slice(more);
        }
        fits
    }

    /// Whether all that `other` asks for is done when this is.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.table == other.table && (self.rows == Rows::All || self.rows == other.rows)
    }
}

/// The name of a re-read's note.
pub(crate) fn reread_note(id: &str) -> String {
    format!("reread/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_requests_of_the_same_columns_become_one_and_others_do_not() {
        let of = |table: &str, column: &str, values: std::ops::Range<i64>| {
            let values = values.map(|n| vec![Stored::Int(n)]).collect();
            let rows = Rows::Matching { columns: vec![column.to_owned()], values };
            Request::new(TableId::new("d", table), rows, Reason::Cascade)
        };
        let mut one = of("t", "p", 0..2);
        assert!(one.take_in(&of("t", "p", 2..3)));
        let Rows::Matching { values, .. } = &one.rows else { panic!("by values") };
        assert_eq!(values.len(), 3);
        for other in [
            of("t", "q", 0..1),
            of("u", "p", 0..1),
            of("t", "p", 0..MAX_VALUES as i64 - 2),
            Request::table(TableId::new("d", "t"), Reason::Cascade),
            of("t", "p", 5..6).asked_by("somebody"),
            Request { far: Some(Far::default()), ..of("t", "p", 5..6) },
        ] {
            assert!(!one.take_in(&other), "{other:?}");
        }
    }

    #[test]
    fn the_same_request_twice_is_one_and_a_whole_table_covers_its_parts() {
        let id = TableId::new("d", "t");
        let keys = |n| Rows::Matching { columns: vec!["a".into()], values: vec![vec![Stored::Int(n)]] };
        let one = Request::new(id.clone(), keys(1), Reason::Partial);
        assert_eq!(one.id, Request::new(id.clone(), keys(1), Reason::Cascade).id);
        assert_ne!(one.id, Request::new(id.clone(), keys(2), Reason::Partial).id);
        let all = Request::table(id, Reason::Statement);
        assert!(all.covers(&one) && !one.covers(&all));
        assert_eq!(serde_json::from_str::<Request>(&one.text()).unwrap(), one);
    }
}
