use super::*;

fn text(document: &[u8]) -> Read<String> {
    let mut out = Vec::new();
    write(document, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// `{"a": 1, "b": "x", "cc": [null, true]}` as the server stores it.
fn document() -> Vec<u8> {
    let mut d = vec![SMALL_OBJECT, 3, 0, 0, 0];
    // Keys at 33, 34, 35; then values.
    for (at, length) in [(33u16, 1u16), (34, 1), (35, 2)] {
        d.extend_from_slice(&at.to_le_bytes());
        d.extend_from_slice(&length.to_le_bytes());
    }
    // The entries start at 16 of the object; three of 3 bytes end at 25. Pad to 33.
    d.extend_from_slice(&[INT16, 1, 0, STRING, 37, 0, 2, 39, 0]);
    d.extend_from_slice(&[0; 8]);
    d.extend_from_slice(b"abcc");
    d.extend_from_slice(&[1, b'x']);
    d.extend_from_slice(&[2, 0, 10, 0, LITERAL, 0, 0, LITERAL, 1, 0]);
    let size = (d.len() - 1) as u16;
    d[3..5].copy_from_slice(&size.to_le_bytes());
    d
}

#[test]
fn documents_are_printed_as_the_server_does() {
    assert_eq!(text(&document()).unwrap(), r#"{"a": 1, "b": "x", "cc": [null, true]}"#);
    assert_eq!(text(&[]).unwrap(), "null");
    assert_eq!(text(&[INT16, 0xff, 0xff]).unwrap(), "-1");
    assert_eq!(text(&[STRING, 5, b'a', 1, 8, b'"', b'\n']).unwrap(), "\"a\\u0001\\b\\\"\\n\"");
    assert_eq!(text(&[OPAQUE, 15, 3, 1, 2, 255]).unwrap(), "\"base64:type15:AQL/\"");
    assert_eq!(text(&[OPAQUE, FIELD_DECIMAL, 4, 3, 2, 0x81, 0x32]).unwrap(), "1.50");
}

#[test]
fn partial_updates_change_what_their_path_leads_to() {
    let change = |operation: u8, path: &str, value: &[u8]| {
        let mut c = vec![operation, path.len() as u8];
        c.extend_from_slice(path.as_bytes());
        if operation != 2 {
            c.push(value.len() as u8);
            c.extend_from_slice(value);
        }
        c
    };
    let patched = |changes: &[Vec<u8>]| {
        let mut out = Vec::new();
        write_patched(&document(), &changes.concat(), &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    let seven = [INT16, 7, 0];
    for (operation, path, want) in [
        (0, "$.a", r#"{"a": 7, "b": "x", "cc": [null, true]}"#),
        (0, "$.cc[1]", r#"{"a": 1, "b": "x", "cc": [null, 7]}"#),
        (1, "$.cc[0]", r#"{"a": 1, "b": "x", "cc": [7, null, true]}"#),
        (1, "$.cc[9]", r#"{"a": 1, "b": "x", "cc": [null, true, 7]}"#),
        (1, "$.\"b \\\"q\"", r#"{"a": 1, "b": "x", "cc": [null, true], "b \"q": 7}"#),
        (1, "$.ab", r#"{"a": 1, "b": "x", "ab": 7, "cc": [null, true]}"#),
        (2, "$.b", r#"{"a": 1, "cc": [null, true]}"#),
        (2, "$.cc[0]", r#"{"a": 1, "b": "x", "cc": [true]}"#),
        (0, "$", "7"),
    ] {
        assert_eq!(patched(&[change(operation, path, &seven)]).unwrap(), want, "{path}");
    }
    let two = patched(&[change(0, "$.a", &seven), change(2, "$.b", &[])]).unwrap();
    assert_eq!(two, r#"{"a": 7, "cc": [null, true]}"#);
    for bad in ["$.x.y", "a", "$[", "$.\"a", "$.cc[x]", "$.cc[5]"] {
        assert!(patched(&[change(0, bad, &seven)]).is_err(), "{bad}");
    }
}

/// A document whose members all point to the same member would have 2^n times its text.
#[test]
fn text_without_end_is_damage() {
    // An array that holds itself twice.
    let own = [3, 2, 0, 0, 0, 18, 0, 0, 0, 3, 0, 0, 0, 0, 3, 0, 0, 0, 0];
    assert!(text(&own).is_err());
    // An array of 20,000 references to one long string.
    let mut d = vec![LARGE_ARRAY];
    let count = 20_000u32;
    let at = 8 + count * 5;
    d.extend_from_slice(&count.to_le_bytes());
    d.extend_from_slice(&(at + 30_002).to_le_bytes());
    for _ in 0..count {
        d.push(STRING);
        d.extend_from_slice(&at.to_le_bytes());
    }
    d.extend_from_slice(&[
        0x80 | (29_999u32 & 0x7f) as u8,
        0x80 | (29_999u32 >> 7 & 0x7f) as u8,
        (29_999u32 >> 14) as u8,
    ]);
    d.resize(d.len() + 29_999, b'x');
    assert!(text(&d).is_err());
}

#[test]
fn every_cut_and_every_flipped_bit_is_damage_or_another_document() {
    let whole = document();
    for cut in 0..whole.len() {
        let _ = text(&whole[..cut]);
    }
    for bit in 0..whole.len() * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let _ = text(&bad);
    }
}
