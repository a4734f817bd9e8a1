//! A log under test and a client that speaks to it.

use crate::batch::{BatchHeader, Records};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::{Config, Error, Log};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a test waits for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A running log whose disk and clock the test holds.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    pub(crate) log: Option<Log>,
}

/// Settings that tests want.
pub(crate) fn config(dir: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: dir.to_path_buf(),
        maintenance_interval: Duration::from_secs(3_600),
        ..Config::default()
    }
}

impl Bench {
    pub(crate) async fn start() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let (disk, clock) = (Disk::default(), Clock::default());
        let log = Log::start_with(config(folder.path()), disk.clone(), clock.clone()).await.unwrap();
        Bench { folder, disk, clock, log: Some(log) }
    }

    pub(crate) fn log(&self) -> &Log {
        self.log.as_ref().expect("running")
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.log().address()).await
    }

    /// The process dies; what it wrote stays.
    pub(crate) async fn kill(&mut self) {
        self.disk.faults.kill();
        self.end().await;
    }

    /// Power fails; what was not fsynced is gone.
    pub(crate) async fn cut_power(&mut self) {
        self.disk.faults.cut_power().unwrap();
        self.end().await;
    }

    async fn end(&mut self) {
        if let Some(log) = self.log.take() {
            log.shutdown().await;
        }
    }

    /// One round of retention and compaction.
    pub(crate) async fn maintain(&self) {
        let node = self.log().node().clone();
        tokio::task::spawn_blocking(move || crate::maintenance::one_round(&node)).await.unwrap();
    }

    /// Bytes of a topic's first partition.
    pub(crate) fn size(&self, topic: &str) -> u64 {
        self.log().node().topics.partition(topic, 0).unwrap().size()
    }

    /// Starts on what the disk holds, with a healthy disk.
    pub(crate) async fn restart(&mut self) -> Result<(), Error> {
        self.end().await;
        self.disk = Disk::default();
        let log = Log::start_with(config(self.folder.path()), self.disk.clone(), self.clock.clone()).await?;
        self.log = Some(log);
        Ok(())
    }
}

/// A client with one connection.
pub(crate) struct Client {
    stream: TcpStream,
    correlation: i32,
}

/// A producer's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

pub(crate) fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

pub(crate) fn name(s: &str) -> TopicName {
    TopicName(text(s))
}

impl Client {
    pub(crate) async fn connect(address: std::net::SocketAddr) -> Client {
        Client { stream: TcpStream::connect(address).await.unwrap(), correlation: 0 }
    }

