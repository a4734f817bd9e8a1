//! Who may ask.
//!
//! With an API key configured, who has not shown it learns only whether the daemon is well. Without one the API listens on loopback
//! only, and answers only requests that were addressed there: a web page in the user's browser that points its own name at
//! 127.0.0.1 gets nothing.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST};
use caudal_control::config::Secret;
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// What a request is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything.
    Full,
    /// Only whether the daemon is well.
    Bare,
    /// Nothing: it was meant for another host.
    Foreign,
}

/// Decides by the headers.
pub(crate) fn access(key: Option<&Secret>, headers: &HeaderMap) -> Access {
    match key {
        Some(key) if shown(headers).is_some_and(|shown| same(shown, key.reveal())) => Access::Full,
        Some(_) => Access::Bare,
        None if addressed_to_loopback(headers) => Access::Full,
        None => Access::Foreign,
    }
}

fn shown(headers: &HeaderMap) -> Option<&str> {
    let bearer =
        headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    bearer.or_else(|| headers.get("x-api-key").and_then(|v| v.to_str().ok()))
}

/// In a time that tells nothing of where they differ; the lengths may be told.
fn same(shown: &str, key: &str) -> bool {
    shown.as_bytes().ct_eq(key.as_bytes()).into()
}

fn addressed_to_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|v| v.to_str().ok()) else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn with_a_key_only_who_shows_it_has_full_access() {
        let key = Secret::new("0123456789abcdef");
        for (pairs, expected) in [
            (&[("authorization", "Bearer 0123456789abcdef")][..], Access::Full),
            (&[("x-api-key", "0123456789abcdef")], Access::Full),
            (&[("authorization", "Bearer 0123456789abcdeX")], Access::Bare),
            (&[("authorization", "Bearer 0123456789abcdef0")], Access::Bare),
            (&[("authorization", "0123456789abcdef")], Access::Bare),
            (&[("host", "127.0.0.1:8080")], Access::Bare),
            (&[], Access::Bare),
        ] {
            assert_eq!(access(Some(&key), &headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn without_a_key_only_requests_addressed_to_loopback_are_answered() {
        for (host, expected) in [
            ("127.0.0.1:8080", Access::Full),
            ("localhost:8080", Access::Full),
            ("LOCALHOST", Access::Full),
            ("[::1]:8080", Access::Full),
            ("evil.example:8080", Access::Foreign),
            ("evil.example", Access::Foreign),
            ("127.0.0.1.evil.example", Access::Foreign),
        ] {
            assert_eq!(access(None, &headers(&[("host", host)])), expected, "{host}");
        }
    }
}
