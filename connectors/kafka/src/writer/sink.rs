//! The capture sink and its writer: the asynchronous side.

use crate::client::blocking;
use crate::encode::{EncodeOptions, Encoded, Encoder, ddl};
use crate::format::Profile;
use crate::log::{CaptureOptions, Log};
use crate::registry::Client;
use crate::tasks::Ownership;
use crate::topics::{Layout, TopicSpec, Topics};
use crate::writer::at_least_once;
use crate::writer::rest::Rest;
use crate::writer::session::{Identity, Session};
use crate::writer::transaction::{self, Accepted};
use async_trait::async_trait;
use caudal_core::{Batch, Check, Error, Outcome, Position, Prepare, Result, Sink, SourcePosition, Writer};
use caudal_proto::side::OpenTransaction;
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// Where a captured source's batches go.
pub(crate) struct CaptureSink {
    log: Log,
    source: String,
    options: CaptureOptions,
}

impl CaptureSink {
    pub(crate) fn new(log: Log, source: &str, options: CaptureOptions) -> Self {
        Self { log, source: source.to_owned(), options }
    }
}

impl Log {
    /// What a capture's batches are encoded by, by itself: for measuring it. Topics are those that a new log would get.
    ///
    /// # Errors
    /// `Config` if a registry's address cannot be used.
    pub fn encoder(&self, options: &CaptureOptions) -> Result<Arc<dyn Prepare>> {
        let layout = Arc::new(Layout::new(self.names.clone(), self.clients.clone()));
        Ok(Arc::new(Encoder::new(encode_options(self, options, None)?, layout)))
    }
}

/// What batches are encoded by; `open` is the transaction under way, for a capture that goes on.
fn encode_options(
    log: &Log,
    options: &CaptureOptions,
    open: Option<OpenTransaction>,
) -> Result<EncodeOptions> {
    let config = &log.clients.resolved().config;
    Ok(EncodeOptions {
        prefix: log.names.prefix().to_owned(),
        connector: options.connector.clone(),
        max_record: config.topics.max_message_bytes.bytes() as usize,
        oversize: config.topics.oversize,
        clock: options.clock,
        profile: config.profile,
        format: config.format,
        registry: config.registry.as_ref().map(Client::new).transpose()?,
        transactions: config.transactions.then_some(open),
    })
}

#[async_trait]
impl Sink for CaptureSink {
    async fn check(&self) -> Vec<Check> {
        let findings = async {
            Topics::new(&self.log.clients, &format!("{}-check", self.source))?.findings(&self.log.names).await
        };
        findings.await.unwrap_or_else(|error| {
            let fix = error.hint_text().unwrap_or("start the brokers, or correct kafka.brokers").to_owned();
            vec![Check::error("kafka", error.to_string(), fix)]
        })
    }

    async fn claim(&self) -> Result<()> {
        let number = self.log.membership.number(&self.source).await?;
        self.log.membership.own(number).await
    }

    async fn open(&self) -> Result<Box<dyn Writer>> {
        let number = self.log.membership.number(&self.source).await?;
        let topics = Topics::new(&self.log.clients, &format!("{}-topics", self.source))?;
        let existing = topics.list().await?;
        let layout = Arc::new(Layout::new(self.log.names.clone(), self.log.clients.clone()));
        let identity = Identity {
            clients: self.log.clients.clone(),
            names: self.log.names.clone(),
            source: self.source.clone(),
            number,
        };
        let (fixing, statistics) = (Arc::clone(&layout), Arc::clone(&self.options.statistics));
        let mut session = blocking(move || Session::open(identity, &existing, &fixing, statistics)).await?;
        let known: Vec<String> = session.topics.keys().cloned().collect();
        for (name, id) in topics.ids(&known).await {
            session.meet(&name, id);
        }
        let options = encode_options(&self.log, &self.options, session.transaction.clone())?;
        if options.profile == Profile::Debezium35 {
            session.context = context(&options);
        }
        Ok(Box::new(CaptureWriter {
            last: session.resumed.clone(),
            session: Some(Box::new(session)),
            rest: None,
            encoder: Arc::new(Encoder::new(options.clone(), layout)),
            options,
            topics,
            ready: HashSet::new(),
            accepted: Vec::new(),
            source: self.source.clone(),
            ownership: self.log.membership.ownership(number),
        }))
    }
}

/// The headers that Debezium 3.5 gives each record: what wrote it, and in which run.
fn context(options: &EncodeOptions) -> Vec<(&'static str, String)> {
    vec![
        ("__debezium.context.connectorLogicalName", options.prefix.clone()),
        ("__debezium.context.taskId", "0".into()),
        ("__debezium.context.connectorName", options.connector.clone()),
        ("__debezium.context.runId", Uuid::new_v4().to_string()),
    ]
}

/// Writes a source's batches. Holds the encoded batches between two commits.
struct CaptureWriter {
    /// Away while a commit runs; gone for good if that was cancelled or has failed.
    session: Option<Box<Session>>,
    /// Has the session meanwhile, where a position is still to be stored.
    rest: Option<Rest>,
    encoder: Arc<Encoder>,
    options: EncodeOptions,
    topics: Topics,
    /// Topics that exist and are checked.
    ready: HashSet<String>,
    accepted: Vec<Accepted>,
    last: Option<SourcePosition>,
    source: String,
    ownership: Option<Ownership>,
}

