//! Two logs of one source, record by record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::deviations::{self, Place};
use crate::json::Json;
use crate::topics::{Record, Topics};

/// Differences beyond these are counted only.
const SHOWN: usize = 40;

/// What the comparison found.
#[derive(Default)]
pub(crate) struct Report {
    is_mysql: bool,
    topics: BTreeMap<String, Count>,
    deviations: BTreeMap<&'static str, u64>,
    /// What is on no list.
    pub differences: Vec<String>,
    pub unlisted: u64,
}

#[derive(Clone, Copy, Default)]
struct Count {
    compared: u64,
    equal: u64,
    deviating: u64,
}

impl Report {
    fn differ(&mut self, text: String) {
        self.unlisted += 1;
        if self.differences.len() < SHOWN {
            self.differences.push(text);
        }
    }

    /// All records compared.
    pub(crate) fn compared(&self) -> u64 {
        self.topics.values().map(|count| count.compared).sum()
    }

    fn deviate(&mut self, name: &'static str) {
        *self.deviations.entry(name).or_default() += 1;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<44}{:>9}{:>9}{:>12}", "topic", "compared", "equal", "documented")?;
        let mut sum = Count::default();
        for (topic, count) in &self.topics {
            writeln!(f, "{topic:<44}{:>9}{:>9}{:>12}", count.compared, count.equal, count.deviating)?;
            sum.compared += count.compared;
            sum.equal += count.equal;
            sum.deviating += count.deviating;
        }
        writeln!(f, "{:<44}{:>9}{:>9}{:>12}", "all", sum.compared, sum.equal, sum.deviating)?;
        writeln!(f, "documented deviations:")?;
        for (name, meaning) in deviations::ALL {
            if let Some(count) = self.deviations.get(name) {
                writeln!(f, "{count:>9}  {name}: {meaning}")?;
            }
        }
        if self.unlisted > 0 {
            writeln!(f, "NOT DOCUMENTED: {}", self.unlisted)?;
        }
        self.differences.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Compares what Debezium wrote with what Caudal wrote.
pub(crate) fn compare(prefix: &str, theirs: &Topics, ours: &Topics) -> Report {
    let mut report = Report { is_mysql: prefix.contains("mysql"), ..Report::default() };
    let names = |topics: &Topics| topics.keys().cloned().collect::<BTreeSet<_>>();
    for topic in names(theirs).symmetric_difference(&names(ours)) {
        report.differ(format!("topic {topic} is only in one of the two logs"));
    }
    for (topic, theirs) in theirs {
        let Some(ours) = ours.get(topic) else { continue };
        let short = topic.strip_prefix(prefix).unwrap_or(topic);
        match short {
            ".transaction" => transactions(&mut report, topic, theirs, ours),
            ".notifications" => notifications(&mut report, topic, theirs, ours),
            "" => schema_changes(&mut report, topic, theirs, ours),
            short if short.starts_with("__debezium") => heartbeats(&mut report, topic, theirs, ours),
            short => data(&mut report, (topic, short), theirs, ours),
        }
    }
    report
}

/// Without the rows that only a re-read tells: of each key, those that Debezium's snapshot has are compared.
fn without_rereads(report: &mut Report, theirs: &[Record], ours: Vec<Record>) -> Vec<Record> {
    let is_read = |record: &Record| record.key.is_some() && record.value().contains("\"op\":\"r\"");
    let mut left: Vec<_> = theirs.iter().filter(|r| is_read(r)).map(|r| r.key.clone()).collect();
    let mut kept = Vec::new();
    for record in ours {
        if is_read(&record) {
            let Some(at) = left.iter().position(|key| *key == record.key) else {
                report.deviate("re-read");
                continue;
            };
            left.swap_remove(at);
        }
        kept.push(record);
    }
    kept
}

/// Rows of a snapshot by key; the stream by partition, in order; records without a key by their text, wherever they lie.
fn data(report: &mut Report, names: (&str, &str), theirs: &[Record], ours: &[Record]) {
    let truncates = |records: &[Record]| -> BTreeSet<String> {
        records.iter().map(Record::value).filter(|v| v.contains("\"op\":\"t\"")).map(|v| masked(&v)).collect()
    };
    let (emptied, also) = (truncates(theirs), truncates(ours));
    if !emptied.is_empty() || !also.is_empty() {
        pairs(report, names, emptied.len(), also.len());
        for (a, b) in emptied.iter().zip(&also) {
            one_value(report, names, (a, b), false);
        }
        report.deviate("truncate");
    }
    let rest = |records: &[Record]| -> Vec<Record> {
        records.iter().filter(|r| !r.value().contains("\"op\":\"t\"")).cloned().collect()
    };
    let theirs = rest(theirs);
    let ours = without_rereads(report, &theirs, rest(ours));
    let without_key = theirs.iter().any(|r| r.key.is_none());
    if without_key {
        report.deviate("keyless-partition");
    }
    for groups in [reads(&theirs, &ours), streams(&theirs, &ours, without_key)] {
        for (theirs, ours) in groups {
            pairs(report, names, theirs.len(), ours.len());
            for (a, b) in theirs.iter().zip(&ours) {
                one(report, names, a, b, without_key);
            }
        }
    }
}

type Group<'a> = (Vec<&'a Record>, Vec<&'a Record>);

fn reads<'a>(theirs: &'a [Record], ours: &'a [Record]) -> Vec<Group<'a>> {
    let sorted = |records: &'a [Record]| {
        let mut reads: Vec<&Record> = records.iter().filter(|r| r.is_read()).collect();
        reads.sort_by_key(|r| (r.key(), row_text(r)));
        reads
    };
    vec![(sorted(theirs), sorted(ours))]
}

