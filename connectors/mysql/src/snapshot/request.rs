//! Re-reads: what may ask for one, and how it is stored until it is done.
//!
//! A request is a note of the source's position (`reread/<id>`), written with the batch that holds, or follows, what asked for it:
//! so a statement that was passed has its re-read stored, whenever the process dies. A request that a resent transaction makes
//! again is the same request.

use crate::snapshot::bounds::Stored;
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
        Self { id, table, rows, reason, asked_by: String::new() }
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
