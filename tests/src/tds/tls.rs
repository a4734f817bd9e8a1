//! TLS as SQL Server has it: the handshake within PRELOGIN packets, the rest as it is.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use anyhow::{Result, ensure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What a server shows.
#[derive(Clone)]
pub struct Certificate(Arc<ServerConfig>);

impl Certificate {
    /// Makes a self-signed one for a name, with `openssl`: `<folder>/cert.pem` and `key.pem`.
    ///
    /// # Errors
    /// When `openssl` is missing or the folder cannot be written.
    pub fn make(folder: &Path, name: &str) -> Result<Self> {
        let script = format!(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=DNS:{name} -keyout key.pem -out cert.pem 2>/dev/null"
        );
        let made = Command::new("sh").args(["-c", &script]).current_dir(folder).status()?;
        ensure!(made.success(), "openssl makes no certificate");
        let chain =
            CertificateDer::pem_file_iter(folder.join("cert.pem"))?.collect::<std::result::Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(folder.join("key.pem"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self(Arc::new(config)))
    }
}

/// Shakes hands.
pub(super) async fn accept(tcp: TcpStream, certificate: &Certificate) -> io::Result<TlsStream<Framed>> {
    let mut stream = TlsAcceptor::from(Arc::clone(&certificate.0)).accept(Framed::new(tcp)).await?;
    stream.get_mut().0.is_framed = false;
    Ok(stream)
}

pub(super) struct Framed {
    tcp: TcpStream,
    is_framed: bool,
    header: Vec<u8>,
    left: usize,
    out: Vec<u8>,
}

impl Framed {
    fn new(tcp: TcpStream) -> Self {
        Self { tcp, is_framed: true, header: Vec::new(), left: 0, out: Vec::new() }
    }

    /// Whether there is a packet to read from.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.left == 0 {
            let mut bytes = [0; 8];
            let mut buffer = ReadBuf::new(&mut bytes[self.header.len()..]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.header.extend(buffer.filled());
            if let [_, _, a, b, _, _, _, _] = self.header[..] {
                self.left = usize::from(u16::from_be_bytes([a, b])).saturating_sub(8);
                self.header.clear();
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for Framed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_framed {
            return Pin::new(&mut this.tcp).poll_read(cx, into);
        }
        if !ready!(this.poll_header(cx))? {
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
        if !this.is_framed {
            return Pin::new(&mut this.tcp).poll_write(cx, bytes);
        }
        this.out.extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.out.is_empty() {
            let flight = std::mem::take(&mut this.out);
            let mut packet = vec![0x12, 1];
            packet.extend((flight.len() as u16 + 8).to_be_bytes());
            packet.extend([0; 4]);
            packet.extend(flight);
            match Pin::new(&mut this.tcp).poll_write(cx, &packet) {
                Poll::Ready(Ok(n)) if n == packet.len() => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                // A flight of a few kilobytes fits into an empty socket's buffer.
                _ => return Poll::Ready(Err(io::Error::other("a flight of the handshake does not fit"))),
            }
        }
        Pin::new(&mut this.tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
