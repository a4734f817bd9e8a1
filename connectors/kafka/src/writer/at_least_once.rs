//! `delivery: at_least_once`: records outside of transactions, visible as soon as the brokers have them.
//!
//! Why nothing is lost. A position is stored after all records before it are delivered: whoever resumes there reads anew what may
//! be missing, and some that is not.
//!
//! Why a displaced writer does no harm to sinks. Opening makes a producer of the source's `transactional.id`, which fences the one before:
//! positions, watermarks and shapes go through it alone, in small transactions of their own, so a displaced writer stores none. Its
//! records, which brokers do take, carry its epoch. An epoch is claimed in a transaction of that producer *after* the last claim was
//! read, so each writer's is greater than those of all before it. A partition's records have ascending (epoch, number); one that lies
//! below what was read before is of a displaced writer, and is dropped: its change is among those that the new one reads anew, for no
//! position behind it was ever stored. Sinks store the epoch with the offset, so that this holds over restarts.
//!
//! Why shapes are there before records: a shape is committed before the first record that has it is sent, and begins at the
//! partition's end of that moment.
//!
//! What other readers see: repetitions after a crash, and what a displaced writer still wrote, at the end of partitions until the keys
//! change again. Watermarks say that all before them is there, not that nothing else is.
//!
//! How late positions are: [`STORE_EVERY`], and at rest as much; so much is repeated after a crash.

use crate::writer::polled::Polled;
use crate::writer::session::{Identity, Session, made, settings};
use crate::writer::statistics::Statistics;
use crate::writer::transaction::{Accepted, Run, Standing, Steps, apply, warn_of_another_writer};
use caudal_core::{Boundary, Error, Result};
use caudal_proto::side::{EpochRecord, VERSION};
use rdkafka::producer::Producer;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often positions and watermarks are stored at most: each time costs a transaction over two partitions.
pub(crate) const STORE_EVERY: Duration = Duration::from_millis(25);

/// The producer of records, and what is not stored yet.
pub(crate) struct Loose {
    pub(crate) producer: Polled,
    /// The number of the last record.
    pub(crate) number: u64,
    standing: Option<Standing>,
    boundary: Option<Boundary>,
    stored: Option<Instant>,
}

impl Loose {
    /// With the settings of the producer of transactions, but for those.
    pub(crate) fn new(identity: &Identity, statistics: Arc<Statistics>) -> Result<Self> {
        let producer = made(&settings(identity, "events"), identity, statistics)?;
        Ok(Self { producer, number: 0, standing: None, boundary: None, stored: None })
    }
}

/// Makes the session's epoch its own, for ever. Whoever took over since the last claim was read has fenced this one.
///
/// # Errors
/// `Fenced` then.
pub(crate) fn claim(session: &Session) -> Result<()> {
    let record = EpochRecord { v: VERSION, epoch: session.epoch };
    let (topic, key) = (session.identity.names.positions(), format!("{}#epoch", session.identity.source));
    session.aside(|run| run.send_side(&topic, &key, Some(&record)))
}

/// Sends all records, and waits until they are delivered. Their position is stored then, or by [`store`] when it is due.
///
/// # Errors
/// As those of transactions; what was delivered is there.
pub(crate) fn write(session: &mut Session, accepted: Vec<Accepted>) -> Result<()> {
    let Some(loose) = &session.loose else { return Err(Error::bug("no producer of records")) };
    loose.producer.context().reset();
    let mut run = Run::new(session, Steps::Loose);
    accepted.iter().try_for_each(|batch| run.send_batch(batch, None))?;
    run.send_heartbeat()?;
    run.delivered()?;
    let number = run.number;
    let is_alone = run.is_alone();
    let ends = run.ends();
    let done = run.done();
    apply(session, Steps::Loose, done);
    session.touched.extend(ends);
    if !is_alone {
        warn_of_another_writer(session);
        refuse_other_topics(session)?;
    }
    if let Some(loose) = &mut session.loose {
        loose.number = number;
        loose.standing.get_or_insert_default().follow(&accepted);
        loose.boundary =
            accepted.into_iter().filter_map(|a| a.boundary).next_back().or(loose.boundary.take());
    }
    if due_in(session).is_some_and(|left| left.is_zero()) { store(session) } else { Ok(()) }
}

/// A topic that was made again has no shapes yet: the records just written to it are written again behind them.
fn refuse_other_topics(session: &mut Session) -> Result<()> {
    let partitions: Vec<_> = session.touched.keys().cloned().collect();
    let ids = |session: &Session| -> Vec<_> {
        partitions.iter().map(|(topic, _)| session.topics.get(topic).map(|known| known.id)).collect()
    };
    let before = ids(session);
    session.meet_again(&partitions);
    let changed = ids(session).into_iter().zip(before).position(|(now, before)| now != before);
    changed.map_or(Ok(()), |at| {
        Err(Error::transient(format!("topic {} was made again; writing to it anew", partitions[at].0)))
    })
}

/// How long the position that is not stored yet may still wait; none if there is none.
pub(crate) fn due_in(session: &Session) -> Option<Duration> {
    let loose = session.loose.as_ref().filter(|loose| loose.standing.is_some())?;
    Some(loose.stored.map_or(Duration::ZERO, |at| STORE_EVERY.saturating_sub(at.elapsed())))
}

/// Stores the position and, if a boundary was passed, a watermark: all records before them are delivered.
///
/// # Errors
/// `Fenced` if another writer has taken over.
pub(crate) fn store(session: &mut Session) -> Result<()> {
    let taken = session.loose.as_mut().map(|loose| (loose.standing.take(), loose.boundary.take()));
    let Some((Some(standing), boundary)) = taken else { return Ok(()) };
    let done = session.aside_done(|run| {
        if let Some(boundary) = &boundary {
            run.send_watermark(boundary)?;
        }
        run.send_position(&standing)
    })?;
    apply(session, Steps::Many, done);
    if let Some(loose) = &mut session.loose {
        loose.stored = Some(Instant::now());
    }
    Ok(())
}

impl Session {
    /// A transaction of its own, of records of side topics.
    pub(super) fn aside(&self, send: impl FnOnce(&mut Run<'_>) -> Result<()>) -> Result<()> {
        self.aside_done(send).map(|_| ())
    }

    fn aside_done(
        &self,
        send: impl FnOnce(&mut Run<'_>) -> Result<()>,
    ) -> Result<crate::writer::transaction::Done> {
        self.producer.context().reset();
        self.producer.begin_transaction().map_err(|e| self.failure(e, "begin a transaction"))?;
        let mut run = Run::new(self, Steps::Many);
        if let Err(error) = send(&mut run).and_then(|()| run.delivered()) {
            self.abort();
            return Err(error);
        }
        self.commit_transaction()?;
        Ok(run.done())
    }
}
