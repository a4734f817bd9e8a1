//! Dead letters that are applied again, between two steps of the reading (`dead_letters/desk.rs` says why it is right).
//!
//! The topic is searched on a thread of its own, up to where the partition was delivered when the search began; what was delivered
//! meanwhile is searched when the result is taken, so that it is the current value *then*.
//!
//! What the sink has stored of an earlier topic of dead letters, which was deleted and made again, says nothing of the letters in this one:
//! the topic's id is asked for with each letter.

use super::partitions::Partitions;
use super::runner::Replayed;
use super::wake::Wake;
use crate::client::Clients;
use crate::dead_letters::{DeadLetter, Desk, Request};
use crate::decode::{Header, Record, decode, tombstone};
use crate::offsets::read_range;
use crate::schemas::{self, Schemas};
use crate::topic_ids::TopicIds;
use caudal_core::{BatchBuilder, Error, LogOffset, Result};
use std::sync::{Arc, mpsc};
use uuid::Uuid;

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
    result: mpsc::Receiver<(Uuid, Result<Looked>)>,
}

/// What a search tells.
enum Looked {
    /// The letter was applied before the last restart, and is still there: what the sink has stored.
    Applied(i64),
    /// The current value, if there is one.
    Current(Option<Found>),
}

/// Gives the ids of topics, from any thread.
pub(super) type Ids = Arc<dyn Fn(&[String]) -> TopicIds + Send + Sync>;

/// What is being applied again for one sink.
pub(super) struct Replays {
    clients: Clients,
    role: String,
    /// The dead letters' topic.
    topic: Arc<str>,
    desk: Arc<Desk>,
    wake: Arc<Wake>,
    ids: Ids,
    search: Option<Search>,
}

impl Replays {
    pub(super) fn new(
        (clients, role): (Clients, String),
        (topic, ids): (&str, Ids),
        desk: Arc<Desk>,
        wake: Arc<Wake>,
    ) -> Self {
        Self { clients, role, topic: Arc::from(topic), desk, wake, ids, search: None }
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
        let Some(search) = &self.search else { return Ok(None) };
        let (id, looked) = match search.result.try_recv() {
            Ok(looked) => looked,
            Err(mpsc::TryRecvError::Empty) => return Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => {
                (Uuid::nil(), Err(Error::bug("a search in a topic ended early")))
            }
        };
        let Some(search) = self.search.take() else { return Ok(None) };
        let found = match looked {
            Ok(Looked::Applied(stored)) => {
                let event = search.letter.id.clone();
                return Ok(Some(self.stored(&search.letter, (id, stored), event)));
            }
            Ok(Looked::Current(found)) => self.newer(&search, partitions, found)?,
            // The letter stays, and its request with it: the next start looks again.
            Err(error) => return Err(error.context(format!("replay {}", search.letter.id))),
        };
        let event = self.apply(&search.letter, found, store, batch);
        Ok(Some(self.stored(&search.letter, (id, search.letter.at + 1), event)))
    }

    /// Where the sink stores that a letter was applied: a number of its own for each data partition, since instances share them.
    fn place(letter: &DeadLetter) -> i32 {
        let name = format!("{}/{}", letter.topic, letter.partition);
        (crate::murmur2::murmur2(name.as_bytes()) & 0x7fff_ffff) as i32
    }

    fn stored(
        &self,
        letter: &DeadLetter,
        (topic_id, offset): (Uuid, i64),
        event: String,
    ) -> (LogOffset, Replayed) {
        let partition = Self::place(letter);
        let stored = LogOffset {
            topic: Arc::clone(&self.topic),
            topic_id,
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
            let stored = partitions.ever_stored(&self.topic, Self::place(&letter));
            let stored = stored.map(|stored| (stored.topic_id, stored.offset));
            let Some(upto) = partitions.delivered(&letter.topic, letter.partition) else { continue };
            let (send, result) = mpsc::channel();
            let (clients, role, wake) = (self.clients.clone(), self.role.clone(), Arc::clone(&self.wake));
            let (wanted, topic, ids) = (letter.clone(), self.topic.to_string(), Arc::clone(&self.ids));
            std::thread::Builder::new()
                .name("caudal-replay".into())
                .spawn(move || {
                    let id = ids(std::slice::from_ref(&topic)).get(&topic).copied().unwrap_or_default();
                    let is_same = |of: Uuid| id.is_nil() || of.is_nil() || of == id;
                    let applied = stored.filter(|(of, offset)| wanted.at < *offset && is_same(*of));
                    let looked = match applied {
                        Some((_, offset)) => Ok(Looked::Applied(offset)),
                        None => search(&clients, &role, &wanted, 0, upto).map(Looked::Current),
                    };
                    // Nobody is there any more: then nobody needs it.
                    let _ = send.send((id, looked));
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
