//! What each client of librdkafka reports of itself, as Prometheus metrics and for the topic of metrics.
//!
//! The library gives a report as JSON every `statistics.interval.ms` (15 s, unless the operator says otherwise; `0`: never). Of it only what
//! concerns the client and its brokers is kept, partitions are passed over. Clients of one id and kind follow each other (a producer is made
//! anew with each session): the newest report counts.
//!
//! Memory: at most [`MOST`] clients, each with at most [`MOST_BROKERS`] brokers: some 200 bytes a broker.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Clients that are remembered.
const MOST: usize = 256;
/// Brokers of one client.
const MOST_BROKERS: usize = 64;
/// A client that is silent for so long is gone.
const GONE: Duration = Duration::from_secs(120);

/// The last report of each client of a log.
#[derive(Debug, Default)]
pub struct Telemetry(Mutex<BTreeMap<(String, String), Reported>>);

#[derive(Debug)]
struct Reported {
    at: Instant,
    client: ClientReport,
}

/// One client's own figures. Counters begin with the client.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct ClientReport {
    /// The `client.id`.
    pub client_id: String,
    /// `producer` or `consumer`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Requests sent.
    #[serde(rename(deserialize = "tx", serialize = "requests"))]
    pub requests: i64,
    /// Bytes sent.
    #[serde(rename(deserialize = "tx_bytes", serialize = "sent_bytes"))]
    pub sent_bytes: i64,
    /// Answers received.
    #[serde(rename(deserialize = "rx", serialize = "answers"))]
    pub answers: i64,
    /// Bytes received.
    #[serde(rename(deserialize = "rx_bytes", serialize = "received_bytes"))]
    pub received_bytes: i64,
    /// Records produced.
    #[serde(rename(deserialize = "txmsgs", serialize = "sent_records"))]
    pub sent_records: i64,
    /// Records consumed.
    #[serde(rename(deserialize = "rxmsgs", serialize = "received_records"))]
    pub received_records: i64,
    /// Records that wait in a producer's queue.
    #[serde(rename(deserialize = "msg_cnt", serialize = "queued_records"))]
    pub queued_records: u64,
    /// Bytes that wait there.
    #[serde(rename(deserialize = "msg_size", serialize = "queued_bytes"))]
    pub queued_bytes: u64,
    /// By `host:port/id`.
    pub brokers: BTreeMap<String, BrokerReport>,
}

/// What a client tells of a broker.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct BrokerReport {
    /// `UP`, `DOWN`, `CONNECT` …
    pub state: String,
    /// Negative for an address that is only asked who the brokers are.
    #[serde(skip_serializing)]
    nodeid: i64,
    /// Requests that wait to be sent.
    #[serde(rename(deserialize = "outbuf_cnt", serialize = "waiting_requests"))]
    pub waiting_requests: i64,
    /// Requests without an answer yet.
    #[serde(rename(deserialize = "waitresp_cnt", serialize = "open_requests"))]
    pub open_requests: i64,
    /// Errors while sending.
    #[serde(rename(deserialize = "txerrs", serialize = "send_errors"))]
    pub send_errors: i64,
    /// Requests sent again.
    #[serde(rename(deserialize = "txretries", serialize = "retries"))]
    pub retries: i64,
    /// Requests that timed out.
    #[serde(rename(deserialize = "req_timeouts", serialize = "timeouts"))]
    pub timeouts: i64,
    /// Errors while receiving.
    #[serde(rename(deserialize = "rxerrs", serialize = "receive_errors"))]
    pub receive_errors: i64,
    /// Connections made, or tried.
    pub connects: i64,
    /// Connections that ended.
    pub disconnects: i64,
    /// Time to an answer, microseconds.
    pub rtt: Window,
    /// Time that the broker held the client back, milliseconds.
    pub throttle: Window,
}

/// A quantity over the last interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Window {
    /// Mean.
    pub avg: i64,
    /// 99 in 100 are at most that.
    pub p99: i64,
    /// The largest.
    pub max: i64,
}

