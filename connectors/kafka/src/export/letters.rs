//! Dead letters name the place of their event in the log: topic, partition, offset.

use super::marks::Book;
use crate::client::Clients;
use crate::replay::{Partition, Replayer};
use caudal_core::Result;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3600);
const OFFSET: &str = "caudal.offset";

/// The places that all letters name.
pub(super) fn places(from: &Clients, partitions: &[Partition]) -> Result<Vec<(Partition, i64)>> {
    let mut places = Vec::new();
    Replayer::new(from, "export").replay(partitions, PATIENCE, |_, (key, _, _)| {
        places.extend(place(key));
        Ok(())
    })?;
    Ok(places)
}

/// `<topic>/<partition>/<offset>`
fn place(key: &[u8]) -> Option<(Partition, i64)> {
    let mut parts = std::str::from_utf8(key).ok()?.rsplitn(3, '/');
    let offset = parts.next()?.parse().ok()?;
    let partition = parts.next()?.parse().ok()?;
    Some(((parts.next()?.to_owned(), partition), offset))
}

/// A letter's key and headers with its place in the copy; none if it is to be copied as it is.
pub(super) fn translated(message: &BorrowedMessage<'_>, book: &Book) -> Option<(String, OwnedHeaders)> {
    let (partition, offset) = place(message.key()?)?;
    let offset = book.of(&partition, offset)?.to_string();
    let mut headers = OwnedHeaders::new();
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        let value = if header.key == OFFSET { Some(offset.as_bytes()) } else { header.value };
        headers = headers.insert(Header { key: header.key, value });
    }
    Some((format!("{}/{}/{offset}", partition.0, partition.1), headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_names_a_place() {
        assert_eq!(place(b"shop.shop.a/b/3/4711"), Some((("shop.shop.a/b".to_owned(), 3), 4711)));
        assert_eq!(place(b"4711"), None);
    }
}
