//! One client of the shop: places, pays, sends, cancels orders, and edits customers.
//!
//! Clients never touch each other's orders: each has those whose number leaves its own remainder. Orders that are updated and orders that are
//! cancelled come from different ends, so that what the watcher waits for is never undone before it was seen.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc::Sender;

use super::{CLIENTS, Commit, Sign};
use crate::generate::{CUSTOMERS, PRODUCTS, WAREHOUSES};

pub(super) struct Shopper {
    conn: Conn,
    random: SmallRng,
    next: u64,
    /// Orders this client may update: those it placed, and the older half of those that were there.
    mine: Vec<u64>,
    /// Orders this client may cancel, each once.
    to_cancel: VecDeque<u64>,
    commits: Sender<Commit>,
}

impl Shopper {
    /// Client `number`; `top` is the highest order's number at the start. Orders that an earlier run cancelled are gone: it asks.
    pub(super) async fn new(mut conn: Conn, top: u64, number: u32, commits: Sender<Commit>) -> Result<Self> {
        let (clients, number) = (u64::from(CLIENTS), u64::from(number));
        let own = "SELECT id FROM orders WHERE id <= ? AND id % ? = ? ORDER BY id";
        let mut mine: Vec<u64> = conn.exec(own, (top, clients, number)).await.context("list the orders")?;
        let to_cancel = mine.split_off(mine.len() / 2).into();
        // The next number above all, with the own remainder.
        let next = (top / clients + 1) * clients + number;
        let random = SmallRng::seed_from_u64(top.wrapping_mul(31) + number);
        Ok(Self { conn, random, next, mine, to_cancel, commits })
    }

    /// One transaction every `pace`, from `first` until `end`. A slow source makes it late, never denser.
    pub(super) async fn work(&mut self, first: Instant, pace: Duration, end: Instant) -> Result<()> {
        let mut at = first;
        while at < end {
            tokio::time::sleep_until(at.into()).await;
            let commit = self.transaction().await.context("work on the shop")?;
            // The watcher may have given up; the work goes on to its end all the same.
            let _ = self.commits.send(commit).await;
            at = (at + pace).max(Instant::now().checked_sub(pace).unwrap_or(at));
        }
        Ok(())
    }

    async fn transaction(&mut self) -> Result<Commit> {
        self.conn.query_drop("START TRANSACTION").await?;
        let mut commit = match self.random.random_range(0..100) {
            0..45 => self.place().await?,
            45..90 => self.advance().await?,
            _ => self.cancel().await?,
        };
        self.conn.query_drop("COMMIT").await?;
        commit.at = Instant::now();
        Ok(commit)
    }

    /// A new order with its lines; the stock goes down.
    async fn place(&mut self) -> Result<Commit> {
        let id = self.next;
        self.next += u64::from(CLIENTS);
        let customer = self.random.random_range(1..=CUSTOMERS);
        let lines = self.random.random_range(1..=4u64);
        let head = "INSERT INTO orders (id, customer_id, state, placed, total, note) VALUES (?, ?, 'new', NOW(3), ?, 'live')";
        self.conn.exec_drop(head, (id, customer, lines * 1999)).await?;
        // In ascending order, so that two clients never wait for each other in a circle.
        let mut products: Vec<u64> = (0..lines).map(|_| self.random.random_range(1..=PRODUCTS)).collect();
        products.sort_unstable();
        let mut updates = 0;
        for (line, product) in (1u64..).zip(products) {
            let row = "INSERT INTO order_lines SELECT ?, ?, id, 1, price FROM products WHERE id = ?";
            self.conn.exec_drop(row, (id, line, product)).await?;
            let house = WAREHOUSES[self.random.random_range(0..WAREHOUSES.len())];
            let taken = "UPDATE stock SET quantity = quantity - 1, counted = NOW(3) WHERE product_id = ? AND warehouse = ?";
            self.conn.exec_drop(taken, (product, house)).await?;
            updates += self.conn.affected_rows();
        }
        self.mine.push(id);
        Ok(commit(id, Sign::There, [1 + lines, updates, 0]))
    }

    /// An order is paid or sent, and its customer gets credit.
    async fn advance(&mut self) -> Result<Commit> {
        let at = self.random.random_range(0..self.mine.len());
        let id = self.mine[at];
        let next =
            "UPDATE orders SET state = 'paid', total = total + 0.01, version = version + 1 WHERE id = ?";
        self.conn.exec_drop(next, (id,)).await?;
        let mut inserts = 0;
        if self.random.random_ratio(1, 2) {
            let payment =
                "INSERT INTO payments (order_id, method, amount, paid) VALUES (?, 'card', 19.99, NOW(6))";
            self.conn.exec_drop(payment, (id,)).await?;
            inserts = 1;
        }
        let version: Option<i32> =
            self.conn.exec_first("SELECT version FROM orders WHERE id = ?", (id,)).await?;
        Ok(commit(id, Sign::Version(version.context("the order is gone")?), [inserts, 1, 0]))
    }

    /// An order is taken back, with all that belongs to it.
    async fn cancel(&mut self) -> Result<Commit> {
        let Some(id) = self.to_cancel.pop_front() else { return self.advance().await };
        let mut deletes = 0;
        for statement in [
            "DELETE FROM payments WHERE order_id = ?",
            "DELETE FROM order_lines WHERE order_id = ?",
            "DELETE FROM orders WHERE id = ?",
        ] {
            self.conn.exec_drop(statement, (id,)).await?;
            deletes += self.conn.affected_rows();
        }
        Ok(commit(id, Sign::Gone, [0, 0, deletes]))
    }
}

fn commit(order: u64, sign: Sign, [inserts, updates, deletes]: [u64; 3]) -> Commit {
    Commit { order: order.cast_signed(), sign, at: Instant::now(), inserts, updates, deletes }
}
