//! The source's transactions as Debezium announces them: BEGIN and END in the topic `<prefix>.transaction`, and in each event
//! which one it belongs to and the how-manieth it is, in all and of its table.
//!
//! Why the counts are right over restarts: those of the transaction under way are stored with the position, in the same Kafka
//! transaction as the events that they count. A transaction without a captured row is not announced.
//!
//! Memory: one name and number for each table of the transaction under way.

use crate::encode::{Encoded, text, value};
use caudal_core::fault::Classify;
use caudal_core::{Batch, EventHead, Fault, Result, SnapshotMark};
use caudal_proto::side::OpenTransaction;
use serde::Serialize;

/// Counts the events of the transaction under way.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    open: Option<OpenTransaction>,
    /// The number, in the batch being encoded, of the transaction under way; none before its first event there.
    number: Option<u32>,
    /// Whether the event at hand belongs to it: rows that a snapshot read belong to none.
    within: bool,
}

/// An event's place in its transaction.
pub(crate) struct Order<'a> {
    pub(crate) id: &'a str,
    pub(crate) total: u64,
    pub(crate) of_table: u64,
}

impl Order<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        text::string(out, self.id.as_bytes());
        out.extend_from_slice(b",\"total_order\":");
        value::integer(out, self.total);
        out.extend_from_slice(b",\"data_collection_order\":");
        value::integer(out, self.of_table);
        out.push(b'}');
    }
}

#[derive(Serialize)]
struct Key<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct Status<'a> {
    status: &'a str,
    id: &'a str,
    event_count: Option<u64>,
    data_collections: Option<Vec<Collection<'a>>>,
    ts_ms: i64,
}

#[derive(Serialize)]
struct Collection<'a> {
    data_collection: &'a str,
    event_count: u64,
}

impl Orders {
    pub(crate) fn new(open: Option<OpenTransaction>) -> Self {
        Self { open, number: None, within: false }
    }

    /// The transaction under way, when a batch is done.
    pub(crate) fn open(&self) -> Option<&OpenTransaction> {
        self.open.as_ref()
    }

    /// Before an event: another transaction's ends the one under way and begins its own.
    pub(crate) fn meet(&mut self, batch: &Batch, event: &EventHead, encoded: &mut Encoded) -> Result<()> {
        self.within = event.snapshot == SnapshotMark::False;
        if !self.within {
            return Ok(());
        }
        let transaction = batch.transactions.get(event.transaction as usize).copied().unwrap_or_default();
        let gtid = transaction.gtid.map(|gtid| batch.text(gtid));
        if self.open.as_ref().is_some_and(|open| self.goes_on(open, event, gtid)) {
            self.number = Some(event.transaction);
            return Ok(());
        }
        self.end(encoded)?;
        let file = transaction.file.map_or("", |file| batch.text(file));
        let id = gtid.map_or_else(|| format!("file={file},pos={}", event.pos), str::to_owned);
        let open = OpenTransaction { id, events: 0, tables: Vec::new(), ts_us: event.ts_us };
        announce(encoded, &open, "BEGIN", false)?;
        self.open = Some(open);
        self.number = Some(event.transaction);
        Ok(())
    }

    /// Whether the event is of the transaction under way. Where there are no GTIDs, the first of a batch is: had the
    /// transaction ended, a boundary would have said so.
    fn goes_on(&self, open: &OpenTransaction, event: &EventHead, gtid: Option<&str>) -> bool {
        match gtid {
            Some(gtid) => open.id == gtid,
            None => self.number.is_none_or(|number| number == event.transaction),
        }
    }

    /// Counts one envelope of the table; none outside of transactions.
    pub(crate) fn count(&mut self, table: &str) -> Option<Order<'_>> {
        let open = self.open.as_mut().filter(|_| self.within)?;
        open.events += 1;
        let at = open.tables.iter().position(|(name, _)| name == table).unwrap_or_else(|| {
            open.tables.push((table.to_owned(), 0));
            open.tables.len() - 1
        });
        open.tables[at].1 += 1;
        Some(Order { id: &open.id, total: open.events, of_table: open.tables[at].1 })
    }

    fn end(&mut self, encoded: &mut Encoded) -> Result<()> {
        self.number = None;
        match self.open.take() {
            Some(open) => announce(encoded, &open, "END", true),
            None => Ok(()),
        }
    }

    /// Before a batch: its numbers of transactions are its own.
    pub(crate) fn start(&mut self) {
        self.number = None;
    }
}

/// At a boundary: no transaction goes on over it.
pub(crate) fn end(orders: Option<&mut Orders>, encoded: &mut Encoded) -> Result<()> {
    orders.map_or(Ok(()), |orders| orders.end(encoded))
}

fn announce(encoded: &mut Encoded, open: &OpenTransaction, status: &str, counted: bool) -> Result<()> {
    let mut tables = open.tables.clone();
    tables.sort();
    let collections =
        tables.iter().map(|(name, events)| Collection { data_collection: name, event_count: *events });
    let record = Status {
        status,
        id: &open.id,
        event_count: counted.then_some(open.events),
        data_collections: counted.then(|| collections.collect()),
        ts_ms: open.ts_us.div_euclid(1_000),
    };
    let start = encoded.arena.len();
    serde_json::to_writer(&mut encoded.arena, &Key { id: &open.id })
        .fault(Fault::Bug, "announce a transaction")?;
    let middle = encoded.arena.len();
    serde_json::to_writer(&mut encoded.arena, &record).fault(Fault::Bug, "announce a transaction")?;
    encoded.transactions.push((start..middle, middle..encoded.arena.len()));
    Ok(())
}
