//! What the client costs: the same records as in the floor of `floors.rs`, in transactions of the same size, in record batches that are built
//! here straight from memory (format 2), compressed by the same library and sent on one connection. No queue, no thread and no object for a
//! record stands between; nothing is retried either, so this measures, and is no producer.
//!
//! Memory: [`IN_FLIGHT`] batches of [`BATCH`] bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use caudal_tests::process;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey, EndTxnRequest, EndTxnResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse,
    ProduceRequest, ProduceResponse, ProducerId, RequestHeader, ResponseHeader, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::watch::Volume;

/// A batch is closed at so many bytes before compression: what librdkafka takes for one.
const BATCH: usize = 1_000_000;
/// Requests that may be under way, the most that keeps an idempotent producer's order.
const IN_FLIGHT: usize = 5;
/// What may pass by itself: a coordinator that loads, or the markers of the last transaction.
const PASSING: [i16; 4] = [14, 15, 16, 51];
const PATIENCE: Duration = Duration::from_secs(30);
const LZ4_IN_A_TRANSACTION: i16 = 3 | 0x10;
/// Where a batch's checksum begins to count, and where its records begin.
const COVERED: usize = 21;
const RECORDS: usize = 61;

/// Produces `events` records of the sample into `topic`, `per_transaction` at a time.
pub(crate) fn produce(
    broker: &str,
    topic: &str,
    sample: &[(Option<Vec<u8>>, Vec<u8>)],
    (events, per_transaction): (u64, u64),
) -> Result<Volume> {
    let mut producer = Producer::open(broker, topic)?;
    let mine = std::process::id();
    let (start, before) = (Instant::now(), process::usage(mine)?.cpu_seconds);
    let mut records = sample.iter().cycle();
    let mut sent = 0;
    while sent < events {
        producer.begin()?;
        for (key, value) in records.by_ref().take(per_transaction as usize) {
            producer.add(key.as_deref(), value)?;
        }
        producer.commit()?;
        sent += per_transaction;
    }
    let cpu = process::usage(mine)?.cpu_seconds - before;
    let rate = sent as f64 / start.elapsed().as_secs_f64();
    Ok(Volume { rate, cpu: cpu / sent as f64 * 1e6, ..Volume::default() })
}

struct Producer {
    wire: Wire,
    topic: TopicName,
    id: TransactionalId,
    producer: (i64, i16),
    sequence: i32,
    batch: Batch,
    /// Produce requests whose answers are still to come.
    under_way: usize,
}

impl Producer {
    fn open(broker: &str, topic: &str) -> Result<Self> {
        let id = TransactionalId(StrBytes::from_string(format!("{topic}-batches")));
        let mut wire = Wire::connect(broker)?;
        let ask = FindCoordinatorRequest::default().with_key(id.0.clone()).with_key_type(1);
        passing(|| {
            let found: FindCoordinatorResponse = wire.call(ApiKey::FindCoordinator, 2, &ask)?;
            Ok((found.error_code, ()))
        })?;
        let ask = InitProducerIdRequest::default()
            .with_transactional_id(Some(id.clone()))
            .with_transaction_timeout_ms(60_000);
        let producer = passing(|| {
            let made: InitProducerIdResponse = wire.call(ApiKey::InitProducerId, 1, &ask)?;
            Ok((made.error_code, (made.producer_id.0, made.producer_epoch)))
        })?;
        let topic = TopicName(StrBytes::from_string(topic.to_owned()));
        Ok(Self { wire, topic, id, producer, sequence: 0, batch: Batch::default(), under_way: 0 })
    }

    fn begin(&mut self) -> Result<()> {
        let topic = AddPartitionsToTxnTopic::default().with_name(self.topic.clone()).with_partitions(vec![0]);
        let ask = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.id.clone())
            .with_v3_and_below_producer_id(ProducerId(self.producer.0))
            .with_v3_and_below_producer_epoch(self.producer.1)
            .with_v3_and_below_topics(vec![topic]);
        let wire = &mut self.wire;
        passing(|| {
            let added: AddPartitionsToTxnResponse = wire.call(ApiKey::AddPartitionsToTxn, 1, &ask)?;
            let topic = added.results_by_topic_v3_and_below.first().context("no answer for the topic")?;
            let one = topic.results_by_partition.first().context("no answer for the partition")?;
            Ok((one.partition_error_code, ()))
        })
    }

    fn add(&mut self, key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        self.batch.add(key, value);
        if self.batch.records.len() >= BATCH { self.send() } else { Ok(()) }
    }

    /// Sends the batch; waits for an answer when enough are under way.
    fn send(&mut self) -> Result<()> {
        if self.batch.count == 0 {
            return Ok(());
        }
        let count = self.batch.count;
        let batch = self.batch.close(self.producer, self.sequence)?;
        self.sequence = self.sequence.wrapping_add(count) & i32::MAX;
        let partition = PartitionProduceData::default().with_index(0).with_records(Some(batch));
        let topic =
            TopicProduceData::default().with_name(self.topic.clone()).with_partition_data(vec![partition]);
        let ask = ProduceRequest::default()
            .with_transactional_id(Some(self.id.clone()))
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        self.wire.send(ApiKey::Produce, 7, &ask)?;
        self.under_way += 1;
        while self.under_way >= IN_FLIGHT {
            self.answer()?;
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<()> {
        let answer: ProduceResponse = self.wire.receive(ApiKey::Produce, 7)?;
        let partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        for partition in partitions {
            ensure!(partition.error_code == 0, "produce: error {}", partition.error_code);
        }
        self.under_way -= 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.send()?;
        while self.under_way > 0 {
            self.answer()?;
        }
        let ask = EndTxnRequest::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_committed(true);
        let wire = &mut self.wire;
        passing(|| {
            let ended: EndTxnResponse = wire.call(ApiKey::EndTxn, 1, &ask)?;
            Ok((ended.error_code, ()))
        })
    }
}

/// Asks until the answer is no error that passes.
fn passing<T>(mut ask: impl FnMut() -> Result<(i16, T)>) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask()? {
            (0, answer) => return Ok(answer),
            (code, _) if PASSING.contains(&code) && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_micros(500));
            }
            (code, _) => bail!("the broker answers with error {code}"),
        }
    }
}

