//! A sink's consumer group: which instance works, and offsets for Kafka's tools.
//!
//! In `transaction` mode one member of the group `caudal.<prefix>.<sink>` works, for all of the sink's sources: the owner of
//! the first *watermarks* partition. A sink's fence is one for all that it stores, so two owners, each of another source,
//! would fence each other for ever. In `key` mode the group shares the data partitions. The members read nothing: their partitions
//! are paused, and the owner reads with a consumer of its own, outside of the group. A member may commit offsets of
//! partitions that it does not own, so the tools see the sink under its name.
//!
//! Sharing is not safety: what keeps two instances from writing is the sink's fence, with the offsets that it stores.

use crate::acl::{Resource, classify_doing};
use crate::client::{Clients, complain, log};
use crate::faults::{classify, is_late_token};
use crate::tokens::Handed;
use caudal_core::{Error, Fault, Result};
use caudal_proto::side::TopicNames;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often offsets are published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// (topic, partition)
pub(crate) type Partition = (String, i32);

/// The group of a sink.
pub(crate) fn name(names: &TopicNames, sink: &str) -> String {
    format!("caudal.{}.{sink}", names.prefix())
}

/// Whose owner works in `transaction` mode. It is there before any source, and stays the same when sources come: members that
/// wait all wait for the same one.
pub(crate) fn seat(names: &TopicNames) -> Partition {
    (names.watermarks(), 0)
}

/// What the group has given to this instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share {
    /// Its partitions.
    pub(crate) owned: BTreeSet<Partition>,
    /// Something that only the operator can mend, and how.
    failure: Option<(String, String)>,
    /// The membership is over: another instance has its name.
    pub(crate) over: bool,
}

/// Offsets to publish, by partition.
type Offsets = Arc<Mutex<BTreeMap<Partition, i64>>>;

/// A member of the group, served by a thread of its own until it is dropped.
pub(crate) struct Member {
    consumer: Arc<BaseConsumer<Seat>>,
    share: watch::Receiver<Share>,
    offsets: Offsets,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    /// Joins `group` once there is something to subscribe to.
    ///
    /// # Errors
    /// `Config` if the client's settings are refused.
    pub(crate) fn join(clients: &Clients, group: &str, role: &str) -> Result<Self> {
        let mut config = clients.member(role, group);
        config.set("max.poll.interval.ms", "60000");
        let (sender, share) = watch::channel(Share::default());
        let consumer: BaseConsumer<Seat> = config
            .create_with_context(Seat { share: sender, handed: clients.handed() })
            .map_err(|e| classify(e, format!("join the group {group}")))?;
        let consumer = Arc::new(consumer);
        let (offsets, stop) = (Offsets::default(), Arc::default());
        let mut member = Self { consumer, share, offsets, stop, thread: None };
        member.serve(clients.clone(), group.to_owned())?;
        Ok(member)
    }

    /// Takes part in sharing `topics`, in place of those before.
    ///
    /// # Errors
    /// As librdkafka gives them.
    pub(crate) fn subscribe(&self, topics: &[&str]) -> Result<()> {
        let now = self.consumer.subscription().map_err(|e| classify(e, "ask for the subscription"))?;
        let now: BTreeSet<String> = now.elements().iter().map(|e| e.topic().to_owned()).collect();
        if now.len() == topics.len() && topics.iter().all(|topic| now.contains(*topic)) {
            return Ok(());
        }
        self.consumer
            .subscribe(topics)
            .map_err(|e| classify(e, format!("subscribe to {}", topics.join(", "))))
    }

    /// What this instance owns, now and later.
    pub(crate) fn share(&self) -> watch::Receiver<Share> {
        self.share.clone()
    }

    /// Notes offsets to publish; they go out within [`PUBLISH_EVERY`]. Bound: one number a partition.
    pub(crate) fn publish(&self, offsets: impl Iterator<Item = (Partition, i64)>) {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner).extend(offsets);
    }

    fn serve(&mut self, clients: Clients, group: String) -> Result<()> {
        let (consumer, offsets, stop) =
            (Arc::clone(&self.consumer), Arc::clone(&self.offsets), Arc::clone(&self.stop));
        let thread = std::thread::Builder::new()
            .name("caudal-group".into())
            .spawn(move || {
                let mut published = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    poll(&consumer, &clients, &group);
                    if let Some((_, reason)) = consumer.client().fatal_error() {
                        tracing::warn!(reason, "the membership in a sink's group is over");
                        consumer.context().share.send_modify(|share| {
                            share.owned.clear();
                            share.over = true;
                        });
                        return;
                    }
                    if published.elapsed() >= PUBLISH_EVERY {
                        commit(&consumer, &offsets);
                        published = Instant::now();
                    }
                }
                commit(&consumer, &offsets);
            })
            .map_err(|e| Error::transient("start the thread of a consumer group").because(e))?;
        self.thread = Some(thread);
        Ok(())
    }
}

