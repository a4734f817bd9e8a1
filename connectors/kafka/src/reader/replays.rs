//! Dead letters that are applied again, between two steps of the reading (`dead_letters/desk.rs` says why it is right).
//!
//! The topic is searched on a thread of its own, up to where the partition was delivered when the search began; what was delivered
//! meanwhile is searched when the result is taken, so that it is the current value *then*.

use super::partitions::Partitions;
use super::runner::Replayed;
use super::wake::Wake;
use crate::client::Clients;
use crate::dead_letters::{DeadLetter, Desk, Request};
use crate::decode::{Header, Record, decode, tombstone};
use crate::offsets::read_range;
use crate::schemas::{self, Schemas};
use caudal_core::{BatchBuilder, Error, LogOffset, Result};
use std::sync::{Arc, mpsc};

/// A record as a search found it.
#[derive(Clone, Debug)]
struct Found {
    offset: i64,
    value: Option<Vec<u8>>,
}

/// The search for one letter.
struct Search {
    letter: DeadLetter,
    upto: i64,
    result: mpsc::Receiver<Result<Option<Found>>>,
}

/// What is being applied again for one sink.
pub(super) struct Replays {
    clients: Clients,
    role: String,
    /// The dead letters' topic.
    topic: Arc<str>,
    desk: Arc<Desk>,
    wake: Arc<Wake>,
    search: Option<Search>,
    /// A letter that was applied before the last restart, and is still there.
    applied: Option<(DeadLetter, i64)>,
}

impl Replays {
    pub(super) fn new(clients: Clients, role: String, topic: &str, desk: Arc<Desk>, wake: Arc<Wake>) -> Self {
        Self { clients, role, topic: Arc::from(topic), desk, wake, search: None, applied: None }
    }

    /// Adds the next letter's event to the (empty) batch, and gives the offset that is stored with it; none if there is nothing
    /// to do now.
    pub(super) fn advance(
        &mut self,
        partitions: &Partitions,
        store: &Schemas,
        batch: &mut BatchBuilder,
    ) -> Result<Option<(LogOffset, Replayed)>> {
        if self.search.is_none() {
            self.begin(partitions)?;
        }
        if let Some((letter, stored)) = self.applied.take() {
            return Ok(Some(self.stored(&letter, stored, letter.id.clone())));
        }
        let Some(search) = &self.search else { return Ok(None) };
        let found = match search.result.try_recv() {
            Ok(found) => found,
            Err(mpsc::TryRecvError::Empty) => return Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Err(Error::bug("a search in a topic ended early")),
        };
        let Some(search) = self.search.take() else { return Ok(None) };
        let found = match found {
            Ok(found) => self.newer(&search, partitions, found)?,
            // The letter stays, and its request with it: the next start looks again.
            Err(error) => return Err(error.context(format!("replay {}", search.letter.id))),
        };
        let event = self.apply(&search.letter, found, store, batch);
        Ok(Some(self.stored(&search.letter, search.letter.at + 1, event)))
    }

    /// Where the sink stores that a letter was applied: a number of its own for each data partition, since instances share them.
    fn place(letter: &DeadLetter) -> i32 {
        let name = format!("{}/{}", letter.topic, letter.partition);
        (crate::murmur2::murmur2(name.as_bytes()) & 0x7fff_ffff) as i32
    }

    fn stored(&self, letter: &DeadLetter, offset: i64, event: String) -> (LogOffset, Replayed) {
        let partition = Self::place(letter);
        let stored = LogOffset {
            topic: Arc::clone(&self.topic),
            topic_id: uuid::Uuid::nil(),
            partition,
            offset,
            leader_epoch: -1,
            as_of_ms: 0,
            unswept: false,
            writer_epoch: 0,
        };
        (stored, Replayed { letter: letter.id.clone(), event, stored: (partition, offset) })
    }

    /// Begins the search for the next letter that is this instance's.
    fn begin(&mut self, partitions: &Partitions) -> Result<()> {
        while let Some(Request { letter }) = self.desk.next() {
            let stored = partitions.stored_at(&self.topic, Self::place(&letter));
            if letter.at < stored {
                self.applied = Some((letter, stored));
                return Ok(());
            }
            let Some(upto) = partitions.delivered(&letter.topic, letter.partition) else { continue };
            let (send, result) = mpsc::channel();
            let (clients, role, wake) = (self.clients.clone(), self.role.clone(), Arc::clone(&self.wake));
            let wanted = letter.clone();
            std::thread::Builder::new()
                .name("caudal-replay".into())
                .spawn(move || {
                    // Nobody is there any more: then nobody needs it.
                    let _ = send.send(search(&clients, &role, &wanted, 0, upto));
                    wake.set();
                })
                .map_err(|e| Error::transient("start the thread of a replay").because(e))?;
            self.search = Some(Search { letter, upto, result });
            return Ok(());
        }
        Ok(())
    }

    /// What was delivered since the search began may hold a newer value.
    fn newer(&self, done: &Search, partitions: &Partitions, found: Option<Found>) -> Result<Option<Found>> {
        let letter = &done.letter;
        let now = partitions.delivered(&letter.topic, letter.partition).unwrap_or(done.upto);
        if letter.key.is_none() || now <= done.upto {
            return Ok(found);
        }
        Ok(search(&self.clients, &self.role, letter, done.upto, now)?.or(found))
    }

    /// Gives the id that the event's letter gets if it is refused again.
    fn apply(
        &self,
        letter: &DeadLetter,
        found: Option<Found>,
        store: &Schemas,
        batch: &mut BatchBuilder,
    ) -> String {
        let topic: Arc<str> = Arc::from(letter.topic.as_str());
        let shapes = store.shapes(&topic, letter.partition);
        // A key whose deletion was compacted away has no record at all.
        let found = found.unwrap_or(Found { offset: letter.offset, value: None });
        let headers: Vec<Header<'_>> =
            letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let same = found.offset == letter.offset;
        let record = Record {
            topic: &topic,
            partition: letter.partition,
            offset: found.offset,
            spread: 1,
            key: letter.key.as_deref(),
            value: found.value.as_deref(),
            own: None,
            headers: if same { &headers } else { &[] },
        };
        let schema = schemas::at(&shapes, found.offset);
        match record.value {
            Some(_) => decode(&record, schema, batch),
            None => tombstone(&record, schema, batch),
        }
        let event = format!("{topic}/{}/{}", letter.partition, found.offset);
        self.desk.trying(&event, letter.attempts);
        tracing::info!(letter = letter.id, offset = found.offset, "replaying a dead letter");
        event
    }
}

/// The last record of the letter's key from `from` to `upto`; without a key, the letter's own record.
fn search(clients: &Clients, role: &str, letter: &DeadLetter, from: i64, upto: i64) -> Result<Option<Found>> {
    let Some(key) = &letter.key else {
        return Ok(Some(Found { offset: letter.offset, value: letter.value.clone() }));
    };
    let mut found = None;
    let place = (letter.topic.as_str(), letter.partition);
    read_range(clients, role, place, from..upto, |(record, value, offset)| {
        if record == key.as_slice() {
            found = Some(Found { offset, value: value.map(<[u8]>::to_vec) });
        }
        Ok(())
    })?;
    Ok(found)
}
