//! The server's greeting and our answer (protocol version 10, "HandshakeV10" and "HandshakeResponse41").

use super::{Endpoint, Family, ServerVersion};
use crate::auth::{Challenge, trim_nonce};
use crate::packet::Fields;
use crate::refusal::{CONNECT, error_packet};
use caudal_core::{Error, Result};

/// Set by MySQL, not by MariaDB.
const CLIENT_MYSQL: u32 = 1;
const CLIENT_CONNECT_WITH_DB: u32 = 8;
const CLIENT_PROTOCOL_41: u32 = 0x200;
const CLIENT_SSL: u32 = 0x800;
const CLIENT_TRANSACTIONS: u32 = 0x2000;
const CLIENT_SECURE_CONNECTION: u32 = 0x8000;
const CLIENT_MULTI_RESULTS: u32 = 0x2_0000;
const CLIENT_PLUGIN_AUTH: u32 = 0x8_0000;
const CLIENT_CONNECT_ATTRS: u32 = 0x10_0000;
const CLIENT_PLUGIN_AUTH_LENENC: u32 = 0x20_0000;

const OURS: u32 = CLIENT_MYSQL
    | CLIENT_PROTOCOL_41
    | CLIENT_TRANSACTIONS
    | CLIENT_SECURE_CONNECTION
    | CLIENT_MULTI_RESULTS
    | CLIENT_PLUGIN_AUTH
    | CLIENT_CONNECT_ATTRS
    | CLIENT_PLUGIN_AUTH_LENENC;

/// utf8mb4_general_ci: known to all servers of both families.
const COLLATION: u8 = 45;
const MAX_PACKET: u32 = 1 << 30;
/// Shown in the server's list of connections.
const ATTRIBUTES: &[u8] = b"\x0cprogram_name\x06caudal";

/// What the server says first.
pub(super) struct Greeting {
    pub(super) version: ServerVersion,
    pub(super) challenge: Challenge,
    capabilities: u32,
}

impl Greeting {
    pub(super) fn parse(packet: &[u8]) -> Result<Self> {
        match packet.first() {
            Some(0x0a) => Self::fields(&mut Fields(&packet[1..])).ok_or_else(not_a_server),
            Some(0xff) => Err(error_packet(CONNECT, packet)),
            _ => Err(not_a_server()),
        }
    }

    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let text = String::from_utf8_lossy(f.zero_ended()?).into_owned();
        f.take(4)?;
        let mut nonce = f.take(8)?.to_vec();
        f.take(1)?;
        let low = f.take(2)?;
        f.take(3)?;
        let high = f.take(2)?;
        let capabilities = u32::from_le_bytes([low[0], low[1], high[0], high[1]]);
        let nonce_length = usize::from(f.take(1)?[0]);
        f.take(10)?;
        nonce.extend_from_slice(f.take(nonce_length.saturating_sub(8).max(13).min(f.0.len()))?);
        let plugin = f.0.split(|b| *b == 0).next().unwrap_or_default().to_vec();
        let nonce = trim_nonce(&plugin, &nonce).to_vec();
        let version = ServerVersion::parse(&text, capabilities & CLIENT_MYSQL == 0);
        Some(Self { version, challenge: Challenge { plugin, nonce }, capabilities })
    }

    /// Whether the server can encrypt.
    pub(super) fn has_tls(&self) -> bool {
        self.capabilities & CLIENT_SSL != 0
    }

    /// The first half of the answer, after which both sides speak TLS.
    pub(super) fn ask_for_tls(&self, endpoint: &Endpoint) -> Result<Vec<u8>> {
        if !self.has_tls() {
            return Err(Error::config("the server has no TLS")
                .hint("give the server a certificate (ssl_cert, ssl_key), or set tls to disabled"));
        }
        Ok(Self::head(endpoint, true))
    }

    pub(super) fn answer(&self, endpoint: &Endpoint, encrypted: bool) -> Vec<u8> {
        let mut answer = Self::head(endpoint, encrypted);
        let proof = self.challenge.answer(&endpoint.password).unwrap_or_default();
        answer.extend_from_slice(endpoint.user.as_bytes());
        // Proofs are at most 64 bytes: one byte of length.
        answer.extend_from_slice(&[0, proof.len() as u8]);
        answer.extend_from_slice(&proof);
        if let Some(database) = &endpoint.database {
            answer.extend_from_slice(database.as_bytes());
            answer.push(0);
        }
        answer.extend_from_slice(&self.challenge.plugin);
        answer.extend_from_slice(&[0, ATTRIBUTES.len() as u8]);
        answer.extend_from_slice(ATTRIBUTES);
        answer
    }

    /// Servers want the same flags before TLS and within.
    fn head(endpoint: &Endpoint, encrypted: bool) -> Vec<u8> {
        let mut capabilities = OURS;
        if encrypted {
            capabilities |= CLIENT_SSL;
        }
        if endpoint.database.is_some() {
            capabilities |= CLIENT_CONNECT_WITH_DB;
        }
        let mut head = capabilities.to_le_bytes().to_vec();
        head.extend_from_slice(&MAX_PACKET.to_le_bytes());
        head.push(COLLATION);
        head.extend_from_slice(&[0; 23]);
        head
    }
}

