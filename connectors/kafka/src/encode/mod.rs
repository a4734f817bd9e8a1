//! Events as Debezium's bare JSON envelope: keys, values, tombstones, headers, and the partition of each.
//!
//! A batch is encoded into one arena: no allocation per event. The order of fields is that of `connectors/kafka/README.md`;
//! the sink's decoder takes exactly this and gives back the same cells.
//!
//! Memory: the arena holds about twice the batch's bytes (both images, field names, the source block); each record 64 bytes
//! beside it. It replaces the batch: the engine drops that once it is written.

#[cfg(test)]
mod golden;

mod avro;
mod change;
mod cloudevents;
pub(crate) mod connect;
pub(crate) mod ddl;
mod decimal;
mod envelope;
mod flat;
mod form;
mod java;
mod json;
mod maxwell;
pub(crate) mod orders;
mod own;
pub(crate) mod plan;
pub(crate) mod protobuf;
pub(crate) mod split;
pub(crate) mod text;
pub(crate) mod value;

use crate::config::Oversize;
use crate::format::{Format, Profile};
use crate::registry::Client;
use crate::topics::Layout;
use caudal_core::{Batch, Cell, Error, Prepare, Result, TableSchema};
use caudal_proto::side::OpenTransaction;
use envelope::Occasion;
use orders::Orders;
use plan::TablePlan;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Header of a truncation's control record; its value is the truncation's id, the same in all partitions of a table.
pub const TRUNCATE_HEADER: &str = "caudal.truncate";
/// Key of a truncation's control record in a compacted topic.
pub const TRUNCATE_KEY: &str = r#"{"caudal.control":"truncate"}"#;
/// Header of a record that is written at least once: `<epoch>/<number>`, the writer and the record's number among all of that writer.
/// A partition's records that are not in this order come from a writer that was displaced.
pub const ORDER_HEADER: &str = "caudal.order";
/// Debezium's header on the deletion of a row that lives on under another key.
pub const NEW_KEY_HEADER: &str = "__debezium.newkey";
/// Debezium's header on the creation of a row that came from another key.
pub const OLD_KEY_HEADER: &str = "__debezium.oldkey";

/// Shapes that the encoder remembers; beyond it starts again.
const MAX_PLANS: usize = 20_000;
/// What a record costs on the wire beside its key, value and header.
const RECORD_OVERHEAD: usize = 128;

/// What the envelopes of one source have in common.
#[derive(Clone, Debug)]
pub(crate) struct EncodeOptions {
    /// `source.name`, and the start of topic names.
    pub(crate) prefix: String,
    /// `source.connector`: `mysql`, `mariadb`.
    pub(crate) connector: String,
    /// Largest record, bytes.
    pub(crate) max_record: usize,
    /// What becomes of larger ones.
    pub(crate) oversize: Oversize,
    /// Microseconds since the epoch: the envelope's processing time.
    pub(crate) clock: fn() -> i64,
    /// Whose conventions values follow.
    pub(crate) profile: Profile,
    /// The form of keys and values.
    pub(crate) format: Format,
    /// For the forms that have schemas there.
    pub(crate) registry: Option<Client>,
    /// Whether transactions are announced; the one that was under way when the last position was stored.
    pub(crate) transactions: Option<Option<OpenTransaction>>,
}

/// The system's clock, microseconds since the epoch.
#[must_use]
pub fn system_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// Which header a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderKind {
    NewKey,
    OldKey,
    Truncate,
}

impl HeaderKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NewKey => NEW_KEY_HEADER,
            Self::OldKey => OLD_KEY_HEADER,
            Self::Truncate => TRUNCATE_HEADER,
        }
    }
}

/// One record to produce; ranges are of the arena.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Index into `Encoded::tables`.
    pub(crate) table: u32,
    pub(crate) partition: i32,
    pub(crate) key: Option<Range<usize>>,
    /// None: a tombstone.
    pub(crate) value: Option<Range<usize>>,
    pub(crate) header: Option<(HeaderKind, Range<usize>)>,
}

impl Record {
    fn len(&self) -> usize {
        let spans = [&self.key, &self.value, &self.header.as_ref().map(|(_, span)| span.clone())];
        spans.iter().filter_map(|s| s.as_ref().map(ExactSizeIterator::len)).sum()
    }
}

/// A batch as records: what [`Encoder`] leaves in `Batch::prepared`.
pub(crate) struct Encoded {
    pub(crate) arena: Vec<u8>,
    pub(crate) records: Vec<Record>,
    pub(crate) tables: Vec<Arc<TablePlan>>,
    /// How many of the records lie before the batch's boundary, if it has one.
    pub(crate) boundary: Option<usize>,
    /// Keys and values for the topic of transactions; ranges are of the arena.
    pub(crate) transactions: Vec<(Range<usize>, Range<usize>)>,
    /// The transaction that goes on after this batch, where they are announced.
    pub(crate) open: Option<OpenTransaction>,
    /// Cells of a key while it is written.
    key_cells: Vec<Cell>,
}

