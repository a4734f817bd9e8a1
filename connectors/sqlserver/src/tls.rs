//! TLS to the server: how much of its certificate is checked, and the settings for it.

use caudal_core::fault::Classify;
use caudal_core::{Error, Fault, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How the connection is encrypted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// What is asked of the server.
    pub mode: TlsMode,
    /// PEM file of the authorities to trust, or of the server's own certificate. Needed for `verify-ca`; with `verify-identity` the
    /// web's authorities are used when left out.
    pub ca: Option<PathBuf>,
}

/// What is asked of the server's encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Not encrypted; a server that insists on it is refused.
    Disabled,
    /// Encrypted; the certificate is not checked. Every SQL Server can: one without a certificate makes its own.
    #[default]
    Required,
    /// Encrypted; the certificate must come from `ca`.
    VerifyCa,
    /// Encrypted; the certificate must come from a trusted authority and be the host's.
    VerifyIdentity,
}

/// What connections are made with; none: plain.
///
/// # Errors
/// `Config`, for the field `tls.ca`.
pub(crate) fn client(config: &TlsConfig) -> Result<Option<Arc<ClientConfig>>> {
    if config.mode == TlsMode::Disabled {
        return Ok(None);
    }
    if config.mode == TlsMode::VerifyCa && config.ca.is_none() {
        return Err(Error::config("`verify-ca` needs the authorities to trust")
            .field("tls.ca")
            .hint("name the PEM file of the authority that signed the server's certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(config, Arc::clone(&provider))?;
    // Within TDS 7.4 servers speak TLS 1.2 at most; what comes unasked after a handshake of 1.3 would not be framed.
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .fault(Fault::Bug, "set up TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(Some(Arc::new(builder.with_no_client_auth())))
}

/// The name that a certificate is checked against; an address that is nobody's stands in where none is checked.
///
/// # Errors
/// `Config` if the host cannot be in a certificate.
pub(crate) fn name(mode: TlsMode, host: &str) -> Result<ServerName<'static>> {
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Ok(name),
        Err(_) if mode != TlsMode::VerifyIdentity => {
            Ok(ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])))
        }
        Err(e) => {
            Err(Error::config(format!("the certificate cannot be checked against {host:?}")).because(e))
        }
    }
}

/// A certificate that does not hold is the operator's matter, a broken connection time's.
pub(crate) fn refused(error: std::io::Error) -> Error {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::config("the server's certificate does not hold")
            .field("tls.ca")
            .hint("name the authority that signed it in `tls.ca`; one without the host's name needs `verify-ca`; renew it if it has expired")
            .because(error),
        Some(rustls::Error::AlertReceived(_) | rustls::Error::PeerIncompatible(_)) => {
            Error::config("the server refuses to encrypt the connection this way")
                .field("tls.mode")
                .hint("it must speak TLS 1.2 with forward secrecy (SQL Server 2016, or older ones with their updates)")
                .because(error)
        }
        _ => Error::transient("encrypt the connection").because(error),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = || {
        Error::config(format!("read {}", path.display()))
            .field("tls.ca")
            .hint("give a PEM file of certificates that this user can read")
    };
    let all: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| wrong().because(e))?;
    if all.is_empty() { Err(wrong().because("no certificate in it")) } else { Ok(all) }
}

type Checked<T> = std::result::Result<T, rustls::Error>;

/// `Required` checks nothing. `VerifyCa` passes over one error only: the name. A certificate that is itself in the file is trusted
/// as it is, but for its name, which `VerifyIdentity` checks.
#[derive(Debug)]
struct Verifier {
    mode: TlsMode,
    /// None where nothing is checked.
    web: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(config: &TlsConfig, provider: Arc<CryptoProvider>) -> Result<Self> {
        let (mut roots, mut pinned) = (RootCertStore::empty(), Vec::new());
        match &config.ca {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                pinned = certificates(path)?;
                for certificate in &pinned {
                    roots.add(certificate.clone()).map_err(|e| {
                        Error::config(format!("read {}", path.display())).field("tls.ca").because(e)
                    })?;
                }
            }
        }
        let web = match config.mode {
            TlsMode::Disabled | TlsMode::Required => None,
            TlsMode::VerifyCa | TlsMode::VerifyIdentity => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .fault(Fault::Config, "trust the authorities")?,
            ),
        };
        Ok(Self { mode: config.mode, web, pinned, provider })
    }
}

fn is_about_the_name(e: &rustls::Error) -> bool {
    matches!(
        e,
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Checked<ServerCertVerified> {
        let Some(web) = &self.web else {
            return Ok(ServerCertVerified::assertion());
        };
        if self.pinned.iter().any(|p| p == end) {
            if self.mode == TlsMode::VerifyIdentity {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match web.verify_server_cert(end, intermediates, name, ocsp, now) {
            Err(e) if self.mode == TlsMode::VerifyCa && is_about_the_name(&e) => {
                Ok(ServerCertVerified::assertion())
            }
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Checked<HandshakeSignatureValid> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Checked<HandshakeSignatureValid> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
