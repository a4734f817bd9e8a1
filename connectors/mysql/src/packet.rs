//! The packets of the client/server protocol: framing, and the two answers that every command may get.
//!
//! A packet is a length of 3 bytes, a sequence number and the payload; a payload of 16 MiB - 1 goes on in the next packet.
//! (MySQL internals manual, "Protocol Basics".)
//!
//! In a dump of the binlog each payload says twice how long it is: the packets' lengths and the event's own. They are compared as soon
//! as both are there: a damaged length would else be waited for, for as long as heartbeats come.
//!
//! Memory: one payload of at most `max_payload` bytes, and a read buffer of 512 KiB: packets larger than half of that are moved out of
//! it as they come, into a buffer of the payload's length that its reader gets. A compressed transaction is as long as its
//! transaction is: it goes to a file as it comes ([`Spooled`]).

use crate::spooled::{self, Spooled};
use crate::tls::Transport;
use bytes::{Buf, Bytes, BytesMut};
use caudal_core::fault::Classify;
use caudal_core::{Error, Fault, Result};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

const HEADER: usize = 4;
const FULL: usize = 0xff_ff_ff;
const READ_BYTES: usize = 256 * 1024;

/// Sends and receives payloads.
pub(crate) struct Wire {
    transport: Transport,
    incoming: BytesMut,
    /// What has come of a payload that is longer than the read buffer.
    parts: BytesMut,
    /// The packet that is being moved there.
    moving: Option<Moving>,
    /// Whether the payload goes on in the next packet.
    in_parts: bool,
    sequence: u8,
    max_payload: usize,
    /// Set while a dump runs.
    dump: Option<Dump>,
    /// The longest silence that is taken for life.
    pub(crate) patience: Duration,
    /// When something came last, or was asked for.
    heard: Instant,
}

/// A packet that is moved out of the read buffer as it comes.
struct Moving {
    /// Bytes that have not come yet.
    left: usize,
    /// Whether another packet follows it.
    full: bool,
}

/// What is known of a running dump.
struct Dump {
    /// Where compressed transactions are kept.
    spool_dir: PathBuf,
    /// Bytes of the payload whose first packet was seen; 0 between payloads.
    total: usize,
    /// A payload that goes to a file.
    spooling: Option<spooled::Writer>,
    /// What is left of its packet.
    packet_left: usize,
    done: Option<Spooled>,
}

/// A payload of a dump.
pub(crate) enum Incoming {
    /// In memory.
    Memory(Bytes),
    /// An event that was written to a file.
    File(Spooled),
}

/// A marker byte, then an event's header up to its length.
const EVENT_START: usize = 1 + 13;
/// No more than this is reserved for what an event says of its length.
const MOST_RESERVED: usize = 128 << 20;
/// Longest payload of a dump that is no event.
const MOST_ERROR: usize = 4096;

impl Wire {
    /// Payloads longer than `max_payload` are refused before they are collected.
    pub(crate) fn new(transport: Transport, max_payload: usize, patience: Duration) -> Self {
        Self {
            transport,
            incoming: BytesMut::new(),
            parts: BytesMut::new(),
            moving: None,
            in_parts: false,
            sequence: 0,
            max_payload,
            dump: None,
            patience,
            heard: Instant::now(),
        }
    }

    /// From here on the payloads are events. Large compressed transactions go to files without names in `spool_dir`.
    pub(crate) fn start_dump(&mut self, spool_dir: PathBuf) {
        self.dump = Some(Dump { spool_dir, total: 0, spooling: None, packet_left: 0, done: None });
    }

    /// Swaps the transport below (plain to TLS). What was read ahead in plain text is refused: it would be taken for encrypted.
    pub(crate) async fn encrypt(
        mut self,
        f: impl AsyncFnOnce(Transport) -> Result<Transport>,
    ) -> Result<Self> {
        if !self.incoming.is_empty() {
            return Err(Error::data("the server sent bytes between its greeting and TLS"));
        }
        self.transport = f(self.transport).await?;
        Ok(self)
    }

