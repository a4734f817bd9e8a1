//! The bytes below TDS: a socket, its keep-alive, and the encryption that SQL Server hides within its own packets.
//!
//! The driver is built without TLS of its own: its stack would bring a second cryptographic provider. What it would do is done
//! here, before it begins: the PRELOGIN exchange (MS-TDS 2.2.6.5) settles encryption; TLS records of the handshake travel as the payload of
//! PRELOGIN packets, and from then on TDS lies within TLS. The driver, which begins with a PRELOGIN of its own, is answered here: that
//! nothing needs to be encrypted. Its packet never reaches the server.
//!
//! `Off` (only the login is encrypted) is never offered: a connection is encrypted as a whole, or not at all.

use crate::tls::{self, TlsMode};
use caudal_core::fault::Classify;
use caudal_core::{Error, Fault, Result};
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HEADER: usize = 8;
const PRELOGIN: u8 = 0x12;
const REPLY: u8 = 0x04;
const LAST: u8 = 0x01;
/// Most bytes of a server's PRELOGIN.
const LONGEST: usize = 4096;

const ENCRYPT_ON: u8 = 1;
const ENCRYPT_NOT_SUPPORTED: u8 = 2;

/// TCP keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// Silence after which the peer is probed.
    pub(crate) idle: Duration,
    /// Between two probes.
    pub(crate) interval: Duration,
    /// So many probes without an answer are a dead peer.
    pub(crate) probes: u32,
}

/// Reaches a host, by each of its addresses.
///
/// # Errors
/// `Transient`: no name, or nobody answers.
pub(crate) async fn reach(host: &str, port: u16, keepalive: Keepalive) -> Result<TcpStream> {
    let unreachable = |e: io::Error| {
        Error::transient(format!("{host}:{port} cannot be reached: VPN or host down"))
            .hint(format!("from this machine: `nc -vz {host} {port}`; look at the VPN (`wg show`), the host, its firewall, and whether SQL Server listens on TCP"))
            .because(e)
    };
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(unreachable)?;
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        match dial(address, keepalive).await {
            Ok(tcp) => return Ok(tcp),
            Err(e) => last = e,
        }
    }
    Err(unreachable(last))
}

async fn dial(address: SocketAddr, keepalive: Keepalive) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    let probes = TcpKeepalive::new()
        .with_time(keepalive.idle)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.probes);
    SockRef::from(&tcp).set_tcp_keepalive(&probes)?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// What the driver reads and writes.
pub(crate) struct Transport {
    socket: Socket,
    greeting: Greeting,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<Framed>>),
}

/// Where the driver's own PRELOGIN is.
enum Greeting {
    /// So much of it has come.
    Expected(Vec<u8>),
    /// The answer, and how much of it was read.
    Answered(Vec<u8>, usize),
    Over,
}

impl Transport {
    /// Settles encryption.
    ///
    /// # Errors
    /// `Config` if the server and `mode` do not agree or its certificate does not hold; `Transient` if the connection breaks.
    pub(crate) async fn open(
        mut tcp: TcpStream,
        host: &str,
        mode: TlsMode,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self> {
        let broke = "greet the server";
        let offer = if tls.is_some() { ENCRYPT_ON } else { ENCRYPT_NOT_SUPPORTED };
        tcp.write_all(&packet(PRELOGIN, &prelogin(offer))).await.fault(Fault::Transient, broke)?;
        let answer = read_reply(&mut tcp).await?;
        let encrypts = option(&answer, 1).and_then(|value| value.first().copied());
        let socket = match (tls, encrypts) {
            (None, Some(ENCRYPT_NOT_SUPPORTED | 0)) => Socket::Plain(tcp),
            (None, _) => {
                return Err(Error::config("the server insists on encryption")
                    .field("tls.mode")
                    .hint("tls: {mode: required}"));
            }
            (Some(_), None | Some(ENCRYPT_NOT_SUPPORTED | 0)) => {
                return Err(Error::config("the server does not encrypt connections")
                    .field("tls.mode")
                    .hint("enable encryption there; or tls: {mode: disabled} where nobody can listen"));
            }
            (Some(config), Some(_)) => {
                let name = tls::name(mode, host)?;
                let stream = TlsConnector::from(Arc::clone(config)).connect(name, Framed::new(tcp)).await;
                let mut stream = stream.map_err(tls::refused)?;
                stream.get_mut().0.is_framed = false;
                Socket::Tls(Box::new(stream))
            }
        };
        Ok(Self { socket, greeting: Greeting::Expected(Vec::new()) })
    }
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = ((HEADER + body.len()) as u16).to_be_bytes();
    let mut packet = vec![kind, LAST, length[0], length[1], 0, 0, 1, 0];
    packet.extend_from_slice(body);
    packet
}

/// Version, encryption, instance, thread, MARS.
fn prelogin(encryption: u8) -> Vec<u8> {
    let options: [(u8, &[u8]); 5] =
        [(0, &[0, 13, 0, 0, 0, 0]), (1, &[encryption]), (2, &[0]), (3, &[0; 4]), (4, &[0])];
    let (mut head, mut data) = (Vec::new(), Vec::new());
    for (token, value) in options {
        let at = (options.len() * 5 + 1 + data.len()) as u16;
        head.push(token);
        head.extend_from_slice(&at.to_be_bytes());
        head.extend_from_slice(&(value.len() as u16).to_be_bytes());
        data.extend_from_slice(value);
    }
    head.push(0xFF);
    head.extend(data);
    head
}

/// An option of a PRELOGIN message.
fn option(message: &[u8], wanted: u8) -> Option<&[u8]> {
    for entry in message.chunks_exact(5) {
        match entry {
            [0xFF, ..] => return None,
            &[token, a, b, c, d] if token == wanted => {
                let (at, len) =
                    (usize::from(u16::from_be_bytes([a, b])), usize::from(u16::from_be_bytes([c, d])));
                return message.get(at..at + len);
            }
            _ => {}
        }
    }
    None
}

async fn read_reply(tcp: &mut TcpStream) -> Result<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let mut header = [0; HEADER];
        let read = tcp.read_exact(&mut header).await;
        read.map_err(|e| not_tds("the server closed the connection").because(e))?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] != REPLY || length < HEADER || message.len() + length > LONGEST {
            return Err(not_tds("the answer is not SQL Server's"));
        }
        let at = message.len();
        message.resize(at + length - HEADER, 0);
        tcp.read_exact(&mut message[at..]).await.map_err(|e| not_tds("the answer broke off").because(e))?;
        if header[1] & LAST != 0 {
            return Ok(message);
        }
    }
}