/// Records as they lie in a batch, before compression.
#[derive(Default)]
struct Batch {
    records: Vec<u8>,
    count: i32,
    begun_ms: i64,
}

impl Batch {
    fn add(&mut self, key: Option<&[u8]>, value: &[u8]) {
        if self.count == 0 {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            self.begun_ms = now.as_millis() as i64;
        }
        let offset = zigzag(i64::from(self.count));
        let key_length = zigzag(key.map_or(-1, |key| key.len() as i64));
        let value_length = zigzag(value.len() as i64);
        // Attributes, the time since the batch's, and the number of headers: a byte each.
        let body = 3
            + width(offset)
            + width(key_length)
            + key.map_or(0, <[u8]>::len)
            + width(value_length)
            + value.len();
        let out = &mut self.records;
        varint(out, zigzag(body as i64));
        out.extend_from_slice(&[0, 0]);
        varint(out, offset);
        varint(out, key_length);
        out.extend_from_slice(key.unwrap_or_default());
        varint(out, value_length);
        out.extend_from_slice(value);
        out.push(0);
        self.count += 1;
    }

    /// The batch as it is sent; what comes next is another.
    fn close(&mut self, (producer, epoch): (i64, i16), sequence: i32) -> Result<Bytes> {
        let mut batch = Vec::with_capacity(RECORDS + self.records.len() / 2);
        batch.put_i64(0);
        batch.put_i32(0); // the length, below
        batch.put_i32(-1);
        batch.put_i8(2);
        batch.put_u32(0); // the checksum, below
        batch.put_i16(LZ4_IN_A_TRANSACTION);
        batch.put_i32(self.count - 1);
        batch.put_i64(self.begun_ms);
        batch.put_i64(self.begun_ms);
        batch.put_i64(producer);
        batch.put_i16(epoch);
        batch.put_i32(sequence);
        batch.put_i32(self.count);
        // Brokers take no blocks that need the one before.
        let mut encoder =
            lz4::EncoderBuilder::new().level(1).block_mode(lz4::BlockMode::Independent).build(batch)?;
        encoder.write_all(&self.records)?;
        let (mut batch, ended) = encoder.finish();
        ended?;
        let length = batch.len() as u32 - 12;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let sum = crc32c::crc32c(&batch[COVERED..]);
        batch[17..COVERED].copy_from_slice(&sum.to_be_bytes());
        self.records.clear();
        self.count = 0;
        Ok(Bytes::from(batch))
    }
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

fn width(n: u64) -> usize {
    (64 - (n | 1).leading_zeros() as usize).div_ceil(7)
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// One connection.
struct Wire {
    stream: TcpStream,
    sent: i32,
    out: BytesMut,
}

impl Wire {
    fn connect(broker: &str) -> Result<Self> {
        let stream = TcpStream::connect(broker)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, sent: 0, out: BytesMut::new() })
    }

    fn call<A: Decodable>(&mut self, api: ApiKey, version: i16, ask: &impl Encodable) -> Result<A> {
        self.send(api, version, ask)?;
        self.receive(api, version)
    }

    fn send(&mut self, api: ApiKey, version: i16, ask: &impl Encodable) -> Result<()> {
        self.sent += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(StrBytes::from_static_str("bench-batches")));
        self.out.clear();
        self.out.put_u32(0);
        header.encode(&mut self.out, api.request_header_version(version))?;
        ask.encode(&mut self.out, version)?;
        let length = self.out.len() as u32 - 4;
        self.out[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&self.out)?;
        Ok(())
    }

    fn receive<A: Decodable>(&mut self, api: ApiKey, version: i16) -> Result<A> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer)?;
        let mut answer = Bytes::from(answer);
        ResponseHeader::decode(&mut answer, api.response_header_version(version))?;
        A::decode(&mut answer, version)
    }
}