    /// Whether the transport is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.transport.is_encrypted()
    }

    /// Starts a new command: sequence numbers begin again.
    pub(crate) fn restart(&mut self) {
        self.sequence = 0;
    }

    /// Sends one payload. Not cancel-safe: a connection on which a send was dropped is of no use.
    pub(crate) async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut packet = Vec::with_capacity(HEADER + payload.len());
        let mut rest = payload;
        loop {
            let (part, behind) = rest.split_at(rest.len().min(FULL));
            packet.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
            packet.push(self.sequence);
            packet.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            rest = behind;
            // A full packet says that another one follows, be it an empty one.
            if part.len() < FULL {
                break;
            }
        }
        let write = async {
            self.transport.write_all(&packet).await?;
            self.transport.flush().await
        };
        let written = tokio::time::timeout(self.patience, write).await;
        self.heard = Instant::now();
        match written {
            Ok(done) => done.fault(Fault::Transient, "write to the server"),
            Err(_) => Err(Error::transient("write to the server: it takes nothing")),
        }
    }

    /// The next payload. Cancel-safe.
    pub(crate) async fn receive(&mut self) -> Result<Bytes> {
        loop {
            if let Some(payload) = self.take()? {
                return Ok(payload);
            }
            self.fill().await?;
        }
    }

    /// The next payload of a dump. Cancel-safe.
    pub(crate) async fn receive_event(&mut self) -> Result<Incoming> {
        loop {
            if let Some(payload) = self.take()? {
                return Ok(Incoming::Memory(payload));
            }
            if let Some(event) = self.dump.as_mut().and_then(|d| d.done.take()) {
                return Ok(Incoming::File(event));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<()> {
        if self.incoming.capacity() - self.incoming.len() < READ_BYTES / 16 {
            self.incoming.reserve(READ_BYTES);
        }
        let read = self.transport.read_buf(&mut self.incoming);
        // Since then, not since this was called: who waits for something else besides calls it again and again.
        let result = tokio::time::timeout_at(self.heard + self.patience, read).await;
        if matches!(result, Ok(Ok(1..))) {
            self.heard = Instant::now();
        }
        match result {
            Err(_) => Err(Error::transient(format!("the server was silent for {:?}", self.patience))
                .hint("look at the network between here and the server, and at the server's load")),
            Ok(Err(e)) => Err(Error::transient("read from the server").because(e)),
            Ok(Ok(0)) => Err(Error::transient("the server closed the connection")),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// A whole payload out of what was read, if there is one.
    fn take(&mut self) -> Result<Option<Bytes>> {
        loop {
            self.spool()?;
            if self.dump.as_ref().is_some_and(|d| d.packet_left > 0 || d.done.is_some()) {
                return Ok(None);
            }
            if self.moving.is_some() {
                match self.move_packet() {
                    Moved::Payload(payload) => return Ok(Some(payload)),
                    Moved::Packet => {}
                    Moved::Part => return Ok(None),
                }
            }
            if self.incoming.len() < HEADER {
                return Ok(None);
            }
            let length = usize::from(self.incoming[0])
                | usize::from(self.incoming[1]) << 8
                | usize::from(self.incoming[2]) << 16;
            if self.dump.is_none() && self.parts.len() + length > self.max_payload {
                return Err(self.too_long(self.parts.len() + length));
            }
            match self.expect(length)? {
                Expected::Unknown => return Ok(None),
                Expected::Collect => {}
                Expected::Spool => {
                    self.check_sequence()?;
                    self.incoming.advance(HEADER);
                    self.end_spool()?;
                    continue;
                }
            }
            if length > READ_BYTES || self.in_parts {
                self.check_sequence()?;
                self.begin_to_move(length);
                continue;
            }
            if self.incoming.len() < HEADER + length {
                self.incoming.reserve(HEADER + length - self.incoming.len());
                return Ok(None);
            }
            self.check_sequence()?;
            let mut part = self.incoming.split_to(HEADER + length);
            part.advance(HEADER);
            self.end_payload();
            return Ok(Some(part.freeze()));
        }
    }

    /// From here on the packet's bytes go to the payload's own buffer.
    fn begin_to_move(&mut self, length: usize) {
        self.incoming.advance(HEADER);
        let total = self.dump.as_ref().map_or(0, |d| d.total).min(MOST_RESERVED);
        self.parts.reserve(total.saturating_sub(self.parts.len()).max(length));
        self.moving = Some(Moving { left: length, full: length == FULL });
    }

    fn move_packet(&mut self) -> Moved {
        let Some(Moving { left, full }) = &mut self.moving else { return Moved::Packet };
        let part = self.incoming.split_to(self.incoming.len().min(*left));
        *left -= part.len();
        self.parts.extend_from_slice(&part);
        if *left > 0 {
            return Moved::Part;
        }
        self.in_parts = *full;
        self.moving = None;
        if self.in_parts {
            return Moved::Packet;
        }
        self.end_payload();
        Moved::Payload(std::mem::take(&mut self.parts).freeze())
    }

    fn check_sequence(&mut self) -> Result<()> {
        if self.incoming[3] != self.sequence {
            return Err(Error::transient("packets from the server are out of order"));
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }

    fn end_payload(&mut self) {
        if let Some(dump) = &mut self.dump {
            dump.total = 0;
        }
    }

    /// In a dump: whether a packet of this length may come now, and what is done with it.
    fn expect(&mut self, length: usize) -> Result<Expected> {
        let Some(dump) = &mut self.dump else { return Ok(Expected::Collect) };
        let start = &self.incoming[HEADER..];
        if let Some(spooling) = &dump.spooling {
            same_length(length, dump.total - spooling.written())?;
            dump.packet_left = length;
            return Ok(Expected::Spool);
        }
        if dump.total > 0 {
            same_length(length, dump.total - self.parts.len())?;
            return Ok(Expected::Collect);
        }
        match start.first() {
            None if length == 0 => return Err(Error::transient("a packet of the dump is empty")),
            None => return Ok(Expected::Unknown),
            Some(0) => {}
            Some(_) if length > MOST_ERROR => {
                return Err(Error::transient("the server's packet is no event"));
            }
            Some(_) => return Ok(Expected::Collect),
        }
        if length < EVENT_START {
            return Err(Error::transient("an event is shorter than its header"));
        }
        let Some(&[a, b, c, d]) = start.get(EVENT_START - 4..EVENT_START) else {
            return Ok(Expected::Unknown);
        };
        let total = u32::from_le_bytes([a, b, c, d]) as usize + 1;
        same_length(length, total)?;
        if total > self.max_payload {
            return Err(self.too_long(total));
        }
        dump.total = total;
        if !spooled::is_for_file(start[5], total) {
            return Ok(Expected::Collect);
        }
        dump.spooling = Some(spooled::Writer::create(&dump.spool_dir, total)?);
        dump.packet_left = length;
        Ok(Expected::Spool)
    }

    /// Moves what was read of a spooled packet to its file.
    fn spool(&mut self) -> Result<()> {
        let Some(Dump { spooling: Some(writer), packet_left, .. }) = &mut self.dump else { return Ok(()) };
        if *packet_left == 0 {
            return Ok(());
        }
        let part = self.incoming.split_to(self.incoming.len().min(*packet_left));
        *packet_left -= part.len();
        writer.write(&part)?;
        if self.incoming.capacity() > 4 * READ_BYTES && self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        }
        let full = self.dump.as_ref().is_some_and(|d| d.total % FULL == 0);
        // One whose last packet is full has an empty packet behind it.
        if full { Ok(()) } else { self.end_spool() }
    }

    /// Ends a spooled payload whose last packet is through.
    fn end_spool(&mut self) -> Result<()> {
        let Some(dump) = &mut self.dump else { return Ok(()) };
        if dump.packet_left == 0 && dump.spooling.as_ref().is_some_and(|w| w.written() == dump.total) {
            dump.done = dump.spooling.take().map(spooled::Writer::finish).transpose()?;
            dump.total = 0;
        }
        Ok(())
    }

    fn too_long(&self, length: usize) -> Error {
        Error::data(format!("an event of at least {length} bytes is over the limit of {}", self.max_payload))
            .hint("raise the limit for events, or split the row")
    }
}

/// How far a packet has come that is moved out of the read buffer.
enum Moved {
    /// Not to its end.
    Part,
    /// To its end, and the payload goes on in the next one.
    Packet,
    /// To its end, which is that of the payload.
    Payload(Bytes),
}

/// What is done with a packet.
enum Expected {
    /// It is not known yet: too little of it has come.
    Unknown,
    Collect,
    Spool,
}

/// Whether a packet's length is that of a payload of which `left` bytes are to come.
fn same_length(length: usize, left: usize) -> Result<()> {
    if length == left.min(FULL) {
        return Ok(());
    }
    Err(Error::transient("an event's length is not that of its packets: the stream is damaged"))
}

/// A cursor over a payload for the few structures of the connection phase.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Bytes behind their length of one byte.
    pub(crate) fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// Up to a zero byte, which is passed over.
    pub(crate) fn zero_ended(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == 0)?;
        let text = self.take(end)?;
        self.take(1)?;
        Some(text)
    }

    /// A length-encoded integer; `None` also for the markers of NULL and error.
    pub(crate) fn length_encoded(&mut self) -> Option<u64> {
        let width = match self.take(1)?[0] {
            0xfb | 0xff => return None,
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            small => return Some(u64::from(small)),
        };
        let mut value = [0u8; 8];
        value[..width].copy_from_slice(self.take(width)?);
        Some(u64::from_le_bytes(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    async fn pair(max: usize) -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (theirs, _) = listener.accept().await.unwrap();
        (Wire::new(Transport::Plain(ours), max, Duration::from_secs(5)), theirs)
    }

    fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        let mut p = (payload.len() as u32).to_le_bytes()[..3].to_vec();
        p.push(sequence);
        p.extend_from_slice(payload);
        p
    }

    #[tokio::test]
    async fn payloads_of_several_packets_are_joined() {
        let (mut wire, mut server) = pair(64 << 20).await;
        let full = vec![7u8; FULL];
        let sender = tokio::spawn(async move {
            // Exactly full: an empty packet ends it. Then one that ends with a few bytes more.
            for p in [packet(0, &full), packet(1, &[]), packet(2, &full), packet(3, b"end"), packet(4, b"x")]
            {
                server.write_all(&p).await.unwrap();
            }
            server
        });
        assert_eq!(wire.receive().await.unwrap().len(), FULL);
        let long = wire.receive().await.unwrap();
        assert_eq!((long.len(), &long[FULL..]), (FULL + 3, &b"end"[..]));
        assert_eq!(&wire.receive().await.unwrap()[..], b"x");
        drop(sender.await.unwrap());
        let closed = wire.receive().await.unwrap_err();
        assert_eq!(closed.fault(), Fault::Transient);
    }

    #[tokio::test]
    async fn a_payload_of_any_length_leaves_the_read_buffer_small_and_takes_no_more_than_its_own_bytes() {
        let (mut wire, mut server) = pair(64 << 20).await;
        wire.start_dump(std::env::temp_dir());
        let payloads: Vec<Vec<u8>> = [READ_BYTES * 3, FULL + (5 << 20), 100, 2 * FULL - 1, READ_BYTES + 1]
            .map(|size| dumped(30, size))
            .to_vec();
        let sent = payloads.clone();
        let sender = tokio::spawn(async move {
            let mut sequence = 0;
            for payload in &sent {
                server.write_all(&packets(payload, &mut sequence)).await.unwrap();
            }
            server
        });
        for payload in &payloads {
            let Incoming::Memory(bytes) = wire.receive_event().await.unwrap() else { panic!("no file") };
            assert!(bytes == payload);
            assert!(
                wire.incoming.capacity() <= 2 * READ_BYTES,
                "{} bytes are held",
                wire.incoming.capacity()
            );
            let capacity = bytes.try_into_mut().map_or(0, |own| own.capacity());
            assert!(payload.len() <= READ_BYTES || capacity <= payload.len() + 64, "{capacity} bytes");
        }
        drop(sender.await.unwrap());
    }

    /// A payload of a dump: a marker, an event of this type and size, its checksum.
    fn dumped(code: u8, size: usize) -> Vec<u8> {
        let mut event = vec![0; 9 + 10];
        event[4] = code;
        event[9..13].copy_from_slice(&(size as u32).to_le_bytes());
        event.extend((0..size - 19 - 4).map(|i| (i * 7) as u8));
        let sum = crc32fast::hash(&event);
        event.extend_from_slice(&sum.to_le_bytes());
        [vec![0], event].concat()
    }

    /// The payload in its packets.
    fn packets(payload: &[u8], sequence: &mut u8) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = payload;
        loop {
            let part = &rest[..rest.len().min(FULL)];
            out.extend(packet(*sequence, part));
            *sequence = sequence.wrapping_add(1);
            rest = &rest[part.len()..];
            if part.len() < FULL {
                return out;
            }
        }
    }

    #[tokio::test]
    async fn a_large_compressed_transaction_goes_to_a_file_byte_by_byte_as_it_was_sent() {
        use std::io::Read;
        let (mut wire, mut server) = pair(128 << 20).await;
        wire.start_dump(std::env::temp_dir());
        // Of one packet, of several, and of just full ones; one event of another kind between them stays in memory.
        let sizes = [2 << 20, FULL - 1, 2 * FULL - 1, FULL + 5];
        let payloads: Vec<Vec<u8>> =
            sizes.iter().flat_map(|size| [dumped(40, *size), dumped(30, 2 << 20)]).collect();
        let sent = payloads.clone();
        let sender = tokio::spawn(async move {
            let mut sequence = 0;
            for payload in &sent {
                server.write_all(&packets(payload, &mut sequence)).await.unwrap();
            }
            server
        });
        for payload in &payloads {
            match wire.receive_event().await.unwrap() {
                Incoming::Memory(bytes) => assert!(payload[5] == 30 && bytes == payload),
                Incoming::File(mut event) => {
                    let mut written = Vec::new();
                    event.file.read_to_end(&mut written).unwrap();
                    assert!(payload[5] == 40 && written == payload[1..] && event.fits);
                    assert_eq!((event.size, &event.head[..]), (payload.len() - 1, &payload[1..20]));
                }
            }
            assert!(wire.incoming.capacity() < 4 << 20, "{} bytes are held", wire.incoming.capacity());
        }
        drop(sender.await.unwrap());
    }

    #[tokio::test]
    async fn a_damaged_length_is_an_error_at_once_and_not_waited_for() {
        let event = dumped(30, 500);
        let mut sequence = 0;
        let whole = packets(&event, &mut sequence);
        // Each bit of the packet's length, and of the event's.
        for bit in (0..24).chain((4 + 1 + 9) * 8..(4 + 1 + 13) * 8) {
            let (mut wire, mut server) = pair(64 << 20).await;
            wire.start_dump(std::env::temp_dir());
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            server.write_all(&bad).await.unwrap();
            let error = match wire.receive_event().await {
                Err(error) => error,
                Ok(_) => panic!("bit {bit} is believed"),
            };
            assert_eq!(error.fault(), Fault::Transient, "bit {bit}");
            assert!(!error.to_string().contains("silent"), "bit {bit} is waited for: {error}");
        }
    }

    #[tokio::test]
    async fn a_payload_over_the_limit_is_refused_by_its_length_alone() {
        let (mut wire, mut server) = pair(1000).await;
        server.write_all(&packet(0, &[0; 1001])[..HEADER]).await.unwrap();
        assert_eq!(wire.receive().await.unwrap_err().fault(), Fault::Data);
    }

    #[tokio::test]
    async fn silence_is_an_error_however_often_it_is_waited_for() {
        let (mut wire, _server) = pair(1000).await;
        wire.patience = Duration::from_millis(300);
        for turn in 0.. {
            assert!(turn < 20, "each call has begun anew");
            tokio::select! {
                received = wire.receive() => {
                    assert!(received.unwrap_err().to_string().contains("silent"));
                    return;
                }
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    }

    #[tokio::test]
    async fn silence_is_an_error_after_the_patience() {
        let (mut wire, _server) = pair(1000).await;
        wire.patience = Duration::from_millis(20);
        assert_eq!(wire.receive().await.unwrap_err().fault(), Fault::Transient);
    }

    #[tokio::test]
    async fn a_dropped_receive_loses_nothing() {
        let (mut wire, mut server) = pair(1000).await;
        server.write_all(&packet(0, b"hello")[..6]).await.unwrap();
        let cut = tokio::time::timeout(Duration::from_millis(30), wire.receive()).await;
        assert!(cut.is_err());
        server.write_all(&packet(0, b"hello")[6..]).await.unwrap();
        assert_eq!(&wire.receive().await.unwrap()[..], b"hello");
    }
}
