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

/// Characters of all lengths in the sets of Unicode, in their bytes there.
fn unicode(charset: &str) -> Vec<Vec<u8>> {
    let beyond = !matches!(charset, "ucs2" | "utf8mb3" | "utf8");
    let points = (0..0x3000).chain((0x3000..0x1_0000).step_by(7)).chain([0xd7ff, 0xe000, 0xfffd]);
    let points = points
        .chain((0x1_0000..0x11_0000).step_by(997).filter(|_| beyond))
        .chain(beyond.then_some(0x10_ffff));
    let bytes = |c: char| -> Vec<u8> {
        let mut units = [0; 2];
        let units = c.encode_utf16(&mut units).iter();
        match charset {
            "utf16" | "ucs2" => units.flat_map(|u| u.to_be_bytes()).collect(),
            "utf16le" => units.flat_map(|u| u.to_le_bytes()).collect(),
            "utf32" => u32::from(c).to_be_bytes().to_vec(),
            _ => c.to_string().into_bytes(),
        }
    };
    points.filter_map(char::from_u32).map(bytes).collect()
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
        // Bytes, and the names of the server's files.
        if matches!(name.as_str(), "binary" | "filename") {
            continue;
        }
        let charset = Charset::by_name(&name).expect("every set of the server is known");
        let sequences = match (name.as_str(), set[1].as_deref()) {
            ("utf8" | "utf8mb3" | "utf8mb4" | "utf16" | "utf16le" | "utf32" | "ucs2", _) => unicode(&name),
            (_, Some("1")) => (0..=255u8).map(|b| vec![b]).collect(),
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