impl ServerVersion {
    /// From the greeting's text. MariaDB before 11 puts `5.5.5-` in front of its version.
    fn parse(text: &str, is_mariadb: bool) -> Self {
        let is_mariadb = is_mariadb || text.contains("MariaDB");
        let shown = if is_mariadb { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        let mut digits =
            shown.split(|c: char| !c.is_ascii_digit()).take(3).map(|part| part.parse::<u16>().unwrap_or(0));
        let mut next = || digits.next().unwrap_or(0);
        let number = (next(), next(), next());
        let family = if is_mariadb { Family::MariaDb } else { Family::MySql };
        Self { family, number, text: shown.to_owned() }
    }
}

fn not_a_server() -> Error {
    Error::config("what answers there is no MySQL or MariaDB server")
        .hint("check host and port of the source's url")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Keepalive;
    use crate::tls::TlsOptions;
    use caudal_core::Fault;
    use std::time::Duration;

    fn greeting(version: &str, plugin: &str) -> Vec<u8> {
        let mut p = vec![0x0a];
        p.extend_from_slice(version.as_bytes());
        p.extend_from_slice(&[0, 1, 0, 0, 0]);
        p.extend_from_slice(b"12345678\0");
        p.extend_from_slice(&[0xff, 0xff, 45, 2, 0, 0xff, 0xdf, 21]);
        p.extend_from_slice(&[0; 10]);
        p.extend_from_slice(b"abcdefghijkl\0");
        p.extend_from_slice(plugin.as_bytes());
        p.push(0);
        p
    }

    #[test]
    fn both_families_greet() {
        let mysql = Greeting::parse(&greeting("9.7.4", "caching_sha2_password")).unwrap();
        assert_eq!((mysql.version.family, mysql.version.number), (Family::MySql, (9, 7, 4)));
        assert_eq!(mysql.challenge.nonce, b"12345678abcdefghijkl");
        assert_eq!(mysql.challenge.plugin, b"caching_sha2_password");
        let maria =
            Greeting::parse(&greeting("5.5.5-10.11.19-MariaDB-log", "mysql_native_password")).unwrap();
        assert_eq!((maria.version.family, maria.version.number), (Family::MariaDb, (10, 11, 19)));
        assert_eq!(maria.version.text, "10.11.19-MariaDB-log");
    }

    #[test]
    fn what_is_no_server_is_said_so() {
        for bytes in [&b""[..], b"HTTP/1.1 400", b"\x0a8.0"] {
            assert_eq!(Greeting::parse(bytes).err().unwrap().fault(), Fault::Config);
        }
        let whole = greeting("9.7.4", "x");
        for cut in 0..whole.len() - 15 {
            assert!(Greeting::parse(&whole[..cut]).is_err());
        }
    }

    #[test]
    fn tls_is_not_asked_of_a_server_without_it() {
        let mut g = Greeting::parse(&greeting("9.7.4", "x")).unwrap();
        let endpoint = Endpoint {
            host: "h".into(),
            port: 3306,
            user: "u".into(),
            password: String::new(),
            database: None,
            tls: TlsOptions::default(),
            connect_timeout: Duration::from_secs(1),
            keepalive: Keepalive::default(),
        };
        assert!(g.ask_for_tls(&endpoint).is_ok());
        g.capabilities &= !CLIENT_SSL;
        assert_eq!(g.ask_for_tls(&endpoint).unwrap_err().fault(), Fault::Config);
    }
}
