//! A session: pages of answers.

use crate::answer::{Answer, Fields};
use crate::client::{Ask, Client};
use crate::config::{PagingKind, Resolved, Table};
use crate::fields;
use crate::paging::{Head, Place};
use crate::template::{Mark, Values, encoded};
use crate::types;
use async_trait::async_trait;
use bytes::Bytes;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    Cell, ColumnType, Error, EventHead, Fault, Op, Result, SnapshotMark, TableId, TableSchema,
};
use caudal_poll::{Look, Page, Request, Session, Window};
use hyper::{Method, Uri};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use std::sync::Arc;
use std::time::Duration;

/// A connection to one system.
pub(crate) struct RestSession {
    source: Arc<Resolved>,
    at: usize,
    client: Client,
    kept: Option<Kept>,
    /// The kept answer has fields that the shape lacks.
    has_more: bool,
}

/// The answer that pages are taken from.
struct Kept {
    table: TableId,
    planned: Timestamp,
    place: Place,
    answer: Answer,
    head: Head,
}

impl RestSession {
    pub(crate) fn new(source: &Arc<Resolved>, at: usize) -> Self {
        let client = Client::new(Arc::clone(&source.places[at].server));
        Self { source: Arc::clone(source), at, client, kept: None, has_more: false }
    }

    fn table(&self, id: &TableId) -> Result<Arc<Table>> {
        let found = self.source.tables.iter().find(|table| table.id == *id);
        found.cloned().ok_or_else(|| Error::bug(format!("poll {id}, which is not configured")))
    }

    /// Has the answer that a place is in.
    async fn keep(&mut self, table: &Table, moment: &Moment<'_>, place: &Place) -> Result<()> {
        let is_kept = self.kept.as_ref().is_some_and(|kept| {
            kept.table == table.id && kept.planned == moment.planned && kept.place.is_of(place)
        });
        if is_kept {
            return Ok(());
        }
        self.kept = None;
        let mut headers = self.source.headers.clone();
        headers.extend(self.source.auth.header().await?);
        let target = self.target(table, moment, place)?;
        let reply = self.client.ask(Ask { method: Method::GET, target, headers, body: Bytes::new() }).await;
        let reply = match reply {
            // A token may be over before its time.
            Err(e) if e.field_name() == Some("auth") && self.source.auth.refused().await => {
                return Err(Error::transient(e.to_string()));
            }
            Err(e) if e.field_name() == Some("auth") => {
                return Err(e.field(format!("sources.{}.auth", self.source.name)));
            }
            reply => reply?,
        };
        let head = Head::of(&reply);
        let answer = Answer::read(reply.body, &table.records).map_err(|e| e.context(table.id.to_string()))?;
        self.kept = Some(Kept {
            table: table.id.clone(),
            planned: moment.planned,
            place: Place { taken: 0, high: None, ..place.clone() },
            answer,
            head,
        });
        Ok(())
    }

    /// Path and query of a request.
    fn target(&self, table: &Table, moment: &Moment<'_>, place: &Place) -> Result<String> {
        let here = &self.source.places[self.at];
        if let (PagingKind::Link, Some(address)) = (table.paging.kind, &place.cursor) {
            return linked(here, address);
        }
        let values = Values {
            planned: moment.planned,
            zone: &self.source.zone,
            day: moment.day(place.day),
            from: moment.from(),
            watermark: moment.mark.clone(),
            store: &here.store,
        };
        let base = here.server.base.path().trim_end_matches('/');
        let path = table.path.fill(&values).ok_or_else(|| {
            Error::config("`path` holds a place that has no value yet")
                .hint("put `{watermark}` into `params`")
        })?;
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        let mut target = format!("{base}{slash}{}", encoded(&path, true));
        if target.is_empty() {
            target.push('/');
        }
        let filled = table.params.iter().filter_map(|(name, text)| Some((name.clone(), text.fill(&values)?)));
        let mut separator = '?';
        for (name, value) in filled.chain(paged(table, place)) {
            target.push(separator);
            target.push_str(&format!("{}={}", encoded(&name, false), encoded(&value, false)));
            separator = '&';
        }
        Ok(target)
    }
}

