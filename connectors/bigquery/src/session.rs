//! A session of the poll engine: pages of the results of one table's queries.
//!
//! A run begins with a dry run, which tells the shape and the bytes, and refuses what is over `maximum_bytes_billed` before anything is billed. Then each slice of the
//! window is a query, whose result is read page by page. Where a page begins names the slice, its job and the service's token of the page: results stay for a day, so that
//! a page that failed is asked for again, by another session too, without running (and paying) the query again.
//!
//! # Bounds
//! One answer that pages are taken from, and `parallel` of those that come next, each of `page_rows` rows and what the service lets an answer be (20 MB).

use crate::answer::{Answer, Jobs, Wanted, fetch};
use crate::api::{At, Bill, Job, Query};
use crate::config::{Resolved, Table};
use crate::filling::Filling;
use crate::history;
use crate::select::{Moment, Plan, plan, whole};
use crate::shape::{self, shape};
use async_trait::async_trait;
use caudal_core::{Error, Fault, KeyKind, PollCost, Result, TableSchema};
use caudal_poll::{Look, Page, Request, Session, Window};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Where a page begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Which slice.
    slice: usize,
    /// Its job; none before it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<Job>,
    /// The answer's place in the result.
    #[serde(default)]
    at: At,
    /// Rows of the answer that were taken.
    #[serde(default)]
    taken: usize,
    /// The highest value of the window's column before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high: Option<String>,
}

/// Which answer a place is in.
type Spot = (usize, At);

impl Place {
    fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::default()) };
        serde_json::from_str(text).map_err(|e| Error::bug("a page's place is none").because(e))
    }

    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn spot(&self) -> Spot {
        (self.slice, self.at.clone())
    }
}

/// Reads one table.
pub(crate) struct TableSession {
    source: Arc<Resolved>,
    table: Arc<Table>,
    jobs: Arc<Jobs>,
    kept: Option<(Spot, Answer)>,
    /// Answers that are fetched ahead, each on a task of its own, which ends when it is dropped.
    ahead: BTreeMap<Spot, JoinSet<Result<Answer>>>,
}

impl TableSession {
    pub(crate) fn new(source: &Arc<Resolved>, table: &Arc<Table>, jobs: &Arc<Jobs>) -> Self {
        Self {
            source: Arc::clone(source),
            table: Arc::clone(table),
            jobs: Arc::clone(jobs),
            kept: None,
            ahead: BTreeMap::new(),
        }
    }

    /// The shape of what a window's query gives, and the bytes that it would read.
    pub(crate) async fn describe(&self, look: &Look<'_>) -> Result<(TableSchema, u64)> {
        let (table, api) = (&self.table, &self.source.api);
        let moment = Moment { planned: look.planned, zone: &self.source.zone };
        let mut declared = Vec::new();
        let mut first = None;
        if let Some(object) = table.object.as_ref().filter(|_| look.known.is_none() || table.key.is_empty()) {
            let (fields, key) = api.table(&format!("look up {object}"), object).await?;
            let wanted = |name: &str| {
                table.columns.is_empty() || table.columns.iter().any(|c| c.eq_ignore_ascii_case(name))
            };
            let fields: Vec<_> = fields.into_iter().filter(|field| wanted(&field.name)).collect();
            first = shape(table, &fields, &[], KeyKind::None).ok();
            declared = key;
        }
        let (key, kind) = match table.key.is_empty() {
            true => (&declared, KeyKind::Primary),
            false => (&table.key, KeyKind::Configured),
        };
        if key.is_empty() {
            return Err(Error::config(format!("{} declares no primary key", table.id))
                .hint("name what tells its rows apart: key: [fecha_foto, archivo]"));
        }
        let mut known = look.known.map(|known| known.as_ref().clone()).or(first);
        // Where the shape is another one than was known, the window is asked for by the new one.
        for _ in 0..2 {
            let query = whole(table, known.as_ref(), look.window, moment)?;
            let described = api.describe(&query).await?;
            let (fields, _) = history::own(table, &described.fields);
            let found = shape(table, fields, key, kind)?;
            if let Some(known) = known.as_ref().filter(|known| shape::fits(known, fields)) {
                // What a function gives may be NULL where the table's own columns are not.
                let found =
                    if table.history.is_some() && look.known.is_some() { known.clone() } else { found };
                return Ok((found, described.bytes));
            }
            known = Some(found);
        }
        let query = whole(table, known.as_ref(), look.window, moment)?;
        let described = api.describe(&query).await?;
        Ok((shape(table, history::own(table, &described.fields).0, key, kind)?, described.bytes))
    }

