//! A configuration in YAML for people: nothing that must stay secret is in it.

use super::secret::Fetched;
use super::tree::{Node, Value};
use std::fmt::Write;

/// Keys whose values are never shown, whatever node they stand in.
const SECRET: [&str; 8] =
    ["password", "api_key", "key_password", "secret", "token", "sasl_password", "auth_token", "passphrase"];
const HIDDEN: &str = "***";

/// The tree as YAML. What was fetched stands as the place that it came from.
#[must_use]
pub fn yaml(root: &Node, fetched: Option<&Fetched>) -> String {
    let mut out = String::new();
    node(&mut out, root, "", 0, fetched);
    out
}

fn node(out: &mut String, node: &Node, key: &str, depth: usize, fetched: Option<&Fetched>) {
    let indent = "  ".repeat(depth);
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            if depth > 0 {
                out.push('\n');
            }
            for (key, value) in entries {
                let _ = write!(out, "{indent}{}:", quoted(key));
                self::node(out, value, key, depth + 1, fetched);
            }
        }
        Value::List(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                let _ = write!(out, "{indent}-");
                self::node(out, item, key, depth + 1, fetched);
            }
        }
        value => {
            let _ = writeln!(out, " {}", scalar(value, key, fetched));
        }
    }
}

fn scalar(value: &Value, key: &str, fetched: Option<&Fetched>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Map(_) => "{}".to_owned(),
        Value::List(_) => "[]".to_owned(),
        Value::Text(text) => quoted(&safe(text, key, fetched)),
    }
}

/// A placeholder shows where a secret comes from; the secret itself does not show.
fn safe(text: &str, key: &str, fetched: Option<&Fetched>) -> String {
    let placeholder = fetched.and_then(|f| f.placeholder(text));
    if let Some(placeholder) = placeholder {
        return placeholder.to_owned();
    }
    let only_reference = text.starts_with("${") && text.find('}') == Some(text.len() - 1);
    if SECRET.contains(&key.to_ascii_lowercase().as_str()) && !only_reference {
        return HIDDEN.to_owned();
    }
    without_password(text)
}

/// The password of a URL, unless it is a placeholder. It may hold `@` and `/`: the last `@` ends it.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let Some((who, place)) = rest.rsplit_once('@') else { return text.to_owned() };
    match who.split_once(':') {
        Some((_, password)) if password.starts_with("${") && password.ends_with('}') => text.to_owned(),
        Some((user, _)) => format!("{scheme}://{user}:{HIDDEN}@{place}"),
        None => text.to_owned(),
    }
}

/// In quotes where YAML could read something else.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(plain);
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if word && !reserved.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    serde_json::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_and_holds_no_secret() {
        let text = "prefix: shop\nhttp:\n  api_key: geheim0123456789\nsources:\n  plex:\n    type: mysql\n    url: mysql://u:ge:h@eim@h/d\n    password: ${env:PW}\n    tables: [a, '!*_tmp']\n    none: []\n    n: 5\nsinks:\n  d:\n    url: postgres://u:${env:PG}@h/d\n";
        let shown = yaml(&Node::parse(text).unwrap(), None);
        assert!(!shown.contains("geheim") && !shown.contains("eim@"), "{shown}");
        for part in ["u:***@h/d", "\"${env:PW}\"", "u:${env:PG}@h/d", "\"!*_tmp\"", "\"n\": 5", "none: []"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(yaml(&Node::parse(&shown).unwrap(), None), shown);
    }
}
