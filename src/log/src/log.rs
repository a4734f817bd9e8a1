//! A running log: its door, its tasks, its end.

use crate::clock::Clock;
use crate::config::Config;
use crate::connection;
use crate::disk::Disk;
use crate::error::Error;
use crate::maintenance;
use crate::node::Node;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A running embedded log. Dropping it ends its tasks without the clean end of [`Log::shutdown`]; nothing acknowledged is lost
/// either way.
pub struct Log {
    address: SocketAddr,
    node: Arc<Node>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// Held as long as the folder is in use.
    _lock: File,
}

impl Log {
    /// Locks the folder, recovers what is in it, and serves.
    ///
    /// # Errors
    /// When the address can't be listened on, the folder is in use, not writable, or damaged; the text says what to do.
    pub async fn start(config: Config) -> Result<Log, Error> {
        Log::start_with(config, Disk::default(), Clock::default()).await
    }

    pub(crate) async fn start_with(config: Config, disk: Disk, clock: Clock) -> Result<Log, Error> {
        if !config.listen.ip().is_loopback() && !config.allow_remote {
            return Err(Error::NotLoopback(config.listen));
        }
        let lock = lock_folder(&disk, &config.data_dir)?;
        let listener = listen(config.listen).await?;
        let address =
            listener.local_addr().map_err(|cause| Error::Listen { address: config.listen, cause })?;
        let node = Node::open(config, address, disk, clock).await?;
        let (stop, stopped) = watch::channel(false);
        let tasks = vec![
            tokio::spawn(accept(node.clone(), listener, stopped)),
            tokio::spawn(maintenance::watch_time(node.clone())),
            tokio::spawn(maintenance::keep_house(node.clone())),
        ];
        tracing::info!(%address, "the embedded log serves");
        Ok(Log { address, node, stop, tasks, _lock: lock })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[cfg(test)]
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Closes connections, makes everything durable, and lets go of the folder.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut self.tasks).into_iter();
        if let Some(accepting) = tasks.next() {
            let _ = accepting.await;
        }
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        let node = self.node.clone();
        if let Err(cause) = tokio::task::spawn_blocking(move || node.close()).await {
            tracing::error!(%cause, "close the embedded log");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept(node: Arc<Node>, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if connections.len() >= node.config.max_connections => {
                    tracing::warn!(%peer, limit = node.config.max_connections, "too many connections");
                    drop(stream);
                }
                Ok((stream, peer)) => {
                    let node = node.clone();
                    connections.spawn(async move {
                        if let Err(cause) = connection::serve(node, stream).await {
                            tracing::debug!(%peer, %cause, "closed a connection");
                        }
                    });
                }
                Err(cause) => {
                    // No file descriptor left, most likely; connections that end give some back.
                    tracing::warn!(%cause, "accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|cause| match cause.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse(address),
        _ => Error::Listen { address, cause },
    })
}

fn lock_folder(disk: &Disk, dir: &Path) -> Result<File, Error> {
    let not_writable = |cause| Error::FolderNotWritable { path: dir.into(), cause };
    disk.create_dir(dir).map_err(not_writable)?;
    let path = dir.join("lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(not_writable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::FolderLocked(dir.into())),
        Err(TryLockError::Error(cause)) => Err(not_writable(cause)),
    }
}
