//! TLS to the server: how much of its certificate is checked, and our own.

mod verify;

use caudal_core::fault::Classify;
use caudal_core::{Error, Fault, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Not at all.
    #[default]
    Disabled,
    /// Encrypted where the server can; the certificate is not checked.
    Preferred,
    /// Encrypted; the certificate is not checked.
    Required,
    /// The certificate's chain is checked, its name is not (servers' self-made certificates name no host).
    VerifyCa,
    /// Chain and name are checked.
    VerifyIdentity,
}

/// TLS settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// How much is checked.
    pub mode: TlsMode,
    /// PEM file of the authorities to trust (or the server's own certificate); without it the web's.
    pub ca: Option<PathBuf>,
    /// PEM files of our own certificate (with its chain) and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl TlsOptions {
    /// Encrypts a connection to `host`.
    pub(crate) async fn encrypt(&self, host: &str, plain: Transport) -> Result<Transport> {
        let Transport::Plain(tcp) = plain else {
            return Err(Error::bug("encrypt a connection twice"));
        };
        let config = self.client_config()?;
        let stream = TlsConnector::from(Arc::new(config)).connect(self.server_name(host)?, tcp).await;
        let stream = stream.map_err(handshake_failed)?;
        Ok(Transport::Tls(Box::new(stream)))
    }

    /// A name is needed even where it is not checked; an address that is nobody's stands in for what is no name.
    fn server_name(&self, host: &str) -> Result<ServerName<'static>> {
        match ServerName::try_from(host.to_owned()) {
            Ok(name) => Ok(name),
            Err(_) if self.mode != TlsMode::VerifyIdentity => {
                Ok(ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])))
            }
            Err(e) => {
                Err(Error::config(format!("the server's certificate cannot be checked against {host:?}"))
                    .because(e))
            }
        }
    }

    fn client_config(&self) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = verify::Verifier::new(self.mode, self.roots()?, Arc::clone(&provider))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .fault(Fault::Bug, "set up TLS")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let Some((certificate, key)) = &self.client else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(certificate, "tls.client_cert")?;
        let key_der =
            PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, "tls.client_key").because(e))?;
        builder.with_client_auth_cert(chain, key_der).map_err(|e| {
            Error::config("the client certificate and its key do not fit").field("tls.client_key").because(e)
        })
    }

    /// The authorities, and the same certificates as they are: a server may show one of them itself.
    fn roots(&self) -> Result<(RootCertStore, Vec<CertificateDer<'static>>)> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca else {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            return Ok((roots, Vec::new()));
        };
        let pinned = certificates(path, "tls.ca")?;
        for certificate in &pinned {
            roots.add(certificate.clone()).map_err(|e| unreadable(path, "tls.ca").because(e))?;
        }
        Ok((roots, pinned))
    }
}

fn certificates(path: &Path, field: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| unreadable(path, field).because(e))?;
    if all.is_empty() {
        return Err(unreadable(path, field).because("no certificate in it"));
    }
    Ok(all)
}

fn unreadable(path: &Path, field: &str) -> Error {
    Error::config(format!("read {}", path.display()))
        .field(field)
        .hint("give a PEM file that this user can read")
}

fn handshake_failed(e: std::io::Error) -> Error {
    use rustls::Error as Tls;
    let hint = match e.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) {
        Some(Tls::InvalidCertificate(_)) => {
            "give the server's authority as tls.ca; a certificate without the host's name needs verify-ca"
        }
        Some(Tls::AlertReceived(_) | Tls::PeerIncompatible(_)) => {
            "the server must speak TLS 1.2 with forward secrecy or TLS 1.3, and may ask for a client certificate"
        }
        Some(Tls::General(_)) | None => return Error::transient("TLS handshake with the server").because(e),
        Some(_) => "look at the server's TLS settings",
    };
    Error::config("TLS handshake with the server").hint(hint).because(e)
}

/// Plain or encrypted bytes.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Whether the bytes are encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Tls(s) => Pin::new(s).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
