//! The HTTP/1.1 server: bounded connections, time-outs, graceful stop.

use crate::board::Board;
use crate::routes::router;
use caudal_control::config::HttpSettings;
use caudal_core::{Error, Result};
use caudal_engine::Shutdown;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

const CONNECTIONS: usize = 256;
const HEAD_BYTES: usize = 64 << 10;
const HEAD_WITHIN: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(3);

/// Listens.
///
/// # Errors
/// Of fault `Config`, with the field and the fix.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| {
        let (message, hint) = match error.kind() {
            ErrorKind::AddrInUse => (
                format!("port {} of {} is already in use", listen.port(), listen.ip()),
                "choose another port (0 takes a free one), or stop the process that holds it (`ss -ltnp` names it)",
            ),
            _ => (
                format!("cannot listen on {listen}: {error}"),
                "use an address of this machine and a port that this user may open",
            ),
        };
        Error::config(message).field("http.listen").hint(hint)
    })
}

/// Answers until the daemon stops; requests in flight then have 3 s.
pub async fn serve(listener: TcpListener, settings: &HttpSettings, board: Arc<Board>, shutdown: Shutdown) {
    let service = TowerToHyperService::new(router(board, settings.api_key.clone()));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, place) = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = shutdown.wait() => break,
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "an HTTP connection ended");
            }
            drop(place);
        });
    }
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

/// The next connection, once there is a place for it. Errors here (a peer gone already, no file descriptors left) pass by
/// themselves.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed: there is always a permit.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                debug!(%error, "accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