fn not_tds(says: &str) -> Error {
    Error::transient(format!("greet the server: {says}"))
        .hint("something listens there: look whether it is SQL Server, at this port, and not a VPN's gateway or a proxy")
}

impl Transport {
    /// Takes the driver's PRELOGIN; gives how many bytes of it were in `bytes`.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let Greeting::Expected(taken) = &mut self.greeting else { return None };
        let mut used = 0;
        while used < bytes.len() {
            let whole =
                if taken.len() < 4 { HEADER } else { usize::from(u16::from_be_bytes([taken[2], taken[3]])) };
            if taken.len() >= 4 && taken.len() >= whole {
                break;
            }
            let more = (whole - taken.len()).min(bytes.len() - used);
            // Byte for byte up to the length, then all at once.
            let more = if taken.len() < 4 { more.min(4 - taken.len()) } else { more };
            taken.extend_from_slice(&bytes[used..used + more]);
            used += more;
        }
        let whole =
            taken.len() >= HEADER && taken.len() >= usize::from(u16::from_be_bytes([taken[2], taken[3]]));
        if whole {
            self.greeting = Greeting::Answered(packet(REPLY, &prelogin(ENCRYPT_NOT_SUPPORTED)), 0);
        }
        Some(used)
    }

    /// Gives what is left of the answer to it.
    fn give(&mut self, into: &mut [u8]) -> Option<usize> {
        let Greeting::Answered(answer, read) = &mut self.greeting else { return None };
        let n = into.len().min(answer.len() - *read);
        into[..n].copy_from_slice(&answer[*read..*read + n]);
        *read += n;
        if *read == answer.len() {
            self.greeting = Greeting::Over;
        }
        Some(n)
    }
}

// The driver knows no tokio: it has the traits of `futures`.
impl futures::io::AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(n) = this.give(into) {
            return Poll::Ready(Ok(n));
        }
        let mut buffer = ReadBuf::new(into);
        let polled = match &mut this.socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_read(cx, &mut buffer),
            Socket::Tls(tls) => Pin::new(tls).poll_read(cx, &mut buffer),
        };
        ready!(polled)?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl futures::io::AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(n) = this.take(bytes) {
            return Poll::Ready(Ok(n));
        }
        match &mut this.socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Socket::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// A socket whose bytes travel within PRELOGIN packets, as long as TLS shakes hands. Then they go as they are.
struct Framed {
    tcp: TcpStream,
    is_framed: bool,
    header: [u8; HEADER],
    /// Bytes of the header that were read.
    head: usize,
    /// Bytes that are left of the packet.
    left: usize,
    out: Vec<u8>,
    /// Bytes of `out` that were written.
    written: usize,
}

impl Framed {
    fn new(tcp: TcpStream) -> Self {
        Self { tcp, is_framed: true, header: [0; HEADER], head: 0, left: 0, out: Vec::new(), written: 0 }
    }

    /// Reads up to a packet's first byte. Whether there is one: else the connection is at its end.
    fn poll_packet(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.left == 0 {
            let mut buffer = ReadBuf::new(&mut self.header[self.head..]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
            let read = buffer.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(false));
            }
            self.head += read;
            if self.head < HEADER {
                continue;
            }
            self.head = 0;
            let length = usize::from(u16::from_be_bytes([self.header[2], self.header[3]]));
            if length < HEADER {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            self.left = length - HEADER;
        }
        Poll::Ready(Ok(true))
    }

    /// Writes what was collected, as one packet.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let n = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.out[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        (self.out, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Framed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_framed {
            return Pin::new(&mut this.tcp).poll_read(cx, into);
        }
        if !ready!(this.poll_packet(cx))? {
            return Poll::Ready(Ok(()));
        }
        let most = this.left.min(into.remaining());
        let mut part = ReadBuf::new(into.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        this.left -= read;
        into.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Framed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.written > 0 || !this.is_framed {
            ready!(this.poll_drain(cx))?;
        }
        if !this.is_framed {
            return Pin::new(&mut this.tcp).poll_write(cx, bytes);
        }
        if this.out.is_empty() {
            this.out.extend_from_slice(&packet(PRELOGIN, &[]));
        }
        this.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.written == 0 && this.out.len() > HEADER {
            let length = (this.out.len() as u16).to_be_bytes();
            this.out[2..4].copy_from_slice(&length);
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
