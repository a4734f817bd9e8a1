//! Time zones whose clocks change, windows, missed runs.

use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn calendar(cron: &str, zone: &str) -> ScheduleConfig {
    ScheduleConfig { cron: Some(cron.into()), zone: Some(zone.into()), ..ScheduleConfig::default() }
}

fn resolved(config: &ScheduleConfig) -> Schedule {
    config.resolve(&TimeZone::UTC).unwrap()
}

fn upcoming(config: &ScheduleConfig, after: &str, count: usize) -> Vec<String> {
    let Schedule::Calendar(calendar) = resolved(config) else { panic!("a calendar") };
    let mut times = vec![calendar.after(time(after)).unwrap()];
    while times.len() < count {
        times.push(calendar.after(times[times.len() - 1]).unwrap());
    }
    times.iter().map(ToString::to_string).collect()
}

#[test]
fn every_half_hour_of_the_opening_hours_of_caracas() {
    let config = calendar("*/30 6-21 * * *", "America/Caracas");
    // 22:00 of the 1st to 6:00 of the 2nd, there.
    assert_eq!(
        upcoming(&config, "2026-03-02T01:00:00Z", 3),
        ["2026-03-02T01:30:00Z", "2026-03-02T10:00:00Z", "2026-03-02T10:30:00Z"]
    );
    let window = ScheduleConfig {
        cron: Some("*/30 * * * *".into()),
        zone: Some("America/Caracas".into()),
        window: Some("06:00-22:00".into()),
        ..ScheduleConfig::default()
    };
    // Both ends belong to it.
    assert_eq!(
        upcoming(&window, "2026-03-02T01:30:00Z", 3),
        ["2026-03-02T02:00:00Z", "2026-03-02T10:00:00Z", "2026-03-02T10:30:00Z"]
    );
    let every = ScheduleConfig { cron: None, every: Some(DurationText::secs(2_700)), ..window };
    assert_eq!(upcoming(&every, "2026-03-02T01:20:00Z", 2), ["2026-03-02T10:00:00Z", "2026-03-02T10:45:00Z"]);
    let night = ScheduleConfig { window: Some("22:00-02:00".into()), ..calendar("0 * * * *", "UTC") };
    assert_eq!(upcoming(&night, "2026-03-02T01:30:00Z", 2), ["2026-03-02T02:00:00Z", "2026-03-02T22:00:00Z"]);
}

