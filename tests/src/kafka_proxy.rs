//! A proxy before a Kafka that loses the ends of transactions: the request, or its answer. Whoever asked does not know what became of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// `EndTxn` in the Kafka protocol.
const END_TXN: i16 = 26;

/// Which ends of transactions are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// None.
    Nothing,
    /// Each third: in turns the request, so that nothing was decided, and the answer, so that it was.
    Some,
    /// All answers.
    Answers,
}

#[derive(Default)]
struct State {
    target: AtomicU16,
    loss: Mutex<Option<Loss>>,
    seen: AtomicU64,
    requests: AtomicU64,
    answers: AtomicU64,
}

/// What is done to the end of one transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    LoseRequest,
    LoseAnswer,
}

impl State {
    fn fate(&self) -> Fate {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        match self.loss.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(Loss::Nothing) {
            Loss::Answers => Fate::LoseAnswer,
            Loss::Some if seen % 6 == 1 => Fate::LoseRequest,
            Loss::Some if seen % 6 == 4 => Fate::LoseAnswer,
            _ => Fate::Pass,
        }
    }
}

/// The proxy; it ends with the test's runtime.
pub struct KafkaProxy {
    port: u16,
    state: Arc<State>,
}

impl KafkaProxy {
    /// Listens on a free port; connections are refused until it has a target.
    ///
    /// # Errors
    /// When it can't listen.
    pub async fn listen() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", crate::ports::free_port()?)).await?;
        let (port, state) = (listener.local_addr()?.port(), Arc::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, Arc::clone(&shared)));
            }
        });
        Ok(Self { port, state })
    }

    /// Connects clients to this port of 127.0.0.1 from now on.
    pub fn to(&self, port: u16) {
        self.state.target.store(port, Ordering::Relaxed);
    }

    /// `host:port` of the proxy: what the broker behind it must advertise.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Loses these from now on.
    pub fn lose(&self, loss: Loss) {
        *self.state.loss.lock().unwrap_or_else(PoisonError::into_inner) = Some(loss);
    }

    /// How many requests and answers were lost.
    #[must_use]
    pub fn lost(&self) -> (u64, u64) {
        (self.state.requests.load(Ordering::Relaxed), self.state.answers.load(Ordering::Relaxed))
    }
}

/// Correlation ids of requests whose answers are to be lost.
type Doomed = Arc<Mutex<HashSet<i32>>>;

async fn connection(client: TcpStream, state: Arc<State>) {
    let target = state.target.load(Ordering::Relaxed);
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let doomed = Doomed::default();
    // The connection ends with either way.
    tokio::select! {
        _ = requests(from_client, to_server, &state, &doomed) => {}
        _ = answers(from_server, to_client, &state, &doomed) => {}
    }
}

async fn frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut frame = vec![0; length as usize + 4];
    frame[..4].copy_from_slice(&length.to_be_bytes());
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

fn correlation(frame: &[u8], at: usize) -> i32 {
    frame.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(-1, i32::from_be_bytes)
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    doomed: &Doomed,
) -> std::io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        let api = frame.get(4..6).and_then(|b| b.try_into().ok()).map_or(-1, i16::from_be_bytes);
        if api == END_TXN {
            match state.fate() {
                Fate::Pass => {}
                Fate::LoseRequest => {
                    state.requests.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Fate::LoseAnswer => {
                    doomed.lock().unwrap_or_else(PoisonError::into_inner).insert(correlation(&frame, 8));
                }
            }
        }
        to.write_all(&frame).await?;
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    doomed: &Doomed,
) -> std::io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        if doomed.lock().unwrap_or_else(PoisonError::into_inner).remove(&correlation(&frame, 4)) {
            state.answers.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        to.write_all(&frame).await?;
    }
}
