//! Writers that work on a server at the same time: inserts, updates, deletes, key changes, transactions over several tables, roll-backs.
//!
//! Each client draws from its own seeded generator, so its choices are the same in every run; how the clients interleave is up to the
//! server, and keys are drawn from one space, so that they do meet. Every change counts a `version` column up: no two changes of
//! a row have the same content, which lets the audit of the topics tell a repeated event from a repeated change.

mod client;
mod tables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use tokio::task::JoinHandle;

use crate::mysql;
use client::Client;
pub use tables::TABLES;

/// A workload on one database.
#[derive(Clone, Debug)]
pub struct Workload {
    url: String,
    seed: u64,
    clients: usize,
    pause: Duration,
}

/// What was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Transactions with at least one change.
    pub transactions: u64,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated, their key unchanged.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Rows that got another key.
    pub rekeyed: u64,
    /// Transactions rolled back on purpose.
    pub rolled_back: u64,
    /// Transactions that the server refused for a deadlock or a lock's time-out.
    pub refused: u64,
}

impl Tally {
    /// Adds what another client did.
    pub fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.rekeyed += other.rekeyed;
        self.rolled_back += other.rolled_back;
        self.refused += other.refused;
    }

    /// Rows changed; a changed key counts once.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.inserted + self.updated + self.deleted + self.rekeyed
    }
}

/// A workload that is being done.
pub struct Running {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Tally>>>,
}

impl Workload {
    /// Creates the tables ([`TABLES`]) in the database of `admin_url` and fills each with about `rows` rows.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create(admin_url: &str, seed: u64, rows: u32) -> Result<Self> {
        let mut conn = mysql::connect(admin_url).await?;
        tables::create(&mut conn, rows).await?;
        conn.disconnect().await?;
        Ok(Self { url: admin_url.to_owned(), seed, clients: 8, pause: Duration::ZERO })
    }

    /// How many clients write; eight unless told.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// How long each client rests between transactions; not at all unless told.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Starts the clients.
    ///
    /// # Errors
    /// When a client can't connect.
    pub async fn start(&self) -> Result<Running> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::with_capacity(self.clients);
        for number in 0..self.clients {
            let mut conn = mysql::connect(&self.url).await?;
            conn.query_drop("SET SESSION innodb_lock_wait_timeout = 2").await?;
            let mut client = Client::new(conn, self.seed, number as u64);
            let (stop, pause) = (stop.clone(), self.pause);
            clients.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.transaction().await.with_context(|| format!("client {number}"))?;
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                Ok(client.finish().await)
            }));
        }
        Ok(Running { stop, clients })
    }

    /// Runs the clients for a time.
    ///
    /// # Errors
    /// When a client fails on anything but a lock.
    pub async fn run(&self, time: Duration) -> Result<Tally> {
        let running = self.start().await?;
        tokio::time::sleep(time).await;
        running.stop().await
    }
}

impl Running {
    /// Lets every client end its transaction, and says what they did together.
    ///
    /// # Errors
    /// When a client failed on anything but a lock.
    pub async fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in self.clients {
            sum.add(&client.await??);
        }
        Ok(sum)
    }
}
