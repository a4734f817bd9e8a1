//! `GET /api/v1/freshness`: up to when tables are complete, and waiting for it.
//!
//! Bounds: [`WAITERS`] requests wait at a time, each at most [`LONGEST`].

use crate::board::Board;
use crate::routes::refusal;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use caudal_core::TableId;
use caudal_core::quantity::parse_duration;
use caudal_engine::StatusHandle;
use caudal_engine::freshness::{TableFreshness, together};
use caudal_engine::status::now_us;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

/// Requests that may wait at a time.
const WAITERS: usize = 128;
/// How long a request waits that does not say.
const DEFAULT: Duration = Duration::from_secs(30);
/// No request waits longer.
const LONGEST: Duration = Duration::from_secs(300);

static PLACES: Semaphore = Semaphore::const_new(WAITERS);

/// What the answer says of a table. Keys are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The sink.
    pub sink: String,
    /// The source.
    pub source: String,
    /// `database.table`, as the source names it.
    pub table: String,
    /// RFC 3339: all that was committed in the source before is shown. Null before the first reading of the table is over, and where other
    /// daemons apply a part of the table.
    pub complete_to: Option<String>,
    /// The same, microseconds since the epoch.
    pub complete_to_us: Option<i64>,
    /// The source's position there.
    pub position: Option<String>,
    /// Whether `at_least` is reached; absent where nothing was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<bool>,
    /// Dead letters of the sink that wait for somebody: so many events are missing.
    pub dead_letters: u64,
}

/// What a request may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    sink: Option<String>,
    at_least: Option<String>,
    timeout: Option<String>,
}

/// Of what one pipeline applies.
pub(crate) fn told(handle: &StatusHandle, fresh: TableFreshness) -> Told {
    let text = |us: i64| Timestamp::from_microsecond(us).map(|at| at.to_string()).ok();
    Told {
        sink: handle.sink().unwrap_or_default().to_owned(),
        source: fresh.source,
        table: fresh.table.to_string(),
        complete_to: fresh.complete_to_us.and_then(text),
        complete_to_us: fresh.complete_to_us,
        position: fresh.position,
        reached: None,
        dead_letters: handle.metrics().dead_letters.load(Ordering::Relaxed),
    }
}

/// The pipelines of this daemon that apply to one sink: each has some of its tables, and of a table with several partitions maybe some.
struct Lanes<'a>(Vec<&'a StatusHandle>);

impl<'a> Lanes<'a> {
    /// Those of each sink.
    fn all(board: &'a Board) -> Vec<Self> {
        let mut by_sink: BTreeMap<&str, Vec<&StatusHandle>> = BTreeMap::new();
        for handle in board.sinks() {
            by_sink.entry(handle.sink().unwrap_or_default()).or_default().push(handle);
        }
        by_sink.into_values().map(Self).collect()
    }

    fn sink(&self) -> &str {
        self.0.first().and_then(|handle| handle.sink()).unwrap_or_default()
    }

    /// Up to when tables are complete, all pipelines together, by source and name.
    fn tables(&self, wanted: impl Fn(&TableId) -> bool) -> Vec<TableFreshness> {
        let mut by_table: BTreeMap<(String, TableId), Vec<TableFreshness>> = BTreeMap::new();
        for fresh in self.0.iter().flat_map(|handle| handle.freshness().tables_where(&wanted)) {
            by_table.entry((fresh.source.clone(), fresh.table.clone())).or_default().push(fresh);
        }
        by_table.into_values().filter_map(together).collect()
    }

    fn told(&self, fresh: TableFreshness) -> Told {
        let letters = |handle: &&StatusHandle| handle.metrics().dead_letters.load(Ordering::Relaxed);
        let dead_letters = self.0.iter().map(letters).max().unwrap_or_default();
        let first = self.0.first().map(|handle| told(handle, fresh));
        Told { dead_letters, ..first.unwrap_or_default() }
    }

    /// The table of that name: `database.table`, or `table` where that is clear.
    fn find(&self, table: &str) -> Result<Option<TableFreshness>, Refused> {
        let mut found = self.tables(|id| id.table == table || id.to_string() == table);
        if found.len() > 1 {
            let names: Vec<String> = found.iter().map(|fresh| fresh.table.to_string()).collect();
            return Err(Refused(StatusCode::BAD_REQUEST, format!("which one: {}?", names.join(", "))));
        }
        Ok(found.pop())
    }
}

/// All tables of all sinks.
pub(crate) async fn all(State(board): State<Arc<Board>>) -> Response {
    let of = |lanes: &Lanes<'_>| {
        let told = |fresh: TableFreshness| match fresh.is_whole() {
            true => lanes.told(fresh),
            false => lanes.told(TableFreshness { complete_to_us: None, position: None, ..fresh }),
        };
        lanes.tables(|_| true).into_iter().map(told).collect::<Vec<_>>()
    };
    Json(Lanes::all(&board).iter().flat_map(of).collect::<Vec<_>>()).into_response()
}

/// One table, once it is complete up to `at_least`.
pub(crate) async fn one(
    State(board): State<Arc<Board>>,
    Path(table): Path<String>,
    Query(asked): Query<Asked>,
) -> Response {
    let found = wait(&board, &table, &asked).await;
    found.unwrap_or_else(|refused| refused)
}

