//! What lies in the topics of one run: no event twice, each partition in the source's order, a tombstone after each delete.
//!
//! An event's identity is its topic, source position (file, offset, row), operation, key and content. Two records with the same
//! identity can only come from producing one change twice: the workload of this kit counts a version up with every change,
//! so that two changes of one row never have the same content. Snapshot reads have no position of their own: a key may be read once.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

/// At most so many findings of each kind are described; all are counted.
const DESCRIBED: usize = 10;
/// A topic must be readable to its end within this time.
const LIMIT: Duration = Duration::from_secs(120);

/// The counts and findings over the topics `<prefix>.<database>.<table>`.
#[derive(Default)]
pub struct Audit {
    /// Records that are visible to a reader of committed data.
    pub records: u64,
    /// Rows of the snapshot (`r`).
    pub reads: u64,
    /// Inserts (`c`).
    pub creates: u64,
    /// Updates (`u`).
    pub updates: u64,
    /// Deletes (`d`).
    pub deletes: u64,
    /// Records without a value.
    pub tombstones: u64,
    /// Events that lie in the log more than once.
    pub duplicates: u64,
    /// Events whose source position is below that of an earlier one in the partition.
    pub out_of_order: u64,
    /// Deletes that no tombstone follows directly.
    pub without_tombstone: u64,
    /// Keys that are alive at the end, by topic.
    pub live_keys: HashMap<String, u64>,
    /// The findings in words.
    pub findings: Vec<String>,
}

impl Audit {
    /// Reads the data topics of `prefix` and `databases` from their beginning to the end that they have now.
    ///
    /// # Errors
    /// When the broker can't be reached or a record isn't what the wire format says.
    pub async fn of(brokers: &str, prefix: &str, databases: &[&str]) -> Result<Self> {
        let brokers = brokers.to_owned();
        let starts: Vec<String> = databases.iter().map(|d| format!("{prefix}.{d}.")).collect();
        tokio::task::spawn_blocking(move || read_all(&brokers, &starts)).await?
    }

    /// True when nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.duplicates == 0 && self.out_of_order == 0 && self.without_tombstone == 0
    }

    /// Panics with the findings unless all is well.
    ///
    /// # Panics
    /// When there is a duplicate, disorder or a missing tombstone.
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}");
    }

    fn finding(&mut self, count: fn(&mut Self) -> &mut u64, text: impl FnOnce() -> String) {
        let n = count(self);
        *n += 1;
        if *n <= DESCRIBED as u64 {
            self.findings.push(text());
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} records: {} r, {} c, {} u, {} d, {} tombstones; {} duplicates, {} out of order, {} deletes without tombstone",
            self.records,
            self.reads,
            self.creates,
            self.updates,
            self.deletes,
            self.tombstones,
            self.duplicates,
            self.out_of_order,
            self.without_tombstone
        )?;
        self.findings.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Where the source said that a change happened; ordered as the log of the source is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SourcePoint {
    /// The number at the end of the file's name: names have more digits after 999,999 files.
    file: u64,
    pos: u64,
    row: u64,
}

/// What has been seen of one partition.
#[derive(Default)]
struct Partition {
    last: Option<SourcePoint>,
    /// The key whose delete has just been seen.
    deleted: Option<Vec<u8>>,
}

/// The state of reading one topic.
struct TopicReading<'a> {
    topic: &'a str,
    audit: &'a mut Audit,
    partitions: HashMap<i32, Partition>,
    seen: HashSet<u64>,
    alive: HashSet<Vec<u8>>,
}

fn read_all(brokers: &str, starts: &[String]) -> Result<Audit> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "caudal-tests-audit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .create()?;
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(20)).context("list the topics")?;
    let mut audit = Audit::default();
    for topic in metadata.topics() {
        if starts.iter().any(|s| topic.name().starts_with(s.as_str())) {
            let partitions: Vec<i32> = topic.partitions().iter().map(|p| p.id()).collect();
            read_topic(&consumer, topic.name(), &partitions, &mut audit)
                .with_context(|| format!("read topic {}", topic.name()))?;
        }
    }
    Ok(audit)
}

/// One topic at a time: the end-of-partition signal names no topic.
fn read_topic(consumer: &BaseConsumer, topic: &str, partitions: &[i32], audit: &mut Audit) -> Result<()> {
    let mut list = TopicPartitionList::new();
    for p in partitions {
        list.add_partition_offset(topic, *p, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut open: HashSet<i32> = partitions.iter().copied().collect();
    let mut reading = TopicReading {
        topic,
        audit,
        partitions: HashMap::new(),
        seen: HashSet::new(),
        alive: HashSet::new(),
    };
    let start = Instant::now();
    while !open.is_empty() {
        if start.elapsed() > LIMIT {
            bail!("did not reach the end within {LIMIT:?}");
        }
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(p))) => drop(open.remove(&p)),
            Some(Err(e)) => return Err(e.into()),
            Some(Ok(m)) => reading.observe(m.partition(), m.offset(), m.key(), m.payload())?,
        }
    }
    reading.finish();
    Ok(())
}

