//! Statements of the log: what they do to captured tables.
//!
//! No statement stops the stream. One that changes rows without telling them has its tables read again ([`crate::ddl::Effect`]);
//! the request is stored with the batch that passes the statement, and the reading begins behind it, so it sees its effect.
//!
//! A table that is dropped, or gets another name, keeps its rows in the log until one of its name is made anew: then the log's
//! table is emptied first, for none of its rows is in the new one. That a table is gone is noted (`gone/<db>.<table>`), since
//! `CREATE TABLE IF NOT EXISTS` is logged also when it did nothing.

use super::MySqlReader;
use crate::binlog::{AlterPhase, Query};
use crate::ddl::{self, Alter, Create, Effect, Statement};
use crate::snapshot::progress::{TableNote, table_note};
use crate::snapshot::{Reason, Request, Verdict};
use caudal_core::batch::NO_ROW;
use caudal_core::{Ddl, EventHead, Op, Result, SnapshotMark, TableId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Statements older than this are not worth asking for the shapes behind them.
const RECENT: Duration = Duration::from_secs(300);
/// Prefix of the notes of tables that are gone.
pub(crate) const GONE: &str = "gone/";

/// Prefix of the notes of tables that have had a column added since their newest version.
pub(crate) const ADDED: &str = "added/";

/// The tables that a position's notes name behind a prefix.
pub(crate) fn noted_tables(notes: &BTreeMap<String, Option<String>>, prefix: &str) -> BTreeSet<TableId> {
    let id = |(name, _): (&String, _)| {
        let (database, table) = name.strip_prefix(prefix)?.split_once('.')?;
        Some(TableId::new(database, table))
    };
    notes.iter().filter_map(id).collect()
}

impl MySqlReader {
    /// A statement: what it does to captured tables.
    pub(super) fn statement(&mut self, query: &Query, pos: u64) -> Result<()> {
        let Some(tx) = &self.tx else { return Ok(()) };
        if tx.replayed || matches!(tx.begin.alter, Some(AlterPhase::Start | AlterPhase::Rollback(_))) {
            return Ok(());
        }
        let shape = |id: &TableId| self.timeline.known(id).map(|known| &*known.schema);
        match ddl::read(&query.statement, &query.database, &shape) {
            Statement::Other => {}
            Statement::Truncate(id) => self.truncate(&id, pos)?,
            Statement::Create(id, how) => self.create(id, how, query, pos)?,
            Statement::Alter(alter) => self.alter(alter, query, pos),
            Statement::Drop(ids) => self.drop_tables(&ids, query, pos),
            Statement::DropDatabase(name) => {
                let of = |(id, _): (&TableId, _)| (id.database == name).then(|| id.clone());
                let ids: Vec<TableId> = self.timeline.tables().filter_map(of).collect();
                self.drop_tables(&ids, query, pos);
            }
            Statement::Rename(pairs) => self.rename(&pairs, query, pos),
            Statement::Unknown(names) => self.unknown(names, query, pos),
            Statement::Rows(id) => self.rows_by_statement(id),
        }
        Ok(())
    }

    fn selects(&self, id: &TableId) -> bool {
        self.config.selection.selects(id)
    }

    fn read_table(&mut self, id: &TableId) {
        if self.selects(id) {
            self.snapshot.request(Request::table(id.clone(), Reason::Statement));
        }
    }

    fn alter(&mut self, alter: Alter, query: &Query, pos: u64) {
        let Alter { table, effect, adds, renamed, others } = alter;
        let mut all = vec![table.clone()];
        all.extend(others.iter().cloned());
        let mut read: Vec<&TableId> = Vec::new();
        // Rows up to here may have been told by the shape that comes only now.
        if effect >= Effect::Rewrites || self.timeline.guessed(&table, &self.place) {
            read.push(&table);
        }
        if effect >= Effect::Replaces {
            read.extend(&others);
        }
        for id in read {
            self.read_table(id);
        }
        if adds && self.selects(&table) {
            self.timeline.adds_columns(&table);
            self.notes.insert(format!("{ADDED}{table}"), Some("{}".to_owned()));
            self.added.insert(table.clone());
        }
        self.shapes_changed(query, &all, pos);
        if let Some(new) = renamed {
            self.renamed(&table, &new);
            self.shapes_changed(query, &[new], pos);
        }
    }

    fn drop_tables(&mut self, ids: &[TableId], query: &Query, pos: u64) {
        for id in ids {
            self.gone(id);
        }
        self.shapes_changed(query, ids, pos);
    }

    fn gone(&mut self, id: &TableId) {
        if self.selects(id) && self.timeline.known(id).is_some() {
            self.gone.insert(id.clone());
            self.notes.insert(format!("{GONE}{id}"), Some("{}".to_owned()));
        }
    }

    fn rename(&mut self, pairs: &[(TableId, TableId)], query: &Query, pos: u64) {
        for (from, to) in pairs {
            self.renamed(from, to);
        }
        let all: Vec<TableId> = pairs.iter().flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        self.shapes_changed(query, &all, pos);
    }

    /// All rows of the new name were another table's, in the log as in the source: it is read, whatever was known of it.
    fn renamed(&mut self, from: &TableId, to: &TableId) {
        self.gone(from);
        if self.selects(to) {
            self.there(to);
            self.read_table(to);
        }
    }

    fn create(&mut self, id: TableId, how: Create, query: &Query, pos: u64) -> Result<()> {
        if !self.selects(&id) {
            return Ok(());
        }
        let known = self.timeline.known(&id).is_some();
        if how == Create::IfMissing && known && !self.gone.contains(&id) {
            return Ok(());
        }
        if known {
            self.truncate(&id, pos)?;
        }
        self.there(&id);
        self.shapes_changed(query, &[id], pos);
        Ok(())
    }

    /// A table is there from now on: all its rows come by the stream, or by a re-read that is asked for.
    fn there(&mut self, id: &TableId) {
        if self.gone.remove(id) {
            self.notes.insert(format!("{GONE}{id}"), None);
        }
        let note = TableNote { v: 1, done: true, ..TableNote::default() };
        self.notes.insert(table_note(id), Some(note.text()));
    }

    /// A statement that nobody has seen before: the captured tables that it names are read again, and the shapes of all are
    /// compared when their next rows come.
    fn unknown(&mut self, names: Vec<TableId>, query: &Query, pos: u64) {
        let named: Vec<TableId> =
            names.into_iter().filter(|id| self.selects(id) && self.timeline.known(id).is_some()).collect();
        if !named.is_empty() {
            let tables: Vec<String> = named.iter().map(ToString::to_string).collect();
            tracing::warn!(
                source = self.config.name,
                tables = tables.join(", "),
                "a statement of a kind that is not known names these tables: they are read again"
            );
        }
        for id in &named {
            self.read_table(id);
        }
        self.timeline.changed(None);
        self.snapshot.changed(None);
        self.kin.changed(None);
        self.tell(query, named, pos);
    }

    fn rows_by_statement(&mut self, id: Option<TableId>) {
        if id.as_ref().is_some_and(|id| !self.selects(id)) {
            return;
        }
        let table = id.as_ref().map_or_else(|| "a table".to_owned(), ToString::to_string);
        tracing::warn!(
            source = self.config.name,
            table,
            "a change was logged as a statement (binlog_format is not ROW): it cannot be captured; the table is read again"
        );
        if let Some(id) = id {
            self.read_table(&id);
        }
    }

    fn truncate(&mut self, id: &TableId, pos: u64) -> Result<()> {
        if !self.selects(id) {
            return Ok(());
        }
        if let Some(table) = self.snapshot.recorder(id) {
            table.recording.discard("the table was truncated");
        }
        let Some(schema) = self.timeline.known(id).map(|k| Arc::clone(&k.schema)) else { return Ok(()) };
        let shape = self.shapes.of(&schema)?;
        let Some(tx) = &mut self.tx else { return Ok(()) };
        if self.snapshot.verdict(id, &tx.begin, &tx.file, tx.pos) == Verdict::Drop {
            return Ok(());
        }
        let transaction = tx.number(&mut self.builder);
        let table = self.builder.table(shape.out());
        self.builder.events.push(EventHead {
            table,
            transaction,
            before: NO_ROW,
            after: NO_ROW,
            row: 0,
            op: Op::Truncate,
            snapshot: SnapshotMark::False,
            pos,
            ts_us: tx.ts_us,
        });
        Ok(())
    }

    /// The captured ones of these tables have another shape, or are gone or new.
    fn shapes_changed(&mut self, query: &Query, ids: &[TableId], pos: u64) {
        // Children that are not captured pass a cascade on all the same.
        self.kin.changed(Some(ids));
        let captured: Vec<TableId> = ids.iter().filter(|id| self.selects(id)).cloned().collect();
        if captured.is_empty() {
            return;
        }
        self.timeline.changed(Some(&captured));
        self.altered.extend(captured.iter().cloned());
        self.snapshot.changed(Some(&captured));
        self.quarantine.changed(&captured);
        self.tell(query, captured, pos);
    }

    /// Right behind a statement, where the log ends: the shapes that it made go with it. Behind one of long ago nobody can
    /// tell them; they come with the first rows.
    pub(super) async fn shapes_after(&mut self, file: &str, end: u64, timestamp: u32) -> Result<()> {
        let altered = std::mem::take(&mut self.altered);
        if altered.is_empty() || Duration::from_secs(timestamp.into()) + RECENT < now() {
            return Ok(());
        }
        self.sql.revive().await?;
        for id in &altered {
            if self.gone.contains(id) {
                continue;
            }
            let told = self.timeline.after_statement(&mut self.sql, id, (file, end)).await?;
            let Some((schema, new)) = told else { continue };
            self.builder.table(self.shapes.of(&schema)?.out());
            if new {
                self.note_schema(&schema)?;
            }
        }
        self.new_generations();
        Ok(())
    }

    /// A table with another key goes on in another topic, which has none of its rows yet.
    pub(super) fn new_generations(&mut self) {
        for id in self.timeline.take_regenerated() {
            self.read_table(&id);
        }
    }

    /// The statement goes to the topic of schema changes.
    fn tell(&mut self, query: &Query, tables: Vec<TableId>, pos: u64) {
        let Some(tx) = &mut self.tx else { return };
        if tables.is_empty() {
            return;
        }
        let transaction = tx.number(&mut self.builder);
        self.builder.ddl.push(Ddl {
            events: self.builder.events.len() as u32,
            statement: query.statement.clone(),
            database: query.database.clone(),
            tables,
            transaction,
            pos,
            ts_us: tx.ts_us,
        });
    }
}

/// Since the epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
