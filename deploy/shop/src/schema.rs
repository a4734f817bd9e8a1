//! The shop's tables.

use anyhow::{Context, Result, bail};

/// The tables, each after those that it refers to.
pub(crate) const TABLES: [&str; 6] = ["customers", "products", "stock", "orders", "order_lines", "payments"];

pub(crate) const CREATE: &str = "
CREATE TABLE customers (
    id INT UNSIGNED NOT NULL PRIMARY KEY,
    email VARCHAR(120) NOT NULL,
    name VARCHAR(80) NOT NULL,
    city VARCHAR(40) NOT NULL,
    born DATE,
    credit DECIMAL(10,2) NOT NULL DEFAULT 0,
    newsletter TINYINT(1) NOT NULL DEFAULT 0,
    preferences JSON,
    registered DATETIME NOT NULL,
    version INT NOT NULL DEFAULT 0,
    UNIQUE KEY (email)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE products (
    id INT UNSIGNED NOT NULL PRIMARY KEY,
    sku CHAR(10) NOT NULL,
    name VARCHAR(80) NOT NULL,
    category ENUM('garden','kitchen','tools','toys','books') NOT NULL,
    price DECIMAL(8,2) NOT NULL,
    weight FLOAT,
    description TEXT,
    photo_hash BINARY(16) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE stock (
    product_id INT UNSIGNED NOT NULL,
    warehouse VARCHAR(10) NOT NULL,
    quantity INT NOT NULL,
    counted TIMESTAMP(3) NOT NULL,
    PRIMARY KEY (product_id, warehouse),
    FOREIGN KEY (product_id) REFERENCES products (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE orders (
    id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    customer_id INT UNSIGNED NOT NULL,
    state ENUM('new','paid','sent','returned') NOT NULL,
    placed DATETIME(3) NOT NULL,
    total DECIMAL(12,2) NOT NULL,
    note VARCHAR(200),
    version INT NOT NULL DEFAULT 0,
    KEY (customer_id),
    FOREIGN KEY (customer_id) REFERENCES customers (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE order_lines (
    order_id BIGINT UNSIGNED NOT NULL,
    line SMALLINT UNSIGNED NOT NULL,
    product_id INT UNSIGNED NOT NULL,
    quantity SMALLINT NOT NULL,
    price DECIMAL(8,2) NOT NULL,
    PRIMARY KEY (order_id, line),
    KEY (product_id),
    FOREIGN KEY (order_id) REFERENCES orders (id),
    FOREIGN KEY (product_id) REFERENCES products (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE payments (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    order_id BIGINT UNSIGNED NOT NULL,
    method ENUM('card','transfer','cash') NOT NULL,
    amount DECIMAL(12,2) NOT NULL,
    paid TIMESTAMP(6) NOT NULL,
    reference VARBINARY(20),
    KEY (order_id),
    FOREIGN KEY (order_id) REFERENCES orders (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
";

/// The database that a URL names.
///
/// # Errors
/// When it names none.
pub(crate) fn database_of(url: &str) -> Result<String> {
    let opts = mysql_async::Opts::from_url(url).context("the source's URL")?;
    match opts.db_name() {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => bail!("the source's URL names no database; write mysql://user:password@host:port/shop"),
    }
}
