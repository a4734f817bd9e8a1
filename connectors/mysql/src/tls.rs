//! TLS to the server: how much of its certificate is checked, and our own.

use std::path::PathBuf;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Not at all.
    #[default]
    Disabled,
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
    /// PEM file of the authorities to trust; without it the web's.
    pub ca: Option<PathBuf>,
    /// PEM files of our own certificate (with its chain) and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}
