//! Tables that are read in one piece: what becomes of their events meanwhile.

use crate::binlog::Begin;
use crate::position::Place;
use crate::schema::Timeline;
use crate::snapshot::plan::Plan;
use crate::snapshot::progress::Notes;
use crate::snapshot::run::Verdict;
use crate::snapshot::whole::Exact;
use caudal_core::{Result, TableId};
use std::collections::HashMap;

/// Where a table that is read in one piece stands.
enum Whole {
    /// Nothing was read yet.
    Pending,
    /// It is being read, or its rows are being handed on: its events wait.
    Reading,
    /// All was handed on: what the log holds up to there was in it.
    After(Exact),
}

/// All of them.
#[derive(Default)]
pub(crate) struct Wholes {
    tables: HashMap<TableId, Whole>,
    holding: Option<TableId>,
}

impl Wholes {
    /// Those that are going to be read in one piece, and those that were, up to the piece's place.
    ///
    /// # Errors
    /// `Data` if a stored place cannot be read.
    pub(crate) fn new(timeline: &Timeline, notes: &Notes) -> Result<Self> {
        let mut tables = HashMap::new();
        for (id, known) in timeline.tables() {
            let note = notes.tables.get(&id.to_string()).cloned().unwrap_or_default();
            if let Some(upto) = &note.upto {
                tables.insert(id.clone(), Whole::After(Exact::from_stored(upto)?));
            } else if !note.done && Plan::new(known, timeline.selection())?.parts.is_none() {
                tables.insert(id.clone(), Whole::Pending);
            }
        }
        Ok(Self { tables, holding: None })
    }

    /// The table's piece is going to be read now.
    pub(crate) fn hold(&mut self, id: &TableId) {
        self.tables.insert(id.clone(), Whole::Reading);
        self.holding = Some(id.clone());
    }

    /// The table whose events wait.
    pub(crate) fn holding(&self) -> Option<&TableId> {
        self.holding.as_ref()
    }

    /// The piece was handed on; it was exact there.
    pub(crate) fn after(&mut self, id: TableId, at: Exact) {
        self.tables.insert(id, Whole::After(at));
        self.holding = None;
    }

    /// The table is read by chunks after all.
    pub(crate) fn forget(&mut self, id: &TableId) {
        if !self.tables.is_empty() {
            self.tables.remove(id);
        }
    }

    /// What becomes of the events of a transaction.
    pub(crate) fn verdict(&self, id: &TableId, begin: &Begin, file: &str, pos: u64) -> Verdict {
        match self.tables.get(id) {
            None => Verdict::Deliver,
            Some(Whole::After(exact)) if !exact.holds(begin, file, pos) => Verdict::Deliver,
            Some(_) => Verdict::Drop,
        }
    }

    /// The stream has delivered everything up to this place.
    pub(crate) fn passed(&mut self, place: &Place) {
        if !self.tables.is_empty() {
            self.tables.retain(|_, w| !matches!(w, Whole::After(exact) if exact.passed(place)));
        }
    }
}
