//! The table that is measured: thirteen columns of mixed types, about 200 bytes a row, each content a function of its number.

use anyhow::{Context, Result};
use caudal_tests::mysql;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

const TABLE: &str = "CREATE TABLE sbtest (
    id BIGINT NOT NULL PRIMARY KEY,
    k INT NOT NULL,
    c CHAR(60) NOT NULL,
    pad VARCHAR(60) NOT NULL,
    price DECIMAL(12,2) NOT NULL,
    score DOUBLE,
    flag TINYINT(1) NOT NULL,
    created DATETIME(3) NOT NULL,
    ts TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    e ENUM('a','b','c'),
    doc JSON,
    bin VARBINARY(16),
    note TEXT,
    KEY (k)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4";

/// The content of row `n`.
const ROW: &str = "n, n MOD 10000, LEFT(SHA2(n, 256), 60), LEFT(SHA2(n + 2, 224), 10 + n MOD 20), (n MOD 1000000) / 100, n * 1.1e0,
    n MOD 2, '2026-01-01' + INTERVAL n SECOND, TIMESTAMP('2026-01-01 00:00:01') + INTERVAL n * 1001 MICROSECOND,
    ELT(1 + n MOD 3, 'a', 'b', 'c'), JSON_OBJECT('n', n, 's', LEFT(SHA2(n, 224), 16)), UNHEX(LEFT(SHA2(n, 224), 32)),
    CONCAT('note ', n, ' ünï')";

/// Rows per statement while loading.
const LOAD: u64 = 20_000;
/// Rows per transaction of a backlog.
const TRANSACTION: u64 = 100;

pub(crate) struct Loader {
    url: String,
}

impl Loader {
    /// Creates the table with `rows` rows.
    pub(crate) async fn create(url: &str, rows: u64) -> Result<Self> {
        let mut conn = mysql::connect(url).await?;
        conn.query_drop(TABLE).await?;
        // Numbers to select from: as many as the largest statement takes.
        conn.query_drop("CREATE TABLE numbers (i INT NOT NULL PRIMARY KEY); INSERT INTO numbers VALUES (0)")
            .await?;
        let mut have = 1;
        while have < LOAD {
            conn.query_drop(format!(
                "INSERT INTO numbers SELECT i + {have} FROM numbers WHERE i + {have} < {LOAD}"
            ))
            .await?;
            have *= 2;
        }
        let loader = Self { url: url.to_owned() };
        let mut first = 1;
        while first <= rows {
            let count = LOAD.min(rows - first + 1);
            insert(&mut conn, first, count).await?;
            first += count;
        }
        conn.disconnect().await?;
        Ok(loader)
    }

    /// Writes about `events` changes above the rows that are there: transactions of a hundred inserts and of a hundred updates, two to one.
    pub(crate) async fn backlog(&self, rows: u64, events: u64) -> Result<u64> {
        let mut conn = self.connect().await?;
        let (mut insert_at, mut update_at, mut written) = (rows + 1, 1, 0);
        while written < events {
            for _ in 0..2 {
                insert(&mut conn, insert_at, TRANSACTION).await?;
                insert_at += TRANSACTION;
            }
            let update = "UPDATE sbtest SET k = k + 1, price = price + 1, pad = LEFT(SHA2(id + k, 224), 24), ts = NOW(6) WHERE id BETWEEN ? AND ?";
            conn.exec_drop(update, (update_at, update_at + TRANSACTION - 1)).await?;
            written += 2 * TRANSACTION + conn.affected_rows();
            update_at = if update_at + 2 * TRANSACTION > rows { 1 } else { update_at + TRANSACTION };
        }
        conn.disconnect().await?;
        Ok(written)
    }

    /// Writes `count` transactions of one row, by eight connections.
    pub(crate) async fn singles(&self, count: u64) -> Result<()> {
        const WRITERS: u64 = 8;
        let first = self.top().await? + 1;
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let mut conn = self.connect().await?;
            tasks.spawn(async move {
                for id in (writer..count).step_by(WRITERS as usize) {
                    insert(&mut conn, first + id, 1).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Inserts rows in a transaction of their own.
    pub(crate) async fn transaction(conn: &mut Conn, first: u64, rows: u64) -> Result<()> {
        insert(conn, first, rows).await
    }

    /// Rows in the table now.
    pub(crate) async fn rows(&self) -> Result<u64> {
        self.ask("SELECT COUNT(*) FROM sbtest").await
    }

    /// The largest key.
    pub(crate) async fn top(&self) -> Result<u64> {
        self.ask("SELECT MAX(id) FROM sbtest").await
    }

    pub(crate) async fn connect(&self) -> Result<Conn> {
        mysql::connect(&self.url).await
    }

    async fn ask(&self, query: &str) -> Result<u64> {
        let mut conn = self.connect().await?;
        let answer: Option<u64> = conn.query_first(query).await?;
        conn.disconnect().await?;
        answer.context("an empty table")
    }
}

async fn insert(conn: &mut Conn, first: u64, count: u64) -> Result<()> {
    let query = format!(
        "INSERT INTO sbtest SELECT {ROW} FROM (SELECT i + {first} AS n FROM numbers WHERE i < {count}) AS numbered"
    );
    conn.query_drop(query).await.with_context(|| format!("insert rows from {first}"))
}