impl TopicReading<'_> {
    fn observe(
        &mut self,
        partition: i32,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<()> {
        self.audit.records += 1;
        let state = self.partitions.entry(partition).or_default();
        let deleted = state.deleted.take();
        let Some(value) = value else {
            self.audit.tombstones += 1;
            if let Some(k) = key {
                self.alive.remove(k);
            }
            return Ok(());
        };
        if let Some(k) = deleted {
            self.missing_tombstone(partition, offset, &k);
        }
        let event: Value =
            serde_json::from_slice(value).with_context(|| format!("JSON at offset {offset}"))?;
        self.event(partition, offset, key, &event)
    }

    fn event(&mut self, partition: i32, offset: i64, key: Option<&[u8]>, event: &Value) -> Result<()> {
        let op = event["op"].as_str().with_context(|| format!("no op at offset {offset}"))?;
        match op {
            "r" => self.audit.reads += 1,
            "c" => self.audit.creates += 1,
            "u" => self.audit.updates += 1,
            "d" => self.audit.deletes += 1,
            "t" => self.alive.clear(),
            other => bail!("op '{other}' at offset {offset}"),
        }
        if let Some(k) = key {
            if op == "d" {
                self.alive.remove(k)
            } else {
                self.alive.insert(k.to_vec())
            };
        }
        let identity = if op == "r" {
            fingerprint(&("r", key))
        } else {
            let point =
                source_point(&event["source"]).with_context(|| format!("source at offset {offset}"))?;
            self.check_order(partition, offset, &point);
            fingerprint(&(op, key, &point, event["before"].to_string(), event["after"].to_string()))
        };
        if key.is_some() && !self.seen.insert(identity) {
            let what = format!(
                "{}[{partition}]@{offset}: {op} of {} again, source {}",
                self.topic,
                text(key),
                event["source"]
            );
            self.audit.finding(|a| &mut a.duplicates, || what);
        }
        if op == "d" && key.is_some() {
            self.partitions.entry(partition).or_default().deleted = key.map(<[u8]>::to_vec);
        }
        Ok(())
    }

    fn check_order(&mut self, partition: i32, offset: i64, point: &SourcePoint) {
        let state = self.partitions.entry(partition).or_default();
        if state.last.as_ref().is_some_and(|last| point < last) {
            let what = format!("{}[{partition}]@{offset}: {point:?} after {:?}", self.topic, state.last);
            self.audit.finding(|a| &mut a.out_of_order, || what);
        }
        state.last = Some(point.clone());
    }

    fn missing_tombstone(&mut self, partition: i32, offset: i64, key: &[u8]) {
        let what =
            format!("{}[{partition}]@{offset}: no tombstone before it for {}", self.topic, text(Some(key)));
        self.audit.finding(|a| &mut a.without_tombstone, || what);
    }

    fn finish(mut self) {
        let ends: Vec<_> =
            self.partitions.iter_mut().filter_map(|(p, s)| Some((*p, s.deleted.take()?))).collect();
        for (partition, key) in ends {
            self.missing_tombstone(partition, -1, &key);
        }
        self.audit.live_keys.insert(self.topic.to_owned(), self.alive.len() as u64);
    }
}

fn source_point(source: &Value) -> Result<SourcePoint> {
    let name = source["file"].as_str().context("no source.file")?;
    let file =
        name.rsplit('.').next().and_then(|n| n.parse().ok()).with_context(|| format!("file '{name}'"))?;
    let number = |field: &str| source[field].as_u64().with_context(|| format!("no source.{field}"));
    Ok(SourcePoint { file, pos: number("pos")?, row: number("row")? })
}

fn fingerprint(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn text(key: Option<&[u8]>) -> String {
    key.map_or_else(|| "(no key)".to_owned(), |k| String::from_utf8_lossy(k).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(op: &str, id: u32, pos: u64) -> (Vec<u8>, Vec<u8>) {
        let value = format!(
            r#"{{"op":"{op}","before":null,"after":{{"id":{id}}},"source":{{"file":"binlog.000002","pos":{pos},"row":0}}}}"#
        );
        (format!(r#"{{"id":{id}}}"#).into_bytes(), value.into_bytes())
    }

    fn audit(records: &[(&str, u32, u64)]) -> Audit {
        let mut audit = Audit::default();
        let mut reading = TopicReading {
            topic: "t",
            audit: &mut audit,
            partitions: HashMap::new(),
            seen: HashSet::new(),
            alive: HashSet::new(),
        };
        for (offset, (op, id, pos)) in records.iter().enumerate() {
            let (key, value) = record(op, *id, *pos);
            let value = (*op != "tombstone").then_some(value);
            reading.observe(0, offset as i64, Some(&key), value.as_deref()).unwrap();
        }
        reading.finish();
        audit
    }

    #[test]
    fn an_ordinary_run_is_clean() {
        let a = audit(&[("r", 1, 0), ("c", 2, 10), ("u", 1, 20), ("d", 2, 30), ("tombstone", 2, 0)]);
        a.assert_clean();
        assert_eq!(a.live_keys["t"], 1);
    }

    #[test]
    fn the_same_change_twice_is_a_duplicate() {
        assert_eq!(audit(&[("c", 2, 10), ("c", 2, 10)]).duplicates, 1);
        assert_eq!(audit(&[("r", 2, 0), ("r", 2, 0)]).duplicates, 1);
        assert_eq!(audit(&[("c", 2, 10), ("u", 2, 11)]).duplicates, 0);
    }

    #[test]
    fn an_older_change_after_a_newer_one_is_disorder() {
        assert_eq!(audit(&[("c", 2, 10), ("c", 3, 9)]).out_of_order, 1);
    }

    #[test]
    fn a_delete_wants_its_tombstone_at_once() {
        assert_eq!(audit(&[("d", 2, 10), ("c", 3, 11), ("tombstone", 2, 0)]).without_tombstone, 1);
        assert_eq!(audit(&[("d", 2, 10)]).without_tombstone, 1);
    }
}