/// An address that an answer named; the key goes to no other server.
fn linked(here: &crate::config::Place, address: &str) -> Result<String> {
    let uri: Uri = address.parse().map_err(|_| Error::data("the answer names no address as the next one"))?;
    if uri.host().is_some() && !here.server.has(&uri) {
        return Err(Error::data("the answer names an address of another server as the next one")
            .hint("look whether `url` has the right scheme, host and port"));
    }
    match uri.path_and_query().map(|p| p.as_str()).filter(|p| p.starts_with('/')) {
        Some(target) => Ok(target.to_owned()),
        None => Err(Error::data("the answer names no address as the next one")),
    }
}

fn paged(table: &Table, place: &Place) -> Vec<(String, String)> {
    let paging = &table.paging;
    let (default, value) = match paging.kind {
        PagingKind::None | PagingKind::Link => ("", None),
        PagingKind::Page => ("page", Some((u64::from(paging.first) + u64::from(place.page)).to_string())),
        PagingKind::Offset => ("offset", Some(place.before.to_string())),
        PagingKind::Cursor => ("cursor", place.cursor.clone()),
    };
    let name = |own: &Option<String>, default: &str| own.clone().unwrap_or_else(|| default.to_owned());
    let value = value.map(|value| (name(&paging.param, default), value));
    let size = paging.size.map(|size| (name(&paging.size_param, "limit"), size.to_string()));
    value.into_iter().chain(size).collect()
}

/// What a run's requests are about.
struct Moment<'a> {
    planned: Timestamp,
    window: Window<'a>,
    mark: Option<Mark>,
    zone: &'a TimeZone,
}

impl<'a> Moment<'a> {
    fn new(planned: Timestamp, window: Window<'a>, zone: &'a TimeZone, schema: Option<&TableSchema>) -> Self {
        let mark = match window {
            Window::Since { column, watermark: Some(text), overlap } => {
                let found = schema.and_then(|s| s.columns.iter().find(|c| c.name == column));
                found.and_then(|column| mark(text, &column.ty, overlap, zone))
            }
            _ => None,
        };
        Self { planned, window, mark, zone }
    }

    fn from(&self) -> Option<Timestamp> {
        let Window::Lookback { period, .. } = self.window else { return None };
        self.planned.checked_sub(SignedDuration::try_from(period).ok()?).ok()
    }

    /// The day of a number, from 0, of a window that is read day by day.
    fn day(&self, number: u32) -> Option<Zoned> {
        let first = self.from().unwrap_or(self.planned).to_zoned(self.zone.clone());
        first.checked_add(i64::from(number).days()).ok()
    }

    fn is_last_day(&self, number: u32) -> bool {
        let today = self.planned.to_zoned(self.zone.clone()).date();
        self.day(number).is_none_or(|day| day.date() >= today)
    }
}

fn is_text(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Text { .. })
}

/// The watermark less the overlap; a clock's time is one of `zone`.
fn mark(text: &str, ty: &ColumnType, overlap: Duration, zone: &TimeZone) -> Option<Mark> {
    let number = || text.parse::<i64>().ok();
    Some(match ty {
        ColumnType::Timestamp { .. } | ColumnType::DateTime { .. } => {
            let at = Timestamp::from_microsecond(number()?).ok()?;
            let at = at.checked_sub(SignedDuration::try_from(overlap).ok()?).ok()?;
            Mark::Moment(match ty {
                ColumnType::Timestamp { .. } => at,
                // Of two times that a clock shows alike, the first.
                _ => zone.to_ambiguous_timestamp(TimeZone::UTC.to_datetime(at)).earlier().ok()?,
            })
        }
        ColumnType::Date => {
            let days = number()? - overlap.as_secs().div_ceil(86_400) as i64;
            Mark::Day(jiff::civil::date(1970, 1, 1).checked_add(days.days()).ok()?)
        }
        ColumnType::Int { .. } => Mark::Text((number()? - overlap.as_secs() as i64).to_string()),
        _ => Mark::Text(text.to_owned()),
    })
}

#[async_trait]
impl Session for RestSession {
    async fn now_us(&mut self) -> Result<i64> {
        Ok(Timestamp::now().as_microsecond())
    }