impl Telemetry {
    /// Takes a report as librdkafka gives it; gives it in our form. None for what cannot be read: figures are not worth an error.
    pub(crate) fn take(&self, report: &[u8]) -> Option<ClientReport> {
        let mut client: ClientReport = serde_json::from_slice(report).ok()?;
        client.brokers.retain(|_, broker| broker.nodeid >= 0);
        while client.brokers.len() > MOST_BROKERS {
            client.brokers.pop_last();
        }
        let mut all = self.all();
        let name = (client.client_id.clone(), client.kind.clone());
        if all.len() >= MOST && !all.contains_key(&name) {
            all.retain(|_, reported| reported.at.elapsed() < GONE);
            if all.len() >= MOST {
                return Some(client);
            }
        }
        all.insert(name, Reported { at: Instant::now(), client: client.clone() });
        Some(client)
    }

    /// The last report of each client that lives, by id and kind.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientReport> {
        let mut all = self.all();
        all.retain(|_, reported| reported.at.elapsed() < GONE);
        all.values().map(|reported| reported.client.clone()).collect()
    }

    /// Prometheus text (version 0.0.4); empty before the first report.
    #[must_use]
    pub fn exposition(&self) -> String {
        let clients = self.clients();
        let mut out = String::new();
        if clients.is_empty() {
            return out;
        }
        for (name, kind, help, value) in OF_CLIENTS {
            head(&mut out, name, kind, help);
            for client in &clients {
                let _ = writeln!(out, "{name}{{{}}} {}", labels(client), value(client));
            }
        }
        for (name, kind, help, value) in OF_BROKERS {
            head(&mut out, name, kind, help);
            for client in &clients {
                for (broker, report) in &client.brokers {
                    let labels = labels(client);
                    let _ =
                        writeln!(out, "{name}{{{labels},broker=\"{}\"}} {}", escaped(broker), value(report));
                }
            }
        }
        out
    }

    // A panic while the lock is held leaves whole reports.
    fn all(&self) -> MutexGuard<'_, BTreeMap<(String, String), Reported>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a client's context leaves its reports; nowhere, if it has been given nothing.
pub(crate) type Reports = Option<Arc<Telemetry>>;

