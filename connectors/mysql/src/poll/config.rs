//! The keys under `poll:`.

use crate::selection::TablePattern;
use caudal_core::quantity::{DurationText, SizeText};
use caudal_core::{Error, Result, TableId};
use caudal_poll::{Job, Mode, Schedule, ScheduleConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How tables are polled, with `mode: poll`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PollConfig {
    /// From the start of a table's run to the start of its next.
    pub every: DurationText,
    /// In place of `every`: by the calendar, `schedule: {cron: "*/30 6-22 * * *", zone: America/Caracas}`. Without a zone, UTC.
    pub schedule: Option<ScheduleConfig>,
    /// By table pattern, how it is polled: `orders: {mode: incremental, column: updated_at}`. Of several patterns that mean a
    /// table the longest counts. Tables that none means are read as a whole.
    pub tables: BTreeMap<String, TablePoll>,
    /// Most rows of one SELECT.
    pub page_rows: u32,
    /// Most bytes of one SELECT's rows.
    pub page_bytes: SizeText,
    /// How long one SELECT may take.
    pub timeout: DurationText,
    /// How often a run is tried before it waits for its next turn. Only what may pass by itself is tried again.
    pub attempts: u32,
    /// The greatest share of a table's known rows that one refresh may delete; an answer that lacks more is an error.
    pub max_deleted_share: f64,
    /// Where hashes of the rows are kept, 24 bytes for each: to be kept from one start to the next, but never needed. By default
    /// `poll` in `data_dir`.
    pub dir: Option<PathBuf>,
}

/// How one table is polled.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TablePoll {
    /// Which rows a run reads.
    pub mode: PollMode,
    /// For `incremental`: a column that grows with every change of a row (a time, a number). For `sliding_window`: a column that
    /// holds a time. It should have an index.
    pub column: Option<String>,
    /// For `incremental`: how far below the last run's highest value the next one begins, so that rows that were committed late
    /// are not missed. For a column that holds a number, seconds are units.
    #[schemars(with = "Option<String>")]
    pub overlap: Option<DurationText>,
    /// For `sliding_window`: how far back a run reads.
    #[schemars(with = "Option<String>")]
    pub lookback: Option<DurationText>,
    /// In place of `poll.every` and `poll.schedule`.
    #[schemars(with = "Option<String>")]
    pub every: Option<DurationText>,
    /// The same by the calendar.
    pub schedule: Option<ScheduleConfig>,
}

/// Which rows a run reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PollMode {
    /// All; rows that are gone from two runs in a row are deleted.
    #[default]
    FullRefresh,
    /// Those whose column has grown. Deletes are not seen.
    Incremental,
    /// Those of the last days. Deletes are not seen.
    SlidingWindow,
}

const DAY: u64 = 86_400;

impl Default for PollConfig {
    fn default() -> Self {
        Self {
            every: DurationText::secs(60),
            schedule: None,
            tables: BTreeMap::new(),
            page_rows: 5_000,
            page_bytes: SizeText::mib(4),
            timeout: DurationText::secs(300),
            attempts: 3,
            max_deleted_share: 0.2,
            dir: None,
        }
    }
}

/// The same, checked.
#[derive(Clone, Debug)]
pub(crate) struct Polls {
    config: PollConfig,
    /// The longest pattern first; with a schedule of its own.
    tables: Vec<(TablePattern, TablePoll, Option<Schedule>)>,
    pub(crate) dir: Option<PathBuf>,
    /// In place of `every`.
    schedule: Option<Schedule>,
}

impl PollConfig {
    /// Reads the patterns; `database` is the one meant by those that name none.
    ///
    /// # Errors
    /// `Config`, naming the key under `poll`.
    pub(crate) fn resolve(self, database: Option<&str>) -> Result<Polls> {
        let wrong =
            |field: &str, says: &str| Err(Error::config(says.to_owned()).field(field).hint(says.to_owned()));
        if !(Duration::from_secs(1)..=Duration::from_secs(31 * DAY)).contains(&self.every.get()) {
            return wrong("poll.every", "must be between 1s and 31d");
        }
        if self.page_rows == 0 {
            return wrong("poll.page_rows", "must be 1 or more");
        }
        if !(64 << 10..=64 << 20).contains(&self.page_bytes.bytes()) {
            return wrong("poll.page_bytes", "must be between 64KiB and 64MiB");
        }
        if !(0.0..=1.0).contains(&self.max_deleted_share) {
            return wrong("poll.max_deleted_share", "must be between 0 and 1");
        }
        let mut tables = Vec::new();
        let mut patterns: Vec<_> = self.tables.iter().collect();
        patterns.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        for (text, poll) in patterns {
            let pattern = TablePattern::parse(text, database).ok_or_else(|| {
                Error::config(format!("`{text}` is no table pattern"))
                    .field("poll.tables")
                    .hint("write it like `orders: {mode: incremental, column: updated_at}`")
            })?;
            if poll.mode != PollMode::FullRefresh && poll.column.is_none() {
                return Err(Error::config(format!("`{text}` names no column"))
                    .field("poll.tables")
                    .hint("add `column: updated_at`, or use `mode: full_refresh`"));
            }
            let schedule = match (&poll.schedule, poll.every) {
                (Some(_), Some(_)) => {
                    return Err(Error::config(format!("`{text}` has both `every` and `schedule`"))
                        .field("poll.tables")
                        .hint("leave one of them out"));
                }
                (Some(schedule), None) => Some(scheduled(schedule, "poll.tables")?),
                (None, every) => every.map(|every| Schedule::Every(every.get())),
            };
            tables.push((pattern, poll.clone(), schedule));
        }
        let schedule = self.schedule.as_ref().map(|s| scheduled(s, "poll.schedule")).transpose()?;
        Ok(Polls { dir: self.dir.clone(), schedule, config: self, tables })
    }
}

fn scheduled(schedule: &ScheduleConfig, field: &str) -> Result<Schedule> {
    schedule.resolve(&jiff::tz::TimeZone::UTC).map_err(|e| match e.field_name() {
        Some("zone" | "cron" | "every" | "window") if field == "poll.schedule" => {
            let own = format!("{field}.{}", e.field_name().unwrap_or_default());
            e.field(own)
        }
        _ => e.field(field),
    })
}

impl Polls {
    /// How a table is polled.
    pub(crate) fn job(&self, id: &TableId) -> Result<Job> {
        let found = self.tables.iter().find(|(p, ..)| p.matches(&id.database, &id.table));
        let (poll, own) = found.map(|(_, poll, own)| (poll.clone(), own.clone())).unwrap_or_default();
        let column = poll.column.clone().unwrap_or_default();
        let or =
            |text: Option<DurationText>, secs: u64| text.map_or(Duration::from_secs(secs), DurationText::get);
        let mode = match poll.mode {
            PollMode::FullRefresh => Mode::FullRefresh,
            PollMode::Incremental => Mode::Incremental { column, overlap: or(poll.overlap, 300) },
            PollMode::SlidingWindow => Mode::SlidingWindow { column, lookback: or(poll.lookback, 7 * DAY) },
        };
        let config = &self.config;
        Ok(Job {
            table: id.clone(),
            system: 0,
            scope: None,
            mode,
            schedule: own.or_else(|| self.schedule.clone()).unwrap_or(Schedule::Every(config.every.get())),
            page_rows: config.page_rows,
            page_bytes: config.page_bytes.bytes() as usize,
            timeout: config.timeout.get().max(Duration::from_secs(1)),
            attempts: config.attempts.max(1),
            most_deleted: config.max_deleted_share,
            partial: false,
        })
    }
}