    /// Sends raw bytes.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Whether the server closes the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(tokio::time::timeout(SOON, self.stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask(&mut self, key: ApiKey, version: i16, request: RequestKind) -> ResponseKind {
        self.send(key, version, &request).await;
        self.receive(key, version).await
    }

    pub(crate) async fn send(&mut self, key: ApiKey, version: i16, request: &RequestKind) {
        self.correlation += 1;
        let frame = frame(key, version, self.correlation, request);
        self.stream.write_all(&frame).await.unwrap();
    }

    pub(crate) async fn receive(&mut self, key: ApiKey, version: i16) -> ResponseKind {
        self.try_receive(key, version).await.expect("the server answers")
    }

    pub(crate) async fn try_receive(&mut self, key: ApiKey, version: i16) -> Option<ResponseKind> {
        let length = tokio::time::timeout(SOON, self.stream.read_i32()).await.ok()?.ok()?;
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes).await.ok()?;
        let mut bytes = Bytes::from(bytes);
        ResponseHeader::decode(&mut bytes, key.response_header_version(version)).unwrap();
        let response = ResponseKind::decode(key, &mut bytes, version).unwrap();
        assert!(!bytes.has_remaining(), "{key:?} v{version}: bytes after the answer");
        Some(response)
    }

    pub(crate) async fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> i16 {
        let setting = |(k, v): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(text(k)).with_value(Some(text(v)))
        };
        let topic = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(settings.iter().map(setting).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        match self.ask(ApiKey::CreateTopics, 7, RequestKind::CreateTopics(request)).await {
            ResponseKind::CreateTopics(r) => r.topics[0].error_code,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn produce_request(
        topic: &str,
        partition: i32,
        id: Option<&str>,
        batch: Bytes,
    ) -> RequestKind {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
        let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(1000)
            .with_transactional_id(id.map(|id| TransactionalId(text(id))))
            .with_topic_data(vec![topic]);
        RequestKind::Produce(request)
    }

    /// Produces a batch; base offset or error.
    pub(crate) async fn produce(&mut self, topic: &str, id: Option<&str>, batch: Bytes) -> Result<i64, i16> {
        self.produce_to(topic, 0, id, batch).await
    }

    pub(crate) async fn produce_to(
        &mut self,
        topic: &str,
        partition: i32,
        id: Option<&str>,
        batch: Bytes,
    ) -> Result<i64, i16> {
        let request = Client::produce_request(topic, partition, id, batch);
        produced(self.ask(ApiKey::Produce, 9, request).await)
    }

    /// Offset by time, -1 for the end, -2 for the begin.
    pub(crate) async fn offset(&mut self, topic: &str, time: i64, committed: bool) -> i64 {
        let partition = ListOffsetsPartition::default().with_timestamp(time);
        let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(i8::from(committed))
            .with_topics(vec![topic]);
        match self.ask(ApiKey::ListOffsets, 7, RequestKind::ListOffsets(request)).await {
            ResponseKind::ListOffsets(r) => {
                assert_eq!(r.topics[0].partitions[0].error_code, 0);
                r.topics[0].partitions[0].offset
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn fetch(
        &mut self,
        topic: &str,
        offset: i64,
        committed: bool,
        wait_ms: i32,
    ) -> FetchResponse {
        self.fetch_from(topic, 0, offset, committed, wait_ms).await
    }

    pub(crate) async fn fetch_from(
        &mut self,
        topic: &str,
        index: i32,
        offset: i64,
        committed: bool,
        wait_ms: i32,
    ) -> FetchResponse {
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(offset)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_isolation_level(i8::from(committed))
            .with_topics(vec![topic]);
        match self.ask(ApiKey::Fetch, 11, RequestKind::Fetch(request)).await {
            ResponseKind::Fetch(r) => r,
            other => panic!("{other:?}"),
        }
    }

    /// Values of all records that a reader sees: offset and key (or value) as text.
    pub(crate) async fn read_all(&mut self, topic: &str, committed: bool) -> Vec<(i64, String)> {
        let begin = self.offset(topic, -2, committed).await;
        self.read_from(topic, 0, begin, committed).await
    }

    pub(crate) async fn read_partition(
        &mut self,
        topic: &str,
        index: i32,
        committed: bool,
    ) -> Vec<(i64, String)> {
        self.read_from(topic, index, 0, committed).await
    }

    async fn read_from(
        &mut self,
        topic: &str,
        index: i32,
        begin: i64,
        committed: bool,
    ) -> Vec<(i64, String)> {
        let mut seen = Vec::new();
        let mut offset = begin;
        loop {
            let response = self.fetch_from(topic, index, offset, committed, 0).await;
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0);
            let records = partition.records.clone().unwrap_or_default();
            if records.is_empty() {
                return seen;
            }
            let aborted: Vec<(i64, i64)> = partition
                .aborted_transactions
                .iter()
                .flatten()
                .map(|a| (a.producer_id.0, a.first_offset))
                .collect();
            offset = decode_visible(&records, &aborted, offset, &mut seen);
        }
    }

    /// Error and new begin.
    pub(crate) async fn delete_records(&mut self, topic: &str, before: i64) -> (i16, i64) {
        use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
        let partition = DeleteRecordsPartition::default().with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
        match self.ask(ApiKey::DeleteRecords, 2, RequestKind::DeleteRecords(request)).await {
            ResponseKind::DeleteRecords(r) => {
                let partition = &r.topics[0].partitions[0];
                (partition.error_code, partition.low_watermark)
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn commit_offset(
        &mut self,
        group: &str,
        topic: &str,
        offset: i64,
        metadata: &str,
    ) -> i16 {
        use kafka_protocol::messages::offset_commit_request::{
            OffsetCommitRequestPartition, OffsetCommitRequestTopic,
        };
        let partition = OffsetCommitRequestPartition::default()
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text(metadata)));
        let topic =
            OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        match self.ask(ApiKey::OffsetCommit, 8, RequestKind::OffsetCommit(request)).await {
            ResponseKind::OffsetCommit(r) => r.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn committed_offset(&mut self, group: &str, topic: &str) -> i64 {
        use kafka_protocol::messages::offset_fetch_request::{
            OffsetFetchRequestGroup, OffsetFetchRequestTopics,
        };
        let topic =
            OffsetFetchRequestTopics::default().with_name(name(topic)).with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(Some(vec![topic]));
        let request = OffsetFetchRequest::default().with_groups(vec![group]);
        match self.ask(ApiKey::OffsetFetch, 8, RequestKind::OffsetFetch(request)).await {
            ResponseKind::OffsetFetch(r) => r.groups[0].topics[0].partitions[0].committed_offset,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn init_producer(&mut self, id: Option<&str>, timeout_ms: i32) -> Result<Producer, i16> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(id.map(|id| TransactionalId(text(id))))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        match self.ask(ApiKey::InitProducerId, 4, RequestKind::InitProducerId(request)).await {
            ResponseKind::InitProducerId(r) if r.error_code == 0 => {
                Ok(Producer { id: r.producer_id.0, epoch: r.producer_epoch })
            }
            ResponseKind::InitProducerId(r) => Err(r.error_code),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn add_partitions(
        &mut self,
        id: &str,
        p: Producer,
        topic: &str,
        indexes: &[i32],
    ) -> i16 {
        let topic =
            AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(indexes.to_vec());
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(id)))
            .with_v3_and_below_producer_id(ProducerId(p.id))
            .with_v3_and_below_producer_epoch(p.epoch)
            .with_v3_and_below_topics(vec![topic]);
        match self.ask(ApiKey::AddPartitionsToTxn, 3, RequestKind::AddPartitionsToTxn(request)).await {
            ResponseKind::AddPartitionsToTxn(r) => {
                r.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn end_request(id: &str, p: Producer, commit: bool) -> RequestKind {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(p.id))
            .with_producer_epoch(p.epoch)
            .with_committed(commit);
        RequestKind::EndTxn(request)
    }

    pub(crate) async fn end(&mut self, id: &str, p: Producer, commit: bool) -> i16 {
        match self.ask(ApiKey::EndTxn, 3, Client::end_request(id, p, commit)).await {
            ResponseKind::EndTxn(r) => r.error_code,
            other => panic!("{other:?}"),
        }
    }
}

/// Base offset or error of a produce answer with one partition.
pub(crate) fn produced(response: ResponseKind) -> Result<i64, i16> {
    match response {
        ResponseKind::Produce(r) => {
            let partition = &r.responses[0].partition_responses[0];
            if partition.error_code == 0 { Ok(partition.base_offset) } else { Err(partition.error_code) }
        }
        other => panic!("{other:?}"),
    }
}

/// A request as it goes over the wire.
pub(crate) fn frame(key: ApiKey, version: i16, correlation: i32, request: &RequestKind) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(text("test")))
        .encode(&mut frame, key.request_header_version(version))
        .unwrap();
    request.encode(&mut frame, version).unwrap();
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// What a client delivers of fetched bytes, filtering as clients do; returns the next offset.
fn decode_visible(records: &Bytes, aborted: &[(i64, i64)], from: i64, seen: &mut Vec<(i64, String)>) -> i64 {
    let mut open: Vec<i64> = Vec::new();
    let mut pending = aborted.to_vec();
    let (mut at, mut next) = (0, from);
    while at < records.len() {
        let header = BatchHeader::decode(&records[at..]).unwrap();
        let batch = &records[at..at + header.length];
        assert!(header.intact(batch));
        at += header.length;
        next = header.last_offset() + 1;
        pending.retain(|(id, first)| {
            let begins = *first <= header.last_offset();
            if begins {
                open.push(*id);
            }
            !begins
        });
        if header.control() {
            if crate::batch::marker_commits(&header, batch).unwrap() == Some(false) {
                open.retain(|id| *id != header.producer_id);
            }
            continue;
        }
        if header.transactional() && open.contains(&header.producer_id) {
            continue;
        }
        let mut walk = Records::new(header, batch).unwrap();
        while let Some(record) = walk.next().unwrap() {
            if record.head.offset >= from {
                let key = record.key.map(|k| String::from_utf8_lossy(k).into_owned());
                seen.push((record.head.offset, key.unwrap_or_default()));
            }
        }
    }
    next
}

/// Waits until a condition holds, in small steps; fails loudly when it does not.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
