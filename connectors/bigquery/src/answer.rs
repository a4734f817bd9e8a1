//! Answers: parts of a query's result, each with what it takes to fetch the next one.
//!
//! A result is read by the Storage API if it is large (more than [`LARGE`] rows: opening takes two more requests, and below that REST's pages are there as soon), from its first row on:
//! nothing says that both give rows in one order, so what REST's first page holds is left.

use crate::api::{Api, At, Bill, Job, Query, Results, Streamed};
use crate::config::{ReadBy, Resolved};
use crate::storage::Reading;
use caudal_core::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A result of more rows is large.
const LARGE: u64 = 100_000;

/// The jobs of the run that goes on, by their query: what was begun is not begun (and paid) twice; and the streams that were opened. Shared by the sessions of a table, of which one
/// follows the other when something breaks. Bound: one of each for each slice.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<Begun>);

#[derive(Default)]
struct Begun {
    jobs: BTreeMap<String, (Job, u32)>,
    /// By name.
    streams: BTreeMap<String, Arc<Streamed>>,
}

impl Jobs {
    fn locked(&self) -> MutexGuard<'_, Begun> {
        // A panic while the lock was held leaves whole maps.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget(&self) {
        *self.locked() = Begun::default();
    }

    fn began(&self, query: &Query, job: &Job) {
        self.locked().jobs.insert(named(query), (job.clone(), 0));
    }

    fn of(&self, query: &Query) -> Option<Job> {
        self.locked().jobs.get(&named(query)).map(|(job, _)| job.clone())
    }

    /// What came of it could not be read. Twice: then it is the job that failed, and another one may not.
    fn failed(&self, query: &Query) {
        let jobs = &mut self.locked().jobs;
        if let Some((_, failures)) = jobs.get_mut(&named(query)) {
            *failures += 1;
            if *failures > 1 {
                jobs.remove(&named(query));
            }
        }
    }
}

fn named(query: &Query) -> String {
    format!("{}\n{:?}", query.sql, query.params)
}

/// A part of a result, and the bill of the query if it is its first one.
pub(crate) struct Answer {
    pub(crate) results: Results,
    pub(crate) bill: Option<Bill>,
    /// The stream that it came from, which goes on behind it.
    pub(crate) stream: Option<Reading>,
    pub(crate) finding: Option<String>,
}

impl Answer {
    fn of(results: Results) -> Self {
        Self { results, bill: None, stream: None, finding: None }
    }
}

/// Which answer is wanted: of which job (none before it runs), where in its result, and the stream that stands there.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) job: Option<Job>,
    pub(crate) at: At,
    pub(crate) stream: Option<Reading>,
}

/// Asks for an answer. Without a job it is a query's first, and the query is run, unless it was begun already.
///
/// # Errors
/// As the service says; `notFound` for results that are no longer kept.
pub(crate) async fn fetch(
    source: &Resolved,
    jobs: &Jobs,
    query: &Query,
    wanted: Wanted,
    rows: u32,
) -> Result<Answer> {
    let (api, what) = (&source.api, query.what.as_str());
    match wanted {
        Wanted { at: At::Stream(name, offset), stream, .. } => {
            let of = jobs.locked().streams.get(&name).cloned();
            let of = of.ok_or_else(|| Error::config(format!("{what}: its stream is gone (notFound)")))?;
            block(api, &of, stream, offset).await.map_err(|e| e.context(what.to_owned()))
        }
        // Some of its rows were taken: another job of the same query would have its rows in another order.
        Wanted { job: Some(job), at, .. } => Ok(Answer::of(api.results(what, &job, &at, rows).await?)),
        Wanted { job: None, .. } => first(api, jobs, query, rows).await,
    }
}

async fn first(api: &Api, jobs: &Jobs, query: &Query, rows: u32) -> Result<Answer> {
    let what = query.what.as_str();
    let results = match jobs.of(query) {
        Some(job) => api.results(what, &job, &At::First, rows).await,
        None => api.query(query, rows, |job| jobs.began(query, job)).await,
    };
    let results = results.inspect_err(|_| jobs.failed(query))?;
    let bill = Some(api.bill(what, &results).await?);
    let (opened, finding) = match opened(api, what, &results).await {
        Ok(opened) => (opened, None),
        // Whoever may not use the one, or does not reach it, may use the other.
        Err(e) if api.read == ReadBy::Auto => {
            let hint = e.hint_text().unwrap_or_default().to_owned();
            (None, Some(format!("read by REST, which is slower: {e}; {hint}")))
        }
        Err(e) => return Err(e.context(what.to_owned())),
    };
    let Some(streamed) = opened else {
        return Ok(Answer { bill, finding, ..Answer::of(results) });
    };
    let of = Arc::new(streamed);
    jobs.locked().streams.insert(of.name().to_owned(), Arc::clone(&of));
    let first = block(api, &of, None, 0).await.map_err(|e| e.context(what.to_owned()))?;
    Ok(Answer { bill, ..first })
}

/// Opens a result for the Storage API, if it is to be read so.
async fn opened(api: &Api, what: &str, results: &Results) -> Result<Option<Streamed>> {
    let wanted = match api.read {
        ReadBy::Auto => results.total > LARGE && results.next.is_some(),
        ReadBy::Storage => results.len() > 0,
        ReadBy::Rest => false,
    };
    let Some(storage) = api.storage.as_ref().filter(|_| wanted) else { return Ok(None) };
    let table = api.destination(what, &results.job).await?;
    let opened = storage.open(&api.auth, &api.project, &table).await?;
    opened.stream.map(|stream| Streamed::of(results, stream, opened.plan)).transpose()
}

/// The next block, from the stream that stands there, or from one that is read anew.
async fn block(api: &Api, of: &Streamed, stream: Option<Reading>, offset: u64) -> Result<Answer> {
    let storage = api.storage.as_ref().ok_or_else(|| Error::bug("a stream without its service"))?;
    let mut stream = match stream {
        Some(stream) => stream,
        None => storage.read(&api.auth, of.name(), offset).await?,
    };
    let block = stream.block(&api.auth).await?;
    let results = of.rows(offset, block)?;
    Ok(Answer { stream: Some(stream), ..Answer::of(results) })
}
