//! A proxy before a MySQL server that harms the stream of the binlog: bytes changed, lost, repeated, made up; connections cut,
//! held up, or answered slowly. Only what the server sends after a request for the binlog is harmed: all before it has no checksum.
//!
//! Which harm comes where follows from a seed.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What is done to the stream, once, at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// One bit is turned.
    Flip,
    /// Up to 8 bytes are others.
    Overwrite,
    /// Some bytes are missing.
    Lose,
    /// Some bytes come twice.
    Repeat,
    /// Bytes that nobody sent.
    Insert,
    /// The connection ends.
    Cut,
    /// Nothing comes any more.
    Silence,
    /// A pause that is no reason to give up.
    Delay,
}

impl Harm {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Flip,
        Self::Overwrite,
        Self::Lose,
        Self::Repeat,
        Self::Insert,
        Self::Cut,
        Self::Silence,
        Self::Delay,
    ];

    /// Whether the reader must end with an error.
    #[must_use]
    pub fn is_damage(self) -> bool {
        self != Self::Delay
    }
}

/// How the connections that come are harmed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What may be done.
    pub harms: Vec<Harm>,
    /// At which byte of the binlog's stream, at most.
    pub within: u64,
    /// After it, at a place of the same distance, again (of a `Delay`, which ends nothing).
    pub again: bool,
}

struct Shared {
    target: String,
    plan: Mutex<Option<Plan>>,
    random: Mutex<SmallRng>,
    done: Mutex<Vec<Harm>>,
    /// Whether the newest stream was harmed.
    harmed: AtomicBool,
    passed: AtomicU64,
    cut: tokio::sync::Notify,
}

/// A listening proxy; it ends with the runtime.
#[derive(Clone)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Before `target` (`host:port`); harmless until [`Proxy::plan`].
    ///
    /// # Errors
    /// When it can't listen.
    pub async fn start(target: &str, seed: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            plan: Mutex::default(),
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            done: Mutex::default(),
            harmed: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            cut: tokio::sync::Notify::new(),
        });
        let proxy = Self { port: listener.local_addr()?.port(), shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&shared)));
            }
        });
        Ok(proxy)
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How connections that come from now on are harmed; none: not at all.
    pub fn plan(&self, plan: Option<Plan>) {
        *lock(&self.shared.plan) = plan;
    }

    /// What was done so far, in order.
    #[must_use]
    pub fn done(&self) -> Vec<Harm> {
        lock(&self.shared.done).clone()
    }

    /// Whether the newest stream of a binlog was harmed (a `Delay` is no harm).
    #[must_use]
    pub fn harmed(&self) -> bool {
        self.shared.harmed.load(Ordering::Acquire)
    }

    /// Ends all connections that are open.
    pub fn cut(&self) {
        self.shared.cut.notify_waiters();
    }

    /// Bytes of binlogs that went through.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(&shared.target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let dumps = Arc::new(AtomicBool::new(false));
    let up = tokio::spawn(requests(from_client, to_server, Arc::clone(&dumps)));
    tokio::select! {
        () = answers(from_server, to_client, &dumps, &shared) => {}
        () = shared.cut.notified() => {}
    }
    up.abort();
}

/// Passes requests on, and sees whether one asks for the binlog.
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, dumps: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer).await else { return };
        // A request is the first packet of its sequence; ours are sent in one piece.
        if n > 4 && buffer[3] == 0 && matches!(buffer[4], 0x12 | 0x1e) {
            dumps.store(true, Ordering::Release);
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// Passes answers on; those of a binlog are harmed as planned.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, dumps: &AtomicBool, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    let mut next: Option<(Harm, u64)> = None;
    let mut began = false;
    let mut at = 0;
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer).await else { return };
        let mut bytes = buffer[..n].to_vec();
        if dumps.load(Ordering::Acquire) {
            if !std::mem::replace(&mut began, true) {
                shared.harmed.store(false, Ordering::Release);
                next = choose(shared, 0);
            }
            shared.passed.fetch_add(n as u64, Ordering::Relaxed);
            if let Some((harm, place)) = next.filter(|(_, place)| *place < at + n as u64) {
                next = None;
                lock(&shared.done).push(harm);
                shared.harmed.store(harm.is_damage(), Ordering::Release);
                if !apply(harm, (place - at) as usize, &mut bytes, shared, &mut to).await {
                    return;
                }
                if lock(&shared.plan).as_ref().is_some_and(|p| p.again) && !harm.is_damage() {
                    next = choose(shared, at + n as u64);
                }
            }
            at += n as u64;
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn choose(shared: &Shared, from: u64) -> Option<(Harm, u64)> {
    let plan = lock(&shared.plan).clone()?;
    let mut random = lock(&shared.random);
    let harm = plan.harms[random.random_range(0..plan.harms.len())];
    Some((harm, from + random.random_range(0..plan.within.max(1))))
}

/// False: the connection ends.
async fn apply(harm: Harm, at: usize, bytes: &mut Vec<u8>, shared: &Shared, to: &mut OwnedWriteHalf) -> bool {
    let (place, count, noise) = {
        let mut random = lock(&shared.random);
        let mut noise = [0u8; 8];
        random.fill_bytes(&mut noise);
        (at.min(bytes.len() - 1), random.random_range(1..=8usize), noise)
    };
    let end = (place + count).min(bytes.len());
    match harm {
        Harm::Flip => bytes[place] ^= 1 << (noise[0] % 8),
        Harm::Overwrite => {
            let first = bytes[place];
            for (byte, noise) in bytes[place..end].iter_mut().zip(noise) {
                *byte = noise;
            }
            // Another byte at least in one place.
            bytes[place] = first ^ noise[7].max(1);
        }
        Harm::Lose => drop(bytes.drain(place..end)),
        Harm::Repeat => {
            let again = bytes[place..end].to_vec();
            bytes.splice(place..place, again);
        }
        Harm::Insert => drop(bytes.splice(place..place, noise[..count].iter().copied())),
        Harm::Cut => {
            let _ = to.write_all(&bytes[..place]).await;
            return false;
        }
        Harm::Silence => {
            let _ = to.write_all(&bytes[..place]).await;
            // Until the client gives up.
            tokio::time::sleep(Duration::from_secs(600)).await;
            return false;
        }
        Harm::Delay => tokio::time::sleep(Duration::from_millis(300)).await,
    }
    true
}
