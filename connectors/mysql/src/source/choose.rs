//! Which server of the list is read: the first that answers, can be captured, and can go on from the stored place.
//!
//! Every one that cannot is told with its reason. A server that lacks what was delivered, or purged what was not, is passed over,
//! never read with a gap; nor is one without GTIDs that is not the one whose file and position were stored.

use super::{history, stream_endpoint, stream_options};
use crate::binlog::{BinlogStream, Event};
use crate::check;
use crate::client::Client;
use crate::config::Resolved;
use crate::position::{Place, Token, source_position};
use crate::snapshot::progress::Notes;
use caudal_core::{Error, Fault, Position, Result};
use std::sync::Arc;
use std::time::Duration;

/// How long the first event of a stream may take: servers send one at once.
const FIRST_EVENT: Duration = Duration::from_secs(60);

/// A server to read from, and where.
pub(super) struct Chosen {
    /// With this server's address only: all further connections go there, and to no other server.
    pub(super) config: Arc<Resolved>,
    pub(super) sql: Client,
    pub(super) token: Token,
    pub(super) notes: Notes,
    pub(super) stream: BinlogStream,
    pub(super) first: Event,
}

/// Tries the servers in their order.
///
/// # Errors
/// That of the only server; of several, all of them: `Transient` if any may pass.
pub(super) async fn choose(config: &Arc<Resolved>, from: Option<&Position>) -> Result<Chosen> {
    let mut errors = Vec::new();
    for place in config.places() {
        match try_one(config.at(&place), from).await {
            Ok(chosen) => return Ok(chosen),
            Err(e) => {
                if !config.hosts.is_empty() {
                    tracing::warn!(source = config.name, host = place.0, port = place.1, error = %e, "this server cannot be read");
                }
                errors.push((place, e));
            }
        }
    }
    Err(all_failed(config, errors))
}

/// A connection to the first server that answers.
///
/// # Errors
/// As [`choose`].
pub(super) async fn any(config: &Resolved) -> Result<Client> {
    let mut errors = Vec::new();
    for place in config.places() {
        match Client::connect(&config.at(&place)).await {
            Ok(client) => return Ok(client),
            Err(e) => errors.push((place, e)),
        }
    }
    Err(all_failed(config, errors))
}

fn all_failed(config: &Resolved, mut errors: Vec<((String, u16), Error)>) -> Error {
    if errors.len() == 1
        && let Some((_, error)) = errors.pop()
    {
        return error;
    }
    let passes = errors.iter().any(|(_, e)| e.fault() == Fault::Transient);
    let hint = errors.iter().find(|(_, e)| e.fault() != Fault::Transient).or(errors.first());
    let hint = hint.and_then(|(_, e)| e.hint_text()).unwrap_or("see the message of each").to_owned();
    let each: Vec<String> = errors.iter().map(|((host, port), e)| format!("{host}:{port}: {e}")).collect();
    let fault = if passes { Fault::Transient } else { Fault::Config };
    Error::new(fault, format!("none of the source's servers can be read: {}", each.join("; ")))
        .field(config.field("hosts"))
        .hint(hint)
}

async fn try_one(config: Resolved, from: Option<&Position>) -> Result<Chosen> {
    let mut sql = Client::connect(&config).await?;
    let config = Arc::new(Resolved { identity: Some(sql.identity.clone()), ..config });
    check::require(&mut sql, &config).await?;
    let (mut token, mut notes) = match from {
        Some(position) => {
            let stored = source_position(position)?;
            (Token::decode(&stored.token, sql.version.family)?, Notes::read(&stored.notes)?)
        }
        None => (super::first_token(&mut sql).await?, Notes::default()),
    };
    if token.server.as_ref().is_some_and(|server| *server != sql.identity) {
        moved(&config, &sql, &mut token, &mut notes)?;
    }
    history::require(&mut sql, &token.place).await?;
    token.server = Some(sql.identity.clone());
    let options = stream_options(&config, &mut sql, &token).await?;
    let mut stream = BinlogStream::open(&stream_endpoint(&config, sql.encrypted)?, options).await?;
    // Whether the server still has what comes next shows only here.
    let first = tokio::time::timeout(FIRST_EVENT, stream.next()).await;
    let first = first.map_err(|_| Error::transient("the server does not begin to send its log"))??;
    Ok(Chosen { config, sql, token, notes, stream, first })
}

/// Another server than the one that was read: file and position mean nothing here, its GTIDs do.
fn moved(config: &Resolved, sql: &Client, token: &mut Token, notes: &mut Notes) -> Result<()> {
    let before = token.server.clone().unwrap_or_default();
    if token.place.gtid.is_none() {
        return Err(Error::config(format!(
            "this is another server ({}) than the one that was read ({before}), and without GTIDs its log cannot be matched with the stored file and position",
            sql.identity
        ))
        .hint("point the url at the server that was read, or start the source anew under another name; with gtid_mode=ON a failover can be followed"));
    }
    tracing::warn!(
        source = config.name,
        host = config.address.host,
        port = config.address.port,
        server = sql.identity,
        before,
        "another server than before: going on by GTID"
    );
    notes.moved(&token.place);
    // Nothing is known to be passed until the stream says where it is.
    token.place = Place { gtid: token.place.gtid.take(), file: String::new(), pos: 0 };
    Ok(())
}
