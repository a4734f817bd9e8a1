//! `tls:`, how connections are encrypted.

use caudal_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// How the connection is encrypted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// What is asked of the server.
    #[serde(default)]
    pub mode: TlsMode,
    /// File of the authorities to trust, PEM. Needed for `verify-ca`; with `verify-identity` the public authorities are used
    /// when left out.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// File of the client's certificate chain, PEM.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// File of the client's private key, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// What is asked of the server's encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Not encrypted.
    Disabled,
    /// Encrypted if the server can, plain otherwise; the certificate is not checked.
    #[default]
    Preferred,
    /// Encrypted; the certificate is not checked.
    Required,
    /// Encrypted; the certificate must come from `ca`.
    VerifyCa,
    /// Encrypted; the certificate must come from a trusted authority and be the host's.
    VerifyIdentity,
}

/// What can be known to be wrong without a server.
pub(super) fn check(tls: &TlsConfig) -> Result<()> {
    if tls.mode == TlsMode::VerifyCa && tls.ca.is_none() {
        return Err(Error::config("`verify-ca` needs the authorities to trust")
            .hint("set tls.ca to the PEM file of the server's authority (MySQL makes its own: ca.pem in its data directory)"));
    }
    if tls.cert.is_some() != tls.key.is_some() {
        return Err(
            Error::config("a client certificate needs both tls.cert and tls.key").hint("set both, or none")
        );
    }
    if tls.mode == TlsMode::Disabled && (tls.ca.is_some() || tls.cert.is_some()) {
        return Err(Error::config("certificates are given but tls.mode is `disabled`")
            .hint("set tls.mode to required, verify-ca or verify-identity"));
    }
    for (field, path) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
        if let Some(path) = path
            && let Err(e) = std::fs::File::open(path)
        {
            return Err(Error::config(format!("open tls.{field} ({})", path.display()))
                .because(e)
                .hint("check the path and that this user may read it"));
        }
    }
    Ok(())
}
