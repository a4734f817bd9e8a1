//! One client: its own connection and its own seeded choices.

use anyhow::Result;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Tally;
use super::tables::REGIONS;

/// Keys are drawn up to this number, whatever the tables were filled with: misses are part of the work.
const KEYS: i64 = 6_000;
/// The server's codes for: duplicate key, lock wait time-out, deadlock.
const DUPLICATE: u16 = 1062;
const LOCKED: [u16; 2] = [1205, 1213];

pub(super) struct Client {
    conn: Conn,
    random: SmallRng,
    number: u64,
    serial: u64,
    tally: Tally,
}

/// How a statement went.
enum Ran {
    Rows(u64),
    Locked,
}

impl Client {
    pub(super) fn new(conn: Conn, seed: u64, number: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
        Self { conn, random, number, serial: 0, tally: Tally::default() }
    }

    pub(super) async fn finish(self) -> Tally {
        // What was committed is committed: a connection that can't say good-bye changes nothing.
        let _ = self.conn.disconnect().await;
        self.tally
    }

    /// One transaction of one to four changes; one in twenty is rolled back.
    pub(super) async fn transaction(&mut self) -> Result<()> {
        let steps = if self.random.random_ratio(3, 10) { self.random.random_range(2..=4) } else { 1 };
        let mut done = Tally::default();
        self.conn.query_drop("START TRANSACTION").await?;
        for _ in 0..steps {
            if !self.step(&mut done).await? {
                self.conn.query_drop("ROLLBACK").await?;
                self.tally.refused += 1;
                return Ok(());
            }
        }
        if self.random.random_ratio(1, 20) {
            self.conn.query_drop("ROLLBACK").await?;
            self.tally.rolled_back += 1;
            return Ok(());
        }
        self.conn.query_drop("COMMIT").await?;
        done.transactions = u64::from(done.changes() > 0);
        self.tally.add(&done);
        Ok(())
    }

    /// One change; false when a lock stood in the way.
    async fn step(&mut self, done: &mut Tally) -> Result<bool> {
        let table = self.random.random_range(0..3);
        let (count, ran): (fn(&mut Tally) -> &mut u64, Ran) = match self.random.random_range(0..100) {
            0..36 => (|t| &mut t.inserted, self.insert(table).await?),
            36..76 => (|t| &mut t.updated, self.update(table).await?),
            76..90 => (|t| &mut t.deleted, self.delete(table).await?),
            _ => (|t| &mut t.rekeyed, self.rekey(table).await?),
        };
        match ran {
            Ran::Rows(n) => *count(done) += n,
            Ran::Locked => return Ok(false),
        }
        Ok(true)
    }

    async fn insert(&mut self, table: u8) -> Result<Ran> {
        let key = self.key();
        match table {
            0 => {
                let query = "INSERT INTO people (id, name, balance, score, doc, photo, version) \
                     VALUES (?, ?, ?, ?, JSON_OBJECT('by', ?), UNHEX(SHA2(?, 224)), ?)";
                let (name, score, version) = (self.text(), self.random.random::<f64>(), self.version());
                self.run(query, (key, name, key as f64 / 4.0, score, self.number, key, version)).await
            }
            1 => {
                let query = "INSERT INTO orders (region, number, person, amount, state, placed, note, version) \
                     VALUES (?, ?, ?, ?, 'new', NOW(3), ?, ?)";
                let (region, note, version) = (self.region(), self.text(), self.version());
                let (person, amount) = (self.key(), self.random.random_range(1..100_000i64));
                self.run(query, (region, key, person, amount, note, version)).await
            }
            _ => {
                let query = "INSERT INTO tags (code, body, version) VALUES (?, ?, ?)";
                let (body, version) = (self.text(), self.version());
                self.run(query, (format!("tag-{key}"), body, version)).await
            }
        }
    }

    async fn update(&mut self, table: u8) -> Result<Ran> {
        let (key, text) = (self.key(), self.text());
        match table {
            0 => {
                let query = "UPDATE people SET name = ?, balance = balance + 0.01, active = 1 - active, seen = NOW(6), \
                     doc = JSON_SET(doc, '$.v', version), version = version + 1 WHERE id = ?";
                self.run(query, (text, key)).await
            }
            1 => {
                // A range: several rows in one event.
                let query = "UPDATE orders SET note = ?, state = 'paid', version = version + 1 WHERE region = ? AND number BETWEEN ? AND ?";
                let region = self.region();
                self.run(query, (text, region, key, key + 7)).await
            }
            _ => {
                self.run(
                    "UPDATE tags SET body = ?, hits = hits + 1, version = version + 1 WHERE code = ?",
                    (text, format!("tag-{key}")),
                )
                .await
            }
        }
    }

    async fn delete(&mut self, table: u8) -> Result<Ran> {
        let key = self.key();
        match table {
            0 => self.run("DELETE FROM people WHERE id = ?", (key,)).await,
            1 => {
                let region = self.region();
                self.run(
                    "DELETE FROM orders WHERE region = ? AND number BETWEEN ? AND ?",
                    (region, key, key + 3),
                )
                .await
            }
            _ => self.run("DELETE FROM tags WHERE code = ?", (format!("tag-{key}"),)).await,
        }
    }

    async fn rekey(&mut self, table: u8) -> Result<Ran> {
        let from = self.key();
        let to = (from + self.random.random_range(1..KEYS)) % KEYS + 1;
        let to = if to == from { KEYS + from } else { to };
        match table {
            0 => self.run("UPDATE people SET id = ?, version = version + 1 WHERE id = ?", (to, from)).await,
            1 => {
                let (region, other) = (self.region(), self.region());
                let query = "UPDATE orders SET region = ?, number = ?, version = version + 1 WHERE region = ? AND number = ?";
                self.run(query, (other, to, region, from)).await
            }
            _ => {
                let query = "UPDATE tags SET code = ?, version = version + 1 WHERE code = ?";
                self.run(query, (format!("tag-{to}"), format!("tag-{from}"))).await
            }
        }
    }

    /// Runs a statement; a key that is taken already is a change of no rows.
    async fn run(&mut self, query: &str, params: impl Into<Params> + Send) -> Result<Ran> {
        match self.conn.exec_drop(query, params.into()).await {
            Ok(()) => Ok(Ran::Rows(self.conn.affected_rows())),
            Err(mysql_async::Error::Server(e)) if e.code == DUPLICATE => Ok(Ran::Rows(0)),
            Err(mysql_async::Error::Server(e)) if LOCKED.contains(&e.code) => Ok(Ran::Locked),
            Err(e) => Err(e.into()),
        }
    }

    fn key(&mut self) -> i64 {
        self.random.random_range(1..=KEYS)
    }

    fn region(&mut self) -> &'static str {
        REGIONS[self.random.random_range(0..REGIONS.len())]
    }

    /// Versions of one client never repeat, so neither does the content of a row that is deleted and inserted again.
    fn version(&mut self) -> u64 {
        self.serial += 1;
        (self.number + 1) * 100_000_000 + self.serial
    }

    fn text(&mut self) -> String {
        const WORDS: [&str; 8] =
            ["río", "caudal", "orilla", "puente", "agua", "corriente", "delta", "fuente"];
        let count = self.random.random_range(1..=6);
        let words: Vec<&str> = (0..count).map(|_| WORDS[self.random.random_range(0..WORDS.len())]).collect();
        words.join(" ")
    }
}
