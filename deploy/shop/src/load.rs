//! Filling the shop: large statements, a few per transaction.

use std::time::Instant;

use anyhow::{Context, Result};
use caudal_tests::mysql;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::figures::grouped;
use crate::generate::{self, CUSTOMERS, ORDERS, PRODUCTS};
use crate::schema::{self, TABLES};

/// Rows per INSERT: statements stay well below the server's packet limit.
const ROWS: usize = 1_000;
/// The comment of the last table, written when all is in: where it stands, the shop is whole.
const MARK: &str = "filled by the sample shop";

pub(crate) async fn load(source: &str, seed: u64) -> Result<()> {
    let database = schema::database_of(source)?;
    let mut conn =
        mysql::connect(&without_database(source, &database)).await.context("connect to the source")?;
    if is_loaded(&mut conn, &database).await? {
        println!("  the shop is there already");
        return Ok(());
    }
    let started = Instant::now();
    conn.query_drop(format!("DROP DATABASE IF EXISTS `{database}`; CREATE DATABASE `{database}` CHARACTER SET utf8mb4; USE `{database}`")).await?;
    conn.query_drop(schema::CREATE).await?;
    let rows = fill(&mut conn, seed).await?;
    conn.query_drop(format!("ALTER TABLE {} COMMENT = '{MARK}'", TABLES[TABLES.len() - 1])).await?;
    conn.disconnect().await?;
    let seconds = started.elapsed().as_secs_f64();
    println!("  {} rows in {} tables, after {seconds:.1} s", grouped(rows), TABLES.len());
    Ok(())
}

fn without_database(source: &str, database: &str) -> String {
    source.strip_suffix(database).unwrap_or(source).to_owned()
}

async fn is_loaded(conn: &mut Conn, database: &str) -> Result<bool> {
    let query = "SELECT 1 FROM information_schema.tables WHERE table_schema = ? AND table_comment = ?";
    Ok(conn.exec_first::<u8, _, _>(query, (database, MARK)).await?.is_some())
}

async fn fill(conn: &mut Conn, seed: u64) -> Result<u64> {
    let mut customers = Filling::new("customers");
    for id in 1..=CUSTOMERS {
        customers.add(conn, generate::customer(seed, id)).await?;
    }
    let mut rows = customers.finish(conn).await?;
    let (mut products, mut stock) = (Filling::new("products"), Filling::new("stock"));
    for id in 1..=PRODUCTS {
        products.add(conn, generate::product(seed, id)).await?;
    }
    rows += products.finish(conn).await?;
    for id in 1..=PRODUCTS {
        for row in generate::stock(seed, id) {
            stock.add(conn, row).await?;
        }
    }
    rows += stock.finish(conn).await?;
    Ok(rows + fill_orders(conn, seed).await?)
}

/// Heads first, so that lines and payments have what they refer to.
async fn fill_orders(conn: &mut Conn, seed: u64) -> Result<u64> {
    let (mut heads, mut lines) = (Filling::new("orders"), Filling::new("order_lines"));
    let mut payments = Filling::new("payments (order_id, method, amount, paid, reference)");
    for id in 1..=ORDERS {
        heads.add(conn, generate::order(seed, id).head).await?;
    }
    let mut rows = heads.finish(conn).await?;
    for id in 1..=ORDERS {
        let order = generate::order(seed, id);
        for line in order.lines {
            lines.add(conn, line).await?;
        }
        if let Some(payment) = order.payment {
            payments.add(conn, payment).await?;
        }
    }
    rows += lines.finish(conn).await?;
    Ok(rows + payments.finish(conn).await?)
}

/// One table being filled.
struct Filling {
    table: &'static str,
    waiting: Vec<String>,
    rows: u64,
}

impl Filling {
    fn new(table: &'static str) -> Self {
        Self { table, waiting: Vec::with_capacity(ROWS), rows: 0 }
    }

    async fn add(&mut self, conn: &mut Conn, row: String) -> Result<()> {
        self.waiting.push(row);
        if self.waiting.len() == ROWS {
            self.send(conn).await?;
        }
        Ok(())
    }

    async fn send(&mut self, conn: &mut Conn) -> Result<()> {
        let statement = format!("INSERT INTO {} VALUES {}", self.table, self.waiting.join(","));
        conn.query_drop(statement).await.with_context(|| format!("fill {}", self.table))?;
        self.rows += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    async fn finish(mut self, conn: &mut Conn) -> Result<u64> {
        if !self.waiting.is_empty() {
            self.send(conn).await?;
        }
        Ok(self.rows)
    }
}
