//! Ready-made steps of after-load jobs: what retailers asked for, with their own tables and columns as parameters.
//!
//! Each keeps a table of results, which it makes if it is missing, and writes only what has changed there: so readers see one result or the next,
//! and what follows the table by its changes sees few. Tables are named `table` or `schema.table`; all else that is given is SQL over
//! the table's columns, as the configuration's other statements are.

mod snapshot;

pub use snapshot::{Per, SameDay, Snapshot};

use crate::quote::ident;
use caudal_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// ABC classification: which products make up the first part of the sales (A), the next (B), and the rest (C).
///
/// Products are ordered by what they sold, the most first; one is A if those before it make up less than `a` percent of the whole, B if less
/// than `b`. Products that sold nothing are not in it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Abc {
    /// The table of sales.
    pub sales: String,
    /// What is classified: a column of the sales, or SQL over them.
    pub product: String,
    /// By what each is classified for itself: the store. Left out: all together.
    pub store: Option<String>,
    /// What a sale counts: `quantity * price`.
    pub amount: String,
    /// When it was; with it, only the last `days` count.
    pub at: Option<String>,
    /// How many days back sales count.
    #[serde(default = "ninety")]
    pub days: u32,
    /// Percent of the sales that are A.
    #[serde(default = "eighty")]
    #[schemars(range(min = 1, max = 99))]
    pub a: u8,
    /// Percent of the sales that are A or B.
    #[serde(default = "ninety_five")]
    #[schemars(range(min = 1, max = 100))]
    pub b: u8,
    /// The table of results: `store`, `product`, `amount`, `share`, `cumulative`, `rank`, `class`, `computed_at`.
    #[serde(default = "abc_table")]
    pub into: String,
}

/// Phantom zeros: products whose stock is told as none (or less), though they sell all the time: rather a mistake of the till than an empty shelf.
///
/// It is one if on at least `sold_on_days` of the last `days` it was sold, and within the last `recent_days` as well.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PhantomZeros {
    /// The table of the stock.
    pub stock: String,
    /// The product: a column of both tables, or SQL over either.
    pub product: String,
    /// The store, likewise. Left out: there is one.
    pub store: Option<String>,
    /// How many there are: a column of the stock.
    pub quantity: String,
    /// The table of sales.
    pub sales: String,
    /// The product in the table of sales, if it is called otherwise there.
    pub sales_product: Option<String>,
    /// The store, likewise.
    pub sales_store: Option<String>,
    /// When a sale was: a column of the sales.
    pub at: String,
    /// How many days back sales are looked at.
    #[serde(default = "thirty")]
    pub days: u32,
    /// On so many of them at least it was sold.
    #[serde(default = "five")]
    pub sold_on_days: u32,
    /// It was sold at least once within so many days.
    #[serde(default = "three")]
    pub recent_days: u32,
    /// The table of results: `store`, `product`, `quantity`, `sold_on_days`, `last_sold`, `since`, `resolved_at` (none while it lasts).
    #[serde(default = "phantom_table")]
    pub into: String,
}

fn ninety() -> u32 {
    90
}
fn thirty() -> u32 {
    30
}
fn five() -> u32 {
    5
}
fn three() -> u32 {
    3
}
fn eighty() -> u8 {
    80
}
fn ninety_five() -> u8 {
    95
}
fn abc_table() -> String {
    "abc_classification".to_owned()
}
fn phantom_table() -> String {
    "phantom_zeros".to_owned()
}

/// `table` or `schema.table`, quoted.
fn named(table: &str) -> Option<String> {
    let parts: Vec<&str> = table.split('.').collect();
    let fine = parts.len() <= 2 && parts.iter().all(|part| !part.is_empty() && !part.contains('\0'));
    fine.then(|| parts.iter().map(|part| ident(part)).collect::<Vec<_>>().join("."))
}

fn check_tables(tables: &[&String]) -> Result<()> {
    match tables.iter().find(|table| named(table).is_none()) {
        Some(table) => {
            Err(Error::config(format!("`{table}` is no table")).hint("write table, or schema.table"))
        }
        None => Ok(()),
    }
}

impl Abc {
    pub(crate) fn check(&self) -> Result<()> {
        check_tables(&[&self.sales, &self.into])?;
        if !(1..self.b).contains(&self.a) || self.b > 100 {
            return Err(Error::config(format!("a: {} and b: {} are no borders", self.a, self.b))
                .hint("0 < a < b <= 100, as a: 80, b: 95"));
        }
        Ok(())
    }

