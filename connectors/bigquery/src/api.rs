//! What is asked of the service: queries, their results by page, what they cost, a table's key.
//!
//! `jobs.query`, `jobs.getQueryResults`, `jobs.get` and `tables.get` of BigQuery's API v2 (<https://cloud.google.com/bigquery/docs/reference/rest>). A query's result is a table of its own, which stays for a
//! day: its pages are of one moment, and each can be asked for again.

use crate::auth::Auth;
use crate::avro::Plan;
use crate::client::{Ask, Client, encoded};
use crate::config::ReadBy;
use crate::filling::Given;
use crate::names::Object;
use crate::param::{Param, written};
use crate::refusal::{self, Problem, Read};
use crate::storage::{Block, Storage};
use crate::types::{Field, Number};
use bytes::Bytes;
use caudal_core::{Error, Result};
use hyper::Method;
use hyper::header::{self, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How long the service holds an answer back for a query that goes on, milliseconds.
const WAIT_MS: u32 = 10_000;

/// One service, and who asks it.
pub(crate) struct Api {
    pub(crate) client: Client,
    pub(crate) auth: Auth,
    /// The project that runs the queries, and pays for them.
    pub(crate) project: String,
    pub(crate) location: Option<String>,
    /// For names in queries that name no dataset: project and dataset.
    pub(crate) dataset: Option<(String, String)>,
    pub(crate) use_cache: bool,
    /// The service stops a query that takes longer.
    pub(crate) timeout: Duration,
    /// Labels of each job, so that the bill can tell who asked.
    pub(crate) labels: Value,
    /// Where large results are read; none: by REST alone.
    pub(crate) storage: Option<Storage>,
    pub(crate) read: ReadBy,
}

/// A query's job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
}

/// A query, with what is bound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    /// For messages: `read d.t`.
    pub(crate) what: String,
    pub(crate) sql: String,
    pub(crate) params: Vec<Param>,
    /// It is refused if it would bill more.
    pub(crate) most_billed: Option<u64>,
}

/// What a dry run tells.
pub(crate) struct Described {
    pub(crate) fields: Vec<Field>,
    /// Bytes that the query would read.
    pub(crate) bytes: u64,
}

/// What a query cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bill {
    pub(crate) bytes: u64,
    pub(crate) slot_ms: u64,
}

/// A page of results. Memory: the answer, 8 bytes a row.
pub(crate) struct Results {
    body: Bytes,
    rows: Vec<Range<u32>>,
    pub(crate) fields: Vec<Field>,
    pub(crate) job: Job,
    /// Where it is in the result.
    pub(crate) at: At,
    /// What comes behind it.
    pub(crate) next: Option<At>,
    /// Rows of the whole result, where the answer says it.
    pub(crate) total: u64,
    /// Where the answer to the query itself says it.
    bill: Option<Bill>,
    /// How rows are written that are in Avro.
    plan: Option<Arc<Plan>>,
}

/// Where an answer is in a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum At {
    /// REST's first page.
    #[default]
    First,
    /// The service's token of a page.
    Page(String),
    /// A stream of the Storage API, and a row's number in it.
    Stream(String, u64),
}

impl Results {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// A row as it stands.
    pub(crate) fn row(&self, at: usize) -> Given<'_> {
        let range = &self.rows[at];
        let row = &self.body[range.start as usize..range.end as usize];
        match &self.plan {
            Some(plan) => Given::Avro(plan.values(row)),
            // It was cut at the ends of JSON values: the text is whole.
            None => Given::Json(std::str::from_utf8(row).unwrap_or_default()),
        }
    }
}

/// A result that is read from a stream.
pub(crate) struct Streamed {
    name: String,
    plan: Arc<Plan>,
    fields: Vec<Field>,
    job: Job,
}

