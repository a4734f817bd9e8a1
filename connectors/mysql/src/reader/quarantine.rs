//! Tables that cannot be followed for now, set aside one by one.
//!
//! A table whose rows cannot be read (their shape is not known, or a column's type) is set aside alone; the stream goes on without
//! its rows. When the stream has passed the place where the log ended when that was found out, what `information_schema`
//! says holds for the rows that follow, so the table is taken up again: it is read anew, reconciled with what was delivered.
//! If that fails again, the next try waits twice as long. A statement that changes the table brings the next try forward.
//!
//! It is said in the log, in a note of the position (`quarantine/<db>.<table>`: cause and since when), and to the source, for
//! status and metrics. Memory: one entry per table set aside.

use super::MySqlReader;
use crate::snapshot::{Reason, Request};
use caudal_core::{Error, Result, SetAside, TableId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Prefix of the notes.
pub(crate) const NOTE: &str = "quarantine/";
/// The first try comes after this, then after twice as long each time.
const FIRST: Duration = Duration::from_secs(1);
/// No try waits longer.
const LONGEST: Duration = Duration::from_secs(300);

/// What the source shows of them.
pub(crate) type Shown = Arc<Mutex<Vec<SetAside>>>;

struct Entry {
    cause: String,
    since_us: i64,
    /// The end of the log when it was set aside.
    until: (String, u64),
    next: Instant,
    held: bool,
    wait: Duration,
}

/// Tables that are set aside, and those that lately were.
#[derive(Default)]
pub(crate) struct Quarantine {
    tables: BTreeMap<TableId, Entry>,
    shown: Shown,
}

impl Quarantine {
    /// With what the position's notes tell.
    pub(crate) fn new(shown: Shown, notes: &BTreeMap<String, Option<String>>) -> Self {
        let stored =
            notes.iter().filter(|(name, _)| name.starts_with(NOTE)).filter_map(|(_, text)| text.as_ref());
        let read = stored.filter_map(|text| serde_json::from_str::<SetAside>(text).ok());
        let entry = |aside: SetAside| (aside.table, Entry::new(aside.cause, aside.since_us, start(), FIRST));
        let quarantine = Self { tables: read.map(entry).collect(), shown };
        quarantine.show();
        quarantine
    }

    /// Tables that cannot be captured as they are now.
    pub(crate) fn refuse(&mut self, tables: BTreeMap<TableId, Error>, ts_us: i64) {
        for (id, error) in tables {
            tracing::error!(table = %id, cause = %error, "the table cannot be followed: it is set aside");
            self.tables.entry(id).or_insert_with(|| Entry::new(error.to_string(), ts_us, start(), FIRST));
        }
        self.show();
    }

    /// Tables whose rows are passed over.
    pub(super) fn held(&self) -> impl Iterator<Item = &TableId> {
        self.tables.iter().filter(|(_, e)| e.held).map(|(id, _)| id)
    }

    /// Whether rows of this table are passed over.
    pub(super) fn holds(&self, id: &TableId) -> bool {
        !self.tables.is_empty() && self.tables.get(id).is_some_and(|e| e.held)
    }

    /// A statement changed these tables: what was in the way may be gone.
    pub(super) fn changed(&mut self, ids: &[TableId]) {
        for id in ids {
            if let Some(entry) = self.tables.get_mut(id) {
                (entry.next, entry.wait) = (Instant::now(), FIRST);
            }
        }
    }

    /// When the next try is due.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.tables.values().filter(|e| e.held).map(|e| e.next).min()
    }

    fn show(&self) {
        let held = self.tables.iter().filter(|(_, e)| e.held);
        let list =
            held.map(|(id, e)| SetAside { table: id.clone(), cause: e.cause.clone(), since_us: e.since_us });
        if let Ok(mut shown) = self.shown.lock() {
            *shown = list.collect();
        }
    }
}

/// Before any place.
fn start() -> (String, u64) {
    (String::new(), 0)
}

impl Entry {
    fn new(cause: String, since_us: i64, until: (String, u64), wait: Duration) -> Self {
        Self { cause, since_us, until, next: Instant::now() + wait, held: true, wait }
    }
}

impl MySqlReader {
    /// Sets a table aside: its rows are passed over until it can be followed again.
    pub(super) async fn set_aside(&mut self, id: &TableId, error: &Error) -> Result<()> {
        self.sql.revive().await?;
        let until = super::clock::log_end(&mut self.sql).await?;
        let before = self.quarantine.tables.get(id).map(|e| e.wait);
        let wait = before.map_or(FIRST, |w| (w * 2).min(LONGEST));
        tracing::error!(
            source = self.config.name,
            table = %id,
            cause = %error,
            hint = error.hint_text(),
            retry_in = ?wait,
            "the table cannot be followed: it is set aside, and read again when it can be"
        );
        let entry = Entry::new(error.to_string(), self.ts_us, until, wait);
        let aside = SetAside { table: id.clone(), cause: entry.cause.clone(), since_us: entry.since_us };
        let text = serde_json::to_string(&aside).unwrap_or_default();
        self.notes.insert(format!("{NOTE}{id}"), Some(text));
        self.quarantine.tables.insert(id.clone(), entry);
        self.quarantine.show();
        Ok(())
    }

    /// Between two transactions: takes up tables whose time has come.
    pub(super) async fn take_up(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.quarantine.wakes_at().is_none_or(|at| at > now) {
            return Ok(());
        }
        let due = |e: &Entry| e.held && e.next <= now && self.place.reaches(&e.until.0, e.until.1);
        let ids: Vec<TableId> =
            self.quarantine.tables.iter().filter(|(_, e)| due(e)).map(|(id, _)| id.clone()).collect();
        for id in self.quarantine.tables.values_mut().filter(|e| e.held && e.next <= now) {
            id.next = now + id.wait;
        }
        if !ids.is_empty() {
            self.sql.revive().await?;
        }
        for id in ids {
            let followable = self.timeline.refresh(&mut self.sql, &id).await?.is_some();
            let Some(entry) = self.quarantine.tables.get_mut(&id) else { continue };
            if !followable {
                entry.wait = (entry.wait * 2).min(LONGEST);
                entry.next = now + entry.wait;
                continue;
            }
            entry.held = false;
            tracing::info!(source = self.config.name, table = %id, "the table is followed again: it is read anew");
            self.notes.insert(format!("{NOTE}{id}"), None);
            self.snapshot.request(Request::table(id, Reason::Quarantine));
        }
        self.quarantine.show();
        Ok(())
    }
}