// Waits (some 100 ms, at the end of the daemon) until the group is told: else it gives the sink to nobody, not even to the
// restarted daemon, until the session times out.
impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its hook, and nothing is left to undo.
            let _ = thread.join();
        }
    }
}

/// Waits until `share` has some of what is `wanted`, and gives it.
///
/// # Errors
/// `Config` if the group refuses this user.
pub(crate) async fn own(
    share: &mut watch::Receiver<Share>,
    wanted: impl Fn(&Partition) -> bool,
) -> Result<BTreeSet<Partition>> {
    let mut said = false;
    loop {
        let now = share.borrow_and_update().clone();
        if let Some((failure, hint)) = now.failure {
            return Err(Error::config(failure).hint(hint));
        }
        if now.over {
            return Err(Error::transient("the group's membership has ended"));
        }
        let owned: BTreeSet<Partition> = now.owned.into_iter().filter(&wanted).collect();
        if !owned.is_empty() {
            return Ok(owned);
        }
        match tokio::time::timeout(Duration::from_secs(30), share.changed()).await {
            Ok(Err(_)) => return Err(Error::transient("the group's membership has ended")),
            Ok(Ok(())) => {}
            Err(_) if !said => {
                said = true;
                tracing::info!(
                    "waiting for the sink's group to give it to this instance: another one works, or the group's broker is out of reach"
                );
            }
            Err(_) => {}
        }
    }
}

/// Whether an instance that opened with `owned`, of what is `shared`, may go on with what it owns now.
///
/// # Errors
/// `Fenced` if something was taken from it, `Transient` if it must reopen to read more.
pub(crate) fn check(
    owned: &BTreeSet<Partition>,
    shared: &BTreeSet<Partition>,
    now: &BTreeSet<Partition>,
) -> Result<()> {
    if let Some((topic, partition)) = owned.difference(now).next() {
        return Err(Error::fenced(format!("the group has taken {topic}/{partition} from this instance")));
    }
    if now.intersection(shared).count() > owned.len() {
        return Err(Error::transient(
            "the group has given more partitions to this instance; reading them too",
        ));
    }
    Ok(())
}

fn poll(consumer: &BaseConsumer<Seat>, clients: &Clients, group: &str) {
    if let Some(Err(error)) = consumer.poll(Duration::from_millis(100)) {
        if is_late_token(&error, clients.resolved().tokens.is_some()) {
            return;
        }
        let doing = ("Read", Resource::Group(group));
        let error = classify_doing(error, "take part in the sink's group", clients.resolved(), doing);
        if error.fault() == Fault::Config {
            let hint = error.hint_text().unwrap_or_default().to_owned();
            consumer.context().share.send_modify(|share| share.failure = Some((error.to_string(), hint)));
        }
    }
}

/// Publishes and forgets: the next ones supersede what a broker did not take.
fn commit(consumer: &BaseConsumer<Seat>, offsets: &Offsets) {
    let offsets = std::mem::take(&mut *offsets.lock().unwrap_or_else(PoisonError::into_inner));
    if offsets.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for ((topic, partition), offset) in &offsets {
        if list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).is_err() {
            return;
        }
    }
    if let Err(error) = consumer.commit(&list, CommitMode::Async) {
        tracing::debug!(%error, "publish group offsets");
    }
}

/// Keeps the share up to date.
struct Seat {
    share: watch::Sender<Share>,
    handed: Handed,
}

impl ClientContext for Seat {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        self.handed.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }
}

impl ConsumerContext for Seat {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = consumer.pause(list) {
                    tracing::debug!(%error, "pause the group's partitions");
                }
                self.share.send_modify(|share| {
                    share.owned.extend(partitions(list));
                    share.failure = None;
                });
            }
            Rebalance::Revoke(list) => self.share.send_modify(|share| {
                for partition in partitions(list) {
                    share.owned.remove(&partition);
                }
            }),
            Rebalance::Error(_) => {}
        }
    }
}

fn partitions(list: &TopicPartitionList) -> impl Iterator<Item = Partition> {
    let elements = list.elements();
    elements.iter().map(|e| (e.topic().to_owned(), e.partition())).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(partitions: &[i32]) -> BTreeSet<Partition> {
        partitions.iter().map(|p| ("w".to_owned(), *p)).collect()
    }

    #[test]
    fn what_is_taken_fences_what_is_added_reopens_and_the_rest_is_of_no_concern() {
        let fault = |owned, now| check(&set(owned), &set(&[0, 1]), &set(now)).map_err(|e| e.fault());
        assert_eq!(fault(&[0], &[]), Err(Fault::Fenced));
        assert_eq!(fault(&[0], &[1]), Err(Fault::Fenced));
        assert_eq!(fault(&[0], &[0, 1]), Err(Fault::Transient));
        assert_eq!(fault(&[0], &[0, 7]), Ok(()));
    }
}
