//! Authentication: what is answered to the server's challenge, per plugin.
//!
//! `caching_sha2_password`: a scramble first (fast path). If the server has not cached the account, it asks for the password
//! itself: sent as it is over TLS, else encrypted with the server's RSA key, which it sends on request.

use crate::packet::Wire;
use crate::refusal::{CONNECT, error_packet};
use bytes::Bytes;
use caudal_core::{Error, Result};
use mysql_common::packets::AuthPlugin;

const NATIVE: &[u8] = b"mysql_native_password";
const CACHING_SHA2: &[u8] = b"caching_sha2_password";
const ED25519: &[u8] = b"client_ed25519";
const CLEAR: &[u8] = b"mysql_clear_password";

/// Packets by their first byte.
const OK: u8 = 0x00;
const MORE_DATA: u8 = 0x01;
const SWITCH: u8 = 0xfe;
const ERROR: u8 = 0xff;
/// What `caching_sha2_password` says in a packet with more data.
const FAST_PATH_TAKEN: u8 = 3;
const FULL_WANTED: u8 = 4;
const SEND_KEY: u8 = 2;

/// A server's challenge: the plugin and its nonce.
pub(crate) struct Challenge {
    pub(crate) plugin: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
}

impl Challenge {
    /// From a request to switch plugins.
    fn switch(packet: &[u8]) -> Result<Self> {
        let mut parts = packet[1..].splitn(2, |b| *b == 0);
        let plugin = parts.next().unwrap_or_default().to_vec();
        let nonce = parts.next().unwrap_or_default();
        Ok(Self { nonce: trim_nonce(&plugin, nonce).to_vec(), plugin })
    }

    /// The answer. The greeting's plugin is only the server's default, so one that is not ours is no error there: an empty
    /// answer makes the server ask for the account's own.
    pub(crate) fn answer(&self, password: &str) -> Option<Vec<u8>> {
        match self.plugin.as_slice() {
            NATIVE | CACHING_SHA2 | ED25519 => Some(
                AuthPlugin::from_bytes(&self.plugin)
                    .gen_data(Some(password), &self.nonce)
                    .map(|data| data.to_vec())
                    .unwrap_or_default(),
            ),
            _ => None,
        }
    }

    fn unsupported(&self) -> Error {
        Error::config(format!(
            "the account is authenticated by {}, which is not supported",
            String::from_utf8_lossy(&self.plugin)
        ))
        .hint("use an account with caching_sha2_password (MySQL), ed25519 or mysql_native_password (MariaDB)")
    }
}

/// A nonce is 20 bytes (ed25519: 32), mostly with a zero byte behind it.
pub(crate) fn trim_nonce<'a>(plugin: &[u8], nonce: &'a [u8]) -> &'a [u8] {
    let length = if plugin == ED25519 { 32 } else { 20 };
    &nonce[..nonce.len().min(length)]
}

/// Answers until the server accepts or refuses.
pub(crate) async fn authenticate(wire: &mut Wire, mut challenge: Challenge, password: &str) -> Result<()> {
    // A server that goes on asking for ever is no server.
    for _ in 0..16 {
        let packet = wire.receive().await?;
        match (packet.first(), packet.get(1)) {
            (Some(&OK), _) => return Ok(()),
            (Some(&ERROR), _) => return Err(error_packet(CONNECT, &packet)),
            (Some(&SWITCH), Some(_)) => {
                challenge = Challenge::switch(&packet)?;
                wire.send(&switched(&challenge, wire.is_encrypted(), password)?).await?;
            }
            (Some(&MORE_DATA), Some(&FAST_PATH_TAKEN)) => {}
            (Some(&MORE_DATA), Some(&FULL_WANTED)) if wire.is_encrypted() => {
                wire.send(&zero_ended(password)).await?;
            }
            (Some(&MORE_DATA), Some(&FULL_WANTED)) => {
                wire.send(&[SEND_KEY]).await?;
                let key = wire.receive().await?;
                wire.send(&encrypted(password, &challenge.nonce, &key)?).await?;
            }
            _ => return Err(Error::transient("connect: the server's answer is not understood")),
        }
    }
    Err(Error::transient("connect: the server does not end the authentication"))
}