    pub(crate) fn sql(&self) -> String {
        let (sales, into) = (named(&self.sales).unwrap_or_default(), named(&self.into).unwrap_or_default());
        let Self { product, amount, days, a, b, .. } = self;
        let store = self.store.as_deref().unwrap_or("''");
        let since = self
            .at
            .as_ref()
            .map_or_else(String::new, |at| format!(" AND ({at}) >= now() - make_interval(days => {days})"));
        format!(
            "CREATE TABLE IF NOT EXISTS {into} (store text NOT NULL, product text NOT NULL, amount numeric NOT NULL, \
               share numeric NOT NULL, cumulative numeric NOT NULL, rank integer NOT NULL, class text NOT NULL, \
               computed_at timestamptz NOT NULL, PRIMARY KEY (store, product)); \
             WITH s AS (SELECT coalesce(({store})::text, '') AS store, ({product})::text AS product, sum({amount})::numeric AS amount \
               FROM {sales} WHERE ({product}) IS NOT NULL{since} GROUP BY 1, 2), \
             r AS (SELECT *, sum(amount) OVER (PARTITION BY store) AS total, \
               sum(amount) OVER w AS running, row_number() OVER w AS rank FROM s WHERE amount > 0 \
               WINDOW w AS (PARTITION BY store ORDER BY amount DESC, product ROWS UNBOUNDED PRECEDING)), \
             c AS (SELECT store, product, amount, round(amount / total, 6) AS share, round(running / total, 6) AS cumulative, \
               rank::integer AS rank, CASE WHEN (running - amount) * 100 < total * {a} THEN 'A' \
               WHEN (running - amount) * 100 < total * {b} THEN 'B' ELSE 'C' END AS class FROM r), \
             gone AS (DELETE FROM {into} AS t WHERE NOT EXISTS \
               (SELECT 1 FROM c WHERE c.store = t.store AND c.product = t.product)) \
             INSERT INTO {into} AS t SELECT c.*, now() FROM c ON CONFLICT (store, product) DO UPDATE SET amount = excluded.amount, \
               share = excluded.share, cumulative = excluded.cumulative, rank = excluded.rank, class = excluded.class, \
               computed_at = excluded.computed_at \
             WHERE (t.amount, t.share, t.cumulative, t.rank, t.class) \
               IS DISTINCT FROM (excluded.amount, excluded.share, excluded.cumulative, excluded.rank, excluded.class)"
        )
    }
}

impl PhantomZeros {
    pub(crate) fn check(&self) -> Result<()> {
        check_tables(&[&self.stock, &self.sales, &self.into])?;
        if self.store.is_none() && self.sales_store.is_some() {
            return Err(Error::config("sales_store without store").hint("give the stock's store too"));
        }
        Ok(())
    }

    pub(crate) fn sql(&self) -> String {
        let [stock, sales, into] =
            [&self.stock, &self.sales, &self.into].map(|table| named(table).unwrap_or_default());
        let Self { product, quantity, at, days, sold_on_days, recent_days, .. } = self;
        let store = self.store.as_deref().unwrap_or("''");
        let sales_product = self.sales_product.as_ref().unwrap_or(product);
        let sales_store = self.sales_store.as_deref().unwrap_or(store);
        format!(
            "CREATE TABLE IF NOT EXISTS {into} (store text NOT NULL, product text NOT NULL, quantity numeric NOT NULL, \
               sold_on_days integer NOT NULL, last_sold timestamptz NOT NULL, since timestamptz NOT NULL, \
               resolved_at timestamptz, PRIMARY KEY (store, product)); \
             WITH sold AS (SELECT coalesce(({sales_store})::text, '') AS store, ({sales_product})::text AS product, \
               count(DISTINCT ({at})::date)::integer AS sold_on_days, max({at})::timestamptz AS last_sold \
               FROM {sales} WHERE ({at}) >= now() - make_interval(days => {days}) GROUP BY 1, 2), \
             held AS (SELECT coalesce(({store})::text, '') AS store, ({product})::text AS product, sum({quantity})::numeric AS quantity \
               FROM {stock} GROUP BY 1, 2), \
             z AS (SELECT store, product, quantity, sold_on_days, last_sold FROM held JOIN sold USING (store, product) \
               WHERE quantity <= 0 AND sold_on_days >= {sold_on_days} AND last_sold >= now() - make_interval(days => {recent_days})), \
             over AS (UPDATE {into} AS t SET resolved_at = now() WHERE resolved_at IS NULL AND NOT EXISTS \
               (SELECT 1 FROM z WHERE z.store = t.store AND z.product = t.product)) \
             INSERT INTO {into} AS t SELECT z.*, now(), NULL FROM z ON CONFLICT (store, product) DO UPDATE SET \
               quantity = excluded.quantity, sold_on_days = excluded.sold_on_days, last_sold = excluded.last_sold, \
               since = CASE WHEN t.resolved_at IS NULL THEN t.since ELSE excluded.since END, resolved_at = NULL \
             WHERE t.resolved_at IS NOT NULL OR (t.quantity, t.sold_on_days, t.last_sold) \
               IS DISTINCT FROM (excluded.quantity, excluded.sold_on_days, excluded.last_sold)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_and_tables_that_cannot_be_meant_are_refused() {
        let abc = |json: serde_json::Value| {
            let mut all = serde_json::json!({"sales": "v", "product": "p", "amount": "n"});
            all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
            serde_json::from_value::<Abc>(all).unwrap().check()
        };
        assert!(abc(serde_json::json!({})).is_ok());
        for wrong in [
            serde_json::json!({"a": 95, "b": 80}),
            serde_json::json!({"a": 0}),
            serde_json::json!({"sales": "a.b.c"}),
            serde_json::json!({"into": ""}),
        ] {
            assert!(abc(wrong).unwrap_err().hint_text().is_some());
        }
    }
}
