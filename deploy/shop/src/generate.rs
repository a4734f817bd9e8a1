//! The shop's rows, as SQL value lists. Each row depends only on the seed, its table and its number.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Rows per table; orders have 1 to 4 lines (2.5 on average), nine of ten are paid: about 204,000 rows in all.
pub(crate) const CUSTOMERS: u64 = 20_000;
pub(crate) const PRODUCTS: u64 = 2_000;
pub(crate) const ORDERS: u64 = 40_000;
pub(crate) const WAREHOUSES: [&str; 3] = ["north", "center", "south"];

const FIRST: [&str; 16] = [
    "Ana", "Luis", "María", "Jorge", "Lucía", "Óscar", "Inés", "Raúl", "Noël", "Zoë", "Björn", "Chloé",
    "Ivan", "Olga", "Wei", "Aiko",
];
const LAST: [&str; 16] = [
    "García", "Núñez", "López", "Ibáñez", "Martín", "O'Brien", "Müller", "Smith", "Rossi", "Silva",
    "Kowalski", "Nguyễn", "Sato", "Li", "Haddad", "Åberg",
];
const CITIES: [&str; 8] =
    ["Madrid", "Bogotá", "Córdoba", "München", "København", "Lisboa", "São Paulo", "東京"];
const ADJECTIVES: [&str; 8] = ["small", "sturdy", "blue", "folding", "quiet", "wooden", "steel", "old"];
const NOUNS: [&str; 10] =
    ["kettle", "spade", "lamp", "puzzle", "atlas", "ladle", "hammer", "bucket", "kite", "bench"];

fn random(seed: u64, table: u64, row: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (table << 56) ^ row)
}

fn one<'a>(random: &mut SmallRng, of: &[&'a str]) -> &'a str {
    of[random.random_range(0..of.len())]
}

/// SQL text in quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn nullable(random: &mut SmallRng, one_in: u32, text: impl FnOnce(&mut SmallRng) -> String) -> String {
    if random.random_ratio(1, one_in) { "NULL".to_owned() } else { text(random) }
}

/// A time of the year 2025, as a SQL expression of seconds since its start.
fn time_of_2025(random: &mut SmallRng) -> String {
    let (day, second) = (random.random_range(0..365), random.random_range(0..86_400));
    format!("'2025-01-01' + INTERVAL {} SECOND", day * 86_400 + second)
}

pub(crate) fn customer(seed: u64, id: u64) -> String {
    let r = &mut random(seed, 1, id);
    let name = format!("{} {}", one(r, &FIRST), one(r, &LAST));
    let born = nullable(r, 6, |r| format!("'1940-01-01' + INTERVAL {} DAY", r.random_range(0..24_000)));
    let preferences = nullable(r, 4, |r| {
        format!(
            "'{{\"language\": \"{}\", \"discount\": {}.5, \"tags\": [\"a\", {}]}}'",
            one(r, &["es", "en", "de"]),
            r.random_range(0..30),
            id % 7
        )
    });
    format!(
        "({id},'customer{id}@example.org',{},{},{born},{}.{:02},{},{preferences},{},0)",
        quoted(&name),
        quoted(one(r, &CITIES)),
        r.random_range(0..2_000),
        r.random_range(0..100),
        u8::from(r.random_ratio(1, 3)),
        time_of_2025(r)
    )
}

pub(crate) fn product(seed: u64, id: u64) -> String {
    let r = &mut random(seed, 2, id);
    let name = format!("{} {}", one(r, &ADJECTIVES), one(r, &NOUNS));
    let category = one(r, &["garden", "kitchen", "tools", "toys", "books"]);
    let weight = nullable(r, 10, |r| format!("{}", r.random_range(0.05f32..40.0)));
    let description = nullable(r, 5, |r| quoted(&format!("A {name}. ").repeat(r.random_range(1..12))));
    format!(
        "({id},'SKU-{id:06}',{},'{category}',{},{weight},{description},UNHEX(MD5('{id}')))",
        quoted(&name),
        price(seed, id)
    )
}

/// The price of a product.
pub(crate) fn price(seed: u64, product: u64) -> String {
    let r = &mut random(seed, 3, product);
    format!("{}.{:02}", r.random_range(1..400), r.random_range(0..100))
}

pub(crate) fn stock(seed: u64, product: u64) -> Vec<String> {
    let r = &mut random(seed, 4, product);
    let row = |w: &&str, r: &mut SmallRng| {
        format!("({product},'{w}',{},{})", r.random_range(0..500), time_of_2025(r))
    };
    WAREHOUSES.iter().map(|w| row(w, r)).collect()
}

/// An order with its lines and, mostly, its payment.
pub(crate) struct Order {
    pub(crate) head: String,
    pub(crate) lines: Vec<String>,
    pub(crate) payment: Option<String>,
}

pub(crate) fn order(seed: u64, id: u64) -> Order {
    let r = &mut random(seed, 5, id);
    let lines = (1..=r.random_range(1..=4u64)).map(|line| order_line(seed, r, id, line)).collect();
    let paid = !r.random_ratio(1, 10);
    let state = if paid { one(r, &["paid", "sent", "sent", "returned"]) } else { "new" };
    let (placed, total) = (time_of_2025(r), r.random_range(100..90_000));
    let note = nullable(r, 2, |r| quoted(&format!("ring {} times, {}", r.random_range(1..4), one(r, &LAST))));
    let amount = format!("{}.{:02}", total / 100, total % 100);
    let payment = paid.then(|| {
        let method = one(r, &["card", "card", "transfer", "cash"]);
        let reference = nullable(r, 3, |_| format!("UNHEX(LEFT(MD5('{id}'), 20))"));
        format!(
            "({id},'{method}',{amount},{placed} + INTERVAL {} MICROSECOND,{reference})",
            r.random_range(1..80_000_000u64)
        )
    });
    let head = format!("({id},{},'{state}',{placed},{amount},{note},0)", r.random_range(1..=CUSTOMERS));
    Order { head, lines, payment }
}

fn order_line(seed: u64, r: &mut SmallRng, order: u64, line: u64) -> String {
    let product = r.random_range(1..=PRODUCTS);
    format!("({order},{line},{product},{},{})", r.random_range(1..6), price(seed, product))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_rows() {
        assert_eq!(customer(7, 12), customer(7, 12));
        assert_ne!(customer(7, 12), customer(8, 12));
        assert_eq!(order(7, 12).lines, order(7, 12).lines);
    }

    #[test]
    fn the_shop_has_about_two_hundred_thousand_rows() {
        let orders = (1..=ORDERS).map(|id| order(1, id));
        let of_orders: usize = orders.map(|o| 1 + o.lines.len() + usize::from(o.payment.is_some())).sum();
        let all = of_orders as u64 + CUSTOMERS + PRODUCTS * (1 + WAREHOUSES.len() as u64);
        assert!((190_000..210_000).contains(&all), "{all}");
    }
}
