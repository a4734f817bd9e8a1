//! kill -9 at any moment: each event is in the log once, in order, and the position agrees.

use crate::kit::{Changes, brokers, log, open, prefix, put, read, table, values};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "CAUDAL_CAPTURE_CHILD";
const EVENTS: i64 = 40;

/// Not a test by itself: the process that [`killed_at_any_moment_each_event_is_there_once`] starts and kills. It captures a
/// source that counts: batch n holds the ids from n * [`EVENTS`] on, and its token is n.
#[tokio::test]
async fn child_captures_until_it_is_killed() {
    let (Ok(prefix), Some(brokers)) = (std::env::var(CHILD), brokers()) else { return };
    let mut writer = open(&log(&brokers, &prefix), "plex").await;
    let resumed = writer.resume().await.unwrap();
    let mut next = resumed.map_or(0, |p| p.source().unwrap().token.parse::<i64>().unwrap() + 1);
    let orders = table("orders", true);
    loop {
        let ids = next * EVENTS..(next + 1) * EVENTS;
        let batch = ids.fold(Changes::new(), |changes, id| changes.insert(&orders, id));
        put(writer.as_mut(), batch.boundary().build(&next.to_string())).await.unwrap();
        next += 1;
    }
}

fn start(prefix: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_captures_until_it_is_killed", "--test-threads=1"])
        .env(CHILD, prefix)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_each_event_is_there_once() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    for round in 0..6_u64 {
        let mut child = start(&prefix);
        // The moments differ by what the machine is doing; the spread is what counts.
        tokio::time::sleep(Duration::from_millis(1_200 + round * 173)).await;
        assert!(child.try_wait().unwrap().is_none(), "the child died by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Opening settles what the last child left.
    let start = Instant::now();
    let mut writer = open(&log(&brokers, &prefix), "plex").await;
    assert!(start.elapsed() < Duration::from_secs(15));
    let reached = writer.resume().await.unwrap().expect("something was committed");
    let batches: i64 = reached.source().unwrap().token.parse().unwrap();
    let keys: Vec<_> =
        read(&brokers, &format!("{prefix}.shop.orders"), 0).into_iter().filter_map(|r| r.key).collect();
    let wanted: Vec<_> = (0..(batches + 1) * EVENTS).map(|id| format!("{{\"id\":{id}}}")).collect();
    assert!(keys == wanted, "{} events, {} wanted", keys.len(), wanted.len());
    let positions = read(&brokers, &format!("caudal.{prefix}.positions"), 0);
    let epochs: Vec<_> = values(&positions, "plex").iter().filter_map(|p| p["epoch"].as_u64()).collect();
    assert!(epochs.is_sorted() && *epochs.last().unwrap() > 1, "more than one life got to commit");
}
