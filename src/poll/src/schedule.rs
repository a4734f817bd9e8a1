//! When a job runs.
//!
//! Times of a calendar are those of its zone's clock. Where that clock is set forward, a time that does not exist is taken at the moment of the
//! change; where it is set back, a fixed time (3:00) comes once, and a repeated one (every 30 minutes) in both hours: that is
//! what `croner` does over `jiff`'s zones, and the tests below hold it to.

use caudal_core::quantity::DurationText;
use caudal_core::{Error, Result};
use croner::Cron;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// Missed runs that [`CatchUp::Each`] makes up for at most; older ones are left out.
pub const MOST_MISSED: usize = 100;
/// Cron expressions that never match (31 February) are found out by this many steps.
const MOST_STEPS: usize = 2_000;

/// When a job runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// From the start of one run to the start of the next.
    Every(Duration),
    /// By the calendar.
    Calendar(Box<Calendar>),
}

/// Times of a clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    times: Times,
    zone: TimeZone,
    /// Both ends belong to it. One that ends before it begins goes over midnight.
    window: Option<(Time, Time)>,
    jitter: Duration,
    catch_up: CatchUp,
}

#[derive(Clone, Debug, PartialEq)]
enum Times {
    Cron(Box<Cron>),
    Every(Duration),
}

/// What becomes of runs that were missed: while the daemon was down, or while the run before took long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// One run makes up for all of them, at once.
    #[default]
    Once,
    /// Each is run, the oldest first, with the dates of its own time; the last 100 at most.
    Each,
    /// None: the next one is awaited. A job that never ran waits, too.
    Skip,
}

/// When a table is read: by a cron expression, or again and again within a window of the day.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// A cron expression of five fields (or six, the first being seconds): `*/30 6-22 * * *`.
    pub cron: Option<String>,
    /// In place of `cron`: from the start of one run to the start of the next.
    #[schemars(with = "Option<String>")]
    pub every: Option<DurationText>,
    /// The time zone of all times and dates, by its IANA name: `America/Caracas`. By default the source's.
    pub zone: Option<String>,
    /// Hours of the day in which runs may begin, both ends included: `06:00-22:00`.
    pub window: Option<String>,
    /// Each run begins up to so much later than its time, always the same for one table and time, so that tables and stores spread out.
    pub jitter: DurationText,
    /// What becomes of missed runs.
    pub catch_up: CatchUp,
}

impl ScheduleConfig {
    /// Reads it; `zone` counts where it names none.
    ///
    /// # Errors
    /// `Config`, naming the key within the schedule.
    pub fn resolve(&self, zone: &TimeZone) -> Result<Schedule> {
        let times = match (&self.cron, self.every) {
            (Some(cron), None) => Times::Cron(Box::new(read_cron(cron)?)),
            (None, Some(every)) if every.get() >= Duration::from_secs(1) => Times::Every(every.get()),
            (None, Some(_)) => {
                return Err(Error::config("is shorter than a second").field("every").hint("every: 30m"));
            }
            _ => {
                return Err(Error::config("needs either `cron` or `every`")
                    .field("cron")
                    .hint("schedule: {cron: \"*/30 6-22 * * *\", zone: America/Caracas}"));
            }
        };
        let zone = match &self.zone {
            Some(name) => zone_of(name)?,
            None => zone.clone(),
        };
        let window = self.window.as_deref().map(read_window).transpose()?;
        let calendar = Calendar { times, zone, window, jitter: self.jitter.get(), catch_up: self.catch_up };
        if calendar.after(Timestamp::UNIX_EPOCH).is_none() {
            return Err(Error::config("no time ever fits").field("cron").hint("look at `cron` and `window`"));
        }
        Ok(Schedule::Calendar(Box::new(calendar)))
    }
}

/// A time zone by its IANA name.
///
/// # Errors
/// `Config`, for the field `zone`.
pub fn zone_of(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).map_err(|_| {
        Error::config(format!("there is no time zone `{name}`"))
            .field("zone")
            .hint("use a name of the IANA database: America/Caracas, Europe/Madrid, UTC")
    })
}

fn read_cron(text: &str) -> Result<Cron> {
    let parser = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Optional).build();
    parser.parse(text).map_err(|e| {
        Error::config(format!("is no cron expression: {e}"))
            .field("cron")
            .hint("minute, hour, day of month, month, day of week: `*/30 6-22 * * *`")
    })
}

fn read_window(text: &str) -> Result<(Time, Time)> {
    let read = || {
        let (from, to) = text.split_once('-')?;
        Some((Time::strptime("%H:%M", from.trim()).ok()?, Time::strptime("%H:%M", to.trim()).ok()?))
    };
    read().ok_or_else(|| {
        Error::config("is no window").field("window").hint("write it like 06:00-22:00, and 24:00 as 00:00")
    })
}

impl Schedule {
    /// When the next run is, after the run whose time was `last` (none: there was none). Not later than `now` if it is due.
    #[must_use]
    pub fn next(&self, last: Option<Timestamp>, now: Timestamp) -> Timestamp {
        match self {
            Self::Every(every) => last.map_or(now, |last| later(last, *every).max(now)),
            Self::Calendar(calendar) => calendar.next(last, now),
        }
    }

