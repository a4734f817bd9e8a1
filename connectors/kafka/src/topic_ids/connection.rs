//! One connection to a broker: TLS and SASL as configured, then requests one at a time.

use crate::config::{Mechanism, Resolved, Sasl, Tls};
use crate::tokens::Tokens;
use crate::topic_ids::scram::{Hash, Scram};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use uuid::Uuid;

/// Bound on an answer: 10,000 topics take about 2 MB.
const MAX_ANSWER: usize = 64 << 20;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    correlation: i32,
    client_id: StrBytes,
}

impl Connection {
    /// Connects and authenticates.
    pub(crate) async fn open(broker: &str, resolved: &Resolved) -> io::Result<Self> {
        let config = &resolved.config;
        let tcp = TcpStream::connect(broker).await?;
        let stream: Box<dyn Stream> = match &config.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host).trim_matches(['[', ']']);
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                Box::new(TlsConnector::from(Arc::new(tls_config(tls)?)).connect(name, tcp).await?)
            }
        };
        let client_id = StrBytes::from_string(format!("{}-ids", config.client_id));
        let mut connection = Self { stream, correlation: 0, client_id };
        if let Some(sasl) = &config.sasl {
            connection.authenticate(sasl, resolved.tokens.as_ref()).await?;
        }
        Ok(connection)
    }

    async fn authenticate(&mut self, sasl: &Sasl, tokens: Option<&Arc<Tokens>>) -> io::Result<()> {
        let request = SaslHandshakeRequest::default()
            .with_mechanism(StrBytes::from_static_str(sasl.mechanism.as_str()));
        let answer: SaslHandshakeResponse = self.call(ApiKey::SaslHandshake, 1, &request).await?;
        accepted(answer.error_code)?;
        let hash = match sasl.mechanism {
            Mechanism::Plain => {
                let message = format!("\0{}\0{}", sasl.username, sasl.password);
                return self.exchange(message).await.map(|_| ());
            }
            Mechanism::OauthBearer => return self.bear_token(tokens).await,
            Mechanism::ScramSha256 => Hash::Sha256,
            Mechanism::ScramSha512 => Hash::Sha512,
        };
        let nonce = Uuid::new_v4().simple().to_string();
        let scram = Scram::new(hash, &sasl.username, &sasl.password, nonce);
        let first = self.exchange(scram.first()).await?;
        let refused = || io::Error::other("the broker's SASL answer is wrong");
        let first = std::str::from_utf8(&first).map_err(io::Error::other)?;
        let (second, wanted) = scram.second(first).ok_or_else(refused)?;
        let last = self.exchange(second).await?;
        if last != wanted.as_bytes() { Err(refused()) } else { Ok(()) }
    }

    /// RFC 7628, section 3.1. A broker that refuses the token says why in its answer, and waits for ours before it closes the connection.
    async fn bear_token(&mut self, tokens: Option<&Arc<Tokens>>) -> io::Result<()> {
        let tokens = Arc::clone(tokens.ok_or_else(|| io::Error::other("no source of tokens"))?);
        let token = tokio::task::spawn_blocking(move || tokens.get()).await.map_err(io::Error::other)?;
        let token = token.map_err(io::Error::other)?.text;
        let answer = self.exchange(format!("n,,\x01auth=Bearer {token}\x01\x01")).await?;
        match answer.is_empty() {
            true => Ok(()),
            false => Err(io::Error::other("the broker refuses the token")),
        }
    }

    async fn exchange(&mut self, message: String) -> io::Result<Bytes> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
        let answer: SaslAuthenticateResponse = self.call(ApiKey::SaslAuthenticate, 0, &request).await?;
        accepted(answer.error_code)?;
        Ok(answer.auth_bytes)
    }

    /// One request and its answer.
    pub(crate) async fn call<A: Decodable>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &impl Encodable,
    ) -> io::Result<A> {
        self.correlation += 1;
        let mut body = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(self.client_id.clone()))
            .encode(&mut body, api.request_header_version(version))
            .map_err(io::Error::other)?;
        request.encode(&mut body, version).map_err(io::Error::other)?;
        let mut message = BytesMut::with_capacity(body.len() + 4);
        message.extend_from_slice(&(body.len() as u32).to_be_bytes());
        message.extend_from_slice(&body);
        self.stream.write_all(&message).await?;
        self.stream.flush().await?;
        let mut answer = self.answer().await?;
        ResponseHeader::decode(&mut answer, api.response_header_version(version))
            .map_err(io::Error::other)?;
        A::decode(&mut answer, version).map_err(io::Error::other)
    }

    async fn answer(&mut self) -> io::Result<Bytes> {
        let length = self.stream.read_u32().await? as usize;
        if length > MAX_ANSWER {
            return Err(io::Error::other("the answer is too long"));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        Ok(Bytes::from(answer))
    }
}

fn accepted(code: i16) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::other(format!("the broker refuses the SASL exchange: error {code}"))),
    }
}

/// The same trust as librdkafka is given; without a file of authorities the system's, and those that browsers trust.
pub(crate) fn tls_config(tls: &Tls) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(file) => {
            for certificate in CertificateDer::pem_file_iter(file).map_err(io::Error::other)? {
                roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
            }
        }
        None => {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            let files = SYSTEM.iter().filter_map(|file| CertificateDer::pem_file_iter(file).ok());
            // One that cannot be read is one that nobody is trusted by.
            roots.add_parsable_certificates(files.flatten().flatten());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_file_iter(certificate).map_err(io::Error::other)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let key = provider.key_provider.load_private_key(key).map_err(io::Error::other)?;
    // Not `with_client_auth_cert`: that reads the certificate itself, and cannot if it is of X.509's version 1, as `openssl x509 -req` makes
    // them without extensions. Whether certificate and key belong together, the broker finds out.
    let certified = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    Ok(builder.with_client_cert_resolver(Arc::new(certified)))
}

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
