//! `ETL_INCREMENTAL_HOURS` and `ETL_FULL_SYNC_TIME`: sources that are polled by the clock, in place of captured as they change.
//!
//! Who sets one of them has an account that reads tables and no log, or wants the database left alone between two times. No variable tells which column
//! of a table grows, so every run reads the tables whole and only what differs goes out: each is a full sync, deletes included. What the two
//! say is *when*: so many hours lie between two runs, and one of each day is at the time of the full sync, from which the hours are then counted.

use super::Work;
use crate::config::tree::{Node, Value};

const HOURS: &str = "ETL_INCREMENTAL_HOURS";
const TIME: &str = "ETL_FULL_SYNC_TIME";
const ZONE: &str = "CAUDAL_TIME_ZONE";
/// The longest that the engine's schedules take: 31 days.
const MOST_HOURS: i128 = 31 * 24;

impl Work<'_> {
    /// Has the source at this path polled, if a variable says so; whether one does.
    pub(super) fn schedule(&mut self, at: &str) -> bool {
        if self.get(HOURS).is_none() && self.get(TIME).is_none() {
            return false;
        }
        let hours = self.number(HOURS, MOST_HOURS);
        let time = self.time_of_day();
        self.put(&format!("{at}.mode"), text("poll".to_owned()));
        match time {
            None => self.interval(at, hours),
            Some(time) => self.times(at, time, hours),
        }
        for (variable, key, most) in
            [("ETL_TIMEOUT_SECONDS", "timeout", 86_400), ("ETL_RETRY_ATTEMPTS", "attempts", 100)]
        {
            let Some(number) = self.number(variable, most) else { continue };
            let value =
                if key == "timeout" { text(format!("{number}s")) } else { Node::made(Value::Int(number)) };
            self.set(variable, &format!("{at}.poll.{key}"), value);
        }
        true
    }

    fn interval(&mut self, at: &str, hours: Option<i128>) {
        let Some(hours) = hours else { return };
        self.set(HOURS, &format!("{at}.poll.every"), text(format!("{hours}h")));
    }

    fn times(&mut self, at: &str, time: (u8, u8), hours: Option<i128>) {
        let schedule = format!("{at}.poll.schedule");
        self.set(TIME, &format!("{schedule}.cron"), text(cron(time, hours)));
        if hours.is_some() {
            self.note(HOURS, Some(&format!("{schedule}.cron")), "counted from ETL_FULL_SYNC_TIME");
        }
        let zone = self.get(ZONE).unwrap_or("UTC").to_owned();
        self.put(&format!("{schedule}.zone"), text(zone));
        if self.get(ZONE).is_some() {
            self.note(ZONE, Some(&format!("{schedule}.zone")), "");
        }
    }

    /// `02:00`, as hour and minute.
    fn time_of_day(&mut self) -> Option<(u8, u8)> {
        let value = self.get(TIME)?;
        let part = |text: &str, most: u8| {
            let digits = matches!(text.len(), 1..=2) && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|n: &u8| digits && *n <= most)
        };
        let time =
            value.split_once(':').and_then(|(hour, minute)| Some((part(hour, 23)?, part(minute, 59)?)));
        if time.is_none() {
            self.problem(TIME, "is no time of day", "write it like 02:00, from 00:00 to 23:59");
        }
        time
    }
}

/// Each day at this time, and every so many hours after it until the next day's.
fn cron((hour, minute): (u8, u8), hours: Option<i128>) -> String {
    let step = hours.and_then(|h| usize::try_from(h).ok()).filter(|h| (1..24).contains(h)).unwrap_or(24);
    let mut all: Vec<usize> = (0..24).step_by(step).map(|h| (usize::from(hour) + h) % 24).collect();
    all.sort_unstable();
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    format!("{minute} {} * * *", all.join(","))
}

fn text(text: String) -> Node {
    Node { line: 0, value: Value::Text(text), expanded: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_counted_from_the_time_of_the_full_sync() {
        assert_eq!(cron((2, 0), None), "0 2 * * *");
        assert_eq!(cron((2, 30), Some(6)), "30 2,8,14,20 * * *");
        // The last stretch of the day is the shorter one: 20:15, 1:15, 6:15, 11:15, 16:15.
        assert_eq!(cron((20, 15), Some(5)), "15 1,6,11,16,20 * * *");
        assert_eq!(cron((23, 59), Some(48)), "59 23 * * *");
        assert_eq!(cron((0, 0), Some(1)).split(',').count(), 24);
    }
}