    /// The next times, for people.
    #[must_use]
    pub fn upcoming(&self, next: Timestamp, count: usize) -> Vec<Timestamp> {
        let mut times = vec![next];
        while times.len() < count {
            let last = times[times.len() - 1];
            let next = match self {
                Self::Every(every) => Some(later(last, *every)),
                Self::Calendar(calendar) => calendar.after(last),
            };
            let Some(next) = next else { break };
            times.push(next);
        }
        times
    }

    /// When the run of a time begins: with its jitter, and, where it is made up for, not before the window opens.
    #[must_use]
    pub fn begins(&self, job: &str, planned: Timestamp, now: Timestamp) -> Timestamp {
        let begins = later(planned, self.jitter(job, planned));
        let Self::Calendar(calendar) = self else { return begins };
        // Its jitter is part of its time.
        match begins < now {
            true => calendar.opens(&now.to_zoned(calendar.zone.clone())).map_or(begins, |at| at.timestamp()),
            false => begins,
        }
    }

    /// By how much the run of a time is put off: the same for one job and time.
    fn jitter(&self, job: &str, time: Timestamp) -> Duration {
        let Self::Calendar(calendar) = self else { return Duration::ZERO };
        let most = calendar.jitter.as_millis() as u64;
        if most == 0 {
            return Duration::ZERO;
        }
        let mut text = job.as_bytes().to_vec();
        text.extend_from_slice(&time.as_second().to_le_bytes());
        Duration::from_millis(caudal_index::content_hash(&text) % most)
    }

    /// As people write it.
    #[must_use]
    pub fn text(&self) -> String {
        let Self::Calendar(calendar) = self else {
            let Self::Every(every) = self else { return String::new() };
            return format!("every {}", DurationText(*every));
        };
        let mut text = match &calendar.times {
            Times::Cron(cron) => cron.pattern.to_string(),
            Times::Every(every) => format!("every {}", DurationText(*every)),
        };
        if let Some((from, to)) = calendar.window {
            text.push_str(&format!(" {}-{}", from.strftime("%H:%M"), to.strftime("%H:%M")));
        }
        text.push_str(&format!(" {}", calendar.zone.iana_name().unwrap_or("UTC")));
        text
    }
}

impl Calendar {
    fn next(&self, last: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let never = Timestamp::MAX;
        let Some(last) = last else {
            return match self.catch_up {
                CatchUp::Skip => self.after(now).unwrap_or(never),
                _ => now,
            };
        };
        let Some(next) = self.after(last) else { return never };
        if next > now {
            return next;
        }
        match self.catch_up {
            CatchUp::Skip => self.after(now).unwrap_or(never),
            CatchUp::Once => self.missed(next, now).pop().unwrap_or(next),
            CatchUp::Each => self.missed(next, now).first().copied().unwrap_or(next),
        }
    }

    /// The last missed times, `next` being the first of all. Bound: [`MOST_MISSED`].
    fn missed(&self, next: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        let mut times = std::collections::VecDeque::from([next]);
        // So far back that nobody counts: a year of half hours.
        for _ in 0..20_000 {
            let Some(more) = times.back().and_then(|last| self.after(*last)).filter(|t| *t <= now) else {
                break;
            };
            times.push_back(more);
            if times.len() > MOST_MISSED {
                times.pop_front();
            }
        }
        times.into()
    }

    /// The first time after `last`.
    fn after(&self, last: Timestamp) -> Option<Timestamp> {
        let mut at = last.to_zoned(self.zone.clone());
        for _ in 0..MOST_STEPS {
            at = match &self.times {
                Times::Cron(cron) => cron.find_next_occurrence(&at, false).ok()?,
                Times::Every(every) => at.checked_add(jiff::SignedDuration::try_from(*every).ok()?).ok()?,
            };
            let Some(start) = self.opens(&at) else { return Some(at.timestamp()) };
            at = match &self.times {
                // The window's first moment may be a time itself.
                Times::Cron(_) => start.checked_sub(jiff::SignedDuration::from_secs(1)).ok()?,
                Times::Every(_) => return Some(start.timestamp()),
            };
        }
        None
    }

    /// When the window opens, if `at` is outside.
    fn opens(&self, at: &Zoned) -> Option<Zoned> {
        let (from, to) = self.window?;
        let time = at.time();
        let minute = Time::new(time.hour(), time.minute(), 0, 0).ok()?;
        let inside = if from <= to { from <= minute && minute <= to } else { from <= minute || minute <= to };
        if inside {
            return None;
        }
        let day = if time < from { at.date() } else { at.date().tomorrow().ok()? };
        let opens = self.zone.to_ambiguous_zoned(day.to_datetime(from));
        // Where the clock is set back there are two of them, and the first may be over.
        let first = opens.clone().compatible().ok()?;
        if first > *at { Some(first) } else { opens.later().ok() }
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
