//! What can be begun next: a window, a look where to cut, an index, a search.

use super::{AGAIN, Brought, For, Open, Snapshot, Stepped, Task};
use crate::position::Place;
use crate::snapshot::access::Access;
use crate::snapshot::against::{self, Purpose, Search};
use crate::snapshot::chunk::{self, Chunk, Job, Read};
use crate::snapshot::met::Met;
use crate::snapshot::plan::Plan;
use crate::snapshot::request::Rows;
use crate::snapshot::shapes::{Shape, Shapes};
use crate::snapshot::table::{Front, Step};
use caudal_core::{BatchBuilder, Error, Result};
use caudal_index::Index;
use std::sync::Arc;
use std::time::Instant;

/// What a chunk of a re-read is compared with, and where it is kept which of the keys came.
type Compared = (Arc<Index>, Arc<Met>);

impl Snapshot {
    /// The next thing that can be begun.
    pub(super) async fn step(&mut self, shapes: &mut dyn Shapes, delivered: &Place) -> Result<Stepped> {
        for i in 0..self.tables.len() {
            if self.tables[i].1.not_before.is_some_and(|at| Instant::now() < at) {
                continue;
            }
            self.tables[i].1.not_before = None;
            if matches!(self.tables[i].1.step, Step::Durable(_) | Step::Indexing | Step::Searching) {
                continue;
            }
            if !self.plan(i, shapes).await? {
                if self.tables[i].1.not_before.is_none() {
                    return Ok(Stepped::Emission(self.gone(i)));
                }
                continue;
            }
            match self.step_of(i, delivered)? {
                Stepped::Nothing => {}
                stepped => return Ok(stepped),
            }
        }
        Ok(Stepped::Nothing)
    }

    /// Sees to it that a table has a plan. False: it has none now, and is gone if it waits for no time either.
    async fn plan(&mut self, i: usize, shapes: &mut dyn Shapes) -> Result<bool> {
        let table = &mut self.tables[i].1;
        if table.plan.is_some() {
            return Ok(true);
        }
        match shapes.shape(&table.id).await? {
            Shape::Gone => Ok(false),
            // The stream has yet to bring the change: until then rows could not be told in its shape.
            Shape::Ahead => {
                table.not_before = Some(Instant::now() + AGAIN);
                Ok(false)
            }
            Shape::Known(plan) => {
                table.plan = Some(plan);
                Ok(true)
            }
        }
    }

    fn step_of(&mut self, i: usize, delivered: &Place) -> Result<Stepped> {
        let Some(plan) = self.tables[i].1.plan.clone() else { return Ok(Stepped::Nothing) };
        if plan.parts.is_none() {
            return Ok(self.open_whole(i, plan, delivered));
        }
        match &self.tables[i].1.step {
            Step::Index => Ok(self.index(i, plan)),
            Step::Rows => self.rows(i, plan, delivered),
            Step::Search(_) => Ok(self.search(i, plan)),
            Step::Check(..) => Ok(self.check(i, plan, delivered)),
            Step::Done => Ok(Stepped::Emission(self.done(i))),
            Step::Durable(_) | Step::Indexing | Step::Searching => Ok(Stepped::Nothing),
        }
    }

    /// The next chunk of a table, or a look where to cut the next range.
    fn rows(&mut self, i: usize, plan: Arc<Plan>, delivered: &Place) -> Result<Stepped> {
        self.wholes.forget(&self.tables[i].1.id);
        let readers = self.config.snapshot.readers;
        let (serial, table) = &mut self.tables[i];
        let serial = *serial;
        if let Some(range) = table.ranges.iter().find(|r| !r.busy) {
            let number = range.number;
            return Ok(self.open(i, number, plan, delivered));
        }
        let Front::At(from) = &table.front else { return Ok(Stepped::Nothing) };
        let from = from.clone();
        let Some(rows) = table.cut_rows(readers) else {
            table.front = Front::End;
            let number = table.add_range(from, None);
            return Ok(self.open(i, number, plan, delivered));
        };
        table.front = Front::Cutting(from.clone());
        let limit = self.config.snapshot.chunk_time.get();
        self.spawn(move |mut access| async move {
            let cut = access.cut(&plan, from.as_deref(), rows, limit).await?;
            Ok((Some(access), Brought::Cut(serial, from, cut)))
        });
        Ok(Stepped::Task)
    }

    /// Steps 1 to 3: recording begins here, then the chunk's connection waits and reads.
    fn open(&mut self, i: usize, range: u64, plan: Arc<Plan>, delivered: &Place) -> Stepped {
        let snapshot = &self.config.snapshot;
        let (serial, table) = &mut self.tables[i];
        let Some(filter) = table.filter(&plan) else {
            // Its values cannot be compared: all rows then.
            if let Some(request) = &mut table.request {
                request.rows = Rows::All;
            }
            return Stepped::Nothing;
        };
        let bytes = snapshot.chunk_bytes.bytes();
        let rows = table.chunk_rows(&plan, bytes);
        let limit = table.limit(snapshot);
        let Some(part) = table.range(range) else { return Stepped::Nothing };
        part.busy = true;
        let job = Job {
            rows,
            plan,
            from: part.from.clone(),
            to: part.to.clone(),
            filter,
            bytes: bytes as usize,
            delivered: delivered.clone(),
            limit,
        };
        let against = table.against.as_ref().map(|a| (Arc::clone(&a.index), Arc::clone(&a.met)));
        let open = Open { serial: *serial, window: table.recording.open(), what: For::Range(range, rows) };
        self.read(open, job, against);
        Stepped::Task
    }

