//! What can stop a log from starting, each with the way out.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the log could not start or stop. The text names the setting, the cause and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process listens on the port.
    #[error(
        "listen: port {} of {} is already in use. Choose another `listen` port (0 takes a free one), or stop the process that holds it (`ss -ltnp` names it)",
        .0.port(), .0.ip()
    )]
    PortInUse(SocketAddr),
    /// The address can't be listened on for another reason.
    #[error(
        "listen: cannot listen on {address}: {cause}. Use an address of this machine and a port that this user may open"
    )]
    Listen {
        /// Address as configured.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The address is reachable from other machines, and that was not allowed.
    #[error(
        "listen: {0} is reachable from other machines, and the embedded log has neither TLS nor passwords. Listen on 127.0.0.1, or allow remote clients explicitly (`allow_remote`)"
    )]
    NotLoopback(SocketAddr),
    /// Another log holds the folder.
    #[error(
        "data_dir: {0} is in use by another running log. Stop that process, or choose another `data_dir`"
    )]
    FolderLocked(PathBuf),
    /// There is no log in the folder.
    #[error(
        "data_dir: there is no log in {0}. Name the folder of a daemon that has run with its embedded log"
    )]
    NoLog(PathBuf),
    /// The folder can't be written.
    #[error(
        "data_dir: cannot write to {path}: {cause}. Create it, make it writable for this user, or choose another `data_dir`"
    )]
    FolderNotWritable {
        /// Folder or file concerned.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The folder was written by a newer version.
    #[error(
        "data_dir: {path} has format {found}, this version reads up to {known}. Start the version that wrote it"
    )]
    NewerFormat {
        /// File concerned.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Newest format known.
        known: u32,
    },
    /// A file does not hold what was written to it.
    #[error("data_dir: {path} is damaged: {what}. Restore the folder from a copy; nothing was changed")]
    Damaged {
        /// File concerned.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Reading or writing failed in the course of work.
    #[error("data_dir: {what}: {cause}. Check the disk and its free space")]
    Storage {
        /// Verb and object.
        what: String,
        /// What the system said.
        cause: io::Error,
    },
}

impl Error {
    pub(crate) fn storage(what: impl Into<String>, cause: io::Error) -> Error {
        Error::Storage { what: what.into(), cause }
    }
}
