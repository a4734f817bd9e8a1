//! The tables of the workload: an integer key, a key of two columns, a text key.

use anyhow::Result;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// The tables that the workload writes.
pub const TABLES: [&str; 3] = ["people", "orders", "tags"];

/// Order numbers are drawn per region.
pub(super) const REGIONS: [&str; 4] = ["north", "south", "east", "west"];

const CREATE: &str = "
CREATE TABLE people (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(60) NOT NULL,
    balance DECIMAL(12,2) NOT NULL DEFAULT 0,
    score DOUBLE,
    active TINYINT(1) NOT NULL DEFAULT 1,
    born DATE,
    seen TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    doc JSON,
    photo VARBINARY(64),
    version INT UNSIGNED NOT NULL DEFAULT 0
) ENGINE=InnoDB;
CREATE TABLE orders (
    region VARCHAR(8) NOT NULL,
    number INT NOT NULL,
    person BIGINT NOT NULL,
    amount DECIMAL(10,2) NOT NULL,
    state ENUM('new','paid','sent','returned') NOT NULL DEFAULT 'new',
    placed DATETIME(3) NOT NULL,
    note TEXT,
    version INT UNSIGNED NOT NULL DEFAULT 0,
    PRIMARY KEY (region, number)
) ENGINE=InnoDB;
CREATE TABLE tags (
    code VARCHAR(40) NOT NULL PRIMARY KEY,
    body TEXT NOT NULL,
    hits BIGINT UNSIGNED NOT NULL DEFAULT 0,
    version INT UNSIGNED NOT NULL DEFAULT 0
) ENGINE=InnoDB;
CREATE TABLE numbers (n INT NOT NULL PRIMARY KEY);
INSERT INTO numbers VALUES (1);
";

/// Every content is a function of the number, so that a run can be repeated.
const FILL: [&str; 3] = [
    "INSERT INTO people (id, name, balance, score, born, seen, doc, photo)
     SELECT n, CONCAT('Person ', n, ' ñ'), n / 7, n * 1.1e0, '1950-01-01' + INTERVAL n MOD 20000 DAY,
            TIMESTAMP('2026-01-01') + INTERVAL n * 1009 MICROSECOND,
            JSON_OBJECT('n', n, 'tags', JSON_ARRAY('a', n MOD 3)), UNHEX(SHA2(n, 224)) FROM numbers",
    "INSERT INTO orders (region, number, person, amount, state, placed, note)
     SELECT ELT(1 + n MOD 4, 'north', 'south', 'east', 'west'), n, 1 + n MOD 1000, n MOD 5000 / 100,
            1 + n MOD 4, TIMESTAMP('2026-01-01') + INTERVAL n SECOND, IF(n MOD 5 = 0, NULL, CONCAT('note ', n)) FROM numbers",
    "INSERT INTO tags (code, body, hits) SELECT CONCAT('tag-', n), REPEAT(SHA2(n, 224), 1 + n MOD 3), n FROM numbers",
];

pub(super) async fn create(conn: &mut Conn, rows: u32) -> Result<()> {
    conn.query_drop(CREATE).await?;
    let mut have = 1;
    while have < rows {
        let more = have.min(rows - have);
        conn.query_drop(format!("INSERT INTO numbers SELECT n + {have} FROM numbers WHERE n <= {more}"))
            .await?;
        have += more;
    }
    for statement in FILL {
        conn.query_drop(statement).await?;
    }
    conn.query_drop("DROP TABLE numbers").await?;
    Ok(())
}