fn row_text(record: &Record) -> String {
    Json::parse(&record.value()).ok().and_then(|v| v.at(&["after"]).map(Json::show)).unwrap_or_default()
}

fn streams<'a>(theirs: &'a [Record], ours: &'a [Record], without_key: bool) -> Vec<Group<'a>> {
    let stream =
        |records: &'a [Record]| -> Vec<&'a Record> { records.iter().filter(|r| !r.is_read()).collect() };
    let (theirs, ours) = (stream(theirs), stream(ours));
    if without_key {
        let sorted = |mut records: Vec<&'a Record>| {
            records.sort_by_key(|r| masked(&r.value()));
            records
        };
        return vec![(sorted(theirs), sorted(ours))];
    }
    let of = |records: &[&'a Record], partition: i32| -> Vec<&'a Record> {
        records.iter().copied().filter(|r| r.partition == partition).collect()
    };
    (0..16).map(|p| (of(&theirs, p), of(&ours, p))).collect()
}

fn pairs(report: &mut Report, (topic, _): (&str, &str), theirs: usize, ours: usize) {
    if theirs != ours {
        report.differ(format!(
            "{topic}: {theirs} records by Debezium, {ours} by Caudal, in one partition or snapshot"
        ));
    }
}

fn one(report: &mut Report, names: (&str, &str), a: &Record, b: &Record, without_key: bool) {
    let topic = names.0;
    if a.key != b.key {
        report.differ(format!("{topic}: key {} | {}", a.key(), b.key()));
    }
    if a.partition != b.partition && !without_key {
        report.differ(format!("{topic}: key {} in partition {} | {}", a.key(), a.partition, b.partition));
    }
    if headers(a) != headers(b) {
        report.differ(format!("{topic}: headers {:?} | {:?}", a.headers, b.headers));
    }
    one_value(report, names, (&a.value(), &b.value()), a.is_read());
}

/// A run's id differs by nature.
fn headers(record: &Record) -> Vec<(&str, &str)> {
    let value = |name: &str, value| if name.ends_with(".runId") { "" } else { value };
    record.headers.iter().map(|(n, v)| (n.as_str(), value(n, v))).collect()
}

