//! Our conversion of every character set against the server's own, for every character of one and two bytes, and those of
//! three where a set has them.

use super::server::{MARIADB, MYSQL, Server};
use caudal_mysql::charset::Charset;

/// Sequences that are one character in some multi-byte set.
fn sequences(charset: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![b]).collect();
    for lead in 0x81..=0xfeu8 {
        all.extend((0x40..=0xfeu8).map(|trail| vec![lead, trail]));
    }
    if matches!(charset, "ujis" | "eucjpms") {
        for second in 0xa1..=0xfeu8 {
            all.extend((0xa1..=0xfeu8).map(|third| vec![0x8f, second, third]));
        }
    }
    if charset == "gb18030" {
        for second in (0x30..=0x39u8).step_by(3) {
            for lead in (0x81..=0xfeu8).step_by(7) {
                all.extend((0x81..=0xfeu8).step_by(5).map(|third| vec![lead, second, third, 0x35]));
            }
        }
    }
    all
}

/// What the server makes of each sequence; none where it says that it is not well-formed.
async fn converted(server: &mut Server, charset: &str, sequences: &[Vec<u8>]) -> Vec<Option<String>> {
    let mut all = Vec::new();
    for part in sequences.chunks(500) {
        let hex = |s: &[u8]| s.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let each = |s: &Vec<u8>| format!("CONVERT(CONVERT(x'{}' USING {charset}) USING utf8mb4)", hex(s));
        let query = format!("SELECT {}", part.iter().map(each).collect::<Vec<_>>().join(","));
        all.extend(server.rows(&query).await.remove(0));
    }
    all
}

async fn every_charset_agrees(server: &mut Server) {
    server.run("SET SESSION sql_mode='STRICT_ALL_TABLES'").await;
    let sets = server.rows("SELECT character_set_name, maxlen FROM information_schema.character_sets").await;
    let mut report = Vec::new();
    for set in sets {
        let name = set[0].clone().expect("a name");
        if matches!(
            name.as_str(),
            "binary" | "filename" | "utf8mb3" | "utf8mb4" | "utf16" | "utf16le" | "utf32" | "ucs2"
        ) {
            continue;
        }
        let charset = Charset::by_name(&name).expect("every set of the server is known");
        let sequences = match set[1].as_deref() {
            Some("1") => (0..=255u8).map(|b| vec![b]).collect(),
            _ => sequences(&name),
        };
        let theirs = converted(server, &name, &sequences).await;
        let mut differ = Vec::new();
        let mut compared = 0;
        for (bytes, theirs) in sequences.iter().zip(theirs) {
            // What is not well-formed cannot be in a column: MySQL gives nothing for it, MariaDB a `?`.
            let ours = charset.text(bytes);
            let Some(theirs) = theirs.filter(|t| ours.is_some() || !(t.is_empty() || t.contains('?'))) else {
                continue;
            };
            compared += 1;
            if ours.as_deref() != Some(theirs.as_str()) {
                differ.push(format!("{bytes:02x?}: server {theirs:?}, ours {ours:?}"));
            }
        }
        println!("{name}: {compared} compared, {} differ", differ.len());
        if !differ.is_empty() {
            let step = (differ.len() / 60).max(1);
            report.push(format!(
                "{name}: {} of {compared} differ:\n  {}",
                differ.len(),
                differ.iter().step_by(step).cloned().collect::<Vec<_>>().join("\n  ")
            ));
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
}

#[tokio::test]
async fn every_character_set_of_mariadb_is_converted_as_it_does() {
    let Some(mut server) = Server::open(MARIADB, "wire_charsets").await else { return };
    every_charset_agrees(&mut server).await;
}

#[tokio::test]
async fn every_character_set_of_mysql_is_converted_as_it_does() {
    let Some(mut server) = Server::open(MYSQL, "wire_charsets").await else { return };
    every_charset_agrees(&mut server).await;
}
