//! A source's configuration, checked.

use super::{Address, Mode, SnapshotConfig, TlsConfig};
use crate::connection::Keepalive;
use crate::poll::config::Polls;
use crate::selection::Selection;
use caudal_core::{Error, TableId};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A source's configuration, checked.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The source's name.
    pub name: String,
    /// Where the server is.
    pub address: Address,
    /// Further servers.
    pub hosts: Vec<(String, u16)>,
    /// The only server that may answer, as it names itself, once one was chosen.
    pub identity: Option<String>,
    /// File of the password, in place of the address's.
    pub password_file: Option<PathBuf>,
    /// Encryption.
    pub tls: TlsConfig,
    /// Which tables.
    pub selection: Selection,
    /// The reader's id in the topology, if configured.
    pub server_id: Option<u32>,
    /// Heartbeat period.
    pub heartbeat: Duration,
    /// Where a row is written each period.
    pub heartbeat_table: Option<TableId>,
    /// Whose new rows are commands.
    pub signal_table: Option<TableId>,
    /// How changes are found.
    pub mode: Mode,
    /// How tables are polled.
    pub(crate) poll: Polls,
    /// Snapshot settings.
    pub snapshot: SnapshotConfig,
    /// Bytes at which a batch is closed.
    pub batch_bytes: usize,
    /// Bound on connecting.
    pub connect_timeout: Duration,
    /// TCP keepalive.
    pub keepalive: Keepalive,
    /// Bound on undecided XA rows.
    pub xa_bytes: usize,
    /// The folder of the instance's data, if there is one.
    pub(crate) kept: Option<PathBuf>,
}

impl Resolved {
    /// Where what is too large for memory is kept for a while.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.snapshot.spool_dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Where it is kept how far re-reads are: with the instance's data, or else beside what is spooled.
    pub(crate) fn rereads_dir(&self) -> PathBuf {
        let base = self.kept.as_ref().map(|kept| kept.join("rereads"));
        base.unwrap_or_else(|| self.spool_dir().join("caudal-rereads")).join(&self.name)
    }

    /// Where hashes of polled rows are kept.
    pub(crate) fn poll_dir(&self) -> PathBuf {
        caudal_poll::folder(self.poll.dir.as_deref(), self.kept.as_deref(), &self.name)
    }

    /// The same source with the folder of the instance's data.
    #[must_use]
    pub(crate) fn keeping(&self, kept: &Path) -> Self {
        Self { kept: Some(kept.to_owned()), ..self.clone() }
    }

    /// The full name of a field of this source, for errors.
    #[must_use]
    pub fn field(&self, field: &str) -> String {
        field_of(&self.name, field)
    }

    /// All servers, the url's first.
    #[must_use]
    pub fn places(&self) -> Vec<(String, u16)> {
        let first = (self.address.host.clone(), self.address.port);
        let others = self.hosts.iter().filter(|place| **place != first).cloned();
        std::iter::once(first.clone()).chain(others).collect()
    }

    /// The same for one server.
    #[must_use]
    pub fn at(&self, (host, port): &(String, u16)) -> Self {
        let address = Address { host: host.clone(), port: *port, ..self.address.clone() };
        Self { address, ..self.clone() }
    }

    /// The error with the full name of the field that it names within this source.
    pub(crate) fn own_field(&self, error: Error) -> Error {
        match error.field_name() {
            Some(field) if !field.starts_with("sources.") => {
                let field = self.field(field);
                error.field(field)
            }
            _ => error,
        }
    }
}

/// The same of a source that is not resolved yet.
pub(super) fn field_of(source: &str, field: &str) -> String {
    format!("sources.{source}.{field}")
}