#[test]
fn a_daily_run_comes_once_a_day_where_the_clock_is_changed() {
    // Madrid: 2026-03-29 02:00 → 03:00, 2026-10-25 03:00 → 02:00.
    let config = calendar("30 2 * * *", "Europe/Madrid");
    let spring = upcoming(&config, "2026-03-28T00:00:00Z", 4);
    assert_eq!(spring[0], "2026-03-28T01:30:00Z");
    assert!(spring[1].starts_with("2026-03-29T01:"), "2:30 does not exist: {spring:?}");
    assert_eq!(spring[2..], ["2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]);
    let autumn = upcoming(&config, "2026-10-24T12:00:00Z", 2);
    assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"], "2:30 is there twice");
}

#[test]
fn a_repeated_run_neither_stops_nor_doubles_where_the_clock_is_changed() {
    let config = calendar("*/30 * * * *", "Europe/Madrid");
    for day in ["2026-03-29T00:00:00Z", "2026-10-25T00:00:00Z"] {
        let mut expected = time(day);
        for found in upcoming(&config, day, 8) {
            expected = later(expected, Duration::from_secs(1_800));
            assert_eq!(found, expected.to_string());
        }
    }
}

#[test]
fn missed_runs_are_made_up_for_once_each_or_not_at_all() {
    let config = |catch_up| ScheduleConfig { catch_up, ..calendar("0 3 * * *", "America/Caracas") };
    // The run of the 1st, 3:00 there, was the last; the daemon comes back on the 4th at noon.
    let (last, now) = (time("2026-03-01T07:00:00Z"), time("2026-03-04T16:00:00Z"));
    let next = |catch_up, last| resolved(&config(catch_up)).next(last, now).to_string();
    assert_eq!(next(CatchUp::Once, Some(last)), "2026-03-04T07:00:00Z");
    assert_eq!(next(CatchUp::Each, Some(last)), "2026-03-02T07:00:00Z");
    assert_eq!(next(CatchUp::Skip, Some(last)), "2026-03-05T07:00:00Z");
    // One that made up for all is followed by the next that is not missed.
    let made_up = Some(time("2026-03-04T07:00:00Z"));
    for catch_up in [CatchUp::Once, CatchUp::Each, CatchUp::Skip] {
        assert_eq!(next(catch_up, made_up), "2026-03-05T07:00:00Z");
    }
    // What never ran was missed.
    assert_eq!(next(CatchUp::Once, None), now.to_string());
    assert_eq!(next(CatchUp::Skip, None), "2026-03-05T07:00:00Z");
    // After a very long time only the last hundred.
    let far = resolved(&config(CatchUp::Each)).next(Some(time("2024-01-01T07:00:00Z")), now);
    assert_eq!(far.to_string(), "2025-11-25T07:00:00Z");
}

#[test]
fn an_interval_begins_at_once_and_then_keeps_its_distance() {
    let (every, now) = (Schedule::Every(Duration::from_secs(60)), time("2026-03-04T16:00:00Z"));
    assert_eq!(every.next(None, now), now);
    assert_eq!(every.next(Some(now), now).to_string(), "2026-03-04T16:01:00Z");
    assert_eq!(every.next(Some(time("2026-03-01T00:00:00Z")), now), now);
}

#[test]
fn jitter_is_the_same_for_one_job_and_time_and_differs_between_jobs() {
    let config = ScheduleConfig { jitter: DurationText::secs(60), ..calendar("0 * * * *", "UTC") };
    let (schedule, at) = (resolved(&config), time("2026-03-04T16:00:00Z"));
    let of = |job: &str| schedule.jitter(job, at);
    assert_eq!(of("a"), of("a"));
    assert!((0..20).map(|i| of(&i.to_string())).collect::<std::collections::BTreeSet<_>>().len() > 10);
    assert!((0..20).all(|i| of(&i.to_string()) < Duration::from_secs(60)));
}

#[test]
fn a_missed_run_is_not_made_up_for_outside_the_window() {
    let config =
        ScheduleConfig { window: Some("06:00-22:00".into()), ..calendar("*/30 * * * *", "America/Caracas") };
    let schedule = resolved(&config);
    let begins = |planned: &str, now: &str| schedule.begins("a", time(planned), time(now)).to_string();
    // Five in the morning there.
    assert_eq!(begins("2026-03-01T20:00:00Z", "2026-03-02T09:00:00Z"), "2026-03-02T10:00:00Z");
    assert_eq!(begins("2026-03-01T20:00:00Z", "2026-03-02T11:00:00Z"), "2026-03-01T20:00:00Z");
    assert_eq!(begins("2026-03-02T10:00:00Z", "2026-03-02T09:00:00Z"), "2026-03-02T10:00:00Z");
}

#[test]
fn what_is_no_schedule_is_refused_with_the_key_that_is_wrong() {
    let wrong = |config: ScheduleConfig| {
        let error = config.resolve(&TimeZone::UTC).unwrap_err();
        error.field_name().unwrap_or_default().to_owned()
    };
    let cron = |text: &str| calendar(text, "UTC");
    assert_eq!(wrong(cron("every noon")), "cron");
    assert_eq!(wrong(cron("0 0 31 2 *")), "cron");
    assert_eq!(wrong(calendar("0 * * * *", "America/Caracass")), "zone");
    assert_eq!(wrong(ScheduleConfig { window: Some("6 to 10".into()), ..cron("0 * * * *") }), "window");
    assert_eq!(wrong(ScheduleConfig::default()), "cron");
    assert_eq!(wrong(ScheduleConfig { every: Some(DurationText::secs(5)), ..cron("0 * * * *") }), "cron");
}

#[test]
fn a_window_that_opens_in_the_hour_that_comes_twice_opens_once_each_time() {
    // Madrid: 2026-10-25 03:00 → 02:00.
    let config =
        ScheduleConfig { window: Some("02:30-05:00".into()), ..calendar("*/10 * * * *", "Europe/Madrid") };
    let times: Vec<Timestamp> =
        upcoming(&config, "2026-10-25T00:00:00Z", 30).iter().map(|t| time(t)).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    assert!(times[29] < time("2026-10-26T06:00:00Z"));
}

#[test]
fn the_windows_last_run_is_put_off_by_its_jitter_and_not_until_the_next_day() {
    let config = ScheduleConfig {
        window: Some("06:00-22:00".into()),
        jitter: DurationText::secs(600),
        ..calendar("*/30 * * * *", "UTC")
    };
    let (schedule, last) = (resolved(&config), time("2026-03-01T22:00:00Z"));
    let job = (0..100).map(|i| i.to_string()).find(|job| schedule.jitter(job, last).as_secs() > 300).unwrap();
    let begins = schedule.begins(&job, last, time("2026-03-01T22:01:00Z"));
    assert_eq!(begins, later(last, schedule.jitter(&job, last)));
}