    /// Takes the answer that a place is in: the one that is kept, one that was fetched ahead, or the service's now.
    async fn keep(&mut self, plan: &Plan, place: &Place, rows: u32) -> Result<()> {
        let spot = place.spot();
        if self.kept.as_ref().is_some_and(|(kept, _)| *kept == spot) {
            return Ok(());
        }
        self.kept = None;
        let fetched = match self.ahead.remove(&spot) {
            Some(mut task) => match task.join_next().await {
                Some(Ok(answer)) => Some(answer?),
                _ => None,
            },
            None => None,
        };
        let answer = match fetched {
            Some(answer) => answer,
            None => {
                let query = slice(plan, place.slice)?;
                let wanted = Wanted { job: place.job.clone(), at: place.at.clone(), stream: None };
                fetch(&self.source, &self.jobs, query, wanted, rows).await?
            }
        };
        // A query's first answer may be the first of a stream.
        self.kept = Some(((place.slice, answer.results.at.clone()), answer));
        Ok(())
    }

    /// Begins to fetch what comes after the answer that is kept.
    fn fetch_ahead(&mut self, plan: &Plan, place: &Place, rows: u32) {
        let Some((_, kept)) = &mut self.kept else { return };
        let (job, next) = (kept.results.job.clone(), kept.results.next.clone());
        let next = next
            .map(|at| (place.slice, at.clone(), Wanted { job: Some(job), at, stream: kept.stream.take() }));
        let others = (place.slice + 1..plan.queries.len()).map(|slice| (slice, At::First, Wanted::default()));
        let wanted = next.into_iter().chain(others).take(self.source.parallel);
        for (slice, at, wanted) in wanted {
            let spot = (slice, at);
            let (false, Some(query)) = (self.ahead.contains_key(&spot), plan.queries.get(slice)) else {
                continue;
            };
            let (source, jobs, query) = (Arc::clone(&self.source), Arc::clone(&self.jobs), query.clone());
            let mut task = JoinSet::new();
            task.spawn(async move { fetch(&source, &jobs, &query, wanted, rows).await });
            self.ahead.insert(spot, task);
        }
    }

    fn cost(&self, bill: Bill) -> PollCost {
        PollCost { bytes_billed: bill.bytes, slot_ms: bill.slot_ms, price: self.source.prices.of(bill) }
    }
}

fn slice(plan: &Plan, at: usize) -> Result<&Query> {
    plan.queries.get(at).ok_or_else(|| Error::bug("a page of no slice"))
}

#[async_trait]
impl Session for TableSession {
    async fn now_us(&mut self) -> Result<i64> {
        Ok(Timestamp::now().as_microsecond())
    }

    /// A run begins: nothing of another one is taken for its.
    async fn schema(&mut self, look: &Look<'_>) -> Result<Arc<TableSchema>> {
        (self.kept, self.ahead) = (None, BTreeMap::new());
        self.jobs.forget();
        let (found, bytes) = self.describe(look).await?;
        if let Window::Since { column, .. } | Window::Lookback { column, .. } = look.window
            && !column.is_empty()
        {
            shape::column(&found, column)?;
        }
        self.source.prices.allow(&self.table, bytes)?;
        Ok(Arc::new(found))
    }

    async fn page(&mut self, request: &Request<'_>) -> Result<Page> {
        let place = Place::parse(request.after)?;
        let moment = Moment { planned: request.planned, zone: &self.source.zone };
        let plan = plan(&self.table, request.schema, request.window, moment)?;
        if plan.queries.is_empty() {
            return Ok(Page::default());
        }
        match self.keep(&plan, &place, request.rows).await {
            // The results of a job are kept for a day.
            Err(e) if place.job.is_some() && is_gone(&e) => {
                return Ok(Page { lost: true, ..Page::default() });
            }
            kept => kept?,
        }
        self.fetch_ahead(&plan, &place, request.rows);
        let Some((_, answer)) = &self.kept else { return Err(Error::bug("no answer is kept")) };
        let results = &answer.results;
        let (own, told) = history::own(&self.table, &results.fields);
        if !shape::fits(request.schema, own) {
            return Ok(Page { reshaped: true, ..Page::default() });
        }
        let mut filling = Filling::new(request, (&results.fields, told), plan.mark, place.high.clone());
        let mut taken = place.taken;
        while taken < results.len() && !filling.is_full() {
            filling.take(results.row(taken));
            taken += 1;
        }
        let cost = answer.bill.filter(|_| place.taken == 0).map(|bill| self.cost(bill));
        let (mut page, high) = filling.end();
        page.cost = cost;
        page.findings.extend(answer.finding.clone().filter(|_| place.taken == 0));
        page.watermark = plan.until.clone().or_else(|| high.clone());
        let job = Some(results.job.clone());
        let next = match (taken < results.len(), &results.next) {
            (true, _) => Some(Place { slice: place.slice, job, at: results.at.clone(), taken, high }),
            (false, Some(at)) => Some(Place { slice: place.slice, job, at: at.clone(), taken: 0, high }),
            (false, None) if place.slice + 1 < plan.queries.len() => {
                Some(Place { slice: place.slice + 1, high, ..Place::default() })
            }
            (false, None) => None,
        };
        page.next = next.map(|place| place.text());
        Ok(page)
    }
}

/// Whether results are no longer kept, or their stream.
pub(crate) fn is_gone(error: &Error) -> bool {
    error.fault() == Fault::Config && error.to_string().contains("(notFound")
}
