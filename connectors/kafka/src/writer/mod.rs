//! The capture sink: events, position and watermark in one Kafka transaction.
//!
//! Why each source event is in the log once, whatever dies when:
//! * One `transactional.id` per source. `init_transactions` fences whoever wrote before and waits until its last transaction is
//!   finished, one way or the other; only then is the stored position read, up to an end asked with `read_uncommitted`. So the position
//!   that capture resumes from is that of the last committed transaction, and all its events are in the log, no others.
//! * Position and events commit together or not at all.
//! * A commit whose answer is lost is committed again by the same producer (the broker knows it by its epoch), or its outcome
//!   is settled by the next `init_transactions`.
//!
//! Why a watermark is exact: the capture is the only writer of its partitions, so the offset that a record will get is known
//! before it is sent ([`ledger`]). The delivery reports are compared with the prediction before the commit; if anyone else wrote
//! meanwhile, the transaction is aborted and repeated in steps: data first, then the watermark with the offsets as they are.
//!
//! `delivery: at_least_once` gives up the first two points for less delay: `at_least_once.rs`.
//!
//! Memory: the encoded batches between two commits (bounded by the engine), librdkafka's queue (`kafka.queue`), and per
//! table and partition some 100 bytes.

pub(crate) mod at_least_once;
pub(crate) mod deliveries;
pub(crate) mod flush;
pub(crate) mod ledger;
pub(crate) mod markers;
pub(crate) mod polled;
mod rest;
pub(crate) mod session;
pub(crate) mod sink;
pub(crate) mod statistics;
pub(crate) mod stored;
pub(crate) mod transaction;
