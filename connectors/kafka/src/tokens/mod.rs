//! Tokens for SASL OAUTHBEARER (RFC 7628): one at a time for all clients of a log.
//!
//! Each client of librdkafka asks for a token when it is made, and again when four fifths of one's life are over; whoever polls the client
//! serves that. A client that is only asked questions is polled for it when it is made and before each question ([`Handed::serve`]). librdkafka's
//! admin client cannot be polled: topics are made on a connection of our own then ([`crate::topic_ids::admin`]).
//!
//! A token is fetched once for all. When half of its life is over a thread fetches the next, again and again until it has one: who asks later
//! gets that, and nobody is held up while the old one holds, however slow its source is. Only where there is none that holds, all wait for
//! one attempt. So a source that is away for less than half a token's life is not noticed.
//!
//! No token and no secret is in a message, a log line or a `Debug`.

mod source;

use crate::config::Sasl;
use caudal_core::{Error, Result};
use rdkafka::client::OAuthToken;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use source::Source;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A token, and when it ends.
#[derive(Clone)]
pub(crate) struct Token {
    /// What brokers are shown.
    pub(crate) text: String,
    /// The name in it, or the configured one: for the library's log.
    principal: String,
    /// Milliseconds since the epoch.
    fetched_ms: i64,
    expires_ms: i64,
}

impl Token {
    fn holds(&self, now_ms: i64) -> bool {
        now_ms < self.expires_ms
    }

    /// Until half of its life is over.
    fn stays_young(&self, now_ms: i64) -> Duration {
        let half = self.fetched_ms + (self.expires_ms - self.fetched_ms) / 2;
        Duration::from_millis(u64::try_from(half - now_ms).unwrap_or(0))
    }

    fn for_library(self) -> OAuthToken {
        OAuthToken { token: self.text, principal_name: self.principal, lifetime_ms: self.expires_ms }
    }
}

/// The tokens of a log.
pub(crate) struct Tokens {
    source: Source,
    current: Mutex<Option<Token>>,
    /// Whether a thread fetches the next ones.
    renewing: AtomicBool,
}

// Debug shows no secret.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Of the configured source; none if clients come in by another way.
    pub(crate) fn of(sasl: Option<&Sasl>) -> Option<Arc<Self>> {
        let source = Source::of(sasl?)?;
        Some(Arc::new(Self { source, current: Mutex::default(), renewing: AtomicBool::default() }))
    }

    /// A token that holds. May wait for its source, some 15 s at most.
    ///
    /// # Errors
    /// `Transient` if the source does not answer, `Config` if it refuses or gives what is no token.
    pub(crate) fn get(self: &Arc<Self>) -> Result<Token> {
        let mut current = self.current();
        let now = now_ms();
        if let Some(token) = current.as_ref().filter(|token| token.holds(now)) {
            return Ok(token.clone());
        }
        let token = self.source.fetch()?;
        *current = Some(token.clone());
        drop(current);
        self.renew();
        Ok(token)
    }

    fn current(&self) -> MutexGuard<'_, Option<Token>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the next tokens on a thread of its own, as long as there are clients for them.
    fn renew(self: &Arc<Self>) {
        if self.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let tokens = Arc::downgrade(self);
        let work = move || {
            let mut wait = Duration::ZERO;
            loop {
                std::thread::sleep(wait.min(LOOK));
                let Some(tokens) = tokens.upgrade() else { return };
                wait = tokens.renew_if_old();
            }
        };
        if std::thread::Builder::new().name("caudal-token".into()).spawn(work).is_err() {
            self.renewing.store(false, Ordering::Release);
        }
    }

    /// Gives how long nothing need be done.
    fn renew_if_old(&self) -> Duration {
        let young = self.current().as_ref().map_or(LOOK, |token| token.stays_young(now_ms()));
        if !young.is_zero() {
            return young;
        }
        match self.source.fetch() {
            Ok(token) => *self.current() = Some(token),
            Err(error) => {
                tracing::warn!(%error, "no new token for the brokers yet; the old one is shown as long as it holds")
            }
        }
        LOOK
    }
}

