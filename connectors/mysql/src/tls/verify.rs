//! Checks a server's certificate as far as the mode asks.
//!
//! `Required` checks nothing. `VerifyCa` lets web PKI check chain, dates and signatures, and passes over one error only: the
//! name. `VerifyIdentity` passes over none. A certificate that is itself in the file of authorities is trusted as it is (servers
//! often show the one self-signed certificate that they have), but for its name, which `VerifyIdentity` still checks.

use super::TlsMode;
use caudal_core::fault::Classify;
use caudal_core::{Fault, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

type Checked<T> = std::result::Result<T, rustls::Error>;

#[derive(Debug)]
pub(super) struct Verifier {
    mode: TlsMode,
    /// None where nothing is checked.
    web: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(super) fn new(
        mode: TlsMode,
        (roots, pinned): (RootCertStore, Vec<CertificateDer<'static>>),
        provider: Arc<CryptoProvider>,
    ) -> Result<Self> {
        let web = match mode {
            TlsMode::Disabled | TlsMode::Preferred | TlsMode::Required => None,
            TlsMode::VerifyCa | TlsMode::VerifyIdentity => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .fault(Fault::Config, "trust the authorities")?,
            ),
        };
        Ok(Self { mode, web, pinned, provider })
    }

    fn check_pinned(&self, end: &CertificateDer<'_>, name: &ServerName<'_>) -> Checked<ServerCertVerified> {
        if self.mode == TlsMode::VerifyIdentity {
            rustls::client::verify_server_name(&ParsedCertificate::try_from(end)?, name)?;
        }
        Ok(ServerCertVerified::assertion())
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
            return self.check_pinned(end, name);
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
        if self.web.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Checked<HandshakeSignatureValid> {
        if self.web.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