impl Streamed {
    /// # Errors
    /// `Data` for other columns than the query's.
    pub(crate) fn of(results: &Results, name: String, plan: Arc<Plan>) -> Result<Self> {
        let (fields, job) = (results.fields.clone(), results.job.clone());
        match plan.fits(&fields) {
            true => Ok(Self { name, plan, fields, job }),
            false => Err(Error::data("the result's stream has other columns").hint("set `read: rest`")),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The rows of the block at `offset`; of none: the result's end.
    ///
    /// # Errors
    /// `Data` for a block that is not so many rows of these columns.
    pub(crate) fn rows(&self, offset: u64, block: Option<Block>) -> Result<Results> {
        let at = |offset| At::Stream(self.name.clone(), offset);
        let next = block.as_ref().map(|block| at(offset + block.count));
        let (body, count) = block.map_or((Bytes::new(), 0), |block| (block.rows, block.count));
        let rows = self.plan.places(&body, count).ok_or_else(|| {
            Error::data("a block of the result is not what its shape says").hint("set `read: rest`")
        })?;
        let (fields, job, plan) = (self.fields.clone(), self.job.clone(), Some(Arc::clone(&self.plan)));
        Ok(Results { body, rows, fields, job, at: at(offset), next, total: 0, bill: None, plan })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(default)]
    job_complete: bool,
    job_reference: Option<Reference>,
    schema: Option<Schema>,
    #[serde(borrow, default)]
    rows: Vec<&'a RawValue>,
    page_token: Option<String>,
    total_rows: Option<Number>,
    total_bytes_processed: Option<Number>,
    total_bytes_billed: Option<Number>,
    total_slot_ms: Option<Number>,
    #[serde(default)]
    cache_hit: bool,
    #[serde(default)]
    errors: Vec<Problem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default)]
    job_id: String,
    location: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Schema {
    fields: Vec<Field>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobAnswer {
    statistics: Statistics,
    configuration: Configuration,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Configuration {
    query: QueryConfiguration,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct QueryConfiguration {
    destination_table: Option<TableReference>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TableReference {
    project_id: String,
    dataset_id: String,
    table_id: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Statistics {
    query: QueryStatistics,
    total_slot_ms: Option<Number>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct QueryStatistics {
    total_bytes_billed: Option<Number>,
    total_slot_ms: Option<Number>,
}

impl Api {
    async fn call(
        &self,
        what: &str,
        (method, target): (Method, String),
        body: Option<&Value>,
        read: Read,
    ) -> Result<Bytes> {
        let mut headers: Vec<_> = self.auth.header().await?.into_iter().collect();
        if body.is_some() {
            headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let reply = self.client.ask(Ask { method, target, headers, body }).await?;
        if (200..300).contains(&reply.status) {
            return Ok(reply.body);
        }
        let error = refusal::answered(what, reply.status, &reply.body, read);
        // A token may be over before its time.
        match refusal::is_token(reply.status) && self.auth.refused().await {
            true => Err(Error::transient(error.to_string()).hint("another token is fetched")),
            false => Err(error),
        }
    }

    fn request(&self, query: &Query, dry: bool, rows: u32) -> Value {
        let mut body = json!({
            "query": query.sql,
            "useLegacySql": false,
            "formatOptions": { "useInt64Timestamp": true },
        });
        let mut set = |name: &str, value: Value| body[name] = value;
        if !query.params.is_empty() {
            set("parameterMode", json!("NAMED"));
            set("queryParameters", written(&query.params));
        }
        if let Some((project, dataset)) = &self.dataset {
            set("defaultDataset", json!({ "projectId": project, "datasetId": dataset }));
        }
        if let Some(location) = &self.location {
            set("location", json!(location));
        }
        if dry {
            set("dryRun", json!(true));
            return body;
        }
        set("maxResults", json!(rows));
        set("timeoutMs", json!(WAIT_MS));
        set("jobTimeoutMs", json!(self.timeout.as_millis().to_string()));
        set("useQueryCache", json!(self.use_cache));
        set("labels", self.labels.clone());
        set("requestId", json!(uuid::Uuid::new_v4().to_string()));
        if let Some(most) = query.most_billed {
            set("maximumBytesBilled", json!(most.to_string()));
        }
        body
    }

    /// The columns that a query gives and the bytes that it would read. It costs nothing, and reads no row.
    ///
    /// # Errors
    /// As the service says.
    pub(crate) async fn describe(&self, query: &Query) -> Result<Described> {
        let body = self.request(query, true, 0);
        let target = format!("/projects/{}/queries", encoded(&self.project));
        let body = self.call(&query.what, (Method::POST, target), Some(&body), Read::None).await?;
        let answer: Answer<'_> = understood(&query.what, &body)?;
        if let Some(problem) = failure(&answer) {
            return Err(refusal::job(&query.what, problem, Read::None));
        }
        let fields = answer.schema.unwrap_or_default().fields;
        Ok(Described { fields, bytes: answer.total_bytes_processed.map_or(0, |n| n.0) })
    }

    /// Runs a query; `began` is told of the job before it is waited for. Gives its first page.
    ///
    /// # Errors
    /// As the service says.
    pub(crate) async fn query(&self, query: &Query, rows: u32, began: impl Fn(&Job)) -> Result<Results> {
        let body = self.request(query, false, rows);
        let target = format!("/projects/{}/queries", encoded(&self.project));
        let body = self.call(&query.what, (Method::POST, target), Some(&body), Read::Rows).await?;
        let (results, job) = self.read(&query.what, body, None, At::First)?;
        if let Some(job) = &job {
            began(job);
        }
        match (results, job) {
            (Some(results), _) => Ok(results),
            (None, Some(job)) => self.results(&query.what, &job, &At::First, rows).await,
            (None, None) => Err(Error::transient(format!("{}: the answer names no job", query.what))),
        }
    }

    /// A page of a job's results; waits for the job, if need be.
    ///
    /// # Errors
    /// As the service says.
    pub(crate) async fn results(&self, what: &str, job: &Job, at: &At, rows: u32) -> Result<Results> {
        let token = match at {
            At::Page(token) => Some(token.as_str()),
            At::First | At::Stream(..) => None,
        };
        loop {
            let mut target = format!(
                "/projects/{}/queries/{}?maxResults={rows}&timeoutMs={WAIT_MS}&formatOptions.useInt64Timestamp=true",
                encoded(&self.project),
                encoded(&job.id)
            );
            for (name, value) in [("location", job.location.as_deref()), ("pageToken", token)] {
                if let Some(value) = value {
                    target.push_str(&format!("&{name}={}", encoded(value)));
                }
            }
            let body = self.call(what, (Method::GET, target), None, Read::Rows).await?;
            if let (Some(results), _) = self.read(what, body, Some(job), at.clone())? {
                return Ok(results);
            }
        }
    }

    /// None: the job goes on.
    fn read(
        &self,
        what: &str,
        body: Bytes,
        of: Option<&Job>,
        at: At,
    ) -> Result<(Option<Results>, Option<Job>)> {
        let answer: Answer<'_> = understood(what, &body)?;
        if let Some(problem) = failure(&answer) {
            return Err(refusal::job(what, problem, Read::Rows));
        }
        let named = answer.job_reference.filter(|named| !named.job_id.is_empty()).map(|named| Job {
            id: named.job_id,
            location: named.location.or_else(|| self.location.clone()),
        });
        let job = of.cloned().or(named);
        if !answer.job_complete {
            return Ok((None, job));
        }
        let job = job.ok_or_else(|| Error::transient(format!("{what}: the answer names no job")))?;
        let bill = answer.total_bytes_billed.map(|bytes| Bill {
            bytes: if answer.cache_hit { 0 } else { bytes.0 },
            slot_ms: answer.total_slot_ms.map_or(0, |n| n.0),
        });
        let start = body.as_ptr() as usize;
        let place = |raw: &&RawValue| {
            let from = raw.get().as_ptr() as usize - start;
            from as u32..(from + raw.get().len()) as u32
        };
        let rows = answer.rows.iter().map(place).collect();
        let next = answer.page_token.filter(|token| !token.is_empty()).map(At::Page);
        let total = answer.total_rows.map_or(0, |n| n.0);
        let fields = answer.schema.unwrap_or_default().fields;
        let (body, plan) = (body.clone(), None);
        let results = Results { body, rows, fields, job: job.clone(), at, next, total, bill, plan };
        Ok((Some(results), Some(job)))
    }

    /// The table that a query's result is, for a day.
    ///
    /// # Errors
    /// As the service says.
    pub(crate) async fn destination(&self, what: &str, job: &Job) -> Result<Object> {
        let found = self.job(what, job).await?.configuration.query.destination_table;
        let found = found.filter(|table| !table.table_id.is_empty());
        let table = found.ok_or_else(|| Error::transient(format!("{what}: the job names no result")))?;
        Ok(Object { project: table.project_id, dataset: table.dataset_id, table: table.table_id })
    }

    async fn job(&self, what: &str, job: &Job) -> Result<JobAnswer> {
        let mut target = format!("/projects/{}/jobs/{}", encoded(&self.project), encoded(&job.id));
        if let Some(location) = &job.location {
            target.push_str(&format!("?location={}", encoded(location)));
        }
        let body = self.call(what, (Method::GET, target), None, Read::Rows).await?;
        understood(what, &body)
    }

    /// What a finished query cost: as its first answer says, or else its job.
    ///
    /// # Errors
    /// As the service says.
    pub(crate) async fn bill(&self, what: &str, results: &Results) -> Result<Bill> {
        if let Some(bill) = results.bill {
            return Ok(bill);
        }
        let Statistics { query, total_slot_ms } = self.job(what, &results.job).await?.statistics;
        let slot_ms = query.total_slot_ms.or(total_slot_ms).map_or(0, |n| n.0);
        Ok(Bill { bytes: query.total_bytes_billed.map_or(0, |n| n.0), slot_ms })
    }

    /// A table's columns, and its primary key as it declares it; empty without one. It costs nothing.
    ///
    /// # Errors
    /// As the service says.
    pub(crate) async fn table(&self, what: &str, table: &Object) -> Result<(Vec<Field>, Vec<String>)> {
        let target = format!(
            "/projects/{}/datasets/{}/tables/{}",
            encoded(&table.project),
            encoded(&table.dataset),
            encoded(&table.table)
        );
        let body = self.call(what, (Method::GET, target), None, Read::None).await?;
        let answer: TableAnswer = understood(what, &body)?;
        Ok((answer.schema.fields, answer.table_constraints.primary_key.columns))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TableAnswer {
    schema: Schema,
    table_constraints: Constraints,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Constraints {
    primary_key: PrimaryKey,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PrimaryKey {
    columns: Vec<String>,
}

fn understood<'a, T: Deserialize<'a>>(what: &str, body: &'a [u8]) -> Result<T> {
    // What is wrong with it is not quoted: it may hold rows.
    serde_json::from_slice(body).map_err(|_| {
        Error::transient(format!("{what}: the service's answer is not understood"))
            .hint("look whether `endpoint` is BigQuery, and what is between")
    })
}

/// A query that failed, where the service says so within an answer. With a schema the errors are warnings.
fn failure<'a>(answer: &'a Answer<'_>) -> Option<&'a Problem> {
    let has_columns = answer.schema.as_ref().is_some_and(|schema| !schema.fields.is_empty());
    answer.errors.first().filter(|_| !has_columns)
}