type Metric<T> = (&'static str, &'static str, &'static str, fn(&T) -> f64);

const OF_CLIENTS: [Metric<ClientReport>; 8] = [
    ("caudal_kafka_requests_total", "counter", "Requests to brokers", |c| c.requests as f64),
    ("caudal_kafka_sent_bytes_total", "counter", "Bytes sent to brokers", |c| c.sent_bytes as f64),
    ("caudal_kafka_answers_total", "counter", "Answers of brokers", |c| c.answers as f64),
    ("caudal_kafka_received_bytes_total", "counter", "Bytes received from brokers", |c| {
        c.received_bytes as f64
    }),
    ("caudal_kafka_sent_records_total", "counter", "Records produced", |c| c.sent_records as f64),
    ("caudal_kafka_received_records_total", "counter", "Records consumed", |c| c.received_records as f64),
    ("caudal_kafka_queued_records", "gauge", "Records that wait in the producer's queue", |c| {
        c.queued_records as f64
    }),
    ("caudal_kafka_queued_bytes", "gauge", "Bytes that wait in the producer's queue", |c| {
        c.queued_bytes as f64
    }),
];

const OF_BROKERS: [Metric<BrokerReport>; 12] = [
    ("caudal_kafka_broker_up", "gauge", "Whether the client is connected to the broker", |b| {
        f64::from(u8::from(b.state == "UP"))
    }),
    ("caudal_kafka_broker_waiting_requests", "gauge", "Requests that wait to be sent", |b| {
        b.waiting_requests as f64
    }),
    ("caudal_kafka_broker_open_requests", "gauge", "Requests without an answer yet", |b| {
        b.open_requests as f64
    }),
    ("caudal_kafka_broker_send_errors_total", "counter", "Errors while sending", |b| b.send_errors as f64),
    ("caudal_kafka_broker_receive_errors_total", "counter", "Errors while receiving", |b| {
        b.receive_errors as f64
    }),
    ("caudal_kafka_broker_retries_total", "counter", "Requests sent again", |b| b.retries as f64),
    ("caudal_kafka_broker_timeouts_total", "counter", "Requests that timed out", |b| b.timeouts as f64),
    ("caudal_kafka_broker_connects_total", "counter", "Connections made or tried", |b| b.connects as f64),
    ("caudal_kafka_broker_rtt_seconds", "gauge", "Mean time to an answer", |b| b.rtt.avg as f64 / 1e6),
    ("caudal_kafka_broker_rtt_p99_seconds", "gauge", "Time to an answer, 99 in 100", |b| {
        b.rtt.p99 as f64 / 1e6
    }),
    (
        "caudal_kafka_broker_throttle_seconds",
        "gauge",
        "Mean time that the broker held the client back",
        |b| b.throttle.avg as f64 / 1e3,
    ),
    ("caudal_kafka_broker_throttle_max_seconds", "gauge", "Longest time that it was held back", |b| {
        b.throttle.max as f64 / 1e3
    }),
];

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn labels(client: &ClientReport) -> String {
    format!("client=\"{}\",kind=\"{}\"", escaped(&client.client_id), escaped(&client.kind))
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"name":"caudal-s-capture#producer-2","client_id":"caudal-s-capture","type":"producer","ts":1,"replyq":0,
        "msg_cnt":3,"msg_size":40,"tx":7,"tx_bytes":800,"rx":6,"rx_bytes":90,"txmsgs":5,"rxmsgs":0,
        "brokers":{"k:9092/1":{"name":"k:9092/1","nodeid":1,"nodename":"k:9092","state":"UP","outbuf_cnt":0,"waitresp_cnt":2,"connects":1,
            "rtt":{"min":1,"max":9000,"avg":2500,"p99":8000},"throttle":{"avg":12,"max":40}},
            "k:9092/bootstrap":{"nodeid":-1,"state":"UP"}},
        "topics":{"t":{"partitions":{"0":{"msgq_cnt":1}}}},"unknown":[1]}"#;

    #[test]
    fn a_report_becomes_metrics_of_the_client_and_of_its_brokers() {
        let telemetry = Telemetry::default();
        assert_eq!(telemetry.exposition(), "");
        assert_eq!(telemetry.take(REPORT.as_bytes()).unwrap().sent_bytes, 800);
        let text = telemetry.exposition();
        for line in [
            "caudal_kafka_sent_bytes_total{client=\"caudal-s-capture\",kind=\"producer\"} 800",
            "caudal_kafka_queued_records{client=\"caudal-s-capture\",kind=\"producer\"} 3",
            "caudal_kafka_broker_up{client=\"caudal-s-capture\",kind=\"producer\",broker=\"k:9092/1\"} 1",
            "caudal_kafka_broker_rtt_seconds{client=\"caudal-s-capture\",kind=\"producer\",broker=\"k:9092/1\"} 0.0025",
            "caudal_kafka_broker_throttle_max_seconds{client=\"caudal-s-capture\",kind=\"producer\",broker=\"k:9092/1\"} 0.04",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
        assert!(!text.contains("bootstrap"), "{text}");
    }

    #[test]
    fn a_client_that_is_made_anew_takes_the_place_of_the_one_before_and_the_number_is_bounded() {
        let telemetry = Telemetry::default();
        telemetry.take(REPORT.as_bytes());
        telemetry.take(REPORT.replace("\"tx\":7", "\"tx\":1").as_bytes());
        assert_eq!(telemetry.clients().iter().map(|c| c.requests).collect::<Vec<_>>(), [1]);
        for n in 0..2 * MOST {
            telemetry.take(format!("{{\"client_id\":\"c{n}\",\"type\":\"consumer\"}}").as_bytes());
        }
        assert_eq!(telemetry.clients().len(), MOST);
        assert!(telemetry.take(b"{").is_none());
    }
}