impl CaptureWriter {
    fn check_ownership(&self) -> Result<()> {
        self.ownership.as_ref().map_or(Ok(()), |ownership| ownership.check(&self.source))
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.session
            .as_deref_mut()
            .ok_or_else(|| Error::transient("the writer was used up by a failed commit"))
    }

    /// Takes the session back from its rest.
    async fn wake(&mut self) -> Result<()> {
        if let Some(rest) = self.rest.take() {
            self.session = Some(rest.end().await?);
        }
        Ok(())
    }

    /// Makes the topics of the batch's tables, and of its schema changes, before anything goes to them.
    async fn make_ready(&mut self, encoded: &Encoded, ddl: bool) -> Result<()> {
        let (clients, names) = {
            let identity = &self.session()?.identity;
            (identity.clients.clone(), identity.names.clone())
        };
        let resolved = clients.resolved();
        let mut specs: Vec<_> = encoded
            .tables
            .iter()
            .filter(|plan| !self.ready.contains(&plan.topic))
            .map(|plan| TopicSpec::data(plan.topic.clone(), plan.partitions, plan.keyed(), resolved))
            .collect();
        let mut others = Vec::new();
        if ddl {
            others.push(TopicSpec::schema_changes(&names, resolved));
        }
        if resolved.config.transactions {
            others.push(TopicSpec::announcements(names.transactions(), resolved));
        }
        if !resolved.config.heartbeats.get().is_zero() {
            others.push(TopicSpec::announcements(names.heartbeats(), resolved));
        }
        let side: HashSet<String> = others.iter().map(|spec| spec.name.clone()).collect();
        specs.extend(others.into_iter().filter(|spec| !self.ready.contains(&spec.name)));
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs.dedup_by(|a, b| a.name == b.name);
        if specs.is_empty() {
            return Ok(());
        }
        self.topics.meet(&specs).await?;
        let data: Vec<_> = specs.iter().filter(|s| !side.contains(&s.name)).cloned().collect();
        let topics: Vec<String> = data.iter().map(|s| s.name.clone()).collect();
        let ids = self.topics.ids(&topics).await;
        let mut session = self.session.take().ok_or_else(|| Error::bug("the session is away"))?;
        let session = blocking(move || {
            let partitions: Vec<_> =
                data.iter().flat_map(|s| (0..s.partitions as i32).map(|p| (s.name.clone(), p))).collect();
            session.learn_ends(&partitions)?;
            for spec in &data {
                session.meet(&spec.name, ids.get(&spec.name).copied().unwrap_or_default());
            }
            session.full_wanted = true;
            Ok(session)
        })
        .await?;
        self.session = Some(session);
        self.ready.extend(specs.into_iter().map(|s| s.name));
        Ok(())
    }
}

#[async_trait]
impl Writer for CaptureWriter {
    async fn resume(&mut self) -> Result<Option<Position>> {
        Ok(self.session()?.resumed.clone().map(Position::Source))
    }

    fn prepare(&self) -> Option<Arc<dyn Prepare>> {
        Some(Arc::clone(&self.encoder) as Arc<dyn Prepare>)
    }

    async fn write(&mut self, batch: &mut Batch) -> Result<Outcome> {
        self.check_ownership()?;
        self.wake().await?;
        let Position::Source(position) = batch.position.clone() else {
            return Err(Error::bug("a capture was given a position of the log"));
        };
        let encoded = match batch.prepared.take().map(|p| p.downcast::<Encoded>()) {
            Some(Ok(encoded)) => *encoded,
            _ => self.encoder.encode(batch)?,
        };
        let changes = ddl::records(batch, &self.options)?;
        self.make_ready(&encoded, !changes.is_empty()).await?;
        self.accepted.push(Accepted { encoded, position, boundary: batch.boundary.clone(), ddl: changes });
        Ok(Outcome::default())
    }

    async fn commit(&mut self) -> Result<Position> {
        self.check_ownership()?;
        self.wake().await?;
        if !self.accepted.is_empty() {
            let accepted = std::mem::take(&mut self.accepted);
            let reached = accepted.last().map(|a| a.position.clone());
            let mut session = self
                .session
                .take()
                .ok_or_else(|| Error::transient("the writer was used up by a failed commit"))?;
            let session = blocking(move || {
                transaction::commit(&mut session, accepted)?;
                Ok(session)
            })
            .await?;
            match at_least_once::due_in(&session) {
                Some(left) => self.rest = Some(Rest::begin(session, left)),
                None => self.session = Some(session),
            }
            self.last = reached;
        }
        let last = self.last.clone().ok_or_else(|| Error::bug("commit before anything was ever written"))?;
        Ok(Position::Source(last))
    }
}

// The producer's end waits for its thread and its queue: not here, on a worker of the runtime.
impl Drop for CaptureWriter {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            std::thread::spawn(move || drop(session));
        }
    }
}
