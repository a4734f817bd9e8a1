//! Reading request frames: length i32, then header and body.

use super::{Closed, SMALL_FRAME, STALLED, shape};
use crate::api;
use crate::node::{BUDGET_UNIT, Node};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind};
use kafka_protocol::protocol::Decodable;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// Shortest header: api key, version, correlation id.
const SHORTEST: usize = 8;

/// A whole frame without its length, with the budget it holds.
pub(super) struct Incoming {
    pub(super) bytes: Bytes,
    pub(super) budget: Option<OwnedSemaphorePermit>,
}

/// A decoded frame.
pub(super) enum Request {
    Understood(Box<Understood>),
    /// The client asks for versions in a version that is not known.
    NewerApiVersions {
        correlation_id: i32,
    },
}

/// A request that is served.
pub(super) struct Understood {
    pub(super) correlation_id: i32,
    pub(super) version: i16,
    pub(super) client: String,
    pub(super) body: RequestKind,
}

/// Reads the next frame; `None` when the client is done.
pub(super) async fn read(
    node: &Node,
    input: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
) -> Result<Option<Incoming>, Closed> {
    while buffer.len() < 4 {
        buffer.reserve(4 << 10);
        if input.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(cut_short()) };
        }
    }
    let length = buffer.get_i32();
    let length =
        usize::try_from(length).ok().filter(|n| (SHORTEST..=node.config.max_frame_bytes).contains(n));
    let Some(length) = length else {
        return Err(Closed::Protocol(
            "frame size out of range: not a Kafka client, or too large a request".into(),
        ));
    };
    let budget = if length > SMALL_FRAME {
        let units = length.div_ceil(BUDGET_UNIT) as u32;
        node.request_budget.clone().acquire_many_owned(units).await.ok()
    } else {
        None
    };
    let filled = timeout(STALLED, fill(input, buffer, length)).await;
    filled.map_err(|_| Closed::Stalled)??;
    Ok(Some(Incoming { bytes: buffer.split_to(length).freeze(), budget }))
}

async fn fill(input: &mut OwnedReadHalf, buffer: &mut BytesMut, length: usize) -> Result<(), Closed> {
    buffer.reserve(length.saturating_sub(buffer.len()));
    while buffer.len() < length {
        if input.read_buf(buffer).await? == 0 {
            return Err(cut_short());
        }
    }
    Ok(())
}

fn cut_short() -> Closed {
    Closed::Protocol("a frame is cut short".into())
}

/// Decodes a frame whose request is offered.
pub(super) fn decode(mut frame: Bytes) -> Result<Request, Closed> {
    let key = i16::from_be_bytes([frame[0], frame[1]]);
    let version = i16::from_be_bytes([frame[2], frame[3]]);
    let unknown = || Closed::Protocol(format!("request {key} in version {version} is not offered"));
    let api = ApiKey::try_from(key).map_err(|_| unknown())?;
    if !api::is_supported(api, version) {
        if api != ApiKey::ApiVersions {
            return Err(unknown());
        }
        let correlation_id = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
        return Ok(Request::NewerApiVersions { correlation_id });
    }
    let malformed = |e: &dyn std::fmt::Display| Closed::Protocol(format!("malformed {api:?}: {e}"));
    let header = RequestHeader::decode(&mut frame, api.request_header_version(version));
    let header = header.map_err(|e| malformed(&e))?;
    shape::check(api, version, &frame).map_err(|e| malformed(&e))?;
    let body = RequestKind::decode(api, &mut frame, version).map_err(|e| malformed(&e))?;
    Ok(Request::Understood(Box::new(Understood {
        correlation_id: header.correlation_id,
        version,
        client: header.client_id.map(|c| c.to_string()).unwrap_or_default(),
        body,
    })))
}
