//! JSON over HTTP, polled: each table is an endpoint, read by the poll engine (`caudal_poll`).
//!
//! A page of the engine is a part of one answer: the session keeps the answer that it is at, and where the next page begins tells the
//! request and how many of its records were taken. So a page can be asked for again, by another session too.
//!
//! # Bounds
//! One answer (`max_body`, and 8 bytes for each of its records) and one page of rows for each store that is read at the time.
//!
//! # What an API may do wrong, and what comes of it
//!
//! | it answers | outcome |
//! |---|---|
//! | half a body, 429, 5xx, nothing, a web page in place of JSON | the page is asked for again, then the run has failed; nothing changes |
//! | the same page again and again | the run ends with an error; nothing is deleted |
//! | fewer records than it counts itself | what came is delivered; nothing is deleted, the watermark stays |
//! | a record without its key | it is left out and counted; nothing is deleted, the watermark stays |
//! | a value of another type than before | its record is left out and counted; nothing is deleted, the watermark stays |
//! | a field that was never there | a column is added |
//! | more than `max_body`, no JSON | the run ends with an error |

mod answer;
mod auth;
mod check;
mod client;
mod config;
mod fields;
mod gate;
mod paging;
mod reader;
mod source;
mod template;
mod types;

pub use config::Config;
pub use source::source;