async fn wait(board: &Board, table: &str, asked: &Asked) -> Result<Response, Response> {
    let at_least = asked.at_least.as_deref().map(moment).transpose()?;
    let timeout = match asked.timeout.as_deref() {
        None => DEFAULT,
        Some(text) => parse_duration(text).map_err(|e| {
            refusal(StatusCode::BAD_REQUEST, &format!("timeout: {e}; write 30s, at most {LONGEST:?}"))
        })?,
    };
    let lanes = only(board, table, asked.sink.as_deref())?;
    let _place = PLACES.try_acquire().map_err(|_| {
        refusal(StatusCode::SERVICE_UNAVAILABLE, "too many requests wait already: ask again later")
    })?;
    let deadline = Instant::now() + timeout.min(LONGEST);
    let mut changes: Vec<_> = lanes.0.iter().map(|handle| handle.freshness().changes()).collect();
    loop {
        changes.iter_mut().for_each(Receiver::mark_unchanged);
        let fresh = lanes.find(table)?;
        if let Some(fresh) = &fresh
            && !fresh.is_whole()
        {
            let why = "other daemons apply a part of this table: select from caudal.freshness in the sink's database";
            return Err(refusal(StatusCode::CONFLICT, why));
        }
        let reached =
            at_least.map(|at| fresh.as_ref().and_then(|f| f.complete_to_us).is_some_and(|to| to >= at));
        if let (Some(fresh), true) = (&fresh, reached != Some(false)) {
            return Ok(Json(Told { reached, ..lanes.told(fresh.clone()) }).into_response());
        }
        if at_least.is_none() || tokio::time::timeout_at(deadline, any(&mut changes)).await.is_err() {
            return Err(match fresh {
                Some(fresh) => {
                    let told = Told { reached, ..lanes.told(fresh) };
                    (StatusCode::GATEWAY_TIMEOUT, Json(told)).into_response()
                }
                None => unknown(table),
            });
        }
    }
}

/// Waits until one of them has changed.
async fn any(changes: &mut [Receiver<u64>]) {
    let mut changes: Vec<_> = changes.iter_mut().map(|one| Box::pin(one.changed())).collect();
    let turn = |context: &mut Context<'_>| {
        let changed = changes.iter_mut().any(|one| one.as_mut().poll(context).is_ready());
        if changed { Poll::Ready(()) } else { Poll::Pending }
    };
    poll_fn(turn).await;
}

fn unknown(table: &str) -> Response {
    let why = format!(
        "nothing is known of table {table}: it is not captured, or no row of it was applied yet; /api/v1/freshness lists all"
    );
    refusal(StatusCode::NOT_FOUND, &why)
}

/// What a request is refused with.
#[derive(Debug)]
struct Refused(StatusCode, String);

impl From<Refused> for Response {
    fn from(Refused(status, why): Refused) -> Self {
        refusal(status, &why)
    }
}

/// The sink that is meant: the named one, or the only one that has the table (before it does, the only one there is).
fn only<'a>(board: &'a Board, table: &str, sink: Option<&str>) -> Result<Lanes<'a>, Refused> {
    let mut sinks = Lanes::all(board);
    if let Some(sink) = sink {
        sinks.retain(|lanes| lanes.sink() == sink);
        if sinks.is_empty() {
            return Err(Refused(StatusCode::NOT_FOUND, format!("there is no sink {sink}")));
        }
    }
    let has = |lanes: &Lanes<'_>| !matches!(lanes.find(table), Ok(None));
    if sinks.iter().any(has) {
        sinks.retain(has);
    }
    if sinks.len() > 1 {
        let names: Vec<&str> = sinks.iter().map(Lanes::sink).collect();
        let why = format!("name the sink: ?sink={}", names.join(" or ?sink="));
        return Err(Refused(StatusCode::BAD_REQUEST, why));
    }
    sinks.pop().ok_or_else(|| Refused(StatusCode::NOT_FOUND, "there is no sink".to_owned()))
}

/// Microseconds since the epoch: of RFC 3339, of seconds since the epoch, or `now` by this machine's clock.
fn moment(text: &str) -> Result<i64, Refused> {
    if text == "now" {
        return Ok(now_us());
    }
    let seconds = text.parse::<f64>().ok().filter(|s| s.is_finite() && s.abs() < 1e11);
    let written = || text.replace(' ', "+").parse::<Timestamp>().ok().map(Timestamp::as_microsecond);
    // Rounded up: "at least" must not become less.
    seconds.map(|s| (s * 1e6).ceil() as i64).or_else(written).ok_or_else(|| {
        let why = "at_least: write a moment such as 2026-11-22T08:30:00Z, seconds since the epoch, or now";
        Refused(StatusCode::BAD_REQUEST, why.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_three_ways() {
        assert_eq!(moment("2026-11-22T08:30:00Z").unwrap(), 1_795_336_200_000_000);
        assert_eq!(moment("2026-11-22T10:30:00 02:00").unwrap(), 1_795_336_200_000_000);
        assert_eq!(moment("1795336200.5").unwrap(), 1_795_336_200_500_000);
        assert!(moment("now").is_ok() && moment("soon").is_err());
    }
}