/// Compares one value to the byte, but for version and processing time, and names what differs.
fn one_value(report: &mut Report, (topic, short): (&str, &str), (a, b): (&str, &str), is_read: bool) {
    let mut count = report.topics.get(topic).copied().unwrap_or_default();
    count.compared += 1;
    let (a, b) = (masked(a), masked(b));
    if a == b {
        count.equal += 1;
    } else {
        let before = report.unlisted;
        match (Json::parse(&a), Json::parse(&b)) {
            (Ok(a), Ok(b)) => {
                let is_truncate = a.at(&["op"]).is_some_and(|op| op.text() == "t");
                walk(
                    report,
                    Place { topic: short, path: "", is_read, is_truncate, is_mysql: report.is_mysql },
                    &a,
                    &b,
                );
            }
            _ => report.differ(format!("{topic}: {a} | {b}")),
        }
        count.deviating += u64::from(before == report.unlisted);
    }
    report.topics.insert(topic.to_owned(), count);
}

fn walk(report: &mut Report, place: Place<'_>, a: &Json, b: &Json) {
    match (a, b) {
        (Json::Object(x), Json::Object(y)) if x.iter().map(|m| &m.0).eq(y.iter().map(|m| &m.0)) => {
            for ((name, a), (_, b)) in x.iter().zip(y) {
                let path = format!("{}{}{name}", place.path, if place.path.is_empty() { "" } else { "." });
                walk(report, Place { path: &path, ..place }, a, b);
            }
        }
        (Json::Array(x), Json::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).for_each(|(a, b)| walk(report, place, a, b));
        }
        _ if a == b => {}
        _ => match deviations::of(place, a, b) {
            Some(name) => report.deviate(name),
            None => report.differ(format!("{} {}: {} | {}", place.topic, place.path, a.show(), b.show())),
        },
    }
}

/// Without the version and the times of processing.
pub(crate) fn masked(value: &str) -> String {
    let mut text = value.to_owned();
    if let Some(start) = text.find("\"version\":\"") {
        let end = text[start + 11..].find('"').map_or(text.len(), |i| start + 11 + i);
        text.replace_range(start + 11..end, "*");
    }
    // The envelope's own times come last.
    if let Some(at) = text.rfind(",\"op\":").and_then(|op| text[op..].find(",\"ts_ms\":").map(|t| op + t)) {
        text.replace_range(at.., "}");
    }
    text
}

/// Each announced transaction: its BEGIN and END.
fn transactions(report: &mut Report, topic: &str, theirs: &[Record], ours: &[Record]) {
    let by_id = |records: &[Record]| {
        let mut all: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        for record in records {
            all.entry(record.key()).or_default().push(record.clone());
        }
        all
    };
    let (theirs, ours) = (by_id(theirs), by_id(ours));
    let is_empty = |records: &[Record]| {
        let counted = |r: &Record| r.value().contains("\"END\"") && !r.value().contains("\"event_count\":0,");
        !records.iter().any(counted)
    };
    let is_single =
        |records: &[Record]| records.iter().any(|r| r.value().contains(".emptied\",\"event_count\":1}"));
    for (id, theirs) in &theirs {
        let ours = ours.get(id).map(Vec::as_slice).unwrap_or_default();
        if ours.is_empty() && is_empty(theirs) {
            report.deviate("transaction-empty");
            continue;
        }
        // What empties a table has rows for Caudal, and is a mere statement to Debezium.
        if ours.len() == 2 && theirs.len() == 1 && is_single(ours) {
            report.deviate("truncate");
            continue;
        }
        pairs(report, (topic, ".transaction"), theirs.len(), ours.len());
        for (a, b) in theirs.iter().zip(ours) {
            one(report, (topic, ".transaction"), a, b, true);
        }
    }
    for (id, records) in ours.iter().filter(|(id, _)| !theirs.contains_key(*id)) {
        if is_single(records) {
            report.deviate("truncate");
            continue;
        }
        report.differ(format!("{topic}: {id} is only announced by Caudal"));
    }
}