    async fn schema(&mut self, look: &Look<'_>) -> Result<Arc<TableSchema>> {
        let table = self.table(look.table)?;
        let known = look.known;
        if known.is_none() && table.infer {
            let source = Arc::clone(&self.source);
            let moment = Moment::new(look.planned, look.window, &source.zone, None);
            self.keep(&table, &moment, &Place::default()).await?;
            self.has_more = true;
        }
        let answer = self.kept.as_ref().filter(|kept| self.has_more && kept.table == table.id);
        let shape = fields::shape(&table, known, answer.map(|kept| &kept.answer))?;
        self.has_more = false;
        if let Window::Since { column, .. } = look.window
            && !shape.columns.iter().any(|c| c.name == column)
        {
            return Err(Error::config(format!(
                "{}: no record has the field `{column}` to be polled by",
                table.id
            ))
            .hint("correct `column`, or declare the field in `fields`"));
        }
        Ok(Arc::new(shape))
    }

    async fn page(&mut self, request: &Request<'_>) -> Result<Page> {
        let table = self.table(&request.schema.id)?;
        let source = Arc::clone(&self.source);
        let moment = Moment::new(request.planned, request.window, &source.zone, Some(request.schema));
        let place = Place::parse(request.after)?;
        self.keep(&table, &moment, &place).await?;
        let Some(kept) = &self.kept else { return Err(Error::bug("no answer is kept")) };
        let store = &self.source.places[self.at].store;
        let mut filling = Filling::new(&table, request, &source.zone, place.high.clone());
        let mut taken = place.taken;
        while taken < kept.answer.len() && !filling.is_full() {
            if filling.take(kept.answer.record(taken), store) {
                self.has_more = true;
                return Ok(Page { reshaped: true, ..Page::default() });
            }
            taken += 1;
        }
        let mut page = filling.page;
        if let Window::Since { column, overlap, .. } = request.window
            && !overlap.is_zero()
            && request.schema.columns.iter().any(|c| c.name == column && is_text(&c.ty))
        {
            page.findings.push(format!(
                "`{column}` is a text: its `overlap` does not hold; declare it in `fields` as a timestamp, datetime, date or integer"
            ));
        }
        let here = Place { taken, high: filling.high.map(|high| high.text()), ..place };
        if let Window::Since { .. } = request.window {
            page.watermark.clone_from(&here.high);
        }
        if taken < kept.answer.len() {
            page.next = Some(here.text());
            return Ok(page);
        }
        let next = here.next(&table.paging, &kept.answer, &kept.head);
        let next = next.map_err(|e| e.context(table.id.to_string()))?;
        if next.is_none() {
            missing(&table, kept, &here, &mut page);
        }
        let another_day = table.is_daily() && !moment.is_last_day(here.day);
        let day =
            another_day.then(|| Place { day: here.day + 1, high: here.high.clone(), ..Place::default() });
        page.next = next.or(day).map(|place| place.text());
        if page.next.is_none() {
            // Not held until the next run, in each store.
            self.kept = None;
        }
        Ok(page)
    }
}

/// Whether the API itself says that there were more records than came.
fn missing(table: &Table, kept: &Kept, here: &Place, page: &mut Page) {
    let path = table.paging.total.as_deref();
    let total = path.and_then(|path| kept.answer.text(path)).and_then(|text| text.parse::<u64>().ok());
    let read = here.before + kept.answer.len() as u64;
    if let Some(total) = total.filter(|total| read < *total) {
        page.incomplete = true;
        page.findings.push(format!("the API counts {total} records and gave {read}: nothing is deleted"));
    }
}

/// The highest value of a column, in the order of its type.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum High {
    Number(i64),
    Text(String),
}

