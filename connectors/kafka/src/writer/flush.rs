//! "Send now": librdkafka's own flush.
//!
//! Why it is needed. The library has one batch of a partition on its way at a time if it is idempotent, and its thread turns in circles while one
//! is, as soon as another record has waited for longer than `linger.ms`: with a linger of 1 ms that was a quarter of a capture's CPU. So
//! records linger long, batches leave when they are full, and the end of a transaction says so: by a flush, which also spares it
//! the linger. The binding's own `flush` asks for 0 ms, and its wish is over before the library's thread has seen it.
//!
//! Why the one `unsafe` call is sound. `rd_kafka_flush` takes a pointer and a number. The pointer is the producer's own, from a client that is borrowed
//! for the whole call, so it is valid and cannot be destroyed meanwhile; the function may be called from any thread while others use the same
//! producer (librdkafka's introduction, "Threads and callbacks"), keeps no reference to anything of ours, and only waits: delivery
//! reports are events here, taken by the producer's own polling thread, so no callback of ours runs inside it.
#![allow(unsafe_code, reason = "argued above: one call, of a pointer that is borrowed for it")]

use rdkafka::bindings::rd_kafka_flush;
use rdkafka::producer::{Producer, ProducerContext};
use std::time::Duration;

/// Records that wait are sent at once from now on until all are delivered, at most for `patience` (whole milliseconds). What became of them is in
/// their delivery reports.
pub fn flush<C: ProducerContext>(producer: &impl Producer<C>, patience: Duration) {
    let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: see the head of the module.
    let _ = unsafe { rd_kafka_flush(producer.client().native_ptr(), milliseconds) };
}
