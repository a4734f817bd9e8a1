//! The promises of the whole, by raw requests against a running log whose disk and clock the test holds.

mod commit;
mod compaction;
mod durability;
mod fencing;
mod hostile;
mod kit;
mod topics;
mod versions;