fn switched(challenge: &Challenge, encrypted: bool, password: &str) -> Result<Vec<u8>> {
    if challenge.plugin == CLEAR && encrypted {
        return Ok(zero_ended(password));
    }
    challenge.answer(password).ok_or_else(|| challenge.unsupported())
}

fn zero_ended(password: &str) -> Vec<u8> {
    [password.as_bytes(), &[0]].concat()
}

/// The password, masked with the nonce, under the server's RSA key. The library below takes the key for well-formed and
/// panics if it is not; the key comes from the network, so that is caught here.
fn encrypted(password: &str, nonce: &[u8], key: &Bytes) -> Result<Vec<u8>> {
    if key.first() == Some(&ERROR) {
        return Err(error_packet(CONNECT, key));
    }
    let bad =
        || Error::transient("connect: the server's RSA key is not understood").hint("set tls: required");
    if nonce.is_empty() || key.first() != Some(&MORE_DATA) {
        return Err(bad());
    }
    let mut masked = zero_ended(password);
    masked.iter_mut().zip(nonce.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    std::panic::catch_unwind(|| mysql_common::crypto::encrypt(&masked, &key[1..])).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_length_of_their_plugin() {
        for (plugin, nonce, length) in [(NATIVE, 20, 20), (CACHING_SHA2, 20, 32), (ED25519, 32, 64)] {
            let challenge = Challenge { plugin: plugin.to_vec(), nonce: vec![7; nonce] };
            assert_eq!(challenge.answer("secret").unwrap().len(), length);
        }
        let native = Challenge { plugin: NATIVE.to_vec(), nonce: vec![7; 20] };
        assert_eq!(native.answer("").unwrap(), b"");
        let other = Challenge { plugin: b"auth_gssapi_client".to_vec(), nonce: vec![] };
        assert!(other.answer("secret").is_none());
        assert!(other.unsupported().to_string().contains("auth_gssapi_client"));
    }

    #[test]
    fn a_switch_takes_the_nonce_without_its_zero_byte() {
        let packet = [&[SWITCH][..], NATIVE, &[0], &[9; 20], &[0]].concat();
        let challenge = Challenge::switch(&packet).unwrap();
        assert_eq!((challenge.plugin.as_slice(), challenge.nonce.as_slice()), (NATIVE, &[9; 20][..]));
    }

    /// A challenge is random: one in 256 ends in a zero byte, which belongs to it.
    #[test]
    fn a_nonce_that_ends_in_zero_keeps_its_last_byte() {
        let mut nonce = [7; 32];
        nonce[31] = 0;
        let answer = |behind: &[u8]| {
            let packet = [&[SWITCH][..], ED25519, &[0], &nonce, behind].concat();
            let challenge = Challenge::switch(&packet).unwrap();
            assert_eq!(challenge.nonce, nonce);
            challenge.answer("secret").unwrap()
        };
        // Servers send it with a zero byte behind, or without.
        assert_eq!(answer(&[0]), answer(&[]));
        let cut = Challenge { plugin: ED25519.to_vec(), nonce: nonce[..31].to_vec() };
        assert_ne!(cut.answer("secret").unwrap(), answer(&[]));
        let packet = [&[SWITCH][..], NATIVE, &[0], &[9; 19], &[0, 0]].concat();
        assert_eq!(Challenge::switch(&packet).unwrap().nonce.len(), 20);
    }

    #[test]
    fn clear_text_goes_out_only_when_encrypted() {
        let challenge = Challenge { plugin: CLEAR.to_vec(), nonce: vec![] };
        assert_eq!(switched(&challenge, true, "pw").unwrap(), b"pw\0");
        assert!(switched(&challenge, false, "pw").is_err());
    }

    #[test]
    fn a_bad_key_is_an_error_and_no_panic() {
        for key in [&b""[..], b"\x01", b"\x01-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"] {
            assert!(encrypted("pw", &[1; 20], &Bytes::copy_from_slice(key)).is_err());
        }
    }
}