/// Encodes batches; shared by the threads that prepare.
pub(crate) struct Encoder {
    options: EncodeOptions,
    layout: Arc<Layout>,
    // By the shape's address; holding the shape keeps the address from being used again.
    plans: RwLock<HashMap<usize, Arc<TablePlan>>>,
    /// Batches are prepared in order, one after the other: so the counts of a transaction that goes on over batches are right.
    orders: Option<Mutex<Orders>>,
}

impl Encoder {
    pub(crate) fn new(options: EncodeOptions, layout: Arc<Layout>) -> Self {
        let orders = options.transactions.clone().map(|open| Mutex::new(Orders::new(open)));
        Self { options, layout, plans: RwLock::new(HashMap::new()), orders }
    }

    /// Encodes all events of a batch.
    ///
    /// # Errors
    /// `Data` for a record larger than the limit, `Bug` for a cell that its column's type does not allow.
    pub(crate) fn encode(&self, batch: &Batch) -> Result<Encoded> {
        let tables = batch.tables.iter().map(|schema| self.plan(schema)).collect::<Result<Vec<_>>>()?;
        let mut encoded = Encoded {
            arena: Vec::with_capacity(batch.size() * 2 + batch.events.len() * 448),
            records: Vec::with_capacity(batch.events.len() + batch.events.len() / 8),
            tables,
            boundary: None,
            transactions: Vec::new(),
            open: None,
            key_cells: Vec::new(),
        };
        let mut orders = self.orders.as_ref().map(|o| o.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(orders) = &mut orders {
            orders.start();
        }
        self.encode_events(&mut encoded, batch, orders.as_deref_mut())?;
        encoded.open = orders.and_then(|orders| orders.open().cloned());
        Ok(encoded)
    }

    fn encode_events(
        &self,
        encoded: &mut Encoded,
        batch: &Batch,
        mut orders: Option<&mut Orders>,
    ) -> Result<()> {
        let debezium = self.options.profile == Profile::Debezium35;
        let occasion = Occasion { batch, now: (self.options.clock)(), debezium };
        let boundary = batch.boundary.as_ref().map(|b| b.events as usize);
        for (i, event) in batch.events.iter().enumerate() {
            if boundary == Some(i) {
                encoded.boundary = Some(encoded.records.len());
                orders::end(orders.as_deref_mut(), encoded)?;
            }
            if let Some(orders) = orders.as_deref_mut() {
                orders.meet(batch, event, encoded)?;
            }
            let first = encoded.records.len();
            let next = batch.events.get(i + 1).filter(|_| boundary != Some(i + 1));
            let last = next.is_none_or(|next| next.transaction != event.transaction)
                && (next.is_some() || boundary == Some(i + 1));
            envelope::event(encoded, &occasion, event, (orders.as_deref_mut(), last))?;
            self.check_sizes(encoded, first)?;
        }
        if boundary.is_some_and(|b| b >= batch.events.len()) {
            encoded.boundary = Some(encoded.records.len());
            orders::end(orders, encoded)?;
        }
        Ok(())
    }

    fn plan(&self, schema: &Arc<TableSchema>) -> Result<Arc<TablePlan>> {
        let address = Arc::as_ptr(schema) as usize;
        if let Some(plan) = self.plans.read().ok().and_then(|plans| plans.get(&address).cloned()) {
            return Ok(plan);
        }
        let (topic, partitions) = self.layout.of(schema);
        let names = (self.options.prefix.as_str(), self.options.connector.as_str());
        let style = (self.options.profile, self.options.format);
        let registry = self.options.registry.as_ref();
        let plan = TablePlan::new(Arc::clone(schema), topic, partitions, names, style, registry)?;
        let plan = Arc::new(plan);
        if let Ok(mut plans) = self.plans.write() {
            if plans.len() >= MAX_PLANS {
                plans.clear();
            }
            plans.insert(address, Arc::clone(&plan));
        }
        Ok(plan)
    }

    fn check_sizes(&self, encoded: &mut Encoded, first: usize) -> Result<()> {
        let limit = self.options.max_record;
        if self.options.oversize == Oversize::Split && split::split(encoded, first, limit) {
            return Ok(());
        }
        for record in &encoded.records[first..] {
            let size = record.len() + RECORD_OVERHEAD;
            if size > limit {
                let table = &encoded.tables[record.table as usize].schema.id;
                let key = record.key.clone().map_or(0, |k| crate::murmur2::murmur2(&encoded.arena[k]));
                return Err(Error::data(format!(
                    "a row of {table} (key hash {key:08x}) takes {size} bytes in the log, over the limit of {limit}"
                ))
                .hint("raise kafka.topics.max_message_bytes and max.message.bytes of the topic, set kafka.topics.oversize to split, or leave out the large column"));
            }
        }
        Ok(())
    }
}

impl Prepare for Encoder {
    fn prepare(&self, batch: &mut Batch) -> Result<()> {
        let encoded = self.encode(batch)?;
        batch.prepared = Some(Box::new(encoded));
        Ok(())
    }
}