    /// Asks for candidates by key, in a window.
    fn check(&mut self, i: usize, plan: Arc<Plan>, delivered: &Place) -> Stepped {
        let (serial, table) = &mut self.tables[i];
        let Step::Check(candidates, search) = std::mem::replace(&mut table.step, Step::Searching) else {
            return Stepped::Nothing;
        };
        let job = Job {
            rows: candidates.keys.len() as u32 * 2,
            plan,
            from: None,
            to: None,
            filter: candidates.filter.clone(),
            bytes: usize::MAX,
            delivered: delivered.clone(),
            limit: table.limit(&self.config.snapshot),
        };
        let against = table.against.as_ref().map(|a| (Arc::clone(&a.index), Arc::clone(&a.met)));
        let window = table.recording.open();
        let open = Open { serial: *serial, window, what: For::Check(candidates, search) };
        self.read(open, job, against);
        Stepped::Task
    }

    fn read(&mut self, open: Open, job: Job, against: Option<Compared>) {
        self.spawn(move |mut access| async move {
            let empty = matches!(&open.what, For::Check(c, _) if c.filter.is_none());
            let read = if empty {
                Ok(Read::Chunk(Box::new(Chunk::new(BatchBuilder::default(), Arc::clone(&job.plan)))))
            } else {
                chunk::read(access.as_mut(), &job).await
            };
            let in_part = job.from.is_some() || job.to.is_some();
            let is_range = matches!(open.what, For::Range(..));
            let read = match (read, against) {
                (Ok(Read::Chunk(chunk)), Some((index, met))) => {
                    let compared = tokio::task::spawn_blocking(move || {
                        let chunk = against::compare(chunk, &index)?;
                        // A table of one chunk has no part that would not be read again.
                        if is_range && (in_part || !chunk.end) {
                            met.add(&chunk);
                        }
                        Ok(chunk)
                    });
                    let compared = compared.await.map_err(|e| Error::bug("compare a chunk").because(e))?;
                    compared.map(Read::Chunk)
                }
                (read, _) => read,
            };
            Ok((Some(access), Brought::Chunk(open, read)))
        });
    }

    fn index(&mut self, i: usize, plan: Arc<Plan>) -> Stepped {
        let (serial, table) = &mut self.tables[i];
        let serial = *serial;
        let (Some(written), Some(request)) = (&self.written, &table.request) else {
            table.step = Step::Rows;
            return Stepped::Nothing;
        };
        table.step = Step::Indexing;
        let purpose = Purpose {
            written: Arc::clone(written),
            plan,
            rows: request.rows.clone(),
            spool_dir: self.config.spool_dir(),
            met_dir: self.config.rereads_dir(),
            resumed: table.resumed.clone(),
        };
        self.tasks.spawn(async move {
            let (against, goes_on) = against::build(purpose).await?;
            Ok((None, Brought::Index(serial, against, goes_on)))
        });
        Stepped::Task
    }

    fn search(&mut self, i: usize, plan: Arc<Plan>) -> Stepped {
        let (serial, table) = &mut self.tables[i];
        let serial = *serial;
        let Step::Search(search) = std::mem::replace(&mut table.step, Step::Searching) else {
            return Stepped::Nothing;
        };
        let (Some(written), Some(mut against)) = (self.written.clone(), table.against.take()) else {
            table.step = Step::Done;
            return Stepped::Nothing;
        };
        self.tasks.spawn(async move {
            let mut search = match search {
                Some(search) => search,
                None => Search::open(written.as_ref(), &plan, &mut against).await?,
            };
            let found = search.next(&mut against, &plan).await?;
            Ok((None, Brought::Found(serial, Box::new(search), against, found)))
        });
        Stepped::Task
    }

    fn open_whole(&mut self, i: usize, plan: Arc<Plan>, delivered: &Place) -> Stepped {
        let others = self.tables.iter().enumerate().filter(|(n, _)| *n != i);
        let alone = others
            .into_iter()
            .all(|(_, (_, t))| t.plan.as_ref().is_some_and(|p| p.parts.is_none()) || t.not_before.is_some());
        if !alone || !self.tasks.is_empty() || !self.ready.is_empty() {
            return Stepped::Nothing;
        }
        let (serial, table) = &mut self.tables[i];
        tracing::warn!(
            source = self.config.name,
            table = %table.id,
            "snapshot: the table has no key that it could be read by: it is read in one piece, and a restart reads it again from its beginning"
        );
        table.front = Front::At(None);
        self.wholes.hold(&table.id);
        table.recording.open();
        let (serial, delivered) = (*serial, delivered.clone());
        self.spawn(move |mut access| async move {
            let piece = access.whole(plan, &delivered).await?;
            Ok((Some(access), Brought::Piece(serial, Box::new(piece))))
        });
        Stepped::Task
    }

    /// Runs `work` beside the reader, with a connection of its own.
    pub(super) fn spawn<F>(&mut self, work: impl FnOnce(Box<dyn Access>) -> F + Send + 'static)
    where
        F: Future<Output = Task> + Send,
    {
        let (idle, connect) = (self.idle.pop(), Arc::clone(&self.connect));
        self.tasks.spawn(async move {
            let access = match idle {
                Some(access) => access,
                None => connect.connect().await?,
            };
            work(access).await
        });
    }
}
