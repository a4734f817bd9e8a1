//! The promise of the whole: eight clients write during snapshot and stream, the daemon is killed at random moments, and in
//! the end source and sink are equal row by row, with no event twice in the topics and each key in order.

use std::time::{Duration, Instant};

use caudal_tests::compare::wait_equal;
use caudal_tests::{Audit, Daemon, DaemonConfig, Family, Kafka, MysqlServer, Postgres, TablePair, Workload};
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// How the daemon ends before it is started again.
#[derive(Clone, Copy)]
enum End {
    /// SIGKILL.
    Kill,
    /// SIGTERM, with exit status 0 within ten seconds.
    Terminate,
}

struct Story {
    name: &'static str,
    family: Family,
    kafka: bool,
    consistency: &'static str,
    end: End,
    rounds: usize,
    seed: u64,
}

/// Tells the story; gives nothing back, for it panics where a promise breaks.
async fn tell(story: Story) {
    let mut rng = SmallRng::seed_from_u64(story.seed);
    let server = MysqlServer::shared(story.family);
    let db = server.database(story.name).await.unwrap();
    let sink = Postgres::shared().database(story.name).await.unwrap();
    // Enough rows that the first kills fall into the snapshot.
    let workload = Workload::create(&server.admin_url(&db), story.seed, 40_000).await.unwrap().clients(8);
    let prefix = format!("{}{}", story.name, std::process::id());
    let mut config = DaemonConfig::new(&prefix).source("shop", &server.url(&db), &[]).sink(
        "dash",
        &sink,
        &[&format!("consistency: {}", story.consistency)],
    );
    if story.kafka {
        config = config.brokers(&Kafka::shared().bootstrap());
    }
    let writers = workload.start().await.unwrap();
    let mut daemon = Daemon::start(&config).unwrap();
    for _ in 0..story.rounds {
        // After a kill, Kafka gives the partitions to the next member only when the session of the dead one has timed out.
        let millis = if story.kafka { rng.random_range(2_000..11_000) } else { rng.random_range(100..2_500) };
        tokio::time::sleep(Duration::from_millis(millis)).await;
        match story.end {
            End::Kill => daemon.kill().unwrap(),
            End::Terminate => {
                let asked = Instant::now();
                let status = daemon.terminate(Duration::from_secs(12)).await.unwrap();
                assert!(status.success(), "a graceful stop ends with {status}");
                assert!(
                    asked.elapsed() < Duration::from_secs(10),
                    "a graceful stop took {:?}",
                    asked.elapsed()
                );
            }
        }
        daemon.start_again().unwrap();
    }
    let tally = writers.stop().await.unwrap();
    assert!(tally.inserted > 0 && tally.updated > 0 && tally.deleted > 0 && tally.rekeyed > 0, "{tally:?}");
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(180)).await;
    let equal = equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    assert!(equal.source_rows > 40_000, "{equal}");
    let audit = Audit::of(daemon.brokers(), &prefix, &[&db]).await.unwrap();
    audit.assert_clean();
    assert!(audit.reads > 0 && audit.updates > 0, "{audit}");
    let asked = Instant::now();
    let status = daemon.terminate(Duration::from_secs(12)).await.unwrap();
    assert!(
        status.success() && asked.elapsed() < Duration::from_secs(10),
        "{status} after {:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn mariadb_killed_at_random_with_the_embedded_log_loses_nothing_and_repeats_nothing() {
    tell(Story {
        name: "crash_a",
        family: Family::MariaDb,
        kafka: false,
        consistency: "transaction",
        end: End::Kill,
        rounds: 12,
        seed: 11,
    })
    .await;
}

#[tokio::test]
async fn mysql_killed_at_random_with_the_embedded_log_loses_nothing_and_repeats_nothing() {
    tell(Story {
        name: "crash_b",
        family: Family::Mysql97,
        kafka: false,
        consistency: "transaction",
        end: End::Kill,
        rounds: 12,
        seed: 12,
    })
    .await;
}

#[tokio::test]
async fn mariadb_killed_at_random_with_kafka_loses_nothing_and_repeats_nothing() {
    tell(Story {
        name: "crash_c",
        family: Family::MariaDb,
        kafka: true,
        consistency: "key",
        end: End::Kill,
        rounds: 6,
        seed: 13,
    })
    .await;
}

#[tokio::test]
async fn mysql_killed_at_random_with_kafka_loses_nothing_and_repeats_nothing() {
    tell(Story {
        name: "crash_d",
        family: Family::Mysql97,
        kafka: true,
        consistency: "transaction",
        end: End::Kill,
        rounds: 6,
        seed: 14,
    })
    .await;
}

#[tokio::test]
async fn a_daemon_stopped_and_started_while_clients_write_goes_on_where_it_was() {
    tell(Story {
        name: "stop_a",
        family: Family::MariaDb,
        kafka: false,
        consistency: "transaction",
        end: End::Terminate,
        rounds: 5,
        seed: 15,
    })
    .await;
}
