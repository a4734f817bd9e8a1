//! Binary JSON against the server's own text, over documents made by a seed, whole and updated in parts.

use super::server::{MYSQL, Server, decode};
use caudal_mysql::binlog::{RowsOp, Start};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write;

/// Appends a document as the text of a JSON literal.
fn document(random: &mut SmallRng, depth: u32, out: &mut String) {
    let kind = if depth > 3 { random.random_range(0..8) } else { random.random_range(0..10) };
    let _ = match kind {
        0 => write!(out, "{}", ["null", "true", "false"][random.random_range(0..3)]),
        1 => write!(out, "{}", random.random::<i64>() >> random.random_range(0..64)),
        2 => write!(out, "{}", random.random::<u64>() >> random.random_range(0..64)),
        3 | 4 => write!(out, "{}", double(random)),
        5..=7 => write!(out, "{}", serde_json::Value::String(text(random))),
        8 => {
            out.push('[');
            members(
                random,
                depth,
                |random, i, out: &mut String| {
                    out.push_str(if i > 0 { "," } else { "" });
                    document(random, depth + 1, out);
                },
                out,
            );
            write!(out, "]")
        }
        _ => {
            out.push('{');
            members(
                random,
                depth,
                |random, i, out: &mut String| {
                    let _ = write!(
                        out,
                        "{}\"{i}{}\":",
                        if i > 0 { "," } else { "" },
                        "k".repeat(random.random_range(0..9))
                    );
                    document(random, depth + 1, out);
                },
                out,
            );
            write!(out, "}}")
        }
    };
}

fn members(
    random: &mut SmallRng,
    depth: u32,
    mut each: impl FnMut(&mut SmallRng, usize, &mut String),
    out: &mut String,
) {
    // Now and then so many that the container is of the large kind.
    let count = if depth == 3 && random.random_range(0..20) == 0 { 9000 } else { random.random_range(0..6) };
    for i in 0..count {
        each(random, i, out);
    }
}

fn double(random: &mut SmallRng) -> String {
    let value = match random.random_range(0..3) {
        0 => f64::from_bits(random.random()),
        1 => f64::from(random.random::<i32>()) / 1000.0,
        _ => random.random::<f64>() * 10f64.powi(random.random_range(-20..20)),
    };
    let value = if value.is_finite() && value.abs() < 1e300 { value } else { 0.5 };
    format!("{value:e}")
}

fn text(random: &mut SmallRng) -> String {
    let length = random.random_range(0..40);
    let character = |random: &mut SmallRng| match random.random_range(0..6) {
        0 => char::from(random.random_range(0..0x80u8)),
        1 => 'é',
        2 => '😀',
        3 => ['"', '\\', '/', '\u{7f}', '\u{2028}', '\u{1}'][random.random_range(0..6)],
        _ => char::from(random.random_range(b'a'..=b'z')),
    };
    (0..length).map(|_| character(random)).collect()
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[tokio::test]
async fn documents_are_printed_as_the_server_prints_them() {
    let Some(mut server) = Server::open(MYSQL, "wire_json").await else { return };
    let start = Start::Gtid(server.gtids().await);
    server.run("CREATE TABLE j (id INT PRIMARY KEY, v JSON)").await;
    let mut random = SmallRng::seed_from_u64(11);
    for chunk in 0..20 {
        let rows: Vec<_> = (0..100)
            .map(|n| {
                let mut text = String::new();
                document(&mut random, 0, &mut text);
                format!("({},{})", chunk * 100 + n, literal(&text))
            })
            .collect();
        server.run(&format!("INSERT INTO j VALUES {}", rows.join(","))).await;
    }
    let want = server.rows("SELECT id, v FROM j ORDER BY id").await;
    let schema = server.shape("j").await;
    let events = server.events(start).await;
    let rows = decode(&events, &schema);
    assert_eq!(rows.len(), want.len());
    for (row, want) in rows.iter().zip(&want) {
        let ours = row.after.as_ref().expect("an insert has an image after");
        assert!(ours == want, "\nours   {:.2000?}\nserver {:.2000?}", ours[1], want[1]);
    }
}

#[tokio::test]
async fn partial_updates_end_in_the_same_document_as_on_the_server() {
    let Some(mut server) = Server::open(MYSQL, "wire_json_partial").await else { return };
    server.run("SET SESSION binlog_row_value_options=PARTIAL_JSON").await;
    server.run("CREATE TABLE j (id INT PRIMARY KEY, x JSON, n INT, y JSON)").await;
    let filler = "x".repeat(200);
    server
        .run(&format!(
            r#"INSERT INTO j VALUES (1, '{{"a":1,"list":[1,[2,3],{{"q\\"uote":"v"}}],"o":{{"p":{{"q":5}}}},"fill":"{filler}"}}', 0, '[1,2,3,"{filler}"]'), (2, '{{"a":1}}', 0, NULL)"#
        ))
        .await;
    let start = Start::Gtid(server.gtids().await);
    let mut want = Vec::new();
    for change in [
        "x = JSON_SET(x, '$.a', 2)",
        "x = JSON_SET(x, '$.o.p.q', 'text', '$.list[1][0]', 9), y = JSON_SET(y, '$[1]', 'b')",
        "y = JSON_ARRAY_INSERT(y, '$[0]', 0), n = n + 1",
        "x = JSON_REMOVE(x, '$.o.p'), y = JSON_REMOVE(y, '$[0]')",
        "x = JSON_SET(x, '$.\"new key\"', JSON_OBJECT('z', 1.5e0), '$.bb', 1)",
        "x = JSON_REPLACE(x, '$.list[2].\"q\\\\\"uote\"', 'w')",
        "x = JSON_ARRAY_APPEND(x, '$.list', CAST('2024-01-02' AS DATE))",
        "n = 5",
        "x = '{}', y = NULL",
    ] {
        server.run(&format!("UPDATE j SET {change} WHERE id = 1")).await;
        want.push(server.rows("SELECT * FROM j WHERE id = 1").await.remove(0));
    }
    let schema = server.shape("j").await;
    let events = server.events(start).await;
    let partial = events.iter().filter(|e| match &e.kind {
        caudal_mysql::binlog::EventKind::Rows(rows) => rows.partial_json,
        _ => false,
    });
    assert!(partial.count() >= 6, "the server sends differences");
    let rows = decode(&events, &schema);
    let updates: Vec<_> = rows.into_iter().filter(|r| r.op == RowsOp::Update).collect();
    assert_eq!(updates.len(), want.len());
    for (row, want) in updates.iter().zip(&want) {
        assert_eq!(row.after.as_ref(), Some(want));
    }
}