impl High {
    fn text(&self) -> String {
        match self {
            Self::Number(n) => n.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

struct Filling<'a> {
    table: &'a Table,
    request: &'a Request<'a>,
    zone: &'a TimeZone,
    page: Page,
    /// The window's column.
    column: Option<usize>,
    high: Option<High>,
    /// A time beyond it is no watermark: what comes after it would not be read until then.
    latest: i64,
}

impl<'a> Filling<'a> {
    fn new(table: &'a Table, request: &'a Request<'a>, zone: &'a TimeZone, high: Option<String>) -> Self {
        let column = match request.window {
            Window::Since { column, .. } => request.schema.columns.iter().position(|c| c.name == column),
            _ => None,
        };
        let ty = column.map(|i| &request.schema.columns[i].ty);
        let now = Timestamp::now();
        let clock = now.as_microsecond() + i64::from(zone.to_offset(now).seconds()) * 1_000_000;
        let latest = match ty {
            Some(ColumnType::Timestamp { .. }) => now.as_microsecond(),
            Some(ColumnType::DateTime { .. }) => clock,
            Some(ColumnType::Date) => clock.div_euclid(86_400_000_000),
            _ => i64::MAX,
        };
        let is_text = ty.is_some_and(is_text);
        let high =
            high.and_then(
                |text| if is_text { Some(High::Text(text)) } else { text.parse().ok().map(High::Number) },
            );
        Self { table, request, zone, page: Page::default(), column, high, latest }
    }

    fn is_full(&self) -> bool {
        let events = self.page.rows.events.len();
        events >= self.request.rows as usize || (events > 0 && self.page.rows.size() >= self.request.bytes)
    }

    /// Takes a record, or leaves it out. Whether it has a field that the shape lacks.
    fn take(&mut self, record: &str, store: &std::collections::BTreeMap<String, String>) -> bool {
        let Ok(fields) = serde_json::from_str::<Fields<'_>>(record) else {
            self.reject("a record is no object".to_owned());
            return false;
        };
        let schema = Arc::clone(self.request.schema);
        if fields::has_more(self.table, &schema, &fields) {
            return true;
        }
        let rows = &mut self.page.rows;
        let first = rows.cells.len();
        for column in &schema.columns {
            let own = self.table.store_columns.iter().find(|(name, _)| *name == column.name);
            let cell = match own {
                Some((_, attribute)) => {
                    let text = store.get(attribute).map_or("", String::as_str);
                    Some(Cell::Text(rows.copy(text.as_bytes())))
                }
                None => {
                    types::cell(fields::value(self.table, &fields, &column.name), &column.ty, self.zone, rows)
                }
            };
            let Some(cell) = cell else {
                let found = types::kind(fields::value(self.table, &fields, &column.name));
                rows.cells.truncate(first);
                let finding = format!(
                    "`{}`: {found} that is no {}: such records are left out until `fields` declares another type",
                    column.name,
                    types::name(&column.ty)
                );
                self.reject(finding);
                return false;
            };
            rows.cells.push(cell);
        }
        self.rise(first);
        self.page.rows.events.push(EventHead {
            table: 0,
            transaction: 0,
            before: NO_ROW,
            after: first as u32,
            row: 0,
            op: Op::Read,
            snapshot: SnapshotMark::False,
            pos: 0,
            ts_us: 0,
        });
        false
    }

    fn rise(&mut self, first: usize) {
        let Some(column) = self.column else { return };
        let rows = &self.page.rows;
        let high = match rows.cells[first + column] {
            Cell::I64(n) => High::Number(n.min(self.latest)),
            Cell::Text(slice) => High::Text(String::from_utf8_lossy(rows.bytes(slice)).into_owned()),
            _ => return,
        };
        if self.high.as_ref().is_none_or(|before| *before < high) {
            self.high = Some(high);
        }
    }

    fn reject(&mut self, finding: String) {
        self.page.rejected += 1;
        if !self.page.findings.contains(&finding) {
            self.page.findings.push(finding);
        }
    }
}

/// Whether an error is of the store alone and may pass.
pub(crate) fn may_pass(error: &Error) -> bool {
    error.fault() == Fault::Transient
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clocks_watermark_is_a_moment_of_its_zone() {
        let zone = TimeZone::get("Europe/Madrid").unwrap();
        let at = |ty: ColumnType, text: &str| match mark(text, &ty, Duration::from_secs(300), &zone) {
            Some(Mark::Moment(at)) => at.to_string(),
            _ => String::new(),
        };
        // 22:00 as a clock shows it, or as a moment.
        let micros = "2026-01-10T22:00:00Z".parse::<Timestamp>().unwrap().as_microsecond().to_string();
        assert_eq!(at(ColumnType::DateTime { precision: 6 }, &micros), "2026-01-10T20:55:00Z");
        assert_eq!(at(ColumnType::Timestamp { precision: 6 }, &micros), "2026-01-10T21:55:00Z");
    }
}