/// How often the thread that fetches tokens looks whether it is time, or whether nobody needs them any more.
const LOOK: Duration = Duration::from_secs(1);

/// What one client is handed its tokens by. Part of its context.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handed {
    tokens: Option<Arc<Tokens>>,
    /// Whether this client has been given one.
    given: Arc<AtomicBool>,
}

/// How long a client may take to ask for its first token: it does at once.
const FIRST: Duration = Duration::from_secs(10);
/// Events of a client's queue that are looked at.
const EVENTS: usize = 200;

impl Handed {
    /// For a client with those tokens, if any.
    pub(crate) fn new(tokens: Option<&Arc<Tokens>>) -> Self {
        Self { tokens: tokens.cloned(), given: Arc::default() }
    }

    /// What a context answers librdkafka.
    ///
    /// # Errors
    /// Why there is no token, in words that show no secret.
    pub(crate) fn token(&self) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        let tokens = self.tokens.as_ref().ok_or("no source of tokens: set `kafka.sasl.token`")?;
        let token = tokens.get()?;
        self.given.store(true, Ordering::Release);
        Ok(token.for_library())
    }

    /// Serves what a client that nobody polls wishes: its first token, or the next one. Does nothing where there are no tokens.
    ///
    /// # Errors
    /// As [`Tokens::get`]; the client itself would only say that it cannot connect.
    pub(crate) fn serve<C: ConsumerContext>(&self, client: &BaseConsumer<C>) -> Result<()> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        tokens.get()?;
        let since = Instant::now();
        while !self.given.load(Ordering::Acquire) {
            if since.elapsed() > FIRST {
                return Err(Error::transient("the client did not ask for its token"));
            }
            serve_one(client, Duration::from_millis(20));
        }
        for _ in 0..EVENTS {
            if !serve_one(client, Duration::ZERO) {
                break;
            }
        }
        Ok(())
    }
}

/// Lines of the client's log come by the same way as its wishes, and errors of its connections, which it mends by itself.
fn serve_one<C: ConsumerContext>(client: &BaseConsumer<C>, patience: Duration) -> bool {
    match client.poll(patience) {
        Some(Err(error)) => {
            tracing::debug!(%error, "serve a client's wish for a token");
            true
        }
        Some(Ok(_)) => true,
        None => false,
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mechanism, TokenSource};
    use std::fs;
    use std::path::Path;

    /// Tokens of a command that counts its runs in a file, each token good for `life` seconds.
    fn counted(dir: &Path, life: f64) -> Arc<Tokens> {
        let script = format!(
            "echo x >> {0}/runs; printf '{{\"access_token\":\"t%s\",\"expires_in\":{life}}}' $(wc -l < {0}/runs)",
            dir.display()
        );
        let command = vec!["sh".into(), "-c".into(), script];
        let token = Some(TokenSource { command, ..TokenSource::default() });
        Tokens::of(Some(&Sasl { mechanism: Mechanism::OauthBearer, token, ..Sasl::default() })).unwrap()
    }

    #[test]
    fn one_token_serves_all_and_is_renewed_before_it_ends_while_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = counted(dir.path(), 3_600.0);
        assert_eq!(tokens.get().unwrap().text, "t1");
        assert_eq!(tokens.get().unwrap().text, "t1");
        // As if half of its life were over: it still holds.
        tokens.current().as_mut().unwrap().fetched_ms -= 3_600_000;
        let deadline = Instant::now() + Duration::from_secs(60);
        while tokens.get().unwrap().text == "t1" {
            assert!(Instant::now() < deadline, "it is never renewed");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(tokens.get().unwrap().text, "t2");
        assert_eq!(fs::read_to_string(dir.path().join("runs")).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_token_that_has_ended_is_not_given() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = counted(dir.path(), 3_600.0);
        tokens.get().unwrap();
        tokens.current().as_mut().unwrap().expires_ms = now_ms();
        assert_eq!(tokens.get().unwrap().text, "t2");
    }

    #[test]
    fn nothing_shows_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = counted(dir.path(), 3_600.0);
        tokens.get().unwrap();
        assert!(!format!("{tokens:?} {:?}", Handed::new(Some(&tokens))).contains("t1"));
    }
}
