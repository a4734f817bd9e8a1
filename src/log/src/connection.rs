//! One client connection: frames in, answers out in the order of the requests.
//!
//! Requests are worked on one after the other, except that a produce waits for its fsync while the next ones are appended
//! already: that is what fills a group commit.
//!
//! Memory per connection: one frame, taken from the common budget when it is larger than [`SMALL_FRAME`]; at most
//! [`PIPELINE`] unsent answers, of which those with records hold budget until they are sent. A client that stalls in the middle
//! of a frame or doesn't read its answers is closed after [`STALLED`].

mod frame;
mod shape;

#[cfg(test)]
pub(crate) use shape::check as check_shape;

use crate::api::{self, Answer, Caller, Reply};
use crate::node::Node;
use bytes::{BufMut, BytesMut};
use frame::Request;
use kafka_protocol::messages::{ResponseHeader, ResponseKind};
use kafka_protocol::protocol::Encodable;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Frames up to this size don't count against the common budget.
const SMALL_FRAME: usize = 64 << 10;
/// Answers that may wait for earlier ones.
const PIPELINE: usize = 16;
/// How long a frame may take once it began, and an answer to be taken.
const STALLED: Duration = Duration::from_secs(30);

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Protocol(String),
    #[error("the client stalls")]
    Stalled,
    #[error("answers can't be sent")]
    Unread,
}

/// An answer that keeps its place.
struct Outgoing {
    correlation_id: i32,
    version: i16,
    reply: Reply,
}

/// Serves a client until it goes, or sends what is no request.
pub(crate) async fn serve(node: Arc<Node>, stream: TcpStream) -> Result<(), Closed> {
    stream.set_nodelay(true)?;
    let host = stream.peer_addr()?.ip().to_string();
    let (input, output) = stream.into_split();
    let (queue, outgoing) = mpsc::channel(PIPELINE);
    let mut sending = pin!(send_answers(output, outgoing));
    tokio::select! {
        read = read_requests(&node, host, input, queue) => read?,
        // Ends first only when answers can't be sent.
        sent = &mut sending => return sent,
    }
    // The client has no more requests; what is under way is still answered.
    sending.await
}

async fn read_requests(
    node: &Arc<Node>,
    host: String,
    mut input: OwnedReadHalf,
    queue: mpsc::Sender<Outgoing>,
) -> Result<(), Closed> {
    let mut buffer = BytesMut::new();
    let mut caller = Caller { client: String::new(), host };
    while let Some(incoming) = frame::read(node, &mut input, &mut buffer).await? {
        let request = match frame::decode(incoming.bytes)? {
            Request::Understood(request) => request,
            Request::NewerApiVersions { correlation_id } => {
                let body = ResponseKind::ApiVersions(api::unsupported_version());
                send(&queue, Outgoing { correlation_id, version: 0, reply: body.into() }).await?;
                continue;
            }
        };
        if caller.client != request.client {
            caller.client = request.client;
        }
        let reply = api::handle(node, &caller, request.version, request.body).await;
        drop(incoming.budget);
        let reply = reply.map_err(|e| Closed::Protocol(e.to_string()))?;
        let (correlation_id, version) = (request.correlation_id, request.version);
        send(&queue, Outgoing { correlation_id, version, reply }).await?;
    }
    Ok(())
}

async fn send(queue: &mpsc::Sender<Outgoing>, outgoing: Outgoing) -> Result<(), Closed> {
    queue.send(outgoing).await.map_err(|_| Closed::Unread)
}

async fn send_answers(
    mut output: OwnedWriteHalf,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> Result<(), Closed> {
    while let Some(Outgoing { correlation_id, version, reply }) = outgoing.recv().await {
        let answer = match reply {
            Reply::Now(answer) => *answer,
            Reply::Later(answer) => answer.await,
            Reply::Nothing => continue,
        };
        let bytes = encode(correlation_id, version, &answer)?;
        timeout(STALLED, output.write_all(&bytes)).await.map_err(|_| Closed::Stalled)??;
    }
    Ok(())
}

fn encode(correlation_id: i32, version: i16, answer: &Answer) -> Result<BytesMut, Closed> {
    let broken = |e: &dyn std::fmt::Display| Closed::Protocol(format!("encode an answer: {e}"));
    let mut bytes = BytesMut::with_capacity(256);
    bytes.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    header.encode(&mut bytes, answer.body.header_version(version)).map_err(|e| broken(&e))?;
    answer.body.encode(&mut bytes, version).map_err(|e| broken(&e))?;
    let length = i32::try_from(bytes.len() - 4).map_err(|e| broken(&e))?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}