/// Those of the stream: what a snapshot finds, Caudal does not tell.
fn schema_changes(report: &mut Report, topic: &str, theirs: &[Record], ours: &[Record]) {
    let streamed: Vec<&Record> =
        theirs.iter().filter(|r| !r.value().contains("\"snapshot\":\"true\"")).collect();
    if streamed.len() < theirs.len() {
        report.deviate("schema-snapshot");
    }
    pairs(report, (topic, ""), streamed.len(), ours.len());
    let timeless = |record: &Record| {
        let mut record = record.clone();
        if let Some(value) = &mut record.value {
            *value = without_time(&String::from_utf8_lossy(value)).into_bytes();
        }
        record
    };
    for (a, b) in streamed.iter().zip(ours) {
        one(report, (topic, ""), &timeless(a), &timeless(b), false);
    }
}

/// A schema change without its own `ts_ms`, which is the time of processing.
fn without_time(value: &str) -> String {
    let Some(at) = value.find("},\"ts_ms\":") else { return value.to_owned() };
    let end = value[at + 10..].find(',').map_or(value.len(), |i| at + 10 + i);
    format!("{}0{}", &value[..at + 10], &value[end..])
}

/// Of each kind of notification the members, and of each table what is told of it; ids and times are each log's own.
fn notifications(report: &mut Report, topic: &str, theirs: &[Record], ours: &[Record]) {
    let masked = |text: &str| -> String {
        let parts: Vec<String> =
            text.split('"').map(|part| if is_id(part) { "*".into() } else { part.into() }).collect();
        let text = parts.join("\"");
        match text.rfind("\"timestamp\":") {
            Some(at) => format!("{}0}}", &text[..at + 12]),
            None => text,
        }
    };
    let told = |records: &[Record]| -> BTreeSet<(String, String)> {
        records
            .iter()
            .map(|r| (masked(&r.key()), masked(&r.value())))
            .map(|(k, v)| (k, sorted_tables(&v)))
            .collect()
    };
    let (a, b) = (told(theirs), told(ours));
    for (key, value) in a.symmetric_difference(&b) {
        let who = if a.contains(&(key.clone(), value.clone())) { "Debezium" } else { "Caudal" };
        report.differ(format!("{topic}: only {who} tells {key} {value}"));
    }
    let count = report.topics.entry(topic.to_owned()).or_default();
    (count.compared, count.equal) = (a.len() as u64, a.intersection(&b).count() as u64);
}

fn is_id(text: &str) -> bool {
    text.len() == 36 && text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

/// Lists of tables are in no order.
fn sorted_tables(value: &str) -> String {
    let Some((before, rest)) = value.split_once("\"data_collections\":\"") else { return value.to_owned() };
    let Some((list, after)) = rest.split_once('"') else { return value.to_owned() };
    let tables: BTreeSet<&str> = list.split(',').map(str::trim).collect();
    format!("{before}\"data_collections\":\"{}\"{after}", tables.into_iter().collect::<Vec<_>>().join(","))
}

/// Keys, and the form of the values.
fn heartbeats(report: &mut Report, topic: &str, theirs: &[Record], ours: &[Record]) {
    let forms = |records: &[Record]| -> BTreeSet<(String, String)> {
        let form = |r: &Record| r.value().chars().filter(|c| !c.is_ascii_digit()).collect();
        records.iter().map(|r| (r.key(), form(r))).collect()
    };
    let (a, b) = (forms(theirs), forms(ours));
    if a != b {
        report.differ(format!("{topic}: {a:?} | {b:?}"));
    }
    let count = report.topics.entry(topic.to_owned()).or_default();
    (count.compared, count.equal) = (1, u64::from(a == b));
    report.deviate("heartbeat-count");
}
