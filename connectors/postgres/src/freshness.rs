//! Up to when each table is complete, as told in the transaction that makes it so.
//!
//! Why it never says more than is there: what is told is the last boundary that was accepted, for the tables that it speaks for, and it
//! is stored by the transaction that holds everything accepted before it.
//!
//! A sink of thousands of tables does not write thousands of rows at each commit: up to [`ALWAYS`] tables are told each time, of more
//! those whose rows changed, and all of them once in [`EVERY`]. Memory: the scopes of the sources.

use crate::client::Connection;
use crate::state::State;
use caudal_core::{Batch, Boundary, Result, Scope, TableId, TablePart};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many tables of a source are told at each commit.
const ALWAYS: usize = 16;
/// All others at least so often, while there are watermarks.
const EVERY: Duration = Duration::from_secs(1);

/// What waits to be told, and what was.
#[derive(Default)]
pub(crate) struct Freshness {
    /// By source: the last boundary accepted.
    accepted: BTreeMap<String, Boundary>,
    /// Tables with rows accepted since the last commit.
    changed: HashSet<TableId>,
    /// By source: what was told last.
    told: BTreeMap<String, Told>,
    /// The same, by the transaction that is open.
    telling: Vec<(String, Told)>,
}

#[derive(Clone)]
struct Told {
    scope: Arc<Scope>,
    ts_us: i64,
    token: String,
    /// When all tables were told.
    all_at: Instant,
    /// Whether some table has not been told of this boundary.
    partly: bool,
}

impl Freshness {
    /// Takes a batch's boundary.
    pub(crate) fn accept(&mut self, batch: &Batch) {
        // Rows behind the boundary do not hurt: what is told is older than they are.
        self.changed.extend(batch.tables.iter().map(|table| table.id.clone()));
        let Some(boundary) = &batch.boundary else { return };
        let Some(scope) = &boundary.scope else { return };
        self.accepted.insert(scope.source.clone(), boundary.clone());
    }

    /// Writes it.
    pub(crate) async fn tell(&mut self, connection: &Connection, state: &State) -> Result<()> {
        self.telling.clear();
        for (source, boundary) in &self.accepted {
            let Some(scope) = &boundary.scope else { continue };
            let told = self.told.get(source);
            let same_scope = told.is_some_and(|told| Arc::ptr_eq(&told.scope, scope));
            let same = told.is_some_and(|t| t.ts_us == boundary.ts_us && t.token == boundary.position.token);
            if same_scope && same && told.is_some_and(|told| !told.partly) {
                continue;
            }
            let all = !same_scope
                || scope.tables.len() <= ALWAYS
                || told.is_none_or(|told| told.all_at.elapsed() >= EVERY);
            let parts: Vec<&TablePart> =
                scope.complete().filter(|part| all || self.changed.contains(&part.table)).collect();
            if !same_scope {
                state.forget_parts(connection, &parts).await?;
            }
            if !parts.is_empty() {
                state.tell_freshness(connection, boundary, source, &parts).await?;
            }
            let all_at =
                if all { Instant::now() } else { told.map_or_else(Instant::now, |told| told.all_at) };
            let told = Told {
                scope: Arc::clone(scope),
                ts_us: boundary.ts_us,
                token: boundary.position.token.clone(),
                all_at,
                partly: !all,
            };
            self.telling.push((source.clone(), told));
        }
        Ok(())
    }

    /// The transaction is durable.
    pub(crate) fn committed(&mut self) {
        self.told.extend(self.telling.drain(..));
        self.accepted.clear();
        self.changed.clear();
    }

    /// The transaction was rolled back: what comes again is told again.
    pub(crate) fn rolled_back(&mut self) {
        *self = Self::default();
    }
}
