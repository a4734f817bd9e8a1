//! One connection to a broker: TLS and SASL as configured, then requests one at a time.

use crate::config::{Config, Mechanism, Sasl, Tls};
use crate::topic_ids::scram::{Hash, Scram};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
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
}

impl Connection {
    /// Connects and authenticates.
    pub(crate) async fn open(broker: &str, config: &Config) -> io::Result<Self> {
        let tcp = TcpStream::connect(broker).await?;
        let stream: Box<dyn Stream> = match &config.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host).trim_matches(['[', ']']);
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                Box::new(TlsConnector::from(Arc::new(tls_config(tls)?)).connect(name, tcp).await?)
            }
        };
        let mut connection = Self { stream, correlation: 0 };
        if let Some(sasl) = &config.sasl {
            connection.authenticate(sasl).await?;
        }
        Ok(connection)
    }

    async fn authenticate(&mut self, sasl: &Sasl) -> io::Result<()> {
        let request = SaslHandshakeRequest::default()
            .with_mechanism(StrBytes::from_static_str(sasl.mechanism.as_str()));
        let answer: SaslHandshakeResponse = self.call(ApiKey::SaslHandshake, 1, &request).await?;
        accepted(answer.error_code)?;
        let hash = match sasl.mechanism {
            Mechanism::Plain => {
                let message = format!("\0{}\0{}", sasl.username, sasl.password);
                return self.exchange(message).await.map(|_| ());
            }
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
            .with_client_id(Some(StrBytes::from_static_str("caudal-ids")))
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

/// The same trust as librdkafka is given; without a file of authorities, those that browsers trust.
pub(crate) fn tls_config(tls: &Tls) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(file) => {
            for certificate in CertificateDer::pem_file_iter(file).map_err(io::Error::other)? {
                roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_file_iter(certificate).map_err(io::Error::other)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    builder.with_client_auth_cert(chain, key).map_err(io::Error::other)
}
